//! One client's session on the executor: its actors, on its connection's arbiter.
//!
//! Before the client's first sealed record there is a framer and nothing else: no other actor, and no side effect.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dwell_messages::codec::DecodeError;
use dwell_messages::{
    Envelope, ErrorCode, Hello, Message as Wire, PublicKey, TraceContext, Welcome, WireError,
};
use dwell_relay::{Link, LinkError, LinkEstablished, LinkOptions, OsRandomness, Preamble};
use serde_bytes::ByteBuf;

use super::Shared;
use crate::access::{Pass, SessionPass, Verdict};
use crate::dispatcher::DISPATCHER_MAILBOX_MAX;
use crate::dispatcher::server::Dispatcher;
use crate::mailbox::{HostOptions, Mailbox, Turn, start_here};
use crate::process_supervisor::{ProcessSupervisor, SUPERVISOR_MAILBOX_MAX, SupervisorControl};
use crate::relay_framer::{
    Arrival, FramerControl, LinkLost, OUTBOUND_MESSAGES_MAX, OnClosed, RelayFramer, Sent, SharedLink, Uplink,
    Upper, ends_link,
};
use crate::rpc_queue::RPC_MAILBOX_MAX;
use crate::rpc_queue::server::{RpcMessage, RpcQueue};
use crate::telemetry::{Tick, unix_now_ns, wall_unix_ms};
use crate::trace_collector::{TRACE_MAILBOX_MAX, TraceCollector, TraceMessage};

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
        options,
        &mut OsRandomness::new(),
    )
}

/// Starts a framer over a link. `None`: the executor is full or stopping.
pub(super) fn open(
    shared: &Arc<Shared>,
    uplink: &Rc<Uplink>,
    link: SharedLink,
    relayed: bool,
) -> Option<Mailbox<RelayFramer>> {
    let stream = link.borrow().stream();
    if !uplink.add(stream, Rc::clone(&link)) {
        return None;
    }
    let trace: Rc<RefCell<Option<Mailbox<TraceCollector>>>> = Rc::default();
    let slot: Slot = Rc::default();
    let (upper_trace, upper_slot, upper_shared) = (Rc::clone(&trace), Rc::clone(&slot), Arc::clone(shared));
    let (framer_uplink, collector) = (Rc::clone(uplink), shared.collector.clone());
    let framer = start_here(HostOptions::new(OUTBOUND_MESSAGES_MAX), move || {
        let upper = SessionUpper {
            shared: Arc::clone(&upper_shared),
            slot: Rc::clone(&upper_slot),
            trace: Rc::clone(&upper_trace),
            actors: None,
            pass: None,
        };
        let trace = Rc::clone(&upper_trace);
        let ship: OnClosed = Rc::new(move |context, process| {
            if let Some(trace) = &*trace.borrow() {
                drop(trace.try_tell(Envelope::new(context, TraceMessage::Ship(process))));
            }
        });
        RelayFramer::new(
            Rc::clone(&link),
            Rc::clone(&framer_uplink),
            Box::new(upper),
            collector.clone(),
            Some(ship),
            relayed,
        )
    });
    let Some(session) = shared.enter(&framer) else {
        framer.begin_drain();
        return None;
    };
    *slot.borrow_mut() = Some((session, framer.clone()));
    Some(framer)
}

/// The session's number and its framer, once both are known.
type Slot = Rc<RefCell<Option<(u64, Mailbox<RelayFramer>)>>>;

struct Actors {
    dispatcher: Mailbox<Dispatcher>,
    rpc: Mailbox<RpcQueue>,
    supervisor: Mailbox<ProcessSupervisor>,
}

/// The session above a framer.
struct SessionUpper {
    shared: Arc<Shared>,
    slot: Slot,
    trace: Rc<RefCell<Option<Mailbox<TraceCollector>>>>,
    actors: Option<Actors>,
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
        let options = |capacity| HostOptions::new(capacity).escalating(ends_link(&framer));
        let (supervising, dispatching) = (options(SUPERVISOR_MAILBOX_MAX), options(DISPATCHER_MAILBOX_MAX));
        let (queueing, collecting) = (options(RPC_MAILBOX_MAX), options(TRACE_MAILBOX_MAX));
        let supervisor = start_here(supervising, move || {
            let shared = Arc::clone(&shared);
            let on_empty = Box::new(move || shared.leave(session));
            ProcessSupervisor::new(Arc::clone(&spawner), f.clone(), c.clone(), on_empty)
        });
        let (environment, s, pass) = (
            self.shared.environment.clone(),
            supervisor.clone(),
            Arc::clone(pass),
        );
        let dispatcher = start_here(dispatching, move || {
            Dispatcher::new(environment.clone(), s.clone(), Arc::clone(&pass))
        });
        let (d, f, c) = (dispatcher.clone(), framer.clone(), collector.clone());
        let rpc = start_here(queueing, move || RpcQueue::new(d.clone(), f.clone(), c.clone()));
        let trace = start_here(collecting, move || {
            TraceCollector::new(collector.clone(), framer.clone())
        });
        *self.trace.borrow_mut() = Some(trace);
        self.actors = Some(Actors {
            dispatcher,
            rpc,
            supervisor,
        });
        Some(())
    }

    fn welcome(&self) -> Option<Vec<u8>> {
        let mut grant = [0; 32];
        // Nothing resumes a session in this version; the grant is drawn so that it means nothing to anyone else.
        getrandom::fill(&mut grant).ok()?;
        let welcome = Welcome {
            epoch: ByteBuf::from(self.shared.epoch.to_vec()),
            grant: ByteBuf::from(grant.to_vec()),
            unix_ns: unix_now_ns(),
            environment: self.shared.environment.clone(),
        };
        welcome.encode().ok()
    }
}

impl Upper for SessionUpper {
    fn authorize(&mut self, client: PublicKey, hello: &[u8], handshake: &[u8; 32]) -> Option<Vec<u8>> {
        let hello = match Hello::decode(hello) {
            Ok(hello) => hello,
            Err(error) => {
                tracing::warn!(%client, %error, "a client's hello was not understood");
                self.shared.gate.not_understood(&client, handshake);
                return None;
            }
        };
        let (now, now_unix_s) = (Instant::now(), wall_unix_ms() / 1_000);
        match (self.shared.gate).admit(now, now_unix_s, &client, &hello.authorization, handshake) {
            Verdict::Serve => self.welcome(),
            Verdict::Refuse => {
                let fingerprint = dwell_relay::fingerprint(&client);
                tracing::warn!(%client, %fingerprint, "a client was turned away");
                None
            }
        }
    }

    fn established(&mut self, peer: LinkEstablished, _: &mut Turn<'_, RelayFramer>) {
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
            Wire::Cancel(_) | Wire::Ack(_) | Wire::Pong(_) => {}
            Wire::Response { .. }
            | Wire::Event { .. }
            | Wire::Ping(_)
            | Wire::Goodbye(_)
            | Wire::TraceRecords { .. } => {
                tracing::debug!("a message that no harness sends was passed over");
            }
        }
    }

    fn unanswerable(&mut self, error: &DecodeError, turn: &mut Turn<'_, RelayFramer>) {
        let (Some(actors), Some(id)) = (&self.actors, error.request_id()) else {
            return;
        };
        let code = match error {
            DecodeError::UnknownMethod { .. } => ErrorCode::UnknownMethod,
            _ => ErrorCode::BadRequest,
        };
        let error = WireError::new(code, error.to_string());
        let message = RpcMessage::Refuse {
            id,
            error,
            arrival: Tick::now(),
        };
        turn.tell(&actors.rpc, TraceContext::default(), message);
    }

    fn lost(&mut self, why: LinkLost, _: &mut Turn<'_, RelayFramer>) {
        tracing::info!(%why, "a session is over: what it runs is terminated");
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
        if let Some(trace) = self.trace.borrow_mut().take() {
            trace.begin_drain();
        }
        let session = self.slot.borrow_mut().take();
        match (self.actors.take(), session) {
            (Some(actors), _) => {
                // A host holds its own address: what is not drained would outlive its session.
                actors.dispatcher.begin_drain();
                actors.rpc.begin_drain();
                drop(actors.supervisor.control(SupervisorControl::Terminate));
            }
            (None, Some((session, _))) => self.shared.leave(session),
            (None, None) => {}
        }
    }
}
