//! The inside of records, as a peer that holds the key may write it: against a second reader, written from PROTOCOL.md.
#![no_main]

use std::collections::HashMap;
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use dwell_fuzz::{Script, is_control};
use dwell_relay::chunk::ChunkError;
use dwell_relay::fuzzing::Chunks;
use dwell_relay::lanes::MESSAGE_MAX_BYTES;
use dwell_relay::record::RECORD_PLAINTEXT_MAX_BYTES;
use libfuzzer_sys::fuzz_target;

/// Of one input; one in 256 may have more, and reach the bound of a message.
const PLAINTEXT_MAX_BYTES: usize = 64 * 1024;
const PLAINTEXT_LONG_MAX_BYTES: usize = MESSAGE_MAX_BYTES + 128 * 1024;

#[derive(PartialEq, Eq, Debug)]
enum Problem {
    Truncated,
    Empty,
    Reserved,
    Lane,
    Orphan,
    Interleaved,
    TooLong,
    Own,
    BehindTheKey,
}

impl From<ChunkError> for Problem {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Truncated => Self::Truncated,
            ChunkError::Empty => Self::Empty,
            ChunkError::Reserved { .. } => Self::Reserved,
            ChunkError::UnknownLane { .. } => Self::Lane,
            ChunkError::Orphan { .. } => Self::Orphan,
            ChunkError::Interleaved { .. } => Self::Interleaved,
            ChunkError::MessageTooLong { .. } => Self::TooLong,
            ChunkError::BadOwn { .. } => Self::Own,
            ChunkError::BehindTheKey => Self::BehindTheKey,
            ChunkError::EmptyRecord | ChunkError::ReassemblyFull { .. } => {
                panic!("{error}: of a link, or of more than an input has")
            }
        }
    }
}

#[derive(Default)]
struct Reference(HashMap<(u8, u32), Vec<u8>>);

impl Reference {
    fn accept(&mut self, mut record: &[u8], whole: &mut Vec<((u8, u32), Vec<u8>)>) -> Result<(), Problem> {
        while !record.is_empty() {
            let Some((header, rest)) = record.split_first_chunk::<7>() else {
                return Err(Problem::Truncated);
            };
            let channel = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
            let (flags, length) = (header[4], usize::from(u16::from_be_bytes([header[5], header[6]])));
            if flags & 0b0111_0000 == 0b0111_0000 {
                // The link's own words: a kind, all of its one length, and two of them are the last of their record.
                if rest.len() < length {
                    return Err(Problem::Truncated);
                }
                let of_its_kind = match channel {
                    1 | 2 | 5 => 8,
                    3 => 96,
                    4 => 48,
                    _ => return Err(Problem::Own),
                };
                if flags != 0b0111_0011 || length != of_its_kind {
                    return Err(Problem::Own);
                }
                record = &rest[length..];
                if matches!(channel, 4 | 5) && !record.is_empty() {
                    return Err(Problem::BehindTheKey);
                }
                continue;
            }
            if flags & 0b1000_1100 != 0 {
                return Err(Problem::Reserved);
            }
            let lane = flags >> 4;
            if lane > 5 {
                return Err(Problem::Lane);
            }
            if length == 0 {
                return Err(Problem::Empty);
            }
            if rest.len() < length {
                return Err(Problem::Truncated);
            }
            let (bytes, rest) = rest.split_at(length);
            record = rest;
            let key = (lane, channel);
            match (flags & 1 != 0, self.0.contains_key(&key)) {
                (true, true) => return Err(Problem::Interleaved),
                (false, false) => return Err(Problem::Orphan),
                (true, false) | (false, true) => {}
            }
            let message = self.0.entry(key).or_default();
            if message.len() + length > MESSAGE_MAX_BYTES {
                return Err(Problem::TooLong);
            }
            message.extend_from_slice(bytes);
            if flags & 2 != 0 {
                whole.push((key, self.0.remove(&key).unwrap_or_default()));
            }
        }
        Ok(())
    }
}

/// Plaintext of one record: chunks by the script, seldom as they should be.
fn record(script: &mut Script<'_>, room: usize) -> BytesMut {
    let mut record = BytesMut::new();
    for _ in 0..=script.below(6) {
        let left = room
            .min(RECORD_PLAINTEXT_MAX_BYTES)
            .saturating_sub(record.len() + 7);
        if left == 0 || script.is_over() {
            break;
        }
        let shape = script.byte();
        if shape == 0xff {
            record.put_slice(script.bytes(usize::from(shape).min(left)));
            continue;
        }
        let length = match shape >> 6 {
            0 => script.below(24),
            1 => usize::from(script.u16()),
            2 => left,
            _ => 1 + script.below(255),
        }
        .min(left);
        let flags = script.byte();
        // Mostly lanes that there are, and no reserved bits.
        let flags = if shape & 1 == 0 {
            flags & 0b0111_0011
        } else {
            flags
        };
        record.put_u32(u32::from(shape >> 1) & 3);
        record.put_u8(flags);
        record.put_u16(u16::try_from(length).unwrap_or(u16::MAX));
        let lies = shape & 0b11_1111 == 0b11_1111;
        record.put_bytes(script.byte(), if lies { length / 2 } else { length });
    }
    record
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let most = if script.byte() == 0xff {
        PLAINTEXT_LONG_MAX_BYTES
    } else {
        PLAINTEXT_MAX_BYTES
    };
    let (mut chunks, mut reference) = (Chunks::default(), Reference::default());
    let now = Instant::now();
    let mut fed = 0;
    let (mut given, mut sealed) = (0, 0);
    while !script.is_over() && fed < most {
        let relay_us = u32::from(script.byte());
        let mut plaintext = record(&mut script, most - fed);
        fed += plaintext.len();
        let mut expected = Vec::new();
        let reference_outcome = reference.accept(&plaintext, &mut expected);
        if is_control() && plaintext.len() > 40 {
            plaintext[20] ^= 1;
        }
        let (whole, outcome) = chunks.accept(now, relay_us, plaintext);
        let actual = whole
            .iter()
            .map(|message| ((message.lane.to_wire(), message.channel), message.bytes.to_vec()));
        assert!(
            actual.eq(expected.iter().cloned()),
            "other messages came out than went in"
        );
        for message in &whole {
            given += message.bytes.len();
            sealed += message.sealed_bytes;
            assert!(!message.bytes.is_empty() && message.bytes.len() <= MESSAGE_MAX_BYTES);
            assert!(message.relay_us >= relay_us && message.records >= 1);
        }
        assert_eq!(outcome.map_err(Problem::from), reference_outcome);
        if outcome.is_err() {
            break;
        }
    }
    assert!(
        given <= fed && sealed <= fed as u64,
        "no more comes out than went in"
    );
});
