//! Opening a session: what the handshake's two payloads carry, and what an environment is.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{DecodeError, EncodeError, from_body, to_body};
use crate::error::WireError;

/// Most bytes of authorization in message 1.
pub const AUTHORIZATION_MAX_BYTES: usize = 4_096;

/// Bytes of an epoch.
pub const EPOCH_BYTES: usize = 16;
/// Bytes of a session's grant.
pub const GRANT_BYTES: usize = 32;

/// The payload of handshake message 1. Nothing in it has any effect by itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The client's clock, in Unix milliseconds: an executor may refuse what is older than what it has seen.
    pub timestamp_ms: u64,
    /// Opaque authorization, at most `AUTHORIZATION_MAX_BYTES`.
    #[serde(default)]
    pub authorization: ByteBuf,
}

/// What an executor is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvironmentInfo {
    /// Operating system, as Rust names it.
    pub os: String,
    /// Processor architecture, as Rust names it.
    pub arch: String,
    /// The machine's name.
    pub hostname: String,
    /// The executor's release.
    pub version: String,
    /// The directory commands run in unless they say otherwise, as bytes.
    pub cwd: ByteBuf,
    /// The user's shell, where known.
    pub shell: Option<String>,
    /// Processors available.
    pub cpus: u32,
    /// Optional abilities.
    pub capabilities: Vec<String>,
}

/// The payload of handshake message 2.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// This life of the executor's process, 16 bytes.
    pub epoch: ByteBuf,
    /// The number of the session that begins if the client begins one.
    pub session: u64,
    /// What the client takes that session up with when its link has died, 32 bytes.
    pub grant: ByteBuf,
    /// The executor's clock in Unix nanoseconds, to align drawings. Never used for a duration.
    pub unix_ns: u64,
    /// What the executor is.
    pub environment: EnvironmentInfo,
}

/// Most processes that one `Resume` names.
pub const RESUME_PROCESSES_MAX: usize = 4_096;

/// The first message on a fresh link of a session that exists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resume {
    /// Which session, by the number that came with its welcome.
    pub session: u64,
    /// The grant that came with its welcome, 32 bytes.
    pub token: ByteBuf,
    /// This owner's number. It must be higher than any before it: whoever had the session is shut out.
    pub owner: u64,
    /// Every message of the executor up to this sequence number has been applied.
    pub received: u64,
    /// How far the client is with each process that it still wants events of.
    pub processes: Vec<Progress>,
    /// Whether the client knows all of the session's processes: what it does not name it never wants to hear of again.
    #[serde(default)]
    pub whole: bool,
}

/// How far a client is with one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// The process's id.
    #[serde(rename = "p")]
    pub process: u64,
    /// The next byte of standard output and of standard error that it needs.
    #[serde(rename = "o")]
    pub next: [u64; 2],
    /// The offsets that may not be passed.
    #[serde(rename = "l")]
    pub limit: [u64; 2],
}

/// The session goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resumed {
    /// The owner's number, as it was asked for.
    pub owner: u64,
    /// Every message of the client up to this sequence number has been applied.
    pub received: u64,
    /// The lowest sequence number that the executor may still send: what stands below it was acknowledged.
    pub from: u64,
    /// The executor never heard of the session: nothing of it was done. It begins here, as the one that this link's welcome
    /// names.
    #[serde(default)]
    pub anew: bool,
}

/// The session does not go on over this link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResumeRefused {
    /// Why: `UnknownSession` for every session that is not there or not this client's, `Superseded` for one that has a
    /// newer owner.
    pub error: WireError,
    /// The present owner's number, where the session is this client's; else 0.
    pub owner: u64,
}

impl Hello {
    /// As handshake payload.
    ///
    /// # Errors
    /// When the authorization is too long.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        if self.authorization.len() > AUTHORIZATION_MAX_BYTES {
            return Err(EncodeError::TooLarge {
                limit: AUTHORIZATION_MAX_BYTES,
                actual: self.authorization.len(),
            });
        }
        to_body(self)
    }

    /// From a handshake payload.
    ///
    /// # Errors
    /// When it is not one, or its authorization is too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let hello: Self = from_body(bytes)?;
        if hello.authorization.len() > AUTHORIZATION_MAX_BYTES {
            return Err(DecodeError::TooLarge {
                limit: AUTHORIZATION_MAX_BYTES,
                actual: hello.authorization.len(),
            });
        }
        Ok(hello)
    }
}

impl Welcome {
    /// As handshake payload.
    ///
    /// # Errors
    /// Only if serialization itself fails.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        to_body(self)
    }

    /// From a handshake payload.
    ///
    /// # Errors
    /// When it is not one, or its epoch or grant has another length than it must.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let welcome: Self = from_body(bytes)?;
        let fields = [
            ("epoch", welcome.epoch.len(), EPOCH_BYTES),
            ("grant", welcome.grant.len(), GRANT_BYTES),
        ];
        match fields
            .into_iter()
            .find(|(_, actual, expected)| actual != expected)
        {
            None => Ok(welcome),
            Some((field, actual, expected)) => Err(DecodeError::BadBody {
                kind: 0,
                id: None,
                why: format!("{field} has {actual} bytes and must have {expected}"),
            }),
        }
    }
}
