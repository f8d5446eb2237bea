impl Cameras {
    #[redis_cache(key = "camera:{self.tenant}:{mac_address}", ttl = 60, stale = 60, local = "5s")]
    pub async fn get(&self, mac_address: &str, (retries, _): (u32, u32)) -> Result<Camera, ApiError> {
        self.client.get(mac_address, retries).await
    }

    #[redis_cache(key = "cameras", ttl = 60, stale = 60)]
    async fn all(self: &Arc<Self>) -> Result<Vec<Camera>, ApiError> {
        self.client.all().await
    }
}
