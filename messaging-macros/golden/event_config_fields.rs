#[event_config(
    publish = { create = "camera.created", update = "camera.updated", delete = "camera.deleted" },
    payload_fields = [id, mac_address, r#type],
    previous = [mac_address],
    cache = { key = "camera:mac:{mac_address}", ttl = "1h", fields = [id, secret] },
)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub struct Camera {
    pub id: Uuid,
    #[serde(serialize_with = "mac::serialize", default)]
    pub mac_address: String,
    #[serde(rename = "model")]
    pub r#type: String,
    secret: String,
}
