//! The end-to-end handshake, `Noise_IK_25519_AESGCM_BLAKE2s`, as states named for what they wait for.
//!
//! The prologue is exactly the 64 preamble bytes. Message 1 travels with a MAC behind it (see [`crate::first_message`]),
//! which is checked before anything else is computed. Message 2's payload begins with the agreed wire version as u16.
//! Refusing a client is dropping [`AwaitingVerdict`]: nothing that it could learn from was written yet.

use bytes::Bytes;
use dwell_messages::PublicKey;
use snow::HandshakeState;

use crate::first_message::MacKey;
use crate::keys::{KEY_BYTES, KeyError, StaticKeypair, is_low_order, parse_public_key};
use crate::noise::{self, EphemeralSeed, LINK_PATTERN, Side};
use crate::outer::HANDSHAKE_MAX_BYTES;
use crate::preamble::{PREAMBLE_BYTES, WIRE_VERSION_MAX, WIRE_VERSION_MIN};
use crate::random::{Randomness, RandomnessFailed};
use crate::record::{Opener, SealLimits, Sealer, TAG_BYTES};

pub use crate::first_message::HELLO_MAX_BYTES;

/// Most bytes an executor may put into message 2.
pub const WELCOME_MAX_BYTES: usize = HANDSHAKE_MAX_BYTES - KEY_BYTES - TAG_BYTES - VERSION_BYTES;

const VERSION_BYTES: usize = 2;

/// A handshake failed. Nothing more can be said to the peer than a uniform reset.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Our own payload does not fit.
    #[error("a handshake payload of {actual} bytes, and {max} are allowed: send less before the link is up")]
    PayloadTooLong {
        /// Its bytes.
        actual: usize,
        /// What is allowed.
        max: usize,
    },
    /// A key that proves nothing.
    #[error("a key in the handshake is not usable")]
    Key(#[from] KeyError),
    /// No randomness, no handshake.
    #[error("the handshake was not begun")]
    Randomness(#[from] RandomnessFailed),
    /// It was not made for us, by the one we expect, under these clear fields; or it was changed on the way.
    #[error(
        "the handshake does not verify: the other end has another key than the pinned one, or the bytes were changed \
         on the way; compare key fingerprints"
    )]
    NotVerified(#[source] snow::Error),
    /// Message 1's MAC is wrong: nothing was computed for it.
    #[error(
        "message 1 was not made for this executor, or its bytes were changed on the way; compare key fingerprints"
    )]
    WrongMac,
    /// The peer chose a version that was not offered.
    #[error("the executor chose wire version {chosen}, which was not offered: upgrade the older side")]
    Version {
        /// What it chose.
        chosen: u16,
    },
}

/// Both keys, and what the handshake proved.
#[derive(Debug)]
pub struct Established {
    /// Seals what this side sends.
    pub sealer: Sealer,
    /// Opens what the peer sends.
    pub opener: Opener,
    /// What the executor said in message 2. Empty on the executor's own side.
    pub welcome: Bytes,
    /// The peer's proven static key.
    pub peer: PublicKey,
    /// The same 32 bytes on both sides of this handshake and no other.
    pub handshake_hash: [u8; 32],
    /// The agreed wire version.
    pub version: u16,
}

/// The side that dials.
#[derive(Debug)]
pub struct Initiator;

impl Initiator {
    /// Begins: message 1 with its MAC goes out behind the preamble, in the same write.
    ///
    /// # Errors
    /// [`HandshakeError::Key`] for an executor key of small order, [`HandshakeError::PayloadTooLong`],
    /// [`HandshakeError::Randomness`].
    pub fn start(
        identity: &StaticKeypair,
        executor: PublicKey,
        preamble: &[u8; PREAMBLE_BYTES],
        hello: &[u8],
        rng: &mut dyn Randomness,
    ) -> Result<(AwaitingWelcome, Bytes), HandshakeError> {
        if hello.len() > HELLO_MAX_BYTES {
            return Err(HandshakeError::PayloadTooLong {
                actual: hello.len(),
                max: HELLO_MAX_BYTES,
            });
        }
        let executor = parse_public_key(&executor.0)?;
        let seed = EphemeralSeed::draw(rng)?;
        let mut state = noise::build(
            LINK_PATTERN,
            identity,
            preamble,
            seed,
            Side::Initiator(Some(&executor.0)),
        )
        .map_err(HandshakeError::NotVerified)?;
        let mut message = noise::write(&mut state, hello).map_err(HandshakeError::NotVerified)?;
        MacKey::of(&executor).append(preamble, &mut message);
        let waiting = AwaitingWelcome {
            state,
            executor,
            limits: SealLimits::default(),
        };
        Ok((waiting, message.into()))
    }
}

/// Message 1 is out; waits for message 2.
pub struct AwaitingWelcome {
    state: HandshakeState,
    executor: PublicKey,
    limits: SealLimits,
}

impl AwaitingWelcome {
    /// Lowers how much each key may seal: for tests of the limit.
    pub fn with_limits(mut self, limits: SealLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Reads message 2.
    ///
    /// # Errors
    /// [`HandshakeError`]; there is no second try with this state.
    pub fn read(mut self, message: &[u8]) -> Result<Established, HandshakeError> {
        check_ephemeral(message)?;
        let payload = noise::read(&mut self.state, message).map_err(HandshakeError::NotVerified)?;
        let mut welcome = Bytes::from(payload);
        let version = match welcome.first_chunk::<VERSION_BYTES>() {
            Some(version) => u16::from_be_bytes(*version),
            None => 0,
        };
        if !(WIRE_VERSION_MIN..=WIRE_VERSION_MAX).contains(&version) {
            return Err(HandshakeError::Version { chosen: version });
        }
        let welcome = welcome.split_off(VERSION_BYTES);
        let (sealer, opener, handshake_hash) = noise::split(self.state, self.limits);
        Ok(Established {
            sealer,
            opener,
            welcome,
            peer: self.executor,
            handshake_hash,
            version,
        })
    }
}

/// The side that is dialled.
#[derive(Debug)]
pub struct Responder;

impl Responder {
    /// Reads message 1 with its MAC. The caller has already agreed on `version` with
    /// [`agree`](crate::preamble::Preamble::agree).
    ///
    /// # Errors
    /// [`HandshakeError`]: answer as to garbage.
    pub fn read_hello(
        identity: &StaticKeypair,
        preamble: &[u8; PREAMBLE_BYTES],
        version: u16,
        message: &[u8],
        rng: &mut dyn Randomness,
    ) -> Result<AwaitingVerdict, HandshakeError> {
        let seed = EphemeralSeed::draw(rng)?;
        Self::read_hello_seeded(identity, preamble, version, message, seed)
    }

    pub(crate) fn read_hello_seeded(
        identity: &StaticKeypair,
        preamble: &[u8; PREAMBLE_BYTES],
        version: u16,
        message: &[u8],
        seed: EphemeralSeed,
    ) -> Result<AwaitingVerdict, HandshakeError> {
        // Whoever hands it here may have looked already; that this state never computes for garbage rests on nobody.
        let (message, _) = MacKey::of(&identity.public())
            .check(preamble, message)
            .ok_or(HandshakeError::WrongMac)?;
        check_ephemeral(message)?;
        let mut state = noise::build(LINK_PATTERN, identity, preamble, seed, Side::Responder)
            .map_err(HandshakeError::NotVerified)?;
        let hello = noise::read(&mut state, message).map_err(HandshakeError::NotVerified)?;
        let client = noise::remote_static(&state).unwrap_or_default();
        Ok(AwaitingVerdict {
            state,
            client: parse_public_key(&client)?,
            hello: hello.into(),
            version,
            limits: SealLimits::default(),
        })
    }
}

/// Message 1 verified; waits for someone to say whether this client is served.
pub struct AwaitingVerdict {
    state: HandshakeState,
    client: PublicKey,
    hello: Bytes,
    version: u16,
    limits: SealLimits,
}

impl AwaitingVerdict {
    /// Lowers how much each key may seal: for tests of the limit.
    pub fn with_limits(mut self, limits: SealLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Who asks. Message 1 can be a replay: until a record arrives nothing may be done for it.
    pub fn client(&self) -> PublicKey {
        self.client
    }

    /// What it says.
    pub fn hello(&self) -> &Bytes {
        &self.hello
    }

    /// The hash of the handshake so far.
    pub fn handshake_hash(&self) -> [u8; 32] {
        noise::hash(&self.state)
    }

    /// Serves the client: message 2 with this payload.
    ///
    /// # Errors
    /// [`HandshakeError::PayloadTooLong`].
    pub fn welcome(mut self, payload: &[u8]) -> Result<(Established, Bytes), HandshakeError> {
        if payload.len() > WELCOME_MAX_BYTES {
            return Err(HandshakeError::PayloadTooLong {
                actual: payload.len(),
                max: WELCOME_MAX_BYTES,
            });
        }
        let versioned = [&self.version.to_be_bytes()[..], payload].concat();
        let message = noise::write(&mut self.state, &versioned).map_err(HandshakeError::NotVerified)?;
        let (sealer, opener, handshake_hash) = noise::split(self.state, self.limits);
        let established = Established {
            sealer,
            opener,
            welcome: Bytes::new(),
            peer: self.client,
            handshake_hash,
            version: self.version,
        };
        Ok((established, message.into()))
    }
}

/// Every message of ours begins with an ephemeral key in the clear; one of small order is refused at sight.
pub(crate) fn check_ephemeral(message: &[u8]) -> Result<(), HandshakeError> {
    match message.first_chunk::<KEY_BYTES>() {
        Some(key) if is_low_order(key) => Err(KeyError::LowOrder.into()),
        Some(_) => Ok(()),
        None => Err(HandshakeError::NotVerified(snow::Error::Input)),
    }
}

macro_rules! opaque_debug {
    ($($name:ident)*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque_debug!(AwaitingWelcome AwaitingVerdict);
