//! The one place that touches snow: building states whose randomness was drawn beforehand, and splitting them.

use std::sync::Mutex;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver, FallbackResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::keys::{KEY_BYTES, StaticKeypair};
use crate::random::{Randomness, RandomnessFailed};
use crate::record::{Opener, SealLimits, Sealer};

/// End to end.
pub(crate) const LINK_PATTERN: &str = "Noise_IK_25519_AESGCM_BLAKE2s";
/// Between an executor and a relay.
pub(crate) const REGISTRATION_PATTERN: &str = "Noise_XX_25519_AESGCM_BLAKE2s";

/// The 32 bytes of one ephemeral key. A handshake draws exactly one, so a second use is a bug and fails.
pub(crate) struct EphemeralSeed(Zeroizing<[u8; KEY_BYTES]>);

impl EphemeralSeed {
    pub(crate) fn draw(rng: &mut dyn Randomness) -> Result<Self, RandomnessFailed> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        rng.fill(&mut *seed)?;
        Ok(Self(seed))
    }
}

/// snow's random source for one handshake.
struct OneDraw(Option<EphemeralSeed>);

impl Random for OneDraw {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.take() {
            Some(seed) if dest.len() == KEY_BYTES => {
                dest.copy_from_slice(&*seed.0);
                Ok(())
            }
            Some(_) | None => Err(snow::Error::Rng),
        }
    }
}

/// ring where it has the primitive, snow's default elsewhere, and our randomness always.
struct SeededResolver {
    seed: Mutex<Option<EphemeralSeed>>,
    primitives: FallbackResolver,
}

impl CryptoResolver for SeededResolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        let seed = self.seed.lock().ok()?.take();
        Some(Box::new(OneDraw(seed)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        self.primitives.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        self.primitives.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        self.primitives.resolve_cipher(choice)
    }
}

/// Which side of a handshake, and what it knows of the other.
#[derive(Clone, Copy)]
pub(crate) enum Side<'a> {
    /// Speaks first; under IK it pins the responder's key.
    Initiator(Option<&'a [u8; KEY_BYTES]>),
    /// Answers.
    Responder,
}

/// A fresh handshake state.
pub(crate) fn build(
    pattern: &str,
    identity: &StaticKeypair,
    prologue: &[u8],
    seed: EphemeralSeed,
    side: Side<'_>,
) -> Result<HandshakeState, snow::Error> {
    let resolver = SeededResolver {
        seed: Mutex::new(Some(seed)),
        primitives: FallbackResolver::new(Box::new(RingResolver), Box::new(DefaultResolver)),
    };
    let builder = Builder::with_resolver(pattern.parse()?, Box::new(resolver))
        .local_private_key(identity.expose_private())?
        .prologue(prologue)?;
    match side {
        Side::Initiator(Some(remote)) => builder.remote_public_key(remote)?.build_initiator(),
        Side::Initiator(None) => builder.build_initiator(),
        Side::Responder => builder.build_responder(),
    }
}

/// Writes one handshake message.
pub(crate) fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, snow::Error> {
    // Ephemeral, encrypted static, and two tags are the most any message of ours adds.
    let mut message = vec![0; payload.len() + 2 * KEY_BYTES + 2 * 16];
    let length = state.write_message(payload, &mut message)?;
    message.truncate(length);
    Ok(message)
}

/// Reads one handshake message and gives its payload.
pub(crate) fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, snow::Error> {
    let mut payload = vec![0; message.len()];
    let length = state.read_message(message, &mut payload)?;
    payload.truncate(length);
    Ok(payload)
}

/// The peer's proven static key.
pub(crate) fn remote_static(state: &HandshakeState) -> Option<[u8; KEY_BYTES]> {
    state.get_remote_static()?.try_into().ok()
}

/// The hash of what was said so far.
pub(crate) fn hash(state: &HandshakeState) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(state.get_handshake_hash());
    hash
}

/// The keys of a finished handshake, each for its direction, and the handshake hash.
pub(crate) fn split(mut state: HandshakeState, limits: SealLimits) -> (Sealer, Opener, [u8; 32]) {
    let hash = hash(&state);
    let (from_initiator, from_responder) = state.dangerously_get_raw_split();
    let (from_initiator, from_responder) = (Zeroizing::new(from_initiator), Zeroizing::new(from_responder));
    let (ours, theirs) = if state.is_initiator() {
        (&from_initiator, &from_responder)
    } else {
        (&from_responder, &from_initiator)
    };
    (Sealer::new(ours, limits), Opener::new(theirs, limits), hash)
}
