//! `TerminalDelivery` on the harness: puts a process's events in order and hands them to their consumer.
//!
//! Owns one run until its end. Never waits for the consumer: output is only under way within the credit that the
//! consumer's reading gave. Full: cannot be, for the same reason; a peer that passes its credit ends the run. Stop:
//! with the run. Who sends: the framer, and the run's own handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dwell_messages::process::{Gap, Terminate};
use dwell_messages::{
    Closed, Envelope, ErrorCode, Event, Exited, Message as Wire, OutputStream, ProcessId, Reply, Request,
    TraceContext,
};

use super::order::{Handed, OUTPUT_WINDOW_BYTES, OrderCore};
use crate::account::{Account, Segment};
use crate::dispatcher::Mode;
use crate::dispatcher::client::{Dispatcher, DispatcherControl};
use crate::fault_point::delay::{self, DelayPoint};
use crate::harness::{Ended, RunError, RunEvent, RunShared};
use crate::mailbox::{Actor, BulkResidence, Mailbox, Message, Residence, TimerGuard, Turn};
use crate::relay_framer::{Arrival, FramerControl, FramerMessage, RelayFramer, SendStamps, ToSend};
use crate::rpc_queue::caller::{Call, Outcome, RpcControl, RpcMessage, RpcQueue};
use crate::run_recorder::{Run, RunRecorder, RunRecorderMessage};
use crate::telemetry::{Collector, Stage, Tick, semconv};

/// Events of one process that may wait to be put in order.
pub(crate) const DELIVERY_MAILBOX_MAX: usize = 128;

/// How far a run's events have come, for whoever takes the session up over a fresh link.
#[derive(Debug)]
pub(crate) struct Progress {
    next: [AtomicU64; 2],
    limit: [AtomicU64; 2],
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            next: Default::default(),
            limit: [OUTPUT_WINDOW_BYTES, OUTPUT_WINDOW_BYTES].map(AtomicU64::new),
        }
    }
}

impl Progress {
    /// Nothing yet of what stands before these offsets, or ever.
    pub(crate) fn from(next: [u64; 2]) -> Self {
        let progress = Self::default();
        progress.set(OrderCore::from(next).progress());
        progress
    }

    fn set(&self, (next, limit): ([u64; 2], [u64; 2])) {
        for stream in 0..2 {
            self.next[stream].store(next[stream], Ordering::Relaxed);
            self.limit[stream].store(limit[stream], Ordering::Relaxed);
        }
    }

    /// As it travels.
    pub(crate) fn of(&self, process: ProcessId) -> dwell_messages::Progress {
        let read = |cells: &[AtomicU64; 2]| cells.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        dwell_messages::Progress {
            process: process.0,
            next: read(&self.next),
            limit: read(&self.limit),
        }
    }
}

/// What does not change about a run.
#[derive(Clone)]
pub(crate) struct RunFacts {
    pub(crate) process: ProcessId,
    pub(crate) mode: Mode,
    pub(crate) context: TraceContext,
    pub(crate) begun: Tick,
}

/// Whom a delivery speaks to.
#[derive(Clone)]
pub(crate) struct Wiring {
    pub(crate) rpc: Mailbox<RpcQueue>,
    pub(crate) framer: Mailbox<RelayFramer>,
    pub(crate) dispatcher: Mailbox<Dispatcher>,
    pub(crate) metadata: Mailbox<RunRecorder>,
    pub(crate) collector: Collector,
}

/// What it is told.
pub(crate) enum ReceiveMessage {
    /// An event.
    Event {
        event: Event,
        arrival: Arrival,
        bulk: Option<Arc<BulkResidence>>,
    },
}

/// What it is told urgently.
pub(crate) enum ReceiveControl {
    /// What came of the start.
    Started(Box<Outcome>),
    /// The consumer has taken some.
    Consumed,
    /// The consumer wants it to end.
    Terminate(Duration),
    /// The deadline is here.
    Deadline,
    /// The link is gone.
    Lost(String),
}

impl Message for ReceiveMessage {
    const NAMES: &'static [&'static str] = &["Event"];

    fn index(&self) -> usize {
        0
    }

    fn bulk(&self) -> Option<&BulkResidence> {
        let Self::Event { bulk, .. } = self;
        bulk.as_deref()
    }
}

/// The end of a process, as it came.
struct Early {
    context: TraceContext,
    closed: Closed,
    arrival: Arrival,
    residence: Residence,
}

/// See the module.
pub(crate) struct TerminalDelivery {
    facts: RunFacts,
    wiring: Wiring,
    shared: Arc<RunShared>,
    order: OrderCore,
    progress: Arc<Progress>,
    sent: Option<(Account, Arc<SendStamps>)>,
    /// The end, where it came before the start's answer was looked at: another actor has that one first.
    early: Option<Box<Early>>,
    started: bool,
    terminate: Option<Duration>,
    terminated: Option<Duration>,
    program: Vec<u8>,
    grace: Duration,
    deadline: Option<Duration>,
    timer: Option<TimerGuard>,
    over: bool,
    exited: Option<Exited>,
}

impl TerminalDelivery {
    pub(crate) fn new(
        facts: RunFacts,
        wiring: Wiring,
        (shared, progress): (Arc<RunShared>, Arc<Progress>),
        program: Vec<u8>,
        deadline: Option<Duration>,
        grace: Duration,
    ) -> Self {
        Self {
            facts,
            wiring,
            shared,
            order: OrderCore::default(),
            progress,
            sent: None,
            early: None,
            started: false,
            terminate: None,
            terminated: None,
            program,
            grace,
            deadline,
            timer: None,
            over: false,
            exited: None,
        }
    }

    /// For a process that runs already, under another owner until now: its events from these offsets on.
    pub(crate) fn adopting(mut self, next: [u64; 2]) -> Self {
        self.order = OrderCore::from(next);
        self.started = true;
        self
    }

    fn started_outcome(&mut self, outcome: Outcome, turn: &mut Turn<'_, Self>) {
        match outcome.result {
            Ok(Reply::Started(started)) => {
                self.started = true;
                self.sent = Some((outcome.account, outcome.sent));
                self.shared.put(RunEvent::Started {
                    pid: started.pid,
                    withheld: started.withheld,
                    containment: started.containment,
                });
                let terminate = self.terminate.take();
                if let Some(early) = self.early.take() {
                    self.closed(*early, turn);
                } else if let Some(grace) = terminate {
                    self.request_end(grace, turn);
                }
            }
            Ok(_) => {
                self.terminate = None;
                let why = "the executor answered a start with something else: update the older side";
                self.finish(Err(RunError::Lost(why.into())), turn);
            }
            Err(error) => {
                self.terminate = None;
                if outcome.answered && self.facts.context.is_sampled() {
                    let process = self.facts.process;
                    drop(
                        self.wiring
                            .framer
                            .control(FramerControl::Upper(Box::new(move |upper| {
                                upper.owed(process);
                            }))),
                    );
                }
                let failed = match error.code {
                    ErrorCode::OutcomeUnknown => RunError::Lost(error.message),
                    ErrorCode::Disconnected => RunError::NotStarted(error.message),
                    ErrorCode::DeadlineExceeded => RunError::DeadlineExceeded,
                    _ => RunError::Refused(error),
                };
                self.finish(Err(failed), turn);
            }
        }
    }

    fn event(&mut self, context: &TraceContext, event: Event, arrival: Arrival, turn: &mut Turn<'_, Self>) {
        if self.over {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let mut consumed = None;
        let mut exited = None;
        let mut closed = None;
        let outcome = self.order.accept(event, |handed| match handed {
            Handed::Output(OutputStream::Stdout, data) => consumed = Some(shared.put(RunEvent::Stdout(data))),
            Handed::Output(OutputStream::Stderr, data) => consumed = Some(shared.put(RunEvent::Stderr(data))),
            Handed::Gap(gap) => {
                let gap = Gap {
                    stream: gap.stream,
                    from: gap.from,
                    to: gap.to,
                };
                consumed = Some(shared.put(RunEvent::Gap(gap)));
            }
            Handed::Exited(end) => {
                exited = Some(end);
                let _ = shared.put(RunEvent::Exited(end.status));
            }
            Handed::Closed(end) => closed = Some(end),
        });
        self.progress.set(self.order.progress());
        self.exited = self.exited.or(exited);
        if let Err(error) = outcome {
            self.request_end(self.grace, turn);
            return self.finish(Err(RunError::Lost(error.to_string())), turn);
        }
        if let Some(consumed) = consumed {
            self.credit(consumed, turn);
        }
        if let Some(closed) = closed {
            let end = Early {
                context: context.clone(),
                closed,
                arrival,
                residence: turn.residence(),
            };
            if self.started {
                self.closed(end, turn);
            } else {
                self.early = Some(Box::new(end));
            }
        }
    }

    fn credit(&mut self, consumed: [u64; 2], turn: &mut Turn<'_, Self>) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            if let Some(limit) = self.order.restate(stream, consumed[stream.index()]) {
                let message = Wire::Credit {
                    process: self.facts.process,
                    stream,
                    limit,
                };
                // Credit has no span: an empty context travels with it.
                turn.tell(
                    &self.wiring.framer,
                    TraceContext::default(),
                    FramerMessage::Send(ToSend::plain(message)),
                );
            }
        }
        self.progress.set(self.order.progress());
    }

    fn closed(&mut self, end: Early, turn: &mut Turn<'_, Self>) {
        let Early {
            context,
            closed,
            arrival,
            residence,
        } = end;
        delay::reach(DelayPoint::HarnessDelivery);
        let now = Tick::now();
        let mut account = Account::begin(self.facts.begun);
        if let Some((begun, sent)) = self.sent.take() {
            account = begun;
            let turnaround = arrival.trailer.unwrap_or_default().turnaround_us;
            sent.lap(&mut account, arrival.first, u64::from(turnaround));
        }
        account.lap(Segment::Remote, arrival.first);
        arrival.lap(&mut account, residence.enqueued);
        account.lap(Segment::DeliveryMailbox, residence.dequeued);
        account.lap(Segment::Delivery, now);
        self.wiring.collector.stage(Stage::new(
            &context,
            semconv::span::TERMINAL_DELIVERY,
            arrival.first,
            now,
        ));
        let Some(status) = closed.status else {
            let why = "the executor lost the process's wait status to somebody else's wait";
            return self.finish(Err(RunError::Lost(why.into())), turn);
        };
        let ended = Ended {
            status,
            exited: self.exited,
            closed,
            account: Box::new(account),
            arrival,
        };
        self.finish(Ok(ended), turn);
    }

    /// Hands over the end, records the run and goes.
    fn finish(&mut self, end: Result<Ended, RunError>, turn: &mut Turn<'_, Self>) {
        if self.over {
            return;
        }
        self.over = true;
        self.timer = None;
        let run = Run::new(&self.facts, &self.program, &end);
        self.shared.end(end, Tick::now());
        turn.tell(
            &self.wiring.metadata,
            self.facts.context.clone(),
            RunRecorderMessage::Record(Box::new(run)),
        );
        let (dispatcher, process, mode) = (
            self.wiring.dispatcher.clone(),
            self.facts.process,
            self.facts.mode,
        );
        drop(dispatcher.control(DispatcherControl::Finished(process, mode)));
        if self.terminate.is_none() {
            turn.stop();
        }
    }

    /// The consumer has its end already; what came of the start is still to be ended.
    fn started_late(&mut self, outcome: &Outcome, turn: &mut Turn<'_, Self>) {
        if let (Ok(_), Some(grace)) = (&outcome.result, self.terminate.take()) {
            self.started = true;
            self.request_end(grace, turn);
        }
        turn.stop();
    }

    fn request_end(&mut self, grace: Duration, turn: &mut Turn<'_, Self>) {
        if !self.started {
            self.terminate = Some(self.terminate.map_or(grace, |earlier| earlier.min(grace)));
            // If it has not been begun, it need not be; if it has, it is ended.
            let withdraw = RpcControl::WithdrawStart(self.facts.process);
            drop(self.wiring.rpc.control(withdraw));
            return;
        }
        // Only a shorter grace says anything new.
        if self.terminated.is_some_and(|earlier| earlier <= grace) {
            return;
        }
        self.terminated = Some(grace);
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let call = Call {
            process: Some(self.facts.process),
            request: Request::Terminate(Terminate {
                grace_ms,
                session: None,
            }),
            deadline: None,
            ticket: None,
            account: Account::begin(Tick::now()),
            reply: Box::new(|_| {}),
        };
        let context = self.facts.context.clone();
        turn.tell(&self.wiring.rpc, context, RpcMessage::Call(Box::new(call)));
    }
}

impl Actor for TerminalDelivery {
    const NAME: &'static str = "TerminalDelivery";
    type Message = ReceiveMessage;
    type Control = ReceiveControl;

    fn started(&mut self, turn: &mut Turn<'_, Self>) {
        self.timer = self
            .deadline
            .map(|after| turn.timer(after, ReceiveControl::Deadline));
    }

    fn receive(&mut self, envelope: Envelope<ReceiveMessage>, turn: &mut Turn<'_, Self>) {
        let ReceiveMessage::Event { event, arrival, .. } = envelope.body;
        self.event(&envelope.context, event, arrival, turn);
    }

    fn control(&mut self, control: ReceiveControl, turn: &mut Turn<'_, Self>) {
        if self.over {
            if let ReceiveControl::Started(outcome) = control {
                self.started_late(&outcome, turn);
            }
            return;
        }
        match control {
            ReceiveControl::Started(outcome) => self.started_outcome(*outcome, turn),
            ReceiveControl::Consumed => self.credit(self.shared.consumed(), turn),
            ReceiveControl::Terminate(grace) => self.request_end(grace, turn),
            ReceiveControl::Deadline => {
                self.request_end(self.grace, turn);
                self.finish(Err(RunError::DeadlineExceeded), turn);
            }
            ReceiveControl::Lost(why) => {
                self.terminate = None;
                self.finish(Err(RunError::Lost(why)), turn);
            }
        }
    }

    fn drained(&mut self, turn: &mut Turn<'_, Self>) {
        self.terminate = None;
        self.finish(Err(RunError::Lost("the harness was shut down".into())), turn);
    }
}
