#[redis_cache(
    key = "camera:{user.id}:{mac_address}",
    ttl = "1h",
    prefix = "v2",
    jitter = "5%",
    cache_none = "30s",
    invalidate_on = [
        "camera.updated",
        { on = "blip0:monitor:update", user.id = metadata.owner, mac_address = resource_id },
        { on = models::Camera(update, delete), user.id = owner_id },
    ],
    id = "camera_of",
)]
async fn camera_of<'a>(user: &'a User, mac_address: &'a str) -> Option<Camera> {
    load(user, mac_address).await
}
