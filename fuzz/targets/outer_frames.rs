//! The frames that a relay sees, however the bytes are cut: what a second reader, written from PROTOCOL.md, makes of them.
#![no_main]

use bytes::BytesMut;
use dwell_fuzz::Script;
use dwell_messages::kinds::OuterKind;
use dwell_relay::outer::{DATA_MAX_BYTES, OUTER_HEADER_BYTES, OuterError, READ_BUFFER_BYTES};
use dwell_relay::{OuterDecoder, OuterFrame, encode_outer};
use libfuzzer_sys::fuzz_target;

/// Up to this length every cut into two is tried.
const EVERY_CUT_MAX_BYTES: usize = 96;

/// What the bytes are by the protocol's page.
#[derive(PartialEq, Eq, Debug)]
enum End {
    Incomplete(usize),
    Kind,
    Reserved,
    Length,
}

fn reference(mut bytes: &[u8]) -> (usize, End) {
    let mut frames = 0;
    loop {
        let Some((header, rest)) = bytes.split_first_chunk::<28>() else {
            return (frames, End::Incomplete(bytes.len()));
        };
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let (least, most) = match header[4] {
            1 => (1, 16_384),
            2 => (185, 4_537),
            3 => (16, 32_784),
            4 => (2, 258),
            5 | 8 | 9 => (8, 8),
            6 => (7, 279),
            7 => (2, 2),
            _ => return (frames, End::Kind),
        };
        if header[5..8] != [0; 3] {
            return (frames, End::Reserved);
        }
        if !(least..=most).contains(&length) {
            return (frames, End::Length);
        }
        if rest.len() < length {
            return (frames, End::Incomplete(bytes.len()));
        }
        frames += 1;
        bytes = &rest[length..];
    }
}

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<OuterFrame>, End) {
    let mut decoder = OuterDecoder::new();
    let mut frames = Vec::new();
    let (mut fed, mut taken) = (0, 0);
    for piece in pieces {
        decoder.buffer_mut().extend_from_slice(piece);
        fed += piece.len();
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    taken += OUTER_HEADER_BYTES + frame.payload.len();
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next_frame(), Err(error), "it stays at its error");
                    assert_eq!(decoder.buffered(), 0, "and keeps nothing");
                    let end = match error {
                        OuterError::Kind { .. } => End::Kind,
                        OuterError::Reserved { .. } => End::Reserved,
                        OuterError::Length { .. } => End::Length,
                    };
                    return (frames, end);
                }
            }
        }
        assert_eq!(decoder.buffered(), fed - taken, "what is not given out waits");
        assert!(decoder.buffered() < OUTER_HEADER_BYTES + DATA_MAX_BYTES);
        let most = READ_BUFFER_BYTES.max(piece.len()) + DATA_MAX_BYTES;
        assert!(decoder.buffer_mut().capacity() <= 2 * most);
    }
    (frames, End::Incomplete(decoder.buffered()))
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let residence = u32::from(script.u16()) << 16;
    let stream = script.clone().rest();
    let whole = decode([stream]);
    let (count, end) = reference(stream);
    assert_eq!((whole.0.len(), &whole.1), (count, &end));

    let mut again = BytesMut::new();
    for frame in &whole.0 {
        encode_outer(
            &mut again,
            frame.kind,
            frame.stream,
            frame.stamp_us,
            &frame.payload,
        );
        assert_eq!(OuterKind::from_wire(frame.kind.to_wire()), Some(frame.kind));
    }
    assert_eq!(again, stream[..again.len()], "a frame has one form");

    // As a relay takes them: unopened, and stamped on the way out.
    let mut raw = OuterDecoder::new();
    raw.feed(BytesMut::from(&again[..]));
    for frame in &whole.0 {
        let passed = raw.next_raw().expect("it was a frame before").expect("and whole");
        assert_eq!(passed.wire_bytes(), OUTER_HEADER_BYTES + frame.payload.len());
        assert_eq!(passed.payload(), &frame.payload[..]);
        let stamped = passed.stamped(residence);
        let stamp = frame.stamp_us.saturating_add(residence);
        assert_eq!(stamped[24..28], stamp.to_be_bytes());
    }

    let mut cuts = script.clone();
    assert_eq!(decode(cuts.pieces(stream, 32)), whole);
    if stream.len() <= EVERY_CUT_MAX_BYTES {
        assert_eq!(decode(stream.chunks(1)), whole);
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(decode([head, tail]), whole);
        }
    }
});
