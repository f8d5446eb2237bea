//! Parts of tests that need a process of their own: this program again, told by the environment what to do.

use std::future::Future;
use std::io::Read as _;
use std::process::{Command, Stdio};

use crate::programs::Program;

const CHILD: &str = "FAULTS_CHILD";
const URL: &str = "FAULTS_URL";

/// Whether this process is the child of the test with this name.
pub fn is(test: &str) -> bool {
    std::env::var_os(CHILD).is_some_and(|child| child == test)
}

/// The Redis that the child was given.
pub fn url() -> String {
    std::env::var(URL).expect("the parent has set it")
}

/// Starts the child of a test.
pub fn start(test: &str, url: &str) -> Program {
    start_with(test, url, &[])
}

/// The same, with more in its environment.
pub fn start_with(test: &str, url: &str, environment: &[(&str, &str)]) -> Program {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(CHILD, test).env(URL, url);
    command.envs(environment.iter().copied()).stdin(Stdio::piped());
    Program::start(command)
}

/// Runs what the parent does, or what the child does, for as long as its parent lives.
pub fn run<F: Future>(future: F) -> F::Output {
    if std::env::var_os(CHILD).is_some() {
        // The parent holds the other end of this pipe, and says nothing: it ends when the parent does, however that is.
        std::thread::spawn(|| {
            let _ = std::io::stdin().read(&mut [0]);
            std::process::exit(1);
        });
    }
    run_here(future)
}

/// Runs what the parent does.
pub fn run_here<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// The memory in use by this process, in KiB.
pub fn memory() -> u64 {
    memory_of(std::process::id())
}

/// The memory in use by a process, in KiB.
pub fn memory_of(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How many sockets this process has.
pub fn sockets() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}
