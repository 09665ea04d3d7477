//! A real OTLP receiver, not ours, gets the spans with kind and parent intact.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::roles::System;

const BOUND: Duration = Duration::from_secs(60);

struct Tap(Child);

impl Drop for Tap {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts `oteltap` (PyPI) on a free port and waits until it listens.
fn tap() -> (Tap, u16) {
    // Before it has it, somebody else may have got the port: then it ends.
    (0..5)
        .find_map(|_| tap_on_a_free_port())
        .expect("one of five ports stays free until it is taken")
}

fn tap_on_a_free_port() -> Option<(Tap, u16)> {
    let program = std::env::var("DWELL_OTELTAP").unwrap_or_else(|_| "oteltap".into());
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let child = Command::new(&program)
        .args(["--port", &port.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{program} cannot be started ({error}): install oteltap from PyPI, or name it in DWELL_OTELTAP")
        });
    let mut tap = Tap(child);
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if tap.0.try_wait().unwrap().is_some() {
            return None;
        }
        assert!(begun.elapsed() < BOUND, "{program} does not listen on {port}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Some((tap, port))
}

fn spans_in(value: &Json, found: &mut Vec<Json>) {
    match value {
        Json::Object(map) if map.contains_key("spanId") || map.contains_key("span_id") => {
            found.push(value.clone())
        }
        Json::Object(map) => map.values().for_each(|value| spans_in(value, found)),
        Json::Array(all) => all.iter().for_each(|value| spans_in(value, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn field<'a>(span: &'a Json, camel: &str, snake: &str) -> &'a Json {
    span.get(camel).or_else(|| span.get(snake)).unwrap_or(&Json::Null)
}

#[test]
fn a_foreign_receiver_gets_the_spans_with_kind_and_parent() {
    let (mut tap, port) = tap();
    let endpoint = format!("http://127.0.0.1:{port}/v1/traces");
    let environment = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str())];
    let system = System::start(&environment);
    system.run(&environment, &["sh", "-c", "printf out"]);
    let picture = system.last_trace();
    let stdout = BufReader::new(tap.0.stdout.take().unwrap());
    let (say, said) = sync_channel(1_024);
    std::thread::spawn(move || {
        for line in stdout.lines() {
            // Nobody listens any more: the test has what it wants.
            if say.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    let mut got: HashMap<String, Json> = HashMap::new();
    let wanted = picture.trace.spans.len();
    let trace = picture.trace.trace_id.to_string();
    let deadline = Instant::now() + BOUND;
    // What has not come by then is named below.
    while let Ok(line) = said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        let mut found = Vec::new();
        if let Ok(value) = serde_json::from_str::<Json>(&line) {
            spans_in(&value, &mut found);
        }
        for span in found {
            if field(&span, "traceId", "trace_id").as_str() == Some(&trace) {
                let id = field(&span, "spanId", "span_id").as_str().unwrap().to_owned();
                got.insert(id, span);
            }
        }
        if got.len() >= wanted {
            break;
        }
    }
    for (role, span) in &picture.trace.spans {
        let id = span.id().to_string();
        let other = got
            .get(&id)
            .unwrap_or_else(|| panic!("{role:?} {} did not arrive", span.name));
        assert_eq!(field(other, "name", "name"), span.name.as_ref());
        let parent = field(other, "parentSpanId", "parent_span_id")
            .as_str()
            .unwrap_or("");
        let expected = if span.parent == [0; 8] {
            String::new()
        } else {
            dwell_messages::SpanId(span.parent).to_string()
        };
        assert_eq!(parent, expected, "parent of {}", span.name);
        let kind = field(other, "kind", "kind").to_string().to_uppercase();
        let expected = match span.kind {
            dwell_messages::SpanKind::Internal => ["INTERNAL", "1"],
            dwell_messages::SpanKind::Server => ["SERVER", "2"],
            dwell_messages::SpanKind::Client => ["CLIENT", "3"],
        };
        assert!(
            expected.iter().any(|name| kind.contains(name)),
            "kind of {} is {kind}",
            span.name
        );
    }
}
