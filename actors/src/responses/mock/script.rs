//! What the mock says.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Act, Seen};
use crate::responses::TIMING_EVENT;

/// How long it pretends to think.
const THINKS: Duration = Duration::from_millis(40);
/// How long it pretends to take for a word.
const WORD: Duration = Duration::from_millis(1);

/// A response begins.
pub fn created(id: &str) -> Act {
    Act::Event(json!({ "type": "response.created", "response": { "id": id } }))
}

/// Text in pieces.
pub fn deltas(text: &str) -> Vec<Act> {
    let pieces = text.split_inclusive(' ');
    pieces
        .map(|piece| {
            Act::Event(json!({ "type": "response.output_text.delta", "output_index": 0, "delta": piece }))
        })
        .collect()
}

/// A message that is whole.
pub fn message(text: &str) -> Act {
    let content = json!([{ "type": "output_text", "text": text, "annotations": [] }]);
    let item = json!({ "type": "message", "role": "assistant", "status": "completed", "content": content });
    Act::Event(json!({ "type": "response.output_item.done", "output_index": 0, "item": item }))
}

/// A function is to be called: the item, its arguments in pieces, and the whole.
pub fn call(call_id: &str, name: &str, arguments: &Value) -> Vec<Act> {
    let text = arguments.to_string();
    let item = |arguments: &str| json!({ "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments });
    let event = |kind: &str, field: &str, value: Value| {
        Act::Event(json!({ "type": kind, "item_id": call_id, "output_index": 0, field: value }))
    };
    let (half, rest) = text.split_at(text.floor_char_boundary(text.len() / 2));
    vec![
        event("response.output_item.added", "item", item("")),
        event("response.function_call_arguments.delta", "delta", half.into()),
        event("response.function_call_arguments.delta", "delta", rest.into()),
        event(
            "response.function_call_arguments.done",
            "arguments",
            text.as_str().into(),
        ),
        event("response.output_item.done", "item", item(&text)),
    ]
}

/// A response is over.
pub fn completed(id: &str) -> Act {
    let usage = json!({ "input_tokens": 0, "output_tokens": 0, "total_tokens": 0 });
    Act::Event(
        json!({ "type": "response.completed", "response": { "id": id, "output": [], "usage": usage } }),
    )
}

/// A response was cut short.
pub fn incomplete(id: &str, reason: &str) -> Act {
    let details = json!({ "reason": reason });
    Act::Event(
        json!({ "type": "response.incomplete", "response": { "id": id, "incomplete_details": details } }),
    )
}

/// A response failed.
pub fn failed(code: &str, message: &str) -> Act {
    let error = json!({ "code": code, "message": message });
    Act::Event(json!({ "type": "response.failed", "response": { "error": error } }))
}

/// A request is refused.
pub fn refused(status: u16, code: &str, message: &str) -> Act {
    let error = json!({ "code": code, "message": message });
    Act::Event(json!({ "type": "error", "status": status, "error": error }))
}

/// Server timings of a request.
pub fn sideband(ordinal: &Value, metrics: &Value) -> Act {
    Act::Event(json!({ "type": TIMING_EVENT, "request_ordinal": ordinal, "timing_metrics": metrics }))
}

/// A first turn: the user asks, `argv` is to be run by the function `shell`, and the answer is made of what it printed.
pub fn first_turn(argv: &[&str]) -> impl Fn(&Seen) -> Vec<Act> + Send + Sync + use<> {
    let argv: Vec<String> = argv.iter().map(|arg| (*arg).to_owned()).collect();
    move |seen| {
        let id = format!("resp_mock_{}_{}", seen.connection, seen.request);
        let printed = seen
            .last_input()
            .filter(|item| {
                item.get("type")
                    .is_some_and(|kind| kind == "function_call_output")
            })
            .and_then(|item| item.get("output")?.as_str());
        let mut acts = vec![created(&id), Act::Pause(THINKS)];
        match printed {
            _ if seen.body.get("generate") == Some(&Value::Bool(false)) => {}
            None => acts.extend(call("call_mock", "shell", &json!({ "argv": argv }))),
            Some(printed) => {
                let text = answer(printed);
                for word in deltas(&text) {
                    acts.extend([word, Act::Pause(WORD)]);
                }
                acts.push(message(&text));
            }
        }
        if !seen.is_post {
            acts.push(sideband(&seen.request.into(), &pretended()));
        }
        acts.push(completed(&id));
        acts
    }
}

/// What it says of its own time: most of what it pretends to think.
fn pretended() -> Value {
    json!({
        "responses_duration_excl_engine_and_client_tool_time_ms": 4.5,
        "engine_queue_max_ms": 6.25,
        "taas_request_to_provider_start_total_ms": 9.5,
        "latest_inference_engine_routing_ms": 2.0,
        "engine_iapi_ttft_total_ms": THINKS.as_millis() as u64 - 5,
        "num_engine_calls": 1
    })
}

/// Made of what a command printed, and of nothing else.
fn answer(output: &str) -> String {
    // Harnesses give output as it is, or as JSON with the streams in it.
    let parsed = serde_json::from_str::<Value>(output).ok();
    let stdout = parsed.as_ref().and_then(|parsed| parsed.get("stdout")?.as_str());
    let printed = stdout.unwrap_or(output);
    let lines: Vec<_> = printed.lines().filter(|line| !line.is_empty()).collect();
    let first = lines.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    match lines.len() {
        0 => "The command printed nothing.".to_owned(),
        1 => format!("The command printed one line: {first}."),
        many if many <= 3 => format!("The command printed {many} lines: {first}."),
        many => format!("The command printed {many} lines, the first of which are {first}."),
    }
}
