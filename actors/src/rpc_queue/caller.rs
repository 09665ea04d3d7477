//! `RpcQueue` on the harness: request ids, the in-flight window, deadlines, cancellation, the pending table.
//!
//! Owns every call of one link until it has its answer. Never waits for one. Full: the dispatcher waits. Stop, or a
//! lost link: every call is told, those sent that their outcome is unknown, those not sent that nothing was begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dwell_messages::{
    Envelope, ErrorCode, Message as Wire, ProcessId, Reply, Request, RequestId, SpanId, SpanKind, Timings,
    TraceContext, WireError,
};

use super::pending::{Full, PendingCore};
use crate::account::{Account, Segment};
use crate::mailbox::{Actor, Mailbox, Message, TimerGuard, Turn};
use crate::relay_framer::{self, Arrival, RelayFramer, ToSend};
use crate::telemetry::{Collector, Stage, Tick, span_id};

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Reply, WireError>,
    /// This side's account up to the sending, and when the request had been written.
    pub(crate) account: Account,
    pub(crate) written: Option<Tick>,
    /// Whether the executor answered, and not this side in its place.
    pub(crate) answered: bool,
}

/// A call.
pub(crate) struct Call {
    pub(crate) process: Option<ProcessId>,
    pub(crate) request: Request,
    pub(crate) deadline: Option<Duration>,
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
    written: Arc<AtomicU64>,
    sent: bool,
    _deadline: Option<TimerGuard>,
}

/// See the module.
pub(crate) struct RpcQueue {
    core: PendingCore<Pending>,
    framer: Mailbox<RelayFramer>,
    collector: Collector,
}

impl RpcQueue {
    pub(crate) fn new(framer: Mailbox<RelayFramer>, collector: Collector) -> Self {
        Self {
            core: PendingCore::default(),
            framer,
            collector,
        }
    }

    fn call(&mut self, context: TraceContext, mut call: Call, turn: &mut Turn<'_, Self>) {
        call.account.lap(Segment::Mailbox, turn.residence().dequeued);
        let pending = Pending {
            method: call.request.method(),
            context,
            span: span_id(),
            taken: turn.now(),
            registered: Tick::now(),
            written: Arc::default(),
            sent: false,
            call,
            _deadline: None,
        };
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
            arrived: None,
            written: Some(Arc::clone(&pending.written)),
            bulk: None,
            hold: false,
            ends: None,
            attachment: None,
            unkept: false,
        };
        pending.call.account.lap(Segment::Admission, Tick::now());
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
        if !pending.context.is_sampled() {
            return;
        }
        let context = pending.context.child(pending.span);
        let written = Tick::from_raw(pending.written.load(Ordering::Acquire)).max(pending.registered);
        let first = arrival.first.max(written);
        let stage = |name, start, end| self.collector.stage(Stage::new(&context, name, start, end));
        stage("pending registration", pending.taken, pending.registered);
        stage("request send", pending.registered, written);
        stage("response wait", written, first);
        stage("response dispatch", first, Tick::now());
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
        self.collector.stage(
            Stage::with_id(&pending.context, pending.span, method, pending.taken, Tick::now())
                .kind(SpanKind::Client)
                .text("rpc.system.name", super::RPC_SYSTEM)
                .text("rpc.method", method)
                .number("rpc.executor_us", timings.total)
                .number("rpc.executor_mailbox_us", timings.mailbox)
                .failed(error),
        );
        let raw = pending.written.load(Ordering::Acquire);
        let written = (raw != 0).then(|| Tick::from_raw(raw));
        let account = pending.call.account;
        (pending.call.reply)(Outcome {
            result,
            account,
            written,
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
            RpcControl::Lost(why) => self.lost(&why),
        }
    }

    fn drained(&mut self, _: &mut Turn<'_, Self>) {
        self.lost("the session was ended");
    }
}
