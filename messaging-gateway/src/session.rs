//! What one client asks for, carried out in order: who it is, what it may, and what becomes of it. Knows no sockets.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use messaging_core::{BoxError, ErrorKind};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::access::{AccessRequest, Asked, Decision, Verb};
use crate::auth::{Full, TokenBucket};
use crate::code::{DisconnectCode, ErrorCode, UnsubscribeCode};
use crate::command::{Action, Command, Since, Subscribe};
use crate::connection::{Connection, Open, Subscribed, left};
use crate::entity::{Access, Entity, Resolved};
use crate::filter::{self, Filter};
use crate::gateway::Shared;
use crate::hub::{Join, Joined, Past, PastError};
use crate::identity::{AuthError, Credentials, Identity};
use crate::native::{Nonsense, Said, Say, SayEvent, SayLimits};
use crate::outbox::End;

/// How many events of the past one may ask for at once.
const MOST_PAST: usize = 1_000;
/// How many are told if one does not say.
const USUAL_PAST: usize = 100;

/// A connection's commands.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    open: Open,
    /// What the request showed, before `hello`.
    credentials: Credentials,
    /// Of whoever had a ticket.
    redeemed: Option<Identity>,
    commands: TokenBucket,
    sends: TokenBucket,
}

/// Why a command failed, and what the client is told if it is more than the code says.
#[derive(Debug)]
struct Failed(ErrorCode, Option<String>);

impl From<ErrorCode> for Failed {
    fn from(code: ErrorCode) -> Self {
        Self(code, None)
    }
}

/// What is published for a client: its own words, and whose they are.
#[derive(Serialize)]
struct Sent<'a> {
    sender: Sender<'a>,
    data: &'a RawValue,
}

#[derive(Serialize)]
struct Sender<'a> {
    user: &'a str,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a serde_json::Value>,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        open: Open,
        credentials: Credentials,
        redeemed: Option<Identity>,
    ) -> Self {
        let now = std::time::Instant::now();
        Self {
            shared,
            open,
            credentials,
            redeemed,
            commands: TokenBucket::new(now),
            sends: TokenBucket::new(now),
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.open.connection
    }

    /// What came makes no sense.
    pub(crate) fn refuse(&mut self, Nonsense { id, code, reason }: &Nonsense) {
        self.shared.metrics.rejected.message.increment();
        // Who goes on with that does not listen.
        if !self.commands.take(self.shared.limits.commands, std::time::Instant::now()) {
            return self.connection().outbox.end(End::Close(DisconnectCode::TooManyRequests));
        }
        let say = Say::Error { id: *id, code: code.number(), message: reason, temporary: false };
        self.connection().outbox.push(say.frame());
    }

    /// Carries out what the client has said. Answers are in the outbox when it returns.
    ///
    /// Cancellation: what was begun may have been done; nothing is left half done that outlives the connection.
    pub(crate) async fn handle(&mut self, said: Said) {
        match said {
            Said::Pong => {}
            Said::Hello { token } => self.hello(token.map(|token| token.0)).await,
            Said::Command(Command { id, action }) => {
                if let Err(Failed(code, reason)) = self.carry_out(id, action).await {
                    let Say::Error { message, temporary, .. } = Say::error(Some(id), code) else { return };
                    let message = reason.as_deref().unwrap_or(message);
                    let say = Say::Error { id: Some(id), code: code.number(), message, temporary };
                    self.connection().outbox.push(say.frame());
                }
            }
        }
    }

    /// Finds out who it is. A second `hello` is one too many.
    async fn hello(&mut self, token: Option<String>) {
        if self.connection().identity().is_some() {
            return self.connection().outbox.end(End::Close(DisconnectCode::BadRequest));
        }
        let identity = match (token, self.redeemed.take()) {
            (None, Some(identity)) => Ok(identity),
            (token, _) => {
                // They are not looked at again, and idle connections are many.
                let mut credentials = std::mem::take(&mut self.credentials);
                credentials.token = token.or(credentials.token);
                self.shared.authenticator.authenticate(credentials, self.shared.limits.decision).await
            }
        };
        match identity {
            Ok(identity) => self.welcome(identity),
            Err(error) => {
                self.shared.metrics.rejected.credentials.increment();
                tracing::debug!(%error, "a connection that has not proven who it is");
                let code = match error {
                    AuthError::Invalid(_) => DisconnectCode::InvalidToken,
                    AuthError::Expired => DisconnectCode::Expired,
                    AuthError::Unavailable(_) => DisconnectCode::ServerError,
                };
                self.connection().outbox.end(End::Close(code));
            }
        }
    }

    /// Takes somebody up who has proven who they are.
    pub(crate) fn welcome(&self, identity: Identity) {
        let connection = self.connection();
        let counted = connection
            .with_place(|place| place.as_mut().map_or(Ok(()), |place| place.belongs_to(&identity.user)));
        if let Err(Full::User | Full::Address | Full::Gateway) = counted {
            self.shared.metrics.rejected.connections.increment();
            return connection.outbox.end(End::Close(DisconnectCode::ConnectionLimit));
        }
        let identity = Arc::new(identity);
        connection.identify(Arc::clone(&identity));
        let limits = &self.shared.limits;
        let say = Say::Welcome {
            client: &connection.client,
            user: (!identity.is_anonymous()).then_some(identity.user.as_str()),
            ping_ms: millis(limits.ping),
            pong_ms: millis(limits.pong),
            expires_in_ms: left(&identity),
            limits: SayLimits::of(limits),
        };
        connection.outbox.push(say.frame());
    }

    async fn carry_out(&mut self, id: u64, action: Action) -> Result<(), Failed> {
        let Some(identity) = self.connection().identity() else { return Err(ErrorCode::Unauthorized.into()) };
        let has_expired = identity.expires_at.is_some_and(|at| at <= SystemTime::now());
        if has_expired && !matches!(action, Action::Refresh { .. }) {
            return Err(ErrorCode::TokenExpired.into());
        }
        let now = std::time::Instant::now();
        let (bucket, rate) = match action {
            Action::Send { .. } => (&mut self.sends, self.shared.limits.sends),
            _ => (&mut self.commands, self.shared.limits.commands),
        };
        if !bucket.take(rate, now) {
            self.shared.metrics.rejected.rate.increment();
            return Err(ErrorCode::TooManyRequests.into());
        }
        match action {
            Action::Subscribe(subscribe) => self.subscribe(id, &identity, *subscribe).await,
            Action::Update { channel, filters } => self.update(id, &identity, &channel, &filters).await,
            Action::Unsubscribe { channel } => self.unsubscribe(id, &channel),
            Action::Send { channel, data } => self.send(id, &identity, &channel, &data).await,
            Action::Presence { channel } => self.presence(id, &identity, &channel).await,
            Action::History { channel, since, limit } => {
                self.history(id, &identity, &channel, since.as_ref(), limit).await
            }
            Action::Refresh { token } => self.refresh(id, &identity, token.0).await,
        }
    }

    async fn subscribe(&self, id: u64, identity: &Arc<Identity>, subscribe: Subscribe) -> Result<(), Failed> {
        let connection = self.connection();
        if connection.subscriptions() >= self.shared.limits.subscriptions.get() {
            self.shared.metrics.rejected.subscriptions.increment();
            return Err(ErrorCode::LimitExceeded.into());
        }
        let catalog = self.shared.catalog();
        let Some(Resolved { entity, channel, params }) = catalog.resolve(&subscribe.to, identity) else {
            return Err(self.denied());
        };
        if connection.subscription(&channel).is_some() {
            return Err(ErrorCode::AlreadySubscribed.into());
        }
        let verbs = [
            Some(Verb::Subscribe),
            subscribe.resume.is_some().then_some(Verb::Resume),
            (subscribe.last > 0).then_some(Verb::History),
            subscribe.presence.then_some(Verb::Presence),
        ];
        let imposed = self.ask(identity, &entity, &channel, &params, verbs.into_iter().flatten()).await?;
        if subscribe.presence && !entity.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        let filter = wanted(&entity, subscribe.filters.as_ref())?.and(&imposed);
        let seen = match subscribe.presence {
            true => {
                let seen = self.shared.rooms.enter(&channel, connection, identity).await;
                Some(Arc::new(seen.map_err(|error| unavailable("presence", &error))?))
            }
            false => None,
        };
        let join = Join {
            connection,
            channel: &channel,
            filter: &filter,
            policy: entity.slow,
            resume: subscribe.resume.as_ref(),
            last: subscribe.last.min(MOST_PAST),
        };
        let joined = self.shared.hub.join(join, |outcome| {
            let metrics = &self.shared.metrics;
            match outcome.recovered {
                Some(true) => metrics.recovered.increment(),
                Some(false) => metrics.unrecovered.increment(),
                None => {}
            }
            let place = outcome.place.as_ref();
            let events = outcome.events.iter().map(SayEvent::of).collect();
            let place = place.map(|place| place.say());
            Say::Subscribed { id, channel: &channel, place, recovered: outcome.recovered, events }.frame()
        });
        match joined.await.map_err(|error| unavailable("subscribe", &error))? {
            Joined::Now(topic) => {
                connection.subscribe(Subscribed {
                    topic,
                    entity: Arc::clone(&entity),
                    params,
                    imposed,
                    _seen: seen,
                });
                self.shared.metrics.subscriptions.increment();
                // It may have been taken away meanwhile.
                if !self.shared.catalog().has(&entity) {
                    self.shared.end_subscription(connection, &channel, UnsubscribeCode::InsufficientState);
                }
                Ok(())
            }
            Joined::Already => Err(ErrorCode::AlreadySubscribed.into()),
        }
    }

    async fn update(
        &self,
        id: u64,
        identity: &Arc<Identity>,
        channel: &str,
        filters: &serde_json::Value,
    ) -> Result<(), Failed> {
        let connection = self.connection();
        let subscribed = self.subscribed(channel)?;
        let imposed = self.ask_again(identity, &subscribed, Verb::Update).await?;
        let filter = wanted(&subscribed.entity, Some(filters))?.and(&imposed);
        connection.impose(channel, imposed);
        if subscribed.topic.update(connection, filter, Say::ok(id).frame()) {
            Ok(())
        } else {
            Err(self.denied())
        }
    }

    fn unsubscribe(&self, id: u64, channel: &str) -> Result<(), Failed> {
        if !self.connection().unsubscribe(channel) {
            return Err(self.denied());
        }
        self.shared.metrics.subscriptions.decrement();
        self.connection().outbox.push(Say::ok(id).frame());
        Ok(())
    }

    async fn send(
        &self,
        id: u64,
        identity: &Arc<Identity>,
        channel: &str,
        data: &RawValue,
    ) -> Result<(), Failed> {
        let subscribed = self.subscribed(channel)?;
        if !subscribed.entity.send {
            return Err(ErrorCode::NotAvailable.into());
        }
        // What it imposes is what may be seen, not what may be said.
        self.ask_again(identity, &subscribed, Verb::Send).await?;
        let client = &*self.connection().client;
        let sender = Sender { user: &identity.user, client, info: identity.info.as_ref() };
        let published = self.shared.messaging.publish(channel, &Sent { sender, data }).await;
        match published {
            Ok(_) => {
                self.connection().outbox.push(Say::ok(id).frame());
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::PayloadTooLarge => {
                Err(Failed(ErrorCode::BadRequest, Some("the message is too large".to_owned())))
            }
            Err(error) => Err(unavailable("send", &error)),
        }
    }

    async fn presence(&self, id: u64, identity: &Arc<Identity>, channel: &str) -> Result<(), Failed> {
        let subscribed = self.subscribed(channel)?;
        if !subscribed.entity.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        self.ask_again(identity, &subscribed, Verb::Presence).await?;
        let members = self.shared.rooms.members(channel).await;
        let members = members.map_err(|error| unavailable("presence", &error))?;
        let say = Say::Ok { id, expires_in_ms: None, members: Some(&members) };
        self.connection().outbox.push(say.frame());
        Ok(())
    }

    async fn history(
        &self,
        id: u64,
        identity: &Arc<Identity>,
        channel: &str,
        since: Option<&Since>,
        limit: Option<usize>,
    ) -> Result<(), Failed> {
        let subscribed = self.subscribed(channel)?;
        let imposed = self.ask_again(identity, &subscribed, Verb::History).await?;
        let limit = limit.unwrap_or(USUAL_PAST).min(MOST_PAST);
        let past = Past { channel: subscribed.topic.channel(), filter: &imposed, since, limit };
        let (place, events) = match self.shared.hub.past(&subscribed.topic, past).await {
            Ok(past) => past,
            Err(PastError::NotAvailable) => return Err(ErrorCode::NotAvailable.into()),
            Err(PastError::Unrecoverable) => return Err(ErrorCode::Unrecoverable.into()),
            Err(PastError::Backend(error)) => return Err(unavailable("history", &error)),
        };
        let say = Say::Past { id, place: place.say(), events: events.iter().map(SayEvent::of).collect() };
        self.connection().outbox.push(say.frame());
        Ok(())
    }

    async fn refresh(&self, id: u64, identity: &Arc<Identity>, token: String) -> Result<(), Failed> {
        let credentials = Credentials { token: Some(token), ..Credentials::default() };
        let limit = self.shared.limits.decision;
        let refreshed = match self.shared.authenticator.authenticate(credentials, limit).await {
            Ok(refreshed) => refreshed,
            Err(AuthError::Expired) => return Err(ErrorCode::TokenExpired.into()),
            Err(AuthError::Unavailable(error)) => {
                tracing::warn!(%error, "a token could not be checked");
                return Err(ErrorCode::Internal.into());
            }
            Err(AuthError::Invalid(_)) => {
                self.shared.metrics.rejected.credentials.increment();
                self.connection().outbox.end(End::Close(DisconnectCode::InvalidToken));
                return Ok(());
            }
        };
        // What it is subscribed to was allowed to somebody.
        if refreshed.user != identity.user || refreshed.tenant != identity.tenant {
            self.connection().outbox.end(End::Close(DisconnectCode::InvalidToken));
            return Ok(());
        }
        let expires_in_ms = left(&refreshed);
        let refreshed = Arc::new(refreshed);
        self.connection().identify(Arc::clone(&refreshed));
        self.ask_about_all(&refreshed).await;
        self.connection().outbox.push(Say::Ok { id, expires_in_ms, members: None }.frame());
        Ok(())
    }

    /// Ends the subscriptions that are not allowed any more, and those that may see something else now: the client
    /// subscribes to these again.
    async fn ask_about_all(&self, identity: &Arc<Identity>) {
        let connection = self.connection();
        for channel in connection.channels() {
            let Some(subscribed) = connection.subscription(&channel) else { continue };
            let code = match self.ask_again(identity, &subscribed, Verb::Subscribe).await {
                Ok(imposed) if imposed == subscribed.imposed => continue,
                Err(Failed(ErrorCode::PermissionDenied, _)) => UnsubscribeCode::Server,
                Ok(_) | Err(_) => UnsubscribeCode::InsufficientState,
            };
            self.shared.end_subscription(connection, &channel, code);
        }
    }

    /// What a channel that it is subscribed to is.
    fn subscribed(&self, channel: &str) -> Result<Subscribed, Failed> {
        self.connection().subscription(channel).ok_or_else(|| self.denied())
    }

    fn denied(&self) -> Failed {
        self.shared.metrics.rejected.permission.increment();
        ErrorCode::PermissionDenied.into()
    }

    async fn ask_again(
        &self,
        identity: &Arc<Identity>,
        subscribed: &Subscribed,
        verb: Verb,
    ) -> Result<Filter, Failed> {
        let Subscribed { topic, entity, params, .. } = subscribed;
        self.ask(identity, entity, topic.channel(), params, std::iter::once(verb)).await
    }

    /// Whether all of this is allowed, and what the server imposes then.
    async fn ask(
        &self,
        identity: &Arc<Identity>,
        entity: &Arc<Entity>,
        channel: &Arc<str>,
        params: &[(String, String)],
        verbs: impl Iterator<Item = Verb>,
    ) -> Result<Filter, Failed> {
        let questions = verbs.map(|verb| {
            let asked = Asked {
                identity: Arc::clone(identity),
                verb,
                entity: Arc::clone(&entity.name),
                channel: Arc::clone(channel),
                params: params.to_vec(),
                states: Arc::clone(&self.shared.states),
                messaging: self.shared.messaging.clone(),
            };
            decide(&entity.access, AccessRequest(Arc::new(asked)))
        });
        let answers = timeout(self.shared.limits.decision, join_all(questions)).await;
        let answers = answers.unwrap_or_else(|_| vec![Err("it took too long".into())]);
        let mut decisions = Vec::with_capacity(answers.len());
        for answer in answers {
            match answer {
                Ok(decision) if decision.is_allowed() => decisions.push(decision),
                Ok(_) => return Err(self.denied()),
                Err(error) => {
                    tracing::error!(entity = %entity.name, %error, "`authorize` failed; nothing is allowed");
                    return Err(ErrorCode::Internal.into());
                }
            }
        }
        entity.imposed(identity, &decisions).ok_or_else(|| self.denied())
    }
}

async fn decide(access: &Access, request: AccessRequest) -> Result<Decision, BoxError> {
    let deciding = async move {
        match access {
            Access::Public => Ok(Decision::allow()),
            Access::Function(function) => function(request).await,
            Access::Closure(closure) => closure(request).await,
        }
    };
    AssertUnwindSafe(deciding).catch_unwind().await.unwrap_or_else(|_| Err("it panicked".into()))
}

fn wanted(entity: &Entity, filters: Option<&serde_json::Value>) -> Result<Filter, Failed> {
    let Some(filters) = filters else { return Ok(Filter::default()) };
    filter::read(filters, &entity.filters)
        .map_err(|error| Failed(ErrorCode::BadRequest, Some(error.to_string())))
}

/// Something that the client may try again.
fn unavailable(what: &str, error: &messaging_core::Error) -> Failed {
    tracing::warn!(%error, what, "a command could not be carried out");
    ErrorCode::Internal.into()
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.let_go(self.connection());
        self.shared.metrics.connections.decrement();
    }
}
