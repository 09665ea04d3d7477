//! One connection's writer and reader: links take turns on it, one write a wake.
//!
//! A connection to a relay carries many links, one to an executor directly carries one. Links on one connection live
//! on its arbiter: a record goes from the socket to its framer and back without crossing threads.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::IoSlice;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use dwell_messages::StreamId;
use dwell_relay::outer::READ_BUFFER_BYTES;
use dwell_relay::{Lane, Link, OuterDecoder, OuterFrame};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::RelayFramer;
use super::stamps::SendStamps;
use crate::fault_point::delay::{self, DelayPoint};
use crate::in_flight::{Board, Link as Watched};
use crate::mailbox::{Mailbox, Room};
use crate::metrics::{Direction, Meters};
use crate::shared_writer::SharedWriter;
use crate::telemetry::{ThreadTag, Tick, thread_tag};

/// Links on one connection.
pub(crate) const LINKS_MAX: usize = 1_024;
/// Bytes gathered for one write.
const WRITE_BYTES: usize = 128 * 1024;
/// Bytes one link may add before the next has its turn.
const TURN_BYTES: usize = 64 * 1024;
/// Clear frames that wait to be written: a peer that makes this side answer and takes no answers gets no more of them.
const CLEAR_MAX_BYTES: usize = 256 * 1024;
/// How long one write may take; then the connection counts as dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes one read may bring where much comes.
const READ_BYTES: usize = 128 * 1024;
/// By how much the room for a read grows with each that filled half of it.
const GROWTH: usize = 4;
/// After so many reads, or writes, of less than half of a quiet connection's room it is quiet again: pings alone make it so
/// in less than a minute.
const SMALL_IN_A_ROW: u32 = 8;

/// What a connection's buffer is worth by what passes through it. Most connections are idle, and those that were busy will
/// be; one that is busy never waits for room.
#[derive(Clone, Copy, Debug)]
struct Appetite {
    room: usize,
    small: u32,
}

impl Default for Appetite {
    fn default() -> Self {
        Self {
            room: READ_BUFFER_BYTES,
            small: 0,
        }
    }
}

impl Appetite {
    /// So many bytes passed at once. True: for a while little has, so what the buffer has grown to is to be given back.
    fn passed(&mut self, bytes: usize) -> bool {
        if bytes >= self.room / 2 {
            self.room = (self.room * GROWTH).min(READ_BYTES);
        }
        if bytes >= READ_BUFFER_BYTES / 2 {
            self.small = 0;
            return false;
        }
        self.small += 1;
        let quiet = self.small == SMALL_IN_A_ROW;
        if quiet {
            *self = Self::default();
        }
        quiet
    }
}

/// What comes back when a message's last byte has been written.
#[derive(Default)]
pub(crate) struct Sent {
    /// Room in the framer's mailbox, free from then on.
    pub(crate) room: Option<Room>,
    /// When it was cut, sealed and written.
    pub(crate) stamps: Option<Arc<SendStamps>>,
    /// Called then.
    pub(crate) on_written: Option<Box<dyn FnOnce() + Send>>,
}

/// A link as its framer and its connection's writer share it.
pub(crate) type SharedLink = Rc<RefCell<Link<Sent>>>;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The other end closed it.
    #[error("the other end closed the connection")]
    Closed,
    /// The system reports an error.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// A write took too long.
    #[error("the other end took nothing for {} s", WRITE_TIMEOUT.as_secs())]
    WriteTimeout,
    /// Nobody answers.
    #[error("a ping had no answer: the network between is gone, or the relay stands still")]
    Silent,
    /// The relay says that another process has registered under the same key.
    #[error(
        "another executor with the same key has registered since: end one of the two, or give it a key of its own"
    )]
    Superseded,
    /// The bytes are no frames.
    #[error("the other end does not speak this protocol: {0}")]
    Outer(#[from] dwell_relay::outer::OuterError),
}

/// Names a shared connection within its thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UplinkId(u64, ThreadTag);

impl UplinkId {
    /// The thread it lives on.
    pub(crate) fn thread(self) -> ThreadTag {
        self.1
    }
}

#[derive(Default)]
struct Local {
    next: u64,
    uplinks: Vec<(UplinkId, Weak<Uplink>)>,
}

thread_local! {
    /// Connections cannot travel in messages, their numbers can. As many as this thread has connections to relays.
    static LOCAL: RefCell<Local> = RefCell::default();
}

/// The writing side of one connection.
#[derive(Default)]
pub(crate) struct Uplink {
    links: RefCell<HashMap<StreamId, SharedLink>>,
    /// Where the frames of each stream go, on a connection that is shared.
    routes: RefCell<HashMap<StreamId, Mailbox<RelayFramer>>>,
    ready: RefCell<VecDeque<StreamId>>,
    queued: RefCell<HashSet<StreamId>>,
    clear: RefCell<BytesMut>,
    wake: Notify,
    closing: Cell<bool>,
    /// Set while the writer's task runs.
    writer: RefCell<Option<SharedWriter>>,
    /// What was gathered and not yet written, and whose messages are in it.
    out: RefCell<BytesMut>,
    sent: RefCell<Vec<Sent>>,
    writes: Cell<Appetite>,
    /// Since when the kernel has taken nothing of the write that is under way, as a raw tick; 0: none is.
    writing: Arc<AtomicU64>,
    /// Its links as others see them.
    watched: RefCell<HashMap<StreamId, Arc<Watched>>>,
    meters: Arc<Meters>,
}

impl Uplink {
    /// One whose bytes are counted there.
    pub(crate) fn counting(board: &Board) -> Self {
        Self {
            meters: Arc::clone(board.meters()),
            ..Self::default()
        }
    }

    /// Since when a write is under way, for those who look at its links.
    pub(crate) fn writing(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.writing)
    }

    /// What a link waits for is told there.
    pub(crate) fn watch(&self, stream: StreamId, watched: Arc<Watched>) {
        self.watched.borrow_mut().insert(stream, watched);
    }

    /// Adds a link. False: `LINKS_MAX` are here already.
    pub(crate) fn add(&self, stream: StreamId, link: SharedLink) -> bool {
        let mut links = self.links.borrow_mut();
        if links.len() >= LINKS_MAX {
            return false;
        }
        links.insert(stream, link);
        true
    }

    /// Forgets a link once what it still has to say was written.
    pub(crate) fn retire(&self, stream: StreamId) {
        self.routes.borrow_mut().remove(&stream);
        self.watched.borrow_mut().remove(&stream);
        self.notify(stream);
    }

    /// Whether there is room for one more link.
    pub(crate) fn has_room(&self) -> bool {
        self.links.borrow().len() < LINKS_MAX
    }

    /// Whether a link of this stream is here.
    pub(crate) fn holds(&self, stream: StreamId) -> bool {
        self.links.borrow().contains_key(&stream)
    }

    /// Frames of this stream go there from now on.
    pub(crate) fn route(&self, stream: StreamId, to: Mailbox<RelayFramer>) {
        self.routes.borrow_mut().insert(stream, to);
    }

    /// Where the frames of a stream go.
    pub(crate) fn route_of(&self, stream: StreamId) -> Option<Mailbox<RelayFramer>> {
        self.routes.borrow().get(&stream).cloned()
    }

    /// Every route, which ends with this call.
    pub(crate) fn take_routes(&self) -> Vec<(StreamId, Mailbox<RelayFramer>)> {
        self.routes.borrow_mut().drain().collect()
    }

    /// Makes this connection one that links of this thread's sessions can be put on by its number.
    pub(crate) fn share(self: &Rc<Self>) -> UplinkId {
        LOCAL.with_borrow_mut(|local| {
            local.uplinks.retain(|(_, uplink)| uplink.strong_count() > 0);
            local.next += 1;
            let id = UplinkId(local.next, thread_tag());
            local.uplinks.push((id, Rc::downgrade(self)));
            id
        })
    }

    /// The shared connection with this number. `None`: it is gone, or another thread's.
    pub(crate) fn local(id: UplinkId) -> Option<Rc<Self>> {
        LOCAL.with_borrow(|local| {
            let found = local.uplinks.iter().find(|(other, _)| *other == id);
            found.and_then(|(_, uplink)| uplink.upgrade())
        })
    }

    /// This link may have something to write.
    pub(crate) fn notify(&self, stream: StreamId) {
        if self.queued.borrow_mut().insert(stream) {
            self.ready.borrow_mut().push_back(stream);
        }
        self.wake.notify_one();
    }

    /// This link may have something to write, and a turn has just ended that was the last for now: what the kernel
    /// takes leaves here and now.
    pub(crate) fn flush(&self, stream: StreamId) {
        if self.queued.borrow_mut().insert(stream) {
            self.ready.borrow_mut().push_back(stream);
        }
        if !self.write_now() {
            self.wake.notify_one();
        }
    }

    /// Whether nothing is left to write.
    fn write_now(&self) -> bool {
        let writer = self.writer.borrow();
        let Some(writer) = writer.as_ref().filter(|writer| !writer.is_busy()) else {
            return false;
        };
        if !self.out.borrow().is_empty() {
            return false;
        }
        let mut out = self.out.borrow_mut();
        let (mut sent, now) = self.gather(&mut out);
        let gathered = out.len();
        let written = if delay::is_planted(DelayPoint::HarnessWrite) && is_stamped(&sent) {
            0
        } else {
            writer.try_write(&[IoSlice::new(&out)])
        };
        self.meters.moved(Direction::Out, written);
        out.advance(written);
        if !out.is_empty() {
            // The stamp is the beginning of the write that carried the last byte: here that is the task's.
            self.sent.borrow_mut().append(&mut sent);
            return false;
        }
        self.wrote(&mut out, gathered);
        drop(out);
        finish(sent, now);
        self.ready.borrow().is_empty()
    }

    /// All of it was written: its room is kept where much is.
    fn wrote(&self, out: &mut BytesMut, bytes: usize) {
        let mut writes = self.writes.get();
        if writes.passed(bytes) {
            *out = BytesMut::new();
        }
        self.writes.set(writes);
    }

    /// Queues a clear frame of the connection itself. With `CLEAR_MAX_BYTES` waiting it is left out.
    pub(crate) fn say(&self, frame: impl FnOnce(&mut BytesMut)) {
        let mut clear = self.clear.borrow_mut();
        if clear.len() < CLEAR_MAX_BYTES {
            frame(&mut clear);
        }
        drop(clear);
        self.wake.notify_one();
    }

    /// Writes what is left, then ends the writer.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.wake.notify_one();
    }

    /// Fills `out` for one write. Returns whose messages are in it, and when it was done.
    fn gather(&self, out: &mut BytesMut) -> (Vec<Sent>, Tick) {
        let mut sent: Vec<Sent> = Vec::new();
        let cut = Tick::now();
        out.extend_from_slice(&self.clear.borrow_mut().split());
        let mut turns = self.ready.borrow().len();
        while out.len() < WRITE_BYTES && turns > 0 {
            let Some(stream) = self.ready.borrow_mut().pop_front() else {
                break;
            };
            self.queued.borrow_mut().remove(&stream);
            turns -= 1;
            let Some(shared) = self.links.borrow().get(&stream).cloned() else {
                continue;
            };
            let mut link = shared.borrow_mut();
            match link.poll_transmit(Instant::now(), out, TURN_BYTES) {
                Ok(report) => sent.extend(report.finished.into_iter().map(|message| message.token)),
                Err(error) => tracing::warn!(%error, "a link cannot send any more"),
            }
            self.look(stream, &link);
            if link.is_over() && !link.can_transmit() {
                drop(link);
                self.links.borrow_mut().remove(&stream);
            } else if link.can_transmit() {
                drop(link);
                self.notify(stream);
            }
        }
        if is_stamped(&sent) {
            delay::reach(DelayPoint::HarnessSeal);
        }
        let sealed = Tick::now();
        for stamps in sent.iter().filter_map(|sent| sent.stamps.as_ref()) {
            stamps.sealed(cut, sealed);
        }
        (sent, sealed)
    }

    /// Says whether a link has something to send that may not leave.
    fn look(&self, stream: StreamId, link: &Link<Sent>) {
        if let Some(watched) = self.watched.borrow().get(&stream) {
            let held = link.is_up() && !link.can_transmit();
            let queued = Lane::ALL.iter().map(|lane| link.queued_bytes(*lane) as u64);
            watched.holds(if held { queued.sum() } else { 0 });
        }
    }

    /// Writes until the connection fails or is closed. One task a connection.
    pub(crate) async fn write_loop(
        self: Rc<Self>,
        writer: Box<dyn AsyncWrite + Send + Unpin>,
    ) -> ConnectionError {
        let mut writer = SharedWriter::new(writer);
        *self.writer.borrow_mut() = Some(writer.clone());
        let over = self.write_all(&mut writer).await;
        self.writer.borrow_mut().take();
        over
    }

    /// As `write_all`, and tells whoever looks since when the kernel has taken nothing.
    async fn write_out(&self, writer: &mut SharedWriter, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            self.writing.store(Tick::now().to_raw(), Ordering::Relaxed);
            match writer.write(bytes).await? {
                0 => return Err(std::io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    async fn write_all(&self, writer: &mut SharedWriter) -> ConnectionError {
        let task = writer.clone();
        loop {
            // Behind what a turn began to write, or gathered in this moment.
            let mut out = std::mem::take(&mut *self.out.borrow_mut());
            let mut sent = std::mem::take(&mut *self.sent.borrow_mut());
            if out.is_empty() {
                sent.append(&mut self.gather(&mut out).0);
            }
            if out.is_empty() {
                *self.out.borrow_mut() = out;
                if self.closing.get() {
                    drop(writer.shutdown().await);
                    return ConnectionError::Closed;
                }
                self.wake.notified().await;
                continue;
            }
            if is_stamped(&sent) {
                delay::reach(DelayPoint::HarnessWrite);
            }
            // The stamp of the write is its beginning: on a busy machine the peer may answer before it returns here.
            let now = Tick::now();
            let busy = task.busy();
            let written = tokio::time::timeout(WRITE_TIMEOUT, self.write_out(writer, &out)).await;
            self.writing.store(0, Ordering::Relaxed);
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.into(),
                Err(_) => return ConnectionError::WriteTimeout,
            }
            self.meters.moved(Direction::Out, out.len());
            drop(busy);
            finish(sent, now);
            let written = out.len();
            out.clear();
            self.wrote(&mut out, written);
            *self.out.borrow_mut() = out;
        }
    }
}

/// Whether a message is among them whose way is accounted for.
fn is_stamped(sent: &[Sent]) -> bool {
    sent.iter().any(|sent| sent.stamps.is_some())
}

/// Their last byte has been written.
fn finish(sent: Vec<Sent>, now: Tick) {
    for sent in sent {
        if let Some(stamps) = sent.stamps {
            stamps.written(now);
        }
        if let Some(on_written) = sent.on_written {
            on_written();
        }
        drop(sent.room);
    }
}

/// Reads frames until the connection ends, and counts what it reads. `on_frame` may wait: then the peer waits.
pub(crate) async fn read_loop<F: Future<Output = bool>>(
    mut reader: impl AsyncRead + Unpin,
    (mut decoder, meters): (OuterDecoder, Arc<Meters>),
    mut on_frame: impl FnMut(OuterFrame, Tick) -> F,
) -> ConnectionError {
    let mut reads = Appetite::default();
    let mut shrinks = false;
    loop {
        let arrived = Tick::now();
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    if !on_frame(frame, arrived).await {
                        return ConnectionError::Closed;
                    }
                }
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        if shrinks {
            shrinks = !decoder.shrink();
        }
        match reader.read_buf(decoder.buffer_with_room(reads.room)).await {
            Ok(0) => return ConnectionError::Closed,
            Ok(read) => {
                shrinks |= reads.passed(read);
                meters.moved(Direction::In, read);
            }
            Err(error) => return error.into(),
        }
    }
}

#[cfg(test)]
#[path = "uplink_tests.rs"]
mod tests;
