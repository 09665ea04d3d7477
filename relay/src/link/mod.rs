//! One authenticated stream at one endpoint: frames and time in, events and bytes out. Nothing here blocks.

#[cfg(fuzzing)]
mod fuzzing;
mod inbound;
mod outbound;
mod pace;
mod renew;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_messages::kinds::OuterKind;
use dwell_messages::{PublicKey, StreamId};
use zeroize::Zeroizing;

use crate::chunk::ChunkError;
use crate::control::{ControlError, Refusal, Reset, ResetCode};
use crate::handshake::{AwaitingVerdict, AwaitingWelcome, Established, HandshakeError, Initiator};
use crate::keys::StaticKeypair;
use crate::lanes::{CutMessage, EnqueueError, EnqueueProblem, Lane, Lanes, Outgoing};
use crate::noise::EphemeralSeed;
use crate::opening::OpenError;
use crate::outer::{OuterError, encode_outer};
use crate::preamble::{PREAMBLE_BYTES, Preamble, PreambleError};
use crate::random::{OsRandomness, Randomness};
use crate::reassembly::{Incoming, Reassembly};
use crate::record::{RECORD_PLAINTEXT_MAX_BYTES, RecordError, SealLimits};

use self::pace::{Opened, Pace};
use self::renew::Renewal;
use self::window::{GrantWindow, SendWindow};

pub use self::pace::{MARK_STEP_MAX_BYTES, MARKS_MAX, QUEUE_TIME, UNDER_WAY_MIN_BYTES};
pub use self::renew::{
    KEY_AGE_MAX, RENEW_AFTER, RENEW_AFTER_BYTES, RENEW_AFTER_RECORDS, RenewAfter, RenewalError,
};
pub use self::window::SEND_WINDOW_INITIAL_BYTES;

/// How long a handshake may take, from the first byte to the first valid record.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest limit of a record; with less room than this none is begun.
pub const RECORD_LIMIT_MIN_BYTES: usize = 1024;
/// Events a link holds before it takes another frame. One record makes at most 4,096.
pub const EVENTS_PENDING_MAX: usize = 16 * 1024;
/// Bytes of answers to pings that wait; past that pings are not answered.
const PONGS_PENDING_MAX_BYTES: usize = 32 * 1024;

/// How one link behaves.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    /// A relay is in between: send at most 256 KiB, and then what WINDOW frames allow.
    pub windowed: bool,
    /// Send WINDOW frames as a receiver, and reset a peer that overruns them. A relay does this itself.
    pub grants: bool,
    /// No more of the bulk lanes is under way than the link carries in its round trip and 20 ms. Without it a keystroke
    /// stands behind everything that the network takes.
    pub paced: bool,
    /// The longest record, in bytes of plaintext. Only tests lower it.
    pub record_max_bytes: usize,
    /// How much each key may seal. Only tests lower it.
    pub seal_limits: SealLimits,
    /// When keys are renewed by the end that dialled. Only tests lower it.
    pub renew_after: RenewAfter,
    /// How old keys may become that were not renewed. Only tests lower it.
    pub key_age_max: Duration,
    /// How long the handshake may take.
    pub handshake_timeout: Duration,
}

impl LinkOptions {
    /// Two endpoints with nothing in between.
    pub fn direct() -> Self {
        Self {
            windowed: false,
            grants: false,
            paced: true,
            record_max_bytes: RECORD_PLAINTEXT_MAX_BYTES,
            seal_limits: SealLimits::default(),
            renew_after: RenewAfter::default(),
            key_age_max: KEY_AGE_MAX,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }

    /// An endpoint that speaks through a relay.
    pub fn relayed() -> Self {
        Self {
            windowed: true,
            ..Self::direct()
        }
    }
}

/// What happened on a link, in order.
#[derive(Debug)]
pub enum LinkEvent {
    /// The peer is proven and the link carries messages. On the executor's side: its first record opened.
    Established(LinkEstablished),
    /// Someone with this proven key asks; answer with [`Link::welcome`] or [`Link::refuse`].
    AuthorizationNeeded {
        /// Who.
        client: PublicKey,
        /// What it says. It may be a replay: do nothing for it yet.
        hello: Bytes,
        /// The hash of the handshake up to message 1: names this attempt in a log.
        handshake_hash: [u8; 32],
    },
    /// A message.
    Message(Incoming),
    /// The other end, or whoever is in between, says the stream is over. Unauthenticated.
    PeerClosed {
        /// By its word.
        reason: Reset,
    },
}

/// What a finished handshake told.
#[derive(Clone, Debug)]
pub struct LinkEstablished {
    /// The peer's proven static key.
    pub peer: PublicKey,
    /// What the executor said in message 2; empty on its own side.
    pub welcome: Bytes,
    /// The same on both sides and of no other link.
    pub handshake_hash: [u8; 32],
    /// The agreed wire version.
    pub version: u16,
}

/// A link failed. It is over: send what [`Link::poll_transmit`] still has (a reset) and drop it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The handshake failed.
    #[error("the handshake failed")]
    Handshake(#[from] HandshakeError),
    /// The other end does not serve this; unauthenticated, so it says nothing about the executor.
    #[error("the connection was refused")]
    Refused(#[source] Refusal),
    /// The dialler's preamble is none.
    #[error("the preamble is not usable")]
    Preamble(#[from] PreambleError),
    /// What a relay opened is none.
    #[error("the opening is not usable")]
    Open(#[from] OpenError),
    /// A record failed.
    #[error("a record failed")]
    Record(#[from] RecordError),
    /// What is inside the seal is malformed.
    #[error("the inside of a record is malformed")]
    Chunk(#[from] ChunkError),
    /// A frame that did not come out of an [`crate::OuterDecoder`].
    #[error("an outer frame is malformed")]
    Frame(#[from] OuterError),
    /// Fresh keys did not come about.
    #[error("the link's keys could not be renewed")]
    Renewal(#[from] RenewalError),
    /// The keys were not renewed in time.
    #[error("the link's keys are {age_seconds} s old, which is their limit: dial again")]
    KeysTooOld {
        /// Their age.
        age_seconds: u64,
    },
    /// A mark stands elsewhere in the bulk bytes than where it says.
    #[error("a mark says {marked} bytes of bulk and {opened} came: the other end is broken, upgrade it")]
    Miscounted {
        /// By its word.
        marked: u64,
        /// By our count.
        opened: u64,
    },
    /// The peer says that it has opened more than was sent.
    #[error("the peer says it opened {opened} bytes of bulk and {sent} were sent: it is broken, upgrade it")]
    OpenedTooMuch {
        /// By its word.
        opened: u64,
        /// What was sent.
        sent: u64,
    },
    /// A clear frame is malformed.
    #[error("a clear frame is malformed")]
    Control(#[from] ControlError),
    /// A frame that has no place in this state.
    #[error("a {kind:?} frame while {state}: the other end is broken or someone interferes; dial again")]
    UnexpectedFrame {
        /// What came.
        kind: OuterKind,
        /// What this side was doing.
        state: &'static str,
    },
    /// A frame of another stream.
    #[error("a frame of stream {actual:?} on the link of stream {expected:?}: dial again")]
    WrongStream {
        /// Ours.
        expected: StreamId,
        /// The frame's.
        actual: StreamId,
    },
    /// The peer sent more than it was allowed.
    #[error("the peer sent {received} bytes and {granted} were allowed: the other end is broken, upgrade it")]
    WindowOverrun {
        /// Bytes received in all.
        received: u64,
        /// Bytes allowed in all.
        granted: u64,
    },
    /// It took too long.
    #[error(
        "the handshake was not over within {seconds} s: check that the executor is up and reachable, then dial again"
    )]
    HandshakeDeadline {
        /// The limit.
        seconds: u64,
    },
    /// The answer to a question that was not asked, or asked and answered.
    #[error("no client waits for a verdict on this link")]
    NoVerdictNeeded,
    /// The owner does not take events.
    #[error("more than {EVENTS_PENDING_MAX} events wait on this link: poll them after every frame")]
    EventsNotTaken,
}

/// What one call of [`Link::poll_transmit`] wrote.
#[must_use = "dropping it drops the tokens of the messages that were cut"]
#[derive(Debug)]
pub struct TransmitReport<T> {
    /// Bytes appended.
    pub wire_bytes: usize,
    /// Of them, bytes of sealed records with their headers: what counts against the send window.
    pub data_bytes: usize,
    /// Records sealed.
    pub records: u32,
    /// Plaintext that came from bulk lanes.
    pub bulk_bytes: usize,
    /// Messages whose last byte was cut, in the order of cutting.
    pub finished: Vec<CutMessage<T>>,
}

enum State {
    /// Initiator: message 1 is out.
    AwaitingWelcome(Box<AwaitingWelcome>),
    /// Responder: the preamble is known.
    AwaitingHello(Box<HelloParts>),
    /// Responder: message 1 verified.
    AwaitingVerdict(Box<AwaitingVerdict>),
    /// Responder: message 2 is out, and no record proved yet that message 1 was fresh.
    AwaitingFirstRecord(Box<Established>),
    /// Records flow.
    Up(Box<Established>),
    /// No more.
    Over,
}

struct HelloParts {
    identity: Arc<StaticKeypair>,
    preamble: [u8; PREAMBLE_BYTES],
    version: u16,
    seed: EphemeralSeed,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::AwaitingWelcome(_) => "awaiting message 2",
            Self::AwaitingHello(_) => "awaiting message 1",
            Self::AwaitingVerdict(_) => "awaiting the verdict on a client",
            Self::AwaitingFirstRecord(_) => "awaiting the first record",
            Self::Up(_) => "up",
            Self::Over => "over",
        }
    }
}

/// One stream at one endpoint. `T` comes back when the message it travels with was cut to its end.
///
/// Order of calls: after every [`handle_frame`](Self::handle_frame) or [`handle_timeout`](Self::handle_timeout) take all
/// events, then write what [`poll_transmit`](Self::poll_transmit) appends, then wait for a frame, for room to send,
/// or until [`poll_timeout`](Self::poll_timeout).
pub struct Link<T> {
    stream: StreamId,
    initiator: bool,
    options: LinkOptions,
    state: State,
    lanes: Lanes<T>,
    reassembly: Reassembly,
    events: VecDeque<LinkEvent>,
    /// Clear frames that wait to be written.
    outbox: BytesMut,
    send_window: SendWindow,
    grant_window: GrantWindow,
    pace: Pace,
    opened: Opened,
    renewal: Renewal,
    /// The dialler's first record has been sealed.
    confirmed: bool,
    /// When this side's part of the handshake was first written.
    said_at: Option<Instant>,
    deadline: Option<Instant>,
}

impl<T> Link<T> {
    /// Dials: the first bytes to transmit are the preamble, the token and message 1. `preamble.token_len` must be
    /// the token's length, as [`Preamble::new`] makes it.
    ///
    /// # Errors
    /// [`LinkError::Handshake`]; [`LinkError::Preamble`] when the token's length is not the preamble's.
    pub fn dial(
        now: Instant,
        identity: &StaticKeypair,
        preamble: &Preamble,
        token: &[u8],
        hello: &[u8],
        options: LinkOptions,
        rng: &mut dyn Randomness,
    ) -> Result<Self, LinkError> {
        if token.len() != usize::from(preamble.token_len) {
            return Err(PreambleError::TokenLength { actual: token.len() }.into());
        }
        let clear = preamble.encode();
        let (waiting, message) = Initiator::start(identity, preamble.executor, &clear, hello, rng)?;
        let waiting = waiting.with_limits(options.seal_limits);
        let identity = StaticKeypair::from_private(Zeroizing::new(*identity.expose_private()));
        let mut link = Self::new(
            now,
            preamble.stream,
            options,
            State::AwaitingWelcome(Box::new(waiting)),
            (Arc::new(identity), true),
        );
        link.outbox.extend_from_slice(&clear);
        link.outbox.extend_from_slice(token);
        encode_outer(&mut link.outbox, OuterKind::Handshake, link.stream, 0, &message);
        Ok(link)
    }

    /// Answers a dialler whose preamble has been read. Hand it the HANDSHAKE frame that follows, or the OPEN frame
    /// that brought the preamble (see [`crate::opening::split_open`]).
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the refusal to send when versions or suites do not meet;
    /// [`LinkError::Handshake`] without randomness.
    pub fn answer(
        now: Instant,
        identity: Arc<StaticKeypair>,
        preamble: &Preamble,
        options: LinkOptions,
        rng: &mut dyn Randomness,
    ) -> Result<Self, LinkError> {
        let version = preamble.agree().map_err(LinkError::Refused)?;
        let seed = EphemeralSeed::draw(rng).map_err(HandshakeError::from)?;
        let own = (Arc::clone(&identity), false);
        let parts = HelloParts {
            identity,
            preamble: preamble.encode(),
            version,
            seed,
        };
        Ok(Self::new(
            now,
            preamble.stream,
            options,
            State::AwaitingHello(Box::new(parts)),
            own,
        ))
    }

    fn new(
        now: Instant,
        stream: StreamId,
        options: LinkOptions,
        state: State,
        (identity, initiator): (Arc<StaticKeypair>, bool),
    ) -> Self {
        let rng = Box::new(OsRandomness::new());
        Self {
            stream,
            initiator,
            options,
            state,
            lanes: Lanes::new(),
            reassembly: Reassembly::default(),
            // Mostly one at a time, and mostly in an idle link.
            events: VecDeque::with_capacity(1),
            outbox: BytesMut::new(),
            send_window: SendWindow::new(options.windowed),
            grant_window: GrantWindow::new(options.grants),
            pace: Pace::new(now, options.paced),
            opened: Opened::default(),
            renewal: Renewal::new(identity, rng, initiator, &options),
            confirmed: false,
            said_at: None,
            deadline: now.checked_add(options.handshake_timeout),
        }
    }

    /// Draws the ephemeral keys of its renewals from there, instead of from the operating system's generator: a link
    /// outlives the argument that its first handshake drew from.
    #[must_use]
    pub fn drawing_from(mut self, rng: Box<dyn Randomness + Send>) -> Self {
        self.renewal.draw_from(rng);
        self
    }

    /// How often the keys of this link were renewed.
    pub fn renewals(&self) -> u64 {
        self.renewal.done()
    }

    /// The stream this link is.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Whether messages flow.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether nothing will ever happen here again, but for a last reset to transmit.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Serves the client that asked, with this payload in message 2.
    ///
    /// # Errors
    /// [`LinkError::NoVerdictNeeded`]; [`LinkError::Handshake`] for a payload that is too long (the link is then over).
    pub fn welcome(&mut self, payload: &[u8]) -> Result<(), LinkError> {
        let State::AwaitingVerdict(waiting) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(LinkError::NoVerdictNeeded);
        };
        match waiting.welcome(payload) {
            Ok((established, message)) => {
                encode_outer(&mut self.outbox, OuterKind::Handshake, self.stream, 0, &message);
                self.state = State::AwaitingFirstRecord(Box::new(established));
                Ok(())
            }
            Err(error) => {
                self.end(&Reset::new(ResetCode::Unavailable));
                Err(error.into())
            }
        }
    }

    /// Refuses the client that asked: it gets the same reset as garbage does.
    pub fn refuse(&mut self) {
        if matches!(self.state, State::AwaitingVerdict(_)) {
            self.end(&Reset::new(ResetCode::Unavailable));
        }
    }

    /// Ends the link: a reset is the last thing to transmit, messages not yet cut are dropped with their tokens.
    pub fn close(&mut self, reason: &Reset) {
        if !self.is_over() {
            self.end(reason);
        }
    }

    fn end(&mut self, reason: &Reset) {
        let mut payload = BytesMut::new();
        reason.encode(&mut payload);
        encode_outer(&mut self.outbox, OuterKind::Reset, self.stream, 0, &payload);
        self.silence();
    }

    /// Over, without a word to the peer.
    fn silence(&mut self) {
        self.state = State::Over;
        self.lanes = Lanes::new();
        self.reassembly = Reassembly::default();
        self.deadline = None;
        self.renewal.over();
    }

    /// Queues a message. It may be queued before the link is up; it leaves when it is.
    ///
    /// # Errors
    /// [`EnqueueError`], with the message in it.
    pub fn enqueue(&mut self, message: Outgoing<T>) -> Result<(), EnqueueError<T>> {
        if self.is_over() {
            return Err(EnqueueError {
                problem: EnqueueProblem::LinkOver,
                message: Box::new(message),
            });
        }
        self.lanes.enqueue(message)
    }

    /// Message bytes that wait in a lane.
    pub fn queued_bytes(&self, lane: Lane) -> usize {
        self.lanes.queued_bytes(lane)
    }

    /// Whether something of this channel waits in this lane: what is queued elsewhere for it may overtake that.
    pub fn holds(&self, lane: Lane, channel: u32) -> bool {
        self.lanes.holds(lane, channel)
    }

    /// Plaintext of the bulk lanes that may be sent before the peer has said how much it has opened: what the link carries
    /// in its round trip and 20 ms by what is known of it, at least [`UNDER_WAY_MIN_BYTES`]. `u64::MAX`: not paced.
    pub fn bulk_bound_bytes(&self) -> u64 {
        self.pace.bound()
    }

    /// Bytes that the send window still allows; `u64::MAX` on a direct link.
    pub fn window_left(&self) -> u64 {
        self.send_window.left()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline.or_else(|| self.renewal.poll_timeout())
    }

    /// Tells the link that time has passed. It may have something to transmit then.
    ///
    /// # Errors
    /// [`LinkError::HandshakeDeadline`] once the handshake has taken too long, [`LinkError::KeysTooOld`] once the keys have
    /// not been renewed for too long; the link is then over.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkError> {
        if let Err(age) = self.renewal.handle_timeout(now) {
            self.end(&Reset::new(ResetCode::Exhausted));
            let age_seconds = age.as_secs();
            return Err(LinkError::KeysTooOld { age_seconds });
        }
        match self.deadline {
            Some(deadline) if deadline <= now => {
                self.end(&Reset::new(ResetCode::Deadline));
                Err(LinkError::HandshakeDeadline {
                    seconds: self.options.handshake_timeout.as_secs(),
                })
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl<T> std::fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("stream", &self.stream)
            .field("state", &self.state.name())
            .finish_non_exhaustive()
    }
}
