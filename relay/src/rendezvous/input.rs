//! What a relay makes of bytes: preambles, then frames, each judged by what its connection is.

use std::time::Instant;

use bytes::BytesMut;
use dwell_messages::StreamId;
use dwell_messages::kinds::OuterKind;

use crate::control::{Refusal, RefusalReason};
use crate::outer::{RawFrame, encode_outer};
use crate::preamble::{Dialer, Preamble};

use super::connection::{Input, Phase};
use super::schedule::Direction;
use super::{ConnId, ConnectionFault, DropReason, Rendezvous, StreamKey};

/// What a connection's next bytes are.
enum Next {
    Preamble(Preamble, BytesMut),
    Frame(RawFrame),
    Fault(ConnectionFault),
    Nothing,
}

impl Rendezvous {
    /// Handles everything that is complete.
    pub(super) fn read(&mut self, now: Instant, conn: ConnId) {
        loop {
            match self.next_input(conn) {
                Next::Preamble(preamble, token) => self.preamble(now, conn, preamble, token),
                Next::Frame(frame) => self.frame(now, conn, frame),
                Next::Fault(fault) => return self.fault(now, conn, fault),
                Next::Nothing => return,
            }
        }
    }

    fn next_input(&mut self, conn: ConnId) -> Next {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return Next::Nothing;
        };
        match &mut connection.input {
            Input::Preamble(decoder) => match decoder.decode() {
                Ok(Some((preamble, token))) => {
                    let mut decoder = std::mem::take(decoder).into_frames();
                    decoder.set_stranger(true);
                    connection.input = Input::Frames(decoder);
                    Next::Preamble(preamble, token)
                }
                Ok(None) => Next::Nothing,
                Err(_) => Next::Fault(ConnectionFault::NotDwell),
            },
            Input::Frames(decoder) => match decoder.next_raw() {
                Ok(Some(frame)) => Next::Frame(frame),
                Ok(None) => Next::Nothing,
                Err(_) => Next::Fault(ConnectionFault::Malformed),
            },
            Input::Ignored => Next::Nothing,
        }
    }

    fn preamble(&mut self, now: Instant, conn: ConnId, preamble: Preamble, token: BytesMut) {
        let served = preamble.agree().and_then(|_| match preamble.dialer {
            Dialer::Harness | Dialer::Executor => Ok(()),
            // A relay pairs by key: there is nothing to tell that asking for the key does not.
            Dialer::Inquirer => Err(Refusal::ours(RefusalReason::Role, "this is a relay")),
        });
        if let Err(refusal) = served {
            let mut payload = BytesMut::new();
            refusal.encode(&mut payload);
            self.push_control(conn, OuterKind::Refused, preamble.stream, &payload);
            self.report(super::Report::ConnectionFault {
                conn,
                fault: ConnectionFault::NotServed,
            });
            self.close_gently(now, conn);
            return;
        }
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.phase = match preamble.dialer {
                Dialer::Harness => Phase::AwaitingHello(preamble, token),
                Dialer::Executor => Phase::AwaitingRegistration(preamble),
                Dialer::Inquirer => Phase::Closing,
            };
        }
    }

    fn frame(&mut self, now: Instant, conn: ConnId, frame: RawFrame) {
        match frame.kind {
            OuterKind::Ping => return self.ping(now, conn, &frame),
            OuterKind::Pong => return,
            OuterKind::Handshake
            | OuterKind::Open
            | OuterKind::Data
            | OuterKind::Reset
            | OuterKind::Window
            | OuterKind::Refused
            | OuterKind::Registered => {}
        }
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        match &mut connection.phase {
            Phase::Executor(registration) => match registration.streams.get(&frame.stream) {
                Some(key) => {
                    let key = *key;
                    self.stream_frame(now, key, Direction::Down, frame);
                }
                None => self.drop_frame(DropReason::UnknownStream),
            },
            Phase::Harness(key, stream) if *stream == frame.stream => {
                let key = *key;
                self.stream_frame(now, key, Direction::Up, frame);
            }
            Phase::Harness(..) => self.drop_frame(DropReason::UnknownStream),
            Phase::AwaitingRegistration(preamble)
            | Phase::AwaitingProof(_, preamble)
            | Phase::AwaitingHello(preamble, _) => {
                let stream = preamble.stream;
                self.opening_frame(now, conn, stream, &frame);
            }
            Phase::AwaitingPreamble | Phase::Closing => self.drop_frame(DropReason::ConnectionClosing),
        }
    }

    fn opening_frame(&mut self, now: Instant, conn: ConnId, stream: StreamId, frame: &RawFrame) {
        if frame.stream != stream {
            return self.drop_frame(DropReason::UnknownStream);
        }
        if frame.kind != OuterKind::Handshake {
            return self.drop_frame(DropReason::UnexpectedKind);
        }
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        match std::mem::replace(&mut connection.phase, Phase::Closing) {
            Phase::AwaitingHello(preamble, token) => self.open(now, conn, &preamble, &token, frame),
            Phase::AwaitingRegistration(preamble) => self.begin_registration(now, conn, preamble, frame),
            Phase::AwaitingProof(proof, preamble) => {
                let (proof, admitted) = *proof;
                self.end_registration(now, conn, (proof, admitted), &preamble, frame);
            }
            other @ (Phase::AwaitingPreamble | Phase::Executor(_) | Phase::Harness(..) | Phase::Closing) => {
                connection.phase = other;
            }
        }
    }

    /// A frame of a paired stream.
    fn stream_frame(&mut self, now: Instant, key: StreamKey, direction: Direction, frame: RawFrame) {
        let arrived = self.arrived.unwrap_or(now);
        let Some(stream) = self.streams.get_mut(&key) else {
            return self.drop_frame(DropReason::UnknownStream);
        };
        let flow = stream.flow_mut(direction);
        if !flow.is_open() {
            return self.drop_frame(DropReason::StreamEnded);
        }
        match frame.kind {
            OuterKind::Data => match flow.accept_data(arrived, frame) {
                Ok(()) => self.has_output(now, key, direction),
                Err(overrun) => self.overrun(now, key, overrun),
            },
            OuterKind::Handshake => {
                if flow.accept_handshake(arrived, frame) {
                    self.has_output(now, key, direction);
                } else {
                    self.drop_frame(DropReason::SecondHandshake);
                }
            }
            OuterKind::Reset => self.reset_by_peer(now, key, direction, frame),
            OuterKind::Open
            | OuterKind::Window
            | OuterKind::Refused
            | OuterKind::Registered
            | OuterKind::Ping
            | OuterKind::Pong => self.drop_frame(DropReason::UnexpectedKind),
        }
    }

    fn ping(&mut self, now: Instant, conn: ConnId, frame: &RawFrame) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        if connection.egress.pong.is_some() {
            return self.drop_frame(DropReason::PingUnanswered);
        }
        let mut pong = BytesMut::new();
        encode_outer(&mut pong, OuterKind::Pong, frame.stream, 0, frame.payload());
        connection.egress.pong = Some(pong);
        self.pump(now, conn);
    }
}
