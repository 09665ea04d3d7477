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
            if at == 4 {
                // Nothing behind it.
                span.truncate(5);
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
        ("span 2", 77.into(), "id", 77),
        ("span 4", 77.into(), "number", 4),
        ("shape n", 77.into(), "word", 77),
        ("shape f", true.into(), "span", 0),
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

#[test]
fn a_time_or_a_place_that_is_none_is_refused() {
    for (what, value) in [
        ("span 1", Pack::from(-1)),
        ("span 1", Pack::from(1_u64 << 32)),
        ("span 1", Pack::from(1.5)),
        ("span 2", Pack::from("x")),
        ("span 3", Pack::from(true)),
        ("span 4", Pack::Nil),
    ] {
        let error = altered(what, value.clone()).unpack().unwrap_err();
        assert!(
            matches!(error, UnpackError::Malformed(_)),
            "{what} {value}: {error}"
        );
    }
}

/// A wait in a mailbox and the turn behind it.
fn wait_and_turn() -> [Span; 2] {
    let wait = call(1).remove(0);
    let mut turn = wait.clone();
    turn.name = "turn TerminalDelivery".into();
    turn.span_id[7] ^= 1;
    turn.start_unix_ns = wait.end_unix_ns;
    turn.end_unix_ns = turn.start_unix_ns + 3_000;
    [wait, turn]
}

#[test]
fn a_turn_behind_its_wait_takes_a_few_bytes() {
    let [wait, turn] = wait_and_turn();
    let pairs = |pairs: usize| -> Vec<Span> { vec![[wait.clone(), turn.clone()]; pairs].concat() };
    let of = |spans: &[Span]| PackedSpans::pack(spans).unwrap().len();
    let pair = of(&pairs(101)) - of(&pairs(100));
    assert!(pair <= 34, "a wait and a turn more take {pair} bytes");
    // The control: one that is not quite behind it has an id, a parent and a link of its own.
    let apart = |spans: Vec<Span>| {
        let apart = |mut span: Span| {
            span.start_unix_ns += u64::from(span.name.starts_with("turn"));
            span
        };
        spans.into_iter().map(apart).collect::<Vec<_>>()
    };
    let more = of(&apart(pairs(101))) - of(&apart(pairs(100)));
    assert!(more >= pair + 12, "{more} bytes for two that are apart");
}

#[test]
fn what_almost_follows_is_told_as_it_is() {
    let change: [fn(&mut Span); 8] = [
        |_| {},
        |turn| turn.trace_id[0] ^= 1,
        |turn| turn.span_id[7] ^= 2,
        |turn| turn.span_id[0] ^= 1,
        |turn| turn.parent = [0; 8],
        |turn| turn.link = None,
        |turn| turn.link = Some([98; 8]),
        |turn| turn.start_unix_ns -= 1,
    ];
    for (at, change) in change.into_iter().enumerate() {
        let [wait, mut turn] = wait_and_turn();
        change(&mut turn);
        let third = Span {
            parent: turn.span_id,
            ..wait.clone()
        };
        let spans = vec![wait, turn, third];
        assert_eq!(
            PackedSpans::pack(&spans).unwrap().unpack(),
            Ok(spans),
            "change {at}"
        );
    }
}

#[test]
fn any_two_times_can_follow_each_other() {
    for (start, end) in [
        (0, u64::MAX),
        (u64::MAX, 0),
        (1 << 63, 0),
        (5, 4),
        (u64::MAX, u64::MAX),
    ] {
        let mut spans = call(3);
        (spans[1].start_unix_ns, spans[1].end_unix_ns) = (start, end);
        assert_eq!(
            PackedSpans::pack(&spans).unwrap().unpack(),
            Ok(spans),
            "{start} to {end}"
        );
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
