//! HTTP requests that an executor makes for its client: what is asked, what is answered, and what neither may hold.
//!
//! An exchange is one request with its answer. Its client opens it, and then draws its body a part at a time: what is not
//! drawn stays with the server it comes from.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::kinds::MessageKind;

/// Bytes of a body in one message, either way.
pub const PART_MAX_BYTES: usize = 256 * 1024;
/// Bytes of a request's whole body.
pub const BODY_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of a URL.
pub const URL_MAX_BYTES: usize = 16 * 1024;
/// Bytes of a method.
pub const METHOD_MAX_BYTES: usize = 64;
/// Headers of one request.
pub const HEADERS_MAX: usize = 256;
/// Bytes of all of them, names, values and names of variables.
pub const HEADERS_MAX_BYTES: usize = 128 * 1024;

/// Names an exchange of a session; its client chooses it. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExchangeId(pub u64);

/// Whether a redirect is followed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Redirects {
    /// It is, a bounded number of times.
    #[default]
    #[serde(rename = "f")]
    Follow,
    /// It is the answer.
    #[serde(rename = "s")]
    Stop,
}

/// A header of a request. Its value stays out of logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentHeader {
    /// Its name.
    #[serde(rename = "n")]
    pub name: String,
    /// Its value.
    #[serde(rename = "v")]
    pub value: ByteBuf,
    /// A variable of the executor's environment, whose value is added behind.
    #[serde(rename = "e", default)]
    pub variable: Option<String>,
}

impl fmt::Debug for SentHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentHeader").finish_non_exhaustive()
    }
}

/// A header of an answer. Its value stays out of logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its name, in small letters.
    #[serde(rename = "n")]
    pub name: String,
    /// Its value.
    #[serde(rename = "v")]
    pub value: ByteBuf,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header").finish_non_exhaustive()
    }
}

/// Opens an exchange. It is answered when the head of the answer is there, once the whole body was sent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Names it from now on.
    pub exchange: ExchangeId,
    /// The method.
    pub method: String,
    /// Where to: `http` or `https`.
    pub url: String,
    /// The headers. What frames a message is the executor's own, and passed over.
    #[serde(default)]
    pub headers: Vec<SentHeader>,
    /// Whether redirects are followed.
    #[serde(default)]
    pub redirects: Redirects,
    /// How long all of it may take in milliseconds, from here to the last byte that is drawn. `None`: for ever.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Bytes of the whole body, at most `BODY_MAX_BYTES`.
    pub body_bytes: u64,
    /// Its beginning, at most `PART_MAX_BYTES`; the rest comes with `Send`.
    #[serde(default)]
    pub data: Bytes,
}

/// Neither where it goes nor what it carries belongs into a log.
impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open")
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}

/// The next part of a request's body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Send {
    /// The exchange.
    pub exchange: ExchangeId,
    /// What; at most `PART_MAX_BYTES`.
    pub data: Bytes,
}

/// Draws the next part of an answer's body, once there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Read {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Most bytes wanted, 1 at least; at most `PART_MAX_BYTES` come.
    pub max_bytes: u32,
}

/// Gives an exchange up, wherever it is. One that is over, or never was, is no error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Close {
    /// Which.
    pub exchange: ExchangeId,
}

/// What can be asked about HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpRequest {
    /// An exchange, opened.
    Open(Box<Open>),
    /// More of its request.
    Send(Send),
    /// More of its answer.
    Read(Read),
    /// No more of it.
    Close(Close),
}

/// The head of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Its number.
    pub status: u16,
    /// Its headers, in their order, with repetitions.
    pub headers: Vec<Header>,
}

/// A part of an answer's body. It may hold less than was wanted, but only the last one holds nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Body {
    /// The bytes, as they came: nothing is decoded.
    pub data: Bytes,
    /// Whether these are the last; the exchange is over.
    pub end: bool,
}

/// What is answered about HTTP. An error to `Open` or `Read` ends the exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpReply {
    /// To `Open`.
    Head(Head),
    /// To `Send`.
    Sent,
    /// To `Read`.
    Body(Body),
    /// To `Close`.
    Closed,
}

/// What is wrong with a request or an answer about HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Flaw {
    /// A field.
    #[error("{field} {problem}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More of a body than one message carries.
    #[error("{actual} bytes in one part, and {PART_MAX_BYTES} are the most")]
    TooLarge {
        /// How much it is.
        actual: usize,
    },
}

fn flaw(field: &'static str, problem: &'static str) -> Result<(), Flaw> {
    Err(Flaw::Field { field, problem })
}

fn known(exchange: ExchangeId) -> Result<(), Flaw> {
    if exchange.0 == 0 {
        return flaw("exchange", "is 0");
    }
    Ok(())
}

fn part(actual: usize) -> Result<(), Flaw> {
    if actual > PART_MAX_BYTES {
        return Err(Flaw::TooLarge { actual });
    }
    Ok(())
}

impl Open {
    fn check(&self) -> Result<(), Flaw> {
        known(self.exchange)?;
        if self.method.len() > METHOD_MAX_BYTES {
            return flaw("method", "has more than 64 bytes");
        }
        if self.url.len() > URL_MAX_BYTES {
            return flaw("url", "has more than 16,384 bytes");
        }
        if self.headers.len() > HEADERS_MAX {
            return flaw("headers", "has more than 256 elements");
        }
        let bytes = |header: &SentHeader| {
            header.name.len() + header.value.len() + header.variable.as_ref().map_or(0, String::len)
        };
        if self.headers.iter().map(bytes).sum::<usize>() > HEADERS_MAX_BYTES {
            return flaw("headers", "has more than 131,072 bytes");
        }
        if self.body_bytes > BODY_MAX_BYTES {
            return flaw("body_bytes", "is more than 16,777,216");
        }
        if self.data.len() as u64 > self.body_bytes {
            return flaw("data", "has more bytes than body_bytes says");
        }
        part(self.data.len())
    }
}

impl HttpRequest {
    /// The method's name, of low cardinality, for spans.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Open(_) => "Http/Open",
            Self::Send(_) => "Http/Send",
            Self::Read(_) => "Http/Read",
            Self::Close(_) => "Http/Close",
        }
    }

    /// Its kind on the wire.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Open(_) => MessageKind::HttpOpen,
            Self::Send(_) => MessageKind::HttpSend,
            Self::Read(_) => MessageKind::HttpRead,
            Self::Close(_) => MessageKind::HttpClose,
        }
    }

    /// The exchange that it is about.
    pub fn exchange(&self) -> ExchangeId {
        match self {
            Self::Open(open) => open.exchange,
            Self::Send(send) => send.exchange,
            Self::Read(read) => read.exchange,
            Self::Close(close) => close.exchange,
        }
    }

    /// A first guess at its encoded size in bytes.
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Open(open) => open.data.len() + open.url.len() + 64 * open.headers.len() + 384,
            Self::Send(send) => send.data.len() + 128,
            Self::Read(_) | Self::Close(_) => 384,
        }
    }

    /// Looks for what the decoder refuses, and the encoder does not write.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn check(&self) -> Result<(), Flaw> {
        match self {
            Self::Open(open) => open.check(),
            Self::Send(send) => known(send.exchange).and_then(|()| part(send.data.len())),
            Self::Read(read) if read.max_bytes == 0 => flaw("max_bytes", "is 0"),
            Self::Read(read) => known(read.exchange),
            Self::Close(close) => known(close.exchange),
        }
    }
}

impl HttpReply {
    /// Its kind on the wire.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Head(_) => MessageKind::HttpHead,
            Self::Sent => MessageKind::HttpSent,
            Self::Body(_) => MessageKind::HttpBody,
            Self::Closed => MessageKind::HttpClosed,
        }
    }

    /// A first guess at its encoded size in bytes.
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Body(body) => body.data.len() + 128,
            Self::Head(head) => 64 * head.headers.len() + 384,
            Self::Sent | Self::Closed => 384,
        }
    }

    /// As a request's: no answer carries more than a part.
    ///
    /// # Errors
    /// How much it carries.
    pub fn check(&self) -> Result<(), Flaw> {
        match self {
            Self::Body(body) => part(body.data.len()),
            Self::Head(_) | Self::Sent | Self::Closed => Ok(()),
        }
    }
}
