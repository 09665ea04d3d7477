//! What lies inside a record: chunks of messages. Channel u32, flags u8, length u16, big endian, then the bytes.

use bytes::{Buf, BufMut, BytesMut};

use crate::lanes::Lane;

/// Bytes in front of a chunk's own.
pub const CHUNK_HEADER_BYTES: usize = 7;

const FIRST: u8 = 0b0000_0001;
const LAST: u8 = 0b0000_0010;
const LANE_SHIFT: u8 = 4;
const LANE_MASK: u8 = 0b0111_0000;
const RESERVED: u8 = !(FIRST | LAST | LANE_MASK);

/// One piece of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkHeader {
    /// The message's lane.
    pub lane: Lane,
    /// The message's channel.
    pub channel: u32,
    /// Begins a message.
    pub first: bool,
    /// Ends a message.
    pub last: bool,
    /// Bytes that follow.
    pub length: u16,
}

/// The inside of a record is malformed. The peer holds the key, so this is its bug or its malice: fatal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChunkError {
    /// A header or its bytes reach past the record.
    #[error("a chunk ends behind its record: the peer is broken, upgrade it")]
    Truncated,
    /// A chunk of no bytes.
    #[error("a chunk has no bytes: the peer is broken, upgrade it")]
    Empty,
    /// Reserved flag bits are set.
    #[error("chunk flags {flags:#010b} set reserved bits: upgrade the older side")]
    Reserved {
        /// The flags byte.
        flags: u8,
    },
    /// A lane we do not have.
    #[error("a chunk in lane {lane}, which does not exist: upgrade the older side")]
    UnknownLane {
        /// The number.
        lane: u8,
    },
    /// A chunk of the link's own lane that is none of those we know.
    #[error(
        "a chunk of the link's own of kind {kind}, flags {flags:#010b} and {length} bytes, which does not exist: \
         upgrade the older side"
    )]
    BadOwn {
        /// The kind.
        kind: u32,
        /// The flags byte.
        flags: u8,
        /// Its bytes.
        length: usize,
    },
    /// Something follows a chunk behind which the key changes.
    #[error("a chunk follows the last one of its key: the peer is broken, upgrade it")]
    BehindTheKey,
    /// A record without chunks, other than the initiator's first.
    #[error("a record without chunks: the peer is broken, upgrade it")]
    EmptyRecord,
    /// A continuation of nothing.
    #[error(
        "a chunk continues no message in lane {lane:?}, channel {channel}: the peer is broken, upgrade it"
    )]
    Orphan {
        /// Its lane.
        lane: Lane,
        /// Its channel.
        channel: u32,
    },
    /// A message begins inside another one of its channel.
    #[error(
        "a message begins inside another in lane {lane:?}, channel {channel}: the peer is broken, upgrade it"
    )]
    Interleaved {
        /// Its lane.
        lane: Lane,
        /// Its channel.
        channel: u32,
    },
    /// One message is too long.
    #[error("a message grew past {max} bytes, the most one may have: the peer must send it in parts")]
    MessageTooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// All unfinished messages together are too much.
    #[error("unfinished messages need more than {max} bytes: the peer begins more than it ends")]
    ReassemblyFull {
        /// The limit in bytes.
        max: usize,
    },
}

impl ChunkHeader {
    /// Appends the header.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut flags = self.lane.to_wire() << LANE_SHIFT;
        if self.first {
            flags |= FIRST;
        }
        if self.last {
            flags |= LAST;
        }
        out.put_u32(self.channel);
        out.put_u8(flags);
        out.put_u16(self.length);
    }

    /// Takes one header off the front; its bytes are known to follow.
    ///
    /// # Errors
    /// [`ChunkError`].
    pub fn decode(rest: &mut impl Buf) -> Result<Self, ChunkError> {
        if rest.remaining() < CHUNK_HEADER_BYTES {
            return Err(ChunkError::Truncated);
        }
        let channel = rest.get_u32();
        let flags = rest.get_u8();
        let length = rest.get_u16();
        if flags & RESERVED != 0 {
            return Err(ChunkError::Reserved { flags });
        }
        let number = (flags & LANE_MASK) >> LANE_SHIFT;
        let lane = Lane::from_wire(number).ok_or(ChunkError::UnknownLane { lane: number })?;
        if length == 0 {
            return Err(ChunkError::Empty);
        }
        if rest.remaining() < usize::from(length) {
            return Err(ChunkError::Truncated);
        }
        Ok(Self {
            lane,
            channel,
            first: flags & FIRST != 0,
            last: flags & LAST != 0,
            length,
        })
    }
}
