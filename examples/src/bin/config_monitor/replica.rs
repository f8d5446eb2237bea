//! What a monitor knows without asking: the part of the cache that concerns its tenants.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use messaging_core::{CacheManager, ChangeEvent, HandlerHandle, Messaging, Result, ToChannel};
use serde_json::Value;

use crate::monitor::on_tenant;
use crate::resources::{OfTenant, TENANTS, key, part};
use crate::screen::Screen;

/// By their keys.
pub(crate) type Entries = BTreeMap<String, Value>;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Replica(Arc<Shared>);

struct Shared {
    cache: CacheManager,
    screen: Screen,
    entries: Mutex<Entries>,
    is_filled: AtomicBool,
    /// Held from reading the cache to writing it down here: what one handler reads must not replace what another one has
    /// read later. Nobody who only looks waits for it.
    order: tokio::sync::Mutex<()>,
    /// The handlers of the tenants that are followed.
    tenants: tokio::sync::Mutex<BTreeMap<String, HandlerHandle>>,
}

impl Replica {
    pub(crate) fn new(messaging: &Messaging, screen: &Screen) -> Self {
        Self(Arc::new(Shared {
            cache: messaging.cache("blip0"),
            screen: screen.clone(),
            entries: Mutex::default(),
            is_filled: AtomicBool::new(false),
            order: tokio::sync::Mutex::default(),
            tenants: tokio::sync::Mutex::default(),
        }))
    }

    pub(crate) fn entries(&self) -> Entries {
        self.lock().clone()
    }

    /// Whether it has been what the cache was.
    pub(crate) fn is_filled(&self) -> bool {
        self.0.is_filled.load(Ordering::Acquire)
    }

    /// The tenants whose channels are listened to, sorted.
    pub(crate) async fn tenants(&self) -> Vec<String> {
        self.0.tenants.lock().await.keys().cloned().collect()
    }

    /// Takes one resource over from the cache; if it is there no more, it is removed here too.
    pub(crate) async fn refresh(&self, tenant: Option<&str>, kind: &str, id: &str) -> Result<()> {
        let key = key(tenant, kind, id);
        let _order = self.0.order.lock().await;
        let value = self.0.cache.get::<Value>(&key).await?;
        self.line(if value.is_some() { "refreshed" } else { "removed" }, &key);
        match value {
            Some(value) => self.lock().insert(key, value),
            None => self.lock().remove(&key),
        };
        Ok(())
    }

    pub(crate) async fn remove(&self, tenant: Option<&str>, kind: &str, id: &str) -> Result<()> {
        let key = key(tenant, kind, id);
        let _order = self.0.order.lock().await;
        let mut entries = self.lock();
        if entries.remove(&key).is_some() {
            self.line("removed", &key);
        }
        Ok(())
    }

    /// Removes all whose keys begin so.
    pub(crate) async fn clear(&self, part: &str) -> Result<()> {
        let _order = self.0.order.lock().await;
        let mut entries = self.lock();
        let before = entries.len();
        entries.retain(|key, _| !key.starts_with(part));
        self.line("cleared", &format!("{part}*, which were {}", before - entries.len()));
        Ok(())
    }

    /// Listens to a tenant's channel from now on, and takes over what is cached for it.
    pub(crate) async fn follow(&self, tenant: &str, messaging: &Messaging) -> Result<()> {
        let mut tenants = self.0.tenants.lock().await;
        if !tenants.contains_key(tenant) {
            // Checked: what an event says must not become a pattern.
            let channel = OfTenant { tenant_id: tenant.to_owned() }.to_channel()?;
            let (replica, name) = (self.clone(), tenant.to_owned());
            let handler = move |event: ChangeEvent| {
                let (replica, name) = (replica.clone(), name.clone());
                async move { on_tenant(&name, event, replica).await }
            };
            // What is missed while the connection is away.
            let (replica, part) = (self.clone(), part(Some(tenant)));
            let catch_up = move || async move { replica.reload(&part).await };
            let subscriber = messaging.subscriber().id(format!("tenant {tenant}")).resync(catch_up);
            let handle = subscriber.on(&channel, handler).await?;
            tenants.insert(tenant.to_owned(), handle);
            self.line("subscribed", &channel);
        }
        // Only now: what changes while this is read is heard of.
        self.reload(&part(Some(tenant))).await
    }

    /// Stops listening to a tenant's channel, and forgets what was known of it.
    pub(crate) async fn unfollow(&self, tenant: &str) {
        let mut tenants = self.0.tenants.lock().await;
        if let Some(handle) = tenants.remove(tenant) {
            handle.stop().await;
            self.lock().retain(|key, _| !key.starts_with(&part(Some(tenant))));
            self.line("unsubscribed", &format!("from what concerns {tenant}"));
        }
    }

    /// Makes the replica what the cache is.
    pub(crate) async fn resync(&self, messaging: &Messaging) -> Result<()> {
        let active = messaging.cache(TENANTS).keys("*").await?;
        for tenant in self.tenants().await.iter().filter(|tenant| !active.contains(tenant)) {
            self.unfollow(tenant).await;
        }
        self.reload(&part(None)).await?;
        for tenant in &active {
            self.follow(tenant, messaging).await?;
        }
        let known = self.lock().len();
        self.line("resynced", &format!("{known} resources of {} active tenants", active.len()));
        self.0.is_filled.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes over all whose keys begin so.
    async fn reload(&self, part: &str) -> Result<()> {
        let _order = self.0.order.lock().await;
        let fresh = read(&self.0.cache, part).await?;
        let mut entries = self.lock();
        entries.retain(|key, _| !key.starts_with(part));
        entries.extend(fresh);
        Ok(())
    }

    fn line(&self, what: &str, text: &str) {
        self.0.screen.line("monitor", what, text);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is cached under keys that begin so.
pub(crate) async fn read(cache: &CacheManager, part: &str) -> Result<Entries> {
    let mut entries = Entries::new();
    for key in cache.keys(&format!("{part}*")).await? {
        if let Some(value) = cache.get(&key).await? {
            entries.insert(key, value);
        }
    }
    Ok(entries)
}
