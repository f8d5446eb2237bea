//! Which stream a channel's messages are in: one for a whole template, whatever its placeholders are called.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU64};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Durability, Retention, partition_of};
use crate::channel::{Kind, Pattern, Wire, glob_matches, globs_may_meet};

/// What stands in a stream's name where a template has a placeholder.
const PLACEHOLDER: &str = "<>";

/// The stream of a template, or one of its partitions: `orders:<>`, `orders:<>#3`. With the deployment's prefix.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamName {
    template: String,
    partition: Option<u16>,
}

impl StreamName {
    /// The stream of everything that is published under `pattern`.
    pub(crate) fn of(pattern: &Pattern, prefix: &str) -> Self {
        let mut template = prefix.to_owned();
        match pattern {
            Pattern::Exact(channel) => template.push_str(channel),
            Pattern::Glob(glob) => template.push_str(glob),
            Pattern::Template(parsed) => parsed.write_with(PLACEHOLDER, &mut template),
        }
        Self { template, partition: None }
    }

    /// The partition for a key.
    pub(crate) fn for_key(&self, key: &str, partitions: NonZeroU16) -> Self {
        Self { template: self.template.clone(), partition: Some(partition_of(key, partitions)) }
    }

    pub(crate) fn with_partition(&self, partition: u16) -> Self {
        Self { template: self.template.clone(), partition: Some(partition) }
    }

    /// The name of all partitions together.
    pub(crate) fn whole(&self) -> Self {
        Self { template: self.template.clone(), partition: None }
    }

    /// The same for all partitions.
    pub(crate) fn template(&self) -> &str {
        &self.template
    }

    pub(crate) fn partition(&self) -> Option<u16> {
        self.partition
    }

    /// One of the stream's keys. All of them are in one cluster slot.
    pub(crate) fn key(&self, namespace: &str, what: &str) -> String {
        format!("{namespace}:{{{self}}}:{what}")
    }

    /// The key of what a group keeps beside the stream.
    pub(crate) fn group_key(&self, namespace: &str, what: &str, group: &str) -> String {
        format!("{namespace}:{{{self}}}:{what}:{group}")
    }

    /// A pattern whose stream it is, without the deployment's prefix. What the placeholders were called is not known; one at
    /// the end may have been one for all the rest, and is taken to be.
    pub(crate) fn pattern(&self, prefix: &str) -> String {
        let template = self.template.strip_prefix(prefix).unwrap_or(&self.template);
        let (mut pattern, mut rest, mut number) = (String::new(), template, 0);
        while let Some((before, after)) = rest.split_once(PLACEHOLDER) {
            number += 1;
            let all = if after.is_empty() { "*" } else { "" };
            pattern.push_str(&format!("{before}{{p{number}{all}}}"));
            rest = after;
        }
        pattern + rest
    }

    /// Whether some message in it could be for a subscription to `wire`. It may say yes too often, never no wrongly.
    pub(crate) fn may_carry(&self, wire: &Wire) -> bool {
        let glob = self.template.replace(PLACEHOLDER, "*");
        if wire.kind == Kind::Glob {
            globs_may_meet(glob.as_bytes(), wire.name.as_bytes())
        } else {
            glob_matches(glob.as_bytes(), wire.name.as_bytes())
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.template)?;
        match self.partition {
            Some(partition) => write!(f, "#{partition}"),
            None => Ok(()),
        }
    }
}

/// What the registry of streams says of one: its name, and as JSON how it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamInfo {
    pub(crate) name: StreamName,
    pub(crate) kept: Kept,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    template: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partitions: Option<u16>,
    pub(crate) max_len: u64,
    pub(crate) max_age_ms: u64,
}

impl StreamInfo {
    /// All streams of a durable channel.
    pub(crate) fn all(name: &StreamName, durability: &Durability) -> Vec<Self> {
        let info = |name: StreamName| Self {
            kept: Kept {
                template: name.template.clone(),
                partition: name.partition,
                partitions: durability.partitions.map(NonZeroU16::get),
                max_len: durability.retention.max_len.get(),
                max_age_ms: u64::try_from(durability.retention.max_age.as_millis()).unwrap_or(u64::MAX),
            },
            name,
        };
        match durability.partitions {
            None => vec![info(name.clone())],
            Some(partitions) => {
                (0..partitions.get()).map(|partition| info(name.with_partition(partition))).collect()
            }
        }
    }

    pub(crate) fn retention(&self) -> Retention {
        let max_len = NonZeroU64::new(self.kept.max_len).unwrap_or(Retention::DEFAULT.max_len);
        Retention { max_len, max_age: Duration::from_millis(self.kept.max_age_ms) }
    }

    pub(crate) fn durability(&self) -> Durability {
        let partitions = self.kept.partitions.and_then(NonZeroU16::new);
        Durability { partitions, ..Durability::from(self.retention()) }
    }

    /// Reads an entry of the registry; `None` if it is of no known form.
    pub(crate) fn read(kept: &[u8]) -> Option<Self> {
        let kept: Kept = serde_json::from_slice(kept).ok()?;
        // Braces would change which slot its keys are in.
        let sound = !kept.template.is_empty() && !kept.template.contains(['{', '}']);
        sound.then(|| Self {
            name: StreamName { template: kept.template.clone(), partition: kept.partition },
            kept,
        })
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(&self.kept).expect("text and numbers can always be written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(pattern: &str) -> StreamName {
        StreamName::of(&Pattern::parse(pattern).unwrap(), "p.")
    }

    #[test]
    fn one_stream_for_all_ids_whatever_the_placeholder_is_called() {
        assert_eq!(stream("orders:{id}"), stream("orders:{order_id}"));
        assert_eq!(stream("orders:{id}").to_string(), "p.orders:<>");
        assert_eq!(stream("a.{b}.c-{d}:{e*}").to_string(), "p.a.<>.c-<>:<>");
        let third = stream("orders:{id}").with_partition(3);
        assert_eq!(third.key("msg", "stream"), "msg:{p.orders:<>#3}:stream");
        assert_eq!(third.group_key("msg", "delay", "billing"), "msg:{p.orders:<>#3}:delay:billing");
    }

    #[test]
    fn a_pattern_leads_back_to_its_stream() {
        for (pattern, back) in [
            ("orders.created", "orders.created"),
            ("orders.*", "orders.*"),
            ("orders:{id}", "orders:{p1*}"),
            ("a.{b}.c-{d}.x", "a.{p1}.c-{p2}.x"),
            ("a.{b}:{e*}", "a.{p1}:{p2*}"),
        ] {
            let name = stream(pattern);
            assert_eq!(name.pattern("p."), back);
            assert_eq!(stream(back), name);
        }
    }

    #[test]
    fn a_stream_may_carry_what_could_match() {
        for (published, subscribed, expected) in [
            ("orders:{id}", "orders:{other}", true),
            ("orders:{id}", "orders:17", true),
            ("orders:{id}", "orders:*", true),
            ("orders:{id}", "*", true),
            ("orders:{id}", "invoices:{id}", false),
            ("orders:{id}", "invoices:17", false),
            ("orders.*", "orders.created", true),
            ("orders.*", "orders.{what}", true),
            ("orders.created", "orders.created", true),
            ("orders.created", "orders.updated", false),
            ("orders.created", "orders.{what}", true),
        ] {
            let wire = Pattern::parse(subscribed).unwrap().wire();
            let wire = Wire { name: format!("p.{}", wire.name), ..wire };
            assert_eq!(stream(published).may_carry(&wire), expected, "{published} {subscribed}");
        }
    }

    #[test]
    fn the_registry_reads_what_it_writes() {
        let partitions = NonZeroU16::new(2).unwrap();
        let all = StreamInfo::all(&stream("orders:{id}"), &Durability::DEFAULT.partitions(partitions));
        assert_eq!(all.len(), 2);
        assert_eq!(
            all[1].to_json(),
            r#"{"template":"p.orders:<>","partition":1,"partitions":2,"max_len":100000,"max_age_ms":86400000}"#
        );
        assert_eq!(StreamInfo::read(all[1].to_json().as_bytes()), Some(all[1].clone()));
        for nonsense in ["", "[]", r#"{"template":""}"#, r#"{"template":"a{b}","max_len":1,"max_age_ms":1}"#]
        {
            assert_eq!(StreamInfo::read(nonsense.as_bytes()), None, "{nonsense}");
        }
    }
}
