//! As much of Redis's protocol as the fake server, the publisher and the subscriber by hand have in common.

/// An array of bulk strings.
pub(crate) fn array(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// What confirms a subscription.
pub(crate) fn confirmation(kind: &[u8], name: &[u8]) -> Vec<u8> {
    let mut bytes = array(&[kind, name]);
    bytes[1] = b'3';
    bytes.extend_from_slice(b":1\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_and_confirmations() {
        assert_eq!(array(&[b"PING", b""]), b"*2\r\n$4\r\nPING\r\n$0\r\n\r\n");
        assert_eq!(confirmation(b"subscribe", b"a"), b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    }
}
