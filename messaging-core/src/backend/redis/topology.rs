//! Where to connect to, asked anew at every attempt: the one server, the master that Sentinel knows, or the nodes of a
//! cluster. Opens connections only to ask.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{AsyncConnectionConfig, Cmd, RedisResult, Value, cmd};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::answers::describe;
use super::client::Clients;
use super::slots::SlotMap;
use crate::config::{Address, Config, Server, Topology};
use crate::error::{Error, ErrorKind, Result};

/// How often a connection to a master makes sure that it still is the master. Sentinel closes the connections to a
/// master that it demotes, but not those to one that it cannot reach.
const WATCH_EVERY: Duration = Duration::from_secs(2);

pub(super) struct Locator {
    topology: Topology,
    pub(super) clients: Clients,
    /// For the sentinels themselves.
    sentinel_clients: Clients,
    endpoint: String,
    connect_timeout: Duration,
    known: Mutex<Known>,
}

/// What was found out.
#[derive(Default)]
struct Known {
    /// Which sentinel or node is asked first: after a failure the next one.
    turn: usize,
    /// The master, and when a sentinel said so.
    master: Option<(Address, Instant)>,
    slots: Option<Arc<SlotMap>>,
}

impl Locator {
    pub(super) fn new(server: &Server, config: &Config) -> Result<Self> {
        let of_sentinels = match &server.topology {
            Topology::Sentinel { credentials, .. } => credentials.clone(),
            _ => server.credentials.clone(),
        };
        let uses_tls = server.topology.addresses().iter().any(|address| address.scheme() == "rediss");
        let locator = Self {
            topology: server.topology.clone(),
            clients: Clients::new(server.credentials.clone(), server.database, uses_tls, config)?,
            sentinel_clients: Clients::new(of_sentinels, 0, uses_tls, config)?,
            endpoint: config.endpoint.to_string(),
            connect_timeout: config.connect_timeout,
            // Not all processes ask the same one first.
            known: Mutex::new(Known { turn: fastrand::usize(..), ..Known::default() }),
        };
        for address in server.topology.addresses() {
            locator.clients.open(address).map_err(|source| {
                Error::new(ErrorKind::Configuration, format!("cannot use {}: {source}", config.endpoint))
                    .with_source(source)
            })?;
        }
        Ok(locator)
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// Whether what was found has to prove that it is a master.
    pub(super) fn wants_master(&self) -> bool {
        matches!(self.topology, Topology::Sentinel { .. })
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What errors call the server at this address.
    pub(super) fn name(&self, address: &Address) -> String {
        match self.topology {
            Topology::Fixed(_) => self.endpoint.clone(),
            _ => format!("{address} ({})", self.endpoint),
        }
    }

    /// Where to connect to: the server, the master, or any node of the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] if no sentinel knows; nothing was sent.
    pub(super) async fn locate(&self) -> Result<Address> {
        match &self.topology {
            Topology::Fixed(address) => Ok(address.clone()),
            Topology::Sentinel { sentinels, master, .. } => self.master(sentinels, master).await,
            Topology::Cluster(_) => {
                let nodes = self.nodes();
                let turn = self.known().turn;
                Ok(nodes[turn % nodes.len()].clone())
            }
        }
    }

    /// What was found at the last [`locate`](Self::locate) is of no use: next time another sentinel or node is asked.
    pub(super) fn doubt(&self) {
        let mut known = self.known();
        known.turn = known.turn.wrapping_add(1);
        known.master = None;
    }

    /// The known nodes of the cluster, those of the URL behind those of the slot map.
    fn nodes(&self) -> Vec<Address> {
        let mut nodes = self.slots_known().map(|slots| slots.nodes.clone()).unwrap_or_default();
        let named = self.topology.addresses().iter().filter(|address| !nodes.contains(address));
        let named: Vec<_> = named.cloned().collect();
        nodes.extend(named);
        nodes
    }

    pub(super) fn slots_known(&self) -> Option<Arc<SlotMap>> {
        self.known().slots.clone()
    }

    /// The slot map of the cluster as another node than the last time knows it.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] if no node answers; nothing was sent.
    pub(super) async fn slots(&self) -> Result<Arc<SlotMap>> {
        self.doubt();
        let nodes = self.nodes();
        let limit = self.share(nodes.len());
        let turn = self.known().turn;
        let mut last = None;
        for number in 0..nodes.len() {
            let node = &nodes[turn.wrapping_add(number) % nodes.len()];
            match ask(&self.clients, node, limit, cmd("CLUSTER").arg("SLOTS")).await {
                Ok(reply) => {
                    if let Some(slots) = SlotMap::parse(&reply, node).map(Arc::new) {
                        self.known().slots = Some(Arc::clone(&slots));
                        return Ok(slots);
                    }
                    last = Some(self.nobody(format!("{node} knows no slots")));
                }
                Err(error) => last = Some(describe(error, &self.name(node)).before_sending()),
            }
        }
        Err(last.unwrap_or_else(|| self.nobody("it has no nodes".to_owned())))
    }

    async fn master(&self, sentinels: &[Address], name: &str) -> Result<Address> {
        let limit = self.share(sentinels.len());
        let turn = self.known().turn;
        let mut last = String::new();
        for number in 0..sentinels.len() {
            let turn = turn.wrapping_add(number);
            let sentinel = &sentinels[turn % sentinels.len()];
            let mut question = cmd("SENTINEL");
            question.arg("get-master-addr-by-name").arg(name);
            match ask(&self.sentinel_clients, sentinel, limit, &question).await {
                Ok(answer) => {
                    let Some(master) = master_in(&answer, sentinel) else {
                        last = format!("the sentinel at {sentinel} does not know the master {name:?}");
                        continue;
                    };
                    let mut known = self.known();
                    known.turn = turn;
                    known.master = Some((master.clone(), Instant::now()));
                    return Ok(master);
                }
                Err(error) => last = format!("the sentinel at {sentinel}: {error}"),
            }
        }
        Err(self.nobody(last))
    }

    /// How long one of several may take to answer, so that all of them and the connection itself have their turn.
    fn share(&self, of: usize) -> Duration {
        self.connect_timeout / u32::try_from(of + 1).unwrap_or(u32::MAX)
    }

    /// Waits until the server at this address is the master no more, as far as the sentinels know. `None` where that
    /// cannot happen.
    pub(super) fn watch(self: &Arc<Self>, address: &Address) -> Option<AbortOnDropHandle<Error>> {
        self.wants_master().then(|| {
            let (locator, address) = (Arc::clone(self), address.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    sleep(WATCH_EVERY).await;
                    if let Some(error) = locator.left_by_master(&address).await {
                        return error;
                    }
                }
            }))
        })
    }

    /// Why the server at this address is of no use any more, if another one is the master by now.
    pub(super) async fn left_by_master(&self, address: &Address) -> Option<Error> {
        let lately = self.known().master.clone();
        let master = match lately.filter(|(_, at)| at.elapsed() < WATCH_EVERY) {
            Some((master, _)) => master,
            // Without a sentinel nothing is known against it.
            None => self.locate().await.ok()?,
        };
        (master != *address).then(|| {
            let text = format!("{} is the master no more, {master} is", self.name(address));
            Error::new(ErrorKind::Connection, text)
        })
    }

    fn nobody(&self, reason: String) -> Error {
        let what = if self.is_cluster() { "a node" } else { "the master" };
        let text = format!("cannot find {what} of {}: {reason}", self.endpoint);
        Error::new(ErrorKind::Connection, text).before_sending()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One question on a connection of its own.
async fn ask(clients: &Clients, address: &Address, limit: Duration, question: &Cmd) -> RedisResult<Value> {
    let settings =
        AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(Some(limit));
    let asking = async {
        let client = clients.open_for_questions(address)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
        question.query_async(&mut connection).await
    };
    timeout(limit, asking)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

fn master_in(answer: &Value, sentinel: &Address) -> Option<Address> {
    let (host, port): (String, u16) = redis::from_redis_value_ref(answer).ok()?;
    let tls = matches!(sentinel, Address::Tcp { tls: true, .. });
    Some(Address::Tcp { host, port, tls })
}
