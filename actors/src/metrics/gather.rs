//! One look at everything that is counted, as samples.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::Ordering;

use super::families::{self, Family};
use super::histogram::Histogram;
use super::meters::{Direction, Side};
use crate::in_flight::{Board, Seen};
use crate::telemetry::{Collector, template};

/// A sample's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Number(f64),
    Histogram(Histogram),
}

/// One series: the values of its family's labels, in their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) labels: Vec<String>,
    pub(crate) value: Value,
}

/// Everything, by family.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered(pub(crate) BTreeMap<&'static str, (Option<Family>, Vec<Sample>)>);

impl Gathered {
    /// A number of this family; labels as the family has them.
    pub(crate) fn number(&mut self, family: Family, labels: &[&str], value: f64) {
        self.add(family, labels, Value::Number(value));
    }

    fn add(&mut self, family: Family, labels: &[&str], value: Value) {
        debug_assert_eq!(labels.len(), family.labels.len(), "{}", family.name);
        let (known, samples) = self.0.entry(family.name).or_default();
        *known = Some(family);
        samples.push(Sample {
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            value,
        });
    }

    /// The families and their samples, in the order of their names.
    pub(crate) fn families(&self) -> impl Iterator<Item = (Family, &[Sample])> {
        self.0
            .values()
            .filter_map(|(family, samples)| Some(((*family)?, samples.as_slice())))
    }
}

/// Looks at a role. Takes no longer than copying what is there; needs none of its actors.
pub(crate) fn gather(collector: &Collector) -> Gathered {
    let board = collector.board();
    let seen = board.look();
    let mut all = Gathered::default();
    mailboxes(&seen, &mut all);
    in_flight(&seen, board, &mut all);
    durations(board, &mut all);
    dispatches(board, &mut all);
    counters(collector, &mut all);
    if let Some((_, relay)) = &seen.relay {
        all.number(families::RELAY_CONNECTIONS, &["open"], relay.connections as f64);
        all.number(families::RELAY_CONNECTIONS, &["opening"], relay.openings as f64);
        all.number(families::RELAY_EXECUTORS, &[], relay.executors as f64);
        all.number(families::RELAY_STREAMS, &[], relay.streams_total as f64);
        for (reason, count) in &relay.dropped {
            all.number(families::RELAY_DROPPED, &[reason], *count as f64);
        }
        for (reason, count) in &relay.refused {
            all.number(families::RELAY_REFUSED, &[reason], *count as f64);
        }
    }
    board.meters().extras(&mut all);
    all
}

fn mailboxes(seen: &Seen, all: &mut Gathered) {
    let mut actors: BTreeMap<&str, (u64, u64, f64)> = BTreeMap::new();
    for look in &seen.mailboxes {
        let (depth, permits, oldest) = actors.entry(look.actor).or_default();
        *depth += u64::from(look.depth);
        *permits += u64::from(look.taken);
        if let Some(turn) = look.turn {
            *oldest = oldest.max(seen.now.nanos_since(turn.enqueued) as f64 / 1e9);
        }
    }
    for (actor, (depth, permits, oldest)) in actors {
        all.number(families::DEPTH, &[actor], depth as f64);
        all.number(families::PERMITS, &[actor], permits as f64);
        all.number(families::OLDEST, &[actor], oldest);
    }
    let lag = seen.arbiters.iter().map(|arbiter| {
        let waiting = arbiter.asked.map_or(0, |asked| seen.now.micros_since(asked));
        arbiter.lag_us.max(waiting)
    });
    all.number(families::ARBITER_LAG, &[], lag.max().unwrap_or(0) as f64 / 1e6);
}

fn in_flight(seen: &Seen, board: &Board, all: &mut Gathered) {
    let mut calls: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (_, call) in &seen.calls {
        *calls
            .entry((call.kind.name(), call.place().0.name()))
            .or_default() += 1;
    }
    for ((kind, at), count) in calls {
        all.number(families::CALLS, &[kind, at], count as f64);
    }
    let mut processes: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, process) in &seen.processes {
        *processes.entry(process.stage().name()).or_default() += 1;
    }
    for state in ["starting", "running", "draining"] {
        let count = processes.get(state).copied().unwrap_or(0);
        all.number(families::PROCESSES, &[state], count as f64);
    }
    let mut links: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, link) in &seen.links {
        *links.entry(link.kind.name()).or_default() += 1;
    }
    for kind in ["direct", "relayed", "registration"] {
        let count = links.get(kind).copied().unwrap_or(0);
        all.number(families::LINKS, &[kind], count as f64);
    }
    let mut stuck: BTreeMap<String, u64> = BTreeMap::new();
    for place in board.stuck() {
        *stuck.entry(place.what).or_default() += 1;
    }
    for what in crate::watchdog::WHATS {
        let count = stuck.get(*what).copied().unwrap_or(0);
        all.number(families::STUCK, &[what], count as f64);
    }
}

fn durations(board: &Board, all: &mut Gathered) {
    // Two templates have the same names where two actors have the same.
    let mut named: BTreeMap<(&str, &str), (Histogram, Histogram)> = BTreeMap::new();
    for (number, (residences, turns)) in board.meters().deliveries() {
        let names = template::names(number);
        match named.entry((names.actor, names.message)) {
            Entry::Occupied(mut before) => {
                before.get_mut().0.merge(&residences);
                before.get_mut().1.merge(&turns);
            }
            Entry::Vacant(none) => {
                none.insert((residences, turns));
            }
        }
    }
    for ((actor, message), (residences, turns)) in named {
        all.add(
            families::RESIDENCE,
            &[actor, message],
            Value::Histogram(residences),
        );
        all.add(families::TURN, &[actor, message], Value::Histogram(turns));
    }
    for ((side, method, error), histogram) in board.meters().rpcs() {
        let family = match side {
            Side::Client => families::RPC_CLIENT,
            Side::Server => families::RPC_SERVER,
        };
        all.add(family, &[method, error], Value::Histogram(histogram));
    }
}

fn dispatches(board: &Board, all: &mut Gathered) {
    for (kind, dispatched) in board.meters().dispatches() {
        for (part, histogram) in dispatched.parts {
            all.add(families::DISPATCH, &[kind, part], Value::Histogram(histogram));
        }
        for (outcome, count) in dispatched.outcomes {
            all.number(families::DISPATCHES, &[kind, outcome], count as f64);
        }
    }
}

fn counters(collector: &Collector, all: &mut Gathered) {
    let (board, stats) = (collector.board(), collector.stats());
    let meters = board.meters();
    all.number(families::IO, &["in"], meters.bytes(Direction::In) as f64);
    all.number(families::IO, &["out"], meters.bytes(Direction::Out) as f64);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
    all.number(families::RESUMPTIONS, &[], count(&meters.resumptions));
    all.number(families::REPLAYED, &[], count(&meters.replayed));
    all.number(families::WARNINGS, &[], count(&meters.warnings));
    all.number(families::SPANS, &[], stats.spans as f64);
    for (reason, dropped) in [
        ("records", stats.records_dropped),
        ("stages", stats.stages_dropped),
        ("export", stats.export_failed),
    ] {
        all.number(families::TELEMETRY_DROPPED, &[reason], dropped as f64);
    }
    #[cfg(feature = "responses")]
    meters.model.gather(all);
    all.number(families::UPTIME, &[], board.up_us() as f64 / 1e6);
    all.number(families::READY, &[], f64::from(u8::from(meters.is_ready())));
}
