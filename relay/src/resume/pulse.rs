//! Finding a transport that is dead and does not say so.
//!
//! Only the answer to a ping of this link counts: bytes that still arrive say nothing of those that leave.

use std::time::{Duration, Instant};

/// Between two pings of whoever dialled.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A ping without an answer for so long: the transport is dead. With the interval it makes 15 s.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);
/// Whoever is pinged hears nothing for so long: the transport is dead.
pub const QUIET_AFTER: Duration = Duration::from_secs(15);

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beat {
    /// Nothing before then.
    Wait(Instant),
    /// Send a ping.
    Ping,
    /// The transport is dead.
    Dead,
}

/// How often whoever dialled pings, and how long it waits for the answer.
#[derive(Clone, Copy, Debug)]
pub struct Pings {
    /// Between two pings. At least 1 ms.
    pub every: Duration,
    /// A ping without an answer for so long: the transport is dead.
    pub dead_after: Duration,
}

impl Default for Pings {
    fn default() -> Self {
        Self {
            every: PING_INTERVAL,
            dead_after: DEAD_AFTER,
        }
    }
}

/// One link's pulse, at one of its ends.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    pings: Option<Pings>,
    next_ping: Instant,
    unanswered: Option<Instant>,
    heard: Instant,
}

impl Pulse {
    /// The end that dialled: it pings.
    pub fn pinging(now: Instant, pings: Pings) -> Self {
        Self {
            pings: Some(pings),
            next_ping: now,
            unanswered: None,
            heard: now,
        }
    }

    /// The end that answers: it expects pings.
    pub fn listening(now: Instant) -> Self {
        Self {
            pings: None,
            ..Self::pinging(now, Pings::default())
        }
    }

    /// A ping left between two beats. It counts as any other: the next one is due an interval after it.
    pub fn asked(&mut self, now: Instant) {
        if let Some(pings) = self.pings {
            self.next_ping = now + pings.every.max(Duration::from_millis(1));
            self.unanswered.get_or_insert(now);
        }
    }

    /// The answer to a ping came.
    pub fn pong(&mut self, now: Instant) {
        self.unanswered = None;
        self.heard = now;
    }

    /// A ping came.
    pub fn pinged(&mut self, now: Instant) {
        self.heard = now;
    }

    /// To be called when `Wait` is over. `Ping` counts as sent.
    pub fn beat(&mut self, now: Instant) -> Beat {
        let Some(pings) = self.pings else {
            let dead = self.heard + QUIET_AFTER;
            return if dead <= now { Beat::Dead } else { Beat::Wait(dead) };
        };
        if let Some(sent) = self.unanswered
            && sent + pings.dead_after <= now
        {
            return Beat::Dead;
        }
        if self.next_ping <= now {
            self.asked(now);
            return Beat::Ping;
        }
        let dead = self.unanswered.map(|sent| sent + pings.dead_after);
        Beat::Wait(dead.map_or(self.next_ping, |dead| dead.min(self.next_ping)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a pulse whose pings are answered until `silent`, and says when it is found dead.
    fn found_dead(mut pulse: Pulse, begun: Instant, silent: Instant, pong: bool) -> Duration {
        let mut now = begun;
        loop {
            match pulse.beat(now) {
                Beat::Ping if now < silent && pong => pulse.pong(now),
                Beat::Ping => {}
                Beat::Wait(until) => {
                    assert!(until > now, "time passes");
                    now = until;
                }
                Beat::Dead => return now - silent,
            }
        }
    }

    #[test]
    fn a_dead_transport_is_found_within_fifteen_seconds_at_both_ends() {
        let begun = Instant::now();
        for millis in [0, 1, 4_999, 5_000, 5_001, 17_300] {
            let silent = begun + Duration::from_millis(millis);
            let found = found_dead(Pulse::pinging(begun, Pings::default()), begun, silent, true);
            assert!(found <= Duration::from_secs(15), "{millis} ms: {found:?}");
        }
        let found = found_dead(Pulse::listening(begun), begun, begun, false);
        assert_eq!(found, Duration::from_secs(15));
    }

    #[test]
    fn other_traffic_does_not_mask_a_dead_peer() {
        let begun = Instant::now();
        let mut pulse = Pulse::pinging(begun, Pings::default());
        assert_eq!(pulse.beat(begun), Beat::Ping);
        // A ping of the peer arrives: its bytes reach us, ours do not reach it.
        pulse.pinged(begun + Duration::from_secs(9));
        assert_eq!(pulse.beat(begun + DEAD_AFTER), Beat::Dead);
    }

    #[test]
    fn a_ping_between_two_beats_is_waited_for_as_any_other_and_puts_the_next_one_off() {
        let begun = Instant::now();
        let mut pulse = Pulse::pinging(begun, Pings::default());
        assert_eq!(pulse.beat(begun), Beat::Ping);
        pulse.pong(begun);
        let between = begun + Duration::from_secs(3);
        pulse.asked(between);
        let then = begun + PING_INTERVAL;
        assert_eq!(pulse.beat(then), Beat::Wait(between + PING_INTERVAL));
        assert_eq!(pulse.beat(between + PING_INTERVAL), Beat::Ping);
        assert_eq!(pulse.beat(between + DEAD_AFTER), Beat::Dead);
    }

    #[test]
    fn a_second_ping_does_not_reset_the_first_ones_deadline() {
        let begun = Instant::now();
        let mut pulse = Pulse::pinging(begun, Pings::default());
        assert_eq!(pulse.beat(begun), Beat::Ping);
        assert_eq!(pulse.beat(begun + PING_INTERVAL), Beat::Ping);
        assert_eq!(pulse.beat(begun + DEAD_AFTER), Beat::Dead);
    }
}
