//! Who somebody is: a name, for which there is a token. The tokens are cached values, so that every gateway on one Redis knows
//! them.

use std::time::Duration;

use messaging_core::{CacheManager, Messaging};
use messaging_gateway::{AuthError, BoxFuture, Credentials, Identity};
use serde_json::json;

/// How long a token is good for.
pub(crate) const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// The tokens that there are.
#[derive(Clone)]
pub(crate) struct Sessions(CacheManager);

impl Sessions {
    /// Those of this messaging.
    pub(crate) fn new(messaging: &Messaging) -> Self {
        Self(messaging.cache("live:session"))
    }

    /// Makes a token for somebody.
    pub(crate) async fn begin(&self, name: &str) -> messaging_core::Result<String> {
        let token = uuid::Uuid::new_v4().simple().to_string();
        self.0.set(&token, name, LIFETIME).await?;
        Ok(token)
    }

    /// What the gateway asks who comes with a token.
    pub(crate) fn verifier(
        &self,
    ) -> impl Fn(Credentials) -> BoxFuture<'static, Result<Identity, AuthError>> + use<> {
        let sessions = self.clone();
        move |credentials| {
            let sessions = sessions.clone();
            Box::pin(async move {
                let token = credentials.token.ok_or_else(|| AuthError::invalid("there is no token"))?;
                let name = sessions
                    .0
                    .get::<String>(&token)
                    .await
                    .map_err(|error| AuthError::Unavailable(error.into()))?;
                // One that is not known any more is not wrong: the page asks for another.
                let name = name.ok_or(AuthError::Expired)?;
                Ok(Identity::user(name.clone()).with_info(json!({ "name": name })))
            })
        }
    }
}
