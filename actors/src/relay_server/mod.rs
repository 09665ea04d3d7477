//! `RelayServer`: forwards sealed records between harnesses and executors, and can read none of them.
//!
//! Owns the rendezvous core. Never blocks and never decodes a payload. Everything of a relay lives on one arbiter: a
//! frame goes from one socket to the other without crossing threads. Full: a connection's reader waits in a port of
//! its own, so that one flood cannot stand in another's way. Who sends: the connections' readers and writers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use dwell_messages::{Envelope, PublicKey, Role, TraceContext};
use dwell_relay::driver::memory::Hub;
use dwell_relay::driver::{Connection, Listen, WRITE_STALL_TIMEOUT, tcp, write_frames};
use dwell_relay::rendezvous::{Admission, Census, Command, ConnId, Rendezvous};
use dwell_relay::{OsRandomness, StaticKeypair};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, oneshot};

use crate::mailbox::{Actor, HostOptions, Mailbox, Message, Reply, TimerGuard, Turn, start_here};
use crate::runtime::{Place, Runtime, RuntimeError};
use crate::telemetry::{Collector, CollectorOptions};

/// Messages of the relay's own that may wait: connections that come and go.
pub const RELAY_MAILBOX_MAX: usize = 1_024;
/// Reads of one connection that may wait.
pub const READS_WAITING_MAX: usize = 4;
/// Bytes one read may bring.
const READ_BYTES: usize = 128 * 1024;
/// Where a relay listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7433";

/// Why a relay does not serve.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}; choose another address, or end what listens there")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Others could reach it, and nobody said who may.
    #[error(
        "{address} can be reached from other machines: give an allow file that lists executors and harnesses, or \
         listen on 127.0.0.1"
    )]
    Open {
        /// The address.
        address: String,
    },
    /// This side could not be set up.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// This side could not be set up.
    #[error("this side could not be set up: {0}")]
    Local(String),
}

/// What it is told.
enum RelayMessage {
    /// A connection came.
    Accepted(Box<Connection>),
    /// Bytes came on one.
    Received(ConnId, BytesMut, Instant),
    /// Bytes left on one.
    Drained(ConnId, usize),
    /// One is gone.
    Gone(ConnId),
    /// How many of what are there?
    Census(Reply<Census>),
}

/// What it is told urgently.
enum RelayControl {
    /// A deadline of the core is here.
    Timeout,
    /// Close every connection.
    End,
}

impl Message for RelayMessage {
    const NAMES: &'static [&'static str] = &["Accepted", "Received", "Drained", "Gone", "Census"];

    fn index(&self) -> usize {
        match self {
            Self::Accepted(_) => 0,
            Self::Received(..) => 1,
            Self::Drained(..) => 2,
            Self::Gone(_) => 3,
            Self::Census(_) => 4,
        }
    }
}

/// What one connection's writer has to write.
#[derive(Default)]
struct Outbound {
    frames: RefCell<VecDeque<Bytes>>,
    wake: Notify,
    closing: Cell<bool>,
}

struct Conn {
    outbound: Rc<Outbound>,
    _reader: TimerGuard,
}

/// See the module.
struct RelayServer {
    core: Rendezvous,
    connections: HashMap<ConnId, Conn>,
    next: u64,
    timer: Option<(Instant, TimerGuard)>,
}

fn quiet(message: RelayMessage) -> Envelope<RelayMessage> {
    // The relay knows no context: those lie inside the seal.
    Envelope::new(TraceContext::default(), message)
}

impl RelayServer {
    fn accepted(&mut self, connection: Connection, turn: &mut Turn<'_, Self>) {
        let conn = ConnId(self.next);
        self.next += 1;
        let Connection {
            mut reader,
            mut writer,
            peer,
        } = connection;
        tracing::debug!(conn = conn.0, %peer, "a connection came");
        let port = turn.mailbox().port(READS_WAITING_MAX);
        let gone = turn.mailbox();
        let reader = turn.spawn(async move {
            let mut buffer = BytesMut::new();
            loop {
                if buffer.capacity() - buffer.len() < READ_BYTES / 2 {
                    buffer.reserve(READ_BYTES);
                }
                match reader.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
                if port
                    .tell(quiet(RelayMessage::Received(
                        conn,
                        buffer.split(),
                        Instant::now(),
                    )))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            drop(gone.tell(quiet(RelayMessage::Gone(conn))).await);
        });
        let outbound = Rc::new(Outbound::default());
        let (queue, port, gone) = (
            Rc::clone(&outbound),
            turn.mailbox().port(READS_WAITING_MAX),
            turn.mailbox(),
        );
        turn.spawn(async move {
            loop {
                let mut frames = std::mem::take(&mut *queue.frames.borrow_mut());
                if frames.is_empty() {
                    if queue.closing.get() {
                        drop(tokio::io::AsyncWriteExt::shutdown(&mut writer).await);
                        return;
                    }
                    queue.wake.notified().await;
                    continue;
                }
                match write_frames(&mut writer, &mut frames, WRITE_STALL_TIMEOUT, |_| {}).await {
                    Ok(written) => {
                        if port
                            .tell(quiet(RelayMessage::Drained(conn, written)))
                            .await
                            .is_err()
                        {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(conn = conn.0, %error, "a connection cannot be written");
                        drop(gone.tell(quiet(RelayMessage::Gone(conn))).await);
                        return;
                    }
                }
            }
        })
        .detach();
        self.connections.insert(
            conn,
            Conn {
                outbound,
                _reader: reader,
            },
        );
        self.core.connected(Instant::now(), conn);
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.remove(&conn) {
            connection.outbound.closing.set(true);
            connection.outbound.wake.notify_one();
        }
    }

    /// Does what the core wants done.
    fn settle(&mut self, turn: &Turn<'_, Self>) {
        while let Some(command) = self.core.poll_command() {
            match command {
                Command::Write { conn, bytes } => {
                    if let Some(connection) = self.connections.get(&conn) {
                        connection.outbound.frames.borrow_mut().push_back(bytes);
                        connection.outbound.wake.notify_one();
                    }
                }
                Command::Close { conn } => self.close(conn),
                Command::Report(report) => tracing::info!(?report, "relay"),
            }
        }
        let due = self.core.poll_timeout();
        if due == self.timer.as_ref().map(|(at, _)| *at) {
            return;
        }
        self.timer = due.map(|at| {
            let delay = at.saturating_duration_since(Instant::now());
            (at, turn.timer(delay, RelayControl::Timeout))
        });
    }
}

impl Actor for RelayServer {
    const NAME: &'static str = "RelayServer";
    type Message = RelayMessage;
    type Control = RelayControl;

    fn receive(&mut self, envelope: Envelope<RelayMessage>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            RelayMessage::Accepted(connection) => self.accepted(*connection, turn),
            RelayMessage::Received(conn, bytes, read) => {
                self.core.received_at(read, Instant::now(), conn, bytes);
            }
            RelayMessage::Drained(conn, written) => self.core.drained(Instant::now(), conn, written),
            RelayMessage::Gone(conn) => {
                self.core.disconnected(Instant::now(), conn);
                self.close(conn);
            }
            RelayMessage::Census(reply) => reply.send(self.core.census()),
        }
        self.settle(turn);
    }

    fn control(&mut self, control: RelayControl, turn: &mut Turn<'_, Self>) {
        match control {
            RelayControl::Timeout => {
                self.timer = None;
                self.core.handle_timeout(Instant::now());
            }
            RelayControl::End => {
                let now = Instant::now();
                let all: Vec<_> = self.connections.keys().copied().collect();
                for conn in all {
                    self.core.disconnected(now, conn);
                    self.settle(turn);
                    self.close(conn);
                }
                turn.stop();
            }
        }
        self.settle(turn);
    }
}

/// Sets up a relay.
pub struct RelayBuilder {
    listen: Option<String>,
    hub: Option<(Hub, String)>,
    identity: Option<StaticKeypair>,
    admission: Admission,
}

impl fmt::Debug for RelayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayBuilder")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

impl RelayBuilder {
    /// Listens on this TCP address. Port 0 takes a free one. Default: `DEFAULT_LISTEN`.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Listens under a name in a hub of this process instead.
    #[must_use]
    pub fn memory(mut self, hub: &Hub, name: impl Into<String>) -> Self {
        self.hub = Some((hub.clone(), name.into()));
        self
    }

    /// The key this relay proves to executors. Default: a fresh one; links do not rest on it.
    #[must_use]
    pub fn identity(mut self, identity: StaticKeypair) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Who may use it. Default: everyone, which only a relay on loopback may say.
    #[must_use]
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// Starts serving; returns when it listens. Works on any runtime.
    ///
    /// # Errors
    /// `RelayError` says what to change.
    pub async fn serve(self) -> Result<RelayHandle, RelayError> {
        let local = |error: &dyn fmt::Display| RelayError::Local(error.to_string());
        let identity = match self.identity {
            Some(identity) => identity,
            None => StaticKeypair::generate(&mut OsRandomness::new()).map_err(|error| local(&error))?,
        };
        let public = identity.public();
        let options = CollectorOptions {
            role: Role::Relay,
            keep_recent: false,
            sinks: Vec::new(),
        };
        let collector = Collector::start(options).map_err(|error| local(&error))?;
        let runtime = Runtime::start(1, collector)?;
        let place = runtime.place();
        let (ready, wait) = oneshot::channel();
        let (admission, hub) = (self.admission, self.hub);
        let address = self.listen.unwrap_or_else(|| DEFAULT_LISTEN.into());
        let wanted = address.clone();
        place.arbiter().spawn_fn(move || {
            actix_rt::spawn(async move {
                let listener: std::io::Result<Box<dyn Listen>> = match &hub {
                    Some((hub, name)) => hub.listen(name).map(|listener| Box::new(listener) as _),
                    None => tcp::Listener::bind(&wanted)
                        .await
                        .map(|listener| Box::new(listener) as _),
                };
                match listener {
                    Ok(listener) if matches!(admission, Admission::Open) && !listener.is_loopback() => {
                        drop(ready.send(Err(RelayError::Open { address: wanted })));
                    }
                    Ok(listener) => {
                        let mut core = Some(Rendezvous::new(
                            admission,
                            identity,
                            Box::new(OsRandomness::new()),
                        ));
                        let server = start_here(HostOptions::new(RELAY_MAILBOX_MAX), move || RelayServer {
                            // Not restarted: a panic of the core ends the relay, and so the factory runs once.
                            core: core.take().expect("a relay server is started once"),
                            connections: HashMap::new(),
                            next: 1,
                            timer: None,
                        });
                        drop(ready.send(Ok((listener.address(), server.clone()))));
                        accept(listener, server).await;
                    }
                    Err(source) => drop(ready.send(Err(RelayError::Listen {
                        address: wanted,
                        source,
                    }))),
                }
            });
        });
        let (listening, server) = wait.await.map_err(|error| local(&error))??;
        Ok(RelayHandle {
            listening,
            public,
            server,
            _place: place,
            _runtime: runtime,
        })
    }
}

async fn accept(mut listener: Box<dyn Listen>, server: Mailbox<RelayServer>) {
    loop {
        match listener.accept().await {
            Ok(connection) => {
                if server
                    .tell(quiet(RelayMessage::Accepted(Box::new(connection))))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        if server.is_stopped() {
            return;
        }
    }
}

/// The relay role.
#[derive(Debug)]
pub struct Relay;

impl Relay {
    /// Sets up a relay.
    pub fn builder() -> RelayBuilder {
        RelayBuilder {
            listen: None,
            hub: None,
            identity: None,
            admission: Admission::Open,
        }
    }
}

/// A relay that serves. Dropping it ends it.
pub struct RelayHandle {
    listening: String,
    public: PublicKey,
    server: Mailbox<RelayServer>,
    _place: Place,
    _runtime: Runtime,
}

impl fmt::Debug for RelayHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayHandle")
            .field("listening", &self.listening)
            .finish_non_exhaustive()
    }
}

impl RelayHandle {
    /// Where it listens.
    pub fn local_addr(&self) -> &str {
        &self.listening
    }

    /// The key it proves to executors.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// Connections, executors and streams at the moment; nothing when it has ended.
    pub async fn census(&self) -> Option<Census> {
        self.server
            .ask(TraceContext::default(), RelayMessage::Census)
            .await
            .ok()
    }

    /// Closes every connection and ends.
    pub async fn shutdown(self) {
        drop(self.server.control(RelayControl::End));
        self.server.drain().await;
    }
}

impl Drop for RelayHandle {
    fn drop(&mut self) {
        drop(self.server.control(RelayControl::End));
    }
}
