//! The guide for newcomers: the crate that it has one make, made from its text, outside the workspace, and run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use messaging_tests::RedisServer;

use crate::programs::{Program, Programs, repository, target};

/// The files of the guide: blocks that say `file=` after their language.
fn files(guide: &str) -> Vec<(&str, String)> {
    let mut files = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        let Some((_, file)) = line.strip_prefix("```").and_then(|info| info.split_once(",file=")) else {
            continue;
        };
        let text: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        files.push((file, text.join("\n") + "\n"));
    }
    files
}

static CRATE: LazyLock<PathBuf> = LazyLock::new(|| {
    let guide = fs::read_to_string(repository().join("docs/getting-started.md")).expect("there is a guide");
    let directory = target().join("getting-started");
    let _ = fs::remove_dir_all(directory.join("src"));
    for (file, mut text) in files(&guide) {
        if file == "Cargo.toml" {
            // As it will be when the crates are released.
            text.push_str("\n[workspace]\n\n[patch.crates-io]\n");
            for name in ["messaging-core", "messaging-macros"] {
                let path = repository().join(name);
                text.push_str(&format!("{name} = {{ path = {:?} }}\n", path.display().to_string()));
            }
        }
        let file = directory.join(file);
        fs::create_dir_all(file.parent().expect("a file is somewhere")).expect("a directory can be made");
        fs::write(file, text).expect("a file can be written");
    }
    // Our versions, so that nothing has to be downloaded.
    fs::copy(repository().join("Cargo.lock"), directory.join("Cargo.lock")).expect("it can be copied");
    directory
});

static PROGRAMS: LazyLock<Programs> =
    LazyLock::new(|| Programs::build(&CRATE, &target().join("outside"), &["--bins"]));

fn run(name: &str, redis: &RedisServer) -> Program {
    let mut command = PROGRAMS.command(name);
    command.env("REDIS_URL", redis.url());
    Program::start(command)
}

#[test]
fn two_services_exchange_events() {
    let redis = RedisServer::start();
    let mut kitchen = run("kitchen", &redis);
    kitchen.wait_for_line(|line| line == "the kitchen is open");
    let ordered = run("desk", &redis).end().succeeded();
    assert_eq!(ordered, ["ordered soup", "ordered fish", "ordered cake"]);
    kitchen.wait_for_line(|line| line == "cooking cake for order 3");
    // Whoever publishes it.
    redis.cli(&["PUBLISH", "order.created", r#"{"id":4,"dish":"tea","euros":3}"#]);
    kitchen.wait_for_line(|line| line == "cooking tea for order 4");
    kitchen.terminate();
    let cooked = kitchen.end();
    assert!(cooked.status.success(), "{}", cooked.complaints);
    let dishes = ["soup for order 1", "fish for order 2", "cake for order 3", "tea for order 4"];
    assert_eq!(cooked.lines[1..], dishes.map(|dish| format!("cooking {dish}")));

    // Nothing leaves that is not among the fields, and billing gets what was published before it was there.
    let stream = redis.cli(&["XRANGE", "msg:{order.created}:stream", "-", "+"]);
    assert!(stream.contains(r#"{"id":1,"dish":"soup","euros":7}"#) && !stream.contains("4111"), "{stream}");
    let mut billing = run("billing", &redis);
    for (id, euros) in [(1, 7), (2, 19), (3, 5)] {
        billing.wait_for_line(|line| line == format!("order {id} is paid: {euros} euros"));
    }
    billing.terminate();
    let billed = billing.end();
    assert_eq!((billed.status.success(), billed.lines.len()), (true, 3), "{}", billed.complaints);
}

#[test]
fn a_cached_function_asks_again_after_an_event() {
    let redis = RedisServer::start();
    let lines = run("waiter", &redis).end().succeeded();
    let asking = "asking the database for order 1";
    assert_eq!(lines, [asking, "soup costs 7 euros", asking]);
}

#[test]
fn its_test_passes_without_a_server() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--offline", "--quiet", "--bin", "billing", "--target-dir"]);
    let directory: &Path = &CRATE;
    cargo.arg(target().join("outside")).current_dir(directory);
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name.starts_with("REDIS_")
        {
            cargo.env_remove(&variable);
        }
    }
    let output = cargo.output().expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{output:?}");
}
