//! Who writes next: the relay's own frames, then windows, then streams in turn, never more than the socket's share.

use std::time::Instant;

use bytes::BytesMut;
use dwell_messages::kinds::OuterKind;

use crate::outer::encode_outer;

use super::connection::Phase;
use super::flow::Flow;
use super::{
    Command, ConnId, Rendezvous, SOCKET_MAX_BYTES, Stream, StreamKey, TURN_BYTES, WINDOWS_GROWN_MAX_BYTES,
};

/// Which way through a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    /// Harness to executor.
    Up,
    /// Executor to harness.
    Down,
}

impl Direction {
    pub(super) fn opposite(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

impl Stream {
    pub(super) fn flow_mut(&mut self, direction: Direction) -> &mut Flow {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    fn receiver(&self, direction: Direction) -> ConnId {
        match direction {
            Direction::Up => self.executor,
            Direction::Down => self.harness,
        }
    }

    fn sender(&self, direction: Direction) -> ConnId {
        self.receiver(direction.opposite())
    }

    /// The direction whose receiver is this connection.
    pub(super) fn direction_to(&self, conn: ConnId) -> Direction {
        if conn == self.executor {
            Direction::Up
        } else {
            Direction::Down
        }
    }
}

/// What one step of a pump did.
enum Step {
    Wrote,
    /// Wrote, and the sender of what was written has a new limit to hear of.
    Granted(ConnId),
    Idle,
}

impl Rendezvous {
    /// A flow has something to write: it gets its place in its receiver's turns.
    pub(super) fn has_output(&mut self, now: Instant, key: StreamKey, direction: Direction) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let receiver = stream.receiver(direction);
        let flow = stream.flow_mut(direction);
        if !flow.has_output() {
            return;
        }
        let Some(connection) = self.connections.get_mut(&receiver) else {
            return;
        };
        if !flow.listed {
            flow.listed = true;
            connection.egress.ready.push_back(key);
        }
        self.pump(now, receiver);
    }

    /// Writes what may be written to a connection, and to those that get a new limit thereby.
    pub(super) fn pump(&mut self, now: Instant, conn: ConnId) {
        // A work list, kept for its allocation: a window that goes back to a sender may let its other frames go too.
        let mut work = std::mem::take(&mut self.pump_work);
        work.push(conn);
        while let Some(conn) = work.pop() {
            loop {
                match self.step(now, conn) {
                    Step::Wrote => {}
                    Step::Granted(sender) => work.push(sender),
                    Step::Idle => break,
                }
            }
            self.close_if_done(conn);
        }
        self.pump_work = work;
    }

    fn step(&mut self, now: Instant, conn: ConnId) -> Step {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return Step::Idle;
        };
        let egress = &mut connection.egress;
        if egress.in_flight >= SOCKET_MAX_BYTES {
            return Step::Idle;
        }
        if let Some(frame) = egress.control.pop_front().or_else(|| egress.pong.take()) {
            self.write(conn, frame);
            return Step::Wrote;
        }
        if let Some(key) = egress.windows.pop_front() {
            self.write_window(conn, key);
            return Step::Wrote;
        }
        match egress.ready.pop_front() {
            Some(key) => self.turn(now, conn, key),
            None => Step::Idle,
        }
    }

    fn write(&mut self, conn: ConnId, bytes: BytesMut) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.egress.in_flight += bytes.len();
            self.commands.push_back(Command::Write {
                conn,
                bytes: bytes.freeze(),
            });
        }
    }

    fn write_window(&mut self, conn: ConnId, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let direction = stream.direction_to(conn).opposite();
        let id = stream.id;
        let flow = stream.flow_mut(direction);
        flow.window_listed = false;
        if !flow.is_open() {
            return;
        }
        let mut frame = BytesMut::new();
        encode_outer(&mut frame, OuterKind::Window, id, 0, &flow.limit().to_be_bytes());
        self.write(conn, frame);
    }

    /// One stream's turn.
    fn turn(&mut self, now: Instant, conn: ConnId, key: StreamKey) -> Step {
        let mut used = 0;
        while used < TURN_BYTES {
            let in_flight = self
                .connections
                .get(&conn)
                .map_or(usize::MAX, |connection| connection.egress.in_flight);
            if in_flight >= SOCKET_MAX_BYTES {
                break;
            }
            let Some(stream) = self.streams.get_mut(&key) else {
                return Step::Wrote;
            };
            let direction = stream.direction_to(conn);
            let Some(bytes) = stream.flow_mut(direction).next_output(now) else {
                break;
            };
            used += bytes.len();
            self.write(conn, bytes);
        }
        self.after_turn(conn, key)
    }

    fn after_turn(&mut self, conn: ConnId, key: StreamKey) -> Step {
        let Some(stream) = self.streams.get_mut(&key) else {
            return Step::Wrote;
        };
        let direction = stream.direction_to(conn);
        let sender = stream.sender(direction);
        let flow = stream.flow_mut(direction);
        flow.listed = flow.has_output();
        if flow.listed
            && let Some(connection) = self.connections.get_mut(&conn)
        {
            connection.egress.ready.push_back(key);
        }
        if flow.is_done() {
            self.settle(key);
            return Step::Wrote;
        }
        if !flow.grant_is_due() {
            return Step::Wrote;
        }
        let before = flow.grown_bytes();
        flow.grant(self.windows_grown_bytes < WINDOWS_GROWN_MAX_BYTES);
        self.windows_grown_bytes += flow.grown_bytes() - before;
        if flow.window_listed {
            return Step::Wrote;
        }
        if let Some(connection) = self.connections.get_mut(&sender) {
            flow.window_listed = true;
            connection.egress.windows.push_back(key);
        }
        Step::Granted(sender)
    }

    fn close_if_done(&mut self, conn: ConnId) {
        let done = self.connections.get(&conn).is_some_and(|connection| {
            matches!(connection.phase, Phase::Closing) && connection.egress.is_empty()
        });
        if done {
            self.forget(conn);
            self.commands.push_back(Command::Close { conn });
        }
    }
}
