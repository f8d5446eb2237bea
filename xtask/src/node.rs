//! Node.js, which is found, and packages of npm for it: installed under `target/`, as a lock file pins them. It knows nothing of
//! who runs them.

use crate::command::{Failure, tool};
use crate::workspace::Workspace;
use std::path::{Path, PathBuf};

/// What npm reads.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// The first major version with all that the client and its tests use.
const OLDEST: u32 = 20;

/// A Node.js that is new enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) major: u32,
}

/// The one on the path; or why there is none.
pub(crate) fn find() -> Result<Node, String> {
    let answer = tool("node").arg("--version").output().map_err(|_| "no node")?;
    let major = major_in(&answer).ok_or_else(|| format!("node says of its version {:?}", answer.trim()))?;
    if major < OLDEST {
        return Err(format!("node {} is older than {OLDEST}", answer.trim()));
    }
    Ok(Node { major })
}

/// The first number in the answer to `node --version`.
fn major_in(answer: &str) -> Option<u32> {
    answer.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// The `node_modules` in `target/node/<name>`, with the packages that the manifests in `source` ask for, installed if they are
/// not there; or why there is none.
pub(crate) fn provide(workspace: &Workspace, name: &str, source: &Path) -> Result<PathBuf, String> {
    tool("node").arg("--version").output().map_err(|_| "no node")?;
    let target = std::path::absolute(workspace.target.join("node").join(name));
    let target = target.map_err(|error| error.to_string())?;
    let modules = target.join("node_modules");
    // npm writes it last.
    let is_whole = modules.join(".package-lock.json").exists();
    if is_whole && MANIFESTS.iter().all(|file| is_same(&source.join(file), &target.join(file))) {
        return Ok(modules);
    }
    println!("{:<14}installing the packages of {} into {}", "node", source.display(), target.display());
    let copied = std::fs::create_dir_all(&target).and_then(|()| {
        MANIFESTS.iter().try_for_each(|file| std::fs::copy(source.join(file), target.join(file)).map(drop))
    });
    copied.map_err(|error| format!("cannot write {}: {error}", target.display()))?;
    // Without a network it would otherwise take more than a minute to find that out.
    let patience = ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"];
    let npm = tool("npm").args(["ci", "--include=dev", "--no-audit", "--no-fund", "--ignore-scripts"]);
    let npm = npm.args(patience).arg("--prefix").arg(&target);
    npm.output().map(|_| modules).map_err(|failure| {
        // What is half there is not taken for whole the next time.
        let _ = std::fs::remove_file(target.join(MANIFESTS[1]));
        format!("npm cannot install them: {}", reason(&failure))
    })
}

/// Of what npm says, what went wrong first.
fn reason(failure: &Failure) -> &str {
    let errors = failure.message.lines().filter_map(|line| line.strip_prefix("npm error "));
    let first = errors.map(str::trim).find(|line| !line.is_empty());
    first.unwrap_or_else(|| failure.message.lines().next().unwrap_or_default())
}

fn is_same(one: &Path, other: &Path) -> bool {
    std::fs::read(one).ok().zip(std::fs::read(other).ok()).is_some_and(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major_in("v20.20.2\n"), Some(20));
        assert_eq!(major_in("v23.0.0-nightly\n"), Some(23));
        assert_eq!(major_in("Welcome to Node.js"), None);
    }

    #[test]
    fn npm_says_why() {
        let message = "`npm ci` ended with exit status: 1\nnpm warn Unknown\nnpm error code ENOTFOUND\nnpm error network\n";
        assert_eq!(reason(&Failure::new(message)), "code ENOTFOUND");
        assert_eq!(reason(&Failure::new("`npm ci` cannot be run")), "`npm ci` cannot be run");
    }
}
