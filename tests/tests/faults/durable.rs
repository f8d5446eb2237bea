//! Durable channels under a fault: publishers that repeat what failed, and handlers that count what they get.

use std::collections::BTreeSet;
use std::future::ready;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use messaging_core::{Attempt, DeliveryMode, HandlerError, Messaging, Retry, StartAt, Subscriber};
use messaging_tests::eventually;

use crate::place::{Place, soon};

pub(crate) const CHANNEL: &str = "jobs";
/// What is published before anything else.
const FIRST: u64 = 999_999;
const PUBLISHERS: usize = 4;
const EACH: u64 = 300;
/// How long the handling may stand still after a failover is over, or a slot has moved.
const GOES_ON_WITHIN: Duration = Duration::from_secs(15);
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);
const QUICK: Retry = Retry {
    attempts: NonZeroU32::new(2).unwrap(),
    initial: Duration::from_millis(10),
    multiplier: 1.0,
    max_delay: Duration::from_millis(10),
};

pub(crate) fn place(url: &str) -> Place {
    let mut place = Place::at(url);
    place.config.connect_timeout = Duration::from_secs(1);
    place.config.command_timeout = COMMAND_TIMEOUT;
    place.config.reclaim = Duration::from_secs(3);
    place.config.reconnect.max = Duration::from_millis(500);
    place
}

/// What was handled, in which order, and at which attempt.
#[derive(Clone, Default)]
pub(crate) struct Handled(pub(crate) Arc<Mutex<Vec<(u64, u32)>>>);

impl Handled {
    pub(crate) fn note(&self, number: u64, attempt: Attempt) {
        self.0.lock().unwrap().push((number, attempt.0));
    }

    /// A handler that succeeds.
    pub(crate) fn handler(
        &self,
    ) -> impl Fn(u64, Attempt) -> std::future::Ready<()> + Send + Sync + 'static + use<> {
        let handled = self.clone();
        move |number, attempt| {
            handled.note(number, attempt);
            ready(())
        }
    }

    fn numbers(&self) -> BTreeSet<u64> {
        self.0.lock().unwrap().iter().map(|(number, _)| *number).collect()
    }

    /// How often an attempt was made that had been made before.
    pub(crate) fn again(&self) -> usize {
        let handled = self.0.lock().unwrap();
        let different: BTreeSet<_> = handled.iter().collect();
        handled.len() - different.len()
    }

    pub(crate) async fn has(&self, what: &str, wanted: &BTreeSet<u64>) {
        let begun = Instant::now();
        eventually(what, async || self.numbers().is_superset(wanted)).await;
        let took = begun.elapsed();
        assert!(took < GOES_ON_WITHIN, "{what}: {took:?}");
    }
}

pub(crate) fn queue(messaging: &Messaging, group: &str) -> Subscriber {
    let subscriber = messaging.subscriber().delivery(DeliveryMode::Queue).group(group).id(group);
    subscriber.start_at(StartAt::Beginning).retry(QUICK)
}

/// A queue, and a resumable handler, in a process of their own each. Of a queue, each hundredth message fails at first.
pub(crate) struct Readers {
    pub(crate) queue: Handled,
    resumable: Handled,
    processes: [Messaging; 3],
}

impl Readers {
    pub(crate) async fn start(place: &Place) -> Self {
        let processes = [place.messaging().await, place.messaging().await, place.messaging().await];
        let (queued, resumed) = (Handled::default(), Handled::default());
        for process in &processes[..2] {
            let queued = queued.clone();
            let handler = move |number: u64, attempt: Attempt| {
                queued.note(number, attempt);
                let fails = number.is_multiple_of(100) && attempt.0 == 1;
                ready(if fails { Err(HandlerError::retry("the first time")) } else { Ok(()) })
            };
            let subscriber = queue(process, "workers").dedupe(Duration::from_secs(600));
            let _ = subscriber.on(CHANNEL, handler).await.unwrap();
        }
        let resumable = processes[2].subscriber().delivery(DeliveryMode::Resumable).id("reader");
        let _ = resumable.start_at(StartAt::Beginning).on(CHANNEL, resumed.handler()).await.unwrap();
        let readers = Self { queue: queued, resumable: resumed, processes };
        // They look for streams only now and then.
        publish(&readers.processes[2], FIRST, None).await;
        readers.have(&BTreeSet::from([FIRST])).await;
        settled(&readers.processes[2], "workers").await;
        readers
    }

    pub(crate) async fn have(&self, wanted: &BTreeSet<u64>) {
        let all = async {
            self.queue.has("the queue handles what is there", wanted).await;
            self.resumable.has("the resumable handler gets what is there", wanted).await;
        };
        tokio::pin!(all);
        tokio::select! {
            () = &mut all => return,
            () = tokio::time::sleep(GOES_ON_WITHIN) => self.tell(wanted).await,
        }
        all.await;
    }

    /// For who reads why it failed: what is missing, and what those say of themselves who should have it.
    async fn tell(&self, wanted: &BTreeSet<u64>) {
        for (name, handled) in [("queue", &self.queue), ("resumable", &self.resumable)] {
            let have = handled.numbers();
            let missing: Vec<_> = wanted.difference(&have).collect();
            println!(
                "{name}: {} are missing, among them {:?}",
                missing.len(),
                missing.iter().take(5).collect::<Vec<_>>()
            );
        }
        for process in &self.processes {
            let health = process.health();
            println!("{}", serde_json::to_string(&(&health.handlers, &health.sessions)).unwrap());
        }
        println!("{:#?}", self.processes[2].queues().await);
    }
}

/// Publishes a number under its own id until that succeeds; returns how often it failed.
pub(crate) async fn publish(messaging: &Messaging, number: u64, key: Option<&str>) -> usize {
    let mut failures = 0;
    // Not `eventually`: this has to run in tasks.
    let published = async {
        loop {
            let mut publish = messaging.publish(CHANNEL, &number).durable().id(format!("event-{number}"));
            if let Some(key) = key {
                publish = publish.key(key);
            }
            if publish.await.is_ok() {
                return;
            }
            failures += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(published).await;
    failures
}

/// How much has been published.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Waits until so much more has been.
    pub(crate) fn makes(&self, more: u64) {
        let wanted = self.0.load(Ordering::SeqCst) + more;
        eventually_blocking(|| self.0.load(Ordering::SeqCst) >= wanted);
    }
}

/// Publishes numbers by several publishers at once, calls `fault` when a third of them is out, and returns how many
/// publishes failed on the way.
pub(crate) async fn publish_around(place: &Place, fault: impl FnOnce(Progress) + Send + 'static) -> usize {
    let progress = Progress::default();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let publishers: Vec<_> = (0..PUBLISHERS as u64)
        .map(|first| {
            let (place, tell, progress) = (place.clone(), tell.clone(), progress.clone());
            tokio::spawn(async move {
                let messaging = place.messaging().await;
                let mut failures = 0;
                for number in 0..EACH {
                    failures +=
                        publish(&messaging, number * PUBLISHERS as u64 + first, Some(&first.to_string()))
                            .await;
                    progress.0.fetch_add(1, Ordering::SeqCst);
                    let _ = tell.send(());
                }
                failures
            })
        })
        .collect();
    for _ in 0..all().len() / 3 {
        told.recv().await.unwrap();
    }
    tokio::task::spawn_blocking(|| fault(progress)).await.unwrap();
    let mut failures = 0;
    for publisher in publishers {
        failures += publisher.await.unwrap();
    }
    failures
}

pub(crate) fn all() -> BTreeSet<u64> {
    (0..PUBLISHERS as u64 * EACH).collect()
}

/// The numbers that are on the streams.
pub(crate) async fn kept(messaging: &Messaging) -> BTreeSet<u64> {
    let history = async || messaging.history(CHANNEL).limit(100_000).await.ok();
    let past = eventually("the history can be read", history).await;
    past.iter().map(|message| message.json().unwrap()).collect()
}

/// Waits until a group has nothing left to do.
pub(crate) async fn settled(messaging: &Messaging, group: &str) {
    eventually("everything is settled", async || {
        let groups = messaging.queues().await.ok()?;
        let mut of_group = groups.iter().filter(|queue| queue.group == group);
        of_group.all(|queue| queue.pending + queue.delayed + queue.unread == 0).then_some(())
    })
    .await;
}

/// Dead letters and what a publisher of its own does go on.
pub(crate) async fn goes_on(place: &Place, readers: &Readers) {
    let messaging = place.messaging().await;
    let poison = |_: u64| ready(Err::<(), _>(HandlerError::dead_letter("poison")));
    let messaging_of_group = place.messaging().await;
    let dead = messaging.dead_letters("poisoned");
    let handler =
        messaging_of_group.subscriber().delivery(DeliveryMode::Queue).group("poisoned").id("poisoned");
    let handler = handler.on(CHANNEL, poison).await.unwrap();
    publish(&messaging, 1_000_000, None).await;
    readers.have(&BTreeSet::from([1_000_000])).await;
    let letters = eventually("there is a dead letter", async || {
        dead.list().await.ok().filter(|letters| !letters.is_empty())
    })
    .await;
    assert_eq!(letters[0].json::<u64>().unwrap(), 1_000_000);
    handler.stop().await;
    assert!(kept(&messaging).await.contains(&1_000_000));
    settled(&messaging, "workers").await;
}

pub(crate) fn eventually_blocking(mut met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < Duration::from_secs(30), "not so after 30 seconds");
        std::thread::yield_now();
    }
}
