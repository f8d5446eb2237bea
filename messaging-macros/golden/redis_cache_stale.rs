#[redis_cache(
    key = "camera:{user.id}:{mac_address}",
    ttl = "1h",
    stale = "5m",
    wait = "500ms",
    local = { ttl = "5s", max = 500 },
)]
async fn get_camera(user: &User, mac_address: &str, tags: &[String], db: Db) -> Result<Camera, ApiError> {
    db.camera(user, mac_address, tags).await
}
