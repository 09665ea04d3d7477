//! Ids: one newtype each, so that none can be taken for another.

use std::fmt;
use std::str::FromStr;

/// A static X25519 public key: who an executor or a client is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// 128 random bits that name one stream through a relay, drawn by the initiator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct StreamId(pub [u8; 16]);

/// 128 random bits that name one life of an executor's process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Epoch(pub [u8; 16]);

/// Names one request of one session; never used twice in it. Zero is not an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RequestId(pub u64);

/// Names one process of one session, chosen by the harness; never used twice in it. Zero is not an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ProcessId(pub u64);

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// A text is not a public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseKeyError {
    /// Too short or too long.
    #[error("a public key has 64 hexadecimal digits and this has {actual} characters: copy the whole key")]
    Length {
        /// Characters that came.
        actual: usize,
    },
    /// Something else than a digit.
    #[error("character {at} of the public key is not a hexadecimal digit: copy the key again")]
    Digit {
        /// Which character, from 1.
        at: usize,
    },
}

/// 64 hexadecimal digits, lower or upper case, and nothing around them.
impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut key = [0; 32];
        let actual = text.chars().count();
        if actual != 2 * key.len() {
            return Err(ParseKeyError::Length { actual });
        }
        for (index, character) in text.chars().enumerate() {
            let digit = character
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
                .ok_or(ParseKeyError::Digit { at: index + 1 })?;
            key[index / 2] = key[index / 2] << 4 | digit;
        }
        Ok(Self(key))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}
