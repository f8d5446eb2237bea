//! What one client asks for, carried out in order: who it is, what it may, and what becomes of it. Knows no sockets.

mod calls;
mod tokens;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use messaging_core::{BoxError, ErrorKind};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::access::{AccessRequest, Asked, Decision, Verb};
use crate::auth::{Full, TokenBucket};
use crate::code::{DisconnectCode, ErrorCode, UnsubscribeCode};
use crate::command::{Action, Command, Hello, Nonsense, Order, Presence, Said, Since, Subscribe};
use crate::connection::{Connection, Open, Subscribed, left};
use crate::entity::{Access, Entity, Resolved};
use crate::filter::{self, Filter};
use crate::gateway::Shared;
use crate::hub::{Join, Joined, Past, PastError};
use crate::identity::{AuthError, Credentials, Identity};
use crate::native::{Done, Say, SayEvent, SayLimits};
use crate::outbox::End;
use crate::protocol::Protocol;

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
    /// The calls that are running, once there was one; they end with the connection.
    calls: Option<Box<JoinSet<()>>>,
    /// It has not proven who it is, and comes again on another connection: what it asks for meanwhile has no answer.
    is_refused: bool,
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
    info: Option<&'a Value>,
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
            calls: None,
            is_refused: false,
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.open.connection
    }

    /// What came makes no sense.
    pub(crate) fn refuse(&mut self, Nonsense { id, code, reason, is_fatal }: &Nonsense) {
        self.shared.metrics.rejected.message.increment();
        if *is_fatal {
            tracing::debug!("a client that does not speak the protocol");
            return self.end(DisconnectCode::BadRequest);
        }
        // Who goes on with that does not listen.
        if !self.commands.take(self.shared.limits.commands, std::time::Instant::now()) {
            return self.end(DisconnectCode::TooManyRequests);
        }
        let say = Say::Error { id: *id, code: code.number(), message: reason, temporary: false };
        self.connection().say(&say);
    }

    /// It answers a ping: nothing more to do, but who does nothing else does too much.
    pub(crate) fn pong(&mut self) {
        if !self.commands.take(self.shared.limits.commands, std::time::Instant::now()) {
            self.end(DisconnectCode::TooManyRequests);
        }
    }

    /// Carries out what the client has said. Answers are in the outbox when it returns.
    ///
    /// Cancellation: what was begun may have been done; nothing is left half done that outlives the connection.
    pub(crate) async fn handle(&mut self, said: Said) {
        match said {
            Said::Pong => {}
            _ if self.is_refused => {}
            Said::Hello(hello) => self.hello(hello).await,
            Said::Command(_) | Said::Message(_) if !self.may_speak() => self.end(DisconnectCode::BadRequest),
            Said::Message(data) => self.message(data).await,
            Said::Command(Command { id, action }) => {
                if let Err(Failed(code, reason)) = self.carry_out(id, action).await {
                    let message = reason.as_deref().unwrap_or(code.message());
                    let temporary = code.is_temporary();
                    let say = Say::Error { id: Some(id), code: code.number(), message, temporary };
                    self.connection().say(&say);
                }
            }
        }
    }

    /// Whether it has said who it is, where nothing else may be said before that.
    fn may_speak(&self) -> bool {
        self.connection().protocol() != Protocol::Centrifugo || self.connection().identity().is_some()
    }

    fn end(&self, code: DisconnectCode) {
        self.connection().outbox.end(End::Close(code));
    }

    /// Finds out who it is. A second `hello` is one too many.
    async fn hello(&mut self, Hello { id, token, data }: Hello) {
        if self.connection().identity().is_some() {
            return self.end(DisconnectCode::BadRequest);
        }
        let token = token.map(|token| token.0);
        let identity = match (token, self.redeemed.take()) {
            (None, Some(identity)) => Ok(identity),
            (token, _) => {
                // They are not looked at again, and idle connections are many.
                let mut credentials = std::mem::take(&mut self.credentials);
                credentials.token = token.or(credentials.token);
                credentials.data = data;
                self.shared.authenticator.authenticate(credentials, self.shared.limits.decision).await
            }
        };
        match identity {
            Ok(identity) => self.welcome(id, identity),
            Err(error) => {
                self.shared.metrics.rejected.credentials.increment();
                tracing::debug!(%error, "a connection that has not proven who it is");
                let answer = match error {
                    AuthError::Invalid(_) => None,
                    AuthError::Expired => Some(ErrorCode::TokenExpired),
                    AuthError::Unavailable(_) => Some(ErrorCode::Internal),
                };
                // It comes again, with another token, when it has an answer.
                if self.connection().protocol() == Protocol::Centrifugo
                    && let Some(code) = answer
                {
                    self.is_refused = true;
                    return self.connection().say(&Say::error(Some(id), code));
                }
                let code = match error {
                    AuthError::Invalid(_) => DisconnectCode::InvalidToken,
                    AuthError::Expired => DisconnectCode::Expired,
                    AuthError::Unavailable(_) => DisconnectCode::ServerError,
                };
                self.end(code);
            }
        }
    }

    /// Takes somebody up who has proven who they are.
    pub(crate) fn welcome(&self, id: u64, identity: Identity) {
        let connection = self.connection();
        let counted = connection
            .with_place(|place| place.as_mut().map_or(Ok(()), |place| place.belongs_to(&identity.user)));
        if let Err(Full::User | Full::Address | Full::Gateway) = counted {
            self.shared.metrics.rejected.connections.increment();
            return self.end(DisconnectCode::ConnectionLimit);
        }
        let identity = Arc::new(identity);
        connection.identify(Arc::clone(&identity));
        let limits = &self.shared.limits;
        let say = Say::Welcome {
            id,
            client: &connection.client,
            user: (!identity.is_anonymous()).then_some(identity.user.as_str()),
            ping_ms: millis(limits.ping),
            pong_ms: millis(limits.pong),
            expires_in_ms: left(identity.expires_at),
            limits: SayLimits::of(limits),
        };
        connection.say(&say);
    }

    async fn carry_out(&mut self, id: u64, action: Action) -> Result<(), Failed> {
        let Some(identity) = self.connection().identity() else { return Err(ErrorCode::Unauthorized.into()) };
        let has_expired =
            self.connection().speaks_until(&identity).is_some_and(|until| until <= SystemTime::now());
        if has_expired && !matches!(action, Action::Refresh { .. }) {
            return Err(ErrorCode::TokenExpired.into());
        }
        let now = std::time::Instant::now();
        let (bucket, rate) = match action {
            Action::Send { .. } | Action::Call { .. } => (&mut self.sends, self.shared.limits.sends),
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
            Action::Presence { channel } => {
                let members = self.members(&identity, &channel).await?;
                let members = Some(&members);
                self.connection().say(&Say::Ok { id, of: Done::Presence, expires_in_ms: None, members });
                Ok(())
            }
            Action::Stats { channel } => {
                let members = self.members(&identity, &channel).await?;
                let users: HashSet<_> =
                    members.values().filter_map(|told| told.get("user")?.as_str()).collect();
                self.connection().say(&Say::Stats { id, clients: members.len(), users: users.len() });
                Ok(())
            }
            Action::History { channel, since, limit, order } => {
                let limit = limit.unwrap_or(USUAL_PAST).min(MOST_PAST);
                self.history(id, &identity, &channel, since.as_ref(), limit, order).await
            }
            Action::Refresh { token } => self.refresh(id, &identity, token.0).await,
            Action::Renew { channel, token } => self.renew(id, &identity, &channel, &token),
            Action::Call { method, data } => self.call(id, identity, method, data),
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
        let granted = match &subscribe.token {
            Some(token) => Some(self.granted(identity, &channel, token)?),
            None => None,
        };
        let is_wanted = subscribe.presence == Presence::Wanted;
        let verbs = [
            granted.is_none().then_some(Verb::Subscribe),
            (granted.is_none() && subscribe.resume.is_some()).then_some(Verb::Resume),
            (subscribe.last > 0).then_some(Verb::History),
            is_wanted.then_some(Verb::Presence),
        ];
        let asked = self.ask(identity, &entity, &channel, &params, verbs.into_iter().flatten());
        let offered = async {
            match subscribe.presence {
                // Nobody can be seen who is nobody.
                Presence::Offered { watches } if entity.presence && !identity.is_anonymous() => {
                    let verb = std::iter::once(Verb::Presence);
                    let allowed = self.may(identity, &entity, &channel, &params, verb).await;
                    // They have not asked for it: that it cannot be had keeps nobody from the channel.
                    allowed.ok().flatten().map(|imposed| (watches, imposed))
                }
                _ => None,
            }
        };
        let (asked, offered) = tokio::join!(asked, offered);
        let mut imposed = asked?;
        if is_wanted && !entity.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        let watches = match offered {
            Some((watches, also)) => {
                imposed = imposed.and(&also);
                Some(watches)
            }
            None => is_wanted.then_some(true),
        };
        let filter = wanted(&entity, subscribe.filters.as_ref())?.and(&imposed);
        let seen = match watches {
            Some(watches) => {
                let info = granted.as_ref().and_then(|granted| granted.info.as_ref());
                match self.shared.rooms.enter(&channel, connection, identity, watches, info).await {
                    Ok(seen) => Some(Arc::new(seen)),
                    Err(error) if is_wanted => return Err(unavailable("presence", &error)),
                    Err(error) => {
                        tracing::warn!(%error, channel = %channel, "somebody is not seen in a channel");
                        None
                    }
                }
            }
            None => None,
        };
        let expires_at = granted.as_ref().and_then(|granted| granted.expires_at);
        let join = Join {
            connection,
            channel: &channel,
            filter: &filter,
            policy: entity.slow,
            resume: subscribe.resume.as_ref(),
            last: subscribe.last.min(MOST_PAST),
            must_recover: subscribe.must_recover,
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
            connection.say(&Say::Subscribed {
                id,
                channel: &channel,
                place,
                recovered: outcome.recovered,
                expires_in_ms: left(expires_at),
                events,
            });
        });
        match joined.await.map_err(|error| unavailable("subscribe", &error))? {
            Joined::Now(topic) => {
                self.shared.metrics.subscriptions.increment();
                connection.subscribe(Subscribed {
                    topic: Arc::clone(&topic),
                    entity: Arc::clone(&entity),
                    params,
                    imposed,
                    is_granted: granted.is_some(),
                    expires_at,
                    _seen: seen,
                });
                // A gap may have ended it already.
                if !topic.has(connection) && connection.forget(&channel).is_some() {
                    self.shared.metrics.subscriptions.decrement();
                }
                // It may have been taken away meanwhile.
                if !self.shared.catalog().has(&entity) {
                    self.shared.end_subscription(connection, &channel, UnsubscribeCode::InsufficientState);
                }
                Ok(())
            }
            Joined::Already => Err(ErrorCode::AlreadySubscribed.into()),
            Joined::Unrecoverable => Err(ErrorCode::Unrecoverable.into()),
        }
    }

    async fn update(
        &self,
        id: u64,
        identity: &Arc<Identity>,
        channel: &str,
        filters: &Value,
    ) -> Result<(), Failed> {
        let connection = self.connection();
        let subscribed = self.subscribed(channel)?;
        let imposed = self.ask_again(identity, &subscribed, Verb::Update).await?;
        let filter = wanted(&subscribed.entity, Some(filters))?.and(&imposed);
        connection.impose(channel, imposed);
        if subscribed.topic.update(connection, filter, &Say::ok(id, Done::Update)) {
            Ok(())
        } else {
            Err(self.denied())
        }
    }

    fn unsubscribe(&self, id: u64, channel: &str) -> Result<(), Failed> {
        match self.connection().unsubscribe(channel) {
            true => self.shared.metrics.subscriptions.decrement(),
            // It is as it was asked for: the server may have ended it just before.
            false if self.connection().protocol() == Protocol::Centrifugo => {}
            false => return Err(self.denied()),
        }
        self.connection().say(&Say::ok(id, Done::Unsubscribe));
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
                self.connection().say(&Say::ok(id, Done::Send));
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::PayloadTooLarge => {
                Err(Failed(ErrorCode::BadRequest, Some("the message is too large".to_owned())))
            }
            Err(error) => Err(unavailable("send", &error)),
        }
    }

    /// Who is there, by their connections.
    async fn members(&self, identity: &Arc<Identity>, channel: &str) -> Result<Map<String, Value>, Failed> {
        let subscribed = self.subscribed(channel)?;
        if !subscribed.entity.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        self.ask_again(identity, &subscribed, Verb::Presence).await?;
        self.shared.rooms.members(channel).await.map_err(|error| unavailable("presence", &error))
    }

    async fn history(
        &self,
        id: u64,
        identity: &Arc<Identity>,
        channel: &str,
        since: Option<&Since>,
        limit: usize,
        order: Order,
    ) -> Result<(), Failed> {
        let subscribed = self.subscribed(channel)?;
        let imposed = self.ask_again(identity, &subscribed, Verb::History).await?;
        let past = Past { channel: subscribed.topic.channel(), filter: &imposed, since, order, limit };
        let (place, events) = match self.shared.hub.past(&subscribed.topic, past).await {
            Ok(past) => past,
            Err(PastError::NotAvailable) => return Err(ErrorCode::NotAvailable.into()),
            Err(PastError::Unrecoverable) => return Err(ErrorCode::Unrecoverable.into()),
            Err(PastError::Backend(error)) => return Err(unavailable("history", &error)),
        };
        let say = Say::Past { id, place: place.say(), events: events.iter().map(SayEvent::of).collect() };
        self.connection().say(&say);
        Ok(())
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

    /// What the server imposes, if all of this is allowed.
    async fn ask(
        &self,
        identity: &Arc<Identity>,
        entity: &Arc<Entity>,
        channel: &Arc<str>,
        params: &[(String, String)],
        verbs: impl Iterator<Item = Verb>,
    ) -> Result<Filter, Failed> {
        self.may(identity, entity, channel, params, verbs).await?.ok_or_else(|| self.denied())
    }

    /// The same; nothing if it is not allowed.
    async fn may(
        &self,
        identity: &Arc<Identity>,
        entity: &Arc<Entity>,
        channel: &Arc<str>,
        params: &[(String, String)],
        verbs: impl Iterator<Item = Verb>,
    ) -> Result<Option<Filter>, Failed> {
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
                Ok(_) => return Ok(None),
                Err(error) => {
                    tracing::error!(entity = %entity.name, %error, "`authorize` failed; nothing is allowed");
                    return Err(ErrorCode::Internal.into());
                }
            }
        }
        Ok(entity.imposed(identity, &decisions))
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

fn wanted(entity: &Entity, filters: Option<&Value>) -> Result<Filter, Failed> {
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
