//! Where PostgreSQL's programs are on this machine. It runs none of them and installs nothing.
//!
//! Part of `xtask` too, by its path: what the one finds is what the other uses.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the directory of the programs.
pub(crate) const VARIABLE: &str = "MESSAGING_TEST_POSTGRES";

/// What the tests run.
const PROGRAMS: [&str; 3] = ["initdb", "postgres", "psql"];

/// The directory that `$MESSAGING_TEST_POSTGRES` names, or one that is found; or what is wrong with the one that is named.
pub(crate) fn find() -> Result<Option<PathBuf>, String> {
    let Some(chosen) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(places().into_iter().find(|place| lacks(place).is_none()));
    };
    // Tests run in the directories of their packages.
    let chosen = std::path::absolute(chosen).map_err(|error| format!("{VARIABLE}: {error}"))?;
    match lacks(&chosen) {
        None => Ok(Some(chosen)),
        Some(program) => {
            Err(format!("{VARIABLE} is {}, which is no directory with `{program}`", chosen.display()))
        }
    }
}

/// Where they may be. `pg_config` comes with the headers of clients too, and then names a directory without a server.
fn places() -> Vec<PathBuf> {
    let configured = Command::new("pg_config").arg("--bindir").output();
    let configured = configured.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let mut places: Vec<_> = configured.iter().map(|path| PathBuf::from(path.trim())).collect();
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(newest_first(debian.map(|version| version.path())).iter().map(|path| path.join("bin")));
    places.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    places
}

/// Directories that are called as the versions in them.
fn newest_first(directories: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut directories: Vec<_> = directories.collect();
    directories.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let version: Vec<u32> = name.split('.').map_while(|part| part.parse().ok()).collect();
        std::cmp::Reverse(version)
    });
    directories
}

/// The first program that is not in `directory`.
fn lacks(directory: &Path) -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| !directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_no_text() {
        let found = ["9.6", "15", "common", "9.10", "16"].map(PathBuf::from);
        let sorted = newest_first(found.into_iter());
        assert_eq!(sorted, ["16", "15", "9.10", "9.6", "common"].map(PathBuf::from));
    }

    #[test]
    fn what_a_directory_lacks_is_named() {
        assert_eq!(lacks(Path::new("/no/such/directory")), Some("initdb"));
    }
}
