//! A PostgreSQL starts, dies and comes back with its data, and leaves nothing behind.

use super::*;
use crate::eventually;
use crate::tests::Inner;
use std::net::TcpStream;

#[test]
fn a_server_has_databases_that_survive_its_crash_and_not_its_end() {
    if !PostgresServer::available() {
        return;
    }
    let postgres = PostgresServer::start();
    let (one, other) = (postgres.database(), postgres.database());
    assert_eq!(one.psql("select 1"), "1");
    assert_eq!(other.psql("select 1"), "1");
    one.psql("create table kept as select 'é' as letter, 2 as number");
    assert!(other.try_psql("table kept").unwrap_err().contains("does not exist"));

    let url = one.url();
    postgres.kill();
    assert!(!postgres.is_running());
    assert!(one.try_psql("select 1").unwrap_err().contains("Connection refused"));
    postgres.restart();
    assert_eq!(one.url(), url);
    assert_eq!(one.psql("table kept"), "é|2");

    postgres.restart(); // and one that runs can be restarted
    assert_eq!(one.psql("table kept"), "é|2");

    let directory = postgres.directory.0.clone();
    let address = ("127.0.0.1", postgres.port);
    assert!(directory.exists());
    let processes = std::thread::scope(|scope| {
        scope.spawn(|| other.try_psql(&busily("perform 1")));
        wait_until_busy(&other);
        let processes = processes_of(&postgres);
        drop(postgres);
        processes
    });
    assert!(!processes.iter().any(|id| lives(id)), "{processes:?}");
    assert!(!directory.exists());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_crash_interrupts_what_is_being_done() {
    if !PostgresServer::available() {
        return;
    }
    let postgres = PostgresServer::start();
    let database = postgres.database();
    database.psql("create table counted (number integer)");
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| database.try_psql(&busily("insert into counted values (1)")));
        wait_until_busy(&database);
        postgres.kill();
        assert_eq!(postgres.processes(), []);
        assert!(busy.join().unwrap().is_err());
    });
    postgres.restart();
    assert_eq!(database.psql("select count(*) from counted"), "0");
}

#[test]
fn the_shared_server_forgets_what_is_dropped() {
    if !PostgresServer::available() {
        return;
    }
    let (kept, dropped) = (PostgresServer::shared().database(), PostgresServer::shared().database());
    let name = dropped.psql("select current_database()");
    assert_ne!(name, kept.psql("select current_database()"));
    let count = format!("select count(*) from pg_database where datname = '{name}'");
    assert_eq!(kept.psql(&count), "1");

    let mut client = command(installed().unwrap(), "psql");
    client.args([&dropped.url(), "-c", &busily("perform 1")]).stderr(Stdio::null());
    let mut client = client.spawn().unwrap();
    wait_until_busy(&kept);
    drop(dropped);
    assert_eq!(kept.psql(&count), "0");
    assert!(!client.wait().unwrap().success());
}

#[tokio::test]
async fn a_killed_process_leaves_no_server_behind() {
    if !PostgresServer::available() {
        return;
    }
    if Inner::is_this() {
        let (postgres, busy) = (PostgresServer::shared(), PostgresServer::shared().database());
        std::thread::spawn(move || busy.try_psql(&busily("perform 1")));
        wait_until_busy(&postgres.database());
        let processes = processes_of(postgres).join(",");
        Inner::ready(&format!("{} {processes} {}", postgres.port, postgres.directory.0.display()));
        return std::future::pending().await;
    }
    let (inner, said) = Inner::run("postgres::tests::a_killed_process_leaves_no_server_behind");
    let said: Vec<_> = said.splitn(3, ' ').collect();
    let (port, processes, directory) = (said[0].parse::<u16>().unwrap(), said[1], Path::new(said[2]));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok() && directory.exists());
    drop(inner);
    eventually("the server and its directory are gone", async || {
        TcpStream::connect(("127.0.0.1", port)).is_err() && !directory.exists()
    })
    .await;
    assert!(!processes.split(',').any(lives), "{processes}");
}

/// SQL that does `what` and then goes on for a minute without waiting for anything, which is when it would notice that its
/// server is gone.
fn busily(what: &str) -> String {
    format!(
        "do $$ begin {what}; while clock_timestamp() < now() + interval '1 minute' loop end loop; end $$ /* busy */"
    )
}

/// Waits until the server does that, asked from any of its databases.
fn wait_until_busy(database: &Database) {
    let busy = "select count(*) from pg_stat_activity where state = 'active' and query like '%/* busy */'";
    waiting::poll(|| (database.psql(busy) == "1").then_some(())).expect("it is busy");
}

/// The numbers of its processes; none where the system does not tell.
fn processes_of(postgres: &PostgresServer) -> Vec<String> {
    let processes: Vec<_> = postgres.processes().iter().map(u32::to_string).collect();
    assert!(processes.len() > 1 || !Path::new("/proc/self").exists(), "{processes:?}");
    processes
}

/// Whether it runs. One that has ended and has not been waited for is still listed, and is nowhere.
fn lives(process: &str) -> bool {
    fs::read_link(format!("/proc/{process}/cwd")).is_ok()
}
