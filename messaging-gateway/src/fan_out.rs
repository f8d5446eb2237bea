//! The way of one event to its queues, without sockets: for the benchmark of filters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Transport};
use crate::descriptor::SlowPolicy;
use crate::filter::{Filter, Scalar, Term};
use crate::hub::Topic;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::payload::Payload;
use crate::protocol::Protocol;

/// A channel with subscriptions that are spread over filters of one field.
#[doc(hidden)]
#[derive(Debug)]
pub struct FanOut {
    topic: Topic,
    connections: Vec<Arc<Connection>>,
    metrics: Arc<Metrics>,
    filters: u64,
}

impl FanOut {
    /// So many subscriptions, each with one of so many filters of the field `camera_id`.
    #[must_use]
    pub fn new(subscriptions: u64, filters: u64) -> Self {
        let metrics = Arc::<Metrics>::default();
        let topic = Topic::broadcast("bench".into(), Arc::clone(&metrics));
        let (limits, path) = (Limits::default(), Arc::<str>::from("camera_id"));
        let connect = |number: u64| {
            let connection =
                Arc::new(Connection::new(number, Transport::WebSocket(Protocol::Native), &limits));
            let value = Scalar::of(&(number % filters).into()).into_iter().collect();
            let filter = Filter::new(vec![Term::new(Arc::clone(&path), value)]);
            topic.add(Arc::clone(&connection), filter, SlowPolicy::Disconnect);
            connection
        };
        let connections = (0..subscriptions).map(connect).collect();
        Self { topic, connections, metrics, filters }
    }

    /// Tells an event that passes one of the filters, and says how long that took. What it has put into queues is taken out
    /// again.
    ///
    /// # Panics
    /// If it did not reach whom it should.
    pub fn tell(&self, number: u64, payload: &[u8]) -> Duration {
        let before = self.metrics.deliveries.read();
        let begun = Instant::now();
        let payload =
            Payload::check(payload.to_vec().into(), usize::MAX).expect("a benchmark's payload is JSON");
        self.topic.tell_one(payload);
        let took = begun.elapsed();
        let mut batch = Vec::new();
        let place = number % self.filters;
        let places = (place..).step_by(usize::try_from(self.filters).expect("filters are few"));
        let reached = places.map_while(|place| self.connections.get(usize::try_from(place).ok()?));
        for connection in reached {
            connection.outbox.take(&mut batch, usize::MAX);
        }
        let delivered = self.metrics.deliveries.read() - before;
        // Each has one item, of this event alone.
        assert!(
            delivered > 0 && delivered == batch.len() as u64,
            "{delivered} delivered, {} there",
            batch.len()
        );
        took
    }
}
