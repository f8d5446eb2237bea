#![allow(dead_code, unused_variables)]

extern crate self as messaging_sql;

#[path = "../messaging_sql.rs"]
mod stub;

use messaging_core::event_config;
pub use stub::*;

#[derive(serde::Serialize)]
struct Opaque;

#[event_config(table = "cameras", key = id)]
#[derive(serde::Serialize)]
struct NoColumn {
    id: u64,
    first: Vec<Opaque>,
    second: Vec<Opaque>,
}

#[event_config(table = "cameras", key = id)]
#[derive(serde::Serialize)]
struct NoJson {
    id: u64,
    #[column(json)]
    opaque: Opaque,
}

#[event_config(table = "cameras", key = id)]
#[derive(serde::Serialize)]
struct NoDefault {
    id: u64,
    #[column(skip)]
    opaque: Vec<Opaque>,
    #[column(skip)]
    other: Opaque,
}

fn stored<M: SqlModel<Sqlite>>() {}

fn main() {
    stored::<NoColumn>();
}
