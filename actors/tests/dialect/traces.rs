//! A request's ancestry becomes its spans' own.

use std::path::Path;

use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::trace_file;
use dwell_messages::TraceId;
use serde_json::json;

use crate::client::{Client, options, shell};

/// An executor that writes what it traces here.
async fn traced(dir: &Path) -> ExecutorHandle {
    let builder = Executor::builder().dialect(options().traces(dir)).traces(dir);
    builder.serve().await.unwrap()
}

fn id_of(trace: &str) -> TraceId {
    TraceId(std::array::from_fn(|at| {
        u8::from_str_radix(&trace[2 * at..2 * at + 2], 16).unwrap()
    }))
}

/// As a stock client asks: it says no parent.
#[tokio::test]
async fn a_start_without_a_parent_is_one_trace_from_the_request_to_the_childs_exit() {
    let dir = tempfile::tempdir().unwrap();
    let executor = traced(dir.path()).await;
    let (mut client, _) = Client::begin(&executor).await;
    let mut parents = Vec::new();
    for name in ["p", "q"] {
        let request =
            json!({"id": name, "method": "process/start", "params": shell(name, "echo $TRACEPARENT")});
        client.send(&request).await;
        client.answer(&json!(name)).await.unwrap();
        parents.push(crate::client::written(&client.events(name).await));
    }
    drop(client);
    executor.shutdown().await;
    let mut traces = Vec::new();
    for parent in &parents {
        let fields: Vec<&str> = parent.trim().split('-').collect();
        let [_, trace, process, "01"] = fields[..] else {
            panic!("a sampled traceparent: {parent}");
        };
        let found = trace_file::find_trace(dir.path(), id_of(trace)).unwrap();
        let found = found.expect("the trace was kept");
        let named = |name: &str| {
            let mut spans = found.spans.iter().map(|(_, span)| span);
            spans.find(|span| span.name == name).expect("it has a span")
        };
        let request = named("process/start");
        assert_eq!(request.parent, [0; 8], "it begins the trace");
        assert_eq!(named("call").parent, request.span_id, "the run is below it");
        assert_eq!(named("exit watcher").parent, named("process").span_id);
        let id = named("process").span_id;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(id, process, "the child is below its process");
        traces.push(found.trace_id);
    }
    assert_ne!(traces[0], traces[1], "each command is a trace of its own");
}

#[tokio::test]
async fn a_call_with_a_parent_is_one_trace_from_the_client_to_the_childs_exit() {
    let dir = tempfile::tempdir().unwrap();
    let executor = traced(dir.path()).await;
    let (mut client, _) = Client::begin(&executor).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = json!({
        "id": "t", "method": "process/start", "params": shell("p", "echo $TRACEPARENT"),
        "trace": {"traceparent": format!("00-{trace}-b7ad6b7169203331-01"), "tracestate": "a=b"},
    });
    client.send(&request).await;
    client.answer(&json!("t")).await.unwrap();
    let events = client.events("p").await;
    assert!(
        crate::client::written(&events).contains(trace),
        "the child knows its trace"
    );
    drop(client);
    executor.shutdown().await;
    let id = id_of(trace);
    let found = trace_file::find_trace(dir.path(), id)
        .unwrap()
        .expect("the trace was kept");
    let spans: Vec<_> = found
        .spans
        .iter()
        .map(|(_, span)| (span.name.to_string(), span.parent))
        .collect();
    let request = spans.iter().find(|(name, _)| name == "process/start");
    let (_, parent) = request.unwrap_or_else(|| panic!("the request's own span: {spans:?}"));
    assert_eq!(
        *parent,
        [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31],
        "below the client's"
    );
    for stage in ["call", "process", "spawn", "exit watcher"] {
        assert!(
            spans.iter().any(|(name, _)| name == stage),
            "{stage} in {spans:?}"
        );
    }
}
