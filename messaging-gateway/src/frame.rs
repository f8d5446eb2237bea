//! A text on its way to clients, encoded once as the WebSocket frame that all of them get (RFC 6455, section 5.2: a server
//! does not mask).

use bytes::Bytes;

/// A whole text frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    bytes: Bytes,
    header: u8,
}

impl Frame {
    /// Makes a frame of the text that `write` appends; `size` is about how long that is.
    pub(crate) fn text(size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        /// The longest header of an unmasked frame.
        const ROOM: usize = 10;
        let mut bytes = Vec::with_capacity(ROOM + size);
        bytes.resize(ROOM, 0);
        write(&mut bytes);
        let length = bytes.len() - ROOM;
        let mut header = [0; ROOM];
        // Final, text.
        header[0] = 0x81;
        let used = match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short), _) if short < 126 => {
                header[1] = short;
                2
            }
            (_, Ok(medium)) => {
                header[1] = 126;
                header[2..4].copy_from_slice(&medium.to_be_bytes());
                4
            }
            _ => {
                header[1] = 127;
                header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
                ROOM
            }
        };
        bytes[ROOM - used..ROOM].copy_from_slice(&header[..used]);
        let bytes = Bytes::from(bytes).slice(ROOM - used..);
        Self { bytes, header: u8::try_from(used).expect("at most ten") }
    }

    /// As it is on a WebSocket.
    pub(crate) fn wire(&self) -> &Bytes {
        &self.bytes
    }

    /// The text alone.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[usize::from(self.header)..]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_standard_has_them() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 255, 255]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = Frame::text(0, |out| out.resize(out.len() + length, b'x'));
            assert_eq!(frame.wire()[..header.len()], header, "{length}");
            assert_eq!(frame.payload(), vec![b'x'; length]);
            assert_eq!(frame.len(), header.len() + length);
        }
    }
}
