//! Whatever comes: a typed error, never a panic, never a hang, and no allocation that a count announces.

#[allow(dead_code, reason = "every test binary uses another part of it")]
mod common;

use bytes::Bytes;
use dwell_messages::codec::{
    self, DEPTH_MAX, DecodeError, ELEMENTS_MAX, HEADER_BYTES, Header, MESSAGE_MAX_BYTES,
};
use dwell_messages::ids::RequestId;
use dwell_messages::kinds::MessageKind;
use dwell_messages::session::{Hello, Welcome};
use proptest::prelude::*;

use common::{encoded, hello, raw, welcome};

const START: u8 = MessageKind::Start.to_wire();
const EXITED: u8 = MessageKind::Exited.to_wire();

/// What decoding a body of `kind` says, with ids that are right for every kind.
fn refusal(kind: u8, body: &[u8]) -> DecodeError {
    codec::decode(&raw(kind, 3, 4, body)).expect_err("the body is hostile")
}

/// Decodes, and encodes again what could be decoded: nothing may panic on the way.
fn swallow(bytes: &Bytes) -> Result<(), DecodeError> {
    let decoded = codec::decode(bytes)?;
    let context = decoded.context.unwrap_or_default();
    let envelope = dwell_messages::Envelope::new(context, decoded.message);
    let again = codec::encode(&envelope, decoded.sequence).expect("what was decoded can be encoded");
    let twice = codec::decode(&again).expect("what was encoded can be decoded");
    assert_eq!(format!("{:?}", twice.message), format!("{:?}", envelope.body));
    Ok(())
}

#[test]
fn every_bit_flip_of_every_message_is_an_error_or_a_message() {
    let (mut errors, mut messages) = (0, 0);
    for kind in MessageKind::ALL {
        let bytes = encoded(*kind).to_vec();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match swallow(&flipped.into()) {
                Ok(()) => messages += 1,
                Err(_) => errors += 1,
            }
        }
    }
    assert!(
        errors > 1_000 && messages > 1_000,
        "{errors} errors, {messages} messages"
    );
}

#[test]
fn every_truncation_of_every_message_is_fatal() {
    for kind in MessageKind::ALL {
        let bytes = encoded(*kind);
        for length in 0..bytes.len() {
            let error = codec::decode(&bytes.slice(..length)).unwrap_err();
            match error {
                DecodeError::Truncated => assert!(length < HEADER_BYTES),
                DecodeError::Length { declared, actual } => {
                    assert_eq!((declared, actual), (bytes.len(), length));
                }
                other => panic!("{kind:?} cut to {length}: {other}"),
            }
        }
    }
}

/// The header is made to fit, so that the body itself ends early.
#[test]
fn every_truncated_body_is_refused_and_a_requests_is_answerable() {
    for kind in MessageKind::ALL {
        let bytes = encoded(*kind);
        let header = Header::read(&bytes).unwrap();
        let body_at = HEADER_BYTES + header.tracestate;
        for length in 0..header.body {
            let error = refusal(kind.to_wire(), &bytes[body_at..body_at + length]);
            let request = (kind.to_wire() < 0x40).then_some(RequestId(3));
            assert_eq!(error.request_id(), request, "{kind:?} cut to {length}: {error}");
        }
    }
}

#[test]
fn bytes_behind_a_message_and_behind_its_body_are_refused() {
    for kind in MessageKind::ALL {
        let bytes = encoded(*kind);
        let header = Header::read(&bytes).unwrap();
        let mut longer = bytes.to_vec();
        longer.push(0xc0);
        let error = codec::decode(&longer.into()).unwrap_err();
        assert!(matches!(error, DecodeError::Length { .. }), "{error}");

        let body_at = HEADER_BYTES + header.tracestate;
        let mut body = bytes[body_at..body_at + header.body].to_vec();
        body.push(0xc0);
        let error = refusal(kind.to_wire(), &body);
        if kind.to_wire() < 0x40 {
            assert!(matches!(error, DecodeError::BadBody { .. }), "{error}");
            assert!(error.to_string().contains("bytes follow"), "{error}");
        } else {
            assert_eq!(error, DecodeError::TrailingBytes);
        }
    }
}

#[test]
fn the_handshake_payloads_survive_every_flip_and_truncation() {
    let (hello, welcome) = (hello().encode().unwrap(), welcome().encode().unwrap());
    for length in 0..hello.len() {
        assert!(Hello::decode(&hello[..length]).is_err());
    }
    for length in 0..welcome.len() {
        assert!(Welcome::decode(&welcome[..length]).is_err());
    }
    for bytes in [hello, welcome] {
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Only that neither panics: a flipped letter is still a name.
            let _ = (Hello::decode(&flipped), Welcome::decode(&flipped));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = (Hello::decode(&bytes), Welcome::decode(&bytes));
        let _ = swallow(&bytes.into());
    }

    #[test]
    fn an_arbitrary_body_under_a_right_header_never_panics(
        kind in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = swallow(&raw(kind, 3, 4, &body));
    }

    #[test]
    fn several_changed_bytes_of_a_real_message_never_panic(
        kind in proptest::sample::select(MessageKind::ALL),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encoded(kind).to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = swallow(&bytes.into());
    }
}

/// `{"x": [[[…]]]}`: the map is the first level. An innermost empty array once passed one level too deep.
fn nested(depth: usize, head: u8, innermost: &[u8]) -> Vec<u8> {
    let mut body = vec![0x81, 0xa1, b'x'];
    body.extend(std::iter::repeat_n(head, depth - 2));
    body.extend(innermost);
    body
}

#[test]
fn nesting_is_bounded_whatever_lies_innermost() {
    for innermost in [&[0x90][..], &[0x91, 0xc0], &[0x80], &[0xdc, 0, 0]] {
        let body = nested(DEPTH_MAX, 0x91, innermost);
        // Deep enough to be allowed: what fails is the missing fields.
        let error = refusal(EXITED, &body);
        assert!(matches!(error, DecodeError::BadBody { .. }), "{error}");
        for depth in [DEPTH_MAX + 1, 1_000, 100_000] {
            let error = refusal(EXITED, &nested(depth, 0x91, innermost));
            assert_eq!(error, DecodeError::TooDeep { limit: DEPTH_MAX }, "depth {depth}");
            let error = refusal(START, &nested(depth, 0x91, innermost));
            assert_eq!(error.request_id(), Some(RequestId(3)));
            assert!(error.to_string().contains("deeper than 32"), "{error}");
        }
    }
}

#[test]
fn counts_that_announce_more_than_the_limit_are_refused_before_anything_is_allocated() {
    let limit = DecodeError::TooMany { limit: ELEMENTS_MAX };
    for head in [0xdd, 0xdf] {
        let mut body = vec![0x81, 0xa1, b'x', head];
        body.extend(u32::MAX.to_be_bytes());
        assert_eq!(refusal(EXITED, &body), limit);
        let over = u32::try_from(ELEMENTS_MAX + 1).unwrap();
        body.splice(4.., over.to_be_bytes());
        body.extend(vec![0xc0; 2 * (ELEMENTS_MAX + 1)]);
        assert_eq!(refusal(EXITED, &body), limit);
    }
    for head in [0xdc, 0xde] {
        // Within the limit, but nothing of it comes.
        assert_eq!(
            refusal(EXITED, &[0x81, 0xa1, b'x', head, 0xff, 0xff]),
            DecodeError::Truncated
        );
    }
}

/// Once an array passed with twice the elements, because a map's pairs count twice.
#[test]
fn an_array_of_65_537_elements_is_refused_and_one_of_65_536_is_not() {
    for (elements, refused) in [(ELEMENTS_MAX, false), (ELEMENTS_MAX + 1, true)] {
        let mut body = vec![0x82, 0xa1, b'v', 7, 0xa1, b'x', 0xdd];
        body.extend(u32::try_from(elements).unwrap().to_be_bytes());
        body.extend(vec![0; elements]);
        let decoded = codec::decode(&raw(MessageKind::Ack.to_wire(), 0, 0, &body));
        assert_eq!(decoded.is_err(), refused, "{elements}: {decoded:?}");
    }
}

#[test]
fn lengths_past_the_end_are_refused_for_every_type_that_has_one() {
    let announced: [&[u8]; 8] = [
        &[0xbf],
        &[0xc4, 0xff],
        &[0xc5, 0xff, 0xff],
        &[0xc6, 0xff, 0xff, 0xff, 0xff],
        &[0xd9, 0xff],
        &[0xda, 0xff, 0xff],
        &[0xdb, 0xff, 0xff, 0xff, 0xff],
        &[0xcf, 0, 0, 0],
    ];
    for value in announced {
        let body = [&[0x81, 0xa1, b'x'], value].concat();
        assert_eq!(refusal(EXITED, &body), DecodeError::Truncated, "{value:02x?}");
    }
}

#[test]
fn extension_types_and_the_reserved_byte_are_refused_also_where_nobody_reads_them() {
    for head in [0xc1, 0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8] {
        let mut body = vec![0x82, 0xa1, b'v', 7, 0xa1, b'x', head];
        body.extend([0; 20]);
        let error = refusal(MessageKind::Ack.to_wire(), &body);
        assert_eq!(error, DecodeError::ForbiddenType { head });
        assert_eq!(refusal(START, &body).request_id(), Some(RequestId(3)));
    }
}

#[test]
fn a_body_that_is_no_map_is_refused() {
    // serde reads a struct out of an array of its fields; the wire does not.
    for body in [
        &[0x91, 7][..],
        &[0x90],
        &[7],
        &[0xc0],
        &[0xa1, b'v'],
        &[0xdc, 0, 1, 7],
    ] {
        let error = refusal(MessageKind::Ack.to_wire(), body);
        assert!(error.to_string().contains("not a map"), "{error}");
        assert!(Hello::decode(body).is_err());
    }
}

#[test]
fn the_header_is_checked_field_by_field() {
    let good = encoded(MessageKind::Closed);
    let changed = |at: usize, bytes: &[u8]| {
        let mut message = good.to_vec();
        message[at..at + bytes.len()].copy_from_slice(bytes);
        codec::decode(&message.into()).unwrap_err()
    };
    for version in [0, 2, 255] {
        assert_eq!(changed(0, &[version]), DecodeError::Version { version });
    }
    for flags in [0x0002_u16, 0x8000, 0xffff, 0x0101] {
        let error = changed(2, &flags.to_be_bytes());
        assert_eq!(error, DecodeError::ReservedBits { flags });
    }
    assert!(matches!(changed(2, &[0, 0]), DecodeError::Length { .. }));
    assert!(matches!(changed(4, &[0, 0, 0, 1]), DecodeError::Length { .. }));
    let error = changed(4, &[0xff; 4]);
    assert!(matches!(error, DecodeError::TooLarge { .. }), "{error}");
    let error = changed(58, &[0xff; 2]);
    assert!(
        matches!(error, DecodeError::TooLarge { limit: 512, .. }),
        "{error}"
    );
    assert_eq!(
        changed(24, &[0; 8]),
        DecodeError::MissingId { kind: EXITED + 1 },
        "an event belongs to a process"
    );
}

#[test]
fn a_message_past_the_limit_is_refused_before_it_is_looked_at() {
    let bytes = Bytes::from(vec![0; MESSAGE_MAX_BYTES + 1]);
    let error = DecodeError::TooLarge {
        limit: MESSAGE_MAX_BYTES,
        actual: MESSAGE_MAX_BYTES + 1,
    };
    assert_eq!(codec::decode(&bytes), Err(error));
}

#[test]
fn an_unknown_method_is_answerable_and_any_other_unknown_kind_is_fatal() {
    for kind in (0..=u8::MAX).filter(|kind| MessageKind::from_wire(*kind).is_none()) {
        let error = refusal(kind, &[0xc1]);
        if (1..0x40).contains(&kind) {
            let id = RequestId(3);
            assert_eq!(error, DecodeError::UnknownMethod { id, kind });
            assert_eq!(error.request_id(), Some(id));
            let nameless = codec::decode(&raw(kind, 0, 4, &[0x80])).unwrap_err();
            assert_eq!(nameless.request_id(), None);
        } else {
            assert_eq!(error, DecodeError::UnknownKind { kind });
            assert_eq!(error.request_id(), None);
        }
    }
}

#[test]
fn no_kind_is_accepted_without_the_ids_it_needs() {
    for kind in MessageKind::ALL {
        let bytes = encoded(*kind);
        let header = Header::read(&bytes).unwrap();
        for (at, value) in [(16, header.id), (24, header.process)] {
            let mut nameless = bytes.to_vec();
            nameless[at..at + 8].fill(0);
            let error = codec::decode(&nameless.into()).err();
            assert_eq!(
                error.is_some(),
                value != 0,
                "{kind:?} without the id at {at}: {error:?}"
            );
            // A request that names itself, but no process, can still be told so.
            let answerable = at == 24 && kind.to_wire() < 0x40 && value != 0;
            let answered = error.and_then(|error| error.request_id()).is_some();
            assert_eq!(answered, answerable, "{kind:?}");
        }
    }
}
