//! The support library keeps its own promises: a server starts, stops, pauses and comes back, and leaves nothing behind.

use crate::{Python, RedisServer, eventually, free_port, shared_redis, unique};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[test]
fn a_server_starts_stops_and_starts_again_on_its_port() {
    let redis = RedisServer::start();
    assert_eq!(redis.cli(&["PING"]), "PONG");
    assert_eq!(redis.cli(&["CONFIG", "GET", "save"]), "save\n");
    let url = redis.url();
    redis.cli(&["SET", "key", "value"]);

    redis.stop();
    assert!(!redis.is_running());
    assert!(TcpStream::connect(("127.0.0.1", redis.port())).is_err());

    redis.start_again();
    assert_eq!(redis.url(), url);
    assert_eq!(redis.cli(&["GET", "key"]), "(nil)");
}

#[test]
fn an_append_only_file_survives_a_stop() {
    let redis = RedisServer::builder().arg("--appendonly", "yes").start();
    redis.cli(&["SET", "key", "value"]);
    redis.stop();
    redis.start_again();
    assert_eq!(redis.cli(&["GET", "key"]), "value");
}

#[test]
fn a_paused_server_accepts_and_does_not_answer() {
    let redis = RedisServer::start();
    redis.pause();
    assert!(redis.is_running());
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.read(&mut [0; 16]).is_err());

    redis.resume();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");

    redis.pause(); // and a paused server can be dropped
}

#[test]
fn a_dropped_server_leaves_nothing_behind() {
    let redis = RedisServer::start();
    let directory = redis.cli(&["CONFIG", "GET", "dir"]).lines().nth(1).unwrap().to_owned();
    let port = redis.port();
    assert!(Path::new(&directory).join("redis.conf").exists());
    drop(redis);
    assert!(!Path::new(&directory).exists());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[tokio::test]
async fn a_killed_process_leaves_no_server_behind() {
    if Inner::is_this() {
        let redis = shared_redis();
        let directory = redis.cli(&["CONFIG", "GET", "dir"]).lines().nth(1).unwrap().to_owned();
        Inner::ready(&format!("{} {directory}", redis.port()));
        return std::future::pending().await;
    }
    let (inner, said) = Inner::run("tests::a_killed_process_leaves_no_server_behind");
    let (port, directory) = said.split_once(' ').unwrap();
    let (address, directory) = (format!("127.0.0.1:{port}"), Path::new(directory));
    assert!(TcpStream::connect(&address).is_ok() && directory.exists());

    drop(inner);
    eventually("the server and its directory are gone", async || {
        TcpStream::connect(&address).is_err() && !directory.exists()
    })
    .await;
}

/// A test that runs itself once more, in a process that is killed when this is dropped. The environment tells the inner one.
pub(crate) struct Inner(Child);

impl Inner {
    const VARIABLE: &str = "MESSAGING_TESTS_TO_BE_KILLED";

    /// Whether this is the process that will be killed.
    pub(crate) fn is_this() -> bool {
        std::env::var_os(Self::VARIABLE).is_some()
    }

    /// Tells the outer one what it has to know, and that everything is there.
    pub(crate) fn ready(what: &str) {
        println!("\nready {what}");
    }

    /// Runs the test with this name until it is ready; with what it tells.
    pub(crate) fn run(test: &str) -> (Self, String) {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(Self::VARIABLE, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let inner = Self(process);
        let said =
            lines.map_while(Result::ok).find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
        (inner, said.unwrap())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_unix_socket_is_the_only_way_in() {
    let redis = RedisServer::builder().unix_socket().password("p@ss \"word\"").start();
    assert_eq!(redis.cli(&["CONFIG", "GET", "port"]), "port\n0");
    let url = redis.url();
    assert!(url.starts_with("redis+unix:///") && url.ends_with("?pass=p%40ss%20%22word%22"), "{url}");
}

#[test]
fn passwords_and_users_are_checked() {
    let redis =
        RedisServer::builder().password("s/cret").acl("user reader on >open ~* &* +@read +ping").start();
    let port = redis.port();
    assert_eq!(redis.url(), format!("redis://:s%2Fcret@127.0.0.1:{port}"));
    assert_eq!(redis.url_for("reader", "open"), format!("redis://reader:open@127.0.0.1:{port}"));
    assert_eq!(redis.cli(&["ACL", "WHOAMI"]), "default");
    assert_eq!(redis.cli(&["AUTH", "reader", "open"]), "OK");
    let refused = redis.try_cli(&["AUTH", "reader", "wrong"]).unwrap_err();
    assert!(refused.starts_with("WRONGPASS"), "{refused}");
}

#[test]
fn options_reach_the_server() {
    let redis = RedisServer::builder()
        .arg("--maxmemory", "8mb")
        .arg("--client-output-buffer-limit", "pubsub 1mb 1mb 5")
        .start();
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"]), format!("maxmemory\n{}", 8 << 20));
    assert!(
        redis.cli(&["CONFIG", "GET", "client-output-buffer-limit"]).ends_with("pubsub 1048576 1048576 5")
    );
    assert!(redis.version() >= (6, 0));
}

#[test]
#[should_panic(expected = "redis-server ended; its log")]
fn a_server_that_ends_shows_its_log() {
    let _ = RedisServer::builder().arg("--maxmemory", "lots").start();
}

#[test]
fn a_tls_server_listens_twice() {
    if !RedisServer::has_tls() {
        return;
    }
    let redis = RedisServer::builder().tls().start();
    let plain = redis.plain_url();
    assert_eq!(redis.url(), format!("rediss://127.0.0.1:{}", redis.port()));
    assert!(
        plain.starts_with("redis://127.0.0.1:") && !plain.ends_with(&redis.port().to_string()),
        "{plain}"
    );
    assert!(TcpStream::connect(("127.0.0.1", redis.port())).is_ok());
    let files = redis.tls_files();
    for file in [&files.ca_certs, &files.certfile, &files.keyfile] {
        assert!(std::fs::read_to_string(file).unwrap().starts_with("-----BEGIN "));
    }
}

#[test]
fn the_shared_server_is_one() {
    assert_eq!(shared_redis().url(), shared_redis().url());
    assert_eq!(shared_redis().cli(&["PING"]), "PONG");
}

#[test]
fn names_and_ports_are_unique() {
    let names: HashSet<_> = (0..100).map(|_| unique("name")).collect();
    assert_eq!(names.len(), 100);
    assert!(names.iter().all(|name| !name.contains(['.', ':', '*', '?', '[', ']', '\\', ' '])));
    let ports: HashSet<_> = (0..100).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 100);
}

#[tokio::test]
async fn eventually_asks_until_it_is_so() {
    let mut left = 3;
    eventually("the condition is met", async || {
        left -= 1;
        left == 0
    })
    .await;
    assert_eq!(left, 0);
    assert_eq!(eventually("there is a value", async || Some("value")).await, "value");
}

#[tokio::test]
async fn python_scripts_are_talked_with() {
    let Some(python) = Python::find() else { return };
    let mut script = python.run(
        "import sys, redis\nclient = redis.Redis.from_url(sys.argv[1])\nfor line in sys.stdin: print(client.echo(line.strip()).decode())",
        &[&shared_redis().url()],
    );
    script.send_line("one");
    script.send_line("two");
    assert_eq!(script.read_line().await, "one");
    assert_eq!(script.read_line().await, "two");
    script.finish().await;
}

#[test]
fn sentinels_promote_a_replica() {
    let sentinel = crate::Sentinel::start();
    let first = sentinel.master().port();
    sentinel.failover();
    assert_ne!(sentinel.master().port(), first);
    sentinel.settled();
    sentinel.master().stop();
    sentinel.wait_for_another_than(sentinel.servers().iter().find(|server| !server.is_running()).unwrap());
}

#[test]
fn a_cluster_moves_slots_and_replaces_primaries() {
    let cluster = crate::Cluster::start();
    let slot = cluster.slot_of("foo");
    assert_eq!(slot, 12_182);
    let from = cluster.owner_of(slot);
    from.cli(&["SET", "foo", "1"]);
    let to = cluster.nodes().iter().take(3).find(|node| node.port() != from.port()).unwrap();
    cluster.migrate_slot(slot, to);
    assert_eq!(to.cli(&["GET", "foo"]), "1");
    to.stop();
    crate::waiting::poll(|| (cluster.owner_of(slot).port() != to.port()).then_some(())).unwrap();
    cluster.settled();
}
