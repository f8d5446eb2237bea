//! Where messages go, read from a URL and printed without its password.

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

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) address: Address,
    pub(crate) database: i64,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: String, port: u16, tls: bool },
    Unix(PathBuf),
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

const SCHEMES: &str =
    "memory://, memory://name, redis://host:port/db, rediss://host:port/db, redis+unix:///path/to/socket";

impl Endpoint {
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
            "redis" | "rediss" => parse_tcp(text, scheme == "rediss").map_err(|reason| {
                let after_authority = rest.find(['/', '?', '#']).map_or("", |end| &rest[end..]);
                if after_authority.contains('@') {
                    format!("{reason}; in a password `/`, `?` and `#` are written %2F, %3F and %23").into()
                } else {
                    reason
                }
            }),
            "redis+unix" | "unix" => parse_unix(text),
            _ => Err(format!("has the unknown scheme `{scheme}://`; it accepts {SCHEMES}").into()),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match &self.0 {
            Kind::Redis(Server { address: Address::Tcp { tls: true, .. }, .. }) if !cfg!(feature = "tls") => {
                Err(Error::new(
                    ErrorKind::Configuration,
                    format!(
                        "{self} needs TLS, which is not compiled in; add the feature `tls` of messaging-core"
                    ),
                ))
            }
            Kind::Redis(Server { address: Address::Unix(_), .. }) if !cfg!(unix) => {
                Err(Error::new(ErrorKind::Configuration, format!("{self}: this system has no unix sockets")))
            }
            _ => Ok(()),
        }
    }
}

fn parse_tcp(text: &str, tls: bool) -> Result<Endpoint, Cow<'static, str>> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    let host = match url.host() {
        None | Some(Host::Domain("")) => return Err("names no host".into()),
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(host) => host.to_string(),
    };
    let database = parse_database(url.path().trim_matches('/'))?;
    if url.query().is_some_and(|query| !query.is_empty()) {
        return Err("has a parameter and accepts none; the database is written /0".into());
    }
    if url.fragment().is_some() {
        return Err("has a `#`".into());
    }
    if url.port() == Some(0) {
        return Err("names port 0; it accepts a port number from 1 to 65535".into());
    }
    let username = decoded(url.username())?;
    let password = decoded(url.password().unwrap_or_default())?.map(Secret);
    let address = Address::Tcp { host, port: url.port().unwrap_or(6379), tls };
    Ok(Endpoint(Kind::Redis(Server { address, database, username, password })))
}

fn parse_unix(text: &str) -> Result<Endpoint, Cow<'static, str>> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if url.host_str().is_some_and(|host| !host.is_empty()) || url.path().len() < 2 {
        return Err("names no socket; write redis+unix:///path/to/socket with three slashes".into());
    }
    let path = decoded(url.path())?.unwrap_or_default();
    let mut server =
        Server { address: Address::Unix(path.into()), database: 0, username: None, password: None };
    for (name, value) in url.query_pairs() {
        match &*name {
            "db" => server.database = parse_database(&value)?,
            "user" | "username" => server.username = Some(value.into_owned()),
            "pass" | "password" => server.password = Some(Secret(value.into_owned())),
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
            Kind::Redis(server) => match &server.address {
                Address::Tcp { host, port, tls } => {
                    let scheme = if *tls { "rediss" } else { "redis" };
                    let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                    write!(f, "{scheme}://{open}{host}{close}:{port}/{}", server.database)
                }
                Address::Unix(path) => write!(f, "redis+unix://{}?db={}", path.display(), server.database),
            },
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}
