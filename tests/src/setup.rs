//! What a server is set up with: its options, its directory, its ports, and the URLs that follow from them. It runs nothing.

use crate::certificates::TlsFiles;
use crate::ports::free_port;
use crate::resp::Address;
#[cfg(doc)]
use crate::server::RedisServer;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What a [`RedisServer`] is started with.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing runs before `.start()`"]
pub struct RedisBuilder {
    unix_socket: bool,
    tls: Option<Certificates>,
    pub(crate) sentinel: bool,
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
    /// port too ([`RedisServer::plain_url`]). Clients need no certificate unless `.arg("--tls-auth-clients", "yes")` says so.
    ///
    /// Not every `redis-server` can: a test that needs it asks [`RedisServer::has_tls`] first.
    pub fn tls(mut self) -> Self {
        self.tls = Some(Certificates::Own);
        self
    }

    /// The same with the certificates of another server, which has to live at least as long. They trust each other, as
    /// the nodes of a cluster must.
    pub(crate) fn tls_with(mut self, files: &TlsFiles) -> Self {
        self.tls = Some(Certificates::Shared(files.clone()));
        self.arg("--tls-replication", "yes")
    }

    /// Runs as a sentinel.
    pub(crate) fn sentinel(mut self) -> Self {
        self.sentinel = true;
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
}

/// Whose certificates a server with TLS has.
#[derive(Clone, Debug)]
enum Certificates {
    Own,
    Shared(TlsFiles),
}

/// A directory with everything that `redis-server` needs, and the ways in.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) directory: Directory,
    /// Without TLS.
    pub(crate) address: Address,
    pub(crate) tls: Option<(u16, TlsFiles)>,
    pub(crate) password: Option<String>,
    pub(crate) sentinel: bool,
}

impl Setup {
    /// Chooses free ports, and writes what `redis-server` reads.
    pub(crate) fn make(builder: &RedisBuilder) -> Self {
        let directory = Directory::make("redis");
        let tls = builder.tls.as_ref().map(|certificates| match certificates {
            Certificates::Own => (free_port(), TlsFiles::make(&directory.0)),
            Certificates::Shared(files) => (free_port(), files.clone()),
        });
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
            // What it is itself a client of: its master, the other nodes of a cluster.
            line("tls-client-cert-file", &quoted(&files.certfile));
            line("tls-client-key-file", &quoted(&files.keyfile));
        }
        if let Some(password) = &builder.password {
            line("requirepass", &quoted(Path::new(password)));
        }
        text.extend(builder.lines.iter().flat_map(|line| [line, "\n"]));
        let path = directory.0.join("redis.conf");
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        Self { directory, address, tls, password: builder.password.clone(), sentinel: builder.sentinel }
    }

    /// The URL that clients are given.
    pub(crate) fn url_as(&self, user: &str, password: &str) -> String {
        match &self.tls {
            Some((port, _)) => format!("rediss://{}127.0.0.1:{port}", credentials(user, password)),
            None => self.address_as(user, password),
        }
    }

    /// The URL without TLS.
    pub(crate) fn address_as(&self, user: &str, password: &str) -> String {
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

/// A directory under the system's temporary one: the path of a unix socket must not exceed some 100 bytes.
#[derive(Debug)]
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn make(program: &str) -> Self {
        let path = std::env::temp_dir().join(crate::unique(program));
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

pub(crate) fn credentials(user: &str, password: &str) -> String {
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
