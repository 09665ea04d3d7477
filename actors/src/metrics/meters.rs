//! What is counted while things happen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::gather::Gathered;
use super::histogram::{Histogram, RESIDENCE_BOUNDS, RPC_BOUNDS};
use crate::dispatcher::DispatchTimings;
use crate::in_flight::unpoisoned;
use crate::telemetry::{Record, Tick, nanos};

/// Durations that wait for the thread which hands them to an exporter; past it the oldest are left out there.
const EXPORTED_MAX: usize = 8_192;

/// Which side of an RPC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    In,
    Out,
}

/// A duration, for an exporter with histograms of its own.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Duration {
    /// Of the delivery with this template: its residence and its turn, in seconds.
    Delivery(u16, f64, f64),
    /// Of an RPC, in seconds.
    Rpc(Side, &'static str, Option<&'static str>, f64),
    /// Of a part of a command's dispatch, in seconds.
    Dispatch(&'static str, &'static str, f64),
}

/// Of one template: residence and turn.
pub(crate) type Pair = (Histogram, Histogram);
/// Side, method and error type; an empty one is a success.
pub(crate) type RpcKey = (Side, &'static str, &'static str);
/// Of commands of one kind: the parts of their dispatch, and what came of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dispatched {
    pub(crate) parts: BTreeMap<&'static str, Histogram>,
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
}
type Extra = Box<dyn Fn(&mut Gathered) + Send + Sync>;

/// See the module.
#[derive(Default)]
pub(crate) struct Meters {
    /// As many as there are templates, which the process's own code bounds.
    deliveries: Mutex<BTreeMap<u16, Pair>>,
    /// Methods and error codes are enums.
    rpcs: Mutex<BTreeMap<RpcKey, Histogram>>,
    /// Two kinds, of a few parts and outcomes each.
    dispatches: Mutex<BTreeMap<&'static str, Dispatched>>,
    bytes: [AtomicU64; 2],
    pub(crate) resumptions: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) warnings: AtomicU64,
    #[cfg(feature = "responses")]
    pub(crate) model: crate::responses::ModelMeters,
    /// What a role adds of its own.
    extras: Mutex<Vec<Extra>>,
    ready: AtomicBool,
    exports: AtomicBool,
    exported: Mutex<VecDeque<Duration>>,
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Meters {
    /// A sampled delivery. On the collector's thread.
    pub(crate) fn delivery(&self, record: &Record) {
        let seconds = |ticks: u64| nanos(ticks) as f64 / 1e9;
        let residence = seconds(record.dequeued.saturating_sub(record.enqueued));
        let turn = seconds(u64::from(record.turn_ticks));
        let mut deliveries = unpoisoned(&self.deliveries);
        let (residences, turns) = deliveries.entry(record.template).or_insert_with(|| {
            (
                Histogram::new(&RESIDENCE_BOUNDS),
                Histogram::new(&RESIDENCE_BOUNDS),
            )
        });
        residences.observe(residence);
        turns.observe(turn);
        drop(deliveries);
        self.export(Duration::Delivery(record.template, residence, turn));
    }

    /// An RPC is over.
    pub(crate) fn rpc(&self, side: Side, method: &'static str, error: Option<&'static str>, began: Tick) {
        let seconds = Tick::now().nanos_since(began) as f64 / 1e9;
        unpoisoned(&self.rpcs)
            .entry((side, method, error.unwrap_or_default()))
            .or_insert_with(|| Histogram::new(&RPC_BOUNDS))
            .observe(seconds);
        self.export(Duration::Rpc(side, method, error, seconds));
    }

    /// A command is over. One that was never begun has no time of being handled.
    pub(crate) fn dispatched(&self, kind: &'static str, outcome: &'static str, timings: DispatchTimings) {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let handler = timings
            .execution_started
            .then_some(("handler", seconds(timings.handler_us)));
        let parts = [
            ("readiness", seconds(timings.readiness_us)),
            ("lock", seconds(timings.lock_us)),
            ("dispatch", seconds(timings.dispatch_us)),
        ];
        let mut dispatches = unpoisoned(&self.dispatches);
        let own = dispatches.entry(kind).or_default();
        *own.outcomes.entry(outcome).or_default() += 1;
        for (part, seconds) in parts.into_iter().chain(handler) {
            own.parts
                .entry(part)
                .or_insert_with(|| Histogram::new(&RPC_BOUNDS))
                .observe(seconds);
        }
        drop(dispatches);
        for (part, seconds) in parts.into_iter().chain(handler) {
            self.export(Duration::Dispatch(kind, part, seconds));
        }
    }

    pub(crate) fn dispatches(&self) -> BTreeMap<&'static str, Dispatched> {
        unpoisoned(&self.dispatches).clone()
    }

    /// So many bytes of connections were read or written.
    #[inline]
    pub(crate) fn moved(&self, direction: Direction, bytes: usize) {
        self.bytes[direction as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn deliveries(&self) -> BTreeMap<u16, Pair> {
        unpoisoned(&self.deliveries).clone()
    }

    pub(crate) fn rpcs(&self) -> BTreeMap<RpcKey, Histogram> {
        unpoisoned(&self.rpcs).clone()
    }

    /// Something that a role counts itself, asked for whenever somebody looks. Must not wait.
    pub(crate) fn add(&self, extra: impl Fn(&mut Gathered) + Send + Sync + 'static) {
        unpoisoned(&self.extras).push(Box::new(extra));
    }

    pub(super) fn extras(&self, gathered: &mut Gathered) {
        unpoisoned(&self.extras).iter().for_each(|extra| extra(gathered));
    }

    /// Whether the role does what it is there for: it listens, and is registered.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Durations are kept for `take_exported` from now on.
    #[cfg_attr(
        not(feature = "otlp"),
        allow(dead_code, reason = "only what is exported over OTLP needs it")
    )]
    pub(crate) fn begin_export(&self) {
        self.exports.store(true, Ordering::Relaxed);
    }

    /// The durations since the last time.
    #[cfg_attr(
        not(feature = "otlp"),
        allow(dead_code, reason = "only what is exported over OTLP needs it")
    )]
    pub(crate) fn take_exported(&self) -> Vec<Duration> {
        unpoisoned(&self.exported).drain(..).collect()
    }

    fn export(&self, duration: Duration) {
        if self.exports.load(Ordering::Relaxed) {
            let mut exported = unpoisoned(&self.exported);
            if exported.len() >= EXPORTED_MAX {
                exported.pop_front();
            }
            exported.push_back(duration);
        }
    }
}
