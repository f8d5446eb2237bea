#[event_config(
    publish = { update = "camera:{id}" },
    payload_fields = [id],
    table = "inventory.cameras",
    key = id,
    version = revision,
)]
pub struct Camera {
    #[column(generated)]
    pub id: i64,
    #[column(name = "mac")]
    #[serde(rename = "macAddress")]
    pub mac_address: String,
    pub r#type: String,
    #[column(json)]
    pub settings: Settings,
    #[column(json, name = "defaults", generated)]
    defaults: Settings,
    revision: i64,
    #[cfg(feature = "preview")]
    #[column(skip)]
    preview: Option<Vec<u8>>,
}

#[event_config(table = "sessions", key = token)]
pub struct Session {
    token: String,
}
