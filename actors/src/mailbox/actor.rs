//! What an actor is here: synchronous turns over plain state, with effects instead of awaits.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use dwell_messages::{Envelope, TraceContext};

use super::bound::Bound;
use super::delivery::Permit;
use super::handle::{Mailbox, TellError};
use super::outbox::{Item, Outbox, Tell};
use crate::telemetry::{Tick, nanos};

/// When a control message that found no room is tried again.
const CONTROL_RETRY: Duration = Duration::from_millis(1);

/// A message that can lie in a mailbox.
pub trait Message: Send + 'static {
    /// Names of the kinds of message, of low cardinality: they name spans.
    const NAMES: &'static [&'static str];

    /// Which of `NAMES` this one is.
    fn index(&self) -> usize;

    /// Where the residence of stream data is summed, for messages that get no span of their own.
    fn bulk(&self) -> Option<&BulkResidence> {
        None
    }
}

/// An actor: state, and one synchronous turn per message.
///
/// A turn never blocks and never awaits. What it sends goes through `Turn`; what takes time is a task (`Turn::spawn`)
/// or a thread behind a bounded channel, and comes back as a message.
pub trait Actor: Sized + Unpin + 'static {
    /// Name of the actor's type, as spans show it.
    const NAME: &'static str;
    /// What its mailbox holds.
    type Message: Message;
    /// What its control queue holds: few, urgent, handled before any delivery.
    type Control: Send + 'static;

    /// Called once per life, before the first turn.
    fn started(&mut self, turn: &mut Turn<'_, Self>) {
        let _ = turn;
    }

    /// One turn.
    fn receive(&mut self, envelope: Envelope<Self::Message>, turn: &mut Turn<'_, Self>);

    /// One turn for a control message.
    fn control(&mut self, control: Self::Control, turn: &mut Turn<'_, Self>);

    /// Called when all accepted messages have been handled and the actor is about to stop.
    fn drained(&mut self, turn: &mut Turn<'_, Self>) {
        let _ = turn;
    }
}

/// How long the message of this turn waited in the mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Residence {
    /// When it was put in.
    pub enqueued: Tick,
    /// When it was taken out.
    pub dequeued: Tick,
}

/// When a turn's message was put in, and, once somebody wanted to know, when it was taken out.
pub(super) struct Stamps {
    pub(super) enqueued: Tick,
    pub(super) dequeued: Cell<Option<Tick>>,
}

impl From<Residence> for Stamps {
    fn from(residence: Residence) -> Self {
        Self {
            enqueued: residence.enqueued,
            dequeued: Cell::new(Some(residence.dequeued)),
        }
    }
}

impl Residence {
    /// The wait in microseconds.
    pub fn micros(&self) -> u64 {
        self.dequeued.micros_since(self.enqueued)
    }
}

/// Residence of one stream's data in one mailbox, summed: count, total and longest.
#[derive(Debug, Default)]
pub struct BulkResidence {
    count: AtomicU64,
    total_ticks: AtomicU64,
    longest_ticks: AtomicU64,
}

impl BulkResidence {
    /// Adds one delivery's wait.
    #[inline]
    pub fn observe(&self, residence: Residence) {
        let ticks = residence.dequeued.ticks_since(residence.enqueued);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total_ticks.fetch_add(ticks, Ordering::Relaxed);
        self.longest_ticks.fetch_max(ticks, Ordering::Relaxed);
    }

    /// Deliveries so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// All waits together, in microseconds.
    pub fn total_us(&self) -> u64 {
        nanos(self.total_ticks.load(Ordering::Relaxed)) / 1_000
    }

    /// The longest wait, in microseconds.
    pub fn longest_us(&self) -> u64 {
        nanos(self.longest_ticks.load(Ordering::Relaxed)) / 1_000
    }
}

/// A running timer or task; dropping it cancels it.
#[must_use = "dropping it cancels the timer or task"]
#[derive(Debug)]
pub struct TimerGuard(Option<tokio::task::JoinHandle<()>>);

impl TimerGuard {
    /// Lets it run without being held. It ends with its future, or with the arbiter.
    pub fn detach(mut self) {
        self.0.take();
    }
}

impl Drop for TimerGuard {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// Room in a mailbox, given back when dropped: of one message, or of several.
///
/// A drain does not wait for it: the messages it belonged to have been handled.
#[must_use = "dropping it gives the room back"]
#[derive(Debug)]
pub struct Room {
    room: Arc<Bound>,
    reserved: Arc<AtomicU32>,
    places: u32,
}

impl Drop for Room {
    fn drop(&mut self) {
        // Before the room is free, or the difference of the two could hide a message under way.
        self.reserved.fetch_sub(self.places, Ordering::SeqCst);
        self.room.give_all(self.places);
    }
}

/// What a turn may do besides changing its actor's state.
pub struct Turn<'a, A: Actor> {
    pub(super) mailbox: &'a Mailbox<A>,
    pub(super) outbox: &'a Rc<Outbox>,
    pub(super) stamps: Stamps,
    pub(super) held: &'a mut Vec<Box<dyn FnOnce()>>,
    pub(super) room: &'a mut Option<Permit>,
    pub(super) queued: bool,
    pub(super) stop: bool,
}

impl<A: Actor> std::fmt::Debug for Turn<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn")
            .field("actor", &A::NAME)
            .field("residence", &self.residence())
            .finish()
    }
}

impl<A: Actor> Turn<'_, A> {
    /// Sends to another actor, in the order of the turn's sends. If there is no room the pump waits for it, and this
    /// delivery's own room stays taken until then: only towards services, never back towards a requester.
    #[inline]
    pub fn tell<B: Actor>(&mut self, to: &Mailbox<B>, context: TraceContext, body: B::Message) {
        let envelope = Envelope::new(context, body);
        if !self.outbox.is_empty() {
            return self.queue(Item::Send(Box::new(Tell {
                mailbox: to.clone(),
                envelope,
            })));
        }
        match to.try_tell(envelope) {
            Ok(()) => {}
            Err(TellError::Full(envelope)) => {
                self.queue(Item::Send(Box::new(Tell {
                    mailbox: to.clone(),
                    envelope,
                })));
            }
            Err(TellError::Stopped(envelope)) => drop(envelope),
        }
    }

    /// Runs `run` when all effects before it have left.
    pub fn after_effects(&mut self, run: impl FnOnce() + 'static) {
        if self.outbox.is_empty() {
            return run();
        }
        self.queue(Item::Run(Box::new(run)));
    }

    /// Runs `run` when this turn's own record has been written; a turn without one runs it at its end. Not run if the
    /// turn panics.
    pub fn after_record(&mut self, run: impl FnOnce() + 'static) {
        self.held.push(Box::new(run));
    }

    /// Sends this actor a control message after `delay`, unless the guard is dropped first.
    pub fn timer(&self, delay: Duration, control: A::Control) -> TimerGuard {
        let mailbox = self.mailbox.clone();
        self.spawn(async move {
            let (mut wait, mut control) = (delay, control);
            loop {
                tokio::time::sleep(wait).await;
                // A full control queue means the actor is about to run anyway: try again shortly.
                let Err(full) = mailbox.control(control) else {
                    return;
                };
                (wait, control) = (CONTROL_RETRY, full.0);
            }
        })
    }

    /// Runs a task on this arbiter. It is cancelled when the guard is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> TimerGuard {
        TimerGuard(Some(tokio::task::spawn_local(task)))
    }

    /// A handle to this actor itself.
    pub fn mailbox(&self) -> Mailbox<A> {
        self.mailbox.clone()
    }

    /// Keeps this delivery's room taken for as long as the permit is held: for what the actor queues itself. `None` in
    /// a control turn, and the second time.
    pub fn take_room(&mut self) -> Option<Room> {
        let permit = self.room.take()?;
        let reserved = Arc::clone(&self.mailbox.shared.reserved);
        reserved.fetch_add(1, Ordering::SeqCst);
        Some(Room {
            room: permit.into_room(&self.mailbox.room),
            reserved,
            places: 1,
        })
    }

    /// As `take_room`, into what is kept already, for messages that are handed on together. A delivery that has no room
    /// left, or came by another handle than those before it, adds none: its room is given back with its effects.
    pub fn take_room_into(&mut self, kept: &mut Option<Room>) {
        let Some(room) = kept else {
            *kept = self.take_room();
            return;
        };
        let own = &self.mailbox.room;
        if self
            .room
            .as_ref()
            .is_some_and(|permit| permit.is_of(&room.room, own))
        {
            *self.room = None;
            room.reserved.fetch_add(1, Ordering::SeqCst);
            room.places += 1;
        }
    }

    /// How long this turn's message waited. Like `now`, to be called early in the turn.
    pub fn residence(&self) -> Residence {
        Residence {
            enqueued: self.stamps.enqueued,
            dequeued: self.now(),
        }
    }

    /// When this turn began: the same tick however often it is called.
    ///
    /// A turn that leaves a record was stamped at its dequeue. In any other the first call reads the clock, so that
    /// turns that do not care do not pay for it: call it before anything that takes time.
    pub fn now(&self) -> Tick {
        self.stamps.dequeued.get().unwrap_or_else(|| {
            let now = Tick::now();
            self.stamps.dequeued.set(Some(now));
            now
        })
    }

    /// Whether no other message lies in this mailbox now: what is done once for many belongs into the last turn. One
    /// that comes at this moment may be overlooked, so nothing may depend on it but the when.
    pub fn is_last(&self) -> bool {
        let own = u32::from(self.room.is_some());
        self.mailbox.shared.under_way() <= self.outbox.permits() + own
    }

    /// Drains and stops this actor after the turn.
    pub fn stop(&mut self) {
        self.stop = true;
    }

    fn queue(&mut self, item: Item) {
        self.queued = true;
        self.outbox.push(item);
    }
}
