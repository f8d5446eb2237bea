#[event_config(
    publish = { create = "monitor.created", update = ["blip0:monitor:update", "blip0:tenant:{tenant_id}:update"] },
    envelope = { resource = "monitor", id = id, tenant = tenant_id, metadata = [active, slug] },
    previous = [slug],
)]
pub struct Monitor {
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub active: bool,
    pub slug: String,
}
