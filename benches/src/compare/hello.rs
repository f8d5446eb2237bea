//! The first program of a user as a crate of its own, built by cargo with its default settings. It is a workspace of its own,
//! beside the program that runs here: nothing else decides on its features.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::stage::Stage;
use crate::job::Failure;
use crate::usage;

/// How often is built again: it takes so little time that one of them says nothing.
const REBUILDS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// With messaging-core.
    Ours,
    /// With the `redis` crate.
    Raw,
    /// With ruststream and ruststream-fred.
    Ruststream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Debug,
    Release,
}

/// The crate.
#[derive(Debug)]
pub(super) struct Hello<'a> {
    stage: &'a Stage,
    source: &'static str,
    directory: PathBuf,
}

/// What a build took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    pub(super) seconds: f64,
    /// Of cargo and all compilers; NaN where the system does not tell it.
    pub(super) cpu_seconds: f64,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Raw => "raw",
            Self::Ruststream => "ruststream",
        }
    }

    fn source(self) -> &'static str {
        match self {
            Self::Ours => include_str!("../../hello/ours.rs"),
            Self::Raw => include_str!("../../hello/raw.rs"),
            Self::Ruststream => include_str!("../../hello/ruststream.rs"),
        }
    }

    fn manifest(self) -> String {
        let dependencies = match self {
            Self::Ours => {
                let core = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("messaging-core");
                // A literal string of TOML: nothing in a path means anything else there.
                format!("messaging-core = {{ path = '{}' }}\n", core.display())
            }
            Self::Raw => {
                "redis = { version = \"1.8\", default-features = false, features = [\"tokio-comp\"] }\n\
                          futures-util = { version = \"0.3\", default-features = false }\n\
                          serde_json = \"1\"\n"
                    .to_owned()
            }
            Self::Ruststream => "ruststream = { version = \"0.7\", features = [\"macros\", \"json\"] }\n\
                                 ruststream-fred = \"0.7\"\n"
                .to_owned(),
        };
        format!(
            "[workspace]\n\n[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n\
             {dependencies}serde = {{ version = \"1\", features = [\"derive\"] }}\n\
             tokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n"
        )
    }
}

impl<'a> Hello<'a> {
    /// Writes it down, and sees to it that nothing has to be downloaded later.
    pub(super) fn at(stage: &'a Stage, program: Program) -> Result<Self, Failure> {
        let directory = stage.beside_this("hello").join(program.name());
        let hello = Self { stage, source: program.source(), directory };
        fs::create_dir_all(hello.directory.join("src"))?;
        fs::write(hello.directory.join("Cargo.toml"), program.manifest())?;
        hello.write(program.source())?;
        if program != Program::Ruststream {
            // Of the same versions as everything that is measured here; cargo removes what it does not need.
            let lock = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.lock");
            fs::copy(lock, hello.directory.join("Cargo.lock"))?;
        }
        // What has been downloaded before is enough, without a network too.
        hello.run(hello.cargo("fetch").arg("--offline")).or_else(|_| hello.run(&mut hello.cargo("fetch")))?;
        Ok(hello)
    }

    fn write(&self, source: &str) -> Result<(), Failure> {
        Ok(fs::write(self.directory.join("src").join("main.rs"), source)?)
    }

    /// Builds it with all its dependencies.
    pub(super) fn clean(&self, mode: Mode) -> Result<Took, Failure> {
        self.write(self.source)?;
        match fs::remove_dir_all(self.directory.join("target")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => self.timed(&mut self.build(mode)),
        }
    }

    /// Builds it again when only it has changed, in seconds.
    pub(super) fn rebuild(&self, mode: Mode) -> Result<f64, Failure> {
        let mut all = Vec::new();
        for number in 0..REBUILDS {
            self.write(&self.source.replace("hello", &format!("hello {number}")))?;
            all.push(self.timed(&mut self.build(mode))?.seconds);
        }
        all.sort_by(f64::total_cmp);
        Ok(all[REBUILDS / 2])
    }

    /// Checks another source in its place; returns the processor time.
    pub(super) fn check(&self, source: &str) -> Result<f64, Failure> {
        let check = || {
            let mut check = self.cargo("check");
            // What was found out about another source would be found again.
            check.arg("--offline").env("CARGO_INCREMENTAL", "0");
            check
        };
        // Once for the dependencies.
        self.write("fn main() {}\n")?;
        self.run(&mut check())?;
        self.write(source)?;
        Ok(self.timed(&mut check())?.cpu_seconds)
    }

    /// How many crates it is built of, besides itself.
    pub(super) fn crates(&self) -> Result<f64, Failure> {
        let mut tree = self.cargo("tree");
        tree.args(["--offline", "--prefix", "none", "--edges", "normal,build", "--no-dedupe"]);
        let tree = tree.stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8_lossy(&tree.stdout);
        let mut crates: Vec<&str> = text.lines().collect();
        crates.sort_unstable();
        crates.dedup();
        match crates.len().checked_sub(1) {
            Some(count) if tree.status.success() => Ok(count as f64),
            _ => Err("`cargo tree` says nothing".into()),
        }
    }

    /// How large the program is.
    pub(super) fn mebibytes(&self, mode: Mode) -> Result<f64, Failure> {
        let directory = match mode {
            Mode::Debug => "debug",
            Mode::Release => "release",
        };
        let program = self.directory.join("target").join(directory).join(format!("hello{EXE_SUFFIX}"));
        Ok(fs::metadata(program)?.len() as f64 / f64::from(1 << 20))
    }

    fn build(&self, mode: Mode) -> Command {
        let mut build = self.cargo("build");
        build.arg("--offline").args((mode == Mode::Release).then_some("--release"));
        build
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo =
            self.stage.on_all_processors(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args([command, "--quiet"]).current_dir(&self.directory);
        // Its own, whatever those who build this workspace have set.
        cargo.env("CARGO_TARGET_DIR", self.directory.join("target")).env_remove("RUSTC_WRAPPER");
        cargo
    }

    fn timed(&self, command: &mut Command) -> Result<Took, Failure> {
        let cpu = usage::cpu_seconds_of_children;
        let (start, before) = (Instant::now(), cpu());
        self.run(command)?;
        let seconds = start.elapsed().as_secs_f64();
        let cpu_seconds = cpu().zip(before).map_or(f64::NAN, |(after, before)| after - before);
        // It takes so long that one wants to see it go on.
        eprintln!("    {} s, of a processor {} s", seconds.round(), cpu_seconds.round());
        Ok(Took { seconds, cpu_seconds })
    }

    fn run(&self, command: &mut Command) -> Result<(), Failure> {
        let output = command.stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        let directory = self.directory.display();
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!("what is in {directory} cannot be built:\n{complaint}").into())
    }
}
