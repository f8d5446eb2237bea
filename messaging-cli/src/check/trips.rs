//! A message, a durable message and a cached value on their way to Redis and back.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use messaging_core::{Channel, DeliveryMode, Messaging, StartAt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::report::{Report, State};
use crate::failure::Failure;

/// How long a message may be on its way.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a value lives that was left behind.
const SHORT: Duration = Duration::from_secs(60);

/// Publishes a message, and waits until it is heard.
pub(super) async fn message(
    messaging: &Messaging,
    channel: &Channel,
    report: &mut Report,
) -> Result<(), Failure> {
    let start = Instant::now();
    let sent = payload();
    let trip = async {
        let mut subscription =
            messaging.subscribe(channel).await.map_err(|error| format!("cannot subscribe: {error}"))?;
        let receivers =
            messaging.publish(channel, &sent).await.map_err(|error| format!("cannot publish: {error}"))?;
        loop {
            match subscription.get_message(PATIENCE).await {
                // Others may publish there too.
                Ok(Some(message)) if message.json::<Value>().is_ok_and(|heard| heard == sent) => {
                    return Ok(());
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    return Err(format!(
                        "published to {receivers} receivers, and not heard within {PATIENCE:?}"
                    ));
                }
                Err(error) => return Err(format!("not heard: {error}")),
            }
        }
    };
    match trip.await {
        Ok(()) => report.add(
            "message",
            State::Good,
            &format!("published and heard on {channel} in {}", took(start)),
            &[],
        ),
        Err(reason) => report.add("message", State::Bad, &reason, &advice(&reason, channel)),
    }
}

/// Publishes a durable message, reads it back, and has it handled by a queue. On a channel of others it is not tried: their
/// queues would handle it.
pub(super) async fn durable(
    messaging: &Messaging,
    channel: &Channel,
    is_of_others: bool,
    report: &mut Report,
) -> Result<(), Failure> {
    if is_of_others {
        let text = format!("not tried on {channel}: its queues would handle it; leave --channel out");
        return report.add("durable", State::Skipped, &text, &[]);
    }
    let start = Instant::now();
    let sent = payload();
    let (handled, mut handling) = mpsc::unbounded_channel();
    let trip = async {
        messaging
            .publish(channel, &sent)
            .durable()
            .await
            .map_err(|error| format!("cannot publish durably: {error}"))?;
        let past =
            messaging.history(channel).await.map_err(|error| format!("cannot read the past: {error}"))?;
        if past.is_empty() {
            return Err(
                "what was published durably is not in its stream: does something evict it?".to_owned()
            );
        }
        let handler = messaging
            .subscriber()
            .id("messaging.check")
            .delivery(DeliveryMode::Queue)
            .start_at(StartAt::Beginning)
            .on(channel, move |payload: Value| {
                let handled = handled.clone();
                async move { _ = handled.send(payload) }
            })
            .await
            .map_err(|error| format!("cannot handle a queue: {error}"))?;
        let arrived = timeout(PATIENCE, handling.recv()).await;
        handler.stop().await;
        match arrived {
            Ok(Some(payload)) if payload == sent => Ok(()),
            Ok(_) => Err("a queue was given something else than was published".to_owned()),
            Err(_) => Err(format!("published durably, and not given to a queue within {PATIENCE:?}")),
        }
    };
    let outcome = trip.await;
    let removed =
        messaging.operator().remove_stream(&format!("{}{channel}", messaging.config().channel_prefix)).await;
    match outcome {
        Ok(()) => {
            let text = format!("published, kept, and handled by a queue in {}", took(start));
            report.add("durable", State::Good, &text, &[])?;
        }
        // Only those who use them need them.
        Err(reason) => report.add("durable", State::Doubtful, &reason, &advice(&reason, channel))?,
    }
    match removed {
        Err(error) => {
            let text = format!("the stream of {channel} could not be removed: {error}");
            report.add("durable", State::Doubtful, &text, &["it expires in 24 hours".to_owned()])
        }
        Ok(_) => Ok(()),
    }
}

/// Writes a value, reads it, loads one that is not there, and makes both out of date.
pub(super) async fn cache(messaging: &Messaging, token: &str, report: &mut Report) -> Result<(), Failure> {
    let start = Instant::now();
    let cache = messaging.cache("messaging.check");
    let (written, loaded) = (token.to_owned(), format!("{token}:loaded"));
    let trip = async {
        let failed =
            |what: &'static str| move |error: messaging_core::Error| format!("cannot {what}: {error}");
        cache.set(&written, &token, SHORT).await.map_err(failed("write a value"))?;
        let read: Option<String> = cache.get(&written).await.map_err(failed("read a value"))?;
        if read.as_deref() != Some(token) {
            return Err(
                "what was written was not there when it was read: does something evict it?".to_owned()
            );
        }
        let load = async || Ok::<_, std::io::Error>(token.to_owned());
        let value: String =
            cache.get_or_load(&loaded, SHORT, load()).await.map_err(failed("load a value"))?;
        if value != token {
            return Err("a value was there that nobody had loaded".to_owned());
        }
        for key in [&written, &loaded] {
            cache.invalidate(key).await.map_err(failed("invalidate a value"))?;
        }
        let read: Option<String> = cache.get(&written).await.map_err(failed("read a value"))?;
        read.map_or(Ok(()), |_| Err("a value was still there after it was invalidated".to_owned()))
    };
    match trip.boxed_local().await {
        Ok(()) => {
            let text = format!("written, read, loaded and invalidated in {}", took(start));
            report.add("cache", State::Good, &text, &[])
        }
        Err(reason) => {
            let advice = ["cached functions go on without the cache; allow what `rights` says".to_owned()];
            report.add("cache", State::Doubtful, &reason, &advice)
        }
    }
}

/// What no other check has.
pub(super) fn token() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", std::process::id(), now.as_nanos() & 0xffff_ffff)
}

fn payload() -> Value {
    json!({ "messaging_check": token() })
}

fn took(start: Instant) -> String {
    format!("{:.1} ms", start.elapsed().as_secs_f64() * 1_000.0)
}

fn advice(reason: &str, channel: &Channel) -> Vec<String> {
    if reason.contains("NOPERM") || reason.contains("The user executing the script") {
        return vec![format!(
            "allow what `rights` says, or name a channel that is allowed: messaging check --channel … (now {channel})"
        )];
    }
    if reason.contains("not heard within") {
        return vec!["does a proxy lie between that does not pass pub/sub on?".to_owned()];
    }
    if reason.contains("OOM") || reason.contains("MISCONF") || reason.contains("READONLY") {
        return vec!["see what is said of the server, its memory and its disk above".to_owned()];
    }
    vec!["try again; if it stays so, look at the server's log".to_owned()]
}
