//! The step `features`: messaging-core compiles, without a warning, with each of its features alone and with none.
//! That they work together is what all other steps check.

use crate::command::{Failure, cargo};
use crate::steps::{Context, Passed};

const PACKAGE: &str = "messaging-core";

pub(crate) fn check(context: &Context) -> Result<Passed, Failure> {
    // Tests of what is *not* compiled in run nowhere else.
    cargo("test --lib --no-default-features -p").arg(PACKAGE).run()?;
    let package = context.workspace.package(PACKAGE)?;
    let features = package["features"].as_object();
    let names = features.into_iter().flat_map(|features| features.keys()).filter(|name| *name != "default");
    let mut count = 0;
    for name in names {
        // Clippy compiles what `cargo check` does and can turn our warnings, and only ours, into errors.
        let command = cargo("clippy --no-default-features -p").args([PACKAGE, "--features", name]);
        command.args(["--", "-D", "warnings"]).run()?;
        count += 1;
    }
    Ok(Some(format!("none, and each of {count} alone")))
}
