//! Handlers in a crate of their own. Nothing here is public: whoever links the crate has them.

use messaging_core::{Messaging, Result, subscribe};

#[subscribe("greet.{who}", id = "greeter")]
async fn greet(who: &str, greeting: String, messaging: Messaging) -> Result<()> {
    messaging.publish(&format!("greeted.{who}"), &format!("{greeting}, {who}!")).await?;
    Ok(())
}
