//! The relay's core: pairs a harness's connection with the connection its executor registered, and passes frames on
//! without opening them. Bytes and time in, commands out.
//!
//! What holds: a shared connection is always read; no record of a live stream is dropped; a slow receiver fills its own
//! streams' windows and nothing else; memory is bounded by windows that this core grants; who is not admitted cannot
//! tell an unknown executor from one that is offline or not for it.

mod admission;
mod connection;
mod flow;
mod input;
mod pairing;
mod report;
mod schedule;
mod view;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_messages::kinds::OuterKind;
use dwell_messages::{PublicKey, StreamId};

use crate::control::ResetCode;
use crate::keys::StaticKeypair;
use crate::random::Randomness;
use crate::source::{Source, SourceTag, SourceTags};
use crate::strangers::{Governor, Openings, OpeningsLimits, Rates};

use self::connection::{Connection, Input, Phase};
use self::flow::Flow;

pub use self::admission::{Admission, TokenHash};
pub use self::flow::{FlowTotals, WINDOW_MAX_BYTES};
pub use self::report::{
    ConnectionFault, DropCounts, DropReason, RefusalCounts, RegistrationFailure, Report, Unavailability,
};
pub use self::view::{FlowCensus, StreamCensus};

/// Most connections at once; more are closed as they come.
pub const CONNECTIONS_MAX: usize = 8 * 1024;
/// Most connections of one source; a harness's carries one stream, so that it has no more streams either.
pub const CONNECTIONS_PER_SOURCE_MAX: usize = 1024;
/// Connections that have not proven what they are. With one more the oldest makes room, of the source with the most.
/// Each holds one message 1 at the most: some 18 KiB with all around it over TCP. Those that hold more count as two or
/// three, see [`crate::driver::Connection::weight`]: less than 4 MiB in all.
pub const OPENING_LIMITS: OpeningsLimits = OpeningsLimits {
    all: 144,
    per_source: 120,
};
/// Most streams of one executor at once.
pub const STREAMS_PER_EXECUTOR_MAX: usize = 1024;
/// Most bytes given to one connection's driver and not yet written.
pub const SOCKET_MAX_BYTES: usize = 256 * 1024;
/// Bytes of one stream's turn on a shared connection; a frame that was begun is finished.
pub const TURN_BYTES: usize = 32 * 1024;
/// By how many bytes all windows together may grow past where they begin.
pub const WINDOWS_GROWN_MAX_BYTES: u64 = 512 * 1024 * 1024;
/// How long a connection has for its preamble and first frames.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection that is being closed has to take what is queued for it.
pub const CLOSING_TIMEOUT: Duration = Duration::from_secs(30);
/// Reports that wait; past that they are counted and left out.
pub const REPORTS_PENDING_MAX: usize = 1024;

/// One connection, named by the driver; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u64);

/// What the driver has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Write these bytes, then say so with [`Rendezvous::drained`].
    Write {
        /// To which connection.
        conn: ConnId,
        /// Whole frames.
        bytes: Bytes,
    },
    /// It is known what it is: what its transport holds need not be kept small any more.
    Proven {
        /// Which connection.
        conn: ConnId,
    },
    /// Close it once everything before is written; the core has forgotten it already.
    Close {
        /// Which connection.
        conn: ConnId,
    },
    /// For the operator.
    Report(Report),
}

/// One stream, named by the relay; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct StreamKey(u64);

/// A harness's connection and its executor's.
struct Stream {
    id: StreamId,
    harness: ConnId,
    executor: ConnId,
    /// Harness to executor.
    up: Flow,
    /// Executor to harness.
    down: Flow,
    /// The code that either end is told, once there is one.
    code: Option<ResetCode>,
}

/// How many of what there are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Census {
    /// Connections.
    pub connections: usize,
    /// Of those: they have not proven what they are.
    pub openings: usize,
    /// Executors registered.
    pub executors: usize,
    /// Streams paired.
    pub streams: usize,
    /// Reports left out because nobody took them.
    pub reports_left_out: u64,
}

/// The relay.
pub struct Rendezvous {
    admission: Admission,
    identity: StaticKeypair,
    rng: Box<dyn Randomness + Send>,
    connections: HashMap<ConnId, Connection>,
    executors: HashMap<PublicKey, ConnId>,
    streams: HashMap<StreamKey, Stream>,
    next_stream: u64,
    deadlines: BTreeSet<(Instant, ConnId)>,
    commands: VecDeque<Command>,
    reports_waiting: usize,
    reports_left_out: u64,
    windows_grown_bytes: u64,
    pump_work: Vec<ConnId>,
    dropped: DropCounts,
    refused: RefusalCounts,
    openings: Openings<Source, ConnId>,
    /// Connections of each source: an entry for each that has one.
    per_source: HashMap<Source, usize>,
    /// Made when the first executor comes: it begins with the time.
    registrations: Option<Governor<Source>>,
    tags: Option<SourceTags>,
    /// When the bytes that are being read arrived.
    arrived: Option<Instant>,
}

impl Rendezvous {
    /// A relay without connections. `identity` is what it proves to executors; links do not rest on it.
    pub fn new(admission: Admission, identity: StaticKeypair, rng: Box<dyn Randomness + Send>) -> Self {
        Self {
            admission,
            identity,
            rng,
            connections: HashMap::new(),
            executors: HashMap::new(),
            streams: HashMap::new(),
            next_stream: 0,
            deadlines: BTreeSet::new(),
            commands: VecDeque::new(),
            reports_waiting: 0,
            reports_left_out: 0,
            windows_grown_bytes: 0,
            pump_work: Vec::new(),
            dropped: DropCounts::default(),
            refused: RefusalCounts::default(),
            openings: Openings::new(OPENING_LIMITS),
            per_source: HashMap::new(),
            registrations: None,
            tags: None,
            arrived: None,
        }
    }

    /// Changes who is admitted from now on; what is paired stays paired.
    pub fn set_admission(&mut self, admission: Admission) {
        self.admission = admission;
    }

    /// A transport came up, of the lightest kind. Its number must be fresh.
    pub fn connected(&mut self, now: Instant, conn: ConnId, source: Source) {
        self.connected_over(now, conn, source, 1);
    }

    /// A transport came up that counts as so many while its peer has proven nothing, see
    /// [`crate::driver::Connection::weight`]. Its number must be fresh.
    pub fn connected_over(&mut self, now: Instant, conn: ConnId, source: Source, weight: usize) {
        let of_source = self.per_source.get(&source).copied().unwrap_or(0);
        let fault = if self.connections.len() >= CONNECTIONS_MAX {
            Some(ConnectionFault::TooManyConnections)
        } else if of_source >= CONNECTIONS_PER_SOURCE_MAX {
            Some(ConnectionFault::TooManyOfSource)
        } else {
            None
        };
        if let Some(fault) = fault {
            self.report(Report::ConnectionFault { conn, fault });
            self.commands.push_back(Command::Close { conn });
            return;
        }
        for oldest in self.openings.enter_weighing(source, conn, weight) {
            self.fault(now, oldest, ConnectionFault::MadeRoom);
        }
        *self.per_source.entry(source).or_insert(0) += 1;
        let deadline = now + OPENING_TIMEOUT;
        self.connections.insert(conn, Connection::new(source, deadline));
        self.deadlines.insert((deadline, conn));
    }

    /// Bytes arrived now. See [`received_at`](Self::received_at).
    pub fn received(&mut self, now: Instant, conn: ConnId, bytes: BytesMut) {
        self.received_at(now, now, conn, bytes);
    }

    /// Bytes arrived at `arrived` and waited for this call until `now`: that wait is part of their residence. Not
    /// copied where they continue the allocation of those before.
    pub fn received_at(&mut self, arrived: Instant, now: Instant, conn: ConnId, bytes: BytesMut) {
        self.arrived = Some(arrived);
        if let Some(connection) = self.connections.get_mut(&conn) {
            match &mut connection.input {
                Input::Preamble(decoder) => decoder.feed(bytes),
                Input::Frames(decoder) => decoder.feed(bytes),
                Input::Ignored => return,
            }
            self.read(now, conn);
        }
        self.arrived = None;
    }

    /// That many bytes of earlier `Write` commands are in the socket.
    pub fn drained(&mut self, now: Instant, conn: ConnId, bytes_written: usize) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.egress.in_flight = connection.egress.in_flight.saturating_sub(bytes_written);
            self.pump(now, conn);
        }
    }

    /// A transport is gone. Nothing more may be said about its number.
    pub fn disconnected(&mut self, now: Instant, conn: ConnId) {
        if self.connections.contains_key(&conn) {
            self.detach(now, conn, ResetCode::PeerGone);
            self.forget(conn);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Closes whoever is past its deadline.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, conn)) = self.deadlines.first().copied() {
            if at > now {
                return;
            }
            self.deadlines.remove(&(at, conn));
            self.fault(now, conn, ConnectionFault::Deadline);
        }
    }

    /// What to do next. Take all of them after every input.
    pub fn poll_command(&mut self) -> Option<Command> {
        let command = self.commands.pop_front();
        if let Some(Command::Report(_)) = command {
            self.reports_waiting -= 1;
        }
        command
    }

    /// Frames dropped, by reason.
    pub fn dropped(&self) -> DropCounts {
        self.dropped
    }

    /// Who was turned away, by reason.
    pub fn refused(&self) -> RefusalCounts {
        self.refused
    }

    /// How many of what there are.
    pub fn census(&self) -> Census {
        Census {
            connections: self.connections.len(),
            openings: self.openings.len(),
            executors: self.executors.len(),
            streams: self.streams.len(),
            reports_left_out: self.reports_left_out,
        }
    }

    fn report(&mut self, report: Report) {
        self.refused.add(&report);
        if self.reports_waiting >= REPORTS_PENDING_MAX {
            self.reports_left_out += 1;
            return;
        }
        self.reports_waiting += 1;
        self.commands.push_back(Command::Report(report));
    }

    fn drop_frame(&mut self, reason: DropReason) {
        self.dropped.add(reason, 1);
    }

    /// What has a deadline has come about, or the connection is forgotten.
    fn clear_deadline(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        if let Some(at) = connection.deadline.take() {
            self.deadlines.remove(&(at, conn));
        }
        if std::mem::take(&mut connection.opening) {
            self.openings.leave(connection.source, conn);
        }
    }

    /// It has proven what it is, or passes on what is sealed for one who has.
    fn is_known(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.is_known();
            self.commands.push_back(Command::Proven { conn });
        }
    }

    fn registrations(&mut self, now: Instant) -> &mut Governor<Source> {
        self.registrations
            .get_or_insert_with(|| Governor::new(now, Rates::REGISTRATIONS))
    }

    /// What an executor is told about where a connection comes from. Without randomness all sources look alike.
    fn tag_of(&mut self, conn: ConnId) -> SourceTag {
        if self.tags.is_none() {
            self.tags = SourceTags::draw(&mut self.rng).ok();
        }
        match (&self.tags, self.connections.get(&conn)) {
            (Some(tags), Some(connection)) => tags.of(&connection.source),
            (None, _) | (_, None) => SourceTag::default(),
        }
    }

    /// Removes a connection that nothing refers to any more.
    fn forget(&mut self, conn: ConnId) {
        self.clear_deadline(conn);
        let Some(connection) = self.connections.remove(&conn) else {
            return;
        };
        if let Some(count) = self.per_source.get_mut(&connection.source) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&connection.source);
            }
        }
    }

    /// Closes at once, with what was already handed to the driver.
    fn fault(&mut self, now: Instant, conn: ConnId, fault: ConnectionFault) {
        self.report(Report::ConnectionFault { conn, fault });
        self.detach(now, conn, ResetCode::PeerGone);
        self.forget(conn);
        self.commands.push_back(Command::Close { conn });
    }

    /// Sends nothing but what is queued, then closes.
    fn close_gently(&mut self, now: Instant, conn: ConnId) {
        self.clear_deadline(conn);
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.phase = Phase::Closing;
            connection.input = Input::Ignored;
            let deadline = now + CLOSING_TIMEOUT;
            connection.deadline = Some(deadline);
            self.deadlines.insert((deadline, conn));
            self.pump(now, conn);
        }
    }

    fn push_control(&mut self, conn: ConnId, kind: OuterKind, stream: StreamId, payload: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            let mut frame = BytesMut::new();
            crate::outer::encode_outer(&mut frame, kind, stream, 0, payload);
            connection.egress.control.push_back(frame);
        }
    }
}

impl std::fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendezvous")
            .field("census", &self.census())
            .finish_non_exhaustive()
    }
}
