//! Publishing: a message on a channel, and the events of models.

use std::future::{Future, IntoFuture};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use crate::cache::KeyTemplate;
use crate::channel::{Channel, ToChannel};
use crate::core::Core;
use crate::dispatch::BoxFuture;
use crate::error::{Result, chain};
use crate::event::{self, Model, Op};
use crate::json;

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
    message: Result<(Vec<Channel>, Bytes)>,
}

impl Publish {
    pub(crate) fn new<C: ToChannel + ?Sized, T: Serialize + ?Sized>(
        core: &Arc<Core>,
        channel: &C,
        payload: &T,
    ) -> Self {
        let message = channel.to_channel().and_then(|channel| {
            let payload = json::encode(payload)
                .map_err(|error| error.context(format_args!("publish on {:?}", channel.as_str())))?;
            Ok((vec![channel], payload))
        });
        Self { core: Arc::clone(core), message }
    }
}

impl IntoFuture for Publish {
    type Output = Result<u64>;
    type IntoFuture = BoxFuture<'static, Result<u64>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (channels, payload) = self.message?;
            self.core.publish(channels, payload).await
        })
    }
}

/// A change of a model, captured: what is published, and what becomes of the model's own cache entry.
#[derive(Debug)]
pub(crate) struct Change {
    event: Option<event::ModelEvent>,
    cache: Option<CacheChange>,
}

#[derive(Debug)]
enum CacheChange {
    Write { key: String, old: Option<String>, value: Bytes, ttl: std::time::Duration },
    Remove { key: String },
}

impl Change {
    pub(crate) fn capture<M: Model>(model: &M, op: Op, previous: Option<&M>) -> Result<Self> {
        let named =
            |error: crate::Error| error.context(format_args!("{op} event of `{}`", M::DESCRIPTOR.name));
        let event = event::capture(model, op, previous).map_err(named)?;
        let cache = capture_cache(model, op, previous).map_err(named)?;
        Ok(Self { event, cache })
    }

    /// Publishes the event, then brings the cache entry up to date: after, because its own event may remove it. A cache
    /// that fails is logged and does not fail the publish: the event is out.
    pub(crate) async fn publish(self, core: &Core) -> Result<u64> {
        let published = match self.event {
            Some(event) => core.publish(event.channels, event.payload).await,
            None => Ok(0),
        };
        if let Some(change) = self.cache
            && let Err(error) = change.apply(core).await
        {
            tracing::error!(error = %chain(&error), "a model's cache entry could not be brought up to date");
        }
        published
    }
}

impl CacheChange {
    async fn apply(self, core: &Core) -> Result<()> {
        match self {
            Self::Remove { key } => core.cache.forget(&[core.cache.key(&key)]).await,
            Self::Write { key, old, value, ttl } => {
                let key = core.cache.key(&key);
                let old = old.map(|old| core.cache.key(&old)).filter(|old| *old != key);
                let forgotten = match old {
                    Some(old) => core.cache.forget(&[old]).await,
                    None => Ok(()),
                };
                let written = core.cache.backend.set(&key, &value, ttl).await;
                if written.is_err() {
                    // Better no entry than an old one.
                    core.cache.forget(&[key]).await?;
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
        Ok::<_, crate::Error>(values.map(|values| template.fill(values.iter().map(String::as_str))))
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
    let task = core.work.spawn(async move {
        let _busy = busy;
        work.await
    });
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
