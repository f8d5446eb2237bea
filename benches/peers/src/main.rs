//! `messaging-benches-peers job <job>`: other libraries, measured as our sides are and by the same code.
#![forbid(unsafe_code)]

#[path = "../../src/job.rs"]
#[allow(dead_code, reason = "the jobs of the other program are not for this one")]
mod job;
#[path = "../../src/meter.rs"]
#[allow(dead_code, reason = "it measures no bursts")]
mod meter;
#[path = "../../src/order.rs"]
#[allow(dead_code, reason = "it borrows no orders")]
mod order;
mod sides;
#[path = "../../src/usage.rs"]
#[allow(dead_code, reason = "it looks at no other process")]
mod usage;

use job::{Failure, Peer, PeerJob, Report, Said};
use sides::{cached, fred, ruststream, sea_streamer};

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["job", job] = arguments[..] else {
        return Err("this program is started by `cargo xtask bench`".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = runtime.block_on(measure(serde_json::from_str(job)?))?;
    report.peak_mib = usage::peak_mib();
    Said::Done(report).say();
    // What a library still waits for is of no interest.
    runtime.shutdown_background();
    Ok(())
}

async fn measure(job: PeerJob) -> Result<Report, Failure> {
    match job {
        PeerJob::Subscribe { peer, port } => match peer {
            Peer::Fred => fred::subscribe(port).await,
            Peer::RustStream => ruststream::subscribe(port).await,
            Peer::Cached | Peer::SeaStreamer => no_side(),
        },
        PeerJob::Send { peer, port, in_flight, messages } => match peer {
            Peer::Fred => fred::send(port, in_flight, messages).await,
            Peer::RustStream => ruststream::send(port, in_flight, messages).await,
            Peer::Cached | Peer::SeaStreamer => no_side(),
        },
        PeerJob::Hits { peer, port, in_flight, calls } => match peer {
            Peer::Cached => cached::hits(port, in_flight, calls).await,
            Peer::Fred => fred::hits(port, in_flight, calls).await,
            Peer::RustStream | Peer::SeaStreamer => no_side(),
        },
        PeerJob::Queue { peer, port, messages } => match peer {
            Peer::RustStream => ruststream::queue(port, messages).await,
            Peer::SeaStreamer => sea_streamer::queue(port, messages).await,
            Peer::Cached | Peer::Fred => no_side(),
        },
    }
}

fn no_side() -> Result<Report, Failure> {
    Err("this is not measured of that library".into())
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}
