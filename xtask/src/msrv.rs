//! The step `msrv`: whoever has the Rust version that the workspace declares can build it.
//!
//! Three checks, from cheap to dear. The declared versions of everything that users compile (`messaging-core` with all features
//! and `messaging-macros`; not tests or tools) must not be higher than ours. The lint `incompatible_msrv`, on in the workspace,
//! complains in the step `clippy` about items of std that are newer. And where that toolchain is installed
//! (`rustup toolchain install <version>`), it has to compile the crates; where it is not, the first two have to do.
//! The version itself is `rust-version` in the workspace's Cargo.toml: the oldest compiler that our dependencies allow.

use crate::command::{Failure, tool};
use crate::steps::{Context, Passed};
use crate::workspace::array;
use serde_json::Value;
use std::collections::HashMap;

const ROOTS: [&str; 2] = ["messaging-core", "messaging-macros"];

pub(crate) fn check(context: &Context) -> Result<Passed, Failure> {
    let workspace = &context.workspace;
    let declared = workspace.package(ROOTS[0])?["rust_version"].as_str();
    let declared = declared.ok_or_else(|| Failure::new("messaging-core declares no rust-version"))?;
    let ids: Result<Vec<_>, _> = ROOTS.iter().map(|root| Ok(&workspace.package(root)?["id"])).collect();
    let (count, newer) = newer_than(version(declared), &ids?, &workspace.metadata);
    if !newer.is_empty() {
        let list: String = newer.iter().map(|line| format!("\n  {line}")).collect();
        return Err(Failure::new(format!(
            "these need a newer Rust than {declared}, which rust-version declares:{list}"
        )));
    }
    println!("           {count} packages declare no more than {declared}");

    let installed = tool("rustup").args(["toolchain", "list"]).output().unwrap_or_default();
    let Some(toolchain) = toolchain_of(version(declared), &installed) else {
        return Ok(Some(format!("by declared versions and lint; toolchain {declared} is not installed")));
    };
    // `cargo` here is rustup's: the one in $CARGO belongs to a toolchain and knows no other.
    let check = ["run", toolchain, "cargo", "check", "-p", ROOTS[0], "--all-features"];
    tool("rustup").args(check).run()?;
    Ok(Some(format!("compiled with {toolchain}")))
}

/// Major, minor and patch; what is missing is 0.
fn version(text: &str) -> [u64; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// How many packages `roots` consist of, themselves included, and which of them declare a higher version than `ours`.
///
/// Dependencies of build scripts count, those of tests do not.
fn newer_than(ours: [u64; 3], roots: &[&Value], metadata: &Value) -> (usize, Vec<String>) {
    let packages: HashMap<_, _> =
        array(&metadata["packages"]).iter().map(|p| (p["id"].as_str(), p)).collect();
    let nodes: HashMap<_, _> =
        array(&metadata["resolve"]["nodes"]).iter().map(|n| (n["id"].as_str(), n)).collect();
    let mut seen: Vec<_> = Vec::new();
    let mut open: Vec<_> = roots.iter().map(|id| id.as_str()).collect();
    let mut newer = Vec::new();
    while let Some(id) = open.pop() {
        if seen.contains(&id) {
            continue;
        }
        seen.push(id);
        if let Some(package) = packages.get(&id)
            && let Some(theirs) = package["rust_version"].as_str()
            && version(theirs) > ours
        {
            let text = |key: &str| package[key].as_str().unwrap_or("?").to_owned();
            newer.push(format!("{} {} needs {theirs}", text("name"), text("version")));
        }
        let dependencies = nodes.get(&id).map_or(&[][..], |node| array(&node["deps"]));
        let used = dependencies
            .iter()
            .filter(|dep| array(&dep["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev"));
        open.extend(used.map(|dep| dep["pkg"].as_str()));
    }
    newer.sort();
    (seen.len(), newer)
}

/// The toolchain of a version among those that `rustup toolchain list` names.
fn toolchain_of(wanted: [u64; 3], list: &str) -> Option<&str> {
    list.lines().filter_map(|line| line.split_whitespace().next()).find(|name| {
        let number = name.split('-').next().unwrap_or("");
        let installed = version(number);
        number.starts_with(|c: char| c.is_ascii_digit())
            && installed[..2] == wanted[..2]
            && installed >= wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions_compare_by_number() {
        assert!(version("1.9") < version("1.88"));
        assert_eq!(version("1.88"), version("1.88.0"));
        assert!(version("1.88.1") > version("1.88"));
    }

    #[test]
    fn declared_versions_are_followed_through_normal_and_build_edges() {
        let dep = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let package = |name: &str, rust: Value| json!({ "id": name, "name": name, "version": "1.0.0", "rust_version": rust });
        let metadata = json!({
            "packages": [
                package("root", json!("1.88")), package("a", json!("1.88.0")), package("deep", json!("1.90")),
                package("build", json!("1.89")), package("dev", json!("1.99")), package("silent", Value::Null),
            ],
            "resolve": { "nodes": [
                { "id": "root", "deps": [dep("a", Value::Null), dep("dev", json!("dev")), dep("build", json!("build"))] },
                { "id": "a", "deps": [dep("deep", Value::Null), dep("root", Value::Null), dep("silent", Value::Null)] },
            ] },
        });
        let (count, newer) = newer_than(version("1.88"), &[&json!("root")], &metadata);
        assert_eq!(count, 5);
        assert_eq!(newer, ["build 1.0.0 needs 1.89", "deep 1.0.0 needs 1.90"]);
    }

    #[test]
    fn toolchains_are_found_by_number() {
        let list =
            "stable-x86_64-unknown-linux-gnu (active, default)\n1.8-x\n1.88.2-x86_64-unknown-linux-gnu\n";
        assert_eq!(toolchain_of(version("1.88"), list), Some("1.88.2-x86_64-unknown-linux-gnu"));
        assert_eq!(toolchain_of(version("1.88.3"), list), None);
        assert_eq!(toolchain_of(version("1.87"), list), None);
        assert_eq!(toolchain_of(version("0.0"), list), None);
    }
}
