//! A Python with redis-py, for the tests that talk with programs that are not ours.

use crate::command::tool;
use crate::workspace::Workspace;
use std::path::{Path, PathBuf};

/// What is installed; the tests use nothing that came later or has gone since.
const REDIS_PY: &str = "redis>=5";

/// `$MESSAGING_TEST_PYTHON`, or the one in `target/python`, made if it is not there; or why there is none.
pub(crate) fn provide(workspace: &Workspace) -> Result<PathBuf, String> {
    if let Some(chosen) = std::env::var_os("MESSAGING_TEST_PYTHON").filter(|path| !path.is_empty()) {
        let chosen = PathBuf::from(chosen);
        return if imports_redis(&chosen) {
            Ok(chosen)
        } else {
            Err(format!("{} has no redis-py", chosen.display()))
        };
    }
    let directory =
        std::path::absolute(workspace.target.join("python")).map_err(|error| error.to_string())?;
    let python = directory.join("bin").join("python");
    if !imports_redis(&python) {
        println!("{:<14}installing redis-py into {}", "python", workspace.target.join("python").display());
        environment_with(&directory, REDIS_PY)?;
        if !imports_redis(&python) {
            return Err("redis-py cannot be imported".to_owned());
        }
    }
    Ok(python)
}

/// Makes a virtual environment of `package` at `directory`; or says why not.
pub(crate) fn environment_with(directory: &Path, package: &str) -> Result<(), String> {
    tool("python3").arg("--version").output().map_err(|_| "no python3")?;
    // `--clear`: what is there did not work.
    let made = tool("python3").args(["-m", "venv", "--clear"]).arg(directory).output();
    made.map_err(|_| "python3 has no venv; on Debian it is in python3-venv")?;
    let pip = tool(directory.join("bin").join("python")).args(["-m", "pip", "install", "--quiet", package]);
    pip.output().map(drop).map_err(|failure| {
        let last = failure.message.lines().last().unwrap_or("").trim().to_owned();
        format!("pip cannot install {package}: {last}")
    })
}

fn imports_redis(python: &Path) -> bool {
    tool(python).args(["-c", "import redis"]).output().is_ok()
}
