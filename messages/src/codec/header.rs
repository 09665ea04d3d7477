//! The fixed header of every message inside the seal.

use bytes::{Buf as _, BufMut as _, BytesMut};

use crate::trace::{TRACE_CONTEXT_BYTES, TRACESTATE_MAX_BYTES, TraceContext};

use super::{DecodeError, MESSAGE_MAX_BYTES};

/// Bytes of the header, tracestate excluded.
pub const HEADER_BYTES: usize = 60;
/// The version this crate writes and reads.
pub const MESSAGE_VERSION: u8 = 1;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 8;
/// Flag: a trailer follows the body.
pub const FLAG_TRAILER: u16 = 1;

/// The header as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Number of the kind; it may be unknown.
    pub kind: u8,
    /// Whether a trailer follows the body.
    pub trailer: bool,
    /// Bytes of the body.
    pub body: usize,
    /// The link's sequence number; 0 where the message has none.
    pub sequence: u64,
    /// The request's id; 0 where there is none.
    pub id: u64,
    /// The process; 0 where there is none.
    pub process: u64,
    /// The 26 bytes of trace context, not yet looked at.
    pub context: [u8; TRACE_CONTEXT_BYTES],
    /// Bytes of tracestate.
    pub tracestate: usize,
}

impl Header {
    /// Reads a header and checks that exactly the rest of the message follows it.
    ///
    /// # Errors
    /// Everything here is fatal for the link: its framing can no longer be trusted.
    pub fn read(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let length = bytes.len();
        if length < HEADER_BYTES {
            return Err(DecodeError::Truncated);
        }
        let version = bytes.get_u8();
        if version != MESSAGE_VERSION {
            return Err(DecodeError::Version { version });
        }
        let kind = bytes.get_u8();
        let flags = bytes.get_u16();
        if flags & !FLAG_TRAILER != 0 {
            return Err(DecodeError::ReservedBits { flags });
        }
        let body = bytes.get_u32() as usize;
        if body > MESSAGE_MAX_BYTES {
            return Err(DecodeError::TooLarge {
                limit: MESSAGE_MAX_BYTES,
                actual: body,
            });
        }
        let (sequence, id, process) = (bytes.get_u64(), bytes.get_u64(), bytes.get_u64());
        let mut context = [0; TRACE_CONTEXT_BYTES];
        bytes.copy_to_slice(&mut context);
        let tracestate = usize::from(bytes.get_u16());
        if tracestate > TRACESTATE_MAX_BYTES {
            return Err(DecodeError::TooLarge {
                limit: TRACESTATE_MAX_BYTES,
                actual: tracestate,
            });
        }
        let trailer = flags & FLAG_TRAILER != 0;
        let expected = HEADER_BYTES + tracestate + body + if trailer { TRAILER_BYTES } else { 0 };
        if expected != length {
            return Err(DecodeError::Length {
                declared: expected,
                actual: length,
            });
        }
        Ok(Self {
            kind,
            trailer,
            body,
            sequence,
            id,
            process,
            context,
            tracestate,
        })
    }

    /// Writes a header; the body's length is filled in by the caller at `BODY_LENGTH_AT`.
    pub(super) fn write(
        out: &mut BytesMut,
        kind: u8,
        trailer: bool,
        ids: (u64, u64, u64),
        context: &TraceContext,
    ) {
        out.put_u8(MESSAGE_VERSION);
        out.put_u8(kind);
        out.put_u16(if trailer { FLAG_TRAILER } else { 0 });
        out.put_u32(0);
        out.put_u64(ids.0);
        out.put_u64(ids.1);
        out.put_u64(ids.2);
        out.put_slice(&context.encode());
        let state = context.state.as_deref().map_or("", |state| state.as_str());
        out.put_u16(u16::try_from(state.len()).unwrap_or(0));
        out.put_slice(state.as_bytes());
    }
}

/// Where in the header the body's length stands.
pub(super) const BODY_LENGTH_AT: usize = 4;
