//! A connection's first bytes, however they are cut, and the answer to the question which key is served.
#![no_main]

use bytes::BytesMut;
use dwell_fuzz::Script;
use dwell_messages::StreamId;
use dwell_relay::inquiry::{InquiryError, answer, question, read_answer};
use dwell_relay::opening::{ATTESTATION_BYTES, OpenError, split_open};
use dwell_relay::preamble::{PREAMBLE_BYTES, PREAMBLE_MAGIC, PreambleError};
use dwell_relay::{Dialer, Preamble, PreambleDecoder, RefusalReason, parse_public_key};
use libfuzzer_sys::fuzz_target;

type Outcome = Result<Option<(Preamble, BytesMut, usize)>, PreambleError>;

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = PreambleDecoder::new();
    let mut found = None;
    let mut late = 0;
    for piece in pieces {
        if found.is_some() {
            // What follows is the frames'.
            late += piece.len();
            continue;
        }
        decoder.feed(BytesMut::from(piece));
        found = decoder.decode()?;
    }
    Ok(found.map(|(preamble, token)| (preamble, token, decoder.into_frames().buffered() + late)))
}

fn check(bytes: &[u8], outcome: &Outcome) {
    let seen = bytes.len().min(PREAMBLE_MAGIC.len());
    let is_ours = bytes[..seen] == PREAMBLE_MAGIC[..seen];
    match outcome {
        Err(PreambleError::Magic) => assert!(!is_ours),
        Err(PreambleError::Role { role }) => assert!(*role == bytes[14] && !(1..=3).contains(role)),
        Err(PreambleError::VersionRange { min, max }) => assert!(min > max && bytes.len() >= PREAMBLE_BYTES),
        Err(PreambleError::TokenLength { .. }) => panic!("a decoder is given no token"),
        Ok(None) => {
            assert!(is_ours);
            let token = bytes.get(15).map_or(0, |length| usize::from(*length));
            assert!(bytes.len() < PREAMBLE_BYTES + token);
        }
        Ok(Some((preamble, token, rest))) => {
            assert_eq!(
                preamble.encode(),
                bytes[..PREAMBLE_BYTES],
                "a preamble has one form"
            );
            let end = PREAMBLE_BYTES + usize::from(preamble.token_len);
            assert_eq!(token[..], bytes[PREAMBLE_BYTES..end]);
            assert_eq!(*rest, bytes.len() - end, "nothing is lost behind it");
        }
    }
}

fn check_agreement(preamble: &Preamble) {
    let meets = (preamble.version_min..=preamble.version_max).contains(&1);
    match preamble.agree() {
        Ok(version) => assert!(version == 1 && meets && preamble.suite == 1),
        Err(refusal) => match refusal.reason {
            RefusalReason::Version => assert!(!meets),
            RefusalReason::Suite => assert!(meets && preamble.suite != 1),
            other => panic!("nobody refuses a preamble for {other:?}"),
        },
    }
}

fn check_inquiry(bytes: &[u8; PREAMBLE_BYTES], stream: StreamId) {
    match read_answer(bytes, stream) {
        Ok(key) => {
            let preamble = Preamble::decode(bytes).expect("an answer is a preamble");
            assert_eq!((preamble.dialer, preamble.stream), (Dialer::Inquirer, stream));
            assert_eq!(parse_public_key(&key.0), Ok(key), "somebody can have that key");
        }
        Err(InquiryError::Preamble(error)) => assert_eq!(Preamble::decode(bytes), Err(error)),
        Err(InquiryError::Mismatch | InquiryError::Key) => assert!(Preamble::decode(bytes).is_ok()),
    }
    let Ok(preamble) = Preamble::decode(bytes) else {
        return;
    };
    let reply = answer(&preamble, preamble.executor);
    assert_eq!(reply, question(preamble.executor, preamble.stream));
    let usable = parse_public_key(&preamble.executor.0).is_ok();
    assert_eq!(read_answer(&reply, preamble.stream).is_ok(), usable);
}

fuzz_target!(|data: &[u8]| {
    let whole = decode([data]);
    check(data, &whole);
    let mut cuts = Script::new(data.get(PREAMBLE_BYTES..).unwrap_or_default());
    let pieces = cuts.pieces(data, 16);
    let cut = decode(pieces);
    assert_eq!(cut, whole, "cuts mean nothing");
    assert_eq!(decode(data.chunks(1)), whole);
    if let Ok(Some((preamble, ..))) = &whole {
        check_agreement(preamble);
    }
    if let Some((bytes, rest)) = data.split_first_chunk::<PREAMBLE_BYTES>() {
        let stream = StreamId(bytes[48..].try_into().expect("a stream's name has 16 bytes"));
        check_inquiry(bytes, stream);
        check_inquiry(bytes, StreamId([0; 16]));
        match split_open(BytesMut::from(data)) {
            Ok((preamble, attested, message)) => {
                let again = [&preamble.encode()[..], &attested.encode()[..], &message[..]].concat();
                assert_eq!(again, data);
            }
            Err(OpenError::Preamble(error)) => assert_eq!(Preamble::decode(bytes), Err(error)),
            Err(OpenError::Truncated { actual }) => {
                assert!(actual == data.len() && rest.len() < ATTESTATION_BYTES);
            }
            Err(OpenError::Reserved { flags }) => assert!(rest[0] == flags && flags > 1),
        }
    } else {
        let actual = data.len();
        assert_eq!(
            split_open(BytesMut::from(data)).err(),
            Some(OpenError::Truncated { actual })
        );
    }
});
