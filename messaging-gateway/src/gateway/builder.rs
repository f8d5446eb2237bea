//! What a gateway is built with.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, RwLock, Weak};

use messaging_core::{BoxError, Error, ErrorKind, Messaging, Result};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Attached, Gateway, Shared};
use crate::access::{AccessRequest, IntoDecision, States};
use crate::auth::{Authenticator, Counted, Origins, Tickets};
use crate::calls::{Calls, ClientRequest, RpcError};
use crate::connection::Connections;
use crate::descriptor::{BoxFuture, SubscriptionDescriptor};
use crate::discovery::{Discovery, Polling, RemoteEntity, RemoteService};
use crate::entity::{Access, Authorize, Catalog, Entity};
use crate::hub::Hub;
use crate::identity::{AuthError, Credentials, Identity};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::presence::Rooms;
use crate::tickets::Shelves;

/// What a gateway is built with; made by [`Gateway::builder`].
#[derive(Debug)]
#[must_use = "nothing is served before `build`"]
pub struct Builder {
    messaging: Messaging,
    authenticator: Option<Authenticator>,
    allows_anonymous: bool,
    origins: Result<Origins>,
    authorize: Authorizers,
    services: Vec<Result<RemoteService>>,
    serves: Serves,
    polling: Polling,
    limits: Limits,
    states: States,
    calls: Calls,
}

/// Whose entities are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serves {
    All,
    OnlyServices,
}

impl Builder {
    pub(super) fn new(messaging: &Messaging) -> Self {
        Self {
            messaging: messaging.clone(),
            authenticator: None,
            allows_anonymous: false,
            origins: Ok(Origins::same_host()),
            authorize: Authorizers::default(),
            services: Vec::new(),
            serves: Serves::All,
            polling: Polling::default(),
            limits: Limits::default(),
            states: States::default(),
            calls: Calls::default(),
        }
    }

    /// Finds out who a connection is: by the token that it shows, or what else is in its request, but not by its cookies.
    pub fn authenticate<F, Fut>(mut self, verify: F) -> Self
    where
        F: Fn(Credentials) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Identity, AuthError>> + Send + 'static,
    {
        self.authenticator = Some(Authenticator::verify(verify));
        self
    }

    /// The same with cookies, which a browser shows for any page: the origins then have to be listed, or be this host.
    pub fn authenticate_cookies<F, Fut>(mut self, verify: F) -> Self
    where
        F: Fn(Credentials) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Identity, AuthError>> + Send + 'static,
    {
        self.authenticator = Some(Authenticator::verify_cookies(verify));
        self
    }

    /// Finds out who a connection is by its JSON Web Token.
    #[cfg(feature = "jwt")]
    pub fn jwt(mut self, jwt: crate::auth::Jwt) -> Self {
        self.authenticator = Some(Authenticator::jwt(jwt));
        self
    }

    /// Takes up who shows nothing, as an anonymous connection.
    pub fn allow_anonymous(mut self) -> Self {
        self.allows_anonymous = true;
        self
    }

    /// The origins whose pages may connect, like `https://app.example`; `"*"` is any. Without this it is the host that is
    /// connected to.
    pub fn allowed_origins(mut self, origins: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.origins = Origins::allow(origins);
        self
    }

    /// Answers who may do what with an entity, instead of what its attribute says.
    pub fn authorize<F, Fut>(mut self, entity: impl Into<String>, authorize: F) -> Self
    where
        F: Fn(AccessRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoDecision> + Send + 'static,
    {
        let boxed = move |request| -> BoxFuture<'static, Result<_, BoxError>> {
            crate::descriptor::decide(authorize(request))
        };
        self.authorize.0.insert(entity.into(), Arc::new(boxed));
        self
    }

    /// Serves what another service declares, which calls itself `name` and whose `/__schema` is below `url`: entities whose
    /// channels all begin with one of these prefixes, and for which there is an [`authorize`](Self::authorize) here.
    pub fn service(
        mut self,
        name: &str,
        url: &str,
        prefixes: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.services.push(RemoteService::new(name, url, prefixes));
        self
    }

    /// Serves only what other services declare, and none of the subscriptions of this process: for a program that can be each of
    /// several services, where it is the gateway.
    pub fn only_services(mut self) -> Self {
        self.serves = Serves::OnlyServices;
        self
    }

    /// How often other services are asked for what they declare.
    pub fn polling(mut self, polling: Polling) -> Self {
        self.polling = polling;
        self
    }

    /// How much one client may have and do.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Gives every `authorize` some state, by its type.
    pub fn state<T: Send + Sync + 'static>(mut self, state: T) -> Self {
        self.states.insert(state);
        self
    }

    /// A function that clients of Centrifugo's call by `rpc`, in place of one that had the name. Calls of one connection run at
    /// the same time, up to 16; each is dropped after [`Limits::decision`], or when the connection ends.
    pub fn rpc<F, Fut, T>(mut self, method: impl Into<String>, function: F) -> Self
    where
        F: Fn(ClientRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, RpcError>> + Send + 'static,
        T: Serialize,
    {
        self.calls.add(method.into(), function);
        self
    }

    /// What takes the messages that clients of Centrifugo's `send`, of each client one after the other. Without it, who sends one
    /// is disconnected with [`NotAvailable`](crate::DisconnectCode::NotAvailable).
    pub fn on_message<F, Fut>(mut self, listener: F) -> Self
    where
        F: Fn(ClientRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.calls.listen(listener);
        self
    }

    /// Builds it, and attaches it to its messaging, which drains it when it is shut down. Has to be called in a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if nothing says who may connect, or an origin is none;
    /// [`ErrorKind::Registration`] if two subscriptions have one entity; [`ErrorKind::Closed`] after shutting down.
    pub fn build(self) -> Result<Gateway> {
        let authenticator = match (self.authenticator, self.allows_anonymous) {
            (Some(authenticator), false) => authenticator,
            (Some(authenticator), true) => authenticator.or_anonymous(),
            (None, true) => Authenticator::anonymous(),
            (None, false) => {
                let text = "a gateway has to know who connects: add `.jwt(…)`, `.authenticate(…)` or `.allow_anonymous()`";
                return Err(error(ErrorKind::Configuration, text.to_owned()));
            }
        };
        let origins = self.origins?;
        authenticator.check(&origins)?;
        let local = match self.serves {
            Serves::All => local(&self.authorize)?,
            Serves::OnlyServices => Vec::new(),
        };
        let services = self.services.into_iter().collect::<Result<Vec<_>>>()?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let metrics = Arc::<Metrics>::default();
        let hub = Hub::new(
            self.messaging.clone(),
            Arc::clone(&metrics),
            self.limits.clone(),
            tasks.clone(),
            stop.clone(),
        );
        let shared = Arc::new(Shared {
            rooms: Rooms::new(self.messaging.clone(), tasks.clone(), stop.clone()),
            tickets: Tickets::new(Shelves::new(&self.messaging)),
            counted: Counted::new(&self.limits),
            messaging: self.messaging,
            hub,
            limits: self.limits,
            authenticator,
            origins,
            metrics,
            states: Arc::new(self.states),
            calls: self.calls,
            tasks,
            catalog: RwLock::new(Arc::new(Catalog::new(local.iter().cloned()))),
            complaints: RwLock::default(),
            discovery: OnceLock::new(),
            connections: Arc::<Connections>::default(),
            is_draining: AtomicBool::new(false),
            drained: CancellationToken::new(),
            stop,
        });
        let names: Vec<_> = local.iter().map(|entity| entity.name.to_string()).collect();
        let discovery = Discovery::start(services, names, self.polling, &shared.tasks, &shared.stop)?;
        let _ = shared.discovery.set(discovery.clone());
        let remote = Remote { discovery, local, authorize: self.authorize };
        shared.messaging.attach(Attached(Arc::downgrade(&shared)))?;
        let finding = remote.take_up(Arc::downgrade(&shared));
        let (looking, stop) = (Arc::clone(&shared.hub).look_out(), shared.stop.clone());
        let sweeping = Shared::sweep(Arc::downgrade(&shared));
        shared.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = looking => {}
                () = sweeping => {}
                () = finding => {}
            }
        });
        Ok(Gateway(shared))
    }
}

/// What was given to [`Builder::authorize`].
#[derive(Default)]
struct Authorizers(HashMap<String, Authorize>);

impl fmt::Debug for Authorizers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The entities of other services, as they come and go.
struct Remote {
    discovery: Discovery,
    local: Vec<Arc<Entity>>,
    authorize: Authorizers,
}

impl Remote {
    /// Takes up what is found, for ever.
    async fn take_up(self, shared: Weak<Shared>) {
        let mut changes = self.discovery.changes();
        // What was found before this began is one, too.
        changes.mark_changed();
        let mut known: HashMap<Arc<str>, (RemoteEntity, Arc<Entity>)> = HashMap::new();
        while changes.changed().await.is_ok() {
            let Some(shared) = shared.upgrade() else { return };
            let found = Arc::clone(&changes.borrow_and_update());
            let mut complaints = Vec::new();
            let mut kept = HashMap::new();
            for remote in found.iter() {
                let name: Arc<str> = remote.entity.as_str().into();
                let Some(authorize) = self.authorize.0.get(&*name) else {
                    complaints.push(format!(
                        "the entity `{name}` of the service `{}` is not served: say who may subscribe with `.authorize(\"{name}\", …)`",
                        remote.service
                    ));
                    continue;
                };
                // Who is subscribed to one that is as it was stays so.
                let entity = match known.remove(&name) {
                    Some((before, entity)) if before == *remote => entity,
                    _ => Arc::new(Entity::of_service(remote, Access::Closure(Arc::clone(authorize)))),
                };
                kept.insert(name, (remote.clone(), entity));
            }
            known = kept;
            let remote = known.values().map(|(_, entity)| Arc::clone(entity));
            shared.set_catalog(Catalog::new(self.local.iter().cloned().chain(remote)), complaints);
        }
        // Without services there is nobody to tell of changes.
        std::future::pending().await
    }
}

/// The entities of this process.
fn local(authorize: &Authorizers) -> Result<Vec<Arc<Entity>>> {
    let mut descriptors: Vec<_> = inventory::iter::<SubscriptionDescriptor>.into_iter().collect();
    descriptors.sort_by_key(|descriptor| (descriptor.entity, descriptor.location));
    let same = descriptors.windows(2).find(|pair| pair[0].entity == pair[1].entity);
    if let Some([first, second]) = same {
        let text = format!(
            "two subscriptions have the entity `{}`: {} and {}; give one of them `entity = \"…\"`",
            first.entity, first.location, second.location
        );
        return Err(error(ErrorKind::Registration, text));
    }
    let entities = descriptors.into_iter().map(|descriptor| {
        let mut entity = Entity::of(descriptor)?;
        if entity.tenant.is_some() && entity.presence {
            let text = format!(
                "the subscription `{}` ({}) has `tenant` and `presence`: all tenants would see each other; give each a channel of its own with {{tenant_id}}",
                descriptor.entity, descriptor.location
            );
            return Err(error(ErrorKind::Registration, text));
        }
        if let Some(authorize) = authorize.0.get(descriptor.entity) {
            entity.access = Access::Closure(Arc::clone(authorize));
        }
        Ok(Arc::new(entity))
    });
    entities.collect()
}

fn error(kind: ErrorKind, text: String) -> Error {
    messaging_core::__private::error(kind, text)
}
