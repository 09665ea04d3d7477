//! A search is a span, whatever comes of it.

use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use dwell_actors::telemetry::{ClockOffset, Collector, CollectorOptions, SinkError, SpanSink, root, semconv};
use dwell_actors::turn_diff::Delta;
use dwell_messages::files::FileKind;
use dwell_messages::{Role, Span, Value};

use super::support::{Counting, delta, edit, shown, turn};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

impl SpanSink for Kept {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend_from_slice(spans);
        Ok(())
    }
}

fn collector() -> (Collector, Kept) {
    let kept = Kept::default();
    let options = CollectorOptions {
        role: Role::Harness,
        keep_recent: false,
        sinks: vec![Box::new(kept.clone())],
    };
    (Collector::start(options).unwrap(), kept)
}

fn number(span: &Span, name: &str) -> Option<i64> {
    match span.attribute(name)? {
        Value::I64(number) => Some(*number),
        _ => None,
    }
}

#[tokio::test]
async fn a_search_is_a_span_of_the_turn_that_says_what_it_found_and_no_path() {
    let files = Counting::with(&[("/secret/.git", FileKind::Directory)]);
    let (collector, kept) = collector();
    let parent = root(true);
    let turn = turn("/secret/app", &files).traced(collector.clone(), parent.clone());
    shown(turn.apply(delta([edit("/secret/app/f")])).await);
    shown(turn.apply(delta([edit("/secret/app/g")])).await);
    collector.flush().await;
    let spans = kept.0.lock().unwrap().clone();
    assert_eq!(spans.len(), 1, "one search, one span: {spans:?}");
    assert_eq!(spans[0].name, semconv::span::TURN_DIFF_ROOT);
    assert_eq!(
        (spans[0].trace_id, spans[0].parent),
        (parent.trace_id.0, parent.span_id.0)
    );
    assert_eq!(number(&spans[0], semconv::REPOSITORY_FOUND), Some(1));
    assert_eq!(number(&spans[0], semconv::REPOSITORY_PROBES), Some(3));
    assert!(!format!("{spans:?}").contains("secret"));
}

#[tokio::test]
async fn a_search_that_is_given_up_is_a_span_that_says_so() {
    let files = Counting::with(&[]);
    files.answers(false);
    let (collector, kept) = collector();
    let turn = turn("/secret/app", &files).traced(collector.clone(), root(true));
    let mut waits = Box::pin(turn.apply(delta([edit("/secret/app/f")])));
    assert!(
        waits
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    drop(turn.apply(Delta::Inexact).await);
    drop(waits.await);
    collector.flush().await;
    let spans = kept.0.lock().unwrap().clone();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].error.as_deref(), Some(semconv::CANCELLED));
}
