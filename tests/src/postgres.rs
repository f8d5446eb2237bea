//! A PostgreSQL server of a test's own: its life, and empty databases on it. What is in those is the affair of the tests.

mod account;
mod database;
mod programs;
#[cfg(test)]
mod tests;

use crate::ports::free_port;
use crate::reaper::{self, End, Guarded};
use crate::setup::Directory;
use crate::waiting::{self, DEADLINE};
use account::Account;
pub use database::Database;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// A running PostgreSQL with a directory and a port of its own; both go when it is dropped, or when the process ends.
///
/// ```no_run
/// use messaging_tests::PostgresServer;
///
/// if PostgresServer::available() {
///     // Most tests share one server and have a database of their own.
///     let database = PostgresServer::shared().database();
///     database.psql("create table cameras (id bigint primary key)");
///
///     // A test that kills its server has one of its own.
///     let postgres = PostgresServer::start();
///     postgres.kill();
///     postgres.restart();
/// }
/// ```
#[derive(Debug)]
pub struct PostgresServer {
    // Dropped in this order: the processes end before their directory goes.
    process: Mutex<Option<Guarded>>,
    port: u16,
    programs: PathBuf,
    /// If the tests are run by root.
    account: Option<Account>,
    directory: Directory,
}

/// What differs from the defaults.
///
/// Nothing waits for the disk: it is processes that crash here, never the machine, and what they have written survives them.
/// But pages go to the log in full, as by default, because a process that is killed may have written half of one.
const SETTINGS: [&str; 5] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "max_connections=300",
    // In files of its directory, which go with it, also after a crash.
    "dynamic_shared_memory_type=mmap",
];

/// Why the process did not come to answer.
enum Failure {
    /// The port, or what an earlier process has not yet let go of.
    Taken,
    Other(String),
}

impl PostgresServer {
    /// Whether there is a PostgreSQL to start, in the directory that `MESSAGING_TEST_POSTGRES` names or, without that, in the
    /// usual ones. If not, this prints why, and the test has nothing to do: `cargo xtask test` lists the suite as skipped.
    ///
    /// # Panics
    ///
    /// If there is none and `CI=true` says that every suite has to run, or if `MESSAGING_TEST_POSTGRES` is wrong.
    #[must_use]
    #[allow(clippy::print_stdout, reason = "the output of a test is where one looks for why it did nothing")]
    pub fn available() -> bool {
        const MISSING: &str = "no PostgreSQL found; `cargo xtask test --postgres` installs it";
        let found = Self::is_installed();
        if !found {
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "under CI=true every suite has to run: {MISSING}"
            );
            println!("skipped: {MISSING}");
        }
        found
    }

    /// The same for who skips in words of his own: it prints nothing and demands nothing.
    ///
    /// # Panics
    ///
    /// If `MESSAGING_TEST_POSTGRES` is wrong.
    #[must_use]
    pub fn is_installed() -> bool {
        installed().is_some()
    }

    /// A server with no databases but its own, on a free port. It takes a second or two: most tests can do with
    /// [`shared`](Self::shared).
    ///
    /// # Panics
    ///
    /// If there is no PostgreSQL, or if it ends or takes no connections within 30 seconds; the message holds its log.
    #[must_use]
    pub fn start() -> Self {
        let programs = installed().expect("a test asks `PostgresServer::available()` first").to_owned();
        let directory = Directory::make("postgres");
        let account = Account::instead_of_root(&directory.0);
        let mut server = Self { process: Mutex::new(None), port: 0, programs, account, directory };
        server.initialise();
        // A port that was free a moment ago may be taken by now; then the next one.
        let mut tries = 5;
        loop {
            server.port = free_port();
            match server.run() {
                Ok(()) => return server,
                Err(Failure::Taken) if tries > 0 => tries -= 1,
                Err(failure) => server.give_up(&failure),
            }
        }
    }

    /// The server that all tests of one process share: started on first use, gone when the process is.
    ///
    /// A test keeps to a [`database`](Self::database) of its own and does not kill this server.
    ///
    /// # Panics
    ///
    /// See [`start`](Self::start).
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<PostgresServer> = LazyLock::new(PostgresServer::start);
        &SHARED
    }

    /// A new, empty database.
    ///
    /// # Panics
    ///
    /// If the server does not make one.
    #[must_use]
    pub fn database(&self) -> Database {
        Database::make(&self.programs, self.port)
    }

    /// Kills all of its processes at once, as a crash would. What was committed survives it.
    ///
    /// # Panics
    ///
    /// If they do not go within 30 seconds.
    pub fn kill(&self) {
        let Some(process) = self.process().take() else { return };
        process.kill();
        // The others notice, but not before they have done what they are at, and may commit it: that would be no crash.
        let gone = waiting::poll(|| {
            let left = self.processes();
            if left.is_empty() {
                return Some(());
            }
            // Fails if one has gone meanwhile.
            reaper::send("KILL", &left);
            None
        });
        gone.expect("what is killed goes");
    }

    /// Starts it again with its data and on its port, and waits until it takes connections. If it runs, it is
    /// [killed](Self::kill) first.
    ///
    /// # Panics
    ///
    /// If it takes no connections within 30 seconds; the message holds its log.
    pub fn restart(&self) {
        self.kill();
        // Another process may have the port for a moment.
        let outcome = waiting::poll(|| match self.run() {
            Err(Failure::Taken) => None,
            outcome => Some(outcome),
        });
        if let Err(failure) = outcome.unwrap_or(Err(Failure::Taken)) {
            self.give_up(&failure);
        }
    }

    /// Whether the server runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process().as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// What the server has logged since it was first started.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.directory.0.join("log")).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }
}

impl PostgresServer {
    fn data(&self) -> PathBuf {
        self.directory.0.join("data")
    }

    /// Makes what the server keeps its databases in.
    fn initialise(&self) {
        let mut command = self.command("initdb");
        command.arg("--pgdata").arg(self.data()).args(["--username", "postgres", "--auth", "trust"]);
        command.args(["--encoding", "UTF8", "--no-locale", "--no-sync"]);
        let mut process = self.spawn(&mut command, End::Kill);
        let status = waiting::poll(|| process.ended());
        assert!(status.is_some_and(|it| it.success()), "initdb failed; what it said:\n{}", self.log());
    }

    /// Starts the server and waits until it takes connections.
    fn run(&self) -> Result<(), Failure> {
        let already_logged = self.log().len();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let process = self.spawn(&mut command, End::Quit);
        let id = process.id();
        *self.process() = Some(process);

        let answered = waiting::poll(|| match self.takes_connections(id) {
            true => Some(true),
            false => (!self.is_running()).then_some(false),
        });
        match answered {
            Some(true) => Ok(()),
            Some(false) => {
                let log = self.log();
                let news = log.get(already_logged..).unwrap_or(&log);
                // Of a port, and of the memory that children of a killed server have until they end.
                if ["Address already in use", "is still in use"].iter().any(|taken| news.contains(taken)) {
                    return Err(Failure::Taken);
                }
                Err(Failure::Other("ended".to_owned()))
            }
            None => Err(Failure::Other(format!("took no connections within {DEADLINE:?}"))),
        }
    }

    /// Whether the server that is process `id` says so in its file: the first line is its number, the eighth its state. To
    /// try a connection would tell less: another server may have taken the port.
    fn takes_connections(&self, id: u32) -> bool {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        lines.next() == Some(&id.to_string()) && lines.nth(6) == Some("ready")
    }

    /// The processes of the server: all that are at home in its data, where the system tells.
    fn processes(&self) -> Vec<u32> {
        let Ok(data) = self.data().canonicalize() else { return Vec::new() };
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let at_home =
            all.filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|it| it == data));
        at_home.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
    }

    /// One of PostgreSQL's programs that act on the data.
    fn command(&self, program: &str) -> Command {
        let mut command = command(&self.programs, program);
        command.current_dir(&self.directory.0);
        if let Some(account) = self.account {
            account.run(&mut command);
        }
        command
    }

    /// Starts it; what it says goes to the log.
    fn spawn(&self, command: &mut Command, end: End) -> Guarded {
        let log_path = self.directory.0.join("log");
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.and_then(|log| Ok((log.try_clone()?, log)));
        let (output, errors) =
            log.unwrap_or_else(|error| panic!("cannot write {}: {error}", log_path.display()));
        command.stdout(output).stderr(errors);
        Guarded::spawn(command, Some(&self.directory.0), end).unwrap_or_else(|error| {
            let (program, directory) = (command.get_program().display(), self.directory.0.display());
            panic!("cannot run {program} in {directory} (by {:?}): {error}", self.account)
        })
    }

    fn give_up(&self, failure: &Failure) -> ! {
        let what = match failure {
            Failure::Taken => "found its port taken again and again",
            Failure::Other(what) => what,
        };
        panic!("postgres {what}; its log:\n{}", self.log())
    }

    fn process(&self) -> MutexGuard<'_, Option<Guarded>> {
        // A test that panicked meanwhile leaves it as good as it was.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the programs are; they stay there.
fn installed() -> Option<&'static Path> {
    static FOUND: LazyLock<Result<Option<PathBuf>, String>> = LazyLock::new(programs::find);
    FOUND.as_ref().unwrap_or_else(|wrong| panic!("{wrong}")).as_deref()
}

/// One of the programs, in English, and with no idea of other servers that the environment may speak of.
fn command(programs: &Path, program: &str) -> Command {
    let mut command = Command::new(programs.join(program));
    command.stdin(Stdio::null()).env("LC_ALL", "C");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command
}
