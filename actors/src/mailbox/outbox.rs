//! A host's outbox: effects of turns in order, and one pump that waits where a turn must not.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dwell_messages::Envelope;

use super::actor::Actor;
use super::bound::Bound;
use super::delivery::Permit;
use super::handle::Mailbox;

type Waiting = Pin<Box<dyn Future<Output = ()>>>;

/// What the pump does next.
pub(super) enum Item {
    /// A message to a mailbox that had no room.
    Send(Box<dyn Effect>),
    /// A turn whose effects have all left: its delivery's room is free again.
    Release(Permit),
    /// Whatever had to wait for all effects before it.
    Run(Box<dyn FnOnce()>),
}

/// A send that has to wait.
pub(super) trait Effect {
    fn deliver(self: Box<Self>) -> Waiting;
}

pub(super) struct Tell<B: Actor> {
    pub(super) mailbox: Mailbox<B>,
    pub(super) envelope: Envelope<B::Message>,
}

impl<B: Actor> Effect for Tell<B> {
    fn deliver(self: Box<Self>) -> Waiting {
        Box::pin(async move {
            if let Err(stopped) = self.mailbox.tell(self.envelope).await {
                // Its reply, if it had one, is dropped with it: whoever waits is told.
                // A panic in that must not end the pump, which serves all turns of this actor.
                drop(catch_unwind(AssertUnwindSafe(|| drop(stopped))));
            }
        })
    }
}

/// Bounded by the mailbox: every item belongs to a delivery whose permit is still held.
pub(super) struct Outbox {
    room: Arc<Bound>,
    queue: RefCell<VecDeque<Item>>,
    pumping: Cell<bool>,
    permits: Cell<u32>,
    /// The same for whoever looks from another thread.
    leaving: Arc<AtomicU32>,
}

impl Outbox {
    /// An empty one; `room` is the mailbox's own, and `leaving` says how many deliveries wait for it.
    pub(super) fn new(room: Arc<Bound>, leaving: Arc<AtomicU32>) -> Self {
        Self {
            room,
            queue: RefCell::default(),
            pumping: Cell::new(false),
            permits: Cell::new(0),
            leaving,
        }
    }

    /// Whether nothing waits: only then may a turn send past the outbox.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.pumping.get()
    }

    /// Deliveries whose turn is over and whose effects have not left.
    pub(super) fn permits(&self) -> u32 {
        self.permits.get()
    }

    /// Queues an item behind all others and makes sure the pump runs.
    pub(super) fn push(self: &Rc<Self>, item: Item) {
        if matches!(item, Item::Release(_)) {
            self.set_permits(self.permits.get() + 1);
        }
        self.queue.borrow_mut().push_back(item);
        if !self.pumping.replace(true) {
            let outbox = Rc::clone(self);
            tokio::task::spawn_local(async move { outbox.pump().await });
        }
    }

    fn set_permits(&self, permits: u32) {
        self.permits.set(permits);
        self.leaving.store(permits, Ordering::Relaxed);
    }

    async fn pump(&self) {
        loop {
            let Some(item) = self.queue.borrow_mut().pop_front() else {
                break;
            };
            match item {
                Item::Send(effect) => effect.deliver().await,
                Item::Release(permit) => {
                    permit.release(&self.room);
                    self.set_permits(self.permits.get() - 1);
                }
                Item::Run(run) => contained(run),
            }
        }
        self.pumping.set(false);
    }
}

/// Runs an actor's closure outside its turn: a panic in it is reported, and ends neither pump nor host.
pub(super) fn contained(run: Box<dyn FnOnce()>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        let reason = super::supervise::reason(payload.as_ref());
        tracing::error!(%reason, "an actor's deferred work panicked");
    }
}
