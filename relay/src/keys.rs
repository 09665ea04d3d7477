//! Static keys: who an executor or a client is, and how people compare them.

use std::fmt;

use dwell_messages::PublicKey;
use snow::params::{DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::random::{Randomness, RandomnessFailed};

/// Bytes of a private or public X25519 key.
pub const KEY_BYTES: usize = 32;

/// Every u-coordinate, high bit cleared, whose product with any clamped scalar is zero: an exchange with one of these
/// proves nothing about the other side.
const LOW_ORDER: [[u8; KEY_BYTES]; 7] = [
    [0; KEY_BYTES],
    small(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    near_prime(0xec),
    near_prime(0xed),
    near_prime(0xee),
];

const fn small(value: u8) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[0] = value;
    bytes
}

/// The prime 2^255 - 19 has the low byte 0xed; its neighbours differ in that byte only.
const fn near_prime(low: u8) -> [u8; KEY_BYTES] {
    let mut bytes = [0xff; KEY_BYTES];
    bytes[0] = low;
    bytes[KEY_BYTES - 1] = 0x7f;
    bytes
}

/// A key was not usable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The point has small order: anyone can compute the shared secret.
    #[error("the public key has small order and proves nothing: check where the key was copied from")]
    LowOrder,
    /// Not 32 bytes.
    #[error("a key has {KEY_BYTES} bytes and this one has {actual}: check where the key was copied from")]
    Length {
        /// How many bytes were given.
        actual: usize,
    },
}

/// Reads a public key, refusing those an attacker could speak for without a private one.
///
/// # Errors
/// [`KeyError::Length`], [`KeyError::LowOrder`].
pub fn parse_public_key(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    let key = <[u8; KEY_BYTES]>::try_from(bytes).map_err(|_| KeyError::Length { actual: bytes.len() })?;
    if is_low_order(&key) {
        return Err(KeyError::LowOrder);
    }
    Ok(PublicKey(key))
}

/// Whether these bytes, read as X25519 reads them, are a point of small order.
pub(crate) fn is_low_order(key: &[u8; KEY_BYTES]) -> bool {
    let mut masked = *key;
    masked[KEY_BYTES - 1] &= 0x7f;
    LOW_ORDER.contains(&masked)
}

/// A private key and its public half. Debug shows only the public one; the private one is wiped on drop.
pub struct StaticKeypair {
    private: Zeroizing<[u8; KEY_BYTES]>,
    public: PublicKey,
}

impl StaticKeypair {
    /// Draws a fresh private key.
    ///
    /// # Errors
    /// [`RandomnessFailed`]: no key was made.
    pub fn generate(rng: &mut dyn Randomness) -> Result<Self, RandomnessFailed> {
        let mut private = Zeroizing::new([0; KEY_BYTES]);
        rng.fill(&mut *private)?;
        Ok(Self::from_private(private))
    }

    /// The pair of a stored private key.
    pub fn from_private(private: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let mut dh = DefaultResolver
            .resolve_dh(&DHChoice::Curve25519)
            .expect("snow's default resolver is built with X25519");
        dh.set(&*private);
        let mut public = [0; KEY_BYTES];
        public.copy_from_slice(dh.pubkey());
        Self {
            private,
            public: PublicKey(public),
        }
    }

    /// The public half: what others pin and list.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The private half, for whoever stores it. Never log it.
    pub fn expose_private(&self) -> &[u8; KEY_BYTES] {
        &self.private
    }
}

impl fmt::Debug for StaticKeypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKeypair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Compares two keys without telling by time where they differ.
pub fn keys_match(one: &PublicKey, other: &PublicKey) -> bool {
    one.0.ct_eq(&other.0).into()
}

/// A short text for people to compare keys by: `BLAKE2s:` and the unpadded base64 of
/// BLAKE2s-256("dwell key fingerprint v1" ‖ key), 43 characters.
pub fn fingerprint(key: &PublicKey) -> String {
    let mut text = String::from("BLAKE2s:");
    push_base64(&blake2s(&[b"dwell key fingerprint v1", &key.0]), &mut text);
    text
}

/// BLAKE2s-256 of the parts, one after the other.
pub(crate) fn blake2s(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = DefaultResolver
        .resolve_hash(&HashChoice::Blake2s)
        .expect("snow's default resolver is built with BLAKE2s");
    parts.iter().for_each(|part| hash.input(part));
    let mut digest = [0; 32];
    hash.result(&mut digest);
    digest
}

fn push_base64(bytes: &[u8], text: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0_u32, |bits, (place, byte)| {
            bits | u32::from(*byte) << (16 - 8 * place)
        });
        for place in 0..=group.len() {
            let index = (bits >> (18 - 6 * place)) & 0x3f;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
}
