//! Where everything runs: the programs, the processors they are pinned to, the Redis servers, and how much is measured.

use std::env::consts::{ARCH, OS};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use messaging_tests::{PostgresServer, RedisServer, unique};

use super::hello::{Hello, Program};
use super::process::Process;
use super::versions;
use crate::job::{Failure, Job, PeerJob, Report, Server};
use crate::usage;

/// Where `cargo xtask bench` has installed what the server of Socket.IO needs.
const SOCKETIO: &str = "MESSAGING_BENCH_SOCKETIO";
/// The same for node-redis, and the Python that has FastStream.
const NODE_REDIS: &str = "MESSAGING_BENCH_NODE_REDIS";
const FASTSTREAM: &str = "MESSAGING_BENCH_FASTSTREAM";
/// Runs a program that may open as many files as the machine lets it: each connection is one.
const WITH_MANY_FILES: &str = r#"ulimit -S -n "$(ulimit -H -n)"; exec "$0" "$@""#;
/// The processor of the servers, the publisher and this program.
const OTHERS: &str = "0";
/// The processor of the measured process.
const MEASURED: &str = "1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Full,
    Quick,
}

impl Scale {
    pub(super) fn repetitions(self) -> usize {
        match self {
            Self::Full => 5,
            Self::Quick => 3,
        }
    }

    /// `full`, or a quarter of it.
    pub(super) fn of(self, full: u64) -> u64 {
        match self {
            Self::Full => full,
            Self::Quick => full / 4,
        }
    }
}

/// What a process runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Under {
    Nothing,
    /// An allocator that counts.
    Counting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Valgrind,
    Postgres,
    SocketIo,
    NodeRedis,
    FastStream,
    /// The crates of another library, downloaded or reachable.
    Ruststream,
}

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) scale: Scale,
    program: PathBuf,
    counting: PathBuf,
    pinned: bool,
    redis: OnceLock<RedisServer>,
    patient_redis: OnceLock<RedisServer>,
    postgres: OnceLock<PostgresServer>,
    peer: OnceLock<PathBuf>,
    naive: OnceLock<PathBuf>,
}

impl Stage {
    pub(super) fn set(scale: Scale) -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        let counting =
            program.with_file_name(format!("messaging-benches-allocations{}", std::env::consts::EXE_SUFFIX));
        let works = |core| quiet("taskset", &["-c", core, "true"]);
        let pinned = works(OTHERS)
            && works(MEASURED)
            // What is started from here on is there too, unless it is put elsewhere.
            && quiet("taskset", &["-a", "-c", "-p", OTHERS, &std::process::id().to_string()]);
        Ok(Self {
            scale,
            program,
            counting,
            pinned,
            redis: OnceLock::new(),
            patient_redis: OnceLock::new(),
            postgres: OnceLock::new(),
            peer: OnceLock::new(),
            naive: OnceLock::new(),
        })
    }

    /// A Redis with its default settings.
    pub(super) fn redis(&self) -> &RedisServer {
        self.redis.get_or_init(RedisServer::start)
    }

    /// A Redis that does not cut off a subscriber that is slower than a flood.
    pub(super) fn patient_redis(&self) -> &RedisServer {
        let start = || RedisServer::builder().arg("--client-output-buffer-limit", "pubsub 0 0 0").start();
        self.patient_redis.get_or_init(start)
    }

    /// A PostgreSQL that never waits for the disk.
    pub(super) fn postgres(&self) -> &PostgresServer {
        self.postgres.get_or_init(PostgresServer::start)
    }

    /// Starts a process beside Redis.
    pub(super) fn beside(&self, job: &Job) -> Result<Process, Failure> {
        Process::start(Command::new(&self.program).args(["job", &serde_json::to_string(job)?]))
    }

    /// Starts the process that is measured.
    pub(super) fn measured(&self, job: &Job, under: Under) -> Result<Process, Failure> {
        let program = match under {
            Under::Nothing => &self.program,
            Under::Counting => &self.counting,
        };
        let mut command = self.on_its_processor(program);
        Process::start(command.args(["job", &serde_json::to_string(job)?]))
    }

    /// Starts a gateway, which is measured by those who look at it.
    pub(super) fn gateway(&self, server: Server) -> Result<Process, Failure> {
        let redis = self.redis().port();
        let mut command = self.on_its_processor("sh");
        command.args(["-c", WITH_MANY_FILES]);
        match server {
            Server::Ours => {
                let job = serde_json::to_string(&Job::Serve { redis })?;
                command.arg(&self.program).args(["job", &job]);
            }
            Server::Naive => {
                command.arg(self.naive()?).arg(redis.to_string());
            }
            Server::SocketIo => {
                let packages = std::env::var_os(SOCKETIO).ok_or("no Socket.IO")?;
                command.env("NODE_PATH", packages).env("NODE_ENV", "production");
                let program = concat!(env!("CARGO_MANIFEST_DIR"), "/gateway/socketio/server.js");
                command.args(["node", program, &redis.to_string()]);
            }
        }
        Process::start(&mut command)
    }

    /// Runs the clients of a gateway, beside Redis.
    pub(super) fn crowd(&self, job: &Job) -> Result<Report, Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", WITH_MANY_FILES]).arg(&self.program);
        Process::start(command.args(["job", &serde_json::to_string(job)?]))?.done()
    }

    /// The command that runs a program where the measured process belongs.
    fn on_its_processor(&self, program: impl AsRef<OsStr>) -> Command {
        if !self.pinned {
            return Command::new(program);
        }
        let mut command = Command::new("taskset");
        command.args(["-c", MEASURED]).arg(program);
        command
    }

    /// The command that runs a program which is not measured by the processor that it is on.
    pub(super) fn on_all_processors(&self, program: impl AsRef<OsStr>) -> Command {
        match online_cores() {
            Some(cores) if self.pinned => {
                let mut command = Command::new("taskset");
                command.args(["-c", &format!("0-{}", cores - 1)]).arg(program);
                command
            }
            _ => Command::new(program),
        }
    }

    /// A place for what is built, beside this program.
    pub(super) fn beside_this(&self, name: &str) -> PathBuf {
        self.program.with_file_name(name)
    }

    /// Runs a job that needs nobody else, or only what is there already.
    pub(super) fn alone(&self, job: &Job) -> Result<Report, Failure> {
        self.measured(job, Under::Nothing)?.done()
    }

    /// Starts the process that is measured, with another library.
    pub(super) fn peer(&self, job: &PeerJob) -> Result<Process, Failure> {
        let program = self.built(&self.peer, "peers", "peers")?;
        Process::start(self.on_its_processor(program).args(["job", &serde_json::to_string(job)?]))
    }

    /// The same: a subscriber with node-redis.
    pub(super) fn node_redis(&self, port: u16) -> Result<Process, Failure> {
        let packages = std::env::var_os(NODE_REDIS).ok_or("no node-redis")?;
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/node-redis/subscriber.js");
        let mut command = self.on_its_processor("node");
        command.env("NODE_PATH", packages).env("NODE_ENV", "production");
        Process::start(command.args([program, &port.to_string()]))
    }

    /// The same with FastStream.
    pub(super) fn faststream(&self, port: u16) -> Result<Process, Failure> {
        let python = std::env::var_os(FASTSTREAM).ok_or("no FastStream")?;
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/faststream/subscriber.py");
        Process::start(self.on_its_processor(python).args([program, &port.to_string()]))
    }

    /// The processor time of a Redis so far; not a number where the system does not tell it.
    pub(super) fn cpu_seconds_of(&self, redis: &RedisServer) -> f64 {
        let info = redis.cli(&["INFO", "server"]);
        let process = info.lines().find_map(|line| line.strip_prefix("process_id:"));
        process.and_then(|process| usage::cpu_seconds_of(process.trim())).unwrap_or(f64::NAN)
    }

    /// The broadcaster that is written by hand.
    fn naive(&self) -> Result<&Path, Failure> {
        self.built(&self.naive, "naive", "gateway/naive")
    }

    /// The program of a directory of `benches`, built beside this one the first time: a workspace of its own, whose
    /// dependencies would otherwise change what is measured here.
    fn built<'a>(&self, once: &'a OnceLock<PathBuf>, name: &str, source: &str) -> Result<&'a Path, Failure> {
        if let Some(program) = once.get() {
            return Ok(program);
        }
        let target = self.program.with_file_name(name);
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(source).join("Cargo.toml");
        let mut build = Command::new(cargo);
        build.args(["build", "--release", "--locked", "--manifest-path"]).arg(manifest);
        if !build.arg("--target-dir").arg(&target).status()?.success() {
            return Err(format!("benches/{source} cannot be built").into());
        }
        let program = format!("messaging-benches-{name}{}", std::env::consts::EXE_SUFFIX);
        Ok(once.get_or_init(|| target.join("release").join(program)))
    }

    /// The number of instructions of a process, start to end, in the order of `callgrind`.
    pub(super) fn instructions(&self, job: &Job) -> Result<f64, Failure> {
        let log = std::env::temp_dir().join(unique("callgrind"));
        let mut command = self.on_its_processor("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        command.arg(format!("--log-file={}", log.display())).arg(&self.program);
        let done = Process::start(command.args(["job", &serde_json::to_string(job)?]))?.done();
        let text = std::fs::read_to_string(&log);
        let _ = std::fs::remove_file(&log);
        done?;
        let text = text?;
        let collected = text.lines().find_map(|line| line.split_once("Collected : "));
        let count = collected.and_then(|(_, count)| count.trim().parse().ok());
        count.ok_or_else(|| format!("valgrind did not say how many instructions there were:\n{text}").into())
    }

    /// Why a tool cannot be used.
    pub(super) fn lacks(&self, tool: Tool) -> Option<&'static str> {
        match tool {
            Tool::Valgrind => (!quiet("valgrind", &["--version"])).then_some("no valgrind"),
            Tool::Postgres => (!PostgresServer::is_installed()).then_some("no PostgreSQL"),
            Tool::SocketIo => std::env::var_os(SOCKETIO).is_none().then_some("no Socket.IO"),
            Tool::NodeRedis => std::env::var_os(NODE_REDIS).is_none().then_some("no node-redis"),
            Tool::FastStream => std::env::var_os(FASTSTREAM).is_none().then_some("no FastStream"),
            Tool::Ruststream => Hello::at(self, Program::Ruststream).is_err().then_some("no ruststream"),
        }
    }

    pub(super) fn placing(&self) -> &'static str {
        match self.pinned {
            true => "pinned: servers and the publisher to processor 0, the measured process to processor 1",
            false => "not pinned: there is no `taskset`, or fewer than two processors",
        }
    }

    /// What was measured on, without anything that tells one machine of its kind from another.
    pub(super) fn machine(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Pinned to one processor, this program sees only that one.
        let cores = online_cores().unwrap_or(cores);
        let redis = self.redis.get().or(self.patient_redis.get()).map_or(String::new(), |redis| {
            let info = redis.cli(&["INFO", "server"]);
            let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
            format!(", redis-server {}", version.unwrap_or("of unknown version").trim())
        });
        let postgres = self.postgres.get().map_or(String::new(), |postgres| {
            let version = postgres.database().psql("show server_version");
            format!(", PostgreSQL {}", version.split(' ').next().unwrap_or_default())
        });
        let packages = std::env::var_os(SOCKETIO).or_else(|| std::env::var_os(NODE_REDIS));
        let node = packages.and_then(|_| Command::new("node").arg("--version").output().ok());
        let node = node.map_or(String::new(), |output| {
            format!(", Node.js {}", String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v'))
        });
        let rustc = rustc();
        format!("machine: {cores} processors, {ARCH} {OS}{redis}{postgres}{node}, {rustc}")
    }

    /// The peers and their versions, if any were measured.
    pub(super) fn peers(&self) -> Vec<String> {
        if self.peer.get().is_none() {
            return Vec::new();
        }
        let mut peers = versions::crates();
        peers.extend(std::env::var_os(NODE_REDIS).map(|modules| versions::of_npm(modules.as_ref(), "redis")));
        let python = std::env::var_os(FASTSTREAM);
        peers.extend(python.map(|python| versions::of_python(python.as_ref(), "faststream")));
        peers
    }
}

/// `rustc 1.95.0`.
pub(super) fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output().ok();
    let text = output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.split(" (").next().unwrap_or_default().trim().to_owned()
}

fn online_cores() -> Option<usize> {
    let cores = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    Some(cores.lines().filter(|line| line.starts_with("processor")).count()).filter(|cores| *cores > 0)
}

/// Runs a program out of sight; whether it succeeded.
fn quiet(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
