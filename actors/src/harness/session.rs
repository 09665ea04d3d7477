//! A harness's session: its actors, on one arbiter, over one link.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dwell_messages::codec::DecodeError;
use dwell_messages::{
    Envelope, EnvironmentInfo, ErrorCode, Event, Message as Wire, OutputStream, ProcessId, PublicKey,
    RequestId, Resume, Resumed, TraceContext, Welcome,
};
use dwell_relay::resume::Redial;
use dwell_relay::{LinkEstablished, ResetCode};
use tokio::sync::{mpsc, oneshot};

use super::dial::{Dialer, redial};
use super::foreign::{self, OpenError};
use super::handle::identity_of;
use super::run::Asker;
use super::sessions::{Adoption, TakeUp};
use super::start_up::{StageGuard, StartUp, StartUpStage};
use super::{ConnectError, Connected, First, GRACE, RefusedBy, RunError, RunShared, START, loads_at_once};
use crate::dispatcher::client::{Dispatcher, DispatcherControl};
use crate::dispatcher::{DISPATCHER_MAILBOX_MAX, Mode};
use crate::files::RemoteFiles;
use crate::in_flight::{Call, CallKind};
use crate::mailbox::{BulkResidence, HostOptions, Mailbox, TimerGuard, Turn, start_here};
use crate::metadata_store::worker::StoreHandle;
use crate::relay_framer::{
    Arrival, FramerControl, LinkLost, OUTBOUND_MESSAGES_MAX, RelayFramer, RoundTrip, Upper, ends_link,
};
use crate::rpc_queue::RPC_MAILBOX_MAX;
use crate::rpc_queue::caller::{RpcControl, RpcMessage, RpcQueue};
use crate::run_recorder::{RUN_RECORDER_MAILBOX_MAX, RunRecorder};
use crate::telemetry::{Anchor, ClockEstimate, Collector, Tick, root, unix_now_ns};
use crate::terminal_delivery::receive::{
    DELIVERY_MAILBOX_MAX, Progress, ReceiveControl, ReceiveMessage, RunFacts, TerminalDelivery,
    Wiring as DeliveryWiring,
};
use crate::trace_collector::{TRACE_MAILBOX_MAX, TraceCollector, TraceControl, TraceMessage};
use crate::workspace::{Through, WORKSPACE_MAILBOX_MAX, Workspace, WorkspaceMessage};

/// Why a link did not come up.
pub(crate) enum Failed {
    Dial(std::io::Error),
    Lost(LinkLost),
    /// The executor has another life than the session that was to be taken up.
    NoSession,
    Local(String),
}

impl From<OpenError> for Failed {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Dial(error) => Self::Dial(error),
            error @ (OpenError::Refused(_) | OpenError::Strange(_)) => {
                Self::Lost(LinkLost::Failed(error.to_string()))
            }
        }
    }
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
            Self::NoSession => f.write_str("the executor was restarted"),
            Self::Local(why) => f.write_str(why),
        }
    }
}

impl Failed {
    /// One word, of a fixed set.
    fn error_type(&self) -> &'static str {
        match self {
            Self::Dial(_) => "unreachable",
            Self::Lost(_) => "handshake",
            Self::NoSession => "no_session",
            Self::Local(_) => "local",
        }
    }

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
            Self::Lost(LinkLost::TurnedAway { error, owner }) => match error.code {
                ErrorCode::Superseded => ConnectError::Superseded { owner },
                ErrorCode::UnknownSession => ConnectError::NoSession,
                _ => ConnectError::NotTakenUp(error),
            },
            Self::NoSession => ConnectError::NoSession,
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
    pub(crate) metadata: StoreHandle,
    /// The session to take up instead of beginning one.
    pub(crate) take_up: Option<TakeUp>,
    /// The stage that dialling is.
    pub(crate) connect: StageGuard,
    pub(crate) start_up: StartUp,
    /// The workspace that is asked for in the first record, and the last handle of an open file that was given out.
    pub(crate) workspace: Option<(First, Arc<AtomicU64>)>,
    pub(crate) ready: oneshot::Sender<Result<Connected, Failed>>,
}

/// Dials and starts the session's actors, all on this arbiter.
pub(crate) async fn open(plan: Plan) {
    let Plan {
        dialer,
        resume_for,
        collector,
        metadata,
        take_up,
        connect,
        start_up,
        workspace,
        ready,
    } = plan;
    if let Some(place) = dialer.target.foreign.clone() {
        let plan = Plan {
            dialer,
            resume_for,
            collector,
            metadata,
            take_up,
            connect,
            start_up,
            workspace,
            ready,
        };
        return open_foreign(plan, place).await;
    }
    let dialled = Tick::now();
    let attachment = match dialer.first().await {
        Ok(attachment) => attachment,
        Err(failed) => {
            connect.fail(failed.error_type());
            crate::telemetry::count_crossing();
            return drop(ready.send(Err(failed)));
        }
    };
    connect.finish();
    let learning = start_up.stage(StartUpStage::Environment);
    let mut welcome = match Welcome::decode(&attachment.peer.welcome) {
        Ok(welcome) => welcome,
        Err(error) => {
            let why = format!("the executor's welcome is not understood: {error}");
            learning.fail("welcome");
            return drop(ready.send(Err(Failed::Local(why))));
        }
    };
    if let Some(wanted) = &take_up {
        if wanted.epoch != welcome.epoch {
            return drop(ready.send(Err(Failed::NoSession)));
        }
        (welcome.session, welcome.grant) = (wanted.session, wanted.grant.clone());
    }
    let owner = take_up.as_ref().map(|wanted| wanted.owner.saturating_add(1));
    let adoptions = take_up.map_or_else(Vec::new, |wanted| wanted.processes);
    let adopted: Rc<RefCell<Vec<Adopted>>> = Rc::default();
    let _entered = collector.enter();
    let (environment, executor) = (welcome.environment.clone(), dialer.target.executor);
    let wiring: Rc<RefCell<Option<Rc<Wiring>>>> = Rc::default();
    let mut upper = Some(HarnessUpper {
        wiring: Rc::clone(&wiring),
        ready: Some(ready),
        learning: Some(learning),
        round_trip_us: Tick::now().micros_since(dialled).max(1),
        ping_us: Arc::default(),
        clock: ClockEstimate::default(),
        routes: HashMap::new(),
        adopted: Rc::clone(&adopted),
        runs: Vec::new(),
        whole: owner.is_none(),
        ships: true,
        dialer: Rc::new(dialer),
        number: Arc::new(AtomicU64::new(welcome.session)),
        welcome,
        resume_for,
        redial: Rc::default(),
        redialling: None,
        said: Vec::new(),
    });
    let mut first = Some(Box::new(attachment));
    let accompanied = workspace.is_some();
    let framer_collector = collector.clone();
    let framer = start_here(HostOptions::new(OUTBOUND_MESSAGES_MAX), move || {
        let upper = upper
            .take()
            .map_or_else(|| Box::new(Nobody) as Box<dyn Upper>, |upper| Box::new(upper));
        let framer = RelayFramer::new(first.take(), upper, framer_collector.clone());
        let framer = if accompanied { framer.accompanied() } else { framer };
        match owner {
            Some(owner) => framer.taking(owner),
            None => framer,
        }
    });
    // The framer begins when this has returned.
    let actors = start_actors(&framer, &metadata, &collector);
    let taken: Vec<_> = adoptions
        .into_iter()
        .map(|adoption| adopt(adoption, &actors, &collector))
        .collect();
    let runs = taken
        .iter()
        .map(|taken| (taken.process, taken.route.delivery.clone()))
        .collect();
    drop(actors.dispatcher.control(DispatcherControl::Adopted(runs)));
    *adopted.borrow_mut() = taken;
    if let Some((mut first, handles)) = workspace {
        first.load.stage = Some(start_up.stage(StartUpStage::Workspace));
        ask_first(first, &actors, &environment, || {
            RemoteFiles::new(actors.asker(), identity_of(&executor), handles)
        });
    }
    *wiring.borrow_mut() = Some(Rc::new(actors));
}

/// The same with a server of the JSON dialect: there is no link, and nothing to take up.
async fn open_foreign(plan: Plan, place: foreign::Place) {
    let Plan {
        dialer,
        resume_for,
        collector,
        metadata,
        take_up,
        connect,
        start_up,
        workspace,
        ready,
    } = plan;
    if take_up.is_some() {
        let why = "sessions of such an environment cannot be taken up";
        return drop(ready.send(Err(Failed::Local(why.into()))));
    }
    let dialled = Tick::now();
    let opened = match foreign::open(&place).await {
        Ok(opened) => opened,
        Err(error) => {
            let failed = Failed::from(error);
            connect.fail(failed.error_type());
            crate::telemetry::count_crossing();
            return drop(ready.send(Err(failed)));
        }
    };
    connect.finish();
    let learning = start_up.stage(StartUpStage::Environment);
    let _entered = collector.enter();
    let welcome = opened.welcome();
    let (environment, executor) = (welcome.environment.clone(), dialer.target.executor);
    let wiring: Rc<RefCell<Option<Rc<Wiring>>>> = Rc::default();
    let pings = dialer.pings;
    let mut upper = Some(HarnessUpper {
        wiring: Rc::clone(&wiring),
        ready: Some(ready),
        learning: Some(learning),
        round_trip_us: Tick::now().micros_since(dialled).max(1),
        ping_us: Arc::default(),
        clock: ClockEstimate::default(),
        routes: HashMap::new(),
        adopted: Rc::default(),
        runs: Vec::new(),
        whole: true,
        ships: false,
        dialer: Rc::new(dialer),
        number: Arc::new(AtomicU64::new(welcome.session)),
        welcome,
        resume_for,
        redial: Rc::default(),
        redialling: None,
        said: Vec::new(),
    });
    let (carrier, outgoing) = mpsc::channel(foreign::OUTGOING_MAX);
    let framer_collector = collector.clone();
    let mut carrier = Some(carrier);
    let framer = start_here(HostOptions::new(OUTBOUND_MESSAGES_MAX), move || {
        let upper = upper
            .take()
            .map_or_else(|| Box::new(Nobody) as Box<dyn Upper>, |upper| Box::new(upper));
        match carrier.take() {
            Some(carrier) => RelayFramer::foreign(upper, framer_collector.clone(), carrier),
            None => RelayFramer::new(None, upper, framer_collector.clone()),
        }
    });
    let actors = start_actors(&framer, &metadata, &collector);
    if let Some((mut first, handles)) = workspace {
        first.load.stage = Some(start_up.stage(StartUpStage::Workspace));
        ask_first(first, &actors, &environment, || {
            RemoteFiles::new(actors.asker(), identity_of(&executor), handles)
        });
    }
    *wiring.borrow_mut() = Some(Rc::new(actors));
    drop(framer.control(FramerControl::Upper(Box::new(|upper| upper.up()))));
    let window = resume_for.min(foreign::RECOVERY_WINDOW);
    actix_rt::spawn(foreign::serve(opened, place, (window, pings), outgoing, framer));
}

/// Asks for a workspace before anybody has the session: the framer has not begun, so what is asked here is in its first
/// record.
fn ask_first(
    first: First,
    actors: &Wiring,
    environment: &EnvironmentInfo,
    files: impl FnOnce() -> RemoteFiles,
) {
    let First {
        mut load,
        context,
        from_here,
    } = first;
    if from_here || !loads_at_once(environment) {
        let files = files().parent(context.clone());
        load.through = Through::Files(Arc::new(files), environment.cwd.to_vec());
    }
    let message = WorkspaceMessage::Load(Box::new(load));
    // A mailbox that is new has room.
    drop(actors.workspace.try_tell(Envelope::new(context, message)));
}

/// A process of the session that is taken up, and where its events go.
struct Adopted {
    process: ProcessId,
    route: Route,
    shared: Arc<RunShared>,
}

fn adopt(adoption: Adoption, actors: &Wiring, collector: &Collector) -> Adopted {
    let Adoption {
        process,
        program,
        next,
    } = adoption;
    let wiring = DeliveryWiring {
        rpc: actors.rpc.clone(),
        framer: actors.framer.clone(),
        dispatcher: actors.dispatcher.clone(),
        metadata: actors.metadata.clone(),
        collector: collector.clone(),
    };
    let facts = RunFacts {
        process,
        mode: Mode::Parallel,
        context: root(false),
        begun: Tick::now(),
    };
    let call = Call::new(CallKind::Run, START, &facts.context, facts.begun);
    let shared = Arc::new(RunShared::new(collector.board().call(call), None));
    let progress = Arc::new(Progress::from(next));
    let (waits, dispatcher) = (Arc::clone(&shared), actors.dispatcher.clone());
    let options = HostOptions::new(DELIVERY_MAILBOX_MAX).escalating(move |failure| {
        waits.end(Err(RunError::Lost(failure.to_string())), Tick::now());
        drop(dispatcher.control(DispatcherControl::Finished(process, Mode::Parallel)));
    });
    let (owned, its_progress) = (Arc::clone(&shared), Arc::clone(&progress));
    let delivery = start_here(options, move || {
        let both = (Arc::clone(&owned), Arc::clone(&its_progress));
        let program = program.clone().into_bytes();
        TerminalDelivery::new(facts.clone(), wiring.clone(), both, program, None, GRACE).adopting(next)
    });
    shared.adopted(process, &delivery);
    let route = Route {
        delivery,
        bulk: Arc::default(),
        progress,
    };
    Adopted {
        process,
        route,
        shared,
    }
}

struct Wiring {
    rpc: Mailbox<RpcQueue>,
    dispatcher: Mailbox<Dispatcher>,
    metadata: Mailbox<RunRecorder>,
    trace: Mailbox<TraceCollector>,
    workspace: Mailbox<Workspace>,
    framer: Mailbox<RelayFramer>,
}

impl Wiring {
    fn asker(&self) -> Asker {
        Asker {
            dispatcher: self.dispatcher.clone(),
            rpc: self.rpc.clone(),
            context: TraceContext::default(),
        }
    }
}

fn start_actors(framer: &Mailbox<RelayFramer>, metadata: &StoreHandle, collector: &Collector) -> Wiring {
    let (f, c) = (framer.clone(), collector.clone());
    let rpc = start_here(
        HostOptions::new(RPC_MAILBOX_MAX).escalating(ends_link(framer)),
        move || RpcQueue::new(f.clone(), c.clone()),
    );
    let worker = metadata.clone();
    let metadata = start_here(
        HostOptions::new(RUN_RECORDER_MAILBOX_MAX).restarting(),
        move || RunRecorder::new(&worker),
    );
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
    let asker = Asker {
        dispatcher: dispatcher.clone(),
        rpc: rpc.clone(),
        context: TraceContext::default(),
    };
    let c = collector.clone();
    let options = HostOptions::new(WORKSPACE_MAILBOX_MAX).escalating(ends_link(framer));
    let workspace = start_here(options, move || Workspace::new(asker.clone(), c.clone()));
    Wiring {
        rpc,
        dispatcher,
        metadata,
        trace,
        workspace,
        framer: framer.clone(),
    }
}

/// The harness above a framer.
struct HarnessUpper {
    wiring: Rc<RefCell<Option<Rc<Wiring>>>>,
    ready: Option<oneshot::Sender<Result<Connected, Failed>>>,
    /// The stage that ends when whoever connects gets the session.
    learning: Option<StageGuard>,
    round_trip_us: u64,
    ping_us: Arc<AtomicU64>,
    /// The executor's clock, as far as is known.
    clock: ClockEstimate,
    routes: HashMap<ProcessId, Route>,
    /// Processes that are taken up with the session; moved to the routes with its first message.
    adopted: Rc<RefCell<Vec<Adopted>>>,
    /// They, as their consumers get them.
    runs: Vec<(ProcessId, Arc<RunShared>)>,
    /// Whether every process of the session is this side's.
    whole: bool,
    /// Whether the other side sends the spans of what it did.
    ships: bool,
    dialer: Rc<Dialer>,
    welcome: Welcome,
    /// The session's number, for whoever asks.
    number: Arc<AtomicU64>,
    resume_for: Duration,
    /// How dialling again goes, and since when this link has been up.
    redial: Rc<RefCell<(Redial, Option<Instant>)>>,
    redialling: Option<TimerGuard>,
    /// How far the runs had come by the present link's first words.
    said: Vec<dwell_messages::Progress>,
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
        for adopted in self.adopted.borrow_mut().drain(..) {
            let delivery = &adopted.route.delivery;
            drop(delivery.control(ReceiveControl::Lost(why.to_owned())));
        }
        // The dispatcher tells them too, unless it is the one that failed.
        for (_, route) in self.routes.drain() {
            drop(route.delivery.control(ReceiveControl::Lost(why.to_owned())));
        }
    }

    fn wiring(&self) -> Option<Rc<Wiring>> {
        self.wiring.borrow().clone()
    }

    /// Messages flow: whoever connects gets the session.
    fn ready(&mut self, adopted: Vec<(ProcessId, Arc<RunShared>)>) {
        self.ping_us.store(self.round_trip_us, Ordering::Relaxed);
        self.redial.borrow_mut().1 = Some(Instant::now());
        let (Some(ready), Some(wiring)) = (self.ready.take(), self.wiring()) else {
            return;
        };
        let now = unix_now_ns();
        let dialled = now.saturating_sub(self.round_trip_us.saturating_mul(1_000));
        let clock = self.clock.observe(dialled, now, self.welcome.unix_ns);
        drop(wiring.trace.control(TraceControl::Clock(clock)));
        drop(wiring.dispatcher.control(DispatcherControl::Ready));
        let connected = Connected {
            dispatcher: wiring.dispatcher.clone(),
            rpc: wiring.rpc.clone(),
            framer: wiring.framer.clone(),
            metadata: wiring.metadata.clone(),
            trace: wiring.trace.clone(),
            workspace: wiring.workspace.clone(),
            // Told once.
            environment: std::mem::take(&mut self.welcome.environment),
            ping_us: Arc::clone(&self.ping_us),
            session: Arc::clone(&self.number),
            epoch: self.welcome.epoch.clone(),
            adopted,
        };
        if let Some(learning) = self.learning.take() {
            learning.finish();
        }
        crate::telemetry::count_crossing();
        drop(ready.send(Ok(connected)));
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
        if self.ships
            && context.is_sampled()
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
        self.ready(Vec::new());
    }

    fn taken_up(&mut self, resumed: Resumed, _: &mut Turn<'_, RelayFramer>) {
        if let Some(wiring) = self.wiring() {
            drop(wiring.rpc.control(RpcControl::GoesOnBehind(resumed.requests)));
            let behind = DispatcherControl::GoesOnBehind(resumed.processes);
            drop(wiring.dispatcher.control(behind));
        }
        let adopted = std::mem::take(&mut self.runs);
        self.ready(adopted);
    }

    fn resume(&mut self) -> Option<Resume> {
        self.redialling = None;
        for adopted in self.adopted.borrow_mut().drain(..) {
            self.runs.push((adopted.process, adopted.shared));
            self.routes.insert(adopted.process, adopted.route);
        }
        let mut processes: Vec<_> = self
            .routes
            .iter()
            .map(|(process, route)| route.progress.of(*process))
            .collect();
        processes.sort_by_key(|progress| progress.process);
        self.said.clone_from(&processes);
        Some(Resume {
            session: self.welcome.session,
            token: self.welcome.grant.clone(),
            owner: 0,
            link: 0,
            received: 0,
            processes,
            whole: self.whole,
        })
    }

    fn granted_since(&mut self) -> Vec<Wire> {
        let mut granted = Vec::new();
        for said in std::mem::take(&mut self.said) {
            let process = ProcessId(said.process);
            let Some(route) = self.routes.get(&process) else {
                continue;
            };
            let limits = route.progress.of(process).limit;
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                let limit = limits[stream.index()];
                if limit > said.limit[stream.index()] {
                    granted.push(Wire::Credit {
                        process,
                        stream,
                        limit,
                    });
                }
            }
        }
        granted
    }

    fn anew(&mut self, welcome: &[u8]) {
        match Welcome::decode(welcome) {
            Ok(welcome) => {
                self.number.store(welcome.session, Ordering::Relaxed);
                self.welcome = welcome;
            }
            Err(error) => tracing::error!(%error, "a welcome that was understood before is not any more"),
        }
    }

    fn resumed(
        &mut self,
        links: u64,
        _: Option<Resume>,
        _: Option<RequestId>,
        _: &mut Turn<'_, RelayFramer>,
    ) {
        self.redial.borrow_mut().1 = Some(Instant::now());
        tracing::info!(links, "the session goes on over a fresh link");
    }

    fn detached(&mut self, why: &LinkLost, turn: &mut Turn<'_, RelayFramer>) -> Option<Duration> {
        // Whether a takeover came through is not known: nobody takes it a second time.
        if self.resume_for.is_zero() || self.ready.is_some() {
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
            Wire::Request { .. }
            | Wire::Cancel(_)
            | Wire::Ack { .. }
            | Wire::Credit { .. }
            | Wire::Ping(_)
            | Wire::Pong(_)
            | Wire::Resume(_)
            | Wire::Resumed(_)
            | Wire::ResumeRefused(_)
            | Wire::Goodbye(_) => {
                tracing::debug!("a message that no executor sends was passed over");
            }
        }
    }

    fn round_trip(&mut self, trip: RoundTrip, their_unix_ns: u64) {
        self.ping_us.store(trip.usual_us, Ordering::Relaxed);
        let Some(wiring) = self.wiring().filter(|_| their_unix_ns != 0) else {
            return;
        };
        let anchor = Anchor::take();
        let (sent, received) = (anchor.unix_ns(trip.sent), anchor.unix_ns(trip.received));
        let clock = self.clock.observe(sent, received, their_unix_ns);
        drop(wiring.trace.control(TraceControl::Clock(clock)));
    }

    fn unanswerable(&mut self, _: TraceContext, error: &DecodeError, _: &mut Turn<'_, RelayFramer>) {
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

    fn fail(&mut self, process: ProcessId, why: &str) {
        if let Some(route) = self.routes.get(&process) {
            drop(route.delivery.control(ReceiveControl::Lost(why.to_owned())));
        }
    }

    fn up(&mut self) {
        self.ready(Vec::new());
    }

    fn owed(&mut self, process: ProcessId) {
        if let Some(wiring) = self.wiring().filter(|_| self.ships) {
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
    fn resumed(&mut self, _: u64, _: Option<Resume>, _: Option<RequestId>, _: &mut Turn<'_, RelayFramer>) {}
    fn detached(&mut self, _: &LinkLost, _: &mut Turn<'_, RelayFramer>) -> Option<Duration> {
        None
    }
    fn message(&mut self, _: Arrival, _: Envelope<Wire>, _: &mut Turn<'_, RelayFramer>) {}
    fn unanswerable(&mut self, _: TraceContext, _: &DecodeError, _: &mut Turn<'_, RelayFramer>) {}
    fn lost(&mut self, _: LinkLost, _: &mut Turn<'_, RelayFramer>) {}
}
