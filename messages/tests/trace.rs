//! Trace context at the edges: what is malformed is dropped and flagged, and never fails a message.

#[allow(dead_code, reason = "every test binary uses another part of it")]
mod common;

use bytes::Bytes;
use dwell_messages::codec::{self, Decoded};
use dwell_messages::kinds::MessageKind;
use dwell_messages::trace::{
    TRACE_CONTEXT_BYTES, TRACESTATE_MAX_BYTES, TRACESTATE_MEMBERS_MAX, TraceContext, TraceState,
};
use proptest::prelude::*;

use common::{context, encoded, message};

const CONTEXT_AT: usize = 32;
const STATE_AT: usize = 60;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// A real message whose context and tracestate are these bytes.
fn decoded(context: &[u8; TRACE_CONTEXT_BYTES], state: &[u8]) -> Decoded {
    let whole = encoded(MessageKind::Ping);
    let state_end = STATE_AT + usize::from(u16::from_be_bytes([whole[58], whole[59]]));
    let mut bytes = whole[..CONTEXT_AT].to_vec();
    bytes.extend(context);
    bytes.extend(
        u16::try_from(state.len())
            .expect("a tracestate of a test")
            .to_be_bytes(),
    );
    bytes.extend(state);
    bytes.extend(&whole[state_end..]);
    let decoded = codec::decode(&Bytes::from(bytes)).expect("a context never fails a message");
    assert_eq!(decoded.message, message(MessageKind::Ping));
    decoded
}

#[test]
fn a_malformed_context_is_flagged_and_the_message_comes_through() {
    let good = context().encode();
    let changed = |range: std::ops::Range<usize>, value: u8| {
        let mut bytes = good;
        bytes[range].fill(value);
        bytes
    };
    for bytes in [
        changed(0..1, 1),
        changed(0..1, 0xff),
        changed(1..17, 0),
        changed(17..25, 0),
        changed(0..26, 0xff),
        {
            // Nothing but a flag: malformed, not absent.
            let mut bytes = [0; TRACE_CONTEXT_BYTES];
            bytes[25] = 1;
            bytes
        },
    ] {
        for state in [&b""[..], b"a=b"] {
            let decoded = decoded(&bytes, state);
            assert_eq!(decoded.context, None, "{bytes:?}");
            assert!(decoded.context_malformed, "{bytes:?}");
        }
    }
}

#[test]
fn an_absent_context_is_not_malformed_unless_a_tracestate_comes_with_it() {
    let none = [0; TRACE_CONTEXT_BYTES];
    assert!(!decoded(&none, b"").context_malformed);
    // Once this passed as if nothing had come.
    assert!(decoded(&none, b"a=b").context_malformed);
    assert_eq!(decoded(&none, b"a=b").context, None);
}

#[test]
fn a_bad_tracestate_is_dropped_alone_and_flagged() {
    let mut long = vec![b'k', b'='];
    long.resize(300, b'v');
    let states = [
        &b"nonsense"[..],
        b"\xff\xfe",
        b"A=1",
        b"a=",
        b"=1",
        b"a=1,a=2",
        b"a=b=c",
        b",",
        &long,
    ];
    for state in states {
        let decoded = decoded(&context().encode(), state);
        let context = decoded.context.expect("the ids are sound");
        assert_eq!(
            (context.state, decoded.context_malformed),
            (None, true),
            "{state:?}"
        );
    }
    let good = decoded(&context().encode(), b"a=1,b=2");
    assert!(!good.context_malformed);
    assert_eq!(good.context.unwrap().state.unwrap().as_str(), "a=1,b=2");
}

#[test]
fn flags_without_meaning_are_dropped_on_both_ways() {
    let mut bytes = context().encode();
    bytes[25] = 0xff;
    let context = decoded(&bytes, b"").context.unwrap();
    assert_eq!(context.flags.0, 1);
    assert!(!decoded(&bytes, b"").context_malformed);
    let mut noisy = context;
    noisy.flags.0 = 0xfe;
    assert_eq!(noisy.encode()[25], 0);
    assert!(noisy.to_traceparent().ends_with("-00"));
}

#[test]
fn of_33_members_the_last_is_cut() {
    let members: Vec<String> = (0..33).map(|at| format!("k{at}=v")).collect();
    let state = TraceState::parse(&members.join(",")).unwrap();
    assert_eq!(state.as_str(), members[..TRACESTATE_MEMBERS_MAX].join(","));
}

#[test]
fn past_512_bytes_whole_members_are_cut_from_the_right() {
    let member = |key: &str, length: usize| format!("{key}={}", "v".repeat(length - key.len() - 1));
    let (first, second) = (member("a", 255), member("b", 256));
    let fits = format!("{first},{second}");
    assert_eq!(fits.len(), TRACESTATE_MAX_BYTES);
    assert_eq!(TraceState::parse(&fits).unwrap().as_str(), fits);
    assert_eq!(TraceState::parse(&format!("{fits},c=1")).unwrap().as_str(), fits);
    // One byte too long: the whole second member goes, and what would still fit behind it too.
    let over = format!("{first},{},c=1", member("b", 257));
    assert_eq!(TraceState::parse(&over).unwrap().as_str(), first);
    // One member that is too long alone leaves nothing.
    let alone = format!("{}={}", "k".repeat(256), "v".repeat(256));
    assert_eq!(TraceState::parse(&alone), None);
}

#[test]
fn the_longest_tracestate_travels() {
    let state = format!("a={},b={}", "v".repeat(253), "v".repeat(254));
    assert_eq!(state.len(), TRACESTATE_MAX_BYTES);
    let got = decoded(&context().encode(), state.as_bytes());
    assert_eq!(got.context.unwrap().state.unwrap().as_str(), state);
}

#[test]
fn traceparent_is_read_as_w3c_has_it() {
    let upper = TRACE.to_uppercase();
    let zeroes = "0".repeat(32);
    let table = [
        (format!("00-{TRACE}-{SPAN}-01"), true),
        (format!("00-{TRACE}-{SPAN}-00"), true),
        (format!("  00-{TRACE}-{SPAN}-ff "), true),
        (format!("01-{TRACE}-{SPAN}-01"), true),
        (format!("01-{TRACE}-{SPAN}-01-what-comes"), true),
        (format!("fe-{TRACE}-{SPAN}-01-"), true),
        (format!("00-{TRACE}-{SPAN}-01-more"), false),
        (format!("00-{TRACE}-{SPAN}-01-"), false),
        (format!("01-{TRACE}-{SPAN}-01.what"), false),
        (format!("ff-{TRACE}-{SPAN}-01"), false),
        (format!("00-{upper}-{SPAN}-01"), false),
        (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), false),
        (format!("0A-{TRACE}-{SPAN}-01"), false),
        (format!("00-{}-{SPAN}-01", &TRACE[1..]), false),
        (format!("00-{TRACE}0-{SPAN}-01"), false),
        (format!("00-{TRACE}-{}-01", &SPAN[1..]), false),
        (format!("00-{TRACE}-{SPAN}-1"), false),
        (format!("0-{TRACE}-{SPAN}-01"), false),
        (format!("00-{TRACE}-{SPAN}"), false),
        (format!("00-{TRACE}"), false),
        (format!("00_{TRACE}_{SPAN}_01"), false),
        (format!("00-{zeroes}-{SPAN}-01"), false),
        (format!("00-{TRACE}-0000000000000000-01"), false),
        (format!("00-{}é-{SPAN}-01", &TRACE[2..]), false),
        (format!("00-+{}-{SPAN}-01", &TRACE[1..]), false),
        (String::new(), false),
    ];
    for (text, valid) in table {
        assert_eq!(
            TraceContext::from_traceparent(&text, None).is_some(),
            valid,
            "{text:?}"
        );
    }
}

#[test]
fn a_malformed_tracestate_header_leaves_the_traceparent() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let context = TraceContext::from_traceparent(&parent, Some("UPPER=1")).unwrap();
    assert_eq!(context.state, None);
    assert_eq!(context.to_traceparent(), parent);
}

proptest! {
    #[test]
    fn whatever_the_context_bytes_are_the_message_comes_through(
        bytes in any::<[u8; TRACE_CONTEXT_BYTES]>(),
        version in 0_u8..2,
        state in proptest::collection::vec(any::<u8>(), 0..=TRACESTATE_MAX_BYTES),
    ) {
        let mut bytes = bytes;
        bytes[0] = version;
        let decoded = decoded(&bytes, &state);
        prop_assert!(decoded.context.is_some() || decoded.context_malformed);
    }

    #[test]
    fn a_context_survives_its_bytes_and_its_header(
        trace in any::<[u8; 16]>(), span in any::<[u8; 8]>(), flags in 0_u8..2,
    ) {
        prop_assume!(trace != [0; 16] && span != [0; 8]);
        let context = TraceContext::new(
            dwell_messages::TraceId(trace), dwell_messages::SpanId(span), dwell_messages::TraceFlags(flags),
        );
        prop_assert_eq!(TraceContext::decode(&context.encode()), Some(context.clone()));
        prop_assert_eq!(TraceContext::from_traceparent(&context.to_traceparent(), None), Some(context));
    }
}
