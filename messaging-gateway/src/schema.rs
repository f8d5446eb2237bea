//! What `/__schema` says: the entities and models of this process, for gateways elsewhere.

use std::collections::BTreeMap;

use messaging_core::describe;
use serde::Serialize;

use crate::descriptor::{DeclaredAccess, Operator, SlowPolicy, SubscriptionDescriptor};

/// The version of the schema's format. A gateway refuses a schema of another one.
pub(crate) const PROTOCOL: u32 = 1;

/// What a process offers, as its `/__schema` says it: the same text every time, whatever the linker's order was.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Schema {
    /// The version of this format: 1.
    pub protocol: u32,
    /// What the service calls itself.
    pub service: String,
    /// Its `#[subscription]`s.
    pub entities: Vec<EntitySchema>,
    /// Its `#[event_config]` models.
    pub models: Vec<ModelSchema>,
}

/// An entity that clients can subscribe to.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EntitySchema {
    /// What clients call it.
    pub entity: &'static str,
    /// The templates of its channels.
    pub channels: &'static [&'static str],
    /// The fields of the payload that clients may filter by, and how.
    pub filters: BTreeMap<&'static str, &'static [Operator]>,
    /// The field of the payload that has to be the tenant of who subscribes.
    pub tenant: Option<&'static str>,
    /// Clients may publish on it.
    pub send: bool,
    /// Clients may see who is there.
    pub presence: bool,
    /// What happens to a client that does not keep up.
    pub slow: SlowPolicy,
    /// Whether everybody who may connect to a gateway of this service may subscribe. A gateway of another one decides by
    /// itself.
    pub public: bool,
}

/// A model whose changes are published.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ModelSchema {
    /// Its id.
    pub name: &'static str,
    /// Which operations are published, and where.
    pub publishes: Vec<PublishSchema>,
    /// Whether its events are durable.
    pub durable: bool,
}

/// An operation that is published.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PublishSchema {
    /// `create`, `update` or `delete`.
    pub op: &'static str,
    /// The template of its channel.
    pub channel: &'static str,
}

impl Schema {
    /// The schema of this process, under the name that gateways know the service by.
    #[must_use]
    pub fn of_process(service: impl Into<String>) -> Self {
        Self {
            protocol: PROTOCOL,
            service: service.into(),
            entities: descriptors().into_iter().map(EntitySchema::from).collect(),
            models: describe()
                .models
                .into_iter()
                .map(|model| ModelSchema {
                    name: model.id,
                    publishes: model
                        .publishes
                        .into_iter()
                        .map(|(op, channel)| PublishSchema { op, channel })
                        .collect(),
                    durable: model.durable,
                })
                .collect(),
        }
    }
}

impl From<&'static SubscriptionDescriptor> for EntitySchema {
    fn from(descriptor: &'static SubscriptionDescriptor) -> Self {
        Self {
            entity: descriptor.entity,
            channels: descriptor.channels,
            filters: descriptor.filters.iter().map(|filter| (filter.field, filter.operators)).collect(),
            tenant: descriptor.tenant,
            send: descriptor.send,
            presence: descriptor.presence,
            slow: descriptor.slow,
            public: matches!(descriptor.access, DeclaredAccess::Public),
        }
    }
}

/// The subscriptions of this process, sorted: the order in which the linker collected them means nothing.
pub(crate) fn descriptors() -> Vec<&'static SubscriptionDescriptor> {
    let mut descriptors: Vec<_> = inventory::iter::<SubscriptionDescriptor>.into_iter().collect();
    descriptors.sort_by_key(|descriptor| (descriptor.entity, descriptor.id, descriptor.location));
    descriptors
}
