//! One child process: started, listened to with a bound, and ended with its owner.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::job::{Failure, Report, Said};

/// Longer than anything takes, also under valgrind on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    said: Receiver<Said>,
}

impl Process {
    pub(super) fn start(command: &mut Command) -> Result<Self, Failure> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} cannot be run: {error}", command.get_program().display()))?;
        let output = child.stdout.take().ok_or("a child without output")?;
        let (sender, said) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for said in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(said).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, said })
    }

    /// Its number, by which the system tells what it uses.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn next(&mut self) -> Result<Said, Failure> {
        self.said.recv_timeout(PATIENCE).map_err(|_| match self.child.try_wait() {
            Ok(Some(status)) => format!("the process ended with {status}").into(),
            _ => format!("the process said nothing for {PATIENCE:?}").into(),
        })
    }

    /// Waits until it listens or is subscribed; returns its port.
    pub(super) fn ready(&mut self) -> Result<u16, Failure> {
        match self.next()? {
            Said::Ready { port } => Ok(port),
            other => Err(format!("the process is not ready: {other:?}").into()),
        }
    }

    /// Waits until a replay server has sent everything.
    pub(super) fn sent(&mut self) -> Result<(), Failure> {
        match self.next()? {
            Said::Sent => Ok(()),
            other => Err(format!("the server has not sent everything: {other:?}").into()),
        }
    }

    /// Waits for the report, and for the end.
    pub(super) fn done(mut self) -> Result<Report, Failure> {
        loop {
            if let Said::Done(report) = self.next()? {
                self.child.wait()?;
                return Ok(report);
            }
        }
    }

    /// Ends its standard input.
    pub(super) fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
