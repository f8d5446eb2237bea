//! `fred`, used by hand: its client pipelines what many tasks send, and hands messages on by a broadcast channel.

use std::hint::black_box;
use std::time::Duration;

use fred::bytes::Bytes;
use fred::prelude::*;
use fred::types::config::TcpConfig;
use tokio::time::sleep;

use crate::job::{CHANNEL, Failure, GROUP, Report, Said};
use crate::order::{self, Order};
use crate::{meter, url};

/// How many messages wait for who handles them: more than the flood has. With its default of 32 a flood loses most of them.
const BUFFER: usize = 1_000_000;
const TTL: i64 = 3_600;
/// How often is looked whether everything has been acknowledged.
const PAUSE: Duration = Duration::from_millis(1);

async fn connect(port: u16, buffer: Option<usize>) -> Result<Client, Failure> {
    let mut builder = Builder::from_config(Config::from_url(&url(port))?);
    builder.with_connection_config(|config| {
        config.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
    });
    if let Some(buffer) = buffer {
        builder.with_performance_config(|config| config.broadcast_channel_capacity = buffer);
    }
    let client = builder.build()?;
    client.init().await?;
    Ok(client)
}

pub(crate) async fn subscribe(port: u16) -> Result<Report, Failure> {
    let client = connect(port, Some(BUFFER)).await?;
    let mut messages = client.message_rx();
    client.subscribe(CHANNEL).await?;
    // It does not wait until Redis has confirmed the subscription; what is asked next is answered after that.
    client.ping::<()>(None).await?;
    Said::Ready { port }.say();
    let handling = async {
        loop {
            // Fails if the channel has overflowed.
            let message = messages.recv().await?;
            let payload = message.value.as_bytes().ok_or("a message that is no bytes")?;
            meter::handled(black_box(&serde_json::from_slice::<Order>(payload)?).id);
        }
    };
    tokio::select! {
        failed = handling => failed,
        report = meter::ended() => Ok(report),
    }
}

pub(crate) async fn send(port: u16, in_flight: u64, messages: u64) -> Result<Report, Failure> {
    let client = connect(port, None).await?;
    let order = Order::numbered(order::FIRST);
    publish(&client, &order).await?;
    meter::each_in_a_task(in_flight, messages, |_, count| {
        let (client, order) = (client.clone(), order.clone());
        async move {
            for _ in 0..count {
                publish(&client, &order).await?;
            }
            Ok(())
        }
    })
    .await
}

async fn publish(client: &Client, order: &Order) -> Result<u64, Failure> {
    let payload = Bytes::from(serde_json::to_vec(order)?);
    Ok(client.publish(CHANNEL, payload).await?)
}

pub(crate) async fn hits(port: u16, in_flight: u64, calls: u64) -> Result<Report, Failure> {
    let client = connect(port, None).await?;
    for id in order::cached(0, 1).take(usize::try_from(order::CACHED)?) {
        let expires = Some(Expiration::EX(TTL));
        client.set::<(), _, _>(key(id), Bytes::from(Order::encoded(id)), expires, None, false).await?;
    }
    meter::each_in_a_task(in_flight, calls, |task, count| {
        let client = client.clone();
        async move {
            for (_, id) in (0..count).zip(order::cached(task, in_flight)) {
                let value: Option<Bytes> = client.get(key(id)).await?;
                let value = value.ok_or("a call was no hit")?;
                black_box(serde_json::from_slice::<Order>(&value)?);
            }
            Ok(())
        }
    })
    .await
}

fn key(id: u64) -> String {
    format!("bench:fred:{id}")
}

/// Waits until a group has acknowledged everything that it has read.
pub(super) async fn acknowledged(port: u16, stream: &str) -> Result<(), Failure> {
    let client = connect(port, None).await?;
    loop {
        let (pending, ..): (u64, Value, Value, Value) = client.xpending(stream, GROUP, ()).await?;
        if pending == 0 {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}
