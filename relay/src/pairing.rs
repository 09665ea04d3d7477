//! What an executor keeps of a one-time code, and how it is carried in message 1.

use subtle::ConstantTimeEq as _;

use crate::keys::blake2s;

/// Bytes of a one-time code: too many to guess.
pub const PAIRING_CODE_BYTES: usize = 16;
/// What stands before the code in message 1's authorization.
pub const PAIRING_PREFIX: &[u8; 6] = b"pair1:";

/// The hash of a code: BLAKE2s-256("dwell pairing code v1" ‖ code).
#[derive(Clone, Copy, Debug)]
pub struct PairingHash([u8; 32]);

impl PairingHash {
    /// The hash of a code.
    pub fn of(code: &[u8; PAIRING_CODE_BYTES]) -> Self {
        Self(blake2s(&[b"dwell pairing code v1", code]))
    }

    /// Whether this is the code. Takes the same time whatever the code is.
    pub fn matches(&self, code: &[u8; PAIRING_CODE_BYTES]) -> bool {
        self.0.ct_eq(&Self::of(code).0).into()
    }
}

/// The authorization that carries a code.
pub fn authorization(code: &[u8; PAIRING_CODE_BYTES]) -> Vec<u8> {
    [&PAIRING_PREFIX[..], &code[..]].concat()
}

/// The code in an authorization; `None` when it carries none.
pub fn presented(authorization: &[u8]) -> Option<&[u8; PAIRING_CODE_BYTES]> {
    authorization.strip_prefix(PAIRING_PREFIX)?.try_into().ok()
}
