#![allow(dead_code)]

use messaging_gateway::subscription;

#[subscription(public)]
struct Missing;

#[subscription(channels = [], public)]
struct Empty;

#[subscription(channels = ["a", a, 5, ["b"]], public)]
struct NotText;

#[subscription(channels = ["camera events", "", "a:{id", "{a}{b}", "{rest*}.a"], public)]
struct Invalid;

#[subscription(channels = ["events.*", "a:{id}.*"], public)]
struct Globs;

#[subscription(channels = ["a", "b:{id}", "a", "b:{id}"], public)]
struct Twice;

#[subscription(channels = ["b:{id}.{x}", "b:{other}.{x}", "b:{id}.{x*}", "b:{_a}.{rest*}"], public)]
struct Alike;

#[subscription("a", public)]
struct NotNamed;

fn main() {}
