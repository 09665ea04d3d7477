//! `TraceCollector`: a session's end of the collector's thread.
//!
//! On the executor it fetches a call's spans when its terminal event has been written and sends them behind it, on the
//! lowest lane. On the harness it gives the spans that came to the collector, and knows which calls still miss theirs.
//! Never waits for the thread: that comes back as a message into reserved room. Full: the framer waits. Who sends: the
//! framer.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use dwell_messages::span::PACKED_SPANS_MAX;
use dwell_messages::{
    Envelope, Message as Wire, PackedSpans, ProcessId, Role, Span, TraceContext, TraceId, TraceRecords,
};

use crate::mailbox::{Actor, Mailbox, Message, Reply, Slot, TimerGuard, Turn};
use crate::relay_framer::{self, RelayFramer, ToSend};
use crate::telemetry::{ClockOffset, Collector, Kept, Tick};

/// Messages that may lie in the mailbox.
pub const TRACE_MAILBOX_MAX: usize = 256;
/// Calls whose spans are still awaited; past it the oldest are given up.
pub const AWAITED_MAX: usize = 1_024;

/// Unsampled calls of a session whose spans can be asked for; with more, the oldest are forgotten.
pub const REMEMBERED_MAX: usize = 1_024;

/// How long the spans of a call wait for the link to be idle: those of one call would be in the next one's way.
pub const SHIP_IDLE: Duration = Duration::from_millis(4);
/// How long they wait at the most.
pub const SHIP_AGE_MAX: Duration = Duration::from_millis(100);
/// Calls whose spans may wait to be sent; past it they are sent at once.
pub const SHIP_CALLS_MAX: usize = 64;
/// Spans of several calls in one message; one call's own may be more.
pub const BATCH_SPANS_MAX: usize = 512;

/// What it is told.
pub(crate) enum TraceMessage {
    /// A call's terminal event has been written: its spans follow if it is sampled, and are remembered otherwise.
    Ship(ProcessId),
    /// Here they are, with the process that the first of them belongs to.
    Collected(Vec<(ProcessId, TraceRecords)>),
    /// The executor's spans of a call.
    Received(ProcessId, Box<TraceRecords>),
    /// A sampled call has been sent: its spans will come.
    Await(ProcessId),
    /// Answer when no call misses its spans.
    Settled(Reply<()>),
    /// On the harness: an unsampled call is to be kept, so the executor is asked for what it remembers of it.
    Ask(ProcessId),
    /// On the executor: its client asks so.
    Fetch(ProcessId),
}

/// What it is told urgently.
pub(crate) enum TraceControl {
    /// How far the executor's clock is off, as far as is known.
    Clock(ClockOffset),
    /// A call will get no spans: it was refused, or its link is gone.
    Forget(Option<ProcessId>),
    /// The executor refused a sampled call: its spans of that will come.
    Await(ProcessId),
    /// Look whether calls still end one after the other.
    Ship,
}

impl Message for TraceMessage {
    const NAMES: &'static [&'static str] = &[
        "Ship",
        "Collected",
        "Received",
        "Await",
        "Settled",
        "Ask",
        "Fetch",
    ];

    fn index(&self) -> usize {
        match self {
            Self::Ship(_) => 0,
            Self::Collected(_) => 1,
            Self::Received(..) => 2,
            Self::Await(_) => 3,
            Self::Settled(_) => 4,
            Self::Ask(_) => 5,
            Self::Fetch(_) => 6,
        }
    }
}

/// See the module.
pub(crate) struct TraceCollector {
    collector: Collector,
    framer: Mailbox<RelayFramer>,
    clock: ClockOffset,
    awaited: BTreeSet<ProcessId>,
    settled: Vec<Reply<()>>,
    /// Calls whose spans are to be sent.
    due: Vec<(ProcessId, TraceId)>,
    /// The traces of unsampled calls that have ended, for as long as somebody may ask for them: their process is their
    /// session's, so that nobody gets another client's.
    remembered: VecDeque<(ProcessId, TraceId)>,
    /// Set while calls are due.
    shipping: Option<Shipping>,
    shipment: Shipment,
}

/// Calls are due.
struct Shipping {
    /// When the oldest and the newest of them ended.
    oldest: Tick,
    newest: Tick,
    /// Room for what the collector will hand over.
    room: Slot<TraceCollector>,
    _timer: TimerGuard,
}

/// How long spans wait to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shipment {
    /// For the link to be idle.
    pub(crate) idle: Duration,
    /// At the most.
    pub(crate) age_max: Duration,
}

impl Default for Shipment {
    fn default() -> Self {
        Self {
            idle: SHIP_IDLE,
            age_max: SHIP_AGE_MAX,
        }
    }
}

impl TraceCollector {
    pub(crate) fn new(collector: Collector, framer: Mailbox<RelayFramer>) -> Self {
        let clock = ClockOffset {
            offset_us: 0,
            error_us: u64::MAX,
        };
        Self {
            collector,
            framer,
            clock,
            awaited: BTreeSet::new(),
            settled: Vec::new(),
            due: Vec::new(),
            remembered: VecDeque::new(),
            shipping: None,
            shipment: Shipment::default(),
        }
    }

    /// With other waits than the usual ones.
    pub(crate) fn shipping(mut self, shipment: Shipment) -> Self {
        self.shipment = shipment;
        self
    }

    fn ended(&mut self, context: &TraceContext, process: ProcessId, turn: &mut Turn<'_, Self>) {
        if context.is_sampled() {
            return self.ship(context.trace_id, process, turn);
        }
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back((process, context.trace_id));
    }

    /// Asks the executor for what it remembers of a call. One that does not know the question passes it over, so it is
    /// only asked who says that it remembers.
    fn ask(&mut self, process: ProcessId, turn: &mut Turn<'_, Self>) {
        self.wait_for(process);
        let records = TraceRecords {
            role: Role::Harness,
            spans: PackedSpans::default(),
            dropped: 0,
            last: false,
            also: Vec::new(),
        };
        let message = ToSend::plain(Wire::TraceRecords { process, records });
        relay_framer::send(turn, &self.framer, TraceContext::default(), message);
    }

    fn fetch(&mut self, process: ProcessId, turn: &mut Turn<'_, Self>) {
        let found = self.remembered.iter().position(|(known, _)| *known == process);
        match found.and_then(|at| self.remembered.remove(at)) {
            Some((_, trace)) => self.ship(trace, process, turn),
            None => self.send(packed(&[process], Vec::new()), turn),
        }
    }

    fn ship(&mut self, trace: TraceId, process: ProcessId, turn: &mut Turn<'_, Self>) {
        let now = turn.now();
        match &mut self.shipping {
            Some(shipping) => shipping.newest = now,
            None => {
                let Some(room) = turn.mailbox().port(1).try_reserve() else {
                    return;
                };
                self.look_again((now, now), room, turn);
            }
        }
        self.due.push((process, trace));
        if self.due.len() >= SHIP_CALLS_MAX {
            self.ship_all(turn);
        }
    }

    fn look_again(&mut self, (oldest, newest): (Tick, Tick), room: Slot<Self>, turn: &Turn<'_, Self>) {
        self.shipping = Some(Shipping {
            oldest,
            newest,
            room,
            _timer: turn.timer(self.shipment.idle, TraceControl::Ship),
        });
    }

    fn ship_if_idle(&mut self, turn: &mut Turn<'_, Self>) {
        let now = Tick::now();
        let since = |then: Tick| Duration::from_micros(now.micros_since(then));
        match self.shipping.take() {
            Some(Shipping {
                oldest, newest, room, ..
            }) if since(newest) < self.shipment.idle && since(oldest) < self.shipment.age_max => {
                self.look_again((oldest, newest), room, turn);
            }
            shipping => {
                self.shipping = shipping;
                self.ship_all(turn);
            }
        }
    }

    fn ship_all(&mut self, turn: &mut Turn<'_, Self>) {
        let Some(Shipping { room, .. }) = self.shipping.take() else {
            return;
        };
        let (processes, traces): (Vec<_>, Vec<_>) = self.due.drain(..).unzip();
        let collector = self.collector.clone();
        turn.after_record(move || {
            collector.take(traces, move |kept| {
                // The spans carry their own ancestry: what only carries them makes none.
                let message = TraceMessage::Collected(packed(&processes, kept));
                room.send(Envelope::new(TraceContext::default(), message));
            });
        });
    }

    fn send(&self, shipped: Vec<(ProcessId, TraceRecords)>, turn: &mut Turn<'_, Self>) {
        for (process, records) in shipped {
            let message = ToSend::plain(Wire::TraceRecords { process, records });
            relay_framer::send(turn, &self.framer, TraceContext::default(), message);
        }
    }

    fn received(&mut self, process: ProcessId, records: TraceRecords) {
        if records.dropped > 0 {
            tracing::info!(
                dropped = records.dropped,
                "the executor left spans out of a trace"
            );
        }
        self.collector.foreign(records.role, self.clock, records.spans);
        if records.last {
            for process in std::iter::once(process.0).chain(records.also) {
                self.awaited.remove(&ProcessId(process));
            }
        }
        self.settle();
    }

    fn wait_for(&mut self, process: ProcessId) {
        if self.awaited.len() < AWAITED_MAX {
            self.awaited.insert(process);
        }
    }

    fn settle(&mut self) {
        if self.awaited.is_empty() {
            self.settled.drain(..).for_each(|reply| reply.send(()));
        }
    }
}

/// Spans of calls as the executor sends them: of as many calls in one message as have room in a block, since what one call's
/// spans share with another's is sent once. Runs on the collector's thread: the one that moves the session's messages has
/// better things to do.
fn packed(processes: &[ProcessId], kept: Vec<Kept>) -> Vec<(ProcessId, TraceRecords)> {
    let mut kept = kept.into_iter();
    // The collector may know of less calls than it was asked for: it was too far behind, and there is nothing.
    let calls = processes
        .iter()
        .map(|process| (*process, kept.next().unwrap_or_default()));
    let mut shipped = Vec::new();
    let mut batch = Batch::default();
    for (process, kept) in calls {
        if !batch.has_room(&kept) {
            shipped.extend(std::mem::take(&mut batch).packed());
        }
        batch.add(process, kept);
    }
    shipped.extend(batch.packed());
    shipped
}

/// Calls for one message.
#[derive(Default)]
struct Batch {
    processes: Vec<ProcessId>,
    spans: Vec<Span>,
    dropped: u64,
}

impl Batch {
    fn has_room(&self, kept: &Kept) -> bool {
        self.processes.is_empty() || self.spans.len() + kept.spans.len() <= BATCH_SPANS_MAX
    }

    fn add(&mut self, process: ProcessId, kept: Kept) {
        self.processes.push(process);
        self.spans.extend(kept.spans);
        self.dropped += kept.dropped;
    }

    fn packed(mut self) -> Option<(ProcessId, TraceRecords)> {
        let all = self.spans.len();
        let spans = loop {
            match PackedSpans::pack(&self.spans) {
                Some(block) => break block,
                None => leave_out(&mut self.spans),
            }
        };
        let first = *self.processes.first()?;
        let records = TraceRecords {
            role: Role::Executor,
            spans,
            dropped: self.dropped + (all - self.spans.len()) as u64,
            last: true,
            also: self.processes[1..].iter().map(|process| process.0).collect(),
        };
        Some((first, records))
    }
}

/// Stage spans say more than residence spans: those go first.
fn leave_out(spans: &mut Vec<Span>) {
    spans.sort_by_key(|span| span.link.is_some());
    spans.truncate((spans.len() / 2).min(PACKED_SPANS_MAX));
}

impl Actor for TraceCollector {
    const NAME: &'static str = "TraceCollector";
    type Message = TraceMessage;
    type Control = TraceControl;

    fn receive(&mut self, envelope: Envelope<TraceMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            TraceMessage::Ship(process) => self.ended(&envelope.context, process, turn),
            TraceMessage::Ask(process) => self.ask(process, turn),
            TraceMessage::Fetch(process) => self.fetch(process, turn),
            TraceMessage::Collected(shipped) => self.send(shipped, turn),
            TraceMessage::Received(process, records) => self.received(process, *records),
            TraceMessage::Await(process) => self.wait_for(process),
            TraceMessage::Settled(reply) => {
                self.settled.push(reply);
                self.settle();
            }
        }
    }

    fn control(&mut self, control: TraceControl, turn: &mut Turn<'_, Self>) {
        match control {
            TraceControl::Clock(clock) => self.clock = clock,
            TraceControl::Forget(process) => {
                match process {
                    Some(process) => drop(self.awaited.remove(&process)),
                    None => self.awaited.clear(),
                }
                self.settle();
            }
            TraceControl::Await(process) => self.wait_for(process),
            TraceControl::Ship => self.ship_if_idle(turn),
        }
    }
}
