//! A queue: entries that lie in a stream are read by one group, decoded and acknowledged. Both sides read the same ones.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use messaging_core::{Config, Handlers, Messaging, subscribe};
use redis::aio::MultiplexedConnection;
use redis::{Client as RedisClient, Value, cmd, pipe};

use crate::job::{Client, Failure, Report};
use crate::meter;
use crate::order::{self, Order};

/// The stream as both sides know it.
const STREAM: &str = "msg:{orders.queued}:stream";
const GROUP: &str = "bench";
/// How many entries the raw side reads and acknowledges at once.
const AT_ONCE: usize = 100;
/// Its id and its fields.
type RawEntry = (Bytes, Vec<Bytes>);
/// How many entries are appended at once beforehand.
const APPENDED: u64 = 1_000;

#[subscribe("orders.queued", id = "queued", delivery = "queue", group = "bench", start = "beginning")]
async fn queued(order: Order) {
    meter::handled(black_box(&order).id);
}

pub(crate) async fn measure(client: Client, url: &str, messages: u64) -> Result<Report, Failure> {
    let mut connection = RedisClient::open(url)?.get_multiplexed_async_connection().await?;
    fill(&mut connection, messages).await?;
    match client {
        Client::Ours => ours(url, messages).await,
        Client::Raw => raw(&mut connection, messages).await,
        Client::Hand => Err("nobody does this by hand".into()),
    }
}

/// Appends what a durable publisher would have appended.
async fn fill(connection: &mut MultiplexedConnection, messages: u64) -> Result<(), Failure> {
    cmd("DEL").arg(STREAM).query_async::<()>(connection).await?;
    let kept = r#"{"template":"orders.queued","max_len":100000000,"max_age_ms":86400000}"#;
    cmd("HSET").arg("msg:streams").arg("orders.queued").arg(kept).query_async::<()>(connection).await?;
    cmd("XGROUP")
        .arg("CREATE")
        .arg(STREAM)
        .arg(GROUP)
        .arg(0)
        .arg("MKSTREAM")
        .query_async::<()>(connection)
        .await?;
    let mut number = 0;
    while number < messages {
        let mut batch = pipe();
        for _ in 0..APPENDED.min(messages - number) {
            number += 1;
            let id = if number == messages { order::LAST } else { order::FIRST + number };
            batch.cmd("XADD").arg(STREAM).arg("*");
            batch.arg("id").arg("01920000-0000-7000-8000-000000000000").arg("n").arg(number);
            batch.arg("channel").arg("orders.queued").arg("time").arg("1700000000000");
            batch.arg("data").arg(Order::encoded(id)).ignore();
        }
        batch.query_async::<()>(connection).await?;
    }
    Ok(())
}

/// Until everything has been handled and acknowledged.
async fn ours(url: &str, messages: u64) -> Result<Report, Failure> {
    let only = Handlers::only(["queued"]);
    let messaging = Messaging::builder().config(Config::new(url)?).handlers(only).build().await?;
    meter::operations(messages, async {
        let running = messaging.start().await?;
        meter::ended().await;
        let report = running.shutdown(Duration::from_secs(10)).await;
        if report.is_complete() { Ok(()) } else { Err(report.to_string().into()) }
    })
    .await
}

async fn raw(connection: &mut MultiplexedConnection, messages: u64) -> Result<Report, Failure> {
    let mut read = cmd("XREADGROUP");
    read.arg("GROUP").arg(GROUP).arg("raw").arg("COUNT").arg(AT_ONCE).arg("STREAMS").arg(STREAM).arg(">");
    meter::operations(messages, async {
        let mut left = messages;
        while left > 0 {
            // One stream, its key and its entries.
            let read: Vec<(Value, Vec<RawEntry>)> = read.query_async(connection).await?;
            let mut acknowledge = cmd("XACK");
            acknowledge.arg(STREAM).arg(GROUP);
            for (id, fields) in read.into_iter().flat_map(|(_, entries)| entries) {
                let data = fields.chunks(2).find(|field| field[0] == "data").ok_or("an entry has no data")?;
                meter::handled(black_box(&serde_json::from_slice::<Order>(&data[1])?).id);
                acknowledge.arg(&id[..]);
                left -= 1;
            }
            acknowledge.query_async::<u64>(connection).await?;
        }
        Ok(())
    })
    .await
}
