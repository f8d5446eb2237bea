#![allow(dead_code, unused_variables)]

use messaging_core::event_config;

#[event_config(table = "cameras", key = id)]
struct Entries {
    #[column(nmae = "camera_id", generate, unique)]
    id: u64,
    #[column(name, json = true)]
    settings: String,
    #[column(name = mac, name = "mac")]
    mac_address: String,
    #[column(json)]
    #[column(json)]
    extra: String,
    #[column(rename("x"))]
    other: String,
}

#[event_config(table = "cameras", key = id)]
struct Nothing {
    #[column]
    id: u64,
    #[column()]
    name: String,
    #[column = "mac"]
    mac_address: String,
}

#[event_config(table = "cameras", key = id)]
struct Names {
    #[column(name = "")]
    id: u64,
    #[column(name = "a\0b")]
    nul: String,
    #[column(name = "a_name_that_is_longer_than_a_database_keeps_and_would_be_cut_off")]
    long: String,
    a_name_that_is_longer_than_a_database_keeps_and_would_be_cut_off: String,
}

#[event_config(table = "cameras", key = id)]
struct EqualNames {
    id: u64,
    #[column(name = "mac")]
    mac_address: String,
    mac: String,
    #[column(name = "id")]
    other_id: String,
    #[column(skip)]
    r#type: String,
    #[column(name = "type")]
    kind: String,
}

#[event_config(table = "cameras", key = id)]
struct Skipped {
    id: u64,
    #[column(skip, name = "mac", json, generated)]
    mac_address: String,
}

#[event_config(table = "cameras", key = id, version = revision)]
struct SkippedKey {
    #[column(skip)]
    id: u64,
    #[column(skip)]
    revision: u64,
}

#[event_config(table = "cameras", key = id, version = revision)]
struct JsonKey {
    #[column(json)]
    id: u64,
    #[column(json, generated)]
    revision: u64,
}

#[event_config(table = "cameras", key = id)]
struct Conditional {
    id: u64,
    #[cfg(unix)]
    inode: u64,
    #[cfg_attr(unix, column(json))]
    settings: String,
}

#[event_config(publish = { create = "a" })]
struct Tuple(#[column(skip)] u64);

fn main() {}
