//! `Dispatcher` on the executor: the one place where a method meets its scope and its service.
//!
//! Owns what its client may do and what the environment is. Never holds a call. Full: the `RpcQueue` waits.

use std::sync::Arc;

use dwell_messages::{Envelope, EnvironmentInfo, Reply, Request, TraceContext, WireError};

use crate::access::{Pass, ProcessSlot};
use crate::account::Segment;
use crate::keys::{Scope, ScopeSet};
use crate::mailbox::{Actor, Mailbox, Message, Turn};
use crate::process_supervisor::{ProcessSupervisor, SupervisorMessage};
use crate::rpc_queue::server::Call;
use crate::telemetry::Tick;

/// The scopes a request needs. Exhaustive: a new method without its scopes does not compile. A method that every
/// listed client may call says so by needing none.
fn scopes_of(request: &Request) -> ScopeSet {
    match request {
        Request::EnvironmentInfo => ScopeSet::NONE,
        Request::Start(start) => match start.pty {
            Some(_) => ScopeSet::of(&[Scope::Spawn, Scope::Pty]),
            None => ScopeSet::of(&[Scope::Spawn]),
        },
        // To end the input of what it started says nothing to it, and without that it would wait for ever.
        Request::Write(write) if write.data.is_empty() => ScopeSet::of(&[Scope::Spawn]),
        Request::Write(_) => ScopeSet::of(&[Scope::Stdin]),
        Request::Resize(_) => ScopeSet::of(&[Scope::Pty]),
        Request::Signal(_) | Request::Terminate(_) => ScopeSet::of(&[Scope::Signal]),
        Request::Read(_) => ScopeSet::of(&[Scope::Attach]),
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
    environment: EnvironmentInfo,
    supervisor: Mailbox<ProcessSupervisor>,
    pass: Arc<Pass>,
}

impl Dispatcher {
    pub(crate) fn new(
        environment: EnvironmentInfo,
        supervisor: Mailbox<ProcessSupervisor>,
        pass: Arc<Pass>,
    ) -> Self {
        Self {
            environment,
            supervisor,
            pass,
        }
    }

    /// Whether the client may make this call now; a start takes its place under the client's cap.
    fn admit(&self, request: &Request) -> Result<Option<ProcessSlot>, WireError> {
        let method = request.method();
        let Request::Start(start) = request else {
            return self.pass.check(scopes_of(request), method, None).map(|()| None);
        };
        let argv0 = start.argv.first().map(|argument| argument.as_slice());
        self.pass.check(scopes_of(request), method, argv0)?;
        self.pass.take_process(method, argv0).map(Some)
    }

    fn call(&mut self, context: TraceContext, mut call: Call, turn: &mut Turn<'_, Self>) {
        call.account.lap(Segment::Mailbox, turn.residence().dequeued);
        match self.admit(&call.request) {
            Ok(slot) => call.slot = slot,
            Err(error) => {
                return call.responder.answer(turn, context, Err(error), call.account);
            }
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
