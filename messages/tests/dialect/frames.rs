//! What a message is, and what is none.

use dwell_messages::dialect::{DEPTH_MAX, Id, Incoming, Malformed, VALUES_MAX};
use serde_json::{Value, json};

fn decoded(text: &str) -> Incoming {
    Incoming::decode(text.as_bytes()).unwrap()
}

fn refused(text: &str) -> String {
    let Malformed(why) = Incoming::decode(text.as_bytes()).unwrap_err();
    why
}

#[test]
fn members_decide_what_a_message_is() {
    let request = decoded(r#"{"id":1,"method":"a","result":2,"params":{"x":1},"jsonrpc":"1.0","more":[]}"#);
    assert!(
        matches!(request, Incoming::Request { id: Id::Number(1), params, .. } if params == json!({"x": 1}))
    );
    let heard = decoded(r#"{"method":"initialized","trace":"passed over"}"#);
    assert!(
        matches!(heard, Incoming::Notification { method, params } if method == "initialized" && params.is_null())
    );
    let response = decoded(r#"{"result":null,"id":"x"}"#);
    assert!(matches!(response, Incoming::Response { id: Id::Text(id), result: Value::Null } if id == "x"));
    let error = decoded(r#"{"error":{"code":-32010,"message":"m","data":1},"id":-7}"#);
    assert!(matches!(error, Incoming::Error { id: Id::Number(-7), error } if error.code == -32010));
}

#[test]
fn an_id_is_a_text_or_a_signed_number_of_64_bits() {
    for id in ["-9223372036854775808", "9223372036854775807", r#""""#] {
        assert!(matches!(
            decoded(&format!(r#"{{"id":{id},"method":"m"}}"#)),
            Incoming::Request { .. }
        ));
    }
    for id in ["null", "1.0", "9223372036854775808", "true", "[]", "{}"] {
        assert!(
            refused(&format!(r#"{{"id":{id},"method":"m"}}"#)).contains("invalid id"),
            "{id}"
        );
    }
}

#[test]
fn what_has_no_shape_is_refused() {
    for text in ["[]", "1", "null", r#"[{"id":1,"method":"m"}]"#] {
        assert_eq!(refused(text), "expected a JSON-RPC object", "{text}");
    }
    for text in [
        "{}",
        r#"{"id":1}"#,
        r#"{"params":{}}"#,
        r#"{"id":1,"method":3}"#,
        r#"{"id":1,"error":"text"}"#,
    ] {
        refused(text);
    }
    for text in [
        "",
        "{",
        r#"{"id":1,"method":"m"} {"id":2,"method":"m"}"#,
        "nonsense",
    ] {
        refused(text);
    }
    assert!(Incoming::decode(b"{\"id\":1,\"method\":\"\xff\"}").is_err());
}

#[test]
fn a_key_twice_is_refused_at_any_depth() {
    assert!(refused(r#"{"id":1,"id":1,"method":"m"}"#).contains("duplicate object key `id`"));
    assert!(
        refused(r#"{"id":1,"method":"m","params":{"a":[{"b":1,"b":2}]}}"#)
            .contains("duplicate object key `b`")
    );
    // The same key in two objects is none.
    decoded(r#"{"id":1,"method":"m","params":[{"b":1},{"b":2}]}"#);
}

#[test]
fn nesting_has_a_bound_that_counts_the_message_itself() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"id":1,"method":"m","params":{open}{close}}}"#)
    };
    decoded(&nested(DEPTH_MAX - 1));
    assert!(refused(&nested(DEPTH_MAX)).contains("recursion limit exceeded"));
    assert!(refused(&nested(1_000_000)).contains("recursion limit exceeded"));
}

#[test]
fn values_have_a_bound_that_counts_all_of_them() {
    // The message, its id, its method and the array are four of them.
    let with = |elements: usize| {
        let elements = vec!["1"; elements].join(",");
        format!(r#"{{"id":1,"method":"m","params":[{elements}]}}"#)
    };
    decoded(&with(VALUES_MAX - 4));
    let why = refused(&with(VALUES_MAX - 3));
    assert!(
        why.contains("JSON-RPC message exceeds the limit of 262144 JSON values"),
        "{why}"
    );
}

#[test]
fn ancestry_never_fails_a_message_by_what_it_says_but_by_what_it_is() {
    let with = |trace: &str| format!(r#"{{"id":1,"method":"m","trace":{trace}}}"#);
    for trace in [
        "null",
        "{}",
        "[]",
        r#"{"traceparent":null}"#,
        r#"{"traceparent":"nonsense","more":1}"#,
    ] {
        let Incoming::Request { trace: carrier, .. } = decoded(&with(trace)) else {
            panic!("{trace} is part of a request");
        };
        assert_eq!(carrier.context(), None, "{trace}");
    }
    for trace in [r#""text""#, "1", "true", r#"{"traceparent":1}"#] {
        assert!(refused(&with(trace)).contains("invalid trace"), "{trace}");
    }
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let Incoming::Request { trace, .. } = decoded(&with(&format!(
        r#"{{"traceparent":"{parent}","tracestate":"a=b"}}"#
    ))) else {
        panic!("a request");
    };
    let context = trace.context().unwrap();
    assert_eq!(context.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert!(context.is_sampled());
    assert_eq!(context.state.unwrap().as_str(), "a=b");
}
