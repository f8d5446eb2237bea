//! A queue: entries that lie in a stream are read by one group, decoded and acknowledged. They are appended beforehand, by
//! a process that is not measured, in the form of who reads them.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use messaging_core::{Config, Handlers, Messaging, subscribe};
use redis::aio::MultiplexedConnection;
use redis::{Client as RedisClient, Value, cmd, pipe};

use crate::job::{Client, Failure, GROUP, Layout, Report};
use crate::meter;
use crate::order::{self, Order};

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
    match client {
        Client::Ours => ours(url, messages).await,
        Client::Raw => raw(&mut connect(url).await?, messages).await,
        Client::Hand => Err("nobody does this by hand".into()),
    }
}

async fn connect(url: &str) -> Result<MultiplexedConnection, Failure> {
    Ok(RedisClient::open(url)?.get_multiplexed_async_connection().await?)
}

/// Appends what a publisher would have appended.
pub(crate) async fn fill(layout: Layout, url: &str, messages: u64) -> Result<Report, Failure> {
    let mut connection = connect(url).await?;
    // What the sides before have read would fill the server's memory.
    cmd("DEL").arg(&Layout::ALL.map(Layout::key)).query_async::<()>(&mut connection).await?;
    if layout == Layout::Ours {
        let kept = r#"{"template":"orders.queued","max_len":100000000,"max_age_ms":86400000}"#;
        let mut keep = cmd("HSET");
        keep.arg("msg:streams").arg("orders.queued").arg(kept).query_async::<()>(&mut connection).await?;
    }
    let mut group = cmd("XGROUP");
    group.arg("CREATE").arg(layout.key()).arg(GROUP).arg(0).arg("MKSTREAM");
    group.query_async::<()>(&mut connection).await?;
    let mut number = 0;
    while number < messages {
        let mut batch = pipe();
        for _ in 0..APPENDED.min(messages - number) {
            number += 1;
            let id = if number == messages { order::LAST } else { order::FIRST + number };
            batch.cmd("XADD").arg(layout.key()).arg("*");
            match layout {
                Layout::Ours => {
                    batch.arg("id").arg("01920000-0000-7000-8000-000000000000").arg("n").arg(number);
                    batch.arg("channel").arg("orders.queued").arg("time").arg("1700000000000").arg("data")
                }
                Layout::RustStream => batch.arg("_payload"),
                Layout::SeaStreamer => batch.arg("msg"),
            };
            batch.arg(Order::encoded(id)).ignore();
        }
        batch.query_async::<()>(&mut connection).await?;
    }
    Ok(Report { count: number, ..Report::default() })
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
    read.arg("GROUP").arg(GROUP).arg("raw").arg("COUNT").arg(AT_ONCE).arg("STREAMS");
    read.arg(Layout::Ours.key()).arg(">");
    meter::operations(messages, async {
        let mut left = messages;
        while left > 0 {
            // One stream, its key and its entries.
            let read: Vec<(Value, Vec<RawEntry>)> = read.query_async(connection).await?;
            let mut acknowledge = cmd("XACK");
            acknowledge.arg(Layout::Ours.key()).arg(GROUP);
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
