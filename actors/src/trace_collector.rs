//! `TraceCollector`: a session's end of the collector's thread.
//!
//! On the executor it fetches a call's spans when its terminal event has been written and sends them behind it, on the
//! lowest lane. On the harness it gives the spans that came to the collector, and knows which calls still miss theirs.
//! Never waits for the thread: that comes back as a message into reserved room. Full: the framer waits. Who sends: the
//! framer.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use dwell_messages::{Envelope, Message as Wire, ProcessId, Role, Span, TraceContext, TraceRecords};

use crate::mailbox::{Actor, Mailbox, Message, Reply, Slot, TimerGuard, Turn};
use crate::relay_framer::{self, RelayFramer, ToSend};
use crate::telemetry::{ClockOffset, Collector, Kept, Tick};

/// Messages that may lie in the mailbox.
pub const TRACE_MAILBOX_MAX: usize = 256;
/// Bytes of spans that are sent of one call; more is dropped and counted.
pub const RECORDS_MAX_BYTES: usize = 64 * 1024;
/// What one span takes on the wire at the most that we count with.
const SPAN_BYTES_ESTIMATE: usize = 160;
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

/// What it is told.
pub(crate) enum TraceMessage {
    /// A call's terminal event has been written: its spans follow if it is sampled, and are remembered otherwise.
    Ship(ProcessId),
    /// Here they are.
    Collected(ProcessId, Box<Kept>),
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
            Self::Collected(..) => 1,
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
    awaited: HashMap<ProcessId, ()>,
    settled: Vec<Reply<()>>,
    due: Vec<Due>,
    /// The traces of unsampled calls that have ended, for as long as somebody may ask for them: their process is their
    /// session's, so that nobody gets another client's.
    remembered: VecDeque<(ProcessId, TraceContext)>,
    /// Set while calls are due: when the oldest and the newest of them ended.
    shipping: Option<(Tick, Tick, TimerGuard)>,
}

/// A call whose spans are to be sent.
struct Due {
    process: ProcessId,
    context: TraceContext,
    room: Slot<TraceCollector>,
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
            awaited: HashMap::new(),
            settled: Vec::new(),
            due: Vec::new(),
            remembered: VecDeque::new(),
            shipping: None,
        }
    }

    fn ended(&mut self, context: &TraceContext, process: ProcessId, turn: &mut Turn<'_, Self>) {
        if context.is_sampled() {
            return self.ship(context, process, turn);
        }
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back((process, context.clone()));
    }

    /// Asks the executor for what it remembers of a call. One that does not know the question passes it over, so it is
    /// only asked who says that it remembers.
    fn ask(&mut self, process: ProcessId, turn: &mut Turn<'_, Self>) {
        self.wait_for(process);
        let records = TraceRecords {
            role: Role::Harness,
            spans: Vec::new(),
            dropped: 0,
            last: false,
        };
        let message = ToSend::plain(Wire::TraceRecords { process, records });
        relay_framer::send(turn, &self.framer, TraceContext::default(), message);
    }

    fn fetch(&mut self, process: ProcessId, turn: &mut Turn<'_, Self>) {
        let found = self.remembered.iter().position(|(known, _)| *known == process);
        match found.and_then(|at| self.remembered.remove(at)) {
            Some((_, context)) => self.ship(&context, process, turn),
            None => self.send(TraceContext::default(), process, Kept::default(), turn),
        }
    }

    fn ship(&mut self, context: &TraceContext, process: ProcessId, turn: &mut Turn<'_, Self>) {
        let Some(room) = turn.mailbox().port(1).try_reserve() else {
            return;
        };
        self.due.push(Due {
            process,
            context: context.clone(),
            room,
        });
        let now = turn.now();
        match &mut self.shipping {
            Some((_, newest, _)) => *newest = now,
            None => self.look_again(now, now, turn),
        }
        if self.due.len() >= SHIP_CALLS_MAX {
            self.ship_all(turn);
        }
    }

    fn look_again(&mut self, oldest: Tick, newest: Tick, turn: &Turn<'_, Self>) {
        self.shipping = Some((oldest, newest, turn.timer(SHIP_IDLE, TraceControl::Ship)));
    }

    fn ship_if_idle(&mut self, turn: &mut Turn<'_, Self>) {
        let Some((oldest, newest, _)) = self.shipping.take() else {
            return;
        };
        let now = Tick::now();
        let since = |then: Tick| Duration::from_micros(now.micros_since(then));
        if since(newest) < SHIP_IDLE && since(oldest) < SHIP_AGE_MAX {
            self.look_again(oldest, newest, turn);
        } else {
            self.ship_all(turn);
        }
    }

    fn ship_all(&mut self, turn: &mut Turn<'_, Self>) {
        self.shipping = None;
        for due in std::mem::take(&mut self.due) {
            let (collector, trace) = (self.collector.clone(), due.context.trace_id);
            // The spans carry their own ancestry: what only carries them makes none.
            let quiet = TraceContext {
                flags: dwell_messages::TraceFlags::NONE,
                ..due.context
            };
            let (process, room) = (due.process, due.room);
            turn.after_record(move || {
                collector.take(trace, move |kept| {
                    room.send(Envelope::new(
                        quiet,
                        TraceMessage::Collected(process, Box::new(kept)),
                    ));
                });
            });
        }
    }

    fn send(&self, context: TraceContext, process: ProcessId, kept: Kept, turn: &mut Turn<'_, Self>) {
        let room = RECORDS_MAX_BYTES / SPAN_BYTES_ESTIMATE;
        let mut spans = kept.spans;
        let over = spans.len().saturating_sub(room);
        if over > 0 {
            drop_residence_first(&mut spans, room);
        }
        let records = TraceRecords {
            role: Role::Executor,
            spans,
            dropped: kept.dropped + over as u64,
            last: true,
        };
        relay_framer::send(
            turn,
            &self.framer,
            context,
            ToSend::plain(Wire::TraceRecords { process, records }),
        );
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
            self.awaited.remove(&process);
        }
        self.settle();
    }

    fn wait_for(&mut self, process: ProcessId) {
        if self.awaited.len() < AWAITED_MAX {
            self.awaited.insert(process, ());
        }
    }

    fn settle(&mut self) {
        if self.awaited.is_empty() {
            self.settled.drain(..).for_each(|reply| reply.send(()));
        }
    }
}

/// Stage spans say more than residence spans: those go last.
fn drop_residence_first(spans: &mut Vec<Span>, room: usize) {
    spans.sort_by_key(|span| span.link.is_some());
    spans.truncate(room);
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
            TraceMessage::Collected(process, kept) => self.send(envelope.context, process, *kept, turn),
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
