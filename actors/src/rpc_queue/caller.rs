//! `RpcQueue` on the harness: request ids, the in-flight window, deadlines, cancellation, the pending table.
//!
//! Owns every call of one link until it has its answer. Never waits for one. Full: the dispatcher waits. Stop, or a
//! lost link: every call is told, those sent that their outcome is unknown, those not sent that nothing was begun.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dwell_messages::{
    Envelope, ErrorCode, Message as Wire, ProcessId, Reply, Request, RequestId, SpanId, SpanKind, Timings,
    TraceContext, WireError,
};

use super::pending::{Full, PendingCore};
use crate::account::{Account, Segment};
use crate::fault_point::delay::{self, DelayPoint};
use crate::in_flight::{Call as Watched, CallKind, Entered, Stage as Place};
use crate::mailbox::{Actor, Mailbox, Message, TimerGuard, Turn};
use crate::metrics::Side;
use crate::relay_framer::{self, Arrival, RelayFramer, SendStamps, ToSend};
use crate::telemetry::{Collector, Stage, Tick, semconv, span_id};

/// Starts that were withdrawn before they came here; with more, the oldest are forgotten.
const WITHDRAWN_MAX: usize = 1_024;

/// Set by whoever asked when it no longer waits.
pub(crate) type Ticket = Arc<AtomicBool>;

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Reply, WireError>,
    /// This side's account up to the hand-over to the framer, and the request's way from there.
    pub(crate) account: Account,
    pub(crate) sent: Arc<SendStamps>,
    /// Whether the executor answered, and not this side in its place.
    pub(crate) answered: bool,
}

/// A call.
pub(crate) struct Call {
    pub(crate) process: Option<ProcessId>,
    pub(crate) request: Request,
    pub(crate) deadline: Option<Duration>,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) account: Account,
    /// Told on this arbiter, exactly once.
    pub(crate) reply: Box<dyn FnOnce(Outcome) + Send>,
}

/// What it is told.
pub(crate) enum RpcMessage {
    /// Ask the executor.
    Call(Box<Call>),
    /// The executor's answer.
    Response {
        id: RequestId,
        answer: Box<(Result<Reply, WireError>, Timings)>,
        arrival: Arrival,
    },
}

/// What it is told urgently.
pub(crate) enum RpcControl {
    /// A call's deadline is here.
    Deadline(RequestId),
    /// Somebody no longer waits: look at the tickets.
    Withdrawn,
    /// Nobody wants this process any more, whose start may be on its way.
    WithdrawStart(ProcessId),
    /// The session had other owners, and this is the highest request id of theirs.
    GoesOnBehind(u64),
    /// The link is gone.
    Lost(String),
}

impl Message for RpcMessage {
    const NAMES: &'static [&'static str] = &["Call", "Response"];

    fn index(&self) -> usize {
        match self {
            Self::Call(_) => 0,
            Self::Response { .. } => 1,
        }
    }
}

struct Pending {
    call: Call,
    context: TraceContext,
    method: &'static str,
    span: SpanId,
    taken: Tick,
    registered: Tick,
    stamps: Arc<SendStamps>,
    sent: bool,
    cancelled: bool,
    /// Its place among what is unfinished.
    watched: Entered<Watched>,
    _deadline: Option<TimerGuard>,
}

/// See the module.
pub(crate) struct RpcQueue {
    core: PendingCore<Pending>,
    /// Starts that nobody wants any more and that have not come yet.
    withdrawn: BTreeSet<ProcessId>,
    framer: Mailbox<RelayFramer>,
    collector: Collector,
}

impl RpcQueue {
    pub(crate) fn new(framer: Mailbox<RelayFramer>, collector: Collector) -> Self {
        Self {
            core: PendingCore::default(),
            withdrawn: BTreeSet::new(),
            framer,
            collector,
        }
    }

    fn call(&mut self, context: TraceContext, mut call: Call, turn: &mut Turn<'_, Self>) {
        call.account.lap(Segment::RpcMailbox, turn.now());
        let (method, stamps) = (call.request.method(), Arc::<SendStamps>::default());
        let watched = Watched::new(CallKind::Request, method, &context, turn.now())
            .about(call.process)
            .stamped(Arc::clone(&stamps));
        let pending = Pending {
            watched: self.collector.board().call(watched),
            method,
            context,
            span: span_id(),
            taken: turn.now(),
            registered: Tick::now(),
            stamps,
            sent: false,
            cancelled: false,
            call,
            _deadline: None,
        };
        if self.is_withdrawn(&pending) {
            return self.finish(pending, Err(withdrawn()), Timings::default());
        }
        match self.core.submit(pending) {
            Ok(Some(id)) => self.transmit(id, turn),
            Ok(None) => {}
            Err(Full(pending)) => {
                let error = WireError::new(
                    ErrorCode::Busy,
                    "the link is gone, or too many requests wait for it",
                );
                self.finish(pending, Err(error), Timings::default());
            }
        }
    }

    fn transmit(&mut self, id: RequestId, turn: &mut Turn<'_, Self>) {
        let Some(pending) = self.core.call_mut(id) else {
            return;
        };
        pending.sent = true;
        pending._deadline = pending
            .call
            .deadline
            .map(|after| turn.timer(after, RpcControl::Deadline(id)));
        let context = pending.context.child(pending.span);
        let message = Wire::Request {
            id,
            process: pending.call.process,
            request: pending.call.request.clone(),
        };
        let send = ToSend {
            message,
            accounted: None,
            stamps: Some(Arc::clone(&pending.stamps)),
            bulk: None,
            hold: false,
            ends: None,
            attachment: None,
            unkept: false,
        };
        delay::reach(DelayPoint::HarnessAdmission);
        let now = Tick::now();
        pending.watched.at(Place::Link, now);
        pending.call.account.lap(Segment::Admission, now);
        relay_framer::send(turn, &self.framer, context, Box::new(send));
    }

    fn response(
        &mut self,
        id: RequestId,
        result: Result<Reply, WireError>,
        timings: Timings,
        arrival: Arrival,
        turn: &mut Turn<'_, Self>,
    ) {
        let Some(pending) = self.core.complete(id) else {
            // A late answer to a call that was given up, or an answer to nothing.
            let issued = self.core.was_issued(id);
            tracing::debug!(
                request = id.0,
                issued,
                "a response that nobody waits for was dropped"
            );
            return;
        };
        self.stages(&pending, &arrival);
        // What this side says for the executor has no trailer.
        let answered = arrival.trailer.is_some();
        self.finish_as(pending, result, timings, answered);
        while let Some(next) = self.core.next_waiting() {
            self.transmit(next, turn);
        }
    }

    /// The parts of the client's span, each from one stamp to the next.
    fn stages(&self, pending: &Pending, arrival: &Arrival) {
        if !self.collector.wants(&pending.context) {
            return;
        }
        let context = pending.context.child(pending.span);
        let written = pending.stamps.first_written();
        let written = written.unwrap_or_default().max(pending.registered);
        let first = arrival.first.max(written);
        let stage = |name, start, end| self.collector.stage(Stage::new(&context, name, start, end));
        stage(
            semconv::span::PENDING_REGISTRATION,
            pending.taken,
            pending.registered,
        );
        stage(semconv::span::REQUEST_SEND, pending.registered, written);
        stage(semconv::span::RESPONSE_WAIT, written, first);
        stage(semconv::span::RESPONSE_DISPATCH, first, Tick::now());
    }

    /// Ends a call that the executor has not answered.
    fn finish(&self, pending: Pending, result: Result<Reply, WireError>, timings: Timings) {
        self.finish_as(pending, result, timings, false);
    }

    fn finish_as(
        &self,
        pending: Pending,
        result: Result<Reply, WireError>,
        timings: Timings,
        answered: bool,
    ) {
        let error = result.as_ref().err().map(|error| error.code.name());
        let method = pending.method;
        let meters = self.collector.board().meters();
        meters.rpc(Side::Client, method, error, pending.taken);
        self.collector.stage(
            Stage::with_id(&pending.context, pending.span, method, pending.taken, Tick::now())
                .kind(SpanKind::Client)
                .text(semconv::RPC_SYSTEM_NAME, semconv::RPC_SYSTEM)
                .text(semconv::RPC_METHOD, method)
                .number(semconv::RPC_EXECUTOR_US, timings.total)
                .number(semconv::RPC_EXECUTOR_MAILBOX_US, timings.mailbox)
                .text(semconv::RPC_STATUS_CODE, error.unwrap_or(semconv::RPC_OK))
                .failed(error),
        );
        let account = pending.call.account;
        (pending.call.reply)(Outcome {
            result,
            account,
            sent: pending.stamps,
            answered,
        });
    }

    fn give_up(&mut self, id: RequestId, turn: &mut Turn<'_, Self>) {
        let Some(pending) = self.core.complete(id) else {
            return;
        };
        relay_framer::send(
            turn,
            &self.framer,
            pending.context.clone(),
            ToSend::plain(Wire::Cancel(id)),
        );
        let error = WireError::new(
            ErrorCode::DeadlineExceeded,
            format!("{} had no answer by its deadline", pending.method),
        );
        self.finish(pending, Err(error), Timings::default());
        while let Some(next) = self.core.next_waiting() {
            self.transmit(next, turn);
        }
    }

    fn is_withdrawn(&mut self, pending: &Pending) -> bool {
        let given_up = |ticket: &Ticket| ticket.load(Ordering::Acquire);
        if pending.call.ticket.as_ref().is_some_and(given_up) {
            return true;
        }
        let starts = matches!(pending.call.request, Request::Start(_));
        starts
            && pending
                .call
                .process
                .is_some_and(|process| self.withdrawn.remove(&process))
    }

    /// What waits here is never sent. Of what is on its way the executor is told; its answer says what came of it.
    fn withdraw(&mut self, is_withdrawn: impl FnMut(&Pending) -> bool, turn: &mut Turn<'_, Self>) -> bool {
        let (waiting, in_flight) = self.core.withdraw(is_withdrawn);
        let any = !waiting.is_empty() || !in_flight.is_empty();
        for pending in waiting {
            self.finish(pending, Err(withdrawn()), Timings::default());
        }
        for id in in_flight {
            let Some(pending) = self.core.call_mut(id).filter(|pending| !pending.cancelled) else {
                continue;
            };
            pending.cancelled = true;
            let context = pending.context.clone();
            relay_framer::send(turn, &self.framer, context, ToSend::plain(Wire::Cancel(id)));
        }
        any
    }

    fn withdraw_start(&mut self, process: ProcessId, turn: &mut Turn<'_, Self>) {
        let starts = |pending: &Pending| {
            pending.call.process == Some(process) && matches!(pending.call.request, Request::Start(_))
        };
        if !self.withdraw(starts, turn) {
            // It has not come yet, or was answered: then this is forgotten when its turn comes.
            self.withdrawn.insert(process);
            if self.withdrawn.len() > WITHDRAWN_MAX {
                self.withdrawn.pop_first();
            }
        }
    }

    fn lost(&mut self, why: &str) {
        for pending in self.core.close() {
            let error = if pending.sent {
                WireError::new(
                    ErrorCode::OutcomeUnknown,
                    format!("{} was under way when {why}", pending.method),
                )
            } else {
                WireError::new(
                    ErrorCode::Disconnected,
                    format!("{} was not sent: {why}", pending.method),
                )
            };
            self.finish(pending, Err(error), Timings::default());
        }
    }
}

fn withdrawn() -> WireError {
    WireError::new(ErrorCode::Cancelled, "the call was withdrawn before it was sent")
}

impl Actor for RpcQueue {
    const NAME: &'static str = "RpcQueue";
    type Message = RpcMessage;
    type Control = RpcControl;

    fn receive(&mut self, envelope: Envelope<RpcMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            RpcMessage::Call(call) => self.call(envelope.context, *call, turn),
            RpcMessage::Response { id, answer, arrival } => {
                let (result, timings) = *answer;
                self.response(id, result, timings, arrival, turn);
            }
        }
    }

    fn control(&mut self, control: RpcControl, turn: &mut Turn<'_, Self>) {
        match control {
            RpcControl::Deadline(id) => self.give_up(id, turn),
            RpcControl::Withdrawn => {
                let given_up = |pending: &Pending| {
                    let ticket = pending.call.ticket.as_ref();
                    ticket.is_some_and(|ticket| ticket.load(Ordering::Acquire))
                };
                self.withdraw(given_up, turn);
            }
            RpcControl::WithdrawStart(process) => self.withdraw_start(process, turn),
            RpcControl::GoesOnBehind(last) => self.core.go_on_behind(last),
            RpcControl::Lost(why) => self.lost(&why),
        }
    }

    fn drained(&mut self, _: &mut Turn<'_, Self>) {
        self.lost("the session was ended");
    }
}
