//! Where the time of a file request goes, as spans, and what these never say.

use std::sync::{Arc, Mutex};

use dwell_actors::files::WriteOptions;
use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink, root};
use dwell_messages::files::{BLOCK_MAX_BYTES, Links};
use dwell_messages::{Role, Span, SpanKind};

use crate::place::{bytes, content};
use crate::support::bounded;
use crate::world::{World, until};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(Role, Span)>>>);

impl SpanSink for Kept {
    fn export(&mut self, role: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        let spans = spans.iter().map(|span| (role, span.clone()));
        self.0.lock().unwrap().extend(spans);
        Ok(())
    }
}

impl Kept {
    fn all(&self) -> Vec<(Role, Span)> {
        self.0.lock().unwrap().clone()
    }

    fn named(&self, name: &str, kind: SpanKind) -> Vec<Span> {
        let all = self.all().into_iter().map(|(_, span)| span);
        all.filter(|span| span.name == name && span.kind == kind)
            .collect()
    }
}

#[tokio::test]
async fn a_file_request_is_one_trace_and_a_large_file_has_no_more_spans_than_a_small_one() {
    let (near, far) = (Kept::default(), Kept::default());
    let (sink, its) = (near.clone(), far.clone());
    let world = World::with(1 << 30, move |builder| builder.sink(its)).await;
    let harness = world
        .harness_with(|builder| builder.sampled(true).sink(sink))
        .await;
    let dir = tempfile::tempdir().unwrap();
    let path = bytes(&dir.path().join("canary-path"));
    let files = harness.files();
    let secret = b"canary-content".to_vec();
    files
        .write_file(&path, secret, WriteOptions::default())
        .await
        .unwrap();
    assert_eq!(
        near.named("File/Write", SpanKind::Client),
        [],
        "no parent, no trace"
    );
    let parent = root(true);
    let traced = files.parent(parent.clone());
    traced.read_file(&path, 100).await.unwrap();
    traced
        .metadata_of(b"/canary-path", Links::Follow)
        .await
        .unwrap_err();
    // Written in one go, and read in blocks.
    std::fs::write(dir.path().join("canary-path"), content(20 * BLOCK_MAX_BYTES, 1)).unwrap();
    let mut reader = traced.open(&path);
    while bounded("a block", reader.next()).await.unwrap().is_some() {}
    until("the executor's spans are there", || {
        far.named("files work", SpanKind::Internal).len() >= 4
    })
    .await;
    harness.flush_traces().await;

    let client = near.named("File/Read", SpanKind::Client);
    assert_eq!(client.len(), 1);
    assert_eq!(
        (client[0].trace_id, client[0].parent),
        (parent.trace_id.0, parent.span_id.0)
    );
    let server = far.named("File/Read", SpanKind::Server);
    assert_eq!(
        (server[0].trace_id, server[0].parent),
        (client[0].trace_id, client[0].span_id)
    );
    let work = far.named("files work", SpanKind::Internal);
    assert!(
        work.iter().any(|span| span.parent == server[0].span_id),
        "{work:?}"
    );
    assert!(work.iter().all(|span| span.trace_id == parent.trace_id.0));
    // Read, metadata, open, close, and not one of twenty blocks.
    assert_eq!(work.len(), 4);
    assert_eq!(near.named("File/ReadBlock", SpanKind::Client), []);
    let failed = near.named("File/Metadata", SpanKind::Client);
    assert_eq!(failed[0].error.as_deref(), Some("not_found"));
    let said = format!("{:?} {:?}", near.all(), far.all());
    assert!(said.contains("FileService") && !said.contains("canary"), "{said}");
}
