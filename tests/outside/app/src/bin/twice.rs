//! A service with a handler whose id a crate that it uses has taken.

use std::process::ExitCode;

use handlers_named as _;
use messaging_core::{Messaging, subscribe};

#[subscribe("farewell", id = "greeter")]
async fn say_goodbye(_who: String) {}

#[tokio::main]
async fn main() -> ExitCode {
    match Messaging::builder().url("memory://").build().await {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
