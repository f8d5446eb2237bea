#[event_config(publish = { create = "camera.created", update = ["camera.updated", "tenant:{tenant_id}"] })]
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Camera {
    pub id: Uuid,
    pub tenant_id: Option<Uuid>,
    #[serde(skip)]
    secret: String,
}
