//! `health`: whether Redis, a queue's group, a channel or a service is well; for probes.

use std::time::{Duration, Instant};

use clap::Args;
use messaging_core::{GroupReport, Messaging};
use serde::Serialize;
use url::Url;

use crate::connect::{Target, reached};
use crate::failure::{Code, Failure};
use crate::http::{self, Readiness};
use crate::input;
use crate::output::{GREEN, RED, count, counted, millis, paint, plain, say, say_json};

/// Say whether all is well: 0 if it is, 1 if not
///
/// For a process without HTTP, as an exec probe: messaging health --quiet --group billing --here
#[derive(Args, Debug)]
pub(crate) struct Health {
    /// This group of queue handlers has consumers that live, on each of its streams. Without the option `group`, a
    /// handler's group is its id
    #[arg(long, short = 'g', value_name = "GROUP", visible_alias = "handler")]
    group: Vec<String>,
    /// With --group: one of the consumers that live is of this host, as HOSTNAME names it
    #[arg(long, requires = "group")]
    here: bool,
    /// With --group: no more messages than this wait or are in hand
    #[arg(long, value_name = "N", requires = "group")]
    max_lag: Option<u64>,
    /// With --group: it has no more dead letters than this
    #[arg(long, value_name = "N", requires = "group")]
    max_dead: Option<u64>,
    /// Somebody is subscribed to this channel by name
    #[arg(long, short = 'c', value_name = "CHANNEL")]
    channel: Vec<String>,
    /// This answers 200, such as http://localhost:9000/readyz; Redis is then asked only if something else is asked of it
    #[arg(long, value_name = "URL", value_parser = http::url)]
    http: Vec<Url>,
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = input::interval)]
    timeout: Duration,
    /// Say nothing
    #[arg(long, short = 'q', conflicts_with = "json")]
    quiet: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    well: bool,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    what: String,
    well: bool,
    detail: String,
}

impl Check {
    fn new(what: impl Into<String>, well: bool, detail: impl Into<String>) -> Self {
        Self { what: what.into(), well, detail: detail.into() }
    }
}

impl Health {
    pub(crate) async fn run(&self, target: &Target) -> Result<Code, Failure> {
        let mut checks = Vec::new();
        for url in &self.http {
            checks.push(self.ask(url).await);
        }
        if self.http.is_empty() || !self.group.is_empty() || !self.channel.is_empty() {
            let messaging = target.open().await?;
            match tokio::time::timeout(self.timeout, self.look(&messaging)).await {
                Ok(looked) => checks.extend(looked),
                Err(_) => {
                    checks.push(Check::new("redis", false, format!("no answer within {:?}", self.timeout)))
                }
            }
        }
        let well = checks.iter().all(|check| check.well);
        if self.json {
            say_json(&Report { well, checks })?;
        } else if !self.quiet {
            for Check { what, well, detail } in &checks {
                let (style, word) = if *well { (GREEN, "well") } else { (RED, "unwell") };
                say(&format!("{}: {}: {}", paint(style, word), plain(what), plain(detail)))?;
            }
        }
        Ok(if well { Code::Well } else { Code::Unwell })
    }

    async fn ask(&self, url: &Url) -> Check {
        match http::get(url, self.timeout).await {
            Ok(answer) if answer.status == 200 => Check::new(url.as_str(), true, "ready"),
            Ok(answer) => {
                let said = serde_json::from_slice::<Readiness>(&answer.body).ok();
                let mut reasons: Vec<String> = Vec::new();
                for handler in said.iter().flat_map(|said| &said.messaging.handlers) {
                    if let (Some(id), Some(state)) = (handler["id"].as_str(), handler["state"].as_str())
                        && state != "running"
                    {
                        reasons.push(format!("handler {id} is {state}"));
                    }
                }
                reasons.insert(0, format!("not ready: it answers {}", answer.status));
                Check::new(url.as_str(), false, reasons.join(", "))
            }
            Err(reason) => Check::new(url.as_str(), false, reason),
        }
    }

    async fn look(&self, messaging: &Messaging) -> Vec<Check> {
        let start = Instant::now();
        let endpoint = messaging.config().endpoint.to_string();
        let mut checks = match reached(messaging).await {
            Ok(()) => {
                let detail = format!("answers in {:.1} ms", start.elapsed().as_secs_f64() * 1_000.0);
                vec![Check::new(endpoint, true, detail)]
            }
            Err(failure) => return vec![Check::new("redis", false, failure.message)],
        };
        if !self.group.is_empty() {
            match messaging.operator().groups().await {
                Ok(groups) => checks.extend(self.group.iter().flat_map(|group| self.look_at(group, &groups))),
                Err(error) => checks.push(Check::new("groups", false, error.to_string())),
            }
        }
        if !self.channel.is_empty() {
            match messaging.client().pubsub_numsub(&self.channel).await {
                Ok(subscribers) => checks.extend(subscribers.into_iter().map(|(channel, subscribers)| {
                    Check::new(channel, subscribers > 0, counted(subscribers, "subscriber"))
                })),
                Err(error) => checks.push(Check::new("channels", false, error.to_string())),
            }
        }
        checks
    }

    fn look_at(&self, group: &str, groups: &[GroupReport]) -> Vec<Check> {
        let of: Vec<_> = groups.iter().filter(|report| report.group == group).collect();
        if of.is_empty() {
            let detail =
                "there is no such group: its handlers have never run here, or its streams have expired";
            return vec![Check::new(group, false, detail)];
        }
        let host = std::env::var("HOSTNAME").unwrap_or_default();
        let check = |report: &&GroupReport| {
            let what = format!("{group} on {}", report.stream);
            let mut reasons = Vec::new();
            if report.alive == 0 {
                let idle = millis(report.idle_ms);
                reasons.push(match report.idle_ms {
                    Some(_) => format!("no consumer lives; the last one was heard of {idle} ago"),
                    None => "no consumer lives".to_owned(),
                });
            }
            let lives_here = |name: &str| name.split(':').next() == Some(host.as_str());
            if self.here && !report.consumers.iter().any(|one| one.alive && lives_here(&one.name)) {
                reasons.push(format!("no consumer of this host ({host:?}) lives"));
            }
            if self.max_lag.is_some_and(|most| report.lag() > most) {
                let most = self.max_lag.unwrap_or_default();
                reasons.push(format!(
                    "{} to handle, more than {}",
                    counted(report.lag(), "message"),
                    count(most)
                ));
            }
            if self.max_dead.is_some_and(|most| report.dead > most) {
                let most = self.max_dead.unwrap_or_default();
                reasons.push(format!("{}, more than {}", counted(report.dead, "dead letter"), count(most)));
            }
            let well = reasons.is_empty();
            let detail = if well {
                format!(
                    "{}, {} to handle",
                    counted(report.alive, "consumer"),
                    counted(report.lag(), "message")
                )
            } else {
                reasons.join(", ")
            };
            Check::new(what, well, detail)
        };
        of.iter().map(check).collect()
    }
}
