//! The order of a session's messages over as many links as it takes: each is applied once.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use crate::lanes::{Lane, TrailerStamps};

/// Messages kept for the next link. More are not to be made: the owner holds them back.
pub const REPLAY_MAX_MESSAGES: usize = 1_024;
/// Bytes kept for the next link. One message may pass it.
pub const REPLAY_MAX_BYTES: usize = 8 * 1024 * 1024;
/// How far beyond the first missing message a receiver takes others: lanes overtake each other, and a sender keeps no more.
pub const SEQUENCE_WINDOW: u64 = 16 * 1024;

/// A message that the peer has not acknowledged.
#[derive(Debug)]
pub struct Kept<T> {
    /// Its place in the session's order, from 1.
    pub sequence: u64,
    /// Its lane.
    pub lane: Lane,
    /// Its channel.
    pub channel: u32,
    /// Its bytes, the sequence number in them.
    pub bytes: Bytes,
    /// Whether stamps are written at its end, and from when they count.
    pub trailer: Option<TrailerStamps>,
    /// Given back once it is acknowledged; room in a queue, for instance.
    pub token: T,
}

/// The peer broke the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OrderError {
    /// An acknowledgement of what was never sent.
    #[error("message {acknowledged} was acknowledged and {sent} were sent: the peer is faulty, update it")]
    NeverSent {
        /// What the peer says it has.
        acknowledged: u64,
        /// The last that was sent.
        sent: u64,
    },
    /// A message without a place in the order, which its kind must have.
    #[error("a message came without its sequence number: the peer is faulty, update it")]
    NoSequence,
    /// A message too far ahead: a sender with that many unacknowledged ones breaks its bound.
    #[error("message {sequence} came and {floor} is the last of which none is missing: the peer is faulty")]
    TooFarAhead {
        /// The message's number.
        sequence: u64,
        /// The receiver's floor.
        floor: u64,
    },
}

/// The sender's half.
#[derive(Debug)]
pub struct Replay<T> {
    next: u64,
    bytes: usize,
    kept: VecDeque<Kept<T>>,
}

impl<T> Default for Replay<T> {
    fn default() -> Self {
        Self::beginning_at(1)
    }
}

impl<T> Replay<T> {
    /// For an owner that goes on where another stopped: `next` is the first number that the peer does not have.
    pub fn beginning_at(next: u64) -> Self {
        Self {
            next: next.max(1),
            bytes: 0,
            kept: VecDeque::new(),
        }
    }

    /// The number of the next message: written into it before it is kept.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Keeps the next message; its number is `next_sequence`.
    pub fn keep(&mut self, message: Kept<T>) {
        debug_assert_eq!(message.sequence, self.next, "numbers are given out one by one");
        self.next += 1;
        self.bytes += message.bytes.len();
        self.kept.push_back(message);
    }

    /// The peer has applied everything up to `sequence`; a lower number than before is a late repetition. `release`
    /// gets each message's token.
    ///
    /// # Errors
    /// [`OrderError::NeverSent`]; nothing was released.
    pub fn acknowledge(&mut self, sequence: u64, mut release: impl FnMut(T)) -> Result<(), OrderError> {
        if sequence >= self.next {
            return Err(OrderError::NeverSent {
                acknowledged: sequence,
                sent: self.next - 1,
            });
        }
        while let Some(message) = self.kept.pop_front_if(|message| message.sequence <= sequence) {
            self.bytes -= message.bytes.len();
            release(message.token);
        }
        Ok(())
    }

    /// Another owner has the session: what the one before it was still to be told is nobody's any more. Gives how many
    /// messages that were.
    pub fn forget(&mut self) -> usize {
        self.bytes = 0;
        self.kept.drain(..).count()
    }

    /// What has to be sent again over a new link, in order.
    pub fn unacknowledged(&self) -> impl Iterator<Item = &Kept<T>> {
        self.kept.iter()
    }

    /// The lowest number that may come again.
    pub fn first_kept(&self) -> u64 {
        self.kept.front().map_or(self.next, |message| message.sequence)
    }

    /// Messages kept.
    pub fn messages(&self) -> usize {
        self.kept.len()
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one more message of this size would pass a bound: its owner holds it back until there is room.
    pub fn is_full(&self, bytes: usize) -> bool {
        self.kept.len() >= REPLAY_MAX_MESSAGES
            || (!self.kept.is_empty() && self.bytes + bytes > REPLAY_MAX_BYTES)
    }
}

/// What a received message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// New: apply it.
    Fresh,
    /// A repetition: it was applied before.
    Repeated,
}

/// The receiver's half.
#[derive(Clone, Debug, Default)]
pub struct Received {
    credulous: bool,
    floor: u64,
    above: BTreeSet<u64>,
    stated: u64,
    fresh: u32,
}

impl Received {
    /// Takes repetitions for new, which is wrong: for tests that show what the order is good for.
    #[doc(hidden)]
    pub fn credulous() -> Self {
        Self {
            credulous: true,
            ..Self::default()
        }
    }

    /// For an owner that goes on where another stopped: the peer sends nothing below `first`.
    pub fn skip_to(&mut self, first: u64) {
        if first.saturating_sub(1) > self.floor {
            self.floor = first - 1;
            self.above = self.above.split_off(&first);
            self.advance();
        }
    }

    /// Another owner has the session: what is missing of the one before it never comes. Everything up to the highest number
    /// that came counts as applied, and the owner goes on behind it.
    pub fn take_over(&mut self) {
        if let Some(highest) = self.above.last() {
            self.floor = *highest;
            self.above.clear();
        }
    }

    /// A message came.
    ///
    /// # Errors
    /// [`OrderError`]: the link must end; nothing was accepted.
    pub fn accept(&mut self, sequence: u64) -> Result<Accepted, OrderError> {
        if sequence == 0 {
            return Err(OrderError::NoSequence);
        }
        if self.credulous {
            return Ok(Accepted::Fresh);
        }
        if sequence <= self.floor {
            return Ok(Accepted::Repeated);
        }
        if sequence - self.floor > SEQUENCE_WINDOW {
            return Err(OrderError::TooFarAhead {
                sequence,
                floor: self.floor,
            });
        }
        if !self.above.insert(sequence) {
            return Ok(Accepted::Repeated);
        }
        self.fresh = self.fresh.saturating_add(1);
        self.advance();
        Ok(Accepted::Fresh)
    }

    /// Everything up to here has been accepted.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether there is something to acknowledge that was not yet.
    pub fn is_due(&self) -> bool {
        self.floor > self.stated
    }

    /// Messages accepted since the last acknowledgement.
    pub fn fresh(&self) -> u32 {
        self.fresh
    }

    /// The acknowledgement to send now.
    pub fn state(&mut self) -> u64 {
        self.stated = self.floor;
        self.fresh = 0;
        self.floor
    }

    fn advance(&mut self) {
        // The peer says where the order begins, and may say that it ends there.
        while let Some(next) = self.floor.checked_add(1)
            && self.above.first() == Some(&next)
        {
            self.above.pop_first();
            self.floor = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(sequence: u64) -> Kept<u64> {
        Kept {
            sequence,
            lane: Lane::Interactive,
            channel: 0,
            bytes: Bytes::from_static(b"message"),
            trailer: None,
            token: sequence,
        }
    }

    fn replay(count: u64) -> Replay<u64> {
        let mut replay = Replay::default();
        for _ in 0..count {
            replay.keep(kept(replay.next_sequence()));
        }
        replay
    }

    #[test]
    fn what_is_acknowledged_goes_and_what_is_not_is_sent_again_in_order() {
        let mut replay = replay(5);
        let mut released = Vec::new();
        replay.acknowledge(2, |token| released.push(token)).unwrap();
        assert_eq!(released, [1, 2]);
        let again: Vec<_> = replay.unacknowledged().map(|message| message.sequence).collect();
        assert_eq!((again, replay.first_kept()), (vec![3, 4, 5], 3));
        // A late acknowledgement says nothing new.
        replay.acknowledge(1, |_| panic!("released twice")).unwrap();
        assert_eq!((replay.messages(), replay.bytes()), (3, 21));
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_an_error_and_releases_nothing() {
        let mut replay = replay(2);
        let outcome = replay.acknowledge(3, |_| panic!("released"));
        assert_eq!(
            outcome,
            Err(OrderError::NeverSent {
                acknowledged: 3,
                sent: 2
            })
        );
        assert_eq!(replay.messages(), 2);
    }

    #[test]
    fn the_bounds_hold_new_messages_back_and_one_large_one_passes() {
        let mut replay: Replay<u64> = Replay::default();
        assert!(!replay.is_full(REPLAY_MAX_BYTES * 2));
        for _ in 0..REPLAY_MAX_MESSAGES {
            assert!(!replay.is_full(7));
            replay.keep(kept(replay.next_sequence()));
        }
        assert!(replay.is_full(7));
        replay.acknowledge(1, drop).unwrap();
        assert!(!replay.is_full(7) && replay.is_full(REPLAY_MAX_BYTES));
    }

    #[test]
    fn repetitions_are_known_in_any_order() {
        let mut received = Received::default();
        for sequence in [2, 1, 4] {
            assert_eq!(received.accept(sequence), Ok(Accepted::Fresh));
        }
        assert_eq!(received.floor(), 2);
        for sequence in [1, 2, 4] {
            assert_eq!(received.accept(sequence), Ok(Accepted::Repeated));
        }
        assert!(received.is_due() && received.fresh() == 3);
        assert_eq!((received.state(), received.is_due()), (2, false));
        assert_eq!(received.accept(3), Ok(Accepted::Fresh));
        assert_eq!(received.floor(), 4);
    }

    #[test]
    fn a_receiver_remembers_a_bounded_part_of_the_order() {
        let mut received = Received::default();
        assert_eq!(received.accept(0), Err(OrderError::NoSequence));
        assert_eq!(received.accept(SEQUENCE_WINDOW), Ok(Accepted::Fresh));
        assert_eq!(
            received.accept(SEQUENCE_WINDOW + 1),
            Err(OrderError::TooFarAhead {
                sequence: SEQUENCE_WINDOW + 1,
                floor: 0
            })
        );
    }

    /// K-05: what the earlier owner never got through leaves no hole, and none of it is taken for the next owner's.
    #[test]
    fn a_takeover_goes_on_behind_everything_that_came_and_forgets_what_nobody_waits_for() {
        let mut received = Received::default();
        for sequence in [1, 2, 5, 9] {
            received.accept(sequence).unwrap();
        }
        received.take_over();
        assert_eq!(received.state(), 9);
        for late in [3, 4, 6, 9] {
            assert_eq!(received.accept(late), Ok(Accepted::Repeated));
        }
        assert_eq!(received.accept(10), Ok(Accepted::Fresh));
        let mut replay = replay(4);
        replay.acknowledge(1, drop).unwrap();
        assert_eq!(replay.forget(), 3);
        assert_eq!(
            (replay.messages(), replay.bytes(), replay.first_kept()),
            (0, 0, 5)
        );
    }

    #[test]
    fn a_new_owner_begins_where_the_order_is() {
        let mut received = Received::default();
        received.accept(7).unwrap();
        received.skip_to(7);
        assert_eq!(received.floor(), 7);
        received.skip_to(3);
        assert_eq!(
            (received.floor(), received.accept(6)),
            (7, Ok(Accepted::Repeated))
        );
        assert_eq!(Replay::<()>::beginning_at(9).next_sequence(), 9);
    }

    /// It went on counting behind the last number there is.
    #[test]
    fn an_order_that_begins_at_its_last_number_ends_there() {
        let mut received = Received::default();
        received.skip_to(u64::MAX);
        assert_eq!(received.accept(u64::MAX), Ok(Accepted::Fresh));
        assert_eq!(received.floor(), u64::MAX);
        assert_eq!(received.accept(u64::MAX), Ok(Accepted::Repeated));
    }
}
