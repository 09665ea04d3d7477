//! What all sessions of one executor share: which there are, and who may take one up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use dwell_messages::{EnvironmentInfo, PublicKey, Resume};
use dwell_relay::driver::tls::Trust;
use dwell_relay::resume::{GRANT_BYTES, Grants, Pings};
use dwell_relay::{LinkOptions, StaticKeypair};
use tokio::sync::Notify;

use super::door::Door;
use super::past::{Anew, Over, Past};
use super::{CONFINES, DETACHES, FLIGHT, Facts, SESSIONS_MAX};
use crate::access::Gate;
use crate::files::{FilePool, WATCHES};
use crate::http_client::HTTP;
use crate::mailbox::Mailbox;
use crate::metrics::families;
use crate::process::{Attention, SpoolPlace};
use crate::relay_framer::{FramerControl, RelayFramer, Transport};
use crate::spawn::Spawner;
use crate::telemetry::{Collector, ThreadTag, thread_tag};
use crate::trace_collector::Shipment;
use crate::workspace::WORKSPACE;

/// Names a session within this life of the executor.
pub(crate) type SessionId = u64;

/// One session, as others may find it.
pub(super) struct Session {
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
    pub(super) door: Arc<Door>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) epoch: [u8; 16],
    pub(crate) environment: Arc<EnvironmentInfo>,
    pub(crate) spawner: Arc<Spawner>,
    pub(crate) files: FilePool,
    /// Whose certificates the HTTP requests of clients accept.
    pub(crate) http_trust: Trust,
    pub(crate) collector: Collector,
    /// Sessions of every arbiter, by number. Values are cloned out: no guard outlives a call.
    pub(super) sessions: DashMap<SessionId, Session>,
    pub(crate) credulous: bool,
    pub(crate) shipment: Shipment,
    pub(super) relay_pings: Pings,
    pub(crate) links: fn(LinkOptions) -> LinkOptions,
    pub(super) next_session: AtomicU64,
    pub(super) grants: Grants,
    pub(super) past: Mutex<Past>,
    /// How long a session without a link waits for its client.
    pub(crate) detached_life: Duration,
    pub(crate) idle_life: Duration,
    pub(crate) spool: SpoolPlace,
    pub(crate) attention: Arc<Attention>,
    pub(super) stopping: AtomicBool,
    pub(super) changed: Notify,
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

    pub(super) fn past(&self) -> std::sync::MutexGuard<'_, Past> {
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

    pub(super) fn running(&self) -> Vec<Mailbox<RelayFramer>> {
        self.sessions
            .iter()
            .map(|session| session.value().framer.clone())
            .collect()
    }
}

/// What the metrics say of this executor beside what every role has.
pub(super) fn count(shared: &Arc<Shared>) {
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

pub(super) fn environment(detaches: bool, flight: bool, confines: bool) -> EnvironmentInfo {
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
