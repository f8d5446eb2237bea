//! The monitor: hears what changes and keeps a replica of what is cached for the tenants that are active.

use messaging_core::{ChangeEvent, ChangeKind, Messaging, Result, State, subscribe};

use crate::replica::Replica;
use crate::resources::part;

/// What all tenants share, and which tenants there are. The resync fills the replica at the start and after every gap; that it
/// runs every 30 seconds too is the polling of old, for publishers that tell nobody what they change.
#[subscribe(["blip0:platform:update", "blip0:network:update"], resync = resync, resync_every = "30s")]
async fn on_platform(event: ChangeEvent, replica: State<Replica>, messaging: Messaging) -> Result<()> {
    match (event.event_type, &*event.resource_type, event.tenant_id.as_deref()) {
        (ChangeKind::Create | ChangeKind::Update, "tenant", Some(tenant)) => {
            replica.follow(tenant, &messaging).await
        }
        (ChangeKind::Delete, "tenant", Some(tenant)) => {
            replica.unfollow(tenant).await;
            Ok(())
        }
        // What is a tenant's own is told on its channel, too.
        (_, _, Some(_)) => Ok(()),
        (_, _, None) => apply(None, &event, &replica).await,
    }
}

/// What changes for one tenant. A handler of its own for each of them is added when it becomes active; see
/// [`Replica::follow`].
pub(crate) async fn on_tenant(tenant: &str, event: ChangeEvent, replica: Replica) -> Result<()> {
    apply(Some(tenant), &event, &replica).await
}

/// The tenant is that of the channel, whatever the event says.
async fn apply(tenant: Option<&str>, event: &ChangeEvent, replica: &Replica) -> Result<()> {
    let ChangeEvent { event_type, resource_type, resource_id, .. } = event;
    match (event_type, &**resource_type) {
        // Whether a tenant is active is told on the platform's channel.
        (ChangeKind::Create | ChangeKind::Update | ChangeKind::Delete, "tenant") => Ok(()),
        (ChangeKind::Create | ChangeKind::Update, kind) => replica.refresh(tenant, kind, resource_id).await,
        (ChangeKind::Delete, kind) => replica.remove(tenant, kind, resource_id).await,
        (ChangeKind::Invalidate, _) => replica.clear(&part(tenant)).await,
        // A kind of event that there is not yet: the next resync brings what it was about.
        _ => Ok(()),
    }
}

async fn resync(replica: State<Replica>, messaging: Messaging) -> Result<()> {
    replica.resync(&messaging).await
}
