//! Registrations, pairings and their ends.

use std::collections::HashMap;
use std::time::Instant;

use bytes::BytesMut;
use dwell_messages::PublicKey;
use dwell_messages::kinds::OuterKind;

use crate::control::{Refusal, RefusalReason, Reset, ResetCode};
use crate::first_message::MacKey;
use crate::handshake::HandshakeError;
use crate::opening::Attestation;
use crate::outer::{RawFrame, encode_outer};
use crate::preamble::Preamble;
use crate::registration::{AwaitingProof, Registrar, RegistrationError};
use crate::source::Source;
use crate::strangers::{Admitted, Vouching};

use super::connection::{Phase, Registration};
use super::flow::{Flow, Overrun};
use super::schedule::Direction;
use super::{
    ConnId, ConnectionFault, DropReason, RegistrationFailure, Rendezvous, Report, STREAMS_PER_EXECUTOR_MAX,
    Stream, StreamKey, Unavailability,
};

impl Rendezvous {
    pub(super) fn begin_registration(
        &mut self,
        now: Instant,
        conn: ConnId,
        preamble: Preamble,
        frame: &RawFrame,
    ) {
        // By the key it claims: who is not listed costs no Diffie-Hellman. The proven key is looked up again.
        if !self.admission.admits_executor(&preamble.executor) {
            return self.refuse_registration(now, conn, &preamble, RegistrationFailure::KeyNotAdmitted);
        }
        let Some(source) = self.connections.get(&conn).map(|connection| connection.source) else {
            return;
        };
        let Ok(admitted) = self.registrations(now).admit(now, source, Vouching::Unvouched) else {
            return self.refuse_registration(now, conn, &preamble, RegistrationFailure::TooMany);
        };
        match Registrar::read_first(&self.identity, &preamble, frame.payload(), &mut self.rng) {
            Ok((proof, answer)) => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.phase = Phase::AwaitingProof(Box::new((proof, admitted)), preamble);
                }
                self.push_control(conn, OuterKind::Handshake, preamble.stream, &answer);
                self.pump(now, conn);
            }
            Err(RegistrationError::Handshake(HandshakeError::Randomness(_))) => {
                self.fault(now, conn, ConnectionFault::NoRandomness);
            }
            Err(_) => {
                self.registrations(now).failed(now, admitted);
                self.refuse_registration(now, conn, &preamble, RegistrationFailure::NotProven);
            }
        }
    }

    pub(super) fn end_registration(
        &mut self,
        now: Instant,
        conn: ConnId,
        (proof, admitted): (AwaitingProof, Admitted<Source>),
        preamble: &Preamble,
        frame: &RawFrame,
    ) {
        let Ok(proven) = proof.read(frame.payload()) else {
            self.registrations(now).failed(now, admitted);
            return self.refuse_registration(now, conn, preamble, RegistrationFailure::NotProven);
        };
        let key = proven.key();
        if !self.admission.admits_executor(&key) {
            return self.refuse_registration(now, conn, preamble, RegistrationFailure::KeyNotAdmitted);
        }
        self.registrations(now).proven(now, &admitted);
        self.is_known(conn);
        if let Some(older) = self.executors.insert(key, conn) {
            self.supersede(now, older, key);
        }
        self.clear_deadline(conn);
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.phase = Phase::Executor(Registration {
                key,
                stream: preamble.stream,
                streams: HashMap::new(),
            });
        }
        let version = preamble.agree().unwrap_or_default();
        self.push_control(
            conn,
            OuterKind::Registered,
            preamble.stream,
            &version.to_be_bytes(),
        );
        self.report(Report::Registered { conn, executor: key });
        self.pump(now, conn);
    }

    fn refuse_registration(
        &mut self,
        now: Instant,
        conn: ConnId,
        preamble: &Preamble,
        why: RegistrationFailure,
    ) {
        let mut payload = BytesMut::new();
        match why {
            // Not for good: it comes again.
            RegistrationFailure::TooMany => {
                Reset::with_text(ResetCode::Overloaded, "too many registrations: try again later")
                    .encode(&mut payload);
                self.push_control(conn, OuterKind::Reset, preamble.stream, &payload);
            }
            RegistrationFailure::NotProven | RegistrationFailure::KeyNotAdmitted => {
                let text = "the registration was not proven or its key is not admitted here";
                Refusal::ours(RefusalReason::Registration, text).encode(&mut payload);
                self.push_control(conn, OuterKind::Refused, preamble.stream, &payload);
            }
        }
        self.report(Report::RegistrationRefused {
            conn,
            named: preamble.executor,
            why,
        });
        self.close_gently(now, conn);
    }

    fn supersede(&mut self, now: Instant, older: ConnId, executor: PublicKey) {
        let stream = match self.connections.get(&older).map(|connection| &connection.phase) {
            Some(Phase::Executor(registration)) => registration.stream,
            Some(
                Phase::AwaitingPreamble
                | Phase::AwaitingRegistration(_)
                | Phase::AwaitingProof(..)
                | Phase::AwaitingHello(..)
                | Phase::Harness(..)
                | Phase::Closing,
            )
            | None => return,
        };
        self.report(Report::Superseded {
            conn: older,
            executor,
        });
        self.detach(now, older, ResetCode::Superseded);
        let refusal = Refusal::ours(
            RefusalReason::Superseded,
            "a newer registration of the same executor key is in force",
        );
        let mut payload = BytesMut::new();
        refusal.encode(&mut payload);
        self.push_control(older, OuterKind::Refused, stream, &payload);
        self.close_gently(now, older);
    }

    /// A harness's first message: pair it, or give the one uniform answer.
    pub(super) fn open(
        &mut self,
        now: Instant,
        conn: ConnId,
        preamble: &Preamble,
        token: &[u8],
        frame: &RawFrame,
    ) {
        // Judged before anything that depends on the executor, and compared in constant time.
        let vouching = self.admission.admits_harness(token);
        match self.judge(preamble, vouching, frame.payload()) {
            Ok((executor, vouching)) => self.pair(now, conn, (executor, vouching), preamble, frame),
            Err(why) => {
                let mut payload = BytesMut::new();
                Reset::new(ResetCode::Unavailable).encode(&mut payload);
                self.push_control(conn, OuterKind::Reset, preamble.stream, &payload);
                self.report(Report::StreamUnavailable {
                    harness: conn,
                    stream: preamble.stream,
                    why,
                });
                self.close_gently(now, conn);
            }
        }
    }

    fn judge(
        &self,
        preamble: &Preamble,
        vouching: Option<Vouching>,
        first: &[u8],
    ) -> Result<(ConnId, Vouching), Unavailability> {
        let vouching = vouching.ok_or(Unavailability::TokenNotAdmitted)?;
        let executor = self
            .executors
            .get(&preamble.executor)
            .ok_or(Unavailability::ExecutorNotRegistered)?;
        match self.connections.get(executor).map(|connection| &connection.phase) {
            Some(Phase::Executor(registration)) => {
                if registration.streams.contains_key(&preamble.stream)
                    || registration.stream == preamble.stream
                {
                    Err(Unavailability::StreamIdInUse)
                } else if registration.streams.len() >= STREAMS_PER_EXECUTOR_MAX {
                    Err(Unavailability::TooManyStreams)
                } else if MacKey::of(&preamble.executor)
                    .check(&preamble.encode(), first)
                    .is_none()
                {
                    // The executor would find the same: it need not hear of it.
                    Err(Unavailability::WrongMac)
                } else {
                    Ok((*executor, vouching))
                }
            }
            Some(
                Phase::AwaitingPreamble
                | Phase::AwaitingRegistration(_)
                | Phase::AwaitingProof(..)
                | Phase::AwaitingHello(..)
                | Phase::Harness(..)
                | Phase::Closing,
            )
            | None => Err(Unavailability::ExecutorNotRegistered),
        }
    }

    fn pair(
        &mut self,
        now: Instant,
        harness: ConnId,
        (executor, vouching): (ConnId, Vouching),
        preamble: &Preamble,
        frame: &RawFrame,
    ) {
        let id = preamble.stream;
        let key = StreamKey(self.next_stream);
        self.next_stream += 1;
        let mut stream = Stream {
            id,
            harness,
            executor,
            up: Flow::new(),
            down: Flow::new(),
            code: None,
        };
        let attestation = Attestation {
            vouching,
            source: self.tag_of(harness),
        };
        let head = [&preamble.encode()[..], &attestation.encode()].concat();
        let open = RawFrame::build(OuterKind::Open, id, &head, frame.payload());
        stream.up.accept_handshake(now, open);
        self.streams.insert(key, stream);
        if let Some(connection) = self.connections.get_mut(&executor)
            && let Phase::Executor(registration) = &mut connection.phase
        {
            registration.streams.insert(id, key);
        }
        self.clear_deadline(harness);
        self.is_known(harness);
        if let Some(connection) = self.connections.get_mut(&harness) {
            connection.phase = Phase::Harness(key, id);
        }
        self.report(Report::StreamOpened {
            harness,
            executor: preamble.executor,
            stream: id,
        });
        self.has_output(now, key, Direction::Up);
    }

    /// One end reset the stream: the other gets what is queued, then that reset.
    pub(super) fn reset_by_peer(
        &mut self,
        now: Instant,
        key: StreamKey,
        direction: Direction,
        frame: RawFrame,
    ) {
        let code = Reset::decode(frame.payload()).map_or(ResetCode::Other(0), |reset| reset.code);
        let harness = self.streams.get(&key).map(|stream| stream.harness);
        self.end_stream(now, key, direction, code, frame.stamped(0));
        if let Some(harness) = harness {
            self.close_gently(now, harness);
        }
    }

    /// Ends a stream whose sender in `direction` is done or gone.
    fn end_stream(
        &mut self,
        now: Instant,
        key: StreamKey,
        direction: Direction,
        code: ResetCode,
        last: BytesMut,
    ) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        stream.code.get_or_insert(code);
        stream.flow_mut(direction).end_with(last);
        let dropped = stream.flow_mut(direction.opposite()).abandon();
        self.dropped.add(DropReason::ReceiverGone, dropped);
        self.has_output(now, key, direction);
        self.settle(key);
    }

    /// A sender without window sent all the same: its stream ends at both ends.
    pub(super) fn overrun(&mut self, now: Instant, key: StreamKey, _: Overrun) {
        let code = ResetCode::WindowOverrun;
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        stream.code.get_or_insert(code);
        let last = reset_frame(stream, code);
        stream.up.break_with(last.clone());
        stream.down.break_with(last);
        let harness = stream.harness;
        self.has_output(now, key, Direction::Up);
        self.has_output(now, key, Direction::Down);
        self.close_gently(now, harness);
    }

    /// Takes a connection out of everything it is part of; the connection itself stays.
    pub(super) fn detach(&mut self, now: Instant, conn: ConnId, code: ResetCode) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let phase = std::mem::replace(&mut connection.phase, Phase::Closing);
        let queued_for_it = std::mem::take(&mut connection.egress.ready);
        connection.egress.windows.clear();
        match phase {
            Phase::Executor(registration) => {
                if self.executors.get(&registration.key) == Some(&conn) {
                    self.executors.remove(&registration.key);
                    self.report(Report::Unregistered {
                        conn,
                        executor: registration.key,
                    });
                }
                for key in registration.streams.into_values() {
                    let harness = self.streams.get(&key).map(|stream| stream.harness);
                    self.lose(now, key, Direction::Down, code);
                    if let Some(harness) = harness {
                        self.close_gently(now, harness);
                    }
                }
            }
            Phase::Harness(key, _) => self.lose(now, key, Direction::Up, code),
            Phase::AwaitingPreamble
            | Phase::AwaitingRegistration(_)
            | Phase::AwaitingProof(..)
            | Phase::AwaitingHello(..)
            | Phase::Closing => {}
        }
        for key in queued_for_it {
            if let Some(stream) = self.streams.get_mut(&key) {
                let direction = stream.direction_to(conn);
                let dropped = stream.flow_mut(direction).abandon();
                self.dropped.add(DropReason::ReceiverGone, dropped);
                self.settle(key);
            }
        }
    }

    /// The sender in `direction` is gone, so the receiver gets what is queued and a reset of ours.
    fn lose(&mut self, now: Instant, key: StreamKey, direction: Direction, code: ResetCode) {
        if let Some(stream) = self.streams.get(&key) {
            let last = reset_frame(stream, code);
            self.end_stream(now, key, direction, code, last);
        }
    }

    /// Forgets a stream with both directions done.
    pub(super) fn settle(&mut self, key: StreamKey) {
        let done = self
            .streams
            .get(&key)
            .is_some_and(|stream| stream.up.is_done() && stream.down.is_done());
        if !done {
            return;
        }
        let Some(stream) = self.streams.remove(&key) else {
            return;
        };
        self.windows_grown_bytes -= stream.up.grown_bytes() + stream.down.grown_bytes();
        if let Some(connection) = self.connections.get_mut(&stream.executor)
            && let Phase::Executor(registration) = &mut connection.phase
        {
            registration.streams.remove(&stream.id);
        }
        self.report(Report::StreamClosed {
            stream: stream.id,
            code: stream.code.unwrap_or(ResetCode::Other(0)),
            up: stream.up.totals,
            down: stream.down.totals,
        });
    }
}

fn reset_frame(stream: &Stream, code: ResetCode) -> BytesMut {
    let mut payload = BytesMut::new();
    Reset::new(code).encode(&mut payload);
    let mut frame = BytesMut::new();
    encode_outer(&mut frame, OuterKind::Reset, stream.id, 0, &payload);
    frame
}
