//! An OPEN frame's payload: the harness's preamble as it came, what the relay attests, and message 1.

use bytes::{Buf as _, BytesMut};

use crate::preamble::{PREAMBLE_BYTES, Preamble, PreambleError};
use crate::source::{SOURCE_TAG_BYTES, SourceTag};
use crate::strangers::Vouching;

/// Bytes of what a relay attests: flags u8, the source's tag.
pub const ATTESTATION_BYTES: usize = 1 + SOURCE_TAG_BYTES;

/// The harness's token is in the relay's allow file.
const VOUCHED: u8 = 0b1;

/// What a relay says about whoever it opens a stream for. Its word: it decides about rates, and about nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attestation {
    /// Whether its token was admitted by an allow file. A relay that is open to everybody vouches for nobody.
    pub vouching: Vouching,
    /// Where it comes from.
    pub source: SourceTag,
}

/// An OPEN frame is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// The harness's preamble is not usable.
    #[error("the preamble is not usable")]
    Preamble(#[from] PreambleError),
    /// It ends early.
    #[error("an opening of {actual} bytes ends before its fields do: the relay is broken, upgrade it")]
    Truncated {
        /// Its bytes.
        actual: usize,
    },
    /// Reserved bits are set.
    #[error("an opening with reserved flags {flags:#04x}: upgrade the older side")]
    Reserved {
        /// The flags received.
        flags: u8,
    },
}

impl Attestation {
    /// The bytes between preamble and message 1.
    pub fn encode(&self) -> [u8; ATTESTATION_BYTES] {
        let mut bytes = [0; ATTESTATION_BYTES];
        bytes[0] = match self.vouching {
            Vouching::Vouched => VOUCHED,
            Vouching::Unvouched => 0,
        };
        bytes[1..].copy_from_slice(&self.source.0);
        bytes
    }

    fn decode(bytes: &[u8; ATTESTATION_BYTES]) -> Result<Self, OpenError> {
        let vouching = match bytes[0] {
            0 => Vouching::Unvouched,
            VOUCHED => Vouching::Vouched,
            flags => return Err(OpenError::Reserved { flags }),
        };
        let mut source = SourceTag::default();
        source.0.copy_from_slice(&bytes[1..]);
        Ok(Self { vouching, source })
    }
}

/// Takes an OPEN frame's payload apart: the preamble, what the relay attests, message 1 with its MAC.
///
/// # Errors
/// [`OpenError`].
pub fn split_open(mut payload: BytesMut) -> Result<(Preamble, Attestation, BytesMut), OpenError> {
    let truncated = OpenError::Truncated {
        actual: payload.len(),
    };
    let preamble = Preamble::decode(payload.first_chunk::<PREAMBLE_BYTES>().ok_or(truncated)?)?;
    payload.advance(PREAMBLE_BYTES);
    let attestation = Attestation::decode(payload.first_chunk::<ATTESTATION_BYTES>().ok_or(truncated)?)?;
    payload.advance(ATTESTATION_BYTES);
    Ok((preamble, attestation, payload))
}
