//! A harness's session: its actors, on one arbiter, over one link.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dwell_messages::codec::DecodeError;
use dwell_messages::{Envelope, Event, Message as Wire, ProcessId, PublicKey, Resume, TraceContext, Welcome};
use dwell_relay::resume::Redial;
use dwell_relay::{LinkEstablished, ResetCode};
use tokio::sync::oneshot;

use super::dial::{Dialer, redial};
use super::{ConnectError, Connected, RefusedBy};
use crate::dispatcher::DISPATCHER_MAILBOX_MAX;
use crate::dispatcher::client::{Dispatcher, DispatcherControl};
use crate::mailbox::{BulkResidence, HostOptions, Mailbox, TimerGuard, Turn, start_here};
use crate::metadata_writer::{METADATA_MAILBOX_MAX, MetadataHandle, MetadataWriter};
use crate::relay_framer::{Arrival, LinkLost, OUTBOUND_MESSAGES_MAX, RelayFramer, Upper, ends_link};
use crate::rpc_queue::RPC_MAILBOX_MAX;
use crate::rpc_queue::caller::{RpcControl, RpcMessage, RpcQueue};
use crate::telemetry::{ClockOffset, Collector, Tick, unix_now_ns};
use crate::terminal_delivery::receive::{Progress, ReceiveControl, ReceiveMessage, TerminalDelivery};
use crate::trace_collector::{TRACE_MAILBOX_MAX, TraceCollector, TraceControl, TraceMessage};

/// Why a link did not come up.
pub(crate) enum Failed {
    Dial(std::io::Error),
    Lost(LinkLost),
    Local(String),
}

impl From<LinkLost> for Failed {
    fn from(lost: LinkLost) -> Self {
        Self::Lost(lost)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dial(error) => write!(f, "{error}"),
            Self::Lost(lost) => write!(f, "{lost}"),
            Self::Local(why) => f.write_str(why),
        }
    }
}

impl Failed {
    pub(crate) fn into_error(self, address: String, client: PublicKey) -> ConnectError {
        match self {
            Self::Dial(source)
                if matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput) =>
            {
                ConnectError::Transport { address, source }
            }
            Self::Dial(source) => ConnectError::Unreachable { address, source },
            Self::Local(why) => ConnectError::Local(why),
            Self::Lost(LinkLost::Reset {
                code: ResetCode::Unavailable,
                ..
            }) => ConnectError::HandshakeRefused {
                address,
                client,
                by: RefusedBy::Relay,
            },
            Self::Lost(LinkLost::Refused(text)) => ConnectError::Refused(text),
            Self::Lost(lost) => ConnectError::Failed {
                address,
                why: lost.to_string(),
            },
        }
    }
}

/// What a session is made of.
pub(crate) struct Plan {
    pub(crate) dialer: Dialer,
    pub(crate) resume_for: Duration,
    pub(crate) collector: Collector,
    pub(crate) metadata: MetadataHandle,
    pub(crate) ready: oneshot::Sender<Result<Connected, Failed>>,
}

/// Dials and starts the session's actors, all on this arbiter.
pub(crate) async fn open(plan: Plan) {
    let Plan {
        dialer,
        resume_for,
        collector,
        metadata,
        ready,
    } = plan;
    let dialled = Tick::now();
    let attachment = match dialer.establish().await {
        Ok(attachment) => attachment,
        Err(failed) => {
            crate::telemetry::count_crossing();
            return drop(ready.send(Err(failed)));
        }
    };
    let welcome = match Welcome::decode(&attachment.peer.welcome) {
        Ok(welcome) => welcome,
        Err(error) => {
            let why = format!("the executor's welcome is not understood: {error}");
            return drop(ready.send(Err(Failed::Local(why))));
        }
    };
    let _entered = collector.enter();
    let wiring: Rc<RefCell<Option<Wiring>>> = Rc::default();
    let mut upper = Some(HarnessUpper {
        wiring: Rc::clone(&wiring),
        ready: Some(ready),
        round_trip_us: Tick::now().micros_since(dialled).max(1),
        ping_us: Arc::default(),
        routes: HashMap::new(),
        dialer: Rc::new(dialer),
        welcome,
        resume_for,
        redial: Rc::default(),
        redialling: None,
    });
    let mut first = Some(Box::new(attachment));
    let framer_collector = collector.clone();
    let framer = start_here(HostOptions::new(OUTBOUND_MESSAGES_MAX), move || {
        let upper = upper
            .take()
            .map_or_else(|| Box::new(Nobody) as Box<dyn Upper>, |upper| Box::new(upper));
        RelayFramer::new(first.take(), upper, framer_collector.clone())
    });
    *wiring.borrow_mut() = Some(start_actors(&framer, &metadata, &collector));
}

#[derive(Clone)]
struct Wiring {
    rpc: Mailbox<RpcQueue>,
    dispatcher: Mailbox<Dispatcher>,
    metadata: Mailbox<MetadataWriter>,
    trace: Mailbox<TraceCollector>,
    framer: Mailbox<RelayFramer>,
}

fn start_actors(framer: &Mailbox<RelayFramer>, metadata: &MetadataHandle, collector: &Collector) -> Wiring {
    let (f, c) = (framer.clone(), collector.clone());
    let rpc = start_here(
        HostOptions::new(RPC_MAILBOX_MAX).escalating(ends_link(framer)),
        move || RpcQueue::new(f.clone(), c.clone()),
    );
    let worker = metadata.clone();
    let metadata = start_here(HostOptions::new(METADATA_MAILBOX_MAX).restarting(), move || {
        MetadataWriter::new(&worker)
    });
    let (f, c) = (framer.clone(), collector.clone());
    let trace = start_here(
        HostOptions::new(TRACE_MAILBOX_MAX).escalating(ends_link(framer)),
        move || TraceCollector::new(c.clone(), f.clone()),
    );
    let (r, f, m, c) = (rpc.clone(), framer.clone(), metadata.clone(), collector.clone());
    let options = HostOptions::new(DISPATCHER_MAILBOX_MAX).escalating(ends_link(framer));
    let dispatcher = start_here(options, move || {
        Dispatcher::new(r.clone(), f.clone(), m.clone(), c.clone())
    });
    Wiring {
        rpc,
        dispatcher,
        metadata,
        trace,
        framer: framer.clone(),
    }
}

/// The harness above a framer.
struct HarnessUpper {
    wiring: Rc<RefCell<Option<Wiring>>>,
    ready: Option<oneshot::Sender<Result<Connected, Failed>>>,
    round_trip_us: u64,
    ping_us: Arc<AtomicU64>,
    routes: HashMap<ProcessId, Route>,
    dialer: Rc<Dialer>,
    welcome: Welcome,
    resume_for: Duration,
    /// How dialling again goes, and since when this link has been up.
    redial: Rc<RefCell<(Redial, Option<Instant>)>>,
    redialling: Option<TimerGuard>,
}

struct Route {
    delivery: Mailbox<TerminalDelivery>,
    bulk: Arc<BulkResidence>,
    progress: Arc<Progress>,
}

impl HarnessUpper {
    /// Tells everybody, once.
    fn end(&mut self, why: &str) {
        if let Some(wiring) = self.wiring.borrow_mut().take() {
            drop(wiring.rpc.control(RpcControl::Lost(why.to_owned())));
            drop(wiring.dispatcher.control(DispatcherControl::Lost(why.to_owned())));
            drop(wiring.trace.control(TraceControl::Forget(None)));
        }
        // The dispatcher tells them too, unless it is the one that failed.
        for (_, route) in self.routes.drain() {
            drop(route.delivery.control(ReceiveControl::Lost(why.to_owned())));
        }
    }

    fn wiring(&self) -> Option<Wiring> {
        self.wiring.borrow().clone()
    }

    fn event(
        &mut self,
        process: ProcessId,
        event: Event,
        arrival: Arrival,
        context: TraceContext,
        turn: &mut Turn<'_, RelayFramer>,
    ) {
        // A process that nobody waits for any more may still speak until it hears that it is to end.
        let Some(route) = self.routes.get(&process) else {
            return;
        };
        if context.is_sampled()
            && matches!(event, Event::Closed(_))
            && let Some(wiring) = self.wiring()
        {
            turn.tell(&wiring.trace, context.clone(), TraceMessage::Await(process));
        }
        let bulk = matches!(event, Event::Output(_)).then(|| Arc::clone(&route.bulk));
        let delivery = route.delivery.clone();
        turn.tell(&delivery, context, ReceiveMessage::Event { event, arrival, bulk });
    }
}

impl Upper for HarnessUpper {
    fn begun(&mut self, _: &LinkEstablished, _: &mut Turn<'_, RelayFramer>) {
        self.ping_us.store(self.round_trip_us, Ordering::Relaxed);
        self.redial.borrow_mut().1 = Some(Instant::now());
        let (Some(ready), Some(wiring)) = (self.ready.take(), self.wiring()) else {
            return;
        };
        let round_trip = self.round_trip_us;
        let middle = unix_now_ns().saturating_sub(round_trip * 500);
        let offset_us = (i128::from(self.welcome.unix_ns) - i128::from(middle)) / 1_000;
        let clock = ClockOffset {
            offset_us: i64::try_from(offset_us).unwrap_or(i64::MAX),
            error_us: round_trip / 2,
        };
        drop(wiring.trace.control(TraceControl::Clock(clock)));
        drop(wiring.dispatcher.control(DispatcherControl::Ready));
        let connected = Connected {
            dispatcher: wiring.dispatcher,
            rpc: wiring.rpc,
            framer: wiring.framer,
            metadata: wiring.metadata,
            trace: wiring.trace,
            environment: self.welcome.environment.clone(),
            ping_us: Arc::clone(&self.ping_us),
        };
        crate::telemetry::count_crossing();
        drop(ready.send(Ok(connected)));
    }

    fn resume(&mut self) -> Option<Resume> {
        self.redialling = None;
        let mut processes: Vec<_> = self
            .routes
            .iter()
            .map(|(process, route)| route.progress.of(*process))
            .collect();
        processes.sort_by_key(|progress| progress.process);
        Some(Resume {
            session: self.welcome.session,
            token: self.welcome.grant.clone(),
            owner: 0,
            received: 0,
            processes,
            whole: true,
        })
    }

    fn anew(&mut self, welcome: &[u8]) {
        match Welcome::decode(welcome) {
            Ok(welcome) => self.welcome = welcome,
            Err(error) => tracing::error!(%error, "a welcome that was understood before is not any more"),
        }
    }

    fn resumed(&mut self, links: u64, _: Option<Resume>, _: &mut Turn<'_, RelayFramer>) {
        self.redial.borrow_mut().1 = Some(Instant::now());
        tracing::info!(links, "the session goes on over a fresh link");
    }

    fn detached(&mut self, why: &LinkLost, turn: &mut Turn<'_, RelayFramer>) -> Option<Duration> {
        if self.resume_for.is_zero() {
            return None;
        }
        tracing::warn!(%why, "the link is lost: dialling again");
        let round_trip = Duration::from_micros(self.ping_us.load(Ordering::Relaxed));
        let dialling = redial(
            Rc::clone(&self.dialer),
            Rc::clone(&self.redial),
            self.welcome.epoch.clone(),
            round_trip,
            turn.mailbox(),
        );
        self.redialling = Some(turn.spawn(dialling));
        Some(self.resume_for)
    }

    fn message(&mut self, arrival: Arrival, envelope: Envelope<Wire>, turn: &mut Turn<'_, RelayFramer>) {
        let context = envelope.context;
        let Some(wiring) = self.wiring() else { return };
        match envelope.body {
            Wire::Response { id, result, timings } => {
                let answer = Box::new((result, timings));
                turn.tell(&wiring.rpc, context, RpcMessage::Response { id, answer, arrival });
            }
            Wire::Event { process, event } => self.event(process, event, arrival, context, turn),
            Wire::TraceRecords { process, records } => {
                let message = TraceMessage::Received(process, Box::new(records));
                turn.tell(&wiring.trace, context, message);
            }
            Wire::Pong(raw) => {
                let sent = Tick::from_raw(raw);
                self.ping_us
                    .store(Tick::now().micros_since(sent).max(1), Ordering::Relaxed);
            }
            Wire::Request { .. }
            | Wire::Cancel(_)
            | Wire::Ack { .. }
            | Wire::Credit { .. }
            | Wire::Ping(_)
            | Wire::Resume(_)
            | Wire::Resumed(_)
            | Wire::ResumeRefused(_)
            | Wire::Goodbye(_) => {
                tracing::debug!("a message that no executor sends was passed over");
            }
        }
    }

    fn unanswerable(&mut self, error: &DecodeError, _: &mut Turn<'_, RelayFramer>) {
        tracing::warn!(%error, "the executor asked something of its harness");
    }

    fn route(&mut self, process: ProcessId, to: Mailbox<TerminalDelivery>, progress: Arc<Progress>) {
        self.routes.insert(
            process,
            Route {
                delivery: to,
                bulk: Arc::default(),
                progress,
            },
        );
    }

    fn unroute(&mut self, process: ProcessId) {
        self.routes.remove(&process);
    }

    fn owed(&mut self, process: ProcessId) {
        if let Some(wiring) = self.wiring() {
            drop(wiring.trace.control(TraceControl::Await(process)));
        }
    }

    fn lost(&mut self, why: LinkLost, _: &mut Turn<'_, RelayFramer>) {
        self.redialling = None;
        let text = why.to_string();
        if let Some(ready) = self.ready.take() {
            crate::telemetry::count_crossing();
            drop(ready.send(Err(why.into())));
        }
        self.end(&text);
    }
}

impl Drop for HarnessUpper {
    fn drop(&mut self) {
        // Without this the framer's own panic would leave everybody waiting.
        self.end("the link's own actor failed");
    }
}

/// Above a framer whose session is gone.
struct Nobody;

impl Upper for Nobody {
    fn begun(&mut self, _: &LinkEstablished, _: &mut Turn<'_, RelayFramer>) {}
    fn resumed(&mut self, _: u64, _: Option<Resume>, _: &mut Turn<'_, RelayFramer>) {}
    fn detached(&mut self, _: &LinkLost, _: &mut Turn<'_, RelayFramer>) -> Option<Duration> {
        None
    }
    fn message(&mut self, _: Arrival, _: Envelope<Wire>, _: &mut Turn<'_, RelayFramer>) {}
    fn unanswerable(&mut self, _: &DecodeError, _: &mut Turn<'_, RelayFramer>) {}
    fn lost(&mut self, _: LinkLost, _: &mut Turn<'_, RelayFramer>) {}
}
