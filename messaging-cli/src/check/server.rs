//! What the server says of itself: its version, its role, what it does with its memory and its data. And why there is none.

use std::collections::BTreeMap;

use messaging_core::Messaging;

use super::report::{Report, State};
use crate::connect::Target;
use crate::failure::{Code, Failure};
use crate::output::size;

/// Major and minor number.
pub(super) type Version = (u32, u32);

pub(super) fn version(info: &BTreeMap<String, String>) -> Option<Version> {
    let mut parts = info.get("redis_version")?.split('.').map_while(|part| part.parse().ok());
    Some((parts.next()?, parts.next()?))
}

/// What to try, after the troubleshooting of a connection that cannot be made.
pub(super) fn why_unreachable(failure: &Failure, messaging: &Messaging, target: &Target) -> Vec<String> {
    let endpoint = messaging.config().endpoint.to_string();
    let mut advice = Vec::new();
    if failure.code == Code::Refused {
        if failure.message.contains("NOAUTH")
            || failure.message.contains("credentials")
            || failure.message.contains("WRONGPASS")
        {
            advice.push("it wants a user and a password: set REDIS_PASSWORD (and REDIS_USERNAME), or a URL that has them".to_owned());
            advice.push("percent-encode what is special in a URL: p@ss is p%40ss".to_owned());
        }
        return advice;
    }
    let from = match target.source() {
        "nothing said otherwise" => {
            "neither --url nor REDIS_URL nor REDIS_HOST is set: is this the right place?".to_owned()
        }
        source => format!("is {endpoint} right? It comes from {source}"),
    };
    advice.push(from);
    if endpoint.contains("localhost") || endpoint.contains("127.0.0.1") {
        advice.push(
            "in a container, localhost is the container itself: name the service, such as REDIS_HOST=redis"
                .to_owned(),
        );
    }
    if failure.message.contains("lookup")
        || failure.message.contains("resolve")
        || failure.message.contains("Name or service")
    {
        advice.push("the name is not known here: are both in the same network or namespace?".to_owned());
    } else if failure.message.contains("refused") {
        advice.push("the host answers, and nothing listens on that port: is Redis running (redis-cli ping, docker compose ps redis, kubectl get pods), and on this port?".to_owned());
    } else {
        advice.push(
            "is Redis running (redis-cli ping)? Does a firewall or a network policy lie between?".to_owned(),
        );
        advice
            .push("does it speak TLS (rediss://, REDIS_SSL=true), or only plain TCP (redis://)?".to_owned());
    }
    advice.push(
        "look at its log: docker compose logs redis, kubectl logs, or redis-server's logfile".to_owned(),
    );
    advice
}

pub(super) async fn look(
    messaging: &Messaging,
    info: &BTreeMap<String, String>,
    report: &mut Report,
) -> Result<(), Failure> {
    let field = |name: &str| info.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| field(name).parse::<u64>().unwrap_or_default();
    let Some(version) = version(info) else {
        let advice = format!("allow it: ACL SETUSER {} +info", messaging.operator().user());
        return report.add(
            "server",
            State::Skipped,
            "it does not say what it is: INFO is refused",
            &[advice],
        );
    };
    let name = format!("redis {}, {}", field("redis_version"), field("redis_mode"));
    match version {
        (0..6, _) => report.add(
            "server",
            State::Bad,
            &format!("{name}: too old, nothing but plain messages can be relied on"),
            &["upgrade it to 6.2 or later; 7.0 or later has all that is used".to_owned()],
        )?,
        (6, 0..2) => report.add(
            "server",
            State::Bad,
            &format!("{name}: too old, 6.2 is the oldest that is supported"),
            &["cached functions, queues and presence may fail: upgrade it to 6.2 or later".to_owned()],
        )?,
        (6, _) => report.add(
            "server",
            State::Doubtful,
            &format!("{name}: sharded channels are missing, and it cannot tell the lag of groups"),
            &["Redis 7.0 or later has them; all else works".to_owned()],
        )?,
        _ => report.add("server", State::Good, &name, &[])?,
    }
    if field("role") == "slave" {
        let advice = "connect to the primary, or with redis+sentinel:// to whichever it is".to_owned();
        report.add("server", State::Bad, "this is a replica: it takes no writes", &[advice])?;
    }
    memory(field("maxmemory_policy"), number("used_memory"), number("maxmemory"), report)?;
    persistence(&field, report)
}

fn memory(policy: &str, used: u64, most: u64, report: &mut Report) -> Result<(), Failure> {
    if policy.starts_with("allkeys-") {
        let advice =
            "CONFIG SET maxmemory-policy volatile-ttl, or volatile-lru: they evict only cached values"
                .to_owned();
        let text = format!(
            "maxmemory-policy is {policy}: streams, and the keys that tell what was invalidated, may be evicted"
        );
        return report.add("memory", State::Doubtful, &text, &[advice]);
    }
    let shown = match most {
        0 => format!("{} used, no limit", size(used)),
        _ => format!("{} of {} used, {policy}", size(used), size(most)),
    };
    if most > 0 && used > most / 10 * 9 {
        let advice = if policy == "noeviction" {
            "raise maxmemory before writes are refused, or give cached values room with volatile-ttl"
        } else {
            "raise maxmemory before cached values are evicted as soon as they are written"
        };
        return report.add("memory", State::Doubtful, &format!("{shown}: nearly full"), &[advice.to_owned()]);
    }
    report.add("memory", State::Good, &shown, &[])
}

fn persistence<'i>(field: &impl Fn(&str) -> &'i str, report: &mut Report) -> Result<(), Failure> {
    if field("loading") == "1" {
        report.add("disk", State::Bad, "it is still loading its data", &["wait until it has".to_owned()])?;
    }
    if field("rdb_last_bgsave_status") == "err" {
        let advice =
            "look at its log and at the disk; until a snapshot succeeds, writes may be refused (MISCONF)";
        return report.add("disk", State::Bad, "the last snapshot failed", &[advice.to_owned()]);
    }
    if field("aof_enabled") == "1" {
        if field("aof_last_write_status") == "err" {
            let advice = "look at its log and at the disk: writes are refused until it can write";
            return report.add(
                "disk",
                State::Bad,
                "the append-only file cannot be written",
                &[advice.to_owned()],
            );
        }
        return report.add("disk", State::Good, "append-only file: a restart keeps streams", &[]);
    }
    // That there are no snapshots by themselves, only CONFIG would say, which few may use.
    let saved =
        field("rdb_last_save_time").parse::<u64>().unwrap_or_default() > 0 && field("rdb_saves") != "0";
    let text = if saved { "snapshots only" } else { "no append-only file, and no snapshot yet" };
    report.add(
        "disk",
        State::Doubtful,
        &format!("{text}: what durable channels hold may be lost when it restarts"),
        &["CONFIG SET appendonly yes, and the same in its configuration; without durable channels it does not matter".to_owned()],
    )
}
