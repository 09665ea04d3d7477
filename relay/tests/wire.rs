//! Decoders against arbitrary bytes and arbitrary cuts, and the bytes themselves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use bytes::{BufMut, BytesMut};
use dwell_messages::kinds::OuterKind;
use dwell_messages::{PublicKey, StreamId};
use dwell_relay::chunk::{ChunkError, ChunkHeader};
use dwell_relay::control::ControlError;
use dwell_relay::first_message::{FIRST_MESSAGE_MAX_BYTES, FIRST_MESSAGE_MIN_BYTES, MacKey};
use dwell_relay::inquiry::{self, InquiryError};
use dwell_relay::opening::{Attestation, OpenError, split_open};
use dwell_relay::outer::{DATA_MAX_BYTES, OUTER_HEADER_BYTES, OuterError, READ_BUFFER_BYTES, payload_bounds};
use dwell_relay::pairing::{self, PairingHash};
use dwell_relay::preamble::{PREAMBLE_BYTES, PreambleError};
use dwell_relay::source::SourceTag;
use dwell_relay::strangers::Vouching;
use dwell_relay::{
    Dialer, Lane, OuterDecoder, OuterFrame, Preamble, PreambleDecoder, Refusal, RefusalReason, Reset,
    ResetCode, encode_outer,
};
use proptest::collection::vec;
use proptest::prelude::*;

use support::{STREAM, drain, frames_of};

fn fed(bytes: &[u8]) -> OuterDecoder {
    let mut decoder = OuterDecoder::new();
    decoder.feed(BytesMut::from(bytes));
    decoder
}

fn header(kind: u8, length: u32) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u32(length);
    bytes.put_u8(kind);
    bytes.put_bytes(0, OUTER_HEADER_BYTES - 5);
    bytes
}

#[test]
fn the_preamble_is_these_64_bytes() {
    let preamble = Preamble::new(
        Dialer::Harness,
        PublicKey([0xaa; 32]),
        StreamId([0xbb; 16]),
        b"tok",
    )
    .unwrap();
    let mut golden = b"dwell\r\n\x1a\x00\x01\x00\x01\x00\x01\x01\x03".to_vec();
    golden.extend([0xaa; 32]);
    golden.extend([0xbb; 16]);
    assert_eq!(preamble.encode().to_vec(), golden);
    assert_eq!(Preamble::decode(&preamble.encode()), Ok(preamble));
}

#[test]
fn an_inquiry_and_its_answer_are_these_64_bytes() {
    let (expected, served) = (PublicKey([0xaa; 32]), PublicKey([0xdd; 32]));
    let stream = StreamId([0xbb; 16]);
    let golden = |key: u8| {
        let mut golden = b"dwell\r\n\x1a\x00\x01\x00\x01\x00\x01\x03\x00".to_vec();
        golden.extend([key; 32]);
        golden.extend([0xbb; 16]);
        golden
    };
    let question = inquiry::question(expected, stream);
    assert_eq!(question.to_vec(), golden(0xaa));
    let answer = inquiry::answer(&Preamble::decode(&question).unwrap(), served);
    assert_eq!(answer.to_vec(), golden(0xdd));
    assert_eq!(inquiry::read_answer(&answer, stream), Ok(served));
}

#[test]
fn what_is_no_answer_to_this_question_is_told() {
    let stream = StreamId([0xbb; 16]);
    let good = inquiry::question(PublicKey([0xdd; 32]), stream);
    assert_eq!(
        inquiry::read_answer(&good, StreamId([1; 16])),
        Err(InquiryError::Mismatch)
    );
    let hello = Preamble::new(Dialer::Harness, PublicKey([0xdd; 32]), stream, b"").unwrap();
    assert_eq!(
        inquiry::read_answer(&hello.encode(), stream),
        Err(InquiryError::Mismatch)
    );
    let nobody = inquiry::question(PublicKey([0; 32]), stream);
    assert_eq!(inquiry::read_answer(&nobody, stream), Err(InquiryError::Key));
    assert!(matches!(
        inquiry::read_answer(&[b'G'; 64], stream),
        Err(InquiryError::Preamble(PreambleError::Magic))
    ));
}

#[test]
fn the_authorization_of_a_pairing_is_these_bytes() {
    let code = [7; 16];
    let bytes = pairing::authorization(&code);
    assert_eq!(bytes, [&b"pair1:"[..], &code].concat());
    assert_eq!(pairing::presented(&bytes), Some(&code));
    let hash = PairingHash::of(&code);
    assert!(hash.matches(&code));
    assert!(!hash.matches(&[8; 16]));
    for wrong in [&bytes[..21], &bytes[1..], b"", &[&bytes[..], b"x"].concat()] {
        assert_eq!(pairing::presented(wrong), None);
    }
}

#[test]
fn the_mac_of_message_1_is_these_bytes() {
    let executor = PublicKey([0xaa; 32]);
    let preamble = Preamble::new(Dialer::Harness, executor, StreamId([0xbb; 16]), b"tok")
        .unwrap()
        .encode();
    let mut message = vec![0xee; FIRST_MESSAGE_MIN_BYTES - 16];
    MacKey::of(&executor).append(&preamble, &mut message);
    assert_eq!(message.len(), FIRST_MESSAGE_MIN_BYTES);
    let mac: String = message[FIRST_MESSAGE_MIN_BYTES - 16..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(mac, "fa695bd344c87196cdbcd9f1cdc8851f");
    let noise = &message[..FIRST_MESSAGE_MIN_BYTES - 16];
    assert_eq!(
        MacKey::of(&executor)
            .check(&preamble, &message)
            .map(|(noise, _)| noise),
        Some(noise)
    );
}

#[test]
fn a_mac_is_of_one_message_one_preamble_and_one_executor() {
    let executor = PublicKey([0xaa; 32]);
    let preamble = support::harness_preamble(executor).encode();
    let key = MacKey::of(&executor);
    let mut message = vec![0xee; FIRST_MESSAGE_MIN_BYTES];
    key.append(&preamble, &mut message);
    assert!(key.check(&preamble, &message).is_some(), "positive control");
    for bit in 0..message.len() * 8 {
        let mut changed = message.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(key.check(&preamble, &changed).is_none(), "bit {bit}");
    }
    for byte in 0..PREAMBLE_BYTES {
        let mut changed = preamble;
        changed[byte] ^= 1;
        assert!(
            key.check(&changed, &message).is_none(),
            "byte {byte} of the preamble"
        );
    }
    assert!(
        MacKey::of(&PublicKey([0xab; 32]))
            .check(&preamble, &message)
            .is_none()
    );
    // Of another length than a message 1 has, right or not.
    for length in [0, FIRST_MESSAGE_MIN_BYTES - 17, FIRST_MESSAGE_MAX_BYTES - 15] {
        let mut message = vec![0xee; length];
        key.append(&preamble, &mut message);
        assert!(key.check(&preamble, &message).is_none(), "{length}");
    }
}

#[test]
fn an_opening_is_these_bytes() {
    let preamble = support::harness_preamble(PublicKey([0xaa; 32]));
    let attestation = Attestation {
        vouching: Vouching::Vouched,
        source: SourceTag([1, 2, 3, 4, 5, 6, 7, 8]),
    };
    let mut golden = preamble.encode().to_vec();
    golden.extend([0x01, 1, 2, 3, 4, 5, 6, 7, 8]);
    golden.extend([0xee; 128]);
    let head = [&preamble.encode()[..], &attestation.encode(), &[0xee; 128]].concat();
    assert_eq!(head, golden);
    let (read, attested, message) = split_open(BytesMut::from(&golden[..])).unwrap();
    assert_eq!((read, attested), (preamble, attestation));
    assert_eq!(message, [0xee; 128][..]);
    golden[PREAMBLE_BYTES] = 2;
    assert_eq!(
        split_open(BytesMut::from(&golden[..])),
        Err(OpenError::Reserved { flags: 2 })
    );
    assert_eq!(
        split_open(BytesMut::from(&golden[..72])),
        Err(OpenError::Truncated { actual: 72 })
    );
}

#[test]
fn a_stranger_may_send_no_frame_longer_than_message_1() {
    for kind in OuterKind::ALL {
        let (min, max) = payload_bounds(*kind);
        let mut decoder = OuterDecoder::new();
        decoder.set_stranger(true);
        let length = max.min(FIRST_MESSAGE_MAX_BYTES);
        decoder.feed(header(kind.to_wire(), u32::try_from(length.max(min)).unwrap()));
        assert_eq!(decoder.next_frame(), Ok(None), "{kind:?}: positive control");
        if max > FIRST_MESSAGE_MAX_BYTES {
            let mut decoder = OuterDecoder::new();
            decoder.set_stranger(true);
            decoder.feed(header(
                kind.to_wire(),
                u32::try_from(FIRST_MESSAGE_MAX_BYTES + 1).unwrap(),
            ));
            assert!(
                matches!(decoder.next_frame(), Err(OuterError::Length { .. })),
                "{kind:?}"
            );
        }
    }
    let mut decoder = OuterDecoder::new();
    decoder.set_stranger(true);
    assert!(decoder.buffer_mut().capacity() <= 4 * 1024, "and reads are small");
}

#[test]
fn a_decoder_has_little_room_until_a_frame_needs_more_and_gives_back_what_nothing_waits_in() {
    let most = 2 * READ_BUFFER_BYTES;
    let mut frame = BytesMut::new();
    let payload = vec![7; DATA_MAX_BYTES];
    encode_outer(&mut frame, OuterKind::Data, StreamId([1; 16]), 0, &payload);
    let mut decoder = OuterDecoder::new();
    assert!(decoder.buffer_mut().capacity() <= most);
    decoder.buffer_mut().extend_from_slice(&frame[..100]);
    assert_eq!(decoder.next_frame(), Ok(None));
    let buffer = decoder.buffer_mut();
    let room = buffer.capacity() - buffer.len();
    assert!(room >= frame.len() - 100, "{room} bytes for the rest of a frame");
    assert!(!decoder.shrink(), "a frame waits for its rest");
    decoder.buffer_mut().extend_from_slice(&frame[100..]);
    let whole = decoder.next_frame().unwrap().unwrap();
    assert_eq!(whole.payload, payload);
    assert!(decoder.shrink());
    assert!(decoder.buffer_mut().capacity() <= most);
}

#[test]
fn an_outer_frame_is_these_bytes() {
    let mut out = BytesMut::new();
    encode_outer(
        &mut out,
        OuterKind::Ping,
        StreamId([0xcc; 16]),
        0x0102_0304,
        b"12345678",
    );
    let mut golden = vec![0, 0, 0, 8, 0x08, 0, 0, 0];
    golden.extend([0xcc; 16]);
    golden.extend([1, 2, 3, 4]);
    golden.extend(b"12345678");
    assert_eq!(out.to_vec(), golden);
}

#[test]
fn a_chunk_header_is_these_bytes() {
    let mut out = BytesMut::new();
    let header = ChunkHeader {
        lane: Lane::Bulk,
        channel: 0x0102_0304,
        first: true,
        last: false,
        length: 0x0506,
    };
    header.encode(&mut out);
    assert_eq!(out.to_vec(), [1, 2, 3, 4, 0b0011_0001, 5, 6]);
}

#[test]
fn a_length_out_of_bounds_is_rejected_on_the_header() {
    for kind in OuterKind::ALL {
        let (min, max) = payload_bounds(*kind);
        for length in [max as u32 + 1, u32::MAX, i32::MAX as u32 + 1] {
            let mut decoder = fed(&header(kind.to_wire(), length));
            assert!(
                matches!(decoder.next_frame(), Err(OuterError::Length { .. })),
                "{kind:?} {length}"
            );
            assert_eq!(decoder.buffered(), 0, "nothing is kept of what is refused");
        }
        if min > 0 {
            let mut decoder = fed(&header(kind.to_wire(), min as u32 - 1));
            assert!(
                matches!(decoder.next_frame(), Err(OuterError::Length { .. })),
                "{kind:?} too short"
            );
        }
        // Positive control: the bounds themselves pass the header.
        let mut decoder = fed(&header(kind.to_wire(), max as u32));
        assert_eq!(decoder.next_frame(), Ok(None), "{kind:?}");
    }
}

#[test]
fn unknown_kinds_and_reserved_bits_are_rejected_and_stay_rejected() {
    let mut decoder = fed(&header(0x55, 8));
    assert_eq!(decoder.next_frame(), Err(OuterError::Kind { kind: 0x55 }));
    decoder.feed(header(OuterKind::Ping.to_wire(), 8));
    assert_eq!(decoder.next_frame(), Err(OuterError::Kind { kind: 0x55 }));
    for byte in [5, 6, 7] {
        let mut bytes = header(OuterKind::Ping.to_wire(), 8);
        bytes[byte] = 1;
        assert_eq!(
            fed(&bytes).next_frame(),
            Err(OuterError::Reserved {
                kind: OuterKind::Ping
            })
        );
    }
}

#[test]
fn what_is_not_dwell_is_told_by_its_first_bytes() {
    let mut decoder = PreambleDecoder::new();
    decoder.feed(BytesMut::from(&b"GET /"[..]));
    assert_eq!(decoder.decode().unwrap_err(), PreambleError::Magic);
}

#[test]
fn preambles_with_bad_fields_are_named() {
    let good = support::harness_preamble(PublicKey([9; 32])).encode();
    let mut role = good;
    role[14] = 4;
    assert_eq!(Preamble::decode(&role), Err(PreambleError::Role { role: 4 }));
    let mut range = good;
    range[9] = 2;
    assert_eq!(
        Preamble::decode(&range),
        Err(PreambleError::VersionRange { min: 2, max: 1 })
    );
    let long = vec![0; 256];
    assert_eq!(
        Preamble::new(Dialer::Harness, PublicKey([9; 32]), STREAM, &long),
        Err(PreambleError::TokenLength { actual: 256 })
    );
}

#[test]
fn a_version_or_suite_not_served_is_refused_with_what_is() {
    let mut preamble = support::harness_preamble(PublicKey([9; 32]));
    assert_eq!(preamble.agree(), Ok(1), "positive control");
    preamble.version_max = 7;
    assert_eq!(preamble.agree(), Ok(1), "a range that reaches us is served");
    preamble.version_min = 6;
    let refusal = preamble.agree().unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Version);
    assert_eq!((refusal.version_min, refusal.version_max), (1, 1));
    let text = refusal.to_string();
    assert!(
        text.contains("wire versions 1 to 1") && text.contains("upgrade"),
        "{text}"
    );
    let mut preamble = support::harness_preamble(PublicKey([9; 32]));
    preamble.suite = 99;
    assert_eq!(preamble.agree().unwrap_err().reason, RefusalReason::Suite);
}

#[test]
fn control_payloads_come_back_as_they_were() {
    for code in [ResetCode::Unavailable, ResetCode::Protocol, ResetCode::Other(777)] {
        let reset = Reset::with_text(code, "über");
        let mut payload = BytesMut::new();
        reset.encode(&mut payload);
        assert_eq!(Reset::decode(&payload), Ok(reset));
    }
    let refusal = Refusal::ours(RefusalReason::Superseded, "newer");
    let mut payload = BytesMut::new();
    refusal.encode(&mut payload);
    assert_eq!(Refusal::decode(&payload), Ok(refusal));
}

#[test]
fn control_texts_are_bounded_cleaned_and_never_cut_inside_a_character() {
    let mut payload = BytesMut::new();
    Reset::with_text(ResetCode::Closed, &"é".repeat(300)).encode(&mut payload);
    assert_eq!(Reset::decode(&payload).unwrap().text.len(), 256);
    let mut payload = BytesMut::from(&[0, 1][..]);
    payload.put_slice(b"a\x1b[31m\nb");
    assert_eq!(Reset::decode(&payload).unwrap().text, "a[31mb");
    let mut payload = BytesMut::from(&[0, 1][..]);
    payload.put_slice(&[0xff, 0xfe]);
    assert_eq!(Reset::decode(&payload), Err(ControlError::Text));
    assert_eq!(
        Refusal::decode(&[0, 1, 0, 1, 0, 1, 9]),
        Err(ControlError::Suites { actual: 9 })
    );
}

#[test]
fn every_malformed_chunk_header_has_its_error() {
    let decode = |bytes: &[u8]| ChunkHeader::decode(&mut &bytes[..]);
    assert_eq!(decode(&[0, 0, 0, 0, 3, 0]), Err(ChunkError::Truncated));
    assert_eq!(decode(&[0, 0, 0, 0, 3, 0, 2, 1]), Err(ChunkError::Truncated));
    assert_eq!(decode(&[0, 0, 0, 0, 3, 0, 0]), Err(ChunkError::Empty));
    assert_eq!(
        decode(&[0, 0, 0, 0, 0b0110_0011, 0, 1, 1]),
        Err(ChunkError::UnknownLane { lane: 6 })
    );
    assert_eq!(
        decode(&[0, 0, 0, 0, 0b0000_0111, 0, 1, 1]),
        Err(ChunkError::Reserved { flags: 7 })
    );
    assert!(decode(&[0, 0, 0, 0, 3, 0, 1, 1]).is_ok(), "positive control");
}

fn some_frames() -> impl Strategy<Value = Vec<OuterFrame>> {
    let frame = (
        0..OuterKind::ALL.len(),
        any::<[u8; 16]>(),
        any::<u32>(),
        vec(any::<u8>(), 0..600),
    )
        .prop_map(|(kind, stream, stamp_us, bytes)| {
            let kind = OuterKind::ALL[kind];
            let (min, max) = payload_bounds(kind);
            let mut payload = BytesMut::from(&bytes[..bytes.len().min(max)]);
            payload.resize(payload.len().max(min), 0);
            OuterFrame {
                kind,
                stream: StreamId(stream),
                stamp_us,
                payload,
            }
        });
    vec(frame, 1..8)
}

proptest! {
    #[test]
    fn frames_come_back_however_the_bytes_are_cut(frames in some_frames(), cuts in vec(1..200_usize, 1..64)) {
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encode_outer(&mut bytes, frame.kind, frame.stream, frame.stamp_us, &frame.payload);
        }
        prop_assert_eq!(&frames_of(bytes.clone()), &frames);
        // Pieces of one allocation, as a driver's split reads make them.
        let mut decoder = OuterDecoder::new();
        let mut rest = bytes.clone();
        let mut received = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            decoder.feed(rest.split_to((*cut).min(rest.len())));
            received.extend(drain(&mut decoder));
        }
        prop_assert_eq!(&received, &frames);
        // Single bytes of allocations of their own.
        let mut decoder = OuterDecoder::new();
        let mut received = Vec::new();
        for byte in &bytes {
            decoder.feed(BytesMut::from(&[*byte][..]));
            received.extend(drain(&mut decoder));
        }
        prop_assert_eq!(&received, &frames);
        // Read into the decoder's own buffer.
        let mut decoder = OuterDecoder::new();
        decoder.buffer_mut().put_slice(&bytes);
        prop_assert_eq!(&drain(&mut decoder), &frames);
    }

    #[test]
    fn arbitrary_bytes_never_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..400)) {
        let mut decoder = fed(&bytes);
        while let Ok(Some(_)) = decoder.next_frame() {}
        let _ = Reset::decode(&bytes);
        let _ = Refusal::decode(&bytes);
        let _ = ChunkHeader::decode(&mut &bytes[..]);
        let _ = split_open(BytesMut::from(&bytes[..]));
        let mut decoder = PreambleDecoder::new();
        decoder.feed(BytesMut::from(&bytes[..]));
        let _ = decoder.decode();
    }

    #[test]
    fn whatever_decodes_as_a_preamble_encodes_to_the_same_bytes(tail in any::<[u8; 32]>(), fields in any::<[u8; 24]>()) {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..8].copy_from_slice(b"dwell\r\n\x1a");
        bytes[8..32].copy_from_slice(&fields);
        bytes[14] = 1 + fields[6] % 3;
        bytes[32..].copy_from_slice(&tail);
        if let Ok(preamble) = Preamble::decode(&bytes) {
            prop_assert_eq!(preamble.encode(), bytes);
        }
    }

    #[test]
    fn a_preamble_and_its_token_come_back_however_the_bytes_are_cut(token in vec(any::<u8>(), 0..=255), cut in 1..64_usize) {
        let preamble = Preamble::new(Dialer::Executor, PublicKey([3; 32]), STREAM, &token).unwrap();
        let mut bytes = BytesMut::from(&preamble.encode()[..]);
        bytes.put_slice(&token);
        encode_outer(&mut bytes, OuterKind::Ping, STREAM, 0, b"abcdefgh");
        let mut decoder = PreambleDecoder::new();
        let mut found = None;
        while !bytes.is_empty() && found.is_none() {
            decoder.feed(bytes.split_to(cut.min(bytes.len())));
            found = decoder.decode().unwrap();
        }
        let (read, read_token) = found.unwrap();
        prop_assert_eq!(read, preamble);
        prop_assert_eq!(&read_token[..], &token[..]);
        let mut frames = decoder.into_frames();
        frames.feed(bytes);
        prop_assert_eq!(drain(&mut frames).len(), 1);
    }
}
