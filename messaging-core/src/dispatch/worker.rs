//! The loop that takes messages from a mailbox and calls a handler, and the adapter that makes handlers of closures.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument as _;

use super::extract::{FromDelivery, Needs, Rejection};
use super::inlet::Queue;
use super::ledger::Fate;
use super::outcome::{HandlerReturn, outcome};
use super::running::{Called, Settled};
use super::{Delivery, Handler};
use crate::cache::bypass;
use crate::retry::deadline_from;
use crate::trace::{self, Trace};

/// Handles messages until the mailbox is closed and empty, or the handler is stopped.
///
/// Cancellation: the call in progress is dropped; its message counts as not handled.
pub(crate) async fn worker<H: Handler>(handler: H, mut queue: Queue) {
    let running = queue.handler();
    while queue.next().await {
        // A handler that never waits must not keep the thread from other tasks.
        tokio::task::coop::consume_budget().await;
        let mut held = None;
        if let (Some(ledger), Some(delivery)) = (&running.ledger, &queue.delivery) {
            match running.begin(ledger, delivery).await {
                Ok(begun) => held = begun,
                Err(_) => continue,
            }
        }
        queue.takes_up();
        let Queue { delivery: Some(delivery), clock, .. } = &mut queue else { continue };
        let gate = match &running.gate {
            Some(gate) => Some(gate.read().await),
            None => None,
        };
        let mut up_to_date = true;
        if let Some(cache) = &running.cache {
            // What the handler reads from the cache is not older than its event.
            up_to_date = cache.catch_up(&delivery.received.channel, &delivery.received.payload).await;
            clock.begins_again();
        }
        loop {
            let called = {
                // A future is as large as the handler's variables; whoever wraps it moves a reference.
                let call = pin!(handler.call(delivery));
                // What is neither traced nor watched costs nothing.
                let is_plain = up_to_date && delivery.headers().is_none() && !trace::is_wanted();
                let call = if is_plain {
                    Either::Left(call)
                } else {
                    let trace = delivery.headers().and_then(Trace::of);
                    let span =
                        trace::delivering(&running.id, delivery.channel(), delivery.attempt, trace.as_ref());
                    let call = async { if up_to_date { call.await } else { bypass(call).await } };
                    Either::Right(trace::within(trace, call.instrument(span)))
                };
                let call = pin!(AssertUnwindSafe(call).catch_unwind());
                match within(|| clock.waits(), running.options.timeout, call).await {
                    Some(Ok(returned)) => Called::Returned(returned),
                    Some(Err(panic)) => Called::Panicked(panic),
                    None => Called::TimedOut,
                }
            };
            running.meters.called(&delivery.received, clock.begun());
            if held.is_none() && matches!(called, Called::Returned(Ok(()))) {
                running.handled(delivery);
                break;
            }
            // What the user gave for failures may panic too; then the message is given up.
            let settled = std::panic::catch_unwind(AssertUnwindSafe(|| running.settle(delivery, called)));
            let settled = settled.unwrap_or_else(|panic| running.settling_panicked(&*panic));
            match (settled, held) {
                (Settled::Again(delay), Some(entry)) if !running.retries_in_place() => {
                    entry.end(delivery.attempt, Fate::Retry(delay));
                    break;
                }
                (Settled::Again(delay), kept) => {
                    match &kept {
                        None => tokio::time::sleep(delay).await,
                        Some(entry) => {
                            entry.note(delivery.attempt, delay);
                            if !entry.again(delay).await {
                                // Dropped, it is handed back.
                                break;
                            }
                        }
                    }
                    held = kept;
                    delivery.attempt += 1;
                    clock.begins_again();
                }
                (ended, entry) => {
                    if let Some(entry) = entry {
                        entry.end(delivery.attempt, fate(ended));
                    }
                    break;
                }
            }
        }
        drop(gate);
        if running.failed.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// What becomes of a queue's entry after its last call here.
fn fate(settled: Settled) -> Fate {
    match settled {
        Settled::Done => Fate::Done,
        Settled::Again(delay) => Fate::Retry(delay),
        Settled::Dead(error) => Fate::Dead(error),
        Settled::Stopped => Fate::HandBack,
    }
}

/// What the call comes to, or `None` after the timeout. Many calls never wait, and those get no timer: of the others, `begun`
/// says when they began.
async fn within<F: Future>(
    begun: impl FnOnce() -> Instant,
    limit: Duration,
    mut call: Pin<&mut F>,
) -> Option<F::Output> {
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
        return Some(done);
    }
    let mut timer = pin!(sleep_until(deadline_from(begun(), limit)));
    // It has just been polled; who yields wants others to run before the next time.
    let mut polled = true;
    poll_fn(|context| {
        if !std::mem::take(&mut polled)
            && let Poll::Ready(done) = call.as_mut().poll(context)
        {
            return Poll::Ready(Some(done));
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// A closure or function that can be added as a handler at run time. Its payload argument is owned, its placeholders
/// come as [`Segments`](super::Segments).
#[diagnostic::on_unimplemented(
    message = "this cannot be a handler that is added at run time",
    note = "it is an `async` closure or function of up to eight arguments, each an owned payload (`Deserialize`) or one of `Channel`, `Segments`, `State<…>`, `Context`, `Attempt`, `Raw`, `Messaging`",
    note = "it returns `()` or `Result<(), E>`, and its future is `Send`"
)]
pub trait HandlerFn<Args>: Send + Sync + 'static {
    #[doc(hidden)]
    fn call(&self, delivery: &Delivery) -> impl Future<Output = Result<(), Rejection>> + Send;

    #[doc(hidden)]
    fn needs(needs: &mut Needs);

    #[doc(hidden)]
    const PAYLOADS: usize;
}

macro_rules! handler_fn {
    ($($argument:ident)*) => {
        #[allow(non_snake_case, unused_variables)]
        impl<Function, Returned, Output, $($argument),*> HandlerFn<($($argument,)*)> for Function
        where
            Function: Fn($($argument),*) -> Returned + Send + Sync + 'static,
            Returned: Future<Output = Output> + Send,
            Output: HandlerReturn,
            $($argument: for<'d> FromDelivery<'d> + Send,)*
        {
            async fn call(&self, delivery: &Delivery) -> Result<(), Rejection> {
                $(let $argument = $argument::from_delivery(delivery)?;)*
                let returned = self($($argument),*);
                outcome(returned.await)
            }

            fn needs(needs: &mut Needs) {
                $($argument::needs(needs);)*
            }

            const PAYLOADS: usize = 0 $(+ <$argument as FromDelivery<'_>>::IS_PAYLOAD as usize)*;
        }
    };
}

handler_fn!();
handler_fn!(A);
handler_fn!(A B);
handler_fn!(A B C);
handler_fn!(A B C D);
handler_fn!(A B C D E);
handler_fn!(A B C D E F);
handler_fn!(A B C D E F G);
handler_fn!(A B C D E F G H);

/// Makes a [`Handler`] of a [`HandlerFn`].
pub(crate) struct Closure<F, Args> {
    function: Arc<F>,
    arguments: PhantomData<fn(Args)>,
}

impl<F, Args> Closure<F, Args> {
    pub(crate) fn new(function: Arc<F>) -> Self {
        Self { function, arguments: PhantomData }
    }
}

impl<F: HandlerFn<Args>, Args: 'static> Handler for Closure<F, Args> {
    fn call<'d>(&'d self, delivery: &'d Delivery) -> impl Future<Output = Result<(), Rejection>> + Send + 'd {
        self.function.call(delivery)
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;
    use tokio::time::{advance, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_waits_gets_no_timer_and_one_that_yields_lets_others_run() {
        assert_eq!(within(Instant::now, LIMIT, pin!(async { 1 })).await, Some(1));
        let yielding = pin!(yield_now());
        let mut call = pin!(within(Instant::now, LIMIT, yielding));
        assert!(call.as_mut().now_or_never().is_none(), "it is polled once for each time that it is woken");
        assert_eq!(call.await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_covers_the_whole_call() {
        let begun = Instant::now();
        let call = async {
            // As work does that keeps its thread.
            advance(LIMIT * 3 / 4).await;
            sleep(LIMIT / 2).await;
        };
        assert_eq!(within(|| begun, LIMIT, pin!(call)).await, None);
        assert_eq!(begun.elapsed(), LIMIT);
    }
}
