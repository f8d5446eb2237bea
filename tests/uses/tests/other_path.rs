//! `crate = …` reaches everything: here nothing is called `messaging_core` where generated code stands.
#![deny(warnings)]

mod facade {
    pub use messaging_core as runtime;
}

use facade::runtime::{ChannelOf, State, channel, event_config, redis_cache, subscribe, subscribers};
use serde::Serialize;

#[event_config(publish = { update = "a:{id}" }, payload_fields = [id], previous = [id], crate = facade::runtime)]
#[derive(Serialize)]
pub struct Camera {
    id: u64,
}

#[channel("b:{id}", crate = facade::runtime)]
pub struct Cameras {
    id: u64,
}

#[subscribe(Cameras, crate = facade::runtime)]
async fn on_camera(channel: ChannelOf<Cameras>) {
    let _ = channel.id;
}

pub struct Service;

#[subscribers(crate = facade::runtime)]
impl Service {
    #[subscribe("b")]
    async fn handle(&self, _: State<Self>) {}
}

#[redis_cache(key = "{id}", ttl = 1, invalidate_on = [Camera(update)], crate = facade::runtime)]
async fn get(id: u64) -> u64 {
    id
}

fn main() {
    let _ = (on_camera, Service::handle);
    let _ = get::key(1);
}
