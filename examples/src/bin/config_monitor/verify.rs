//! Verifies the integration: subscribes to all channels, carries out every operation, shows the events as they come, and
//! checks that each of them has come. Resources and tenant are this run's own, so that it disturbs nobody.

use messaging_core::ChangeKind::{Create, Delete, Invalidate, Update};
use messaging_core::{BoxError, Messaging, ToChannel};
use uuid::Uuid;

use crate::expected::{Listener, expected};
use crate::resources::{
    CONFIG, MONITORS, Monitor, NETWORKS, Network, OfTenant, PLATFORM, Platform, TRIGGERS, Tenant, Trigger,
};
use crate::screen::Screen;
use crate::service::CacheService;

/// The metadata of each kind of resource.
const OF_MONITOR: &[&str] = &["active", "paused", "validated", "name", "slug"];
const OF_NETWORK: &[&str] = &["active", "name", "slug", "chain_id"];
const OF_TRIGGER: &[&str] = &["active", "validated", "name", "slug"];
const NAME: &[&str] = &["name"];

/// Carries it out. An error says how much was wrong.
pub(crate) async fn verify(messaging: &Messaging, screen: &Screen) -> Result<(), BoxError> {
    let ids = [(); 6].map(|()| Uuid::new_v4().to_string());
    let [tenant, monitor, trigger, network, shared, platform] = ids.each_ref().map(String::as_str);
    let of_tenant = OfTenant { tenant_id: tenant.to_owned() }.to_channel()?;
    let channels = [CONFIG, MONITORS, NETWORKS, TRIGGERS, PLATFORM, &of_tenant];
    let mut listener = Listener::subscribe(messaging, &channels, screen).await?;
    let service = CacheService::new(messaging);

    let own = [&*of_tenant, CONFIG];
    let done = service.activate_tenant(&Tenant { id: tenant.to_owned(), name: "Verified".to_owned() }).await;
    let event = expected(Create, "tenant", tenant).of(tenant).on(&own).on(&[PLATFORM]).with(NAME);
    listener.check("activate_tenant", done, event).await;
    let done = service.cache_monitor(&Monitor::new(tenant, monitor, "monitor-slug")).await;
    let event = expected(Update, "monitor", monitor).of(tenant).on(&own).on(&[MONITORS]).with(OF_MONITOR);
    listener.check("cache_monitor", done, event).await;
    let done = service.cache_trigger(&Trigger::new(tenant, trigger, "trigger-slug")).await;
    let event = expected(Update, "trigger", trigger).of(tenant).on(&own).on(&[TRIGGERS]).with(OF_TRIGGER);
    listener.check("cache_trigger", done, event).await;
    let done = service.cache_network(&Network::new(Some(tenant), network, "network-slug", 31_337)).await;
    let event = expected(Update, "network", network).of(tenant).on(&own).on(&[NETWORKS]).with(OF_NETWORK);
    listener.check("cache_network", done, event).await;

    // What all tenants share.
    let done = service.cache_network(&Network::new(None, shared, "shared-slug", 1)).await;
    let event = expected(Update, "network", shared).on(&[NETWORKS, CONFIG]).with(OF_NETWORK);
    listener.check("cache_network", done, event).await;
    let settings = Platform { id: platform.to_owned(), name: "Settings".to_owned(), block_confirmations: 12 };
    let done = service.cache_platform(&settings).await;
    let event = expected(Update, "platform", platform).on(&[PLATFORM, CONFIG]).with(NAME);
    listener.check("cache_platform", done, event).await;

    let done = service.delete_monitor(tenant, monitor).await.map(drop);
    let event = expected(Delete, "monitor", monitor).of(tenant).on(&own).on(&[MONITORS]).with(OF_MONITOR);
    listener.check("delete_monitor", done, event).await;
    let done = service.delete_trigger(tenant, trigger).await.map(drop);
    let event = expected(Delete, "trigger", trigger).of(tenant).on(&own).on(&[TRIGGERS]).with(OF_TRIGGER);
    listener.check("delete_trigger", done, event).await;
    let done = service.delete_network(None, shared).await.map(drop);
    let event = expected(Delete, "network", shared).on(&[NETWORKS, CONFIG]).with(OF_NETWORK);
    listener.check("delete_network", done, event).await;
    let done = service.delete_platform(platform).await.map(drop);
    let event = expected(Delete, "platform", platform).on(&[PLATFORM, CONFIG]).with(NAME);
    listener.check("delete_platform", done, event).await;

    // The tenant's network is still there.
    let done = service.invalidate_tenant_cache(tenant).await;
    if done.as_ref().is_ok_and(|deleted| *deleted != 1) {
        listener.fault("deleted", &format!("{done:?}, and there was one resource"));
    }
    let event = expected(Invalidate, "tenant", tenant).of(tenant).on(&own).with(&["deleted_keys"]);
    listener.check("invalidate_tenant_cache", done.map(drop), event).await;
    let done = service.deactivate_tenant(tenant).await.map(drop);
    let event = expected(Delete, "tenant", tenant).of(tenant).on(&own).on(&[PLATFORM]).with(NAME);
    listener.check("deactivate_tenant", done, event).await;
    listener.end().await
}
