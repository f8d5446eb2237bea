//! What the compiler says about wrong attributes (`ui/<attribute>/*.rs` with the recorded `.stderr`). After a change,
//! `TRYBUILD=overwrite cargo test -p messaging-tests --test ui` records anew; read every message that changed. Uses that must
//! compile are programs of their own (`tests/uses`): here they would make all dependencies be built a second time, not only
//! checked.

use std::process::Command;

/// The compiler's own words change between versions, so they are compared with one only.
const RECORDED: &str = "rustc 1.95.";

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    let version = compiler();
    if version.starts_with(RECORDED) {
        for attribute in
            ["channel", "event_config", "redis_cache", "subscribe", "subscribers", "subscription"]
        {
            cases.compile_fail(format!("ui/{attribute}/*.rs"));
        }
    } else {
        println!("the error messages are recorded with {RECORDED}x and not compared with {version}");
    }
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(rustc).arg("--version").output().expect("rustc, which has just compiled this, runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
