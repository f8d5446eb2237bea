//! What other services offer: their schemas are fetched, checked and kept. It serves nothing and authorizes nobody.

mod answer;
mod fetch;
mod service;
mod table;

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use messaging_core::{Backoff, ErrorKind, Result};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use answer::Answer;
use fetch::Fetcher;
pub use service::{RemoteEntity, RemoteFilter, RemoteService};

/// How often services are asked for their schema, and how much is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Polling {
    /// The time between two questions, of which up to a tenth is added or left out at random: 30 s.
    pub every: Duration,
    /// The delays after failures, instead: from 1 s to 30 s.
    pub retry: Backoff,
    /// How long an answer may take: 5 s.
    pub timeout: Duration,
    /// The largest schema, in bytes: 1 MiB.
    pub most: NonZeroUsize,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(30),
            retry: Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(30) },
            timeout: Duration::from_secs(5),
            most: NonZeroUsize::new(1 << 20).expect("not zero"),
        }
    }
}

/// The entities of other services, kept up to date for as long as it runs. Cheap to clone.
///
/// What a service says is not trusted: it has to be small JSON of the known protocol, under the service's own name, and
/// an entity whose channels begin with none of its prefixes is refused. The last good answer is kept while a service
/// cannot be reached. An entity that two services declare, or a service and this process, is served of no service.
#[derive(Clone)]
pub struct Discovery(Arc<Inner>);

struct Inner {
    services: Vec<RemoteService>,
    local: BTreeSet<String>,
    polling: Polling,
    fetcher: Fetcher,
    state: Mutex<State>,
    entities: watch::Sender<Arc<Vec<RemoteEntity>>>,
}

#[derive(Default)]
struct State {
    known: Vec<Known>,
    conflicts: Vec<String>,
}

/// What is known of one service.
#[derive(Clone, Default)]
struct Known {
    answer: Answer,
    answered: Option<Instant>,
    asked: bool,
    error: Option<String>,
    failures: u32,
}

impl Discovery {
    /// Begins to ask the services for what they offer, at once. `local` are the entities of this process.
    ///
    /// The tasks are tracked by `tasks` and end when `stop` is cancelled; dropping a `Discovery` does not end them.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if two services have the same name.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, if there are services.
    pub fn start(
        services: impl IntoIterator<Item = RemoteService>,
        local: impl IntoIterator<Item = impl Into<String>>,
        polling: Polling,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let services: Vec<_> = services.into_iter().collect();
        let mut names = BTreeSet::new();
        if let Some(twin) = services.iter().find(|service| !names.insert(service.name())) {
            let text =
                format!("there are two services with the name {:?}; each has one address", twin.name());
            return Err(messaging_core::__private::error(ErrorKind::Configuration, text));
        }
        let this = Self(Arc::new(Inner {
            state: Mutex::new(State { known: vec![Known::default(); services.len()], conflicts: Vec::new() }),
            local: local.into_iter().map(Into::into).collect(),
            fetcher: Fetcher::new(polling.timeout, polling.most),
            polling,
            entities: watch::Sender::new(Arc::default()),
            services,
        }));
        for index in 0..this.0.services.len() {
            let inner = Arc::clone(&this.0);
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(inner.follow(index)).await });
        }
        Ok(this)
    }

    /// The entities that can be served now, sorted by name.
    #[must_use]
    pub fn entities(&self) -> Arc<Vec<RemoteEntity>> {
        Arc::clone(&self.0.entities.borrow())
    }

    /// Tells whenever the [`entities`](Self::entities) have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Vec<RemoteEntity>>> {
        self.0.entities.subscribe()
    }

    /// How the services are, and what is not served.
    #[must_use]
    pub fn health(&self) -> DiscoveryHealth {
        let state = self.0.lock();
        let services = self.0.services.iter().zip(&state.known).map(|(service, known)| DiscoveredService {
            service: service.name().to_owned(),
            is_reached: known.asked && known.error.is_none(),
            last_answer_ms: known
                .answered
                .map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
            last_error: known.error.clone(),
            entities: known.answer.entities.iter().map(|entity| entity.entity.clone()).collect(),
            refused: known.answer.refused.clone(),
        });
        DiscoveryHealth { services: services.collect(), conflicts: state.conflicts.clone() }
    }
}

impl Inner {
    /// Asks one service for ever.
    async fn follow(&self, index: usize) {
        let service = &self.services[index];
        loop {
            let body = self.fetcher.get(service.uri()).await;
            let pause = match body.and_then(|body| answer::read(service, &body)) {
                Ok(answer) => {
                    self.succeeded(index, answer);
                    self.polling.every.mul_f64(0.9 + 0.2 * fastrand::f64())
                }
                Err(error) => self.polling.retry.delay(self.failed(index, error)),
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn succeeded(&self, index: usize, answer: Answer) {
        let service = self.services[index].name();
        let mut state = self.lock();
        let State { known, conflicts } = &mut *state;
        let before = &mut known[index];
        if before.error.is_some() || !before.asked {
            tracing::info!(service, entities = answer.entities.len(), "the schema of a service is known");
        }
        for reason in answer.refused.iter().filter(|reason| !before.answer.refused.contains(reason)) {
            tracing::error!(service, reason, "what a service declares is refused");
        }
        *before = Known { answer, answered: Some(Instant::now()), asked: true, ..Known::default() };
        let table = table::merge(known.iter().flat_map(|known| &known.answer.entities), &self.local);
        for conflict in table.conflicts.iter().filter(|conflict| !conflicts.contains(conflict)) {
            tracing::error!("{conflict}");
        }
        *conflicts = table.conflicts;
        // Under the lock, so that what is sent last is what is known last.
        self.entities.send_if_modified(|entities| {
            let is_new = **entities != table.entities;
            if is_new {
                *entities = Arc::new(table.entities);
            }
            is_new
        });
    }

    /// Notes a failure, and says how many there had been before it, one after the other.
    fn failed(&self, index: usize, error: String) -> u32 {
        let service = self.services[index].name();
        let mut state = self.lock();
        let known = &mut state.known[index];
        if known.error.as_ref() != Some(&error) {
            tracing::warn!(
                service,
                error,
                "the schema of a service could not be fetched; the last one is kept"
            );
        }
        known.asked = true;
        known.error = Some(error);
        known.failures = known.failures.saturating_add(1);
        known.failures - 1
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.0.services.iter().map(RemoteService::name).collect();
        f.debug_struct("Discovery").field("services", &services).finish_non_exhaustive()
    }
}

/// How the services are that a gateway knows, and what of theirs it does not serve.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct DiscoveryHealth {
    /// The services.
    pub services: Vec<DiscoveredService>,
    /// Entities that are declared twice.
    pub conflicts: Vec<String>,
}

/// How one service is.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DiscoveredService {
    /// Its name.
    pub service: String,
    /// Whether it gave a good answer the last time.
    pub is_reached: bool,
    /// How long ago, in milliseconds, it gave a good answer.
    pub last_answer_ms: Option<u64>,
    /// Why it did not, the last time.
    pub last_error: Option<String>,
    /// The entities of its last good answer, as far as they were accepted.
    pub entities: Vec<String>,
    /// What was refused of it.
    pub refused: Vec<String>,
}

impl DiscoveryHealth {
    /// Whether everything that is declared can be served, and all services were reached.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.conflicts.is_empty()
            && self.services.iter().all(|service| service.is_reached && service.refused.is_empty())
    }

    /// What an operator should know.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let of_services = self.services.iter().flat_map(|service| {
            let name = &service.service;
            let error = service.last_error.iter().map(move |error| format!("service `{name}`: {error}"));
            error.chain(service.refused.iter().map(move |reason| format!("service `{name}`: {reason}")))
        });
        of_services.chain(self.conflicts.iter().cloned())
    }
}
