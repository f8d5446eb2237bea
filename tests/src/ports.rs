//! Port numbers that stay usable while a server is stopped.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Below the range that the system hands to outgoing connections (from 32,768 on Linux, 49,152 elsewhere), and so are the
/// ports 10,000 above, which Redis Cluster uses between its nodes.
const FIRST: u64 = 12_000;
const COUNT: u64 = 10_000;

/// A port on the loopback interface that nobody listens on.
///
/// Asking the system (port 0) would give one from the range of outgoing connections. While a server on such a port is stopped, a
/// client that keeps trying to reach it can be given that very port for its own end: it connects to itself, and the server
/// cannot come back.
#[must_use]
pub fn free_port() -> u16 {
    static START: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let start = START.get_or_init(crate::process_number) % COUNT;
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("one of 10,000 ports is free")
}
