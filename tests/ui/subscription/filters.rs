#![allow(dead_code)]

use messaging_gateway::subscription;

#[subscription(channels = "a", public, filters = {})]
struct Empty;

#[subscription(channels = "a", public, filters = [camera_id])]
struct NotAMap;

#[subscription(channels = "a", public, filters = { camera_id = eq, b = "eq", c = ["eq"], d = [], e, "f" })]
struct NotLists;

#[subscription(channels = "a", public, filters = { a = [eqq, i], b = [gt], c = [eq, in, eq], d = [eq(1)] })]
struct Operators;

#[subscription(channels = "a", public, filters = { a = [eq], "a" = [in], "b.c" = [eq], "b.c" = [eq] })]
struct Twice;

#[subscription(channels = "a", public, filters = { metadata.zone = [eq], 5 = [eq], [a] = [eq] })]
struct NotFields;

#[subscription(channels = "a", public, filters = { "" = [eq], ".a" = [eq], "a b." = [eq], "a. b" = [eq], "\n" = [eq] })]
struct NoKeys;

fn main() {}
