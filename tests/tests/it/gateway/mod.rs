//! The gateway as its clients see it, on each backend.

mod client;
mod protocol;
mod resume;
mod review;

use messaging_gateway::{AccessRequest, Decision, Verb, subscription};

/// Events of cameras, of all and of one complex.
#[subscription(
    entity = "CameraEvents",
    channels = ["camera.events", "camera.events.complex:{complex_id}"],
    filters = { camera_id = [eq, in], kind = [eq] },
    public,
)]
pub struct CameraEvents;

/// What is kept, so that one can resume.
#[subscription(channels = "kept.{name}", filters = { parity = [eq] }, send, presence, authorize = may_keep)]
pub struct Kept;

async fn may_keep(request: AccessRequest) -> Decision {
    let user = &request.identity().user;
    let name = request.param("name").unwrap_or_default();
    match request.verb() {
        _ if name == "secret" => Decision::deny(),
        Verb::Send if user == "reader" => Decision::deny(),
        _ if user == "odd" => Decision::allow().only("parity", ["odd"]),
        _ => Decision::allow(),
    }
}

/// What concerns one user.
#[subscription(channels = "auditlog:{user_id}", authorize = everybody)]
pub struct AuditLog;

async fn everybody(_: AccessRequest) -> bool {
    true
}

/// What concerns one tenant: by its channel, and by a field.
#[subscription(channels = ["tenant:{tenant_id}:update", "tenants"], tenant = tenant, public)]
pub struct TenantUpdates;
