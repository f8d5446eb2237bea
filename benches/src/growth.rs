//! What is there more and more of, and who publishes to it: over a plain socket, pipelined, spread over many channels.

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::job::{Failure, Report, Spread};
use crate::order::{self, Order};
use crate::publisher::receivers;
use crate::wire::array;

/// About how many bytes are written at once.
const WRITE: usize = 128 << 10;
/// Coprime to the numbers of channels and keys: what comes next lies elsewhere in memory.
const STEP: u64 = 7_919;

/// A payload of any size.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) text: String,
}

impl Note {
    /// So long in JSON.
    fn encoded(bytes: u64) -> Result<Vec<u8>, Failure> {
        let around = serde_json::to_vec(&Self { text: String::new() })?.len();
        let length = usize::try_from(bytes)?.checked_sub(around).ok_or("a note is longer than that")?;
        Ok(serde_json::to_vec(&Self { text: "n".repeat(length) })?)
    }
}

/// The name of one of many channels.
pub(crate) fn channel(number: u64) -> String {
    format!("orders.grown:{number}")
}

/// The one of so many that comes in this place: each comes once before one comes again.
pub(crate) fn shuffled(place: u64, of: u64) -> u64 {
    (place % of * (STEP % of.max(2)).max(1)) % of
}

/// Publishes as fast as the socket takes it; each message must have one receiver.
pub(crate) fn publish(spread: Spread) -> Result<Report, Failure> {
    let Spread { port, channels, messages, bytes } = spread;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let payload = bytes.map_or_else(|| Ok(Order::encoded(order::FIRST)), Note::encoded)?;
    let start = Instant::now();
    let answered = thread::spawn(move || -> Result<Instant, std::io::Error> {
        for _ in 0..messages {
            if receivers(&mut answers)? != 1 {
                return Err(std::io::Error::other("a message did not have one receiver"));
            }
        }
        Ok(Instant::now())
    });
    let mut waiting = Vec::with_capacity(2 * WRITE);
    for place in 0..messages {
        let channel = channel(shuffled(place, channels));
        waiting.extend(array(&[b"PUBLISH", channel.as_bytes(), &payload]));
        if waiting.len() >= WRITE || place + 1 == messages {
            stream.write_all(&waiting)?;
            waiting.clear();
        }
    }
    let end = answered.join().map_err(|_| "the reader of answers panicked")??;
    Ok(Report { count: messages, seconds: (end - start).as_secs_f64(), ..Report::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_before_one_comes_again() {
        for of in [1, 2, 3, 10, 100, 1_000, 100_000] {
            let mut places: Vec<u64> = (0..of).map(|place| shuffled(place, of)).collect();
            assert_eq!(shuffled(of, of), places[0]);
            places.sort_unstable();
            assert!(places.into_iter().eq(0..of), "{of}");
        }
    }

    #[test]
    fn notes_are_as_long_as_they_should_be() {
        for bytes in [100, 1 << 10] {
            assert_eq!(Note::encoded(bytes).unwrap().len() as u64, bytes);
        }
        assert!(Note::encoded(3).is_err());
    }
}
