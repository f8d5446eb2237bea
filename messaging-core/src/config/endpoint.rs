//! Where messages go, read from a URL and printed without its password.

mod several;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::wrong_url;
use crate::error::{Error, ErrorKind, Result};

/// Where messages go: an in-process backend or a Redis. Prints itself without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(pub(crate) Kind);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In this process: private without a name, shared with everyone who uses the same name with one.
    Memory(Option<String>),
    Redis(Server),
}

/// One Redis, of one server or of several.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) topology: Topology,
    pub(crate) database: i64,
    pub(crate) credentials: Credentials,
}

/// How the server to connect to is found.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Topology {
    Fixed(Address),
    /// The sentinels know which server is the master at the moment.
    Sentinel {
        sentinels: Vec<Address>,
        master: String,
        /// Those of the sentinels; the servers' own are in [`Server`].
        credentials: Credentials,
    },
    /// Some nodes of a cluster, which know the others.
    Cluster(Vec<Address>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Address {
    Tcp { host: String, port: u16, tls: bool },
    Unix(PathBuf),
}

#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

const SCHEMES: &str = "memory://, memory://name, redis://host:port/db, rediss://host:port/db, \
    redis+unix:///path/to/socket, redis+sentinel://host:port,host:port/master/db, redis+cluster://host:port,host:port \
    (rediss+sentinel://, rediss+cluster:// with TLS)";

impl Endpoint {
    /// Who we are to Redis, if that is said.
    pub(crate) fn user(&self) -> Option<&str> {
        match &self.0 {
            Kind::Memory(_) => None,
            Kind::Redis(server) => server.credentials.username.as_deref(),
        }
    }

    /// `Err` is the reason, without any text of the URL but its scheme: it may be a password, or a part of one.
    pub(super) fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        let is_scheme =
            |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
            return Err(format!("has no scheme; it accepts {SCHEMES}").into());
        };
        match scheme {
            "memory" => match rest {
                "" => Ok(Self(Kind::Memory(None))),
                name if name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) => {
                    Ok(Self(Kind::Memory(Some(name.to_owned()))))
                }
                _ => {
                    Err("has a name with other characters than letters, digits and `-_.` after memory://"
                        .into())
                }
            },
            "redis" | "rediss" => parse_tcp(text, scheme == "rediss").map_err(|reason| advised(reason, rest)),
            "redis+sentinel" | "rediss+sentinel" => {
                several::parse_sentinel(rest, scheme.starts_with("rediss"))
                    .map_err(|reason| advised(reason, rest))
            }
            "redis+cluster" | "rediss+cluster" => several::parse_cluster(rest, scheme.starts_with("rediss"))
                .map_err(|reason| advised(reason, rest)),
            "redis+unix" | "unix" => parse_unix(text),
            _ => Err(format!("has the unknown scheme `{scheme}://`; it accepts {SCHEMES}").into()),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let Kind::Redis(server) = &self.0 else { return Ok(()) };
        for address in server.topology.addresses() {
            match address {
                Address::Tcp { tls: true, .. } if !cfg!(feature = "tls") => {
                    return Err(Error::new(
                        ErrorKind::Configuration,
                        format!(
                            "{self} needs TLS, which is not compiled in; add the feature `tls` of messaging-core"
                        ),
                    ));
                }
                Address::Unix(_) if !cfg!(unix) => {
                    let text = format!("{self}: this system has no unix sockets");
                    return Err(Error::new(ErrorKind::Configuration, text));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Topology {
    /// The addresses that the URL names.
    pub(crate) fn addresses(&self) -> &[Address] {
        match self {
            Self::Fixed(address) => std::slice::from_ref(address),
            Self::Sentinel { sentinels, .. } => sentinels,
            Self::Cluster(nodes) => nodes,
        }
    }
}

/// The reason why a URL is refused, with what to do if it may be a character of the password.
fn advised(reason: Cow<'static, str>, rest: &str) -> Cow<'static, str> {
    let after_authority = rest.find(['/', '?', '#']).map_or("", |end| &rest[end..]);
    if after_authority.contains('@') {
        format!("{reason}; in a password `/`, `?` and `#` are written %2F, %3F and %23").into()
    } else {
        reason
    }
}

fn parse_tcp(text: &str, tls: bool) -> Result<Endpoint, Cow<'static, str>> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    let address = parse_address(&url, 6379, tls)?;
    let database = parse_database(url.path().trim_matches('/'))?;
    if url.query().is_some_and(|query| !query.is_empty()) {
        return Err("has a parameter and accepts none; the database is written /0".into());
    }
    if url.fragment().is_some() {
        return Err("has a `#`".into());
    }
    let credentials = Credentials::decode(url.username(), url.password().unwrap_or_default())?;
    Ok(Endpoint(Kind::Redis(Server { topology: Topology::Fixed(address), database, credentials })))
}

fn parse_address(url: &Url, default_port: u16, tls: bool) -> Result<Address, Cow<'static, str>> {
    let host = match url.host() {
        None | Some(Host::Domain("")) => return Err("names no host".into()),
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(host) => host.to_string(),
    };
    if url.port() == Some(0) {
        return Err("names port 0; it accepts a port number from 1 to 65535".into());
    }
    Ok(Address::Tcp { host, port: url.port().unwrap_or(default_port), tls })
}

fn parse_unix(text: &str) -> Result<Endpoint, Cow<'static, str>> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if url.host_str().is_some_and(|host| !host.is_empty()) || url.path().len() < 2 {
        return Err("names no socket; write redis+unix:///path/to/socket with three slashes".into());
    }
    let path = decoded(url.path())?.unwrap_or_default();
    let topology = Topology::Fixed(Address::Unix(path.into()));
    let mut server = Server { topology, database: 0, credentials: Credentials::default() };
    for (name, value) in url.query_pairs() {
        match &*name {
            "db" => server.database = parse_database(&value)?,
            "user" | "username" => server.credentials.username = Some(value.into_owned()),
            "pass" | "password" => server.credentials.password = Some(Secret(value.into_owned())),
            _ => {
                return Err("has an unknown parameter; it accepts db, user and pass".into());
            }
        }
    }
    Ok(Endpoint(Kind::Redis(server)))
}

fn parse_database(text: &str) -> Result<i64, Cow<'static, str>> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse::<u16>().map(i64::from).map_err(|_| "names a database that is not a number, such as /0".into())
}

fn decoded(text: &str) -> Result<Option<String>, Cow<'static, str>> {
    let text =
        percent_decode_str(text).decode_utf8().map_err(|_| "has percent-encoded bytes that are not UTF-8")?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

impl Credentials {
    fn decode(username: &str, password: &str) -> Result<Self, Cow<'static, str>> {
        Ok(Self { username: decoded(username)?, password: decoded(password)?.map(Secret) })
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text).map_err(|reason| wrong_url("the URL", &reason))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Memory(name) => write!(f, "memory://{}", name.as_deref().unwrap_or_default()),
            Kind::Redis(Server { topology, database, .. }) => match topology {
                Topology::Fixed(Address::Unix(path)) => {
                    write!(f, "redis+unix://{}?db={database}", path.display())
                }
                Topology::Fixed(address) => write!(f, "{}://{address}/{database}", address.scheme()),
                Topology::Sentinel { sentinels, master, .. } => {
                    several::write(f, "sentinel", sentinels)?;
                    write!(f, "/{master}/{database}")
                }
                Topology::Cluster(nodes) => several::write(f, "cluster", nodes),
            },
        }
    }
}

impl Address {
    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Tcp { tls: true, .. } => "rediss",
            Self::Tcp { tls: false, .. } => "redis",
            Self::Unix(_) => "redis+unix",
        }
    }
}

/// `host:port`, or the path of the socket.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } => {
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{open}{host}{close}:{port}")
            }
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}
