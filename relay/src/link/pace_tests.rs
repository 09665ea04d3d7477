//! A sender with more to send than the link carries, in virtual time: one queue, one rate, one delay.

use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

/// What a record costs the link besides its plaintext.
const OVERHEAD_BYTES: u64 = 60;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Arrival {
    /// At the receiver: the bulk bytes up to here, and whether a mark stands behind them.
    Record(u64, bool),
    /// At the sender.
    Report(u64),
}

/// A link of so many bytes a second and so long a way, with a sender that never runs dry unless it is told to.
struct Simulated {
    pace: Pace,
    receiver: Opened,
    begun: Instant,
    nanos: u64,
    rate: u64,
    way_nanos: u64,
    /// The network forwards the next record from then on.
    free_at: u64,
    events: BinaryHeap<std::cmp::Reverse<(u64, u64, Arrival)>>,
    order: u64,
    /// Bulk bytes opened so far.
    opened: u64,
    /// Headers and tags of what arrived.
    headers: u64,
    reports: u64,
    dry: bool,
}

impl Simulated {
    fn new(rate: u64, round_trip: Duration) -> Self {
        let begun = Instant::now();
        let mut pace = Pace::new(begun, true);
        pace.round_trip_seen(begun, round_trip);
        Self {
            pace,
            receiver: Opened::default(),
            begun,
            nanos: 0,
            rate,
            way_nanos: u64::try_from(round_trip.as_nanos()).unwrap() / 2,
            free_at: 0,
            events: BinaryHeap::new(),
            order: 0,
            opened: 0,
            headers: 0,
            reports: 0,
            dry: false,
        }
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_nanos(self.nanos)
    }

    fn at(&mut self, nanos: u64, arrival: Arrival) {
        self.order += 1;
        self.events.push(std::cmp::Reverse((nanos, self.order, arrival)));
    }

    /// Sends what may be sent.
    fn send(&mut self) {
        loop {
            let now = self.now();
            let more = !self.dry;
            let (record, bulk) = self.pace.record_max();
            let allowance = usize::try_from(self.pace.allowance()).unwrap();
            let bytes = if more && allowance >= RECORD_LIMIT_MIN_BYTES {
                record.min(bulk).min(allowance) as u64
            } else {
                0
            };
            if bytes > 0 {
                self.pace.cut(now, bytes, more);
            }
            let marked = self.pace.mark_is_due(more);
            if bytes == 0 && !marked {
                return;
            }
            let position = if marked {
                self.pace.mark(now)
            } else {
                self.pace.cut
            };
            self.free_at =
                self.free_at.max(self.nanos) + (bytes + OVERHEAD_BYTES) * 1_000_000_000 / self.rate;
            self.at(self.free_at + self.way_nanos, Arrival::Record(position, marked));
        }
    }

    /// Runs for so long; what waits in the network then: all but a twentieth of the time at most so many bytes.
    fn run(&mut self, time: Duration) -> u64 {
        let end = self.nanos + u64::try_from(time.as_nanos()).unwrap();
        let mut queues = Vec::new();
        self.send();
        while let Some(std::cmp::Reverse((nanos, _, _))) = self.events.peek() {
            if *nanos > end {
                break;
            }
            let Some(std::cmp::Reverse((nanos, _, arrival))) = self.events.pop() else {
                break;
            };
            self.nanos = nanos;
            match arrival {
                Arrival::Record(position, marked) => {
                    self.receiver.opened(position);
                    self.opened = position;
                    self.headers += OVERHEAD_BYTES;
                    if marked {
                        self.receiver.asked();
                        let report = self.receiver.take().unwrap();
                        self.reports += 1;
                        self.at(nanos + self.way_nanos, Arrival::Report(report));
                    }
                }
                Arrival::Report(opened) => {
                    let now = self.now();
                    self.pace.opened(now, opened).unwrap();
                }
            }
            self.send();
            let waits = self.free_at.saturating_sub(self.nanos);
            queues.push(u128::from(waits) * u128::from(self.rate) / 1_000_000_000);
        }
        self.nanos = end;
        queues.sort_unstable();
        let most = queues.get(queues.len() * 19 / 20).copied().unwrap_or(0);
        u64::try_from(most).unwrap()
    }

    /// Which share of the link is used over so long. What records cost beside their plaintext is the link's use too: 7 % with
    /// the smallest.
    fn used(&mut self, time: Duration) -> f64 {
        let before = self.opened + self.headers;
        self.run(time);
        let after = self.opened + self.headers;
        (after - before) as f64 / (self.rate as f64 * time.as_secs_f64())
    }

    fn allowed_queue(&self) -> u64 {
        let (mark, record) = (MARK_TIME, RECORD_TIME);
        let overheads = 1.07;
        let queue = carried(self.rate, QUEUE_TIME + mark + record);
        (queue.max(UNDER_WAY_MIN_BYTES + 2 * RECORD_LIMIT_MIN_BYTES as u64) as f64 * overheads) as u64
    }
}

/// Enough for twenty-odd doublings, and for a few of the least windows.
fn start_up(rate: u64, round_trip: Duration) -> Duration {
    let window = Duration::from_secs_f64(16_384.0 / rate as f64);
    30 * (round_trip + window) + Duration::from_secs(2)
}

/// Runs a link past its start-up; then it is used, and its queue is bounded.
fn holds(rate: u64, round_trip_us: u64) -> Result<(), TestCaseError> {
    let round_trip = Duration::from_micros(round_trip_us);
    let mut link = Simulated::new(rate, round_trip);
    // A fast link has many records: less time for as much evidence. But so much that the round trip in which the round
    // trip is measured anew, once in ten seconds, is a twentieth of it.
    let measured = Duration::from_secs_f64((5e8 / rate as f64).clamp(1.0, 40.0)).max(20 * round_trip);
    link.run(start_up(rate, round_trip).min(Duration::from_secs(60)));
    let queue = link.run(measured);
    let allowed = link.allowed_queue();
    prop_assert!(queue <= allowed, "{queue} bytes wait, {allowed} are allowed");
    let used = link.used(measured);
    prop_assert!(
        used >= 0.9,
        "{used:.3} of {rate} B/s at {round_trip:?} is used: {:?}",
        link.pace
    );
    Ok(())
}

#[test]
fn links_from_slow_to_fast_are_used_and_their_queues_bounded() {
    for rate in [8_000, 64_000, 1_000_000, 12_500_000, 125_000_000, 1_000_000_000] {
        for round_trip_us in [50, 1_000, 20_000, 100_000, 300_000] {
            holds(rate, round_trip_us)
                .unwrap_or_else(|error| panic!("{rate} B/s, {round_trip_us} us: {error}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_link_is_used_and_its_queue_bounded(
        exponent in 3.9_f64..8.5,
        round_trip_exponent in 1.7_f64..5.47,
    ) {
        holds(10_f64.powf(exponent) as u64, 10_f64.powf(round_trip_exponent) as u64)?;
    }

    #[test]
    fn a_link_that_changes_its_rate_is_used_again(
        exponent in 4.0_f64..7.5,
        factor in prop_oneof![0.05_f64..0.5, 2.0_f64..20.0],
        round_trip_us in 50_u64..300_000,
    ) {
        let rate = 10_f64.powf(exponent) as u64;
        let round_trip = Duration::from_micros(round_trip_us);
        let mut link = Simulated::new(rate, round_trip);
        link.run(start_up(rate, round_trip));
        link.rate = (rate as f64 * factor) as u64;
        // What was under way at the old rate must leave at the new one first.
        let drained = Duration::from_secs_f64(link.pace.bound() as f64 / link.rate as f64);
        link.run(2 * drained + 2 * start_up(link.rate, round_trip));
        // A record's own time is in the least round trip: that of the old rate holds until it is measured anew.
        link.run(ROUND_TRIP_WINDOW + Duration::from_secs(1));
        let queue = link.run(Duration::from_secs(5));
        let allowed = link.allowed_queue();
        prop_assert!(queue <= allowed, "{queue} bytes wait, {allowed} are allowed");
        // Over several measurements of the round trip, each of which costs one.
        let used = link.used(3 * ROUND_TRIP_WINDOW);
        prop_assert!(used >= 0.9, "{used:.3} is used: {:?}", link.pace);
    }
}

#[test]
fn start_up_doubles_with_every_round_trip() {
    let round_trip = Duration::from_millis(100);
    let mut link = Simulated::new(100_000_000, round_trip);
    for round in 1..=8 {
        link.run(round_trip + Duration::from_millis(1));
        let bound = link.pace.bound();
        let doubled = UNDER_WAY_MIN_BYTES << round;
        assert!(
            bound >= doubled / 2 && bound <= 2 * doubled,
            "round {round}: {bound}, and {doubled} would be doubled"
        );
    }
}

#[test]
fn a_burst_that_a_slow_link_lets_through_costs_a_few_seconds_and_not_megabytes() {
    let mut link = Simulated::new(1_000_000_000, Duration::from_millis(1));
    link.run(Duration::from_micros(900));
    link.rate = 8_000;
    link.run(Duration::from_secs(30));
    let queue = link.run(Duration::from_secs(30));
    assert!(queue <= 20_000, "{queue} bytes wait");
}

#[test]
fn too_little_to_send_does_not_lower_the_rate() {
    let round_trip = Duration::from_millis(10);
    let mut link = Simulated::new(10_000_000, round_trip);
    link.run(Duration::from_secs(3));
    let rate = link.pace.rate.as_ref().unwrap().value();
    assert!(rate > 9_000_000, "{rate}");
    // A trickle for a minute: 12 kB every 100 ms.
    link.dry = true;
    link.run(Duration::from_secs(1));
    for _ in 0..600 {
        link.nanos += 100_000_000;
        let now = link.now();
        link.pace.cut(now, 12_000, false);
        let position = link.pace.mark(now);
        let sent = link.nanos + link.way_nanos;
        link.free_at = link.nanos;
        link.at(sent, Arrival::Record(position, true));
        link.run(Duration::from_millis(50));
    }
    assert!(link.pace.rate.as_ref().unwrap().value() >= rate);
    link.dry = false;
    assert!(link.used(Duration::from_secs(1)) >= 0.9);
}

#[test]
fn who_waits_has_asked_whatever_the_bound_was() {
    let begun = Instant::now();
    let mut pace = Pace::new(begun, true);
    let mut now = begun;
    let mut opened = 0;
    for round in 0..2_000_u64 {
        now += Duration::from_millis(1 + (round * 7919) % 400);
        let bytes = pace.allowance().min(1 + (round * 104_729) % 40_000);
        if bytes >= RECORD_LIMIT_MIN_BYTES as u64 {
            pace.cut(now, bytes, true);
        }
        if pace.mark_is_due(true) {
            pace.mark(now);
        }
        let blocked = pace.allowance() < RECORD_LIMIT_MIN_BYTES as u64;
        assert!(
            !blocked || !pace.marks.is_empty(),
            "round {round}: nobody would tell"
        );
        assert!(pace.marks.len() <= MARKS_MAX);
        if round % 3 == 0
            && let Some(mark) = pace.marks.front()
        {
            opened = mark.position.max(opened);
            pace.opened(now, opened).unwrap();
        }
    }
}

#[test]
fn a_word_that_cannot_be_is_refused_and_an_old_one_passed_over() {
    let now = Instant::now();
    let mut pace = Pace::new(now, true);
    pace.cut(now, 10_000, true);
    assert_eq!(
        pace.opened(now, 10_001),
        Err(Impossible {
            opened: 10_001,
            cut: 10_000
        })
    );
    pace.opened(now, 9_000).unwrap();
    let left = pace.allowance();
    pace.opened(now, 8_000).unwrap();
    assert_eq!(pace.allowance(), left);
}

#[test]
fn a_little_bulk_asks_for_nothing_and_is_told_in_passing() {
    let now = Instant::now();
    let mut pace = Pace::new(now, true);
    pace.cut(now, 5_000, false);
    assert!(!pace.mark_is_due(false), "less than a mark's step");
    let mut opened = Opened::default();
    opened.opened(3_000);
    assert_eq!((opened.is_due(), opened.take()), (false, None));
    opened.opened(5_000);
    assert_eq!((opened.is_due(), opened.take()), (false, Some(5_000)));
    assert_eq!(opened.take(), None, "once");
}

#[test]
fn a_longer_way_is_found_by_measuring_again() {
    let mut link = Simulated::new(2_000_000, Duration::from_millis(10));
    link.run(Duration::from_secs(3));
    assert!(link.pace.round_trip.unwrap() < Duration::from_millis(20));
    // Another route, ten times as long.
    link.way_nanos *= 10;
    link.run(Duration::from_secs(30));
    assert!(link.pace.round_trip.unwrap() >= Duration::from_millis(95));
    assert!(link.used(Duration::from_secs(20)) >= 0.9);
}
