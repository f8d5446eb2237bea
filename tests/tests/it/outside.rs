//! Crates outside the workspace, as users have them: what is linked is what runs.

use std::fs;
use std::sync::LazyLock;

use serde_json::Value;

use crate::programs::{Program, Programs, repository, target};

static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
    let outside = repository().join("tests/outside");
    // The versions of our own lock file, so that nothing has to be downloaded and there is no second one to maintain.
    fs::copy(repository().join("Cargo.lock"), outside.join("Cargo.lock"))
        .expect("the lock file can be copied");
    Programs::build(&outside, &target().join("outside"), &["--workspace"])
});

fn run(program: &str) -> Program {
    Program::start(PROGRAMS.command(program))
}

/// Where the attribute with this id stands: the file's end and the line.
fn place(file: &str, id: &str) -> String {
    let source =
        fs::read_to_string(repository().join("tests/outside").join(file)).expect("the source is there");
    let line = source.lines().position(|line| line.contains("#[subscribe") && line.contains(id));
    format!("{file}:{}", line.expect("the attribute is there") + 1)
}

#[test]
fn handlers_of_a_crate_that_is_named_run_and_those_of_one_that_is_only_listed_do_not() {
    let lines = run("app").end().succeeded();
    let [description, answer] = &lines[..] else { panic!("{lines:?}") };
    let description: Value = serde_json::from_str(description).unwrap();
    let handlers = description["handlers"].as_array().unwrap();
    let [handler] = &handlers[..] else { panic!("one handler is linked, not {handlers:?}") };
    assert_eq!(handler["id"], "greeter");
    let location = &handler["location"];
    let location = format!("{}:{}", location["file"].as_str().unwrap(), location["line"]);
    assert!(location.ends_with(&place("handlers_named/src/lib.rs", "greeter")), "{location}");
    assert_eq!(answer, "greeted.world Hello, world!");
}

#[test]
fn two_handlers_with_one_id_are_refused_by_naming_both_places() {
    let complaint = run("twice").end().failed(1);
    for part in [
        "two handlers have the id `greeter`",
        &place("app/src/bin/twice.rs", "greeter"),
        &place("handlers_named/src/lib.rs", "greeter"),
        r#"give one of them `id = "…"`"#,
    ] {
        assert!(complaint.contains(part), "{part} in {complaint}");
    }
}

#[test]
fn every_attribute_works_in_a_crate_that_renames_messaging_core() {
    let expected = [
        "a service heard of ticket 7",
        "a handler heard of queue urgent",
        "the first title of 7, then the first title of 7",
        "after an event the third title of 7",
    ];
    assert_eq!(run("renamed").end().succeeded(), expected);
}
