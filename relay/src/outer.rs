//! Outer frames: what a relay can see. A 28-byte header and a payload whose length is judged before it is awaited.

use bytes::{Buf, BufMut, BytesMut};
use dwell_messages::StreamId;
use dwell_messages::kinds::OuterKind;

use crate::control::{CONTROL_TEXT_MAX_BYTES, REFUSED_SUITES_MAX};
use crate::first_message::{FIRST_MESSAGE_MAX_BYTES, FIRST_MESSAGE_MIN_BYTES};
use crate::opening::ATTESTATION_BYTES;
use crate::preamble::PREAMBLE_BYTES;
use crate::record::{RECORD_PLAINTEXT_MAX_BYTES, TAG_BYTES};

/// Bytes of an outer header: length u32, kind u8, flags u8, reserved u16, stream id, stamp u32; big endian.
pub const OUTER_HEADER_BYTES: usize = 28;
/// Largest handshake message. Message 1 of a link has at most [`FIRST_MESSAGE_MAX_BYTES`].
pub const HANDSHAKE_MAX_BYTES: usize = 16 * 1024;
/// Smallest OPEN payload.
pub const OPEN_MIN_BYTES: usize = PREAMBLE_BYTES + ATTESTATION_BYTES + FIRST_MESSAGE_MIN_BYTES;
/// Largest OPEN payload: the harness's preamble, what the relay attests, message 1.
pub const OPEN_MAX_BYTES: usize = PREAMBLE_BYTES + ATTESTATION_BYTES + FIRST_MESSAGE_MAX_BYTES;
/// Largest DATA payload: one sealed record.
pub const DATA_MAX_BYTES: usize = RECORD_PLAINTEXT_MAX_BYTES + TAG_BYTES;
/// Largest RESET payload.
pub const RESET_MAX_BYTES: usize = 2 + CONTROL_TEXT_MAX_BYTES;
/// A WINDOW payload: an absolute limit as u64.
pub const WINDOW_BYTES: usize = 8;
/// Largest REFUSED payload.
pub const REFUSED_MAX_BYTES: usize = 7 + 2 * REFUSED_SUITES_MAX + CONTROL_TEXT_MAX_BYTES;
/// A REGISTERED payload: the wire version agreed with the relay as u16.
pub const REGISTERED_BYTES: usize = 2;
/// A PING or PONG payload.
pub const PING_BYTES: usize = 8;

/// Bytes that one read may bring, if its driver makes no more room: most connections are idle.
pub const READ_BUFFER_BYTES: usize = 1024;
/// With less room than this, or than a frame lacks, a read buffer is renewed; only an incomplete frame is copied then.
const READ_ROOM_MIN_BYTES: usize = 512;

/// Bytes that one read of whoever has proven nothing may bring.
pub const STRANGERS_READ_BUFFER_BYTES: usize = 2 * 1024;

/// Where the stamp lies in a header.
const STAMP_OFFSET: usize = 24;

/// The least and the most bytes of payload a frame of this kind has.
pub const fn payload_bounds(kind: OuterKind) -> (usize, usize) {
    match kind {
        OuterKind::Handshake => (1, HANDSHAKE_MAX_BYTES),
        OuterKind::Open => (OPEN_MIN_BYTES, OPEN_MAX_BYTES),
        OuterKind::Data => (TAG_BYTES, DATA_MAX_BYTES),
        OuterKind::Reset => (2, RESET_MAX_BYTES),
        OuterKind::Window => (WINDOW_BYTES, WINDOW_BYTES),
        OuterKind::Refused => (7, REFUSED_MAX_BYTES),
        OuterKind::Registered => (REGISTERED_BYTES, REGISTERED_BYTES),
        OuterKind::Ping | OuterKind::Pong => (PING_BYTES, PING_BYTES),
    }
}

/// The bytes are no outer frame. Fatal for the connection: there is no way to find the next frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OuterError {
    /// The kind is none of ours.
    #[error(
        "outer frame of unknown kind {kind:#04x}: upgrade the older side, or check that this is a dwell port"
    )]
    Kind {
        /// The number received.
        kind: u8,
    },
    /// The payload is shorter or longer than its kind allows.
    #[error("outer frame {kind:?} of {actual} bytes, and {min} to {max} are allowed: the bytes are damaged")]
    Length {
        /// Its kind.
        kind: OuterKind,
        /// Its stated length.
        actual: u32,
        /// The least allowed.
        min: usize,
        /// The most allowed.
        max: usize,
    },
    /// Flags or reserved bits are set, which no version of ours does.
    #[error("outer frame {kind:?} with reserved bits set: upgrade the older side")]
    Reserved {
        /// Its kind.
        kind: OuterKind,
    },
}

/// One outer frame. The payload is a part of the buffer it was read into, not a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OuterFrame {
    /// What it is.
    pub kind: OuterKind,
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Microseconds it spent in relays, by their word; zero from endpoints. Outside the seal.
    pub stamp_us: u32,
    /// The payload.
    pub payload: BytesMut,
}

/// One outer frame with its header still in front: what a relay passes on without taking it apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawFrame {
    /// What it is.
    pub kind: OuterKind,
    /// The stream it belongs to.
    pub stream: StreamId,
    bytes: BytesMut,
}

impl RawFrame {
    /// A frame of our own making, its payload in two parts.
    pub(crate) fn build(kind: OuterKind, stream: StreamId, head: &[u8], tail: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(OUTER_HEADER_BYTES + head.len() + tail.len());
        let start = begin_outer(&mut bytes, kind, stream);
        bytes.put_slice(head);
        bytes.put_slice(tail);
        end_outer(&mut bytes, start);
        Self { kind, stream, bytes }
    }

    /// Bytes on the wire, header and payload.
    pub fn wire_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[OUTER_HEADER_BYTES..]
    }

    /// Adds a residence to the stamp, saturating, and gives the bytes to write.
    pub fn stamped(mut self, residence_us: u32) -> BytesMut {
        let stamp = (&self.bytes[STAMP_OFFSET..])
            .get_u32()
            .saturating_add(residence_us);
        self.bytes[STAMP_OFFSET..OUTER_HEADER_BYTES].copy_from_slice(&stamp.to_be_bytes());
        self.bytes
    }
}

impl From<RawFrame> for OuterFrame {
    fn from(mut raw: RawFrame) -> Self {
        let stamp_us = (&raw.bytes[STAMP_OFFSET..]).get_u32();
        raw.bytes.advance(OUTER_HEADER_BYTES);
        Self {
            kind: raw.kind,
            stream: raw.stream,
            stamp_us,
            payload: raw.bytes,
        }
    }
}

/// Appends a header whose length is filled in by [`end_outer`]; returns where the frame begins.
pub(crate) fn begin_outer(out: &mut BytesMut, kind: OuterKind, stream: StreamId) -> usize {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind.to_wire());
    out.put_u8(0);
    out.put_u16(0);
    out.put_slice(&stream.0);
    out.put_u32(0);
    start
}

/// States the length of the frame that begins at `start` and ends where `out` ends.
pub(crate) fn end_outer(out: &mut BytesMut, start: usize) {
    let length =
        u32::try_from(out.len() - start - OUTER_HEADER_BYTES).expect("every payload is below its cap");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a whole frame. The payload must be within [`payload_bounds`]: a peer refuses anything else.
pub fn encode_outer(out: &mut BytesMut, kind: OuterKind, stream: StreamId, stamp_us: u32, payload: &[u8]) {
    debug_assert!(
        (payload_bounds(kind).0..=payload_bounds(kind).1).contains(&payload.len()),
        "a {kind:?} frame of {} bytes would be refused",
        payload.len()
    );
    out.reserve(OUTER_HEADER_BYTES + payload.len());
    let start = begin_outer(out, kind, stream);
    out[start + STAMP_OFFSET..].copy_from_slice(&stamp_us.to_be_bytes());
    out.put_slice(payload);
    end_outer(out, start);
}

/// Cuts a byte stream into outer frames, however it arrives. After an error it stays at that error.
///
/// Memory: what the driver read, and at most one incomplete frame.
#[derive(Debug, Default)]
pub struct OuterDecoder {
    buffer: BytesMut,
    failed: Option<OuterError>,
    /// Set while the peer has proven nothing.
    stranger: bool,
}

impl OuterDecoder {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn resume(buffer: BytesMut) -> Self {
        Self {
            buffer,
            failed: None,
            stranger: false,
        }
    }

    /// Whether the peer is a stranger: then a frame longer than message 1 is refused on its header, and reads are small.
    pub fn set_stranger(&mut self, stranger: bool) {
        self.stranger = stranger;
    }

    /// Where a driver may read into directly, with room for little, and for what an incomplete frame lacks: what it
    /// appends is received. A driver that reads much makes more room.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        self.buffer_with_room(READ_BUFFER_BYTES)
    }

    /// As [`buffer_mut`](Self::buffer_mut), with room for about so many bytes, for a driver that reads much: asked for at
    /// once, since each renewal copies the frame that was begun. A stranger's has little all the same.
    pub fn buffer_with_room(&mut self, bytes: usize) -> &mut BytesMut {
        if self.stranger {
            make_small_room(&mut self.buffer);
        } else {
            let least = self.lacking().max(bytes / 2).max(READ_ROOM_MIN_BYTES);
            if self.buffer.capacity() - self.buffer.len() < least {
                self.buffer.reserve(least.max(bytes));
            }
        }
        &mut self.buffer
    }

    /// Gives back what room there is. False: something waits for the rest of its frame, and nothing happens.
    pub fn shrink(&mut self) -> bool {
        let is_empty = self.buffer.is_empty();
        if is_empty {
            self.buffer = BytesMut::new();
        }
        is_empty
    }

    /// Bytes that the frame at the front still lacks.
    fn lacking(&self) -> usize {
        let header = self.buffer.first_chunk::<OUTER_HEADER_BYTES>();
        let frame = header.and_then(|header| read_header(header).ok());
        frame.map_or(0, |(_, _, length)| {
            (OUTER_HEADER_BYTES + length).saturating_sub(self.buffer.len())
        })
    }

    /// Takes received bytes; no copy where they continue the same allocation, as `read_buf` and `split` make them.
    pub fn feed(&mut self, bytes: BytesMut) {
        self.buffer.unsplit(bytes);
    }

    /// Bytes received and not yet given out.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next frame, if it is complete.
    ///
    /// # Errors
    /// [`OuterError`], on the header and before the payload is there: close the connection.
    pub fn next_frame(&mut self) -> Result<Option<OuterFrame>, OuterError> {
        Ok(self.next_raw()?.map(OuterFrame::from))
    }

    /// The next frame with its header, if it is complete.
    ///
    /// # Errors
    /// As [`OuterDecoder::next_frame`].
    pub fn next_raw(&mut self) -> Result<Option<RawFrame>, OuterError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(header) = self.buffer.first_chunk::<OUTER_HEADER_BYTES>() else {
            return Ok(None);
        };
        let parts = read_header(header).and_then(|parts| self.check_stranger(parts));
        let (kind, stream, length) = match parts {
            Ok(parts) => parts,
            Err(error) => {
                self.failed = Some(error);
                self.buffer.clear();
                return Err(error);
            }
        };
        let total = OUTER_HEADER_BYTES + length;
        if self.buffer.len() < total {
            return Ok(None);
        }
        let bytes = self.buffer.split_to(total);
        Ok(Some(RawFrame { kind, stream, bytes }))
    }
}

impl OuterDecoder {
    /// A stranger sends nothing that is longer than message 1.
    fn check_stranger(
        &self,
        (kind, stream, length): (OuterKind, StreamId, usize),
    ) -> Result<(OuterKind, StreamId, usize), OuterError> {
        if self.stranger && length > FIRST_MESSAGE_MAX_BYTES {
            return Err(OuterError::Length {
                kind,
                actual: u32::try_from(length).unwrap_or(u32::MAX),
                min: payload_bounds(kind).0,
                max: FIRST_MESSAGE_MAX_BYTES,
            });
        }
        Ok((kind, stream, length))
    }
}

/// Whether a payload of this many bytes may follow a header of this kind.
pub(crate) fn check_bounds(kind: OuterKind, payload: usize) -> Result<(), OuterError> {
    let (min, max) = payload_bounds(kind);
    if (min..=max).contains(&payload) {
        return Ok(());
    }
    Err(OuterError::Length {
        kind,
        actual: u32::try_from(payload).unwrap_or(u32::MAX),
        min,
        max,
    })
}

/// Gives the read buffer of whoever has proven nothing room: it cannot make this side hold more than it sends.
pub(crate) fn make_small_room(buffer: &mut BytesMut) {
    if buffer.capacity() == buffer.len() {
        buffer.reserve(STRANGERS_READ_BUFFER_BYTES);
    }
}

fn read_header(header: &[u8; OUTER_HEADER_BYTES]) -> Result<(OuterKind, StreamId, usize), OuterError> {
    let mut rest = &header[..];
    let length = rest.get_u32();
    let number = rest.get_u8();
    let kind = OuterKind::from_wire(number).ok_or(OuterError::Kind { kind: number })?;
    let (flags, reserved) = (rest.get_u8(), rest.get_u16());
    if flags != 0 || reserved != 0 {
        return Err(OuterError::Reserved { kind });
    }
    let payload = usize::try_from(length).unwrap_or(usize::MAX);
    check_bounds(kind, payload)?;
    let mut stream = [0; 16];
    rest.copy_to_slice(&mut stream);
    Ok((kind, StreamId(stream), payload))
}
