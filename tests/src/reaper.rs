//! Child processes that never outlive the test process, however it ends. It knows nothing of what they run.
//!
//! A static is not dropped, and a killed or aborted process drops nothing at all. So each child has a *reaper*: a shell that
//! waits for its standard input to end. The test process holds the other end of that pipe and nobody else does (Rust opens it
//! close-on-exec), so the kernel closes it when the test process goes, and the reaper then kills the child and removes its
//! directory. Child and reaper have process groups of their own: a Ctrl-C in the terminal cannot take the reaper first.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

#[cfg(unix)]
use std::os::unix::process::CommandExt as _;

/// A child process with its reaper. Dropping it kills the child.
#[derive(Debug)]
pub(crate) struct Guarded {
    child: Child,
    reaper: Child,
}

impl Guarded {
    /// Starts `command`; `directory` goes with the process that forgets to remove it.
    pub(crate) fn spawn(command: &mut Command, directory: Option<&Path>) -> std::io::Result<Self> {
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let mut reaper = Command::new("sh");
        #[cfg(unix)]
        reaper.process_group(0);
        reaper
            .args(["-c", r#"read -r _; kill -KILL "$1"; test -z "$2" || rm -rf "$2""#, "reaper"])
            .arg(child.id().to_string())
            .arg(directory.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match reaper.spawn() {
            Ok(reaper) => Ok(Self { child, reaper }),
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
