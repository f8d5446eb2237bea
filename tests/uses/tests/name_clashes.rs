//! Whatever the user's names are, generated code means its own things by them: here the prelude, the crates and every
//! item that the attributes know have another meaning.
#![no_implicit_prelude]
#![allow(dead_code, unused_variables, non_camel_case_types, clippy::all)]

use ::messaging_core::{channel, event_config, redis_cache, subscribe, subscribers};
use ::serde::{Deserialize, Serialize};

// What generated code could mean by these names.
mod core {}
mod std {}
mod messaging_core {}
mod serde {}

struct Result;
struct Option;
struct Some;
struct None;
struct Ok;
struct Err;
struct Box;
struct String;
struct Vec;
struct Send;
struct Sync;
struct Future;
struct Default;
struct PhantomData;
struct Bytes;
struct Error;
struct Delivery;
struct Handler;
struct Subscribers;
struct HandlerDescriptor;
struct Descriptor;
struct Needs;
struct Context;
struct Function;
struct FunctionDescriptor;
struct Key;
struct Scalar;
struct Load;
struct Once;
struct Again;
struct Layer;
struct Local;
struct Remote;
struct LocalOptions;
struct Copies;
struct Copied;
struct Deref;
struct Clone;
struct ToOwned;
struct Shape;
struct ShapeProbe;
struct SchemaProbe;
struct Op;
struct Channel;
struct TypedChannel;
struct ToChannel;
struct Durability;
struct Retention;
struct ModelDurability;
struct HandlerOptions;
struct DeliveryMode;
struct StartAt;
struct OrderedBy;
struct Duration;
struct NonZeroU16;
struct NonZeroU32;
struct NonZeroU64;
struct NonZeroUsize;
struct DESCRIPTOR;
struct FUNCTION;

// Models of these names, with fields of these names.
#[event_config(
    publish = { update = ["{op}:{field}", "{previous}.{model}"] },
    payload_fields = [op, model, field],
    previous = [field],
    cache = { key = "{op}", ttl = 1, fields = [previous] },
    durable = { max_len = 1, max_age = 1, partitions = 1, key = descriptor, wait_replicas = 1 },
)]
#[derive(Serialize)]
struct Model {
    op: u8,
    previous: u8,
    model: u8,
    field: u8,
    descriptor: u8,
}

#[event_config(publish = { update = "a" }, envelope = { resource = "a", id = op, tenant = field, metadata = [previous] })]
struct ModelDescriptor {
    op: u8,
    field: u8,
    previous: u8,
}

#[channel("{segments}.{channel}")]
struct Segment {
    channel: u8,
    segments: u8,
}

#[derive(Deserialize)]
struct Payload {}

#[subscribe("{delivery}.{context}.{needs}")]
async fn delivery(delivery: &str, context: u8, needs: u8, payload: Payload) {}

#[subscribe("{_service}", resync = call)]
async fn outcome(service: Payload) -> ::core::result::Result<(), ::std::string::String> {
    ::core::result::Result::Ok(())
}

#[subscribe(
    Segment,
    delivery = "queue",
    group = "group",
    start = "new",
    dedupe = 1,
    dead_letter = "start",
    workers = 2,
    ordered_by = key,
)]
async fn from_delivery(name: ::messaging_core::ChannelOf<Segment>) {}

async fn call() {}

struct Service;

#[subscribers]
impl Service {
    #[subscribe("{service}.{delivery}", resync = Self::needs)]
    async fn call(&self, service: &str, delivery: u8, payload: Payload) {}

    #[subscribe("a")]
    async fn default(&self) {}

    async fn needs() {}

    fn handlers() {}
}

#[redis_cache(key = "{key}:{function}:{shape}:{probe}", ttl = 1, cache_none = 1, invalidate_on = [{ on = Model(update), key = op, function = model, shape = field, probe = field }])]
async fn cached(key: u8, function: u8, shape: u8, probe: u8) -> ::core::option::Option<u8> {
    ::core::option::Option::Some(key)
}

#[redis_cache(key = "{invalidate.key}:{invalidate_key}", ttl = 1)]
async fn invalidate(invalidate: Argument, invalidate_key: u8) -> u8 {
    invalidate_key
}

#[redis_cache(key = "{returned}", ttl = 1, companions = false)]
async fn key(returned: u8) -> ::core::result::Result<u8, u8> {
    let _: DESCRIPTOR = DESCRIPTOR;
    let _: FUNCTION = FUNCTION;
    if returned == 0 {
        return ::core::result::Result::Err(1);
    }
    ::core::result::Result::Err(2)?
}

#[redis_cache(key = "{type}", ttl = 1)]
async fn r#type(r#type: u8) -> u8 {
    r#type
}

#[redis_cache(key = "{key}:{function}:{shape}:{probe}", ttl = 2, stale = 1, wait = 1, local = { ttl = 1, max = 1 })]
async fn again(
    key: u8,
    function: &u8,
    shape: &str,
    probe: u8,
    layer: u8,
    load: &[u8],
    again: &u8,
    local: u8,
    kept: u8,
    copied: &u8,
    moved: u8,
    service: u8,
    this: u8,
) -> u8 {
    local
}

#[redis_cache(key = "{invalidate_all}", ttl = 2, stale = 1, local = 1)]
async fn invalidate_all(invalidate_all: &str) -> ::core::result::Result<::std::string::String, ()> {
    ::core::result::Result::Err(())
}

struct Argument {
    key: u8,
}

#[derive(::core::clone::Clone)]
struct Store {
    op: u8,
}

impl Store {
    #[redis_cache(key = "{key}:{self.op}", ttl = 1)]
    async fn function(&self, key: u8) -> u8 {
        key
    }

    #[redis_cache(key = "{service}:{self.op}", ttl = 2, stale = 1, local = 1)]
    async fn stale(&self, service: &u8, this: &str, load: u8, layer: u8) -> u8 {
        self.op
    }
}

fn main() {
    let _ = invalidate::key(1_u8, 2);
    let _ = r#type::key(1);
    let _ = Store::function_cache();
    let _ = invalidate_all::invalidate_all();
    let _ = Store::stale_cache();
}
