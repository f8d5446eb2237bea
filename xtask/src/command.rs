//! Running other programs and showing how: what is printed can be pasted into a shell.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Why a step did not pass.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// The command that shows it once more.
    pub(crate) command: Option<String>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), command: None }
    }
}

/// What `cargo xtask <what>` came to, told to who called it.
pub(crate) fn ended(what: &str, outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    eprintln!("\n{what} failed: {}", failure.message);
    if let Some(command) = &failure.command {
        eprintln!("to see it again:   {command}");
    }
    ExitCode::FAILURE
}

/// A program with its arguments and what it adds to the environment.
#[derive(Debug)]
pub(crate) struct Tool {
    program: OsString,
    /// What a person types for `program`.
    shown: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

/// Cargo with `arguments`, separated by blanks.
pub(crate) fn cargo(arguments: &str) -> Tool {
    // The cargo that runs this program: the same toolchain, also where several are installed.
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Tool { shown: "cargo".into(), ..tool(program) };
    cargo.arguments = arguments.split_whitespace().map(OsString::from).collect();
    cargo
}

/// Any program.
pub(crate) fn tool(program: impl AsRef<OsStr>) -> Tool {
    let program = program.as_ref().to_owned();
    Tool { shown: program.clone(), program, arguments: Vec::new(), environment: Vec::new() }
}

impl Tool {
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        self,
        all: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        all.into_iter().fold(self, |tool, (name, value)| tool.env(name, value))
    }

    /// Runs it in the open: the command is printed first, and its output is the user's to read.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        println!("           $ {self}");
        let status = self.command().status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.failure(&format!("ended with {status}"))),
            Err(error) => Err(self.failure(&format!("cannot be run: {error}"))),
        }
    }

    /// Runs it out of sight and returns its standard output; a failure shows what it wrote to standard error.
    pub(crate) fn output(&self) -> Result<String, Failure> {
        self.output_given("")
    }

    /// The same, with `input` to read.
    pub(crate) fn output_given(&self, input: &str) -> Result<String, Failure> {
        use std::io::Write as _;
        let output = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                // A few bytes, which fit into the pipe; a program that does not want them may close it.
                let _ = child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes()));
                child.wait_with_output()
            })
            .map_err(|error| self.failure(&format!("cannot be run: {error}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(self.failure(&format!("ended with {}\n{}", output.status, complaint.trim_end())))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // What cargo told this program about itself must not reach the cargo that it starts: build scripts that read it
        // would run again, and everything that depends on them would be built anew.
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&variable);
            }
        }
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn failure(&self, what: &str) -> Failure {
        let name = Path::new(&self.shown).file_name().unwrap_or(&self.shown);
        let first = self.arguments.first().map_or(String::new(), |first| format!(" {}", first.display()));
        Failure { message: format!("`{}{first}` {what}", name.display()), command: Some(self.to_string()) }
    }
}

/// As one types it into a shell.
impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(f, "{}={} ", name.display(), quoted(value))?;
        }
        f.write_str(&quoted(&self.shown))?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", quoted(argument)))
    }
}

fn quoted(word: &OsStr) -> String {
    let word = word.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        let command = cargo("doc --no-deps").env("RUSTDOCFLAGS", "-D warnings").arg("it's");
        assert_eq!(command.to_string(), r"RUSTDOCFLAGS='-D warnings' cargo doc --no-deps 'it'\''s'");
    }

    #[test]
    fn failures_tell_what_was_run() {
        let failure = tool("sh").args(["-c", "echo no >&2; exit 3"]).output().unwrap_err();
        assert_eq!(failure.message, "`sh -c` ended with exit status: 3\nno");
        assert_eq!(failure.command.as_deref(), Some("sh -c 'echo no >&2; exit 3'"));
        assert!(
            tool("/no/such/program").output().unwrap_err().message.starts_with("`program` cannot be run: ")
        );
    }

    #[test]
    fn programs_get_input_and_environment() {
        let command = tool("sh").args(["-c", "cat; echo $WORD"]).env("WORD", "two");
        assert_eq!(command.output_given("one ").unwrap(), "one two\n");
    }
}
