//! Who may use a relay.

use dwell_messages::PublicKey;
use subtle::{Choice, ConstantTimeEq};

use crate::keys::blake2s;
use crate::strangers::Vouching;

/// What a relay keeps of a harness's token: BLAKE2s-256("dwell relay token v1" ‖ token).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &[u8]) -> Self {
        Self(blake2s(&[b"dwell relay token v1", token]))
    }
}

/// Who is admitted. Comparisons take the same time wherever, and whether, they match.
#[derive(Clone, Debug)]
pub enum Admission {
    /// Everyone: for a relay that listens on loopback only.
    Open,
    /// Only these.
    Listed {
        /// Executors, by the key they prove.
        executors: Vec<PublicKey>,
        /// Harnesses, by the hash of the token behind their preamble.
        harness_tokens: Vec<TokenHash>,
    },
}

impl Admission {
    pub(super) fn admits_executor(&self, key: &PublicKey) -> bool {
        match self {
            Self::Open => true,
            Self::Listed { executors, .. } => any(executors.iter().map(|listed| listed.0.ct_eq(&key.0))),
        }
    }

    /// Whether a harness is admitted, and whether that says anything for it.
    pub(super) fn admits_harness(&self, token: &[u8]) -> Option<Vouching> {
        match self {
            Self::Open => Some(Vouching::Unvouched),
            Self::Listed { harness_tokens, .. } => {
                let hash = TokenHash::of(token);
                any(harness_tokens.iter().map(|listed| listed.0.ct_eq(&hash.0))).then_some(Vouching::Vouched)
            }
        }
    }
}

fn any(matches: impl Iterator<Item = Choice>) -> bool {
    matches.fold(Choice::from(0), |found, next| found | next).into()
}
