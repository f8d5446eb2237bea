//! Tells a recorder, now and then, how things are: what is read from health and from Redis, and is not counted where it
//! happens.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Runtime, lock};
use crate::backend::Backend;
use crate::core::Core;
use crate::error::Result;
use crate::health::{HandlerState, Health};
use crate::labels::OTHER;
use crate::meter::{self, Gauge, Name};
use crate::queues::queues;

/// How often. Who collects every ten or fifteen seconds, as is usual, sees each value once at least; and what it asks of
/// Redis, a few commands and one or two for each group of a stream, is nothing beside the messages.
const EVERY: Duration = Duration::from_secs(5);

type Labels = Vec<(&'static str, String)>;

/// What is so at one moment. What several have in common is added up.
#[derive(Default)]
struct Values(BTreeMap<(Name, Labels), f64>);

/// What the recorder was told.
#[derive(Default)]
struct Told(HashMap<(Name, Labels), Gauge>);

/// Reports until messaging ends; then nothing is left of what was told.
pub(super) async fn report(runtime: Weak<Runtime>, core: Arc<Core>) {
    let (mut told, mut redis) = (Told::default(), Values::default());
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = core.stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        // What Redis was is told on while it is away.
        tokio::select! {
            () = core.stop.cancelled() => break,
            asked = timeout(EVERY, of_redis(&core)) => {
                if let Ok(Ok(values)) = asked {
                    redis = values;
                }
            }
        }
        let Some(mut values) = runtime.upgrade().map(|runtime| of_process(&runtime)) else { break };
        values.0.extend(redis.0.iter().map(|(key, value)| (key.clone(), *value)));
        told.tell(values);
    }
    told.tell(Values::default());
}

fn of_process(runtime: &Runtime) -> Values {
    let (tasks, services) = (lock(&runtime.tasks).clone(), lock(&runtime.services).clone());
    let session = runtime.session.get().map(crate::session::Session::health);
    let health =
        Health::new(&runtime.core, *lock(&runtime.phase), session, &tasks, &services, runtime.node.health());
    // A handler without a name of its own has a channel in its id.
    let label = |id: &str| {
        let named = tasks.iter().find(|task| *task.running.id == *id);
        named.map_or(id, |task| &task.running.label).to_owned()
    };
    let mut values = Values::default();
    values.add(meter::READY, [], u64::from(health.is_ready()));
    for (text, state) in [
        ("starting", HandlerState::Starting),
        ("running", HandlerState::Running),
        ("deaf", HandlerState::Deaf),
        ("stopped", HandlerState::Stopped),
    ] {
        let count = health.handlers.iter().filter(|handler| handler.state == state).count();
        values.add(meter::HANDLERS, [("state", text.to_owned())], count as u64);
    }
    for handler in &health.handlers {
        let labels = || [("handler", label(&handler.id))];
        values.add(meter::DEPTH, labels(), handler.waiting as u64);
        values.add(meter::DEPTH_BYTES, labels(), handler.waiting_bytes as u64);
        values.add(meter::IN_FLIGHT, labels(), handler.in_flight as u64);
    }
    for session in health.sessions.iter().filter(|session| session.in_use) {
        values.add(meter::CONNECTED, [("session", label(&session.name))], u64::from(session.connected));
    }
    for service in &health.services {
        values.add(meter::SERVICE_SOUND, [("service", service.name.clone())], u64::from(service.is_sound));
    }
    values
}

async fn of_redis(core: &Core) -> Result<Values> {
    let mut values = Values::default();
    let asked = Instant::now();
    core.backend.ping().await?;
    if matches!(*core.backend, Backend::Redis(_)) {
        meter::round_trip("command", asked.elapsed());
        let info = core.backend.info().await?;
        // Of a cluster there is one of each for every node.
        for (name, field) in [(meter::MEMORY, "used_memory:"), (meter::MEMORY_LIMIT, "maxmemory:")] {
            let sizes = info.lines().filter_map(|line| line.strip_prefix(field)?.trim().parse::<u64>().ok());
            sizes.for_each(|size| values.add(name, [], size));
        }
    }
    for queue in queues(core).await? {
        let stream = stream_label(core, &queue.stream);
        let labels = || [("stream", stream.clone()), ("group", queue.group.clone())];
        values.add(meter::LAG, labels(), queue.unread);
        values.add(meter::PENDING, labels(), queue.pending);
        values.add(meter::DELAYED, labels(), queue.delayed);
        values.add(meter::CONSUMERS, labels(), queue.alive);
    }
    Ok(values)
}

/// A stream's template; the streams of single channels have a name only if the channel has one.
fn stream_label(core: &Core, stream: &str) -> String {
    let channel = stream.strip_prefix(core.config.channel_prefix.as_str()).unwrap_or(stream);
    let template = channel.rsplit_once('#').map_or(channel, |(template, _)| template);
    let is_pattern = template.contains("<>") || template.contains(['*', '?', '[']);
    if is_pattern || core.labels.find(template).text == template {
        return channel.to_owned();
    }
    OTHER.to_owned()
}

impl Values {
    fn add<const LABELS: usize>(&mut self, name: Name, labels: [(&'static str, String); LABELS], value: u64) {
        *self.0.entry((name, labels.into())).or_default() += value as f64;
    }
}

impl Told {
    /// Tells these values, and of all others that were told that there is nothing any more.
    fn tell(&mut self, values: Values) {
        self.0.retain(|key, gauge| {
            let stays = values.0.contains_key(key);
            if !stays {
                gauge.set(0.0);
            }
            stays
        });
        for (key, value) in values.0 {
            let gauge = self.0.entry(key).or_insert_with_key(|(name, labels)| {
                let labels: Vec<_> = labels.iter().map(|(label, value)| (*label, value.as_str())).collect();
                Gauge::of(name, &labels)
            });
            gauge.set(value);
        }
    }
}
