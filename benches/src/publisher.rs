//! The publisher of the live rows: PUBLISH over a plain socket, pipelined, so that Redis or the subscriber is what saturates.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::job::{CHANNEL, Failure, Pace, Report};
use crate::order::{self, Order};
use crate::wire::array;

/// How many messages are written at once in a flood.
const AT_ONCE: u64 = 512;
/// How often a paced publisher writes.
const TICK: Duration = Duration::from_millis(1);

/// Publishes `messages` orders, and the last one when Redis has answered all of them.
pub(crate) fn publish(port: u16, messages: u64, pace: Pace) -> Result<Report, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let one = array(&[b"PUBLISH", CHANNEL.as_bytes(), &Order::encoded(order::FIRST)]);
    let start = Instant::now();
    let answered = thread::spawn(move || -> Result<Instant, std::io::Error> {
        for _ in 0..messages {
            receivers(&mut answers)?;
        }
        Ok(Instant::now())
    });
    match pace {
        Pace::PerSecond(rate) => {
            let at_once = one.repeat(usize::try_from(rate)?);
            let mut written = 0;
            for tick in 1.. {
                let due = messages.min(rate * tick / ticks_per_second());
                stream.write_all(&at_once[..usize::try_from(due - written)? * one.len()])?;
                written = due;
                if written == messages {
                    break;
                }
                let next = start + TICK * u32::try_from(tick)?;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        }
        Pace::Flood => {
            let many = one.repeat(usize::try_from(AT_ONCE)?);
            let mut left = messages;
            while left > 0 {
                let now = left.min(AT_ONCE);
                stream.write_all(&many[..usize::try_from(now)? * one.len()])?;
                left -= now;
            }
        }
    }
    let end = answered.join().map_err(|_| "the reader of answers panicked")??;
    say_that_it_is_over(port)?;
    Ok(Report { count: messages, seconds: (end - start).as_secs_f64(), ..Report::default() })
}

fn ticks_per_second() -> u64 {
    u64::try_from(Duration::from_secs(1).as_nanos() / TICK.as_nanos()).unwrap_or(1)
}

/// Publishes the last order; again if nobody is there at the moment.
fn say_that_it_is_over(port: u16) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    loop {
        stream.write_all(&array(&[b"PUBLISH", CHANNEL.as_bytes(), &Order::encoded(order::LAST)]))?;
        if receivers(&mut answers)? > 0 {
            return Ok(());
        }
        thread::sleep(TICK);
    }
}

/// The answer to one PUBLISH.
pub(crate) fn receivers(answers: &mut impl BufRead) -> Result<u64, std::io::Error> {
    let mut line = [0; 24];
    let mut length = 0;
    loop {
        let available = answers.fill_buf()?;
        let Some(&byte) = available.first() else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
        answers.consume(1);
        if byte == b'\n' {
            break;
        }
        if length < line.len() {
            line[length] = byte;
            length += 1;
        }
    }
    let text = std::str::from_utf8(&line[..length]).unwrap_or_default().trim_end();
    let number = text.strip_prefix(':').and_then(|number| number.parse().ok());
    number.ok_or_else(|| std::io::Error::other(format!("redis answered {text:?} to a PUBLISH")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_one_by_one() {
        let mut answers = &b":0\r\n:12\r\n-ERR no\r\n"[..];
        assert_eq!(receivers(&mut answers).unwrap(), 0);
        assert_eq!(receivers(&mut answers).unwrap(), 12);
        assert!(receivers(&mut answers).unwrap_err().to_string().contains("-ERR no"));
        assert_eq!(receivers(&mut answers).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    }
}
