#![allow(dead_code)]

use messaging_gateway::{AccessRequest, subscription};

async fn may(_: AccessRequest) -> bool {
    true
}

#[subscription(channels = "a")]
struct Neither;

#[subscription(channels = "a", public, authorize = may)]
struct Both;

#[subscription(channels = "a", authorise = may, public)]
struct Misspelt;

#[subscription(channels = "a", pubic)]
struct MisspeltWord;

#[subscription(channels = "a", authorize = public)]
struct AsAValue;

#[subscription(channels = "a", authorize = may(request))]
struct Called;

#[subscription(channels = "a", authorize = |request| true)]
struct Closure;

#[subscription(channels = "a", authorize = self.may)]
struct Method;

#[subscription(channels = "a", authorize = true)]
struct True;

#[subscription(channels = "a", authorize = [may])]
struct List;

fn main() {}
