//! Where Redis is and how patient we are with it: from the environment, or set in code. Reads variables; opens nothing.

mod endpoint;

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

pub use endpoint::Endpoint;
pub(crate) use endpoint::{Address, Credentials, Kind, Secret, Server, Topology};

use crate::channel::Channel;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;

/// The settings of a [`Messaging`](crate::Messaging).
///
/// [`from_env`](Self::from_env) reads them from the environment, [`new`](Self::new) takes a URL; single fields can be
/// changed afterwards. They are checked when the [`Messaging`](crate::Messaging) is built.
///
/// ```
/// use messaging_core::Config;
/// use std::time::Duration;
///
/// let mut config = Config::new("redis://:secret@cache.internal:6380/2")?;
/// config.command_timeout = Duration::from_secs(1);
/// assert_eq!(config.endpoint.to_string(), "redis://cache.internal:6380/2"); // never the password
/// # Ok::<(), messaging_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where Redis is, or which in-process backend to use. `REDIS_URL`, or `REDIS_HOST` and its companions.
    pub endpoint: Endpoint,
    /// The certificates for `rediss://`. `REDIS_SSL_CA_CERTS`, `REDIS_SSL_CERTFILE`, `REDIS_SSL_KEYFILE`.
    pub tls: TlsFiles,
    /// In front of every key that is ours. `MESSAGING_NAMESPACE`, default `msg`.
    pub namespace: String,
    /// Put before every channel on the wire and taken off on receipt. `MESSAGING_CHANNEL_PREFIX`, default none.
    pub channel_prefix: String,
    /// Put before every cache key, with a `:` between: separates deployments that share a Redis.
    /// `MESSAGING_CACHE_PREFIX`, default none.
    pub cache_prefix: String,
    /// What [`start`](crate::Messaging::start) does when Redis is not there. `MESSAGING_START`, `fail` (default) or
    /// `wait`.
    pub start: StartPolicy,
    /// How long one attempt to connect may take. `MESSAGING_CONNECT_TIMEOUT`, default 5 s.
    pub connect_timeout: Duration,
    /// How long a command may take. `MESSAGING_COMMAND_TIMEOUT`, default 2 s.
    pub command_timeout: Duration,
    /// How long a cache operation may take before the function is called without it. `MESSAGING_CACHE_TIMEOUT`,
    /// default 100 ms.
    pub cache_timeout: Duration,
    /// After how much silence a subscription connection is pinged. `MESSAGING_PING_AFTER`, default 1 s.
    pub ping_after: Duration,
    /// How long after such a ping a silent connection is given up. `MESSAGING_PING_TIMEOUT`, default 2 s.
    pub ping_timeout: Duration,
    /// The delays between attempts to reconnect, which go on for ever. 50 ms growing to 2 s, with jitter.
    pub reconnect: Backoff,
    /// The longest time by which a cached value may be older than an event that a program published which knows nothing of
    /// caches: so often, four times over, it is made sure that events are heard. `MESSAGING_CACHE_LAG`, default 1 s.
    pub cache_lag: Duration,
    /// How long handlers may go on after a signal to shut down. `MESSAGING_DRAIN_TIMEOUT`, default 10 s.
    pub drain_timeout: Duration,
    /// After how long without a sign of life the messages of a queue that a process has are given to others; processes
    /// that live show it three times as often, however long their handlers take. `MESSAGING_RECLAIM`, default 5 s.
    pub reclaim: Duration,
    /// After how long without a sign of life those whom a process has made [present](crate::Presence) count as gone; processes
    /// that live show it three times as often. `MESSAGING_PRESENCE_TTL`, default 10 s.
    pub presence_ttl: Duration,
    /// The largest payload, in bytes, that is published or received. `MESSAGING_MAX_PAYLOAD`, default 1 MiB.
    pub max_payload: usize,
}

/// What happens at start when Redis cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StartPolicy {
    /// Give up after 5 seconds with an error.
    #[default]
    Fail,
    /// Wait for Redis as long as it takes.
    Wait,
}

/// PEM files for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The authorities to trust instead of the public ones.
    pub ca_certs: Option<PathBuf>,
    /// Our own certificate, where the server asks for one; goes with `keyfile`.
    pub certfile: Option<PathBuf>,
    /// The key of `certfile`.
    pub keyfile: Option<PathBuf>,
}

/// What waits longer than this for Redis never comes back.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Four times in this time Redis is asked; less would be a burden.
const SHORTEST_LAG: Duration = Duration::from_millis(100);

/// Shorter, it would be lost to a moment's delay; longer, nobody would call it presence.
const PRESENCE_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(300)..=Duration::from_secs(10 * 60);

/// A lease that is shorter would be lost to a moment's delay.
const SHORTEST_RECLAIM: Duration = Duration::from_millis(300);

impl Config {
    /// The defaults, with this endpoint.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the URL is not one of these:
    ///
    /// | URL | what it names |
    /// |---|---|
    /// | `memory://`, `memory://name` | this process; with a name, shared with all who use it |
    /// | `redis://[user:password@]host:6379/0` | one server; `rediss://` with TLS |
    /// | `redis+unix:///path/to/socket?db=0` | one server; `user` and `pass` are parameters too |
    /// | `redis+sentinel://[user:password@]host:26379,host:26379/master/0` | whichever server the sentinels call the master; the parameters `sentinel_username` and `sentinel_password` are for the sentinels themselves |
    /// | `redis+cluster://[user:password@]host:6379,host:6379` | a cluster: some of its nodes |
    ///
    /// The last two are `rediss+sentinel://` and `rediss+cluster://` with TLS.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self::with_endpoint(Endpoint::parse(url).map_err(|reason| wrong_url("the URL", &reason))?))
    }

    /// The settings in the environment: `REDIS_URL`, or else `REDIS_HOST`, `REDIS_PORT` (a number, or the
    /// `tcp://10.0.0.1:6379` that Kubernetes injects for a service called `redis`), `REDIS_DB`, `REDIS_USERNAME`,
    /// `REDIS_PASSWORD` (empty is none), `REDIS_SSL`; without any of them `redis://127.0.0.1:6379`. Then the
    /// `MESSAGING_*` variables that the fields name. An empty variable counts as not set.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] names the variable and what it accepts.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(environment)
    }

    /// The settings in the environment, with this URL in place of what it says about where Redis is.
    pub(crate) fn from_env_at(url: &str) -> Result<Self> {
        let endpoint = url.parse()?;
        let elsewhere = |name: &str| match name {
            "REDIS_URL" => Ok(Some("memory://".to_owned())),
            _ => environment(name),
        };
        let config = Self { endpoint, ..Self::from_vars(elsewhere)? };
        config.check()?;
        Ok(config)
    }

    /// [`from_env`](Self::from_env) with the variables from somewhere else.
    ///
    /// # Errors
    /// As `from_env`; an error of `lookup` is passed on.
    pub fn from_vars(lookup: impl Fn(&str) -> Result<Option<String>>) -> Result<Self> {
        let vars = Vars(&lookup);
        let endpoint = match vars.text("REDIS_URL")? {
            Some(url) => Endpoint::parse(&url).map_err(|reason| wrong_url("REDIS_URL", &reason))?,
            None => vars.endpoint()?,
        };
        let mut config = Self::with_endpoint(endpoint);
        config.tls = TlsFiles {
            ca_certs: vars.text("REDIS_SSL_CA_CERTS")?.map(PathBuf::from),
            certfile: vars.text("REDIS_SSL_CERTFILE")?.map(PathBuf::from),
            keyfile: vars.text("REDIS_SSL_KEYFILE")?.map(PathBuf::from),
        };
        let set_text = |name, field: &mut String| vars.text(name).map(|text| text.map(|text| *field = text));
        set_text("MESSAGING_NAMESPACE", &mut config.namespace)?;
        set_text("MESSAGING_CHANNEL_PREFIX", &mut config.channel_prefix)?;
        set_text("MESSAGING_CACHE_PREFIX", &mut config.cache_prefix)?;
        if let Some(policy) = vars.text("MESSAGING_START")? {
            config.start = match policy.to_ascii_lowercase().as_str() {
                "fail" => StartPolicy::Fail,
                "wait" => StartPolicy::Wait,
                _ => {
                    return Err(wrong(
                        "MESSAGING_START",
                        format_args!("is {policy:?}; it accepts `fail` or `wait`"),
                    ));
                }
            };
        }
        for (name, field) in [
            ("MESSAGING_CONNECT_TIMEOUT", &mut config.connect_timeout),
            ("MESSAGING_COMMAND_TIMEOUT", &mut config.command_timeout),
            ("MESSAGING_CACHE_TIMEOUT", &mut config.cache_timeout),
            ("MESSAGING_CACHE_LAG", &mut config.cache_lag),
            ("MESSAGING_PING_AFTER", &mut config.ping_after),
            ("MESSAGING_PING_TIMEOUT", &mut config.ping_timeout),
            ("MESSAGING_DRAIN_TIMEOUT", &mut config.drain_timeout),
            ("MESSAGING_RECLAIM", &mut config.reclaim),
            ("MESSAGING_PRESENCE_TTL", &mut config.presence_ttl),
        ] {
            if let Some(text) = vars.text(name)? {
                *field = parse_duration(&text).ok_or_else(|| {
                    wrong(
                        name,
                        format_args!("is {text:?}; it accepts seconds, or `250ms`, `30s`, `5m`, `1h`"),
                    )
                })?;
            }
        }
        if let Some(text) = vars.text("MESSAGING_MAX_PAYLOAD")? {
            config.max_payload = parse_size(&text).ok_or_else(|| {
                wrong(
                    "MESSAGING_MAX_PAYLOAD",
                    format_args!("is {text:?}; it accepts bytes, or `64KiB`, `1MiB`"),
                )
            })?;
        }
        config.check()?;
        Ok(config)
    }

    fn with_endpoint(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            tls: TlsFiles::default(),
            namespace: "msg".to_owned(),
            channel_prefix: String::new(),
            cache_prefix: String::new(),
            start: StartPolicy::default(),
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(2),
            cache_timeout: Duration::from_millis(100),
            cache_lag: Duration::from_secs(1),
            ping_after: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(2),
            reconnect: Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(2) },
            drain_timeout: Duration::from_secs(10),
            reclaim: Duration::from_secs(5),
            presence_ttl: Duration::from_secs(10),
            max_payload: 1 << 20,
        }
    }

    /// Refuses settings that cannot work, by the name of their variable.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, duration) in [
            ("MESSAGING_CONNECT_TIMEOUT", self.connect_timeout),
            ("MESSAGING_COMMAND_TIMEOUT", self.command_timeout),
            ("MESSAGING_CACHE_TIMEOUT", self.cache_timeout),
            ("MESSAGING_PING_AFTER", self.ping_after),
            ("MESSAGING_PING_TIMEOUT", self.ping_timeout),
        ] {
            if duration.is_zero() {
                return Err(wrong(name, "is zero; it must be longer"));
            }
            if duration > LONGEST_WAIT {
                return Err(wrong(name, format_args!("is {duration:?}; it must be one day at most")));
            }
        }
        if !(SHORTEST_LAG..=LONGEST_WAIT).contains(&self.cache_lag) {
            let text =
                format_args!("is {:?}; it must be between {SHORTEST_LAG:?} and one day", self.cache_lag);
            return Err(wrong("MESSAGING_CACHE_LAG", text));
        }
        if !(SHORTEST_RECLAIM..=LONGEST_WAIT).contains(&self.reclaim) {
            let text =
                format_args!("is {:?}; it must be between {SHORTEST_RECLAIM:?} and one day", self.reclaim);
            return Err(wrong("MESSAGING_RECLAIM", text));
        }
        if !PRESENCE_TTL.contains(&self.presence_ttl) {
            let text = format_args!("is {:?}; it must be between 300ms and ten minutes", self.presence_ttl);
            return Err(wrong("MESSAGING_PRESENCE_TTL", text));
        }
        if self.reconnect.initial.max(self.reconnect.max) > LONGEST_WAIT {
            return Err(wrong("`reconnect`", "has a delay of more than a day; it must be one day at most"));
        }
        if self.max_payload == 0 {
            return Err(wrong("MESSAGING_MAX_PAYLOAD", "is zero; no message could be published"));
        }
        let plain = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
        };
        for (name, text) in [
            ("MESSAGING_NAMESPACE", &self.namespace),
            ("MESSAGING_CACHE_PREFIX", &self.cache_prefix),
            ("MESSAGING_CHANNEL_PREFIX", &self.channel_prefix),
        ] {
            let optional = name != "MESSAGING_NAMESPACE";
            if !(plain(text) || (optional && text.is_empty())) {
                return Err(wrong(name, format_args!("is {text:?}; it accepts letters, digits and `-_.:`")));
            }
        }
        if !self.channel_prefix.is_empty() {
            Channel::new(&self.channel_prefix).map_err(|error| wrong("MESSAGING_CHANNEL_PREFIX", error))?;
        }
        if self.tls.certfile.is_some() != self.tls.keyfile.is_some() {
            return Err(wrong(
                "REDIS_SSL_CERTFILE",
                "and REDIS_SSL_KEYFILE go together; only one of them is set",
            ));
        }
        self.endpoint.check()
    }
}

fn environment(name: &str) -> Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(wrong(name, "is not UTF-8 text")),
    }
}

/// The variables of the environment, an empty one counting as not set.
struct Vars<'a>(&'a dyn Fn(&str) -> Result<Option<String>>);

impl Vars<'_> {
    fn text(&self, name: &str) -> Result<Option<String>> {
        Ok((self.0)(name)?.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    /// `REDIS_HOST` and its companions.
    fn endpoint(&self) -> Result<Endpoint> {
        let unbracketed = |host: String| {
            let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            inside.map(str::to_owned).unwrap_or(host)
        };
        let mut host = self.text("REDIS_HOST")?.map(unbracketed);
        let mut port = 6379;
        if let Some(text) = self.text("REDIS_PORT")? {
            let refuse =
                || wrong("REDIS_PORT", format_args!("is {text:?}; it accepts a port number from 1 to 65535"));
            let number = match text.strip_prefix("tcp://") {
                // What Kubernetes injects for a service called `redis`.
                Some(address) => {
                    let (service_host, service_port) = address.rsplit_once(':').ok_or_else(refuse)?;
                    host = host.or_else(|| Some(service_host.trim_matches(['[', ']']).to_owned()));
                    service_port
                }
                None => text.as_str(),
            };
            port = number.parse().ok().filter(|port| *port != 0).ok_or_else(refuse)?;
        }
        let tls = match self.text("REDIS_SSL")? {
            None => false,
            Some(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => true,
                "false" | "0" | "no" | "off" => false,
                _ => {
                    return Err(wrong(
                        "REDIS_SSL",
                        format_args!("is {text:?}; it accepts `true` or `false`"),
                    ));
                }
            },
        };
        let database = match self.text("REDIS_DB")? {
            None => 0,
            Some(text) => text.parse::<u16>().map(i64::from).map_err(|_| {
                wrong("REDIS_DB", format_args!("is {text:?}; it accepts the number of a database, such as 0"))
            })?,
        };
        if let Some(host) = &host
            && (host.contains("://") || host.contains(['/', '@', ' ']))
        {
            return Err(wrong(
                "REDIS_HOST",
                format_args!("is not a host name; put a URL into REDIS_URL instead"),
            ));
        }
        // What follows a `%` is the network interface of a link-local address.
        let is_ipv6 =
            |host: &str| host.split('%').next().is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
        if host.as_deref().is_some_and(|host| host.contains(':') && !is_ipv6(host)) {
            return Err(wrong("REDIS_HOST", "is not a host name alone; put the port into REDIS_PORT"));
        }
        Ok(Endpoint(Kind::Redis(Server {
            topology: Topology::Fixed(Address::Tcp {
                host: host.unwrap_or_else(|| "127.0.0.1".to_owned()),
                port,
                tls,
            }),
            database,
            credentials: Credentials {
                username: self.text("REDIS_USERNAME")?,
                password: self.text("REDIS_PASSWORD")?.map(Secret),
            },
        })))
    }
}

fn wrong(name: &str, reason: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Configuration, format!("{name} {reason}"))
}

fn wrong_url(name: &str, reason: &str) -> Error {
    wrong(name, reason)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    match text[digits..].trim() {
        "" | "s" => Some(Duration::from_secs(number)),
        "ms" => Some(Duration::from_millis(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3_600).map(Duration::from_secs),
        _ => None,
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..digits].parse().ok()?;
    match text[digits..].trim() {
        "" | "B" => Some(number),
        "KiB" => number.checked_mul(1 << 10),
        "MiB" => number.checked_mul(1 << 20),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &[(&str, &str)]) -> Result<Config> {
        Config::from_vars(|name| {
            Ok(vars.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned()))
        })
    }

    fn endpoint(vars: &[(&str, &str)]) -> String {
        from(vars).unwrap().endpoint.to_string()
    }

    #[test]
    fn the_environment_says_where_redis_is() {
        assert_eq!(endpoint(&[]), "redis://127.0.0.1:6379/0");
        assert_eq!(
            endpoint(&[("REDIS_URL", "redis://db.local/3"), ("REDIS_HOST", "ignored")]),
            "redis://db.local:6379/3"
        );
        assert_eq!(
            endpoint(&[("REDIS_HOST", "cache"), ("REDIS_PORT", "7000"), ("REDIS_DB", "2")]),
            "redis://cache:7000/2"
        );
        assert_eq!(endpoint(&[("REDIS_PORT", "tcp://10.0.0.1:6379")]), "redis://10.0.0.1:6379/0");
        assert_eq!(
            endpoint(&[("REDIS_HOST", "redis"), ("REDIS_PORT", "tcp://10.0.0.1:6380")]),
            "redis://redis:6380/0"
        );
        assert_eq!(endpoint(&[("REDIS_URL", "  ")]), "redis://127.0.0.1:6379/0");
        assert_eq!(endpoint(&[("REDIS_URL", "memory://demo")]), "memory://demo");
        assert_eq!(endpoint(&[("REDIS_URL", "redis://[::1]:7000")]), "redis://[::1]:7000/0");
        assert_eq!(
            endpoint(&[("REDIS_URL", "redis+unix:///run/redis.sock?db=1")]),
            "redis+unix:///run/redis.sock?db=1"
        );
    }

    #[test]
    fn an_empty_password_is_none_and_escapes_are_decoded() {
        let server = |vars: &[(&str, &str)]| match from(vars).unwrap().endpoint.0 {
            Kind::Redis(server) => server,
            Kind::Memory(_) => panic!("not memory"),
        };
        assert!(server(&[("REDIS_PASSWORD", "")]).credentials.password.is_none());
        let given = server(&[("REDIS_URL", "redis://us%40er:p%23ss@h")]).credentials;
        assert_eq!(given.username.as_deref(), Some("us@er"));
        assert_eq!(given.password.unwrap().0, "p#ss");
    }

    #[test]
    fn several_servers_have_one_url() {
        for (url, shown) in [
            ("redis+sentinel://a,b:7000/main", "redis+sentinel://a:26379,b:7000/main/0"),
            ("rediss+sentinel://us%40er:p%2Fss@[::1]:1/main/3", "rediss+sentinel://[::1]:1/main/3"),
            (
                "redis+sentinel://a/main?sentinel_username=u&sentinel_password=p",
                "redis+sentinel://a:26379/main/0",
            ),
            ("redis+cluster://a,b:7000", "redis+cluster://a:6379,b:7000"),
            ("rediss+cluster://:pw@10.0.0.1:7000/0", "rediss+cluster://10.0.0.1:7000"),
        ] {
            let endpoint = url.parse::<Endpoint>().unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(shown.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        let url = "redis+sentinel://us%40er:p%2Fss@a/main/3?sentinel_username=s%26&sentinel_password=q+r";
        let Kind::Redis(server) = url.parse::<Endpoint>().unwrap().0 else { panic!("not memory") };
        let shown = |credentials: Credentials| {
            (
                credentials.username.unwrap_or_default(),
                credentials.password.map(|it| it.0).unwrap_or_default(),
            )
        };
        assert_eq!(shown(server.credentials), ("us@er".to_owned(), "p/ss".to_owned()));
        let Topology::Sentinel { credentials, .. } = server.topology else { panic!("not behind sentinels") };
        assert_eq!(shown(credentials), ("s&".to_owned(), "q r".to_owned()));
        assert_eq!(server.database, 3);
    }

    #[test]
    fn a_wrong_variable_is_named_with_what_it_accepts() {
        for (name, value, accepts) in [
            ("REDIS_URL", "localhost:6379", "memory://"),
            ("REDIS_URL", "http://localhost", "unknown scheme `http://`"),
            ("REDIS_URL", "redis://", "host"),
            ("REDIS_URL", "redis://h/x", "number"),
            ("REDIS_URL", "redis://h:99999", "port"),
            ("REDIS_URL", "redis://h:0", "1 to 65535"),
            ("REDIS_URL", "redis://h?db=1", "a parameter"),
            ("REDIS_URL", "redis+unix:///run/x?database=1", "unknown parameter; it accepts db"),
            ("REDIS_URL", "redis+unix://run/x", "three slashes"),
            ("REDIS_URL", "memory://a b", "letters"),
            ("REDIS_URL", "redis+sentinel://a,b", "names no master"),
            ("REDIS_URL", "redis+sentinel://a/my%20master", "letters"),
            ("REDIS_URL", "redis+sentinel://a/main/x", "number"),
            ("REDIS_URL", "redis+sentinel://a,,b/main", "host"),
            ("REDIS_URL", "redis+sentinel://a/main?sentinel=1", "sentinel_username and sentinel_password"),
            ("REDIS_URL", "redis+cluster://", "host"),
            ("REDIS_URL", "redis+cluster://a:0", "1 to 65535"),
            ("REDIS_URL", "redis+cluster://a:99999", "port"),
            ("REDIS_URL", "redis+cluster://a/1", "only database 0"),
            ("REDIS_URL", "redis+cluster://a?db=1", "a parameter"),
            ("REDIS_URL", "redis+cluster://a#b", "a `#`"),
            ("REDIS_HOST", "redis://h", "REDIS_URL"),
            ("REDIS_HOST", "cache:6380", "REDIS_PORT"),
            ("REDIS_HOST", "[::1]:6380", "REDIS_PORT"),
            ("REDIS_PORT", "http", "1 to 65535"),
            ("REDIS_PORT", "0", "1 to 65535"),
            ("REDIS_PORT", "tcp://10.0.0.1", "1 to 65535"),
            ("REDIS_DB", "main", "number"),
            ("REDIS_DB", "-5", "number"),
            ("REDIS_SSL", "maybe", "`true` or `false`"),
            ("REDIS_SSL_KEYFILE", "/k.pem", "go together"),
            ("MESSAGING_START", "later", "`fail` or `wait`"),
            ("MESSAGING_COMMAND_TIMEOUT", "fast", "`250ms`"),
            ("MESSAGING_COMMAND_TIMEOUT", "0", "longer"),
            ("MESSAGING_CONNECT_TIMEOUT", "25h", "one day"),
            ("MESSAGING_COMMAND_TIMEOUT", "18446744073709551615", "one day"),
            ("MESSAGING_CACHE_TIMEOUT", "86401", "one day"),
            ("MESSAGING_PING_AFTER", "25h", "one day"),
            ("MESSAGING_PING_TIMEOUT", "25h", "one day"),
            ("MESSAGING_PRESENCE_TTL", "100ms", "300ms"),
            ("MESSAGING_PRESENCE_TTL", "11m", "ten minutes"),
            ("MESSAGING_MAX_PAYLOAD", "big", "`1MiB`"),
            ("MESSAGING_MAX_PAYLOAD", "0", "zero"),
            ("MESSAGING_NAMESPACE", "a b", "letters"),
            ("MESSAGING_CHANNEL_PREFIX", "*", "letters"),
        ] {
            let error = from(&[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = error.to_string();
            let named = if name == "REDIS_SSL_KEYFILE" { "REDIS_SSL_CERTFILE" } else { name };
            assert!(text.starts_with(named) && text.contains(accepts), "{name}={value}: {text}");
        }
    }

    #[test]
    fn no_password_is_ever_printed() {
        let url = "redis://user:hunter2@h:6379/0";
        let config = Config::new(url).unwrap();
        assert!(!format!("{config:?} {} {:?}", config.endpoint, config.endpoint).contains("hunter2"));
        for wrong in [
            "redis://user:hunter2@h:port/0",
            "redis://user:hunter2@h/x",
            "http://user:hunter2@h",
            "redis://u:hunter2#@h",
            "user:hunter2@h://",
            "redis+unix:///run/x?hunter2=1",
            "redis+sentinel://user:hunter2@h",
            "redis+sentinel://user:hunter2@h:port/main",
            "redis+sentinel://h/main/0?sentinel_pass=hunter2",
            "redis+sentinel://h/main/hunter2",
            "redis+cluster://user:hunter2@h/1",
            "redis+cluster://user:hunter2@h,:1",
            "redis+cluster://user:%FFhunter2@h",
            "redis+unix:///run/x?db=hunter2",
            "memory://hunter2@h",
        ] {
            let error = Config::new(wrong).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_password_with_an_unescaped_separator_is_not_printed_and_its_escape_is_shown() {
        for wrong in [
            "redis://user:12/hunter2@host/0",
            "redis://user:12?hunter2@host",
            "redis://user:12#hunter2@host",
            "redis://user:hunter2/x@host",
            "redis://user:hunter2?x@host",
            "redis+sentinel://user:12/hunter2@host/main",
            "redis+cluster://user:12?hunter2@host",
            "redis+cluster://user:12#hunter2@host",
        ] {
            let error = Config::new(wrong).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains("%2F, %3F and %23") && !text.contains("hunter2"), "{wrong}: {text}");
        }
        let error = Config::new("redis://user:pw@host/x").unwrap_err().to_string();
        assert!(!error.contains("%2F"), "{error}");
    }

    #[test]
    fn a_host_may_be_an_ipv6_address() {
        assert_eq!(endpoint(&[("REDIS_HOST", "::1")]), "redis://[::1]:6379/0");
        assert_eq!(endpoint(&[("REDIS_HOST", "[::1]")]), "redis://[::1]:6379/0");
        assert_eq!(endpoint(&[("REDIS_HOST", "fe80::1%eth0")]), "redis://[fe80::1%eth0]:6379/0");
        assert_eq!(endpoint(&[("REDIS_PORT", "tcp://[::1]:7000")]), "redis://[::1]:7000/0");
    }

    #[test]
    fn a_drain_may_take_as_long_as_it_takes() {
        let config = from(&[("MESSAGING_DRAIN_TIMEOUT", "18446744073709551615")]).unwrap();
        assert_eq!(config.drain_timeout, Duration::from_secs(u64::MAX));
        let mut config = Config::new("memory://").unwrap();
        config.reconnect.max = Duration::MAX;
        assert!(config.check().unwrap_err().to_string().contains("`reconnect`"));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_that_is_not_compiled_in_says_which_feature() {
        for url in ["rediss://h", "rediss+sentinel://h/main", "rediss+cluster://h"] {
            let error = from(&[("REDIS_URL", url)]).unwrap_err().to_string();
            assert!(error.contains("feature `tls`"), "{error}");
        }
    }

    #[test]
    fn the_other_settings() {
        let config = from(&[
            ("MESSAGING_START", "wait"),
            ("MESSAGING_COMMAND_TIMEOUT", "250ms"),
            ("MESSAGING_DRAIN_TIMEOUT", "3"),
            ("MESSAGING_MAX_PAYLOAD", "64KiB"),
            ("MESSAGING_CHANNEL_PREFIX", "staging."),
        ])
        .unwrap();
        assert_eq!(config.start, StartPolicy::Wait);
        assert_eq!(config.command_timeout, Duration::from_millis(250));
        assert_eq!(config.drain_timeout, Duration::from_secs(3));
        assert_eq!(config.max_payload, 65_536);
        assert_eq!(config.channel_prefix, "staging.");
    }
}
