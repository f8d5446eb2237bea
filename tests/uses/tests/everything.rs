//! Every attribute with every option, as a service would use it; those of durable channels are in `durable.rs`.
#![deny(warnings, clippy::all)]
// What it tries out on purpose.
#![allow(clippy::needless_arbitrary_self_type, clippy::too_many_arguments)]

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use messaging_core::{
    Attempt, Channel, ChannelOf, Context, HandlerError, Messaging, Raw, State, channel, event_config,
    redis_cache, subscribe, subscribers,
};
use serde::{Deserialize, Serialize};

mod lower_case {
    // A generic one, as `serde_with` has them: it must see the field itself, not a reference to it.
    pub fn serialize<T: AsRef<str>, S: serde::Serializer>(
        text: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text.as_ref().to_lowercase())
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[event_config(
    publish = {
        create = "camera.created",
        update = ["camera.updated", "tenant:{tenant_id}:camera"],
        delete = "camera.deleted",
    },
    payload_fields = [id, mac_address, r#type, count, extra],
    previous = [mac_address, count],
    cache = { key = "camera:mac:{mac_address}", ttl = "1h", fields = [id, secret] },
    id = "cameras",
)]
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub struct Camera {
    pub id: u64,
    pub tenant_id: Option<u64>,
    #[serde(serialize_with = "lower_case::serialize", default)]
    pub mac_address: String,
    #[serde(rename = "model", alias = "type")]
    pub r#type: String,
    #[serde(skip_serializing_if = "is_default", default)]
    pub count: u32,
    #[serde(flatten)]
    pub extra: HashMap<String, u8>,
    secret: String,
    #[cfg(any())]
    pub absent: Absent,
}

#[event_config(
    publish = { create = "monitor.created", update = ["monitor:update", "tenant:{tenant_id}:update"] },
    envelope = { resource = "monitor", id = id, tenant = tenant_id, metadata = [active, slug] },
    previous = [slug],
    cache = { key = "monitor:{id}", ttl = 60 },
)]
#[derive(Serialize)]
pub struct Monitor {
    id: u64,
    tenant_id: Option<String>,
    active: bool,
    slug: String,
}

// Neither Serialize nor anything else is needed beyond what is published.
#[event_config(publish = { delete = "session.deleted" }, envelope = { resource = "session", id = token })]
pub struct Session {
    token: String,
}

#[event_config(publish = { update = "whole.updated" }, previous = [name])]
#[derive(Serialize)]
pub struct Whole {
    name: String,
}

#[event_config(publish = { update = "tree.updated" }, payload_fields = [children])]
pub struct Tree {
    children: Vec<Leaf<Self>>,
}

#[derive(Serialize)]
pub struct Leaf<T>(std::marker::PhantomData<T>);

#[channel("auditlog:{user_id}.{level}", id = "audit")]
pub struct AuditLog {
    pub level: String,
    pub user_id: u64,
}

#[channel("log:{rest*}")]
pub struct Log {
    pub rest: String,
}

#[channel("heartbeat")]
pub struct Heartbeat;

pub struct Mailer;

#[derive(Debug)]
pub struct AppError;

impl std::fmt::Display for AppError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the application's error")
    }
}

impl std::error::Error for AppError {}

#[derive(Deserialize)]
pub struct CameraEvent<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// Documentation stays.
#[subscribe("camera.settings.updated")]
async fn notify_admins(event: Camera, _mailer: State<Mailer>) -> Result<(), AppError> {
    if event.id == 0 { Err(AppError) } else { Ok(()) }
}

#[subscribe(
    ["camera.events.complex:{complex_id}.{_kind}", "camera.old.{_kind}:{complex_id}"],
    workers = 8,
    ordered_by = complex_id,
    buffer = { messages = 500, bytes = "8MiB" },
    overflow = "drop_oldest",
    timeout = "5s",
    retry = { attempts = 5, initial = "100ms", multiplier = 2.0, max_delay = "30s" },
    resync = reload,
    resync_every = "30s",
    id = "on_complex",
)]
pub async fn on_complex<'a>(
    complex_id: u64,
    mut event: CameraEvent<'a>,
    channel: Channel,
) -> Result<(), HandlerError> {
    event.name = Cow::Owned(format!("{complex_id}{channel}"));
    if event.name.is_empty() {
        return Err(HandlerError::skip("no name"));
    }
    Err("text is an error, too")?;
    Ok(())
}

async fn reload(_mailer: State<Mailer>, _context: Context, _messaging: Messaging) -> Result<(), AppError> {
    Ok(())
}

#[subscribe(AuditLog, workers = 2, ordered_by = channel, buffer = 10, overflow = "block", retry = { attempts = 1 })]
async fn audit(log: ChannelOf<AuditLog>, Raw(bytes): Raw, _: Attempt) -> Result<(), String> {
    if log.user_id == 0 || bytes.is_empty() { Err(log.level.clone()) } else { Ok(()) }
}

#[subscribe("events.*", overflow = "wait", buffer = { messages = 5 })]
#[subscribe("other.*", id = "other_events")]
async fn on_event(_: serde_json::Value, _: Context) {}

#[subscribe("user:{name}", retry = { initial = 0, max_delay = 0 })]
async fn on_user(name: &str) {
    let _ = name.len();
}

#[subscribe("never")]
#[cfg(any())]
async fn never(absent: Absent) {}

pub struct Notifications {
    sent: std::sync::atomic::AtomicU64,
}

#[subscribers]
impl Notifications {
    #[subscribe("notifications:{user}", resync = Self::reload)]
    #[subscribe("notes:{user}", id = "notes")]
    async fn handle(&self, user: &str, message: Camera) -> Result<(), AppError> {
        let _ = (user, message);
        self.sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    #[subscribe("wake")]
    #[cfg(any())]
    async fn wake(&self, absent: Absent) {}

    async fn reload(_this: State<Self>) {}
}

pub struct Projection<T>(T);

pub trait Store: Send + Sync + 'static {
    type Event: serde::de::DeserializeOwned + Send;
    type Error: std::error::Error + Send + Sync;
}

#[subscribers(manual)]
impl<T> Projection<T>
where
    T: Store,
{
    #[subscribe("orders.created")]
    async fn apply(&self, order: T::Event, _this: State<Self>) -> Result<(), T::Error> {
        let _ = (&self.0, order);
        Ok(())
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub struct User {
    id: u64,
}

/// Documentation stays.
#[redis_cache(key = "user:{name}", ttl = 3600, invalidate_on = ["user.updated", "users.*", "user:{name}"])]
#[expect(clippy::needless_return)]
pub async fn get_user(name: &str, mut tries: u32) -> Result<User, AppError> {
    tries += 1;
    let id = name.parse().map_err(|_| AppError)?;
    if tries > 9 {
        return Err(AppError);
    }
    return Ok(User { id });
}

#[redis_cache(
    key = "camera:{user.id}:{mac_address}",
    ttl = "1h",
    prefix = "v2",
    jitter = "5%",
    cache_none = "30s",
    invalidate_on = [
        "camera.updated",
        { on = "monitor:update", mac_address = resource_id, user.id = metadata.owner },
        { on = Camera(update, delete), user.id = id },
    ],
    id = "camera_of",
)]
async fn camera_of<'a>(user: &'a User, mac_address: &'a str) -> Option<User> {
    (mac_address.len() > 2).then(|| user.clone())
}

// The key alone uses these arguments.
#[redis_cache(key = "{tenant}:{user.id}", ttl = 60)]
async fn only_in_the_key(tenant: u64, user: &User) -> u64 {
    1
}

// What `Self` means in an item of the body's own is no concern of ours.
#[redis_cache(key = "nested", ttl = 60)]
async fn nested() -> u64 {
    struct Local(u64);
    impl Local {
        fn new() -> Self {
            Self(1)
        }
    }
    Local::new().0
}

// Everything that `stale` can keep: copies of what is behind references, the rest as it is.
#[redis_cache(
    key = "everything:{name}:{user.id}",
    ttl = "1h",
    stale = "5m",
    wait = "500ms",
    local = { ttl = "5s", max = 500 },
    cache_none = 1,
)]
async fn outlived<'a>(
    name: &'a str,
    user: &User,
    path: &std::path::Path,
    names: &[String],
    fixed: &'static str,
    mut cell: Cell<u64>,
    NotClone(number): NotClone,
    maybe: Option<String>,
    call: Arc<dyn Fn(&str) -> u64 + Send + Sync>,
    pointer: fn(&str) -> &str,
) -> Result<Option<User>, AppError> {
    *cell.get_mut() += number;
    let known: &'static str = fixed;
    if names.iter().any(|it| it == known) || path.is_absolute() {
        return Err(AppError);
    }
    Ok(maybe.map(|it| User { id: user.id + cell.get() + call(pointer(&it)) + name.len() as u64 }))
}

pub struct NotClone(u64);

// The words alone, and with values in Redis that outlive those in the process.
#[redis_cache(key = "wait", ttl = 60, wait = 1)]
async fn with_wait() -> u64 {
    1
}

#[redis_cache(key = "local", ttl = 60, local = 60)]
async fn with_local() -> Result<Vec<Cow<'static, str>>, AppError> {
    Ok(vec![])
}

#[redis_cache(key = "all", ttl = 60, local = 60, stale = 60)]
async fn with_all(text: Cow<'static, str>, fixed: &'static str) -> Option<Cow<'static, str>> {
    Some(text + fixed)
}

#[redis_cache(key = "stale", ttl = 60, stale = "1d")]
async fn with_stale(Pair(first, second): Pair) -> u64 {
    first + second
}

pub struct Pair(u64, u64);

#[derive(Clone)]
pub struct Shared {
    tenant: u64,
}

impl Shared {
    #[redis_cache(key = "shared:{self.tenant}:{user.id}", ttl = 60, stale = 60, local = 5)]
    pub async fn by_reference(&self, user: &User, (first, _): (u32, u32)) -> Result<User, AppError> {
        Ok(User { id: self.tenant + user.id + u64::from(first) })
    }

    #[redis_cache(key = "shared a:{self.tenant}", ttl = 60, stale = 60)]
    async fn of_a_lifetime<'a>(&'a self, other: &'a Self) -> u64 {
        self.tenant + other.tenant
    }

    #[redis_cache(key = "shared b:{self.tenant}", ttl = 60, stale = 60)]
    async fn by_value(mut self) -> u64 {
        self.tenant += 1;
        self.tenant
    }

    #[redis_cache(key = "shared c:{self.tenant}", ttl = 60, stale = 60)]
    async fn typed(self: &Self) -> u64 {
        self.tenant
    }

    #[redis_cache(key = "shared d", ttl = 60, stale = 60)]
    async fn of_nobody(name: &str) -> usize {
        name.len() + size_of::<Self>()
    }
}

// Without `Clone`, what is shared is the pointer.
impl Cameras {
    #[redis_cache(key = "arc:{self.tenant}", ttl = 60, stale = 60)]
    async fn by_arc(self: Arc<Self>) -> u64 {
        self.tenant
    }

    #[redis_cache(key = "ref arc:{self.tenant}", ttl = 60, stale = 60)]
    async fn by_ref_arc(self: &Arc<Self>, name: &str) -> usize {
        name.len()
    }

    #[redis_cache(key = "box:{self.tenant}", ttl = 60, stale = 60)]
    async fn by_box(self: Box<Self>) -> u64 {
        self.tenant
    }

    #[redis_cache(key = "static:{self.tenant}", ttl = 60, stale = 60)]
    async fn by_static(&'static self) -> u64 {
        self.tenant
    }
}

pub struct Cameras {
    tenant: u64,
}

impl Cameras {
    #[redis_cache(key = "camera:{self.tenant}:{mac_address}", ttl = 60, cache_none = 1, invalidate_on = ["cameras"])]
    pub async fn get(&self, mac_address: &str, (first, _): (u32, u32)) -> Result<Option<User>, AppError> {
        if first == 0 {
            return Ok(None);
        }
        let id = mac_address.parse::<u64>().map_err(|_| AppError)?;
        Ok(Some(User { id: self.tenant + id }))
    }

    #[redis_cache(key = "other:{tenant}", ttl = 60)]
    async fn only_in_the_key(&self, tenant: u64) -> u64 {
        1
    }

    #[redis_cache(key = "by value:{self.tenant}", ttl = 60)]
    async fn by_value(mut self) -> u64 {
        self.tenant += 1;
        self.tenant
    }

    #[redis_cache(key = "exclusive:{self.tenant}", ttl = 60)]
    async fn exclusive(&mut self) -> u64 {
        self.tenant += 1;
        self.tenant
    }

    #[redis_cache(key = "cameras", ttl = 60)]
    async fn count() -> Result<u64, AppError> {
        Ok(Self::ONE)
    }

    #[redis_cache(key = "in a macro", ttl = 60)]
    async fn in_a_macro() -> String {
        format!("{}", Self::ONE)
    }

    const ONE: u64 = 1;
}

trait Fetch {
    async fn fetch(&self, id: u64) -> Result<User, AppError>;
}

impl Fetch for Cameras {
    #[redis_cache(key = "camera:{id}", ttl = 60, local = 5, wait = 1, invalidate_on = [Camera(delete)], companions = false)]
    async fn fetch(&self, id: u64) -> Result<User, AppError> {
        let user: User = serde_json::from_str("{\"id\":1}").map_err(|_| AppError)?;
        if id > self.tenant {
            return Ok(user);
        }
        Err(AppError)
    }
}

// Text without a fraction of a second, a value that is neither, and a function inside of another.
fn local_functions() {
    #[redis_cache(key = "local", ttl = "90m")]
    async fn local() -> Cow<'static, str> {
        Cow::Borrowed("local")
    }

    #[subscribe("local")]
    async fn on_local() {}

    is_send(local());
    is_send(local::refresh());
}

fn is_send<F: Send>(_: F) {}

mod elsewhere {
    pub(crate) use super::camera_of;
    pub use super::get_user;
}

fn main() {
    local_functions();
    let cameras = Cameras { tenant: 1 };
    let user = User { id: 1 };
    is_send(elsewhere::get_user("a", 1));
    is_send(elsewhere::get_user::refresh("a", 1));
    is_send(elsewhere::get_user::invalidate("a"));
    assert_eq!(elsewhere::get_user::key("a").unwrap(), "user:a");
    is_send(elsewhere::camera_of(&user, "AA"));
    is_send(camera_of::refresh(&user, "AA"));
    is_send(camera_of::invalidate(7_u64, "AA"));
    assert_eq!(camera_of::key("seven", "AA").unwrap(), "v2:camera:seven:AA");
    is_send(cameras.get("AA", (1, 2)));
    is_send(cameras.get_refresh("AA", (1, 2)));
    let _ = Cameras::get_cache();
    is_send(Cameras::count());
    is_send(Cameras::count_refresh());
    let _ = Cameras::count_cache();
    is_send(cameras.fetch(1));
    is_send(only_in_the_key(1, &user));
    is_send(nested());
    is_send(Cameras::in_a_macro());
    is_send(cameras.only_in_the_key(1));
    is_send(Cameras { tenant: 1 }.exclusive());
    is_send(cameras.by_value());
    is_send(outlived::invalidate_all());
    is_send(outlived::invalidate("a", 1));
    let shared = Shared { tenant: 1 };
    is_send(shared.by_reference(&user, (1, 2)));
    is_send(shared.by_reference_refresh(&user, (1, 2)));
    is_send(Shared::by_reference_cache().invalidate_all());
    is_send(shared.of_a_lifetime(&shared));
    is_send(shared.typed());
    is_send(shared.clone().by_value());
    is_send(Shared::of_nobody("a"));
    is_send(Arc::new(Cameras { tenant: 1 }).by_ref_arc("a"));
    is_send(Arc::new(Cameras { tenant: 1 }).by_arc());
    is_send(Box::new(Cameras { tenant: 1 }).by_box());
    is_send(Cameras::by_static(Box::leak(Box::new(Cameras { tenant: 1 }))));
    is_send(with_wait());
    is_send(with_local());
    is_send(with_local::refresh());
    is_send(with_all("a".into(), "b"));
    is_send(with_all::refresh("a".into(), "b"));
    is_send(with_stale(Pair(1, 2)));
    is_send(outlived(
        "a",
        &user,
        "b".as_ref(),
        &[],
        "c",
        Cell::new(1),
        NotClone(1),
        None,
        Arc::new(|it| it.len() as u64),
        |it| it,
    ));
    let _ = (notify_admins, audit, on_event, on_user, Notifications::handle, Monitor::fields, Heartbeat);
}

impl Monitor {
    fn fields(&self) -> (u64, &Option<String>, bool, &str) {
        (self.id, &self.tenant_id, self.active, &self.slug)
    }
}
