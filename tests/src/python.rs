//! A Python script that a test talks with, line by line. What the script does is its own affair.

use crate::reaper::{End, Guarded};
use crate::waiting::DEADLINE;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// A Python interpreter that can import `redis`.
#[derive(Clone, Debug)]
pub struct Python(OsString);

impl Python {
    /// The interpreter that `cargo xtask test` names in `MESSAGING_TEST_PYTHON`. Without one the test has nothing to do:
    /// `cargo xtask test` lists the suite as skipped.
    #[must_use]
    pub fn find() -> Option<Self> {
        std::env::var_os("MESSAGING_TEST_PYTHON").filter(|path| !path.is_empty()).map(Self)
    }

    /// The same interpreter, if it can import these too: one that somebody has chosen may lack them, and then `cargo xtask test`
    /// lists the suite as skipped.
    #[must_use]
    pub fn with(modules: &[&str]) -> Option<Self> {
        let python = Self::find()?;
        let mut command = Command::new(&python.0);
        command.args(["-c", &format!("import {}", modules.join(", "))]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success()).then_some(python)
    }

    /// What runs it.
    #[must_use]
    pub fn interpreter(&self) -> &OsStr {
        &self.0
    }

    /// Starts `source`, with `arguments` in `sys.argv[1:]`.
    ///
    /// # Panics
    ///
    /// If the interpreter cannot be run.
    #[must_use]
    pub fn run(&self, source: &str, arguments: &[&str]) -> Script {
        let mut command = Command::new(&self.0);
        command.args(["-u", "-c", source]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Guarded::spawn(&mut command, None, End::Kill)
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.0.display()));
        let child = process.child();
        let input = child.stdin.take();
        let output = child.stdout.take().expect("standard output is a pipe");
        let mut errors = child.stderr.take().expect("standard error is a pipe");

        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&complaints);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = errors.read(&mut chunk) {
                written.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..length]);
            }
        });
        Script { process, input, lines, complaints }
    }
}

/// A running script; dropping it kills it.
#[derive(Debug)]
pub struct Script {
    process: Guarded,
    input: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    complaints: Arc<Mutex<Vec<u8>>>,
}

impl Script {
    /// Writes one line to the script's standard input.
    ///
    /// # Panics
    ///
    /// If the script has ended; the message holds what it wrote to standard error.
    #[track_caller]
    pub fn send_line(&mut self, line: &str) {
        let written = self.input.as_mut().is_some_and(|input| writeln!(input, "{line}").is_ok());
        assert!(written, "the script does not read any more: {}", self.complaints());
    }

    /// The next line of the script's standard output. The runtime goes on meanwhile.
    ///
    /// # Panics
    ///
    /// If none comes within 30 seconds or the script has ended; the message holds what it wrote to standard error.
    pub async fn read_line(&mut self) -> String {
        match tokio::time::timeout(DEADLINE, self.lines.recv()).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("the script ended: {}", self.last_words()),
            Err(_) => panic!("the script wrote no line within {DEADLINE:?}: {}", self.complaints()),
        }
    }

    /// Ends the script's standard input and waits until it has ended by itself.
    ///
    /// # Panics
    ///
    /// If it fails, or does not end within 30 seconds; the message holds what it wrote to standard error.
    pub async fn finish(mut self) {
        self.input = None;
        let status = crate::eventually("the script ends", async || self.process.ended()).await;
        assert!(status.success(), "the script failed ({status}): {}", self.last_words());
    }

    fn complaints(&self) -> String {
        String::from_utf8_lossy(&self.complaints.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// What the script wrote to standard error until it ended: its reader may still be at it.
    fn last_words(&self) -> String {
        crate::waiting::poll(|| (Arc::strong_count(&self.complaints) == 1).then_some(()));
        self.complaints()
    }
}
