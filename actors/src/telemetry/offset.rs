//! How far another machine's clock is from this one's, from round trips in which it said its time.
//!
//! The other side read its clock somewhere between our two readings, so half the round trip bounds the error whatever
//! way the two directions differ. The round trip with the least error wins, and its error grows while it ages, since two
//! clocks drift apart. Only ever used to place bars in a drawing.

use super::collector::ClockOffset;

/// How fast two clocks may drift apart, in parts of a million: two cheap crystals.
pub const DRIFT_PPM: u64 = 100;
/// What reading and rounding may add, in nanoseconds.
const READING_NS: u64 = 1_000;

/// What is known of the other clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockEstimate {
    best: Option<Best>,
}

#[derive(Clone, Copy, Debug)]
struct Best {
    offset_ns: i128,
    error_ns: u64,
    /// When the other clock may have been read at the earliest, by ours.
    at_unix_ns: u64,
}

impl Best {
    fn error_at(&self, now_unix_ns: u64) -> u64 {
        let age = now_unix_ns.saturating_sub(self.at_unix_ns);
        self.error_ns
            .saturating_add(age.saturating_mul(DRIFT_PPM) / 1_000_000)
    }
}

impl ClockEstimate {
    /// The other side read `theirs` between our `sent` and `received`, all in Unix nanoseconds. Returns what is known now.
    pub fn observe(&mut self, sent: u64, received: u64, theirs: u64) -> ClockOffset {
        let half = received.saturating_sub(sent) / 2;
        let fresh = Best {
            offset_ns: i128::from(theirs) - i128::from(sent.saturating_add(half)),
            error_ns: half.saturating_add(READING_NS),
            // The clocks drift apart on the way too.
            at_unix_ns: sent,
        };
        let best = match self.best {
            Some(best) if best.error_at(received) <= fresh.error_at(received) => best,
            Some(_) | None => *self.best.insert(fresh),
        };
        let saturated = if best.offset_ns < 0 { i64::MIN } else { i64::MAX };
        ClockOffset {
            offset_us: i64::try_from(best.offset_ns / 1_000).unwrap_or(saturated),
            error_us: best.error_at(received).div_ceil(1_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const BASE: u64 = 1_800_000_000_000_000_000;

    proptest! {
        /// Whatever the skew, the drift within what is allowed for, and however the way divides into there and back.
        #[test]
        fn the_offset_is_found_to_within_its_own_error(
            skew_ns in -86_400_000_000_000_i64..86_400_000_000_000,
            drift_ppm in -100_i64..=100,
            trips in vec((0_u64..5_000_000_000, 1_000_u64..300_000_000, 0.0_f64..=1.0), 1..40),
        ) {
            let mut estimate = ClockEstimate::default();
            let mut now = BASE;
            for (pause, took, share) in trips {
                now += pause;
                let (sent, received) = (now, now + took);
                let truth = |at: u64| {
                    i128::from(skew_ns) + i128::from(at - BASE) * i128::from(drift_ppm) / 1_000_000
                };
                let read = sent + (took as f64 * share) as u64;
                let theirs = u64::try_from(i128::from(read) + truth(read)).unwrap();
                let known = estimate.observe(sent, received, theirs);
                let off = (i128::from(known.offset_us) * 1_000 - truth(received)).unsigned_abs();
                prop_assert!(off <= u128::from(known.error_us) * 1_000 + 1_000, "{known:?}, off by {off} ns");
                now = received;
            }
        }
    }

    #[test]
    fn the_least_round_trip_wins_until_it_is_too_old() {
        let mut estimate = ClockEstimate::default();
        let good = estimate.observe(BASE, BASE + 100_000, BASE + 50_000);
        assert_eq!(
            (good.offset_us, good.error_us),
            (0, 52),
            "half of it, a reading, and its drift"
        );
        // A longer one, read at its very end, would say that the clock is ahead.
        let later = BASE + 1_000_000_000;
        let kept = estimate.observe(later, later + 10_000_000, later + 10_000_000);
        assert_eq!(kept.offset_us, 0);
        assert_eq!(kept.error_us, 51 + 101, "a second's drift with it");
        let much_later = BASE + 3_600_000_000_000;
        let taken = estimate.observe(much_later, much_later + 10_000_000, much_later + 5_000_000);
        assert_eq!((taken.offset_us, taken.error_us), (0, 5_002));
    }
}
