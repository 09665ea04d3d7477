//! The first 64 bytes of every connection, in the clear, and exactly the Noise prologue.

use bytes::{Buf, BytesMut};
use dwell_messages::{PublicKey, StreamId};

use crate::control::{Refusal, RefusalReason};
use crate::outer::{OuterDecoder, make_small_room};

/// Bytes of a preamble.
pub const PREAMBLE_BYTES: usize = 64;
/// What a connection begins with: text tools and 7-bit lines damage it, so they are found out at once.
pub const PREAMBLE_MAGIC: [u8; 8] = *b"dwell\r\n\x1a";
/// The oldest wire version this build speaks.
pub const WIRE_VERSION_MIN: u16 = 1;
/// The newest wire version this build speaks.
pub const WIRE_VERSION_MAX: u16 = 1;
/// `Noise_IK_25519_AESGCM_BLAKE2s` end to end, `Noise_XX_25519_AESGCM_BLAKE2s` for a registration.
pub const SUITE_25519_AESGCM_BLAKE2S: u16 = 1;
/// The suites this build speaks.
pub const SUITES: &[u16] = &[SUITE_25519_AESGCM_BLAKE2S];

/// Who opened the connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Dialer {
    /// A harness that wants an executor.
    Harness = 1,
    /// An executor that registers with a relay.
    Executor = 2,
    /// A harness that was refused and asks which key is served: see [`crate::inquiry`].
    Inquirer = 3,
}

/// What a dialler says before anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preamble {
    /// The oldest wire version the dialler speaks.
    pub version_min: u16,
    /// The newest wire version the dialler speaks.
    pub version_max: u16,
    /// The handshake and cipher suite.
    pub suite: u16,
    /// Who dials.
    pub dialer: Dialer,
    /// Bytes of relay admission token that follow the preamble; the relay keeps them to itself.
    pub token_len: u8,
    /// The executor that is wanted, or that registers.
    pub executor: PublicKey,
    /// The stream, drawn by the dialler.
    pub stream: StreamId,
}

/// The bytes are no preamble.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PreambleError {
    /// It does not begin with the magic.
    #[error("this is not a dwell connection: check the address and port")]
    Magic,
    /// The role is none of ours.
    #[error("the dialler says it is role {role}, and this build knows 1 to 3: upgrade the older side")]
    Role {
        /// The number received.
        role: u8,
    },
    /// The range of versions is empty.
    #[error("the dialler's version range {min} to {max} is empty: the bytes are damaged")]
    VersionRange {
        /// Its lower end.
        min: u16,
        /// Its upper end.
        max: u16,
    },
    /// Neither end of a connection that carries a token may forget it.
    #[error("a relay token has at most 255 bytes and this one has {actual}: use a shorter token")]
    TokenLength {
        /// How many bytes were given.
        actual: usize,
    },
}

impl Preamble {
    /// The preamble of this build for a stream. `token` must be at most 255 bytes; only its length is in the preamble.
    ///
    /// # Errors
    /// [`PreambleError::TokenLength`].
    pub fn new(
        dialer: Dialer,
        executor: PublicKey,
        stream: StreamId,
        token: &[u8],
    ) -> Result<Self, PreambleError> {
        let token_len =
            u8::try_from(token.len()).map_err(|_| PreambleError::TokenLength { actual: token.len() })?;
        Ok(Self {
            version_min: WIRE_VERSION_MIN,
            version_max: WIRE_VERSION_MAX,
            suite: SUITE_25519_AESGCM_BLAKE2S,
            dialer,
            token_len,
            executor,
            stream,
        })
    }

    /// The 64 bytes.
    pub fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..8].copy_from_slice(&PREAMBLE_MAGIC);
        bytes[8..10].copy_from_slice(&self.version_min.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.version_max.to_be_bytes());
        bytes[12..14].copy_from_slice(&self.suite.to_be_bytes());
        bytes[14] = self.dialer as u8;
        bytes[15] = self.token_len;
        bytes[16..48].copy_from_slice(&self.executor.0);
        bytes[48..].copy_from_slice(&self.stream.0);
        bytes
    }

    /// Reads 64 bytes. `decode(encode(x)) == x`, and the other way round for whatever decodes.
    ///
    /// # Errors
    /// [`PreambleError`]; versions and suites that we do not speak decode (see [`Preamble::agree`]).
    pub fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Result<Self, PreambleError> {
        let mut rest = &bytes[..];
        let mut magic = [0; 8];
        rest.copy_to_slice(&mut magic);
        if magic != PREAMBLE_MAGIC {
            return Err(PreambleError::Magic);
        }
        let (version_min, version_max, suite) = (rest.get_u16(), rest.get_u16(), rest.get_u16());
        if version_min > version_max {
            return Err(PreambleError::VersionRange {
                min: version_min,
                max: version_max,
            });
        }
        let dialer = match rest.get_u8() {
            1 => Dialer::Harness,
            2 => Dialer::Executor,
            3 => Dialer::Inquirer,
            role => return Err(PreambleError::Role { role }),
        };
        let token_len = rest.get_u8();
        let mut executor = [0; 32];
        rest.copy_to_slice(&mut executor);
        let mut stream = [0; 16];
        rest.copy_to_slice(&mut stream);
        Ok(Self {
            version_min,
            version_max,
            suite,
            dialer,
            token_len,
            executor: PublicKey(executor),
            stream: StreamId(stream),
        })
    }

    /// The newest version both sides speak.
    ///
    /// # Errors
    /// The [`Refusal`] to send, naming what this build supports.
    pub fn agree(&self) -> Result<u16, Refusal> {
        if self.version_min > WIRE_VERSION_MAX || self.version_max < WIRE_VERSION_MIN {
            return Err(Refusal::ours(
                RefusalReason::Version,
                "none of the offered wire versions is served here",
            ));
        }
        if !SUITES.contains(&self.suite) {
            return Err(Refusal::ours(
                RefusalReason::Suite,
                "the offered cipher suite is not served here",
            ));
        }
        Ok(self.version_max.min(WIRE_VERSION_MAX))
    }
}

/// Reads the preamble and its token off the front of a connection, however it is cut, and hands the rest on.
#[derive(Debug, Default)]
pub struct PreambleDecoder {
    buffer: BytesMut,
}

impl PreambleDecoder {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes received bytes, without copying them where they continue what is already here.
    pub fn feed(&mut self, bytes: BytesMut) {
        self.buffer.unsplit(bytes);
    }

    /// Where a driver may read into directly, with a little room: nothing is known of the dialler yet.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        make_small_room(&mut self.buffer);
        &mut self.buffer
    }

    /// The preamble and the token, once they are complete; nothing is consumed before.
    ///
    /// # Errors
    /// [`PreambleError`]: close the connection.
    pub fn decode(&mut self) -> Result<Option<(Preamble, BytesMut)>, PreambleError> {
        let seen = self.buffer.len().min(PREAMBLE_MAGIC.len());
        if self.buffer[..seen] != PREAMBLE_MAGIC[..seen] {
            return Err(PreambleError::Magic);
        }
        let Some(bytes) = self.buffer.first_chunk::<PREAMBLE_BYTES>() else {
            return Ok(None);
        };
        let preamble = Preamble::decode(bytes)?;
        if self.buffer.len() < PREAMBLE_BYTES + usize::from(preamble.token_len) {
            return Ok(None);
        }
        self.buffer.advance(PREAMBLE_BYTES);
        let token = self.buffer.split_to(usize::from(preamble.token_len));
        Ok(Some((preamble, token)))
    }

    /// What follows the preamble are frames.
    pub fn into_frames(self) -> OuterDecoder {
        OuterDecoder::resume(self.buffer)
    }
}
