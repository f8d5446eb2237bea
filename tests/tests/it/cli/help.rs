//! The guide to the command says what the command says. `UPDATE_EXPECT=1` writes the help into it.

use super::{messaging, run};
use crate::programs::repository;

const BEGINNING: &str = "```text\n$ messaging";

#[test]
fn the_guide_has_the_help_of_every_command() {
    let path = repository().join("docs/cli.md");
    let guide = std::fs::read_to_string(&path).unwrap();
    let (mut written, mut rest, mut shown) = (String::new(), guide.as_str(), Vec::new());
    while let Some((before, block)) = rest.split_once(BEGINNING) {
        let (line, block) = block.split_once('\n').unwrap();
        let (_, after) = block.split_once("```").unwrap();
        let mut command = messaging();
        command.args(line.split_whitespace());
        let help = run(command, None).well();
        // No space at the end of a line, which editors remove.
        let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        written.push_str(&format!("{before}{BEGINNING}{line}\n{help}```"));
        shown.push(line.trim().trim_end_matches(" --help").to_owned());
        rest = after;
    }
    written.push_str(rest);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &written).unwrap();
    } else {
        assert!(guide == written, "docs/cli.md is not up to date: run this test with UPDATE_EXPECT=1");
    }
    for command in [
        "check",
        "tail",
        "publish",
        "health",
        "stats",
        "groups",
        "dead list",
        "dead show",
        "dead replay",
        "dead purge",
        "cache get",
        "cache invalidate",
        "cache families",
        "completions",
    ] {
        assert!(shown.iter().any(|shown| shown == command), "{command} is not in docs/cli.md");
    }
}
