//! What a client takes its session up with: a MAC, so that nothing need be kept for it.

use dwell_messages::PublicKey;
use ring::hmac;

use crate::random::{Randomness, RandomnessFailed};

/// Bytes of a grant.
pub const GRANT_BYTES: usize = 32;

/// Makes and judges the grants of one life of an executor.
pub struct Grants(hmac::Key);

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grants")
    }
}

impl Grants {
    /// Grants of another life, or of another executor, are worth nothing here.
    ///
    /// # Errors
    /// [`RandomnessFailed`].
    pub fn draw(rng: &mut dyn Randomness) -> Result<Self, RandomnessFailed> {
        let mut key = [0; 32];
        rng.fill(&mut key)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// The grant of one session of one client.
    pub fn issue(&self, session: u64, client: &PublicKey) -> [u8; GRANT_BYTES] {
        let tag = hmac::sign(&self.0, &message(session, client));
        tag.as_ref().try_into().expect("a tag of SHA-256 has 32 bytes")
    }

    /// Whether this is the grant of that session of that client. Takes the same time for every wrong one.
    pub fn verify(&self, session: u64, client: &PublicKey, grant: &[u8]) -> bool {
        hmac::verify(&self.0, &message(session, client), grant).is_ok()
    }
}

fn message(session: u64, client: &PublicKey) -> [u8; 40] {
    let mut message = [0; 40];
    message[..8].copy_from_slice(&session.to_be_bytes());
    message[8..].copy_from_slice(&client.0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::OsRandomness;

    #[test]
    fn a_grant_is_good_for_its_session_its_client_and_its_life_only() {
        let grants = Grants::draw(&mut OsRandomness::new()).unwrap();
        let (client, other) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let grant = grants.issue(7, &client);
        assert!(grants.verify(7, &client, &grant));
        assert!(!grants.verify(8, &client, &grant));
        assert!(!grants.verify(7, &other, &grant));
        assert!(!grants.verify(7, &client, &grant[..31]));
        let mut flipped = grant;
        flipped[31] ^= 1;
        assert!(!grants.verify(7, &client, &flipped));
        let next_life = Grants::draw(&mut OsRandomness::new()).unwrap();
        assert!(!next_life.verify(7, &client, &grant));
    }
}
