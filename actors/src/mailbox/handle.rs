//! Handles: the only way into a mailbox, and the place where its bound is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dwell_messages::Envelope;
use tokio::sync::oneshot;

use super::actor::Actor;
use super::ask::{AskCell, AskError, Reply};
use super::bound::{Bound, OwnedTaken, Refused, Taken};
use super::delivery::{Delivery, Doorbell, DrainMark, Permit};
use super::host::Host;
use super::shared::{Shared, unpoisoned};
use crate::telemetry::{Tick, count_crossing, thread_tag};

/// Control messages that may wait for one actor.
pub const CONTROL_QUEUE_MAX: usize = 64;

/// The sending end of one actor's mailbox. Cheap to clone, `Send` and `Sync`.
pub struct Mailbox<A: Actor> {
    /// One for all handles: an address's own clones are two allocations each.
    pub(super) addr: Arc<actix::Addr<Host<A>>>,
    pub(super) room: Arc<Bound>,
    pub(super) capacity: u32,
    /// Whether the room is a port's and not the mailbox's own.
    pub(super) is_port: bool,
    pub(super) shared: Arc<Shared<A::Control>>,
}

impl<A: Actor> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self {
            addr: Arc::clone(&self.addr),
            room: Arc::clone(&self.room),
            capacity: self.capacity,
            is_port: self.is_port,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<A: Actor> fmt::Debug for Mailbox<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("actor", &self.shared.name)
            .field("depth", &self.depth())
            .finish()
    }
}

/// Why a message was not taken. Both give it back.
#[derive(thiserror::Error)]
pub enum TellError<M> {
    /// The mailbox has no room now.
    #[error("the mailbox is full: wait with `tell`, or shed the message")]
    Full(Envelope<M>),
    /// The actor drains or has stopped.
    #[error("the actor has stopped: the message was not taken")]
    Stopped(Envelope<M>),
}

impl<M> fmt::Debug for TellError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Stopped(_) => "Stopped",
        })
    }
}

/// The actor drains or has stopped; the message comes back.
#[derive(thiserror::Error)]
#[error("the actor has stopped: the message was not taken")]
pub struct Stopped<M>(pub Envelope<M>);

impl<M> fmt::Debug for Stopped<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopped")
    }
}

/// The control queue holds `CONTROL_QUEUE_MAX` messages already; this one comes back.
#[derive(thiserror::Error)]
#[error("the actor's control queue is full at {CONTROL_QUEUE_MAX}")]
pub struct ControlFull<C>(pub C);

impl<C> fmt::Debug for ControlFull<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlFull")
    }
}

/// Reserved room for one message: sending into it never waits.
///
/// A drain does not wait for slots that were not used before it began.
#[must_use = "a slot that is dropped gives its room back unused"]
pub struct Slot<A: Actor> {
    mailbox: Mailbox<A>,
    permit: Option<OwnedTaken>,
}

impl<A: Actor> fmt::Debug for Slot<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("actor", &self.mailbox.shared.name)
            .finish()
    }
}

impl<A: Actor> Slot<A> {
    fn new(mailbox: Mailbox<A>, permit: OwnedTaken) -> Self {
        mailbox.shared.reserved.fetch_add(1, Ordering::SeqCst);
        Self {
            mailbox,
            permit: Some(permit),
        }
    }

    /// Sends into the reserved room. An actor that drains or has stopped no longer takes the message: it is dropped,
    /// and whoever waits for a reply of it is told.
    pub fn send(mut self, envelope: Envelope<A::Message>) {
        let Some(permit) = self.permit.take() else { return };
        // In this order: either the drain sees a message under way, or we see the drain.
        self.mailbox.shared.reserved.fetch_sub(1, Ordering::SeqCst);
        if !self.mailbox.shared.draining.load(Ordering::SeqCst) {
            permit.forget();
            self.mailbox.put(envelope, None);
        }
    }
}

impl<A: Actor> Drop for Slot<A> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            // Before the room is free, or the difference of the two could hide a message under way.
            self.mailbox.shared.reserved.fetch_sub(1, Ordering::SeqCst);
            drop(permit);
        }
    }
}

impl<A: Actor> Mailbox<A> {
    /// Delivers, waiting for room. Cancellation safe: a cancelled `tell` has not delivered.
    ///
    /// # Errors
    /// `Stopped` gives the message back.
    pub async fn tell(&self, envelope: Envelope<A::Message>) -> Result<(), Stopped<A::Message>> {
        match self.room.take().await {
            // Room that came with the drain's last turns is not an acceptance: the mark has passed.
            Some(permit) if !self.room.is_closed() => {
                permit.forget();
                self.put(envelope, None);
                Ok(())
            }
            Some(_) | None => Err(Stopped(envelope)),
        }
    }

    /// Delivers if there is room now.
    ///
    /// # Errors
    /// `Full` and `Stopped` give the message back.
    #[inline]
    pub fn try_tell(&self, envelope: Envelope<A::Message>) -> Result<(), TellError<A::Message>> {
        match self.room.try_take() {
            Ok(permit) => {
                permit.forget();
                self.deliver(envelope, None);
                Ok(())
            }
            Err(Refused::Full) => Err(TellError::Full(envelope)),
            Err(Refused::Closed) => Err(TellError::Stopped(envelope)),
        }
    }

    /// Reserves room for one message, waiting for it. Cancellation safe.
    ///
    /// # Errors
    /// `Stopped` when the actor drains or has stopped.
    pub async fn reserve(&self) -> Result<Slot<A>, AskError> {
        match OwnedTaken::take(&self.room).await {
            Some(permit) if !self.room.is_closed() => Ok(Slot::new(self.clone(), permit)),
            Some(_) | None => Err(AskError::Stopped),
        }
    }

    /// Reserves room if there is some now.
    pub fn try_reserve(&self) -> Option<Slot<A>> {
        let permit = OwnedTaken::try_take(&self.room)?;
        Some(Slot::new(self.clone(), permit))
    }

    /// Asks and waits for the answer. `question` wraps the reply into a message.
    ///
    /// Cancellation: dropping the future withdraws the question if the actor has not begun on it.
    ///
    /// # Errors
    /// `Stopped` and `NotStarted` mean that nothing happened; `ActorFailed` that it may have.
    pub async fn ask<R>(
        &self,
        context: dwell_messages::TraceContext,
        question: impl FnOnce(Reply<R>) -> A::Message,
    ) -> Result<R, AskError> {
        let permit = self.room.take().await.ok_or(AskError::Stopped)?;
        let (withdrawal, receiver) = self.put_question(permit, context, question)?;
        receiver.await.map_err(|_| withdrawal.unanswered())
    }

    /// Asks with a deadline, in which waiting for room counts.
    ///
    /// # Errors
    /// As `ask`; past the deadline `NotStarted` if the actor has not begun and now never will, else `OutcomeUnknown`.
    pub async fn ask_within<R>(
        &self,
        deadline: Duration,
        context: dwell_messages::TraceContext,
        question: impl FnOnce(Reply<R>) -> A::Message,
    ) -> Result<R, AskError> {
        let ends = tokio::time::Instant::now() + deadline;
        let permit = match tokio::time::timeout_at(ends, self.room.take()).await {
            Ok(permit) => permit.ok_or(AskError::Stopped)?,
            Err(_) => return Err(AskError::NotStarted),
        };
        let (withdrawal, receiver) = self.put_question(permit, context, question)?;
        match tokio::time::timeout_at(ends, receiver).await {
            Ok(answer) => answer.map_err(|_| withdrawal.unanswered()),
            Err(_) if withdrawal.0.withdraw() => Err(AskError::NotStarted),
            Err(_) => Err(AskError::OutcomeUnknown),
        }
    }

    /// Puts a message into the side queue that is emptied before every delivery.
    ///
    /// # Errors
    /// `ControlFull` gives it back; a stopped actor takes and drops it.
    pub fn control(&self, message: A::Control) -> Result<(), ControlFull<A::Control>> {
        {
            let mut queue = unpoisoned(&self.shared.control);
            // Under the lock: the end of the mailbox takes what is in the queue after it has set this.
            if self.shared.stopped.load(Ordering::SeqCst) {
                return Ok(());
            }
            let unsettled = self.shared.control_unsettled.load(Ordering::Relaxed) as usize;
            if queue.len() + unsettled >= CONTROL_QUEUE_MAX {
                return Err(ControlFull(message));
            }
            queue.push_back(message);
            self.shared.control_waiting.store(true, Ordering::Release);
        }
        if !self.shared.rung.swap(true, Ordering::AcqRel) {
            self.count_thread();
            #[expect(
                clippy::disallowed_methods,
                reason = "one doorbell at a time: the flag is its bound"
            )]
            self.addr.do_send(Doorbell);
        }
        Ok(())
    }

    /// Refuses new messages, lets those accepted be handled and their effects leave, then stops the actor.
    ///
    /// Returns when it has stopped. Cancellation safe: the drain goes on. Calling it again waits for the same end.
    pub async fn drain(&self) {
        let ended = self.shared.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        self.begin_drain();
        if !self.shared.stopped.load(Ordering::Acquire) && self.addr.connected() {
            ended.await;
        }
    }

    /// Waits until the actor has stopped, whoever stops it. Cancellation safe.
    pub async fn stopped(&self) {
        let ended = self.shared.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        if !self.shared.stopped.load(Ordering::Acquire) && self.addr.connected() {
            ended.await;
        }
    }

    /// As `drain`, without waiting for the end.
    pub fn begin_drain(&self) {
        if self.shared.close() {
            #[expect(clippy::disallowed_methods, reason = "sent once in a mailbox's life")]
            self.addr.do_send(DrainMark);
        }
    }

    /// Another handle to the same actor with room of its own: traffic of one direction cannot fill the other's.
    ///
    /// Its capacity is at least 1. A drain closes it like the mailbox itself.
    pub fn port(&self, capacity: usize) -> Self {
        let (room, capacity) = self.shared.room(capacity);
        Self {
            addr: Arc::clone(&self.addr),
            room,
            capacity,
            is_port: true,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Messages in this handle's room now, those whose effects have not left and slots included.
    pub fn depth(&self) -> usize {
        if self.shared.stopped.load(Ordering::Acquire) {
            return 0;
        }
        self.taken()
    }

    #[inline]
    fn taken(&self) -> usize {
        (self.capacity as usize).saturating_sub(self.room.free())
    }

    /// Messages taken out so far.
    pub fn dequeued(&self) -> u64 {
        self.shared.dequeued.load(Ordering::Relaxed)
    }

    /// Whether the actor drains or has stopped.
    pub fn is_stopped(&self) -> bool {
        self.room.is_closed() || self.shared.stopped.load(Ordering::Acquire)
    }

    fn put_question<R>(
        &self,
        permit: Taken<'_>,
        context: dwell_messages::TraceContext,
        question: impl FnOnce(Reply<R>) -> A::Message,
    ) -> Result<(Withdrawal, oneshot::Receiver<R>), AskError> {
        if self.room.is_closed() {
            return Err(AskError::Stopped);
        }
        let (sender, receiver) = oneshot::channel();
        let withdrawal = Withdrawal(Arc::new(AskCell::default()));
        let envelope = Envelope::new(context, question(Reply(sender)));
        permit.forget();
        self.put(envelope, Some(Arc::clone(&withdrawal.0)));
        Ok((withdrawal, receiver))
    }

    /// Puts a message into room that was taken for it.
    fn put(&self, envelope: Envelope<A::Message>, ask: Option<Arc<AskCell>>) {
        self.deliver(envelope, ask);
    }

    /// Inlined into the hot path, or the message is copied once more on its way into its box.
    #[inline(always)]
    fn deliver(&self, envelope: Envelope<A::Message>, ask: Option<Arc<AskCell>>) {
        self.count_thread();
        // Only a record tells it.
        let depth = if envelope.context.is_sampled() {
            self.taken()
        } else {
            0
        };
        let delivery = Delivery {
            context: envelope.context,
            body: Some(envelope.body),
            enqueued: Tick::now(),
            permit: Permit(self.is_port.then(|| Arc::clone(&self.room))),
            ask,
            depth: u16::try_from(depth).unwrap_or(u16::MAX),
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the permit inside is the bound that actix does not keep"
        )]
        self.addr.do_send(delivery);
    }

    #[inline]
    fn count_thread(&self) {
        let thread = self.shared.thread.load(Ordering::Relaxed);
        if thread_tag().0 != thread {
            count_crossing();
        }
    }
}

/// Withdraws a question when its asker goes away.
struct Withdrawal(Arc<AskCell>);

impl Withdrawal {
    /// Why the reply was dropped without an answer: with a question never begun, only the actor's end can be it.
    fn unanswered(&self) -> AskError {
        if self.0.withdraw() {
            AskError::Stopped
        } else {
            AskError::ActorFailed
        }
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}
