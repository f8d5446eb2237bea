//! A day of the cache service, from top to bottom.

use messaging_core::{BoxError, Messaging, Result, ToChannel};

use crate::resources::{Monitor, Network, OfTenant, Platform, Tenant, Trigger};
use crate::screen::Screen;
use crate::service::CacheService;

const ACME: &str = "acme";
const GLOBEX: &str = "globex";

pub(crate) struct Day {
    messaging: Messaging,
    service: CacheService,
    screen: Screen,
}

impl Day {
    pub(crate) fn new(messaging: &Messaging, screen: &Screen) -> Self {
        let service = CacheService::new(messaging);
        Self { messaging: messaging.clone(), service, screen: screen.clone() }
    }

    /// What is there before anybody listens.
    pub(crate) async fn morning(&self) -> Result<()> {
        self.activate(ACME, "Acme").await?;
        self.line("cache_network", "ethereum, which all share");
        self.service.cache_network(&Network::new(None, "ethereum", "ethereum", 1)).await?;
        self.cache_monitor(ACME, "whales", false).await?;
        self.line("cache_trigger", "duty of acme");
        self.service.cache_trigger(&Trigger::new(ACME, "duty", "duty")).await?;
        Ok(())
    }

    /// What changes then. After each change `settled` has time to see what becomes of it.
    pub(crate) async fn rest(
        &self,
        settled: impl AsyncFn() -> Result<(), BoxError>,
    ) -> std::result::Result<(), BoxError> {
        println!("\nA monitor is paused. What is known of it is read again, and nothing else.");
        self.cache_monitor(ACME, "whales", true).await?;
        settled().await?;

        println!("\nWhat all share changes, and a network of one tenant comes.");
        let settings =
            Platform { id: "settings".to_owned(), name: "Settings".to_owned(), block_confirmations: 12 };
        self.line("cache_platform", "settings");
        self.service.cache_platform(&settings).await?;
        settled().await?;
        self.line("cache_network", "devnet of acme");
        self.service.cache_network(&Network::new(Some(ACME), "devnet", "devnet", 31_337)).await?;
        settled().await?;

        println!("\nA trigger is deleted.");
        self.line("delete_trigger", "duty of acme");
        self.service.delete_trigger(ACME, "duty").await?;
        settled().await?;

        println!("\nA tenant becomes active: its channel is subscribed to, now.");
        self.activate(GLOBEX, "Globex").await?;
        settled().await?;
        self.cache_monitor(GLOBEX, "minting", false).await?;
        settled().await?;

        println!("\nEverything of a tenant is out of date, at once.");
        let deleted = self.service.invalidate_tenant_cache(ACME).await?;
        self.line("invalidate_tenant_cache", &format!("acme: {deleted} deleted"));
        settled().await?;
        self.cache_monitor(ACME, "whales", false).await?;
        settled().await?;

        println!("\nA tenant is no longer active. What changes for it concerns nobody.");
        self.deactivate(GLOBEX).await?;
        settled().await?;
        self.cache_monitor(GLOBEX, "minting", true).await?;
        settled().await?;
        let channel = OfTenant { tenant_id: GLOBEX.to_owned() }.to_channel()?;
        let heard_by: u64 = self.messaging.client().pubsub_numsub([&*channel]).await?.into_values().sum();
        self.line("pubsub", &format!("{channel} has {heard_by} subscribers"));

        println!("\nThe evening: everything is deleted, so that another day can begin.");
        self.line("delete_monitor", "whales of acme");
        self.service.delete_monitor(ACME, "whales").await?;
        self.line("delete_network", "ethereum");
        self.service.delete_network(None, "ethereum").await?;
        self.line("delete_platform", "settings");
        self.service.delete_platform("settings").await?;
        settled().await?;
        self.deactivate(ACME).await?;
        let left = self.service.invalidate_tenant_cache(GLOBEX).await?;
        self.line("invalidate_tenant_cache", &format!("globex: {left} deleted"));
        settled().await?;
        Ok(())
    }

    async fn activate(&self, id: &str, name: &str) -> Result<()> {
        self.line("activate_tenant", id);
        self.service.activate_tenant(&Tenant { id: id.to_owned(), name: name.to_owned() }).await
    }

    async fn deactivate(&self, id: &str) -> Result<()> {
        self.line("deactivate_tenant", id);
        self.service.deactivate_tenant(id).await.map(drop)
    }

    async fn cache_monitor(&self, tenant: &str, slug: &str, paused: bool) -> Result<()> {
        let monitor = Monitor { paused, ..Monitor::new(tenant, slug, slug) };
        let state = if paused { ", paused" } else { "" };
        self.line("cache_monitor", &format!("{slug} of {tenant}{state}"));
        self.service.cache_monitor(&monitor).await
    }

    fn line(&self, what: &str, text: &str) {
        self.screen.line("service", what, text);
    }
}
