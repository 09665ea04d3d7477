//! Fresh keys for a link that is up: another Noise IK inside its own records, while messages go on.
//!
//! The end that dialled begins, at the first of three limits. Its prologue is the hash of the handshake whose keys are
//! now in force, so that a renewal belongs to one link and one place in it; the pinned keys are those of the first
//! handshake. The answer is the last chunk under the old key of the end that gives it, and the end that dialled closes its
//! own old key with a chunk that says so: each direction changes its key between two records. What nobody answers
//! ends at the hard limits, and with it the link.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_messages::PublicKey;
use snow::HandshakeState;

use crate::handshake::{Established, HandshakeError, check_ephemeral};
use crate::keys::{KEY_BYTES, StaticKeypair};
use crate::noise::{self, EphemeralSeed, LINK_PATTERN, Side};
use crate::own::{OwnChunk, RENEWAL_ANSWER_BYTES, RENEWAL_BYTES};
use crate::random::Randomness;
use crate::record::{Opener, SealLimits, Sealer};

/// Records of one direction after which keys are renewed.
pub const RENEW_AFTER_RECORDS: u64 = 1 << 32;
/// Plaintext of one direction after which keys are renewed.
pub const RENEW_AFTER_BYTES: u64 = 64 << 30;
/// Age at which keys are renewed.
pub const RENEW_AFTER: Duration = Duration::from_secs(60 * 60);
/// Age at which keys that were not renewed end their link: twice as much, like the hard limits on records and bytes.
pub const KEY_AGE_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// Keeps a renewal apart from every other handshake.
const PROLOGUE_LABEL: &[u8; 16] = b"dwell renewal 1\n";

/// When keys are renewed: whichever comes first, of either direction. Only tests lower it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RenewAfter {
    /// Records of one direction.
    pub records: u64,
    /// Plaintext bytes of one direction.
    pub bytes: u64,
    /// Age of the keys.
    pub age: Duration,
}

impl Default for RenewAfter {
    fn default() -> Self {
        Self {
            records: RENEW_AFTER_RECORDS,
            bytes: RENEW_AFTER_BYTES,
            age: RENEW_AFTER,
        }
    }
}

/// A renewal failed: the link is over, and the next one has fresh keys anyway.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The handshake inside the link failed.
    #[error("it does not verify")]
    Handshake(#[from] HandshakeError),
    /// Another end, or another link, or a message with something in it.
    #[error("it was not made for this link by its other end: that end is broken, upgrade it")]
    Foreign,
    /// A message of a renewal that has no place here.
    #[error("{what} has no place while {state}: the other end is broken, upgrade it")]
    OutOfTurn {
        /// What came.
        what: &'static str,
        /// What this side was doing.
        state: &'static str,
    },
}

impl From<snow::Error> for RenewalError {
    fn from(error: snow::Error) -> Self {
        Self::Handshake(HandshakeError::NotVerified(error))
    }
}

/// Both keys of a renewal, and what names it.
struct Fresh {
    sealer: Sealer,
    opener: Opener,
    hash: [u8; 32],
}

enum Step {
    /// The keys are good.
    Settled,
    /// This end dialled: its message 1 waits to be sealed.
    Asking(Box<HandshakeState>, [u8; RENEWAL_BYTES]),
    /// It was sealed; message 2 is to come.
    Asked(Box<HandshakeState>),
    /// Message 2 came, and the peer's records have the new key; ours do once we have said so.
    Closing(Box<Sealer>),
    /// This end was dialled: its message 2 waits to be sealed, and our records have the new key behind it.
    Answering(Box<Fresh>, [u8; RENEWAL_ANSWER_BYTES]),
    /// It was sealed; the peer's records have the old key until it says so.
    Answered(Box<Opener>),
}

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Settled => "no renewal is under way",
            Self::Asking(..) => "a renewal is about to be asked for",
            Self::Asked(_) => "the answer to a renewal is awaited",
            Self::Closing(_) => "the old key is about to be closed",
            Self::Answering(..) => "a renewal is about to be answered",
            Self::Answered(_) => "the closing of the peer's old key is awaited",
        }
    }
}

/// One end's renewals.
pub(super) struct Renewal {
    identity: Arc<StaticKeypair>,
    rng: Box<dyn Randomness + Send>,
    after: RenewAfter,
    age_max: Duration,
    limits: SealLimits,
    dialled: bool,
    step: Step,
    /// Names the handshake whose keys are in force, or about to be.
    hash: [u8; 32],
    /// When its keys came into force; set while the link is up.
    since: Option<Instant>,
    /// The keys have reached their age.
    aged: bool,
    /// How often keys were renewed.
    done: u64,
}

impl Renewal {
    pub(super) fn new(
        identity: Arc<StaticKeypair>,
        rng: Box<dyn Randomness + Send>,
        dialled: bool,
        options: &super::LinkOptions,
    ) -> Self {
        Self {
            identity,
            rng,
            after: options.renew_after,
            age_max: options.key_age_max,
            limits: options.seal_limits,
            dialled,
            step: Step::Settled,
            hash: [0; 32],
            since: None,
            aged: false,
            done: 0,
        }
    }

    pub(super) fn draw_from(&mut self, rng: Box<dyn Randomness + Send>) {
        self.rng = rng;
    }

    /// The link is up, with the keys of its first handshake.
    pub(super) fn begin(&mut self, now: Instant, hash: [u8; 32]) {
        self.hash = hash;
        self.since = Some(now);
    }

    pub(super) fn over(&mut self) {
        self.step = Step::Settled;
        self.since = None;
    }

    /// How often keys were renewed in this direction of ours.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// When the age of the keys asks for something.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let since = self.since?;
        let hard = since.checked_add(self.age_max);
        let begins = self.dialled && !self.aged && matches!(self.step, Step::Settled);
        let soft = since.checked_add(self.after.age).filter(|_| begins);
        match (soft, hard) {
            (Some(soft), Some(hard)) => Some(soft.min(hard)),
            (soft, hard) => soft.or(hard),
        }
    }

    /// Time has passed. The age of keys that may not be used any more.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(since) = self.since else {
            return Ok(());
        };
        let age = now.saturating_duration_since(since);
        self.aged = age >= self.after.age;
        if age >= self.age_max { Err(age) } else { Ok(()) }
    }

    /// Whether a renewal is to be begun.
    pub(super) fn is_due(&self, keys: &Established) -> bool {
        let used = |records: u64, bytes: u64| {
            records > 0 && (records >= self.after.records || bytes >= self.after.bytes)
        };
        self.dialled
            && matches!(self.step, Step::Settled)
            && (self.aged
                || used(keys.sealer.records(), keys.sealer.bytes())
                || used(keys.opener.records(), keys.opener.bytes()))
    }

    /// Whether something is to be said.
    pub(super) fn must_speak(&self) -> bool {
        match self.step {
            Step::Settled | Step::Asked(_) | Step::Answered(_) => false,
            Step::Asking(..) | Step::Closing(_) | Step::Answering(..) => true,
        }
    }

    fn prologue(&self) -> Vec<u8> {
        [&PROLOGUE_LABEL[..], &self.hash].concat()
    }

    /// Makes message 1.
    pub(super) fn ask(&mut self, peer: PublicKey) -> Result<(), RenewalError> {
        let seed = EphemeralSeed::draw(&mut *self.rng).map_err(HandshakeError::from)?;
        let side = Side::Initiator(Some(&peer.0));
        let mut state = noise::build(LINK_PATTERN, &self.identity, &self.prologue(), seed, side)?;
        let message = noise::write(&mut state, &[])?;
        let message = message.try_into().map_err(|_| RenewalError::Foreign)?;
        self.step = Step::Asking(Box::new(state), message);
        Ok(())
    }

    /// What is to be said behind everything else of the next record.
    pub(super) fn says(&self) -> Option<OwnChunk> {
        match &self.step {
            Step::Settled | Step::Asked(_) | Step::Answered(_) => None,
            Step::Asking(_, message) => Some(OwnChunk::Renew(*message)),
            Step::Answering(_, message) => Some(OwnChunk::Renewed(*message)),
            Step::Closing(_) => Some(OwnChunk::Close(self.done + 1)),
        }
    }

    /// The record with what `says` gave was sealed: what comes next may have another key.
    pub(super) fn sealed(&mut self, now: Instant, keys: &mut Established) {
        match std::mem::replace(&mut self.step, Step::Settled) {
            Step::Asking(state, _) => self.step = Step::Asked(state),
            Step::Closing(sealer) => {
                keys.sealer = *sealer;
                self.settle(now);
            }
            Step::Answering(fresh, _) => {
                let fresh = *fresh;
                keys.sealer = fresh.sealer;
                self.hash = fresh.hash;
                self.step = Step::Answered(Box::new(fresh.opener));
            }
            step @ (Step::Settled | Step::Asked(_) | Step::Answered(_)) => self.step = step,
        }
    }

    fn settle(&mut self, now: Instant) {
        self.since = Some(now);
        self.aged = false;
        self.done += 1;
    }

    fn out_of_turn(&self, what: &'static str) -> RenewalError {
        let state = self.step.name();
        RenewalError::OutOfTurn { what, state }
    }

    /// Message 1 came.
    pub(super) fn asked(
        &mut self,
        message: &[u8; RENEWAL_BYTES],
        keys: &Established,
    ) -> Result<(), RenewalError> {
        if self.dialled || !matches!(self.step, Step::Settled) {
            return Err(self.out_of_turn("a renewal"));
        }
        check_ephemeral(message)?;
        let seed = EphemeralSeed::draw(&mut *self.rng).map_err(HandshakeError::from)?;
        let prologue = self.prologue();
        let mut state = noise::build(LINK_PATTERN, &self.identity, &prologue, seed, Side::Responder)?;
        let payload = noise::read(&mut state, message)?;
        if !payload.is_empty() || noise::remote_static(&state) != Some(keys.peer.0) {
            return Err(RenewalError::Foreign);
        }
        let answer = noise::write(&mut state, &[])?;
        let answer = answer.try_into().map_err(|_| RenewalError::Foreign)?;
        let (sealer, opener, hash) = noise::split(state, self.limits);
        let fresh = Fresh { sealer, opener, hash };
        self.step = Step::Answering(Box::new(fresh), answer);
        Ok(())
    }

    /// Message 2 came: what the peer seals from now on has the new key.
    pub(super) fn answered(
        &mut self,
        message: &[u8; RENEWAL_ANSWER_BYTES],
        keys: &mut Established,
    ) -> Result<(), RenewalError> {
        let mut state = match std::mem::replace(&mut self.step, Step::Settled) {
            Step::Asked(state) => state,
            step @ (Step::Settled
            | Step::Asking(..)
            | Step::Closing(_)
            | Step::Answering(..)
            | Step::Answered(_)) => {
                self.step = step;
                return Err(self.out_of_turn("an answer to a renewal"));
            }
        };
        check_ephemeral(message)?;
        if !noise::read(&mut state, message)?.is_empty() {
            return Err(RenewalError::Foreign);
        }
        let (sealer, opener, hash) = noise::split(*state, self.limits);
        keys.opener = opener;
        self.hash = hash;
        self.step = Step::Closing(Box::new(sealer));
        Ok(())
    }

    /// The peer has closed its old key.
    pub(super) fn closed(
        &mut self,
        now: Instant,
        ordinal: u64,
        keys: &mut Established,
    ) -> Result<(), RenewalError> {
        match std::mem::replace(&mut self.step, Step::Settled) {
            Step::Answered(opener) if ordinal == self.done + 1 => {
                keys.opener = *opener;
                self.settle(now);
                Ok(())
            }
            step @ (Step::Settled
            | Step::Asking(..)
            | Step::Asked(_)
            | Step::Closing(_)
            | Step::Answering(..)
            | Step::Answered(_)) => {
                self.step = step;
                Err(self.out_of_turn("the closing of a key"))
            }
        }
    }
}

const _: () = assert!(RENEWAL_BYTES == 2 * KEY_BYTES + 2 * 16 && RENEWAL_ANSWER_BYTES == KEY_BYTES + 16);

#[cfg(test)]
#[path = "renew_tests.rs"]
mod tests;
