//! Where the time of keeping a thread goes, as spans.

use std::sync::{Arc, Mutex};

use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink, root};
use dwell_actors::threads::Append;
use dwell_messages::{Role, Span};

use crate::gated::{Place, bounded, turn};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

impl SpanSink for Kept {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend_from_slice(spans);
        Ok(())
    }
}

impl Kept {
    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }

    fn one(&self, name: &str) -> Span {
        let mut spans = self.named(name);
        assert_eq!(spans.len(), 1, "{name}: {spans:?}");
        spans.remove(0)
    }
}

#[tokio::test]
async fn the_workers_spans_keep_the_trace_of_the_append_that_started_them() {
    let kept = Kept::default();
    let sink = kept.clone();
    let place = Place::with(|builder| builder.sink(sink));
    let thread = place.thread().await;
    let parent = root(true);
    place.gate.block();
    bounded(thread.append(Append::new([turn("1")]).parent(parent.clone())))
        .await
        .unwrap();
    place.gate.begun(1).await;
    place.gate.open();
    let barrier = root(true);
    bounded(thread.flush_traced(barrier.clone())).await.unwrap();
    bounded(thread.shutdown()).await.unwrap();
    bounded(place.threads.flush_traces()).await;
    let append = kept.one("thread append");
    assert_eq!(
        (append.trace_id, append.parent),
        (parent.trace_id.0, parent.span_id.0)
    );
    let observe = kept.one("metadata observe");
    assert_eq!(observe.parent, append.span_id, "a child of the append");
    assert_eq!(kept.one("log append").parent, append.span_id);
    for name in ["log sync", "metadata queue", "metadata apply"] {
        let span = kept.one(name);
        assert_eq!(
            (span.trace_id, span.parent),
            (parent.trace_id.0, observe.span_id),
            "{name}"
        );
    }
    let (queue, apply) = (kept.one("metadata queue"), kept.one("metadata apply"));
    assert!(
        queue.end_unix_ns.abs_diff(apply.start_unix_ns) < 1_000_000,
        "one ends where the other begins"
    );
    assert!(kept.one("metadata queue").start_unix_ns <= kept.one("log sync").start_unix_ns);
    let waited = kept.one("thread barrier");
    assert_eq!(
        (waited.trace_id, waited.parent),
        (barrier.trace_id.0, barrier.span_id.0)
    );
}

#[tokio::test]
async fn an_append_without_a_parent_leaves_no_span() {
    let kept = Kept::default();
    let sink = kept.clone();
    let place = Place::with(|builder| builder.sink(sink));
    let thread = place.thread().await;
    bounded(thread.append_and_flush(turn("1"))).await.unwrap();
    bounded(place.threads.flush_traces()).await;
    assert_eq!(kept.0.lock().unwrap().len(), 0);
}
