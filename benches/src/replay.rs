//! The replay server: stands in for Redis as far as subscribers need it, and sends prebuilt messages as fast as the socket takes
//! them, so that the subscriber is what saturates. It keeps nothing and publishes nothing.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use crate::job::{CHANNEL, Failure, PATTERN, Said};
use crate::order::{self, Order};
use crate::wire::{array, confirmation};

/// About how many bytes are written at once.
const WRITE: usize = 256 << 10;

/// Serves until the process is ended.
pub(crate) fn serve(messages: u64) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Said::Ready { port: listener.local_addr()?.port() }.say();
    for stream in listener.incoming() {
        let stream = stream?;
        // A client that goes away is no failure of the server.
        thread::spawn(move || converse(stream, messages));
    }
    Ok(())
}

fn converse(stream: TcpStream, messages: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    let mut subscribed = false;
    while let Some(command) = command(&mut input)? {
        let name = command.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        match (&name[..], command.get(1)) {
            (b"PING", _) if subscribed => output.write_all(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")?,
            (b"PING", _) => output.write_all(b"+PONG\r\n")?,
            (b"HELLO", _) => output.write_all(b"%1\r\n$5\r\nproto\r\n:3\r\n")?,
            (b"SUBSCRIBE" | b"PSUBSCRIBE", Some(wanted)) => {
                subscribed = true;
                output.write_all(&confirmation(&name.to_ascii_lowercase(), wanted))?;
                let channel = CHANNEL.as_bytes();
                // What else a client listens to, for its own purposes, stays silent.
                match (&name[..], &wanted[..]) {
                    (b"SUBSCRIBE", name) if name == channel => {
                        blast(&mut output, messages, &|order| array(&[b"message", channel, order]))?;
                    }
                    (b"PSUBSCRIBE", glob) if glob == PATTERN.as_bytes() => {
                        blast(&mut output, messages, &|order| array(&[b"pmessage", glob, channel, order]))?;
                    }
                    _ => {}
                }
            }
            _ => output.write_all(b"+OK\r\n")?,
        }
    }
    Ok(())
}

/// Sends `messages` orders and the last one.
fn blast(output: &mut TcpStream, messages: u64, message: &dyn Fn(&[u8]) -> Vec<u8>) -> io::Result<()> {
    let one = message(&Order::encoded(order::FIRST));
    let at_once = (WRITE / one.len()).max(1);
    let many = one.repeat(at_once);
    let mut left = messages;
    while left > 0 {
        let now = usize::try_from(left).map_or(at_once, |left| left.min(at_once));
        output.write_all(&many[..now * one.len()])?;
        left -= now as u64;
    }
    output.write_all(&message(&Order::encoded(order::LAST)))?;
    Said::Sent.say();
    Ok(())
}

/// The next command: an array of bulk strings; `None` at the end.
fn command(input: &mut impl BufRead) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(count) = number(input, b'*')? else { return Ok(None) };
    let mut words = Vec::new();
    for _ in 0..count {
        let size = number(input, b'$')?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut word = vec![0; size + 2];
        input.read_exact(&mut word)?;
        word.truncate(size);
        words.push(word);
    }
    Ok(Some(words))
}

/// The number on a line that begins with `kind`; `None` at the end.
fn number(input: &mut impl BufRead, kind: u8) -> io::Result<Option<usize>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let number = line.strip_prefix(char::from(kind)).and_then(|rest| rest.trim_end().parse().ok());
    number.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client that sends `commands` and nothing more is answered.
    fn answers(commands: &[&[&[u8]]], messages: u64) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        commands.iter().for_each(|command| client.write_all(&array(command)).unwrap());
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let reader = thread::spawn(move || io::read_to_string(client).unwrap());
        converse(server, messages).unwrap();
        reader.join().unwrap()
    }

    fn orders(answers: &str) -> (usize, usize) {
        let count = |id: u64| answers.matches(&format!("{{\"id\":{id},")).count();
        (count(order::FIRST), count(order::LAST))
    }

    #[test]
    fn a_subscriber_is_sent_everything_once_and_the_last_order() {
        let answers = answers(&[&[b"CLIENT", b"SETNAME", b"x"], &[b"subscribe", b"orders.created"]], 2_000);
        assert!(answers.starts_with("+OK\r\n*3\r\n$9\r\nsubscribe\r\n$14\r\norders.created\r\n:1\r\n*3\r\n"));
        assert_eq!(orders(&answers), (2_000, 1));
    }

    #[test]
    fn other_subscriptions_stay_silent() {
        assert_eq!(
            orders(&answers(&[&[b"SUBSCRIBE", b"orders.changed"], &[b"PSUBSCRIBE", b"*"]], 10)),
            (0, 0)
        );
        assert_eq!(orders(&answers(&[&[b"PSUBSCRIBE", b"orders.*"]], 10)), (10, 1));
    }

    #[test]
    fn handshakes_are_answered() {
        let answers = answers(&[&[b"HELLO", b"3"], &[b"PING"], &[b"SUBSCRIBE", b"x"], &[b"PING"]], 0);
        let subscribed = "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n";
        let pong = "*2\r\n$4\r\npong\r\n$0\r\n\r\n";
        assert_eq!(answers, format!("%1\r\n$5\r\nproto\r\n:3\r\n+PONG\r\n{subscribed}{pong}"));
    }
}
