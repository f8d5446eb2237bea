//! Traces that go on where a durable message is handled.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use messaging_core::{DeliveryMode, Headers, Messaging, PendingEvent, Subscriber};
use opentelemetry::trace::{TraceContextExt as _, TraceId, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::{Instrument as _, Level};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn queue(test: &TestMessaging, id: &str) -> Subscriber {
    test.subscriber().id(id).delivery(DeliveryMode::Queue)
}

/// The headers that handlers were given, by their channel.
type Given = Arc<Mutex<BTreeMap<String, Headers>>>;

async fn listening(test: &TestMessaging, channel: &str) -> Given {
    let given = Given::default();
    let note = Arc::clone(&given);
    let listen = move |channel: messaging_core::Channel, headers: Headers| {
        note.lock().unwrap().insert(channel.as_str().to_owned(), headers);
        std::future::ready(())
    };
    let _ = queue(test, channel).on(channel, listen).await.unwrap();
    given
}

fn header(given: &Given, channel: &str, name: &str) -> Option<String> {
    given.lock().unwrap()[channel].get(name).map(str::to_owned)
}

#[tokio::test]
async fn a_handler_passes_on_the_trace_of_its_message() {
    let test = start(&[]).await;
    let given = listening(&test, "end.{way}").await;
    let pass_on = async |messaging: Messaging| {
        messaging.publish("end.directly", &1).durable().await.unwrap();
        let own = PARENT.replace("0af7", "ffff");
        messaging.publish("end.own", &1).durable().header("traceparent", own).await.unwrap();
        let pending = PendingEvent::message("end.later", &1).unwrap().to_json().unwrap();
        let task = messaging.clone();
        let spawned = async move { task.publish("end.spawned", &1).durable().await.unwrap() };
        messaging.spawn(spawned).await.unwrap();
        // As a relay does, which is no handler of anything.
        let pending = PendingEvent::from_json(&pending).unwrap();
        tokio::spawn(async move { messaging.publish_pending(vec![pending]).await }).await.unwrap();
    };
    let _ = queue(&test, "pass_on").on("begin", pass_on).await.unwrap();
    let begin = test.publish("begin", &1).durable();
    begin.header("traceparent", PARENT).header("tracestate", "vendor=1").await.unwrap();
    test.settled().await;
    let channels = ["end.directly", "end.spawned"];
    for channel in channels {
        assert_eq!(header(&given, channel, "traceparent").as_deref(), Some(PARENT), "{channel}");
        assert_eq!(header(&given, channel, "tracestate").as_deref(), Some("vendor=1"), "{channel}");
    }
    assert_eq!(header(&given, "end.own", "traceparent").unwrap(), PARENT.replace("0af7", "ffff"));
    assert_eq!(header(&given, "end.own", "tracestate"), None, "it is of the other trace");
    // What has no trace, or none that is valid, gets none.
    for parent in [None, Some("nonsense")] {
        given.lock().unwrap().clear();
        let begin = test.publish("begin", &1).durable();
        let begin = match parent {
            Some(parent) => begin.header("traceparent", parent),
            None => begin,
        };
        begin.await.unwrap();
        test.settled().await;
        assert_eq!(header(&given, "end.directly", "traceparent"), None);
    }
}

/// A channel that is durable by configuration: what is kept for later is durable only there.
#[tokio::test]
async fn what_is_captured_in_a_trace_is_published_in_it() {
    let hour = messaging_core::Retention {
        max_age: Duration::from_secs(3_600),
        ..messaging_core::Retention::DEFAULT
    };
    let test = TestMessaging::with(|builder| {
        builder.handlers(Handlers::none()).state(Replica::default()).durable("end.*", hour)
    });
    let test = test.await.unwrap();
    let given = listening(&test, "end.*").await;
    let kept = Arc::<Mutex<String>>::default();
    let keep = Arc::clone(&kept);
    let capture = move || {
        *keep.lock().unwrap() = PendingEvent::message("end.later", &1).unwrap().to_json().unwrap();
        std::future::ready(())
    };
    let _ = queue(&test, "capture").on("begin", capture).await.unwrap();
    test.publish("begin", &1).durable().header("traceparent", PARENT).await.unwrap();
    test.settled().await;
    let pending = PendingEvent::from_json(&kept.lock().unwrap()).unwrap();
    test.publish_pending(vec![pending]).await.remove(0).unwrap();
    test.settled().await;
    assert_eq!(header(&given, "end.later", "traceparent").as_deref(), Some(PARENT));
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

thread_local! {
    /// Whether the test of this thread wants spans below INFO.
    static DETAILS: Cell<bool> = const { Cell::new(false) };
}

/// The spans of all tests, of which each looks at its own trace. One subscriber for all of them: what `tracing` remembers
/// of subscribers that come and go is not of one thread.
fn subscribed() -> Spans {
    static SPANS: OnceLock<(Spans, SdkTracerProvider)> = OnceLock::new();
    let (spans, _) = SPANS.get_or_init(|| {
        let spans = Spans::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
        let wanted = dynamic_filter_fn(|metadata, _| {
            let below = if DETAILS.get() { Level::DEBUG } else { Level::INFO };
            *metadata.level() <= below
        });
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test")).with_filter(wanted);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
        (spans, provider)
    });
    spans.clone()
}

impl Spans {
    fn of(&self, trace: TraceId, name: &str) -> Vec<SpanData> {
        let all = self.0.lock().unwrap();
        let ours = all.iter().filter(|span| span.span_context.trace_id() == trace && span.name == name);
        ours.cloned().collect()
    }
}

/// What was published and done within a span: the span, once everything has been handled.
async fn request(test: &TestMessaging, spans: &Spans, work: impl Future) -> SpanData {
    let span = tracing::info_span!("request");
    let trace = span.context().span().span_context().trace_id();
    work.instrument(span).await;
    test.settled().await;
    spans.of(trace, "request").remove(0)
}

#[tokio::test]
async fn the_span_of_a_handler_is_a_child_of_that_which_published() {
    let spans = subscribed();
    DETAILS.set(true);
    let test = start(&[]).await;
    let given = listening(&test, "end").await;
    let pass_on = async |messaging: Messaging| {
        messaging.publish("end", &1).durable().await.unwrap();
    };
    let _ = queue(&test, "pass_on").on("begin", pass_on).await.unwrap();
    let work = async {
        test.publish("begin", &1).durable().await.unwrap();
        test.scope(price("tea")).await.unwrap();
    };
    let request = request(&test, &spans, work).await;
    let trace = request.span_context.trace_id();
    let delivered = spans.of(trace, "deliver");
    let handler = |id: &str| {
        let is_of = |span: &&SpanData| {
            span.attributes.iter().any(|tag| tag.key.as_str() == "handler" && tag.value.as_str() == id)
        };
        delivered.iter().find(is_of).unwrap_or_else(|| panic!("{id}: {delivered:#?}"))
    };
    let (first, second) = (handler("pass_on"), handler("end"));
    assert_eq!(first.parent_span_id, request.span_context.span_id());
    assert!(first.parent_span_is_remote);
    assert_eq!(second.parent_span_id, first.span_context.span_id(), "it goes on from handler to handler");
    // The header names the span that published.
    let parent = header(&given, "end", "traceparent").unwrap();
    assert_eq!(parent, format!("00-{trace}-{}-01", first.span_context.span_id()));
    let below = |name: &str| spans.of(trace, name).iter().map(|span| span.parent_span_id).collect::<Vec<_>>();
    let expected = [request.span_context.span_id(), first.span_context.span_id()];
    assert_eq!(below("publish"), expected);
    assert_eq!(below("load"), expected[..1]);
}

/// Where nobody wants details there are no spans of ours, and the trace is that of the program's own.
#[tokio::test]
async fn spans_are_quiet_by_default() {
    let spans = subscribed();
    let test = start(&[]).await;
    let given = listening(&test, "end").await;
    let work = async {
        test.publish("end", &1).durable().await.unwrap();
        test.scope(price("tea")).await.unwrap();
    };
    let request = request(&test, &spans, work).await;
    let (trace, span) = (request.span_context.trace_id(), request.span_context.span_id());
    assert_eq!(header(&given, "end", "traceparent").unwrap(), format!("00-{trace}-{span}-01"));
    for name in ["publish", "deliver", "load"] {
        assert!(spans.of(trace, name).is_empty(), "{name}");
    }
}
