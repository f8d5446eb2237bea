//! What clients can subscribe to: the entities of this process and of other services, and which channel a request means.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use messaging_core::{BoxError, Pattern};

use crate::access::{AccessRequest, Decision};
use crate::command::To;
use crate::descriptor::{AuthorizeFn, BoxFuture, DeclaredAccess, SlowPolicy, SubscriptionDescriptor};
use crate::discovery::RemoteEntity;
use crate::filter::{Filter, Filterable, Scalar, Term};
use crate::identity::Identity;

/// The longest value that a client may give a placeholder.
const LONGEST_VALUE: usize = 128;
/// The longest channel.
const LONGEST_CHANNEL: usize = 255;
/// The placeholder that is the identity's user, whatever a client says.
const USER: &str = "user_id";
/// The placeholder that is the identity's tenant.
const TENANT: &str = "tenant_id";

/// An `authorize` that is given to the builder.
pub(crate) type Authorize =
    Arc<dyn Fn(AccessRequest) -> BoxFuture<'static, Result<Decision, BoxError>> + Send + Sync>;

/// An entity that clients can subscribe to.
pub(crate) struct Entity {
    pub(crate) name: Arc<str>,
    pub(crate) channels: Vec<Pattern>,
    pub(crate) filters: Vec<Filterable>,
    /// The field of the payload that has to be the tenant of who subscribes.
    pub(crate) tenant: Option<Arc<str>>,
    pub(crate) access: Access,
    pub(crate) send: bool,
    pub(crate) presence: bool,
    pub(crate) slow: SlowPolicy,
    /// Another service declares it.
    pub(crate) is_remote: bool,
}

/// Who may subscribe.
#[derive(Clone)]
pub(crate) enum Access {
    Public,
    Function(AuthorizeFn),
    Closure(Authorize),
}

impl fmt::Debug for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entity")
            .field("name", &self.name)
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

impl Entity {
    /// What an attribute of this process declares.
    ///
    /// # Errors
    /// A channel that is none.
    pub(crate) fn of(descriptor: &SubscriptionDescriptor) -> messaging_core::Result<Self> {
        let channels =
            descriptor.channels.iter().map(|text| Pattern::parse(text)).collect::<Result<_, _>>()?;
        let filters = descriptor
            .filters
            .iter()
            .map(|filter| Filterable { path: filter.field.into(), operators: filter.operators.to_vec() });
        Ok(Self {
            name: descriptor.entity.into(),
            channels,
            filters: filters.collect(),
            tenant: descriptor.tenant.map(Into::into),
            access: match descriptor.access {
                DeclaredAccess::Public => Access::Public,
                DeclaredAccess::Authorize(function) => Access::Function(function),
            },
            send: descriptor.send,
            presence: descriptor.presence,
            slow: descriptor.slow,
            is_remote: false,
        })
    }

    /// What another service declares. Who may subscribe is said here.
    pub(crate) fn of_service(remote: &RemoteEntity, access: Access) -> Self {
        let filters = remote.filters.iter().map(|filter| Filterable {
            path: filter.field.as_str().into(),
            operators: filter.operators.clone(),
        });
        Self {
            name: remote.entity.as_str().into(),
            channels: remote.channels.clone(),
            filters: filters.collect(),
            tenant: remote.tenant.as_deref().map(Into::into),
            access,
            send: remote.send,
            // It would show those of other tenants.
            presence: remote.presence && remote.tenant.is_none(),
            slow: remote.slow,
            is_remote: true,
        }
    }

    /// The filter that the server imposes on somebody; `None` if they can see nothing.
    pub(crate) fn imposed(&self, identity: &Identity, decisions: &[Decision]) -> Option<Filter> {
        let mut terms = Vec::new();
        if let Some(field) = &self.tenant {
            let tenant = identity.tenant.as_deref()?;
            // A tenant is a text where it is verified, and may be a number where it is stored.
            let mut values = vec![Scalar::Text(tenant.into())];
            if let Ok(number) = tenant.parse::<i64>()
                && number.to_string() == tenant
            {
                values.extend(Scalar::of(&number.into()));
            }
            terms.push(Term::new(Arc::clone(field), values));
        }
        for (field, values) in decisions.iter().flat_map(|decision| &decision.only) {
            let values = values.iter().filter_map(Scalar::of).collect();
            terms.push(Term::new(field.as_str().into(), values));
        }
        Some(Filter::new(terms))
    }
}

/// A channel that somebody asked for.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) entity: Arc<Entity>,
    pub(crate) channel: Arc<str>,
    pub(crate) params: Vec<(String, String)>,
}

/// All entities, by name.
#[derive(Debug, Default)]
pub(crate) struct Catalog(BTreeMap<Arc<str>, Arc<Entity>>);

impl Catalog {
    pub(crate) fn new(entities: impl IntoIterator<Item = Arc<Entity>>) -> Self {
        Self(entities.into_iter().map(|entity| (Arc::clone(&entity.name), entity)).collect())
    }

    /// Whether it is this very one.
    pub(crate) fn has(&self, entity: &Arc<Entity>) -> bool {
        self.0.get(&entity.name).is_some_and(|there| Arc::ptr_eq(there, entity))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Entity>> {
        self.0.values()
    }

    /// Which channel is meant. `None` says that it is not there, or not for them: nobody learns which.
    pub(crate) fn resolve(&self, to: &To, identity: &Identity) -> Option<Resolved> {
        match to {
            To::Entity { entity, params } => self.by_entity(entity, params, identity),
            To::Channel(channel) => self.by_channel(channel, identity),
        }
    }

    /// The most specific channel whose placeholders are all known.
    fn by_entity(&self, name: &str, params: &[(String, String)], identity: &Identity) -> Option<Resolved> {
        let entity = self.0.get(name)?;
        let given =
            |name: &str| params.iter().find(|(param, _)| param == name).map(|(_, value)| value.clone());
        let value = |name: &str| verified(name, identity).or_else(|| given(name));
        // Each param has to be used: a client that misspells one would else get more than it asked for.
        let candidates = entity.channels.iter().filter(|channel| {
            channel.names().all(|name| value(name).is_some())
                && params.iter().all(|(param, _)| channel.names().any(|name| name == param))
        });
        // Of those with equally many, the first that was declared.
        let pattern = candidates.rev().max_by_key(|channel| channel.names().count())?;
        let channel = match pattern {
            Pattern::Exact(channel) => channel.clone(),
            Pattern::Template(template) => template.fill(value).ok()?,
            Pattern::Glob(_) => return None,
        };
        checked(entity, pattern, &channel, identity)
    }

    /// Where several entities have it, the own one.
    fn by_channel(&self, channel: &str, identity: &Identity) -> Option<Resolved> {
        let is_exact = |pattern: &Pattern| matches!(pattern, Pattern::Exact(_));
        let matching =
            self.0.values().flat_map(|entity| entity.channels.iter().map(move |pattern| (entity, pattern)));
        let matching =
            matching.filter(|(_, pattern)| !matches!(pattern, Pattern::Glob(_)) && pattern.matches(channel));
        let (entity, pattern) = matching.min_by_key(|(entity, pattern)| {
            (entity.is_remote, !is_exact(pattern), Arc::clone(&entity.name))
        })?;
        checked(entity, pattern, channel, identity)
    }
}

/// What is verified of somebody, of the placeholders that no client may fill.
fn verified(name: &str, identity: &Identity) -> Option<String> {
    match name {
        USER => Some(identity.user.clone()),
        // Nobody without a tenant is of one that is called nothing.
        TENANT => Some(identity.tenant.clone().unwrap_or_default()),
        _ => None,
    }
}

/// The channel, if all its values are such as may stand in a channel and are theirs.
fn checked(entity: &Arc<Entity>, pattern: &Pattern, channel: &str, identity: &Identity) -> Option<Resolved> {
    if channel.len() > LONGEST_CHANNEL {
        return None;
    }
    let (values, rest) = match pattern {
        Pattern::Template(template) => (template.values(channel)?, template.as_str().ends_with("*}")),
        _ => (Vec::new(), false),
    };
    let last = values.len().saturating_sub(1);
    let sound = values.iter().enumerate().all(|(place, (name, value))| match verified(name, identity) {
        Some(verified) => !verified.is_empty() && *value == verified,
        None => {
            let plain = |byte: u8| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'@' | b'+' | b'=' | b'~')
            };
            let separator = |byte: u8| rest && place == last && matches!(byte, b'.' | b':');
            value.len() <= LONGEST_VALUE && value.bytes().all(|byte| plain(byte) || separator(byte))
        }
    });
    sound.then(|| Resolved {
        entity: Arc::clone(entity),
        channel: channel.into(),
        params: values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(name: &str, channels: &[&str]) -> Arc<Entity> {
        Arc::new(Entity {
            name: name.into(),
            channels: channels.iter().map(|text| Pattern::parse(text).unwrap()).collect(),
            filters: Vec::new(),
            tenant: Some("tenant".into()),
            access: Access::Public,
            send: false,
            presence: false,
            slow: SlowPolicy::Disconnect,
            is_remote: false,
        })
    }

    fn catalog() -> Catalog {
        Catalog::new([
            entity(
                "Camera",
                &["camera", "camera.complex:{complex_id}", "camera.complex:{complex_id}:zone:{zone}"],
            ),
            entity("Audit", &["audit:{user_id}"]),
            entity("Tenant", &["tenant:{tenant_id}:update", "tenant:{tenant_id}:log:{rest*}"]),
        ])
    }

    fn resolve(to: &To, identity: &Identity) -> Option<String> {
        catalog().resolve(to, identity).map(|resolved| resolved.channel.to_string())
    }

    fn by_entity(name: &str, params: &[(&str, &str)], identity: &Identity) -> Option<String> {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        resolve(&To::Entity { entity: name.to_owned(), params }, identity)
    }

    fn by_channel(channel: &str, identity: &Identity) -> Option<String> {
        resolve(&To::Channel(channel.to_owned()), identity)
    }

    #[test]
    fn an_entity_is_its_most_specific_channel() {
        let ada = Identity::user("ada");
        let camera = |params: &[(&str, &str)]| by_entity("Camera", params, &ada);
        assert_eq!(camera(&[]).unwrap(), "camera");
        assert_eq!(camera(&[("complex_id", "7")]).unwrap(), "camera.complex:7");
        assert_eq!(camera(&[("zone", "a"), ("complex_id", "7")]).unwrap(), "camera.complex:7:zone:a");
        // A name that is misspelt does not widen the subscription.
        assert_eq!(camera(&[("complexid", "7")]), None);
        assert_eq!(camera(&[("zone", "a")]), None);
        assert_eq!(by_entity("Nobody", &[], &ada), None);
    }

    #[test]
    fn no_value_reaches_another_channel() {
        let ada = Identity::user("ada");
        for value in
            ["", "7:zone:a", "*", "7*", "[7]", "7 8", "7\n", "ä", "{x}", "7\0", "a.b", &"x".repeat(129)]
        {
            assert_eq!(by_entity("Camera", &[("complex_id", value)], &ada), None, "{value:?}");
            assert_eq!(
                by_channel(&format!("camera.complex:{value}"), &ada).filter(|_| value != "7:zone:a"),
                None,
                "{value:?}"
            );
        }
        assert_eq!(by_channel("camera.complex:7", &ada).unwrap(), "camera.complex:7");
        assert_eq!(by_channel("camera.*", &ada), None);
        assert_eq!(by_channel("other", &ada), None);
    }

    #[test]
    fn users_and_tenants_are_what_is_verified() {
        let (ada, eve) =
            (Identity::user("ada").with_tenant("acme"), Identity::user("eve").with_tenant("evil"));
        assert_eq!(by_entity("Audit", &[], &ada).unwrap(), "audit:ada");
        assert_eq!(by_entity("Audit", &[("user_id", "ada")], &eve).as_deref(), Some("audit:eve"));
        assert_eq!((by_channel("audit:ada", &ada).is_some(), by_channel("audit:ada", &eve)), (true, None));
        assert_eq!(by_channel("tenant:acme:update", &eve), None);
        assert_eq!(by_channel("tenant:acme:log:a.b:c", &ada).unwrap(), "tenant:acme:log:a.b:c");
        let nobody = Identity::anonymous();
        for channel in ["audit:", "audit:ada", "tenant:acme:update", "tenant::update"] {
            assert_eq!(by_channel(channel, &nobody), None, "{channel}");
        }
        assert_eq!((by_entity("Audit", &[], &nobody), by_entity("Tenant", &[], &nobody)), (None, None));
    }

    #[test]
    fn the_tenant_is_imposed() {
        let camera = entity("Camera", &["camera"]);
        assert!(camera.imposed(&Identity::user("ada"), &[]).is_none());
        let imposed =
            camera.imposed(&Identity::user("ada").with_tenant("7"), &[Decision::allow().only("zone", ["a"])]);
        let imposed = imposed.unwrap();
        let paths: Vec<_> = imposed.paths().cloned().collect();
        let passes = |event: &str| imposed.passes(&crate::filter::Fields::read(event.as_bytes(), &paths));
        assert!(passes(r#"{"tenant":"7","zone":"a"}"#) && passes(r#"{"tenant":7,"zone":"a"}"#));
        assert!(
            !passes(r#"{"tenant":"8","zone":"a"}"#)
                && !passes(r#"{"tenant":"7","zone":"b"}"#)
                && !passes(r#"{"zone":"a"}"#)
        );
    }
}
