//! The three shapes of a request.

use dwell_actors::responses::{Extension, MetadataKeys, Previous, Request, Stamp, StreamCore};
use dwell_messages::{SpanId, TraceContext, TraceFlags, TraceId, TraceState};
use serde_json::{Value, json};

fn context() -> TraceContext {
    let mut context = TraceContext::new(TraceId([0xab; 16]), SpanId([0xcd; 8]), TraceFlags::SAMPLED);
    context.state = TraceState::parse("vendor=1").map(Into::into);
    context
}

fn stamp(start_unix_ms: u64) -> Stamp {
    Stamp {
        context: context(),
        start_unix_ms,
        ordinal: StreamCore::default().begin(context()),
    }
}

fn message(request: &Request) -> Value {
    serde_json::from_str(&request.to_message(&MetadataKeys::default(), &stamp(1_234), None)).unwrap()
}

fn asked() -> Request {
    Request::new("a-model").instructions("be brief").user("hello")
}

fn output() -> Vec<Value> {
    vec![json!({ "type": "function_call", "call_id": "c1", "name": "shell", "arguments": "{}" })]
}

fn previous() -> Previous {
    Previous::new(asked(), "resp_1".into(), output())
}

#[test]
fn a_message_has_trace_start_and_ordinal_as_strings_in_its_client_metadata() {
    let message = message(&asked().metadata("session_id", "s"));
    assert_eq!(message["type"], "response.create");
    assert_eq!(message["store"], false);
    assert_eq!(message.get("stream"), None, "it is always a stream");
    let expected = json!({
        "ws_request_header_traceparent": context().to_traceparent(),
        "ws_request_header_tracestate": "vendor=1",
        "x-codex-ws-stream-request-start-ms": "1234",
        "x-codex-ws-stream-request-ordinal": "1",
        "session_id": "s",
    });
    assert_eq!(message["client_metadata"], expected);
}

#[test]
fn the_names_of_these_can_be_chosen() {
    let keys = MetadataKeys {
        start_ms: "mine".into(),
        ..MetadataKeys::default()
    };
    let message: Value = serde_json::from_str(&asked().to_message(&keys, &stamp(5), None)).unwrap();
    assert_eq!(message["client_metadata"]["mine"], "5");
    assert_eq!(
        message["client_metadata"].get("x-codex-ws-stream-request-start-ms"),
        None
    );
}

#[test]
fn a_context_that_is_none_is_left_out() {
    let stamp = Stamp {
        context: TraceContext::default(),
        ..stamp(1)
    };
    let text = asked().to_message(&MetadataKeys::default(), &stamp, None);
    assert!(
        !text.contains("traceparent") && text.contains("start-ms"),
        "{text}"
    );
}

#[test]
fn a_prewarming_request_asks_for_no_answer() {
    assert_eq!(message(&asked().prewarm())["generate"], false);
    assert_eq!(message(&asked()).get("generate"), None);
}

#[test]
fn a_post_has_neither_stamp_nor_ordinal_nor_trace_whoever_put_them_there() {
    let keys = MetadataKeys::default();
    let stale = asked()
        .metadata(&keys.start_ms, "1")
        .metadata(&keys.ordinal, "9")
        .metadata(&keys.traceparent, "stale")
        .metadata(&keys.tracestate, "stale");
    let post: Value = serde_json::from_str(&stale.to_post(&keys)).unwrap();
    assert_eq!(post.get("client_metadata"), None, "{post}");
    assert_eq!(post["stream"], true);
    let kept: Value =
        serde_json::from_str(&stale.clone().metadata("session_id", "s").to_post(&keys)).unwrap();
    assert_eq!(kept["client_metadata"], json!({ "session_id": "s" }));
    // And on a WebSocket what was stale is overwritten.
    assert_eq!(
        message(&stale)["client_metadata"]["x-codex-ws-stream-request-start-ms"],
        "1234"
    );
}

#[test]
fn metadata_of_another_shape_does_not_keep_the_stamp_out() {
    let message = message(&asked().set("client_metadata", json!("text")));
    assert_eq!(
        message["client_metadata"]["x-codex-ws-stream-request-start-ms"],
        "1234"
    );
}

#[test]
fn an_extension_sends_only_what_is_new() {
    let previous = previous();
    let next = asked().output(&output()).function_output("c1", "done");
    let extension = previous.extended_by(&next).unwrap();
    assert_eq!(extension.response_id, "resp_1");
    assert_eq!(extension.new, &next_items(&next)[2..]);
    let text = next.to_message(&MetadataKeys::default(), &stamp(1), Some(extension));
    let message: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(message["previous_response_id"], "resp_1");
    assert_eq!(
        message["input"],
        json!([{ "type": "function_call_output", "call_id": "c1", "output": "done" }])
    );
}

fn next_items(request: &Request) -> Vec<Value> {
    message(request)["input"].as_array().unwrap().clone()
}

#[test]
fn stamp_ordinal_and_trace_are_no_part_of_what_is_compared() {
    let keys = MetadataKeys::default();
    let stamped = |ms: &str| {
        asked()
            .metadata(&keys.start_ms, ms)
            .metadata(&keys.ordinal, ms)
            .metadata(&keys.traceparent, ms)
    };
    let previous = Previous::new(stamped("1"), "resp_1".into(), output());
    let next = stamped("2").output(&output()).user("more");
    assert!(previous.extended_by(&next).is_some());
    // Nor is that the one before was to warm up only.
    let warmed = Previous::new(asked().prewarm(), "resp_0".into(), Vec::new());
    let next = asked().parent(context());
    let extension: Option<Extension<'_>> = warmed.extended_by(&next);
    assert_eq!(extension.map(|extension| extension.new.len()), Some(0));
}

#[test]
fn a_request_that_asks_for_anything_else_is_sent_whole() {
    let previous = previous();
    let extended = || asked().output(&output()).user("more");
    assert!(previous.extended_by(&extended()).is_some(), "the control");
    let others = [
        extended().instructions("be long"),
        extended().set("temperature", json!(1)),
        extended().function("shell", "", &json!({})),
        extended().set("previous_response_id", json!("resp_0")),
        // The same, without what the model said, or with something else before it.
        asked().user("more"),
        Request::new("a-model")
            .instructions("be brief")
            .user("hi")
            .output(&output()),
        Request::new("another-model")
            .instructions("be brief")
            .user("hello")
            .output(&output()),
        Request::new("a-model").user("hello").output(&output()),
    ];
    for (n, other) in others.iter().enumerate() {
        assert!(previous.extended_by(other).is_none(), "{n}");
    }
    let nameless = Previous::new(asked(), String::new(), output());
    assert!(nameless.extended_by(&extended()).is_none());
}

#[test]
fn a_request_shows_nothing_of_its_content() {
    let request = asked()
        .user("canary")
        .metadata("canary", "canary")
        .instructions("canary");
    assert!(!format!("{request:?}").contains("canary"));
}

#[test]
fn fields_that_are_the_sessions_own_are_passed_over() {
    let request = ["type", "stream", "background", "generate"]
        .into_iter()
        .fold(asked(), |request, name| request.set(name, json!("mine")));
    assert_eq!(message(&request), message(&asked()));
    let input = asked().set("input", json!("anew"));
    assert_eq!(
        message(&input)["input"],
        message(&Request::new("m").user("anew"))["input"]
    );
}
