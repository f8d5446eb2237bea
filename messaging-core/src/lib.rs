#![doc = include_str!("lib.md")]

mod activity;
mod backend;
mod burst;
mod cache;
mod cache_manager;
mod channel;
mod client;
mod config;
mod consume;
mod core;
mod dead_letters;
mod describe;
mod dispatch;
mod durable;
mod error;
mod event;
mod follow;
mod handlers;
mod health;
mod history;
mod json;
mod labels;
mod message;
mod messaging;
mod meter;
mod operator;
mod pending;
mod presence;
mod publish;
mod queues;
mod registry;
mod repository;
mod retry;
mod service;
mod session;
mod source;
mod stream;
mod subscriber;
mod subscription;
mod testing;
mod trace;

#[doc(hidden)]
pub mod __private;

pub use messaging_macros::{channel, event_config, redis_cache, subscribe, subscribers};

pub use crate::cache::{CacheStats, Invalidations};
pub use crate::cache_manager::{CacheManager, CachedFunction};
pub use crate::channel::{Channel, Pattern, Template, ToChannel, ToPattern, TypedChannel};
pub use crate::client::{RedisClient, get_global_subscriber, get_redis_client, init_redis, redis_publish};
pub use crate::config::{Config, Endpoint, StartPolicy, TlsFiles};
pub use crate::dead_letters::{DeadLetter, DeadLetterId, DeadLetters};
pub use crate::describe::{
    DescribedChannel, DescribedFunction, DescribedHandler, DescribedModel, Description, describe,
};
pub use crate::dispatch::{
    Attempt, Buffer, Carrier, ChannelOf, Context, Counts, Delivery, DeliveryMode, ErrorContext, FailureCause,
    FromContext, FromDelivery, HandlerFn, HandlerOptions, HandlerReturn, Needs, OrderedBy, Overflow, Raw,
    Rejection, ResyncFn, Seen, Segment, Segments, StartAt, State,
};
pub use crate::error::{BoxError, Error, ErrorAction, ErrorKind, HandlerError, Result};
pub use crate::event::{ChangeEvent, ChangeKind, Model, Op, Timestamp};
pub use crate::follow::{Follow, FollowHandle, Followed, Position, StreamEnd, StreamEntry, StreamRef};
pub use crate::handlers::Handlers;
pub use crate::health::{HandlerHealth, HandlerState, Health, HealthPhase};
pub use crate::history::{History, PastMessage};
pub use crate::message::Message;
pub use crate::messaging::{Builder, Messaging, Running, ShutdownReport, Unfinished};
pub use crate::operator::{
    CachedEntry, ConsumerReport, FamilyReport, Feature, GroupReport, Operator, Right, StreamReport,
};
pub use crate::pending::PendingEvent;
pub use crate::presence::{
    Member, Membership, Presence, PresenceChange, PresenceChanges, PresenceEntry, PresenceHealth,
};
pub use crate::publish::Publish;
pub use crate::queues::QueueState;
pub use crate::registry::{Location, ModelDescriptor, ModelDurability, PayloadField, Subscribers};
pub use crate::repository::{PublishFailure, Repository, Storage, Updated};
pub use crate::retry::{Backoff, Retry};
pub use crate::service::{Service, ServiceHealth};
pub use crate::session::{SessionHealth, Unconfirmed};
pub use crate::stream::{Durability, EntryId, EventId, Headers, Retention};
pub use crate::subscriber::{HandlerHandle, Subscriber};
pub use crate::subscription::Subscription;
pub use crate::testing::{Calls, Published, RedisDown, TestMessaging};
