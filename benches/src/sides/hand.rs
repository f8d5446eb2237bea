//! By hand: a socket, a decoder that knows one kind of message, and serde_json. The ceiling for any subscriber in Rust; it
//! notices no fault and recovers from none.

use std::hint::black_box;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::job::{CHANNEL, Failure, Form};
use crate::meter;
use crate::order::{Order, OrderRef};
use crate::wire::{array, confirmation};

const READ: usize = 64 << 10;

pub(crate) async fn subscribe(port: u16) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(&array(&[b"SUBSCRIBE", CHANNEL.as_bytes()])).await?;
    let mut answer = vec![0; confirmation(b"subscribe", CHANNEL.as_bytes()).len()];
    stream.read_exact(&mut answer).await?;
    Ok(stream)
}

/// Handles orders until the connection ends.
pub(crate) async fn handle(mut stream: TcpStream, form: Form) -> Result<(), Failure> {
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.reserve(READ / 4);
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err("the connection ended".into());
        }
        let mut at = 0;
        while let Some((payload, end)) = message(&buffer, at) {
            // One UTF-8 check is cheaper than one for each string.
            let text = std::str::from_utf8(payload)?;
            match form {
                Form::Owned | Form::Template => {
                    meter::handled(black_box(&serde_json::from_str::<Order>(text)?).id)
                }
                Form::Borrowed => meter::handled(black_box(&serde_json::from_str::<OrderRef<'_>>(text)?).id),
            }
            at = end;
        }
        buffer.advance(at);
    }
}

/// The payload of the message at `at` and where it ends, if it is complete.
fn message(buffer: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let mut at = at + "*3\r\n".len();
    let mut part = &buffer[..0];
    for _ in 0..3 {
        let (size, start) = size(buffer, at)?;
        part = buffer.get(start..start + size)?;
        at = start + size + 2;
    }
    (at <= buffer.len()).then_some((part, at))
}

/// The number on the line at `at`, and where the next line begins.
fn size(buffer: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut size = 0;
    for (index, byte) in buffer.get(at + 1..)?.iter().enumerate() {
        match byte {
            b'0'..=b'9' => size = size * 10 + usize::from(byte - b'0'),
            _ => return Some((size, at + 1 + index + 2)),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_and_only_when_they_are_complete() {
        let bytes = array(&[b"message", b"orders.created", b"1234567890"]);
        let two = bytes.repeat(2);
        assert_eq!(message(&two, 0), Some((&b"1234567890"[..], bytes.len())));
        assert_eq!(message(&two, bytes.len()), Some((&b"1234567890"[..], two.len())));
        assert!((0..bytes.len()).all(|end| message(&bytes[..end], 0).is_none()));
    }
}
