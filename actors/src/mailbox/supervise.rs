//! Contained panics: the state goes, the mailbox stays, and too many in a row escalate.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Restarts of one actor within `RESTARTS_WITHIN`; one more escalates to its owner.
pub const RESTARTS_MAX: usize = 5;
/// The span over which restarts are counted.
pub const RESTARTS_WITHIN: Duration = Duration::from_secs(10);

/// Why an actor is gone for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It panicked, and its owner does not want it restarted.
    #[error("actor {actor} panicked: {reason}")]
    Panicked {
        /// The actor's name.
        actor: &'static str,
        /// The panic's message.
        reason: String,
    },
    /// It panicked more often than its bounded intensity allows.
    #[error("actor {actor} panicked more than {RESTARTS_MAX} times in {} s: {reason}", RESTARTS_WITHIN.as_secs())]
    TooManyRestarts {
        /// The actor's name.
        actor: &'static str,
        /// The last panic's message.
        reason: String,
    },
}

/// Counts restarts against the bound.
#[derive(Debug, Default)]
pub(super) struct Intensity {
    recent: VecDeque<Instant>,
}

impl Intensity {
    /// Whether one more restart at `now` is within the bound; counts it if so.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        while self
            .recent
            .front()
            .is_some_and(|first| now.saturating_duration_since(*first) > RESTARTS_WITHIN)
        {
            self.recent.pop_front();
        }
        if self.recent.len() >= RESTARTS_MAX {
            return false;
        }
        self.recent.push_back(now);
        true
    }
}

/// The text of a panic's payload.
pub(super) fn reason(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_restarts_in_ten_seconds_are_admitted_and_a_sixth_is_not_until_time_passes() {
        let mut intensity = Intensity::default();
        let start = Instant::now();
        assert!((0..RESTARTS_MAX).all(|_| intensity.admit(start)));
        assert!(!intensity.admit(start + RESTARTS_WITHIN));
        assert!(intensity.admit(start + RESTARTS_WITHIN + Duration::from_millis(1)));
    }
}
