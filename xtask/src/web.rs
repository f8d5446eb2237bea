//! The steps `client` and `browser`: the gateway's client in JavaScript, alone and in a page that people look at.

use crate::command::{Failure, cargo, tool};
use crate::node::Node;
use crate::steps::{Context, Passed};
use std::path::{Path, PathBuf};

/// Where the client is, with what npm reads.
pub(crate) const CLIENT: &str = "messaging-gateway/client";
/// Where the test in a browser is, with what npm reads.
pub(crate) const BROWSER: &str = "tests/browser";

/// Runs the client's own tests, and compiles its types.
pub(crate) fn client(context: &Context) -> Result<Passed, Failure> {
    let Some(Node { major }) = context.provided.node else { return nothing_checked() };
    let files = tests_in(&Path::new(CLIENT).join("test"))?;
    // From 22 on it is there without being asked for.
    let websocket = (major < 22).then_some("--experimental-websocket");
    tool("node").args(websocket).args(["--test", "--test-reporter=spec"]).args(files).run()?;
    let Some(modules) = &context.provided.typescript else {
        return Ok(Some("without the types".to_owned()));
    };
    let compiler = modules.join("typescript").join("bin").join("tsc");
    let options =
        "--strict --noEmit --noUncheckedIndexedAccess --target es2022 --module nodenext --lib es2022,dom";
    let types = tool("node").arg(compiler).args(options.split(' '));
    types.arg(Path::new(CLIENT).join("test").join("usage.ts")).run()?;
    Ok(None)
}

/// The files in a directory that Node.js runs as tests, in order.
fn tests_in(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error| Failure::new(format!("cannot read {}: {error}", directory.display()));
    let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let files = entries.map_err(unreadable)?.into_iter().map(|entry| entry.path());
    let mut files: Vec<_> = files.filter(|file| file.to_string_lossy().ends_with(".test.js")).collect();
    files.sort();
    if files.is_empty() {
        return Err(Failure::new(format!("there is no test in {}", directory.display())));
    }
    Ok(files)
}

/// Builds the program `live` and looks at its page. Pictures of it are left in `target/browser`.
pub(crate) fn browser(context: &Context) -> Result<Passed, Failure> {
    let Some(environment) = &context.provided.browser else { return nothing_checked() };
    // As the tests of the examples build it.
    cargo("build --package examples --all-features --bin live").run()?;
    let target = &context.workspace.target;
    let pictures = target.join("browser");
    // Those of an earlier run would be taken for those of this one.
    let _ = std::fs::remove_dir_all(&pictures);
    std::fs::create_dir_all(&pictures)
        .map_err(|error| Failure::new(format!("cannot make {}: {error}", pictures.display())))?;
    let live = target.join("debug").join(format!("live{}", std::env::consts::EXE_SUFFIX));
    let test = tool("node").arg(Path::new(BROWSER).join("live.mjs"));
    let test = test.env("MESSAGING_LIVE_BIN", live).env("MESSAGING_TEST_SCREENSHOTS", &pictures);
    test.envs(environment.iter().map(|(name, value)| (name, value))).run()?;
    Ok(None)
}

/// What is missing is named at the end of the report.
fn nothing_checked() -> Result<Passed, Failure> {
    Ok(Some("nothing checked, see below".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tests_of_the_client_are_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files = tests_in(&root.join(CLIENT).join("test")).unwrap();
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        assert!(names.contains(&"messaging.test.js") && names.contains(&"sse.test.js"), "{names:?}");
        assert!(!names.contains(&"gateway.js"), "{names:?}");
        let nothing = tests_in(&root.join("xtask/src")).unwrap_err();
        assert!(nothing.message.starts_with("there is no test in "), "{}", nothing.message);
    }
}
