//! A service that calls messaging-core by another name: `crate = …` tells each attribute.

use std::time::Duration;

use messaging::{
    ChannelOf, Messaging, Op, Result, State, channel, event_config, redis_cache, subscribe, subscribers,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[event_config(
    publish = { create = "ticket.created", update = "ticket.updated" },
    payload_fields = [id, title],
    previous = [title],
    cache = { key = "ticket:{id}", ttl = 60 },
    crate = ::messaging,
)]
#[derive(Serialize, Deserialize)]
struct Ticket {
    id: u64,
    title: String,
    notes: String,
}

#[channel("queue:{name}", crate = ::messaging)]
struct Queue {
    name: String,
}

struct Desk {
    heard: UnboundedSender<String>,
}

#[subscribers(crate = messaging)]
impl Desk {
    #[subscribe("ticket.created")]
    async fn open(&self, ticket: TicketEvent) {
        let _ = self.heard.send(format!("a service heard of ticket {}", ticket.id));
    }
}

#[derive(Deserialize)]
struct TicketEvent {
    id: u64,
}

#[subscribe(Queue, crate = ::messaging)]
async fn on_queue(queue: ChannelOf<Queue>, desk: State<Desk>) {
    let _ = desk.heard.send(format!("a handler heard of queue {}", queue.name));
}

#[redis_cache(key = "title:{id}", ttl = 60, invalidate_on = [Ticket(update)], crate = ::messaging)]
async fn title(id: u64, source: &str) -> Result<String> {
    Ok(format!("{source} of {id}"))
}

#[tokio::main]
async fn main() -> Result<()> {
    let (heard, mut hear) = unbounded_channel();
    let messaging = Messaging::builder().url("memory://").service(Desk { heard }).build().await?;
    let running = messaging.start().await?;

    let mut ticket = Ticket { id: 7, title: "old".into(), notes: "private".into() };
    messaging.emit(Op::Create, &ticket).await?;
    println!("{}", hear.recv().await.expect("the service lives"));
    messaging.publish(&Queue { name: "urgent".into() }, &()).await?;
    println!("{}", hear.recv().await.expect("the service lives"));

    println!("{}, then {}", title(7, "the first title").await?, title(7, "the second title").await?);
    let old = std::mem::replace(&mut ticket, Ticket { id: 7, title: "new".into(), notes: "private".into() });
    messaging.emit_changed(&old, &ticket).await?;
    println!("after an event {}", title(7, "the third title").await?);
    running.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
