#[subscription(
    entity = "CameraEvents",
    channels = ["camera.events", "camera.events.complex:{complex_id}"],
    filters = { camera_id = [eq, in], "metadata.zone" = [eq] },
    authorize = access::can_see_cameras,
    tenant = tenant_id,
    send,
    presence,
    slow = "latest",
)]
#[cfg(feature = "cameras")]
pub struct Cameras;
