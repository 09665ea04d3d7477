//! `RpcQueue` on the executor: admission, deduplication, and the way back.
//!
//! Owns the ids of one session and what is being served. Never runs anything itself. Full: the framer waits, and with
//! it the client. Responses come through a port of their own, so that requests cannot stand in their way.

use std::rc::Rc;
use std::sync::Arc;

use dwell_messages::{
    Envelope, ErrorCode, Message as Wire, ProcessId, Reply, Request, RequestId, SpanId, SpanKind,
    TraceContext, WireError,
};

use super::Cancellation;
use super::admission::{ADMITTED_MAX, AdmissionCore, Refusal};
use crate::access::ProcessSlot;
use crate::account::{Account, Segment};
use crate::dispatcher::server::{Dispatcher, DispatcherMessage};
use crate::fault_point::delay::{self, DelayPoint};
use crate::in_flight::{Call as Watched, CallKind, Entered, Stage as Place};
use crate::mailbox::{Actor, Mailbox, Message, Turn};
use crate::metrics::Side;
use crate::relay_framer::{self, Arrival, OUTCOMES_MAX, RelayFramer, ToSend, Unacknowledged};
use crate::telemetry::{Collector, Stage, Tick, semconv, span_id};

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
    cancellation: Arc<Cancellation>,
    answered: bool,
    hold: bool,
    /// The request's place among what is unfinished.
    watched: Arc<Watched>,
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.answered || !self.cancellation.begin() {
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
    /// To be asked right before the request is acted upon. False: its client has withdrawn it and been answered; it is to
    /// be dropped, and nothing done.
    #[must_use]
    pub(crate) fn begin(&self) -> bool {
        self.cancellation.begin()
    }

    /// The request has come to the next stage.
    pub(crate) fn at(&self, stage: Place) {
        self.watched.at(stage, Tick::now());
    }

    /// For services that wait before they begin.
    pub(crate) fn cancellation(&self) -> Arc<Cancellation> {
        Arc::clone(&self.cancellation)
    }

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
        mut account: Account,
    ) {
        self.answered = true;
        if !self.cancellation.begin() {
            return;
        }
        account.lap(Segment::Handler, Tick::now());
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
        mut account: Account,
    ) {
        self.answered = true;
        if !self.cancellation.begin() {
            return;
        }
        account.lap(Segment::Handler, Tick::now());
        let respond = Respond {
            id: self.id,
            result,
            account,
            hold: self.hold,
        };
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
        /// The number of its method, where that is what is not known.
        method: Option<u8>,
        error: WireError,
        arrival: Tick,
    },
    /// Its answer.
    Respond(Box<Respond>),
    /// The client no longer waits for a request.
    Cancel(RequestId),
    /// The session has another owner; the highest request id of those before it.
    TakenOver(RequestId),
}

impl Message for RpcMessage {
    const NAMES: &'static [&'static str] = &["Request", "Refuse", "Respond", "Cancel", "TakenOver"];

    fn index(&self) -> usize {
        match self {
            Self::Request { .. } => 0,
            Self::Refuse { .. } => 1,
            Self::Respond(_) => 2,
            Self::Cancel(_) => 3,
            Self::TakenOver(_) => 4,
        }
    }
}

/// What goes back.
struct Answer {
    id: RequestId,
    result: Result<Reply, WireError>,
    hold: bool,
    /// The process that this refuses to start, or what the spans of a call without one go back under.
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
    /// Under which the request's spans go back, where it is about no process and has any.
    ships: Option<ProcessId>,
    cancellation: Arc<Cancellation>,
    context: TraceContext,
    span: SpanId,
    method: &'static str,
    arrived: Tick,
    /// Its place among what is unfinished.
    watched: Entered<Watched>,
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
        let mut account = Account::begin(arrival.first).behind_relay(arrival.relay_us);
        let residence = turn.residence();
        arrival.lap(&mut account, residence.enqueued);
        account.lap(Segment::RpcMailbox, residence.dequeued);
        let method = request.method();
        let span = span_id();
        let cancellation = Cancellation::new();
        let about = process.filter(|_| !request.is_whole_call());
        let watched = Watched::new(CallKind::Served, method, &context, arrival.first).about(about);
        let watched = self.collector.board().call(watched);
        let seen = watched.share();
        let served = Served {
            watched,
            cancellation: Arc::clone(&cancellation),
            starts: process.filter(|_| matches!(request, Request::Start(_))),
            ships: process.filter(|_| request.is_whole_call()),
            context: context.clone(),
            span,
            method,
            arrived: arrival.first,
        };
        let harmless = match &request {
            Request::EnvironmentInfo
            | Request::Read(_)
            | Request::Sessions(_)
            | Request::FindUp(_)
            | Request::WorkspaceLoad(_) => true,
            Request::File(file) => file.is_harmless(),
            Request::Start(_)
            | Request::Write(_)
            | Request::Signal(_)
            | Request::Terminate(_)
            | Request::Resize(_)
            | Request::Http(_) => false,
        };
        if !harmless && self.unacknowledged.is_full() {
            let error = WireError::new(
                ErrorCode::Busy,
                "too many answers of this session wait for their acknowledgement",
            )
            .with_limit(OUTCOMES_MAX as u64, self.unacknowledged.messages.get() as u64);
            let mut answer = Answer::at_once(id, Err(error));
            answer.unkept = true;
            return self.send(context, answer, &account, turn);
        }
        if let Err(refusal) = self.core.admit(id, served) {
            let error = match refusal {
                Refusal::Duplicate => WireError::new(
                    ErrorCode::DuplicateRequest,
                    format!("request id {} was used before", id.0),
                ),
                Refusal::Cancelled => cancelled(),
                Refusal::Busy => WireError::new(ErrorCode::Busy, "too many requests are being served")
                    .with_limit(ADMITTED_MAX as u64, ADMITTED_MAX as u64 + 1),
            };
            let answer = Answer::at_once(id, Err(error));
            return self.send(context, answer, &account, turn);
        }
        let rpc = self
            .responses
            .get_or_insert_with(|| turn.mailbox().port(2 * ADMITTED_MAX))
            .clone();
        delay::reach(DelayPoint::ExecutorAdmission);
        account.lap(Segment::Admission, Tick::now());
        let call = Call {
            process,
            request,
            account,
            responder: Responder {
                id,
                rpc,
                cancellation,
                answered: false,
                hold: false,
                watched: seen,
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

    fn respond(&mut self, respond: Respond, turn: &mut Turn<'_, Self>) {
        let Respond {
            id,
            result,
            mut account,
            hold,
        } = respond;
        if !self.core.is_awaited(id) {
            // Whoever asked has lost the session: what was done was done, and the next owner did not ask.
            return drop(self.core.finish(id));
        }
        let Some(served) = self.core.finish(id) else {
            tracing::error!(
                request = id.0,
                "a request was answered twice; the second answer was dropped"
            );
            return;
        };
        account.lap(Segment::RpcMailbox, turn.now());
        let now = Tick::now();
        account.lap(Segment::Delivery, now);
        let error = result.as_ref().err().map(|error| error.code.name());
        let meters = self.collector.board().meters();
        meters.rpc(Side::Server, served.method, error, served.arrived);
        drop(served.watched);
        self.collector.stage(
            Stage::with_id(&served.context, served.span, served.method, served.arrived, now)
                .kind(SpanKind::Server)
                .text(semconv::RPC_SYSTEM_NAME, semconv::RPC_SYSTEM)
                .text(semconv::RPC_METHOD, served.method)
                .number(semconv::RPC_REQUEST_ID, id.0)
                .text(semconv::RPC_STATUS_CODE, error.unwrap_or(semconv::RPC_OK))
                .failed(error),
        );
        let ends = served.starts.filter(|_| result.is_err()).or(served.ships);
        let answer = Answer {
            id,
            result,
            hold,
            ends,
            unkept: false,
        };
        self.send(served.context, answer, &account, turn);
    }

    /// The span of a request that was not understood: its method has no name here, so it has none of the peer's making.
    fn refused(&self, context: &TraceContext, method: Option<u8>, error: &WireError, arrival: Tick) {
        let name = error.code.name();
        let stage = Stage::new(context, semconv::OTHER, arrival, Tick::now())
            .kind(SpanKind::Server)
            .text(semconv::RPC_SYSTEM_NAME, semconv::RPC_SYSTEM)
            .text(semconv::RPC_METHOD, semconv::OTHER)
            .text(semconv::RPC_STATUS_CODE, name)
            .failed(Some(name));
        self.collector.stage(match method {
            Some(method) => stage.text(semconv::RPC_METHOD_ORIGINAL, format!("{method:#04x}")),
            None => stage,
        });
    }

    /// What waits is withdrawn and answered so. A start that is under way is ended; of anything else that was begun the
    /// answer says what came of it.
    fn cancel(&mut self, id: RequestId, turn: &mut Turn<'_, Self>) {
        let Some(served) = self.core.cancel(id) else {
            return;
        };
        if served.cancellation.cancel() {
            let mut account = Account::begin(served.arrived);
            account.lap(Segment::Handler, turn.now());
            let respond = Respond {
                id,
                result: Err(cancelled()),
                account,
                hold: false,
            };
            return self.respond(respond, turn);
        }
        if let Some(process) = served.starts {
            let message = DispatcherMessage::Withdrawn(process);
            turn.tell(&self.dispatcher, TraceContext::default(), message);
        }
    }

    fn send(&self, context: TraceContext, answer: Answer, account: &Account, turn: &mut Turn<'_, Self>) {
        let message = Wire::Response {
            id: answer.id,
            result: answer.result,
            timings: account.timings(),
        };
        let send = ToSend {
            message,
            accounted: Some(account.into()),
            stamps: None,
            bulk: None,
            hold: answer.hold,
            ends: answer.ends,
            attachment: None,
            unkept: answer.unkept,
        };
        relay_framer::send(turn, &self.framer, context, Box::new(send));
    }
}

fn cancelled() -> WireError {
    WireError::new(
        ErrorCode::Cancelled,
        "the request was withdrawn before anything was done",
    )
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
            RpcMessage::Refuse {
                id,
                method,
                error,
                arrival,
            } => {
                self.refused(&envelope.context, method, &error, arrival);
                let account = Account::begin(arrival);
                let answer = Answer::at_once(id, Err(error));
                self.send(envelope.context, answer, &account, turn);
            }
            RpcMessage::Respond(respond) => self.respond(*respond, turn),
            RpcMessage::Cancel(id) => self.cancel(id, turn),
            RpcMessage::TakenOver(last) => self.core.take_over(last),
        }
    }

    fn control(&mut self, control: Self::Control, _: &mut Turn<'_, Self>) {
        match control {}
    }
}
