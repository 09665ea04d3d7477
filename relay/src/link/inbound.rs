//! What a link makes of a frame.

use std::time::Instant;

use bytes::{Buf, BytesMut};
use dwell_messages::kinds::OuterKind;

use crate::chunk::ChunkError;
use crate::control::{Refusal, Reset, ResetCode};
use crate::handshake::{Established, Responder};
use crate::opening::split_open;
use crate::outer::{OUTER_HEADER_BYTES, OuterFrame, check_bounds, encode_outer};
use crate::own::OwnChunk;
use crate::reassembly::Brought;

use super::{
    EVENTS_PENDING_MAX, Link, LinkError, LinkEstablished, LinkEvent, PONGS_PENDING_MAX_BYTES, State,
};

impl<T> Link<T> {
    /// Takes one frame of this stream. Frames for a link that is over are ignored.
    ///
    /// # Errors
    /// [`LinkError`]: the link is over, and a reset waits in [`Link::poll_transmit`].
    pub fn handle_frame(&mut self, now: Instant, frame: OuterFrame) -> Result<(), LinkError> {
        if self.is_over() {
            return Ok(());
        }
        // Before a client is admitted every failure looks the same from outside.
        let admitted = self.is_up() || self.initiator;
        self.dispatch(now, frame).inspect_err(|error| {
            let code = match error {
                LinkError::WindowOverrun { .. } => ResetCode::WindowOverrun,
                LinkError::Refused(_) => ResetCode::Closed,
                LinkError::Record(crate::record::RecordError::Exhausted { .. }) => ResetCode::Exhausted,
                LinkError::Handshake(_)
                | LinkError::Preamble(_)
                | LinkError::Open(_)
                | LinkError::Record(_)
                | LinkError::Chunk(_)
                | LinkError::Frame(_)
                | LinkError::Control(_)
                | LinkError::Renewal(_)
                | LinkError::KeysTooOld { .. }
                | LinkError::Miscounted { .. }
                | LinkError::OpenedTooMuch { .. }
                | LinkError::UnexpectedFrame { .. }
                | LinkError::WrongStream { .. }
                | LinkError::HandshakeDeadline { .. }
                | LinkError::NoVerdictNeeded
                | LinkError::EventsNotTaken => ResetCode::Protocol,
            };
            self.end(&Reset::new(if admitted { code } else { ResetCode::Unavailable }));
        })
    }

    fn dispatch(&mut self, now: Instant, frame: OuterFrame) -> Result<(), LinkError> {
        if frame.stream != self.stream {
            return Err(LinkError::WrongStream {
                expected: self.stream,
                actual: frame.stream,
            });
        }
        check_bounds(frame.kind, frame.payload.len())?;
        if self.events.len() >= EVENTS_PENDING_MAX {
            return Err(LinkError::EventsNotTaken);
        }
        match frame.kind {
            OuterKind::Data => self.data(now, frame),
            OuterKind::Handshake => self.handshake(now, &frame.payload),
            OuterKind::Open => self.open(now, frame.payload),
            OuterKind::Reset => {
                let reason = Reset::decode(&frame.payload)?;
                self.silence();
                self.events.push_back(LinkEvent::PeerClosed { reason });
                Ok(())
            }
            OuterKind::Window => {
                self.window(&frame.payload);
                Ok(())
            }
            OuterKind::Refused => self.refused(&frame.payload),
            OuterKind::Ping => {
                if self.outbox.len() < PONGS_PENDING_MAX_BYTES {
                    encode_outer(&mut self.outbox, OuterKind::Pong, self.stream, 0, &frame.payload);
                }
                Ok(())
            }
            OuterKind::Pong => Ok(()),
            OuterKind::Registered => Err(self.unexpected(OuterKind::Registered)),
        }
    }

    fn unexpected(&self, kind: OuterKind) -> LinkError {
        LinkError::UnexpectedFrame {
            kind,
            state: self.state.name(),
        }
    }

    fn window(&mut self, mut payload: &[u8]) {
        if self.options.windowed {
            self.send_window.raise(payload.get_u64());
        }
    }

    /// Clear and unauthenticated: it can end a dial, as a cut cable can, and never changes what is offered next.
    fn refused(&mut self, payload: &[u8]) -> Result<(), LinkError> {
        let refusal = Refusal::decode(payload)?;
        match self.state {
            State::AwaitingWelcome(_) => Err(LinkError::Refused(refusal)),
            State::AwaitingHello(_)
            | State::AwaitingVerdict(_)
            | State::AwaitingFirstRecord(_)
            | State::Up(_)
            | State::Over => Ok(()),
        }
    }

    fn open(&mut self, now: Instant, payload: BytesMut) -> Result<(), LinkError> {
        let State::AwaitingHello(parts) = &self.state else {
            return Err(self.unexpected(OuterKind::Open));
        };
        let expected = parts.preamble;
        let (preamble, _, message) = split_open(payload)?;
        if preamble.encode() != expected {
            return Err(self.unexpected(OuterKind::Open));
        }
        self.handshake(now, &message)
    }

    fn handshake(&mut self, now: Instant, message: &[u8]) -> Result<(), LinkError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitingWelcome(waiting) => {
                let established = waiting.read(message)?;
                self.deadline = None;
                self.came_up(now, &established);
                self.state = State::Up(Box::new(established));
                Ok(())
            }
            State::AwaitingHello(parts) => {
                let verdict = Responder::read_hello_seeded(
                    &parts.identity,
                    &parts.preamble,
                    parts.version,
                    message,
                    parts.seed,
                )?
                .with_limits(self.options.seal_limits);
                self.events.push_back(LinkEvent::AuthorizationNeeded {
                    client: verdict.client(),
                    hello: verdict.hello().clone(),
                    handshake_hash: verdict.handshake_hash(),
                });
                self.state = State::AwaitingVerdict(Box::new(verdict));
                Ok(())
            }
            state @ (State::AwaitingVerdict(_)
            | State::AwaitingFirstRecord(_)
            | State::Up(_)
            | State::Over) => Err(LinkError::UnexpectedFrame {
                kind: OuterKind::Handshake,
                state: state.name(),
            }),
        }
    }

    fn came_up(&mut self, now: Instant, established: &Established) {
        if let Some(said) = self.said_at {
            // The handshake's round trip is the first that is known of the link.
            self.pace
                .round_trip_seen(now, now.saturating_duration_since(said));
        }
        self.renewal.begin(now, established.handshake_hash);
        self.events.push_back(LinkEvent::Established(LinkEstablished {
            peer: established.peer,
            welcome: established.welcome.clone(),
            handshake_hash: established.handshake_hash,
            version: established.version,
        }));
    }

    fn data(&mut self, now: Instant, frame: OuterFrame) -> Result<(), LinkError> {
        self.grant_window
            .receive(OUTER_HEADER_BYTES + frame.payload.len())
            .map_err(|(received, granted)| LinkError::WindowOverrun { received, granted })?;
        let mut record = frame.payload;
        match &mut self.state {
            State::Up(established) => {
                established.opener.open_in_place(&mut record)?;
                if record.is_empty() {
                    return Err(ChunkError::EmptyRecord.into());
                }
            }
            State::AwaitingFirstRecord(established) => {
                established.opener.open_in_place(&mut record)?;
                self.confirm(now);
            }
            State::AwaitingWelcome(_) | State::AwaitingHello(_) | State::AwaitingVerdict(_) | State::Over => {
                return Err(self.unexpected(OuterKind::Data));
            }
        }
        let (events, mut own) = (&mut self.events, Vec::new());
        self.reassembly
            .accept(now, frame.stamp_us, record, |brought| match brought {
                Brought::Message(message) => events.push_back(LinkEvent::Message(message)),
                Brought::Own(chunk, bulk_bytes) => own.push((chunk, bulk_bytes)),
            })?;
        for (chunk, bulk_bytes) in own {
            self.own(now, chunk, bulk_bytes)?;
        }
        self.opened.opened(self.reassembly.bulk_bytes());
        Ok(())
    }

    /// What the peer's link says of itself.
    fn own(&mut self, now: Instant, chunk: OwnChunk, bulk_bytes: u64) -> Result<(), LinkError> {
        match chunk {
            OwnChunk::Mark(marked) if marked == bulk_bytes => {
                self.opened.asked();
                Ok(())
            }
            OwnChunk::Mark(marked) => Err(LinkError::Miscounted {
                marked,
                opened: bulk_bytes,
            }),
            OwnChunk::Opened(opened) => {
                self.pace
                    .opened(now, opened)
                    .map_err(|impossible| LinkError::OpenedTooMuch {
                        opened: impossible.opened,
                        sent: impossible.cut,
                    })
            }
            OwnChunk::Renew(_) | OwnChunk::Renewed(_) | OwnChunk::Close(_) => self.renew(now, &chunk),
        }
    }

    /// A message of a renewal.
    fn renew(&mut self, now: Instant, chunk: &OwnChunk) -> Result<(), LinkError> {
        let State::Up(keys) = &mut self.state else {
            return Err(self.unexpected(OuterKind::Data));
        };
        match chunk {
            OwnChunk::Renew(message) => self.renewal.asked(message, keys)?,
            OwnChunk::Renewed(message) => self.renewal.answered(message, keys)?,
            OwnChunk::Close(ordinal) => self.renewal.closed(now, *ordinal, keys)?,
            OwnChunk::Mark(_) | OwnChunk::Opened(_) => {}
        }
        Ok(())
    }

    /// The first record opened: message 1 was no replay, so the link is real.
    fn confirm(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitingFirstRecord(established) => {
                self.deadline = None;
                self.came_up(now, &established);
                self.state = State::Up(established);
            }
            other @ (State::AwaitingWelcome(_)
            | State::AwaitingHello(_)
            | State::AwaitingVerdict(_)
            | State::Up(_)
            | State::Over) => self.state = other,
        }
    }
}
