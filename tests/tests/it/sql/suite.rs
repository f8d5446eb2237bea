//! What holds on every database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use messaging_core::{ErrorKind, Messaging, Op, PendingEvent, PublishFailure, Repository, Subscription};
use messaging_sql::sqlx::{self, Pool};
use messaging_sql::{Filter, Outbox, OutboxRelay, Set, SqlStorage, UnitOfWork};
use messaging_tests::eventually;
use serde_json::json;

use super::super::{Camera, Lost, Mistyped, Order, Strange, camera, heard, nothing_heard, order};
use super::{Db, Home, TABLES, home};
use crate::place::{Place, soon};

struct Scene {
    pool: Pool<Db>,
    messaging: Messaging,
    cameras: Subscription,
    _home: Home,
}

impl Scene {
    /// `None` where there is no such database.
    async fn new() -> Option<Self> {
        let home = home().await?;
        let pool = home.pool.clone();
        sqlx::raw_sql(TABLES).execute(&pool).await.unwrap();
        messaging_sql::migrate(&pool).await.unwrap();
        let messaging = Place::memory().messaging().await;
        let cameras = messaging.subscribe("camera.*").await.unwrap();
        Some(Self { pool, messaging, cameras, _home: home })
    }

    async fn begin(&self) -> UnitOfWork<'static, Db> {
        UnitOfWork::begin(&self.pool, &self.messaging).await.unwrap()
    }

    async fn stored(&self, id: &str) -> Option<Camera> {
        SqlStorage::new(&self.pool).list_where(Filter::all().eq("id", id.to_owned())).await.unwrap().pop()
    }

    /// Stores a camera that nobody hears of.
    async fn with_camera(&self, id: &str) -> Camera {
        let storage = SqlStorage::new(&self.pool);
        messaging_core::Storage::insert(&storage, camera(id)).await.unwrap()
    }
}

#[tokio::test]
async fn rows_are_written_read_changed_and_deleted() {
    let Some(scene) = Scene::new().await else { return };
    let mut work = scene.begin().await;
    let created = work.create(&camera("a")).await.unwrap();
    assert_eq!(created, camera("a"), "with what is not stored");
    let read = work.get::<Camera>(&"a".to_owned()).await.unwrap().unwrap();
    assert_eq!(read, Camera { note: String::new(), ..camera("a") });

    let changed = Camera { complex: None, settings: json!(null), is_on: false, ..created.clone() };
    let updated = work.update(&changed).await.unwrap().unwrap();
    assert_eq!(updated, Camera { revision: 1, ..changed.clone() });
    assert_eq!(work.get_for_update::<Camera>(&"a".to_owned()).await.unwrap().unwrap().revision, 1);

    assert_eq!(work.update(&camera("b")).await.unwrap(), None);
    assert_eq!(work.delete(&camera("b")).await.unwrap(), None);
    assert_eq!(work.delete(&updated).await.unwrap(), Some(updated));
    assert_eq!(work.get::<Camera>(&"a".to_owned()).await.unwrap(), None);
    work.commit().await.unwrap();
    assert_eq!(scene.stored("a").await, None);
}

#[tokio::test]
async fn the_database_gives_keys() {
    let Some(scene) = Scene::new().await else { return };
    let mut work = scene.begin().await;
    let first = work.create(&order("ada")).await.unwrap();
    let more = work.create_many(&[order("bob"), order("cy")]).await.unwrap();
    assert!(first.id > 0 && more[0].id > first.id && more[1].id > more[0].id);
    assert_eq!(work.get::<Order>(&more[1].id).await.unwrap().unwrap().customer, "cy");
    assert_eq!(work.delete_key::<Order>(&first.id).await.unwrap(), Some(first));
    work.commit().await.unwrap();
}

#[tokio::test]
async fn rows_are_listed_by_equality_in_order_and_in_parts() {
    let Some(scene) = Scene::new().await else { return };
    let mut work = scene.begin().await;
    let mut cameras: Vec<_> = ["c", "a", "d", "b"].map(camera).into();
    cameras[0].complex = None;
    cameras[1].is_on = false;
    let stored = work.create_many(&cameras).await.unwrap();
    assert_eq!(stored, cameras, "in the order that they were given in");
    let ids = |cameras: Vec<Camera>| cameras.into_iter().map(|camera| camera.id).collect::<String>();
    let all = Filter::all;
    assert_eq!(ids(work.list(all()).await.unwrap()), "abcd");
    assert_eq!(ids(work.list(all().descending("id")).await.unwrap()), "dcba");
    assert_eq!(ids(work.list(all().eq("is_on", true).eq("complex", Some(12_i64))).await.unwrap()), "bd");
    assert_eq!(ids(work.list(all().eq("complex", None::<i64>)).await.unwrap()), "c");
    assert_eq!(ids(work.list(all().ascending("is_on").descending("mac_address")).await.unwrap()), "adcb");
    assert_eq!(ids(work.list(all().limit(2)).await.unwrap()), "ab");
    assert_eq!(ids(work.list(all().offset(3)).await.unwrap()), "d");
    assert_eq!(ids(work.list(all().descending("id").limit(2).offset(1)).await.unwrap()), "cb");
    assert_eq!(ids(work.list(all().eq("id", "nobody".to_owned())).await.unwrap()), "");
}

#[tokio::test]
async fn events_follow_the_commit_in_order_as_they_were_captured() {
    let Some(mut scene) = Scene::new().await else { return };
    let mut work = scene.begin().await;
    let mut first = camera("a");
    first = work.create(&first).await.unwrap();
    first.mac_address = "changed later".to_owned();
    work.create(&camera("b")).await.unwrap();
    first = work.update(&first).await.unwrap().unwrap();
    first.mac_address = "never stored".to_owned();
    work.delete(&first).await.unwrap();
    work.publish("camera.counted", &4).unwrap();
    assert_eq!(work.events().len(), 5);
    assert!(scene.cameras.get_message(None).now_or_never().is_none(), "nothing before the commit");
    work.commit().await.unwrap();
    let heard = heard(&mut scene.cameras, 5).await;
    let event = |text: &str| -> (String, serde_json::Value) {
        let (channel, payload) = text.split_once(' ').unwrap();
        (channel.to_owned(), serde_json::from_str(payload).unwrap())
    };
    let events: Vec<_> = heard.iter().map(|text| event(text)).collect();
    let channels: Vec<_> = events.iter().map(|(channel, _)| channel.as_str()).collect();
    assert_eq!(
        channels,
        ["camera.created", "camera.created", "camera.updated", "camera.deleted", "camera.counted"]
    );
    assert_eq!(events[0].1["mac_address"], "mac of a", "as it was at the call");
    assert_eq!(events[0].1["note"], "not stored");
    assert_eq!(events[2].1["mac_address"], "changed later");
    assert_eq!(events[2].1["previous"], json!({ "mac_address": "mac of a" }));
    assert_eq!(events[2].1["revision"], 1);
    assert_eq!(events[3].1["mac_address"], "changed later", "as it was in the table");
}

#[tokio::test]
async fn what_is_not_committed_is_not_published() {
    let Some(mut scene) = Scene::new().await else { return };
    let mut work = scene.begin().await;
    work.create(&camera("rolled back")).await.unwrap();
    work.rollback().await.unwrap();

    let mut work = scene.begin().await;
    work.create(&camera("dropped")).await.unwrap();
    drop(work);

    let (pool, messaging) = (scene.pool.clone(), scene.messaging.clone());
    let panicked = tokio::spawn(async move {
        let mut work = UnitOfWork::begin(&pool, &messaging).await.unwrap();
        work.create(&camera("panicked")).await.unwrap();
        panic!("on purpose");
    });
    assert!(panicked.await.unwrap_err().is_panic());

    let failed = UnitOfWork::run(&scene.pool, &scene.messaging, |work| {
        Box::pin(async move {
            work.create(&camera("failed")).await?;
            Err::<(), _>(work.get::<Lost>(&1).await.unwrap_err())
        })
    });
    failed.await.unwrap_err();

    nothing_heard(&scene.messaging, &mut scene.cameras).await;
    let all: Vec<Camera> = scene.begin().await.list(Filter::all()).await.unwrap();
    assert_eq!(all, []);

    let done = UnitOfWork::run(&scene.pool, &scene.messaging, |work| {
        Box::pin(async move { work.create(&camera("done")).await })
    });
    assert_eq!(done.await.unwrap(), camera("done"));
    assert_eq!(heard(&mut scene.cameras, 1).await.len(), 1);
}

#[tokio::test]
async fn after_an_operation_that_failed_nothing_is_committed() {
    let Some(mut scene) = Scene::new().await else { return };
    let mut work = scene.begin().await;
    work.create(&camera("a")).await.unwrap();
    let twice = work.create(&camera("a")).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::Conflict);
    assert!(twice.to_string().starts_with("insert a `Camera` in the table `cameras`: "), "{twice}");
    let source = std::error::Error::source(&twice).unwrap().downcast_ref::<sqlx::Error>().unwrap();
    assert!(source.as_database_error().unwrap().is_unique_violation());
    let error = work.commit().await.unwrap_err();
    assert!(
        error.to_string().starts_with("nothing is committed: an operation of this unit of work failed"),
        "{error}"
    );

    // The database may be so fast that it is done at once.
    let work = loop {
        let mut work = scene.begin().await;
        if work.create(&camera("b")).now_or_never().is_none() {
            break work;
        }
    };
    let error = work.commit().await.unwrap_err();
    assert!(error.to_string().contains("was dropped before its end"), "{error}");

    // A channel that cannot be.
    let mut orders = scene.messaging.subscribe("order.*").await.unwrap();
    let mut work = scene.begin().await;
    let error = work.create(&order("a customer with spaces")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidChannel);
    work.commit().await.unwrap_err();
    nothing_heard(&scene.messaging, &mut scene.cameras).await;
    assert!(orders.get_message(None).now_or_never().is_none());
    let all: Vec<Order> = scene.begin().await.list(Filter::all()).await.unwrap();
    assert_eq!(all, []);
}

#[tokio::test]
async fn a_version_keeps_changes_apart() {
    let Some(mut scene) = Scene::new().await else { return };
    let stored = scene.with_camera("a").await;
    let mut work = scene.begin().await;
    let updated = work.update(&Camera { weight: 2.0, ..stored.clone() }).await.unwrap().unwrap();
    assert_eq!(updated.revision, 1);
    work.commit().await.unwrap();
    heard(&mut scene.cameras, 1).await;

    for delete in [false, true] {
        let mut work = scene.begin().await;
        let old = Camera { weight: 3.0, ..stored.clone() };
        let error = if delete { work.delete(&old).await } else { work.update(&old).await }.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(
            error.to_string().contains("the `Camera` \"a\": it is not at this `revision` any more"),
            "{error}"
        );
        work.commit().await.unwrap_err();
    }
    nothing_heard(&scene.messaging, &mut scene.cameras).await;
    assert_eq!(scene.stored("a").await.unwrap().weight, 2.0);
}

#[tokio::test]
async fn bulk_changes_publish_for_every_row() {
    let Some(mut scene) = Scene::new().await else { return };
    let mut work = scene.begin().await;
    let cameras: Vec<_> = (0..1_200).map(|number| camera(&format!("{number:04}"))).collect();
    work.create_many(&cameras).await.unwrap();
    work.commit().await.unwrap();
    let created = heard(&mut scene.cameras, 1_200).await;
    assert!(
        created.iter().zip(&cameras).all(|(event, camera)| event.contains(&camera.mac_address)),
        "in order"
    );

    let mut work = scene.begin().await;
    let changed: Vec<Camera> = work
        .update_where(
            Filter::all().eq("complex", Some(12_i64)),
            Set::to("complex", Some(13_i64)).and("is_on", false),
        )
        .await
        .unwrap();
    assert_eq!(changed.len(), 1_200);
    assert!(changed.iter().all(|camera| camera.complex == Some(13) && !camera.is_on && camera.revision == 1));
    let none: Vec<Camera> = work
        .update_where(Filter::all().eq("complex", Some(12_i64)), Set::to("complex", None::<i64>))
        .await
        .unwrap();
    assert_eq!(none, []);
    let deleted: Vec<Camera> = work.delete_where(Filter::all().eq("id", "0007".to_owned())).await.unwrap();
    assert_eq!(deleted.len(), 1);
    work.commit().await.unwrap();
    let events = heard(&mut scene.cameras, 1_201).await;
    let updated = events.iter().filter(|event| {
        event.starts_with("camera.updated")
            && event.contains(r#""complex":13"#)
            && event.contains(r#""previous":{"#)
    });
    assert_eq!(updated.count(), 1_200);
    assert!(events[1_200].starts_with("camera.deleted"));
}

#[tokio::test]
async fn mistakes_name_the_model_and_the_column() {
    let Some(scene) = Scene::new().await else { return };
    let mut errors = Vec::new();
    let mut work = scene.begin().await;
    errors.push((work.create(&Lost { id: 1 }).await.unwrap_err(), ["`Lost`", "nowhere"]));
    let mut work = drop_and_begin(work, &scene).await;
    let strange = Strange { id: 0, customer: "c".into(), colour: "red".into() };
    errors.push((work.create(&strange).await.unwrap_err(), ["`Strange`", "colour"]));
    let mut work = drop_and_begin(work, &scene).await;
    errors.push((work.list::<Strange>(Filter::all()).await.unwrap_err(), ["`Strange`", "colour"]));
    let mut work = drop_and_begin(work, &scene).await;
    work.create(&order("ada")).await.unwrap();
    errors.push((work.list::<Mistyped>(Filter::all()).await.unwrap_err(), ["`Mistyped`", "`customer`"]));
    let unknown = work.list::<Camera>(Filter::all().eq("mac", "x".to_owned())).await.unwrap_err();
    errors.push((unknown, ["`Camera`", "no field `mac`; there are `id`, `mac_address`"]));
    let unknown = work.list::<Camera>(Filter::all().ascending("nobody")).await.unwrap_err();
    errors.push((unknown, ["`Camera`", "`nobody`"]));
    let wrong = work.list::<Camera>(Filter::all().eq("is_on", "yes".to_owned())).await.unwrap_err();
    errors.push((wrong, ["`Camera`", "`is_on`, whose type does not take TEXT"]));
    let json = work.list::<Camera>(Filter::all().eq("settings", "{}".to_owned())).await.unwrap_err();
    errors.push((json, ["`Camera`", "`settings`, which is stored as JSON"]));
    for field in ["id", "revision"] {
        let set: Set<Db> = match field {
            "id" => Set::to("id", "x".to_owned()),
            _ => Set::to("revision", 7_i64),
        };
        let error = work.update_where::<Camera>(Filter::all(), set).await.unwrap_err();
        errors.push((error, ["`Camera`", field]));
    }
    for (error, parts) in errors {
        assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
        assert!(parts.iter().all(|part| error.to_string().contains(part)), "{parts:?}: {error}");
    }
}

async fn drop_and_begin(work: UnitOfWork<'static, Db>, scene: &Scene) -> UnitOfWork<'static, Db> {
    work.rollback().await.unwrap();
    scene.begin().await
}

#[tokio::test]
async fn no_value_is_ever_a_part_of_a_statement() {
    let Some(mut scene) = Scene::new().await else { return };
    let evil = [
        "'; DROP TABLE cameras; --",
        "\" OR 1=1 --",
        "` OR `1`=`1",
        "$1",
        "?",
        "\\'",
        "x' OR 'x'='x",
        "\u{1f4a3}",
    ];
    let mut work = scene.begin().await;
    for text in evil {
        let mut model = camera(text);
        model.settings = json!({ text: text });
        work.create(&model).await.unwrap();
    }
    for text in evil {
        let found: Vec<Camera> = work.list(Filter::all().eq("id", text.to_owned())).await.unwrap();
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(found[0].settings, json!({ text: text }));
        let changed: Vec<Camera> = work
            .update_where(
                Filter::all().eq("id", text.to_owned()),
                Set::to("mac_address", format!("{text}{text}")),
            )
            .await
            .unwrap();
        assert_eq!((changed.len(), &changed[0].mac_address), (1, &format!("{text}{text}")));
    }
    let none: Vec<Camera> = work.delete_where(Filter::all().eq("id", "' OR ''='".to_owned())).await.unwrap();
    assert_eq!(none, []);
    work.commit().await.unwrap();
    heard(&mut scene.cameras, evil.len() * 2).await;
    // Names that are none of the model's are refused before anything is written.
    for field in ["id\" OR 1=1", "id` --", "id; DROP TABLE cameras", "*", ""] {
        let mut work = scene.begin().await;
        work.list::<Camera>(Filter::all().eq(field, 1_i64)).await.unwrap_err();
        work.list::<Camera>(Filter::all().descending(field)).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_transaction_of_somebody_else_can_be_used() {
    let Some(mut scene) = Scene::new().await else { return };
    let transaction = scene.pool.begin().await.unwrap();
    let mut work = UnitOfWork::of_transaction(transaction, &scene.messaging);
    sqlx::query("INSERT INTO orders (customer, state) VALUES ('ada', 'new')")
        .execute(work.connection())
        .await
        .unwrap();
    work.capture(Op::Create, &camera("by hand")).unwrap();
    work.capture_changed(&camera("old"), &camera("new")).unwrap();
    work.commit().await.unwrap();
    let events = heard(&mut scene.cameras, 2).await;
    assert!(events[0].starts_with("camera.created") && events[0].contains("by hand"), "{events:?}");
    assert!(
        events[1].starts_with("camera.updated")
            && events[1].contains(r#""previous":{"mac_address":"mac of old"}"#)
    );

    let mut connection = scene.pool.acquire().await.unwrap();
    let mut work = UnitOfWork::on_connection(&mut *connection, &scene.messaging).await.unwrap();
    work.create(&camera("on a connection")).await.unwrap();
    drop(work);
    let mut work = UnitOfWork::on_connection(&mut *connection, &scene.messaging).await.unwrap();
    work.create(&camera("kept")).await.unwrap();
    work.commit().await.unwrap();
    drop(connection);
    assert!(heard(&mut scene.cameras, 1).await[0].contains("kept"));
    assert_eq!(scene.begin().await.list::<Camera>(Filter::all()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_part_of_a_transaction_with_an_outbox_shares_its_fate() {
    use sqlx::Connection as _;

    let Some(mut scene) = Scene::new().await else { return };
    for is_kept in [false, true] {
        let mut whole = scene.pool.begin().await.unwrap();
        let part = whole.begin().await.unwrap();
        let mut work = UnitOfWork::of_transaction(part, &scene.messaging).with_outbox();
        work.create(&camera("a")).await.unwrap();
        work.commit().await.unwrap();
        if is_kept { whole.commit().await } else { whole.rollback().await }.unwrap();
        let published = OutboxRelay::new(&scene.pool).work_off(&scene.messaging).await.unwrap();
        assert_eq!(published, u64::from(is_kept));
    }
    assert_eq!(heard(&mut scene.cameras, 1).await.len(), 1);
    let mut transaction = scene.pool.begin().await.unwrap();
    UnitOfWork::on_connection(&mut *transaction, &scene.messaging).await.unwrap_err();
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_keep_the_commit_from_its_end() {
    let Some(mut scene) = Scene::new().await else { return };
    let mut work = scene.begin().await;
    work.create(&camera("a")).await.unwrap();
    assert!(work.commit().now_or_never().is_none(), "it was on its way");
    assert!(heard(&mut scene.cameras, 1).await[0].starts_with("camera.created"));
    assert!(scene.stored("a").await.is_some());
}

#[tokio::test]
async fn a_publish_that_fails_undoes_nothing_and_is_counted() {
    let Some(mut scene) = Scene::new().await else { return };
    let mut work = scene.begin().await;
    let large = Camera { settings: json!("x".repeat(2_000_000)), ..camera("large") };
    work.create(&large).await.unwrap();
    work.create(&camera("small")).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(scene.messaging.health().lost_events, 1);
    assert!(heard(&mut scene.cameras, 1).await[0].contains("small"));
    assert_eq!(scene.stored("large").await.unwrap().settings, large.settings);
}

#[tokio::test]
async fn a_repository_keeps_its_models_in_tables() {
    let Some(mut scene) = Scene::new().await else { return };
    let cameras = Repository::new(SqlStorage::new(&scene.pool), &scene.messaging);
    let cameras = cameras.on_publish_failure(PublishFailure::Return);
    let created = cameras.create(camera("a")).await.unwrap();
    let updated = cameras.update(Camera { mac_address: "other".into(), ..created }).await.unwrap().unwrap();
    assert_eq!(updated.revision, 1);
    assert_eq!(cameras.get::<Camera>(&"a".to_owned()).await.unwrap().unwrap().mac_address, "other");
    assert_eq!(cameras.list::<Camera>().await.unwrap().len(), 1);
    assert_eq!(cameras.delete::<Camera>("a".to_owned()).await.unwrap().unwrap().mac_address, "other");
    assert_eq!(cameras.delete::<Camera>("a".to_owned()).await.unwrap(), None);
    let heard = heard(&mut scene.cameras, 3).await;
    assert!(heard[1].contains(r#""previous":{"mac_address":"mac of a"}"#), "{heard:?}");
    let conflict = async {
        let created = cameras.create(camera("b")).await.unwrap();
        cameras.update(created.clone()).await.unwrap();
        cameras.update(created).await.unwrap_err()
    };
    let conflict = conflict.await;
    let source =
        std::error::Error::source(&conflict).unwrap().downcast_ref::<messaging_core::Error>().unwrap();
    assert_eq!(source.kind(), ErrorKind::Conflict, "{conflict}");
}

#[tokio::test]
async fn the_outbox_has_what_was_committed() {
    let Some(mut scene) = Scene::new().await else { return };
    let relay = OutboxRelay::new(&scene.pool);
    assert_eq!(relay.work_off(&scene.messaging).await.unwrap(), 0);
    let mut work = scene.begin().await.with_outbox();
    work.create(&camera("gone")).await.unwrap();
    work.rollback().await.unwrap();
    let mut work = scene.begin().await.with_outbox();
    let created = work.create(&camera("a")).await.unwrap();
    work.update(&created).await.unwrap();
    work.publish("camera.counted", &json!({ "cameras": 1 })).unwrap();
    let ids: Vec<_> = work.events().iter().map(|event| event.id().to_owned()).collect();
    work.commit().await.unwrap();
    let outbox = Outbox::new(&scene.pool);
    assert_eq!(outbox.stats().await.unwrap().waiting, 3);
    assert!(scene.cameras.get_message(None).now_or_never().is_none(), "nothing before the relay");

    assert_eq!(relay.work_off(&scene.messaging).await.unwrap(), 3);
    let heard = heard(&mut scene.cameras, 3).await;
    let channels: Vec<_> = heard.iter().map(|event| event.split(' ').next().unwrap()).collect();
    assert_eq!(channels, ["camera.created", "camera.updated", "camera.counted"]);
    let stats = outbox.stats().await.unwrap();
    assert_eq!((stats.waiting, stats.oldest_ms), (0, None));
    assert_eq!(ids.len(), 3);
    let again = relay.work_off(&scene.messaging).await.unwrap();
    assert_eq!(again, 0);
    nothing_heard(&scene.messaging, &mut scene.cameras).await;
}

#[tokio::test]
async fn an_event_that_cannot_be_published_holds_up_only_its_own_row() {
    let Some(mut scene) = Scene::new().await else { return };
    let backoff = messaging_core::Backoff {
        initial: std::time::Duration::from_secs(3600),
        max: std::time::Duration::from_secs(3600),
    };
    let relay = OutboxRelay::new(&scene.pool).backoff(backoff);
    let mut work = scene.begin().await.with_outbox();
    let large = Camera { settings: json!("x".repeat(2_000_000)), ..camera("large") };
    let large = work.create(&large).await.unwrap();
    let small = work.create(&camera("small")).await.unwrap();
    let large = work.update(&Camera { settings: json!("short again"), ..large }).await.unwrap().unwrap();
    work.update(&small).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(relay.work_off(&scene.messaging).await.unwrap(), 2);
    let events = heard(&mut scene.cameras, 2).await;
    assert!(events.iter().all(|event| event.contains("small")), "{events:?}");
    let mut work = scene.begin().await.with_outbox();
    work.delete(&large).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(relay.work_off(&scene.messaging).await.unwrap(), 0, "what comes later waits too");

    let outbox = Outbox::new(&scene.pool);
    let failing = outbox.failing(1, 10).await.unwrap();
    assert_eq!((failing.len(), failing[0].attempts), (1, 1));
    assert!(failing[0].error.as_deref().unwrap().contains("the limit is"), "{failing:?}");
    assert!(PendingEvent::from_json(&failing[0].event).is_ok());
    let stats = outbox.stats().await.unwrap();
    assert_eq!((stats.waiting, stats.failing), (3, 1));
    assert!(outbox.retry(&failing[0].id).await.unwrap());
    assert_eq!(relay.work_off(&scene.messaging).await.unwrap(), 0);
    assert_eq!(outbox.failing(1, 10).await.unwrap()[0].attempts, 2, "it was tried again");
    assert!(outbox.discard(&failing[0].id).await.unwrap());
    assert!(!outbox.discard(&failing[0].id).await.unwrap());
    assert!(!outbox.retry("nobody").await.unwrap());
    assert_eq!(relay.work_off(&scene.messaging).await.unwrap(), 2);
    let events = heard(&mut scene.cameras, 2).await;
    assert!(events[0].starts_with("camera.updated") && events[1].starts_with("camera.deleted"), "{events:?}");
}

#[tokio::test]
async fn what_is_held_up_stays_so_however_much_is_claimed_with_it() {
    let Some(mut scene) = Scene::new().await else { return };
    let mut work = scene.begin().await.with_outbox();
    let sized = |id: &str, bytes: usize| Camera { settings: json!("x".repeat(bytes)), ..camera(id) };
    let held_up = work.create(&sized("held up", 2_000_000)).await.unwrap();
    // More than is published together.
    for number in 0..4 {
        work.create(&sized(&format!("large {number}"), 900_000)).await.unwrap();
    }
    work.update(&Camera { settings: json!("short"), ..held_up }).await.unwrap();
    work.commit().await.unwrap();
    let relay = OutboxRelay::new(&scene.pool);
    assert_eq!(relay.work_off(&scene.messaging).await.unwrap(), 4);
    let events = heard(&mut scene.cameras, 4).await;
    assert!(events.iter().all(|event| event.contains("large ")));
    assert_eq!(Outbox::new(&scene.pool).stats().await.unwrap().waiting, 2);
}

#[tokio::test]
async fn a_relay_runs_beside_the_handlers() {
    let Some(mut scene) = Scene::new().await else { return };
    // So long that only being told can wake it.
    let relay = OutboxRelay::new(&scene.pool).poll_every(std::time::Duration::from_secs(3600));
    scene.messaging.attach(relay).unwrap();
    let running = scene.messaging.start().await.unwrap();
    for number in 0..20 {
        let mut work = scene.begin().await.with_outbox();
        work.create(&camera(&number.to_string())).await.unwrap();
        work.commit().await.unwrap();
        assert!(heard(&mut scene.cameras, 1).await[0].starts_with("camera.created"));
    }
    let health = scene.messaging.health();
    assert!(health.is_ready(), "{health:?}");
    assert_eq!(health.services[0].name, "outbox relay");
    eventually("it counts", async || {
        (scene.messaging.health().services[0].details["published"] == 20).then_some(())
    })
    .await;
    let report = running.shutdown(std::time::Duration::from_secs(10)).await;
    assert!(report.is_complete(), "{report}");
    // An outbox needs nobody to publish.
    let mut work = scene.begin().await.with_outbox();
    work.create(&camera("later")).await.unwrap();
    work.commit().await.unwrap();
    assert_eq!(Outbox::new(&scene.pool).stats().await.unwrap().waiting, 1);
    let mut work = scene.begin().await;
    work.create(&camera("never")).await.unwrap();
    assert_eq!(work.commit().await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(scene.stored("never").await.is_none(), "a change that nobody can hear of is not made");
}

#[tokio::test]
async fn health_warns_of_events_that_are_stuck() {
    let Some(scene) = Scene::new().await else { return };
    let mut work = scene.begin().await.with_outbox();
    let large = Camera { settings: json!("x".repeat(2_000_000)), ..camera("large") };
    work.create(&large).await.unwrap();
    work.commit().await.unwrap();
    scene.messaging.attach(OutboxRelay::new(&scene.pool).stuck_after(1)).unwrap();
    let _running = scene.messaging.start().await.unwrap();
    eventually("health warns", async || {
        let health = scene.messaging.health();
        let warns = |warning: &String| warning.starts_with("outbox relay: 1 events cannot be published");
        (health.warnings.iter().any(warns) && health.services[0].details["stuck"] == 1).then_some(())
    })
    .await;
    assert!(scene.messaging.health().is_ready(), "it works off what can be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_share_the_work_in_order() {
    let Some(scene) = Scene::new().await else { return };
    let mut orders = scene.messaging.subscribe("order.updated").await.unwrap();
    let mut work = scene.begin().await.with_outbox();
    let made = work
        .create_many(&(0..20).map(|number| order(&format!("c{number}"))).collect::<Vec<_>>())
        .await
        .unwrap();
    work.commit().await.unwrap();
    let ids: Vec<i64> = made.iter().map(|order| order.id).collect();
    let written = Arc::new(AtomicBool::new(false));
    let relays = (0..4).map(|_| {
        let (pool, messaging) = (scene.pool.clone(), scene.messaging.clone());
        let written = Arc::clone(&written);
        tokio::spawn(async move {
            let relay = OutboxRelay::new(&pool)
                .batch(7.try_into().unwrap())
                .keep_published(std::time::Duration::ZERO);
            loop {
                let all_written = written.load(Ordering::SeqCst);
                relay.work_off(&messaging).await.unwrap();
                if all_written && Outbox::new(&pool).stats().await.unwrap().waiting == 0 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let relays: Vec<_> = relays.collect();
    for round in 0..25 {
        let mut work = scene.begin().await.with_outbox();
        for id in &ids {
            let order = Order { id: *id, customer: "c".into(), state: round.to_string() };
            work.update(&order).await.unwrap().unwrap();
        }
        work.commit().await.unwrap();
    }
    written.store(true, Ordering::SeqCst);
    let mut last = std::collections::HashMap::new();
    for _ in 0..500 {
        let message = orders.get_message(crate::place::PATIENCE).await.unwrap().expect("an event");
        let order: Order = message.json().unwrap();
        let (round, before) =
            (order.state.parse::<i32>().unwrap(), last.insert(order.id, order.state.clone()));
        assert_eq!(
            round,
            before.map_or(0, |before| before.parse::<i32>().unwrap() + 1),
            "order {}",
            order.id
        );
    }
    for relay in relays {
        soon(relay).await.unwrap();
    }
    assert!(orders.get_message(None).now_or_never().is_none());
}

#[tokio::test]
async fn durable_events_keep_their_id() {
    let Some(scene) = Scene::new().await else { return };
    let place = Place::memory();
    let builder = place.builder().durable("camera.*", messaging_core::Retention::DEFAULT);
    let messaging = builder.build().await.unwrap();
    let mut work = UnitOfWork::begin(&scene.pool, &messaging).await.unwrap().with_outbox();
    work.create(&camera("a")).await.unwrap();
    let id = work.events()[0].id().to_owned();
    work.commit().await.unwrap();
    // Published twice, as after a crash.
    let relay = OutboxRelay::new(&scene.pool);
    relay.work_off(&messaging).await.unwrap();
    sqlx::query("UPDATE messaging_outbox SET published_ms = NULL, free_ms = 0")
        .execute(&scene.pool)
        .await
        .unwrap();
    relay.work_off(&messaging).await.unwrap();
    let past = messaging.history("camera.created").await.unwrap();
    let ids: Vec<_> = past.iter().map(|message| message.event_id().as_str().to_owned()).collect();
    assert_eq!(ids, [id.clone(), id]);
}

#[tokio::test]
async fn what_was_published_is_removed_in_time() {
    let Some(scene) = Scene::new().await else { return };
    for keep in [std::time::Duration::ZERO, std::time::Duration::from_secs(3600)] {
        let mut work = scene.begin().await.with_outbox();
        work.create(&camera(&format!("{keep:?}"))).await.unwrap();
        work.commit().await.unwrap();
        OutboxRelay::new(&scene.pool).keep_published(keep).work_off(&scene.messaging).await.unwrap();
        let rows = sqlx::query("SELECT 1 FROM messaging_outbox").fetch_all(&scene.pool).await.unwrap();
        assert_eq!(rows.len(), usize::from(!keep.is_zero()));
    }
    sqlx::query("UPDATE messaging_outbox SET published_ms = 1").execute(&scene.pool).await.unwrap();
    scene.messaging.attach(OutboxRelay::new(&scene.pool)).unwrap();
    let _running = scene.messaging.start().await.unwrap();
    eventually("it is gone", async || {
        let rows = sqlx::query("SELECT 1 FROM messaging_outbox").fetch_all(&scene.pool).await.unwrap();
        rows.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_table_can_be_made_by_several_at_once() {
    let Some(home) = home().await else { return };
    let pool = home.pool.clone();
    let made = futures_util::future::join_all((0..4).map(|_| messaging_sql::migrate(&pool))).await;
    assert!(made.into_iter().all(|made| made.is_ok()));
    assert_eq!(Outbox::new(&pool).stats().await.unwrap().waiting, 0);
}

#[tokio::test]
async fn without_the_table_the_error_says_what_to_do() {
    let Some(home) = home().await else { return };
    let pool = home.pool.clone();
    let error = Outbox::new(&pool).stats().await.unwrap_err();
    assert!(error.to_string().contains("has `messaging_sql::migrate(&pool)` been called?"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_wait_for_each_other() {
    let Some(scene) = Scene::new().await else { return };
    sqlx::query("INSERT INTO orders (customer, state) VALUES ('all', '0')")
        .execute(&scene.pool)
        .await
        .unwrap();
    let all: Vec<Order> = scene.begin().await.list(Filter::all()).await.unwrap();
    let id = all[0].id;
    let writers = (0..20).map(|_| {
        let (pool, messaging) = (scene.pool.clone(), scene.messaging.clone());
        tokio::spawn(async move {
            for _ in 0..10 {
                let mut work = UnitOfWork::begin(&pool, &messaging).await.unwrap();
                let mut order = work.get_for_update::<Order>(&id).await.unwrap().unwrap();
                order.state = (order.state.parse::<u32>().unwrap() + 1).to_string();
                work.update(&order).await.unwrap();
                work.commit().await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        soon(writer).await.unwrap();
    }
    assert_eq!(scene.begin().await.get::<Order>(&id).await.unwrap().unwrap().state, "200");
}
