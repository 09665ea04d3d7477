//! `RelayServer`: owns the rendezvous' core and every connection's tasks; decides nothing itself.
//!
//! Mailbox: acceptances and questions share one room; each connection has two small ones of its own, for what it read
//! and for what it wrote, so that a flood waits in its own reader and fills nobody else's room. Effects are never
//! awaited: they go into queues that the core bounds. When it stops, every connection is closed as it is. Only this
//! module's tasks and `RelayHandle` send to it. After a panic it starts anew without connections; whoever was connected
//! dials again.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dwell_messages::Envelope;
use dwell_relay::driver::{Connection, Restraint};
use dwell_relay::rendezvous::{CONNECTIONS_MAX, ConnectionFault, Report};
use dwell_relay::{Command, ConnId, OsRandomness, Rendezvous, StaticKeypair};
use zeroize::Zeroizing;

use super::connection::{self, CLOSE_FLUSH_TIMEOUT, DRAINED_MAX, Outgoing, RECEIVED_MAX, envelope};
use super::handle::RelayCensus;
use super::log::log;
use super::view;
use crate::fault_point::delay::{self, DelayPoint};
use crate::in_flight::Board;
use crate::mailbox::{Actor, Message, Reply, TimerGuard, Turn};
use crate::metrics::Direction;
use crate::telemetry::ArbiterLocal;

/// Acceptances and questions that may wait.
pub const MAILBOX_MAX: usize = 64;
/// Most connections that are open in any way, those that are being closed included; more are dropped as they come.
pub const ENTRIES_MAX: usize = CONNECTIONS_MAX + 1024;

/// How often what is under way is told to whoever watches, while anything happens.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Which task of a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Half {
    /// Nothing more comes.
    Reader,
    /// Nothing more can be, or has to be, written.
    Writer,
}

/// What a connection's reader got in one read.
pub(super) struct Received {
    pub(super) conn: ConnId,
    pub(super) bytes: BytesMut,
    /// When they were read: their wait in the mailbox is part of their residence.
    pub(super) read_at: Instant,
}

/// What lies in the relay's mailbox.
pub(super) enum ToRelay {
    /// A transport came up.
    Accepted(Connection),
    /// Bytes arrived.
    Received(Received),
    /// Bytes were written.
    Drained { conn: ConnId, bytes: usize },
    /// A half ended.
    Gone { conn: ConnId, half: Half },
    /// How many of what are there?
    Census(Reply<RelayCensus>),
}

impl Message for ToRelay {
    const NAMES: &'static [&'static str] = &["accepted", "received", "drained", "gone", "census"];

    fn index(&self) -> usize {
        match self {
            Self::Accepted(_) => 0,
            Self::Received(_) => 1,
            Self::Drained { .. } => 2,
            Self::Gone { .. } => 3,
            Self::Census(_) => 4,
        }
    }
}

/// A time has come.
pub(super) enum RelayControl {
    /// The core's next deadline.
    DeadlineReached,
    /// Whoever watches is to be told what is under way.
    Tell,
}

/// One connection: dropping it ends both tasks, and with them the transport.
struct Entry {
    outgoing: Rc<Outgoing>,
    restraint: Restraint,
    /// Set once the core has forgotten it: ends it by force when its peer takes nothing.
    closing: Option<TimerGuard>,
    _reader: TimerGuard,
    _writer: TimerGuard,
}

/// The relay's actor.
pub(super) struct RelayServer {
    core: Rendezvous,
    entries: HashMap<ConnId, Entry>,
    /// Outlives a restart: a number is never used twice, and messages of the life before find nobody.
    next_conn: Rc<Cell<u64>>,
    alarm: Option<(Instant, TimerGuard)>,
    /// Connections that this turn writes to; kept for its room.
    writing: Vec<ConnId>,
    /// The table of this relay's collector.
    board: Option<Arc<Board>>,
    /// Set while something has happened that whoever watches has not been told.
    telling: Option<TimerGuard>,
}

impl RelayServer {
    pub(super) fn new(
        admission: dwell_relay::Admission,
        identity: &StaticKeypair,
        next_conn: Rc<Cell<u64>>,
    ) -> Self {
        let identity = StaticKeypair::from_private(Zeroizing::new(*identity.expose_private()));
        Self {
            core: Rendezvous::new(admission, identity, Box::new(OsRandomness::new())),
            entries: HashMap::new(),
            next_conn,
            alarm: None,
            writing: Vec::new(),
            board: ArbiterLocal::current().map(|ring| Arc::clone(ring.board())),
            telling: None,
        }
    }

    fn accept(&mut self, connection: Connection, turn: &mut Turn<'_, Self>) {
        if self.entries.len() >= ENTRIES_MAX {
            tracing::warn!(
                connections = self.entries.len(),
                "a connection was dropped: as many are open as this relay may have"
            );
            return;
        }
        let conn = ConnId(self.next_conn.get());
        self.next_conn.set(conn.0 + 1);
        tracing::debug!(conn = conn.0, peer = %connection.peer, "a connection was accepted");
        let outgoing = Rc::new(Outgoing::new(connection.writer));
        let mailbox = turn.mailbox();
        let reader = connection::read(
            conn,
            connection.reader,
            mailbox.port(RECEIVED_MAX),
            Rc::clone(&outgoing),
        );
        let writer = connection::write(conn, mailbox.port(DRAINED_MAX), Rc::clone(&outgoing));
        let entry = Entry {
            outgoing,
            restraint: connection.restraint,
            closing: None,
            _reader: turn.spawn(reader),
            _writer: turn.spawn(writer),
        };
        self.entries.insert(conn, entry);
        let now = Instant::now();
        self.core
            .connected_over(now, conn, connection.source, connection.weight);
    }

    fn gone(&mut self, conn: ConnId, half: Half) {
        let Some(entry) = self.entries.get(&conn) else {
            return;
        };
        match half {
            // Its last frames may still be on their way out.
            Half::Reader if entry.closing.is_some() => entry.outgoing.peer_ended(),
            Half::Reader | Half::Writer => {
                self.entries.remove(&conn);
                self.core.disconnected(Instant::now(), conn);
            }
        }
    }

    /// Does what the core wants done, and looks when it wants to be called again.
    ///
    /// What is to be written now leaves in this turn; what the core adds because of that is the writer's, so that a
    /// turn stays short.
    fn apply(&mut self, turn: &Turn<'_, Self>) {
        let mut writing = std::mem::take(&mut self.writing);
        self.obey(Some(&mut writing), turn);
        for conn in writing.drain(..) {
            let written = self
                .entries
                .get(&conn)
                .map_or(0, |entry| entry.outgoing.write_now());
            if written > 0 {
                self.moved(Direction::Out, written);
                self.core.drained(Instant::now(), conn, written);
            }
        }
        self.writing = writing;
        self.obey(None, turn);
        self.set_alarm(turn);
        if self.telling.is_none() && self.board.as_ref().is_some_and(|board| board.is_watched()) {
            self.telling = Some(turn.timer(TELL_EVERY, RelayControl::Tell));
        }
    }

    fn moved(&self, direction: Direction, bytes: usize) {
        if let Some(board) = &self.board {
            board.meters().moved(direction, bytes);
        }
    }

    /// Tells whoever watches what is under way. With frames that wait it is told again: only their age tells a stuck peer.
    fn tell(&mut self, turn: &Turn<'_, Self>) {
        let Some(board) = &self.board else { return };
        let view = view::of(&self.core, Instant::now());
        let waits = view
            .streams
            .iter()
            .any(|stream| stream.up.queued_frames + stream.down.queued_frames > 0);
        board.publish_relay(view);
        self.telling = waits.then(|| turn.timer(TELL_EVERY, RelayControl::Tell));
    }

    /// Does what the core wants done. With `writing`, bytes are only queued, and it says for whom.
    fn obey(&mut self, mut writing: Option<&mut Vec<ConnId>>, turn: &Turn<'_, Self>) {
        while let Some(command) = self.core.poll_command() {
            match command {
                Command::Write { conn, bytes } => match (self.entries.get(&conn), &mut writing) {
                    (Some(entry), Some(writing)) => {
                        entry.outgoing.push_quietly(bytes);
                        if !writing.contains(&conn) {
                            writing.push(conn);
                        }
                    }
                    (Some(entry), None) => entry.outgoing.push(bytes),
                    (None, _) => {}
                },
                Command::Proven { conn } => {
                    if let Some(entry) = self.entries.get(&conn) {
                        entry.restraint.lift();
                    }
                }
                Command::Close { conn } => self.close(conn, turn),
                Command::Report(report) => {
                    // It made room: what it holds is what there was no more room for, and there is nothing to tell it.
                    if let Report::ConnectionFault {
                        conn,
                        fault: ConnectionFault::MadeRoom,
                    } = report
                    {
                        self.entries.remove(&conn);
                    }
                    log(&report, &self.core);
                }
            }
        }
    }

    fn close(&mut self, conn: ConnId, turn: &Turn<'_, Self>) {
        if let Some(entry) = self.entries.get_mut(&conn) {
            entry.outgoing.close();
            let port = turn.mailbox().port(1);
            entry.closing = Some(turn.spawn(async move {
                tokio::time::sleep(CLOSE_FLUSH_TIMEOUT).await;
                let half = Half::Writer;
                drop(port.tell(envelope(ToRelay::Gone { conn, half })).await);
            }));
        }
    }

    /// An alarm that is set too early finds nothing due and is set again: cheaper than one timer a connection.
    fn set_alarm(&mut self, turn: &Turn<'_, Self>) {
        let Some(due) = self.core.poll_timeout() else {
            self.alarm = None;
            return;
        };
        if self.alarm.as_ref().is_none_or(|(at, _)| due < *at) {
            let delay = due.saturating_duration_since(Instant::now());
            self.alarm = Some((due, turn.timer(delay, RelayControl::DeadlineReached)));
        }
    }
}

impl Actor for RelayServer {
    const NAME: &'static str = "RelayServer";
    type Message = ToRelay;
    type Control = RelayControl;

    fn started(&mut self, turn: &mut Turn<'_, Self>) {
        self.tell(turn);
    }

    fn receive(&mut self, envelope: Envelope<ToRelay>, turn: &mut Turn<'_, Self>) {
        match envelope.body {
            ToRelay::Received(Received { conn, bytes, read_at }) => {
                self.moved(Direction::In, bytes.len());
                if bytes.len() >= delay::CALL_FRAME_MIN_BYTES {
                    delay::reach(DelayPoint::Relay);
                }
                self.core.received_at(read_at, Instant::now(), conn, bytes);
            }
            ToRelay::Drained { conn, bytes } => {
                self.moved(Direction::Out, bytes);
                self.core.drained(Instant::now(), conn, bytes);
            }
            ToRelay::Accepted(connection) => self.accept(connection, turn),
            ToRelay::Gone { conn, half } => self.gone(conn, half),
            ToRelay::Census(reply) => reply.send(RelayCensus {
                core: self.core.census(),
                dropped: self.core.dropped(),
                refused: self.core.refused(),
            }),
        }
        self.apply(turn);
    }

    fn control(&mut self, control: RelayControl, turn: &mut Turn<'_, Self>) {
        match control {
            RelayControl::DeadlineReached => {
                self.alarm = None;
                self.core.handle_timeout(Instant::now());
                self.apply(turn);
            }
            RelayControl::Tell => self.tell(turn),
        }
    }

    fn drained(&mut self, _: &mut Turn<'_, Self>) {
        self.alarm = None;
        self.entries.clear();
    }
}
