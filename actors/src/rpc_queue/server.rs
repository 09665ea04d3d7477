//! `RpcQueue` on the executor: admission, deduplication, and the way back.
//!
//! Owns the ids of one session and what is being served. Never runs anything itself. Full: the framer waits, and with
//! it the client. Responses come through a port of their own, so that requests cannot stand in their way.

use std::rc::Rc;

use dwell_messages::{
    Envelope, ErrorCode, Message as Wire, ProcessId, Reply, Request, RequestId, SpanId, SpanKind,
    TraceContext, WireError,
};

use dwell_relay::resume::REPLAY_MAX_BYTES;

use super::admission::{ADMITTED_MAX, AdmissionCore, Refusal};
use crate::access::ProcessSlot;
use crate::account::{Account, Segment};
use crate::dispatcher::server::{Dispatcher, DispatcherMessage};
use crate::mailbox::{Actor, Mailbox, Message, Turn};
use crate::relay_framer::{self, Arrival, OUTCOMES_MAX, RelayFramer, ToSend, Unacknowledged};
use crate::telemetry::{Collector, Stage, Tick, span_id};

/// A request on its way to whoever serves it.
pub(crate) struct Call {
    pub(crate) process: Option<ProcessId>,
    pub(crate) request: Request,
    pub(crate) account: Account,
    pub(crate) responder: Responder,
    /// A start's place under its client's cap; the process keeps it.
    pub(crate) slot: Option<ProcessSlot>,
}

/// Where a request's answer goes.
pub(crate) struct Responder {
    id: RequestId,
    rpc: Mailbox<RpcQueue>,
    answered: bool,
    hold: bool,
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        // Whoever had it is gone: a write into a pipe that nobody read, when its process ended.
        let error = WireError::new(
            ErrorCode::UnknownProcess,
            "the process ended before this was done",
        );
        let respond = Respond {
            id: self.id,
            result: Err(error),
            account: Account::begin(Tick::now()),
            hold: false,
        };
        let message = RpcMessage::Respond(Box::new(respond));
        drop(self.rpc.try_tell(Envelope::new(TraceContext::default(), message)));
    }
}

impl Responder {
    /// The answer may wait for the next message to leave with it: nobody asks for it that soon.
    #[must_use]
    pub(crate) fn unhurried(mut self) -> Self {
        self.hold = true;
        self
    }

    /// Answers. There is always room: the port holds one answer for every admitted request.
    pub(crate) fn answer<A: Actor>(
        mut self,
        turn: &mut Turn<'_, A>,
        context: TraceContext,
        result: Result<Reply, WireError>,
        account: Account,
    ) {
        self.answered = true;
        let respond = Respond {
            id: self.id,
            result,
            account,
            hold: self.hold,
        };
        turn.tell(&self.rpc, context, RpcMessage::Respond(Box::new(respond)));
    }
}

impl Responder {
    /// Answers from a task.
    pub(crate) async fn answer_later(
        mut self,
        context: TraceContext,
        result: Result<Reply, WireError>,
        account: Account,
    ) {
        let respond = Respond {
            id: self.id,
            result,
            account,
            hold: self.hold,
        };
        self.answered = true;
        // A stopped queue has no client left to tell.
        drop(
            self.rpc
                .tell(Envelope::new(context, RpcMessage::Respond(Box::new(respond))))
                .await,
        );
    }
}

/// An answer.
pub(crate) struct Respond {
    id: RequestId,
    result: Result<Reply, WireError>,
    account: Account,
    hold: bool,
}

/// What it is told.
pub(crate) enum RpcMessage {
    /// A request from the client.
    Request {
        id: RequestId,
        process: Option<ProcessId>,
        request: Request,
        arrival: Arrival,
    },
    /// A request from the client that could not be understood.
    Refuse {
        id: RequestId,
        error: WireError,
        arrival: Tick,
    },
    /// Its answer.
    Respond(Box<Respond>),
}

impl Message for RpcMessage {
    const NAMES: &'static [&'static str] = &["Request", "Refuse", "Respond"];

    fn index(&self) -> usize {
        match self {
            Self::Request { .. } => 0,
            Self::Refuse { .. } => 1,
            Self::Respond(_) => 2,
        }
    }
}

/// What goes back.
struct Answer {
    id: RequestId,
    result: Result<Reply, WireError>,
    hold: bool,
    /// The process that this refuses to start.
    ends: Option<ProcessId>,
    /// Says only that there is no room: not remembered.
    unkept: bool,
}

impl Answer {
    fn at_once(id: RequestId, result: Result<Reply, WireError>) -> Self {
        Self {
            id,
            result,
            hold: false,
            ends: None,
            unkept: false,
        }
    }
}

struct Served {
    /// The process, where the request is its start.
    starts: Option<ProcessId>,
    context: TraceContext,
    span: SpanId,
    method: &'static str,
    arrived: Tick,
}

/// See the module.
pub(crate) struct RpcQueue {
    core: AdmissionCore<Served>,
    dispatcher: Mailbox<Dispatcher>,
    framer: Mailbox<RelayFramer>,
    responses: Option<Mailbox<RpcQueue>>,
    collector: Collector,
    unacknowledged: Rc<Unacknowledged>,
}

impl RpcQueue {
    pub(crate) fn new(
        dispatcher: Mailbox<Dispatcher>,
        framer: Mailbox<RelayFramer>,
        collector: Collector,
        unacknowledged: Rc<Unacknowledged>,
    ) -> Self {
        Self {
            core: AdmissionCore::default(),
            dispatcher,
            framer,
            responses: None,
            collector,
            unacknowledged,
        }
    }

    fn request(
        &mut self,
        context: TraceContext,
        (id, process, request): (RequestId, Option<ProcessId>, Request),
        arrival: Arrival,
        turn: &mut Turn<'_, Self>,
    ) {
        let mut account = Account::begin(arrival.first);
        account.lap(Segment::Receive, turn.residence().enqueued);
        account.lap(Segment::Mailbox, turn.residence().dequeued);
        let method = request.method();
        let span = span_id();
        let served = Served {
            starts: process.filter(|_| matches!(request, Request::Start(_))),
            context: context.clone(),
            span,
            method,
            arrived: arrival.first,
        };
        if self.is_forgetful() && !matches!(request, Request::EnvironmentInfo | Request::Read(_)) {
            let error = WireError::new(
                ErrorCode::Busy,
                "too many answers of this session wait for their acknowledgement",
            )
            .with_limit(OUTCOMES_MAX as u64, self.unacknowledged.messages.get() as u64);
            let mut answer = Answer::at_once(id, Err(error));
            answer.unkept = true;
            return self.send(context, answer, &account, arrival.first, turn);
        }
        if let Err(refusal) = self.core.admit(id, served) {
            let error = match refusal {
                Refusal::Duplicate => WireError::new(
                    ErrorCode::DuplicateRequest,
                    format!("request id {} was used before", id.0),
                ),
                Refusal::Busy => WireError::new(ErrorCode::Busy, "too many requests are being served")
                    .with_limit(ADMITTED_MAX as u64, ADMITTED_MAX as u64 + 1),
            };
            let answer = Answer::at_once(id, Err(error));
            return self.send(context, answer, &account, arrival.first, turn);
        }
        let rpc = self
            .responses
            .get_or_insert_with(|| turn.mailbox().port(2 * ADMITTED_MAX))
            .clone();
        account.lap(Segment::Admission, Tick::now());
        let call = Call {
            process,
            request,
            account,
            responder: Responder {
                id,
                rpc,
                answered: false,
                hold: false,
            },
            slot: None,
        };
        turn.tell(
            &self.dispatcher,
            context.child(span),
            DispatcherMessage::Call(Box::new(call)),
        );
    }

    /// Takes repeated requests for new ones, which is wrong.
    pub(crate) fn credulous(mut self) -> Self {
        self.core.credulous = true;
        self
    }

    /// Whether one more outcome could not be remembered until its client has it.
    fn is_forgetful(&self) -> bool {
        self.unacknowledged.messages.get() >= OUTCOMES_MAX
            || self.unacknowledged.bytes.get() >= REPLAY_MAX_BYTES
    }

    fn respond(&mut self, respond: Respond, turn: &mut Turn<'_, Self>) {
        let Respond {
            id,
            result,
            mut account,
            hold,
        } = respond;
        let Some(served) = self.core.finish(id) else {
            tracing::error!(
                request = id.0,
                "a request was answered twice; the second answer was dropped"
            );
            return;
        };
        account.lap(Segment::Mailbox, turn.residence().dequeued);
        let now = Tick::now();
        account.lap(Segment::Delivery, now);
        let error = result.as_ref().err().map(|error| error.code.name());
        self.collector.stage(
            Stage::with_id(&served.context, served.span, served.method, served.arrived, now)
                .kind(SpanKind::Server)
                .text("rpc.system.name", super::RPC_SYSTEM)
                .text("rpc.method", served.method)
                .number("rpc.request_id", id.0)
                .failed(error),
        );
        let ends = served.starts.filter(|_| result.is_err());
        let answer = Answer {
            id,
            result,
            hold,
            ends,
            unkept: false,
        };
        self.send(served.context, answer, &account, served.arrived, turn);
    }

    fn send(
        &self,
        context: TraceContext,
        answer: Answer,
        account: &Account,
        arrived: Tick,
        turn: &mut Turn<'_, Self>,
    ) {
        let message = Wire::Response {
            id: answer.id,
            result: answer.result,
            timings: account.timings(),
        };
        let send = ToSend {
            message,
            arrived: Some(arrived),
            written: None,
            bulk: None,
            hold: answer.hold,
            ends: answer.ends,
            attachment: None,
            unkept: answer.unkept,
        };
        relay_framer::send(turn, &self.framer, context, Box::new(send));
    }
}

impl Actor for RpcQueue {
    const NAME: &'static str = "RpcQueue";
    type Message = RpcMessage;
    type Control = std::convert::Infallible;

    fn receive(&mut self, envelope: Envelope<RpcMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            RpcMessage::Request {
                id,
                process,
                request,
                arrival,
            } => {
                self.request(envelope.context, (id, process, request), arrival, turn);
            }
            RpcMessage::Refuse { id, error, arrival } => {
                let account = Account::begin(arrival);
                let answer = Answer::at_once(id, Err(error));
                self.send(envelope.context, answer, &account, arrival, turn);
            }
            RpcMessage::Respond(respond) => self.respond(*respond, turn),
        }
    }

    fn control(&mut self, control: Self::Control, _: &mut Turn<'_, Self>) {
        match control {}
    }
}
