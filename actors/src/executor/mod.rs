//! The executor: runs what listed clients ask, on this machine.

mod directory;
mod door;
mod gate;
mod past;
mod port;
mod session;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use dwell_messages::{EnvironmentInfo, PublicKey, Resume, Role};
use dwell_relay::driver::memory::{Hub, MemoryListener};
use dwell_relay::driver::tls::{Certificate, Trust};
use dwell_relay::driver::{BoxFuture, Listen, net};
use dwell_relay::resume::{GRANT_BYTES, Grants, Pings};
pub use dwell_relay::strangers::HandshakeCounts;
use dwell_relay::{LinkOptions, OsRandomness, Randomness as _, StaticKeypair};
use tokio::sync::{Notify, oneshot, watch};

use crate::access::{AuditLog, Clients, Gate, PairingOffer, watch as watch_access};
use crate::address::Address;
use crate::confine;
use crate::dialect::{self, DialectError, DialectOptions, Plan, Serving};
use crate::files::FilePool;
use crate::files::WATCHES;
use crate::guard::GuardOptions;
use crate::harness::Target;
use crate::http_client::HTTP;
use crate::keys::{AuthorizedClients, Grant};
use crate::mailbox::Mailbox;
use crate::metrics::families;
use crate::oversight::{Overseen, Oversight, OversightError};
use crate::process::{Attention, SPOOL_BYTES, SpoolPlace};
use crate::process_supervisor::IDLE_LIFE;
use crate::relay_framer::{FramerControl, RelayFramer, Transport};
use crate::runtime::{Place, Runtime, RuntimeError};
use crate::spawn::Spawner;

use crate::telemetry::{Collector, CollectorOptions, Exporters, FileSink, SpanSink, ThreadTag, thread_tag};
use crate::trace_collector::Shipment;
use crate::workspace::WORKSPACE;

use self::door::Door;
pub use self::door::{UNPROVEN_MAX, UNPROVEN_PER_SOURCE_MAX};
use self::past::{Anew, Over, Past};
pub use directory::LIST_TIMEOUT;
pub(crate) use directory::{Directory, Facts};

/// How long `shutdown` waits for processes to end.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// How long a session without a link waits for its client unless the builder says otherwise: a day.
pub const DETACHED_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// What an executor says it can whose sessions outlive their links.
pub const DETACHES: &str = "detach";

/// Among an environment's capabilities: commands are confined that ask for it, or refused.
pub const CONFINES: &str = "confine";
/// What an executor says it can that remembers the last seconds of calls which are not sampled.
pub const FLIGHT: &str = "flight";
/// The name under which an executor's own gateway reaches it.
const INSIDE: &str = "dialect";
/// Sessions of one executor.
pub const SESSIONS_MAX: usize = 1_024;

/// Why an executor does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Neither a relay nor a listener was given.
    #[error("an executor needs a relay to register with, or an address to listen on")]
    Nowhere,
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}; choose another address, or end what listens there")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The relay cannot be reached or does not register this executor.
    #[error("the relay at {address} does not register this executor: {why}")]
    Register {
        /// The address.
        address: String,
        /// Why.
        why: String,
    },
    /// The list of clients cannot be read.
    #[error(transparent)]
    Clients(#[from] crate::keys::KeyError),
    /// The audit file cannot be written.
    #[error("the audit file {} cannot be opened; make its directory writable, or name another", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It cannot be looked at as was asked.
    #[error(transparent)]
    Oversight(#[from] OversightError),
    /// The JSON dialect is not served.
    #[error(transparent)]
    Dialect(#[from] DialectError),
    /// This side could not be set up.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// This side could not be set up.
    #[error("this side could not be set up: {0}")]
    Local(String),
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
struct Inside {
    options: DialectOptions,
    identity: StaticKeypair,
}

impl Inside {
    fn new(options: DialectOptions, rng: &mut OsRandomness) -> Result<Self, ServeError> {
        let identity = StaticKeypair::generate(rng).map_err(|error| ServeError::Local(error.to_string()))?;
        Ok(Self { options, identity })
    }
}

/// Who has proven nothing to an executor, and what became of those who asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Strangers {
    /// Every message 1 since the start.
    pub handshakes: HandshakeCounts,
    /// Handshakes that have been answered and not confirmed, at most `PENDING_MAX`.
    pub pending: usize,
    /// Direct connections whose client has proven nothing, at most [`UNPROVEN_MAX`].
    pub connections: usize,
}

/// Whether the relay knows this executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Registration {
    Pending,
    Registered,
    Failed(String),
}

/// Names a session within this life of the executor.
pub(crate) type SessionId = u64;

/// One session, as others may find it.
struct Session {
    framer: Mailbox<RelayFramer>,
    client: PublicKey,
    /// Where it lives: a shared connection of another thread cannot carry it.
    thread: ThreadTag,
    facts: Arc<Facts>,
}

/// What became of a request to take a session up.
pub(crate) enum Found {
    /// Here it is.
    Session(Mailbox<RelayFramer>),
    /// It is this client's, and lives where this transport cannot carry it.
    OutOfReach,
    /// Its client never said anything over its first link: nothing of it was done, and nothing of it ever will be.
    NeverBegun,
    /// It is over, or not this client's.
    Nothing,
}

/// What all sessions of one executor share.
pub(crate) struct Shared {
    pub(crate) public: PublicKey,
    pub(crate) identity: Arc<StaticKeypair>,
    door: Arc<Door>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) epoch: [u8; 16],
    pub(crate) environment: Arc<EnvironmentInfo>,
    pub(crate) spawner: Arc<Spawner>,
    pub(crate) files: FilePool,
    /// Whose certificates the HTTP requests of clients accept.
    pub(crate) http_trust: Trust,
    pub(crate) collector: Collector,
    /// Sessions of every arbiter, by number. Values are cloned out: no guard outlives a call.
    sessions: DashMap<SessionId, Session>,
    pub(crate) credulous: bool,
    pub(crate) shipment: Shipment,
    relay_pings: Pings,
    pub(crate) links: fn(LinkOptions) -> LinkOptions,
    next_session: AtomicU64,
    grants: Grants,
    past: Mutex<Past>,
    /// How long a session without a link waits for its client.
    pub(crate) detached_life: Duration,
    pub(crate) idle_life: Duration,
    pub(crate) spool: SpoolPlace,
    pub(crate) attention: Arc<Attention>,
    stopping: AtomicBool,
    changed: Notify,
}

impl Shared {
    /// The number of the session that a client may begin, and what it takes it up with later.
    pub(crate) fn next_session(&self, client: &PublicKey) -> (SessionId, [u8; GRANT_BYTES]) {
        let session = self.next_session.fetch_add(1, Ordering::Relaxed);
        (session, self.grants.issue(session, client))
    }

    /// A new session is on its way. False: there are too many, the executor is stopping, or the client has begun it over
    /// another link since.
    pub(crate) fn enter(
        &self,
        id: SessionId,
        client: PublicKey,
        framer: &Mailbox<RelayFramer>,
        facts: &Arc<Facts>,
    ) -> bool {
        if self.sessions.len() >= SESSIONS_MAX || self.stopping.load(Ordering::Acquire) {
            return false;
        }
        let session = Session {
            framer: framer.clone(),
            client,
            thread: thread_tag(),
            facts: Arc::clone(facts),
        };
        // Under the lock: whoever asks for it meanwhile finds it, or has made sure that it does not begin.
        let past = self.past();
        if !past.may_begin(id) && !self.credulous {
            return false;
        }
        self.sessions.insert(id, session);
        true
    }

    /// The session that a client may take up over this transport, whose own link could begin `fresh`. Whatever is wrong,
    /// the answer is the same.
    pub(crate) fn session(
        &self,
        resume: &Resume,
        client: &PublicKey,
        transport: &Transport,
        fresh: SessionId,
    ) -> Found {
        let id = resume.session;
        if !self.grants.verify(id, client, &resume.token) {
            return Found::Nothing;
        }
        let mut past = self.past();
        if let Some(session) = self.sessions.get(&id) {
            let reaches = match transport {
                Transport::Own(..) => true,
                Transport::Shared(uplink) => uplink.thread() == session.thread,
            };
            return match session.client == *client && !session.framer.is_stopped() {
                true if reaches => Found::Session(session.framer.clone()),
                true => Found::OutOfReach,
                false => Found::Nothing,
            };
        }
        // Whoever takes a session over has seen it, so that it did begin.
        if resume.owner > 1 {
            return Found::Nothing;
        }
        let anew = Anew {
            session: fresh,
            link: resume.link,
        };
        match past.begin_anew(id, anew) {
            Ok(None) => Found::NeverBegun,
            Ok(Some(unheard)) => {
                // Its client never heard that it began, or it would not ask for the one before.
                if let Some(session) = self.sessions.get(&unheard) {
                    let why = "it was begun over another link";
                    drop(session.framer.control(FramerControl::End(why.into())));
                }
                Found::NeverBegun
            }
            Err(Over) => Found::Nothing,
        }
    }

    fn past(&self) -> std::sync::MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A session and all its processes are gone.
    pub(crate) fn leave(&self, session: SessionId) {
        self.past().end(session);
        self.sessions.remove(&session);
        self.changed.notify_waiters();
    }

    /// What is known of a session, if it is this client's.
    pub(crate) fn facts_of(&self, id: SessionId, client: &PublicKey) -> Option<Arc<Facts>> {
        let session = self.sessions.get(&id)?;
        (session.client == *client).then(|| Arc::clone(&session.facts))
    }

    /// This client's sessions, in no order.
    pub(crate) fn sessions_of(&self, client: &PublicKey) -> Vec<(SessionId, Arc<Facts>)> {
        self.sessions
            .iter()
            .filter(|session| session.client == *client)
            .map(|session| (*session.key(), Arc::clone(&session.facts)))
            .collect()
    }

    /// What a client takes a session of its own up with.
    pub(crate) fn grant(&self, id: SessionId, client: &PublicKey) -> [u8; GRANT_BYTES] {
        self.grants.issue(id, client)
    }

    fn running(&self) -> Vec<Mailbox<RelayFramer>> {
        self.sessions
            .iter()
            .map(|session| session.value().framer.clone())
            .collect()
    }
}

/// What the metrics say of this executor beside what every role has.
fn count(shared: &Arc<Shared>) {
    let counted = Arc::downgrade(shared);
    shared.collector.board().meters().add(move |all| {
        let Some(shared) = counted.upgrade() else { return };
        all.number(families::SESSIONS, &[], shared.sessions.len() as f64);
        let (handshakes, _) = shared.door.counts();
        for (outcome, count) in [
            ("wrong_mac", handshakes.wrong_mac),
            ("repeated", handshakes.repeated),
            ("over_rate", handshakes.over_rate),
            ("over_source_rate", handshakes.over_source_rate),
            ("penalised", handshakes.penalised),
            ("failed", handshakes.failed),
            ("confirmed", handshakes.confirmed),
            ("evicted", handshakes.evicted),
        ] {
            all.number(families::HANDSHAKES, &[outcome], count as f64);
        }
    });
}

fn environment(detaches: bool, flight: bool, confines: bool) -> EnvironmentInfo {
    use std::os::unix::ffi::OsStringExt as _;
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let cwd = std::env::current_dir()
        .map(|dir| dir.into_os_string().into_vec())
        .unwrap_or_default();
    EnvironmentInfo {
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        hostname,
        version: env!("CARGO_PKG_VERSION").into(),
        cwd: serde_bytes::ByteBuf::from(cwd),
        shell: std::env::var("SHELL").ok(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        capabilities: ["pipes", WORKSPACE, WATCHES]
            .into_iter()
            .chain(detaches.then_some(DETACHES))
            .chain(flight.then_some(FLIGHT))
            .chain(confines.then_some(CONFINES))
            .chain(cfg!(feature = "http").then_some(HTTP))
            .map(str::to_owned)
            .collect(),
    }
}

/// An executor that serves. Dropping it ends every session and what they run; `shutdown` does so in order.
pub struct ExecutorHandle {
    overseen: Option<Overseen>,
    shared: Arc<Shared>,
    runtime: Runtime,
    places: Vec<Place>,
    registered: watch::Receiver<Registration>,
    listening: Option<String>,
    dialect: Option<Serving>,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for ExecutorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorHandle")
            .field("public", &self.shared.public)
            .finish_non_exhaustive()
    }
}

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

impl ExecutorHandle {
    /// The key that harnesses pin.
    pub fn public_key(&self) -> PublicKey {
        self.shared.public
    }

    /// Where it listens itself, if it does.
    pub fn local_addr(&self) -> Option<String> {
        self.listening.clone()
    }

    /// Where it serves the JSON dialect, if it does so over WebSockets.
    pub fn dialect_url(&self) -> Option<&str> {
        self.dialect.as_ref()?.url.as_deref()
    }

    /// Waits until the one client of the JSON dialect on standard input is gone; for ever, where there is none.
    pub async fn dialect_over(&self) {
        match &self.dialect {
            Some(serving) => serving.client_is_gone().await,
            None => std::future::pending().await,
        }
    }

    /// The socket at which it answers `dwell inspect`, if it does.
    pub fn inspect_socket(&self) -> Option<&std::path::Path> {
        self.overseen.as_ref()?.socket()
    }

    /// Where its metrics are, if they are anywhere.
    pub fn metrics_addr(&self) -> Option<std::net::SocketAddr> {
        self.overseen.as_ref()?.metrics_addr()
    }

    /// Sessions at the moment.
    pub fn sessions(&self) -> usize {
        self.shared.running().len()
    }

    /// What became of every handshake that was asked for, and what is under way.
    pub fn strangers(&self) -> Strangers {
        let (handshakes, pending) = self.shared.door.counts();
        Strangers {
            handshakes,
            pending,
            connections: self.shared.door.unproven(),
        }
    }

    /// Waits until the relay has registered this executor. Cancellation safe.
    ///
    /// # Errors
    /// When there is no relay, or it refuses for good; a relay that cannot be reached is tried again and again.
    pub async fn registered(&self) -> Result<(), ServeError> {
        let mut registered = self.registered.clone();
        loop {
            let now = registered.borrow_and_update().clone();
            match now {
                Registration::Registered => return Ok(()),
                Registration::Failed(why) => {
                    return Err(ServeError::Register {
                        address: "its address".into(),
                        why,
                    });
                }
                Registration::Pending => {}
            }
            if registered.changed().await.is_err() {
                return Err(ServeError::Nowhere);
            }
        }
    }

    /// Admits nobody new, tells every client, ends every process (TERM, then KILL) and waits for that, at most
    /// `SHUTDOWN_GRACE`. Cancellation: what was begun goes on.
    pub async fn shutdown(self) {
        self.shared.collector.board().meters().set_ready(false);
        self.shared.stopping.store(true, Ordering::Release);
        self.stop.send_replace(true);
        let wait = async {
            loop {
                let changed = self.shared.changed.notified();
                let running = self.shared.running();
                if running.is_empty() {
                    break;
                }
                for framer in running {
                    let why = "the executor is shutting down";
                    drop(framer.control(FramerControl::WindDown(why.into())));
                }
                changed.await;
            }
            if let Some(dialect) = &self.dialect {
                dialect.ended().await;
            }
        };
        // The library's own timer: the caller's runtime may have none.
        let (done, over) = oneshot::channel();
        let place = self.runtime.place();
        place.arbiter().spawn(async move {
            tokio::time::sleep(SHUTDOWN_GRACE).await;
            done.send(()).ok();
        });
        let mut over = std::pin::pin!(over);
        let mut wait = std::pin::pin!(wait);
        std::future::poll_fn(|cx| {
            if wait.as_mut().poll(cx).is_ready() || over.as_mut().poll(cx).is_ready() {
                return std::task::Poll::Ready(());
            }
            std::task::Poll::Pending
        })
        .await;
        self.shared.gate.audit().flush().await;
        self.shared.collector.flush().await;
    }

    /// Starts the gateway on a thread of this executor's, and its sessions over connections that are none.
    async fn serve_dialect(&mut self, inside: Inside) -> Result<(), ServeError> {
        let hub = Hub::new();
        let listener = hub
            .listen(INSIDE)
            .map_err(|error| ServeError::Local(error.to_string()))?;
        self.start_memory(listener);
        let (ready, wait) = oneshot::channel();
        let plan = Plan {
            options: inside.options,
            identity: inside.identity,
            target: Target::direct(Address::Memory(hub, INSIDE.into()), self.shared.public),
            is_local: true,
            ready,
            stop: self.stop.subscribe(),
        };
        let place = self.runtime.place();
        place.arbiter().spawn_fn(move || {
            actix_rt::spawn(dialect::serve(plan));
        });
        self.places.push(place);
        self.dialect = Some(wait.await.unwrap_or(Err(DialectError::Ended))?);
        Ok(())
    }

    fn start_memory(&mut self, listener: MemoryListener) {
        let place = self.runtime.place();
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.subscribe());
        let arbiters = self.runtime.clone();
        place.arbiter().spawn_fn(move || {
            let listener: Box<dyn Listen> = Box::new(listener);
            actix_rt::spawn(port::accept(listener, shared, stop, arbiters));
        });
        self.places.push(place);
    }

    async fn start(
        &mut self,
        listen: Option<(String, Option<Certificate>)>,
        hub: Option<MemoryListener>,
        relay: Option<Address>,
    ) -> Result<(), ServeError> {
        let place = self.runtime.place();
        let (gate, stop) = (Arc::clone(&self.shared.gate), self.stop.subscribe());
        place.arbiter().spawn_fn(move || {
            actix_rt::spawn(watch_access(gate, stop));
        });
        self.places.push(place);
        if let Some((address, certificate)) = listen {
            let (ready, wait) = oneshot::channel();
            let place = self.runtime.place();
            let (shared, stop) = (Arc::clone(&self.shared), self.stop.subscribe());
            let arbiters = self.runtime.clone();
            let wanted = address.clone();
            place.arbiter().spawn_fn(move || {
                actix_rt::spawn(async move {
                    match net::Listener::bind(&wanted, certificate).await {
                        Ok(listener) => {
                            drop(ready.send(Ok(listener.local_addr().to_string())));
                            port::accept(Box::new(listener), shared, stop, arbiters).await;
                        }
                        Err(error) => drop(ready.send(Err(error))),
                    }
                });
            });
            let bound = wait
                .await
                .map_err(|_| ServeError::Local("the listener ended early".into()))?;
            self.listening = Some(bound.map_err(|source| ServeError::Listen { address, source })?);
            self.places.push(place);
        }
        if let Some(listener) = hub {
            self.start_memory(listener);
        }
        if relay.is_none() {
            self.shared.collector.board().meters().set_ready(true);
        }
        if let Some(address) = relay {
            let place = self.runtime.place();
            let (progress, registered) = watch::channel(Registration::Pending);
            self.registered = registered;
            let (shared, stop) = (Arc::clone(&self.shared), self.stop.subscribe());
            place.arbiter().spawn_fn(move || {
                actix_rt::spawn(port::register(address, shared, stop, progress));
            });
            self.places.push(place);
        }
        Ok(())
    }
}

impl Drop for ExecutorHandle {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.stop.send_replace(true);
        for framer in self.shared.running() {
            drop(framer.control(FramerControl::End("the executor is gone".into())));
        }
    }
}
