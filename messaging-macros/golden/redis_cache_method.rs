impl Cameras {
    #[redis_cache(key = "camera:{self.tenant}:{mac_address}", ttl = 60)]
    pub async fn get(&self, mac_address: &str, (retries, _): (u32, u32)) -> Result<Camera, ApiError> {
        self.client.get(mac_address, retries).await
    }
}
