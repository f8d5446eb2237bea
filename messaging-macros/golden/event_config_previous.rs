#[event_config(publish = { update = "camera.updated" }, previous = [name])]
#[derive(Serialize)]
pub struct Camera {
    pub name: String,
}
