#[redis_cache(key = "camera:mac:{mac_address}", ttl = 3600)]
/// Finds a camera.
#[expect(clippy::too_many_lines)]
pub async fn get_camera(mac_address: &str, mut db: Db) -> Result<Camera, ApiError> {
    Ok(db.camera(mac_address).await?)
}
