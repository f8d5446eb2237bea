use ruststream_fred::stream::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, Outgoing, Serialize)]
struct Greeting {
    text: String,
}

#[subscriber(RedisStream::new("greetings").group("workers"))]
async fn greeted(greeting: &Greeting) -> HandlerOutcome {
    println!("hello {}", greeting.text);
    HandlerOutcome::ack()
}

#[ruststream::app]
fn app() -> impl App {
    RustStream::new(AppInfo::new("hello", "0.1.0")).with_broker(
        RedisBroker::standalone("redis://localhost:6379"),
        |b| {
            b.include(greeted);
        },
    )
}
