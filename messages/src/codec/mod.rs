//! The native encoding: a fixed header, a MessagePack body in named maps, and nothing behind it.
//!
//! Specified in PROTOCOL.md, "Inside the seal". The kind is a number outside serde, so that an unknown one can be
//! answered; lengths, depth and counts are checked before serde sees a byte.

mod body;
mod files;
mod header;
mod http;
mod scan;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::envelope::Envelope;
use crate::ids::RequestId;
use crate::kinds::MessageKind;
use crate::message::Message;
use crate::trace::{TraceContext, TraceState};

pub use header::{FLAG_TRAILER, HEADER_BYTES, Header, MESSAGE_VERSION, TRAILER_BYTES};
pub(crate) use scan::check;
pub use scan::{DEPTH_MAX, ELEMENTS_MAX};

/// Most bytes of one message, header and trailer included.
pub const MESSAGE_MAX_BYTES: usize = 1 << 20;

/// A message cannot be put on the wire.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncodeError {
    /// Larger than anything the peer accepts.
    #[error("the message has {actual} bytes and {limit} are the most: send less at once")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The size in bytes.
        actual: usize,
    },
    /// A string holds what the executor's system cannot take.
    #[error("{field} {problem}: remove it")]
    BadString {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A path that no file can have.
    #[error("{field} {problem}: give an absolute path without NUL bytes, of at most 4,096 bytes")]
    BadPath {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// serde failed, which for these types means out of memory.
    #[error("the message could not be serialized: {0}")]
    Serialize(String),
}

/// Bytes from the peer are not a message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Ends early.
    #[error("the message ends early: the peer is faulty, or the bytes are not a message")]
    Truncated,
    /// A version this release does not speak.
    #[error("message version {version} is not spoken here: update the older side")]
    Version {
        /// The peer's version.
        version: u8,
    },
    /// Flags of a later version.
    #[error("flags {flags:#06x} are reserved: update this side")]
    ReservedBits {
        /// The flags.
        flags: u16,
    },
    /// Header and size disagree.
    #[error("the header declares {declared} bytes and {actual} came: the peer is faulty")]
    Length {
        /// What the header says.
        declared: usize,
        /// What came.
        actual: usize,
    },
    /// Larger than the limit.
    #[error("{actual} bytes, and {limit} are the most")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The size in bytes.
        actual: usize,
    },
    /// Nested too deeply.
    #[error("the body nests deeper than {limit}")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// A collection has too many elements.
    #[error("a collection of the body has more than {limit} elements")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A MessagePack type that no body may hold.
    #[error("the body holds MessagePack type {head:#04x}, which is not used here")]
    ForbiddenType {
        /// The type's first byte.
        head: u8,
    },
    /// Bytes behind the body's one value.
    #[error("bytes follow the body's value: the peer is faulty")]
    TrailingBytes,
    /// A kind outside the registry that is not a request.
    #[error("message kind {kind:#04x} is unknown: update this side")]
    UnknownKind {
        /// The kind's number.
        kind: u8,
    },
    /// A request kind outside the registry: it can be answered.
    #[error("method {kind:#04x} is unknown here: update the executor")]
    UnknownMethod {
        /// The request to answer.
        id: RequestId,
        /// The method's number.
        kind: u8,
    },
    /// A body that is not what its kind says.
    #[error("the body of kind {kind:#04x} is not understood: {why}")]
    BadBody {
        /// The message's kind.
        kind: u8,
        /// The request to answer, where it is one.
        id: Option<RequestId>,
        /// Which field, and what is wrong with it.
        why: String,
    },
    /// A path that no file can have: the request can be answered.
    #[error("{field} {problem}")]
    BadPath {
        /// The request to answer.
        id: RequestId,
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An id that must not be 0 is.
    #[error("kind {kind:#04x} comes without the id it needs")]
    MissingId {
        /// The message's kind.
        kind: u8,
    },
}

impl DecodeError {
    /// The request that can be answered with this error while the link lives. `None`: the link must end.
    pub fn request_id(&self) -> Option<RequestId> {
        match self {
            Self::UnknownMethod { id, .. } | Self::BadPath { id, .. } => Some(*id),
            Self::BadBody { id, .. } => *id,
            Self::Truncated
            | Self::Version { .. }
            | Self::ReservedBits { .. }
            | Self::Length { .. }
            | Self::TooLarge { .. }
            | Self::TooDeep { .. }
            | Self::TooMany { .. }
            | Self::ForbiddenType { .. }
            | Self::TrailingBytes
            | Self::UnknownKind { .. }
            | Self::MissingId { .. } => None,
        }
    }
}

/// What the framer wrote behind a message when it cut its last record. Durations, never clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trailer {
    /// Since the request's first record arrived, in microseconds.
    pub turnaround_us: u32,
    /// Since this message was enqueued, in microseconds.
    pub queued_us: u32,
}

/// A message from the wire.
#[derive(Clone, PartialEq, Debug)]
pub struct Decoded {
    /// The link's sequence number; 0 where it has none.
    pub sequence: u64,
    /// Its ancestry; `None` when it carried no valid one.
    pub context: Option<TraceContext>,
    /// Whether it carried something that is no context: counted, never an error.
    pub context_malformed: bool,
    /// The message.
    pub message: Message,
    /// The framer's account, for kinds that have one.
    pub trailer: Option<Trailer>,
}

/// Encodes a message. Its trailer, if it has one, is zero until the framer fills it.
///
/// # Errors
/// When it is larger than `MESSAGE_MAX_BYTES` or holds strings no system takes.
pub fn encode(envelope: &Envelope<Message>, sequence: u64) -> Result<Bytes, EncodeError> {
    let mut out = BytesMut::with_capacity(body::size_hint(&envelope.body));
    encode_into(&mut out, envelope, sequence)?;
    Ok(out.freeze())
}

/// Encodes behind what `out` holds already. On an error `out` is as it was.
///
/// # Errors
/// As `encode`.
pub fn encode_into(
    out: &mut BytesMut,
    envelope: &Envelope<Message>,
    sequence: u64,
) -> Result<(), EncodeError> {
    let start = out.len();
    let written = write(out, envelope, sequence);
    let actual = out.len() - start;
    let outcome = written.and_then(|()| {
        if actual > MESSAGE_MAX_BYTES {
            return Err(EncodeError::TooLarge {
                limit: MESSAGE_MAX_BYTES,
                actual,
            });
        }
        Ok(())
    });
    if outcome.is_err() {
        out.truncate(start);
    }
    outcome
}

fn write(out: &mut BytesMut, envelope: &Envelope<Message>, sequence: u64) -> Result<(), EncodeError> {
    let message = &envelope.body;
    let start = out.len();
    let ids = (sequence, message.header_id(), message.header_process());
    let trailer = message.has_trailer();
    Header::write(out, message.kind().to_wire(), trailer, ids, &envelope.context);
    let body_at = out.len();
    body::encode(out, message)?;
    let length = u32::try_from(out.len() - body_at).unwrap_or(u32::MAX);
    let at = start + header::BODY_LENGTH_AT;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    if trailer {
        out.put_bytes(0, TRAILER_BYTES);
    }
    Ok(())
}

/// Decodes one whole message.
///
/// # Errors
/// `DecodeError::request_id` says whether the link may live on.
pub fn decode(bytes: &Bytes) -> Result<Decoded, DecodeError> {
    if bytes.len() > MESSAGE_MAX_BYTES {
        return Err(DecodeError::TooLarge {
            limit: MESSAGE_MAX_BYTES,
            actual: bytes.len(),
        });
    }
    let header = Header::read(bytes)?;
    let state_at = HEADER_BYTES;
    let body_at = state_at + header.tracestate;
    let body_end = body_at + header.body;
    let (context, context_malformed) = context(&header, &bytes[state_at..body_at]);
    let kind = MessageKind::from_wire(header.kind).ok_or_else(|| unknown(&header))?;
    let message = body::decode(kind, &header, &bytes.slice(body_at..body_end))?;
    let trailer = header.trailer.then(|| {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        Trailer {
            turnaround_us: word(body_end),
            queued_us: word(body_end + 4),
        }
    });
    Ok(Decoded {
        sequence: header.sequence,
        context,
        context_malformed,
        message,
        trailer,
    })
}

/// A message's sequence number, also of one whose body is not understood. `None`: not even the header is.
pub fn sequence(bytes: &Bytes) -> Option<u64> {
    Header::read(bytes).ok().map(|header| header.sequence)
}

/// A message's context, also of one whose body is not understood. `None`: it has none, or a malformed one.
pub fn context_of(bytes: &Bytes) -> Option<TraceContext> {
    let header = Header::read(bytes).ok()?;
    let state = bytes.get(HEADER_BYTES..HEADER_BYTES + header.tracestate)?;
    context(&header, state).0
}

/// Numbers below this are requests, in every version.
const REQUESTS_END: u8 = 0x40;

fn unknown(header: &Header) -> DecodeError {
    let (kind, id) = (header.kind, header.id);
    if (1..REQUESTS_END).contains(&kind) && id != 0 {
        DecodeError::UnknownMethod {
            id: RequestId(id),
            kind,
        }
    } else {
        DecodeError::UnknownKind { kind }
    }
}

fn context(header: &Header, state: &[u8]) -> (Option<TraceContext>, bool) {
    let Some(mut context) = TraceContext::decode(&header.context) else {
        let absent = header.context == [0; crate::trace::TRACE_CONTEXT_BYTES] && state.is_empty();
        return (None, !absent);
    };
    if state.is_empty() {
        return (Some(context), false);
    }
    context.state = std::str::from_utf8(state)
        .ok()
        .and_then(TraceState::parse)
        .map(Into::into);
    let malformed = context.state.is_none();
    (Some(context), malformed)
}

pub(crate) fn to_body<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    rmp_serde::to_vec_named(value).map_err(|error| EncodeError::Serialize(error.to_string()))
}

pub(crate) fn from_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    check(bytes)?;
    if !matches!(bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Err(DecodeError::BadBody {
            kind: 0,
            id: None,
            why: "it is not a map".into(),
        });
    }
    rmp_serde::from_slice(bytes).map_err(|error| DecodeError::BadBody {
        kind: 0,
        id: None,
        why: error.to_string(),
    })
}
