//! How much of the bulk lanes may be under way on a link, and how long its records may be.
//!
//! Sealing fixes the order, so whatever is under way stands before a keystroke. The sender learns how fast its bytes are
//! opened and how long the shortest round trip is, and keeps no more under way than the link carries in that round trip
//! and [`QUEUE_TIME`]. It learns both from marks: a mark asks the receiver how much it has opened. A flow that ends
//! before its first mark costs nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::record::RECORD_PLAINTEXT_MAX_BYTES;

use super::RECORD_LIMIT_MIN_BYTES;

/// Bulk plaintext that may always be under way, and all that is before anything is known of the link.
pub const UNDER_WAY_MIN_BYTES: u64 = 16 * 1024;
/// So much time's worth of bulk may wait in the network.
pub const QUEUE_TIME: Duration = Duration::from_millis(20);
/// Behind so much bulk a mark stands also where no more waits. Flows of less cost nothing.
pub const MARK_STEP_MAX_BYTES: u64 = UNDER_WAY_MIN_BYTES / 2;
/// In a flow a mark stands behind so much time's worth of bulk: what is opened must soon be known, or it counts as under way.
const MARK_TIME: Duration = Duration::from_millis(5);
/// Marks without an answer that a sender remembers; no more are made before one is answered.
pub const MARKS_MAX: usize = 128;
/// A record takes no more than this on its way: a part of `QUEUE_TIME`, since its end is known only when all of it is there.
const RECORD_TIME: Duration = Duration::from_millis(10);
/// Bulk plaintext of one record while nothing is known of the link.
const UNKNOWN_RECORD_BYTES: usize = 4 * 1024;
/// The highest rate of so long, or of so many round trips, is the link's: one bad moment is none, a slower link soon shows.
/// Never of longer than a round trip counts: a rate that outlived it would make the queue that the next one is measured with.
const RATE_WINDOW: Duration = Duration::from_millis(500);
const RATE_WINDOW_ROUND_TRIPS: u32 = 8;
/// A least round trip that was not seen again for so long is measured anew, with next to nothing under way.
const ROUND_TRIP_WINDOW: Duration = Duration::from_secs(10);
/// The least that is under way while the round trip is measured: two small records.
const PROBE_MIN_BYTES: u64 = 2 * RECORD_LIMIT_MIN_BYTES as u64;
/// Start-up is over after so many round trips in which the rate has not grown by a quarter.
const FLAT_ROUNDS: u32 = 3;
/// After so many in which it has grown by a thirtieth the link has become faster: it is tried how much.
const GROWING_ROUNDS: u32 = 2;

/// The peer says that it has opened more than was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Impossible {
    pub(super) opened: u64,
    pub(super) cut: u64,
}

/// A position in the bulk bytes whose opening the receiver was asked to tell.
#[derive(Debug)]
struct Mark {
    position: u64,
    sent_at: Instant,
    /// What was known when it was sent: the rate is measured over what happened since.
    opened: u64,
    opened_at: Instant,
    first_sent_at: Instant,
    /// The sender had too little to send: the rate says nothing of the link's limit.
    limited: bool,
    /// Next to nothing was under way before it: its round trip is the link's own.
    clean: bool,
}

/// The highest of what was measured in a window of time.
#[derive(Debug)]
struct WindowedMax {
    current: u64,
    previous: u64,
    turned_at: Instant,
}

impl WindowedMax {
    fn value(&self) -> u64 {
        self.current.max(self.previous)
    }

    fn measured(&mut self, now: Instant, value: u64, window: Duration) {
        let age = now.saturating_duration_since(self.turned_at);
        if age >= window / 2 {
            self.previous = if age >= window { 0 } else { self.current };
            self.current = 0;
            self.turned_at = now;
        }
        self.current = self.current.max(value);
    }
}

/// What is known of the rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Not much: it may double with every round trip.
    Starting,
    /// It has begun to grow.
    Growing,
    /// It is the link's.
    Steady,
}

/// The sender's half.
#[derive(Debug)]
pub(super) struct Pace {
    paced: bool,
    cut: u64,
    opened: u64,
    opened_at: Instant,
    first_sent_at: Instant,
    marks: VecDeque<Mark>,
    marked: u64,
    /// Up to here the sender had too little to send.
    limited_until: u64,
    /// Bytes a second.
    rate: Option<WindowedMax>,
    round_trip: Option<Duration>,
    round_trip_at: Instant,
    probing: bool,
    bound: u64,
    /// A round is over when what was under way at its beginning has been opened.
    round_end: u64,
    phase: Phase,
    flat_rounds: u32,
    growing_rounds: u32,
    /// The rate that the next rounds' are compared with.
    reference_rate: u64,
}

impl Pace {
    pub(super) fn new(now: Instant, paced: bool) -> Self {
        Self {
            paced,
            cut: 0,
            opened: 0,
            opened_at: now,
            first_sent_at: now,
            marks: VecDeque::new(),
            marked: 0,
            limited_until: 0,
            rate: None,
            round_trip: None,
            round_trip_at: now,
            probing: false,
            bound: UNDER_WAY_MIN_BYTES,
            round_end: 0,
            phase: Phase::Starting,
            flat_rounds: 0,
            growing_rounds: 0,
            reference_rate: 0,
        }
    }

    /// Bulk plaintext that may be under way.
    pub(super) fn bound(&self) -> u64 {
        match (self.paced, self.probing) {
            (false, _) => u64::MAX,
            (true, false) => self.bound,
            (true, true) => self.bound.min(self.probe_bytes()),
        }
    }

    fn under_way(&self) -> u64 {
        self.cut - self.opened
    }

    /// Bulk plaintext that may be cut now.
    pub(super) fn allowance(&self) -> u64 {
        self.bound().saturating_sub(self.under_way())
    }

    /// Plaintext that the next record may have, and how much of it from the bulk lanes.
    pub(super) fn record_max(&self) -> (usize, usize) {
        match &self.rate {
            Some(rate) if self.paced => {
                let carried = usize::try_from(carried(rate.value(), RECORD_TIME)).unwrap_or(usize::MAX);
                let bytes = carried.clamp(RECORD_LIMIT_MIN_BYTES, RECORD_PLAINTEXT_MAX_BYTES);
                (bytes, bytes)
            }
            None if self.paced => (RECORD_PLAINTEXT_MAX_BYTES, UNKNOWN_RECORD_BYTES),
            Some(_) | None => (RECORD_PLAINTEXT_MAX_BYTES, RECORD_PLAINTEXT_MAX_BYTES),
        }
    }

    /// Bulk was cut into a record; whether more waits.
    pub(super) fn cut(&mut self, now: Instant, bytes: u64, more: bool) {
        if self.under_way() == 0 {
            self.opened_at = now;
            self.first_sent_at = now;
        }
        self.cut += bytes;
        if !more && self.under_way() < self.bound() {
            self.limited_until = self.cut;
        }
    }

    /// Whether a mark belongs behind what has been cut; whether more bulk waits.
    pub(super) fn mark_is_due(&self, more: bool) -> bool {
        let unmarked = self.cut - self.marked.max(self.opened);
        if !self.paced || unmarked == 0 || self.marks.len() >= MARKS_MAX {
            return false;
        }
        let blocked = more && self.allowance() < RECORD_LIMIT_MIN_BYTES as u64;
        let step = self.mark_step();
        unmarked >= if more { step } else { step.max(MARK_STEP_MAX_BYTES) }
            // Whoever waits must have asked, whatever the bound was when the bytes were cut.
            || (blocked && self.marks.is_empty())
            || (self.probing && self.is_clean() && !self.marks.iter().any(|mark| mark.clean))
    }

    /// Where the least bound leaves room anyway, fewer marks do.
    fn mark_step(&self) -> u64 {
        let Some(rate) = self.rate.as_ref().map(WindowedMax::value) else {
            return UNKNOWN_RECORD_BYTES as u64 / 2;
        };
        let spare = self.bound.saturating_sub(carried(rate, self.round_time()));
        carried(rate, MARK_TIME)
            .max((spare / 4).min(MARK_STEP_MAX_BYTES))
            .max(RECORD_LIMIT_MIN_BYTES as u64)
    }

    fn round_time(&self) -> Duration {
        self.round_trip.unwrap_or_default() + QUEUE_TIME
    }

    fn is_clean(&self) -> bool {
        self.under_way() <= self.probe_bytes()
    }

    /// A mark is sent: behind so many bytes.
    pub(super) fn mark(&mut self, now: Instant) -> u64 {
        self.marked = self.cut;
        self.marks.push_back(Mark {
            position: self.cut,
            sent_at: now,
            opened: self.opened,
            opened_at: self.opened_at,
            first_sent_at: self.first_sent_at,
            limited: self.limited_until > self.opened,
            clean: self.is_clean(),
        });
        self.cut
    }

    /// The peer has opened so many bytes, by its word. Absolute: an old word changes nothing.
    pub(super) fn opened(&mut self, now: Instant, opened: u64) -> Result<(), Impossible> {
        if opened > self.cut {
            let cut = self.cut;
            return Err(Impossible { opened, cut });
        }
        if opened <= self.opened {
            return Ok(());
        }
        let mut answered = None;
        while self.marks.front().is_some_and(|mark| mark.position <= opened) {
            answered = self.marks.pop_front();
        }
        if let Some(mark) = answered {
            // At most so long: an answer that covers more than the mark left later than it might have.
            self.round_trip_measured(now, now.saturating_duration_since(mark.sent_at), mark.clean);
            let received_in = now.saturating_duration_since(mark.opened_at);
            let sent_in = mark.sent_at.saturating_duration_since(mark.first_sent_at);
            let rate = per_second(opened - mark.opened, received_in.max(sent_in));
            self.rate_measured(now, rate, mark.limited);
            self.first_sent_at = mark.sent_at;
        }
        self.opened = opened;
        self.opened_at = now;
        self.adjust();
        Ok(())
    }

    /// A round trip was seen, for instance the handshake's.
    pub(super) fn round_trip_seen(&mut self, now: Instant, took: Duration) {
        self.round_trip_measured(now, took, false);
    }

    fn round_trip_measured(&mut self, now: Instant, took: Duration, clean: bool) {
        let is_old = now.saturating_duration_since(self.round_trip_at) >= ROUND_TRIP_WINDOW;
        if self.round_trip.is_none_or(|least| took <= least) || (clean && (is_old || self.probing)) {
            // How little is under way for it goes by the round trip that was known: as long as it shrinks by much, what
            // was under way was too much, and the next one is the better.
            let shrinks = self.round_trip.is_some_and(|least| took < least * 3 / 4);
            self.probing = self.probing && clean && shrinks;
            self.round_trip = Some(took);
            self.round_trip_at = now;
        } else if is_old {
            self.probing = true;
        }
    }

    fn rate_measured(&mut self, now: Instant, rate: u64, limited: bool) {
        let rounds = self.round_trip.unwrap_or_default() * RATE_WINDOW_ROUND_TRIPS;
        let window = rounds.clamp(RATE_WINDOW, ROUND_TRIP_WINDOW);
        match &mut self.rate {
            Some(known) if limited => known.current = known.current.max(rate),
            Some(known) => known.measured(now, rate, window),
            None if limited => {}
            None => {
                self.rate = Some(WindowedMax {
                    current: rate,
                    previous: 0,
                    turned_at: now,
                });
            }
        }
    }

    /// Draws the consequences. Less may be under way at once, more only with the next round and at most twice as much.
    fn adjust(&mut self) {
        let Some(rate) = self.rate.as_ref().map(WindowedMax::value) else {
            return;
        };
        let round_is_over = self.opened >= self.round_end;
        if round_is_over {
            self.round_end = self.cut.max(self.opened + 1);
            self.judge_round(rate);
        }
        let carried = carried(rate, self.round_time());
        // What was opened behind the last mark is not known to be, and is not under way.
        let unknown = self.mark_step().min(carried / 2);
        let target = match self.phase {
            Phase::Starting => carried.saturating_mul(3),
            Phase::Growing => carried.saturating_add(carried / 2),
            Phase::Steady => carried,
        };
        let target = target.saturating_add(unknown).max(UNDER_WAY_MIN_BYTES);
        if target < self.bound {
            self.bound = target;
        } else if round_is_over {
            self.bound = target.min(self.bound.saturating_mul(2));
        }
    }

    fn judge_round(&mut self, rate: u64) {
        let over = |share: u64| rate > self.reference_rate.saturating_add(self.reference_rate / share);
        match self.phase {
            Phase::Starting | Phase::Growing => {
                if over(4) {
                    self.reference_rate = rate;
                    self.flat_rounds = 0;
                    return;
                }
                self.flat_rounds += 1;
                if self.flat_rounds >= FLAT_ROUNDS {
                    self.phase = Phase::Steady;
                    self.growing_rounds = 0;
                    self.reference_rate = rate;
                }
            }
            Phase::Steady => {
                self.growing_rounds = if over(30) { self.growing_rounds + 1 } else { 0 };
                self.reference_rate = rate;
                if self.growing_rounds >= GROWING_ROUNDS {
                    self.phase = Phase::Growing;
                    self.flat_rounds = 0;
                }
            }
        }
    }

    fn probe_bytes(&self) -> u64 {
        let rate = self.rate.as_ref().map_or(0, WindowedMax::value);
        (carried(rate, self.round_trip.unwrap_or_default()) / 2).max(PROBE_MIN_BYTES)
    }
}

/// Bytes that a rate carries in some time.
fn carried(per_second: u64, time: Duration) -> u64 {
    let bytes = u128::from(per_second) * time.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A rate, from bytes and the time they took; no time at all is taken for a microsecond.
fn per_second(bytes: u64, took: Duration) -> u64 {
    let nanos = took.max(Duration::from_micros(1)).as_nanos();
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// The receiver's half: what was opened, and whether the sender wants to know.
#[derive(Debug, Default)]
pub(super) struct Opened {
    bytes: u64,
    told: u64,
    asked: bool,
}

impl Opened {
    /// So much bulk plaintext has been opened in all.
    pub(super) fn opened(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// A mark came.
    pub(super) fn asked(&mut self) {
        self.asked = true;
    }

    /// Whether the answer is worth a record of its own.
    pub(super) fn is_due(&self) -> bool {
        self.asked
    }

    /// What to say in a record that leaves now, if there is anything to say. It is then told.
    pub(super) fn take(&mut self) -> Option<u64> {
        // Small news travel with what leaves anyway, so that flows of next to nothing need no marks at all.
        let news = self.bytes - self.told;
        (self.asked || news >= MARK_STEP_MAX_BYTES / 2).then(|| {
            self.asked = false;
            self.told = self.bytes;
            self.bytes
        })
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
