//! How it is: a health indicator of the server's figures, and the metrics that the framework records.

use messaging_core::{Messaging, Result};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;

/// In the form of the indicators of other services.
#[derive(Debug, Serialize)]
pub(crate) struct Indicator {
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    Up,
    Down,
}

/// Of the whole server, not only of this process.
#[derive(Debug, Serialize)]
pub(crate) struct Details {
    channels: u64,
    patterns: u64,
    subscribers: u64,
}

pub(crate) async fn check(messaging: &Messaging) -> Indicator {
    match details(messaging).await {
        Ok(details) => Indicator { status: Status::Up, details: Some(details), error: None },
        Err(error) => Indicator { status: Status::Down, details: None, error: Some(error.to_string()) },
    }
}

async fn details(messaging: &Messaging) -> Result<Details> {
    let client = messaging.client();
    let info = client.info().await?;
    let figure = |name: &str| info.get(name).and_then(|value| value.parse().ok()).unwrap_or_default();
    // INFO counts channels and patterns, and not who is subscribed to them.
    let subscribers = client.pubsub_numsub(client.pubsub_channels().await?).await?.into_values().sum();
    Ok(Details { channels: figure("pubsub_channels"), patterns: figure("pubsub_patterns"), subscribers })
}

/// What is measured, as Prometheus reads it.
pub(crate) struct Measured(PrometheusHandle);

impl Measured {
    /// From now on; to be called before messaging is built.
    pub(crate) fn install() -> Result<Self, BuildError> {
        let durations = Matcher::Full("pubsub.processing.duration".to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(durations, &[0.001, 0.01, 0.1, 1.0])?;
        Ok(Self(builder.install_recorder()?))
    }

    /// The lines of the metrics that begin with `prefix`, but without what depends on the machine: how long calls took.
    pub(crate) fn lines(&self, prefix: &str) -> Vec<String> {
        let is_shown =
            |line: &&str| line.starts_with(prefix) && !line.contains("_bucket{") && !line.contains("_sum{");
        let mut lines: Vec<_> = self.0.render().lines().filter(is_shown).map(str::to_owned).collect();
        lines.sort();
        lines
    }
}
