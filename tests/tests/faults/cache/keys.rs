//! Which key an event means, and what may stand under it: numbers beyond what floating point holds, names that serde has
//! changed, nulls, and values of another shape.

use messaging_core::{Messaging, redis_cache};
use messaging_tests::{RedisServer, eventually};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::database::{Database, Source};
use super::{patient, row, row_name, stats};
use crate::outcome;

/// The first integer that a `double` cannot hold, and its neighbours, which it would be taken for.
const LARGE: u64 = (1 << 53) + 1;

struct Trial {
    redis: RedisServer,
    _server: RedisServer,
    messaging: Messaging,
    source: Source,
}

impl Trial {
    async fn start() -> Self {
        let (redis, server) = (RedisServer::start(), RedisServer::start());
        let messaging = patient(&redis.url()).messaging().await;
        let _running = messaging.start().await.unwrap();
        let source = Source::new(&Database::of(&server).await);
        Self { redis, _server: server, messaging, source }
    }

    /// Reads until what is read is stored too.
    async fn stored(&self, key: &str, read: impl AsyncFn() -> u64) -> u64 {
        let version = read().await;
        let stored = async || {
            read().await;
            self.redis.cli(&["GET", key]) == version.to_string()
        };
        eventually(&format!("{key} is stored"), stored).await;
        version
    }

    async fn row(&self, id: u64) -> u64 {
        self.messaging.scope(row(id, &self.source)).await
    }

    fn has(&self, key: &str) -> bool {
        self.redis.cli(&["EXISTS", key]) == "1"
    }

    /// An event of somebody else, and a mark on the same connection after which everybody has done what it asks.
    async fn foreign(&self, payload: &Value) {
        let before = stats(&self.messaging, "row").invalidations.events;
        let named = payload["id"].as_array().map_or(usize::from(!payload["id"].is_null()), Vec::len) as u64;
        self.redis.cli(&["PUBLISH", "cached.row", &payload.to_string()]);
        self.redis.cli(&["PUBLISH", "cached.row", r#"{"id":0}"#]);
        let heard = async || stats(&self.messaging, "row").invalidations.events > before + named;
        eventually("it has been heard", heard).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_numbers_mean_one_key() {
    let trial = Trial::start().await;
    let ids = [LARGE - 1, LARGE, LARGE + 1, u64::MAX - 1, u64::MAX];
    for (event, foreign) in [(LARGE, false), (LARGE, true), (u64::MAX, false), (u64::MAX, true)] {
        for id in ids {
            trial.stored(&row_name(id), async || trial.row(id).await).await;
        }
        let payload = json!({ "id": event });
        if foreign {
            trial.foreign(&payload).await;
        } else {
            trial.messaging.publish("cached.row", &payload).await.unwrap();
        }
        eventually("the one is gone", async || !trial.has(&row_name(event))).await;
        let kept = ids.into_iter().filter(|id| *id != event);
        kept.for_each(|id| assert!(trial.has(&row_name(id)), "{id} is none of {event}"));
    }
    outcome("numbers beyond 2^53", "each means one key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_means_no_key() {
    let trial = Trial::start().await;
    for id in 1..=3 {
        trial.stored(&row_name(id), async || trial.row(id).await).await;
    }
    let flushes = stats(&trial.messaging, "row").invalidations.flushes;
    trial.messaging.publish("cached.row", &json!({ "id": null })).await.unwrap();
    trial.foreign(&json!({ "id": null })).await;
    (1..=3).for_each(|id| assert!(trial.has(&row_name(id)), "{id} was not meant"));
    trial.messaging.publish("cached.row", &json!({ "id": [1, 2] })).await.unwrap();
    assert_eq!([1, 2, 3].map(|id| trial.has(&row_name(id))), [false, false, true]);
    assert_eq!(stats(&trial.messaging, "row").invalidations.flushes, flushes);
    outcome("null", "means no key, a list means each");
}

/// How serde writes it is how it stands in the key and in the payload.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
enum Door {
    FrontDoor,
    #[serde(rename = "behind: the {house}")]
    Back,
}

#[derive(Serialize)]
struct Opened {
    door: Door,
}

#[redis_cache(key = "door:{door}:state", ttl = "10m", invalidate_on = ["cached.door"])]
async fn door(door: Door, source: &Source) -> u64 {
    source.load(&format!("{door:?}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_serde_has_renamed_is_one_name_everywhere() {
    let trial = Trial::start().await;
    let read = async |which| trial.messaging.scope(door(which, &trial.source)).await;
    for (which, key) in
        [(Door::FrontDoor, "door:FRONT-DOOR:state"), (Door::Back, "door:behind%3A the %7Bhouse%7D:state")]
    {
        assert_eq!(door::key(which).unwrap(), key);
        trial.stored(key, async || read(which).await).await;
        // Whoever is the first to listen may have had to flush.
        let flushes = stats(&trial.messaging, "keys::door").invalidations.flushes;
        let version = trial.source.database.write_one(&format!("{which:?}")).await;
        trial.messaging.publish("cached.door", &Opened { door: which }).await.unwrap();
        assert!(!trial.has(key));
        assert_eq!(read(which).await, version);
        trial.stored(key, async || read(which).await).await;
        let payload = serde_json::to_string(&Opened { door: which }).unwrap();
        trial.redis.cli(&["PUBLISH", "cached.door", &payload]);
        eventually("somebody else's event means it too", async || !trial.has(key)).await;
        assert_eq!(stats(&trial.messaging, "keys::door").invalidations.flushes, flushes, "it said which");
    }
    outcome("a renamed enum", "one name in keys and payloads");
}

/// What an older deployment keeps under a key, and what a newer one does.
#[redis_cache(key = "shape:{id}", ttl = "10m", invalidate_on = ["cached.shape"], id = "shape.old")]
async fn old_shape(id: u64, source: &Source) -> u64 {
    source.load(&format!("shape:{id}")).await
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Shape {
    version: u64,
    sides: u32,
}

#[redis_cache(key = "shape:{id}", ttl = "10m", invalidate_on = ["cached.shape"], id = "shape.new")]
async fn new_shape(id: u64, source: &Source) -> Shape {
    Shape { version: source.load(&format!("shape:{id}")).await, sides: 3 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployments_replace_each_others_values() {
    let trial = Trial::start().await;
    let other = patient(&trial.redis.url()).messaging().await;
    let _running = other.start().await.unwrap();
    let (source, name) = (&trial.source, "shape:1");
    for round in 0..20 {
        let version = source.database.write_one(name).await;
        let (messaging, publisher) =
            if round % 2 == 0 { (&trial.messaging, &other) } else { (&other, &trial.messaging) };
        publisher.publish("cached.shape", &json!({ "id": 1 })).await.unwrap();
        let callers = (0..10).map(async |_| {
            let (old, new) =
                tokio::join!(trial.messaging.scope(old_shape(1, source)), other.scope(new_shape(1, source)));
            assert_eq!((old, new), (version, Shape { version, sides: 3 }));
        });
        futures_util::future::join_all(callers).await;
        // Whoever comes last has it as he wants it.
        eventually("the new shape is stored", async || {
            messaging.scope(new_shape(1, source)).await;
            let new = serde_json::to_string(&Shape { version, sides: 3 }).unwrap();
            trial.redis.cli(&["GET", name]) == new
        })
        .await;
        assert_eq!(messaging.scope(old_shape(1, source)).await, version);
        eventually("the old shape is stored", async || {
            messaging.scope(old_shape(1, source)).await;
            trial.redis.cli(&["GET", name]) == version.to_string()
        })
        .await;
    }
    let caches = trial.messaging.health().caches;
    let undecodable: u64 = caches.iter().map(|stats| stats.undecodable).sum();
    assert!(undecodable > 0, "they met");
    outcome(
        "two shapes of one value",
        format_args!("{undecodable} were replaced, none was taken for the other"),
    );
}
