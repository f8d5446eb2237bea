#[event_config(
    publish = { update = "camera:{id}" },
    payload_fields = [id],
    durable = { max_len = 50_000, max_age = "12h", partitions = 16, key = complex_id, wait_replicas = 1 },
)]
pub struct Camera {
    pub id: Uuid,
    complex_id: Option<u64>,
}

#[event_config(publish = { delete = "session.deleted" }, durable)]
pub struct Session {
    token: String,
}
