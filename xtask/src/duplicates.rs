//! The step `duplicates`: a dependency in two versions costs compile time and size, and its types do not match each other.

use crate::command::{Failure, cargo};
use crate::steps::{Context, Passed};
use std::collections::{BTreeMap, BTreeSet};

/// What cannot be helped for now: the dependency, and why.
const ALLOWED: &[(&str, &str)] = &[
    ("getrandom", "ring 0.17, which is TLS, stays with getrandom 0.2"),
    ("base64", "sqlx 0.9 and jsonwebtoken 11 are behind rcgen, which only tests use"),
    ("block-buffer", SHA2),
    ("cpufeatures", SHA2),
    ("crypto-common", SHA2),
    ("digest", SHA2),
    ("hashbrown", "hashlink 0.11, which is sqlx's, stays with 0.16"),
    ("rand", METRICS),
    ("rand_core", METRICS),
    ("sha2", SHA2),
    (
        "syn",
        "the attributes of tracing, which sqlx 0.9 asks for, and zeroize, which jsonwebtoken 11 does, stay with syn 2; messaging-core alone has one",
    ),
];

const METRICS: &str = "metrics-util 0.20, which an example has for Prometheus, stays with rand 0.9";
const SHA2: &str = "sqlx-core 0.9 stays with sha2 0.10, sqlx-postgres has 0.11";

pub(crate) fn check(_: &Context) -> Result<Passed, Failure> {
    let command = cargo("tree -d --workspace --all-features -e normal");
    println!("           $ {command}");
    let tree = command.args(["--depth", "0", "--prefix", "none"]).output()?;
    let found = duplicates(&tree);
    for (name, reason) in ALLOWED {
        if found.contains_key(name) {
            println!("           {name}: allowed, {reason}");
        } else {
            println!("           {name}: no longer there twice, remove it from {}", file!());
        }
    }
    let unexpected = found.iter().filter(|(name, _)| ALLOWED.iter().all(|(allowed, _)| allowed != *name));
    let lines: String = unexpected
        .map(|(name, versions)| {
            format!("\n  {name}: {}", versions.iter().copied().collect::<Vec<_>>().join(", "))
        })
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let mut failure = Failure::new(format!("several versions of one dependency:{lines}"));
    failure.command = Some("cargo tree -d --workspace --all-features -e normal".to_owned());
    Err(failure)
}

/// Names with more than one version. (`cargo tree -d` also lists one version that is built twice, with different features.)
fn duplicates(tree: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            versions.entry(name).or_default().insert(version);
        }
    }
    versions.retain(|_, versions| versions.len() > 1);
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_built_twice_is_no_duplicate() {
        let tree = "getrandom v0.2.17\n\ngetrandom v0.4.3 (*)\n\nsyn v3.0.0 (proc-macro)\n\nsyn v3.0.0 (proc-macro)\n";
        let found = duplicates(tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found["getrandom"], BTreeSet::from(["v0.2.17", "v0.4.3"]));
    }
}
