//! Two processes that exchange events over Redis. In one terminal
//! `cargo run -p examples --bin multi_process -- --role subscriber`, in another one the same with `--role publisher`.
//! Redis is where `REDIS_URL` says, or at 127.0.0.1:6379.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a demo is for")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use messaging_core::{Attempt, Config, Context, Error, Messaging, State, channel, subscribe};
use serde::{Deserialize, Serialize};

const USAGE: &str = "\
usage: multi_process --role publisher|subscriber

  subscriber  handles orders until Ctrl-C or SIGTERM; start it first
  publisher   publishes twelve orders, five in a second, and ends

Both find Redis by REDIS_URL, or at redis://127.0.0.1:6379.";

const ORDERS: u64 = 12;
const PACE: Duration = Duration::from_millis(200);

// --- What both processes know: the channel and the event. A type of its own keeps the two sides in step.

#[channel("shop:{shop}:orders")]
struct Orders {
    shop: u32,
}

#[derive(Serialize, Deserialize)]
struct Order {
    number: u64,
    dish: String,
}

// --- The subscriber: two handlers, which start by themselves.

/// The template's placeholder arrives as a number; a channel like `shop:main:orders` would be counted and not delivered.
#[subscribe("shop:{shop}:orders", resync = ready)]
async fn cook(shop: u32, order: Order, screen: State<Screen>) {
    screen.line("cook", &format!("shop {shop}, order {:>2}: {}", order.number, order.dish));
}

/// Every fourth receipt gets stuck in the printer. An error is all that it takes to be called again.
#[subscribe("shop:{shop}:orders", resync = ready, retry = { attempts = 3, initial = "50ms" })]
async fn print_receipt(
    shop: u32,
    order: Order,
    attempt: Attempt,
    screen: State<Screen>,
) -> Result<(), String> {
    let Attempt(attempt) = attempt;
    if order.number.is_multiple_of(4) && attempt == 1 {
        screen.line(
            "print_receipt",
            &format!("shop {shop}, order {:>2}: paper jam, trying again", order.number),
        );
        return Err("paper jam".to_owned());
    }
    screen.line(
        "print_receipt",
        &format!("shop {shop}, order {:>2}: printed at attempt {attempt}", order.number),
    );
    Ok(())
}

/// Called when Redis has confirmed the subscription, and after every gap in it.
async fn ready(context: Context, screen: State<Screen>) {
    let handler = context.handler().rsplit("::").next().unwrap_or_default().to_owned();
    screen.line("subscribed", &format!("{handler} hears of every order from now on"));
}

async fn subscriber(config: Config) -> Result<(), Error> {
    let screen = Screen::new();
    println!("subscriber on {}; Ctrl-C ends it\n", config.endpoint);
    let messaging = Messaging::builder().config(config).state(screen.clone()).build().await?;
    messaging.run().await?;
    screen.line("shut down", "what had arrived has been handled");
    Ok(())
}

// --- The publisher.

async fn publisher(config: Config) -> Result<(), Error> {
    let screen = Screen::new();
    println!("publisher on {}\n", config.endpoint);
    let messaging = Messaging::builder().config(config).build().await?;
    let mut pace = tokio::time::interval(PACE);
    let mut heard = 0;
    for (number, dish) in (1..=ORDERS).zip(["dumplings", "soup", "noodles"].into_iter().cycle()) {
        pace.tick().await;
        let channel = Orders { shop: if number % 2 == 0 { 2 } else { 1 } };
        let order = Order { number, dish: dish.to_owned() };
        let receivers = messaging.publish(&channel, &order).await?;
        heard += u64::from(receivers > 0);
        let heard_by = match receivers {
            0 => "nobody listens",
            _ => "heard",
        };
        screen.line("publish", &format!("shop {}, order {number:>2}: {dish:<9} {heard_by}", channel.shop));
    }
    screen.line("done", &format!("{heard} of {ORDERS} orders were heard"));
    if heard == 0 {
        println!("\nStart a subscriber in another terminal: multi_process --role subscriber");
    }
    Ok(())
}

/// Prints aligned lines with the time since the start.
#[derive(Clone)]
struct Screen(Instant);

impl Screen {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn line(&self, who: &str, text: &str) {
        println!("{:>6} ms  {who:<14} {text}", self.0.elapsed().as_millis());
    }
}

enum Role {
    Publisher,
    Subscriber,
}

fn role() -> Option<Role> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--role", "publisher"] | ["--role=publisher"] => Some(Role::Publisher),
        ["--role", "subscriber"] | ["--role=subscriber"] => Some(Role::Subscriber),
        _ => None,
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let Some(role) = role() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match play(role).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("multi_process: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn play(role: Role) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_env()?;
    if config.endpoint.to_string().starts_with("memory:") {
        return Err(
            "two processes cannot share memory; set REDIS_URL to a Redis, such as redis://127.0.0.1:6379"
                .into(),
        );
    }
    match role {
        Role::Publisher => publisher(config).await?,
        Role::Subscriber => subscriber(config).await?,
    }
    Ok(())
}
