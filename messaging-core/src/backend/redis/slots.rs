//! Which primary of a cluster owns which hash slot, as `CLUSTER SLOTS` tells it, and which slot a key is in. No I/O.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.

use std::collections::BTreeSet;

use redis::Value;

use crate::config::Address;

/// The hash slot of a key or of a sharded channel: that of its hash tag, if it has one.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let end = rest.iter().position(|byte| *byte == b'}')?;
        (end > 0).then(|| &rest[..end])
    });
    crc16(tag.unwrap_or(key)) % 16_384
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            },
        )
    })
}

/// The owners of all slots at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SlotMap {
    ranges: Vec<Range>,
    /// The primaries, then the replicas.
    pub(super) nodes: Vec<Address>,
}

#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    primary: Address,
}

impl SlotMap {
    /// Reads the answer to CLUSTER SLOTS that `asked` gave; `None` if it is none, or names no node.
    pub(super) fn parse(reply: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(entries) = reply else { return None };
        let (mut ranges, mut replicas) = (Vec::new(), BTreeSet::new());
        for entry in entries {
            let Value::Array(entry) = entry else { return None };
            let [Value::Int(first), Value::Int(last), nodes @ ..] = &entry[..] else { return None };
            let mut nodes = nodes.iter().map(|node| address(node, asked));
            // Of a primary that does not know its own name yet, another node knows it.
            let Some(primary) = nodes.next()? else { continue };
            replicas.extend(nodes.flatten());
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            ranges.push(Range { first, last, primary });
        }
        ranges.sort_unstable_by_key(|range| range.first);
        let primaries: BTreeSet<_> = ranges.iter().map(|range| range.primary.clone()).collect();
        let nodes: Vec<_> =
            primaries.iter().cloned().chain(replicas.difference(&primaries).cloned()).collect();
        (!nodes.is_empty()).then_some(Self { ranges, nodes })
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&Address> {
        let after = self.ranges.partition_point(|range| range.first <= slot);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= range.last).then_some(&range.primary)
    }

    /// The primaries that own slots, each once.
    pub(super) fn primaries(&self) -> BTreeSet<&Address> {
        self.ranges.iter().map(|range| &range.primary).collect()
    }
}

/// The address of a node; of one without a name, the name that we asked at.
fn address(node: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(node) = node else { return None };
    let (Some(name), Some(Value::Int(port))) = (node.first(), node.get(1)) else { return None };
    let Address::Tcp { host: asked, tls, .. } = asked else { return None };
    let host = match name {
        Value::BulkString(name) => String::from_utf8(name.clone()).ok()?,
        Value::SimpleString(name) => name.clone(),
        Value::Nil => String::new(),
        _ => return None,
    };
    let host = match host.as_str() {
        "" => asked.clone(),
        "?" => return None,
        _ => host,
    };
    Some(Address::Tcp { host, port: u16::try_from(*port).ok().filter(|port| *port != 0)?, tls: *tls })
}

/// The address in an error such as `MOVED 3999 127.0.0.1:6381`, whose detail this is. Without a host it is that of `asked`.
pub(super) fn redirection(detail: &str, asked: &Address) -> Option<Address> {
    let (host, port) = detail.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    let Address::Tcp { host: same, tls, .. } = asked else { return None };
    let host = host.trim_matches(['[', ']']);
    // A node that has no name yet.
    if host == "?" {
        return None;
    }
    let host = if host.is_empty() { same.clone() } else { host.to_owned() };
    Some(Address::Tcp { host, port: port.parse().ok()?, tls: *tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port, tls: false }
    }

    fn node(host: &str, port: i64) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port), Value::BulkString("id".into())])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        let mut entry = vec![Value::Int(first), Value::Int(last)];
        entry.extend(nodes);
        Value::Array(entry)
    }

    #[test]
    fn slots_are_those_that_redis_computes() {
        // From CLUSTER KEYSLOT.
        for (key, slot) in
            [("123456789", 12_739), ("foo", 12_182), ("{foo}.x", 12_182), ("a{foo}{bar}", 12_182), ("", 0)]
        {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        // An empty tag is none.
        assert_ne!(slot_of(b"{}foo"), slot_of(b"{}bar"));
    }

    #[test]
    fn the_owners_come_from_the_answer() {
        let reply = Value::Array(vec![
            range(5_461, 16_383, vec![node("b", 2), node("c", 3)]),
            range(0, 5_460, vec![node("", 1), node("?", 9)]),
        ]);
        let map = SlotMap::parse(&reply, &at("asked", 7)).unwrap();
        assert_eq!(map.owner(0), Some(&at("asked", 1)));
        assert_eq!(map.owner(5_460), Some(&at("asked", 1)));
        assert_eq!(map.owner(5_461), Some(&at("b", 2)));
        assert_eq!(map.nodes, [at("asked", 1), at("b", 2), at("c", 3)]);
        assert_eq!(map.primaries().len(), 2);
    }

    #[test]
    fn a_slot_without_an_owner_has_none() {
        let reply = Value::Array(vec![range(10, 20, vec![node("a", 1)])]);
        let map = SlotMap::parse(&reply, &at("a", 1)).unwrap();
        assert_eq!((map.owner(9), map.owner(21)), (None, None));
        assert_eq!(SlotMap::parse(&Value::Array(Vec::new()), &at("a", 1)), None);
        assert_eq!(SlotMap::parse(&Value::Okay, &at("a", 1)), None);
    }

    #[test]
    fn an_error_says_where_a_slot_is_now() {
        assert_eq!(redirection("3999 10.0.0.1:6381", &at("a", 1)), Some(at("10.0.0.1", 6381)));
        assert_eq!(redirection("3999 :6381", &at("a", 1)), Some(at("a", 6381)));
        assert_eq!(redirection("3999 ::1:6381", &at("a", 1)), Some(at("::1", 6381)));
        assert_eq!(redirection("3999", &at("a", 1)), None);
        assert_eq!(redirection("3999 ?:6381", &at("a", 1)), None);
    }
}
