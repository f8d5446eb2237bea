//! From a received message to a handler's call and what becomes of it.

mod begun;
mod delivery;
mod extract;
mod inlet;
mod ledger;
mod mailbox;
mod options;
mod outcome;
pub(crate) mod resync;
mod running;
mod worker;

use std::future::Future;
use std::pin::Pin;

pub use delivery::{Context, Delivery};
pub(crate) use extract::States;
pub use extract::{
    Attempt, ChannelOf, FromContext, FromDelivery, Needs, Raw, Rejection, Segment, Segments, State,
};
pub use inlet::Queue;
pub(crate) use ledger::{Fate, Hold, Ledger, Outcome, Place};
pub(crate) use mailbox::{Alarm, Batch, Entry, GapCause, Gaps, Mailbox};
pub use options::{Buffer, Carrier, DeliveryMode, HandlerOptions, OrderedBy, Overflow, StartAt};
pub use outcome::{ErrorContext, FailureCause, HandlerReturn};
pub(crate) use outcome::{ErrorHandler, outcome};
pub(crate) use resync::Resync;
pub use resync::ResyncFn;
pub use running::{Counts, Seen};
pub(crate) use running::{Observer, RunningHandler, Tally};
pub use worker::HandlerFn;
pub(crate) use worker::{Closure, worker};

use crate::error::HandlerError;

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a handler comes to.
pub type HandlerResult = Result<(), HandlerError>;

/// One handler, as the attributes generate it: takes its arguments from the delivery and calls the user's function.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message.
    fn call<'d>(&'d self, delivery: &'d Delivery) -> impl Future<Output = Result<(), Rejection>> + Send + 'd;
}
