//! What this process knows of the cached functions of all processes: a snapshot of the registry, renewed when a publish
//! shows that it is old.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use super::rules::{Book, Definition, Rules};
use crate::backend::Catalog as Written;
use crate::error::chain;

/// The functions of one generation of the registry, ours included.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// `None`: the registry has not been read.
    pub(super) generation: Option<i64>,
    pub(super) book: Book,
    /// Nothing in the registry was beyond us.
    pub(super) is_complete: bool,
    /// Since when it is known that it must not be read here.
    pub(super) unreadable_since: Option<Instant>,
}

/// How long what an ACL forbids is not asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

impl Snapshot {
    pub(super) fn is_worth_another_try(&self) -> bool {
        self.unreadable_since.is_some_and(|since| since.elapsed() >= ASK_AGAIN)
    }
}

#[derive(Debug)]
pub(super) struct Catalog {
    snapshot: RwLock<Arc<Snapshot>>,
    ours: Vec<Arc<Rules>>,
    /// One reads it at a time.
    pub(super) reading: tokio::sync::Mutex<()>,
}

impl Catalog {
    pub(super) fn new(ours: Vec<Arc<Rules>>) -> Self {
        let book = Book::new(ours.clone());
        let snapshot = Snapshot { generation: None, book, is_complete: false, unreadable_since: None };
        Self { snapshot: RwLock::new(Arc::new(snapshot)), ours, reading: tokio::sync::Mutex::new(()) }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up what the registry is now.
    pub(super) fn renew(&self, written: &Written, channel_prefix: &str) {
        let before = self.snapshot();
        let known: HashMap<String, &Arc<Rules>> =
            before.book.iter().map(|rules| (rules.definition.to_json(), rules)).collect();
        let mut rules = self.ours.clone();
        let mut is_complete = true;
        for text in &written.definitions {
            let compiled = match known.get(text) {
                Some(rules) => Ok(Arc::clone(rules)),
                None => Definition::from_json(text).and_then(Rules::new),
            };
            match compiled {
                Ok(compiled) if !compiled.is_of(channel_prefix) => {}
                Ok(compiled) if rules.iter().any(|rules| rules.name == compiled.name) => {}
                Ok(compiled) => rules.push(compiled),
                Err(error) => {
                    is_complete = false;
                    tracing::warn!(
                        error = %chain(&error),
                        definition = crate::json::shortened(text),
                        "a cached function of another process is not understood; its own processes invalidate it"
                    );
                }
            }
        }
        let generation = Some(written.generation);
        let book = Book::new(rules);
        self.set(Snapshot { generation, book, is_complete, unreadable_since: None });
    }

    /// The registry cannot be read: only our own functions are known.
    pub(super) fn give_up(&self) {
        let book = Book::new(self.ours.clone());
        self.set(Snapshot {
            generation: Some(0),
            book,
            is_complete: false,
            unreadable_since: Some(Instant::now()),
        });
    }

    fn set(&self, snapshot: Snapshot) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}
