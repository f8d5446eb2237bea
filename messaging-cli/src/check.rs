//! `check`: tries everything out, and says in words what is wrong and what to try.

mod report;
mod rights;
mod server;
mod trips;

use std::collections::BTreeMap;

use clap::Args;
use messaging_core::{Channel, Messaging};

use crate::connect::{Target, reached};
use crate::failure::{Code, Failure};
use report::{Report, State};

/// What the channel of a check begins with that was not given one.
const OWN_CHANNEL: &str = "messaging.check.";

/// Try everything out: the connection, the server, the rights, a message, a durable message, a cached value
///
/// It says what is wrong and what to try. It publishes on a channel of its own (messaging.check.…), or on the one that is
/// named, and leaves nothing behind. Nothing that is found to be missing is repaired.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Publish on this channel, whose handlers will get it, and look at the rights for it; what is published is
    /// {"messaging_check":"…"}
    #[arg(long, short = 'c', value_name = "CHANNEL")]
    channel: Option<String>,
    /// Look at the rights for cached values whose keys match this glob
    #[arg(long, value_name = "GLOB")]
    keys: Option<String>,
    /// Write nothing and publish nothing: look at the server, the settings and the rights only
    #[arg(long)]
    read_only: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(crate) async fn run(&self, target: &Target) -> Result<Code, Failure> {
        let named = self.channel.as_deref().map(Channel::new).transpose()?;
        let messaging = target.open().await?;
        let mut report = Report::new(self.json);
        settings(&messaging, target, &mut report)?;
        if let Err(failure) = reached(&messaging).await {
            let advice = server::why_unreachable(&failure, &messaging, target);
            report.add(
                "connection",
                State::Bad,
                &failure.message.replace("; `messaging check` says more", ""),
                &advice,
            )?;
            report.finish()?;
            return Ok(failure.code);
        }
        report.add("connection", State::Good, "redis answers", &[])?;
        let info = messaging.client().info().await.unwrap_or_default();
        server::look(&messaging, &info, &mut report).await?;
        let token = trips::token();
        let channel = match named {
            Some(channel) => channel,
            None => Channel::new(&format!("{OWN_CHANNEL}{token}"))?,
        };
        let keys = self.keys.clone().unwrap_or_else(|| keys_of(&messaging));
        rights::look(&messaging, &channel, &keys, &info, &mut report).await?;
        if self.read_only {
            report.add("trips", State::Skipped, "nothing was published or written (--read-only)", &[])?;
        } else {
            trips::message(&messaging, &channel, &mut report).await?;
            trips::durable(&messaging, &channel, self.channel.is_some(), &mut report).await?;
            trips::cache(&messaging, &token, &mut report).await?;
        }
        deployment(&messaging, self.channel.as_deref(), &mut report).await?;
        report.finish()
    }
}

fn settings(messaging: &Messaging, target: &Target, report: &mut Report) -> Result<(), Failure> {
    let config = messaging.config();
    let mut text = format!("{} ({}), namespace {:?}", config.endpoint, target.source(), config.namespace);
    if !config.channel_prefix.is_empty() {
        text.push_str(&format!(", channels begin with {:?}", config.channel_prefix));
    }
    if !config.cache_prefix.is_empty() {
        text.push_str(&format!(", cached keys with {:?}", config.cache_prefix));
    }
    report.add("settings", State::Good, &text, &[])
}

/// Where nothing else is said: keys as `check` itself writes them.
fn keys_of(messaging: &Messaging) -> String {
    match messaging.config().cache_prefix.as_str() {
        "" => "messaging.check:*".to_owned(),
        prefix => format!("{prefix}:messaging.check:*"),
    }
}

/// What is there of other processes: where messages do not arrive although everything works, it is here that one sees why.
async fn deployment(
    messaging: &Messaging,
    channel: Option<&str>,
    report: &mut Report,
) -> Result<(), Failure> {
    let operator = messaging.operator();
    if let Some(channel) = channel {
        let subscribers: BTreeMap<String, u64> =
            messaging.client().pubsub_numsub([channel]).await.unwrap_or_default();
        match subscribers.get(channel).copied().unwrap_or_default() {
            0 => report.add(
                "subscribers",
                State::Doubtful,
                &format!("nobody is subscribed to {channel} by name (by template or glob, Redis does not tell)"),
                &[
                    "do the services have the same REDIS_URL, database, MESSAGING_CHANNEL_PREFIX as this command?".to_owned(),
                    "does the service call `start` or `run`, and is its handler not left out by `handlers(…)`?".to_owned(),
                    format!("see whether anything arrives: messaging tail {channel}"),
                ],
            )?,
            number => {
                let text = format!("{} to {channel} by name", crate::output::counted(number, "subscriber"));
                report.add("subscribers", State::Good, &text, &[])?;
            }
        }
    }
    let Ok(groups) = operator.groups().await else { return Ok(()) };
    for group in groups.iter().filter(|group| group.alive == 0 && group.lag() > 0) {
        let text = format!(
            "nobody handles the {} of the group {} on {}",
            crate::output::counted(group.lag(), "message"),
            group.group,
            group.stream
        );
        let advice =
            "start its handlers; if they are gone for good, remove the group (XGROUP DESTROY)".to_owned();
        report.add("queues", State::Doubtful, &text, &[advice])?;
    }
    for group in groups.iter().filter(|group| group.dead > 0) {
        let dead = crate::output::counted(group.dead, "dead letter");
        let text = format!("the group {} has {dead} on {}", group.group, group.stream);
        report.add(
            "queues",
            State::Doubtful,
            &text,
            &[format!("look: messaging dead list {}", group.group)],
        )?;
    }
    Ok(())
}
