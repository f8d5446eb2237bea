//! The server itself, and the free functions over the process's default messaging.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::channel::ToChannel;
use crate::core::Core;
use crate::error::Result;
use crate::messaging::Messaging;
use crate::publish::Publish;
use crate::subscriber::Subscriber;

/// What can be asked of the server itself. On `memory://` it answers for the process.
#[derive(Clone, Debug)]
pub struct RedisClient(Arc<Core>);

impl RedisClient {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    /// The fields of `INFO`, such as `connected_clients`.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn info(&self) -> Result<BTreeMap<String, String>> {
        let text = self.0.backend.info().await.map_err(|error| error.context("info"))?;
        let fields =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
        Ok(fields.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect())
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn ping(&self) -> Result<()> {
        self.0.backend.ping().await
    }

    /// The channels that somebody is subscribed to by name, not by pattern.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn pubsub_channels(&self) -> Result<Vec<String>> {
        let prefix = &self.0.config.channel_prefix;
        let channels = self.0.backend.pubsub_channels(&format!("{prefix}*")).await;
        let channels = channels.map_err(|error| error.context("pubsub channels"))?;
        Ok(channels
            .into_iter()
            .filter_map(|channel| channel.strip_prefix(prefix).map(str::to_owned))
            .collect())
    }

    /// How many subscribers each channel has by name, not by pattern.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn pubsub_numsub<I: IntoIterator<Item: Into<String>>>(
        &self,
        channels: I,
    ) -> Result<BTreeMap<String, u64>> {
        let channels: Vec<String> = channels.into_iter().map(Into::into).collect();
        if channels.is_empty() {
            return Ok(BTreeMap::new());
        }
        let wired: Vec<_> =
            channels.iter().map(|channel| format!("{}{channel}", self.0.config.channel_prefix)).collect();
        let counts =
            self.0.backend.pubsub_numsub(&wired).await.map_err(|error| error.context("pubsub numsub"))?;
        Ok(channels.into_iter().zip(counts).collect())
    }

    /// Publishes a message, as [`Messaging::publish`].
    pub fn publish<C: ToChannel + ?Sized, T: Serialize + ?Sized>(&self, channel: &C, payload: &T) -> Publish {
        Publish::new(&self.0, channel, payload)
    }
}

/// Connects to `url` and makes that the process's default messaging, if there is none yet.
///
/// # Errors
/// As [`Builder::build`](crate::Builder::build); also if the server does not answer within 5 seconds, the default of
/// [`connect_timeout`](crate::Config::connect_timeout).
pub async fn init_redis(url: &str) -> Result<Messaging> {
    let messaging = Messaging::builder().url(url).build().await?;
    messaging.client().0.backend.ping_within(messaging.config().connect_timeout).await?;
    messaging.current_strong().install();
    Ok(messaging)
}

/// Publishes a message through the current messaging and returns the number of receivers.
///
/// # Errors
/// [`ErrorKind::NotStarted`](crate::ErrorKind::NotStarted) without one; otherwise as [`Messaging::publish`].
pub async fn redis_publish<C: ToChannel + ?Sized, T: Serialize + ?Sized>(
    channel: &C,
    payload: &T,
) -> Result<u64> {
    // Nothing of the arguments is held across the await.
    let publish =
        crate::core::Current::require().map(|current| Publish::new(&current.core, channel, payload))?;
    publish.await
}

/// The server behind the current messaging.
///
/// # Errors
/// [`ErrorKind::NotStarted`](crate::ErrorKind::NotStarted) without one.
pub fn get_redis_client() -> Result<RedisClient> {
    crate::core::Current::require().map(|current| RedisClient(current.core))
}

/// Adds handlers to the current messaging at run time.
///
/// # Errors
/// [`ErrorKind::NotStarted`](crate::ErrorKind::NotStarted) without one.
pub fn get_global_subscriber() -> Result<Subscriber> {
    Messaging::current().map(|messaging| messaging.subscriber())
}
