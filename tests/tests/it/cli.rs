//! The operator's command, as operators have it: the program, its output, its exit codes.

mod cache;
mod check;
mod dead;
mod groups;
mod health;
mod help;
mod operator;
mod publish;
mod stats;
mod tail;
mod usage;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use messaging_core::{DeliveryMode, HandlerHandle, Messaging, Retry};

use crate::place::Place;
use crate::programs::{Program, Programs, repository, target};

static PROGRAMS: LazyLock<Programs> =
    LazyLock::new(|| Programs::build(repository(), target(), &["--package", "messaging-cli"]));

/// The program, told nothing of any Redis.
fn messaging() -> Command {
    let mut command = PROGRAMS.command("messaging");
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(variable);
    }
    command
}

/// The command in the deployment of a test.
struct Cli(Place);

/// What it came to.
#[derive(Debug)]
struct Came {
    code: i32,
    out: String,
    err: String,
}

impl Came {
    /// Its output, if it succeeded.
    #[track_caller]
    fn well(self) -> String {
        self.with(0).out
    }

    /// Itself, if it ended with this code.
    #[track_caller]
    fn with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.err, self.out);
        self
    }

    /// Its one line of complaint, if it ended with this code and printed nothing else.
    #[track_caller]
    fn complaint(self, code: i32) -> String {
        let Self { out, err, .. } = self.with(code);
        assert_eq!((err.lines().count(), out.as_str()), (1, ""), "{err}");
        err.trim_end().to_owned()
    }

    #[track_caller]
    fn json(self) -> serde_json::Value {
        let out = self.out;
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{}", self.err))
    }
}

fn run(mut command: Command, input: Option<&str>) -> Came {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if let Some(input) = input {
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("it writes UTF-8");
    Came { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

impl Cli {
    fn new() -> Self {
        Self(Place::redis())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = messaging();
        let config = &self.0.config;
        command.args(arguments).env("REDIS_URL", messaging_tests::shared_redis().url());
        command.env("MESSAGING_NAMESPACE", &config.namespace);
        command.env("MESSAGING_CHANNEL_PREFIX", &config.channel_prefix);
        command.env("MESSAGING_CACHE_PREFIX", &config.cache_prefix);
        command.env("MESSAGING_CACHE_TIMEOUT", "5s").env("MESSAGING_COMMAND_TIMEOUT", "10s");
        command.env("MESSAGING_RECLAIM", "15s");
        command
    }

    /// Runs it, and takes the test's own prefixes out of what it says.
    fn run(&self, arguments: &[&str]) -> Came {
        self.run_with(arguments, None)
    }

    fn run_with(&self, arguments: &[&str], input: Option<&str>) -> Came {
        let came = run(self.command(arguments), input);
        let config = &self.0.config;
        let plain =
            |text: String| text.replace(&config.channel_prefix, "").replace(&config.cache_prefix, "cache");
        Came { code: came.code, out: plain(came.out), err: plain(came.err) }
    }

    fn start(&self, arguments: &[&str]) -> Program {
        Program::start(self.command(arguments))
    }

    async fn messaging(&self) -> Messaging {
        self.0.messaging().await
    }
}

/// A queue handler whose calls fail where the payload is negative, at once and for good.
async fn workers(messaging: &Messaging, group: &str, channel: &str) -> HandlerHandle {
    let subscriber = messaging.subscriber().delivery(DeliveryMode::Queue).group(group).id(group);
    let handle = async |number: i64| if number < 0 { Err(format!("cannot do {number}")) } else { Ok(()) };
    subscriber.retry(Retry::NEVER).on(channel, handle).await.unwrap()
}

/// A group with so many dead letters: -1, -2, …
async fn with_dead_letters(messaging: &Messaging, group: &str, channel: &str, letters: i64) {
    messaging.publish(channel, &0).durable().await.unwrap();
    let workers = workers(messaging, group, channel).await;
    for number in 1..=letters {
        messaging.publish(channel, &-number).durable().header("from", "the test").await.unwrap();
    }
    let dead = messaging.dead_letters(group);
    messaging_tests::eventually("they are dead", async || dead.count().await.unwrap() == letters as u64)
        .await;
    workers.stop().await;
}
