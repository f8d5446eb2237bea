impl Cameras for Client {
    #[redis_cache(key = "camera:{id}", ttl = 60, invalidate_on = [Camera(delete)], companions = false)]
    async fn get(&self, id: u64) -> Result<Camera, ApiError> {
        self.get(id).await
    }
}
