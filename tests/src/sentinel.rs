//! A master with two replicas and three sentinels, as processes of a test's own.

use crate::server::RedisServer;
use crate::setup::{RedisBuilder, credentials};
use crate::waiting;

/// What the sentinels call the master.
const NAME: &str = "main";
/// After so many milliseconds without an answer a server is down. A busy machine keeps one waiting for a good part of a
/// second, and a failover that nobody asked for loses what tests have just written.
const DOWN_AFTER: &str = "2000";

/// A master, two replicas, and three sentinels that watch them; they go when this is dropped.
#[derive(Debug)]
pub struct Sentinel {
    sentinels: Vec<RedisServer>,
    servers: Vec<RedisServer>,
    sentinel_password: Option<String>,
}

/// What a [`Sentinel`] is started with.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing runs before `.start()`"]
pub struct SentinelBuilder {
    tls: bool,
    password: Option<String>,
    sentinel_password: Option<String>,
    users: Vec<String>,
}

impl SentinelBuilder {
    /// TLS everywhere, with the certificates of the first server: [`Sentinel::servers`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The password of the servers' default user.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// The password of the sentinels' default user.
    pub fn sentinel_password(mut self, password: &str) -> Self {
        self.sentinel_password = Some(password.to_owned());
        self
    }

    /// One user of the servers, in the words of `redis.conf`.
    pub fn acl(mut self, user: &str) -> Self {
        self.users.push(user.to_owned());
        self
    }

    /// Starts everything, and waits until the sentinels know of each other and of the replicas.
    ///
    /// # Panics
    ///
    /// If that does not come to be within 30 seconds.
    #[must_use]
    pub fn start(self) -> Sentinel {
        let mut servers: Vec<RedisServer> = Vec::new();
        for number in 0..3 {
            let mut builder = self.server(servers.first());
            if let (1.., Some(master)) = (number, servers.first()) {
                builder = builder.arg("--replicaof", &format!("127.0.0.1 {}", master.port()));
            }
            servers.push(builder.start());
        }
        let master = &servers[0];
        let replicated = || master.cli(&["INFO", "replication"]).matches("state=online").count() == 2;
        waiting::poll(|| replicated().then_some(())).expect("both replicas are in step");
        let sentinels = (0..3).map(|_| self.sentinel(master).start()).collect();
        let started = Sentinel { sentinels, servers, sentinel_password: self.sentinel_password };
        started.settled();
        started
    }

    fn server(&self, first: Option<&RedisServer>) -> RedisBuilder {
        let mut builder = RedisServer::builder().arg("--repl-diskless-sync-delay", "0");
        builder = builder.arg("--repl-ping-replica-period", "1");
        builder = match first {
            Some(first) if self.tls => builder.tls_with(first.tls_files()),
            None if self.tls => builder.tls().arg("--tls-replication", "yes"),
            _ => builder,
        };
        if let Some(password) = &self.password {
            builder = builder.password(password).arg("--masterauth", password);
        }
        self.users.iter().fold(builder, |builder, user| builder.acl(user))
    }

    fn sentinel(&self, master: &RedisServer) -> RedisBuilder {
        let mut builder = RedisServer::builder().sentinel();
        if self.tls {
            builder = builder.tls_with(master.tls_files());
        }
        if let Some(password) = &self.sentinel_password {
            builder = builder.password(password).arg("--sentinel sentinel-pass", password);
        }
        builder = builder.arg("--sentinel monitor", &format!("{NAME} 127.0.0.1 {} 2", master.port()));
        if let Some(password) = &self.password {
            builder = builder.arg("--sentinel auth-pass", &format!("{NAME} {password}"));
        }
        builder
            .arg("--sentinel down-after-milliseconds", &format!("{NAME} {DOWN_AFTER}"))
            .arg("--sentinel failover-timeout", &format!("{NAME} 5000"))
    }
}

/// Whether a server says that it has this role. With the role that it gives a server, a sentinel ends that server's connections:
/// the question may be among what is cut off, and no answer is no yes.
fn is_now(server: &RedisServer, role: &str) -> bool {
    server.ask(&["ROLE"]).is_ok_and(|answer| answer.is_ok_and(|said| said.starts_with(role)))
}

impl Sentinel {
    /// Without TLS and passwords.
    ///
    /// # Panics
    ///
    /// See [`SentinelBuilder::start`].
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// With options.
    pub fn builder() -> SentinelBuilder {
        SentinelBuilder::default()
    }

    /// The URL that clients are given, as the default user without a password.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_for("", "")
    }

    /// The URL for one of the servers' users.
    #[must_use]
    pub fn url_for(&self, user: &str, password: &str) -> String {
        let scheme = if self.servers[0].url().starts_with("rediss") { "rediss" } else { "redis" };
        let sentinels: Vec<_> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        let of_sentinels = self.sentinel_password.as_ref().map(|it| format!("?sentinel_password={it}"));
        format!(
            "{scheme}+sentinel://{}{}/{NAME}{}",
            credentials(user, password),
            sentinels.join(","),
            of_sentinels.unwrap_or_default()
        )
    }

    /// The servers: the first one was the master at the start.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The server that the sentinels call the master.
    ///
    /// # Panics
    ///
    /// If no sentinel answers.
    #[must_use]
    pub fn master(&self) -> &RedisServer {
        let running = self.sentinels.iter().find(|sentinel| sentinel.is_running());
        let answer = running.expect("a sentinel runs").cli(&["SENTINEL", "get-master-addr-by-name", NAME]);
        let port = answer.lines().nth(1).unwrap_or_default();
        self.servers.iter().find(|server| server.port().to_string() == port).expect("it is one of ours")
    }

    /// Makes a replica the master while the master lives, and waits until the sentinels say so and the old one follows it.
    ///
    /// # Panics
    ///
    /// If that does not come to be within 30 seconds.
    pub fn failover(&self) {
        let old = self.master();
        let begun = || self.sentinels[0].try_cli(&["SENTINEL", "FAILOVER", NAME]).is_ok().then_some(());
        waiting::poll(begun).expect("a failover begins");
        self.wait_for_another_than(old);
        let demoted = || is_now(old, "slave").then_some(());
        waiting::poll(demoted).expect("the old master becomes a replica");
    }

    /// Lets the sentinels take another server for the master, as when they cannot reach the old one and clients can: that
    /// lives on, takes writes, and closes nothing. Returns the new one.
    ///
    /// # Panics
    ///
    /// If no sentinel answers.
    pub fn give_up_master(&self) -> &RedisServer {
        let old = self.master();
        let new = self.servers.iter().find(|server| server.port() != old.port()).expect("there are three");
        new.cli(&["REPLICAOF", "NO", "ONE"]);
        for sentinel in &self.sentinels {
            sentinel.cli(&["SENTINEL", "REMOVE", NAME]);
            sentinel.cli(&["SENTINEL", "MONITOR", NAME, "127.0.0.1", &new.port().to_string(), "2"]);
        }
        new
    }

    /// Waits until the sentinels call another server the master, and it says so itself.
    ///
    /// # Panics
    ///
    /// If that does not come to be within 30 seconds.
    pub fn wait_for_another_than(&self, old: &RedisServer) {
        let changed = || {
            let master = self.master();
            (master.port() != old.port() && is_now(master, "master")).then_some(())
        };
        waiting::poll(changed).expect("there is another master");
    }

    /// Waits until the sentinels know of each other and of two replicas that can be promoted.
    ///
    /// # Panics
    ///
    /// If that does not come to be within 30 seconds.
    pub fn settled(&self) {
        for sentinel in &self.sentinels {
            let settled = || {
                let known = sentinel.cli(&["SENTINEL", "MASTER", NAME]);
                let known = |field: &str| known.lines().skip_while(|line| *line != field).nth(1) == Some("2");
                let replicas = sentinel.cli(&["SENTINEL", "REPLICAS", NAME]);
                let linked = replicas.lines().filter(|line| *line == "ok").count() == 2;
                (known("num-slaves") && known("num-other-sentinels") && linked).then_some(())
            };
            waiting::poll(settled)
                .unwrap_or_else(|| panic!("a sentinel knows the others:\n{}", sentinel.log()));
        }
    }
}
