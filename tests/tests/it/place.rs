//! Where a test runs: in memory or on a real Redis, apart from all other tests by prefixes of its own.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use messaging_core::{Builder, Config, Handlers, Messaging, Running};
use messaging_tests::{shared_cluster, shared_redis, shared_sentinel, unique};
use tokio::sync::Notify;

/// No test waits longer for anything; it is long because machines are slow, not because anything should take it.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Place {
    pub config: Config,
}

impl Place {
    pub fn memory() -> Self {
        Self::at(&format!("memory://{}", unique("bus")))
    }

    pub fn redis() -> Self {
        Self::at(&shared_redis().url())
    }

    pub fn sentinel() -> Self {
        Self::at(&shared_sentinel().url())
    }

    pub fn cluster() -> Self {
        Self::at(&shared_cluster().url())
    }

    pub fn at(url: &str) -> Self {
        let mut config = Config::new(url).expect("a test's URL is valid");
        config.channel_prefix = format!("{}.", unique("ch"));
        config.cache_prefix = unique("cache");
        config.namespace = unique("ns");
        // A machine that is busy with other tests must not look like a slow Redis.
        config.cache_timeout = Duration::from_secs(5);
        config.cache_lag = Duration::from_secs(5);
        config.command_timeout = Duration::from_secs(10);
        // Nor like a process that has died.
        config.reclaim = Duration::from_secs(15);
        config.drain_timeout = Duration::from_secs(60);
        Self { config }
    }

    /// Compares a number of receivers. On a cluster a node counts only its own, and publisher and subscriber may be on two.
    #[track_caller]
    pub fn counts(&self, receivers: u64, expected: u64) {
        if !self.config.endpoint.to_string().starts_with("redis+cluster") {
            assert_eq!(receivers, expected);
        }
    }

    pub fn builder(&self) -> Builder {
        Messaging::builder().config(self.config.clone()).handlers(Handlers::none())
    }

    /// Without handlers.
    pub async fn messaging(&self) -> Messaging {
        self.builder().build().await.expect("it builds")
    }

    /// With one registered handler, and what it tells.
    pub async fn with_handler(&self, id: &str) -> (Running, Probe) {
        let probe = Probe::default();
        let builder = self.builder().handlers(Handlers::only([id])).state(probe.clone());
        let messaging = builder.build().await.expect("it builds");
        (messaging.start().await.expect("it starts"), probe)
    }
}

/// Collects what handlers tell.
#[derive(Clone, Default)]
pub struct Probe(Arc<Shared>);

#[derive(Default)]
struct Shared {
    told: Mutex<Vec<String>>,
    more: Notify,
}

impl Probe {
    pub fn tell(&self, what: impl Debug) {
        self.0.told.lock().unwrap().push(format!("{what:?}"));
        self.0.more.notify_waiters();
    }

    pub fn told(&self) -> Vec<String> {
        self.0.told.lock().unwrap().clone()
    }

    /// Waits until so much has been told, and returns it.
    pub async fn wait_for(&self, count: usize) -> Vec<String> {
        let enough = async {
            loop {
                let more = self.0.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                let told = self.told();
                if told.len() >= count {
                    return told;
                }
                more.await;
            }
        };
        let told = tokio::time::timeout(PATIENCE, enough).await;
        told.unwrap_or_else(|_| panic!("waited for {count}, was told {:?}", self.told()))
    }
}

/// Waits for what must not take for ever.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it should have happened by now")
}

/// Makes a test of each function for each backend.
macro_rules! on_each_backend {
    ($($name:ident)*) => {
        $crate::place::on_backend! { memory $($name)* }
        $crate::place::on_backend! { redis $($name)* }
        $crate::place::on_backend! { sentinel $($name)* }
        $crate::place::on_backend! { cluster $($name)* }
    };
}

/// The same for the backend of this name.
macro_rules! on_backend {
    ($backend:ident $($name:ident)*) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name($crate::place::Place::$backend()).await;
                }
            )*
        }
    };
}

pub(crate) use {on_backend, on_each_backend};
