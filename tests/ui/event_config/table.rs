#![allow(dead_code, unused_variables)]

use messaging_core::event_config;

#[event_config(table = "cameras")]
struct WithoutKey {
    id: u64,
}

#[event_config(publish = { create = "a" }, key = id, version = revision)]
struct WithoutTable {
    #[column(name = "camera_id")]
    id: u64,
    #[column(generated)]
    #[cfg_attr(unix, column(json))]
    revision: u64,
}

#[event_config(key = id)]
struct KeyAlone {
    id: u64,
}

#[event_config(tabel = "cameras", key = idd, version = "revision")]
struct Misspelt {
    id: u64,
    #[column(name = "count")]
    revision: u64,
}

#[event_config(table = "cameras", table = "cameras", key = [id, revision], version = id.revision)]
struct Composed {
    id: u64,
    revision: u64,
}

#[event_config(table = cameras, key = id)]
struct NotText {
    id: u64,
}

#[event_config(table = "", key = id)]
struct Nameless {
    id: u64,
}

#[event_config(table = ".cameras", key = id)]
struct EmptySchema {
    id: u64,
}

#[event_config(table = "main.public.cameras", key = id)]
struct ThreeParts {
    id: u64,
}

#[event_config(table = "public.2nd_cameras", key = id)]
struct DigitInFront {
    id: u64,
}

#[event_config(table = "kamera\"s; DROP", key = id)]
struct Hostile {
    id: u64,
}

#[event_config(table = "caméras", key = id)]
struct Accent {
    id: u64,
}

#[event_config(table = "cameras", key = id, version = id)]
struct KeyAsVersion {
    id: u64,
}

#[event_config(table = "cameras", key, version)]
struct WithoutValues {
    id: u64,
}

#[event_config(table = "cameras", key = id, durable = true)]
struct OtherOptions {
    id: u64,
}

fn main() {}
