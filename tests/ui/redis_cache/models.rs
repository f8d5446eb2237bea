#![allow(dead_code, unused_variables)]

use messaging_core::{event_config, redis_cache};

#[event_config(publish = { create = "camera.created", update = "camera.updated" }, payload_fields = [id, name])]
pub struct Camera {
    id: u64,
    name: String,
    mac_address: String,
}

#[redis_cache(key = "camera:{mac_address}", ttl = 60, invalidate_on = [Camera(update, delete)])]
async fn by_mac(mac_address: &str) -> u64 {
    1
}

#[redis_cache(key = "camera:{id}", ttl = 60, invalidate_on = [{ on = Camera(update), id = camera_id }])]
async fn selected(id: u64) -> u64 {
    id
}

fn main() {}
