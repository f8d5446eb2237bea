//! How a command can fail: the exit codes, and one line that says what to try. No secret is ever in it.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use messaging_core::{Error, ErrorKind};

use crate::output::{self, RED};

/// The exit codes, as `--help` tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Well = 0,
    Unwell = 1,
    Usage = 2,
    Unreachable = 3,
    Refused = 4,
    Failed = 5,
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command came to nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// Empty: there is nothing to say, because nobody reads it any more.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Something that whoever typed the command has to change.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Puts what was attempted in front.
    pub(crate) fn context(mut self, attempted: impl Display) -> Self {
        self.message = format!("{attempted}: {}", self.message);
        self
    }

    /// Says what to try.
    pub(crate) fn hint(mut self, advice: &str) -> Self {
        self.message = format!("{}; {advice}", self.message);
        self
    }

    /// Says it, and ends with its code.
    pub(crate) fn tell(self) -> ExitCode {
        if !self.message.is_empty() {
            complain(&self.message);
        }
        self.code.into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::Closed => Code::Unreachable,
            ErrorKind::Refused => Code::Refused,
            ErrorKind::Configuration
            | ErrorKind::InvalidChannel
            | ErrorKind::InvalidKey
            | ErrorKind::PayloadTooLarge
            | ErrorKind::Encode => Code::Usage,
            ErrorKind::NotFound => Code::Unwell,
            _ => Code::Failed,
        };
        let advice = match code {
            Code::Unreachable | Code::Refused => "; `messaging check` says more",
            _ => "",
        };
        Self::new(code, format!("{error}{advice}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Whoever read our output has seen enough, as `head` has.
            io::ErrorKind::BrokenPipe => Self::new(Code::Well, ""),
            _ => Self::new(Code::Failed, format!("cannot write the output: {error}")),
        }
    }
}

/// One line on standard error.
fn complain(message: &str) {
    let message = output::plain(&masked(message));
    // Without a standard error there is nobody to be told.
    let _ = writeln!(anstream::stderr(), "{}: {message}", output::paint(RED, "error"));
}

/// Shows help, or says in one line what is wrong with the command line.
pub(crate) fn tell_usage(error: &clap::Error, command: &clap::Command) -> Code {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion => {
            let _ = error.print();
            return Code::Well;
        }
        DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return Code::Usage;
        }
        _ => {}
    }
    let text = error.to_string();
    let mut parts: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage: ")) {
        let line = line.trim_start_matches("error: ").trim_start_matches("tip: ");
        match parts.last_mut() {
            _ if line.is_empty() || line.starts_with("For more information") => {}
            // What it lists stands on lines of its own.
            Some(last) if last.ends_with(':') => *last = format!("{last} {line}"),
            _ => parts.push(line.to_owned()),
        }
    }
    complain(&format!("{}; try `{} --help`", parts.join("; "), command_of(command)));
    Code::Usage
}

/// The command that was typed, as far as there is one.
fn command_of(command: &clap::Command) -> String {
    let (mut command, mut typed) = (command, "messaging".to_owned());
    for word in std::env::args().skip(1) {
        if let Some(found) = command.find_subcommand(&word) {
            command = found;
            typed = format!("{typed} {}", found.get_name());
        }
    }
    typed
}

/// Hides what may be a password: whatever a URL has in front of its host, and parameters that are called so.
pub(crate) fn masked(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`')).unwrap_or(after.len());
        let (url, after) = after.split_at(end);
        let url = match url.rsplit_once('@') {
            Some((_, place)) => format!("***@{place}"),
            None => url.to_owned(),
        };
        let secret = |part: &str| {
            let name = part.split('=').next().unwrap_or_default();
            if name.contains("pass") { format!("{name}=***") } else { part.to_owned() }
        };
        match url.split_once('?') {
            Some((url, parameters)) => {
                let parameters: Vec<_> = parameters.split('&').map(secret).collect();
                shown.push_str(&format!("{url}?{}", parameters.join("&")));
            }
            None => shown.push_str(&url),
        }
        rest = after;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (text, shown) in [
            ("nothing", "nothing"),
            ("redis://h:1/0", "redis://h:1/0"),
            ("'redis://:p@ss@h:1' found", "'redis://***@h:1' found"),
            (
                "a rediss://u:p@h b redis+unix:///s?db=1&pass=x c",
                "a rediss://***@h b redis+unix:///s?db=1&pass=*** c",
            ),
            ("redis+sentinel://h/m?sentinel_password=x", "redis+sentinel://h/m?sentinel_password=***"),
        ] {
            assert_eq!(masked(text), shown);
        }
    }
}
