//! A cluster of three primaries with a replica each, as processes of a test's own.

use crate::server::RedisServer;
use crate::setup::credentials;
use crate::waiting;

const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;
/// After so many milliseconds without an answer a node is down. A busy machine keeps one waiting for a good part of a second.
const NODE_TIMEOUT: &str = "2000";

/// Six nodes: three primaries that share the slots evenly, then a replica of each. They go when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<RedisServer>,
    password: String,
}

/// What a [`Cluster`] is started with.
#[derive(Clone, Debug, Default)]
#[must_use = "nothing runs before `.start()`"]
pub struct ClusterBuilder {
    tls: bool,
    password: String,
    users: Vec<String>,
}

impl ClusterBuilder {
    /// TLS everywhere, with the certificates of the first node: [`Cluster::nodes`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The default user's password.
    pub fn password(mut self, password: &str) -> Self {
        password.clone_into(&mut self.password);
        self
    }

    /// One user, in the words of `redis.conf`.
    pub fn acl(mut self, user: &str) -> Self {
        self.users.push(user.to_owned());
        self
    }

    /// Starts the nodes, and waits until they agree.
    ///
    /// # Panics
    ///
    /// If they do not within 30 seconds.
    #[must_use]
    pub fn start(self) -> Cluster {
        let mut nodes: Vec<RedisServer> = Vec::new();
        for _ in 0..2 * PRIMARIES {
            nodes.push(self.node(nodes.first()));
        }
        let cluster = Cluster { nodes, password: self.password };
        cluster.join();
        cluster
    }

    fn node(&self, first: Option<&RedisServer>) -> RedisServer {
        let mut builder = RedisServer::builder();
        for (name, value) in [
            ("--cluster-enabled", "yes"),
            ("--cluster-node-timeout", NODE_TIMEOUT),
            ("--cluster-replica-validity-factor", "0"),
            ("--cluster-allow-replica-migration", "no"),
            ("--repl-diskless-sync-delay", "0"),
            ("--repl-ping-replica-period", "1"),
        ] {
            builder = builder.arg(name, value);
        }
        if self.tls {
            builder = match first {
                Some(first) => builder.tls_with(first.tls_files()),
                None => builder.tls().arg("--tls-replication", "yes"),
            };
            builder = builder.arg("--tls-cluster", "yes");
        }
        if !self.password.is_empty() {
            builder = builder.password(&self.password).arg("--masterauth", &self.password);
        }
        self.users.iter().fold(builder, |builder, user| builder.acl(user)).start()
    }
}

impl Cluster {
    /// Without TLS and passwords.
    ///
    /// # Panics
    ///
    /// See [`ClusterBuilder::start`].
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// With options.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// The URL that clients are given, as the default user: it names all nodes.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_for("", &self.password)
    }

    /// The URL for one of the users.
    #[must_use]
    pub fn url_for(&self, user: &str, password: &str) -> String {
        let scheme = if self.nodes[0].url().starts_with("rediss") { "rediss" } else { "redis" };
        let nodes: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("{scheme}+cluster://{}{}", credentials(user, password), nodes.join(","))
    }

    /// All nodes: the primaries of the start, then their replicas in the same order.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The nodes that run.
    pub fn running(&self) -> impl Iterator<Item = &RedisServer> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    /// The slot of a key or of a sharded channel.
    ///
    /// # Panics
    ///
    /// If no node answers.
    #[must_use]
    pub fn slot_of(&self, key: &str) -> u16 {
        self.anyone().cli(&["CLUSTER", "KEYSLOT", key]).parse().expect("a slot is a number")
    }

    /// The node that owns a slot, as a running node knows it.
    ///
    /// # Panics
    ///
    /// If nobody does.
    #[must_use]
    pub fn owner_of(&self, slot: u16) -> &RedisServer {
        self.owner_seen_by(self.anyone(), slot).expect("every slot has an owner")
    }

    /// Moves a slot with its keys while the cluster works.
    ///
    /// # Panics
    ///
    /// If the nodes do not agree within 30 seconds.
    pub fn migrate_slot(&self, slot: u16, to: &RedisServer) {
        let from = self.owner_of(slot);
        let (slot, from_id, to_id) = (slot.to_string(), id(from), id(to));
        to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        self.migrate_keys(&slot, from, to);
        for node in [to, from] {
            node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
        let number = slot.parse().expect("it was a number");
        for node in self.running() {
            let agreed = || self.owner_seen_by(node, number).is_some_and(|owner| owner.port() == to.port());
            waiting::poll(|| agreed().then_some(())).expect("the nodes agree on the slot's owner");
        }
    }

    /// Begins to move a slot and stops half way: its keys are there, and it belongs to the node where they were.
    pub fn half_migrate_slot(&self, slot: u16, to: &RedisServer) {
        let from = self.owner_of(slot);
        let slot = slot.to_string();
        to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
        self.migrate_keys(&slot, from, to);
    }

    fn migrate_keys(&self, slot: &str, from: &RedisServer, to: &RedisServer) {
        loop {
            let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
            let port = to.port().to_string();
            let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000"];
            if !self.password.is_empty() {
                command.extend(["AUTH", &self.password]);
            }
            command.push("KEYS");
            let before = command.len();
            command.extend(keys.lines().filter(|key| !key.is_empty()));
            if command.len() == before {
                return;
            }
            from.cli(&command);
        }
    }

    /// Waits until every node that runs says that the cluster works, and none names the owner of a slot that does not run.
    ///
    /// # Panics
    ///
    /// If that does not come to be within 30 seconds.
    pub fn settled(&self) {
        for node in self.running() {
            let settled = || {
                let works = node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
                let owners = node.cli(&["CLUSTER", "NODES"]);
                let mut owners = owners.lines().filter(|line| line.contains("master") && line.contains('-'));
                (works && owners.all(|line| !line.contains("fail") || !line.contains("connected ")))
                    .then_some(())
            };
            waiting::poll(settled).expect("the cluster works");
        }
    }

    fn anyone(&self) -> &RedisServer {
        self.running().next().expect("a node runs")
    }

    fn owner_seen_by(&self, node: &RedisServer, slot: u16) -> Option<&RedisServer> {
        let nodes = node.cli(&["CLUSTER", "NODES"]);
        let owner = nodes.lines().find(|line| {
            let ranges = line.split(' ').skip(8).filter(|range| !range.starts_with('['));
            let mut bounds = ranges.filter_map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?))
            });
            bounds.any(|(first, last)| (first..=last).contains(&slot))
        })?;
        let address = owner.split(' ').nth(1)?.split('@').next()?;
        self.nodes.iter().find(|node| address.ends_with(&format!(":{}", node.port())))
    }

    fn join(&self) {
        let (primaries, replicas) = self.nodes.split_at(PRIMARIES);
        for (number, node) in self.nodes.iter().enumerate() {
            node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        for (number, node) in primaries.iter().enumerate() {
            let (first, next) = (number * SLOTS / PRIMARIES, (number + 1) * SLOTS / PRIMARIES);
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(next - 1).to_string()]);
        }
        for node in &self.nodes[1..] {
            self.nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string()]);
        }
        for node in &self.nodes {
            let met = || {
                let nodes = node.cli(&["CLUSTER", "NODES"]);
                (nodes.lines().count() == self.nodes.len() && !nodes.contains("handshake")).then_some(())
            };
            waiting::poll(met).unwrap_or_else(|| panic!("the nodes meet:\n{}", node.log()));
        }
        for (primary, replica) in primaries.iter().zip(replicas) {
            let id = id(primary);
            let follows = || replica.try_cli(&["CLUSTER", "REPLICATE", &id]).is_ok().then_some(());
            waiting::poll(follows).expect("the replica knows its primary");
        }
        for replica in replicas {
            let linked =
                || replica.cli(&["INFO", "replication"]).contains("master_link_status:up").then_some(());
            waiting::poll(linked).unwrap_or_else(|| panic!("the replica is in step:\n{}", replica.log()));
        }
        self.settled();
    }
}

fn id(node: &RedisServer) -> String {
    node.cli(&["CLUSTER", "MYID"])
}
