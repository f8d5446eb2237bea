#[redis_cache(kye = "camera:{id}", ttl = "soon", ttl = 1)]
fn get(id: u64) -> Camera {
    load(id)
}
