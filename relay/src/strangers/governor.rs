//! Whether a message 1 is worth a Diffie-Hellman.

use std::hash::Hash;
use std::time::Instant;

use crate::first_message::FirstMac;

use super::bucket::{Bucket, Rate};
use super::pending::{Pending, Ticket};
use super::repeats::Repeats;
use super::sources::{Sources, Standing};

/// The rates of everybody together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// For those nobody speaks for.
    pub strangers: Rate,
    /// Kept for those a relay vouches for, and for sources a client was let in from lately. They use the strangers' as
    /// well, when this is used up.
    pub reserved: Rate,
}

impl Rates {
    /// Handshakes of one executor. A handshake costs it some 0.3 ms: at both rates together 5 % of a core.
    pub const EXECUTOR: Self = Self {
        strangers: Rate {
            per_s: 100,
            burst: 50,
        },
        reserved: Rate { per_s: 50, burst: 50 },
    };
    /// Registrations at one relay. After its restart all its executors come at once, and have their tokens back as they
    /// prove themselves.
    pub const REGISTRATIONS: Self = Self {
        strangers: Rate {
            per_s: 100,
            burst: 100,
        },
        reserved: Rate {
            per_s: 100,
            burst: 100,
        },
    };
}

/// Whether anybody speaks for a client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Vouching {
    /// A relay has admitted it by a token of its allow file.
    Vouched,
    /// Nobody does.
    Unvouched,
}

/// Why a message 1 is not looked into. For the operator; the other end hears no more than that it is too much, or
/// what garbage hears.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Turned {
    /// It came before, and its client was let in by it.
    #[error("it is a repetition of a message that was answered")]
    Repeated,
    /// All together ask too often.
    #[error("too many handshakes are asked for")]
    Rate,
    /// Its source asks too often.
    #[error("its source asks for too many handshakes")]
    SourceRate,
    /// Its source failed too often and asks again.
    #[error("its source failed too often")]
    Penalised,
}

impl Turned {
    /// Whether the same client may have better luck in a moment.
    pub fn is_for_now(self) -> bool {
        match self {
            Self::Repeated => false,
            Self::Rate | Self::SourceRate | Self::Penalised => true,
        }
    }
}

/// What became of every message 1 since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HandshakeCounts {
    /// Without a right MAC: nothing was computed for them but that.
    pub wrong_mac: u64,
    /// Repetitions.
    pub repeated: u64,
    /// Past the rate of all together.
    pub over_rate: u64,
    /// Past the rate of their source.
    pub over_source_rate: u64,
    /// Of sources that failed too often.
    pub penalised: u64,
    /// Worth a Diffie-Hellman, and given one.
    pub admitted: u64,
    /// Of those: they did not verify, or their client is not served.
    pub failed: u64,
    /// Of those: their client was answered, and so they were under way.
    pub answered: u64,
    /// Of those: their client proved to be there.
    pub confirmed: u64,
    /// Of those: they made room for others.
    pub evicted: u64,
}

/// Which of the common buckets paid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Payer {
    Strangers,
    Reserved,
    /// Nothing is limited.
    Nobody,
}

/// One message 1 that may be looked into. Say what came of it.
#[must_use = "without a word on what came of it a success is not paid back and a failure is forgotten"]
#[derive(Debug)]
pub struct Admitted<S> {
    source: (S, Vouching),
    payer: Payer,
    mac: Option<FirstMac>,
}

/// Judges the message 1s of one executor, or the registrations of one relay. `S` tells sources apart.
///
/// Order: [`judge`](Self::judge), the Diffie-Hellman, then [`failed`](Self::failed) or [`answered`](Self::answered), and after
/// that [`confirmed`](Self::confirmed) or [`left`](Self::left).
#[derive(Debug)]
pub struct Governor<S> {
    rates: Rates,
    limited: bool,
    strangers: Bucket,
    reserved: Bucket,
    sources: Sources<(S, Vouching)>,
    repeats: Repeats,
    pending: Pending<Admitted<S>>,
    counts: HandshakeCounts,
}

impl<S: Copy + Eq + Hash> Governor<S> {
    /// Nobody came yet.
    pub fn new(now: Instant, rates: Rates) -> Self {
        Self {
            rates,
            limited: true,
            strangers: Bucket::full(now, rates.strangers),
            reserved: Bucket::full(now, rates.reserved),
            sources: Sources::new(),
            repeats: Repeats::default(),
            pending: Pending::new(),
            counts: HandshakeCounts::default(),
        }
    }

    /// Finds everything worth a Diffie-Hellman: for tests that show what the limits are good for.
    #[doc(hidden)]
    #[must_use]
    pub fn without_limits(mut self) -> Self {
        self.limited = false;
        self
    }

    /// A message 1 came without a right MAC.
    pub fn wrong_mac(&mut self) {
        self.counts.wrong_mac += 1;
    }

    /// A message 1 with a right MAC came.
    ///
    /// # Errors
    /// [`Turned`] says why it is not to be looked into.
    pub fn judge(
        &mut self,
        now: Instant,
        source: S,
        vouching: Vouching,
        mac: FirstMac,
    ) -> Result<Admitted<S>, Turned> {
        if self.limited && self.repeats.contains(&mac) {
            self.counts.repeated += 1;
            return Err(Turned::Repeated);
        }
        let admitted = self.admit(now, source, vouching)?;
        Ok(Admitted {
            mac: Some(mac),
            ..admitted
        })
    }

    /// Somebody asks for something that costs as much, and has no message to know again.
    ///
    /// # Errors
    /// [`Turned`], for the rates.
    pub fn admit(&mut self, now: Instant, source: S, vouching: Vouching) -> Result<Admitted<S>, Turned> {
        let source = (source, vouching);
        let payer = if self.limited {
            self.pay(now, source).inspect_err(|turned| match turned {
                Turned::Repeated => self.counts.repeated += 1,
                Turned::Rate => self.counts.over_rate += 1,
                Turned::SourceRate => self.counts.over_source_rate += 1,
                Turned::Penalised => self.counts.penalised += 1,
            })?
        } else {
            Payer::Nobody
        };
        self.counts.admitted += 1;
        Ok(Admitted {
            source,
            payer,
            mac: None,
        })
    }

    /// Takes a token of everybody's and one of the source's, or none at all.
    fn pay(&mut self, now: Instant, source: (S, Vouching)) -> Result<Payer, Turned> {
        let spoken_for = match source.1 {
            Vouching::Vouched => true,
            Vouching::Unvouched => self.sources.is_familiar(now, &source),
        };
        let payer = if spoken_for && self.reserved.has_one(now, self.rates.reserved) {
            Payer::Reserved
        } else if self.strangers.has_one(now, self.rates.strangers) {
            Payer::Strangers
        } else {
            return Err(Turned::Rate);
        };
        // A source past its own rate must not use up what all others have.
        match self.sources.standing(now, &source) {
            Standing::Free => {}
            Standing::Spent => return Err(Turned::SourceRate),
            Standing::Penalised => return Err(Turned::Penalised),
        }
        self.sources.take(now, source);
        match payer {
            Payer::Reserved => self.reserved.take(now, self.rates.reserved),
            Payer::Strangers => self.strangers.take(now, self.rates.strangers),
            Payer::Nobody => true,
        };
        Ok(payer)
    }

    /// It does not verify, or its client is not served.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what was admitted ends once: by this or by `proven`"
    )]
    pub fn failed(&mut self, now: Instant, admitted: Admitted<S>) {
        self.counts.failed += 1;
        self.sources.failed(now, admitted.source);
    }

    /// Its client is served and has been answered: it is under way. Gives its ticket, and that of the handshake which
    /// makes room for it: end that one.
    ///
    /// # Errors
    /// [`Turned::Repeated`]: the same message was answered meanwhile.
    pub fn answered(&mut self, admitted: Admitted<S>) -> Result<(Ticket, Option<Ticket>), Turned> {
        if let Some(mac) = admitted.mac
            && !self.repeats.insert(mac)
            && self.limited
        {
            self.counts.repeated += 1;
            return Err(Turned::Repeated);
        }
        self.counts.answered += 1;
        let preferred = match admitted.payer {
            Payer::Reserved => true,
            Payer::Strangers | Payer::Nobody => false,
        };
        let (ticket, evicted) = self.pending.insert(admitted, preferred);
        self.counts.evicted += u64::from(evicted.is_some());
        Ok((ticket, evicted))
    }

    /// Whether a handshake is still under way: it may have made room.
    pub fn is_pending(&self, ticket: Ticket) -> bool {
        self.pending.contains(ticket)
    }

    /// Its client's first record has opened: message 1 was no replay, so it cost nothing that counts. False: it had
    /// made room for another.
    pub fn confirmed(&mut self, now: Instant, ticket: Ticket) -> bool {
        let Some(admitted) = self.pending.remove(ticket) else {
            return false;
        };
        self.proven(now, &admitted);
        true
    }

    /// What was asked for was proven at once.
    pub fn proven(&mut self, now: Instant, admitted: &Admitted<S>) {
        self.counts.confirmed += 1;
        self.sources.succeeded(now, admitted.source);
        match admitted.payer {
            Payer::Reserved => self.reserved.give_back(now, self.rates.reserved),
            Payer::Strangers => self.strangers.give_back(now, self.rates.strangers),
            Payer::Nobody => {}
        }
    }

    /// It ended without a word of its client: a dial that lost its race, a link that broke, a replay. It is not paid
    /// back, and held against nobody.
    pub fn left(&mut self, ticket: Ticket) {
        self.pending.remove(ticket);
    }

    /// What became of everything.
    pub fn counts(&self) -> HandshakeCounts {
        self.counts
    }

    /// Handshakes under way.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Sources that are remembered.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }
}
