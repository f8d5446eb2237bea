//! Publishing: a message on a channel, and the events of models.

use std::borrow::Cow;
use std::future::{Future, IntoFuture};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tracing::Instrument as _;

use crate::backend::Outgoing;
use crate::backend::streams::Append;
use crate::cache::KeyTemplate;
use crate::channel::{Channel, ToChannel};
use crate::core::Core;
use crate::dispatch::{BoxFuture, Carrier};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::event::{self, Model, ModelEvent, Op};
use crate::json;
use crate::stream::{EventId, field};
use crate::trace::Trace;

/// A message that is about to be published: `.await` sends it.
///
/// The payload was encoded and the channel checked when it was made.
///
/// # Errors
/// [`is_not_sent`](crate::Error::is_not_sent) tells whether the message certainly reached nobody; otherwise its fate is
/// unknown.
///
/// # Cancellation
/// A message that has been handed over is sent, even if the future is dropped, and even if the last handle of the
/// messaging is; unless no connection takes it within the command timeout.
#[must_use = "nothing is published before it is awaited"]
#[derive(Debug)]
pub struct Publish {
    core: Arc<Core>,
    message: Result<Message>,
    carrier: Carrier,
    durable: bool,
    /// What only durable messages have.
    extras: Option<Box<Extras>>,
}

#[derive(Debug)]
struct Message {
    channel: Channel,
    template: Option<&'static str>,
    payload: Bytes,
}

#[derive(Debug, Default)]
struct Extras {
    id: Option<String>,
    key: Option<String>,
    headers: Vec<(String, String)>,
}

impl Publish {
    pub(crate) fn new<C: ToChannel + ?Sized, T: Serialize + ?Sized>(
        core: &Arc<Core>,
        channel: &C,
        payload: &T,
    ) -> Self {
        let template = channel.template();
        let message = channel.to_channel().and_then(|channel| {
            let payload = json::encode(payload)
                .map_err(|error| error.context(format_args!("publish on {:?}", channel.as_str())))?;
            Ok(Message { channel, template, payload })
        });
        Self { core: Arc::clone(core), message, carrier: Carrier::Broadcast, durable: false, extras: None }
    }

    /// Publishes on the sharded channel of this name, for
    /// [`subscribe_sharded`](crate::Messaging::subscribe_sharded): from Redis 7.0 on. On a cluster only the nodes of the
    /// channel's hash slot carry it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> messaging_core::Result<()> {
    /// # let messaging = messaging_core::Messaging::builder().url("memory://").build().await?;
    /// let mut position = messaging.subscribe_sharded("vehicle:42").await?;
    /// messaging.publish("vehicle:42", &[8.54, 47.37]).sharded().await?;
    ///
    /// let message = position.get_message(None).await?.expect("there is one");
    /// assert_eq!(message.json::<[f64; 2]>()?, [8.54, 47.37]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sharded(mut self) -> Self {
        self.carrier = Carrier::Sharded;
        self
    }

    /// Also appends the message to the stream of its channel, so that handlers with `delivery = "queue"` or
    /// `"resumable"` get it. A channel that [`Builder::durable`](crate::Builder::durable) covers needs no such word.
    ///
    /// All channels of one template share a stream. A channel that is given as text belongs to the template of a
    /// `#[channel]` type or a model of this process that it matches; otherwise it has a stream of its own, of which a
    /// process makes 256 at most: channels with ids in them want a `#[channel]` type.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Gives a durable message an id of its own instead of a random one: handlers with `dedupe` handle an id once,
    /// however often it is published.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.extras().id = Some(id.into());
        self
    }

    /// Gives a durable message a key: handlers with `ordered_by = key` handle messages of one key in order. Without
    /// one, the channel is the key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.extras().key = Some(key.into());
        self
    }

    /// Gives a durable message a header, of which it has 1,000 at most. Handlers take them as
    /// [`Headers`](crate::Headers). A message that is published while another one is handled has that one's
    /// `traceparent` and `tracestate`, unless it is given its own here; with the feature `opentelemetry` those of the
    /// current span.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extras().headers.push((name.into(), value.into()));
        self
    }

    fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    fn outgoing(
        core: &Core,
        message: Message,
        carrier: Carrier,
        durable: bool,
        extras: Option<Box<Extras>>,
    ) -> Result<Outgoing> {
        let Message { channel, template, payload } = message;
        let kept = if durable {
            Some(core.durables.asked_for(&channel, template)?)
        } else {
            core.durables.configured(&channel)
        };
        let Some((stream, durability)) = kept else {
            if extras.is_some() {
                let text = format!(
                    "publish on {channel:?}: only durable messages have an id, a key or headers; add `.durable()`, or make the channel durable with builder.durable(…)"
                );
                return Err(Error::new(ErrorKind::Configuration, text));
            }
            return Ok(Outgoing { channel, payload, durable: None, carrier, mark: None });
        };
        let Extras { id, key, mut headers } = extras.map(|extras| *extras).unwrap_or_default();
        check_extras(&channel, id.as_deref(), &headers)?;
        if let Some(trace) = Trace::current() {
            trace.add_to(&mut headers);
        }
        let event = id.map_or_else(EventId::random, |id| EventId(id.into()));
        let append = Append { stream, durability, event, kind: None, key, headers };
        Ok(Outgoing { channel, payload, durable: Some(Box::new(append)), carrier, mark: None })
    }
}

/// Redis's scripts take some thousands of values at once.
const MOST_HEADERS: usize = 1_000;

fn check_extras(channel: &Channel, id: Option<&str>, headers: &[(String, String)]) -> Result<()> {
    let refuse = |reason: String| {
        Err(Error::new(ErrorKind::Configuration, format!("publish on {channel:?}: {reason}")))
    };
    if id.is_some_and(str::is_empty) {
        return refuse("the id is empty".to_owned());
    }
    if headers.len() > MOST_HEADERS {
        return refuse(format!("it has {} headers; the most are {MOST_HEADERS}", headers.len()));
    }
    for (position, (name, _)) in headers.iter().enumerate() {
        if name.is_empty() || field::is_reserved(name) {
            return refuse(format!(
                "{name:?} cannot be a header: the name is empty or one of the message's own fields"
            ));
        }
        if headers[..position].iter().any(|(earlier, _)| earlier == name) {
            return refuse(format!("the header {name:?} is there twice"));
        }
    }
    Ok(())
}

impl IntoFuture for Publish {
    type Output = Result<u64>;
    type IntoFuture = BoxFuture<'static, Result<u64>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { core, message, carrier, durable, extras } = self;
            let outgoing = Self::outgoing(&core, message?, carrier, durable, extras)?;
            core.publish(vec![outgoing]).await
        })
    }
}

/// A change of a model, captured: what is published, and what becomes of the model's own cache entry.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) event: Option<ModelEvent>,
    pub(crate) cache: Option<CacheChange>,
}

#[derive(Clone, Debug)]
pub(crate) enum CacheChange {
    Write { key: String, old: Option<String>, value: Bytes, ttl: std::time::Duration },
    Remove { key: String },
}

impl Change {
    pub(crate) fn capture<M: Model>(model: &M, op: Op, previous: Option<&M>) -> Result<Self> {
        let named = |error: Error| error.context(format_args!("{op} event of `{}`", M::DESCRIPTOR.name));
        let event = event::capture(model, op, previous).map_err(named)?;
        let cache = capture_cache(model, op, previous).map_err(named)?;
        Ok(Self { event, cache })
    }

    /// Publishes the event, then brings the cache entry up to date: after, because its own event may remove it. A cache
    /// that fails is logged and does not fail the publish: the event is out.
    pub(crate) async fn publish(self, core: &Core) -> Result<u64> {
        let published = match self.event {
            Some(event) => core.publish(outgoing(core, &EventId::random(), event)?).await,
            None => Ok(0),
        };
        if let Some(change) = self.cache {
            report_cache(change.apply(core).await);
        }
        published
    }
}

/// The event is out, whatever became of the cache entry.
pub(crate) fn report_cache(outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::error!(error = %chain(&error), "a model's cache entry could not be brought up to date");
    }
}

/// An event, for each of its channels. Their entries have one id: it is one event.
pub(crate) fn outgoing(core: &Core, id: &EventId, event: ModelEvent) -> Result<Vec<Outgoing>> {
    let ModelEvent { channels, payload, op, durable, carrier, key, trace } = event;
    let message = |(channel, template): (Channel, Option<Cow<'static, str>>)| {
        let kept = match durable {
            Some(durability) => {
                let stream = core.durables.stream_of(template.as_deref().unwrap_or(&channel))?;
                Some((stream, durability))
            }
            None => core.durables.configured(&channel),
        };
        let append = kept.map(|(stream, durability)| {
            let (event, kind) = (id.clone(), op.map(|op| op.as_str().to_owned()));
            let mut headers = Vec::new();
            if let Some(trace) = trace.clone() {
                trace.add_to(&mut headers);
            }
            Box::new(Append { stream, durability, event, kind, key: key.clone(), headers })
        });
        Ok(Outgoing { channel, payload: payload.clone(), durable: append, carrier, mark: None })
    };
    channels.into_iter().map(message).collect()
}

impl CacheChange {
    /// The key of the entry, without the deployment's prefix.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Write { key, .. } | Self::Remove { key } => key,
        }
    }

    pub(crate) async fn apply(self, core: &Core) -> Result<()> {
        match self {
            Self::Remove { key } => core.cache.forget(vec![core.cache.key(&key)]).await,
            Self::Write { key, old, value, ttl } => {
                let key = core.cache.key(&key);
                let old = old.map(|old| core.cache.key(&old)).filter(|old| *old != key);
                let forgotten = match old {
                    Some(old) => core.cache.forget(vec![old]).await,
                    None => Ok(()),
                };
                let written = core.cache.set(key.clone(), &value, ttl).await;
                if written.is_err() {
                    // Better no entry than an old one.
                    core.cache.forget(vec![key]).await?;
                }
                written.and(forgotten)
            }
        }
    }
}

fn capture_cache<M: Model>(model: &M, op: Op, previous: Option<&M>) -> Result<Option<CacheChange>> {
    let Some(cache) = M::DESCRIPTOR.cache else { return Ok(None) };
    let template = KeyTemplate::parse(cache.key)?;
    let key_of = |model: &M| {
        let values: Option<Vec<String>> =
            template.names().map(|name| model.field(name)).collect::<Result<_>>()?;
        Ok::<_, Error>(values.map(|values| template.fill(values.iter().map(String::as_str))))
    };
    let old = previous.map(key_of).transpose()?.flatten();
    // A model whose key has a null in it is in no cache.
    let Some(key) = key_of(model)? else { return Ok(old.map(|key| CacheChange::Remove { key })) };
    Ok(Some(match op {
        Op::Create | Op::Update => CacheChange::Write { key, old, value: model.cached()?, ttl: cache.ttl },
        Op::Delete => CacheChange::Remove { key },
    }))
}

/// Runs `work` to its end even if the caller is dropped, and lets shutting down wait for it.
pub(crate) fn to_the_end<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    core: &Arc<Core>,
    work: F,
) -> impl Future<Output = T> + use<T, F> {
    let busy = core.activity.guard();
    let work = async move {
        let _busy = busy;
        work.await
    };
    let task = core.work.spawn(work.in_current_span());
    async move {
        match task.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only the end of the runtime cancels it, and then nobody is there to be told.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
