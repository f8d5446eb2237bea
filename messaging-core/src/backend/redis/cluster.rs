//! Commands on a cluster: to the primary that owns the key, on a connection shared with all other commands for that node.
//! Follows what the nodes say of slots that moved, and resends only what a node has refused.
//!
//! The cluster client of the `redis` crate is not used: it resends what may have been carried out when a connection is
//! lost, and cannot be told to follow redirections alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value, cmd, pipe};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::answers::{describe, first_refusal};
use super::commands::key_of;
use super::node::{Node, Numbered};
use super::slots::{SlotMap, redirection, slot_of};
use super::topology::Locator;
use crate::config::Address;
use crate::error::{Error, ErrorKind, Result};

/// A command that is sent on so often goes in circles.
const MOST_REDIRECTIONS: u32 = 16;
/// How long to wait where a slot is between two nodes, or the cluster between two states.
const BETWEEN: Duration = Duration::from_millis(50);

pub(super) struct Cluster {
    locator: Arc<Locator>,
    connect_timeout: Duration,
    command_timeout: Duration,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    refreshing: Mutex<Option<Refresh>>,
}

impl Cluster {
    pub(super) fn new(locator: &Arc<Locator>, connect_timeout: Duration, command_timeout: Duration) -> Self {
        Self {
            locator: Arc::clone(locator),
            connect_timeout,
            command_timeout,
            nodes: Mutex::default(),
            refreshing: Mutex::default(),
        }
    }

    pub(super) fn node(&self, address: &Address) -> Arc<Node> {
        let mut nodes = self.nodes();
        if let Some(node) = nodes.get(address) {
            return Arc::clone(node);
        }
        // What has left the cluster is not kept.
        if let Some(slots) = self.locator.slots_known() {
            nodes.retain(|address, _| slots.nodes.contains(address));
        }
        let node =
            Node::new(&self.locator, Some(address.clone()), self.connect_timeout, self.command_timeout);
        let node = Arc::new(node);
        nodes.insert(address.clone(), Arc::clone(&node));
        node
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<Address, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner of a slot as it was known last.
    async fn owner(&self, slot: u16) -> Result<Address> {
        let known = self.locator.slots_known().and_then(|slots| slots.owner(slot).cloned());
        match known {
            Some(owner) => Ok(owner),
            None => self.owner_of_slot_now(slot).await,
        }
    }

    pub(super) async fn owner_now(&self, key: &str) -> Result<Address> {
        self.owner_of_slot_now(slot_of(key.as_bytes())).await
    }

    async fn owner_of_slot_now(&self, slot: u16) -> Result<Address> {
        let slots = self.locator.slots().await?;
        slots.owner(slot).cloned().ok_or_else(|| {
            let text = format!("no node of the cluster owns the hash slot {slot} at the moment");
            Error::new(ErrorKind::Connection, text).before_sending()
        })
    }

    pub(super) async fn primaries(&self) -> Result<(Vec<Arc<Node>>, Option<Arc<SlotMap>>)> {
        let slots = self.locator.slots().await?;
        let nodes = slots.primaries().into_iter().map(|address| self.node(address)).collect();
        Ok((nodes, Some(slots)))
    }

    /// Asks for the slot map, while whoever noticed that it is old goes on, or waits: one question at a time, however many
    /// callers want to know, and not without a pause.
    fn refresh(self: &Arc<Self>) -> watch::Receiver<Option<bool>> {
        let mut refreshing = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Refresh { outcome, task }) = &*refreshing
            && !task.is_finished()
        {
            return outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        let locator = Arc::clone(&self.locator);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            // If nobody answers, the next command that fails asks again.
            let found = locator.slots().await.is_ok();
            sender.send_replace(Some(found));
            sleep(BETWEEN).await;
        }));
        *refreshing = Some(Refresh { outcome: outcome.clone(), task });
        outcome
    }
}

/// The slot map is being asked for, or was a moment ago.
struct Refresh {
    outcome: watch::Receiver<Option<bool>>,
    task: AbortOnDropHandle<()>,
}

/// The way to the right node, for one caller.
#[derive(Clone)]
pub(super) struct Routed {
    cluster: Arc<Cluster>,
    trace: Trace,
}

/// What is known of a caller's commands, also when he is gone.
#[derive(Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Traced>>);

#[derive(Default)]
struct Traced {
    /// Something was sent that no node has refused to carry out.
    sent: bool,
    last: Option<(Arc<Node>, Numbered)>,
    /// Only this connection will do.
    only: Option<u64>,
    /// It is gone, or another node has the slot now.
    elsewhere: bool,
    /// Why there was no connection, which says more than the `redis` crate's error that stands for it.
    unreachable: Option<Error>,
}

/// What a node said to a command that it did not carry out.
enum Elsewhere {
    Moved(Option<Address>),
    Ask(Address),
    /// Neither here nor there at the moment.
    Between,
}

impl Routed {
    pub(super) fn new(cluster: &Arc<Cluster>) -> Self {
        Self { cluster: Arc::clone(cluster), trace: Trace::default() }
    }

    /// For a command that must not go to another connection than this.
    pub(super) fn only(cluster: &Arc<Cluster>, only: Option<u64>) -> Self {
        let routed = Self::new(cluster);
        routed.trace.lock().only = only;
        routed
    }

    pub(super) fn trace(&self) -> Trace {
        self.trace.clone()
    }

    pub(super) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let answers = self.send(key_of(command), What::Command(command)).await?;
        Ok(answers.into_iter().next().unwrap_or(Value::Nil))
    }

    pub(super) async fn pipeline(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let key = pipeline.cmd_iter().find_map(key_of);
        self.send(key, What::Pipeline { pipeline, offset, count }).await
    }

    /// Sends to the owner of the key, or to any primary, and on to where the answer says.
    async fn send(&self, key: Option<&[u8]>, what: What<'_>) -> RedisResult<Vec<Value>> {
        let slot = key.map(slot_of);
        let (mut redirected, mut fresh) = (None, false);
        let sent_before = self.trace.lock().sent;
        for _ in 0..MOST_REDIRECTIONS {
            let (address, asking) = match redirected.take() {
                Some(redirected) => redirected,
                None => (self.address(slot).await?, false),
            };
            let node = self.cluster.node(&address);
            let current = match node.connection().await {
                Ok(current) => current,
                // Perhaps it has left, and another has its slots.
                Err(_) if !std::mem::replace(&mut fresh, true) && self.refreshed().await => {
                    self.trace.lock().last = None;
                    continue;
                }
                Err(error) => return Err(self.trace.unreachable(error)),
            };
            {
                let mut traced = self.trace.lock();
                if traced.only.is_some_and(|only| only != current.identity()) {
                    traced.elsewhere = true;
                    return Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into());
                }
                traced.sent = true;
                traced.last = Some((Arc::clone(&node), current.clone()));
            }
            let connection = current.connection.clone();
            let answers = if asking { what.ask_on(connection).await } else { what.send_on(connection).await };
            let error = match answers {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Some(elsewhere) = Elsewhere::of(&error, &address) else {
                node.failed(current.number, &error);
                if error.is_unrecoverable_error() || error.is_connection_dropped() {
                    _ = self.cluster.refresh();
                }
                return Err(error);
            };
            self.trace.lock().sent = sent_before;
            match elsewhere {
                Elsewhere::Ask(to) => redirected = Some((to, true)),
                Elsewhere::Moved(Some(to)) => {
                    _ = self.cluster.refresh();
                    redirected = Some((to, false));
                }
                Elsewhere::Moved(None) | Elsewhere::Between => {
                    _ = self.cluster.refresh();
                    sleep(BETWEEN).await;
                }
            }
        }
        let text = "the cluster sent the command from node to node";
        Err(self.trace.unreachable(Error::new(ErrorKind::Connection, text).before_sending()))
    }

    /// Whether there is a slot map from after the last moment.
    async fn refreshed(&self) -> bool {
        let mut outcome = self.cluster.refresh();
        outcome.wait_for(Option::is_some).await.is_ok_and(|found| *found == Some(true))
    }

    /// Where a command goes: about no key, where the one before it went, so that a script is loaded where it is missing.
    async fn address(&self, slot: Option<u16>) -> RedisResult<Address> {
        let found = match slot {
            Some(slot) => self.cluster.owner(slot).await,
            None => {
                let last = self.trace.lock().last.as_ref().map(|(_, current)| current.address.clone());
                match last {
                    Some(last) => Ok(last),
                    None => self.cluster.locator.locate().await,
                }
            }
        };
        found.map_err(|error| self.trace.unreachable(error))
    }
}

impl Elsewhere {
    fn of(error: &RedisError, asked: &Address) -> Option<Self> {
        let (code, detail) = first_refusal(error);
        match code.as_str() {
            "MOVED" => Some(Self::Moved(redirection(&detail, asked))),
            "ASK" => redirection(&detail, asked).map(Self::Ask),
            "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" => Some(Self::Between),
            _ => None,
        }
    }
}

/// What is sent to a node.
#[derive(Clone, Copy)]
enum What<'c> {
    Command(&'c Cmd),
    Pipeline { pipeline: &'c Pipeline, offset: usize, count: usize },
}

impl What<'_> {
    async fn send_on(self, mut connection: MultiplexedConnection) -> RedisResult<Vec<Value>> {
        match self {
            Self::Command(command) => refused(vec![connection.req_packed_command(command).await?]),
            Self::Pipeline { pipeline, offset, count } => {
                refused(connection.req_packed_commands(pipeline, offset, count).await?)
            }
        }
    }

    /// To a node that is taking over the slot. ASKING is about the command after it, or the whole transaction.
    async fn ask_on(self, mut connection: MultiplexedConnection) -> RedisResult<Vec<Value>> {
        let mut batch = pipe();
        match self {
            Self::Command(command) => {
                batch.add_command(cmd("ASKING")).add_command(command.clone());
                refused(connection.req_packed_commands(&batch, 1, 1).await?)
            }
            Self::Pipeline { pipeline, .. } if pipeline.is_transaction() => {
                batch.add_command(cmd("ASKING")).add_command(cmd("MULTI"));
                pipeline.cmd_iter().for_each(|command| _ = batch.add_command(command.clone()));
                batch.add_command(cmd("EXEC"));
                let before = 2 + pipeline.cmd_iter().count();
                refused(connection.req_packed_commands(&batch, before, 1).await?)
            }
            Self::Pipeline { pipeline, offset, count } => {
                pipeline.cmd_iter().for_each(|command| {
                    batch.add_command(cmd("ASKING")).add_command(command.clone());
                });
                let answers = 2 * pipeline.cmd_iter().count();
                let answers = connection.req_packed_commands(&batch, 0, answers).await?;
                refused(answers.into_iter().skip(1).step_by(2).skip(offset).take(count).collect())
            }
        }
    }
}

/// Answers of which none is an error of the first; the error otherwise. The `redis` crate leaves errors among the answers
/// until they are decoded. An error further on is no reason to send again what has been carried out.
fn refused(answers: Vec<Value>) -> RedisResult<Vec<Value>> {
    match answers.first() {
        Some(Value::ServerError(error)) => Err(error.clone().into()),
        _ => Ok(answers),
    }
}

impl Trace {
    fn lock(&self) -> MutexGuard<'_, Traced> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error of the `redis` crate in place of ours, which [`failed`](Self::failed) gives back.
    fn unreachable(&self, error: Error) -> RedisError {
        self.lock().unreachable = Some(error);
        std::io::Error::from(std::io::ErrorKind::NotConnected).into()
    }

    /// Our error for the caller's.
    pub(super) fn failed(&self, error: RedisError, endpoint: &str) -> Error {
        let mut traced = self.lock();
        match (traced.unreachable.take(), traced.sent) {
            (Some(unreachable), true) => unreachable.maybe_sent(),
            (Some(unreachable), false) => unreachable,
            (None, true) => describe(error, endpoint),
            (None, false) => describe(error, endpoint).before_sending(),
        }
    }

    /// The connection that has answered.
    pub(super) fn served_by(&self) -> u64 {
        self.lock().last.as_ref().map_or(0, |(_, current)| current.identity())
    }

    /// The connection that was wanted is gone, and nothing was sent.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.lock().elsewhere
    }

    /// The caller has no answer within this limit.
    pub(super) fn silent(&self, limit: Duration, error: Error) -> Error {
        let mut traced = self.lock();
        if !traced.sent {
            return error.before_sending();
        }
        if let Some((node, current)) = traced.last.take() {
            node.silent(current, limit);
        }
        error
    }
}
