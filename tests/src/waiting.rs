//! Waiting for a condition with a bound, in async tests and while a server starts. It never waits for a fixed time.

use std::panic::Location;
use std::time::{Duration, Instant};

/// Long enough for a loaded machine with two cores; a test that passes never waits this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(5);

/// What [`eventually`] waits for: `true`, or `Some(value)`.
pub trait Condition {
    /// What is known once the condition holds.
    type Value;

    /// The value, if the condition holds.
    fn met(self) -> Option<Self::Value>;
}

impl Condition for bool {
    type Value = ();

    fn met(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Condition for Option<T> {
    type Value = T;

    fn met(self) -> Self {
        self
    }
}

/// Asks again every few milliseconds until the answer is `true` or `Some(value)`, and returns the value. `what` says
/// what is waited for.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use messaging_tests::eventually;
///
/// let mut answers = [None, Some(42)].into_iter();
/// assert_eq!(eventually("the second answer comes", async || answers.next().flatten()).await, 42);
/// # });
/// ```
///
/// # Panics
///
/// After 30 seconds, naming the place that waited.
#[track_caller]
pub fn eventually<C: Condition>(
    what: &str,
    mut condition: impl AsyncFnMut() -> C,
) -> impl Future<Output = C::Value> {
    let place = Location::caller();
    async move {
        let start = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(start.elapsed());
            match tokio::time::timeout(left, condition()).await {
                Ok(answer) => {
                    if let Some(value) = answer.met() {
                        return value;
                    }
                }
                Err(_) => panic!("{place}: {what}: no answer within {DEADLINE:?}"),
            }
            assert!(start.elapsed() < DEADLINE, "{place}: {what}: not so after {DEADLINE:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The same for code that has no runtime: `None` after the deadline.
pub(crate) fn poll<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if start.elapsed() > DEADLINE {
            return None;
        }
        std::thread::sleep(POLL);
    }
}
