#![allow(dead_code)]

use messaging_gateway::subscription;

#[subscription(channels = "a", public)]
struct Generic<T>(T);

#[subscription(channels = "a", public)]
struct Lifetime<'a> {
    text: &'a str,
}

#[subscription(channels = "a", public)]
struct Constant<const N: usize>;

#[subscription(channels = "a", public)]
enum Choice {}

#[subscription(channels = "a", public)]
async fn function() {}

#[subscription(channels = "a*", public, slow = "")]
trait Other {}

fn main() {}
