//! What `cargo metadata` says of this workspace. It reads; the judgements are in the steps.

use crate::command::{Failure, cargo};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The answer of `cargo metadata`, with all features on.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) metadata: Value,
    /// Where what has to be installed goes.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo, and makes the workspace's root the working directory.
    pub(crate) fn read() -> Result<Self, Failure> {
        let text = cargo("metadata --format-version 1 --all-features").output()?;
        let unreadable = || Failure::new("`cargo metadata` answered something unexpected");
        let metadata: Value = serde_json::from_str(&text).map_err(|_| unreadable())?;
        let root = metadata["workspace_root"].as_str().ok_or_else(unreadable)?;
        std::env::set_current_dir(root)
            .map_err(|error| Failure::new(format!("cannot go to {root}: {error}")))?;
        let target = metadata["target_directory"].as_str().ok_or_else(unreadable)?;
        // Relative where it can be: shorter to read, and what is shown does not depend on the machine.
        let target = Path::new(target).strip_prefix(root).unwrap_or(Path::new(target)).to_owned();
        Ok(Self { metadata, target })
    }

    /// A package of the workspace.
    pub(crate) fn package(&self, name: &str) -> Result<&Value, Failure> {
        array(&self.metadata["packages"])
            .iter()
            .find(|package| package["name"] == name && package["source"].is_null())
            .ok_or_else(|| Failure::new(format!("the workspace has no package `{name}`")))
    }
}

/// The elements of an array; none of anything else.
pub(crate) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_cargo_run_starts_the_demo() {
        let text = cargo("metadata --format-version 1 --no-deps").output().unwrap();
        let metadata: Value = serde_json::from_str(&text).unwrap();
        let packages = array(&metadata["packages"]).iter();
        let defaults: Vec<_> = packages.filter_map(|package| package["default_run"].as_str()).collect();
        // With two of them cargo asks which.
        assert_eq!(defaults, ["demo"]);
    }
}
