//! `Dispatcher` on the executor: the one place where a method meets its scope and its service.
//!
//! Owns what its client may do and what the environment is. Never holds a call. Full: the `RpcQueue` waits.

use std::sync::Arc;

use dwell_messages::{
    Envelope, EnvironmentInfo, ErrorCode, ProcessId, Reply, Request, TraceContext, WireError,
};

use crate::access::{Pass, ProcessSlot};
use crate::account::Segment;
use crate::executor::Directory;
use crate::fault_point::delay::{self, DelayPoint};
use crate::files::service::{FileService, FilesMessage};
use crate::http_client::HttpDoor;
use crate::in_flight::Stage;
use crate::keys::{Scope, ScopeSet};
use crate::mailbox::{Actor, Mailbox, Message, TellError, Turn};
use crate::process_supervisor::{ProcessSupervisor, SupervisorMessage};
use crate::rpc_queue::server::Call;
use crate::telemetry::Tick;
use crate::workspace::WorkspaceService;

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
        Request::Write(write) if write.data.is_empty() && write.eof => ScopeSet::of(&[Scope::Spawn]),
        Request::Write(_) => ScopeSet::of(&[Scope::Stdin]),
        Request::Resize(_) => ScopeSet::of(&[Scope::Pty]),
        Request::Signal(_) | Request::Terminate(_) => ScopeSet::of(&[Scope::Signal]),
        Request::Read(_) | Request::Sessions(_) => ScopeSet::of(&[Scope::Attach]),
        Request::File(_) => ScopeSet::of(&[Scope::Files]),
        // A command could make it.
        Request::Http(_) => ScopeSet::of(&[Scope::Spawn]),
        Request::FindUp(_) | Request::WorkspaceLoad(_) => ScopeSet::of(&[Scope::Files]),
    }
}

/// The scopes that a client needs to take a session over from another one of its own.
pub(crate) const TAKE_OVER: (&str, ScopeSet) = ("Session/TakeOver", ScopeSet::of(&[Scope::Attach]));

/// The session that a request is about, where it says so.
fn session_of(request: &Request) -> Option<u64> {
    match request {
        Request::Read(read) => read.session,
        Request::Signal(signal) => signal.session,
        Request::Terminate(terminate) => terminate.session,
        Request::EnvironmentInfo
        | Request::Start(_)
        | Request::Write(_)
        | Request::Resize(_)
        | Request::Sessions(_)
        | Request::File(_)
        | Request::Http(_)
        | Request::FindUp(_)
        | Request::WorkspaceLoad(_) => None,
    }
}

/// What it is told.
pub(crate) enum DispatcherMessage {
    /// An admitted request.
    Call(Box<Call>),
    /// The client has withdrawn the start of this process, which was under way.
    Withdrawn(ProcessId),
}

impl Message for DispatcherMessage {
    const NAMES: &'static [&'static str] = &["Call", "Withdrawn"];

    fn index(&self) -> usize {
        match self {
            Self::Call(_) => 0,
            Self::Withdrawn(_) => 1,
        }
    }
}

/// See the module.
pub(crate) struct Dispatcher {
    environment: Arc<EnvironmentInfo>,
    supervisor: Mailbox<ProcessSupervisor>,
    files: Mailbox<FileService>,
    workspaces: WorkspaceService,
    http: HttpDoor,
    pass: Arc<Pass>,
    directory: Directory,
}

impl Dispatcher {
    pub(crate) fn new(
        environment: Arc<EnvironmentInfo>,
        supervisor: Mailbox<ProcessSupervisor>,
        (files, workspaces, http): (Mailbox<FileService>, WorkspaceService, HttpDoor),
        pass: Arc<Pass>,
        directory: Directory,
    ) -> Self {
        Self {
            environment,
            supervisor,
            files,
            workspaces,
            http,
            pass,
            directory,
        }
    }

    /// Whether the client may make this call now; a start takes its place under the client's cap.
    fn admit(&self, request: &Request) -> Result<Option<ProcessSlot>, WireError> {
        let method = request.method();
        let Request::Start(start) = request else {
            return self.pass.check(scopes_of(request), method, None).map(|()| None);
        };
        let argv0 = start.executed().map(|program| program.as_slice());
        self.pass.check(scopes_of(request), method, argv0)?;
        self.pass.take_process(method, argv0).map(Some)
    }

    fn call(&mut self, context: TraceContext, mut call: Call, turn: &mut Turn<'_, Self>) {
        call.account.lap(Segment::DispatcherMailbox, turn.now());
        match self.admit(&call.request) {
            Ok(slot) => call.slot = slot,
            Err(error) => {
                return call.responder.answer(turn, context, Err(error), call.account);
            }
        }
        delay::reach(DelayPoint::ExecutorDispatch);
        call.account.lap(Segment::Dispatch, Tick::now());
        if let Some(session) = session_of(&call.request).filter(|id| *id != self.directory.session()) {
            return self.elsewhere(session, context, call, turn);
        }
        match &call.request {
            Request::EnvironmentInfo => {
                let reply = Reply::EnvironmentInfo((*self.environment).clone());
                call.responder.answer(turn, context, Ok(reply), call.account);
            }
            Request::Sessions(list) => {
                let listing = self.directory.list(list.after);
                let (responder, account) = (call.responder, call.account);
                turn.spawn(async move {
                    let reply = Reply::Sessions(listing.await);
                    responder.answer_later(context, Ok(reply), account).await;
                })
                .detach();
            }
            Request::File(_) => {
                call.responder.at(Stage::Service);
                turn.tell(&self.files, context, FilesMessage::Call(Box::new(call)));
            }
            Request::Http(_) => {
                call.responder.at(Stage::Service);
                self.http.serve(context, call, turn);
            }
            Request::FindUp(_) | Request::WorkspaceLoad(_) => {
                call.responder.at(Stage::Service);
                self.workspaces.serve(context, call, turn);
            }
            Request::Start(_)
            | Request::Write(_)
            | Request::Resize(_)
            | Request::Signal(_)
            | Request::Terminate(_)
            | Request::Read(_) => {
                call.responder.at(Stage::Service);
                turn.tell(&self.supervisor, context, SupervisorMessage::Call(Box::new(call)));
            }
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // Also when it panicked: its session ends with it.
        self.workspaces.close();
    }
}

impl Dispatcher {
    /// A call about a process of another session of this client: its supervisor answers. Whatever is wrong with the
    /// session, the answer is the same.
    fn elsewhere(&self, session: u64, context: TraceContext, call: Call, turn: &mut Turn<'_, Self>) {
        let refuse = |call: Call, context, error, turn: &mut Turn<'_, Self>| {
            call.responder.answer(turn, context, Err(error), call.account);
        };
        let unknown = || WireError::new(ErrorCode::UnknownSession, "this client has no such session here");
        let Some(supervisor) = self.directory.elsewhere(session) else {
            return refuse(call, context, unknown(), turn);
        };
        let message = SupervisorMessage::Call(Box::new(call));
        let (envelope, error) = match supervisor.try_tell(Envelope::new(context, message)) {
            Ok(()) => return,
            Err(TellError::Full(envelope)) => {
                let text = "too much is asked of that session at once";
                (envelope, WireError::new(ErrorCode::Busy, text))
            }
            Err(TellError::Stopped(envelope)) => (envelope, unknown()),
        };
        if let SupervisorMessage::Call(call) = envelope.body {
            refuse(*call, envelope.context, error, turn);
        }
    }
}

impl Actor for Dispatcher {
    const NAME: &'static str = "Dispatcher";
    type Message = DispatcherMessage;
    type Control = std::convert::Infallible;

    fn receive(&mut self, envelope: Envelope<DispatcherMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            DispatcherMessage::Call(call) => self.call(envelope.context, *call, turn),
            DispatcherMessage::Withdrawn(process) => {
                let message = SupervisorMessage::Withdrawn(process);
                turn.tell(&self.supervisor, envelope.context, message);
            }
        }
    }

    fn control(&mut self, control: Self::Control, _: &mut Turn<'_, Self>) {
        match control {}
    }
}
