//! Where the time of a request goes, as spans, and what these never say.

use std::sync::{Arc, Mutex};

use dwell_actors::http_client::HttpAsk;
use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink, root, semconv};
use dwell_messages::{Role, Span, SpanKind, Value};
use dwell_testkit::Origin;

use crate::site::{header, whole};
use crate::support::bounded;
use crate::world::{World, until};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Span>>>);

impl SpanSink for Kept {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend(spans.iter().cloned());
        Ok(())
    }
}

impl Kept {
    fn named(&self, name: &str) -> Vec<Span> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|span| span.name == name).cloned().collect()
    }
}

#[tokio::test]
async fn a_request_is_one_trace_that_names_no_url_header_or_body() {
    let (near, far) = (Kept::default(), Kept::default());
    let (sink, its) = (near.clone(), far.clone());
    let world = World::with(1 << 30, move |builder| builder.sink(its)).await;
    let harness = world
        .harness_with(|builder| builder.sampled(true).sink(sink))
        .await;
    let origin = Origin::start().unwrap();
    let ask = |path: &str| HttpAsk {
        method: "CANARYMETHOD".into(),
        headers: vec![header("x-canary-name", "canary-value", Some("PATH"))],
        body: "canary-body".into(),
        ..HttpAsk::get(origin.url(path))
    };
    let traced = harness.http().parent(root(true));
    whole(traced.request(ask("/echo/canary-path")).await.unwrap()).await;
    // Of many parts, and no more spans.
    whole(traced.request(ask("/large/3000000?canary")).await.unwrap()).await;
    until("the executor's spans", || {
        far.named(semconv::span::HTTP_EXCHANGE).len() == 2
    })
    .await;
    let failed = HttpAsk::get("http://127.0.0.1:1/canary-path");
    traced.request(failed).await.unwrap_err();
    until("that of the failure", || {
        far.named(semconv::span::HTTP_EXCHANGE).len() == 3
    })
    .await;
    bounded("the harness's end", harness.shutdown()).await;
    bounded("the executor's end", world.executor.shutdown()).await;
    let exchanges = far.named(semconv::span::HTTP_EXCHANGE);
    let status: Vec<_> = exchanges
        .iter()
        .map(|span| span.attribute(semconv::HTTP_STATUS).cloned())
        .collect();
    assert_eq!(status, [Some(Value::I64(200)), Some(Value::I64(200)), None]);
    assert_eq!(exchanges[2].error.as_deref(), Some("http_failed"));
    for (kept, kind) in [(&near, SpanKind::Client), (&far, SpanKind::Server)] {
        let mut rpcs = kept.named("Http/Open");
        rpcs.retain(|span| span.kind == kind);
        assert_eq!(rpcs.len(), 3);
        assert_eq!(kept.named("Http/Read").len(), 0, "parts have no spans");
    }
    for kept in [near, far] {
        let all = format!("{:?}", kept.0.lock().unwrap()).to_lowercase();
        assert!(all.contains("http/open"), "the control");
        assert!(!all.contains("canary") && !all.contains("127.0.0.1:1/"), "{all}");
    }
}
