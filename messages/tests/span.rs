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
