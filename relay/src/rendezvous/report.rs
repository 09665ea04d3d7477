//! What a relay tells its operator: events and counts, never contents.

use dwell_messages::{PublicKey, StreamId};

use crate::control::ResetCode;

use super::ConnId;
use super::flow::FlowTotals;

/// Why a frame was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(usize)]
pub enum DropReason {
    /// Of a stream that is not, or no longer, on this connection.
    UnknownStream = 0,
    /// Of a stream whose this direction has ended.
    StreamEnded,
    /// Of a kind this end of a connection may not send.
    UnexpectedKind,
    /// A second handshake message in one direction.
    SecondHandshake,
    /// Queued for a connection that went away.
    ReceiverGone,
    /// Of, or for, a connection that is being closed.
    ConnectionClosing,
    /// A ping while the answer to the one before still waits.
    PingUnanswered,
}

impl DropReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 7] = [
        Self::UnknownStream,
        Self::StreamEnded,
        Self::UnexpectedKind,
        Self::SecondHandshake,
        Self::ReceiverGone,
        Self::ConnectionClosing,
        Self::PingUnanswered,
    ];
}

/// Frames dropped since the start, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DropCounts([u64; DropReason::ALL.len()]);

impl DropCounts {
    /// How many frames were dropped for this reason.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many were dropped in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(super) fn add(&mut self, reason: DropReason, frames: u64) {
        self.0[reason as usize] += frames;
    }
}

/// Why a harness got the one uniform answer. For the operator only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(usize)]
pub enum Unavailability {
    /// Its token is not listed.
    TokenNotAdmitted = 0,
    /// No executor with that key is registered.
    ExecutorNotRegistered,
    /// The stream id is in use on that executor.
    StreamIdInUse,
    /// The executor has as many streams as it may have.
    TooManyStreams,
    /// Its message 1 has no right MAC.
    WrongMac,
}

impl Unavailability {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 5] = [
        Self::TokenNotAdmitted,
        Self::ExecutorNotRegistered,
        Self::StreamIdInUse,
        Self::TooManyStreams,
        Self::WrongMac,
    ];
}

/// Why a registration was refused. For the operator only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(usize)]
pub enum RegistrationFailure {
    /// The handshake does not verify, or proves another key than the named one.
    NotProven = 0,
    /// The key is not listed.
    KeyNotAdmitted,
    /// Too many registrations are asked for, by all together or from there.
    TooMany,
}

impl RegistrationFailure {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 3] = [Self::NotProven, Self::KeyNotAdmitted, Self::TooMany];
}

/// Why a connection was closed by the relay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(usize)]
pub enum ConnectionFault {
    /// Its first bytes are no preamble of ours.
    NotDwell = 0,
    /// No version or suite in common.
    NotServed,
    /// Its frames could not be told apart.
    Malformed,
    /// Its first frames did not come in time, or its last ones were not taken in time.
    Deadline,
    /// The relay has as many connections as it may have.
    TooManyConnections,
    /// The relay has no randomness to answer a registration with.
    NoRandomness,
    /// Its source has as many connections as it may have.
    TooManyOfSource,
    /// It had not said what it is, and made room for another.
    MadeRoom,
}

impl ConnectionFault {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::NotDwell,
        Self::NotServed,
        Self::Malformed,
        Self::Deadline,
        Self::TooManyConnections,
        Self::NoRandomness,
        Self::TooManyOfSource,
        Self::MadeRoom,
    ];
}

/// Who was turned away since the start, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RefusalCounts {
    streams: [u64; Unavailability::ALL.len()],
    registrations: [u64; RegistrationFailure::ALL.len()],
    connections: [u64; ConnectionFault::ALL.len()],
}

impl RefusalCounts {
    /// Harnesses that got the one uniform answer for this reason.
    pub fn streams(&self, why: Unavailability) -> u64 {
        self.streams[why as usize]
    }

    /// Registrations that were refused for this reason.
    pub fn registrations(&self, why: RegistrationFailure) -> u64 {
        self.registrations[why as usize]
    }

    /// Connections that were closed for this reason.
    pub fn connections(&self, why: ConnectionFault) -> u64 {
        self.connections[why as usize]
    }

    pub(super) fn add(&mut self, report: &Report) {
        match report {
            Report::StreamUnavailable { why, .. } => self.streams[*why as usize] += 1,
            Report::RegistrationRefused { why, .. } => self.registrations[*why as usize] += 1,
            Report::ConnectionFault { fault, .. } => self.connections[*fault as usize] += 1,
            Report::Registered { .. }
            | Report::Superseded { .. }
            | Report::Unregistered { .. }
            | Report::StreamOpened { .. }
            | Report::StreamClosed { .. } => {}
        }
    }
}

/// Something an operator may want to see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// An executor's registration is in force.
    Registered {
        /// Its connection.
        conn: ConnId,
        /// Its proven key.
        executor: PublicKey,
    },
    /// A newer registration took the place of this one.
    Superseded {
        /// The older connection.
        conn: ConnId,
        /// The key.
        executor: PublicKey,
    },
    /// An executor's connection is gone.
    Unregistered {
        /// Its connection.
        conn: ConnId,
        /// Its key.
        executor: PublicKey,
    },
    /// A registration was refused.
    RegistrationRefused {
        /// Its connection.
        conn: ConnId,
        /// The key it named.
        named: PublicKey,
        /// Why.
        why: RegistrationFailure,
    },
    /// A harness and an executor are paired.
    StreamOpened {
        /// The harness's connection.
        harness: ConnId,
        /// The executor's key.
        executor: PublicKey,
        /// The stream.
        stream: StreamId,
    },
    /// A harness was turned away with the one uniform answer.
    StreamUnavailable {
        /// The harness's connection.
        harness: ConnId,
        /// The stream.
        stream: StreamId,
        /// Why.
        why: Unavailability,
    },
    /// A stream is over.
    StreamClosed {
        /// The stream.
        stream: StreamId,
        /// The code that either end was told first.
        code: ResetCode,
        /// Harness to executor.
        up: FlowTotals,
        /// Executor to harness.
        down: FlowTotals,
    },
    /// The relay closed a connection.
    ConnectionFault {
        /// Which.
        conn: ConnId,
        /// Why.
        fault: ConnectionFault,
    },
}
