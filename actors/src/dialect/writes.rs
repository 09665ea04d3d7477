//! What is to be written to one process: in the order in which it came. A pure core.
//!
//! Some of it counts as written when it is here, as its client expects. What comes beyond that waits for its answer, and
//! holds up nobody else's.

use std::collections::VecDeque;

use bytes::Bytes;

/// Writes of a process that are answered before its pipe has taken them.
pub const WRITES_ACCEPTED_MAX: usize = 128;
/// Bytes of those, one write in any case.
pub const ACCEPTED_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Writes of a process that wait for their answer.
pub const WRITES_WAITING_MAX: usize = 1_024;
/// Bytes of all writes of a process that wait, those without an answer included.
pub const WAITING_MAX_BYTES: usize = 64 * 1024 * 1024;

struct Waiting<W> {
    data: Bytes,
    /// Whoever waits for the answer, if it was not given.
    answer: Option<W>,
}

/// See the module. `W` is whoever waits for an answer.
pub(super) struct WriteQueue<W> {
    queue: VecDeque<Waiting<W>>,
    bytes: usize,
    /// Of the queue's beginning, what has its answer.
    accepted: usize,
    accepted_bytes: usize,
}

/// What becomes of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put<W> {
    /// It counts as written.
    Accepted(W),
    /// Its answer comes when there is room.
    Waits,
    /// There is too much already.
    Refused(W),
}

impl<W> Default for WriteQueue<W> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            accepted: 0,
            accepted_bytes: 0,
        }
    }
}

impl<W> WriteQueue<W> {
    /// Puts a write behind the others.
    pub(super) fn put(&mut self, data: Bytes, answer: W) -> Put<W> {
        let is_full = self.queue.len() >= self.accepted + WRITES_WAITING_MAX;
        if is_full || (self.bytes + data.len() > WAITING_MAX_BYTES && !self.queue.is_empty()) {
            return Put::Refused(answer);
        }
        self.bytes += data.len();
        if self.accepted == self.queue.len() && self.has_room(data.len()) {
            self.accepted += 1;
            self.accepted_bytes += data.len();
            self.queue.push_back(Waiting { data, answer: None });
            return Put::Accepted(answer);
        }
        self.queue.push_back(Waiting {
            data,
            answer: Some(answer),
        });
        Put::Waits
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.accepted == 0
            || (self.accepted < WRITES_ACCEPTED_MAX && self.accepted_bytes + bytes <= ACCEPTED_MAX_BYTES)
    }

    /// The next bytes to write, and who has an answer by that.
    pub(super) fn take(&mut self) -> Option<(Bytes, Vec<W>)> {
        let mut first = self.queue.pop_front()?;
        self.bytes -= first.data.len();
        let mut answers = Vec::new();
        match first.answer.take() {
            Some(answer) => answers.push(answer),
            None => {
                self.accepted -= 1;
                self.accepted_bytes -= first.data.len();
            }
        }
        while let Some(next) = self.queue.get(self.accepted) {
            if !self.has_room(next.data.len()) {
                break;
            }
            self.accepted_bytes += next.data.len();
            answers.extend(self.queue[self.accepted].answer.take());
            self.accepted += 1;
        }
        Some((first.data, answers))
    }

    /// Nothing more is written: whoever has no answer.
    pub(super) fn close(&mut self) -> Vec<W> {
        let waiting = std::mem::take(self).queue;
        waiting.into_iter().filter_map(|waiting| waiting.answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(length: usize) -> Bytes {
        Bytes::from(vec![0; length])
    }

    #[test]
    fn so_many_are_answered_at_once_and_each_taken_makes_room_for_one() {
        let mut queue = WriteQueue::default();
        for id in 0..WRITES_ACCEPTED_MAX {
            assert_eq!(queue.put(bytes(1), id), Put::Accepted(id));
        }
        assert_eq!(queue.put(bytes(1), 1_000), Put::Waits);
        assert_eq!(
            queue.put(bytes(0), 1_001),
            Put::Waits,
            "not even nothing overtakes"
        );
        assert_eq!(queue.take().map(|(_, answers)| answers), Some(vec![1_000]));
        assert_eq!(queue.take().map(|(_, answers)| answers), Some(vec![1_001]));
        assert_eq!(queue.take().map(|(_, answers)| answers), Some(vec![]));
    }

    #[test]
    fn one_write_of_any_size_is_taken_and_more_only_within_the_bounds() {
        let mut queue = WriteQueue::default();
        assert_eq!(queue.put(bytes(ACCEPTED_MAX_BYTES + 1), 1), Put::Accepted(1));
        assert_eq!(queue.put(bytes(1), 2), Put::Waits);
        assert_eq!(queue.put(bytes(WAITING_MAX_BYTES), 3), Put::Refused(3));
        assert_eq!(queue.close(), [2]);
        assert_eq!(queue.put(bytes(1), 4), Put::Accepted(4));
    }

    proptest! {
        /// Whatever is put and taken: the order stays, and every write has one answer.
        #[test]
        fn order_stays_and_everybody_is_answered_once(
            steps in proptest::collection::vec(prop_oneof![Just(None), (0_usize..200_000).prop_map(Some)], 1..400),
        ) {
            let mut queue = WriteQueue::default();
            let (mut put, mut answered, mut taken) = (Vec::new(), Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Some(length) => {
                        let id = put.len();
                        match queue.put(bytes(length), id) {
                            Put::Accepted(id) => answered.push(id),
                            Put::Waits => {}
                            Put::Refused(_) => continue,
                        }
                        put.push(length);
                    }
                    None => if let Some((data, answers)) = queue.take() {
                        taken.push(data.len());
                        answered.extend(answers);
                    },
                }
            }
            while let Some((data, answers)) = queue.take() {
                taken.push(data.len());
                answered.extend(answers);
            }
            prop_assert_eq!(taken, put.clone());
            prop_assert_eq!(answered, (0..put.len()).collect::<Vec<_>>());
        }
    }
}
