//! One client's session on the executor: its actors, on its connection's arbiter.
//!
//! Before the client's first sealed record there is a framer and nothing else: no other actor, and no side effect.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_messages::codec::DecodeError;
use dwell_messages::{
    Envelope, ErrorCode, Message as Wire, ProcessId, PublicKey, RequestId, Resume, TraceContext, WireError,
};
use dwell_relay::{Link, LinkError, LinkEstablished, LinkOptions, OsRandomness, Preamble};
use tokio::sync::watch;

use super::{Directory, Facts, SessionId, Shared};
use crate::access::{Pass, SessionPass};
use crate::dispatcher::DISPATCHER_MAILBOX_MAX;
use crate::dispatcher::server::{Dispatcher, TAKE_OVER};
use crate::files::service::{FILES_MAILBOX_MAX, FileService, FilesMessage};
use crate::http_client::HttpDoor;
use crate::mailbox::{HostOptions, Mailbox, Turn, start_here};
use crate::process::{Presence, SessionView};
use crate::process_supervisor::{
    ELSEWHERE_CALLS_MAX, ProcessSupervisor, SUPERVISOR_MAILBOX_MAX, SupervisorControl, SupervisorMessage,
};
use crate::relay_framer::{
    Arrival, Attachment, FramerControl, LinkLost, OUTCOME_ROOM_MAX, RelayFramer, Sent, Unacknowledged, Upper,
    ends_link,
};
use crate::rpc_queue::RPC_MAILBOX_MAX;
use crate::rpc_queue::server::{RpcMessage, RpcQueue};
use crate::telemetry::{Tick, wall_unix_ms};
use crate::trace_collector::{TRACE_MAILBOX_MAX, TraceCollector, TraceMessage};
use crate::workspace::WorkspaceService;

/// Answers a dialler: a link that waits for message 1.
pub(super) fn answer(shared: &Shared, preamble: &Preamble, relayed: bool) -> Result<Link<Sent>, LinkError> {
    let options = if relayed {
        LinkOptions::relayed()
    } else {
        LinkOptions::direct()
    };
    Link::answer(
        Instant::now(),
        Arc::clone(&shared.identity),
        preamble,
        (shared.links)(options),
        &mut OsRandomness::new(),
    )
}

/// Begins a session over an established link. `None`: the executor is full or stopping.
pub(super) fn begin(
    shared: &Arc<Shared>,
    attachment: Attachment,
    session: SessionId,
) -> Option<Mailbox<RelayFramer>> {
    let client = attachment.peer.peer;
    let slot: Slot = Rc::default();
    let (upper_slot, upper_shared) = (Rc::clone(&slot), Arc::clone(shared));
    let collector = shared.collector.clone();
    let credulous = shared.credulous;
    let mut first = Some(Box::new(attachment));
    let unacknowledged: Rc<Unacknowledged> = Rc::default();
    let facts = Facts::new();
    let known = Arc::clone(&facts);
    let framer = start_here(HostOptions::new(OUTCOME_ROOM_MAX), move || {
        let (present, presence) = Presence::new(true);
        let upper = SessionUpper {
            shared: Arc::clone(&upper_shared),
            client,
            facts: Arc::clone(&known),
            slot: Rc::clone(&upper_slot),
            trace: None,
            actors: None,
            unacknowledged: Rc::clone(&unacknowledged),
            present,
            presence,
            pass: None,
        };
        let framer = RelayFramer::new(first.take(), Box::new(upper), collector.clone())
            .counting(Rc::clone(&unacknowledged));
        if credulous { framer.credulous() } else { framer }
    });
    if !shared.enter(session, client, &framer, &facts) {
        framer.begin_drain();
        return None;
    }
    *slot.borrow_mut() = Some((session, framer.clone()));
    Some(framer)
}

/// The session's number and its framer, once both are known.
type Slot = Rc<RefCell<Option<(SessionId, Mailbox<RelayFramer>)>>>;

struct Actors {
    dispatcher: Mailbox<Dispatcher>,
    rpc: Mailbox<RpcQueue>,
    supervisor: Mailbox<ProcessSupervisor>,
    files: Mailbox<FileService>,
    http: HttpDoor,
}

/// The session above a framer.
struct SessionUpper {
    shared: Arc<Shared>,
    client: PublicKey,
    facts: Arc<Facts>,
    slot: Slot,
    trace: Option<Mailbox<TraceCollector>>,
    actors: Option<Actors>,
    unacknowledged: Rc<Unacknowledged>,
    present: watch::Sender<bool>,
    presence: Presence,
    /// What the client may do. Dropping it ends the session's entry.
    pass: Option<SessionPass>,
}

impl SessionUpper {
    fn start(&mut self, pass: &Arc<Pass>) -> Option<()> {
        let (session, framer) = self.slot.borrow().clone()?;
        let collector = self.shared.collector.clone();
        let (spawner, f, c) = (
            Arc::clone(&self.shared.spawner),
            framer.clone(),
            collector.clone(),
        );
        let shared = Arc::clone(&self.shared);
        let view = SessionView {
            presence: self.presence.clone(),
            attachment: 1,
            taken: 0,
            idle_life: shared.idle_life,
            spool: shared.spool.clone(),
            attention: Arc::clone(&shared.attention),
        };
        let options = |capacity| HostOptions::new(capacity).escalating(ends_link(&framer));
        let (supervising, dispatching) = (options(SUPERVISOR_MAILBOX_MAX), options(DISPATCHER_MAILBOX_MAX));
        let (queueing, collecting) = (options(RPC_MAILBOX_MAX), options(TRACE_MAILBOX_MAX));
        let supervisor = start_here(supervising, move || {
            let shared = Arc::clone(&shared);
            let on_empty = Box::new(move || shared.leave(session));
            ProcessSupervisor::new(Arc::clone(&spawner), f.clone(), c.clone(), view.clone(), on_empty)
        });
        self.facts.begun(supervisor.port(ELSEWHERE_CALLS_MAX));
        let (pool, c, unacknowledged) = (
            self.shared.files.clone(),
            collector.clone(),
            Rc::clone(&self.unacknowledged),
        );
        let files = start_here(options(FILES_MAILBOX_MAX), move || {
            FileService::new(pool.clone(), c.clone(), Rc::clone(&unacknowledged))
        });
        let directory_of_work = self.shared.environment.cwd.to_vec();
        let pool = self.shared.files.clone();
        let workspaces = WorkspaceService::new(
            pool,
            collector.clone(),
            Rc::clone(&self.unacknowledged),
            directory_of_work,
        );
        let http = HttpDoor::new(
            self.shared.http_trust.clone(),
            framer.clone(),
            collector.clone(),
            Rc::clone(&self.unacknowledged),
        );
        let (environment, s, f, h, pass) = (
            Arc::clone(&self.shared.environment),
            supervisor.clone(),
            files.clone(),
            http.clone(),
            Arc::clone(pass),
        );
        let directory = Directory::new(Arc::clone(&self.shared), self.client, session);
        let dispatcher = start_here(dispatching, move || {
            Dispatcher::new(
                Arc::clone(&environment),
                s.clone(),
                (f.clone(), workspaces.clone(), h.clone()),
                Arc::clone(&pass),
                directory.clone(),
            )
        });
        let (d, f, c) = (dispatcher.clone(), framer.clone(), collector.clone());
        let (unacknowledged, credulous) = (Rc::clone(&self.unacknowledged), self.shared.credulous);
        let rpc = start_here(queueing, move || {
            let rpc = RpcQueue::new(d.clone(), f.clone(), c.clone(), Rc::clone(&unacknowledged));
            if credulous { rpc.credulous() } else { rpc }
        });
        let shipment = self.shared.shipment;
        let trace = start_here(collecting, move || {
            TraceCollector::new(collector.clone(), framer.clone()).shipping(shipment)
        });
        self.trace = Some(trace);
        self.actors = Some(Actors {
            dispatcher,
            rpc,
            supervisor,
            files,
            http,
        });
        Some(())
    }
}

impl Upper for SessionUpper {
    fn begun(&mut self, peer: &LinkEstablished, _: &mut Turn<'_, RelayFramer>) {
        let Some((_, framer)) = self.slot.borrow().clone() else {
            return;
        };
        let ended = framer.clone();
        let end = Box::new(move |why: &str| drop(ended.control(FramerControl::End(why.to_owned()))));
        let now_unix_s = wall_unix_ms() / 1_000;
        match (self.shared.gate).begin(now_unix_s, &peer.peer, &peer.handshake_hash, end) {
            Ok(pass) => {
                tracing::info!(client = %peer.peer, "a session has begun");
                let started = self.start(&pass.pass());
                self.pass = Some(pass);
                if started.is_none() {
                    tracing::error!("a session could not be started");
                }
            }
            Err(why) => {
                tracing::warn!(client = %peer.peer, %why, "a session was refused");
                drop(framer.control(FramerControl::End(why)));
            }
        }
    }

    fn resumed(
        &mut self,
        attachment: u64,
        resume: Option<Resume>,
        taken: Option<RequestId>,
        turn: &mut Turn<'_, RelayFramer>,
    ) {
        tracing::info!(
            attachment,
            taken = taken.is_some(),
            "a session goes on over a fresh link"
        );
        self.present.send_replace(true);
        self.facts.connected(true);
        if let (Some(resume), Some(actors)) = (resume, &self.actors) {
            if let Some(last) = taken {
                self.facts.taken_over(resume.owner);
                if let Some(pass) = &self.pass {
                    pass.taken_over();
                }
                turn.tell(&actors.rpc, TraceContext::default(), RpcMessage::TakenOver(last));
                turn.tell(&actors.files, TraceContext::default(), FilesMessage::TakenOver);
                actors.http.taken_over(turn);
            }
            let message = SupervisorMessage::Attached(attachment, Box::new(resume), taken.is_some());
            turn.tell(&actors.supervisor, TraceContext::default(), message);
        }
    }

    fn may_take_over(&self) -> Result<(), WireError> {
        let (method, scopes) = TAKE_OVER;
        match &self.pass {
            Some(pass) => pass.pass().check(scopes, method, None),
            None => Ok(()),
        }
    }

    fn released(&mut self, processes: Vec<ProcessId>, turn: &mut Turn<'_, RelayFramer>) {
        if let Some(actors) = &self.actors {
            let message = SupervisorMessage::Released(processes);
            turn.tell(&actors.supervisor, TraceContext::default(), message);
        }
    }

    fn shipper(&self) -> Option<Mailbox<TraceCollector>> {
        self.trace.clone()
    }

    fn wind_down(&mut self) -> bool {
        let Some(actors) = &self.actors else { return false };
        actors.supervisor.control(SupervisorControl::WindDown).is_ok()
    }

    fn detached(&mut self, why: &LinkLost, turn: &mut Turn<'_, RelayFramer>) -> Option<Duration> {
        let life = self.shared.detached_life;
        tracing::info!(%why, seconds = life.as_secs(), "a session has lost its link and waits for its client");
        self.present.send_replace(false);
        self.facts.connected(false);
        if let Some(actors) = &self.actors {
            turn.tell(
                &actors.supervisor,
                TraceContext::default(),
                SupervisorMessage::Detached,
            );
        }
        (!life.is_zero()).then_some(life)
    }

    fn message(&mut self, arrival: Arrival, envelope: Envelope<Wire>, turn: &mut Turn<'_, RelayFramer>) {
        let Some(actors) = &self.actors else { return };
        match envelope.body {
            Wire::Request { id, process, request } => {
                let message = RpcMessage::Request {
                    id,
                    process,
                    request,
                    arrival,
                };
                turn.tell(&actors.rpc, envelope.context, message);
            }
            Wire::Credit {
                process,
                stream,
                limit,
            } => {
                let control = SupervisorControl::Credit(process, stream, limit);
                // A full control queue loses nothing: credit is absolute, and restated.
                drop(actors.supervisor.control(control));
            }
            Wire::Cancel(id) => turn.tell(&actors.rpc, envelope.context, RpcMessage::Cancel(id)),
            Wire::Pong(_) => {}
            // Empty and not the last: the client asks for what is remembered of a call.
            Wire::TraceRecords { process, records } if records.spans.is_empty() && !records.last => {
                if let Some(trace) = &self.trace {
                    turn.tell(trace, TraceContext::default(), TraceMessage::Fetch(process));
                }
            }
            Wire::Response { .. }
            | Wire::Event { .. }
            | Wire::Ping(_)
            | Wire::Ack { .. }
            | Wire::Resume(_)
            | Wire::Resumed(_)
            | Wire::ResumeRefused(_)
            | Wire::Goodbye(_)
            | Wire::TraceRecords { .. } => {
                tracing::debug!("a message that no harness sends was passed over");
            }
        }
    }

    fn unanswerable(&mut self, context: TraceContext, error: &DecodeError, turn: &mut Turn<'_, RelayFramer>) {
        let (Some(actors), Some(id)) = (&self.actors, error.request_id()) else {
            return;
        };
        let (code, method) = match error {
            DecodeError::UnknownMethod { kind, .. } => (ErrorCode::UnknownMethod, Some(*kind)),
            DecodeError::BadPath { .. } => (ErrorCode::BadPath, None),
            _ => (ErrorCode::BadRequest, None),
        };
        let error = WireError::new(code, error.to_string());
        let message = RpcMessage::Refuse {
            id,
            method,
            error,
            arrival: Tick::now(),
        };
        turn.tell(&actors.rpc, context, message);
    }

    fn lost(&mut self, why: LinkLost, _: &mut Turn<'_, RelayFramer>) {
        tracing::info!(%why, "a session is over: what it runs is terminated");
        self.present.send_replace(false);
        if let Some(pass) = &mut self.pass {
            pass.ended(why.in_short());
        }
        self.end();
    }
}

impl Drop for SessionUpper {
    fn drop(&mut self) {
        // Also when its framer panicked.
        self.end();
    }
}

impl SessionUpper {
    /// Ends what belongs to the session, once.
    fn end(&mut self) {
        self.pass = None;
        if let Some(trace) = self.trace.take() {
            trace.begin_drain();
        }
        let session = self.slot.borrow_mut().take();
        match (self.actors.take(), session) {
            (Some(actors), _) => {
                // A host holds its own address: what is not drained would outlive its session.
                actors.dispatcher.begin_drain();
                actors.rpc.begin_drain();
                actors.files.begin_drain();
                actors.http.end();
                drop(actors.supervisor.control(SupervisorControl::Terminate));
            }
            (None, Some((session, _))) => self.shared.leave(session),
            (None, None) => {}
        }
    }
}
