#![allow(dead_code, unused_variables)]

use std::borrow::Cow;

use messaging_core::redis_cache;

#[redis_cache(key = "a", ttl = 60, local = "5s")]
async fn borrowed<'a>(name: &'a str) -> Cow<'a, str> {
    Cow::Borrowed(name)
}

struct Service(String);

impl Service {
    #[redis_cache(key = "b", ttl = 60, local = "5s", companions = false)]
    async fn borrowed(&self) -> Result<Cow<'_, str>, String> {
        Ok(Cow::Borrowed(&self.0))
    }
}

fn main() {}
