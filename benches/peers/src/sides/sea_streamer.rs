//! `sea-streamer-redis`: a consumer of a group.

use std::hint::black_box;

use sea_streamer_redis::{
    AutoCommit, AutoStreamReset, RedisConnectOptions, RedisConsumerOptions, RedisStreamer,
};
use sea_streamer_types::{
    Buffer, Consumer, ConsumerGroup, ConsumerId, ConsumerMode, ConsumerOptions, Message, StreamKey, Streamer,
};

use crate::job::{Failure, GROUP, Layout, Report};
use crate::order::Order;
use crate::{meter, url};

/// How many entries are read and acknowledged at once. With its default of 10, round trips are most of the time.
const AT_ONCE: u16 = 1_000;

/// Until everything has been handled and acknowledged. Those of a batch are sent at once, and nobody waits for the answer:
/// `AutoCommit::Rolling`, which its documentation recommends, sends them after a second and is slower.
pub(crate) async fn queue(port: u16, messages: u64) -> Result<Report, Failure> {
    let mut options = RedisConsumerOptions::new(ConsumerMode::LoadBalanced);
    options.set_consumer_group(ConsumerGroup::new(GROUP))?;
    options.set_consumer_id(ConsumerId::new("bench"));
    options.set_auto_stream_reset(AutoStreamReset::Earliest);
    options.set_auto_commit(AutoCommit::Disabled);
    options.set_batch_size(AT_ONCE.into());
    meter::operations(messages, async {
        let streamer = RedisStreamer::connect(url(port).parse()?, RedisConnectOptions::default()).await?;
        let streams = [StreamKey::new(Layout::SeaStreamer.key())?];
        let mut consumer = streamer.create_consumer(&streams, options).await?;
        for number in 1..=messages {
            let message = consumer.next().await?;
            let order: Order = serde_json::from_slice(message.message().as_bytes())?;
            meter::handled(black_box(&order).id);
            consumer.ack(&message)?;
            if number % u64::from(AT_ONCE) == 0 {
                consumer.commit_asap()?;
            }
        }
        consumer.commit()?.await?;
        Ok(())
    })
    .await
}
