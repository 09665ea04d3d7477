//! A message inside the seal: what decodes is encoded again and must come back the same.
#![no_main]

use bytes::Bytes;
use dwell_messages::{Envelope, codec};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(decoded) = codec::decode(&Bytes::copy_from_slice(data)) else {
        return;
    };
    let context = decoded.context.clone().unwrap_or_default();
    let envelope = Envelope::new(context, decoded.message);
    let again = match codec::encode(&envelope, decoded.sequence) {
        Ok(again) => again,
        // A number may be written longer than it was read: only at the very limit is there no room for it.
        Err(codec::EncodeError::TooLarge { .. }) if data.len() > codec::MESSAGE_MAX_BYTES / 8 => return,
        Err(error) => panic!("what was decoded cannot be encoded: {error}"),
    };
    let twice = codec::decode(&again).expect("what was encoded can be decoded");
    // Through text, so that a NaN among a span's attributes equals itself.
    assert_eq!(format!("{:?}", twice.message), format!("{:?}", envelope.body));
    assert_eq!(twice.sequence, decoded.sequence);
    assert_eq!(twice.context, decoded.context);
});
