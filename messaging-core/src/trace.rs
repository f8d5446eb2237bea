//! Which trace a message belongs to, and the spans of what is done with it. A trace travels as the W3C says, in the headers
//! of durable messages; with the feature `opentelemetry` it is that of the current span, and the handler's span is its child.

use bytestring::ByteString;
use tracing::Span;
use tracing::level_filters::LevelFilter;

use crate::stream::Headers;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// The place in a trace from which something was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) parent: ByteString,
    pub(crate) state: Option<ByteString>,
}

tokio::task_local! {
    /// The trace of the message that is being handled.
    static HANDLED: Option<Trace>;
}

/// Runs a future for a message of this trace: what it publishes belongs to the trace too.
pub(crate) async fn within<F: Future>(trace: Option<Trace>, future: F) -> F::Output {
    HANDLED.scope(trace, future).await
}

impl Trace {
    /// That of the current span, if it has one; or else that of the message that is being handled.
    pub(crate) fn current() -> Option<Self> {
        #[cfg(feature = "opentelemetry")]
        if let Some(trace) = otel::current() {
            return Some(trace);
        }
        Self::handled()
    }

    /// That of the message that is being handled.
    pub(crate) fn handled() -> Option<Self> {
        HANDLED.try_with(Option::clone).ok().flatten()
    }

    /// That of a message; `None` if its headers name none that is valid.
    pub(crate) fn of(headers: &Headers) -> Option<Self> {
        let value = |name: &str| headers.0.iter().find(|(header, _)| header == name).map(|(_, value)| value);
        let parent = value(PARENT).filter(|parent| is_valid(parent))?;
        Some(Self { parent: parent.clone(), state: value(STATE).cloned() })
    }

    /// Adds the headers that name it, unless there are such.
    pub(crate) fn add_to(self, headers: &mut Vec<(String, String)>) {
        if headers.iter().any(|(name, _)| name == PARENT || name == STATE) {
            return;
        }
        headers.push((PARENT.to_owned(), self.parent.to_string()));
        headers.extend(self.state.map(|state| (STATE.to_owned(), state.to_string())));
    }
}

/// Whether it is what <https://www.w3.org/TR/trace-context/#traceparent-header> says: a version that we can read, and ids
/// that are not zero.
fn is_valid(parent: &str) -> bool {
    let mut parts = parent.split('-');
    let mut hex = |length: usize| {
        let digits = |part: &&str| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        parts.next().filter(digits)
    };
    let (version, trace, span, flags) = (hex(2), hex(32), hex(16), hex(2));
    let is_some_id = |id: Option<&str>| id.is_some_and(|id| id.bytes().any(|byte| byte != b'0'));
    let is_known = version == Some("00") && parts.next().is_none();
    let is_later = version.is_some_and(|version| version != "00" && version != "ff");
    (is_known || is_later) && is_some_id(trace) && is_some_id(span) && flags.is_some()
}

/// The span of publishing messages together.
pub(crate) fn publishing(channel: &str, messages: usize) -> Span {
    tracing::debug_span!(target: "messaging_core::span", "publish", otel.kind = "producer", channel, messages)
}

/// Whether there may be somebody who wants the spans of deliveries.
pub(crate) fn is_wanted() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
}

/// The span of one call of a handler, below that in which its message was published.
pub(crate) fn delivering(handler: &str, channel: &str, attempt: u32, trace: Option<&Trace>) -> Span {
    if !is_wanted() {
        return Span::none();
    }
    let span = tracing::debug_span!(
        target: "messaging_core::span", "deliver", otel.kind = "consumer", handler, channel, attempt
    );
    #[cfg(feature = "opentelemetry")]
    if let Some(trace) = trace.filter(|_| !span.is_disabled()) {
        otel::set_parent(&span, trace);
    }
    #[cfg(not(feature = "opentelemetry"))]
    let _ = trace;
    span
}

/// The span of a call of the function behind the cache.
pub(crate) fn loading(function: &str) -> Span {
    tracing::debug_span!(target: "messaging_core::span", "load", function)
}

#[cfg(feature = "opentelemetry")]
mod otel {
    use std::str::FromStr as _;

    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    use super::Trace;

    pub(super) fn current() -> Option<Trace> {
        let of_span = Span::current().context();
        // Who traces without `tracing` has a context of the thread.
        let of_thread = || of(opentelemetry::Context::current().span().span_context());
        of(of_span.span().span_context()).or_else(of_thread)
    }

    fn of(span: &SpanContext) -> Option<Trace> {
        let (trace, id, flags) = (span.trace_id(), span.span_id(), span.trace_flags().to_u8());
        let state = span.trace_state().header();
        span.is_valid().then(|| Trace {
            parent: format!("00-{trace}-{id}-{flags:02x}").into(),
            state: (!state.is_empty()).then(|| state.into()),
        })
    }

    pub(super) fn set_parent(span: &Span, trace: &Trace) {
        let mut parts = trace.parent.split('-').skip(1);
        let (Some(id), Some(parent), Some(flags)) = (parts.next(), parts.next(), parts.next()) else {
            return;
        };
        let (Ok(id), Ok(parent), Ok(flags)) =
            (TraceId::from_hex(id), SpanId::from_hex(parent), u8::from_str_radix(flags, 16))
        else {
            return;
        };
        let state = trace.state.as_deref().and_then(|state| TraceState::from_str(state).ok());
        let context = SpanContext::new(id, parent, TraceFlags::new(flags), true, state.unwrap_or_default());
        // A program without a layer for OpenTelemetry has nothing to put it into.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_a_trace_is_one() {
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (parent, is_one) in [
            (format!("00-{TRACE}"), true),
            (format!("cc-{TRACE}-what-comes-later"), true),
            (format!("00-{TRACE}-x"), false),
            (format!("ff-{TRACE}"), false),
            (format!("00-{}", TRACE.to_uppercase()), false),
            (format!("00-{:032}-b7ad6b7169203331-01", 0), false),
            ("00".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_valid(&parent), is_one, "{parent}");
        }
    }
}
