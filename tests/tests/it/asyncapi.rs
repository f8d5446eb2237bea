//! AsyncAPI documents, as the official parser of npm reads them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::programs::repository;

/// What the parser says of a document.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Errors and warnings; advice is left out.
    pub complaints: Vec<String>,
    /// The addresses of the channels, as far as they have one; none if there are errors.
    pub channels: Vec<String>,
}

/// `None` where `cargo xtask test` has not installed the parser: the suite has nothing to do then, and is listed as skipped.
#[track_caller]
pub fn parse(document: &str) -> Option<Parsed> {
    let directory = std::env::var_os("MESSAGING_TEST_ASYNCAPI").filter(|path| !path.is_empty())?;
    let mut node = Command::new("node");
    node.arg(repository().join("tests/asyncapi/validate.mjs")).env("MESSAGING_TEST_ASYNCAPI", directory);
    node.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut parser = node.spawn().expect("node runs");
    // It reads to the end before it says anything.
    parser.stdin.take().unwrap().write_all(document.as_bytes()).expect("the parser reads");
    let output = parser.wait_with_output().expect("the parser ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut parsed = Parsed::default();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let said: Value = serde_json::from_str(line).expect("each line is JSON");
        match said["severity"].as_str() {
            Some("error" | "warning") => parsed.complaints.push(line.to_owned()),
            Some(_) => {}
            None => {
                let addresses: Vec<Option<String>> =
                    serde_json::from_value(said["channels"].clone()).unwrap();
                parsed.channels = addresses.into_iter().flatten().collect();
            }
        }
    }
    Some(parsed)
}

/// Of all that the tests declare, in whatever form.
#[test]
fn what_a_process_declares_makes_a_valid_document() {
    let document = messaging_gateway::asyncapi("tests", "1.2.3");
    let Some(parsed) = parse(&document.to_string()) else { return };
    assert_eq!(parsed.complaints, [""; 0]);
    assert!(parsed.channels.iter().any(|channel| channel.contains('{')), "{:?}", parsed.channels);
    let declared = document["channels"].as_object().unwrap().values();
    assert_eq!(parsed.channels.len(), declared.filter(|channel| channel["address"].is_string()).count());
}

#[test]
fn a_document_that_is_not_valid_is_noticed() {
    let mut document = messaging_gateway::asyncapi("tests", "1.2.3");
    document["operations"]["wrong"] =
        json!({ "action": "shout", "channel": { "$ref": "#/channels/nowhere" } });
    let Some(parsed) = parse(&document.to_string()) else { return };
    assert!(parsed.complaints.iter().any(|complaint| complaint.contains("operations/wrong")), "{parsed:?}");
}
