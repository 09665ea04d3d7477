//! The flight recorder: the last few seconds of unsampled deliveries and stages, for calls that turn out to have failed
//! or to have been slow.
//!
//! Each arbiter writes its deliveries into a ring of its own, over the oldest, and wakes nobody; nobody reads it until a
//! call's records are asked for. A reader that is overtaken by the writer sees so and passes the record over: it never
//! holds the writer up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};

use dwell_messages::{Span, TraceId};

use super::clock::{Anchor, Tick};
use super::record::Record;
use super::stage::Stage;
use crate::in_flight::unpoisoned;

/// Deliveries of one arbiter that are remembered: 1 MiB.
pub const FLIGHT_RECORDS: usize = 16_384;
/// Stages of one role that are remembered.
pub const FLIGHT_STAGES: usize = 4_096;
/// What ended longer ago is not told any more, in nanoseconds: ids of calls are never used again, so this only says how
/// long a call may take until its beginning is not to be had.
const FLIGHT_AGE_NS: u64 = 30_000_000_000;
const WORDS: usize = 8;
const _: () = assert!(FLIGHT_RECORDS.is_power_of_two());

/// One arbiter's ring. One writer, any number of readers.
pub(crate) struct FlightRing {
    slots: Box<[[AtomicU64; WORDS]]>,
    /// Records begun, and records finished.
    claimed: AtomicU64,
    written: AtomicU64,
}

impl std::fmt::Debug for FlightRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlightRing")
            .field("written", &self.written)
            .finish()
    }
}

impl FlightRing {
    pub(crate) fn new() -> Self {
        Self {
            slots: (0..FLIGHT_RECORDS).map(|_| Default::default()).collect(),
            claimed: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// Writes over the oldest. Only ever from the ring's own thread.
    #[inline]
    pub(crate) fn push(&self, record: &Record) {
        let at = self.written.load(Ordering::Relaxed);
        self.claimed.store(at + 1, Ordering::Relaxed);
        // No word of the new record is seen before the claim.
        fence(Ordering::Release);
        let slot = &self.slots[at as usize & (FLIGHT_RECORDS - 1)];
        for (word, value) in slot.iter().zip(words(record)) {
            word.store(value, Ordering::Relaxed);
        }
        self.written.store(at + 1, Ordering::Release);
    }

    /// The records of a trace that are still there, oldest first.
    fn of(&self, trace: TraceId) -> Vec<Record> {
        let [high, low] = halves(&trace.0);
        let written = self.written.load(Ordering::Acquire);
        let first = written.saturating_sub(FLIGHT_RECORDS as u64);
        let mut found = Vec::new();
        for at in first..written {
            let slot = &self.slots[at as usize & (FLIGHT_RECORDS - 1)];
            if slot[0].load(Ordering::Relaxed) != high || slot[1].load(Ordering::Relaxed) != low {
                continue;
            }
            let read = slot.each_ref().map(|word| word.load(Ordering::Relaxed));
            // No claim that wrote any of these words is missed.
            fence(Ordering::Acquire);
            if self.claimed.load(Ordering::Relaxed) <= at + FLIGHT_RECORDS as u64 {
                found.push(record(read));
            }
        }
        found
    }
}

fn halves(bytes: &[u8; 16]) -> [u64; 2] {
    let mut parts = [[0; 8]; 2];
    parts[0].copy_from_slice(&bytes[..8]);
    parts[1].copy_from_slice(&bytes[8..]);
    parts.map(u64::from_ne_bytes)
}

fn words(record: &Record) -> [u64; WORDS] {
    let [high, low] = halves(&record.trace_id);
    [
        high,
        low,
        u64::from_ne_bytes(record.parent),
        u64::from_ne_bytes(record.span_id),
        record.enqueued,
        record.dequeued,
        (u64::from(record.turn_ticks) << 32) | (u64::from(record.depth) << 16) | u64::from(record.template),
        record.lifecycle,
    ]
}

fn record(words: [u64; WORDS]) -> Record {
    let [high, low, parent, span_id, enqueued, dequeued, packed, lifecycle] = words;
    let mut trace_id = [0; 16];
    trace_id[..8].copy_from_slice(&high.to_ne_bytes());
    trace_id[8..].copy_from_slice(&low.to_ne_bytes());
    Record {
        trace_id,
        parent: parent.to_ne_bytes(),
        span_id: span_id.to_ne_bytes(),
        enqueued,
        dequeued,
        turn_ticks: (packed >> 32) as u32,
        depth: (packed >> 16 & 0xffff) as u16,
        template: (packed & 0xffff) as u16,
        lifecycle,
    }
}

/// One role's recorder: its arbiters' rings, and its stages.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    rings: Mutex<Vec<Arc<FlightRing>>>,
    stages: Mutex<VecDeque<Stage>>,
}

impl Flight {
    /// A ring for the calling thread.
    pub(crate) fn ring(&self) -> Arc<FlightRing> {
        let ring = Arc::new(FlightRing::new());
        let mut rings = unpoisoned(&self.rings);
        // Of a thread that has ended only this list has it.
        rings.retain(|ring| Arc::strong_count(ring) > 1);
        rings.push(Arc::clone(&ring));
        ring
    }

    /// A finished stage of an unsampled call.
    pub(crate) fn stage(&self, stage: Stage) {
        let mut stages = unpoisoned(&self.stages);
        let oldest = if stages.len() >= FLIGHT_STAGES {
            stages.pop_front()
        } else {
            None
        };
        stages.push_back(stage);
        drop(stages);
        drop(oldest);
    }

    /// What is still known of a trace, as spans.
    pub(crate) fn spans(&self, trace: TraceId) -> Vec<Span> {
        let rings = unpoisoned(&self.rings).clone();
        let anchor = Anchor::take();
        let now = Tick::now();
        let mut spans = Vec::new();
        for record in rings.iter().flat_map(|ring| ring.of(trace)) {
            if now.nanos_since(Tick::from_raw(record.dequeued)) < FLIGHT_AGE_NS {
                spans.push(record.residence(&anchor));
                spans.push(record.turn(&anchor));
            }
        }
        let stages = unpoisoned(&self.stages);
        let wanted = stages.iter().filter(|stage| stage.trace() == trace);
        spans.extend(wanted.map(|stage| stage.clone().into_span(&anchor)));
        spans
    }
}

#[cfg(test)]
mod tests {
    use dwell_messages::{TraceContext, TraceFlags};

    use super::*;

    fn of(trace: u8, dequeued: Tick) -> Record {
        let context = TraceContext::new(
            TraceId([trace; 16]),
            dwell_messages::SpanId([2; 8]),
            TraceFlags::NONE,
        );
        Record {
            enqueued: dequeued.to_raw(),
            dequeued: dequeued.to_raw(),
            turn_ticks: 7,
            depth: 3,
            ..Record::new(&context, [9; 8], 11, 13)
        }
    }

    #[test]
    fn a_record_survives_its_words() {
        let now = Tick::now();
        assert_eq!(record(words(&of(5, now))), of(5, now));
    }

    #[test]
    fn the_newest_records_are_kept_and_only_those_of_the_trace_are_told() {
        let ring = FlightRing::new();
        let now = Tick::now();
        ring.push(&of(1, now));
        ring.push(&of(2, now));
        assert_eq!(ring.of(TraceId([1; 16])), [of(1, now)]);
        for _ in 0..FLIGHT_RECORDS {
            ring.push(&of(3, now));
        }
        assert!(
            ring.of(TraceId([1; 16])).is_empty(),
            "the oldest are written over"
        );
        assert_eq!(ring.of(TraceId([3; 16])).len(), FLIGHT_RECORDS);
    }

    /// The writer is never held up, so what it writes over meanwhile must not be told as a mixture.
    #[test]
    fn a_record_that_is_written_over_while_it_is_read_is_passed_over_and_none_is_torn() {
        let ring = Arc::new(FlightRing::new());
        let writing = Arc::clone(&ring);
        let writer = std::thread::spawn(move || {
            for n in 0..FLIGHT_RECORDS as u64 * 20 {
                let mut record = of((n % 2) as u8 + 1, Tick::from_raw(n));
                record.lifecycle = n;
                writing.push(&record);
            }
        });
        let mut seen = 0_usize;
        while !writer.is_finished() {
            for record in ring.of(TraceId([1; 16])) {
                seen += 1;
                assert_eq!(
                    (record.enqueued, record.dequeued),
                    (record.lifecycle, record.lifecycle)
                );
                assert_eq!(record.lifecycle % 2, 0, "a record of the other trace");
            }
        }
        assert!(writer.join().is_ok());
        println!("{seen} records were read while the ring was written");
    }

    #[test]
    fn a_ring_whose_thread_has_ended_is_forgotten_with_the_next() {
        let flight = Flight::default();
        drop(flight.ring());
        let kept = flight.ring();
        assert_eq!(unpoisoned(&flight.rings).len(), 1);
        drop(kept);
    }
}
