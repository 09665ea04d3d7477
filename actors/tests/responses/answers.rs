//! Responses, put together from their events.

use dwell_actors::responses::{
    ARGUMENTS_MAX_BYTES, Assembled, Assembly, Bounded, Event, EventKind, FUNCTION_CALLS_MAX, Message,
    OUTPUT_ITEMS_MAX, OUTPUT_MAX_BYTES, ResponsesError, Step, StreamCore, read,
};
use dwell_messages::TraceContext;
use serde_json::{Value, json};

fn event(value: &Value) -> Event {
    match read(&value.to_string()) {
        Ok(Message::Event(event)) => event,
        other => panic!("an event, not {other:?}"),
    }
}

fn feed(assembly: &mut Assembly, value: &Value) -> Result<Option<Assembled>, ResponsesError> {
    assembly.event(&event(value), value.to_string().len())
}

fn call(arguments: &str) -> Value {
    let item = json!({ "type": "function_call", "call_id": "c", "name": "f", "arguments": arguments });
    json!({ "type": "response.output_item.done", "item": item })
}

fn completed(output: &Value) -> Value {
    json!({ "type": "response.completed", "response": { "id": "r", "output": output, "usage": { "total_tokens": 7 } } })
}

fn past(result: &Result<Option<Assembled>, ResponsesError>) -> Option<Bounded> {
    match result {
        Err(ResponsesError::TooLarge { what, .. }) => Some(*what),
        _ => None,
    }
}

#[test]
fn a_response_is_its_finished_items() {
    let mut assembly = Assembly::default();
    let message = json!({ "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "hi" }] });
    for value in [
        json!({ "type": "response.created", "response": { "id": "r" } }),
        json!({ "type": "response.output_item.added", "item": { "type": "message" } }),
        json!({ "type": "response.output_text.delta", "delta": "hi" }),
        json!({ "type": "response.output_item.done", "item": message }),
        call("{}"),
    ] {
        assert_eq!(feed(&mut assembly, &value).unwrap(), None);
    }
    let whole = feed(&mut assembly, &completed(&json!([]))).unwrap().unwrap();
    assert_eq!(whole.id, "r");
    assert_eq!(whole.output, [message, call("{}")["item"].clone()]);
    assert_eq!(whole.usage, Some(json!({ "total_tokens": 7 })));
    assert_eq!(whole.incomplete, None);
}

#[test]
fn items_that_only_the_end_lists_are_taken_from_there() {
    let listed = json!([call("{}")["item"]]);
    let whole = feed(&mut Assembly::default(), &completed(&listed))
        .unwrap()
        .unwrap();
    assert_eq!(Value::Array(whole.output), listed);
}

#[test]
fn a_response_that_was_cut_short_says_why_and_keeps_what_it_has() {
    let mut assembly = Assembly::default();
    feed(&mut assembly, &call("{}")).unwrap();
    let end = json!({ "type": "response.incomplete", "response": { "id": "r", "incomplete_details": { "reason": "max_output_tokens" } } });
    let cut = feed(&mut assembly, &end).unwrap().unwrap();
    assert_eq!(cut.incomplete.as_deref(), Some("max_output_tokens"));
    assert_eq!(cut.output.len(), 1);
}

#[test]
fn what_the_server_says_is_wrong_is_told_cleanly_and_shortly() {
    let of = |value: Value| feed(&mut Assembly::default(), &value).unwrap_err();
    let error = json!({ "code": "bad\u{1b}[2J", "message": "x".repeat(5_000) });
    for value in [
        json!({ "type": "response.failed", "response": { "error": error } }),
        json!({ "type": "error", "status": 400, "error": error }),
        json!({ "type": "error", "code": error["code"], "message": error["message"] }),
    ] {
        let ResponsesError::Refused { code, message } = of(value) else {
            panic!("refused");
        };
        assert_eq!(code, "bad\u{fffd}[2J");
        assert!(message.len() < 400 && message.ends_with('…'), "{}", message.len());
    }
    for (status, kind) in [
        (401, "unauthorized"),
        (403, "unauthorized"),
        (429, "rate_limited"),
        (503, "server_error"),
    ] {
        assert_eq!(of(json!({ "type": "error", "status": status })).kind(), kind);
    }
    for strange in [
        json!({ "type": "error" }),
        json!({ "type": "response.failed" }),
        json!({ "type": "error", "error": 7, "status": -1 }),
    ] {
        assert_eq!(of(strange).kind(), "refused");
    }
}

#[test]
fn function_calls_arguments_items_and_output_are_bounded() {
    let mut assembly = Assembly::default();
    for _ in 0..FUNCTION_CALLS_MAX {
        feed(&mut assembly, &call("{}")).unwrap();
    }
    assert_eq!(
        past(&feed(&mut assembly, &call("{}"))),
        Some(Bounded::FunctionCalls)
    );
    let long = "x".repeat(ARGUMENTS_MAX_BYTES);
    assert!(feed(&mut Assembly::default(), &call(&long)).is_ok());
    assert_eq!(
        past(&feed(&mut Assembly::default(), &call(&(long + "x")))),
        Some(Bounded::Arguments)
    );

    let mut assembly = Assembly::default();
    let other = json!({ "type": "response.output_item.done", "item": {} });
    for _ in 0..OUTPUT_ITEMS_MAX {
        feed(&mut assembly, &other).unwrap();
    }
    assert_eq!(past(&feed(&mut assembly, &other)), Some(Bounded::Items));
    let mut assembly = Assembly::default();
    assert!(assembly.event(&event(&other), OUTPUT_MAX_BYTES).is_ok());
    assert_eq!(past(&assembly.event(&event(&other), 1)), Some(Bounded::Output));
}

#[test]
fn arguments_that_come_in_pieces_are_bounded_before_they_are_whole_and_per_call() {
    let piece = |item: &str, bytes: usize| json!({ "type": "response.function_call_arguments.delta", "item_id": item, "delta": "x".repeat(bytes) });
    let half = ARGUMENTS_MAX_BYTES / 2;
    let mut assembly = Assembly::default();
    for _ in 0..2 {
        feed(&mut assembly, &piece("a", half)).unwrap();
    }
    // Another call begins anew.
    feed(&mut assembly, &piece("b", half)).unwrap();
    feed(&mut assembly, &piece("b", half)).unwrap();
    assert_eq!(
        past(&feed(&mut assembly, &piece("b", 1))),
        Some(Bounded::Arguments)
    );
}

#[test]
fn an_event_of_a_kind_that_is_not_known_is_handed_on_and_counted_as_other() {
    let strange = json!({ "type": "response.invented\u{0}by somebody", "x": 1 });
    let strange = event(&strange);
    assert_eq!((strange.kind, strange.kind.label()), (EventKind::Other, "_OTHER"));
    let mut labels: Vec<_> = EventKind::ALL.iter().map(|kind| kind.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(
        labels.len(),
        EventKind::ALL.len(),
        "a label each, and these are all"
    );
    for kind in EventKind::ALL {
        assert!(
            kind.label().len() <= 32 && kind.label().chars().all(|c| c.is_ascii_alphabetic() || c == '_')
        );
    }
}

#[test]
fn between_two_responses_nothing_is_an_event_and_nothing_fails() {
    let mut core = StreamCore::default();
    for text in [
        "nonsense",
        r#"{"type":"response.created"}"#,
        r#"{"type":"error","status":500}"#,
    ] {
        assert!(matches!(core.message(text), Ok(Step::Ignored)), "{text}");
    }
    core.begin(TraceContext::default());
    assert!(matches!(
        core.message("nonsense"),
        Err(ResponsesError::Malformed { .. })
    ));
    assert!(matches!(
        core.message(r#"{"type":"response.created"}"#),
        Ok(Step::Event(_))
    ));
}
