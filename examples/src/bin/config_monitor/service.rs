//! The cache service: each operation changes the cache first and then says so, because whoever hears of a change reads it
//! from there.

use std::time::Duration;

use messaging_core::{CacheManager, ChangeEvent, Messaging, Op, Result, ToChannel};
use serde_json::json;

use crate::resources::{
    CONFIG, Monitor, Network, OfTenant, Platform, Resource, TENANTS, Tenant, Trigger, key, part,
};

/// What nobody writes again is forgotten after this.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Clone)]
pub(crate) struct CacheService {
    messaging: Messaging,
    cache: CacheManager,
    tenants: CacheManager,
}

impl CacheService {
    pub(crate) fn new(messaging: &Messaging) -> Self {
        Self {
            messaging: messaging.clone(),
            cache: messaging.cache("blip0"),
            tenants: messaging.cache(TENANTS),
        }
    }

    pub(crate) async fn cache_monitor(&self, monitor: &Monitor) -> Result<()> {
        self.write(monitor).await
    }

    /// Whether there was one.
    pub(crate) async fn delete_monitor(&self, tenant: &str, id: &str) -> Result<bool> {
        self.delete::<Monitor>(Some(tenant), id).await
    }

    pub(crate) async fn cache_network(&self, network: &Network) -> Result<()> {
        self.write(network).await
    }

    /// Whether there was one. Without a tenant it is a shared one.
    pub(crate) async fn delete_network(&self, tenant: Option<&str>, id: &str) -> Result<bool> {
        self.delete::<Network>(tenant, id).await
    }

    pub(crate) async fn cache_trigger(&self, trigger: &Trigger) -> Result<()> {
        self.write(trigger).await
    }

    /// Whether there was one.
    pub(crate) async fn delete_trigger(&self, tenant: &str, id: &str) -> Result<bool> {
        self.delete::<Trigger>(Some(tenant), id).await
    }

    pub(crate) async fn cache_platform(&self, platform: &Platform) -> Result<()> {
        self.write(platform).await
    }

    /// Whether there was one.
    pub(crate) async fn delete_platform(&self, id: &str) -> Result<bool> {
        self.delete::<Platform>(None, id).await
    }

    /// Monitors follow the tenant from now on.
    pub(crate) async fn activate_tenant(&self, tenant: &Tenant) -> Result<()> {
        self.tenants.set(&tenant.id, tenant, TTL).await?;
        self.messaging.emit(Op::Create, tenant).await.map(drop)
    }

    /// Monitors forget the tenant. What is cached for it stays. Whether it was active.
    pub(crate) async fn deactivate_tenant(&self, id: &str) -> Result<bool> {
        let Some(tenant) = self.tenants.take::<Tenant>(id).await? else {
            return Ok(false);
        };
        self.messaging.emit(Op::Delete, &tenant).await?;
        Ok(true)
    }

    /// Removes all that is cached for a tenant; how much that was.
    pub(crate) async fn invalidate_tenant_cache(&self, tenant: &str) -> Result<u64> {
        // Checked before anything is done: a tenant's name cannot be a glob.
        let channel = OfTenant { tenant_id: tenant.to_owned() }.to_channel()?;
        let deleted = self.cache.invalidate_pattern(&format!("{}*", part(Some(tenant)))).await?;
        let event = ChangeEvent::invalidate("tenant", tenant).tenant(tenant);
        let event = event.metadata(&json!({ "deleted_keys": deleted }))?;
        for channel in [&*channel, CONFIG] {
            self.messaging.publish(channel, &event).await?;
        }
        Ok(deleted)
    }

    async fn write<R: Resource>(&self, resource: &R) -> Result<()> {
        self.cache.set(&resource.key(), resource, TTL).await?;
        self.messaging.emit(Op::Update, resource).await.map(drop)
    }

    async fn delete<R: Resource>(&self, tenant: Option<&str>, id: &str) -> Result<bool> {
        // Of two who delete it, one gets it and tells of it.
        let Some(resource) = self.cache.take::<R>(&key(tenant, R::KIND, id)).await? else { return Ok(false) };
        self.messaging.emit(Op::Delete, &resource).await?;
        Ok(true)
    }
}
