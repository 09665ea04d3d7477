//! Setting up a harness, and opening its session.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dwell_messages::{Role, TraceContext};
use dwell_relay::driver::BoxFuture;
use dwell_relay::resume::Pings;
use dwell_relay::{LinkOptions, OsRandomness, StaticKeypair};
use tokio::sync::oneshot;

use super::handle::{Harness, ancestry};
use super::workspace::{Awaited, First};
use super::{ConnectError, StartUp, StartUpStage, TakeUp, Target, dial, refusal, session};
use crate::metadata_store::worker::StoreHandle;
use crate::metadata_store::{MemoryStore, MetadataStore};
use crate::oversight::Oversight;
use crate::relay_framer::LinkLost;
use crate::runtime::Runtime;
use crate::telemetry::{Collector, CollectorOptions, Exporters, FileSink, Sampler, SpanSink, Tick, root};
use crate::workspace::WorkspaceOptions;

/// For how long a lost link is dialled again unless the builder says otherwise.
pub const RESUME_FOR: Duration = Duration::from_secs(600);
/// Runs an in-memory store keeps.
const MEMORY_RUNS_MAX: usize = 1_024;

/// Sets up a harness.
pub struct HarnessBuilder {
    pub(super) authorization: Vec<u8>,
    pub(super) identity: Option<StaticKeypair>,
    pub(super) traces: Option<PathBuf>,
    pub(super) store: Option<PathBuf>,
    pub(super) metadata: Option<Box<dyn MetadataStore>>,
    pub(super) sampled: Option<bool>,
    pub(super) here: bool,
    pub(super) resume_for: Duration,
    pub(super) pings: Pings,
    pub(super) links: fn(LinkOptions) -> LinkOptions,
    pub(super) take_up: Option<TakeUp>,
    pub(super) sinks: Vec<Box<dyn SpanSink>>,
    pub(super) oversight: Option<Oversight>,
    pub(super) flight: Option<Duration>,
    pub(super) parent: Option<TraceContext>,
    pub(super) workspace: Option<WorkspaceOptions>,
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
pub(super) struct Shelf {
    pub(super) collector: Collector,
    pub(super) runtime: Runtime,
    pub(super) store: StoreHandle,
    pub(super) sampler: Sampler,
}

/// How one of them begins.
pub(super) struct Opening {
    pub(super) dialer: dial::Dialer,
    pub(super) resume_for: Duration,
    pub(super) take_up: Option<TakeUp>,
    pub(super) start_up: StartUp,
    pub(super) begun: Tick,
    pub(super) workspace: Option<(First, Arc<AtomicU64>)>,
    pub(super) handles: Arc<AtomicU64>,
}

impl Shelf {
    pub(super) async fn open(self, opening: Opening) -> Result<Harness, ConnectError> {
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
