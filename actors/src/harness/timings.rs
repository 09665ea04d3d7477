//! The account of one call over all machines, in durations.

use std::fmt;

use dwell_messages::Timings;
use serde::Serialize;

use crate::account::{Account, Segment};
use crate::relay_framer::Arrival;
use crate::telemetry::Stage;

/// Where the time of one call went. All figures are microseconds; none compares two machines' clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallTimings {
    /// From `exec` until the end was in the caller's hands.
    pub total_us: u64,
    /// This side's segments, by name, in chain order.
    pub harness: Vec<(&'static str, u64)>,
    /// The executor's segments, by name, in chain order.
    pub executor: Vec<(&'static str, u64)>,
    /// Both directions together: what passed here between writing the request and the first record of its end, less
    /// the executor's turnaround.
    pub transit_us: u64,
    /// The link's own round trip when it was set up, to hold the transit against.
    pub ping_us: u64,
    /// The relay's residence, by its word; part of the transit.
    pub relay_us: u64,
    /// From the child's start to its first byte; beside the chain.
    pub first_byte_us: u64,
    /// What no segment names, on each machine.
    pub unattributed_harness_us: u64,
    /// See `unattributed_harness_us`.
    pub unattributed_executor_us: u64,
}

/// The harness's own segments.
const OWN: [Segment; 9] = [
    Segment::HandOff,
    Segment::Dispatch,
    Segment::Mailbox,
    Segment::Admission,
    Segment::Serialize,
    Segment::Send,
    Segment::Receive,
    Segment::Delivery,
    Segment::Drain,
];

impl CallTimings {
    pub(crate) fn new(account: &Account, executor: &Timings, arrival: &Arrival, ping_us: u64) -> Self {
        let trailer = arrival.trailer.unwrap_or_default();
        let turnaround = u64::from(trailer.turnaround_us);
        let queued = u64::from(trailer.queued_us);
        let total_ns = account.total_ns();
        let remote_ns = account.nanos(Segment::Remote);
        let own_ns: u64 = OWN.iter().map(|segment| account.nanos(*segment)).sum();
        let mut remote: Vec<_> = executor
            .segments()
            .into_iter()
            .filter(|(_, micros)| *micros > 0)
            .collect();
        remote.push(("send", queued));
        Self {
            total_us: total_ns / 1_000,
            harness: OWN
                .iter()
                .map(|segment| (segment.name(), account.micros(*segment)))
                .filter(|(_, micros)| *micros > 0)
                .collect(),
            executor: remote,
            transit_us: (remote_ns / 1_000).saturating_sub(turnaround),
            ping_us,
            relay_us: u64::from(arrival.relay_us),
            first_byte_us: executor.first_byte,
            unattributed_harness_us: total_ns.saturating_sub(remote_ns).saturating_sub(own_ns) / 1_000,
            unattributed_executor_us: turnaround.saturating_sub(executor.named_sum() + queued),
        }
    }

    /// What no segment names on any machine, in microseconds.
    pub fn unattributed_us(&self) -> u64 {
        self.unattributed_harness_us + self.unattributed_executor_us
    }

    /// Puts the account onto the call's span, where the waterfall finds it.
    pub(crate) fn annotate(&self, stage: Stage) -> Stage {
        let mut stage = stage;
        for (name, micros) in &self.harness {
            stage = stage.number(attribute("harness", name), *micros);
        }
        for (name, micros) in &self.executor {
            stage = stage.number(attribute("executor", name), *micros);
        }
        stage
            .number("chain.transit.both_ways_us", self.transit_us)
            .number("chain.harness.unattributed_us", self.unattributed_harness_us)
            .number("chain.executor.unattributed_us", self.unattributed_executor_us)
            .number("link.ping_us", self.ping_us)
    }
}

macro_rules! attributes {
    ($($machine:literal: $($name:literal),*;)*) => {
        /// The attribute's name of a segment. One of a fixed set: names are never made at run time.
        fn attribute(machine: &str, name: &str) -> &'static str {
            match (machine, name) {
                $($(($machine, $name) => concat!("chain.", $machine, ".", $name, "_us"),)*)*
                _ => "chain.other.other_us",
            }
        }
    };
}

attributes! {
    "harness": "hand_off", "dispatch", "mailbox", "admission", "serialize", "send", "receive", "delivery", "drain";
    "executor": "receive", "mailbox", "admission", "dispatch", "spawn_queue", "spawn", "run", "drain", "delivery",
        "send";
}

impl fmt::Display for CallTimings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "total {} µs", self.total_us)?;
        for (machine, segments) in [("harness", &self.harness), ("executor", &self.executor)] {
            for (name, micros) in segments {
                writeln!(f, "  {machine:<9}{name:<12}{micros:>10} µs")?;
            }
        }
        writeln!(
            f,
            "  {:<9}{:<12}{:>10} µs (ping {} µs)",
            "transit", "both ways", self.transit_us, self.ping_us
        )?;
        write!(f, "  {:<21}{:>10} µs", "unattributed", self.unattributed_us())
    }
}
