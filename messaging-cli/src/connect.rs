//! Where Redis is: the option `--url`, or the environment as every service reads it. Connects, and says why it cannot.

use clap::Args;
use messaging_core::{Builder, ErrorKind, Messaging};

use crate::failure::Failure;

#[derive(Args, Debug)]
pub(crate) struct Target {
    /// Where Redis is, instead of what the environment says
    #[arg(long, global = true, value_name = "URL", help_heading = "Connection")]
    url: Option<String>,
}

impl Target {
    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Messaging, Failure> {
        let messaging = self.open().await?;
        reached(&messaging).await?;
        Ok(messaging)
    }

    /// Reads the settings; connects to nothing.
    pub(crate) async fn open(&self) -> Result<Messaging, Failure> {
        self.open_with(|builder| builder).await
    }

    /// The same, with more settings.
    pub(crate) async fn open_with(
        &self,
        with: impl FnOnce(Builder) -> Builder,
    ) -> Result<Messaging, Failure> {
        let builder = match &self.url {
            Some(url) => Messaging::builder().url(url),
            None => Messaging::builder(),
        };
        let messaging =
            with(builder).build().await.map_err(|error| match (&self.url, error.to_string()) {
                (Some(_), text) if text.starts_with("the URL ") => {
                    Failure::usage(text.replacen("the URL", "--url", 1))
                }
                _ => error.into(),
            })?;
        let endpoint = messaging.config().endpoint.to_string();
        if endpoint.starts_with("memory://") {
            return Err(Failure::usage(format!(
                "{endpoint} is in the memory of one process, where no other can look: name a Redis with --url or REDIS_URL"
            )));
        }
        Ok(messaging)
    }

    /// Who says where it is.
    pub(crate) fn source(&self) -> &'static str {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if self.url.is_some() {
            "--url"
        } else if is_set("REDIS_URL") {
            "REDIS_URL"
        } else if ["REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_SSL"].iter().any(|name| is_set(name)) {
            "REDIS_HOST and its companions"
        } else {
            "nothing said otherwise"
        }
    }
}

/// Whether Redis answers. A user who may not send PING is answered too.
pub(crate) async fn reached(messaging: &Messaging) -> Result<(), Failure> {
    match messaging.client().ping().await {
        Err(error) if error.kind() == ErrorKind::Refused && error.to_string().contains("NOPERM") => Ok(()),
        answered => answered.map_err(Failure::from),
    }
}
