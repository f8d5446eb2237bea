//! The documentation and this suite speak of the same things.

use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../../docs/reliability.md");

const MODULES: &[(&str, &str)] = &[
    ("cache::cancelled", include_str!("cache/cancelled.rs")),
    ("cache::failing", include_str!("cache/failing.rs")),
    ("cache::history", include_str!("cache/history/mod.rs")),
    ("cache::keys", include_str!("cache/keys.rs")),
    ("cache::options", include_str!("cache/options.rs")),
    ("cache::outage", include_str!("cache/outage.rs")),
    ("cache::reloads", include_str!("cache/reloads.rs")),
    ("cache::round_trips", include_str!("cache/round_trips.rs")),
    ("cache::stampede", include_str!("cache/stampede.rs")),
    ("cache::topology", include_str!("cache/topology.rs")),
    ("cache::unheard", include_str!("cache/unheard.rs")),
    ("callers", include_str!("callers.rs")),
    ("cuts", include_str!("cuts.rs")),
    ("gateway::clients", include_str!("gateway/clients.rs")),
    ("gateway::failover", include_str!("gateway/failover.rs")),
    ("gateway::herd", include_str!("gateway/herd.rs")),
    ("gateway::lost", include_str!("gateway/lost.rs")),
    ("gateway::outages", include_str!("gateway/outages.rs")),
    ("gateway::processes", include_str!("gateway/processes.rs")),
    ("gateway::slow", include_str!("gateway/slow.rs")),
    ("interruptions", include_str!("interruptions.rs")),
    ("limits", include_str!("limits.rs")),
    ("outbox::postgres::suite", include_str!("outbox/suite.rs")),
    ("outbox::sqlite", include_str!("outbox/sqlite.rs")),
    ("outbox::sqlite::suite", include_str!("outbox/suite.rs")),
    ("overflow", include_str!("overflow.rs")),
    ("presence", include_str!("presence.rs")),
    ("publishing", include_str!("publishing.rs")),
    ("queues::drain", include_str!("queues/drain.rs")),
    ("queues::healing", include_str!("queues/healing.rs")),
    ("queues::leases", include_str!("queues/leases.rs")),
    ("queues::names", include_str!("queues/names.rs")),
    ("queues::order", include_str!("queues/order.rs")),
    ("queues::outages", include_str!("queues/outages.rs")),
    ("queues::poison", include_str!("queues/poison.rs")),
    ("queues::retention", include_str!("queues/retention.rs")),
    ("queues::retries", include_str!("queues/retries.rs")),
    ("queues_topology", include_str!("queues_topology.rs")),
    ("refusals", include_str!("refusals.rs")),
    ("resumable", include_str!("resumable.rs")),
    ("shutdown", include_str!("shutdown.rs")),
    ("topology", include_str!("topology.rs")),
];

/// The functions of a module that are tests.
fn tests_of((module, source): (&str, &str)) -> Vec<String> {
    let after_attributes = source.split("#[test]").flat_map(|part| part.split("#[tokio::test")).skip(1);
    let names = after_attributes.filter_map(|part| part.split("fn ").nth(1)?.split('(').next());
    names.map(|name| format!("{module}::{name}")).collect()
}

#[test]
fn every_row_names_a_test_and_every_test_has_a_row() {
    let tests: BTreeSet<String> = MODULES.iter().copied().flat_map(tests_of).collect();
    let rows: Vec<&str> = DOCUMENT.lines().filter(|line| line.starts_with("| ")).collect();
    let mut named = BTreeSet::new();
    for row in rows.into_iter().filter(|row| !row.ends_with("| test |")) {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let names = cell.split(", ").map(|name| name.trim_matches('`').to_owned());
        named.extend(names.inspect(|name| assert!(tests.contains(name), "there is no test {name:?}: {row}")));
    }
    let without_a_row: Vec<_> = tests.difference(&named).collect();
    assert!(without_a_row.is_empty(), "docs/reliability.md does not speak of {without_a_row:?}");
    assert!(named.len() > 20, "{named:?}");
}
