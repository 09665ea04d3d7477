//! The account of one call over all machines, in durations.

use std::fmt;

use dwell_messages::Timings;
use serde::Serialize;

use crate::account::{Account, Micros, SEGMENTS, Segment};
use crate::dispatcher::DispatchTimings;
use crate::relay_framer::Arrival;
use crate::telemetry::{Annotate, Stage, semconv};

/// The executor's own queueing of the terminal event: from its hand-over to the framer until its last record was cut.
const EXECUTOR_QUEUE: &str = "queue";

/// Where the time of one call went. All figures are whole microseconds; none compares two machines' clocks.
///
/// Exactly: `total_us` is the sum of all `harness` and `executor` segments, `transit_us`, `unattributed_harness_us` and
/// `unattributed_executor_us`. No figure is larger than `total_us`, whatever the executor or a relay claims: an account
/// that reaches back beyond the call (of a process that was taken over while it ran) counts from the call's beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallTimings {
    /// From `exec` until the end was in the caller's hands.
    pub total_us: u64,
    /// This side's segments by name, in the order in which a call passes them; those of less than 1 µs are left out.
    pub harness: Vec<(&'static str, u64)>,
    /// The executor's segments by name, in chain order, as far as they took 1 µs; `queue`, its own queueing of the end,
    /// is always there.
    pub executor: Vec<(&'static str, u64)>,
    /// Both directions together: what passed here between writing the request and the first record of its end, less
    /// the executor's turnaround. The relay's residence and `transit_excess_us` are parts of it.
    pub transit_us: u64,
    /// The part of the transit that is neither the relay's residence nor within the link's round trip `ping_us`: on the
    /// way, and nobody can say where. Counts as unattributed.
    pub transit_excess_us: u64,
    /// The link's usual round trip when the call ended, to hold the transit against: the median of its newest pings,
    /// which travel beside calls at least every quarter of a second; before the first, the round trip of its set-up.
    pub ping_us: u64,
    /// The relay's residence, both ways, by its word; part of the transit.
    pub relay_us: u64,
    /// From the child's start to its first byte; beside the chain.
    pub first_byte_us: u64,
    /// How long the call waited to be begun, and how long it then took. Another cut through the same time, which ends
    /// when the end is known here: beside the chain, whose `submit` and `dispatch` make up its `dispatch_us`.
    pub dispatch: DispatchTimings,
    /// What no segment names between this side's first stamp and its last, less `transit_us` and the executor's turnaround.
    pub unattributed_harness_us: u64,
    /// What no segment names of the executor's turnaround: from the request's first record there until the last record of
    /// its end was cut.
    pub unattributed_executor_us: u64,
}

/// The harness's own segments, in the order in which a call passes them first.
const OWN: [Segment; 17] = [
    Segment::Submit,
    Segment::Dispatch,
    Segment::RpcMailbox,
    Segment::Admission,
    Segment::FramerMailbox,
    Segment::Serialize,
    Segment::Queue,
    Segment::Seal,
    Segment::Write,
    Segment::Outage,
    Segment::Receive,
    Segment::Open,
    Segment::Decode,
    Segment::HandOff,
    Segment::DeliveryMailbox,
    Segment::Delivery,
    Segment::Consume,
];

impl CallTimings {
    pub(crate) fn new(account: &Account, executor: &Timings, arrival: &Arrival, ping_us: u64) -> Self {
        Self::of(
            &account.micros(),
            executor,
            arrival.trailer.unwrap_or_default(),
            arrival.relay_us,
            ping_us,
        )
    }

    fn of(
        own: &Micros,
        executor: &Timings,
        trailer: dwell_messages::codec::Trailer,
        relay_us: u32,
        ping_us: u64,
    ) -> Self {
        let remote = own.of(Segment::Remote);
        // The other side's word ends where our own measure does.
        let turnaround = u64::from(trailer.turnaround_us).min(remote);
        let (theirs, unattributed_executor_us) = within(turnaround, executor, u64::from(trailer.queued_us));
        let transit_us = remote - turnaround;
        let relay_us = u64::from(relay_us).saturating_add(executor.relay).min(transit_us);
        let named: u64 = OWN.iter().map(|segment| own.of(*segment)).sum();
        Self {
            total_us: own.sum(),
            harness: OWN
                .iter()
                .map(|segment| (segment.name(), own.of(*segment)))
                .filter(|(_, micros)| *micros > 0)
                .collect(),
            executor: theirs,
            transit_us,
            transit_excess_us: (transit_us - relay_us).saturating_sub(ping_us),
            ping_us,
            relay_us,
            first_byte_us: executor.first_byte,
            dispatch: DispatchTimings::default(),
            unattributed_harness_us: own.sum() - remote - named,
            unattributed_executor_us,
        }
    }

    /// What no segment names on any machine, and what of the transit neither the relay nor the link's round trip
    /// explains, in microseconds.
    pub fn unattributed_us(&self) -> u64 {
        self.unattributed_harness_us + self.unattributed_executor_us + self.transit_excess_us
    }
}

impl Annotate for CallTimings {
    /// Puts the account onto the call's span, where the waterfall finds it. What of the transit is unattributed stands
    /// apart, so that everything else there is accounted for.
    fn annotate(&self, stage: Stage) -> Stage {
        let mut stage = stage;
        for (name, micros) in &self.harness {
            stage = stage.number(attribute("harness", name), *micros);
        }
        for (name, micros) in &self.executor {
            stage = stage.number(attribute("executor", name), *micros);
        }
        if self.relay_us > 0 {
            stage = stage.number(semconv::CHAIN_TRANSIT_RELAY_US, self.relay_us);
        }
        let both_ways = self.transit_us - self.relay_us - self.transit_excess_us;
        stage
            .number(semconv::CHAIN_TRANSIT_US, both_ways)
            .number(semconv::CHAIN_TRANSIT_UNATTRIBUTED_US, self.transit_excess_us)
            .number(
                semconv::CHAIN_HARNESS_UNATTRIBUTED_US,
                self.unattributed_harness_us,
            )
            .number(
                semconv::CHAIN_EXECUTOR_UNATTRIBUTED_US,
                self.unattributed_executor_us,
            )
            .number(semconv::LINK_PING_US, self.ping_us)
    }
}

/// The executor's segments within its turnaround, and what of that no segment names. The newest come first to their
/// right: what an account claims beyond the turnaround lies before the call.
fn within(turnaround: u64, executor: &Timings, queued: u64) -> (Vec<(&'static str, u64)>, u64) {
    let queued = queued.min(turnaround);
    let mut left = turnaround - queued;
    let mut segments = executor.segments();
    for (_, micros) in segments.iter_mut().rev() {
        *micros = (*micros).min(left);
        left -= *micros;
    }
    let mut named = Vec::with_capacity(segments.len() + 1);
    named.extend(segments.into_iter().filter(|(_, micros)| *micros > 0));
    named.push((EXECUTOR_QUEUE, queued));
    (named, left)
}

const _: () = assert!(
    OWN.len() < SEGMENTS,
    "the rest is the executor's, or the way there"
);

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
    "harness": "submit", "dispatch", "mailbox.rpc", "admission", "mailbox.framer", "serialize", "queue", "seal",
        "write", "outage", "receive", "open", "decode", "hand_off", "mailbox.delivery", "delivery", "consume";
    "executor": "receive", "open", "decode", "hand_off", "mailbox", "mailbox.rpc", "admission",
        "mailbox.dispatcher", "dispatch", "mailbox.supervisor", "mailbox.process", "spawn_queue", "spawn", "run",
        "drain", "handler", "mailbox.delivery", "delivery", "queue";
}

impl fmt::Display for CallTimings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "total {} µs", self.total_us)?;
        for (machine, segments) in [("harness", &self.harness), ("executor", &self.executor)] {
            for (name, micros) in segments {
                writeln!(f, "  {machine:<9}{name:<19}{micros:>10} µs")?;
            }
        }
        writeln!(
            f,
            "  {:<9}{:<19}{:>10} µs (ping {} µs, relay {} µs)",
            "transit", "both ways", self.transit_us, self.ping_us, self.relay_us
        )?;
        write!(f, "  {:<28}{:>10} µs", "unattributed", self.unattributed_us())
    }
}

#[cfg(test)]
mod tests {
    use dwell_messages::codec::Trailer;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::Tick;

    fn chain(laps: &[(usize, u64)]) -> Micros {
        let mut account = Account::begin(Tick::from_raw(1));
        let mut at = 1;
        for (index, ticks) in laps {
            at += ticks;
            let segment = if *index == OWN.len() {
                Segment::Remote
            } else {
                OWN[*index]
            };
            account.lap(segment, Tick::from_raw(at));
        }
        account.micros()
    }

    fn sum(segments: &[(&'static str, u64)]) -> u64 {
        segments.iter().map(|(_, micros)| micros).sum()
    }

    proptest! {
        /// By construction, whatever the other machines claim.
        #[test]
        fn an_account_adds_up_and_nothing_in_it_exceeds_the_whole(
            laps in vec((0..=OWN.len(), 0_u64..50_000_000), 1..40),
            claims in any::<[u32; 4]>(),
            wide in any::<[u64; 6]>(),
        ) {
            let own = chain(&laps);
            let executor = Timings {
                receive: wide[0] >> (claims[0] % 64),
                open: wide[1] >> (claims[1] % 64),
                mailbox: wide[2] >> (claims[2] % 64),
                process_mailbox: wide[3] >> (claims[0] % 64),
                run: wide[4] >> (claims[1] % 64),
                relay: wide[5] >> (claims[2] % 64),
                ..Timings::default()
            };
            let trailer = Trailer { turnaround_us: claims[0] >> 8, queued_us: claims[1] >> 12 };
            let call = CallTimings::of(&own, &executor, trailer, claims[2] >> 10, u64::from(claims[3] >> 16));
            let parts = sum(&call.harness) + sum(&call.executor) + call.transit_us
                + call.unattributed_harness_us + call.unattributed_executor_us;
            prop_assert_eq!(parts, call.total_us);
            prop_assert!(call.relay_us + call.transit_excess_us <= call.transit_us);
            prop_assert!(call.unattributed_us() <= call.total_us);
            prop_assert_eq!(call.unattributed_harness_us, 0, "every stretch of this side has a segment");
        }
    }

    #[test]
    fn what_of_the_transit_exceeds_the_round_trip_and_is_not_the_relays_counts_as_unattributed() {
        let own = chain(&[(0, 1_000_000), (OWN.len(), 40_000_000)]);
        let remote = own.of(Segment::Remote);
        let trailer = Trailer {
            turnaround_us: 0,
            queued_us: 0,
        };
        let executor = Timings {
            relay: 100,
            ..Timings::default()
        };
        let of = |ping| CallTimings::of(&own, &executor, trailer, 200, ping);
        assert_eq!(of(remote).unattributed_us(), 0);
        assert_eq!(
            of(remote - 300).unattributed_us(),
            0,
            "the relay's word comes first"
        );
        let call = of(remote - 307);
        assert_eq!((call.transit_excess_us, call.relay_us), (7, 300));
        assert_eq!(call.unattributed_us(), 7);
    }

    #[test]
    fn an_account_that_is_older_than_the_call_is_cut_to_what_lies_within_it() {
        let own = chain(&[(OWN.len(), 1_000_000_000)]);
        let remote = own.of(Segment::Remote);
        let executor = Timings {
            receive: 9,
            run: remote * 3,
            drain: 5,
            ..Timings::default()
        };
        let trailer = Trailer {
            turnaround_us: u32::MAX,
            queued_us: 2,
        };
        let call = CallTimings::of(&own, &executor, trailer, 0, 0);
        assert_eq!(
            call.executor,
            vec![("run", remote - 7), ("drain", 5), ("queue", 2)]
        );
        assert_eq!((call.transit_us, call.unattributed_us()), (0, 0));
    }

    #[test]
    fn every_segment_has_an_attribute_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for segment in OWN {
            names.insert(attribute("harness", segment.name()));
        }
        let theirs = Timings::default().segments();
        for (name, _) in theirs {
            names.insert(attribute("executor", name));
        }
        names.insert(attribute("executor", EXECUTOR_QUEUE));
        assert!(!names.contains("chain.other.other_us"));
        assert_eq!(names.len(), OWN.len() + theirs.len() + 1);
    }
}
