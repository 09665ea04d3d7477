//! A span survives its own encoding.

use dwell_messages::{Span, SpanKind, Value};

#[test]
fn a_span_survives_messagepack_with_its_absent_fields() {
    let span = Span {
        trace_id: [1; 16],
        span_id: [2; 8],
        parent: [0; 8],
        name: "call".into(),
        kind: SpanKind::Client,
        start_unix_ns: 5,
        end_unix_ns: 9,
        attributes: vec![("actor.mailbox.depth".into(), Value::I64(3))],
        link: None,
        error: None,
    };
    let bytes = rmp_serde::to_vec_named(&span).unwrap();
    assert_eq!(rmp_serde::from_slice::<Span>(&bytes).unwrap(), span);
}

/// Each kind by what it is, in both encodings; what no signed integer holds keeps its trace.
#[test]
fn a_value_is_read_as_what_it_is() {
    for value in [
        Value::Bool(true),
        Value::I64(i64::MIN),
        Value::I64(0),
        Value::F64(0.5),
        Value::Str("text".into()),
    ] {
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
        let bytes = rmp_serde::to_vec(&value).unwrap();
        assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), value);
    }
    let large: Value = serde_json::from_str("18446744073709551615").unwrap();
    assert_eq!(large, Value::F64(18_446_744_073_709_551_615.0));
    for other in ["null", "[]", "{}"] {
        serde_json::from_str::<Value>(other).unwrap_err();
    }
}
