//! `tail`: shows messages as they come, and of durable channels also those that came before.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use messaging_core::{
    Channel, EntryId, ErrorKind, Followed, Messaging, PastMessage, Pattern, StreamEntry, StreamRef,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::connect::Target;
use crate::failure::{Code, Failure};
use crate::input;
use crate::json;
use crate::output::{BOLD, DIM, YELLOW, moment, note, paint, plain, say, say_json};

/// How often it is looked for streams that have come up.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How many entries are read backwards at once.
const AT_ONCE: usize = 500;
/// The earliest place: what comes after it is everything.
const BEGINNING: EntryId = EntryId { millis: 0, sequence: 0 };

/// Show messages as they come
///
/// A channel is a name (orders.created), a template (chat:{room}) or a glob (orders.*). Where messages may have been
/// missed, a line says so. With --since, --last or --durable the streams of durable channels are read, and nothing is
/// missed within their retention; without, what is published now.
///
/// Times are those of publishing in UTC where a stream is read, and of receiving elsewhere.
#[derive(Args, Debug)]
pub(crate) struct Tail {
    /// Channels, templates or globs
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<String>,
    /// Of durable channels, also what came after this: a time span (10m), a time (2025-01-14T15:30:00Z), or a position
    /// as --json shows it
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<EntryId>,
    /// Of durable channels, also the last so many messages
    #[arg(long, short = 'l', value_name = "N", conflicts_with = "since")]
    last: Option<usize>,
    /// Read the streams of durable channels, from now on
    #[arg(long, short = 'd')]
    durable: bool,
    /// End when what there is has been shown
    #[arg(long)]
    no_follow: bool,
    /// End after so many messages
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// One JSON object for each line
    #[arg(long)]
    json: bool,
}

/// The place after which to begin.
fn since(text: &str) -> Result<EntryId, String> {
    // The position of a gateway's client has a number behind it.
    let id = text.split_once('.').map_or(text, |(id, _)| id);
    if let Ok(id) = id.parse() {
        return Ok(id);
    }
    let time = match humantime::parse_rfc3339_weak(text) {
        Ok(time) => time,
        Err(_) => input::duration(text).ok().and_then(|span| SystemTime::now().checked_sub(span)).ok_or(
            "write a time span (10m), a time (2025-01-14T15:30:00Z) or a position (1736868600000-0)",
        )?,
    };
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    Ok(EntryId { millis, sequence: 0 })
}

impl Tail {
    pub(crate) async fn run(&self, target: &Target) -> Result<Code, Failure> {
        let patterns = self.channels.iter().map(|channel| Pattern::parse(channel));
        let patterns: Vec<Pattern> = patterns.collect::<Result<_, _>>()?;
        let reads_streams = self.durable || self.since.is_some() || self.last.is_some();
        if self.no_follow && self.since.is_none() && self.last.is_none() {
            return Err(Failure::usage(
                "--no-follow goes with --since or --last: without them there is nothing to show",
            ));
        }
        if self.count == Some(0) {
            return Ok(Code::Well);
        }
        let messaging = target.connect().await?;
        let mut screen = Screen { json: self.json, left: self.count };
        if reads_streams {
            self.follow(&messaging, &patterns, &mut screen).await
        } else {
            listen(&messaging, &patterns, &mut screen).await
        }
    }

    async fn follow(
        &self,
        messaging: &Messaging,
        patterns: &[Pattern],
        screen: &mut Screen,
    ) -> Result<Code, Failure> {
        let mut follow = messaging.follow();
        let handle = follow.handle();
        // Of each stream, the last number that was seen.
        let mut numbers: HashMap<StreamRef, u64> = HashMap::new();
        // What is still to be shown before it ends.
        let mut until: HashMap<StreamRef, EntryId> = HashMap::new();
        let mut past: Vec<(StreamRef, StreamEntry)> = Vec::new();
        for stream in streams_of(messaging, patterns).await? {
            let end = messaging.stream_end(&stream).await?.position;
            let after = self.since.unwrap_or(end.id);
            if let Some(last) = self.last {
                let found = last_of(messaging, &stream, patterns, end.id, last).await?;
                past.extend(found.into_iter().map(|entry| (stream.clone(), entry)));
            } else if self.no_follow {
                // The last entry that there is: it may not be the one that was appended last.
                let newest = messaging.stream_before(&stream, next(end.id), 1).await?;
                if let Some(newest) = newest.first().filter(|newest| newest.position.id > after) {
                    until.insert(stream.clone(), newest.position.id);
                }
            }
            numbers.insert(stream.clone(), if after == end.id { end.number } else { 0 });
            handle.add(stream, after);
        }
        if numbers.is_empty() {
            let names = self.channels.join(", ");
            if self.no_follow {
                return Err(Failure::new(
                    Code::Unwell,
                    format!("no durable channel is {names}: nothing was published durably"),
                ));
            }
            note(&format!("no durable channel is {names} yet; waiting for one"));
        }
        if let Some(last) = self.last {
            past.sort_by_key(|(_, entry)| entry.position);
            let skipped = past.len().saturating_sub(last);
            for (stream, entry) in past.into_iter().skip(skipped) {
                if let Some(message) = &entry.message
                    && screen.past(&stream, message)?
                {
                    return Ok(Code::Well);
                }
            }
        }
        if self.no_follow && until.is_empty() {
            return Ok(Code::Well);
        }
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_AGAIN, LOOK_AGAIN);
        loop {
            let news = tokio::select! {
                news = follow.next() => news,
                _ = look.tick() => {
                    // Where Redis is away, `follow` says so.
                    for stream in streams_of(messaging, patterns).await.unwrap_or_default() {
                        if !numbers.contains_key(&stream) {
                            numbers.insert(stream.clone(), 0);
                            handle.add(stream, self.since.unwrap_or(BEGINNING));
                        }
                    }
                    continue;
                }
            };
            match news {
                Followed::Entries { stream, entries } => {
                    let seen = numbers.entry(stream.clone()).or_default();
                    for entry in entries {
                        if until.get(&stream).is_some_and(|until| entry.position.id > *until) {
                            break;
                        }
                        let number = entry.position.number;
                        if *seen != 0 && number > *seen + 1 {
                            let removed = number - *seen - 1;
                            screen
                                .gap(&format!("{removed} of {stream} were removed before they were read"))?;
                        }
                        *seen = if number == 0 { *seen } else { number };
                        if let Some(message) = &entry.message
                            && is_wanted(patterns, message.channel())
                            && screen.past(&stream, message)?
                        {
                            return Ok(Code::Well);
                        }
                        if until.get(&stream) == Some(&entry.position.id) {
                            until.remove(&stream);
                            handle.remove(&stream);
                            break;
                        }
                    }
                    if self.no_follow && until.is_empty() {
                        return Ok(Code::Well);
                    }
                }
                Followed::Lost(error) if error.kind() == ErrorKind::Refused => return Err(error.into()),
                Followed::Lost(error) => screen.notice("lost", &format!("{error}; trying again"))?,
                Followed::Restored => screen.notice("restored", "going on where it stopped")?,
                Followed::Closed => return Ok(Code::Well),
            }
        }
    }
}

/// What is published now.
async fn listen(messaging: &Messaging, patterns: &[Pattern], screen: &mut Screen) -> Result<Code, Failure> {
    let mut messages = SelectAll::new();
    for pattern in patterns {
        messages.push(messaging.subscribe(pattern).await?);
    }
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => {
                if screen.message(message.channel(), message.payload())? {
                    return Ok(Code::Well);
                }
            }
            Err(error) if error.kind() == ErrorKind::Gap => screen.gap(&error.to_string())?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Code::Well)
}

fn is_wanted(patterns: &[Pattern], channel: &Channel) -> bool {
    patterns.iter().any(|pattern| pattern.matches(channel))
}

async fn streams_of(messaging: &Messaging, patterns: &[Pattern]) -> Result<Vec<StreamRef>, Failure> {
    let mut streams = Vec::new();
    for pattern in patterns {
        streams.extend(messaging.streams_of(pattern).await?);
    }
    streams.sort();
    streams.dedup();
    Ok(streams)
}

/// The youngest entries that are wanted, up to `end`.
async fn last_of(
    messaging: &Messaging,
    stream: &StreamRef,
    patterns: &[Pattern],
    end: EntryId,
    most: usize,
) -> Result<Vec<StreamEntry>, Failure> {
    let (mut found, mut before) = (Vec::new(), next(end));
    loop {
        let page = messaging.stream_before(stream, before, AT_ONCE).await?;
        let Some(oldest) = page.last() else { return Ok(found) };
        before = oldest.position.id;
        for entry in page {
            if found.len() == most {
                return Ok(found);
            }
            if entry.message.as_ref().is_some_and(|message| is_wanted(patterns, message.channel())) {
                found.push(entry);
            }
        }
    }
}

/// The place right behind this one.
fn next(id: EntryId) -> EntryId {
    EntryId { sequence: id.sequence.saturating_add(1), ..id }
}

/// Where messages are shown.
struct Screen {
    json: bool,
    /// How many are still to be shown, if not all.
    left: Option<u64>,
}

#[derive(Serialize)]
struct Line<'m> {
    r#type: &'m str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'m RawValue>,
    /// In place of a payload that is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'m str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    durable: Option<DurableLine<'m>>,
}

#[derive(Serialize)]
struct DurableLine<'m> {
    id: &'m str,
    stream: String,
    position: EntryId,
    number: u64,
    headers: HashMap<&'m str, &'m str>,
}

impl Screen {
    /// Shows a message; `true` if it was the last.
    fn message(&mut self, channel: &Channel, payload: &[u8]) -> Result<bool, Failure> {
        self.show(SystemTime::now(), channel, payload, None)
    }

    fn past(&mut self, stream: &StreamRef, message: &PastMessage) -> Result<bool, Failure> {
        let durable = DurableLine {
            id: message.event_id().as_str(),
            stream: stream.to_string(),
            position: message.position(),
            number: message.number(),
            headers: message.headers().iter().collect(),
        };
        self.show(message.published_at(), message.channel(), message.payload(), Some(durable))
    }

    fn show(
        &mut self,
        time: SystemTime,
        channel: &Channel,
        payload: &[u8],
        durable: Option<DurableLine<'_>>,
    ) -> Result<bool, Failure> {
        let json = json::read(payload);
        let text = String::from_utf8_lossy(payload);
        if self.json {
            say_json(&Line {
                r#type: "message",
                time: moment(time),
                channel: Some(channel),
                payload: json.as_deref(),
                text: json.is_none().then_some(&text),
                durable,
            })?;
        } else {
            let shown = json.map_or_else(|| plain(&text), |json| json::coloured(&json));
            let (number, headers) = durable.map_or_else(Default::default, |durable| {
                let mut headers: Vec<_> = durable.headers.iter().collect();
                headers.sort();
                let headers =
                    headers.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
                (paint(DIM, &format!(" #{}", durable.number)), paint(DIM, &plain(&headers)))
            });
            let channel = paint(BOLD, &plain(channel));
            say(&format!("{} {channel}{number} {shown}{headers}", paint(DIM, &clock(time))))?;
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
            return Ok(*left == 0);
        }
        Ok(false)
    }

    fn gap(&self, reason: &str) -> Result<(), Failure> {
        self.notice("gap", reason)
    }

    /// Something other than a message.
    fn notice(&self, what: &str, reason: &str) -> Result<(), Failure> {
        let now = moment(SystemTime::now());
        if self.json {
            let line = Line {
                r#type: what,
                time: now,
                channel: None,
                payload: None,
                text: Some(reason),
                durable: None,
            };
            say_json(&line)?;
        } else {
            say(&format!(
                "{} {}",
                paint(DIM, &clock(SystemTime::now())),
                paint(YELLOW, &format!("-- {what}: {}", plain(reason)))
            ))?;
        }
        Ok(())
    }
}

/// The time of day, in UTC.
fn clock(time: SystemTime) -> String {
    moment(time).split_once('T').map_or_else(String::new, |(_, clock)| clock.to_owned())
}
