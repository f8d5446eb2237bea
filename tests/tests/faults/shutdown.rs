//! SIGTERM with messages in the buffer: what fits into the deadline is handled, the rest is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use messaging_core::{Context, Handlers, State, subscribe};
use messaging_tests::{RedisServer, eventually};

use crate::place::{PATIENCE, Place};
use crate::programs::{Ended, Program};
use crate::{child, outcome};

const MESSAGES: u64 = 1_000;
/// How many a service that gets stuck handles first.
const FEW: u64 = 300;

/// How many messages were handled, and how many can be.
#[derive(Clone)]
struct Work {
    handled: Arc<AtomicU64>,
    possible: u64,
}

/// Its first message waits until the process has been told to end.
#[subscribe("work", buffer = 1_000)]
async fn on_work(_number: u64, work: State<Work>, context: Context) {
    context.shutting_down().await;
    if work.handled.load(Ordering::SeqCst) == work.possible {
        std::future::pending::<()>().await;
    }
    work.handled.fetch_add(1, Ordering::SeqCst);
}

/// A service: `main` of a program that handles messages.
async fn service(possible: u64, drain_timeout: Duration) {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let mut place = Place::at(&child::url());
    place.config.channel_prefix.clear();
    place.config.drain_timeout = drain_timeout;
    let work = Work { handled: Arc::default(), possible };
    let builder = place.builder().handlers(Handlers::only(["faults::shutdown::on_work"])).state(work.clone());
    let messaging = builder.build().await.unwrap();
    let queued = async {
        eventually("it is subscribed", async || messaging.health().is_ready()).await;
        println!("\nready");
        let all = async || {
            let handler = messaging.health().handlers.swap_remove(0);
            handler.in_flight == 1 && handler.waiting == 999
        };
        eventually("all have arrived", all).await;
        println!("\nqueued");
    };
    let (ran, ()) = tokio::join!(messaging.run(), queued);
    ran.unwrap();
    println!("\nhandled {}", work.handled.load(Ordering::SeqCst));
}

/// Runs the child of a test, gives it work, and ends it as a supervisor would.
fn terminated(test: &str) -> Ended {
    let redis = RedisServer::start();
    let mut program: Program = child::start(test, &redis.url());
    program.wait_for_line(|line| line == "ready");
    for number in 0..MESSAGES {
        redis.cli(&["PUBLISH", "work", &number.to_string()]);
    }
    program.wait_for_line(|line| line == "queued");
    program.terminate();
    program.end()
}

/// The number before some words.
fn number(text: &str, words: &str) -> u64 {
    let before = text.split(words).next().filter(|before| before.len() < text.len());
    let before = before.unwrap_or_else(|| panic!("nothing{words} in {text}"));
    before.rsplit([' ', '`']).next().and_then(|number| number.parse().ok()).unwrap()
}

fn handled(ended: &Ended) -> u64 {
    assert!(ended.status.success(), "{}\n{}", ended.lines.join("\n"), ended.complaints);
    let line = ended.lines.iter().find_map(|line| line.strip_prefix("handled "));
    line.and_then(|number| number.parse().ok()).unwrap()
}

#[cfg(unix)]
#[test]
fn sigterm_reports_what_does_not_fit_into_the_deadline() {
    const TEST: &str = "shutdown::sigterm_reports_what_does_not_fit_into_the_deadline";
    if child::is(TEST) {
        return child::run(service(FEW, Duration::from_secs(3)));
    }
    let ended = terminated(TEST);
    let handled = handled(&ended);
    let warning = ended.complaints.lines().find(|line| line.contains("WARN")).unwrap_or_default();
    let (waited, cut_off) = (number(warning, " messages not handled"), number(warning, " calls cut off"));
    assert_eq!((handled, waited, cut_off), (FEW, MESSAGES - FEW - 1, 1), "{warning}");
    outcome("SIGTERM, stuck", format!("{handled} handled, {waited} left, {cut_off} cut off"));
}

#[cfg(unix)]
#[test]
fn sigterm_finishes_what_fits_into_the_deadline() {
    const TEST: &str = "shutdown::sigterm_finishes_what_fits_into_the_deadline";
    if child::is(TEST) {
        return child::run(service(u64::MAX, PATIENCE));
    }
    let ended = terminated(TEST);
    assert_eq!(handled(&ended), MESSAGES);
    assert!(!ended.complaints.contains("WARN"), "{}", ended.complaints);
    outcome("SIGTERM", format!("{MESSAGES} handled, none left"));
}
