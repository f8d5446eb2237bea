//! What is configured, who is told of its changes, and where it lies in the cache.
//!
//! Every change goes to the channel of its kind, to that of its tenant, and to the general one, so that listeners choose how
//! much they hear. A resource without a tenant is shared by all of them; it has no tenant's channel.

use messaging_core::{Model, channel, event_config};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Everything that changes.
pub(crate) const CONFIG: &str = "blip0:config:update";
pub(crate) const MONITORS: &str = "blip0:monitor:update";
pub(crate) const NETWORKS: &str = "blip0:network:update";
pub(crate) const TRIGGERS: &str = "blip0:trigger:update";
pub(crate) const PLATFORM: &str = "blip0:platform:update";

/// Everything that changes for one tenant.
#[channel("blip0:tenant:{tenant_id}:update")]
pub(crate) struct OfTenant {
    pub(crate) tenant_id: String,
}

/// What is cached under a key of its own.
pub(crate) trait Resource: Model + Serialize + DeserializeOwned {
    /// What its events call it.
    const KIND: &'static str;

    fn tenant(&self) -> Option<&str>;
    fn id(&self) -> &str;

    fn key(&self) -> String {
        key(self.tenant(), Self::KIND, self.id())
    }
}

/// The key of a resource, below `blip0`.
pub(crate) fn key(tenant: Option<&str>, kind: &str, id: &str) -> String {
    format!("{}{kind}:{id}", part(tenant))
}

/// What all keys of a tenant begin with, or those of shared resources.
pub(crate) fn part(tenant: Option<&str>) -> String {
    match tenant {
        Some(tenant) => format!("tenant:{tenant}:"),
        None => "platform:".to_owned(),
    }
}

/// Under which the tenants are cached that are active, by their ids.
pub(crate) const TENANTS: &str = "blip0:active";

/// Says what to watch on a chain.
#[event_config(
    publish = {
        update = ["blip0:monitor:update", "blip0:tenant:{tenant_id}:update", "blip0:config:update"],
        delete = ["blip0:monitor:update", "blip0:tenant:{tenant_id}:update", "blip0:config:update"],
    },
    envelope = {
        resource = "monitor", id = id, tenant = tenant_id, metadata = [active, paused, validated, name, slug],
    },
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Monitor {
    pub(crate) id: String,
    pub(crate) tenant_id: String,
    pub(crate) name: String,
    pub(crate) slug: String,
    pub(crate) active: bool,
    pub(crate) paused: bool,
    pub(crate) validated: bool,
    /// Whoever wants to know this reads it from the cache.
    pub(crate) addresses: Vec<String>,
}

/// A chain, of one tenant or shared by all.
#[event_config(
    publish = {
        update = ["blip0:network:update", "blip0:tenant:{tenant_id}:update", "blip0:config:update"],
        delete = ["blip0:network:update", "blip0:tenant:{tenant_id}:update", "blip0:config:update"],
    },
    envelope = { resource = "network", id = id, tenant = tenant_id, metadata = [active, name, slug, chain_id] },
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) id: String,
    pub(crate) tenant_id: Option<String>,
    pub(crate) name: String,
    pub(crate) slug: String,
    pub(crate) active: bool,
    pub(crate) chain_id: u64,
    pub(crate) rpc_urls: Vec<String>,
}

/// Says whom to tell when a monitor has seen something.
#[event_config(
    publish = {
        update = ["blip0:trigger:update", "blip0:tenant:{tenant_id}:update", "blip0:config:update"],
        delete = ["blip0:trigger:update", "blip0:tenant:{tenant_id}:update", "blip0:config:update"],
    },
    envelope = { resource = "trigger", id = id, tenant = tenant_id, metadata = [active, validated, name, slug] },
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trigger {
    pub(crate) id: String,
    pub(crate) tenant_id: String,
    pub(crate) name: String,
    pub(crate) slug: String,
    pub(crate) active: bool,
    pub(crate) validated: bool,
    pub(crate) webhook_url: String,
}

/// What holds for the whole platform.
#[event_config(
    publish = {
        update = ["blip0:platform:update", "blip0:config:update"],
        delete = ["blip0:platform:update", "blip0:config:update"],
    },
    envelope = { resource = "platform", id = id, metadata = [name] },
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) block_confirmations: u32,
}

/// A tenant that is active: created when it becomes so, deleted when it no longer is.
#[event_config(
    publish = {
        create = ["blip0:platform:update", "blip0:tenant:{id}:update", "blip0:config:update"],
        delete = ["blip0:platform:update", "blip0:tenant:{id}:update", "blip0:config:update"],
    },
    envelope = { resource = "tenant", id = id, tenant = id, metadata = [name] },
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) name: String,
}

impl Monitor {
    pub(crate) fn new(tenant: &str, id: &str, slug: &str) -> Self {
        Self {
            id: id.to_owned(),
            tenant_id: tenant.to_owned(),
            name: format!("Large transfers, {slug}"),
            slug: slug.to_owned(),
            active: true,
            paused: false,
            validated: true,
            addresses: vec!["0x00000000219ab540356cBB839Cbe05303d7705Fa".to_owned()],
        }
    }
}

impl Network {
    pub(crate) fn new(tenant: Option<&str>, id: &str, slug: &str, chain_id: u64) -> Self {
        Self {
            id: id.to_owned(),
            tenant_id: tenant.map(str::to_owned),
            name: format!("Chain {chain_id}"),
            slug: slug.to_owned(),
            active: true,
            chain_id,
            rpc_urls: vec![format!("https://{slug}.example/rpc")],
        }
    }
}

impl Trigger {
    pub(crate) fn new(tenant: &str, id: &str, slug: &str) -> Self {
        Self {
            id: id.to_owned(),
            tenant_id: tenant.to_owned(),
            name: format!("Tell {slug}"),
            slug: slug.to_owned(),
            active: true,
            validated: true,
            webhook_url: format!("https://{slug}.example/hook"),
        }
    }
}

impl Resource for Monitor {
    const KIND: &'static str = "monitor";

    fn tenant(&self) -> Option<&str> {
        Some(&self.tenant_id)
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl Resource for Network {
    const KIND: &'static str = "network";

    fn tenant(&self) -> Option<&str> {
        self.tenant_id.as_deref()
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl Resource for Trigger {
    const KIND: &'static str = "trigger";

    fn tenant(&self) -> Option<&str> {
        Some(&self.tenant_id)
    }

    fn id(&self) -> &str {
        &self.id
    }
}

impl Resource for Platform {
    const KIND: &'static str = "platform";

    fn tenant(&self) -> Option<&str> {
        None
    }

    fn id(&self) -> &str {
        &self.id
    }
}
