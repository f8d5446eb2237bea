//! What cached functions read from: rows whose versions only grow, on a server of its own that no fault reaches. It also
//! counts the reads, holds them up when it is told to, and tells processes how far the test has come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use messaging_tests::{RedisServer, eventually};
use redis::Client;
use redis::aio::MultiplexedConnection;

use super::clock;
use crate::stream::plain_connection;

/// A connection to the database.
#[derive(Clone, Debug)]
pub struct Database(MultiplexedConnection);

impl Database {
    pub async fn at(url: &str) -> Self {
        Self(plain_connection(&Client::open(url).unwrap()).await.unwrap())
    }

    pub async fn of(server: &RedisServer) -> Self {
        Self::at(&server.url()).await
    }

    /// The version of a row; 0 is the first.
    pub async fn read(&self, row: &str) -> u64 {
        self.ask::<Option<u64>>("GET", &[&format!("row/{row}")]).await.unwrap_or_default()
    }

    /// Writes rows, all at once, and returns their new versions.
    pub async fn write(&self, rows: &[String]) -> Vec<u64> {
        let mut batch = redis::pipe();
        batch.atomic();
        rows.iter().for_each(|row| _ = batch.incr(format!("row/{row}"), 1));
        batch.query_async(&mut self.0.clone()).await.unwrap()
    }

    /// Writes one row and returns its new version.
    pub async fn write_one(&self, row: &str) -> u64 {
        self.write(&[row.to_owned()]).await[0]
    }

    /// Makes this the version of a row.
    pub async fn is_at(&self, row: &str, version: u64) {
        self.ask::<()>("SET", &[&format!("row/{row}"), &version.to_string()]).await;
    }

    /// How often a row has been loaded by cached functions, in all processes.
    pub async fn loads(&self, row: &str) -> u64 {
        self.ask::<Option<u64>>("GET", &[&format!("loads/{row}")]).await.unwrap_or_default()
    }

    /// From now on loads of this row do not end before [`open`](Self::open).
    pub async fn shut(&self, row: &str) {
        self.ask::<()>("SET", &[&format!("shut/{row}"), "1"]).await;
    }

    pub async fn open(&self, row: &str) {
        self.ask::<()>("DEL", &[&format!("shut/{row}")]).await;
    }

    /// Says something to all processes.
    pub async fn say(&self, name: &str, value: &str) {
        self.ask::<()>("SET", &[&format!("said/{name}"), value]).await;
    }

    pub async fn said(&self, name: &str) -> Option<String> {
        self.ask("GET", &[&format!("said/{name}")]).await
    }

    /// Waits until somebody has said this.
    pub async fn is_said(&self, name: &str, value: &str) {
        eventually(&format!("{name} is {value}"), async || self.said(name).await.as_deref() == Some(value))
            .await;
    }

    /// One more process has come so far.
    pub async fn arrive(&self, at: &str) {
        self.ask::<u64>("INCR", &[&format!("arrived/{at}")]).await;
    }

    pub async fn arrived(&self, at: &str) -> u64 {
        self.ask::<Option<u64>>("GET", &[&format!("arrived/{at}")]).await.unwrap_or_default()
    }

    /// Waits until so many processes have come so far.
    pub async fn have_arrived(&self, at: &str, count: u64) {
        eventually(&format!("{count} are at {at}"), async || self.arrived(at).await >= count).await;
    }

    pub async fn ask<T: redis::FromRedisValue>(&self, command: &str, arguments: &[&str]) -> T {
        redis::cmd(command).arg(arguments).query_async(&mut self.0.clone()).await.unwrap()
    }
}

/// A load that has read its row.
#[derive(Clone, Debug)]
pub struct Load {
    pub row: String,
    pub version: u64,
    pub start: u64,
    pub end: u64,
}

/// Who loads in one process, and what it has loaded.
#[derive(Clone, Debug)]
pub struct Source {
    pub database: Database,
    /// Some loads take this long after they have read, so that others come in between.
    pub slow: fn(u64) -> Duration,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    loads: Vec<Load>,
    begun: u64,
    running: BTreeMap<String, u64>,
    most_at_once: BTreeMap<String, u64>,
}

impl Source {
    pub fn new(database: &Database) -> Self {
        Self { database: database.clone(), slow: |_| Duration::ZERO, notes: Arc::default() }
    }

    /// The function that is cached: reads a row.
    pub async fn load(&self, row: &str) -> u64 {
        // Boxed, because every call of a cached function has room for it.
        Box::pin(self.load_row(row)).await
    }

    async fn load_row(&self, row: &str) -> u64 {
        let running = Running::begin(self, row);
        let start = clock::now();
        let mut batch = redis::pipe();
        batch.atomic().get(format!("row/{row}")).incr(format!("loads/{row}"), 1).ignore();
        let (version,): (Option<u64>,) = batch.query_async(&mut self.database.0.clone()).await.unwrap();
        let version = version.unwrap_or_default();
        let shut = format!("shut/{row}");
        while self.database.ask::<bool>("EXISTS", &[&shut]).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let slow = (self.slow)(running.number);
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        let load = Load { row: row.to_owned(), version, start, end: clock::now() };
        self.notes.lock().unwrap().loads.push(load);
        version
    }

    /// How many loads have begun in this process.
    pub fn begun(&self) -> u64 {
        self.notes.lock().unwrap().begun
    }

    /// How many loads of one row there have been at the same time.
    pub fn most_at_once(&self, row: &str) -> u64 {
        self.notes.lock().unwrap().most_at_once.get(row).copied().unwrap_or_default()
    }

    /// The loads that have ended since this was called last.
    pub fn take(&self) -> Vec<Load> {
        std::mem::take(&mut self.notes.lock().unwrap().loads)
    }
}

/// A load that runs, also if it is dropped.
struct Running<'s> {
    source: &'s Source,
    row: &'s str,
    number: u64,
}

impl<'s> Running<'s> {
    fn begin(source: &'s Source, row: &'s str) -> Self {
        let mut notes = source.notes.lock().unwrap();
        notes.begun += 1;
        let running = notes.running.entry(row.to_owned()).or_default();
        *running += 1;
        let at_once = *running;
        let most = notes.most_at_once.entry(row.to_owned()).or_default();
        *most = at_once.max(*most);
        Self { source, row, number: notes.begun }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut notes = self.source.notes.lock().unwrap();
        *notes.running.get_mut(self.row).expect("it has begun") -= 1;
    }
}
