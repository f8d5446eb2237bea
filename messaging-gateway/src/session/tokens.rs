//! What tokens allow, and for how long: renewing who a connection is, and what it is subscribed to.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Failed, Session};
use crate::access::Verb;
use crate::auth::Granted;
use crate::code::{DisconnectCode, ErrorCode, UnsubscribeCode};
use crate::command::Token;
use crate::connection::left;
use crate::identity::{AuthError, Credentials, Identity};
use crate::native::{Done, Say};
use crate::protocol::Protocol;

impl Session {
    pub(super) async fn refresh(
        &self,
        id: u64,
        identity: &Arc<Identity>,
        token: String,
    ) -> Result<(), Failed> {
        let credentials = Credentials { token: Some(token), ..Credentials::default() };
        let limit = self.shared.limits.decision;
        let refreshed = match self.shared.authenticator.authenticate(credentials, limit).await {
            Ok(refreshed) => refreshed,
            Err(AuthError::Expired) if self.connection().protocol() == Protocol::Centrifugo => {
                self.end(DisconnectCode::Expired);
                return Ok(());
            }
            Err(AuthError::Expired) => return Err(ErrorCode::TokenExpired.into()),
            Err(AuthError::Unavailable(error)) => {
                tracing::warn!(%error, "a token could not be checked");
                return Err(ErrorCode::Internal.into());
            }
            Err(AuthError::Invalid(_)) => {
                self.shared.metrics.rejected.credentials.increment();
                self.end(DisconnectCode::InvalidToken);
                return Ok(());
            }
        };
        // What it is subscribed to was allowed to somebody.
        if refreshed.user != identity.user || refreshed.tenant != identity.tenant {
            self.end(DisconnectCode::InvalidToken);
            return Ok(());
        }
        let expires_in_ms = left(refreshed.expires_at);
        let refreshed = Arc::new(refreshed);
        self.connection().identify(Arc::clone(&refreshed));
        // Clients wait a few seconds only, and what is asked now may take as long.
        self.connection().say(&Say::Ok { id, of: Done::Refresh, expires_in_ms, members: None });
        self.ask_about_all(&refreshed).await;
        Ok(())
    }

    /// Ends the subscriptions that are not allowed any more, and those that may see something else now: the client
    /// subscribes to these again.
    async fn ask_about_all(&self, identity: &Arc<Identity>) {
        let connection = self.connection();
        let asking = connection.channels().into_iter().map(async |channel| {
            let subscribed = connection.subscription(&channel).filter(|subscribed| !subscribed.is_granted)?;
            let code = match self.ask_again(identity, &subscribed, Verb::Subscribe).await {
                Ok(imposed) if imposed == subscribed.imposed => return None,
                Err(Failed(ErrorCode::PermissionDenied, _)) => UnsubscribeCode::Server,
                Ok(_) | Err(_) => UnsubscribeCode::InsufficientState,
            };
            Some((channel, code))
        });
        for (channel, code) in join_all(asking).await.into_iter().flatten() {
            self.shared.end_subscription(connection, &channel, code);
        }
    }

    /// Lets a subscription go on that a token allows.
    pub(super) fn renew(
        &self,
        id: u64,
        identity: &Identity,
        channel: &str,
        token: &Token,
    ) -> Result<(), Failed> {
        let subscribed = self.subscribed(channel)?;
        let granted = match self.granted(identity, channel, token) {
            Ok(granted) => granted,
            Err(Failed(ErrorCode::TokenExpired, _)) => return Err(ErrorCode::Expired.into()),
            Err(failed) => {
                self.end(DisconnectCode::InvalidToken);
                return Err(failed);
            }
        };
        if !subscribed.is_granted {
            return Err(Failed(ErrorCode::BadRequest, Some("it does not depend on a token".to_owned())));
        }
        if !self.connection().renew(channel, granted.expires_at) {
            return Err(self.denied());
        }
        self.connection().say(&Say::Ok {
            id,
            of: Done::Renew,
            expires_in_ms: left(granted.expires_at),
            members: None,
        });
        Ok(())
    }

    /// What the token of a subscription allows, if it is one of this connection and channel.
    pub(super) fn granted(
        &self,
        identity: &Identity,
        channel: &str,
        token: &Token,
    ) -> Result<Granted, Failed> {
        let granted = match self.shared.authenticator.subscription(&token.0) {
            Some(Ok(granted)) => granted,
            Some(Err(error)) => {
                tracing::debug!(%error, channel, "the token of a subscription is not valid");
                return Err(self.denied());
            }
            None => {
                tracing::debug!(
                    channel,
                    "nobody here verifies tokens of subscriptions: `Builder::jwt` would"
                );
                return Err(self.denied());
            }
        };
        let is_of_client = granted
            .client
            .as_deref()
            .is_none_or(|client| client.is_empty() || *client == *self.connection().client);
        let is_of_tenant = granted.tenant.is_none() || granted.tenant == identity.tenant;
        let is_theirs = granted.user == identity.user && is_of_tenant && is_of_client;
        if granted.channel != channel || !is_theirs {
            self.shared.metrics.rejected.credentials.increment();
            self.end(DisconnectCode::InvalidToken);
            return Err(self.denied());
        }
        if granted.has_expired() {
            return Err(ErrorCode::TokenExpired.into());
        }
        Ok(granted)
    }
}
