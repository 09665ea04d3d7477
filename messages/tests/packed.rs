//! Packed spans: what a block may hold, what it costs, and what becomes of one that a faulty peer made.

use dwell_messages::span::{PACKED_MAX_BYTES, PACKED_SPANS_MAX, UNPACKED_TEXT_MAX_BYTES, UnpackError};
use dwell_messages::{PackedSpans, Span, SpanKind, Value};
use rmpv::Value as Pack;
use serde_bytes::ByteBuf;

/// As the executor's spans of a call are: each names its actor and its message, and hangs below another.
fn call(spans: u8) -> Vec<Span> {
    let span = |at: u8| Span {
        trace_id: [7; 16],
        span_id: [at + 1; 8],
        parent: [at; 8],
        name: "mailbox TerminalDelivery".into(),
        kind: if at == 0 {
            SpanKind::Server
        } else {
            SpanKind::Internal
        },
        start_unix_ns: 1_800_000_000_000_000_000 + u64::from(at) * 40_000,
        end_unix_ns: 1_800_000_000_000_000_000 + u64::from(at) * 41_000,
        attributes: vec![
            ("actor.name".into(), Value::Str("TerminalDelivery".into())),
            ("actor.message".into(), Value::Str("Output".into())),
            ("actor.mailbox.depth".into(), Value::I64(1)),
            ("messaging.is_remote".into(), Value::Bool(at == 0)),
        ],
        link: Some([99; 8]),
        error: None,
    };
    (0..spans).map(span).collect()
}

/// A block of these bytes, as one comes from a peer.
fn block(bytes: Vec<u8>) -> PackedSpans {
    let body = rmp_serde::to_vec(&ByteBuf::from(bytes)).expect("bytes are written");
    rmp_serde::from_slice(&body).expect("and read")
}

fn bytes_of(packed: &PackedSpans) -> Vec<u8> {
    let body = rmp_serde::to_vec(packed).expect("a block is written");
    rmp_serde::from_slice::<ByteBuf>(&body)
        .expect("as bytes")
        .into_vec()
}

/// A block of one span, with one thing changed: a field of the block, of its shape, or an element of its span.
fn altered(what: &str, value: Pack) -> PackedSpans {
    let mut bytes = &bytes_of(&PackedSpans::pack(&call(1)).expect("one has room"))[..];
    let mut whole = rmpv::decode::read_value(&mut bytes).expect("a block is MessagePack");
    let list = |list: &str, whole: &mut Pack| match whole {
        Pack::Map(fields) => {
            let at = fields.iter().position(|(key, _)| key.as_str() == Some(list));
            at.expect("the block has it")
        }
        other => panic!("{other} is no map"),
    };
    let inside = |name: &str, whole: &mut Pack| {
        let at = list(name, whole);
        let Pack::Map(fields) = whole else { unreachable!() };
        let Pack::Array(elements) = &mut fields[at].1 else {
            panic!("{name} is an array")
        };
        std::mem::replace(&mut elements[0], Pack::Nil)
    };
    let back = |name: &str, element: Pack, whole: &mut Pack| {
        let at = list(name, whole);
        let Pack::Map(fields) = whole else { unreachable!() };
        fields[at].1 = Pack::Array(vec![element]);
    };
    let set = |fields: &mut Pack, name: &str, value: Pack| {
        let Pack::Map(fields) = fields else {
            panic!("no map")
        };
        fields.retain(|(key, _)| key.as_str() != Some(name));
        fields.push((name.into(), value));
    };
    match what.split_once(' ') {
        Some(("shape", name)) => {
            let mut shape = inside("m", &mut whole);
            set(&mut shape, name, value);
            back("m", shape, &mut whole);
        }
        Some(("span", at)) => {
            let Pack::Array(mut span) = inside("s", &mut whole) else {
                panic!("a span is an array")
            };
            let at: usize = at.parse().expect("a place");
            span[at] = value;
            if at == 3 {
                // Nothing behind it.
                span.truncate(4);
            }
            back("s", Pack::Array(span), &mut whole);
        }
        _ => set(&mut whole, what, value),
    }
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, &whole).expect("a value is written");
    block(out)
}

#[test]
fn what_spans_share_is_sent_once() {
    let spans = call(32);
    let packed = PackedSpans::pack(&spans).unwrap();
    let apart = rmp_serde::to_vec_named(&spans).unwrap();
    assert!(
        5 * packed.len() < apart.len(),
        "{} packed, {} apart",
        packed.len(),
        apart.len()
    );
    assert_eq!(packed.unpack(), Ok(spans));
}

#[test]
fn no_bytes_are_no_spans() {
    let none = PackedSpans::pack(&[]).unwrap();
    assert!(none.is_empty());
    assert_eq!(none.unpack(), Ok(Vec::new()));
}

#[test]
fn more_spans_or_bytes_than_a_block_may_hold_are_not_packed() {
    let one = call(1).remove(0);
    assert!(PackedSpans::pack(&vec![one.clone(); PACKED_SPANS_MAX]).is_some());
    assert_eq!(PackedSpans::pack(&vec![one.clone(); PACKED_SPANS_MAX + 1]), None);
    let long = |bytes: usize| Span {
        name: "x".repeat(bytes).into(),
        ..one.clone()
    };
    assert!(PackedSpans::pack(&[long(PACKED_MAX_BYTES - 512)]).is_some());
    assert_eq!(PackedSpans::pack(&[long(PACKED_MAX_BYTES)]), None);
}

#[test]
fn a_number_past_the_end_of_its_list_is_refused() {
    assert!(altered("shape n", 0.into()).unpack().is_ok(), "the control");
    let word = Pack::Array(vec![Pack::Array(vec![0.into(), 77.into()])]);
    let name = Pack::Array(vec![Pack::Array(vec![77.into(), true.into()])]);
    for (what, value, list, index) in [
        ("span 0", 77.into(), "shape", 77),
        ("span 1", 77.into(), "id", 76),
        ("span 3", 77.into(), "number", 0),
        ("shape n", 77.into(), "word", 77),
        ("shape l", 77.into(), "id", 77),
        ("shape x", 77.into(), "word", 77),
        ("shape a", word, "word", 77),
        ("shape a", name, "word", 77),
        ("t", Pack::Binary(vec![1; 15]), "trace", 0),
        ("c", Pack::Array(vec![]), "trace", 1),
        ("i", Pack::Binary(vec![1; 7]), "id", 0),
        ("w", Pack::Array(vec![]), "word", 1),
    ] {
        match altered(what, value).unpack().unwrap_err() {
            UnpackError::OutOfRange {
                what: named,
                index: at,
                count,
            } => {
                assert_eq!(named, list, "{what}");
                assert!(
                    at == index || named == "word" && count == 0,
                    "{what}: {at} of {count}"
                );
            }
            other => panic!("{what}: {other}"),
        }
    }
}

/// What a later version says besides is passed over.
#[test]
fn what_is_not_known_is_passed_over() {
    let more = altered("z", 1.into());
    assert_eq!(more.unpack(), Ok(call(1)));
    assert_eq!(altered("shape z", "later".into()).unpack(), Ok(call(1)));
    assert_eq!(altered("c", Pack::Array(vec![9.into()])).unpack(), Ok(call(1)));
}

/// A long word that many attributes name, in a block of a few kilobytes.
#[test]
fn a_small_block_cannot_stand_for_much_text() {
    let times = |times: usize| {
        let mut span = call(1).remove(0);
        // One word for all of them is one that lies in one place, as constants do.
        let word: &'static str = "w".repeat(UNPACKED_TEXT_MAX_BYTES / 32).leak();
        span.attributes = vec![("n".into(), Value::Str(word.into())); times];
        PackedSpans::pack(&[span]).unwrap().unpack()
    };
    assert!(times(31).is_ok(), "the control");
    assert_eq!(
        times(33).unwrap_err(),
        UnpackError::TooMany {
            what: "bytes of text",
            limit: UNPACKED_TEXT_MAX_BYTES
        }
    );
}

#[test]
fn a_block_past_its_limits_is_refused_before_it_is_read() {
    let limit = |packed: PackedSpans| match packed.unpack().unwrap_err() {
        UnpackError::TooMany { what, limit } => (what, limit),
        other => panic!("{other}"),
    };
    assert_eq!(
        limit(block(vec![0xc1; PACKED_MAX_BYTES + 1])),
        ("bytes", PACKED_MAX_BYTES)
    );
    let small = Pack::Array(vec![0.into(); 4]);
    let many = altered("s", Pack::Array(vec![small; PACKED_SPANS_MAX + 1]));
    assert_eq!(limit(many), ("spans", PACKED_SPANS_MAX));
}

/// No panic, and the error is short enough for a log.
#[test]
fn every_flip_and_every_cut_of_a_block_is_an_error_or_spans() {
    let whole = bytes_of(&PackedSpans::pack(&call(3)).unwrap());
    let (mut errors, mut read) = (0, 0);
    let mut look = |bytes: Vec<u8>| match block(bytes).unpack() {
        Ok(spans) => {
            assert!(spans.len() <= PACKED_SPANS_MAX);
            read += 1;
        }
        Err(error) => {
            assert!(error.to_string().len() < 256, "{error}");
            errors += 1;
        }
    };
    for bit in 0..8 * whole.len() {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        look(flipped);
    }
    (1..whole.len()).for_each(|length| look(whole[..length].to_vec()));
    assert!(errors > 500 && read > 500, "{errors} errors, {read} read");
}
