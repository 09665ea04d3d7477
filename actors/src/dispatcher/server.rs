//! `Dispatcher` on the executor: the one place where a method meets its scope and its service.
//!
//! Owns what its client may do and what the environment is. Never holds a call. Full: the `RpcQueue` waits.

use dwell_messages::{Envelope, EnvironmentInfo, ErrorCode, Reply, Request, TraceContext, WireError};

use crate::account::Segment;
use crate::mailbox::{Actor, Mailbox, Message, Turn};
use crate::process_supervisor::{ProcessSupervisor, SupervisorMessage};
use crate::rpc_queue::server::Call;
use crate::telemetry::Tick;

/// What a client may be allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// Look at the environment.
    Inspect,
    /// Start processes.
    Spawn,
    /// Write to their input.
    Stdin,
    /// Signal and end them.
    Signal,
    /// Read what they said.
    Attach,
}

impl Scope {
    /// The scope a method needs. Exhaustive: a new method without a scope does not compile.
    fn of(request: &Request) -> Self {
        match request {
            Request::EnvironmentInfo => Self::Inspect,
            Request::Start(_) => Self::Spawn,
            Request::Write(_) | Request::Resize(_) => Self::Stdin,
            Request::Signal(_) | Request::Terminate(_) => Self::Signal,
            Request::Read(_) => Self::Attach,
        }
    }
}

/// What it is told.
pub(crate) enum DispatcherMessage {
    /// An admitted request.
    Call(Box<Call>),
}

impl Message for DispatcherMessage {
    const NAMES: &'static [&'static str] = &["Call"];

    fn index(&self) -> usize {
        0
    }
}

/// See the module.
pub(crate) struct Dispatcher {
    scopes: &'static [Scope],
    environment: EnvironmentInfo,
    supervisor: Mailbox<ProcessSupervisor>,
}

/// A listed client may do everything; restricted keys are a later version's.
const ALL_SCOPES: &[Scope] = &[
    Scope::Inspect,
    Scope::Spawn,
    Scope::Stdin,
    Scope::Signal,
    Scope::Attach,
];

impl Dispatcher {
    pub(crate) fn new(environment: EnvironmentInfo, supervisor: Mailbox<ProcessSupervisor>) -> Self {
        Self {
            scopes: ALL_SCOPES,
            environment,
            supervisor,
        }
    }

    fn call(&mut self, context: TraceContext, mut call: Call, turn: &mut Turn<'_, Self>) {
        call.account.lap(Segment::Mailbox, turn.residence().dequeued);
        let scope = Scope::of(&call.request);
        if !self.scopes.contains(&scope) {
            let error = WireError::new(
                ErrorCode::PermissionDenied,
                format!("this key lacks the scope {scope:?}"),
            );
            return call.responder.answer(turn, context, Err(error), call.account);
        }
        call.account.lap(Segment::Dispatch, Tick::now());
        match &call.request {
            Request::EnvironmentInfo => {
                let reply = Reply::EnvironmentInfo(self.environment.clone());
                call.responder.answer(turn, context, Ok(reply), call.account);
            }
            Request::Start(_)
            | Request::Write(_)
            | Request::Resize(_)
            | Request::Signal(_)
            | Request::Terminate(_)
            | Request::Read(_) => {
                turn.tell(&self.supervisor, context, SupervisorMessage::Call(Box::new(call)));
            }
        }
    }
}

impl Actor for Dispatcher {
    const NAME: &'static str = "Dispatcher";
    type Message = DispatcherMessage;
    type Control = std::convert::Infallible;

    fn receive(&mut self, envelope: Envelope<DispatcherMessage>, turn: &mut Turn<'_, Self>) {
        let DispatcherMessage::Call(call) = envelope.body;
        self.call(envelope.context, *call, turn);
    }

    fn control(&mut self, control: Self::Control, _: &mut Turn<'_, Self>) {
        match control {}
    }
}
