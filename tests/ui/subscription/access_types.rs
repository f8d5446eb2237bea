#![allow(dead_code)]

use messaging_gateway::{AccessRequest, Decision, subscription};

#[subscription(channels = "a", authorize = not_async)]
struct NotAsync;

fn not_async(_: AccessRequest) -> bool {
    true
}

#[subscription(channels = "a", authorize = functions::other_argument)]
struct OtherArgument;

#[subscription(channels = "a", authorize = by_reference)]
struct ByReference;

async fn by_reference(_: &AccessRequest) -> bool {
    true
}

#[subscription(channels = "a", authorize = no_argument)]
struct NoArgument;

async fn no_argument() -> bool {
    true
}

#[subscription(channels = "a", authorize = two_arguments)]
struct TwoArguments;

async fn two_arguments(_: AccessRequest, _: u64) -> bool {
    true
}

#[subscription(channels = "a", authorize = other_result)]
struct OtherResult;

async fn other_result(_: AccessRequest) -> u64 {
    1
}

#[subscription(channels = "a", authorize = functions::nothing)]
struct Nothing;

#[subscription(channels = "a", authorize = no_error)]
struct NoError;

async fn no_error(_: AccessRequest) -> Result<Decision, u64> {
    Ok(Decision::allow())
}

#[subscription(channels = "a", authorize = absent)]
struct Unresolved;

#[subscription(channels = "a", authorize = functions::absent)]
struct UnresolvedInModule;

#[subscription(channels = "a", authorize = Self::absent)]
struct UnresolvedMethod;

#[subscription(channels = "a", authorize = NotAFunction)]
struct NotAFunction;

mod functions {
    use super::AccessRequest;

    pub async fn other_argument(_: u64) -> bool {
        true
    }

    pub async fn nothing(_: AccessRequest) {}
}

fn main() {}
