//! The order of one process's events at its consumer, and the credit that lets more come.

use std::collections::VecDeque;

use bytes::Bytes;
use dwell_messages::process::Skipped;
use dwell_messages::{Closed, Event, Exited, OutputStream};

/// Bytes of each stream that may be under way or unread at the consumer.
pub const OUTPUT_WINDOW_BYTES: u64 = 2 << 20;
/// What may come beyond the credit of whoever takes a process up: chunks that were read under the credit of the owner
/// before, those that wait at the delivery and one in a reader's hands.
pub(crate) const OVERLAP_BYTES: u64 = 9 * 64 * 1024;
/// Credit is restated when so much has been consumed since the last time.
const RESTATE_BYTES: u64 = OUTPUT_WINDOW_BYTES / 4;
/// Terminal events that may wait for bytes before them: one `exited`, one `closed`.
const HELD_MAX: usize = 2;

/// What the consumer is handed.
#[derive(Debug, PartialEq)]
pub(crate) enum Handed {
    /// Bytes.
    Output(OutputStream, Bytes),
    /// Bytes that nobody has any more.
    Gap(Skipped),
    /// The wait status.
    Exited(Exited),
    /// The end.
    Closed(Closed),
}

/// The peer broke the order it promised.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OrderError {
    /// Bytes are missing.
    #[error("bytes {expected} to {offset} of an output are missing")]
    Gap {
        /// The next byte expected.
        expected: u64,
        /// The byte that came.
        offset: u64,
    },
    /// Something came behind the end, or twice.
    #[error("an event came behind the end of its process")]
    BehindTheEnd,
    /// More came than credit was given for.
    #[error("output up to {end} came, and credit was given up to {limit}")]
    Overrun {
        /// Where the output ended.
        end: u64,
        /// The limit.
        limit: u64,
    },
}

/// Puts lanes back in order: a terminal event may overtake bulk output, and waits here for it.
#[derive(Debug)]
pub(crate) struct OrderCore {
    next: [u64; 2],
    limit: [u64; 2],
    /// Bytes passed over: they count as consumed.
    skipped: [u64; 2],
    /// What may come beyond the limit: bytes passed over since it was stated, and what an earlier owner's credit brings.
    slack: [u64; 2],
    held: VecDeque<Event>,
    exited: bool,
    closed: bool,
}

impl Default for OrderCore {
    fn default() -> Self {
        Self {
            next: [0; 2],
            limit: [OUTPUT_WINDOW_BYTES; 2],
            skipped: [0; 2],
            slack: [0; 2],
            held: VecDeque::new(),
            exited: false,
            closed: false,
        }
    }
}

impl OrderCore {
    /// For a process that another owner had: from these offsets on.
    pub(crate) fn from(next: [u64; 2]) -> Self {
        Self {
            next,
            limit: next.map(|next| next.saturating_add(OUTPUT_WINDOW_BYTES)),
            skipped: next,
            slack: [OVERLAP_BYTES; 2],
            ..Self::default()
        }
    }

    /// Takes an event and gives what can be handed on now.
    ///
    /// # Errors
    /// `OrderError`: the link must end, since nothing behind it can be trusted.
    pub(crate) fn accept(&mut self, event: Event, mut hand: impl FnMut(Handed)) -> Result<(), OrderError> {
        match event {
            Event::Output(output) => {
                if self.closed {
                    return Err(OrderError::BehindTheEnd);
                }
                let stream = output.stream.index();
                let end = output.offset + output.data.len() as u64;
                if end <= self.next[stream] {
                    return Ok(());
                }
                if output.offset > self.next[stream] {
                    return Err(OrderError::Gap {
                        expected: self.next[stream],
                        offset: output.offset,
                    });
                }
                let limit = self.limit[stream].saturating_add(self.slack[stream]);
                if end > limit {
                    return Err(OrderError::Overrun { end, limit });
                }
                // What a new link repeats may begin before what is missing.
                let known = usize::try_from(self.next[stream] - output.offset).unwrap_or(usize::MAX);
                self.next[stream] = end;
                hand(Handed::Output(output.stream, output.data.slice(known..)));
            }
            Event::Gap(skipped) => {
                let stream = skipped.stream.index();
                if self.closed || skipped.from > self.next[stream] {
                    return Err(OrderError::Gap {
                        expected: self.next[stream],
                        offset: skipped.from,
                    });
                }
                if skipped.to > self.next[stream] {
                    let from = self.next[stream];
                    self.next[stream] = skipped.to;
                    self.skipped[stream] += skipped.to - from;
                    self.slack[stream] = self.slack[stream].saturating_add(skipped.to - from);
                    hand(Handed::Gap(Skipped { from, ..skipped }));
                }
            }
            Event::Exited(_) | Event::Closed(_) => {
                if self.closed || self.held.len() >= HELD_MAX {
                    return Err(OrderError::BehindTheEnd);
                }
                self.held.push_back(event);
            }
        }
        self.release(&mut hand)
    }

    /// The credit to restate, given what has been consumed of a stream.
    pub(crate) fn restate(&mut self, stream: OutputStream, consumed: u64) -> Option<u64> {
        let consumed = consumed.saturating_add(self.skipped[stream.index()]);
        let limit = consumed.saturating_add(OUTPUT_WINDOW_BYTES);
        if self.closed || limit < self.limit[stream.index()].saturating_add(RESTATE_BYTES) {
            return None;
        }
        self.slack[stream.index()] = self.slack[stream.index()].min(OVERLAP_BYTES);
        self.limit[stream.index()] = limit;
        Some(limit)
    }

    /// The next byte needed of each stream, and the offsets that may not be passed.
    pub(crate) fn progress(&self) -> ([u64; 2], [u64; 2]) {
        (self.next, self.limit)
    }

    fn release(&mut self, hand: &mut impl FnMut(Handed)) -> Result<(), OrderError> {
        while let Some(event) = self.held.front() {
            let ends = match event {
                Event::Exited(exited) => [exited.stdout_end, exited.stderr_end],
                Event::Closed(closed) => [closed.stdout_end, closed.stderr_end],
                Event::Output(_) | Event::Gap(_) => return Err(OrderError::BehindTheEnd),
            };
            if ends.iter().zip(&self.next).any(|(end, next)| end > next) {
                return Ok(());
            }
            match self.held.pop_front() {
                Some(Event::Exited(exited)) if !self.exited => {
                    self.exited = true;
                    hand(Handed::Exited(exited));
                }
                Some(Event::Closed(closed)) => {
                    self.closed = true;
                    hand(Handed::Closed(closed));
                }
                Some(Event::Exited(_) | Event::Output(_) | Event::Gap(_)) | None => {
                    return Err(OrderError::BehindTheEnd);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dwell_messages::{ExitStatus, Output, Timings};

    use super::*;

    fn output(offset: u64, len: usize) -> Event {
        let data = Bytes::from(vec![7; len]);
        Output {
            event: 1,
            stream: OutputStream::Stdout,
            offset,
            data,
        }
        .into()
    }

    fn exited(stdout_end: u64) -> Event {
        let status = ExitStatus::Code(0);
        Exited {
            event: 2,
            status,
            core_dumped: false,
            oom_killed: None,
            usage: None,
            ending: None,
            stdout_end,
            stderr_end: 0,
        }
        .into()
    }

    fn closed(stdout_end: u64) -> Event {
        let timings = Timings::default();
        Closed {
            event: 3,
            status: None,
            stdout_end,
            stderr_end: 0,
            drained: true,
            holders: 0,
            timings,
        }
        .into()
    }

    fn drive(events: impl IntoIterator<Item = Event>) -> Result<Vec<&'static str>, OrderError> {
        let mut core = OrderCore::default();
        let mut handed = Vec::new();
        for event in events {
            core.accept(event, |what| {
                handed.push(match what {
                    Handed::Output(..) => "output",
                    Handed::Gap(_) => "gap",
                    Handed::Exited(_) => "exited",
                    Handed::Closed(_) => "closed",
                });
            })?;
        }
        Ok(handed)
    }

    #[test]
    fn terminal_events_that_overtook_output_wait_for_it() {
        let events = [exited(10), closed(20), output(0, 10), output(10, 10)];
        assert_eq!(drive(events), Ok(vec!["output", "exited", "output", "closed"]));
    }

    #[test]
    fn output_may_follow_exited_and_nothing_follows_closed() {
        assert_eq!(
            drive([exited(0), output(0, 5), closed(5)]),
            Ok(vec!["exited", "output", "closed"])
        );
        assert_eq!(drive([closed(0), output(0, 5)]), Err(OrderError::BehindTheEnd));
        assert_eq!(drive([closed(0), exited(0)]), Err(OrderError::BehindTheEnd));
    }

    #[test]
    fn a_gap_is_an_error_and_a_repetition_is_not() {
        assert_eq!(drive([output(0, 5), output(0, 5)]), Ok(vec!["output"]));
        assert_eq!(
            drive([output(5, 5)]),
            Err(OrderError::Gap {
                expected: 0,
                offset: 5
            })
        );
    }

    /// K-02: what somebody else had, from wherever it is wanted.
    #[test]
    fn whoever_takes_a_process_up_begins_where_it_says_and_gaps_widen_its_credit() {
        let mut core = OrderCore::from([1_000, 0]);
        let mut handed = Vec::new();
        let mut take = |core: &mut OrderCore, event| {
            core.accept(event, |what| match what {
                Handed::Output(_, data) => handed.push(("output", data.len() as u64)),
                Handed::Gap(gap) => handed.push(("gap", gap.to - gap.from)),
                Handed::Exited(_) | Handed::Closed(_) => handed.push(("end", 0)),
            })
        };
        // Before what is wanted: passed over. Across it: cut.
        take(&mut core, output(0, 1_000)).unwrap();
        take(&mut core, output(900, 200)).unwrap();
        let gap = Skipped {
            event: 0,
            stream: OutputStream::Stdout,
            from: 1_100,
            to: 50_000_000,
        };
        take(&mut core, Event::Gap(gap)).unwrap();
        let limit = core.restate(OutputStream::Stdout, 100).unwrap();
        assert_eq!(limit, 50_000_000 + OUTPUT_WINDOW_BYTES);
        take(&mut core, output(50_000_000, 60_000)).unwrap();
        take(&mut core, closed(50_060_000)).unwrap();
        let gap = 50_000_000 - 1_100;
        assert_eq!(
            handed,
            [("output", 100), ("gap", gap), ("output", 60_000), ("end", 0)]
        );
        // A small gap that is not worth restating widens what may come all the same, and by no more than itself.
        let mut core = OrderCore::default();
        let small = Skipped {
            from: 0,
            to: 10,
            ..Skipped {
                event: 0,
                stream: OutputStream::Stdout,
                from: 0,
                to: 0,
            }
        };
        core.accept(Event::Gap(small), |_| {}).unwrap();
        assert_eq!(core.restate(OutputStream::Stdout, 0), None);
        let whole = usize::try_from(OUTPUT_WINDOW_BYTES).unwrap();
        core.accept(output(10, whole), |_| {}).unwrap();
        let beyond = core.accept(output(10 + OUTPUT_WINDOW_BYTES, 1), |_| {});
        assert!(matches!(beyond, Err(OrderError::Overrun { .. })), "{beyond:?}");
    }

    #[test]
    fn credit_is_restated_in_steps_and_an_overrun_is_an_error() {
        let mut core = OrderCore::default();
        assert_eq!(core.restate(OutputStream::Stdout, RESTATE_BYTES - 1), None);
        assert_eq!(
            core.restate(OutputStream::Stdout, RESTATE_BYTES),
            Some(RESTATE_BYTES + OUTPUT_WINDOW_BYTES)
        );
        let window = usize::try_from(OUTPUT_WINDOW_BYTES).unwrap();
        let end = OUTPUT_WINDOW_BYTES + 1;
        assert_eq!(
            drive([output(0, window + 1)]),
            Err(OrderError::Overrun {
                end,
                limit: OUTPUT_WINDOW_BYTES
            })
        );
    }
}
