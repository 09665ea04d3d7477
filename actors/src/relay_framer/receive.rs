//! What a framer makes of frames: messages, each applied once.

use std::time::Instant;

use dwell_messages::{Envelope, Message as Wire, Pong, Request, ResumeRefused, TraceContext, codec};
use dwell_messages::{Event, codec::DecodeError};
use dwell_relay::resume::{Accepted, OrderError};
use dwell_relay::{Incoming, LinkEvent, OuterFrame};

use super::send::is_end;
use super::{ACK_DELAY, ACK_MESSAGES, Arrival, FramerControl, LinkLost, RelayFramer, ToSend, chain};
use crate::fault_point::delay::{self, DelayPoint};
use crate::mailbox::Turn;
use crate::telemetry::{Stage, Tick, semconv, unix_now_ns};

impl RelayFramer {
    pub(super) fn inbound(&mut self, frame: OuterFrame, read: Tick, turn: &mut Turn<'_, Self>) {
        // A frame of a link that is gone is late.
        let Some(line) = self.line.as_ref().filter(|line| line.stream == frame.stream) else {
            return;
        };
        let (bytes, dials) = (frame.payload.len(), line.dials());
        reach(
            bytes,
            dials,
            [DelayPoint::HarnessReceive, DelayPoint::ExecutorReceive],
        );
        let taken = turn.now();
        reach(bytes, dials, [DelayPoint::HarnessOpen, DelayPoint::ExecutorOpen]);
        let outcome = line.link.borrow_mut().handle_frame(Instant::now(), frame);
        self.events((read, taken), turn);
        if let Err(error) = outcome {
            self.link_lost(LinkLost::Failed(chain(&error)), turn);
        }
        self.wake();
    }

    fn events(&mut self, when: (Tick, Tick), turn: &mut Turn<'_, Self>) {
        while let Some(line) = &self.line {
            let event = line.link.borrow_mut().poll_event();
            match event {
                None => return,
                Some(LinkEvent::Message(incoming)) => self.message(&incoming, when, turn),
                Some(LinkEvent::PeerClosed { reason }) => {
                    let text = if reason.text.is_empty() {
                        String::new()
                    } else {
                        format!(": {}", reason.text)
                    };
                    let code = reason.code;
                    self.link_lost(LinkLost::Reset { code, text }, turn);
                }
                // The handshake was over before the link came here.
                Some(LinkEvent::Established(_) | LinkEvent::AuthorizationNeeded { .. }) => {}
            }
        }
    }

    /// `when` the bytes that complete it were read, and this framer took them.
    pub(super) fn message(&mut self, incoming: &Incoming, when: (Tick, Tick), turn: &mut Turn<'_, Self>) {
        if self.over {
            return;
        }
        let (read, taken) = when;
        let opened = Tick::now();
        let first = if incoming.records > 1 {
            Tick::from_instant(incoming.first_record_at)
        } else {
            read
        };
        let decoded = match codec::decode(&incoming.bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.not_understood(incoming, &error, turn),
        };
        if decoded.message.is_sequenced() {
            match self.in_order(decoded.sequence, turn) {
                Ok(Accepted::Fresh) => {}
                Ok(Accepted::Repeated) => return,
                Err(error) => return self.over(LinkLost::Protocol(error.to_string()), turn),
            }
        }
        if decoded.context_malformed {
            self.malformed_contexts += 1;
            tracing::debug!(
                count = self.malformed_contexts,
                "a malformed trace context was passed over"
            );
        }
        let context = decoded.context.unwrap_or_default().received();
        reach_end(
            &decoded.message,
            [DelayPoint::HarnessDecode, DelayPoint::ExecutorDecode],
        );
        let arrival = Arrival {
            first,
            taken,
            opened,
            decoded: if is_call_message(&decoded.message) {
                Tick::now()
            } else {
                opened
            },
            trailer: decoded.trailer,
            relay_us: incoming.relay_us,
        };
        let relayed = self.line.as_ref().is_some_and(|line| line.relayed);
        if relayed && self.collector.wants(&context) && is_call_message(&decoded.message) {
            self.relay_hop(&context, &arrival);
        }
        reach_end(
            &decoded.message,
            [DelayPoint::HarnessHandOff, DelayPoint::ExecutorHandOff],
        );
        self.apply(context, decoded.message, arrival, turn);
    }

    fn apply(&mut self, context: TraceContext, message: Wire, arrival: Arrival, turn: &mut Turn<'_, Self>) {
        match message {
            Wire::Goodbye(reason) => self.over(LinkLost::Goodbye(reason), turn),
            Wire::Pong(pong) => {
                let Some(line) = &mut self.line else { return };
                line.pong();
                if let Some(trip) = line.pings.answered(pong.value, arrival.first) {
                    self.upper.round_trip(trip, pong.unix_ns);
                }
            }
            Wire::Ping(nonce) => {
                if let Some(line) = &mut self.line {
                    line.pinged();
                }
                let pong = Pong {
                    value: nonce,
                    unix_ns: unix_now_ns(),
                };
                self.send(context, *ToSend::plain(Wire::Pong(pong)), turn);
            }
            Wire::Ack { received, released } => {
                let outcome = self.replay.acknowledge(received, drop);
                self.count_unacknowledged();
                if let Err(error) = outcome {
                    return self.over(LinkLost::Protocol(error.to_string()), turn);
                }
                if !released.is_empty() {
                    self.upper.released(released, turn);
                }
                self.send_waiting(turn);
            }
            Wire::Resumed(resumed) => self.goes_on(resumed, turn),
            Wire::ResumeRefused(refused) => {
                let ResumeRefused { error, owner } = refused;
                self.over(LinkLost::TurnedAway { error, owner }, turn);
            }
            Wire::Resume(_) => {
                let why = "it takes a session up that is under way on this link";
                self.over(LinkLost::Protocol(why.into()), turn);
            }
            message => {
                if let Wire::Request { id, process, request } = &message {
                    self.highest.0 = self.highest.0.max(id.0);
                    if let (Request::Start(_), Some(process)) = (request, process) {
                        self.highest.1 = self.highest.1.max(process.0);
                    }
                }
                self.upper.message(arrival, Envelope::new(context, message), turn);
            }
        }
    }

    /// A request with an id can be answered; whatever else is not understood ends the session, because the next link
    /// would bring it again.
    fn not_understood(&mut self, incoming: &Incoming, error: &DecodeError, turn: &mut Turn<'_, Self>) {
        if error.request_id().is_none() {
            return self.over(LinkLost::Protocol(error.to_string()), turn);
        }
        let sequence = codec::sequence(&incoming.bytes).unwrap_or(0);
        match self.in_order(sequence, turn) {
            Ok(Accepted::Fresh) => {
                let context = codec::context_of(&incoming.bytes).unwrap_or_default();
                self.upper.unanswerable(context.received(), error, turn);
            }
            Ok(Accepted::Repeated) => {}
            Err(error) => self.over(LinkLost::Protocol(error.to_string()), turn),
        }
    }

    /// The message's place in the order, and an acknowledgement on its way.
    fn in_order(&mut self, sequence: u64, turn: &Turn<'_, Self>) -> Result<Accepted, OrderError> {
        let accepted = self.received.accept(sequence)?;
        if self.received.fresh() >= ACK_MESSAGES {
            self.acknowledge();
        } else {
            self.ack
                .get_or_insert_with(|| turn.timer(ACK_DELAY, FramerControl::Ack));
        }
        Ok(accepted)
    }

    /// The relay's word, drawn so that it ends where the record arrived.
    fn relay_hop(&self, context: &TraceContext, arrival: &Arrival) {
        let end = arrival.first;
        let start = end.earlier_by_micros(u64::from(arrival.relay_us));
        self.collector.stage(
            Stage::new(context, semconv::span::RELAY_HOP, start, end)
                .number(semconv::RELAY_RESIDENCE_US, arrival.relay_us)
                .text(semconv::RELAY_SOURCE, "unauthenticated"),
        );
    }
}

/// A frame that can carry a start or an end, at the side that dialled and at the other.
fn reach(bytes: usize, dials: bool, points: [DelayPoint; 2]) {
    if bytes >= delay::CALL_FRAME_MIN_BYTES {
        delay::reach(points[usize::from(!dials)]);
    }
}

/// An end on the harness, a start on the executor.
fn reach_end(message: &Wire, points: [DelayPoint; 2]) {
    if is_end(message) {
        delay::reach(points[0]);
    } else if let Wire::Request {
        request: Request::Start(_),
        ..
    } = message
    {
        delay::reach(points[1]);
    }
}

/// Messages that are part of a call's account; stream data and control are not.
fn is_call_message(message: &Wire) -> bool {
    match message {
        Wire::Request { request, .. } => !matches!(request, Request::Write(_)),
        Wire::Response { .. } => true,
        Wire::Event { event, .. } => !matches!(event, Event::Output(_) | Event::Gap(_)),
        Wire::Cancel(_)
        | Wire::Ack { .. }
        | Wire::Credit { .. }
        | Wire::Ping(_)
        | Wire::Pong(_)
        | Wire::Goodbye(_)
        | Wire::Resume(_)
        | Wire::Resumed(_)
        | Wire::ResumeRefused(_)
        | Wire::TraceRecords { .. } => false,
    }
}
