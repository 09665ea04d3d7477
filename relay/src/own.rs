//! What two links say to each other about themselves: chunks of a lane that no message has. A relay sees records.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::chunk::{CHUNK_HEADER_BYTES, ChunkError};

/// The flags of every such chunk: first and last, in lane 7.
const OWN_FLAGS: u8 = 0b0111_0011;
const OWN_LANE_MASK: u8 = 0b0111_0000;
const FLAGS_OFFSET: usize = 4;

const MARK: u32 = 1;
const OPENED: u32 = 2;
const RENEW: u32 = 3;
const RENEWED: u32 = 4;
const CLOSE: u32 = 5;

/// A renewal's message 1: ephemeral, encrypted static, two tags.
pub(crate) const RENEWAL_BYTES: usize = 96;
/// A renewal's message 2: ephemeral and a tag.
pub(crate) const RENEWAL_ANSWER_BYTES: usize = 48;

/// One such chunk. Its kind is where a message's channel would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OwnChunk {
    /// So many bytes of the bulk lanes are before this: tell when they are opened.
    Mark(u64),
    /// So many bytes of the bulk lanes have been opened on this link. Absolute.
    Opened(u64),
    /// Message 1 of a renewal of the keys.
    Renew([u8; RENEWAL_BYTES]),
    /// Message 2 of a renewal; the next record of whoever says it has the new key.
    Renewed([u8; RENEWAL_ANSWER_BYTES]),
    /// The next record of whoever says it has the new key, of the renewal with this ordinal.
    Close(u64),
}

impl OwnChunk {
    /// Whether the next chunk is one of these; decides nothing else.
    pub(crate) fn is_next(rest: &[u8]) -> bool {
        rest.get(FLAGS_OFFSET)
            .is_some_and(|flags| flags & OWN_LANE_MASK == OWN_LANE_MASK)
    }

    /// Whether nothing may follow in its record, since what follows it has another key.
    pub(crate) fn is_last(&self) -> bool {
        match self {
            Self::Renewed(_) | Self::Close(_) => true,
            Self::Mark(_) | Self::Opened(_) | Self::Renew(_) => false,
        }
    }

    /// Appends it with its header.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Mark(position) => put(out, MARK, &position.to_be_bytes()),
            Self::Opened(bytes) => put(out, OPENED, &bytes.to_be_bytes()),
            Self::Renew(message) => put(out, RENEW, message),
            Self::Renewed(message) => put(out, RENEWED, message),
            Self::Close(ordinal) => put(out, CLOSE, &ordinal.to_be_bytes()),
        }
    }

    /// Takes one off the front.
    ///
    /// # Errors
    /// [`ChunkError::Truncated`], [`ChunkError::BadOwn`].
    pub(crate) fn decode(rest: &mut Bytes) -> Result<Self, ChunkError> {
        if rest.remaining() < CHUNK_HEADER_BYTES {
            return Err(ChunkError::Truncated);
        }
        let (kind, flags, length) = (rest.get_u32(), rest.get_u8(), usize::from(rest.get_u16()));
        if rest.remaining() < length {
            return Err(ChunkError::Truncated);
        }
        let bytes = rest.split_to(length);
        let bad = ChunkError::BadOwn { kind, flags, length };
        if flags != OWN_FLAGS {
            return Err(bad);
        }
        let own = match kind {
            MARK => number(&bytes).map(Self::Mark),
            OPENED => number(&bytes).map(Self::Opened),
            RENEW => bytes[..].try_into().ok().map(Self::Renew),
            RENEWED => bytes[..].try_into().ok().map(Self::Renewed),
            CLOSE => number(&bytes).map(Self::Close),
            _ => None,
        };
        own.ok_or(bad)
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn put(out: &mut BytesMut, kind: u32, bytes: &[u8]) {
    out.put_u32(kind);
    out.put_u8(OWN_FLAGS);
    out.put_u16(u16::try_from(bytes.len()).expect("RENEWAL_BYTES is the longest of these"));
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [OwnChunk; 5] {
        [
            OwnChunk::Mark(0x0102),
            OwnChunk::Opened(u64::MAX),
            OwnChunk::Renew([7; RENEWAL_BYTES]),
            OwnChunk::Renewed([8; RENEWAL_ANSWER_BYTES]),
            OwnChunk::Close(1),
        ]
    }

    #[test]
    fn what_a_link_says_of_itself_is_these_bytes() {
        let expected: [Vec<u8>; 5] = [
            vec![0, 0, 0, 1, 0x73, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2],
            [&[0, 0, 0, 2, 0x73, 0, 8][..], &[0xff; 8]].concat(),
            [&[0, 0, 0, 3, 0x73, 0, 96][..], &[7; 96]].concat(),
            [&[0, 0, 0, 4, 0x73, 0, 48][..], &[8; 48]].concat(),
            vec![0, 0, 0, 5, 0x73, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1],
        ];
        for (chunk, expected) in all().into_iter().zip(expected) {
            let mut out = BytesMut::new();
            chunk.encode(&mut out);
            assert_eq!(out, expected);
            assert!(OwnChunk::is_next(&out));
            let mut rest = out.freeze();
            assert_eq!(OwnChunk::decode(&mut rest), Ok(chunk));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn every_kind_has_one_length_and_one_set_of_flags() {
        for kind in 0..=6_u8 {
            for length in 0..=100_u8 {
                for flags in [0x73, 0x70, 0x71, 0x72, 0x77, 0xf3] {
                    let mut chunk = vec![0, 0, 0, kind, flags, 0, length];
                    chunk.resize(7 + usize::from(length), 1);
                    let lengths = [0, 8, 8, 96, 48, 8, 0];
                    let sound =
                        (1..=5).contains(&kind) && flags == 0x73 && lengths[usize::from(kind)] == length;
                    let decoded = OwnChunk::decode(&mut Bytes::from(chunk.clone()));
                    assert_eq!(decoded.is_ok(), sound, "{kind} {flags:x} {length}");
                    chunk.pop();
                    let short = OwnChunk::decode(&mut Bytes::from(chunk));
                    assert_eq!(short, Err(ChunkError::Truncated));
                }
            }
        }
    }
}
