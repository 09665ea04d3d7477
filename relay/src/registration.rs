//! How an executor registers with a relay: `Noise_XX_25519_AESGCM_BLAKE2s` in three HANDSHAKE frames, with the
//! executor's preamble as prologue. What it proves is that the registrant holds the private half of the key it names.

use bytes::{Buf, Bytes, BytesMut};
use dwell_messages::PublicKey;
use dwell_messages::kinds::OuterKind;
use snow::HandshakeState;

use crate::control::{ControlError, Refusal, Reset};
use crate::handshake::{HandshakeError, check_ephemeral};
use crate::keys::{StaticKeypair, keys_match, parse_public_key};
use crate::noise::{self, EphemeralSeed, REGISTRATION_PATTERN, Side};
use crate::outer::{OuterFrame, encode_outer};
use crate::preamble::{PREAMBLE_BYTES, Preamble, PreambleError};
use crate::random::Randomness;

/// A registration failed: close the connection.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The proof does not verify.
    #[error("the registration's handshake failed")]
    Handshake(#[from] HandshakeError),
    /// The proven key is not the one in the preamble.
    #[error("the registrant proved key {proven} and named {named}: it must name its own key")]
    OtherKey {
        /// What it proved.
        proven: PublicKey,
        /// What it named.
        named: PublicKey,
    },
    /// The relay does not admit this executor, or does not speak this version.
    #[error("the relay refused the registration")]
    Refused(#[source] Refusal),
    /// The relay closed instead of answering.
    #[error("the relay closed the registration ({code:?}): ask its operator whether this key is allowed", code = .0.code)]
    Closed(Reset),
    /// The token's length is not the preamble's.
    #[error("the preamble is not usable")]
    Preamble(#[from] PreambleError),
    /// A frame could not be read.
    #[error("the relay's answer is malformed")]
    Control(#[from] ControlError),
    /// A frame that has no place here.
    #[error("a {kind:?} frame during registration: the relay is broken, upgrade it")]
    UnexpectedFrame {
        /// What came.
        kind: OuterKind,
    },
}

/// The executor's side.
#[derive(Debug)]
pub struct Registrant;

/// A registration in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisteredExecutor {
    /// The relay's static key, for whoever pins it. It is not needed for the security of links.
    pub relay: PublicKey,
    /// The wire version agreed with the relay.
    pub version: u16,
}

impl Registrant {
    /// Begins: write the bytes (preamble, token, message 1) as soon as the transport is up.
    ///
    /// # Errors
    /// [`RegistrationError::Handshake`] without randomness; [`RegistrationError::Preamble`] for a token whose length
    /// is not the preamble's.
    pub fn start(
        identity: &StaticKeypair,
        preamble: &Preamble,
        token: &[u8],
        rng: &mut dyn Randomness,
    ) -> Result<(AwaitingRelay, Bytes), RegistrationError> {
        if token.len() != usize::from(preamble.token_len) {
            return Err(PreambleError::TokenLength { actual: token.len() }.into());
        }
        let seed = EphemeralSeed::draw(rng).map_err(HandshakeError::from)?;
        let clear = preamble.encode();
        let mut state = noise::build(
            REGISTRATION_PATTERN,
            identity,
            &clear,
            seed,
            Side::Initiator(None),
        )
        .map_err(HandshakeError::NotVerified)?;
        let message = noise::write(&mut state, &[]).map_err(HandshakeError::NotVerified)?;
        let mut out = BytesMut::new();
        out.extend_from_slice(&clear);
        out.extend_from_slice(token);
        encode_outer(&mut out, OuterKind::Handshake, preamble.stream, 0, &message);
        let waiting = AwaitingRelay {
            state,
            stream: preamble.stream,
        };
        Ok((waiting, out.freeze()))
    }
}

/// Message 1 is out; waits for the relay's message 2.
pub struct AwaitingRelay {
    state: HandshakeState,
    stream: dwell_messages::StreamId,
}

impl AwaitingRelay {
    /// Takes the relay's first frame.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn handle_frame(
        mut self,
        frame: &OuterFrame,
    ) -> Result<(AwaitingRegistered, Bytes), RegistrationError> {
        expect(frame, OuterKind::Handshake)?;
        check_ephemeral(&frame.payload)?;
        noise::read(&mut self.state, &frame.payload).map_err(HandshakeError::NotVerified)?;
        let relay = noise::remote_static(&self.state).unwrap_or_default();
        let relay = parse_public_key(&relay).map_err(HandshakeError::from)?;
        let message = noise::write(&mut self.state, &[]).map_err(HandshakeError::NotVerified)?;
        let mut out = BytesMut::new();
        encode_outer(&mut out, OuterKind::Handshake, self.stream, 0, &message);
        Ok((AwaitingRegistered { relay }, out.freeze()))
    }
}

/// Message 3 is out; waits for REGISTERED.
#[derive(Debug)]
pub struct AwaitingRegistered {
    relay: PublicKey,
}

impl AwaitingRegistered {
    /// Takes the relay's verdict.
    ///
    /// # Errors
    /// [`RegistrationError::Refused`] and others.
    pub fn handle_frame(self, frame: &OuterFrame) -> Result<RegisteredExecutor, RegistrationError> {
        expect(frame, OuterKind::Registered)?;
        let version = (&frame.payload[..])
            .try_get_u16()
            .map_err(|_| ControlError::Truncated {
                actual: frame.payload.len(),
            })?;
        Ok(RegisteredExecutor {
            relay: self.relay,
            version,
        })
    }
}

fn expect(frame: &OuterFrame, kind: OuterKind) -> Result<(), RegistrationError> {
    match frame.kind {
        actual if actual == kind => Ok(()),
        OuterKind::Refused => Err(RegistrationError::Refused(Refusal::decode(&frame.payload)?)),
        OuterKind::Reset => Err(RegistrationError::Closed(Reset::decode(&frame.payload)?)),
        other => Err(RegistrationError::UnexpectedFrame { kind: other }),
    }
}

/// The relay's side.
#[derive(Debug)]
pub struct Registrar;

/// The registrant holds the private half of this key. Only a verified handshake makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProvenExecutor(PublicKey);

impl ProvenExecutor {
    /// The proven key.
    pub fn key(self) -> PublicKey {
        self.0
    }
}

impl Registrar {
    /// Reads message 1 and gives message 2, the payload of a HANDSHAKE frame.
    ///
    /// # Errors
    /// [`RegistrationError::Handshake`].
    pub fn read_first(
        identity: &StaticKeypair,
        preamble: &Preamble,
        message: &[u8],
        rng: &mut dyn Randomness,
    ) -> Result<(AwaitingProof, Bytes), RegistrationError> {
        check_ephemeral(message)?;
        let seed = EphemeralSeed::draw(rng).map_err(HandshakeError::from)?;
        let clear: [u8; PREAMBLE_BYTES] = preamble.encode();
        let mut state = noise::build(REGISTRATION_PATTERN, identity, &clear, seed, Side::Responder)
            .map_err(HandshakeError::NotVerified)?;
        noise::read(&mut state, message).map_err(HandshakeError::NotVerified)?;
        let answer = noise::write(&mut state, &[]).map_err(HandshakeError::NotVerified)?;
        let waiting = AwaitingProof {
            state,
            named: preamble.executor,
        };
        Ok((waiting, answer.into()))
    }
}

/// Message 2 is out; waits for the registrant's proof.
pub struct AwaitingProof {
    state: HandshakeState,
    named: PublicKey,
}

impl AwaitingProof {
    /// Reads message 3.
    ///
    /// # Errors
    /// [`RegistrationError::Handshake`], [`RegistrationError::OtherKey`].
    pub fn read(mut self, message: &[u8]) -> Result<ProvenExecutor, RegistrationError> {
        noise::read(&mut self.state, message).map_err(HandshakeError::NotVerified)?;
        let proven = noise::remote_static(&self.state).unwrap_or_default();
        let proven = parse_public_key(&proven).map_err(HandshakeError::from)?;
        if !keys_match(&proven, &self.named) {
            return Err(RegistrationError::OtherKey {
                proven,
                named: self.named,
            });
        }
        Ok(ProvenExecutor(proven))
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

opaque_debug!(AwaitingRelay AwaitingProof);
