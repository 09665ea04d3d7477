//! The harness: asks an executor to run commands, from any runtime.

mod command;
mod dial;
pub(crate) mod foreign;
mod refusal;
mod run;
mod session;
mod sessions;
mod shared;
mod signal;
mod start_up;
mod text;
mod timings;
mod turn;
mod workspace;

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dwell_messages::{
    EnvironmentInfo, ErrorCode, ProcessId, PublicKey, Reply as WireReply, Request, Role, SpanId,
    TraceContext, TraceFlags, WireError,
};
use dwell_relay::driver::BoxFuture;
use dwell_relay::resume::Pings;
use dwell_relay::{LinkOptions, OsRandomness, StaticKeypair, fingerprint};
use serde_bytes::ByteBuf;
use tokio::sync::oneshot;

use crate::address::Address;
use crate::dispatcher::DispatchGuard;
use crate::dispatcher::client::{Dispatcher, DispatcherMessage, Exec};
use crate::executor::FLIGHT;
use crate::fault_point::delay::{self, DelayPoint};
use crate::files::RemoteFiles;
use crate::http_client::RemoteHttp;
use crate::in_flight::{Call, CallKind};
use crate::mailbox::Mailbox;
use crate::metadata_store::worker::StoreHandle;
use crate::metadata_store::{MemoryStore, MetadataStore};
use crate::oversight::{Overseen, Oversight, OversightError};
use crate::propagation;
use crate::relay_framer::{FramerControl, LinkLost, RelayFramer};
use crate::rpc_queue::caller::RpcQueue;
use crate::run_recorder::{self, RunRecorder};
use crate::runtime::{Place, Runtime, RuntimeError};
use crate::telemetry::{
    Collector, CollectorOptions, Exporters, FileSink, Sampler, SpanSink, Tick, root, span_id, trace_id,
};
use crate::threads::{ThreadError, Threads};
use crate::trace_collector::{TraceCollector, TraceMessage};
use crate::turn_diff::{TurnDiff, TurnEnvironment};
use crate::workspace::{Workspace, WorkspaceOptions};

pub(crate) use run::Asker;
use run::Flight;
use workspace::Awaited;
pub(crate) use workspace::{First, loads_at_once};

pub use command::{Command, GRACE, Inherit, TERM};
pub use refusal::INQUIRY_TIMEOUT;
pub(crate) use run::{Ended, Terminator};
pub use run::{Finished, Run, RunError, RunEvent, RunStdin};
pub use sessions::{
    LIST_PAGES_MAX, Observed, ProcessInfo, ProcessState, SessionInfo, StartedProcess, TakeUp,
};
pub(crate) use shared::RunShared;
pub use signal::{signal_name, signal_number};
pub use start_up::{StageGuard, StartUp, StartUpStage};
pub use text::TextDecoder;
pub use timings::CallTimings;
pub use turn::{Turn, TurnGuard};

/// How long `shutdown` waits for spans that executors still owe.
pub const SPANS_WAIT: Duration = Duration::from_secs(2);
/// The method of a command's start.
pub(crate) const START: &str = "Process/Start";
/// Runs an in-memory store keeps.
const MEMORY_RUNS_MAX: usize = 1_024;

/// Which executor, and how it is reached.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) address: Address,
    pub(crate) executor: PublicKey,
    pub(crate) relayed: bool,
    pub(crate) token: Vec<u8>,
    /// Set where it is no executor of dwell's.
    pub(crate) foreign: Option<foreign::Place>,
}

impl Target {
    /// The executor of this key, through a relay.
    pub fn relay(address: impl Into<Address>, executor: PublicKey) -> Self {
        Self {
            address: address.into(),
            executor,
            relayed: true,
            token: Vec::new(),
            foreign: None,
        }
    }

    /// The executor of this key, which listens itself.
    pub fn direct(address: impl Into<Address>, executor: PublicKey) -> Self {
        Self {
            address: address.into(),
            executor,
            relayed: false,
            token: Vec::new(),
            foreign: None,
        }
    }

    /// A server of the JSON dialect, such as a stock `codex exec-server`, at `ws://host:port` and a path if it has one.
    /// Commands run there as they do on an executor; what such a server does not do is refused by a typed error, among it
    /// files, workspaces, the end of a command's standard input and commands that run on without a client.
    ///
    /// **Nothing is sealed, and nobody proves who they are**: for loopback, or for what a tunnel protects.
    pub fn dialect(url: impl Into<String>) -> Self {
        let url = url.into();
        Self {
            address: Address::from(url.clone()),
            executor: PublicKey([0; 32]),
            relayed: false,
            token: Vec::new(),
            foreign: Some(foreign::Place { url, token: None }),
        }
    }

    /// The relay's admission token, at most 255 bytes. To a server of the JSON dialect: what it is told as
    /// `Authorization: Bearer`.
    #[must_use]
    pub fn token(mut self, token: impl Into<Vec<u8>>) -> Self {
        self.token = token.into();
        if let Some(foreign) = &mut self.foreign {
            foreign.token = Some(String::from_utf8_lossy(&self.token).into_owned());
        }
        self
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("{address} cannot be reached: start it, or correct the address")]
    Unreachable {
        /// What was dialled.
        address: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Somebody answers there, but not as the address's scheme says, or without being trusted: TLS or the WebSocket
    /// failed, or the text is no address.
    #[error("{address} cannot be used")]
    Transport {
        /// What was dialled.
        address: String,
        /// Why; a `TlsError`, a `WebSocketError` or an `AddressError` is in it.
        #[source]
        source: std::io::Error,
    },
    /// This client is not served, or no such executor is there: both look the same from outside.
    #[error("{}", by.sentence(address, client))]
    HandshakeRefused {
        /// What was dialled.
        address: String,
        /// The key to list.
        client: PublicKey,
        /// Who refused, as far as it can be told.
        by: RefusedBy,
    },
    /// Another executor answers there than the one that is pinned, by its own word, which nobody has proven.
    #[error(
        "the executor at {address} says that its key is {}, and {} is pinned: nothing was sent to it. Either it has a \
         new key, or this is somebody else: ask its operator for the fingerprint by another way",
        fingerprint(served),
        fingerprint(pinned)
    )]
    ExecutorKeyMismatch {
        /// What was dialled.
        address: String,
        /// The key that was expected.
        pinned: PublicKey,
        /// The key that is served. Never act on it.
        served: PublicKey,
    },
    /// The other end speaks another version, or refuses in the clear.
    #[error("{0}")]
    Refused(String),
    /// The handshake or the link failed.
    #[error("the link to {address} failed: {why}")]
    Failed {
        /// What was dialled.
        address: String,
        /// Why.
        why: String,
    },
    /// The session that was to be taken up is not there, or not this client's: both look the same.
    #[error("there is no such session: it has ended, or the executor was restarted; see which there are")]
    NoSession,
    /// Somebody else has taken the session over meanwhile.
    #[error(
        "the session has owner {owner} by now, who was quicker: look at the list again, and take it up from there"
    )]
    Superseded {
        /// The present owner's number.
        owner: u64,
    },
    /// The session is there, and this key may not have it.
    #[error("the session cannot be taken up: {0}")]
    NotTakenUp(WireError),
    /// It cannot be looked at as was asked.
    #[error(transparent)]
    Oversight(#[from] OversightError),
    /// This side could not be set up.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// This side could not be set up.
    #[error("this side could not be set up: {0}")]
    Local(String),
}

/// For how long a lost link is dialled again unless the builder says otherwise.
pub const RESUME_FOR: Duration = Duration::from_secs(600);
/// Who refused a handshake. Unauthenticated: for the sentence, and for nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusedBy {
    /// Whoever listens there says that it has the pinned key.
    Executor,
    /// Whoever listens there does not say which key it has.
    Silent,
    /// There is a relay in between, which does not tell one cause from another.
    Relay,
}

impl RefusedBy {
    fn sentence(self, address: &str, client: &PublicKey) -> String {
        match self {
            Self::Executor => format!(
                "the executor at {address} does not serve this client: its authorized_clients does not list {client}, \
                 or the line is out of date"
            ),
            Self::Silent => format!(
                "{address} refuses the handshake and does not say whose key it has: check that an executor listens \
                 there, that the key is its own, and that its authorized_clients lists {client}"
            ),
            Self::Relay => format!(
                "no executor of this key answers this client at {address}: check that it runs and is registered there, \
                 that the key is its own, and that its authorized_clients lists {client}; a relay does not tell these \
                 apart"
            ),
        }
    }
}

/// Sets up a harness.
pub struct HarnessBuilder {
    authorization: Vec<u8>,
    identity: Option<StaticKeypair>,
    traces: Option<PathBuf>,
    store: Option<PathBuf>,
    metadata: Option<Box<dyn MetadataStore>>,
    sampled: Option<bool>,
    here: bool,
    resume_for: Duration,
    pings: Pings,
    links: fn(LinkOptions) -> LinkOptions,
    take_up: Option<TakeUp>,
    sinks: Vec<Box<dyn SpanSink>>,
    oversight: Option<Oversight>,
    flight: Option<Duration>,
    parent: Option<TraceContext>,
    workspace: Option<WorkspaceOptions>,
}

impl fmt::Debug for HarnessBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HarnessBuilder")
            .field("traces", &self.traces)
            .finish_non_exhaustive()
    }
}

impl HarnessBuilder {
    /// The client key this harness proves. Default: a fresh one, which no executor lists.
    #[must_use]
    pub fn identity(mut self, identity: StaticKeypair) -> Self {
        self.identity = Some(identity);
        self
    }

    /// What message 1 says for an executor that does not list this client yet: see `keys::PairingCode`. At most 4,096
    /// bytes; sealed to the pinned key.
    #[must_use]
    pub fn authorization(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.authorization = bytes.into();
        self
    }

    /// Writes traces into this directory.
    #[must_use]
    pub fn traces(mut self, dir: impl Into<PathBuf>) -> Self {
        self.traces = Some(dir.into());
        self
    }

    /// Keeps what ran in this SQLite file (feature `store`). Default: in memory, the last thousand.
    #[must_use]
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store = Some(path.into());
        self
    }

    /// Keeps what ran in a store of the caller's instead.
    #[must_use]
    pub fn metadata_store(mut self, store: impl MetadataStore + 'static) -> Self {
        self.metadata = Some(Box::new(store));
        self
    }

    /// Whether calls without a parent are traced that do not say. Default: as `OTEL_TRACES_SAMPLER` says, and without that
    /// every one.
    #[must_use]
    pub fn sampled(mut self, sampled: bool) -> Self {
        self.sampled = Some(sampled);
        self
    }

    /// Puts the session on the actix arbiter that `connect` is called on, instead of on a thread of the library's own.
    /// A caller on that arbiter then crosses no thread on the way to the link and back: two wake-ups less a call.
    ///
    /// Within `crate::block_on`, `actix_rt::System` or `#[actix_web::main]` there is an arbiter. What blocks it
    /// blocks the link.
    #[must_use]
    pub fn here(mut self) -> Self {
        self.here = true;
        self
    }

    /// For how long the link is dialled again when it dies, before every call under way ends with its outcome unknown.
    /// Default `RESUME_FOR`. Zero: the session ends with its link.
    #[must_use]
    pub fn resume_for(mut self, resume_for: Duration) -> Self {
        self.resume_for = resume_for;
        self
    }

    /// How often the link is pinged, and how long an answer may take before the link counts as dead and is dialled again.
    /// Default: every 5 s, 10 s. A link that breaks with a word is left at once in any case.
    #[must_use]
    pub fn pings(mut self, every: Duration, dead_after: Duration) -> Self {
        self.pings = Pings { every, dead_after };
        self
    }

    /// Changes how links behave: for tests of what only time or much traffic brings.
    #[doc(hidden)]
    #[must_use]
    pub fn links(mut self, links: fn(LinkOptions) -> LinkOptions) -> Self {
        self.links = links;
        self
    }

    /// Takes up a session that another harness began, or began before it was killed, instead of beginning one. Whoever has
    /// it is told and shut out; its processes run on, and `Harness::adopt` gives them. The same client key as theirs is
    /// needed, and the scope `attach`.
    #[must_use]
    pub fn take_up(mut self, session: TakeUp) -> Self {
        self.take_up = Some(session);
        self
    }

    /// Looks at this harness while it runs: see there. Default: nobody does.
    #[must_use]
    pub fn oversight(mut self, oversight: Oversight) -> Self {
        self.oversight = Some(oversight);
        self
    }

    /// Remembers calls that are not sampled for a few seconds, and keeps the trace of each that failed or took longer
    /// than this, the executor's part included where its flight recorder is on. `Duration::MAX`: only of those that
    /// failed, which are those without a status, those that a signal killed, and those that the executor ended. Default:
    /// what is not sampled is not kept.
    #[must_use]
    pub fn flight_threshold(mut self, slower_than: Duration) -> Self {
        self.flight = Some(slower_than);
        self
    }

    /// The span that the start-up hangs below. Default: the one that the calling code is in, where that can be known. Without
    /// one the start-up is not traced: it is part of somebody's trace, or of none. Commands have parents of their own.
    #[must_use]
    pub fn parent(mut self, parent: TraceContext) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Loads this workspace in the session's first record, right behind the handshake: it is known two round trips after the
    /// transport is up, one of them the handshake's own. `Harness::first_workspace` gives it.
    #[must_use]
    pub fn workspace(mut self, options: WorkspaceOptions) -> Self {
        self.workspace = Some(options);
        self
    }

    /// Another place for spans to go.
    #[must_use]
    pub fn sink(mut self, sink: impl SpanSink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Dials and proves both ends: one round trip after the transport is up. Works on any runtime, and on none: the
    /// library has its own threads. Cancellation: dropping the future gives the link up.
    ///
    /// # Errors
    /// `ConnectError` says what to do. Within 23 s: 10 for the transport, 10 for the handshake, and after a refusal
    /// `INQUIRY_TIMEOUT` to ask an executor that is reached directly which key it has.
    pub async fn connect(self, target: Target) -> Result<Harness, ConnectError> {
        self.boxed(target).await
    }

    /// Boxed, so that what it starts is compiled with this library and not again in every program that awaits it.
    fn boxed(self, target: Target) -> BoxFuture<'static, Result<Harness, ConnectError>> {
        Box::pin(self.begin(target))
    }

    async fn begin(self, target: Target) -> Result<Harness, ConnectError> {
        let begun = Tick::now();
        let identity = match self.identity {
            Some(identity) => identity,
            None => StaticKeypair::generate(&mut OsRandomness::new())
                .map_err(|error| ConnectError::Local(error.to_string()))?,
        };
        let mut sinks = self.sinks;
        if let Some(dir) = &self.traces {
            let sink =
                FileSink::open(dir, Role::Harness).map_err(|error| ConnectError::Local(error.to_string()))?;
            sinks.push(Box::new(sink));
        }
        sinks.extend(Exporters::of_this_process(Role::Harness));
        let sampler = sampler(self.sampled);
        let local = |error: std::io::Error| ConnectError::Local(error.to_string());
        let options = CollectorOptions {
            role: Role::Harness,
            keep_recent: false,
            sinks,
        };
        let collector = Collector::start(options).map_err(local)?;
        if self.flight.is_some() {
            collector.remember_unsampled();
        }
        let runtime = if self.here {
            Runtime::here(collector.clone()).ok_or_else(not_here)?
        } else {
            Runtime::start(1, collector.clone())?
        };
        let store = match self.metadata {
            Some(store) => store,
            None => open_store(self.store.as_deref())?,
        };
        let store = StoreHandle::start(store, collector.clone()).map_err(local)?;
        let overseen = match self.oversight {
            Some(oversight) => Some(oversight.start(&collector, &runtime)?),
            None => None,
        };
        let handles = Arc::<AtomicU64>::default();
        let (first, answer) = match &self.workspace {
            Some(options) => {
                let (first, answer) = First::of(options, &sampler);
                (Some(first), Some(answer))
            }
            None => (None, None),
        };
        let (context, parent) = match ancestry(&sampler, self.parent.as_ref(), None) {
            (context, Some(parent)) => (context, parent),
            (context, None) => (root(false), context),
        };
        let start_up = StartUp::new(collector.clone(), (context, parent), begun);
        let shelf = Shelf {
            collector,
            runtime,
            store,
            sampler,
        };
        let opening = Opening {
            dialer: dial::Dialer {
                identity: Arc::new(identity),
                target,
                authorization: self.authorization,
                pings: self.pings,
                links: self.links,
            },
            resume_for: self.resume_for,
            take_up: self.take_up,
            start_up,
            begun,
            workspace: first.map(|first| (first, Arc::clone(&handles))),
            handles,
        };
        let mut harness = shelf.open(opening).await?;
        (harness.overseen, harness.flight) = (overseen, self.flight);
        if let (Some(options), Some(answer)) = (&self.workspace, answer) {
            let awaited = Awaited::new(&harness, options, answer);
            *harness.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(awaited);
        }
        Ok(harness)
    }
}

/// What several sessions of one process may share.
struct Shelf {
    collector: Collector,
    runtime: Runtime,
    store: StoreHandle,
    sampler: Sampler,
}

/// How one of them begins.
struct Opening {
    dialer: dial::Dialer,
    resume_for: Duration,
    take_up: Option<TakeUp>,
    start_up: StartUp,
    begun: Tick,
    workspace: Option<(First, Arc<AtomicU64>)>,
    handles: Arc<AtomicU64>,
}

impl Shelf {
    async fn open(self, opening: Opening) -> Result<Harness, ConnectError> {
        let Opening {
            dialer,
            resume_for,
            take_up,
            start_up,
            begun,
            workspace,
            handles,
        } = opening;
        let place = self.runtime.place();
        let (ready, wait) = oneshot::channel();
        let client = dialer.identity.public();
        let asked = dialer.target.clone();
        let plan = session::Plan {
            dialer,
            resume_for,
            collector: self.collector.clone(),
            metadata: self.store.clone(),
            take_up,
            connect: start_up.stage_at(StartUpStage::Connect, begun),
            start_up: start_up.clone(),
            workspace,
            ready,
        };
        place.arbiter().spawn_fn(move || {
            actix_rt::spawn(session::open(plan));
        });
        let connected = wait.await.unwrap_or_else(|_| Err(LinkLost::Ended.into()));
        match connected {
            Ok(connected) => Ok(Harness {
                overseen: None,
                flight: None,
                executor: asked.executor,
                handles,
                first: Mutex::default(),
                adopted: Mutex::default(),
                connected,
                collector: self.collector,
                store: self.store,
                sampler: self.sampler,
                start_up,
                _place: place,
                _runtime: self.runtime,
            }),
            Err(failed) => Err(refusal::explain(failed, asked, client, &place).await),
        }
    }
}

/// What code says stands before what the environment says.
fn sampler(sampled: Option<bool>) -> Sampler {
    if let Some(sampled) = sampled {
        return Sampler::roots(sampled);
    }
    let (sampler, problem) = Sampler::from_lookup(|name| std::env::var(name).ok());
    if let Some(problem) = problem {
        tracing::warn!("{problem}");
    }
    sampler
}

fn not_here() -> ConnectError {
    ConnectError::Local(
        "`here` needs an actix arbiter on this thread: call `connect` within `dwell::block_on`, or leave `here` out"
            .into(),
    )
}

fn open_store(path: Option<&std::path::Path>) -> Result<Box<dyn MetadataStore>, ConnectError> {
    match path {
        #[cfg(feature = "store")]
        Some(path) => open_database(path)
            .map(|store| Box::new(store) as Box<dyn MetadataStore>)
            .map_err(|error| ConnectError::Local(error.to_string())),
        #[cfg(not(feature = "store"))]
        Some(_) => Err(ConnectError::Local(
            "keeping runs in a file needs the feature `store`".into(),
        )),
        None => Ok(Box::new(MemoryStore::with_runs_kept_max(MEMORY_RUNS_MAX))),
    }
}

/// A disk that is full or broken must not keep commands from running: what is not recorded is said by the barriers.
#[cfg(feature = "store")]
fn open_database(
    path: &std::path::Path,
) -> Result<crate::metadata_store::SqliteStore, crate::metadata_store::StoreError> {
    use crate::metadata_store::{SqliteStore, StoreError};
    match SqliteStore::open(path) {
        Err(error @ StoreError::Open { .. }) => {
            tracing::warn!(%error, "runs are not recorded until the store can be opened");
            SqliteStore::unopened(path)
        }
        opened => opened,
    }
}

/// What a session hands out when its link is up.
pub(crate) struct Connected {
    pub(crate) dispatcher: Mailbox<Dispatcher>,
    pub(crate) rpc: Mailbox<RpcQueue>,
    pub(crate) framer: Mailbox<RelayFramer>,
    pub(crate) metadata: Mailbox<RunRecorder>,
    pub(crate) trace: Mailbox<TraceCollector>,
    pub(crate) workspace: Mailbox<Workspace>,
    pub(crate) environment: EnvironmentInfo,
    pub(crate) ping_us: Arc<AtomicU64>,
    /// The session's number; one that never began begins over as another.
    pub(crate) session: Arc<AtomicU64>,
    pub(crate) epoch: ByteBuf,
    /// Processes that were taken up with the session.
    pub(crate) adopted: Vec<(ProcessId, Arc<RunShared>)>,
}

/// One link to one executor. `Send` and `Sync`; usable from any runtime flavour and from plain threads.
///
/// Dropping it ends the link, and with it every run that was not waited for. `shutdown` does so in order.
pub struct Harness {
    connected: Connected,
    /// Those of them that somebody has asked for already.
    adopted: Mutex<HashSet<ProcessId>>,
    collector: Collector,
    store: StoreHandle,
    sampler: Sampler,
    overseen: Option<Overseen>,
    /// Beyond which an unsampled call's trace is kept.
    flight: Option<Duration>,
    start_up: StartUp,
    executor: PublicKey,
    /// The last handle of an open file that was given out.
    handles: Arc<AtomicU64>,
    /// The load that went with the first record, until somebody has it.
    first: Mutex<Option<Awaited>>,
    _place: Place,
    _runtime: Runtime,
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("environment", &self.connected.environment)
            .finish_non_exhaustive()
    }
}

impl Harness {
    /// Sets up a harness.
    pub fn builder() -> HarnessBuilder {
        HarnessBuilder {
            authorization: Vec::new(),
            identity: None,
            traces: None,
            store: None,
            metadata: None,
            sampled: None,
            here: false,
            resume_for: RESUME_FOR,
            pings: Pings::default(),
            links: std::convert::identity,
            take_up: None,
            sinks: Vec::new(),
            oversight: None,
            flight: None,
            parent: None,
            workspace: None,
        }
    }

    /// One more session beside this one: its own link and its own processes, on the same thread, with the same store and
    /// the same traces.
    ///
    /// # Errors
    /// As `HarnessBuilder::connect`.
    pub(crate) async fn another(
        &self,
        identity: Arc<StaticKeypair>,
        target: Target,
    ) -> Result<Self, ConnectError> {
        let shelf = Shelf {
            collector: self.collector.clone(),
            runtime: self._runtime.clone(),
            store: self.store.clone(),
            sampler: self.sampler,
        };
        let begun = Tick::now();
        let unseen = (root(false), root(false));
        shelf
            .open(Opening {
                dialer: dial::Dialer {
                    identity,
                    target,
                    authorization: Vec::new(),
                    pings: Pings::default(),
                    links: std::convert::identity,
                },
                resume_for: RESUME_FOR,
                take_up: None,
                start_up: StartUp::new(self.collector.clone(), unseen, begun),
                begun,
                workspace: None,
                handles: Arc::default(),
            })
            .await
    }

    /// Where its spans go.
    pub(crate) fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Connects with a fresh key and no trace file. See `HarnessBuilder::connect`.
    ///
    /// # Errors
    /// As there.
    pub async fn connect(target: Target) -> Result<Self, ConnectError> {
        Self::builder().connect(target).await
    }

    /// Runs a command. Returns at once; what goes wrong is told by the run.
    pub fn exec(&self, command: Command) -> Run {
        let begun = Tick::now();
        let first = self.start_up.command(begun);
        let mut run = self.run(command, begun);
        run.first = first;
        run
    }

    /// Where a trace begins: below no span, and sampled as a call without a parent is.
    pub(crate) fn origin(&self) -> TraceContext {
        let (mut context, _) = ancestry(&self.sampler, None, None);
        context.span_id = SpanId::default();
        context
    }

    /// As `exec`; of a command that nobody asked for by itself.
    fn run(&self, command: Command, begun: Tick) -> Run {
        let (context, parent) = ancestry(&self.sampler, command.parent.as_ref(), command.sampled);
        let call = Call::new(CallKind::Run, START, &context, begun);
        let dispatching = DispatchGuard::new(&self.collector, &context, begun, command.mode);
        let shared = Arc::new(RunShared::new(
            self.collector.board().call(call),
            Some(dispatching),
        ));
        let run = Run {
            shared: Arc::clone(&shared),
            input: RunStdin {
                shared: Arc::clone(&shared),
                asker: self.asker(context.clone()),
                written: Arc::default(),
                unsure: Arc::default(),
                closed: Arc::default(),
            },
            collector: self.collector.clone(),
            flight: self.flight_of(&context),
            context: context.clone(),
            parent,
            begun,
            first: None,
            grace: command.grace,
            output_limit: command.output_limit,
            ping_us: Arc::clone(&self.connected.ping_us),
            done: false,
            detached: false,
        };
        delay::reach(DelayPoint::HarnessSubmit);
        let exec = Exec {
            command,
            shared: Arc::clone(&shared),
            context: context.clone(),
            begun,
        };
        let envelope = dwell_messages::Envelope::new(context, DispatcherMessage::Exec(Box::new(exec)));
        if let Err(error) = self.connected.dispatcher.try_tell(envelope) {
            let error = match error {
                crate::mailbox::TellError::Full(_) => RunError::Refused(WireError::new(
                    ErrorCode::Busy,
                    "too many commands wait to be dispatched",
                )),
                crate::mailbox::TellError::Stopped(_) => RunError::NotStarted("the link is gone".into()),
            };
            shared.end(Err(error), Tick::now());
        }
        run
    }

    /// What is kept of a call that is not sampled.
    fn flight_of(&self, context: &TraceContext) -> Option<Box<Flight>> {
        let slower_than = self.flight.filter(|_| !context.is_sampled())?;
        let capabilities = &self.connected.environment.capabilities;
        let remembers = capabilities.iter().any(|capability| capability == FLIGHT);
        Some(Box::new(Flight {
            slower_than,
            executor: remembers.then(|| self.connected.trace.clone()),
        }))
    }

    /// The socket at which it answers `dwell inspect`, if it does.
    pub fn inspect_socket(&self) -> Option<&std::path::Path> {
        self.overseen.as_ref()?.socket()
    }

    /// Where its metrics are, if they are anywhere.
    pub fn metrics_addr(&self) -> Option<std::net::SocketAddr> {
        self.overseen.as_ref()?.metrics_addr()
    }

    /// The diff of a turn that begins, whose searches are spans of this harness's below `parent`. Asks nothing.
    pub fn turn_diff(
        &self,
        environments: impl IntoIterator<Item = TurnEnvironment>,
        parent: TraceContext,
    ) -> TurnDiff {
        TurnDiff::new(environments).traced(self.collector.clone(), parent)
    }

    /// How it came to be, for whoever goes through a stage of that: the one that loads the workspace, above all.
    pub fn start_up(&self) -> &StartUp {
        &self.start_up
    }

    /// What the executor said of itself when the link came up: no round trip.
    pub fn environment(&self) -> &EnvironmentInfo {
        &self.connected.environment
    }

    /// What the executor is now: one round trip.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn environment_info(&self) -> Result<EnvironmentInfo, RunError> {
        let context = TraceContext {
            flags: TraceFlags::NONE,
            ..root(false)
        };
        match self.asker(context).ask(None, Request::EnvironmentInfo).await? {
            WireReply::EnvironmentInfo(info) => Ok(info),
            _ => Err(RunError::Lost("the executor answered with something else".into())),
        }
    }

    fn asker(&self, context: TraceContext) -> Asker {
        Asker {
            dispatcher: self.connected.dispatcher.clone(),
            rpc: self.connected.rpc.clone(),
            context,
        }
    }

    /// The files of the executor's machine. No round trip. The client's key needs the scope `files`.
    pub fn files(&self) -> RemoteFiles {
        let asker = self.asker(TraceContext::default());
        RemoteFiles::new(asker, identity_of(&self.executor), Arc::clone(&self.handles))
    }

    /// The HTTP of the executor's machine. No round trip. The client's key needs the scope `spawn`, since a command could
    /// do the same.
    pub fn http(&self) -> RemoteHttp {
        RemoteHttp::new(self.asker(TraceContext::default()), Arc::clone(&self.handles))
    }

    /// The link's round trip as last measured, in microseconds.
    pub fn ping_us(&self) -> u64 {
        self.connected.ping_us.load(Ordering::Relaxed)
    }

    /// The place where threads are kept whose event logs are below `dir`, on this harness's store, threads and trace file.
    ///
    /// # Errors
    /// When the thread of the event logs cannot be started.
    pub fn threads(&self, dir: impl Into<PathBuf>) -> Result<Threads, ThreadError> {
        Threads::on(
            dir.into(),
            self.store.clone(),
            self.collector.clone(),
            self._runtime.clone(),
        )
    }

    /// Its threads, for what else runs beside it.
    #[cfg(feature = "responses")]
    pub(crate) fn runtime(&self) -> &Runtime {
        &self._runtime
    }

    /// Everything recorded so far is in the store when this returns.
    ///
    /// # Errors
    /// Why something is not.
    pub async fn flush(&self) -> Result<(), String> {
        run_recorder::barrier(&self.connected.metadata).await
    }

    /// As `flush_traces`, of what was made here alone: nobody else is waited for.
    pub(crate) async fn flush_own_traces(&self) {
        self.collector.flush().await;
    }

    /// Waits, at most `SPANS_WAIT`, for the spans that the executor still owes, and flushes them.
    pub async fn flush_traces(&self) {
        // The library's own timer: the caller's runtime may have none.
        let (done, settled) = oneshot::channel();
        let trace = self.connected.trace.clone();
        self._place.arbiter().spawn(async move {
            let answer = trace
                .ask_within(SPANS_WAIT, TraceContext::default(), TraceMessage::Settled)
                .await;
            done.send(answer.is_ok()).ok();
        });
        drop(settled.await);
        self.collector.flush().await;
    }

    /// Waits for owed spans, writes what is pending to the store and the trace file, and says goodbye to the executor.
    /// Runs still under way end as lost. Not cancellation safe: what was not flushed is lost.
    pub async fn shutdown(self) {
        self.flush_traces().await;
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "not every run was recorded");
        }
        drop(
            self.connected
                .framer
                .control(FramerControl::End("the harness is done".into())),
        );
        self.connected.framer.drain().await;
        self.collector.flush().await;
    }
}

/// What the files of an executor's machine are known by.
fn identity_of(executor: &PublicKey) -> Arc<str> {
    format!("executor {executor}").into()
}

/// A call's own context, and the span it hangs below: the one that is named, else the one that the calling code is in. A
/// parent that is none begins a new trace.
fn ancestry(
    sampler: &Sampler,
    parent: Option<&TraceContext>,
    sampled: Option<bool>,
) -> (TraceContext, Option<TraceContext>) {
    let parent = parent.cloned().or_else(propagation::current);
    let parent = parent.filter(TraceContext::is_valid);
    let mut context = match &parent {
        Some(parent) => parent.child(span_id()),
        None => TraceContext::new(trace_id(), span_id(), TraceFlags::NONE),
    };
    let sampled = match (&parent, sampled) {
        (None, Some(sampled)) => sampled,
        (parent, _) => sampler.decide(parent.as_ref(), context.trace_id),
    };
    context.flags = if sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::NONE
    };
    (context, parent)
}

impl Drop for Harness {
    fn drop(&mut self) {
        let connected = &self.connected;
        drop(
            connected
                .framer
                .control(FramerControl::End("the harness is gone".into())),
        );
        // On an arbiter that goes on nothing else would end them.
        connected.dispatcher.begin_drain();
        connected.rpc.begin_drain();
        connected.trace.begin_drain();
        connected.metadata.begin_drain();
        connected.workspace.begin_drain();
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod dispatch_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::executor::{Executor, ExecutorHandle};
    use crate::rpc_queue::caller::{Call, RpcMessage};

    const BOUND: Duration = Duration::from_secs(20);

    async fn connect(detached_life: Duration) -> (ExecutorHandle, Harness) {
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let executor = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize(client.public())
            .detached_life(detached_life)
            .serve()
            .await
            .unwrap();
        let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
        let harness = Harness::builder().identity(client).connect(target).await.unwrap();
        (executor, harness)
    }

    /// A run under way, which `inject` breaks: it ends as lost, and nothing of it is left on the executor.
    async fn is_told(detached_life: Duration, inject: impl FnOnce(&Harness)) -> String {
        let (executor, harness) = connect(detached_life).await;
        let mut run = harness.exec(Command::new("sleep").arg("1000"));
        let Some(RunEvent::Started { pid, .. }) = run.next().await else {
            panic!("a start comes first");
        };
        inject(&harness);
        let ended = tokio::time::timeout(BOUND, run.wait())
            .await
            .expect("whoever waits is told");
        let later = harness.exec(Command::new("true")).wait();
        let refused = tokio::time::timeout(BOUND, later)
            .await
            .expect("so is whoever comes later");
        assert!(refused.is_err());
        let there = PathBuf::from(format!("/proc/{pid}"));
        tokio::time::timeout(BOUND, async {
            while there.exists() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("its process is terminated");
        executor.shutdown().await;
        match ended {
            Err(RunError::Lost(why)) => why,
            other => panic!("a lost run, not {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_panic_of_a_sessions_actor_ends_its_runs_and_is_named() {
        let why = is_told(crate::executor::DETACHED_LIFE, |harness| {
            let call = Call {
                process: None,
                request: Request::EnvironmentInfo,
                deadline: None,
                ticket: None,
                account: Account::begin(Tick::now()),
                reply: Box::new(|_| panic!("injected")),
            };
            let message = RpcMessage::Call(Box::new(call));
            let envelope = dwell_messages::Envelope::new(TraceContext::default(), message);
            assert!(harness.connected.rpc.try_tell(envelope).is_ok());
        })
        .await;
        assert!(why.contains("RpcQueue") && why.contains("injected"), "{why}");
    }

    #[tokio::test]
    async fn the_panic_of_a_framer_ends_its_runs() {
        // Nobody is left to say goodbye.
        let why = is_told(Duration::ZERO, |harness| {
            let panics = FramerControl::Upper(Box::new(|_| panic!("injected")));
            assert!(harness.connected.framer.control(panics).is_ok());
        })
        .await;
        assert!(why.contains("failed"), "{why}");
    }
}
