//! Tests: channels that are given up and taken up again at the same time.

use messaging_core::{Handlers, Retention};

use super::*;
use crate::connection::{Connection, Transport};
use crate::descriptor::SlowPolicy;
use crate::filter::Filter;
use crate::native::{Done, Say};
use crate::outbox::Item;
use crate::protocol::Protocol;

const CHANNELS: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(10);

fn limits() -> Limits {
    let mut limits = Limits { linger: Duration::ZERO, ..Limits::default() };
    limits.queue = (1 << 30).try_into().unwrap();
    limits
}

async fn messaging() -> Messaging {
    let builder = Messaging::builder().url("memory://").handlers(Handlers::none());
    builder.durable("kept.{name}", Retention::DEFAULT).build().await.unwrap()
}

fn hub(messaging: &Messaging) -> Arc<Hub> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    Hub::new(messaging.clone(), Arc::default(), limits(), tasks, stop)
}

async fn join(hub: &Arc<Hub>, channel: &Arc<str>, connection: &Arc<Connection>) -> Arc<Topic> {
    let filter = Filter::default();
    let join = Join {
        connection,
        channel,
        filter: &filter,
        policy: SlowPolicy::Disconnect,
        resume: None,
        last: 0,
        must_recover: false,
    };
    match hub.join(join, |_| connection.say(&Say::ok(1, Done::Update))).await.unwrap() {
        Joined::Now(topic) => topic,
        Joined::Already | Joined::Unrecoverable => panic!("it is new"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_while_channels_are_given_up_hears_them() {
    let messaging = messaging().await;
    let hub = hub(&messaging);
    let channels: Vec<Arc<str>> = (0..CHANNELS).map(|number| format!("kept.c{number}").into()).collect();
    let gone = Arc::new(Connection::new(0, Transport::WebSocket(Protocol::Native), &limits()));
    for channel in &channels {
        join(&hub, channel, &gone).await.leave(&gone);
    }
    // They all come back just when their channels are given up.
    let sweeping = tokio::task::spawn_blocking({
        let hub = Arc::clone(&hub);
        move || hub.sweep()
    });
    let back = Arc::new(Connection::new(1, Transport::WebSocket(Protocol::Native), &limits()));
    for channel in &channels {
        join(&hub, channel, &back).await;
    }
    sweeping.await.unwrap();
    for channel in &channels {
        messaging.publish(&**channel, &1).await.unwrap();
    }
    let (mut heard, mut batch) = (0, Vec::new());
    while heard < CHANNELS {
        let ready = tokio::time::timeout(PATIENCE, back.outbox.ready()).await;
        assert!(ready.is_ok(), "{} of {CHANNELS} channels are deaf", CHANNELS - heard);
        back.outbox.take(&mut batch, usize::MAX);
        heard += batch.drain(..).filter(|item| matches!(item, Item::Events(_))).count();
    }
}

#[tokio::test]
async fn a_channel_whose_opening_was_given_up_is_forgotten() {
    let messaging = messaging().await;
    let hub = hub(&messaging);
    let channel: Arc<str> = "news".into();
    {
        // Whoever asked has gone before the answer was there.
        let opening = hub.topic(&channel);
        tokio::pin!(opening);
        assert!(futures_util::poll!(opening.as_mut()).is_pending(), "the backend takes a moment");
    }
    hub.sweep();
    assert_eq!(hub.channels(), 0);
}
