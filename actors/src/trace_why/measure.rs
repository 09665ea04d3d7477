//! What of a call is compared with other calls.

use std::collections::BTreeMap;

use dwell_messages::{Role, Span, Value};

use crate::account::chain_segments;
use crate::telemetry::semconv;
use crate::trace_file::{Trace, role_name};
use crate::waterfall::{call_span, clean, critical_shares};

/// The most different things that are measured of one call; a root has fewer, unless it is forged.
const MEASURES_MAX: usize = 64;
/// Spans that stand for writing to disk beside the chain; none of them lies within another.
const DISK_SPANS: [&str; 3] = [
    semconv::span::METADATA_APPLY,
    semconv::span::LOG_APPEND,
    semconv::span::LOG_SYNC,
];

/// One thing that is measured of a call.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    /// A segment of the chain.
    Segment { machine: String, segment: String },
    /// The relay's residence, out of transit.
    Relay,
    /// The link's own round trip, out of transit.
    Distance,
    /// What is left of transit.
    Transit,
    /// Writing to disk beside the chain.
    Disk,
    /// A span's own share of the critical path, of a call without an account.
    Span { machine: String, name: String },
}

/// What was measured of one call.
pub(super) struct Measures {
    pub(super) total_us: u64,
    pub(super) values: BTreeMap<Key, u64>,
    /// Whether the root names segments.
    pub(super) has_account: bool,
}

impl Measures {
    /// `None` for a trace without spans.
    pub(super) fn of(trace: &Trace) -> Option<Self> {
        let root = call_span(trace)?;
        let mut measures = Self {
            total_us: root.duration_ns() / 1_000,
            values: BTreeMap::new(),
            has_account: false,
        };
        let (mut transit, mut relay) = (None, 0_u64);
        for (machine, segment, us) in chain_segments(root) {
            let us = u64::try_from(us).unwrap_or(0);
            measures.has_account = true;
            match (machine, segment) {
                (_, "total") => {}
                ("transit", segment) => {
                    transit = Some(transit.unwrap_or(0_u64).saturating_add(us));
                    if segment == "relay" {
                        relay = relay.saturating_add(us);
                    }
                }
                _ => measures.add(
                    Key::Segment {
                        machine: clean(machine),
                        segment: clean(segment),
                    },
                    us,
                ),
            }
        }
        if !measures.has_account {
            for (role, name, ns) in critical_shares(trace) {
                let machine = role_name(role).to_owned();
                measures.add(Key::Span { machine, name }, ns / 1_000);
            }
        }
        if let Some(transit) = transit {
            measures.split_transit(trace, root, transit, relay);
        }
        let disk = trace.spans.iter().filter(|(_, span)| is_disk(span));
        measures.add(Key::Disk, disk.map(|(_, span)| span.duration_ns() / 1_000).sum());
        measures.values.retain(|_, us| *us > 0);
        Some(measures)
    }

    /// The relay's word and the round trip may claim no more than the transit they are part of.
    fn split_transit(&mut self, trace: &Trace, root: &Span, transit: u64, told_us: u64) {
        let told_us = if told_us > 0 { told_us } else { relay_us(trace) };
        let relay = told_us.min(transit);
        let ping = number(root, semconv::LINK_PING_US).unwrap_or(0);
        let distance = ping.min(transit - relay);
        self.add(Key::Relay, relay);
        self.add(Key::Distance, distance);
        self.add(Key::Transit, transit - relay - distance);
    }

    fn add(&mut self, key: Key, us: u64) {
        if self.values.len() < MEASURES_MAX || self.values.contains_key(&key) {
            let sum = self.values.entry(key).or_default();
            *sum = sum.saturating_add(us);
        }
    }
}

/// The relay's residence on the way there and on the way back: of each the longest, since what came back meanwhile was
/// nobody's wait.
fn relay_us(trace: &Trace) -> u64 {
    let longest = |role: Role| {
        let hops = trace
            .spans
            .iter()
            .filter(|(by, span)| *by == role && span.name == semconv::span::RELAY_HOP);
        hops.filter_map(|(_, span)| number(span, semconv::RELAY_RESIDENCE_US))
            .max()
            .unwrap_or(0)
    };
    longest(Role::Harness).saturating_add(longest(Role::Executor))
}

pub(super) fn is_disk(span: &Span) -> bool {
    DISK_SPANS.contains(&span.name.as_ref())
}

/// A number that cannot be negative.
pub(super) fn number(span: &Span, name: &str) -> Option<u64> {
    match span.attribute(name)? {
        Value::I64(number) => u64::try_from(*number).ok(),
        Value::Bool(_) | Value::F64(_) | Value::Str(_) => None,
    }
}
