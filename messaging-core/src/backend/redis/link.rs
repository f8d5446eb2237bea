//! Commands that are not publishing: runs them on shared connections, bounds every wait, and says of each failure whether
//! anything was sent. On a cluster each command goes to the primary that owns its key.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tokio::time::{Instant, timeout_at};

use super::answers::describe;
use super::cluster::{Cluster, Routed};
use super::commands::Commands;
use super::connection::Watch;
use super::node::{Node, Numbered, open};
use super::slots::SlotMap;
use super::topology::Locator;
use crate::config::{Address, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::retry::deadline;

/// What became of a command that only one connection would do for.
pub(super) enum Served<T> {
    /// The connection, by a number that no other one has.
    By(u64, T),
    /// The connection that was wanted is gone; nothing was sent.
    Elsewhere,
}

pub(super) struct Link {
    servers: Servers,
    locator: Arc<Locator>,
    endpoint: String,
    connect_timeout: Duration,
    command_timeout: Duration,
}

enum Servers {
    One(Arc<Node>),
    Cluster(Arc<Cluster>),
}

impl Link {
    pub(super) fn new(config: &Config, locator: &Arc<Locator>) -> Self {
        Self::open(locator, config.endpoint.to_string(), config.connect_timeout, config.command_timeout)
    }

    fn open(
        locator: &Arc<Locator>,
        endpoint: String,
        connect_timeout: Duration,
        command_timeout: Duration,
    ) -> Self {
        let servers = if locator.is_cluster() {
            Servers::Cluster(Arc::new(Cluster::new(locator, connect_timeout, command_timeout)))
        } else {
            Servers::One(Arc::new(Node::new(locator, None, connect_timeout, command_timeout)))
        };
        Self { servers, locator: Arc::clone(locator), endpoint, connect_timeout, command_timeout }
    }

    /// Another one to the same place, with connections of its own.
    pub(super) fn another(&self) -> Self {
        Self::open(&self.locator, self.endpoint.clone(), self.connect_timeout, self.command_timeout)
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.locator.is_cluster()
    }

    /// Runs a command on the shared connection, connecting first if there is none. The whole takes at most `limit`,
    /// or `connect_timeout` while it has to connect, whichever is shorter.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] and [`ErrorKind::Timeout`] are "not sent" if there was no connection yet.
    ///
    /// Cancellation: what was written is carried out by Redis.
    pub(super) async fn run<T, F>(&self, limit: Duration, command: impl FnOnce(Commands) -> F) -> Result<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        match &self.servers {
            Servers::One(node) => self.run_on(node, limit, command).await,
            Servers::Cluster(cluster) => {
                let routed = Routed::new(cluster);
                let trace = routed.trace();
                match timeout_at(deadline(limit), command(Commands::Cluster(routed))).await {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(error)) => Err(trace.failed(error, &self.endpoint)),
                    Err(_) => Err(trace.silent(limit, self.no_answer(limit))),
                }
            }
        }
    }

    /// [`run`](Self::run), telling on which connection, or only on this one.
    pub(super) async fn run_served<T, F>(
        &self,
        limit: Duration,
        only: Option<u64>,
        command: impl FnOnce(Commands) -> F,
    ) -> Result<Served<T>>
    where
        F: Future<Output = RedisResult<T>>,
    {
        match &self.servers {
            Servers::One(node) => {
                let deadline = deadline(limit);
                let current = match timeout_at(deadline, node.connection()).await {
                    Ok(connected) => connected?,
                    Err(_) => return Err(self.no_answer(limit).before_sending()),
                };
                let number = current.identity();
                if only.is_some_and(|only| only != number) {
                    return Ok(Served::Elsewhere);
                }
                self.ask(node, current, limit, deadline, command)
                    .await
                    .map(|answer| Served::By(number, answer))
            }
            Servers::Cluster(cluster) => {
                let routed = Routed::only(cluster, only);
                let trace = routed.trace();
                match timeout_at(deadline(limit), command(Commands::Cluster(routed))).await {
                    Ok(Ok(answer)) => Ok(Served::By(trace.served_by(), answer)),
                    Ok(Err(_)) if trace.is_elsewhere() => Ok(Served::Elsewhere),
                    Ok(Err(error)) => Err(trace.failed(error, &self.endpoint)),
                    Err(_) => Err(trace.silent(limit, self.no_answer(limit))),
                }
            }
        }
    }

    /// [`run`](Self::run) on one of the [`primaries`](Self::primaries).
    pub(super) async fn run_on<T, F>(
        &self,
        node: &Node,
        limit: Duration,
        command: impl FnOnce(Commands) -> F,
    ) -> Result<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let deadline = deadline(limit);
        let current = match timeout_at(deadline, node.connection()).await {
            Ok(connected) => connected?,
            Err(_) => return Err(self.no_answer(limit).before_sending()),
        };
        self.ask(node, current, limit, deadline, command).await
    }

    async fn ask<T, F>(
        &self,
        node: &Node,
        current: Numbered,
        limit: Duration,
        deadline: Instant,
        command: impl FnOnce(Commands) -> F,
    ) -> Result<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        match timeout_at(deadline, command(Commands::One(current.connection.clone()))).await {
            Ok(answer) => answer.map_err(|error| {
                node.failed(current.number, &error);
                describe(error, &self.endpoint)
            }),
            Err(_) => {
                node.silent(current, limit);
                Err(self.no_answer(limit))
            }
        }
    }

    /// The servers that together hold all keys: the one, or the primaries of the cluster as it is now, with its slots.
    pub(super) async fn primaries(&self, limit: Duration) -> Result<(Vec<Arc<Node>>, Option<Arc<SlotMap>>)> {
        match &self.servers {
            Servers::One(node) => Ok((vec![Arc::clone(node)], None)),
            Servers::Cluster(cluster) => match timeout_at(deadline(limit), cluster.primaries()).await {
                Ok(primaries) => primaries,
                Err(_) => Err(self.no_answer(limit).before_sending()),
            },
        }
    }

    /// The one server, or all nodes of the cluster.
    pub(super) async fn nodes(&self, limit: Duration) -> Result<Vec<Arc<Node>>> {
        let (primaries, slots) = self.primaries(limit).await?;
        match (&self.servers, slots) {
            (Servers::Cluster(cluster), Some(slots)) => {
                Ok(slots.nodes.iter().map(|address| cluster.node(address)).collect())
            }
            _ => Ok(primaries),
        }
    }

    /// The node of a cluster that owns `key` now; nothing where there is one server.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] or [`ErrorKind::Timeout`].
    pub(super) async fn owner(&self, key: &str) -> Result<Option<Address>> {
        match &self.servers {
            Servers::One(_) => Ok(None),
            Servers::Cluster(cluster) => cluster.owner_now(key).await.map(Some),
        }
    }

    /// A connection of its own to the server that owns `key`, without a limit to how long an answer may take, and what
    /// tells when that server is the master no more.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] or [`ErrorKind::Timeout`]; nothing was sent.
    pub(super) async fn dedicated(&self, key: &str) -> Result<(MultiplexedConnection, Watch)> {
        let deadline = deadline(self.connect_timeout);
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None);
        let connecting = async {
            let address = self.owner(key).await?;
            open(&self.locator, address, &settings, self.connect_timeout).await
        };
        match timeout_at(deadline, connecting).await {
            Ok(connected) => {
                let (connection, address) = connected?;
                Ok((connection, Watch(self.locator.watch(&address))))
            }
            Err(_) => Err(self.no_answer(self.connect_timeout).before_sending()),
        }
    }

    fn no_answer(&self, limit: Duration) -> Error {
        Error::new(ErrorKind::Timeout, format!("redis at {} did not answer within {limit:?}", self.endpoint))
    }
}
