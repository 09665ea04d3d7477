//! How long a request took on this machine, by its monotonic clock. Pure: time is an argument.

use super::sideband::ServerTimings;

/// Where a request's time went, in microseconds of this machine's monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientTimings {
    /// In the session's queue, while earlier requests held the stream.
    pub queue_us: u64,
    /// Connecting, TLS and the upgrade. `None`: the connection was there.
    pub connect_us: Option<u64>,
    /// From there until the request had been written.
    pub send_us: u64,
    /// From the end of writing to the first event.
    pub first_event_us: Option<u64>,
    /// From the end of writing to the first token. Never set for a prewarming request, which makes none.
    pub first_token_us: Option<u64>,
    /// Between events with tokens.
    pub gaps: TokenGaps,
    /// From the call to the end of the response.
    pub total_us: u64,
    /// Whether it was to warm up only.
    pub prewarm: bool,
}

/// The pauses between one event with tokens and the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TokenGaps {
    /// How many.
    pub count: u64,
    /// All together, in microseconds.
    pub total_us: u64,
    /// The longest, in microseconds.
    pub longest_us: u64,
}

/// What of a request's time the server does not account for: the network, and what nobody names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unaccounted {
    /// In microseconds; never negative.
    pub us: u64,
    /// Whether the server claims more than the whole request took here, so that nothing is left.
    pub clamped: bool,
}

impl ClientTimings {
    /// What is left of the time since the request was written, when the server's own is taken away. `None` where the
    /// server said nothing.
    pub fn unaccounted(&self, server: &ServerTimings) -> Option<Unaccounted> {
        let server_us = server.at_least_ms()? * 1_000.0;
        let before = self.queue_us + self.connect_us.unwrap_or(0) + self.send_us;
        let round_trip_us = self.total_us.saturating_sub(before);
        // Exact: durations are below a day.
        let left = round_trip_us as f64 - server_us;
        Some(Unaccounted {
            us: left.max(0.0) as u64,
            clamped: left < 0.0,
        })
    }
}

/// Measures one attempt, from the end of writing on. Instants are microseconds on one clock.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    sent_us: u64,
    prewarm: bool,
    first_event_us: Option<u64>,
    first_token_us: Option<u64>,
    last_token_us: Option<u64>,
    gaps: TokenGaps,
}

impl Measure {
    /// The request has been written.
    pub fn sent(at_us: u64, prewarm: bool) -> Self {
        Self {
            sent_us: at_us,
            prewarm,
            first_event_us: None,
            first_token_us: None,
            last_token_us: None,
            gaps: TokenGaps::default(),
        }
    }

    /// An event of the response came.
    pub fn event(&mut self, at_us: u64, has_tokens: bool) {
        let since = at_us.saturating_sub(self.sent_us);
        self.first_event_us.get_or_insert(since);
        // What a warming server makes is nobody's first token.
        if !has_tokens || self.prewarm {
            return;
        }
        self.first_token_us.get_or_insert(since);
        if let Some(last) = self.last_token_us.replace(at_us) {
            let gap = at_us.saturating_sub(last);
            self.gaps.count += 1;
            self.gaps.total_us += gap;
            self.gaps.longest_us = self.gaps.longest_us.max(gap);
        }
    }

    /// When the first event came, on the same clock.
    pub fn first_event_at_us(&self) -> Option<u64> {
        self.first_event_us.map(|since| self.sent_us + since)
    }

    /// What was measured, put into the account of the whole.
    pub fn finish(&self, timings: &mut ClientTimings) {
        timings.first_event_us = self.first_event_us;
        timings.first_token_us = self.first_token_us;
        timings.gaps = self.gaps;
        timings.prewarm = self.prewarm;
    }
}
