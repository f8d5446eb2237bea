//! A proxy that understands what clients ask a Redis server: it notes every command with the round trip that it belongs to,
//! and can let everything come to a halt after one of them. It looks at no answer.

use crate::ports::free_port;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// How long an answer is kept back. Whoever writes commands without waiting for an answer has written them all by then,
/// so that they count as one round trip, in however many pieces they arrive.
const KEPT_BACK: Duration = Duration::from_millis(20);

/// A proxy in front of one server on the loopback interface that notes what is asked. Dropping it closes its connections.
#[derive(Debug)]
pub struct Meter {
    port: u16,
    notes: Arc<Notes>,
    listener: JoinHandle<()>,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The connection that it came on; the first one is 1.
    pub connection: usize,
    /// How many answers the client had been given on this connection: commands with the same number were sent without
    /// waiting for each other.
    pub round: usize,
    /// Its name, in capitals, and its arguments.
    pub words: Vec<String>,
}

impl Request {
    /// The command's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Whether one of its arguments is this text.
    #[must_use]
    pub fn mentions(&self, argument: &str) -> bool {
        self.words.iter().skip(1).any(|word| word == argument)
    }
}

#[derive(Debug, Default)]
struct Notes {
    requests: Mutex<Vec<Request>>,
    /// The words of the command after which nothing gets through any more.
    last: Mutex<Option<Vec<String>>>,
    halted: watch::Sender<bool>,
}

impl Meter {
    /// A meter in front of the server on this port; it listens when this returns.
    ///
    /// # Panics
    ///
    /// If no port can be listened on.
    pub async fn before(server: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.unwrap_or_else(|error| panic!("cannot listen on port {port}: {error}"));
        let notes = Arc::<Notes>::default();
        let listener = tokio::spawn(listen(listener, server, Arc::clone(&notes)));
        Self { port, notes, listener }
    }

    /// The port that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What has been asked since this was called last, in order.
    #[allow(clippy::must_use_candidate, reason = "what came so far may be of no interest")]
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *lock(&self.notes.requests))
    }

    /// After the next command that has all of these words, its name in capitals among them, nothing gets through to the
    /// server any more, on no connection. Everything stays open.
    pub fn halt_after(&self, words: &[&str]) {
        *lock(&self.notes.last) = Some(words.iter().map(|word| (*word).to_owned()).collect());
    }

    /// Waits until it has come to that.
    pub async fn halted(&self) {
        let mut halted = self.notes.halted.subscribe();
        halted.wait_for(|halted| *halted).await.expect("the notes live as long as the meter");
    }

    /// Lets everything through again.
    pub fn go_on(&self) {
        *lock(&self.notes.last) = None;
        self.notes.halted.send_replace(false);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(listener: TcpListener, server: u16, notes: Arc<Notes>) {
    let mut connections = JoinSet::new();
    for number in 1.. {
        let client = listener.accept().await.expect("a listening socket accepts").0;
        let notes = Arc::clone(&notes);
        connections.spawn(async move { serve(number, client, server, &notes).await });
    }
}

async fn serve(connection: usize, client: TcpStream, server: u16, notes: &Notes) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let round = Mutex::new(0);
    let asked = ask(connection, from_client, to_server, &round, notes);
    tokio::try_join!(asked, answer(from_server, to_client, &round)).map(drop)
}

/// Carries what the client asks, command by command.
async fn ask(
    connection: usize,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    round: &Mutex<usize>,
    notes: &Notes,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while from.read_buf(&mut buffer).await? > 0 {
        while let Some((words, length)) = parse(&buffer)? {
            let mut halted = notes.halted.subscribe();
            let _ = halted.wait_for(|halted| !*halted).await;
            let is_last = lock(&notes.last)
                .as_ref()
                .is_some_and(|last| last.iter().all(|word| words.iter().any(|other| other == word)));
            let request = Request { connection, round: *lock(round), words };
            lock(&notes.requests).push(request);
            // From here on nobody else gets through.
            if is_last {
                notes.halted.send_replace(true);
            }
            to.write_all(&buffer[..length]).await?;
            buffer.drain(..length);
        }
    }
    to.shutdown().await
}

/// Carries what the server answers, a little later.
async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, round: &Mutex<usize>) -> io::Result<()> {
    let mut buffer = Vec::new();
    while from.read_buf(&mut buffer).await? > 0 {
        sleep(KEPT_BACK).await;
        *lock(round) += 1;
        to.write_all(&buffer).await?;
        buffer.clear();
    }
    to.shutdown().await
}

/// The words of the first command in `bytes`, and how long it is; `None` if it is not all there.
fn parse(bytes: &[u8]) -> io::Result<Option<(Vec<String>, usize)>> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not a command");
    let mut at = 0;
    let number = |kind: u8, at: &mut usize| -> io::Result<Option<usize>> {
        let Some(end) = bytes[*at..].windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let line = &bytes[*at..*at + end];
        *at += end + 2;
        let text = line.strip_prefix(&[kind]).and_then(|digits| std::str::from_utf8(digits).ok());
        text.and_then(|text| text.parse().ok()).ok_or_else(wrong).map(Some)
    };
    let Some(count) = number(b'*', &mut at)? else { return Ok(None) };
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(length) = number(b'$', &mut at)? else { return Ok(None) };
        let Some(word) = bytes.get(at..at + length) else { return Ok(None) };
        if bytes.len() < at + length + 2 {
            return Ok(None);
        }
        words.push(String::from_utf8_lossy(word).into_owned());
        at += length + 2;
    }
    if let Some(name) = words.first_mut() {
        name.make_ascii_uppercase();
    }
    Ok(Some((words, at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RedisServer, eventually};

    #[test]
    fn commands_are_read_as_they_arrive() {
        let bytes = b"*2\r\n$3\r\nget\r\n$4\r\na\r\nb\r\n*1\r\n$4\r\nPING\r\n";
        let (words, length) = parse(bytes).unwrap().unwrap();
        assert_eq!((words, length), (vec!["GET".to_owned(), "a\r\nb".to_owned()], 23));
        assert_eq!(parse(&bytes[23..]).unwrap().unwrap().0, ["PING"]);
        for end in 0..23 {
            assert!(parse(&bytes[..end]).unwrap().is_none(), "{end}");
        }
        assert!(parse(b"+OK\r\n").is_err());
    }

    async fn send(stream: &mut TcpStream, text: &str, answer: &str) {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut bytes = vec![0; answer.len()];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, answer.as_bytes());
    }

    #[tokio::test]
    async fn what_is_sent_together_is_one_round_trip_and_a_halt_is_one_for_all() {
        let redis = RedisServer::start();
        let meter = Meter::before(redis.port()).await;
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, meter.port())).await.unwrap();
        send(&mut client, "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nping\r\n", "+PONG\r\n+PONG\r\n").await;
        send(&mut client, "*1\r\n$4\r\nPING\r\n", "+PONG\r\n").await;
        let requests = meter.take();
        let rounds: Vec<usize> = requests.iter().map(|request| request.round).collect();
        assert_eq!(rounds.len(), 3);
        assert!(rounds[0] == rounds[1] && rounds[1] < rounds[2], "{rounds:?}");
        assert!(requests.iter().all(|request| request.name() == "PING" && request.connection == 1));

        meter.halt_after(&["INCR", "a"]);
        let incr = |key: &str| format!("*2\r\n$4\r\nincr\r\n$1\r\n{key}\r\n");
        client.write_all(format!("{}{}{}", incr("b"), incr("a"), incr("a")).as_bytes()).await.unwrap();
        meter.halted().await;
        eventually("what came before has arrived", async || redis.cli(&["GET", "a"]) == "1").await;
        assert_eq!(redis.cli(&["GET", "b"]), "1");
        meter.go_on();
        send(&mut client, "", ":1\r\n:1\r\n:2\r\n").await;
    }
}
