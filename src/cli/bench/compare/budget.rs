//! What was promised, and whether it holds in this run. Pure.

use super::measure::Measure;
use super::peer::Name;
use super::results::Results;

/// How a figure is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Times,
    Millis,
    Kibibytes,
    RoundTrips,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bound {
    AtMost,
    AtLeast,
}

/// One promise, and what was measured of it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) limit: f64,
    pub(crate) said: Said,
    /// `None`: a peer that is needed for it was not there.
    pub(crate) measured: Option<f64>,
}

impl Verdict {
    pub(crate) fn met(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.bound {
            Bound::AtMost => measured <= self.limit,
            Bound::AtLeast => measured >= self.limit,
        })
    }
}

/// Of one peer over another.
const RATIOS: [(&str, Measure, Name, Name, Bound, f64); 15] = {
    use Bound::{AtLeast, AtMost};
    use Measure::{EchoPipe, EchoTerminal, InFlight32, OneShot, RoundTrip, Throughput};
    use Name::{Bare, Codex, CodexQuick, Direct, Json, Relay, Ssh};
    [
        ("one-shot, relay, over codex", OneShot, Relay, Codex, AtMost, 0.1),
        (
            "one-shot, relay, over codex with quick ACKs",
            OneShot,
            Relay,
            CodexQuick,
            AtMost,
            0.5,
        ),
        ("one-shot, relay, over ssh", OneShot, Relay, Ssh, AtMost, 0.2),
        (
            "one-shot, relay, over a bare spawn",
            OneShot,
            Relay,
            Bare,
            AtMost,
            1.5,
        ),
        (
            "one-shot, JSON dialect, over codex",
            OneShot,
            Json,
            Codex,
            AtMost,
            0.2,
        ),
        (
            "commands a second, 32 in flight, direct, over codex",
            InFlight32,
            Direct,
            Codex,
            AtLeast,
            5.0,
        ),
        (
            "commands a second, 32 in flight, direct, over codex with quick ACKs",
            InFlight32,
            Direct,
            CodexQuick,
            AtLeast,
            5.0,
        ),
        (
            "commands a second, 32 in flight, direct, over ssh",
            InFlight32,
            Direct,
            Ssh,
            AtLeast,
            5.0,
        ),
        (
            "commands a second, 32 in flight, direct, over bare",
            InFlight32,
            Direct,
            Bare,
            AtLeast,
            0.7,
        ),
        (
            "output, direct, over codex",
            Throughput,
            Direct,
            Codex,
            AtLeast,
            3.0,
        ),
        ("output, direct, over ssh", Throughput, Direct, Ssh, AtLeast, 1.5),
        (
            "echo through a pipe, direct, over ssh",
            EchoPipe,
            Direct,
            Ssh,
            AtMost,
            1.2,
        ),
        (
            "echo through a terminal, direct, over ssh",
            EchoTerminal,
            Direct,
            Ssh,
            AtMost,
            1.2,
        ),
        ("RPC, direct, over codex", RoundTrip, Direct, Codex, AtMost, 1.6),
        (
            "RPC, JSON dialect, over codex",
            RoundTrip,
            Json,
            Codex,
            AtMost,
            1.6,
        ),
    ]
};

const POLLED_MAX_MS: f64 = 2.0;
const SESSION_MAX_KIB: f64 = 64.0;
const BEYOND_ONE_MAX_MS: f64 = 1.0;
/// TCP's own, and two.
const COLD_MAX_ROUND_TRIPS: f64 = 3.0;
/// Counts of round trips are of measured times: so much is the machine's.
const ROUND_TRIP_SLACK: f64 = 0.1;

/// All that was promised, of what was measured.
pub(crate) fn verdicts(results: &Results, latencies_ms: &[u32]) -> Vec<Verdict> {
    let mut all: Vec<Verdict> = RATIOS
        .iter()
        .map(|(what, measure, name, under, bound, limit)| Verdict {
            what: (*what).to_owned(),
            bound: *bound,
            limit: *limit,
            said: Said::Times,
            measured: results.ratio(*measure, *name, *under),
        })
        .collect();
    let mut at_most = |what: String, limit, said, measured| {
        all.push(Verdict {
            what,
            bound: Bound::AtMost,
            limit,
            said,
            measured,
        });
    };
    let ours = [Name::Direct, Name::Relay, Name::Json];
    for name in ours {
        at_most(
            format!("a call behind a long poll, {}", name.label()),
            POLLED_MAX_MS,
            Said::Millis,
            results.median(Measure::BehindPoll, name).map(|us| us / 1e3),
        );
    }
    for name in ours {
        at_most(
            format!("an idle session, {}", name.label()),
            SESSION_MAX_KIB,
            Said::Kibibytes,
            results.median(Measure::IdleMemory, name),
        );
    }
    for name in [Name::Direct, Name::Relay] {
        for (how, idle, flooded) in [
            ("pipe", Measure::EchoPipe, Measure::EchoPipeFlooded),
            ("terminal", Measure::EchoTerminal, Measure::EchoTerminalFlooded),
        ] {
            let allowed = results.percentile(idle, name, 99).map(|us| 2.0 * us + 1e3);
            let came = results.percentile(flooded, name, 99);
            at_most(
                format!(
                    "echo p99 by {how} beside a flood, {}, over 2 idle + 1 ms",
                    name.label()
                ),
                1.0,
                Said::Times,
                came.zip(allowed).map(|(came, allowed)| came / allowed),
            );
        }
        for ms in latencies_ms.iter().copied().filter(|ms| *ms > 0) {
            let round_trips = results.round_trips(Measure::OneShot, ms, name);
            at_most(
                format!("one-shot beyond one round trip of {ms} ms, {}", name.label()),
                BEYOND_ONE_MAX_MS,
                Said::Millis,
                round_trips.map(|count| (count - 1.0) * results.round_trip_us(ms) / 1e3),
            );
            at_most(
                format!("cold connect to first output at {ms} ms, {}", name.label()),
                COLD_MAX_ROUND_TRIPS + ROUND_TRIP_SLACK,
                Said::RoundTrips,
                results.round_trips(Measure::Cold, ms, name),
            );
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cells: &[(Measure, u32, Name, f64)]) -> Results {
        let mut results = Results::default();
        for (measure, latency_ms, name, value) in cells {
            results
                .cell_mut(*measure, *latency_ms, *name)
                .series
                .push_round(vec![*value]);
        }
        results
    }

    fn verdict(results: &Results, what: &str) -> Verdict {
        let all = verdicts(results, &[0, 20]);
        all.into_iter().find(|verdict| verdict.what == what).unwrap()
    }

    #[test]
    fn a_promise_is_met_up_to_its_limit_and_unknown_without_its_peer() {
        let of = |relay: f64| {
            with(&[
                (Measure::OneShot, 0, Name::Relay, relay),
                (Measure::OneShot, 0, Name::Codex, 10_000.0),
            ])
        };
        let what = "one-shot, relay, over codex";
        assert_eq!(verdict(&of(1_000.0), what).met(), Some(true));
        assert_eq!(verdict(&of(1_010.0), what).met(), Some(false));
        assert_eq!(verdict(&of(1_000.0), "one-shot, relay, over ssh").met(), None);
    }

    #[test]
    fn more_is_better_where_at_least_is_promised() {
        let of = |direct: f64| {
            with(&[
                (Measure::Throughput, 0, Name::Direct, direct),
                (Measure::Throughput, 0, Name::Ssh, 100.0),
            ])
        };
        let what = "output, direct, over ssh";
        assert_eq!(verdict(&of(150.0), what).met(), Some(true));
        assert_eq!(verdict(&of(149.0), what).met(), Some(false));
    }

    #[test]
    fn a_latency_may_cost_one_round_trip_and_a_millisecond() {
        let of = |far: f64| {
            with(&[
                (Measure::OneShot, 0, Name::Direct, 1_000.0),
                (Measure::OneShot, 20, Name::Direct, far),
            ])
        };
        let what = "one-shot beyond one round trip of 20 ms, dwell, direct";
        assert_eq!(verdict(&of(21_500.0), what).met(), Some(true));
        assert_eq!(verdict(&of(41_000.0), what).met(), Some(false));
    }

    #[test]
    fn an_echo_beside_a_flood_has_twice_its_idle_tail_and_a_millisecond() {
        let of = |flooded: f64| {
            with(&[
                (Measure::EchoPipe, 0, Name::Direct, 500.0),
                (Measure::EchoPipeFlooded, 0, Name::Direct, flooded),
            ])
        };
        let what = "echo p99 by pipe beside a flood, dwell, direct, over 2 idle + 1 ms";
        assert_eq!(verdict(&of(2_000.0), what).met(), Some(true));
        assert_eq!(verdict(&of(2_001.0), what).met(), Some(false));
    }
}
