//! Catching up: the `resync` function of a handler, run at start, after gaps and at an interval, while the handler's
//! workers are idle and its messages wait.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::OwnedRwLockWriteGuard;

use super::extract::{FromContext, Needs};
use super::mailbox::Alarm;
use super::outcome::HandlerReturn;
use super::running::{RunningHandler, panic_text};
use super::{BoxFuture, Context, HandlerResult};
use crate::activity::{Activity, ActivityGuard};
use crate::error::HandlerError;
use crate::registry::ResyncDescriptor;
use crate::retry::Backoff;

/// No failed resync is repeated sooner, whatever the retry policy says.
const SHORTEST: Duration = Duration::from_millis(100);

/// A function that can stand in `resync = …`: async, its arguments are taken without a message.
#[diagnostic::on_unimplemented(
    message = "this cannot be a `resync` function",
    note = "it is an `async fn` of up to four arguments, each one of `State<…>`, `Context` and `Messaging`, that returns `()` or `Result<(), E>`"
)]
pub trait ResyncFn<Args>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(self, context: Context) -> BoxFuture<'static, HandlerResult>;

    #[doc(hidden)]
    fn needs(needs: &mut Needs);
}

macro_rules! resync_fn {
    ($($argument:ident)*) => {
        #[allow(non_snake_case, unused_variables)]
        impl<Function, Returned, Output, $($argument),*> ResyncFn<($($argument,)*)> for Function
        where
            Function: FnOnce($($argument),*) -> Returned + Send + Sync + 'static,
            Returned: Future<Output = Output> + Send,
            Output: HandlerReturn,
            $($argument: FromContext + Send,)*
        {
            fn call(self, context: Context) -> BoxFuture<'static, HandlerResult> {
                Box::pin(async move {
                    $(let $argument = $argument::from_context(&context)?;)*
                    self($($argument),*).await.into_result()
                })
            }

            fn needs(needs: &mut Needs) {
                $($argument::needs(needs);)*
            }
        }
    };
}

resync_fn!();
resync_fn!(A);
resync_fn!(A B);
resync_fn!(A B C);
resync_fn!(A B C D);

/// The resync of a handler, from an attribute or made at run time.
#[derive(Clone)]
pub(crate) struct Resync {
    /// The interval, beside start and gaps.
    every: Option<Duration>,
    /// Says what state its arguments need.
    pub(crate) needs: fn(&mut Needs),
    call: Arc<dyn Fn(Context) -> BoxFuture<'static, HandlerResult> + Send + Sync>,
}

impl Resync {
    pub(crate) fn of<Args, F: ResyncFn<Args> + Clone>(function: F) -> Self {
        Self { every: None, needs: F::needs, call: Arc::new(move |context| function.clone().call(context)) }
    }

    pub(crate) fn every(self, every: Option<Duration>) -> Self {
        Self { every, ..self }
    }
}

impl From<ResyncDescriptor> for Resync {
    fn from(ResyncDescriptor { every, needs, call }: ResyncDescriptor) -> Self {
        Self { every, needs, call: Arc::new(call) }
    }
}

impl fmt::Debug for Resync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resync").field("every", &self.every).finish_non_exhaustive()
    }
}

/// Runs resyncs until the handler stops. `gate` was taken before any worker started, so that the first resync comes
/// before the first message; `first` counts it as unfinished from then on. A failed one is tried again with a growing
/// delay, for ever; messages flow meanwhile.
///
/// Cancellation: a resync in progress is dropped.
pub(crate) async fn run(
    handler: Arc<RunningHandler>,
    resync: Resync,
    alarm: Arc<Alarm>,
    gate: OwnedRwLockWriteGuard<()>,
    first: ActivityGuard,
    activity: Activity,
) {
    let backoff = Backoff {
        initial: handler.options.retry.initial.max(SHORTEST),
        max: handler.options.retry.max_delay.max(SHORTEST),
    };
    let mut gate = Some(gate);
    let mut first = Some(first);
    let mut failures = 0;
    loop {
        let closed = match (gate.take(), &handler.gate) {
            (Some(closed), _) => Some(closed),
            (None, Some(gate)) => Some(Arc::clone(gate).write_owned().await),
            (None, None) => None,
        };
        // Gaps from here on are for the next one.
        let due = alarm.take();
        let working = first.take().unwrap_or_else(|| activity.guard());
        let call = AssertUnwindSafe((resync.call)(handler.context.clone())).catch_unwind();
        let result = match tokio::time::timeout(handler.options.timeout, call).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(HandlerError::from(format!("resync panicked: {}", panic_text(&*panic)))),
            Err(_) => {
                Err(HandlerError::from(format!("resync took longer than {:?}", handler.options.timeout)))
            }
        };
        drop((closed, working, due));
        let next = match result {
            Ok(()) => {
                failures = 0;
                handler.tally.resyncs.up();
                resync.every
            }
            Err(error) => {
                handler.tally.resync_failures.up();
                handler.log_resync_failure(&error);
                failures += 1;
                Some(backoff.delay(failures - 1))
            }
        };
        let interval = async {
            match next {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = handler.stop.cancelled() => return,
            () = alarm.raised() => {}
            () = interval => {}
        }
    }
}
