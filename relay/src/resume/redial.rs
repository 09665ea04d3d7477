//! When to dial again.

use std::time::Duration;

/// For so long after a loss attempts follow each other closely.
pub const EAGER_FOR: Duration = Duration::from_secs(10);
/// A dial that is not answered within this and two round trips is raced by another.
pub const RACE_AFTER: Duration = Duration::from_millis(300);

/// Between eager attempts, in milliseconds: drawn evenly, so that many clients of one relay do not come at once.
const EAGER_MS: std::ops::RangeInclusive<u64> = 50..=200;
/// The longest between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One loss, from the first attempt on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Redial {
    attempts: u32,
    doubled: u32,
}

impl Redial {
    /// How long to wait before the next attempt, `since` the link was lost. `draw` is a random number.
    ///
    /// The first is made at once; then every 50 to 200 ms for 10 s; then the pause doubles to 5 s, half of it drawn.
    pub fn pause(&mut self, since: Duration, draw: u64) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        if self.attempts == 1 {
            return Duration::ZERO;
        }
        if since < EAGER_FOR {
            let span = EAGER_MS.end() - EAGER_MS.start() + 1;
            return Duration::from_millis(EAGER_MS.start() + draw % span);
        }
        self.doubled = (self.doubled + 1).min(8);
        let whole = (Duration::from_millis(*EAGER_MS.end()) * (1 << self.doubled)).min(PAUSE_MAX);
        let half = u64::try_from(whole.as_millis() / 2).unwrap_or(u64::MAX);
        Duration::from_millis(half + draw % (half + 1))
    }

    /// When an attempt is raced by another, given the link's last round trip.
    pub fn race_after(round_trip: Duration) -> Duration {
        RACE_AFTER + 2 * round_trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_is_at_once_then_eager_then_slower_up_to_five_seconds() {
        let mut redial = Redial::default();
        assert_eq!(redial.pause(Duration::ZERO, 7), Duration::ZERO);
        for draw in 0..1_000 {
            let pause = redial.pause(Duration::from_secs(9), draw);
            assert!((50..=200).contains(&pause.as_millis()), "{pause:?}");
        }
        let mut longest = Duration::ZERO;
        for draw in 0..1_000 {
            longest = longest.max(redial.pause(Duration::from_secs(10), draw * 977));
        }
        assert!(longest <= PAUSE_MAX && longest > PAUSE_MAX / 2, "{longest:?}");
    }
}
