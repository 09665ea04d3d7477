//! Output of one stream that its consumer may not have: what a fresh link is told again. A pure core.
//!
//! Bounded by the client's window, since no more than that is under way. Small pieces are put together, so that many of
//! them cost no more than their bytes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use dwell_messages::process::CHUNK_MAX_BYTES;

/// Pieces shorter than this are copied together.
const SMALL_BYTES: usize = 8 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unconsumed {
    pieces: VecDeque<(u64, Bytes)>,
    tail: BytesMut,
    tail_offset: u64,
    end: u64,
}

/// What a fresh link is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Bytes, and where they stand.
    Output(u64, Bytes),
    /// Nobody has these.
    Gap(u64, u64),
}

impl Unconsumed {
    /// What was sent. What `consumed` covers is forgotten.
    pub(crate) fn push(&mut self, offset: u64, data: &Bytes, consumed: u64) {
        self.forget(consumed);
        self.end = offset + data.len() as u64;
        if self.end <= consumed {
            return;
        }
        if data.len() >= SMALL_BYTES {
            self.seal();
            self.pieces.push_back((offset, data.clone()));
            return;
        }
        let follows = self.tail_offset + self.tail.len() as u64 == offset;
        if !follows || self.tail.len() + data.len() > CHUNK_MAX_BYTES {
            self.seal();
        }
        if self.tail.is_empty() {
            self.tail_offset = offset;
        }
        self.tail.extend_from_slice(data);
    }

    /// Bytes were dropped: what comes next stands behind them.
    pub(crate) fn skip(&mut self, to: u64) {
        self.end = self.end.max(to);
    }

    /// The consumer has these.
    pub(crate) fn forget(&mut self, consumed: u64) {
        while self
            .pieces
            .pop_front_if(|(offset, data)| *offset + data.len() as u64 <= consumed)
            .is_some()
        {}
    }

    /// The first byte that is here.
    pub(crate) fn first(&self) -> u64 {
        let tail = (!self.tail.is_empty()).then_some(self.tail_offset);
        let first = self.pieces.front().map(|(offset, _)| *offset);
        first.or(tail).unwrap_or(self.end)
    }

    /// Everything from `next` on, in order; `older` is what somebody else still has of the bytes before the first here.
    pub(crate) fn from(&mut self, next: u64, older: impl Iterator<Item = (u64, Bytes)>) -> Vec<Again> {
        self.seal();
        let first = self.first();
        let older = older.filter(|(offset, _)| *offset < first).map(|(offset, data)| {
            let before = usize::try_from(first - offset).unwrap_or(usize::MAX);
            (offset, data.slice(..before.min(data.len())))
        });
        let mut again = Vec::new();
        let mut cursor = next;
        for (offset, data) in older.chain(self.pieces.iter().cloned()) {
            let end = offset + data.len() as u64;
            if end <= cursor {
                continue;
            }
            if offset > cursor {
                again.push(Again::Gap(cursor, offset));
                cursor = offset;
            }
            let known = usize::try_from(cursor - offset).unwrap_or(usize::MAX);
            again.push(Again::Output(cursor, data.slice(known..)));
            cursor = end;
        }
        if cursor < self.end {
            again.push(Again::Gap(cursor, self.end));
        }
        again
    }

    /// As `from`, for a new consumer, who has nothing of it: all of that may be told again from now on.
    pub(crate) fn rewind(&mut self, next: u64, older: impl Iterator<Item = (u64, Bytes)>) -> Vec<Again> {
        let again = self.from(next, older);
        self.pieces = again
            .iter()
            .filter_map(|piece| match piece {
                Again::Output(offset, data) => Some((*offset, data.clone())),
                Again::Gap(..) => None,
            })
            .collect();
        again
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let offset = self.tail_offset;
            self.pieces.push_back((offset, self.tail.split().freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(from: u64, length: usize) -> Bytes {
        (from..from + length as u64)
            .map(|at| (at % 251) as u8)
            .collect::<Vec<_>>()
            .into()
    }

    proptest! {
        /// Whatever was consumed, what is told again is every later byte once and in order.
        #[test]
        fn what_is_told_again_is_everything_from_there_on(
            lengths in proptest::collection::vec(prop_oneof![1_usize..40, 8_000_usize..20_000], 1..40),
            consumed in 0.0_f64..1.0,
            next in 0.0_f64..1.0,
        ) {
            let total: u64 = lengths.iter().map(|length| *length as u64).sum();
            let consumed = (total as f64 * consumed) as u64;
            let next = consumed + ((total - consumed) as f64 * next) as u64;
            let mut unconsumed = Unconsumed::default();
            let mut end = 0;
            for length in lengths {
                unconsumed.push(end, &bytes(end, length), consumed.min(end));
                end += length as u64;
            }
            unconsumed.forget(consumed);
            let mut cursor = next;
            for again in unconsumed.from(next, std::iter::empty()) {
                let Again::Output(offset, data) = again else {
                    panic!("nothing is missing");
                };
                prop_assert_eq!(offset, cursor);
                prop_assert_eq!(&data, &bytes(offset, data.len()));
                cursor += data.len() as u64;
            }
            prop_assert_eq!(cursor, total);
        }
    }

    #[test]
    fn what_nobody_has_is_named_before_between_and_behind() {
        let mut unconsumed = Unconsumed::default();
        unconsumed.push(0, &bytes(0, 10), 0);
        unconsumed.skip(50);
        unconsumed.push(50, &bytes(50, 5), 0);
        unconsumed.skip(60);
        let again = unconsumed.from(0, std::iter::empty());
        assert_eq!(
            again,
            [
                Again::Output(0, bytes(0, 10)),
                Again::Gap(10, 50),
                Again::Output(50, bytes(50, 5)),
                Again::Gap(55, 60)
            ]
        );
        unconsumed.forget(55);
        assert_eq!(unconsumed.from(0, std::iter::empty()), [Again::Gap(0, 60)]);
        let older = std::iter::once((40, bytes(40, 10)));
        unconsumed.push(60, &bytes(60, 3), 55);
        assert_eq!(
            unconsumed.from(45, older),
            [
                Again::Output(45, bytes(45, 5)),
                Again::Gap(50, 60),
                Again::Output(60, bytes(60, 3))
            ]
        );
    }

    #[test]
    fn a_new_consumer_may_have_it_again_however_often_it_asks() {
        let mut unconsumed = Unconsumed::default();
        unconsumed.push(0, &bytes(0, 10_000), 0);
        unconsumed.push(10_000, &bytes(10_000, 9_000), 10_000);
        assert_eq!(unconsumed.first(), 10_000);
        // What the consumer before had is somewhere else, as far as it is.
        let older = std::iter::once((4_000, bytes(4_000, 6_000)));
        let expected = [
            Again::Gap(2_000, 4_000),
            Again::Output(4_000, bytes(4_000, 6_000)),
            Again::Output(10_000, bytes(10_000, 9_000)),
        ];
        assert_eq!(unconsumed.rewind(2_000, older), expected);
        assert_eq!(unconsumed.first(), 4_000);
        // Now it is here, whatever becomes of the other place.
        assert_eq!(unconsumed.from(4_000, std::iter::empty()), expected[1..]);
        unconsumed.push(19_000, &bytes(19_000, 3), 4_000);
        let again = unconsumed.from(4_000, std::iter::empty());
        assert_eq!(again.last(), Some(&Again::Output(19_000, bytes(19_000, 3))));
        // From the future: nothing, and nothing is kept.
        assert_eq!(unconsumed.rewind(100_000, std::iter::empty()), []);
    }

    #[test]
    fn many_small_pieces_cost_few() {
        let mut unconsumed = Unconsumed::default();
        for at in 0..200_000 {
            unconsumed.push(at, &bytes(at, 1), 0);
        }
        assert!(unconsumed.pieces.len() <= 4);
    }
}
