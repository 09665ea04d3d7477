//! What one process told, kept to be read again: a pure core.
//!
//! Output is kept up to a number of bytes, the newest; the two ends are kept in any case. What is no longer there is
//! named: no reader takes silence for the whole.

use std::collections::VecDeque;

use dwell_messages::process::{Gap, ReadReply};
use dwell_messages::{Event, Output, OutputStream};

/// Output kept of a process unless its start says otherwise.
pub const RETENTION_BYTES: u64 = 1024 * 1024;
/// The most that a start may ask for.
pub const RETENTION_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Events of output kept of a process: many small ones take room too.
pub const RETAINED_EVENTS_MAX: usize = 4_096;
/// Events of output whose place is remembered when they themselves are not.
pub(crate) const RETAINED_MARKS_MAX: usize = 4_096;

/// Where an event that is gone stood.
#[derive(Clone, Copy, Debug)]
struct Mark {
    event: u64,
    stream: OutputStream,
    offset: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Retained {
    limit: u64,
    events_max: usize,
    bytes: u64,
    outputs: VecDeque<Output>,
    marks: VecDeque<Mark>,
    /// Ends of each output's part that is gone.
    gone: [u64; 2],
    /// The number of each output's newest event that is gone, and of the newest whose place is forgotten too. 0: none.
    gone_event: [u64; 2],
    forgotten_event: [u64; 2],
    exited: Option<Event>,
    closed: Option<Event>,
    next: u64,
}

impl Retained {
    /// Nothing yet; `limit` is clamped to `RETENTION_MAX_BYTES`.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit: limit.min(RETENTION_MAX_BYTES),
            events_max: RETAINED_EVENTS_MAX,
            bytes: 0,
            outputs: VecDeque::new(),
            marks: VecDeque::new(),
            gone: [0; 2],
            gone_event: [0; 2],
            forgotten_event: [0; 2],
            exited: None,
            closed: None,
            next: 1,
        }
    }

    /// Keeps so many events of output instead of `RETAINED_EVENTS_MAX`.
    pub(crate) fn of_events(mut self, max: usize) -> Self {
        self.events_max = max;
        self
    }

    /// Whether output is kept that came after an event.
    pub(crate) fn has_output(&self, after: u64) -> bool {
        self.outputs.back().is_some_and(|newest| newest.event > after)
    }

    /// Keeps an event. Their numbers grow by one.
    pub(crate) fn keep(&mut self, event: &Event) {
        self.next = event.number() + 1;
        match event {
            Event::Output(output) => {
                self.bytes += output.data.len() as u64;
                self.outputs.push_back(output.clone());
            }
            // A read names gaps by itself.
            Event::Gap(_) => {}
            Event::Exited(_) => self.exited = Some(event.clone()),
            Event::Closed(_) => self.closed = Some(event.clone()),
        }
        while self.bytes > self.limit || self.outputs.len() > self.events_max {
            let Some(output) = self.outputs.pop_front() else {
                break;
            };
            self.bytes -= output.data.len() as u64;
            self.gone[output.stream.index()] = output.offset + output.data.len() as u64;
            self.gone_event[output.stream.index()] = output.event;
            if self.marks.len() >= RETAINED_MARKS_MAX
                && let Some(oldest) = self.marks.pop_front()
            {
                self.forgotten_event[oldest.stream.index()] = oldest.event;
            }
            self.marks.push_back(Mark {
                event: output.event,
                stream: output.stream,
                offset: output.offset,
            });
        }
    }

    /// The chunks that are kept of an output, in order.
    pub(crate) fn outputs(&self, stream: OutputStream) -> impl Iterator<Item = (u64, bytes::Bytes)> + '_ {
        let of_stream = self.outputs.iter().filter(move |output| output.stream == stream);
        of_stream.map(|output| (output.offset, output.data.clone()))
    }

    /// The number of the next event.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// `exited` and `closed`, as far as they came.
    pub(crate) fn ends(&self) -> impl Iterator<Item = &Event> {
        self.exited.iter().chain(&self.closed)
    }

    /// Bytes of output that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is something to tell who knows the events up to `after`.
    pub(crate) fn has_news(&self, after: u64) -> bool {
        self.next > after.saturating_add(1) || self.closed.is_some()
    }

    /// The events after a number, with output of at most `max_bytes`, and of one event in any case.
    pub(crate) fn read(&self, after: u64, max_bytes: u64) -> ReadReply {
        let mut events: Vec<Event> = Vec::new();
        let (mut bytes, mut whole) = (0, true);
        for output in self.outputs.iter().filter(|output| output.event > after) {
            bytes += output.data.len() as u64;
            if bytes > max_bytes && !events.is_empty() {
                whole = false;
                break;
            }
            events.push(output.clone().into());
        }
        let last = events.last().map_or(after, Event::number);
        let ends = self.exited.iter().chain(&self.closed);
        // An end that stands behind output which is left out comes with that.
        events.extend(
            ends.filter(|end| end.number() > after && (whole || end.number() < last))
                .cloned(),
        );
        events.sort_by_key(Event::number);
        let next = events.last().map_or(after, Event::number).saturating_add(1);
        let closed = matches!(events.last(), Some(Event::Closed(_)))
            || self
                .closed
                .as_ref()
                .is_some_and(|closed| closed.number() <= after);
        ReadReply {
            next: if whole { next.max(self.next) } else { next },
            closed,
            truncated: self.gone_event.iter().any(|gone| *gone > after),
            gaps: self.gaps(after),
            ended: false,
            events,
        }
    }

    /// What of each output is gone for who knows the events up to `after`. Where the place of the oldest is forgotten
    /// too, a gap reaches back to the beginning.
    fn gaps(&self, after: u64) -> Vec<Gap> {
        let gap = |stream: OutputStream| {
            if self.gone_event[stream.index()] <= after {
                return None;
            }
            let mut unknown = self
                .marks
                .iter()
                .filter(|mark| mark.event > after && mark.stream == stream);
            let from = if self.forgotten_event[stream.index()] > after {
                0
            } else {
                unknown.next().map_or(0, |mark| mark.offset)
            };
            let to = self.gone[stream.index()];
            (to > from).then_some(Gap { stream, from, to })
        };
        [OutputStream::Stdout, OutputStream::Stderr]
            .into_iter()
            .filter_map(gap)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dwell_messages::{Closed, ExitStatus, Exited, Timings};
    use proptest::prelude::*;

    use super::*;

    fn output(event: u64, stream: OutputStream, offset: u64, length: usize) -> Event {
        let data = Bytes::from(vec![b'x'; length]);
        Output {
            event,
            stream,
            offset,
            data,
        }
        .into()
    }

    fn exited(event: u64) -> Event {
        Exited {
            event,
            status: ExitStatus::Code(0),
            core_dumped: false,
            oom_killed: None,
            usage: None,
            ending: None,
            stdout_end: 0,
            stderr_end: 0,
        }
        .into()
    }

    fn closed(event: u64) -> Event {
        Closed {
            event,
            status: None,
            stdout_end: 0,
            stderr_end: 0,
            drained: true,
            holders: 0,
            timings: Timings::default(),
        }
        .into()
    }

    fn numbers(reply: &ReadReply) -> Vec<u64> {
        reply.events.iter().map(Event::number).collect()
    }

    #[test]
    fn what_is_gone_is_named_and_the_ends_are_always_there() {
        let mut retained = Retained::new(10);
        retained.keep(&output(1, OutputStream::Stdout, 0, 6));
        retained.keep(&output(2, OutputStream::Stderr, 0, 4));
        retained.keep(&output(3, OutputStream::Stdout, 6, 8));
        retained.keep(&exited(4));
        retained.keep(&closed(5));
        let reply = retained.read(0, 100);
        assert_eq!(numbers(&reply), [3, 4, 5]);
        assert!(reply.truncated && reply.closed);
        let gap = |stream, from, to| Gap { stream, from, to };
        assert_eq!(
            reply.gaps,
            [gap(OutputStream::Stdout, 0, 6), gap(OutputStream::Stderr, 0, 4)]
        );
        // Who had the first event misses only the second.
        assert_eq!(retained.read(1, 100).gaps, [gap(OutputStream::Stderr, 0, 4)]);
        let known = retained.read(2, 100);
        assert!(!known.truncated && known.gaps.is_empty());
        assert_eq!(
            (numbers(&retained.read(5, 100)), retained.read(5, 100).closed),
            (vec![], true)
        );
    }

    #[test]
    fn a_read_stops_at_its_bytes_and_takes_one_event_at_least() {
        let mut retained = Retained::new(100);
        for event in 1..=4 {
            retained.keep(&output(event, OutputStream::Stdout, (event - 1) * 10, 10));
        }
        retained.keep(&exited(5));
        let first = retained.read(0, 20);
        assert_eq!((numbers(&first), first.next), (vec![1, 2], 3));
        assert_eq!(numbers(&retained.read(2, 1)), [3]);
        assert_eq!(numbers(&retained.read(3, 100)), [4, 5]);
        assert!(!retained.has_news(5) && retained.has_news(4));
    }

    proptest! {
        /// Reading on from `next` gives every kept event once and in order, and gaps account for every other byte.
        #[test]
        fn reads_and_gaps_together_are_the_whole(
            lengths in proptest::collection::vec((any::<bool>(), 1_usize..40), 1..60),
            limit in 0_u64..400,
            max in 1_u64..100,
        ) {
            let mut retained = Retained::new(limit);
            let mut ends = [0_u64; 2];
            for (index, (first, length)) in lengths.iter().enumerate() {
                let stream = if *first { OutputStream::Stdout } else { OutputStream::Stderr };
                retained.keep(&output(index as u64 + 1, stream, ends[stream.index()], *length));
                ends[stream.index()] += *length as u64;
            }
            prop_assert!(retained.bytes() <= limit);
            let mut seen = [0_u64; 2];
            for gap in retained.read(0, max).gaps {
                seen[gap.stream.index()] += gap.bytes();
            }
            let (mut after, mut last) = (0, 0);
            loop {
                let reply = retained.read(after, max);
                for event in &reply.events {
                    prop_assert!(event.number() > last);
                    last = event.number();
                    if let Event::Output(output) = event {
                        seen[output.stream.index()] += output.data.len() as u64;
                    }
                }
                if reply.events.is_empty() {
                    break;
                }
                after = reply.next - 1;
            }
            prop_assert_eq!(seen, ends);
        }
    }

    /// Regression: to who knew nothing of it a gap began at the oldest place that was remembered, and none was told of an
    /// output whose places were all forgotten.
    #[test]
    fn a_gap_whose_beginning_is_forgotten_reaches_back_to_the_first_byte() {
        let mut retained = Retained::new(4);
        retained.keep(&output(1, OutputStream::Stderr, 0, 3));
        let last = RETAINED_MARKS_MAX as u64 * 2;
        for event in 2..=last {
            retained.keep(&output(event, OutputStream::Stdout, (event - 2) * 2, 2));
        }
        let gap = |stream, from, to| Gap { stream, from, to };
        let kept_from = (last - 3) * 2;
        let of_stdout = gap(OutputStream::Stdout, 0, kept_from);
        let all = retained.read(0, u64::MAX);
        assert!(all.truncated);
        assert_eq!(all.gaps, [of_stdout, gap(OutputStream::Stderr, 0, 3)]);
        // Who has the other one misses nothing of that, and who knows where the rest begins is told from there.
        assert_eq!(retained.read(1, u64::MAX).gaps, [of_stdout]);
        let near = retained.read(last - 10, u64::MAX);
        assert_eq!(near.gaps, [gap(OutputStream::Stdout, (last - 11) * 2, kept_from)]);
        assert!(retained.read(last - 2, u64::MAX).gaps.is_empty());
    }
}
