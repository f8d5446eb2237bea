//! The `redis` crate, as one uses it well by hand.

use std::hint::black_box;
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, cmd};

use crate::job::{CHANNEL, Failure, Form, PATTERN, Report, Turn};
use crate::order::{self, Order, OrderRef};
use crate::{latency, meter};

/// What its pipeline holds by default, and what is best with many in flight.
const SMALL_PIPELINE: usize = 50;
const LARGE_PIPELINE: usize = 1_024;
/// Nobody waits for ever for an answer that a broken connection will not bring; as long as we wait by default.
const PATIENCE: Duration = Duration::from_secs(2);

fn client(url: &str) -> Result<Client, Failure> {
    // Without this the system delays small writes.
    let info = url.into_connection_info()?.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    Ok(Client::open(info)?)
}

pub(super) async fn commands(url: &str, in_flight: u64) -> Result<MultiplexedConnection, Failure> {
    let many = in_flight > SMALL_PIPELINE as u64;
    let settings = AsyncConnectionConfig::new()
        .set_pipeline_buffer_size(if many { LARGE_PIPELINE } else { SMALL_PIPELINE })
        .set_response_timeout(Some(PATIENCE));
    Ok(client(url)?.get_multiplexed_async_connection_with_config(&settings).await?)
}

pub(crate) async fn subscribe(url: &str, form: Form) -> Result<PubSub, Failure> {
    let mut connection = client(url)?.get_async_pubsub().await?;
    match form {
        Form::Owned | Form::Borrowed => connection.subscribe(CHANNEL).await?,
        Form::Template => connection.psubscribe(PATTERN).await?,
    }
    Ok(connection)
}

/// Handles orders until the connection ends.
pub(crate) async fn handle(connection: PubSub, form: Form, handle: fn(u64)) -> Result<(), Failure> {
    let mut messages = connection.into_on_message();
    while let Some(message) = messages.next().await {
        let payload = message.get_payload_bytes();
        match form {
            Form::Owned => handle(black_box(&serde_json::from_slice::<Order>(payload)?).id),
            Form::Borrowed => handle(black_box(&serde_json::from_slice::<OrderRef<'_>>(payload)?).id),
            Form::Template => {
                black_box(message.get_channel_name().strip_prefix("orders."));
                handle(black_box(&serde_json::from_slice::<Order>(payload)?).id);
            }
        }
    }
    Err("the connection ended".into())
}

async fn publish(connection: &mut MultiplexedConnection, order: &Order) -> Result<u64, Failure> {
    let payload = serde_json::to_vec(order)?;
    Ok(cmd("PUBLISH").arg(CHANNEL).arg(payload).query_async(connection).await?)
}

pub(crate) async fn send(url: &str, in_flight: u64, messages: u64) -> Result<Report, Failure> {
    let mut connection = commands(url, in_flight).await?;
    let order = Order::numbered(order::FIRST);
    publish(&mut connection, &order).await?;
    meter::each_in_a_task(in_flight, messages, |_, count| {
        let (mut connection, order) = (connection.clone(), order.clone());
        async move {
            for _ in 0..count {
                publish(&mut connection, &order).await?;
            }
            Ok(())
        }
    })
    .await
}

pub(crate) async fn latency(url: &str, messages: u64, turn: Turn) -> Result<Report, Failure> {
    let subscribed = subscribe(url, Form::Owned).await?;
    let handling = tokio::spawn(handle(subscribed, Form::Owned, latency::handled));
    let connection = commands(url, 1).await?;
    let measured = latency::measure(messages, turn, |id| {
        let mut connection = connection.clone();
        async move { publish(&mut connection, &Order::numbered(id)).await.map(drop) }
    });
    tokio::select! {
        report = measured => report,
        ended = handling => Err(ended?.err().unwrap_or_else(|| "it stopped handling".into())),
    }
}
