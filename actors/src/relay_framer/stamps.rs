//! When a message passed what between whoever sent it and whoever acts on it.

use std::sync::atomic::{AtomicU64, Ordering};

use dwell_messages::codec::Trailer;

use crate::account::{Account, Segment};
use crate::telemetry::Tick;

/// When and how a message came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// When its first record arrived.
    pub(crate) first: Tick,
    /// When the framer took the record that completes it.
    pub(crate) taken: Tick,
    /// When the message was whole again, and its decoding began.
    pub(crate) opened: Tick,
    /// When it was decoded.
    pub(crate) decoded: Tick,
    /// What its framer wrote behind it.
    pub(crate) trailer: Option<Trailer>,
    /// Microseconds in relays, by their word.
    pub(crate) relay_us: u32,
}

impl Arrival {
    /// Of something that this side says in the other one's place.
    pub(crate) fn here() -> Self {
        let now = Tick::now();
        Self {
            first: now,
            taken: now,
            opened: now,
            decoded: now,
            trailer: None,
            relay_us: 0,
        }
    }

    /// The chain's segments from the arrival into the mailbox of whom the message is for.
    pub(crate) fn lap(&self, account: &mut Account, enqueued: Tick) {
        account.lap(Segment::Receive, self.taken);
        account.lap(Segment::Open, self.opened);
        account.lap(Segment::Decode, self.decoded);
        account.lap(Segment::HandOff, enqueued);
    }
}

/// The two ends of an answer's account so far: when its request arrived, and the last stamp of the chain, from which on
/// the answer counts as queued here. Both fill the trailer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accounted {
    pub(crate) arrived: Tick,
    pub(crate) handed: Tick,
}

impl From<&Account> for Accounted {
    fn from(account: &Account) -> Self {
        Self {
            arrived: account.first(),
            handed: account.last(),
        }
    }
}

/// When one message passed what on its way to the socket. Written on the framer's thread, read by whoever sent it once
/// there is an answer. Raw ticks; 0: it has not.
#[derive(Debug, Default)]
pub(crate) struct SendStamps {
    taken: AtomicU64,
    begun: AtomicU64,
    encoded: AtomicU64,
    cut: AtomicU64,
    sealed: AtomicU64,
    written: AtomicU64,
    again: AtomicU64,
}

/// Each is written before the answer can come, and the answer comes over the same thread.
const ORDER: Ordering = Ordering::Relaxed;

fn read(cell: &AtomicU64) -> Option<Tick> {
    Some(cell.load(ORDER)).filter(|raw| *raw != 0).map(Tick::from_raw)
}

impl SendStamps {
    /// The framer took it, began to encode it, and had it encoded.
    pub(super) fn encoded(&self, taken: Tick, begun: Tick, encoded: Tick) {
        self.taken.store(taken.to_raw(), ORDER);
        self.begun.store(begun.to_raw(), ORDER);
        self.encoded.store(encoded.to_raw(), ORDER);
    }

    /// Its records were cut and sealed. What has been written keeps its stamps when it is sent again.
    pub(super) fn sealed(&self, cut: Tick, sealed: Tick) {
        if self.written.load(ORDER) == 0 {
            self.cut.store(cut.to_raw(), ORDER);
            self.sealed.store(sealed.to_raw(), ORDER);
        }
    }

    /// The write that carries its last byte begins.
    pub(crate) fn written(&self, now: Tick) {
        let to = if self.written.load(ORDER) == 0 {
            &self.written
        } else {
            &self.again
        };
        to.store(now.to_raw(), ORDER);
    }

    /// When its first write began.
    pub(crate) fn first_written(&self) -> Option<Tick> {
        read(&self.written)
    }

    /// The chain's segments from the hand-over to the framer until the message was written. One that was written again
    /// on a fresh link counts from there if the answer, which came at `answered` and took the other side
    /// `turnaround_us`, can be the later one's.
    pub(crate) fn lap(&self, account: &mut Account, answered: Tick, turnaround_us: u64) {
        let stamps = [
            (Segment::FramerMailbox, &self.taken),
            (Segment::Queue, &self.begun),
            (Segment::Serialize, &self.encoded),
            (Segment::Queue, &self.cut),
            (Segment::Seal, &self.sealed),
            (Segment::Write, &self.written),
        ];
        for (segment, stamp) in stamps {
            if let Some(stamp) = read(stamp) {
                account.lap(segment, stamp);
            }
        }
        if let Some(again) = read(&self.again).filter(|again| answered.micros_since(*again) >= turnaround_us)
        {
            account.lap(Segment::Outage, again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(raw: u64) -> Tick {
        Tick::from_raw(raw)
    }

    #[test]
    fn a_message_that_was_written_twice_counts_from_the_write_that_its_answer_can_belong_to() {
        let stamps = SendStamps::default();
        stamps.encoded(tick(1), tick(1), tick(2));
        stamps.sealed(tick(3), tick(4));
        stamps.written(tick(5));
        stamps.sealed(tick(1_000_000_000), tick(1_000_000_001));
        stamps.written(tick(1_000_000_002));
        let mut late = Account::begin(tick(1));
        stamps.lap(&mut late, tick(1_000_000_003), 0);
        assert_eq!(late.last(), tick(1_000_000_002));
        // An answer that took the other side longer than since the second write is the first one's.
        let mut early = Account::begin(tick(1));
        stamps.lap(&mut early, tick(1_000_000_003), 900_000);
        assert_eq!(early.last(), tick(5));
    }

    #[test]
    fn a_message_that_never_left_takes_no_time_of_the_way() {
        let mut account = Account::begin(tick(7));
        SendStamps::default().lap(&mut account, tick(9), 0);
        assert_eq!((account.last(), account.total_ns()), (tick(7), 0));
        assert_eq!(SendStamps::default().first_written(), None);
    }
}
