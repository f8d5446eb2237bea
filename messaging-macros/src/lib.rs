//! The attributes of `messaging-core`: models that publish, handlers that start at boot, typed channels, cached functions;
//! and that of `messaging-gateway`: what clients subscribe to.
//!
//! They are used through `messaging_core` and `messaging_gateway`, which re-export them; this crate knows these only as
//! paths, and so it does `messaging_sql`, for models with a table. It parses and checks what the attributes say and emits constant data and
//! function pointers; all behaviour is in those.
//!
//! # The grammar
//! Options are `name = value`, separated by commas. Lists stand in `[]`, maps in `{}`.
//!
//! | value | is written |
//! |---|---|
//! | duration | seconds (`30`) or text (`"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"7d"`) |
//! | size | bytes (`65536`) or text (`"64KiB"`, `"16MiB"`) |
//! | channel | text: `"camera.created"`, with placeholders `"camera:{id}"`, or where it is subscribed to a glob `"events.*"` |
//! | field, argument, placeholder | its name, without quotes |
//! | field of a payload that clients know | its name, or text with dots that lead into objects: `"metadata.zone"` |
//!
//! Every attribute takes `crate = path`, for crates that see `messaging_core`, or for `#[subscription]`
//! `messaging_gateway`, under another path.
//!
//! All mistakes in an attribute are reported at once, each where it is, and the item stays as it was written.

#![forbid(unsafe_code)]

mod assertion;
mod channel;
mod constants;
mod descriptor;
mod event_config;
mod front;
mod function;
#[cfg(test)]
mod golden;
mod literal;
mod mistakes;
mod names;
mod operation;
mod option_name;
mod options;
mod place;
mod redis_cache;
mod serde_attrs;
mod structure;
mod subscribe;
mod subscribers;
mod subscription;
mod template;
mod types;
mod value;

use proc_macro::TokenStream;

/// Makes a struct a model: what is created, updated or deleted is published on channels of your choice.
///
/// ```text
/// #[event_config(
///     publish = {
///         create = "camera.created",
///         update = ["camera.updated", "tenant:{tenant_id}:camera"],
///         delete = "camera.deleted",
///     },
///     payload_fields = [id, mac_address, model],
/// )]
/// #[derive(Clone, Serialize, Deserialize)]
/// pub struct Camera {
///     pub id: Uuid,
///     pub tenant_id: Option<Uuid>,
///     pub mac_address: String,
///     pub model: String,
///     secret: String,
/// }
/// ```
///
/// | option | meaning |
/// |---|---|
/// | `publish = { create = …, update = …, delete = … }` | the channels of each operation, one or a list; a placeholder is a field, and a channel whose field is `None` is left out |
/// | `payload_fields = [fields]` | only these fields leave the process, in this order; without it the whole struct does. Names and forms are those of serde's attributes |
/// | `envelope = { resource = "camera", id = field, tenant = field, metadata = [fields] }` | publishes a `ChangeEvent` instead; `tenant` and `metadata` may be left out |
/// | `previous = [fields]` | updates also carry `"previous": {…}` with the old values of these fields |
/// | `cache = { key = "camera:{id}", ttl = duration, fields = [fields] }` | creating and updating also write the model into the cache, deleting removes it; without `fields` the payload is written, with an envelope the whole struct |
/// | `durable` or `durable = { parts }` | every event is also kept in a stream, for handlers with `delivery = "queue"` or `"resumable"` |
/// | `sharded` | publishes on sharded channels (Redis 7.0 or later): on a cluster only the nodes that own a channel carry it |
/// | `table = "cameras"` or `"schema.cameras"` | a model is also a row of this table: `SqlModel` of the crate `messaging-sql` is implemented, and `publish` may be left out |
/// | `key = field` | the field that says which row it is: a scalar, whose events stay in order in an outbox; with `table`, and required there |
/// | `version = field` | the field that counts the changes of a row, so that nobody overwrites a change that they have not seen; with `table` |
/// | `id = "…"` | the model's identity, instead of `module::Name` |
///
/// The parts of `durable`, of which any may be left out:
///
/// | part | meaning | default |
/// |---|---|---|
/// | `max_len = 100_000` | how many events are kept of each channel, or of each partition | 100,000 |
/// | `max_age = duration` | for how long, at least a second | 24 h |
/// | `key = field` | events with the same value of this field belong together: a handler with `ordered_by = key` keeps them in order. Any field with a scalar value will do, also one that is not published; where it is `None`, the channel is the key | the channel |
/// | `partitions = 16` | divides each channel, so that several processes share its work and each key keeps its order; at most 1,024, and with `key` only. Changing it later moves keys to other partitions | one |
/// | `wait_replicas = 1` | how many replicas of Redis have to confirm an event before it counts as published | none |
///
/// With `table`, `#[column(…)]` on a field says how it is stored, if not as a column of its name and type:
///
/// | entry | meaning |
/// |---|---|
/// | `name = "mac"` | the column's name, of at most 63 bytes |
/// | `json` | it is stored as JSON; neither the key nor the version |
/// | `generated` | the database fills it, such as a serial number: it is read and never written; not the version |
/// | `skip` | it is not stored, and nothing else is said of it. In what is read it has its default, or is a clone of what it was in the model at hand; so its type is `Default + Clone` |
///
/// A field with `#[cfg]` is not stored: it needs `skip`.
///
/// The struct has named fields and no parameters. It implements `Serialize` unless `payload_fields` or `envelope` say
/// what is written.
#[proc_macro_attribute]
pub fn event_config(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), event_config::expand, event_config::bare).into()
}

/// Makes a struct a typed channel: a value of it can be published to and subscribed to, and is read back from the
/// channel that a message came on (`ChannelOf<AuditLog>`).
///
/// ```text
/// #[channel("auditlog:{user_id}")]
/// pub struct AuditLog {
///     pub user_id: u64,
/// }
///
/// #[channel("heartbeat")]
/// pub struct Heartbeat;
/// ```
///
/// Every placeholder is a field and every field a placeholder. Fields are written with `Display` and read with
/// `FromStr`. The option `id = "…"` is the channel's identity, instead of `module::Name`.
#[proc_macro_attribute]
pub fn channel(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), channel::expand, channel::bare).into()
}

/// Makes an async function a handler of one or several channels, which starts by itself at boot.
///
/// ```text
/// #[subscribe("camera.settings.updated")]
/// async fn notify_admins(event: CameraSettings, mailer: State<Mailer>) -> Result<(), AppError> { … }
///
/// #[subscribe("camera.events.complex:{complex_id}", workers = 8, ordered_by = complex_id)]
/// async fn on_complex(complex_id: u64, event: CameraEvent<'_>) { … }
///
/// #[subscribe(AuditLog)]
/// async fn on_audit(log: ChannelOf<AuditLog>, entry: Entry) { … }
///
/// #[subscribe("orders.created", delivery = "queue", group = "billing", dead_letter = "orders.dead")]
/// async fn bill(order: Order, attempt: Attempt) -> Result<(), BillingError> { … }
/// ```
///
/// First comes what it listens to: a channel, template or glob in quotes, a list of them with the same placeholders, or
/// a [`#[channel]`](macro@channel) type. Then come options:
///
/// | option | meaning | default |
/// |---|---|---|
/// | `workers = 8` | how many messages are handled at the same time | 1: in order |
/// | `ordered_by = placeholder`, `channel` or `key` | with several workers: messages with the same value keep their order; `key` is the publisher's key and needs a durable delivery | none |
/// | `buffer = 500` or `{ messages = 500, bytes = size }` | how much may wait for the workers | 1,000 messages, 16 MiB |
/// | `overflow = "wait"`, `"drop_oldest"` or `"block"` | what happens when more arrives: the reader waits for up to a second in all and then the oldest are dropped; the oldest are dropped at once; nothing is ever dropped | `"wait"` |
/// | `timeout = duration` | how long one call may take | 30 s |
/// | `retry = { attempts = 3, initial = duration, multiplier = 2.0, max_delay = duration }` | how often and when a failed call is repeated; `attempts` counts the first | 3 from 100 ms, doubling, at most 30 s |
/// | `delivery = "broadcast"`, `"resumable"` or `"queue"` | who gets a message, and what is promised | `"broadcast"` |
/// | `group = "billing"` | queue: the processes that share the messages; letters, digits and `-_.:` | the handler's id |
/// | `start = "new"` or `"beginning"` | queue, resumable: where a handler begins that has never run before: with what is published from then on, or with the oldest message that is kept | `"new"` |
/// | `dedupe = duration` | queue, resumable: an event that is published twice within this time is handled once | not noticed |
/// | `sharded` | only a broadcast: listens to sharded channels (Redis 7.0 or later), on a cluster on the nodes that own them; no templates, no globs | plain channels |
/// | `dead_letter = "orders.dead"` | queue: a channel that is told of messages that were given up; they are kept in any case | nobody is told |
/// | `resync = path` | an async function that catches up: it is called at start and after every gap in the subscription | none |
/// | `resync_every = duration` | also at this interval | never |
/// | `id = "…"` | the handler's identity | `module::function` |
///
/// Every placeholder is an argument of that name, `&str` or any `FromStr` type; `{_name}` needs none. At most one other
/// argument is the payload: any `Deserialize` type, owned or borrowed from the message. All others are taken from the
/// delivery: `Channel`, `ChannelOf`, `State`, `Context`, `Attempt`, `Raw`, `Messaging`, or your own `FromDelivery`
/// types; with a durable delivery also `EventId` and `Headers`. It returns `()` or `Result<(), E>` with any error.
///
/// # Delivery
/// | `delivery` | who gets a message | promise | the channel |
/// |---|---|---|---|
/// | `"broadcast"` | every process | at most once; gaps are announced to `resync` | any |
/// | `"resumable"` | every process | nothing is lost across reconnects, as long as it is kept | durable |
/// | `"queue"` | one process of each group | at least once, with durable retries and a dead-letter stream | durable |
///
/// A channel is durable if its publisher makes it so: `durable` in [`#[event_config]`](macro@event_config).
///
/// What a queue or a resumable handler has no room for stays in the stream: `overflow` has no meaning there. A queue
/// has no gaps, and so no `resync`.
///
/// `ordered_by = key` keeps messages in order that have the same key, with one worker too: they also wait for the
/// retries of those before them. On a queue, the order holds over all processes of the group if the publisher divides
/// the channel into partitions. A placeholder that is itself called `channel`, or `key` on a durable channel, cannot be
/// ordered by: the word would have two meanings. Its name is the handler's own choice, so give it another one.
///
/// The function stays an ordinary function. Methods are handlers inside of [`#[subscribers]`](macro@subscribers).
#[proc_macro_attribute]
pub fn subscribe(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), subscribe::expand, front::item).into()
}

/// Makes the methods of an impl that are marked with [`#[subscribe]`](macro@subscribe) handlers, which are called on the
/// instance that was given with `.service(instance)`.
///
/// ```text
/// #[subscribers]
/// impl NotificationSubscriber {
///     #[subscribe("notifications:{user}")]
///     async fn handle(&self, user: &str, message: Notification) -> Result<(), AppError> { … }
/// }
/// ```
///
/// Handlers take `&self`. With `#[subscribers(manual)]` none of them starts by itself: an instance is started with
/// `messaging.subscriber().service(instance)`. That is also the form for generic types.
#[proc_macro_attribute]
pub fn subscribers(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), subscribers::expand, subscribers::bare).into()
}

/// Caches what an async function returns, and forgets it when an event says so.
///
/// ```text
/// #[redis_cache(key = "camera:mac:{mac_address}", ttl = 3600, invalidate_on = ["camera.updated", Camera(delete)])]
/// async fn get_camera(mac_address: &str) -> Result<Camera, ApiError> { … }
///
/// get_camera::invalidate("AA:BB:CC").await?;
/// ```
///
/// | option | meaning | default |
/// |---|---|---|
/// | `key = "camera:{id}"` | the key; a placeholder is an argument, a path into one (`{user.id}`) or into the service (`{self.tenant}`) | required |
/// | `ttl = duration` | how long a value is kept at most | required |
/// | `invalidate_on = [events]` | what removes a value: a channel, template or glob in quotes; `Camera(update, delete)` for events of a model; `{ on = …, placeholder = path.to.value }` where the key's value stands elsewhere in the event than under the placeholder's name | nothing |
/// | `local = duration` or `{ ttl = duration, max = 10_000 }` | values are kept in this process too, each for at most this long, and about `max` of them; the value is `Clone + Send + Sync + 'static`, and every call gets a clone | only in Redis |
/// | `stale = duration` | for this long after `ttl` a value is still served while one new load runs, or while loads fail | not at all |
/// | `wait = duration` | how long a caller waits for the load of another process before it loads itself | the lease, 3 s |
/// | `jitter = 0.1` or `"10%"` | which part of `ttl` is drawn at random, so that values do not all end at once | 10 % |
/// | `cache_none = duration` | `None` is kept, too, for this long | not kept |
/// | `prefix = "camera"` | stands before the key, with a `:` | none |
/// | `id = "…"` | the function's identity | `module::function` |
/// | `companions = false` | adds nothing beside the function; needed in impls of traits | `true` |
///
/// The signature does not change. `Result` and `Option` are recognised by type: only `Ok` is kept, and `None` only with
/// `cache_none`. The function, and the impl around it, are generic over nothing but lifetimes.
///
/// Beside a function `get_camera` stands a type of that name: `get_camera::invalidate(mac_address)` removes a value,
/// `get_camera::invalidate_all()` those for all arguments, `get_camera::refresh(…)` loads it anew,
/// `get_camera::key(mac_address)` is its key. A method `get` gets associated functions: `Cameras::get_cache()` returns a
/// handle with the same operations, `cameras.get_refresh(…)` loads anew. Methods of two types in one module that are
/// called the same need an `id`. A function in an impl that names neither `self` nor `Self` looks like a free one; it
/// needs `companions = false`.
///
/// # A load that outlives the call
/// With `stale`, the caller gets the old value at once, and the new one is loaded when the caller has gone. That load
/// needs arguments of its own, which are made only when there is something to load:
///
/// - What is passed by reference, `&self` among it, is copied, so it is `Clone + Send + Sync + 'static`; `&str` and slices
///   will do as well. A service that is no `Clone` is shared as `self: &Arc<Self>`.
/// - What is passed by value goes along, so it is `Send + 'static`.
/// - There is no `&mut`, no reference inside of another type, and nothing borrowed in what is returned. The future of the
///   function is `Send`.
///
/// `refresh` calls the function with the caller's own arguments. `stale` cannot be used with `companions = false`.
#[proc_macro_attribute]
pub fn redis_cache(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), redis_cache::expand, front::item).into()
}

/// Declares an entity that clients of a gateway can subscribe to, by a struct without parameters, which stays as it is and
/// implements `Subscription`.
///
/// | option | meaning | default |
/// |---|---|---|
/// | `channels = ["camera.events"]` | its channels and templates, one or a list; no globs. A subscription is to one of them | required |
/// | `authorize = path` | an async function from an `AccessRequest` to `bool`, `Decision`, or a `Result` of one of them, which decides what a client may do on a channel; it is asked again for every subscription, update, resume, look into the past or at who is there, and message that is sent | required, or `public` |
/// | `public` | everybody who may connect may subscribe | required, or `authorize` |
/// | `entity = "CameraEvents"` | what clients call it: 1 to 64 letters from A to Z, digits, `_`, `.` or `-` | the struct's name |
/// | `filters = { field = [eq, in] }` | the fields of the payload that clients may filter by: `eq` is one value, `in` one of several | none |
/// | `tenant = field` | every client gets only those events where this field of the payload is its own tenant, whatever else it may see | not compared |
/// | `send` | clients may publish on its channels, if who decides lets them | they may not |
/// | `presence` | clients may see who else is there, and be seen | they may not |
/// | `slow = "disconnect"`, `"latest"` or `"drop_oldest"` | what happens to a client that does not keep up: it is disconnected and comes back; it gets only the latest event of a channel; it loses the oldest ones and is told so | `"disconnect"` |
/// | `id = "…"` | the subscription's identity | `module::Name` |
///
/// A client gives the values of placeholders in its request (`params`), but for two: `{user_id}` and `{tenant_id}` are
/// filled from its identity when it subscribes, whatever it says. Templates may have different placeholders; the client
/// gets the most specific one of those whose placeholders are all given.
///
/// Fields are called as they are in the JSON, with dots that lead into objects: `"metadata.zone"`. A name without dots
/// needs no quotes if Rust could call a field so.
#[proc_macro_attribute]
pub fn subscription(arguments: TokenStream, item: TokenStream) -> TokenStream {
    front::run(arguments.into(), item.into(), subscription::expand, subscription::bare).into()
}
