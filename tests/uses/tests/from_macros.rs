//! The attributes inside of `macro_rules!`, whose fragments are groups to them and whose names have marks of their own.
#![deny(warnings)]
#![allow(dead_code)]

use messaging_core::{channel, event_config, redis_cache, subscribe, subscribers};
use serde::{Deserialize, Serialize};

macro_rules! service {
    (
        $model:ident { $id:ident: $type:ty }, $created:literal, $channel:literal, $key:literal, $ttl:literal,
        $handler:ident, $service:ident, $cached:ident, $argument:ident
    ) => {
        #[event_config(publish = { create = $created }, payload_fields = [$id], cache = { key = $key, ttl = $ttl })]
        #[derive(Serialize, Deserialize)]
        pub struct $model {
            $id: $type,
        }

        #[subscribe($channel, timeout = $ttl)]
        async fn $handler($argument: $type, event: $model) -> Result<(), String> {
            let _ = ($argument, event.$id);
            Err(String::new())
        }

        pub struct $service;

        #[subscribers]
        impl $service {
            #[subscribe($channel)]
            async fn handle(&self, $argument: $type, event: $model) {
                let _ = ($argument, event);
            }
        }

        #[redis_cache(key = $key, ttl = $ttl, invalidate_on = [$created, $model(create)])]
        async fn $cached($argument: $type) -> Option<$type> {
            let local = $argument;
            Some(local)
        }
    };
}

service!(
    Camera { id: u64 },
    "camera.created",
    "camera:{id}",
    "camera:{id}",
    60,
    on_camera,
    Cameras,
    camera,
    id
);

macro_rules! outlived {
    ($name:ident, $self:ident, $argument:ident: $type:ty, $duration:literal) => {
        impl Held {
            #[redis_cache(
                key = "held",
                ttl = $duration,
                stale = $duration,
                wait = $duration,
                local = { ttl = $duration, max = 1 },
                id = "held",
            )]
            async fn $name(&$self, $argument: $type) -> usize {
                $argument.len() + $self.0
            }
        }
    };
}

#[derive(Clone)]
pub struct Held(usize);

outlived!(of_text, self, text: &str, 60);
outlived!(of_list, self, list: &[u64], "1m");
outlived!(of_value, self, list: Vec<u64>, "1m");

macro_rules! text_channel {
    ($name:ident, $text:expr) => {
        #[channel($text)]
        pub struct $name {
            id: u64,
        }
    };
}

text_channel!(Text, "text:{id}");

macro_rules! paths {
    ($channel:path, $model:path, $resync:path, $type:ty) => {
        #[subscribe($channel, resync = $resync)]
        async fn on_text(text: messaging_core::ChannelOf<$type>) {
            let _ = text.0.id;
        }

        #[redis_cache(key = "{id}", ttl = 1, invalidate_on = [$model(create)])]
        async fn of_model(id: u64) -> u64 {
            id
        }
    };
}

mod functions {
    pub async fn resync() {}
}

paths!(self::Text, self::Camera, functions::resync, Text);

macro_rules! durable {
    ($model:ident { $field:ident }, $bare:ident, $count:literal, $age:expr, $delivery:literal, $name:expr, $by:ident) => {
        #[event_config(
            publish = { create = $name },
            durable = { key = $field, max_len = $count, max_age = $age, partitions = $count },
        )]
        #[derive(Serialize)]
        pub struct $model {
            $field: u64,
        }

        #[event_config(publish = { create = $name }, $bare, id = "bare")]
        #[derive(Serialize)]
        pub struct Bare {
            $field: u64,
        }

        #[subscribe($name, delivery = $delivery, group = $name, dedupe = $age, dead_letter = $name, ordered_by = $by)]
        async fn on_durable(_: messaging_core::EventId) {}
    };
}

durable!(Durable { number }, durable, 16, "1h", "queue", "durable", key);

fn main() {
    let _ = (on_durable, Durable { number: 1 }.number, Bare { number: 1 }.number);
    let _ = (on_text, of_model, on_camera, Cameras::handle, camera::key(1));
}
