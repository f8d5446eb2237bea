//! Publishing what a unit of work has captured, and counting what could not be.

use messaging_core::{Messaging, PendingEvent};

use crate::crash;

/// Publishes events whose changes are committed. What fails is logged and counted: the changes stay.
pub(crate) async fn after_commit(messaging: &Messaging, events: Vec<PendingEvent>) {
    let ids: Vec<_> = events.iter().map(|event| event.id().to_owned()).collect();
    crash::point();
    let outcomes = messaging.publish_pending(events).await;
    crash::point();
    let mut lost = 0_u64;
    for (id, outcome) in ids.iter().zip(outcomes) {
        let Err(error) = outcome else { continue };
        lost += 1;
        tracing::error!(
            event = id,
            error = %messaging_core::__private::chain(&error),
            "a change is committed, but its event could not be published"
        );
    }
    note_lost(messaging, lost);
}

/// Counts events that nobody will hear of.
pub(crate) fn note_lost(messaging: &Messaging, events: u64) {
    if events > 0 {
        metrics::counter!("messaging.sql.lost_events").increment(events);
        messaging.note_lost_events(events);
    }
}
