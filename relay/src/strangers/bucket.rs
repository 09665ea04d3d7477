//! A token bucket on a clock that is an argument.

use std::time::{Duration, Instant};

/// Millionths of a token: at so many a second one is earned in each microsecond.
const TOKEN: u64 = 1_000_000;

/// How often something may be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Times a second, in the long run.
    pub per_s: u32,
    /// Times at once before that.
    pub burst: u32,
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    millionths: u64,
    at: Instant,
}

impl Bucket {
    pub(super) fn full(now: Instant, rate: Rate) -> Self {
        Self {
            millionths: u64::from(rate.burst) * TOKEN,
            at: now,
        }
    }

    /// Adds what was earned since the last look. The rate may be another one than then.
    fn earn(&mut self, now: Instant, rate: Rate) {
        let most = u64::from(rate.burst) * TOKEN;
        let passed = now.saturating_duration_since(self.at);
        let passed_us = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        // Only whole microseconds are paid for, and the rest is not lost: whoever looks often must not starve it.
        self.at += Duration::from_micros(passed_us);
        let earned = passed_us.saturating_mul(u64::from(rate.per_s));
        self.millionths = self.millionths.saturating_add(earned).min(most);
    }

    /// Whether there is a token.
    pub(super) fn has_one(&mut self, now: Instant, rate: Rate) -> bool {
        self.earn(now, rate);
        self.millionths >= TOKEN
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let has_one = self.has_one(now, rate);
        if has_one {
            self.millionths -= TOKEN;
        }
        has_one
    }

    /// Gives a token back: what it was taken for cost nothing that counts.
    pub(super) fn give_back(&mut self, now: Instant, rate: Rate) {
        self.earn(now, rate);
        self.millionths = (self.millionths + TOKEN).min(u64::from(rate.burst) * TOKEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_s: 10, burst: 3 };

    fn taken(bucket: &mut Bucket, now: Instant) -> usize {
        (0..100).filter(|_| bucket.take(now, RATE)).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start, RATE);
        assert_eq!(taken(&mut bucket, start), 3);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(200)), 2);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 3);
    }

    #[test]
    fn looking_often_neither_starves_a_bucket_nor_feeds_it() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start, RATE);
        taken(&mut bucket, start);
        let step = Duration::from_nanos(700);
        let mut now = start;
        let mut taken = 0;
        while now < start + Duration::from_secs(1) {
            taken += usize::from(bucket.take(now, RATE));
            now += step;
        }
        assert!((9..=10).contains(&taken), "{taken}");
    }

    #[test]
    fn what_is_given_back_is_there_and_never_more_than_the_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start, RATE);
        bucket.give_back(start, RATE);
        assert_eq!(taken(&mut bucket, start), 3);
        bucket.give_back(start, RATE);
        assert_eq!(taken(&mut bucket, start), 1);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start + Duration::from_secs(10), RATE);
        assert_eq!(taken(&mut bucket, start), 3);
        assert_eq!(taken(&mut bucket, start), 0);
    }
}
