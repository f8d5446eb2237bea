//! Child processes that never outlive the test process, however it ends. It knows nothing of what they run.
//!
//! A static is not dropped, and a killed or aborted process drops nothing at all. So each child has a *reaper*: a shell that
//! waits for its standard input to end. The test process holds the other end of that pipe and nobody else does (Rust opens it
//! close-on-exec), so the kernel closes it when the test process goes, and the reaper then ends the child and removes its
//! directory. Child and reaper have process groups of their own: a Ctrl-C in the terminal cannot take the reaper first.

use crate::waiting;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

#[cfg(unix)]
use std::os::unix::process::CommandExt as _;

/// How a child is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// By SIGKILL, at once.
    Kill,
    /// By SIGQUIT: it has children itself, which it ends first. If it does not, by SIGKILL after all.
    Quit,
}

/// What a reaper does to process `$1` with directory `$2` by signal `$3`.
const REAPER: &str = r#"
read -r _
kill -"$3" "$1"
tries=100
while test "$3" != KILL && test "$tries" -gt 0 && kill -0 "$1"; do
    sleep 0.1
    tries=$((tries - 1))
done
kill -KILL "$1"
test -z "$2" || rm -rf "$2"
"#;

/// A child process with its reaper. Dropping it ends the child.
#[derive(Debug)]
pub(crate) struct Guarded {
    child: Child,
    reaper: Child,
    end: End,
}

impl Guarded {
    /// Starts `command`; `directory` goes with the process that forgets to remove it.
    pub(crate) fn spawn(command: &mut Command, directory: Option<&Path>, end: End) -> std::io::Result<Self> {
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let mut reaper = Command::new("sh");
        #[cfg(unix)]
        reaper.process_group(0);
        reaper
            .args(["-c", REAPER, "reaper"])
            .arg(child.id().to_string())
            .arg(directory.unwrap_or(Path::new("")))
            .arg(match end {
                End::Kill => "KILL",
                End::Quit => "QUIT",
            })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match reaper.spawn() {
            Ok(reaper) => Ok(Self { child, reaper, end }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Ends it by SIGKILL, however it is ended otherwise.
    pub(crate) fn kill(mut self) {
        self.end = End::Kill;
    }

    /// How the child ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // The reaper first: once the child has been waited for, its number may belong to another process.
        let _ = self.reaper.kill();
        let _ = self.reaper.wait();
        if matches!(self.end, End::Quit) && self.ended().is_none() && send("QUIT", &[self.id()]) {
            waiting::poll(|| self.ended());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal, and tells whether that worked.
pub(crate) fn send(signal: &str, processes: &[u32]) -> bool {
    // The shell's own `kill`: small systems have no such program.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"signal=$1; shift; kill -"$signal" "$@""#, "kill", signal]);
    shell.args(processes.iter().map(u32::to_string)).stderr(Stdio::null());
    shell.status().is_ok_and(|status| status.success())
}
