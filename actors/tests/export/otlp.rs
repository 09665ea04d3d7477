//! What a back end is told: kinds, parents, times, who speaks, and by which conventions.

use dwell_actors::telemetry::otlp::OtlpSink;
use dwell_actors::telemetry::{Anchor, Stage, Tick, semconv};
use dwell_messages::{Role, SpanKind, TraceFlags};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::server::{Manner, Server};
use crate::support::{Ends, context, shell};

/// `SpanFlags`: whether the parent is remote is known, and it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

fn one<'a>(spans: &'a [Span], name: &str, kind: i32) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name && span.kind == kind);
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no span {name} of kind {kind}"));
    assert_eq!(found.next(), None, "one span {name} of kind {kind}");
    span
}

#[tokio::test]
async fn a_call_is_exported_with_kinds_parents_status_and_the_mark_of_a_remote_parent() {
    let (here, there) = (Server::start(Manner::Takes), Server::start(Manner::Takes));
    let own = OtlpSink::to(Role::Harness, here.endpoint()).unwrap();
    let theirs = OtlpSink::to(Role::Executor, there.endpoint()).unwrap();
    let ends = Ends::with(|builder| builder.sink(own), theirs).await;
    // As one that came in a header.
    let parent = context(3, TraceFlags::SAMPLED).received();
    let finished = ends.run(shell("kill -KILL $$").parent(parent.clone())).await;
    ends.end().await;

    let (internal, server, client) = (1, 2, 3);
    let (ours, theirs) = (here.spans(), there.spans());
    let trace: Vec<_> = finished.trace_id.0.to_vec();
    assert!(ours.iter().chain(&theirs).all(|span| span.trace_id == trace));

    let call = one(&ours, "call", internal);
    assert_eq!(call.parent_span_id, parent.span_id.0);
    assert_eq!(
        call.flags & IS_REMOTE,
        IS_REMOTE,
        "its parent came from elsewhere"
    );
    let asked = one(&ours, "Process/Start", client);
    assert_eq!(asked.parent_span_id, call.span_id);
    assert_eq!(asked.flags & (HAS_IS_REMOTE | IS_REMOTE), HAS_IS_REMOTE);
    let served = one(&theirs, "Process/Start", server);
    assert_eq!(served.parent_span_id, asked.span_id);
    assert_eq!(served.flags & IS_REMOTE, IS_REMOTE);
    let process = one(&theirs, "process", client);
    assert_eq!(process.parent_span_id, call.span_id);
    assert_eq!(process.flags & IS_REMOTE, IS_REMOTE);
    let spawn = one(&theirs, "spawn", internal);
    assert_eq!(spawn.parent_span_id, process.span_id);
    assert_eq!(spawn.flags & (HAS_IS_REMOTE | IS_REMOTE), HAS_IS_REMOTE);

    // The command was killed: an error of its own and of nobody else.
    assert_eq!(process.status.as_ref().map(|status| status.code), Some(2));
    assert_eq!(
        text(&process.attributes, "error.type").as_deref(),
        Some("signal:SIGKILL")
    );
    for fine in [call, asked, served] {
        let status = fine.status.as_ref().map_or(0, |status| status.code);
        assert_eq!(status, 0, "{}", fine.name);
    }
    for rpc in [asked, served] {
        assert_eq!(text(&rpc.attributes, "rpc.system.name").as_deref(), Some("dwell"));
        assert_eq!(
            text(&rpc.attributes, "rpc.method").as_deref(),
            Some("Process/Start")
        );
        assert_eq!(text(&rpc.attributes, "rpc.status_code").as_deref(), Some("ok"));
    }
    for span in ours.iter().chain(&theirs) {
        assert!(
            span.end_time_unix_nano >= span.start_time_unix_nano,
            "{}",
            span.name
        );
        assert!(
            text(&span.attributes, semconv::PARENT_REMOTE).is_none(),
            "it is a flag"
        );
        let residence = span.name.starts_with("mailbox ") || span.name.starts_with("turn ");
        assert!(!residence || span.kind == internal, "{}", span.name);
        let numbers = span
            .attributes
            .iter()
            .filter(|attribute| attribute.key.ends_with("_us"));
        for number in numbers {
            let value = number.value.as_ref().and_then(|value| value.value.as_ref());
            assert!(matches!(value, Some(Value::IntValue(0..))), "{number:?}");
        }
    }
}

#[tokio::test]
async fn a_resource_says_which_role_and_version_and_neither_user_nor_machine_nor_path() {
    let server = Server::start(Manner::Takes);
    let sinks = [(); 2].map(|()| OtlpSink::to(Role::Harness, server.endpoint()).unwrap());
    let anchor = Anchor::take();
    let now = Tick::now();
    for (at, mut sink) in sinks.into_iter().enumerate() {
        use dwell_actors::telemetry::SpanSink as _;
        let stage = Stage::new(&context(1, TraceFlags::SAMPLED), "a stage", now, now);
        sink.export(Role::Harness, None, &[stage.into_span(&anchor)])
            .unwrap();
        sink.flush().unwrap();
        assert_eq!(server.spans().len(), at + 1);
    }
    let mut instances = Vec::new();
    for request in server.requests() {
        for spans in request.resource_spans {
            assert_eq!(spans.schema_url, semconv::SCHEMA_URL);
            let attributes = spans.resource.unwrap().attributes;
            let has = |name: &str| text(&attributes, name);
            assert_eq!(has("service.name").as_deref(), Some("dwell-harness"));
            assert_eq!(has("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
            assert_eq!(has("dwell.role").as_deref(), Some("harness"));
            assert_eq!(has("os.type").as_deref(), Some("linux"));
            instances.push(has("service.instance.id").unwrap());
            let whole = format!("{attributes:?}");
            for private in ["HOME", "USER", "LOGNAME", "HOSTNAME", "PWD"] {
                let value = std::env::var(private).unwrap_or_default();
                assert!(
                    value.len() < 4 || !whole.contains(&value),
                    "{private} is in {whole}"
                );
            }
            for scope in spans.scope_spans {
                assert_eq!(scope.schema_url, semconv::SCHEMA_URL);
                assert_eq!(scope.scope.unwrap().name, "dwell");
            }
        }
    }
    assert_ne!(instances[0], instances[1], "each life has an instance of its own");
}

#[test]
fn an_endpoint_with_tls_is_refused_with_a_way_out() {
    let error = OtlpSink::to(Role::Harness, "https://127.0.0.1:4318/v1/traces").unwrap_err();
    assert!(error.to_string().contains("collector nearby"), "{error}");
}

#[test]
fn a_number_past_the_largest_of_otlp_is_the_largest_and_no_text() {
    use opentelemetry::Value as Otel;
    let now = Tick::now();
    let stage = Stage::new(&context(1, TraceFlags::SAMPLED), "a stage", now, now)
        .kind(SpanKind::Server)
        .number("most", u64::MAX)
        .number("just", i64::MAX as u64)
        .number("over", i64::MAX as u64 + 1)
        .maybe_number("none", None::<u64>);
    let span = stage.into_span(&Anchor::take());
    let data = dwell_actors::telemetry::sdk::span_data(&span, &dwell_actors::telemetry::sdk::scope());
    let values: Vec<_> = data.attributes.iter().map(|pair| pair.value.clone()).collect();
    assert_eq!(values, vec![Otel::I64(i64::MAX); 3]);
}
