//! What a gateway counts, for whatever recorder of the facade `metrics` the program has installed.

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};

use super::text::Kind;
use super::{Metrics, Told};

/// Records what is counted now: as `messaging.gateway.…`, under the names that `/metrics` has.
pub(crate) fn record(metrics: &Metrics) {
    for Told { name, kind, help, by, samples } in metrics.told() {
        let unit = if name == "sent_bytes" { Unit::Bytes } else { Unit::Count };
        let name = format!("messaging.gateway.{name}");
        match kind {
            Kind::Counter => describe_counter!(name.clone(), unit, help),
            Kind::Gauge => describe_gauge!(name.clone(), unit, help),
        }
        for (value, number) in samples {
            let labels: Vec<_> = by.map(|by| Label::from_static_parts(by, value)).into_iter().collect();
            match kind {
                Kind::Counter => counter!(name.clone(), labels).absolute(number),
                // Counts are far from where a float has holes.
                Kind::Gauge => gauge!(name.clone(), labels).set(number as f64),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    };

    use super::*;

    /// Keeps the last value of each name and label.
    #[derive(Default)]
    struct Book(Arc<Mutex<BTreeMap<String, f64>>>);

    struct Line(String, Arc<Mutex<BTreeMap<String, f64>>>);

    impl Line {
        fn write(&self, value: f64) {
            self.1.lock().unwrap().insert(self.0.clone(), value);
        }
    }

    impl CounterFn for Line {
        fn increment(&self, _: u64) {
            unreachable!("it is told what was counted");
        }

        fn absolute(&self, value: u64) {
            self.write(value as f64);
        }
    }

    impl GaugeFn for Line {
        fn increment(&self, _: f64) {
            unreachable!("it is told what there is");
        }

        fn decrement(&self, _: f64) {
            unreachable!("it is told what there is");
        }

        fn set(&self, value: f64) {
            self.write(value);
        }
    }

    impl Book {
        fn line(&self, key: &Key) -> Arc<Line> {
            let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
            let name = labels.fold(key.name().to_owned(), |name, label| name + &label);
            Arc::new(Line(name, Arc::clone(&self.0)))
        }
    }

    impl Recorder for Book {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.line(key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.line(key))
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn what_is_counted_is_recorded_with_its_labels() {
        let (metrics, book) = (Metrics::default(), Book::default());
        metrics.connections.add(2);
        metrics.deliveries.add(7);
        metrics.rejected.origin.increment();
        metrics::with_local_recorder(&book, || record(&metrics));
        let book = book.0.lock().unwrap();
        for (name, value) in [
            ("messaging.gateway.connections", 2.0),
            ("messaging.gateway.deliveries", 7.0),
            ("messaging.gateway.rejected reason=origin", 1.0),
            ("messaging.gateway.rejected reason=rate", 0.0),
            ("messaging.gateway.slow policy=latest", 0.0),
        ] {
            assert_eq!(book.get(name), Some(&value), "{name} in {book:?}");
        }
    }
}
