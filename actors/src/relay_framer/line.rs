//! One link that a session has now: its transport, the tasks that serve it, and its pulse.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use dwell_messages::{Envelope, StreamId, TraceContext};
use dwell_relay::driver::Connection;
use dwell_relay::resume::{Beat, Pings, Pulse};
use dwell_relay::{Incoming, Link, LinkError, LinkEstablished, OuterDecoder, Reset, ResetCode};

use super::round_trips::RoundTrips;
use super::uplink::{ConnectionError, Sent, SharedLink, Uplink, UplinkId, read_loop};
use super::{FramerControl, FramerMessage, INBOUND_FRAMES_MAX, LinkLost, RelayFramer};
use crate::in_flight::{Board, Entered, Link as Watched, LinkKind};
use crate::mailbox::{Mailbox, TimerGuard, Turn};
use crate::metrics::Meters;
use crate::telemetry::Tick;

/// An established link on its way to the framer of its session, which may live on another arbiter.
pub(crate) struct Attachment {
    pub(crate) link: Link<Sent>,
    pub(crate) transport: Transport,
    pub(crate) peer: LinkEstablished,
    /// Messages that came with the record which established it, and when that was read.
    pub(crate) early: Vec<Incoming>,
    pub(crate) read: Tick,
    /// Whether a relay is in between.
    pub(crate) relayed: bool,
    /// The client took it for a link of a session that never began.
    pub(crate) anew: bool,
    /// Whether this end dialled, and how it then pings.
    pub(crate) dialled: Option<Pings>,
}

/// What carries a link.
pub(crate) enum Transport {
    /// A connection of its own, and what was read of it already.
    Own(Connection, Box<OuterDecoder>),
    /// A connection to a relay, which it shares with others of the same arbiter.
    Shared(UplinkId),
}

/// See the module.
pub(super) struct Line {
    pub(super) link: SharedLink,
    pub(super) uplink: Rc<Uplink>,
    pub(super) stream: StreamId,
    pub(super) relayed: bool,
    /// What the executor said in this link's handshake.
    pub(super) welcome: Bytes,
    /// Whether the peer has yet to say that the session goes on over this link.
    pub(super) resuming: bool,
    /// Round trips of this link.
    pub(super) pings: RoundTrips,
    pulse: Pulse,
    dials: bool,
    beat: Option<TimerGuard>,
    own: bool,
    /// As others see it.
    watched: Entered<Watched>,
    _reader: Option<TimerGuard>,
}

impl Line {
    /// Begins to serve the transport. `None`: the connection that carries it is gone, or full.
    pub(super) fn open(
        link: Link<Sent>,
        transport: Transport,
        (relayed, dialled): (bool, Option<Pings>),
        board: &Board,
        turn: &Turn<'_, RelayFramer>,
    ) -> Option<Self> {
        let stream = link.stream();
        let link = Rc::new(RefCell::new(link));
        let inbound = turn.mailbox().port(INBOUND_FRAMES_MAX);
        let now = Instant::now();
        let pulse = match dialled {
            Some(pings) => Pulse::pinging(now, pings),
            None => Pulse::listening(now),
        };
        let uplink = match &transport {
            Transport::Own(..) => Rc::new(Uplink::counting(board)),
            Transport::Shared(id) => Uplink::local(*id)?,
        };
        if !uplink.add(stream, Rc::clone(&link)) {
            return None;
        }
        let kind = if relayed {
            LinkKind::Relayed
        } else {
            LinkKind::Direct
        };
        let watched = board.link(Watched::new(kind, stream, uplink.writing()));
        uplink.watch(stream, watched.share());
        let mut line = Self {
            link,
            uplink,
            stream,
            relayed,
            welcome: Bytes::new(),
            resuming: false,
            pings: RoundTrips::default(),
            pulse,
            dials: dialled.is_some(),
            beat: None,
            own: false,
            watched,
            _reader: None,
        };
        if let Transport::Own(connection, decoder) = transport {
            line.own = true;
            let meters = Arc::clone(board.meters());
            line._reader = Some(line.serve(connection, (*decoder, meters), inbound, turn));
        }
        Some(line)
    }

    fn serve(
        &self,
        connection: Connection,
        decoder: (OuterDecoder, Arc<Meters>),
        inbound: Mailbox<RelayFramer>,
        turn: &Turn<'_, RelayFramer>,
    ) -> TimerGuard {
        let (writing, lost, stream) = (Rc::clone(&self.uplink), inbound.clone(), self.stream);
        let writer = connection.writer;
        turn.spawn(async move {
            let over = writing.write_loop(writer).await;
            tell_over(&lost, stream, &over).await;
        })
        .detach();
        let reader = connection.reader;
        turn.spawn(async move {
            let over = read_loop(reader, decoder, |frame, read| {
                let inbound = inbound.clone();
                async move {
                    let message = FramerMessage::Inbound(frame, read);
                    inbound
                        .tell(Envelope::new(TraceContext::default(), message))
                        .await
                        .is_ok()
                }
            })
            .await;
            tell_over(&inbound, stream, &over).await;
        })
    }

    /// What the pulse wants now; its next beat is on its way. The link hears of the time too, for the age of its keys.
    ///
    /// # Errors
    /// The link may not be used any longer.
    pub(super) fn beat(&mut self, turn: &Turn<'_, RelayFramer>) -> Result<Beat, LinkError> {
        let now = Instant::now();
        let due = {
            let mut link = self.link.borrow_mut();
            if link.poll_timeout().is_some_and(|due| due <= now) {
                link.handle_timeout(now)?;
            }
            link.poll_timeout()
        };
        let beat = self.pulse.beat(now);
        if beat == Beat::Ping {
            self.watched.pinged();
        }
        let after = match beat {
            Beat::Wait(until) => due.map_or(until, |due| due.min(until)),
            Beat::Ping => now,
            Beat::Dead => return Ok(beat),
        };
        let after = after.saturating_duration_since(now);
        self.beat = (beat != Beat::Ping).then(|| turn.timer(after, FramerControl::Beat(self.stream)));
        Ok(beat)
    }

    /// Whether this end dialled, and so asks for round trips.
    pub(super) fn dials(&self) -> bool {
        self.dials
    }

    /// A ping left that the pulse did not ask for.
    pub(super) fn pinged_between(&mut self) {
        self.pulse.asked(Instant::now());
    }

    /// A ping came.
    pub(super) fn pinged(&mut self) {
        self.pulse.pinged(Instant::now());
    }

    /// The answer to one came.
    pub(super) fn pong(&mut self) {
        self.pulse.pong(Instant::now());
        self.watched.heard();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.link.borrow().is_over() {
            self.link.borrow_mut().close(&Reset::new(ResetCode::Closed));
        }
        self.uplink.retire(self.stream);
        if self.own {
            self.uplink.close();
        }
    }
}

/// In the frames' own room, so that a reset or refusal that came right before the end is heard first.
async fn tell_over(inbound: &Mailbox<RelayFramer>, stream: StreamId, over: &ConnectionError) {
    let message = FramerMessage::Over(stream, LinkLost::Connection(over.to_string()));
    drop(
        inbound
            .tell(Envelope::new(TraceContext::default(), message))
            .await,
    );
}
