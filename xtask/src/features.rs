//! The step `features`: messaging-core compiles, without a warning, with each of its features alone and with none.
//! That they work together is what all other steps check.

use crate::command::{Failure, cargo};
use crate::steps::{Context, Passed};

const PACKAGE: &str = "messaging-core";

pub(crate) fn check(context: &Context) -> Result<Passed, Failure> {
    let features = context.workspace.package(PACKAGE)?["features"].as_object();
    let names = features.into_iter().flat_map(|features| features.keys()).filter(|name| *name != "default");
    let mut count = 0;
    for name in std::iter::once("").chain(names.map(String::as_str)) {
        // Clippy compiles what `cargo check` does and can turn our warnings, and only ours, into errors.
        let command = cargo("clippy --no-default-features -p").arg(PACKAGE);
        let command = if name.is_empty() { command } else { command.args(["--features", name]) };
        command.args(["--", "-D", "warnings"]).run()?;
        count += usize::from(!name.is_empty());
    }
    // Tests of what happens without a feature run nowhere else.
    cargo("test --lib --no-default-features -p").arg(PACKAGE).run()?;
    Ok(Some(format!("none, and each of {count} alone")))
}
