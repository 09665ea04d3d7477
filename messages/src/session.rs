//! Opening a session: what the handshake's two payloads carry, and what an environment is.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::codec::{DecodeError, EncodeError, from_body, to_body};

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
    /// The session's grant, 32 bytes: a MAC of the handshake under a key of this life.
    pub grant: ByteBuf,
    /// The executor's clock in Unix nanoseconds, to align drawings. Never used for a duration.
    pub unix_ns: u64,
    /// What the executor is.
    pub environment: EnvironmentInfo,
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
