#![allow(dead_code)]

use messaging_gateway::{AccessRequest, Subscription, subscription};

async fn may(_: AccessRequest) -> bool {
    true
}

#[subscription]
struct Nothing;

#[subscription(channel = ["a"], authorise = may, filter = { id = [eq] }, topic = "a")]
struct Unknown;

#[subscription(entity = Cameras, channels = a, authorize = "may", send = true, slow = latest)]
struct WrongKinds;

#[subscription(channels = "a", public = true, presence = "yes", slow = 5, tenant = 5)]
struct WordsWithValues;

#[subscription(channels = "a", public, slow = "lastest", slow = "wait", public, send, send)]
struct Twice;

#[subscription(channels = "a", public, slow = "wait", id = "two words")]
struct NoChoice;

#[subscription(entity, channels, authorize, tenant =, filters = , slow)]
struct NoValues;

#[subscription(entity = "", channels = "a", public)]
struct EmptyEntity;

#[subscription(entity = "camera events", channels = "a", public)]
struct Space;

#[subscription(
    entity = "a2345678901234567890123456789012345678901234567890123456789012345",
    channels = "a",
    public,
)]
struct TooLong;

#[subscription(channels = "a", public)]
struct Küchen;

#[subscription(channels = "a", public, tenant = metadata.tenant)]
struct UnquotedTenant;

#[subscription(channels = "a", public, tenant = "metadata..tenant")]
struct EmptyKey;

#[subscription(channels = "a")]
#[cfg(any())]
struct NotThere;

fn main() {
    // What was refused is still a subscription.
    let _ = (Nothing, Nothing::DESCRIPTOR.entity, Unknown::DESCRIPTOR, Küchen::DESCRIPTOR);
}
