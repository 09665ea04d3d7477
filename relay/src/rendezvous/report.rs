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
pub enum Unavailability {
    /// Its token is not listed.
    TokenNotAdmitted,
    /// No executor with that key is registered.
    ExecutorNotRegistered,
    /// The stream id is in use on that executor.
    StreamIdInUse,
    /// The executor has as many streams as it may have.
    TooManyStreams,
}

/// Why a registration was refused. For the operator only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RegistrationFailure {
    /// The handshake does not verify, or proves another key than the named one.
    NotProven,
    /// The key is not listed.
    KeyNotAdmitted,
}

/// Why a connection was closed by the relay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConnectionFault {
    /// Its first bytes are no preamble of ours.
    NotDwell,
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
