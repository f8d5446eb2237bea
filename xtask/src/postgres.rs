//! A PostgreSQL for the tests: found, or installed for who asks for it. It starts none.

#[path = "../../tests/src/postgres/programs.rs"]
mod programs;

use crate::command::{Failure, tool};
use crate::packages;
use std::fmt;
use std::path::{Path, PathBuf};

pub(crate) use programs::VARIABLE;

const HELP: &str = "no PostgreSQL is found, and one can be installed only on Debian and its relatives, as root: install it \
with your system's packages, or set MESSAGING_TEST_POSTGRES to a directory with `initdb`, `postgres` and `psql`";

/// What to do where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Missing {
    /// The tests that need it have nothing to do.
    #[default]
    Skip,
    Install,
}

/// Programs that can be run.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) directory: PathBuf,
    version: String,
}

/// Those in `$MESSAGING_TEST_POSTGRES`; or those that are found; or, if asked for, those of a package that is installed now.
pub(crate) fn provide(missing: Missing) -> Result<Option<Programs>, Failure> {
    let found = find()?;
    if found.is_some() || missing == Missing::Skip {
        return Ok(found);
    }
    if !packages::may_install("postgresql") {
        return Err(Failure::new(HELP));
    }
    println!("{:<14}none found: installing the system's package", "postgres");
    install_package()?;
    find()?
        .map(Some)
        .ok_or_else(|| Failure::new("the package postgresql is installed, and its programs are not found"))
}

fn find() -> Result<Option<Programs>, Failure> {
    let Some(directory) = programs::find().map_err(Failure::new)? else { return Ok(None) };
    let answer = tool(directory.join("postgres")).arg("--version").output()?;
    let version = version_in(&answer).unwrap_or_else(|| answer.trim().to_owned());
    Ok(Some(Programs { directory, version }))
}

fn install_package() -> Result<(), Failure> {
    // Left to itself, the package makes a database cluster and starts a server on Postgres's own port. The file is there for
    // the installation only: who installs another version later may want the cluster.
    let directory = Path::new("/etc/postgresql-common/createcluster.d");
    let file = directory.join("messaging-xtask.conf");
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&file, "create_main_cluster = false\n"))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", file.display())))?;
    let outcome = packages::install("postgresql");
    let _ = std::fs::remove_file(&file);
    outcome
}

impl fmt::Display for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.directory.display(), self.version)
    }
}

/// The number in the answer to `postgres --version`.
fn version_in(answer: &str) -> Option<String> {
    answer.split_once("(PostgreSQL) ")?.1.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let answer = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(version_in(answer).as_deref(), Some("15.18"));
        assert_eq!(version_in("postgres (PostgreSQL) 18beta1\n").as_deref(), Some("18beta1"));
        assert_eq!(version_in("psql 15"), None);
    }
}
