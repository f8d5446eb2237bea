//! URLs of a Redis of several servers, behind Sentinel or as a cluster: a list of hosts, which no URL parser takes.

use std::borrow::Cow;
use std::fmt;

use url::{Url, form_urlencoded};

use super::{
    Address, Credentials, Endpoint, Kind, Secret, Server, Topology, decoded, parse_address, parse_database,
};

type Reason = Cow<'static, str>;

/// What follows the scheme, taken apart.
struct Parts<'t> {
    credentials: Credentials,
    nodes: Vec<Address>,
    path: &'t str,
    query: &'t str,
}

/// `[user:password@]host:port,host:port/master[/db][?sentinel_username=…&sentinel_password=…]`
pub(super) fn parse_sentinel(rest: &str, tls: bool) -> Result<Endpoint, Reason> {
    let Parts { credentials, nodes: sentinels, path, query } = split(rest, 26379, tls)?;
    let (master, database) = path.split_once('/').unwrap_or((path, ""));
    let master = decoded(master)?.ok_or("names no master; write it after the sentinels, as in /mymaster")?;
    if !master.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err("names a master with other characters than letters, digits and `-_.`".into());
    }
    let database = parse_database(database)?;
    let mut of_sentinels = Credentials::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = Some(value.into_owned()).filter(|value| !value.is_empty());
        match &*name {
            "sentinel_username" => of_sentinels.username = value,
            "sentinel_password" => of_sentinels.password = value.map(Secret),
            _ => {
                return Err(
                    "has an unknown parameter; it accepts sentinel_username and sentinel_password".into()
                );
            }
        }
    }
    let topology = Topology::Sentinel { sentinels, master, credentials: of_sentinels };
    Ok(Endpoint(Kind::Redis(Server { topology, database, credentials })))
}

/// `[user:password@]host:port,host:port`
pub(super) fn parse_cluster(rest: &str, tls: bool) -> Result<Endpoint, Reason> {
    let Parts { credentials, nodes, path, query } = split(rest, 6379, tls)?;
    if parse_database(path)? != 0 {
        return Err("names a database; a cluster has only database 0".into());
    }
    if !query.is_empty() {
        return Err("has a parameter and accepts none".into());
    }
    Ok(Endpoint(Kind::Redis(Server { topology: Topology::Cluster(nodes), database: 0, credentials })))
}

fn split(rest: &str, default_port: u16, tls: bool) -> Result<Parts<'_>, Reason> {
    if rest.contains('#') {
        return Err("has a `#`".into());
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (username, password) = user.split_once(':').unwrap_or((user, ""));
    let credentials = Credentials::decode(username, password)?;
    let nodes = hosts.split(',').map(|host| {
        let url = Url::parse(&format!("redis://{host}")).map_err(|error| format!("is not a URL: {error}"))?;
        parse_address(&url, default_port, tls)
    });
    let nodes = nodes.collect::<Result<_, Reason>>()?;
    Ok(Parts { credentials, nodes, path: path.trim_matches('/'), query })
}

/// The scheme and the hosts.
pub(super) fn write(f: &mut fmt::Formatter<'_>, kind: &str, nodes: &[Address]) -> fmt::Result {
    write!(f, "{}+{kind}://", nodes.first().map_or("redis", Address::scheme))?;
    for (number, node) in nodes.iter().enumerate() {
        write!(f, "{}{node}", if number == 0 { "" } else { "," })?;
    }
    Ok(())
}
