//! Caches of several processes, which do not have the same functions.

use std::sync::Arc;
use std::time::Duration;

use super::source::{Once, Remote};
use super::*;
use crate::backend::Outgoing;
use crate::cache::shape::Plain;
use crate::channel::Channel;
use crate::dispatch::Carrier;
use crate::registry::{FunctionDescriptor, Location, Trigger, TriggerOn};

const AT: Location = Location { file: "f.rs", line: 1 };

static CAMERA: FunctionDescriptor = FunctionDescriptor {
    id: "camera",
    key: "camera:{id}",
    ttl: Duration::from_secs(60),
    jitter: 0.0,
    cache_none: None,
    stale: None,
    wait: None,
    local: None,
    invalidate_on: &[Trigger { on: TriggerOn::Channel("camera.{id}.changed"), select: &[] }],
    location: AT,
};

/// A process with these functions.
struct Process {
    cache: Arc<Cache>,
    stop: CancellationToken,
}

impl Process {
    fn new(bus: &str, functions: &[&'static FunctionDescriptor]) -> Self {
        let config = Config::new(&format!("memory://{bus}")).unwrap();
        let activity = Activity::default();
        let backend = Arc::new(Backend::new(&config, activity.clone()).unwrap());
        let registry = Registry { functions: functions.to_vec(), ..Registry::empty() };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let cache =
            Cache::new(backend, &registry, &config, activity, tasks.clone(), tasks, stop.clone()).unwrap();
        Self { cache: Arc::new(cache), stop }
    }

    async fn camera(&self, id: u32, version: u32) -> u32 {
        let family = self.cache.families.get(&CAMERA).unwrap();
        let key = format!("camera:{id}");
        let ask = Ask { family, key: &key, ttl: CAMERA.ttl, replace: false, current: None };
        self.cache.call::<u32, Plain<u32>, Remote, _>(ask, Once(async move { version })).await
    }

    async fn publish(&self, channel: &str) {
        let message = Outgoing {
            channel: Channel::new(channel).unwrap(),
            payload: Bytes::from_static(b"{}"),
            durable: None,
            carrier: Carrier::Broadcast,
            mark: None,
        };
        self.cache.publish(vec![message]).await.unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_publisher_knows_what_others_cache() {
    let publisher = Process::new("catalog", &[]);
    publisher.publish("camera.7.changed").await;
    let snapshot = publisher.cache.catalog.snapshot();
    assert!(snapshot.book.iter().next().is_none() && snapshot.generation == Some(0));
    {
        let owner = Process::new("catalog", &[&CAMERA]);
        assert_eq!((owner.camera(7, 1).await, owner.camera(7, 2).await), (1, 1));
    }
    // The owner is gone; and the publisher has known the registry of a time when it was not there yet.
    publisher.publish("camera.7.changed").await;
    let snapshot = publisher.cache.catalog.snapshot();
    assert_eq!(snapshot.book.iter().map(|rules| rules.id()).collect::<Vec<_>>(), ["camera"]);
    let left = publisher.cache.backend.look(&publisher.cache.key("camera:7"), false).await.unwrap();
    assert_eq!(left.value, None);
    // From now on it does not have to ask.
    assert!(Arc::ptr_eq(&snapshot, &publisher.cache.catalog.snapshot()));
    publisher.publish("camera.8.changed").await;
    assert!(Arc::ptr_eq(&snapshot, &publisher.cache.catalog.snapshot()));
}

#[tokio::test]
async fn a_publisher_that_knows_too_little_is_not_trusted() {
    let (old, owner) = (Process::new("trust", &[]), Process::new("trust", &[&CAMERA]));
    old.publish("something").await;
    assert_eq!(owner.camera(7, 1).await, 1);
    // As if it had died before it could find out what it did not know.
    let payload = Bytes::from_static(b"{}");
    let generation = old.cache.catalog.snapshot().generation.unwrap();
    let mark = marks::mark("camera.7.changed", &payload, generation);
    let message = Outgoing {
        channel: Channel::new("camera.7.changed").unwrap(),
        payload,
        durable: None,
        carrier: Carrier::Broadcast,
        mark: Some(mark),
    };
    old.cache.backend.publish(&[message], &[]).await.unwrap();
    let listener = owner.cache.listener().unwrap();
    listener.catch_up(&owner.cache, Duration::from_secs(30)).await;
    assert_eq!(owner.camera(7, 2).await, 2);
}

#[tokio::test]
async fn who_marks_an_event_as_its_own_is_believed() {
    let (publisher, owner) = (Process::new("belief", &[]), Process::new("belief", &[&CAMERA]));
    assert_eq!(owner.camera(7, 1).await, 1);
    publisher.publish("camera.7.changed").await;
    publisher.publish("camera.7.changed").await;
    assert_eq!(owner.camera(7, 2).await, 2);
    owner.cache.listener().unwrap().catch_up(&owner.cache, Duration::from_secs(30)).await;
    assert_eq!(owner.camera(7, 3).await, 2, "hearing the events has removed nothing more");
    assert_eq!(owner.cache.stats()[0].invalidations.events, 0);
}
