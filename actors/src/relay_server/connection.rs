//! One connection's two tasks: a reader that waits for room in the actor's mailbox, and a writer that gathers.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_messages::{Envelope, TraceContext};
use dwell_relay::ConnId;
use dwell_relay::driver::{WRITE_STALL_TIMEOUT, WriteError, consume, write_frames};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::server::{Half, Received, RelayServer, ToRelay};
use crate::mailbox::Mailbox;
use crate::shared_writer::SharedWriter;

/// Reads of one connection that may wait in the actor's mailbox; then its reader waits, and no other.
pub const RECEIVED_MAX: usize = 2;
/// Of the writer's messages one may wait: what it writes meanwhile is added to the next.
pub(super) const DRAINED_MAX: usize = 1;
/// Room for one read.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of a connection that are read with little room: more than all that may come before its peer has proven
/// anything.
const FIRST_BYTES: usize = 8 * 1024;
/// Room for such a read.
const FIRST_READ_BYTES: usize = 2 * 1024;
/// With less room than this the reader takes a new buffer.
const READ_ROOM_MIN_BYTES: usize = 8 * 1024;
/// Frames that a turn writes itself, at the most.
const DIRECT_FRAMES_MAX: usize = 16;
/// How long a connection that the relay closes has to take what was already given to its writer.
pub const CLOSE_FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a closed connection waits for the peer's end. With unread bytes in it the kernel would answer with a TCP
/// reset, which destroys the last frames before the peer has read them.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// What waits for one connection's writer. The core bounds it: it gives no more than `SOCKET_MAX_BYTES` and a frame
/// before it hears that bytes were written.
pub(super) struct Outgoing {
    writer: SharedWriter,
    frames: RefCell<VecDeque<Bytes>>,
    closing: Cell<bool>,
    peer_ended: Cell<bool>,
    changed: Notify,
}

impl Outgoing {
    pub(super) fn new(writer: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self {
            writer: SharedWriter::new(writer),
            frames: RefCell::default(),
            closing: Cell::default(),
            peer_ended: Cell::default(),
            changed: Notify::default(),
        }
    }

    /// Queues a frame; its writer runs in this round of the event loop.
    pub(super) fn push(&self, frame: Bytes) {
        let mut frames = self.frames.borrow_mut();
        if frames.is_empty() {
            self.changed.notify_one();
        }
        frames.push_back(frame);
    }

    /// Queues a frame for `write_now`, which must follow.
    pub(super) fn push_quietly(&self, frame: Bytes) {
        self.frames.borrow_mut().push_back(frame);
    }

    /// Writes what the kernel takes at once, leaves the rest to the writer, and says how many bytes it took.
    pub(super) fn write_now(&self) -> usize {
        let mut frames = self.frames.borrow_mut();
        let mut slices = [IoSlice::new(&[]); DIRECT_FRAMES_MAX];
        let count = frames.len().min(DIRECT_FRAMES_MAX);
        for (slice, frame) in slices.iter_mut().zip(frames.iter()) {
            *slice = IoSlice::new(frame);
        }
        let written = self.writer.try_write(&slices[..count]);
        consume(&mut frames, written);
        if !frames.is_empty() {
            self.changed.notify_one();
        }
        written
    }

    /// Nothing follows: the writer ends once everything is written.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.changed.notify_one();
    }

    /// Nothing more comes from the peer: its last frames need no time to be read.
    pub(super) fn peer_ended(&self) {
        self.peer_ended.set(true);
        self.changed.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.frames.borrow().is_empty()
    }
}

pub(super) fn envelope(body: ToRelay) -> Envelope<ToRelay> {
    Envelope::new(TraceContext::default(), body)
}

/// Reads until the end. A full port makes it wait, and the kernel's window with it.
pub(super) async fn read(
    conn: ConnId,
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    port: Mailbox<RelayServer>,
    outgoing: Rc<Outgoing>,
) {
    let mut buffer = BytesMut::new();
    let mut first_left = FIRST_BYTES;
    loop {
        if first_left > 0 {
            buffer.reserve(FIRST_READ_BYTES);
        } else if buffer.capacity() - buffer.len() < READ_ROOM_MIN_BYTES {
            buffer.reserve(READ_BUFFER_BYTES);
        }
        match reader.read_buf(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => first_left = first_left.saturating_sub(read),
            Err(error) => {
                tracing::debug!(conn = conn.0, %error, "a connection broke while reading");
                break;
            }
        }
        if outgoing.closing.get() {
            buffer.clear();
            continue;
        }
        let bytes = buffer.split();
        let received = ToRelay::Received(Received {
            conn,
            bytes,
            read_at: Instant::now(),
        });
        if port.tell(envelope(received)).await.is_err() {
            return;
        }
    }
    let half = Half::Reader;
    drop(port.tell(envelope(ToRelay::Gone { conn, half })).await);
}

/// Writes what is queued, all of it in one go each time, until it is closed or stuck.
pub(super) async fn write(conn: ConnId, port: Mailbox<RelayServer>, outgoing: Rc<Outgoing>) {
    let mut writer = outgoing.writer.clone();
    if let Err(error) = write_until_closed(conn, &mut writer, &port, &outgoing).await {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(conn = conn.0, error, "a connection broke while writing");
    } else {
        drop(timeout(WRITE_STALL_TIMEOUT, writer.shutdown()).await);
        drop(timeout(LINGER_TIMEOUT, peer_end(&outgoing)).await);
    }
    let half = Half::Writer;
    drop(port.tell(envelope(ToRelay::Gone { conn, half })).await);
}

async fn write_until_closed(
    conn: ConnId,
    writer: &mut SharedWriter,
    port: &Mailbox<RelayServer>,
    outgoing: &Outgoing,
) -> Result<(), WriteError> {
    let mut batch = VecDeque::new();
    loop {
        while outgoing.is_empty() {
            if outgoing.closing.get() {
                return Ok(());
            }
            outgoing.changed.notified().await;
        }
        std::mem::swap(&mut batch, &mut outgoing.frames.borrow_mut());
        let busy = outgoing.writer.busy();
        let mut unreported = 0;
        write_frames(writer, &mut batch, WRITE_STALL_TIMEOUT, |bytes| {
            unreported += bytes;
            let drained = ToRelay::Drained {
                conn,
                bytes: unreported,
            };
            if port.try_tell(envelope(drained)).is_ok() {
                unreported = 0;
            }
        })
        .await?;
        drop(busy);
        if unreported > 0 {
            let drained = ToRelay::Drained {
                conn,
                bytes: unreported,
            };
            if port.tell(envelope(drained)).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn peer_end(outgoing: &Outgoing) {
    while !outgoing.peer_ended.get() {
        outgoing.changed.notified().await;
    }
}
