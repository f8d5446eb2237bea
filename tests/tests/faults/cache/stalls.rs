//! When this process could not go on: what a machine that is busy adds to every bound.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::clock;

const PACE: Duration = Duration::from_millis(2);
/// What is late by less than this is not: timers are rounded up to their resolution, on every machine.
pub const PUNCTUAL: Duration = Duration::from_millis(5);

/// From when to when something that was due was not done, in nanoseconds of the [clock](super::clock).
pub type Stall = (u64, u64);

/// Asks to be woken all the time, and notes how late it is.
pub struct Stalls {
    noted: Arc<Mutex<Vec<Stall>>>,
    task: JoinHandle<()>,
}

impl Stalls {
    pub fn watch() -> Self {
        let noted = Arc::<Mutex<Vec<Stall>>>::default();
        let notes = Arc::clone(&noted);
        let task = tokio::spawn(async move {
            loop {
                let (from, due) = (clock::now(), Instant::now() + PACE);
                sleep_until(due).await;
                if due.elapsed() > PUNCTUAL {
                    notes.lock().unwrap().push((from + clock::nanos(PACE), clock::now()));
                }
            }
        });
        Self { noted, task }
    }

    pub fn all(&self) -> Vec<Stall> {
        self.noted.lock().unwrap().clone()
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// For how long in all there was a stall between two moments. `stalls` are in order.
pub fn within(stalls: &[Stall], from: u64, to: u64) -> u64 {
    let first = stalls.partition_point(|(_, end)| *end <= from);
    let met = stalls[first..].iter().take_while(|(start, _)| *start < to);
    met.map(|(start, end)| (*end).min(to) - (*start).max(from)).sum()
}

/// The longest of those that were met between two moments.
pub fn longest(stalls: &[Stall], from: u64, to: u64) -> u64 {
    let first = stalls.partition_point(|(_, end)| *end <= from);
    let met = stalls[first..].iter().take_while(|(start, _)| *start < to);
    met.map(|(start, end)| end - start).max().unwrap_or_default()
}

#[test]
fn stalls_count_where_they_are_met() {
    let stalls = [(10, 20), (30, 40), (60, 90)];
    assert_eq!([within(&stalls, 0, 100), within(&stalls, 15, 35), within(&stalls, 40, 60)], [50, 10, 0]);
    assert_eq!([longest(&stalls, 0, 55), longest(&stalls, 15, 61), longest(&stalls, 20, 30)], [10, 30, 0]);
}
