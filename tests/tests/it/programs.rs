//! Programs as their users have them: built with cargo, started as processes of their own, in an environment without our
//! variables.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::place::PATIENCE;

/// Where the tests themselves were built.
pub fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("cargo's directory for tests is in the target directory")
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package of the tests is in the workspace")
}

/// The programs of one build, by their names.
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Runs `cargo build` with `arguments`, without the network: what it needs was downloaded for the tests.
    pub fn build(directory: &Path, target: &Path, arguments: &[&str]) -> Self {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args([
                "build",
                "--offline",
                "--quiet",
                "--message-format",
                "json-render-diagnostics",
                "--target-dir",
            ])
            .arg(target)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null());
        // What `cargo test` tells us of our package is not meant for another build: build scripts that look at it would
        // run again, and with them everything would be built anew each time.
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(&variable);
            }
        }
        let output = cargo.output().expect("cargo runs");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "cargo build {arguments:?} in {}:\n{complaints}",
            directory.display()
        );
        let artifacts = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| {
            let artifact: serde_json::Value = serde_json::from_slice(line).ok()?;
            let program = artifact["executable"].as_str()?;
            Some((artifact["target"]["name"].as_str()?.to_owned(), PathBuf::from(program)))
        });
        Self(artifacts.collect())
    }

    /// A command that runs a program, told nothing of any Redis.
    pub fn command(&self, name: &str) -> Command {
        let mut command =
            Command::new(self.0.get(name).unwrap_or_else(|| panic!("there is no program `{name}`")));
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("REDIS_") || name.starts_with("MESSAGING_") || name == "RUST_LOG" {
                command.env_remove(&variable);
            }
        }
        command.stdin(Stdio::null());
        command
    }
}

/// What a program came to.
pub struct Ended {
    pub status: ExitStatus,
    pub lines: Vec<String>,
    pub complaints: String,
}

impl Ended {
    /// Its output, of a program that succeeded and had nothing to complain of.
    #[track_caller]
    pub fn succeeded(self) -> Vec<String> {
        let Self { status, lines, complaints } = self;
        assert!(status.success() && complaints.is_empty(), "{status}: {complaints}\n{}", lines.join("\n"));
        lines
    }

    /// Its one line of complaint, of a program that failed with this code.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        let Self { status, lines, complaints } = self;
        assert_eq!(status.code(), Some(code), "{complaints}\n{}", lines.join("\n"));
        assert_eq!(complaints.lines().count(), 1, "{complaints}");
        complaints.trim_end().to_owned()
    }
}

/// A program that runs; dropping it kills it.
pub struct Program {
    child: Child,
    output: Receiver<String>,
    lines: Vec<String>,
    complaints: Option<JoinHandle<String>>,
}

impl Program {
    pub fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut stderr = child.stderr.take().expect("standard error is a pipe");
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let complaints = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self { child, output, lines: Vec::new(), complaints: Some(complaints) }
    }

    /// Waits until it has printed a line that `wanted` likes, and returns it.
    #[track_caller]
    pub fn wait_for_line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for_line_within(PATIENCE, wanted)
    }

    /// The same for what takes its time.
    #[track_caller]
    pub fn wait_for_line_within(&mut self, patience: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(line) = self.lines.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.lines.push(line),
                Err(error) => panic!("no such line ({error}) in:\n{}", self.lines.join("\n")),
            }
        }
    }

    /// Asks it to end, as a supervisor does.
    #[cfg(unix)]
    #[track_caller]
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal.
    #[cfg(unix)]
    #[track_caller]
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: small systems have no such program.
        let kill = Command::new("sh")
            .args(["-c", r#"kill -"$1" "$2""#, "kill", name])
            .arg(self.child.id().to_string())
            .status();
        assert!(kill.is_ok_and(|status| status.success()), "cannot send SIG{name}");
    }

    /// Whether it has not ended yet.
    #[allow(dead_code, reason = "only the other suite asks")]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        // Its output ends when it does.
        loop {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.lines.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("it has not ended ({error}):\n{}", self.lines.join("\n")),
            }
        }
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it has not ended");
            thread::sleep(Duration::from_millis(5));
        };
        let complaints = self.complaints.take().map(|reader| reader.join().expect("reading does not panic"));
        Ended { status, lines: std::mem::take(&mut self.lines), complaints: complaints.unwrap_or_default() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
