//! The step `features`: messaging-core and messaging-sql compile, without a warning, with each of their features alone, and core
//! with none; messaging-sql needs a database.
//! That they work together is what all other steps check.

use crate::command::{Failure, cargo};
use crate::steps::{Context, Passed};

/// With whether they do without any feature.
const PACKAGES: [(&str, bool); 2] = [("messaging-core", true), ("messaging-sql", false)];

pub(crate) fn check(context: &Context) -> Result<Passed, Failure> {
    let mut count = 0;
    for (package, without) in PACKAGES {
        let features = context.workspace.package(package)?["features"].as_object();
        let names = features.into_iter().flat_map(|features| features.keys());
        // Those with underscores are our own.
        let names = names.filter(|name| *name != "default" && !name.starts_with('_'));
        for name in without.then_some("").into_iter().chain(names.map(String::as_str)) {
            // Clippy compiles what `cargo check` does and can turn our warnings, and only ours, into errors.
            let command = cargo("clippy --no-default-features -p").arg(package);
            let command = if name.is_empty() { command } else { command.args(["--features", name]) };
            command.args(["--", "-D", "warnings"]).run()?;
            count += usize::from(!name.is_empty());
        }
    }
    // Tests of what happens without a feature run nowhere else.
    cargo("test --lib --no-default-features -p").arg(PACKAGES[0].0).run()?;
    Ok(Some(format!("none, and each of {count} alone")))
}
