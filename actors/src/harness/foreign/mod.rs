//! An environment that is no executor of dwell's: a server of the JSON dialect, such as a stock `codex exec-server`.
//!
//! The harness's actors stay what they are. Where their framer would put a message on a link it hands it to this task, which
//! says it in the dialect and hands back what the server tells, as an executor would have said it. Nothing is sealed and
//! nothing kept for replay: a lost connection is made again within the server's time, and what was missed is read.
//!
//! Owns the connection. Bounds: what the harness says has its room in the framer until it has left; what the server says is
//! read only while the harness takes it. Stop: with the framer, ending what runs.

mod core;
mod socket;
mod start;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dwell_messages::dialect::{Fault, Initialized, path_of};
use dwell_messages::{Envelope, EnvironmentInfo, Message as Wire, ProcessId, TraceContext, Welcome};
use dwell_relay::resume::Pings;
use serde_bytes::ByteBuf;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::core::{Effect, ForeignCore};
use self::socket::{Sink, Socket};
use crate::mailbox::{Mailbox, Room};
use crate::relay_framer::{Arrival, FramerControl, FramerMessage, LinkLost, RelayFramer, SendStamps, Told};

pub(crate) use self::socket::OpenError;

/// How long the server is tried again when its connection is lost: it keeps sessions for 80 s.
pub(crate) const RECOVERY_WINDOW: Duration = Duration::from_secs(45);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(100);
/// A connection that lived so long is not part of a series of losses.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// Connections of such a series, after which the session is given up: a server that breaks the rules would break them for
/// ever.
const LOSSES_MAX: u32 = 16;
/// How long a consumer that takes nothing may keep the connection from being read.
pub(crate) const HELD_UP_MAX: Duration = Duration::from_secs(5);
/// How long what is said last may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// Messages that wait for the socket, beside those whose room is the framer's.
const WRITER_QUEUE_MAX: usize = 16;
/// What the framer has rooms for, and as much again for processes that are let go.
pub(crate) const OUTGOING_MAX: usize = 2 * crate::relay_framer::OUTBOUND_MESSAGES_MAX;
/// Messages of the server on their way into the framer.
const TOLD_MAX: usize = 64;

/// Where such a server is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// `ws://host:port`, and a path.
    pub(crate) url: String,
    /// What is said as `Authorization: Bearer`.
    pub(crate) token: Option<String>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

/// What the framer hands over.
pub(crate) enum Outgoing {
    /// A message, and what goes with it until it has left.
    Said(TraceContext, Box<Wire>, Left),
    /// The harness wants nothing more of a process.
    Forget(ProcessId),
}

/// See `Outgoing`.
#[derive(Default)]
pub(crate) struct Left {
    pub(crate) _room: Option<Room>,
    pub(crate) stamps: Option<Arc<SendStamps>>,
}

impl std::fmt::Debug for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Left").finish_non_exhaustive()
    }
}

/// A session that has begun.
pub(crate) struct Opened {
    socket: Socket,
    session: String,
    info: dwell_messages::dialect::EnvironmentInfo,
}

/// Dials, and begins a session.
pub(crate) async fn open(place: &Place) -> Result<Opened, OpenError> {
    let mut socket = socket::dial(place).await?;
    let begun = socket.initialize(None).await?;
    let Initialized {
        session_id,
        environment_info,
    } = begun;
    Ok(Opened {
        socket,
        session: session_id,
        info: environment_info.unwrap_or_default(),
    })
}

impl Opened {
    /// What an executor would have said in its handshake.
    pub(crate) fn welcome(&self) -> Welcome {
        let info = &self.info;
        let cwd = info.cwd.as_deref().and_then(|uri| path_of(uri).ok());
        Welcome {
            epoch: ByteBuf::from(self.session.as_bytes().to_vec()),
            session: 0,
            grant: ByteBuf::new(),
            // Its clock is not told.
            unix_ns: 0,
            environment: EnvironmentInfo {
                os: info.platform_os.clone().unwrap_or_default(),
                arch: String::new(),
                hostname: String::new(),
                version: info.executor_version.clone(),
                cwd: ByteBuf::from(cwd.unwrap_or_default()),
                shell: Some(info.shell.path.clone()).filter(|path| !path.is_empty()),
                cpus: 0,
                capabilities: Vec::new(),
            },
        }
    }
}

/// How the session goes on.
enum Over {
    /// The harness has ended it.
    Ended,
    /// The connection is lost.
    Lost(String),
}

/// Carries a session to its end.
pub(crate) async fn serve(
    opened: Opened,
    place: Place,
    (window, pings): (Duration, Pings),
    mut outgoing: mpsc::Receiver<Outgoing>,
    framer: Mailbox<RelayFramer>,
) {
    let Opened {
        socket,
        session,
        info,
    } = opened;
    let mut carrier = Carrier {
        core: ForeignCore::new(info),
        told: VecDeque::new(),
        unsaid: VecDeque::new(),
        port: framer.port(TOLD_MAX),
        framer: framer.clone(),
        pings,
    };
    let mut socket = Some(socket);
    let mut losses = 0;
    while let Some(now) = socket.take() {
        let begun = Instant::now();
        let why = match carrier.converse(now, &mut outgoing).await {
            Over::Ended => return,
            Over::Lost(why) => why,
        };
        tracing::warn!(%why, "the connection to the environment is lost: dialling again");
        carrier.core.detached();
        carrier.unsaid.clear();
        losses = if begun.elapsed() < SETTLED_AFTER {
            losses + 1
        } else {
            0
        };
        if losses > LOSSES_MAX {
            let why = format!("the connection to the environment is lost again and again: {why}");
            return carrier.end(LinkLost::Protocol(why)).await;
        }
        match carrier.again(&place, &session, window, &mut outgoing).await {
            Ok(Some(next)) => {
                tracing::info!("the session goes on over another connection");
                carrier.core.resumed();
                socket = Some(next);
            }
            // The harness has ended it meanwhile.
            Ok(None) => {}
            Err(gone) => {
                let why = format!("the environment's session does not go on: {gone}");
                carrier.end(LinkLost::NotResumed(why)).await;
            }
        }
    }
}

struct Carrier {
    core: ForeignCore<Left>,
    /// What the harness is to be told, in order.
    told: VecDeque<(TraceContext, Wire)>,
    /// What the server is to be told, in order.
    unsaid: VecDeque<(Vec<u8>, Option<Left>)>,
    port: Mailbox<RelayFramer>,
    framer: Mailbox<RelayFramer>,
    pings: Pings,
}

impl Carrier {
    fn apply(&mut self) {
        while let Some(effect) = self.core.poll() {
            match effect {
                Effect::Say(message, left) => self.unsaid.push_back((message, left)),
                Effect::Tell(context, message) => self.told.push_back((context, *message)),
                Effect::Fail(process, why) => {
                    let fail = move |upper: &mut dyn crate::relay_framer::Upper| upper.fail(process, &why);
                    if self.framer.control(FramerControl::Upper(Box::new(fail))).is_err() {
                        tracing::error!(
                            "a run that cannot be followed could not be ended: too much is urgent"
                        );
                    }
                }
            }
        }
    }

    fn take(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Said(context, message, left) => self.core.said(context, *message, Some(left)),
            Outgoing::Forget(process) => self.core.forget(process),
        }
    }

    /// One connection, to its end.
    async fn converse(&mut self, socket: Socket, outgoing: &mut mpsc::Receiver<Outgoing>) -> Over {
        let (sink, mut stream) = socket.split();
        let (writer, queue) = mpsc::channel(WRITER_QUEUE_MAX);
        let mut writing = JoinSet::new();
        writing.spawn_local(write(sink, queue));
        let mut beat = tokio::time::interval(self.pings.every.max(RETRY));
        let (mut heard, mut held_since) = (Instant::now(), None::<Instant>);
        loop {
            self.apply();
            let held_up = self.core.held_up();
            held_since = if held_up.is_empty() {
                None
            } else {
                Some(held_since.unwrap_or_else(Instant::now))
            };
            let reads = held_since.is_none() && self.told.is_empty();
            let patience = held_since.map_or_else(Instant::now, |since| since + HELD_UP_MAX);
            tokio::select! {
                biased;
                room = writer.clone().reserve_owned(), if !self.unsaid.is_empty() => {
                    let Ok(room) = room else {
                        return Over::Lost("it takes nothing any more".into());
                    };
                    if let Some((message, left)) = self.unsaid.pop_front() {
                        room.send(socket::Out::Text(message, left));
                    }
                }
                room = self.port.reserve(), if !self.told.is_empty() => {
                    let Ok(room) = room else { return Over::Ended };
                    if let Some((context, message)) = self.told.pop_front() {
                        room.send(told(context, message));
                    }
                }
                said = outgoing.recv() => match said {
                    Some(said) => self.take(said),
                    None => return self.farewell(writer, writing).await,
                },
                message = stream.next(), if reads => {
                    heard = Instant::now();
                    match message {
                        Ok(Some(message)) => {
                            if let Err(broken) = self.core.heard(&message) {
                                return Over::Lost(broken.to_string());
                            }
                        }
                        // A word, and nothing in it.
                        Ok(None) => {}
                        Err(why) => return Over::Lost(why),
                    }
                }
                () = tokio::time::sleep_until(patience), if held_since.is_some() => {
                    for process in held_up {
                        self.core.give_up_for_now(process);
                    }
                    held_since = None;
                    tracing::warn!("a consumer takes nothing: what its command tells is read later");
                }
                _ = beat.tick() => {
                    if reads && heard.elapsed() >= self.pings.dead_after {
                        return Over::Lost("it does not answer".into());
                    }
                    // Without room something is on its way in any case.
                    drop(writer.try_send(socket::Out::Ping));
                }
            }
        }
    }

    /// What runs is ended, and that has left.
    async fn farewell(&mut self, writer: mpsc::Sender<socket::Out>, mut writing: JoinSet<()>) -> Over {
        self.core.end();
        self.apply();
        let leave = async {
            for (message, left) in std::mem::take(&mut self.unsaid) {
                if writer.send(socket::Out::Text(message, left)).await.is_err() {
                    return;
                }
            }
            drop(writer);
            writing.join_next().await;
        };
        if tokio::time::timeout(FAREWELL, leave).await.is_err() {
            tracing::warn!("the environment took no goodbye: what runs there ends with its session");
        }
        Over::Ended
    }

    /// Another connection for the session. `None`: the harness has ended it.
    ///
    /// # Errors
    /// There is none, or the session is gone.
    async fn again(
        &mut self,
        place: &Place,
        session: &str,
        window: Duration,
        outgoing: &mut mpsc::Receiver<Outgoing>,
    ) -> Result<Option<Socket>, String> {
        let resuming = resume(place, session, Instant::now() + window);
        tokio::pin!(resuming);
        loop {
            self.apply();
            tokio::select! {
                biased;
                room = self.port.reserve(), if !self.told.is_empty() => {
                    let Ok(room) = room else { return Ok(None) };
                    if let Some((context, message)) = self.told.pop_front() {
                        room.send(told(context, message));
                    }
                }
                said = outgoing.recv() => match said {
                    Some(said) => self.take(said),
                    None => return Ok(None),
                },
                resumed = &mut resuming => return resumed.map(Some),
            }
        }
    }

    /// The session is over: whoever waits is told.
    async fn end(&self, lost: LinkLost) {
        let mut control = FramerControl::Lost(None, lost);
        // Its control queue may be full for a moment.
        while let Err(full) = self.framer.control(control) {
            control = full.0;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Tries until the session is taken up, it is gone, or the time is over.
async fn resume(place: &Place, session: &str, until: Instant) -> Result<Socket, String> {
    loop {
        let attempt = async {
            let mut socket = socket::dial(place).await?;
            socket.initialize(Some(session)).await?;
            Ok(socket)
        };
        let last: OpenError = match attempt.await {
            Ok(socket) => return Ok(socket),
            Err(error @ OpenError::Refused(Fault { code, .. })) if code != Fault::STILL_ATTACHED => {
                return Err(error.to_string());
            }
            Err(error) => error,
        };
        if Instant::now() + RETRY >= until {
            return Err(format!("it could not be reached in time: {last}"));
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn told(context: TraceContext, message: Wire) -> Envelope<FramerMessage> {
    let told = Told {
        context,
        message,
        arrival: Arrival::here(),
    };
    Envelope::new(TraceContext::default(), FramerMessage::Told(Box::new(told)))
}

async fn write(mut sink: Sink, mut queue: mpsc::Receiver<socket::Out>) {
    while let Some(out) = queue.recv().await {
        if let Err(error) = sink.send(out).await {
            return tracing::debug!(%error, "the environment takes nothing any more");
        }
    }
    sink.close().await;
}
