//! `stats`: how much is going on, as far as Redis knows it, and as far as services say.

use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use messaging_core::{FamilyReport, GroupReport, Messaging, Pattern, StreamReport, Subscription};
use serde::Serialize;
use url::Url;

use crate::connect::Target;
use crate::failure::{Code, Failure};
use crate::http::{self, Readiness};
use crate::input;
use crate::output::{
    BOLD, Cell, PLAIN, RED, Table, YELLOW, ago, count, counted, out, paint, plain, say_json, size,
};
use crate::{cache, groups};

/// Show rates, lag, dead letters, drops and cache hits
///
/// Rates are those of an interval. Of streams Redis knows them; of plain channels it does not, so that those given with
/// --channel are listened to meanwhile. What handlers have dropped and how often cached functions were hit, the processes
/// know: name their /readyz with --http.
#[derive(Args, Debug)]
pub(crate) struct Stats {
    /// Count what is published on this channel, template or glob
    #[arg(long, short = 'c', value_name = "CHANNEL")]
    channel: Vec<String>,
    /// Ask a service too, such as http://orders:9000/readyz
    #[arg(long, value_name = "URL", value_parser = http::url)]
    http: Vec<Url>,
    /// How long rates are measured, and how often --watch shows them
    #[arg(long, short = 'i', value_name = "TIME", default_value = "1s", value_parser = input::interval)]
    interval: Duration,
    /// Go on, until Ctrl-C
    #[arg(long, short = 'w')]
    watch: bool,
    /// Print a JSON object, one for each interval
    #[arg(long)]
    json: bool,
}

/// What was read at one moment.
struct Sample {
    at: Instant,
    info: BTreeMap<String, String>,
    calls: BTreeMap<String, u64>,
    streams: Vec<StreamReport>,
    groups: Vec<GroupReport>,
    families: Vec<FamilyReport>,
    subscribers: BTreeMap<String, u64>,
    heard: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Report {
    interval_ms: u64,
    server: Server,
    streams: Vec<Stream>,
    groups: Vec<GroupReport>,
    channels: Vec<Channel>,
    families: Vec<FamilyReport>,
    services: Vec<Service>,
}

#[derive(Serialize)]
struct Server {
    version: String,
    clients: u64,
    memory_bytes: u64,
    maxmemory_bytes: u64,
    commands_per_second: f64,
    /// PUBLISH and SPUBLISH of everybody, those of scripts and of this library's own signals included.
    publishes_per_second: f64,
    /// Connections that were closed because their reader was too slow.
    cut_off: u64,
    evicted_keys: u64,
    /// Of all keys of everybody that were read in the interval. A hit of a cached function reads two keys, of which one is there.
    keyspace_hits: u64,
    keyspace_misses: u64,
}

#[derive(Serialize)]
struct Stream {
    #[serde(flatten)]
    report: StreamReport,
    per_second: f64,
}

#[derive(Serialize)]
struct Channel {
    channel: String,
    subscribers: Option<u64>,
    per_second: Option<f64>,
}

#[derive(Serialize)]
struct Service {
    url: String,
    error: Option<String>,
    handlers: Vec<HandlerLine>,
    caches: Vec<CacheLine>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct HandlerLine {
    id: String,
    state: String,
    handled: u64,
    failed: u64,
    waiting: u64,
    dropped: u64,
    gaps: u64,
}

#[derive(Serialize)]
struct CacheLine {
    function: String,
    calls: u64,
    hit_ratio: Option<f64>,
    loads: u64,
}

impl Stats {
    pub(crate) fn watches(&self) -> bool {
        self.watch
    }

    pub(crate) async fn run(&self, target: &Target) -> Result<Code, Failure> {
        let patterns = self.channel.iter().map(|channel| Pattern::parse(channel));
        let patterns: Vec<Pattern> = patterns.collect::<Result<_, _>>()?;
        let messaging = target.connect().await?;
        let mut listening = SelectAll::new();
        for pattern in &patterns {
            listening.push(messaging.subscribe(pattern).await?);
        }
        let mut before = sample(&messaging, BTreeMap::new()).await?;
        loop {
            let heard = listen(&mut listening, self.interval).await;
            let after = sample(&messaging, heard).await?;
            let mut services = Vec::new();
            for url in &self.http {
                services.push(ask(url).await);
            }
            let report = report(&before, &after, services);
            if self.json {
                say_json(&report)?;
            } else {
                let mut page = Vec::new();
                if self.watch && std::io::stdout().is_terminal() {
                    // From the top, over what was there, and then nothing.
                    page.extend_from_slice(b"\x1b[H\x1b[2J");
                }
                write(&report, &mut page)?;
                if self.watch {
                    page.push(b'\n');
                }
                let mut out = out();
                out.write_all(&page)?;
                out.flush()?;
            }
            if !self.watch {
                return Ok(Code::Well);
            }
            before = after;
        }
    }
}

/// Counts, by channel, what comes within the interval.
async fn listen(listening: &mut SelectAll<Subscription>, interval: Duration) -> BTreeMap<String, u64> {
    let mut heard = BTreeMap::new();
    let end = tokio::time::sleep(interval);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return heard,
            Some(message) = listening.next() => {
                // A gap makes the rate too small, for once.
                if let Ok(message) = message {
                    *heard.entry(message.channel().to_string()).or_default() += 1;
                }
            }
        }
    }
}

async fn sample(messaging: &Messaging, heard: BTreeMap<String, u64>) -> Result<Sample, Failure> {
    let (client, operator) = (messaging.client(), messaging.operator());
    let mut channels = client.pubsub_channels().await?;
    let internal = format!("{}:", messaging.config().namespace);
    channels.retain(|channel| !channel.starts_with(&internal));
    channels.sort();
    let subscribers = client.pubsub_numsub(channels).await?;
    Ok(Sample {
        info: client.info().await?,
        calls: operator.command_calls().await?,
        streams: operator.streams().await?,
        groups: operator.groups().await?,
        families: operator.families().await?,
        at: Instant::now(),
        subscribers,
        heard,
    })
}

fn report(before: &Sample, after: &Sample, services: Vec<Service>) -> Report {
    let within = after.at.duration_since(before.at);
    let per_second = |events: u64| events as f64 / within.as_secs_f64().max(0.001);
    let field = |sample: &Sample, name: &str| -> u64 {
        sample.info.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    };
    let grown = |name: &str| field(after, name).saturating_sub(field(before, name));
    let calls = |sample: &Sample, command: &str| sample.calls.get(command).copied().unwrap_or_default();
    let published = |sample: &Sample| calls(sample, "publish") + calls(sample, "spublish");
    let earlier: HashMap<_, _> =
        before.streams.iter().map(|stream| (stream.stream.as_str(), stream.published)).collect();
    let streams = after.streams.iter().map(|report| {
        let earlier = earlier.get(report.stream.as_str()).copied().unwrap_or_default();
        Stream { per_second: per_second(report.published.saturating_sub(earlier)), report: report.clone() }
    });
    let mut names: Vec<&String> = after.subscribers.keys().chain(after.heard.keys()).collect();
    names.sort();
    names.dedup();
    let channels = names.into_iter().map(|name| Channel {
        channel: name.clone(),
        subscribers: after.subscribers.get(name).copied(),
        per_second: after.heard.get(name).map(|heard| per_second(*heard)),
    });
    Report {
        interval_ms: within.as_millis() as u64,
        server: Server {
            version: after.info.get("redis_version").cloned().unwrap_or_default(),
            clients: field(after, "connected_clients"),
            memory_bytes: field(after, "used_memory"),
            maxmemory_bytes: field(after, "maxmemory"),
            commands_per_second: per_second(grown("total_commands_processed")),
            publishes_per_second: per_second(published(after).saturating_sub(published(before))),
            cut_off: field(after, "client_output_buffer_limit_disconnections"),
            evicted_keys: field(after, "evicted_keys"),
            keyspace_hits: grown("keyspace_hits"),
            keyspace_misses: grown("keyspace_misses"),
        },
        streams: streams.collect(),
        groups: after.groups.clone(),
        channels: channels.collect(),
        families: after.families.clone(),
        services,
    }
}

async fn ask(url: &Url) -> Service {
    let mut service = Service {
        url: url.to_string(),
        error: None,
        handlers: Vec::new(),
        caches: Vec::new(),
        warnings: Vec::new(),
    };
    let said = match http::get(url, Duration::from_secs(2)).await {
        // One that is not ready says the same.
        Ok(answer) => serde_json::from_slice::<Readiness>(&answer.body)
            .map_err(|_| format!("it answers {} and no health; name its /readyz", answer.status)),
        Err(reason) => Err(reason),
    };
    let said = match said {
        Ok(said) => said.messaging,
        Err(reason) => {
            service.error = Some(reason);
            return service;
        }
    };
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    service.handlers = said
        .handlers
        .iter()
        .map(|handler| HandlerLine {
            id: text(&handler["id"]),
            state: text(&handler["state"]),
            handled: number(&handler["handled"]),
            failed: number(&handler["failed"]),
            waiting: number(&handler["waiting"]),
            dropped: number(&handler["dropped"]),
            gaps: number(&handler["gaps"]),
        })
        .collect();
    service.caches = said
        .caches
        .iter()
        .map(|cache| {
            let of = |name: &str| number(&cache[name]);
            let hits = of("hits") + of("local_hits") + of("stale");
            let calls = hits + of("misses");
            let hit_ratio = (calls > 0).then(|| hits as f64 / calls as f64);
            CacheLine { function: text(&cache["function"]), calls, hit_ratio, loads: of("loads") }
        })
        .collect();
    service.warnings = said.warnings;
    service
}

fn write(report: &Report, out: &mut Vec<u8>) -> std::io::Result<()> {
    let server = &report.server;
    let memory = match server.maxmemory_bytes {
        0 => size(server.memory_bytes),
        most => format!("{} of {}", size(server.memory_bytes), size(most)),
    };
    let asked = server.keyspace_hits + server.keyspace_misses;
    let found = match (server.keyspace_hits * 100).checked_div(asked) {
        Some(percent) => format!("{percent}% of {} looked up", counted(asked, "key")),
        None => "no key looked up".to_owned(),
    };
    writeln!(
        out,
        "{} {}, {}, {memory}; {} commands/s, {} publishes/s; {found}",
        paint(BOLD, "redis"),
        plain(&server.version),
        counted(server.clients, "client"),
        shown(server.commands_per_second),
        shown(server.publishes_per_second),
    )?;
    if server.cut_off > 0 {
        let line = format!(
            "{} closed because the reader was too slow (since the server's start)",
            counted(server.cut_off, "connection")
        );
        writeln!(out, "{}", paint(YELLOW, &line))?;
    }
    if server.evicted_keys > 0 {
        let line = format!(
            "{} evicted for lack of memory (since the server's start)",
            counted(server.evicted_keys, "key")
        );
        writeln!(out, "{}", paint(YELLOW, &line))?;
    }
    if !report.streams.is_empty() {
        let mut table = Table::new(1, &["STREAM", "PER SECOND", "PUBLISHED", "KEPT", "OLDEST", "NEWEST"]);
        for Stream { report, per_second } in &report.streams {
            table.row([
                report.stream.as_str().into(),
                shown(*per_second).into(),
                count(report.published).into(),
                count(report.length).into(),
                ago(report.oldest_ms).into(),
                ago(report.newest_ms).into(),
            ]);
        }
        section(out, &table)?;
    }
    if !report.groups.is_empty() {
        section(out, &groups::table(&report.groups))?;
    }
    if !report.channels.is_empty() {
        let mut table = Table::new(1, &["CHANNEL", "SUBSCRIBERS", "PER SECOND"]);
        for channel in &report.channels {
            table.row([
                channel.channel.as_str().into(),
                channel.subscribers.map_or_else(|| "-".to_owned(), count).into(),
                channel.per_second.map_or_else(|| "-".to_owned(), shown).into(),
            ]);
        }
        section(out, &table)?;
    }
    if !report.families.is_empty() {
        section(out, &cache::table(&report.families))?;
    }
    report.services.iter().try_for_each(|service| write_service(service, out))
}

fn write_service(service: &Service, out: &mut Vec<u8>) -> std::io::Result<()> {
    writeln!(out, "\n{}", paint(BOLD, &plain(&service.url)))?;
    if let Some(error) = &service.error {
        writeln!(out, "{}", paint(RED, &plain(error)))?;
    }
    for warning in &service.warnings {
        writeln!(out, "{}", paint(YELLOW, &plain(warning)))?;
    }
    if !service.handlers.is_empty() {
        let mut table =
            Table::new(2, &["HANDLER", "STATE", "HANDLED", "FAILED", "WAITING", "DROPPED", "GAPS"]);
        for handler in &service.handlers {
            let bad = |number: u64| Cell(count(number), if number > 0 { YELLOW } else { PLAIN });
            table.row([
                handler.id.as_str().into(),
                Cell(handler.state.clone(), if handler.state == "running" { PLAIN } else { RED }),
                count(handler.handled).into(),
                bad(handler.failed),
                count(handler.waiting).into(),
                bad(handler.dropped),
                bad(handler.gaps),
            ]);
        }
        table.write(out)?;
    }
    if !service.caches.is_empty() {
        let mut table = Table::new(1, &["CACHED FUNCTION", "CALLS", "HITS", "LOADS"]);
        for cache in &service.caches {
            let ratio =
                cache.hit_ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.1}%", ratio * 100.0));
            table.row([
                cache.function.as_str().into(),
                count(cache.calls).into(),
                ratio.into(),
                count(cache.loads).into(),
            ]);
        }
        table.write(out)?;
    }
    Ok(())
}

fn section(out: &mut Vec<u8>, table: &Table) -> std::io::Result<()> {
    writeln!(out)?;
    table.write(out)
}

fn shown(per_second: f64) -> String {
    if per_second == 0.0 || per_second >= 99.5 {
        count(per_second.round() as u64)
    } else {
        format!("{per_second:.1}")
    }
}
