//! Message 1 of a link as it travels: the Noise message and a MAC that whoever does not know which executor is meant
//! cannot make, so that garbage costs a hash and no Diffie-Hellman.
//!
//! The MAC's key is made of the executor's public key: it keeps out noise, scanners and old addresses. It proves nothing,
//! and nobody is let in for it.

use dwell_messages::PublicKey;
use ring::{digest, hmac};
use subtle::ConstantTimeEq as _;

use crate::keys::KEY_BYTES;
use crate::preamble::PREAMBLE_BYTES;
use crate::record::TAG_BYTES;

/// Bytes of the MAC behind message 1.
pub const MAC_BYTES: usize = 16;
/// Most bytes a client may put into message 1: 4 KiB of authorization and what stands around it.
pub const HELLO_MAX_BYTES: usize = 4_096 + 256;
/// The least bytes of message 1 with its MAC: an ephemeral key, a sealed static key, an empty sealed hello.
pub const FIRST_MESSAGE_MIN_BYTES: usize = 2 * KEY_BYTES + 2 * TAG_BYTES + MAC_BYTES;
/// The most bytes of message 1 with its MAC. Nothing longer is read of whoever has not been let in.
pub const FIRST_MESSAGE_MAX_BYTES: usize = FIRST_MESSAGE_MIN_BYTES + HELLO_MAX_BYTES;

const LABEL: &[u8] = b"dwell message 1 v1";

/// The MAC of one message 1, which names it: the same twice means that it was sent twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FirstMac([u8; MAC_BYTES]);

impl FirstMac {
    /// A MAC with these bytes, for tests of what is decided by it.
    #[doc(hidden)]
    pub fn from_bytes(bytes: [u8; MAC_BYTES]) -> Self {
        Self(bytes)
    }
}

/// Makes and judges the MACs of message 1 to one executor.
pub struct MacKey(hmac::Key);

impl MacKey {
    /// The key for messages to this executor: SHA-256("dwell message 1 v1" ‖ public key).
    pub fn of(executor: &PublicKey) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(LABEL);
        hash.update(&executor.0);
        Self(hmac::Key::new(hmac::HMAC_SHA256, hash.finish().as_ref()))
    }

    /// Appends the MAC to a Noise message.
    pub fn append(&self, preamble: &[u8; PREAMBLE_BYTES], noise: &mut Vec<u8>) {
        let mac = self.mac(preamble, noise);
        noise.extend_from_slice(&mac.0);
    }

    /// Takes a message 1 apart whose MAC is right. `None`: it is not, or the length is none of message 1. Takes the same
    /// time for every wrong MAC.
    pub fn check<'a>(
        &self,
        preamble: &[u8; PREAMBLE_BYTES],
        message: &'a [u8],
    ) -> Option<(&'a [u8], FirstMac)> {
        if !(FIRST_MESSAGE_MIN_BYTES..=FIRST_MESSAGE_MAX_BYTES).contains(&message.len()) {
            return None;
        }
        let (noise, mac) = message.split_last_chunk::<MAC_BYTES>()?;
        let right = self.mac(preamble, noise);
        bool::from(right.0.ct_eq(mac)).then_some((noise, right))
    }

    /// HMAC-SHA256(preamble ‖ Noise message), its first 16 bytes.
    fn mac(&self, preamble: &[u8; PREAMBLE_BYTES], noise: &[u8]) -> FirstMac {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(preamble);
        context.update(noise);
        let whole = context.sign();
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&whole.as_ref()[..MAC_BYTES]);
        FirstMac(mac)
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey")
    }
}
