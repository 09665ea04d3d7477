//! Says, once in a while, that a listener drops connections as they come.

use std::time::{Duration, Instant};

use dwell_relay::driver::Listen;

/// Between two such lines: whoever floods a listener does not flood its log.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// What was said of one listener.
#[derive(Debug, Default)]
pub(crate) struct RushLog {
    said_at: Option<Instant>,
    turned_away: u64,
}

impl RushLog {
    /// To be called after each connection that was taken: a listener that drops some takes others.
    pub(crate) fn look(&mut self, now: Instant, listener: &dyn Listen) {
        if let Some(dropped) = self.due(now, listener.turned_away()) {
            tracing::warn!(
                dropped,
                listener = %listener.address(),
                "connections were dropped as they came: more come than clients need; a firewall can stop them earlier"
            );
        }
    }

    /// How many to tell of, if it is time to.
    fn due(&mut self, now: Instant, turned_away: u64) -> Option<u64> {
        let waits = self.said_at.is_some_and(|at| now < at + SAID_EVERY);
        if waits || turned_away == self.turned_away {
            return None;
        }
        let dropped = turned_away - self.turned_away;
        (self.said_at, self.turned_away) = (Some(now), turned_away);
        Some(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_once_a_minute_and_whole() {
        let start = Instant::now();
        let mut log = RushLog::default();
        assert_eq!(log.due(start, 0), None);
        assert_eq!(log.due(start, 3), Some(3));
        assert_eq!(log.due(start + SAID_EVERY / 2, 50), None);
        assert_eq!(log.due(start + SAID_EVERY, 60), Some(57));
        assert_eq!(log.due(start + 3 * SAID_EVERY, 60), None);
    }
}
