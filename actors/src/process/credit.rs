//! How far a process's client takes its output, and whether anybody is there to take it.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use dwell_messages::OutputStream;
use tokio::sync::{Notify, watch};

use crate::in_flight::{Process as Watched, Waits};
use crate::telemetry::Tick;

/// How far the client takes each stream: absolute offsets, so that repeating one changes nothing. Shared by the readers,
/// which take no more than that, and the delivery, which forgets what the client has consumed.
#[derive(Default)]
pub(crate) struct Credit {
    limits: [Cell<u64>; 2],
    /// The client's window: what is this far below the limit has been consumed.
    window: [Cell<u64>; 2],
    /// Whether nobody takes the output for now, link or no link.
    unattended: Cell<bool>,
    attendance: Notify,
    more: [Notify; 2],
    /// Whether a reader waits for its consumer, and not for the pipe.
    held: [Cell<bool>; 2],
    /// When either stream last brought something.
    last_output: Cell<Option<Tick>>,
    /// The process's place among what is unfinished.
    watched: OnceCell<Arc<Watched>>,
}

impl Credit {
    /// The first limit of both streams, which is the client's window too.
    pub(crate) fn begin(&self, window: u64, unattended: bool) {
        self.unattended.set(unattended);
        self.window.iter().for_each(|cell| cell.set(window));
        self.set(OutputStream::Stdout, window);
        self.set(OutputStream::Stderr, window);
    }

    /// Raises a stream's limit. A lower one than before is a late repetition.
    pub(crate) fn set(&self, stream: OutputStream, limit: u64) {
        let cell = &self.limits[stream.index()];
        if limit > cell.get() {
            cell.set(limit);
            self.more[stream.index()].notify_one();
        }
    }

    /// Another client takes the stream from now on: as far as it says, also if the one before it would have taken more.
    pub(crate) fn take_over(&self, stream: OutputStream, limit: u64, window: u64) {
        self.window[stream.index()].set(window);
        self.limits[stream.index()].set(limit);
        self.more[stream.index()].notify_one();
        self.unattended.set(false);
        self.attendance.notify_waiters();
    }

    /// Another client has the session, and does not take this output.
    pub(crate) fn leave_unattended(&self) {
        self.unattended.set(true);
        self.attendance.notify_waiters();
    }

    /// Whether nobody takes the output for now.
    pub(crate) fn is_unattended(&self) -> bool {
        self.unattended.get()
    }

    /// Returns when that may have changed.
    pub(super) async fn attendance_changed(&self) {
        self.attendance.notified().await;
    }

    /// Bytes of a stream that its consumer has taken for certain.
    pub(crate) fn consumed(&self, stream: OutputStream) -> u64 {
        self.limits[stream.index()]
            .get()
            .saturating_sub(self.window[stream.index()].get())
    }

    /// Nobody counts any more.
    pub(crate) fn open(&self) {
        self.set(OutputStream::Stdout, u64::MAX);
        self.set(OutputStream::Stderr, u64::MAX);
    }

    /// Whether it is the consumer that this stream waits for.
    pub(super) fn is_held(&self, stream: OutputStream) -> bool {
        self.held[stream.index()].get()
    }

    pub(super) fn hold(&self, stream: OutputStream, held: bool) {
        self.held[stream.index()].set(held);
    }

    /// When output last came.
    pub(super) fn last_output(&self) -> Option<Tick> {
        self.last_output.get()
    }

    pub(super) fn output_came(&self, now: Tick) {
        self.last_output.set(Some(now));
    }

    /// What the streams wait for is told there from now on.
    pub(super) fn watched(&self, watched: Arc<Watched>) {
        self.watched.get_or_init(|| watched);
    }

    /// What a stream waits for now, and how much of it has come.
    pub(super) fn waits(&self, stream: OutputStream, waits: Waits, bytes: u64, now: Tick) {
        if let Some(watched) = self.watched.get() {
            watched.came(stream, bytes);
            watched.waits(stream, waits, now);
        }
    }

    /// Whether something may be delivered beyond `offset` now.
    pub(super) fn has_room(&self, stream: OutputStream, offset: u64) -> bool {
        self.limits[stream.index()].get() > offset
    }

    /// Bytes that may be delivered beyond `offset`, waiting until there are some. Cancellation safe.
    pub(super) async fn room(&self, stream: OutputStream, offset: u64) -> u64 {
        loop {
            let room = self.limits[stream.index()].get().saturating_sub(offset);
            if room > 0 {
                return room;
            }
            self.more[stream.index()].notified().await;
        }
    }
}

/// Whether a session has a link, as its processes see it.
#[derive(Clone)]
pub(crate) struct Presence(watch::Receiver<bool>);

impl Presence {
    /// Set by the session, seen by its processes.
    pub(crate) fn new(attached: bool) -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(attached);
        (sender, Self(receiver))
    }

    pub(super) fn is_attached(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the session has no link.
    pub(super) async fn gone(&mut self) {
        // A session that is over is as good as one without a link.
        drop(self.0.wait_for(|attached| !*attached).await);
    }

    /// Returns when that changes, if it ever does.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
