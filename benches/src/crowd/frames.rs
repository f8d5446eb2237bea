//! RFC 6455 as far as the crowd needs it: masked text frames out; in, the headers of whole frames and the first bytes of what
//! they carry.

use crate::job::Failure;

/// How much of what a frame carries is looked at: enough to tell what kind of message it is, and to show it.
pub(super) const SEEN: usize = 96;

pub(super) const TEXT: u8 = 1;
pub(super) const CLOSE: u8 = 8;

/// A frame has begun.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    /// The first bytes of what it carries.
    pub(super) start: &'a [u8],
}

/// A text frame. A client has to mask what it sends; any key will do, and zeros leave the text as it is.
pub(super) fn text(payload: &str) -> Vec<u8> {
    let length = payload.len();
    let mut frame = vec![0x80 | TEXT];
    match u8::try_from(length) {
        Ok(short @ 0..126) => frame.push(0x80 | short),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).expect("the crowd has little to say").to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload.as_bytes());
    frame
}

/// How far the frames of one connection have been read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// So many bytes until the next frame begins.
    skip: usize,
    /// The beginning of a frame of which too little has come.
    kept: Vec<u8>,
}

impl Reader {
    /// Puts what was kept in front of what is read next; returns how much it is.
    pub(super) fn resume(&self, buffer: &mut [u8]) -> usize {
        buffer[..self.kept.len()].copy_from_slice(&self.kept);
        self.kept.len()
    }

    /// Takes what was kept and what has come since, and calls `each` for each frame that begins there.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Frame<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut rest = bytes;
        loop {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = &rest[skipped..];
            let Some(Head { size, payload }) = Head::of(rest)? else {
                self.kept.clear();
                self.kept.extend_from_slice(rest);
                return Ok(());
            };
            let start = &rest[size..size + payload.min(SEEN)];
            each(Frame { opcode: rest[0] & 0x0f, start })?;
            rest = &rest[size..];
            self.skip = payload;
        }
    }
}

/// The header of a frame.
struct Head {
    size: usize,
    payload: usize,
}

impl Head {
    /// `None` if there is less than the header and what is looked at.
    fn of(bytes: &[u8]) -> Result<Option<Self>, Failure> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        if first & 0xf0 != 0x80 || second & 0x80 != 0 {
            return Err("the server sends frames that are in parts, compressed or masked".into());
        }
        let (size, payload) = match second {
            126 => (4, rest.first_chunk().map(|length| u64::from(u16::from_be_bytes(*length)))),
            127 => (10, rest.first_chunk().map(|length| u64::from_be_bytes(*length))),
            short => (2, Some(u64::from(short))),
        };
        let Some(payload) = payload.map(usize::try_from).transpose()? else { return Ok(None) };
        Ok((bytes.len() >= size + payload.min(SEEN)).then_some(Self { size, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server sends it: not masked.
    fn served(payload: &str) -> Vec<u8> {
        let length = payload.len();
        let mut frame = vec![0x80 | TEXT];
        match length {
            0..126 => frame.push(u8::try_from(length).unwrap()),
            126..65_536 => {
                frame.push(126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(payload.as_bytes());
        frame
    }

    /// The beginnings of frames that come in pieces of so many bytes.
    fn starts(bytes: &[u8], piece: usize) -> Vec<String> {
        let (mut reader, mut starts, mut buffer) = (Reader::default(), Vec::new(), vec![0; 1_024 + piece]);
        for piece in bytes.chunks(piece) {
            let kept = reader.resume(&mut buffer);
            buffer[kept..kept + piece.len()].copy_from_slice(piece);
            let each = |frame: Frame<'_>| {
                assert_eq!(frame.opcode, TEXT);
                starts.push(String::from_utf8(frame.start.to_vec()).unwrap());
                Ok(())
            };
            reader.take(&buffer[..kept + piece.len()], each).unwrap();
        }
        starts
    }

    #[test]
    fn every_frame_is_seen_once_wherever_it_is_cut() {
        let texts =
            ["", "2", "x".repeat(125).as_str(), "yy".repeat(63).as_str(), "z".repeat(70_000).as_str(), "end"]
                .map(str::to_owned);
        let bytes: Vec<u8> = texts.iter().flat_map(|text| served(text)).collect();
        let expected: Vec<String> =
            texts.iter().map(|text| text[..text.len().min(SEEN)].to_owned()).collect();
        for piece in (1..=300).chain([4_096, bytes.len()]) {
            assert_eq!(starts(&bytes, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_said_is_masked_and_readable() {
        assert_eq!(text("hi"), b"\x81\x82\0\0\0\0hi");
        let long = text(&"a".repeat(200));
        assert_eq!(long[..8], [0x81, 0xfe, 0, 200, 0, 0, 0, 0]);
        assert_eq!(long.len(), 208);
    }

    #[test]
    fn other_frames_are_refused() {
        for header in [[0x01, 0], [0xc1, 0], [0x81, 0x80]] {
            assert!(Reader::default().take(&header, |_| Ok(())).is_err(), "{header:?}");
        }
    }
}
