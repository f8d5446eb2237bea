//! Handlers in a crate that no code names.

use messaging_core::subscribe;

#[subscribe("greet.{who}", id = "nobody_calls_me")]
async fn greet(who: &str) {
    println!("{who} was greeted by a crate that is not linked");
}
