//! Setting up an executor, and starting it.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use dwell_messages::{PublicKey, Role};
use dwell_relay::driver::BoxFuture;
use dwell_relay::driver::memory::MemoryListener;
use dwell_relay::driver::tls::{Certificate, Trust};
use dwell_relay::resume::{Grants, Pings};
use dwell_relay::{LinkOptions, OsRandomness, Randomness as _, StaticKeypair};
use tokio::sync::{Notify, watch};

use super::door::Door;
use super::handle::{ExecutorHandle, Registration};
use super::shared::{Shared, count, environment};
use super::{DETACHED_LIFE, ServeError};
use crate::access::{AuditLog, Clients, Gate, PairingOffer};
use crate::address::Address;
use crate::confine;
use crate::dialect::DialectOptions;
use crate::files::FilePool;
use crate::guard::GuardOptions;
use crate::keys::{AuthorizedClients, Grant};
use crate::oversight::Oversight;
use crate::process::{SPOOL_BYTES, SpoolPlace};
use crate::process_supervisor::IDLE_LIFE;
use crate::runtime::Runtime;
use crate::spawn::Spawner;
use crate::telemetry::{Collector, CollectorOptions, Exporters, FileSink, SpanSink};
use crate::trace_collector::Shipment;

/// The executor role.
#[derive(Debug)]
pub struct Executor;

impl Executor {
    /// Sets up an executor.
    pub fn builder() -> ExecutorBuilder {
        ExecutorBuilder {
            identity: None,
            clients_file: None,
            clients: Vec::new(),
            pairing: None,
            audit: None,
            relay: None,
            listen: None,
            certificate: None,
            hub: None,
            traces: None,
            sinks: Vec::new(),
            arbiters: std::thread::available_parallelism().map_or(1, usize::from),
            guard: GuardOptions::default(),
            detached_life: DETACHED_LIFE,
            idle_life: IDLE_LIFE,
            spool_dir: None,
            spool_bytes: SPOOL_BYTES,
            credulous: false,
            shipment: Shipment::default(),
            limited: true,
            relay_pings: Pings::default(),
            links: std::convert::identity,
            oversight: None,
            flight: false,
            dialect: None,
            http_trust: Trust::default(),
        }
    }
}

/// Sets up an executor.
pub struct ExecutorBuilder {
    identity: Option<StaticKeypair>,
    clients_file: Option<PathBuf>,
    clients: Vec<(PublicKey, Grant)>,
    pairing: Option<PairingOffer>,
    audit: Option<PathBuf>,
    relay: Option<Address>,
    listen: Option<String>,
    certificate: Option<Certificate>,
    hub: Option<MemoryListener>,
    traces: Option<PathBuf>,
    sinks: Vec<Box<dyn SpanSink>>,
    arbiters: usize,
    guard: GuardOptions,
    detached_life: Duration,
    idle_life: Duration,
    spool_dir: Option<PathBuf>,
    spool_bytes: u64,
    credulous: bool,
    shipment: Shipment,
    limited: bool,
    relay_pings: Pings,
    links: fn(LinkOptions) -> LinkOptions,
    oversight: Option<Oversight>,
    flight: bool,
    dialect: Option<DialectOptions>,
    http_trust: Trust,
}

impl fmt::Debug for ExecutorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorBuilder")
            .field("relay", &self.relay)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

impl ExecutorBuilder {
    /// The key this executor proves. Default: a fresh one.
    #[must_use]
    pub fn identity(mut self, identity: StaticKeypair) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The file that lists who is served; read again when it changes. Missing or empty: nobody.
    #[must_use]
    pub fn authorized_clients(mut self, path: impl Into<PathBuf>) -> Self {
        self.clients_file = Some(path.into());
        self
    }

    /// Serves this client; may be called again for more. Instead of a file.
    #[must_use]
    pub fn authorize(self, client: PublicKey) -> Self {
        self.authorize_with(client, Grant::default())
    }

    /// Serves this client, which may do no more than this. Instead of a file.
    #[must_use]
    pub fn authorize_with(mut self, client: PublicKey, grant: Grant) -> Self {
        self.clients.push((client, grant));
        self
    }

    /// Lists whoever presents a one-time code first: see `keys::PairingCode` and `keys::TrustLine`.
    #[must_use]
    pub fn pairing(mut self, offer: PairingOffer) -> Self {
        self.pairing = Some(offer);
        self
    }

    /// Appends who asked for what, and with which result, to this file. Default: to no file.
    #[must_use]
    pub fn audit(mut self, path: impl Into<PathBuf>) -> Self {
        self.audit = Some(path.into());
        self
    }

    /// Registers with this relay, again whenever the connection is lost.
    #[must_use]
    pub fn relay(mut self, address: impl Into<Address>) -> Self {
        self.relay = Some(address.into());
        self
    }

    /// Listens on this TCP address itself, for WebSockets as well. Port 0 takes a free one.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Serves TLS, too, where it listens itself.
    #[must_use]
    pub fn tls(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Listens in a hub of this process.
    #[must_use]
    pub fn listen_memory(mut self, listener: MemoryListener) -> Self {
        self.hub = Some(listener);
        self
    }

    /// Writes this executor's own traces into this directory.
    #[must_use]
    pub fn traces(mut self, dir: impl Into<PathBuf>) -> Self {
        self.traces = Some(dir.into());
        self
    }

    /// Another place for spans to go.
    #[must_use]
    pub fn sink(mut self, sink: impl SpanSink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// How commands are guarded. A guard's program is also what confines commands inside of bubblewrap, where that is
    /// installed and works; without it what asks to be confined is refused. Default: by this very program, if it calls `guard::init()` first in `main`; else by
    /// nobody, as every start says.
    #[must_use]
    pub fn guard(mut self, options: GuardOptions) -> Self {
        self.guard = options;
        self
    }

    /// How long a session whose link died waits for its client, its processes running. Default `DETACHED_LIFE`. Zero:
    /// it ends with its link.
    #[must_use]
    pub fn detached_life(mut self, life: Duration) -> Self {
        self.detached_life = life;
        self
    }

    /// How long a session without a link is there when nothing runs in it and nothing of it is untold. Default `IDLE_LIFE`.
    #[must_use]
    pub fn idle_life(mut self, life: Duration) -> Self {
        self.idle_life = life;
        self
    }

    /// Where output is kept that nobody takes, and how many bytes of one stream of a process; 64 KiB or less keeps
    /// none, and the process waits. Default: the system's temporary directory, `SPOOL_BYTES`.
    #[must_use]
    pub fn spool(mut self, dir: impl Into<PathBuf>, bytes: u64) -> Self {
        self.spool_dir = Some(dir.into());
        self.spool_bytes = bytes;
        self
    }

    /// How often the relay is pinged, and how long an answer may take before its connection counts as dead and is made
    /// anew. Default: every 5 s, 10 s. A connection that breaks with a word is left at once in any case.
    #[must_use]
    pub fn relay_pings(mut self, every: Duration, dead_after: Duration) -> Self {
        self.relay_pings = Pings { every, dead_after };
        self
    }

    /// How long the spans of ended calls wait until the link has been idle, and at the most. Default: 4 ms, 100 ms. Calls that
    /// come one after the other then pay for their spans together, between them nobody waits for any.
    #[must_use]
    pub fn spans_wait(mut self, idle: Duration, at_most: Duration) -> Self {
        self.shipment = Shipment {
            idle,
            age_max: at_most,
        };
        self
    }

    /// Takes repeated requests for new ones, which is wrong: for tests that show what the session's order is good for.
    #[doc(hidden)]
    #[must_use]
    pub fn credulous(mut self) -> Self {
        self.credulous = true;
        self
    }

    /// Looks into every message 1 however many come, which is wrong: for tests that show what the limits are good for.
    #[doc(hidden)]
    #[must_use]
    pub fn without_limits_for_strangers(mut self) -> Self {
        self.limited = false;
        self
    }

    /// Changes how links behave: for tests of what only time or much traffic brings.
    #[doc(hidden)]
    #[must_use]
    pub fn links(mut self, links: fn(LinkOptions) -> LinkOptions) -> Self {
        self.links = links;
        self
    }

    /// Looks at this executor while it runs: see there. Default: nobody does.
    #[must_use]
    pub fn oversight(mut self, oversight: Oversight) -> Self {
        self.oversight = Some(oversight);
        self
    }

    /// Remembers the last seconds of calls that are not sampled, for harnesses that ask for one which failed or was
    /// slow. Default false. Takes a megabyte a thread.
    #[must_use]
    pub fn flight_recorder(mut self, on: bool) -> Self {
        self.flight = on;
        self
    }

    /// Serves the JSON dialect as well: what a stock Codex CLI speaks. Whoever is served there is asked for no key, so see
    /// `DialectOptions::auth`.
    #[must_use]
    pub fn dialect(mut self, options: DialectOptions) -> Self {
        self.dialect = Some(options);
        self
    }

    /// Whose certificates the HTTP requests accept that it makes for its clients. Default: those of the authorities that
    /// browsers trust.
    #[must_use]
    pub fn http_trust(mut self, trust: Trust) -> Self {
        self.http_trust = trust;
        self
    }

    /// Threads for sessions. Default: one a core.
    #[must_use]
    pub fn arbiters(mut self, count: usize) -> Self {
        self.arbiters = count;
        self
    }

    /// Starts serving. Returns when listening, and when the first attempt to register is under way: see
    /// `ExecutorHandle::registered`.
    ///
    /// # Errors
    /// `ServeError` says what to change.
    pub async fn serve(self) -> Result<ExecutorHandle, ServeError> {
        self.boxed().await
    }

    /// Boxed, so that what it starts is compiled with this library and not again in every program that awaits it.
    fn boxed(self) -> BoxFuture<'static, Result<ExecutorHandle, ServeError>> {
        Box::pin(self.begin())
    }

    async fn begin(self) -> Result<ExecutorHandle, ServeError> {
        let is_nowhere = self.relay.is_none() && self.listen.is_none() && self.hub.is_none();
        if is_nowhere && self.dialect.is_none() {
            return Err(ServeError::Nowhere);
        }
        let local = |error: std::io::Error| ServeError::Local(error.to_string());
        let mut rng = OsRandomness::new();
        let identity = match self.identity {
            Some(identity) => identity,
            None => {
                StaticKeypair::generate(&mut rng).map_err(|error| ServeError::Local(error.to_string()))?
            }
        };
        let clients = match self.clients_file {
            Some(path) => Clients::File(Box::new(AuthorizedClients::load(&path)?)),
            None if self.clients.is_empty() => Clients::Nobody,
            None => Clients::Keys(self.clients),
        };
        let audit = match &self.audit {
            Some(path) => AuditLog::open(path).map_err(|source| ServeError::Audit {
                path: path.clone(),
                source,
            })?,
            None => AuditLog::nowhere(),
        };
        let inside = match self.dialect {
            Some(options) => Some(Inside::new(options, &mut rng)?),
            None => None,
        };
        let gate = Gate::new(clients, self.pairing, audit);
        let gate = Arc::new(match &inside {
            Some(inside) => gate.with_insider(inside.identity.public()),
            None => gate,
        });
        let mut sinks = self.sinks;
        if let Some(dir) = &self.traces {
            let sink =
                FileSink::open(dir, Role::Executor).map_err(|error| ServeError::Local(error.to_string()))?;
            sinks.push(Box::new(sink));
        }
        sinks.extend(Exporters::of_this_process(Role::Executor));
        let options = CollectorOptions {
            role: Role::Executor,
            keep_recent: true,
            sinks,
        };
        let collector = Collector::start(options).map_err(local)?;
        if self.flight {
            collector.remember_unsampled();
        }
        let runtime = Runtime::start(self.arbiters, collector.clone())?;
        let overseen = match self.oversight {
            Some(oversight) => Some(oversight.start(&collector, &runtime)?),
            None => None,
        };
        let own = self.guard.program.file();
        let spawner = Spawner::with_guard(self.guard).map_err(local)?;
        let confines = confine::equip(&spawner, own).await;
        if let Err(why) = &confines {
            tracing::info!(%why, "what asks to be confined is refused");
        }
        let mut epoch = [0; 16];
        rng.fill(&mut epoch)
            .map_err(|error| ServeError::Local(error.to_string()))?;
        let shared = Arc::new(Shared {
            public: identity.public(),
            door: Arc::new(Door::new(&identity.public(), self.limited)),
            identity: Arc::new(identity),
            gate,
            epoch,
            environment: Arc::new(environment(
                !self.detached_life.is_zero(),
                self.flight,
                confines.is_ok(),
            )),
            spawner: Arc::new(spawner),
            files: FilePool::new(),
            http_trust: self.http_trust,
            collector,
            sessions: DashMap::new(),
            credulous: self.credulous,
            shipment: self.shipment,
            relay_pings: self.relay_pings,
            links: self.links,
            next_session: AtomicU64::new(1),
            grants: Grants::draw(&mut rng).map_err(|error| ServeError::Local(error.to_string()))?,
            past: Mutex::default(),
            detached_life: self.detached_life,
            idle_life: self.idle_life,
            attention: Arc::default(),
            spool: SpoolPlace {
                dir: self.spool_dir.unwrap_or_else(std::env::temp_dir),
                limit: self.spool_bytes,
            },
            stopping: AtomicBool::new(false),
            changed: Notify::new(),
        });
        count(&shared);
        let mut handle = ExecutorHandle {
            overseen,
            shared: Arc::clone(&shared),
            runtime,
            places: Vec::new(),
            registered: watch::channel(Registration::Pending).1,
            listening: None,
            dialect: None,
            stop: watch::channel(false).0,
        };
        let listen = self.listen.map(|address| (address, self.certificate));
        handle.start(listen, self.hub, self.relay).await?;
        if let Some(inside) = inside {
            handle.serve_dialect(inside).await?;
        }
        Ok(handle)
    }
}

/// The gateway of the JSON dialect, on its way: a client of this very process, with a key that nobody else has.
pub(super) struct Inside {
    pub(super) options: DialectOptions,
    pub(super) identity: StaticKeypair,
}

impl Inside {
    fn new(options: DialectOptions, rng: &mut OsRandomness) -> Result<Self, ServeError> {
        let identity = StaticKeypair::generate(rng).map_err(|error| ServeError::Local(error.to_string()))?;
        Ok(Self { options, identity })
    }
}
