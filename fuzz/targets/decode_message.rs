//! A message inside the seal: what decodes is encoded again and must come back the same, and no larger than it may be.
#![no_main]

use bytes::Bytes;
use dwell_messages::codec::{self, DecodeError, EncodeError, HEADER_BYTES, Header, MESSAGE_MAX_BYTES};
use dwell_messages::span::{PACKED_SPANS_MAX, UNPACKED_TEXT_MAX_BYTES};
use dwell_messages::{Envelope, Message, PackedSpans};
use libfuzzer_sys::fuzz_target;

/// A body of one byte may stand for this much: the names and defaults of all that it leaves out.
const DEFAULTS_MAX_BYTES: usize = 4 * 1024;

/// An error says whether the link lives on: only a request whose framing is sound can be answered.
fn check_error(bytes: &Bytes, error: &DecodeError) {
    let header = Header::read(bytes);
    match (error.request_id(), header) {
        (Some(id), Ok(header)) => {
            assert_eq!(id.0, header.id);
            assert!((1..0x40).contains(&header.kind), "only requests are answered");
        }
        (Some(_), Err(_)) => panic!("nothing is known of a message without a header"),
        (None, _) => {}
    }
    assert!(error.to_string().len() < 1_024, "what goes to a log is short");
}

fn check_data(message: &Message, wire: usize) {
    let text = format!("{message:?}");
    // Debug spells each byte out, in at most six characters and a name.
    assert!(
        text.len() <= 16 * wire + DEFAULTS_MAX_BYTES * 4,
        "{} of {wire}",
        text.len()
    );
}

/// What a block stands for is bounded, and what it says can be packed again.
fn check_spans(packed: &PackedSpans) {
    let spans = match packed.unpack() {
        Ok(spans) => spans,
        Err(error) => return assert!(error.to_string().len() < 256),
    };
    let text: usize = (spans.iter())
        .map(|span| span.name.len() + span.error.as_ref().map_or(0, |error| error.len()))
        .sum();
    assert!(spans.len() <= PACKED_SPANS_MAX && text <= UNPACKED_TEXT_MAX_BYTES);
    if let Some(again) = PackedSpans::pack(&spans) {
        let again = again.unpack().expect("what was packed can be unpacked");
        // Through text, so that a NaN equals itself.
        assert_eq!(format!("{again:?}"), format!("{spans:?}"));
    }
}

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let decoded = match codec::decode(&bytes) {
        Ok(decoded) => decoded,
        Err(error) => return check_error(&bytes, &error),
    };
    assert_eq!(codec::sequence(&bytes), Some(decoded.sequence));
    check_data(&decoded.message, data.len());
    if let Message::TraceRecords { records, .. } = &decoded.message {
        check_spans(&records.spans);
    }
    let context = decoded.context.clone().unwrap_or_default();
    let envelope = Envelope::new(context, decoded.message);
    let again = match codec::encode(&envelope, decoded.sequence) {
        Ok(again) => again,
        // A number may be written longer than it was read: only at the very limit is there no room for it.
        Err(EncodeError::TooLarge { .. }) if data.len() > MESSAGE_MAX_BYTES / 8 => return,
        Err(error) => panic!("what was decoded cannot be encoded: {error}"),
    };
    assert!(
        again.len() <= 4 * data.len() + DEFAULTS_MAX_BYTES,
        "{} of {}",
        again.len(),
        data.len()
    );
    let twice = codec::decode(&again).expect("what was encoded can be decoded");
    // Through text, so that a NaN among a span's attributes equals itself.
    assert_eq!(format!("{:?}", twice.message), format!("{:?}", envelope.body));
    assert_eq!(twice.sequence, decoded.sequence);
    assert_eq!(twice.context, decoded.context);
    // What we write has one form.
    let envelope = Envelope::new(twice.context.unwrap_or_default(), twice.message);
    assert_eq!(codec::encode(&envelope, twice.sequence).as_ref(), Ok(&again));

    // As a part of a longer buffer it is the same message.
    let mut longer = vec![0xa5; HEADER_BYTES];
    longer.extend_from_slice(data);
    let part = Bytes::from(longer).slice(HEADER_BYTES..);
    let elsewhere = codec::decode(&part).expect("it was decoded before");
    assert_eq!(format!("{:?}", elsewhere.message), format!("{:?}", envelope.body));
});
