//! What a service publishes so that Socket.IO servers with the Redis adapter send it to a room: the form of
//! `@socket.io/redis-emitter`, in MessagePack.

use serde_json::{Value, json};

use crate::job::Failure;

/// A packet that is an event, in the protocol of Socket.IO.
const EVENT: u64 = 2;

/// The channel of a room, in the main namespace and with the adapter's default key.
pub(crate) fn channel(room: &str) -> String {
    format!("socket.io#/#{room}#")
}

/// An event for a room that has the room's name and carries `payload`.
pub(crate) fn message(room: &str, payload: &[u8]) -> Result<Vec<u8>, Failure> {
    let payload: Value = serde_json::from_slice(payload)?;
    let packet = json!({"type": EVENT, "data": [room, payload], "nsp": "/"});
    let message = json!(["emitter", packet, {"rooms": [room], "except": [], "flags": {}}]);
    let mut bytes = Vec::new();
    write(&message, &mut bytes)?;
    Ok(bytes)
}

/// Writes a value as MessagePack, always with the longest form of lengths.
fn write(value: &Value, bytes: &mut Vec<u8>) -> Result<(), Failure> {
    match value {
        Value::Null => bytes.push(0xc0),
        Value::Bool(value) => bytes.push(0xc2 + u8::from(*value)),
        Value::Number(number) => match number.as_u64() {
            Some(number) => {
                bytes.push(0xcf);
                bytes.extend(number.to_be_bytes());
            }
            None => {
                bytes.push(0xcb);
                bytes.extend(number.as_f64().ok_or("a number that is none")?.to_be_bytes());
            }
        },
        Value::String(text) => {
            length(0xdb, text.len(), bytes)?;
            bytes.extend(text.as_bytes());
        }
        Value::Array(values) => {
            length(0xdd, values.len(), bytes)?;
            values.iter().try_for_each(|value| write(value, bytes))?;
        }
        Value::Object(fields) => {
            length(0xdf, fields.len(), bytes)?;
            for (name, value) in fields {
                length(0xdb, name.len(), bytes)?;
                bytes.extend(name.as_bytes());
                write(value, bytes)?;
            }
        }
    }
    Ok(())
}

fn length(kind: u8, length: usize, bytes: &mut Vec<u8>) -> Result<(), Failure> {
    bytes.push(kind);
    bytes.extend(u32::try_from(length)?.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_specification_says() {
        let written = |value: Value| {
            let mut bytes = Vec::new();
            write(&value, &mut bytes).unwrap();
            bytes
        };
        assert_eq!(written(json!([null, false, true])), b"\xdd\0\0\0\x03\xc0\xc2\xc3");
        assert_eq!(written(json!({"a": 7})), b"\xdf\0\0\0\x01\xdb\0\0\0\x01a\xcf\0\0\0\0\0\0\0\x07");
        assert_eq!(written(json!(-1.5)), b"\xcb\xbf\xf8\0\0\0\0\0\0");
    }

    #[test]
    fn a_room_has_a_channel() {
        assert_eq!(channel("orders.created"), "socket.io#/#orders.created#");
    }
}
