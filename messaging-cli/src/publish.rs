//! `publish`: one message, or one for each line of standard input.

use std::io::Read as _;

use clap::Args;
use messaging_core::{Channel, Messaging};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::connect::{Target, reached};
use crate::failure::{Code, Failure};
use crate::json;
use crate::output::{counted, note, say, say_json};

/// Publish a message, and print how many receivers there were
///
/// The payload is JSON: messaging publish orders.created '{"id":1}'. With - it is read from standard input.
#[derive(Args, Debug)]
pub(crate) struct Publish {
    /// The channel
    channel: String,
    /// The payload, as JSON; - reads it from standard input
    #[arg(allow_negative_numbers = true)]
    payload: String,
    /// The payload is text, and is sent as a JSON string
    #[arg(long)]
    text: bool,
    /// Each line of standard input is a payload
    #[arg(long)]
    lines: bool,
    /// Also append it to the channel's stream, for queues and resumable handlers
    #[arg(long, short = 'd')]
    durable: bool,
    /// On the sharded channel of this name (Redis 7.0)
    #[arg(long)]
    sharded: bool,
    /// A header of a durable message
    #[arg(long, short = 'H', value_name = "NAME=VALUE", value_parser = header, requires = "durable")]
    header: Vec<(String, String)>,
    /// The id of a durable message; handlers with `dedupe` handle an id once
    #[arg(long, requires = "durable", conflicts_with = "lines")]
    id: Option<String>,
    /// The key of a durable message, for those who keep messages of a key in order
    #[arg(long, requires = "durable")]
    key: Option<String>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Serialize)]
struct Report<'p> {
    channel: &'p str,
    published: u64,
    receivers: u64,
    durable: bool,
}

impl Publish {
    pub(crate) async fn run(&self, target: &Target) -> Result<Code, Failure> {
        let channel = Channel::new(&self.channel)?;
        if self.lines && self.payload != "-" {
            return Err(Failure::usage("--lines reads standard input: give - as the payload"));
        }
        let payloads = self.payloads().await?;
        let asked = target.connect().await?;
        let kept = asked.operator().durability_of(&channel).await;
        let messaging = match (&kept, self.durable) {
            // Into the stream that is there, and with its retention.
            (Ok(Some((pattern, durability))), true) => {
                let messaging =
                    target.open_with(|builder| builder.durable(pattern.as_str(), *durability)).await?;
                reached(&messaging).await?;
                messaging
            }
            // Which streams there are may not be seen; then the channel has one of its own.
            _ => asked,
        };
        let (mut published, mut receivers) = (0, 0);
        for payload in &payloads {
            receivers = self.publish(&messaging, &channel, payload).await.map_err(|failure| {
                if published == 0 {
                    failure
                } else {
                    failure.context(format_args!("after {}", counted(published, "message")))
                }
            })?;
            published += 1;
        }
        if self.json {
            let report = Report { channel: &self.channel, published, receivers, durable: self.durable };
            say_json(&report)?;
        } else if payloads.len() == 1 {
            say(&counted(receivers, "receiver"))?;
        } else {
            say(&format!(
                "{}, the last to {}",
                counted(published, "message"),
                counted(receivers, "receiver")
            ))?;
        }
        match kept {
            Ok(Some((pattern, _))) if !self.durable => note(&format!(
                "this channel is durable ({pattern}); queues and resumable handlers get only what is published with --durable"
            )),
            _ if receivers == 0 && !self.durable => {
                note(
                    "nobody is subscribed to it at the moment, or only under another MESSAGING_CHANNEL_PREFIX",
                );
            }
            _ => {}
        }
        Ok(Code::Well)
    }

    async fn publish(
        &self,
        messaging: &Messaging,
        channel: &Channel,
        payload: &RawValue,
    ) -> Result<u64, Failure> {
        let mut publish = messaging.publish(channel, payload);
        if self.durable {
            publish = publish.durable();
        }
        if self.sharded {
            publish = publish.sharded();
        }
        if let Some(id) = &self.id {
            publish = publish.id(id);
        }
        if let Some(key) = &self.key {
            publish = publish.key(key);
        }
        for (name, value) in &self.header {
            publish = publish.header(name, value);
        }
        Ok(publish.await?)
    }

    async fn payloads(&self) -> Result<Vec<Box<RawValue>>, Failure> {
        if self.payload != "-" {
            return Ok(vec![self.read(self.payload.as_bytes(), "the payload")?]);
        }
        let input = tokio::task::spawn_blocking(|| {
            let mut input = Vec::new();
            std::io::stdin().lock().read_to_end(&mut input).map(|_| input)
        });
        let input = input.await.map_err(std::io::Error::other).and_then(|input| input);
        let input = input.map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?;
        if !self.lines {
            let input = if self.text { input.strip_suffix(b"\n").unwrap_or(&input) } else { &input };
            return Ok(vec![self.read(input, "standard input")?]);
        }
        let lines =
            input.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
        lines.map(|(number, line)| self.read(line, &format!("line {}", number + 1))).collect()
    }

    fn read(&self, payload: &[u8], what: &str) -> Result<Box<RawValue>, Failure> {
        if self.text {
            let text = std::str::from_utf8(payload)
                .map_err(|_| Failure::usage(format!("{what} is not UTF-8 text")))?;
            let raw = serde_json::value::to_raw_value(text);
            return raw.map_err(|error| Failure::usage(format!("{what}: {error}")));
        }
        json::read(payload).ok_or_else(|| {
            let reason = serde_json::from_slice::<serde::de::IgnoredAny>(payload).err();
            let reason = reason.map_or_else(|| "it is not JSON".to_owned(), |error| error.to_string());
            Failure::usage(format!(
                "{what} is not JSON: {reason}; quote it for the shell, or send text with --text"
            ))
        })
    }
}
