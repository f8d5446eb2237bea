#![allow(dead_code, unused_variables)]

use messaging_core::redis_cache;

#[redis_cache(key = "a:{id}", ttl = 60)]
async fn free(id: u64) -> Result<u64, String> {
    let text: String = id;
    Ok(text)
}

struct Service;

impl Service {
    #[redis_cache(key = "a:{id}", ttl = 60)]
    async fn method(&self, id: u64) -> Result<u64, String> {
        self.absent(id)
    }

    #[redis_cache(key = "a:{id}", ttl = 60, companions = false)]
    async fn in_place(&self, id: u64) -> Result<u64, String> {
        if id == 0 {
            return Err(0);
        }
        Ok("text")
    }
}

fn main() {}
