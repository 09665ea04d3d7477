//! One live thread: its handle.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_rt::ArbiterHandle;
use dwell_messages::{Envelope, TraceContext};
use tokio::sync::{Mutex, oneshot};

use super::Threads;
use super::error::ThreadError;
use super::item::Append;
use super::room::Gate;
use crate::event_log::ITEM_BODY_MAX_BYTES;
use crate::event_log::worker::{AppendTrace, Appending};
use crate::mailbox::{Mailbox, Reply};
use crate::metadata_store::{ThreadId, ThreadPatch};
use crate::metadata_writer::{Appended, MetadataControl, MetadataMessage, MetadataWriter};
use crate::telemetry::{Tick, root, span_id};

/// The most bytes of one append's items.
pub const APPEND_MAX_BYTES: usize = 4 << 20;

/// What an append takes of that besides its items.
const APPEND_OVERHEAD_BYTES: usize = 256;

/// One live thread of this process, its only writer anywhere. `Send` and `Sync`; usable from any runtime and without one.
///
/// Appends are kept in the order of their calls. *Barriers* (`flush`, `persist`, `append_and_flush`, `mutate`,
/// `shutdown`) cover everything accepted before they are called and nothing after; what a barrier has acknowledged
/// survives a power cut. A barrier that fails has lost nothing: what was accepted is tried again by the next one.
///
/// Dropping it ends the thread in order, without a word about what failed: `shutdown` tells.
pub struct Thread {
    id: ThreadId,
    writer: Mailbox<MetadataWriter>,
    gate: Gate,
    /// For timers: the caller's runtime may have none.
    arbiter: ArbiterHandle,
    /// Whose threads all this runs on.
    _threads: Threads,
    /// Held from the first check to the enqueue, so that order in the queue is order of calls.
    order: Mutex<()>,
    /// True when it ends; taken back by the actor when that fails.
    closing: Arc<AtomicBool>,
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Thread {
    pub(super) fn new(
        id: ThreadId,
        writer: Mailbox<MetadataWriter>,
        gate: Gate,
        arbiter: ArbiterHandle,
        threads: Threads,
        closing: Arc<AtomicBool>,
    ) -> Self {
        Self {
            id,
            writer,
            gate,
            arbiter,
            _threads: threads,
            order: Mutex::new(()),
            closing,
        }
    }

    /// What it is known by.
    pub fn id(&self) -> ThreadId {
        self.id
    }

    /// Appends, and returns when the items have their place in the queue: no disk is waited for. An item that then
    /// cannot be written is kept and tried again; the next barrier says so.
    ///
    /// Cancellation: a future that is dropped before it is ready has appended nothing; afterwards everything.
    ///
    /// # Errors
    /// Nothing was taken: too large, closed, or its part of the queue, or all of it, is full of what a failing disk does
    /// not take.
    pub async fn append(&self, append: impl Into<Append>) -> Result<(), ThreadError> {
        self.put(append.into(), None).await
    }

    /// As `append` and `flush` in one: what a following `get` or `list` shows covers these items.
    ///
    /// # Errors
    /// Those of `append`; and those of `flush`, after which the items are accepted all the same.
    pub async fn append_and_flush(&self, append: impl Into<Append>) -> Result<(), ThreadError> {
        let (reply, answer) = Reply::channel();
        self.put(append.into(), Some(reply)).await?;
        answer.await.map_err(|_| ThreadError::WorkerFailed)?
    }

    async fn put(
        &self,
        append: Append,
        reply: Option<Reply<Result<(), ThreadError>>>,
    ) -> Result<(), ThreadError> {
        let called = Tick::now();
        let bytes: usize = append
            .items
            .iter()
            .map(crate::event_log::Item::encoded_bytes)
            .sum();
        let longest = append.items.iter().map(|item| item.body.len()).max().unwrap_or(0);
        check(longest, ITEM_BODY_MAX_BYTES)?;
        check(bytes, APPEND_MAX_BYTES)?;
        let parent = append.parent.unwrap_or_else(|| root(false));
        // Without its queue when nobody is in it, which is most of the time.
        let _order = match self.order.try_lock() {
            Ok(order) => order,
            Err(_) => self.order.lock().await,
        };
        if self.closing.load(Ordering::Acquire) {
            return Err(ThreadError::Closed);
        }
        let room = self.gate.admit(bytes + APPEND_OVERHEAD_BYTES).await?;
        let trace = AppendTrace {
            span: span_id(),
            parent,
            called,
        };
        let context = trace.inside();
        let appended = Appended {
            appending: Box::new(Appending {
                items: append.items,
                room: Some(room),
                trace,
            }),
            patch: append.patch,
        };
        let message = MetadataMessage::Append(appended, reply);
        self.writer
            .tell(Envelope::new(context, message))
            .await
            .map_err(|_| ThreadError::Closed)
    }

    /// Everything accepted before this call is kept when it returns: history first, then the metadata that follows from
    /// it. A thread to which nothing was ever appended stays unmade.
    ///
    /// Cancellation loses nothing that was accepted.
    ///
    /// # Errors
    /// Why something is not kept: the error of the update that covered this call. The next barrier tries again.
    pub async fn flush(&self) -> Result<(), ThreadError> {
        self.barrier(false, None).await
    }

    /// As `flush`, but no longer than `limit`.
    ///
    /// # Errors
    /// Those of `flush`; `NotStarted` and `OutcomeUnknown` when the time is over.
    pub async fn flush_within(&self, limit: Duration) -> Result<(), ThreadError> {
        let (done, answer) = oneshot::channel();
        let writer = self.writer.clone();
        self.arbiter.spawn(async move {
            let asked = writer.ask_within(limit, root(false), |reply| MetadataMessage::Barrier {
                materialise: false,
                reply,
            });
            let answered = asked
                .await
                .map_err(|error| ThreadError::asked(error, Some(limit)));
            drop(done.send(answered.and_then(|kept| kept)));
        });
        answer.await.unwrap_or(Err(ThreadError::WorkerFailed))
    }

    /// As `flush`, below a span of the caller's.
    ///
    /// # Errors
    /// Those of `flush`.
    pub async fn flush_traced(&self, parent: TraceContext) -> Result<(), ThreadError> {
        self.barrier(false, Some(parent)).await
    }

    /// As `flush`, and the thread exists afterwards even if nothing was ever appended.
    ///
    /// # Errors
    /// Those of `flush`.
    pub async fn persist(&self) -> Result<(), ThreadError> {
        self.barrier(true, None).await
    }

    async fn barrier(&self, materialise: bool, parent: Option<TraceContext>) -> Result<(), ThreadError> {
        let context = parent.unwrap_or_else(|| root(false));
        let question = |reply| MetadataMessage::Barrier { materialise, reply };
        let asked = self.writer.ask(context, question).await;
        asked.map_err(|error| ThreadError::asked(error, None))?
    }

    /// Changes the record explicitly: a barrier first, then the change, so that nothing that followed from earlier
    /// items can overwrite it. Kept when it returns.
    ///
    /// # Errors
    /// When the barrier fails, or the change itself: then it is not made, and not tried again.
    pub async fn mutate(&self, patch: ThreadPatch) -> Result<(), ThreadError> {
        let question = |reply| MetadataMessage::Mutate(Box::new(patch), reply);
        self.writer
            .ask(root(false), question)
            .await
            .map_err(|error| ThreadError::asked(error, None))?
    }

    /// A barrier, then the end: the thread may have another writer when this returns. Later calls are told `Closed`.
    ///
    /// # Errors
    /// What was not kept, or that the lease is not given back. The thread then stays open, so that it can be tried
    /// again; `discard` or dropping it gives up.
    pub async fn shutdown(&self) -> Result<(), ThreadError> {
        self.end(MetadataMessage::Shutdown).await
    }

    /// The end, without a barrier: waits for what is under way and starts nothing more. What was appended and not
    /// flushed may be kept or not; metadata that waits is dropped, and its waiters are told `Closed`.
    ///
    /// # Errors
    /// `Closed` when it had ended before.
    pub async fn discard(&self) -> Result<(), ThreadError> {
        self.end(MetadataMessage::Discard).await
    }

    /// Appends in the queue before this are covered; those after are refused.
    async fn end(
        &self,
        message: fn(Reply<Result<(), ThreadError>>) -> MetadataMessage,
    ) -> Result<(), ThreadError> {
        let (reply, answer) = Reply::channel();
        let order = self.order.lock().await;
        // Before the actor can know of it, for it may take it back at once.
        if self.closing.swap(true, Ordering::AcqRel) {
            return Err(ThreadError::Closed);
        }
        let mut unasked = Unasked(Some(&self.closing));
        let envelope = Envelope::new(root(false), message(reply));
        self.writer
            .tell(envelope)
            .await
            .map_err(|_| ThreadError::Closed)?;
        // Cancelled from here on the end goes on.
        unasked.0 = None;
        drop(order);
        answer.await.unwrap_or(Err(ThreadError::WorkerFailed))
    }
}

/// An end that nobody has been asked for yet: dropped, it is none.
struct Unasked<'a>(Option<&'a AtomicBool>);

impl Drop for Unasked<'_> {
    fn drop(&mut self) {
        if let Some(closing) = self.0 {
            closing.store(false, Ordering::Release);
        }
    }
}

fn check(bytes: usize, max: usize) -> Result<(), ThreadError> {
    if bytes > max {
        return Err(ThreadError::TooLarge { bytes, max });
    }
    Ok(())
}

impl Drop for Thread {
    fn drop(&mut self) {
        if self.writer.control(MetadataControl::Abandoned).is_err() {
            // Its control queue is full: the end of the mailbox does the same with less ceremony.
            self.writer.begin_drain();
        }
    }
}
