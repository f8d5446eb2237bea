//! A transaction whose changes are published when they are committed.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use messaging_core::{Error, ErrorKind, Messaging, Model, Op, PendingEvent, Result, ToChannel, Updated};
use serde::Serialize;
use sqlx::{Connection, Pool, SqlSafeStr as _, Transaction};

use crate::database::{self, Database};
use crate::error::{of_database, storage};
use crate::filter::{Filter, Listing, Set};
use crate::model::SqlModel;
use crate::rows::{self, Lock};
use crate::shared::{self, Shared, Turn};
use crate::{outbox, published};

/// A transaction that publishes what it has changed, after its commit.
///
/// Each change runs its SQL and captures its event at once: what is done to the model afterwards does not show in it. The
/// events are published in the order of the changes, when the commit has succeeded, by a task that goes on if the caller
/// goes away. Rolling back, dropping, panicking and a commit that fails publish nothing.
///
/// Without an [outbox](Self::with_outbox) an event is lost when the process dies, or Redis is away, between the commit and
/// the publish: it is logged and counted ([`Health::lost_events`](messaging_core::Health)), and the change stays.
///
/// # Errors
/// After an operation that failed, or whose future was dropped before its end, it cannot be committed: nobody knows whether
/// the change was made without its event.
///
/// On SQLite it is the database's one writer from beginning to end: units of work of a process take turns, in the order in
/// which they were begun.
pub struct UnitOfWork<'c, DB: Database> {
    link: Link<'c, DB>,
    messaging: Messaging,
    events: Vec<PendingEvent>,
    is_outbox: bool,
    shared: Option<Arc<Shared>>,
    /// What keeps it from being committed.
    state: State,
}

enum Link<'c, DB: Database> {
    /// With the turn to write.
    Own(Transaction<'static, DB>, Turn),
    Given(Transaction<'c, DB>),
}

/// Whether what was done is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sound,
    /// An operation has not come to its end.
    Busy,
    Failed,
}

impl<DB: Database> UnitOfWork<'static, DB> {
    /// Begins a transaction.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](messaging_core::ErrorKind::Timeout) if the pool has no connection, or on SQLite if others
    /// have kept the writer, for the pool's `acquire_timeout`;
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage).
    ///
    /// # Cancellation
    /// Nothing is begun.
    pub async fn begin(pool: &Pool<DB>, messaging: &Messaging) -> Result<Self> {
        let shared = shared::of(pool);
        let (transaction, turn) = shared.begin(pool).await?;
        Ok(Self::new(Link::Own(transaction, turn), messaging, Some(shared)))
    }

    /// Begins one, lets `work` use it, and commits it if that succeeds: `UnitOfWork::run(&pool, &messaging, |work|
    /// Box::pin(async move { work.create(&order).await })).await?`.
    ///
    /// # Errors
    /// What `work` returns, and then nothing has changed; or what [`commit`](Self::commit) does.
    pub async fn run<T, E: From<Error>>(
        pool: &Pool<DB>,
        messaging: &Messaging,
        work: impl for<'w> FnOnce(&'w mut Self) -> BoxFuture<'w, Result<T, E>>,
    ) -> Result<T, E> {
        let mut unit = Self::begin(pool, messaging).await?;
        let done = work(&mut unit).await?;
        unit.commit().await?;
        Ok(done)
    }
}

impl<'c, DB: Database> UnitOfWork<'c, DB> {
    /// Takes over a transaction that somebody has begun: it is committed here. One within another, a savepoint, wants
    /// an [outbox](Self::with_outbox): without one its events go out when its own end is reached, though the whole may
    /// still be rolled back.
    pub fn of_transaction(transaction: Transaction<'c, DB>, messaging: &Messaging) -> Self {
        Self::new(Link::Given(transaction), messaging, None)
    }

    /// Begins a transaction on a connection.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage), also if one is open there.
    pub async fn on_connection<C: Connection<Database = DB>>(
        connection: &'c mut C,
        messaging: &Messaging,
    ) -> Result<Self> {
        let statement = database::begin_statement::<DB>().into_sql_str();
        let begun = connection.begin_with(statement).await;
        let transaction = begun.map_err(|error| of_database::<DB>("begin a transaction", error))?;
        Ok(Self::of_transaction(transaction, messaging))
    }

    fn new(link: Link<'c, DB>, messaging: &Messaging, shared: Option<Arc<Shared>>) -> Self {
        let messaging = messaging.clone();
        Self { link, messaging, events: Vec::new(), is_outbox: false, shared, state: State::Sound }
    }

    /// Writes the events to the [outbox](crate::OutboxRelay), in the same transaction, instead of publishing them: a relay
    /// does that, as often as it takes. The table has to be there: [`migrate`](crate::migrate).
    #[must_use]
    pub fn with_outbox(mut self) -> Self {
        self.use_outbox();
        self
    }

    /// The same, within [`run`](Self::run).
    pub fn use_outbox(&mut self) {
        self.is_outbox = true;
    }

    /// The connection, for queries of your own. What they change is committed too, and publishes nothing by itself: see
    /// [`capture`](Self::capture).
    pub fn connection(&mut self) -> &mut DB::Connection {
        match &mut self.link {
            Link::Own(transaction, _) => transaction,
            Link::Given(transaction) => transaction,
        }
    }

    /// Inserts a model, and returns it as it was stored, with what the database has filled in.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](messaging_core::ErrorKind::Conflict) if there is one with its key, or another unique value
    /// of it, already; [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage); the source is sqlx's error.
    pub async fn create<M: SqlModel<DB>>(&mut self, model: &M) -> Result<M> {
        let step = self.begin_step();
        let done = async {
            let stored = rows::insert(self.connection(), model).await?;
            self.note(PendingEvent::capture(Op::Create, &stored)?);
            Ok(stored)
        };
        let done = done.await;
        self.end_step(step, done)
    }

    /// Inserts models, in few statements, and returns them in their order.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn create_many<M: SqlModel<DB>>(&mut self, models: &[M]) -> Result<Vec<M>> {
        let step = self.begin_step();
        let done = async {
            let stored = rows::insert_many(self.connection(), models).await?;
            for model in &stored {
                self.note(PendingEvent::capture(Op::Create, model)?);
            }
            Ok(stored)
        };
        let done = done.await;
        self.end_step(step, done)
    }

    /// Updates the row of a model, and returns it as it is stored now; `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](messaging_core::ErrorKind::Conflict) if the model has a version and the row another;
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage).
    pub async fn update<M: SqlModel<DB>>(&mut self, model: &M) -> Result<Option<M>> {
        let step = self.begin_step();
        let done = async {
            let Some(updated) = rows::update(self.connection(), model).await? else { return Ok(None) };
            self.note_update(&updated)?;
            Ok(Some(updated.after))
        };
        let done = done.await;
        self.end_step(step, done)
    }

    /// Sets fields of all rows that match, and returns those as they are now: each has an event of its own.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage), also for a field that the model has not, or a value of
    /// another type.
    pub async fn update_where<M: SqlModel<DB>>(
        &mut self,
        filter: Filter<DB>,
        set: Set<DB>,
    ) -> Result<Vec<M>> {
        let step = self.begin_step();
        let done = async {
            let updated: Vec<Updated<M>> = rows::update_where(self.connection(), filter, set).await?;
            updated.iter().try_for_each(|updated| self.note_update(updated))?;
            Ok(updated.into_iter().map(|updated| updated.after).collect())
        };
        let done = done.await;
        self.end_step(step, done)
    }

    /// Deletes the row of a model, and returns it as it was; `None` if there was none.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn delete<M: SqlModel<DB>>(&mut self, model: &M) -> Result<Option<M>> {
        let step = self.begin_step();
        let done = async {
            let deleted = rows::delete(self.connection(), model).await?;
            self.note_deletions(deleted.as_slice())?;
            Ok(deleted)
        };
        let done = done.await;
        self.end_step(step, done)
    }

    /// Deletes the row with this key, whatever its version.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage).
    pub async fn delete_key<M: SqlModel<DB>>(&mut self, key: &M::Key) -> Result<Option<M>> {
        let step = self.begin_step();
        let done = async {
            let deleted = rows::delete_key::<DB, M>(self.connection(), key).await?;
            self.note_deletions(deleted.as_slice())?;
            Ok(deleted)
        };
        let done = done.await;
        self.end_step(step, done)
    }

    /// Deletes all rows that match, and returns them: each has an event of its own.
    ///
    /// # Errors
    /// As [`update_where`](Self::update_where).
    pub async fn delete_where<M: SqlModel<DB>>(&mut self, filter: Filter<DB>) -> Result<Vec<M>> {
        let step = self.begin_step();
        let done = async {
            let deleted: Vec<M> = rows::delete_where(self.connection(), filter).await?;
            self.note_deletions(&deleted)?;
            Ok(deleted)
        };
        let done = done.await;
        self.end_step(step, done)
    }

    /// Reads the row with this key.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage).
    pub async fn get<M: SqlModel<DB>>(&mut self, key: &M::Key) -> Result<Option<M>> {
        rows::get(self.connection(), key, Lock::None).await
    }

    /// Reads the row with this key, and lets nobody else change it until this ends.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage).
    pub async fn get_for_update<M: SqlModel<DB>>(&mut self, key: &M::Key) -> Result<Option<M>> {
        rows::get(self.connection(), key, Lock::ForUpdate).await
    }

    /// Reads rows.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage), also for a field that the model has not, or a value of
    /// another type.
    pub async fn list<M: SqlModel<DB>>(&mut self, which: impl Into<Listing<DB>>) -> Result<Vec<M>> {
        rows::list(self.connection(), which.into(), Lock::None).await
    }

    /// Captures the event of a change that was made in another way: by a query of your own, or by another library. Any
    /// model will do; no SQL is run.
    ///
    /// # Errors
    /// As [`Messaging::emit`], as far as nothing is sent.
    pub fn capture<M: Model>(&mut self, op: Op, model: &M) -> Result<()> {
        let event = PendingEvent::capture(op, model).inspect_err(|_| self.state = State::Failed)?;
        self.note(event);
        Ok(())
    }

    /// Captures the update event of a model with what it was before.
    ///
    /// # Errors
    /// As [`capture`](Self::capture).
    pub fn capture_changed<M: Model>(&mut self, old: &M, new: &M) -> Result<()> {
        let event = PendingEvent::capture_changed(old, new).inspect_err(|_| self.state = State::Failed)?;
        self.note(event);
        Ok(())
    }

    /// Captures a message of any kind, to be published with the events.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidChannel`](messaging_core::ErrorKind::InvalidChannel),
    /// [`ErrorKind::Encode`](messaging_core::ErrorKind::Encode).
    pub fn publish<C: ToChannel + ?Sized, T: Serialize + ?Sized>(
        &mut self,
        channel: &C,
        payload: &T,
    ) -> Result<()> {
        let event = PendingEvent::message(channel, payload).inspect_err(|_| self.state = State::Failed)?;
        self.note(Some(event));
        Ok(())
    }

    /// What has been captured so far, in order.
    #[must_use]
    pub fn events(&self) -> &[PendingEvent] {
        &self.events
    }

    fn note(&mut self, event: Option<PendingEvent>) {
        self.events.extend(event);
    }

    fn note_update<M: Model>(&mut self, updated: &Updated<M>) -> Result<()> {
        let Updated { before, after } = updated;
        self.note(match before {
            Some(before) => PendingEvent::capture_changed(before, after)?,
            None => PendingEvent::capture(Op::Update, after)?,
        });
        Ok(())
    }

    fn note_deletions<M: Model>(&mut self, deleted: &[M]) -> Result<()> {
        deleted.iter().try_for_each(|model| {
            self.note(PendingEvent::capture(Op::Delete, model)?);
            Ok(())
        })
    }

    /// Something is done of which it has to be known whether it was: returns how it was before.
    fn begin_step(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Busy)
    }

    fn end_step<T>(&mut self, before: State, done: Result<T>) -> Result<T> {
        self.state = if done.is_ok() { before } else { State::Failed };
        done
    }

    /// Commits, and then publishes what was captured. It returns when both are done; a publish that fails is logged and
    /// counted, and is no error.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage): an operation failed before, the events could not be
    /// written to the outbox, or the database refused the commit; in all of these nothing has changed. If the
    /// connection broke, it may have: then nothing is published, unless there is an outbox, which knows.
    /// [`ErrorKind::Closed`](messaging_core::ErrorKind::Closed) after shutting down, if there is none.
    ///
    /// # Cancellation
    /// It goes on to its end, in a task that shutting down waits for. One that was begun on a connection or transaction of
    /// the caller's is rolled back, if it had not been committed.
    pub async fn commit(self) -> Result<()> {
        let Self { link, messaging, events, is_outbox, shared, state } = self;
        if state != State::Sound {
            let reason = if state == State::Busy { "was dropped before its end" } else { "failed" };
            let text = format!("nothing is committed: an operation of this unit of work {reason} before");
            return Err(storage(text));
        }
        if !is_outbox && messaging.is_closed() {
            let text =
                "messaging has been shut down; nothing is committed, because it could not be published";
            return Err(messaging_core::__private::error(ErrorKind::Closed, text.to_owned()));
        }
        let finish = Finish { messaging: messaging.clone(), events, is_outbox, shared };
        match link {
            Link::Given(transaction) => {
                let finish = finish.commit(transaction).await?;
                let lost = if is_outbox { 0 } else { finish.events.len() as u64 };
                // From here on without the caller.
                if messaging.to_the_end(Box::pin(finish.publish())).await.is_err() {
                    // It was shut down during the commit.
                    published::note_lost(&messaging, lost);
                }
                Ok(())
            }
            Link::Own(transaction, turn) => {
                let work = async move {
                    let finish = finish.commit(transaction).await?;
                    drop(turn);
                    finish.publish().await;
                    Ok(())
                };
                if is_outbox && messaging.is_closed() {
                    // The relay of another process publishes it.
                    let task = tokio::spawn(work);
                    return task.await.unwrap_or_else(|_| Err(storage("the commit was cut off".to_owned())));
                }
                messaging.to_the_end(Box::pin(work)).await?
            }
        }
    }

    /// Undoes everything. Dropping does so too, a little later.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](messaging_core::ErrorKind::Storage) if the connection broke; then the database undoes it.
    pub async fn rollback(self) -> Result<()> {
        let rolled_back = match self.link {
            Link::Own(transaction, _turn) => transaction.rollback().await,
            Link::Given(transaction) => transaction.rollback().await,
        };
        rolled_back.map_err(|error| of_database::<DB>("roll back", error))
    }
}

/// What is left to do of a unit of work.
struct Finish {
    messaging: Messaging,
    events: Vec<PendingEvent>,
    is_outbox: bool,
    shared: Option<Arc<Shared>>,
}

impl Finish {
    async fn commit<DB: Database>(self, mut transaction: Transaction<'_, DB>) -> Result<Self> {
        if self.is_outbox {
            // After all statements on the rows: whoever else changes one of them waits until this is committed, so that his
            // events come after these.
            outbox::write::<DB>(&mut transaction, &self.events).await?;
        }
        let committed = database::commit(transaction).await;
        committed.map_err(|error| of_database::<DB>("commit", error))?;
        Ok(self)
    }

    fn publish(self) -> impl Future<Output = ()> + Send + 'static {
        let Self { messaging, events, is_outbox, shared } = self;
        async move {
            if events.is_empty() {
                return;
            }
            if is_outbox {
                if let Some(shared) = shared {
                    shared.written.notify_one();
                }
                return;
            }
            published::after_commit(&messaging, events).await;
        }
    }
}

impl<DB: Database> fmt::Debug for UnitOfWork<'_, DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnitOfWork")
            .field("events", &self.events.len())
            .field("is_outbox", &self.is_outbox)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
