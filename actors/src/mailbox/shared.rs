//! A mailbox's state that its handles and its host share, and the guard that marks its end.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::sync::Notify;

use super::bound::Bound;
use crate::in_flight::{Look, Probe, turn_of, turn_word};
use crate::telemetry::Tick;

/// Messages one room may hold; larger capacities are clamped to it.
const ROOM_MAX: usize = u32::MAX as usize >> 4;

/// A mailbox's state that its handles and its host share.
pub(super) struct Shared<C> {
    pub(super) name: &'static str,
    /// Names of its messages.
    messages: &'static [&'static str],
    /// Tells mailboxes of this process apart.
    id: u64,
    /// Every room of this mailbox, its ports' included, with its capacity: as many as there are live ports.
    rooms: Mutex<Vec<(Weak<Bound>, u32)>>,
    /// Slots not yet used, and room that an actor keeps: taken, but not by a message under way.
    pub(super) reserved: Arc<AtomicU32>,
    /// Deliveries whose turn is over and whose effects have not left. Written by the outbox.
    pub(super) leaving: Arc<AtomicU32>,
    pub(super) control: Mutex<VecDeque<C>>,
    /// Control turns whose effects have not left: they count against the control queue's bound.
    pub(super) control_unsettled: AtomicU32,
    pub(super) control_waiting: AtomicBool,
    pub(super) rung: AtomicBool,
    pub(super) dequeued: AtomicU64,
    /// Control messages handled so far. As `dequeued`, written by its host alone.
    pub(super) controls: AtomicU64,
    /// The turn that its actor is in, as one word; 0: in none. Written by its host alone.
    turn: AtomicU64,
    pub(super) thread: AtomicU32,
    pub(super) draining: AtomicBool,
    pub(super) stopped: AtomicBool,
    pub(super) ended: Notify,
}

impl<C> Shared<C> {
    pub(super) fn new(name: &'static str, messages: &'static [&'static str]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            name,
            messages,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            rooms: Mutex::default(),
            reserved: Arc::default(),
            leaving: Arc::default(),
            control: Mutex::default(),
            control_unsettled: AtomicU32::new(0),
            control_waiting: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            dequeued: AtomicU64::new(0),
            controls: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            thread: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// Makes room for `capacity` messages (clamped to what a semaphore can hold), closed if the mailbox is.
    pub(super) fn room(&self, capacity: usize) -> (Arc<Bound>, u32) {
        let capacity = u32::try_from(capacity.clamp(1, ROOM_MAX)).unwrap_or(1);
        let room = Arc::new(Bound::new(capacity));
        let mut rooms = unpoisoned(&self.rooms);
        rooms.retain(|(room, _)| room.strong_count() > 0);
        rooms.push((Arc::downgrade(&room), capacity));
        if self.draining.load(Ordering::SeqCst) {
            room.close();
        }
        (room, capacity)
    }

    /// Closes every room. False if that was done before.
    pub(super) fn close(&self) -> bool {
        let rooms = unpoisoned(&self.rooms);
        let first = !self.draining.swap(true, Ordering::SeqCst);
        rooms
            .iter()
            .filter_map(|(room, _)| room.upgrade())
            .for_each(|room| room.close());
        first
    }

    /// Messages under way: room that is taken, less what is only reserved.
    pub(super) fn under_way(&self) -> u32 {
        let (taken, _) = self.places();
        taken.saturating_sub(self.reserved.load(Ordering::SeqCst))
    }

    /// Places that are taken, and those there are, of all rooms together.
    fn places(&self) -> (u32, u32) {
        let rooms = unpoisoned(&self.rooms);
        let place = |(room, capacity): &(Weak<Bound>, u32)| {
            let free = u32::try_from(room.upgrade()?.free()).unwrap_or(u32::MAX);
            Some((capacity.saturating_sub(free), *capacity))
        };
        let add =
            |sum: (u32, u32), one: (u32, u32)| (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1));
        rooms.iter().filter_map(place).fold((0, 0), add)
    }

    /// A turn begins. One store: whoever looks sees the message and when it was enqueued, or that there is none.
    #[inline]
    pub(super) fn turn_begins(&self, enqueued: Tick, message: usize) {
        self.turn.store(turn_word(enqueued, message), Ordering::Relaxed);
    }

    /// It is over, however it ended.
    #[inline]
    pub(super) fn turn_ends(&self) {
        self.turn.store(0, Ordering::Relaxed);
    }

    /// The next control message.
    pub(super) fn pop_control(&self) -> Option<C> {
        unpoisoned(&self.control).pop_front()
    }

    /// Control messages that wait.
    pub(super) fn control_depth(&self) -> usize {
        unpoisoned(&self.control).len()
    }
}

impl<C: Send> Probe for Shared<C> {
    fn look(&self) -> Look {
        // Before the room: a message that is taken out meanwhile is then counted twice and not missed.
        let (dequeued, controls) = (
            self.dequeued.load(Ordering::Relaxed),
            self.controls.load(Ordering::Relaxed),
        );
        let (taken, capacity) = self.places();
        Look {
            id: self.id,
            actor: self.name,
            thread: self.thread.load(Ordering::Relaxed),
            depth: taken.saturating_sub(self.reserved.load(Ordering::Relaxed)),
            leaving: self.leaving.load(Ordering::Relaxed),
            taken,
            capacity,
            control_depth: u32::try_from(self.control_depth()).unwrap_or(u32::MAX),
            dequeued,
            controls,
            turn: turn_of(self.turn.load(Ordering::Relaxed), self.messages),
            stopped: self.stopped.load(Ordering::Acquire),
        }
    }
}

/// Marks the end of a mailbox when dropped: also when its host never came to life.
pub(super) struct Life<C>(pub(super) Arc<Shared<C>>);

impl<C> Drop for Life<C> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.close();
        let unread = std::mem::take(&mut *unpoisoned(&self.0.control));
        // Their replies, if they had any, are dropped with them: whoever waits is told.
        drop(catch_unwind(AssertUnwindSafe(|| drop(unread))));
        self.0.ended.notify_waiters();
    }
}

/// What a panic of another thread left behind a lock is still whole: every change under these locks is one step.
pub(super) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
