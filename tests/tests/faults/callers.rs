//! Callers that go away, as web requests do whose client hangs up: what they began has its consequences.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::poll;
use messaging_core::{Op, Repository, Storage, Subscription, Updated, event_config};
use messaging_tests::{Direction, Proxy, RedisServer, eventually};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::outcome;
use crate::place::{Place, soon};

#[event_config(publish = { update = "parcel.updated", create = "parcel.created" })]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Parcel {
    id: u64,
}

/// A storage that takes its time, and counts what it has done.
#[derive(Clone)]
struct Table {
    gate: Arc<Semaphore>,
    begun: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
}

impl Storage<Parcel> for Table {
    type Id = u64;
    type Error = Infallible;

    async fn insert(&self, parcel: Parcel) -> Result<Parcel, Infallible> {
        Ok(parcel)
    }

    async fn update(&self, parcel: Parcel) -> Result<Option<Updated<Parcel>>, Infallible> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("it is never closed").forget();
        self.done.fetch_add(1, Ordering::SeqCst);
        Ok(Some(Updated { before: None, after: parcel }))
    }

    async fn delete(&self, _id: &u64) -> Result<Option<Parcel>, Infallible> {
        Ok(None)
    }

    async fn get(&self, _id: &u64) -> Result<Option<Parcel>, Infallible> {
        Ok(None)
    }

    async fn list(&self) -> Result<Vec<Parcel>, Infallible> {
        Ok(Vec::new())
    }
}

async fn next(events: &mut Subscription) -> u64 {
    soon(events.get_message(None)).await.unwrap().unwrap().json::<Parcel>().unwrap().id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_loses_no_event() {
    let redis = RedisServer::start();
    let proxy = Proxy::before(redis.port()).await;
    let mut place = Place::at(&redis.url());
    let mut events = place.messaging().await.subscribe("parcel.*").await.unwrap();
    place.config.endpoint = format!("redis://127.0.0.1:{}", proxy.port()).parse().unwrap();
    let messaging = place.messaging().await;
    messaging.emit(Op::Create, &Parcel { id: 0 }).await.unwrap();
    assert_eq!(next(&mut events).await, 0);
    let table = Table { gate: Arc::new(Semaphore::new(0)), begun: Arc::default(), done: Arc::default() };
    let repository = Repository::new(table.clone(), &messaging);
    let request = |id: u64| {
        let repository = repository.clone();
        tokio::spawn(async move { repository.update(Parcel { id }).await })
    };

    // In the middle of the storage call.
    let dropped = request(1);
    eventually("it waits in the storage", async || table.begun.load(Ordering::SeqCst) == 1).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    table.gate.add_permits(1);
    assert_eq!(next(&mut events).await, 1);

    // In the middle of the publish: it is stored, and Redis has not got the event yet.
    proxy.hold(Direction::ToServer);
    table.gate.add_permits(1);
    let dropped = request(2);
    eventually("it is stored", async || table.done.load(Ordering::SeqCst) == 2).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    // The same for an event that is emitted by hand.
    let parcel = Parcel { id: 3 };
    let mut emitting = Box::pin(messaging.emit(Op::Update, &parcel));
    assert!(poll!(&mut emitting).is_pending());
    drop(emitting);
    assert!(events.get_message(Duration::ZERO).await.unwrap().is_none(), "nothing has got through");
    proxy.heal().await;
    assert_eq!(next(&mut events).await, 2);
    assert_eq!(next(&mut events).await, 3);
    outcome("dropped callers", "every event was published");
}
