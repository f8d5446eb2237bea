//! A child process: reads its job from the command line, does it on a single-threaded runtime, says how it went.

use std::hint::black_box;
use std::io;
use std::time::Duration;

use crate::job::{Client, Failure, Form, Job, Logging, Report, Said};
use crate::order::{self, Order, OrderRef};
use crate::sides::{cache, gateway, growth as grown, hand, local, ours, queue, raw, sql};
use crate::{broadcast, growth, meter, publisher, replay, usage};

/// Tells the number of allocations so far, if they are counted.
pub(crate) type Allocations = fn() -> Option<u64>;

pub(crate) fn run(job: &str, allocations: Allocations) -> Result<(), Failure> {
    let job: Job = serde_json::from_str(job)?;
    match job {
        Job::Replay { messages } => return replay::serve(messages),
        Job::Publish { port, messages, pace } => {
            Said::Done(publisher::publish(port, messages, pace)?).say();
            return Ok(());
        }
        Job::Deliver { gateway, clients, together, millis } => {
            let time = Duration::from_millis(millis);
            Said::Done(broadcast::deliver(&gateway, clients, together, time)?).say();
            return Ok(());
        }
        Job::Idle { gateway, clients } => {
            Said::Done(broadcast::idle(&gateway, clients)?).say();
            return Ok(());
        }
        Job::Spread(spread) => {
            Said::Done(growth::publish(spread)?).say();
            return Ok(());
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Job::Serve { redis } = job {
        return runtime.block_on(gateway::serve(&url(redis)));
    }
    let mut report = runtime.block_on(measure(job))?;
    report.allocations = allocations();
    report.peak_mib = usage::peak_mib();
    Said::Done(report).say();
    Ok(())
}

async fn measure(job: Job) -> Result<Report, Failure> {
    match job {
        Job::Replay { .. }
        | Job::Publish { .. }
        | Job::Deliver { .. }
        | Job::Idle { .. }
        | Job::Spread(_) => Err("this job has no runtime".into()),
        Job::Grow(growth) => grown::measure(growth).await,
        Job::Serve { .. } => Err("a server reports nothing".into()),
        Job::Subscribe { client, form, port, logging } => {
            if logging == Logging::Info {
                tracing_subscriber::fmt().with_writer(io::sink).init();
            }
            subscribe(client, form, port).await
        }
        Job::Stopped { client, port } => stopped(client, port).await,
        Job::Decode { form, messages } => decode(form, messages),
        Job::Send { client, port, in_flight, messages } => match client {
            Client::Ours => ours::send(&url(port), in_flight, messages).await,
            Client::Raw => raw::send(&url(port), in_flight, messages).await,
            Client::Hand => no_side(),
        },
        Job::Latency { client, port, turn, messages } => match client {
            Client::Ours => ours::latency(&url(port), messages, turn).await,
            Client::Raw => raw::latency(&url(port), messages, turn).await,
            Client::Hand => no_side(),
        },
        Job::Hits { client, port, in_flight, calls } => {
            cache::hits(client, &url(port), in_flight, calls).await
        }
        Job::Loads { client, port, in_flight, calls } => {
            cache::loads(client, &url(port), in_flight, calls).await
        }
        Job::LocalHits { store, kept, port, rounds } => local::hits(store, kept, &url(port), rounds).await,
        Job::Fill { layout, port, messages } => queue::fill(layout, &url(port), messages).await,
        Job::Queue { client, port, messages } => queue::measure(client, &url(port), messages).await,
        Job::Insert { writer, database, rows, together } => {
            sql::insert(writer, &database, rows, together).await
        }
        Job::Relay { relay, database, port, rows } => sql::relay(relay, &database, &url(port), rows).await,
        Job::Dispatch { messages } => ours::dispatch(messages).await,
        Job::FanOut { subscriptions, filters, events } => gateway::fan_out(subscriptions, filters, events),
    }
}

fn no_side() -> Result<Report, Failure> {
    Err("nobody does this by hand".into())
}

async fn subscribe(client: Client, form: Form, port: u16) -> Result<Report, Failure> {
    let ready = || Said::Ready { port }.say();
    match client {
        Client::Ours => {
            let running = ours::handle(&url(port), &form.to_string()).await?;
            ready();
            let mut report = meter::ended().await;
            ours::account(&running, &mut report);
            Ok(report)
        }
        Client::Raw => {
            let connection = raw::subscribe(&url(port), form).await?;
            ready();
            until_the_end(raw::handle(connection, form, meter::handled)).await
        }
        Client::Hand if form == Form::Template => no_side(),
        Client::Hand => {
            let stream = hand::subscribe(port).await?;
            ready();
            until_the_end(hand::handle(stream, form)).await
        }
    }
}

/// Handles until the last order has come.
async fn until_the_end(handling: impl Future<Output = Result<(), Failure>>) -> Result<Report, Failure> {
    tokio::select! {
        failed = handling => failed.and(Err("it stopped handling".into())),
        report = meter::ended() => Ok(report),
    }
}

/// Subscribes and takes nothing, until standard input ends.
async fn stopped(client: Client, port: u16) -> Result<Report, Failure> {
    let end = tokio::task::spawn_blocking(|| io::read_to_string(io::stdin()));
    match client {
        Client::Ours => {
            let _running = ours::handle(&url(port), "stopped").await?;
            Said::Ready { port }.say();
            end.await??;
        }
        Client::Raw => {
            let _connection = raw::subscribe(&url(port), Form::Owned).await?;
            Said::Ready { port }.say();
            end.await??;
        }
        Client::Hand => return no_side(),
    }
    Ok(Report::default())
}

fn decode(form: Form, messages: u64) -> Result<Report, Failure> {
    let bytes = Order::encoded(order::FIRST);
    for _ in 0..messages {
        let text = std::str::from_utf8(black_box(&bytes))?;
        match form {
            Form::Owned | Form::Template => {
                meter::handled(black_box(&serde_json::from_str::<Order>(text)?).id)
            }
            Form::Borrowed => meter::handled(black_box(&serde_json::from_str::<OrderRef<'_>>(text)?).id),
        }
    }
    meter::handled(order::LAST);
    Ok(meter::report())
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}
