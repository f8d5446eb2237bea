//! Which versions of other libraries are measured.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What is measured in this program beside ours, and what in the program of the peers.
const HERE: [&str; 2] = ["redis", "moka"];
const PEERS: [&str; 5] = ["cached", "fred", "ruststream", "ruststream-fred", "sea-streamer-redis"];

/// Those of the crates, as the lock files have them.
pub(super) fn crates() -> Vec<String> {
    let here = HERE.map(|name| named(name, locked(include_str!("../../../Cargo.lock"), name)));
    let peers = PEERS.map(|name| named(name, locked(include_str!("../../peers/Cargo.lock"), name)));
    here.into_iter().chain(peers).collect()
}

/// That of a package in a directory that npm has filled.
pub(super) fn of_npm(modules: &Path, package: &str) -> String {
    let manifest = std::fs::read_to_string(modules.join(package).join("package.json")).ok();
    let manifest: Option<Value> = manifest.and_then(|text| serde_json::from_str(&text).ok());
    let version = manifest.as_ref().and_then(|manifest| manifest.get("version")?.as_str());
    named(&format!("{package} (npm)"), version)
}

/// That of a package that a Python has.
pub(super) fn of_python(interpreter: &Path, package: &str) -> String {
    let program = format!("from importlib.metadata import version; print(version('{package}'))");
    let output = Command::new(interpreter).args(["-c", &program]).output().ok();
    let version = output.filter(|output| output.status.success());
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    named(package, version.as_deref())
}

fn named(name: &str, version: Option<&str>) -> String {
    format!("{name} {}", version.unwrap_or("of unknown version"))
}

/// The version of a crate in a lock file.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let named = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|line| *line != named).skip(1);
    lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_files() {
        let lock = "[[package]]\nname = \"fred-macros\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"fred\"\nversion = \"10.1.0\"\n";
        assert_eq!((locked(lock, "fred"), locked(lock, "red")), (Some("10.1.0"), None));
        let crates = crates();
        assert!(crates.iter().all(|named| !named.contains("unknown")), "{crates:?}");
    }
}
