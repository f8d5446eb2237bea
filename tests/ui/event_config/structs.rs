#![allow(dead_code, unused_variables)]

use messaging_core::event_config;

#[event_config(publish = { create = "a" })]
struct Generic<T> {
    id: T,
}

#[event_config(publish = { create = "a" })]
struct Borrowing<'a> {
    id: &'a str,
}

#[event_config(publish = { create = "a" })]
struct Tuple(u64);

#[event_config(publish = { create = "a" })]
struct Unit;

#[event_config(publish = { create = "a" })]
enum NotAStruct {}

#[event_config(publish = { create = "a" })]
fn not_a_type() {}

fn main() {}
