//! The one actix actor that hosts every actor of ours.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use actix::{ActorContext as _, AsyncContext as _};
use actix_rt::ArbiterHandle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::actor::{Actor, Message as _, Residence, Turn};
use super::delivery::{Delivery, Doorbell, DrainMark, StopNow};
use super::handle::{Mailbox, Shared};
use super::outbox::{Item, Outbox};
use super::supervise::{Failure, Intensity, reason};
use crate::telemetry::{ArbiterLocal, Record, Tick, nanos, span_id, template, thread_tag};

/// Deliveries after which a host lets its arbiter's timers and sockets run.
pub const TURNS_PER_SLICE: u32 = 64;
/// Time after which it does so, in nanoseconds.
const SLICE_MAX_NS: u64 = 200_000;
/// Every so many deliveries the time is looked at, where no record needs it anyway.
const CLOCK_EVERY: u32 = 8;

type Factory<A> = Box<dyn FnMut() -> A>;
type Escalate = Box<dyn FnOnce(Failure)>;

/// How an actor is hosted.
pub struct HostOptions {
    /// Messages its mailbox holds, those whose effects have not left included. At least 1.
    pub capacity: usize,
    /// Whether a panic is answered by a new state from the factory, within the bounded intensity.
    pub restart: bool,
    /// Told once when the actor is gone for good without having been asked to stop.
    pub escalate: Option<Box<dyn FnOnce(Failure) + Send>>,
}

impl fmt::Debug for HostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOptions")
            .field("capacity", &self.capacity)
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

impl HostOptions {
    /// A mailbox of `capacity`, not restarted, failures only logged.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            restart: false,
            escalate: None,
        }
    }

    /// Restarts the actor by its factory when it panics.
    #[must_use]
    pub fn restarting(mut self) -> Self {
        self.restart = true;
        self
    }

    /// Tells `escalate` when the actor is gone for good.
    #[must_use]
    pub fn escalating(mut self, escalate: impl FnOnce(Failure) + Send + 'static) -> Self {
        self.escalate = Some(Box::new(escalate));
        self
    }
}

/// Hosts one actor. Its state may be gone while its mailbox lives.
pub struct Host<A: Actor> {
    actor: Option<A>,
    factory: Factory<A>,
    restart: bool,
    escalate: Option<Escalate>,
    intensity: Intensity,
    mailbox: Mailbox<A>,
    outbox: Rc<Outbox>,
    held: RefCell<Vec<Box<dyn FnOnce()>>>,
    ring: Option<Rc<ArbiterLocal>>,
    template: u16,
    lifecycle: u64,
    turns: u32,
    slice_began: Tick,
}

impl<A: Actor> fmt::Debug for Host<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("actor", &A::NAME)
            .finish_non_exhaustive()
    }
}

/// Starts an actor on another arbiter's thread. The factory runs there.
pub fn start_on<A: Actor>(
    arbiter: &ArbiterHandle,
    options: HostOptions,
    factory: impl FnMut() -> A + Send + 'static,
) -> Mailbox<A> {
    let seed = Seed::new(A::NAME, options.capacity);
    let (room, shared) = (Arc::clone(&seed.room), Arc::clone(&seed.shared));
    let addr = <Host<A> as actix::Actor>::start_in_arbiter(arbiter, move |ctx| {
        Host::new(
            seed,
            options.restart,
            options.escalate.map(|f| f as Escalate),
            Box::new(factory),
            ctx.address(),
        )
    });
    Mailbox { addr, room, shared }
}

/// Starts an actor on this arbiter's thread.
///
/// # Panics
/// Outside an actix arbiter.
pub fn start_here<A: Actor>(options: HostOptions, factory: impl FnMut() -> A + 'static) -> Mailbox<A> {
    let seed = Seed::new(A::NAME, options.capacity);
    let (room, shared) = (Arc::clone(&seed.room), Arc::clone(&seed.shared));
    shared.thread.store(thread_tag().0, Ordering::Relaxed);
    let addr = <Host<A> as actix::Actor>::create(move |ctx| {
        Host::new(
            seed,
            options.restart,
            options.escalate.map(|f| f as Escalate),
            Box::new(factory),
            ctx.address(),
        )
    });
    Mailbox { addr, room, shared }
}

struct Seed<C> {
    room: Arc<Semaphore>,
    shared: Arc<Shared<C>>,
}

impl<C> Seed<C> {
    fn new(name: &'static str, capacity: usize) -> Self {
        let capacity = capacity.clamp(1, u32::MAX as usize >> 4);
        Self {
            room: Arc::new(Semaphore::new(capacity)),
            shared: Arc::new(Shared {
                name,
                capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
                control: Mutex::new(VecDeque::new()),
                control_waiting: AtomicBool::new(false),
                rung: AtomicBool::new(false),
                dequeued: AtomicU64::new(0),
                thread: AtomicU32::new(0),
                draining: AtomicBool::new(false),
                stopped: AtomicBool::new(false),
                ended: Notify::new(),
            }),
        }
    }
}

impl<A: Actor> Host<A> {
    fn new(
        seed: Seed<A::Control>,
        restart: bool,
        escalate: Option<Escalate>,
        factory: Factory<A>,
        addr: actix::Addr<Self>,
    ) -> Self {
        Self {
            actor: None,
            factory,
            restart,
            escalate,
            intensity: Intensity::default(),
            mailbox: Mailbox {
                addr,
                room: seed.room,
                shared: seed.shared,
            },
            outbox: Rc::default(),
            held: RefCell::default(),
            ring: ArbiterLocal::current(),
            template: template::intern(A::NAME, <A::Message as super::Message>::NAMES),
            lifecycle: u64::from_be_bytes(span_id().0),
            turns: 0,
            slice_began: Tick::now(),
        }
    }

    /// Runs `work` on the actor inside the unwind barrier. Says whether effects were queued.
    #[inline]
    fn turn(
        &mut self,
        context: Option<&dwell_messages::TraceContext>,
        residence: Residence,
        ctx: &mut actix::Context<Self>,
        permit: Option<OwnedSemaphorePermit>,
        work: impl FnOnce(&mut A, &mut Turn<'_, A>),
    ) {
        let Some(actor) = self.actor.as_mut() else { return };
        let mut turn = Turn {
            mailbox: &self.mailbox,
            outbox: &self.outbox,
            context,
            residence,
            held: &self.held,
            permit,
            queued: false,
            stop: false,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(actor, &mut turn)));
        let (queued, stop, permit) = (turn.queued, turn.stop, turn.permit);
        if let (true, Some(permit)) = (queued, permit) {
            self.outbox.push(Item::Release(permit));
        }
        if let Err(payload) = outcome {
            self.failed(&reason(payload.as_ref()), ctx);
        } else if stop {
            self.mailbox.begin_drain();
        }
    }

    /// A turn panicked: drop the state, then start anew or give up.
    #[cold]
    fn failed(&mut self, reason: &str, ctx: &mut actix::Context<Self>) {
        self.held.borrow_mut().clear();
        let state = self.actor.take();
        // A state broken by the panic may panic again in its drop, which would abort during the unwind.
        drop(catch_unwind(AssertUnwindSafe(|| drop(state))));
        let reason = reason.to_owned();
        let failure = if !self.restart {
            Failure::Panicked {
                actor: A::NAME,
                reason,
            }
        } else if !self.intensity.admit(Instant::now()) {
            Failure::TooManyRestarts {
                actor: A::NAME,
                reason,
            }
        } else {
            tracing::warn!(actor = A::NAME, %reason, "an actor panicked and was restarted");
            return self.begin_life(ctx);
        };
        self.give_up(failure, ctx);
    }

    fn begin_life(&mut self, ctx: &mut actix::Context<Self>) {
        match catch_unwind(AssertUnwindSafe(|| (self.factory)())) {
            Ok(actor) => {
                self.actor = Some(actor);
                let now = Tick::now();
                self.turn(
                    None,
                    Residence {
                        enqueued: now,
                        dequeued: now,
                    },
                    ctx,
                    None,
                    |actor, turn| actor.started(turn),
                );
            }
            Err(payload) => {
                let failure = Failure::Panicked {
                    actor: A::NAME,
                    reason: reason(payload.as_ref()),
                };
                self.give_up(failure, ctx);
            }
        }
    }

    #[cold]
    fn give_up(&mut self, failure: Failure, ctx: &mut actix::Context<Self>) {
        tracing::error!(actor = A::NAME, %failure, "an actor is gone");
        self.mailbox.room.close();
        if let Some(escalate) = self.escalate.take() {
            drop(catch_unwind(AssertUnwindSafe(|| escalate(failure))));
        }
        ctx.stop();
    }

    fn empty_control(&mut self, ctx: &mut actix::Context<Self>) {
        self.mailbox
            .shared
            .control_waiting
            .store(false, Ordering::Release);
        loop {
            let next = {
                let mut queue = self
                    .mailbox
                    .shared
                    .control
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                queue.pop_front()
            };
            let Some(control) = next else { return };
            let now = Tick::now();
            self.turn(
                None,
                Residence {
                    enqueued: now,
                    dequeued: now,
                },
                ctx, None, |actor, turn| {
                    actor.control(control, turn);
                },
            );
        }
    }

    /// Counts a turn against the slice and yields when it is used up: without this one busy mailbox starves every
    /// timer and socket of its arbiter.
    #[inline]
    fn budget(&mut self, residence: Residence, ctx: &mut actix::Context<Self>) {
        self.turns += 1;
        let over = self.turns >= TURNS_PER_SLICE
            || (self.turns.is_multiple_of(CLOCK_EVERY)
                && nanos(residence.dequeued.ticks_since(self.slice_began)) >= SLICE_MAX_NS);
        if over {
            self.turns = 0;
            self.slice_began = residence.dequeued;
            #[expect(
                clippy::disallowed_methods,
                reason = "the host's own yield: the only way out of the mailbox loop"
            )]
            ctx.wait(actix::fut::wrap_future(tokio::task::yield_now()));
        }
    }
}

impl<A: Actor> actix::Actor for Host<A> {
    type Context = actix::Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.mailbox
            .shared
            .thread
            .store(thread_tag().0, Ordering::Relaxed);
        self.begin_life(ctx);
    }
}

impl<A: Actor> Drop for Host<A> {
    fn drop(&mut self) {
        let state = self.actor.take();
        drop(catch_unwind(AssertUnwindSafe(|| drop(state))));
        self.mailbox.room.close();
        self.mailbox.shared.stopped.store(true, Ordering::Release);
        self.mailbox.shared.ended.notify_waiters();
    }
}

impl<A: Actor> actix::Handler<Delivery<A::Message>> for Host<A> {
    type Result = ();

    #[inline]
    fn handle(&mut self, delivery: Delivery<A::Message>, ctx: &mut Self::Context) {
        if self.mailbox.shared.control_waiting.load(Ordering::Acquire) {
            self.empty_control(ctx);
        }
        let Delivery {
            envelope,
            enqueued,
            permit,
            ask,
            depth,
        } = delivery;
        if ask.is_some_and(|ask| !ask.begin()) {
            return;
        }
        let count = &self.mailbox.shared.dequeued;
        // Only this thread writes it, so no read-modify-write is needed.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let residence = Residence {
            enqueued,
            dequeued: Tick::now(),
        };
        if enqueued >= self.slice_began && self.turns == 0 {
            self.slice_began = residence.dequeued;
        }
        if let Some(bulk) = envelope.body.bulk() {
            bulk.observe(residence);
            let context = envelope.context.clone();
            self.turn(Some(&context), residence, ctx, Some(permit), |actor, turn| actor.receive(envelope, turn));
            return self.budget(residence, ctx);
        }
        let record = envelope.context.is_sampled().then(|| {
            let template = self
                .template
                .saturating_add(u16::try_from(envelope.body.index()).unwrap_or(u16::MAX));
            Record {
                enqueued: enqueued.to_raw(),
                dequeued: residence.dequeued.to_raw(),
                depth,
                ..Record::new(&envelope.context, span_id().0, template, self.lifecycle)
            }
        });
        let context = envelope.context.clone();
        self.turn(Some(&context), residence, ctx, Some(permit), |actor, turn| actor.receive(envelope, turn));
        if let (Some(mut record), Some(ring)) = (record, self.ring.as_ref()) {
            let ticks = Tick::now().ticks_since(residence.dequeued);
            record.turn_ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
            ring.push(record);
        }
        if !self.held.borrow().is_empty() {
            let held = std::mem::take(&mut *self.held.borrow_mut());
            held.into_iter().for_each(|run| run());
        }
        self.budget(residence, ctx);
    }
}

impl<A: Actor> actix::Handler<Doorbell> for Host<A> {
    type Result = ();

    fn handle(&mut self, _: Doorbell, ctx: &mut Self::Context) {
        self.mailbox.shared.rung.store(false, Ordering::Release);
        self.empty_control(ctx);
    }
}

impl<A: Actor> actix::Handler<DrainMark> for Host<A> {
    type Result = ();

    fn handle(&mut self, _: DrainMark, ctx: &mut Self::Context) {
        self.empty_control(ctx);
        let now = Tick::now();
        self.turn(
            None,
            Residence {
                enqueued: now,
                dequeued: now,
            },
            ctx,
            None,
            |actor, turn| actor.drained(turn),
        );
        if self.outbox.is_empty() {
            return ctx.stop();
        }
        let addr = self.mailbox.addr.clone();
        self.outbox.push(Item::Run(Box::new(move || {
            #[expect(clippy::disallowed_methods, reason = "sent once in a host's life")]
            addr.do_send(StopNow);
        })));
    }
}

impl<A: Actor> actix::Handler<StopNow> for Host<A> {
    type Result = ();

    fn handle(&mut self, _: StopNow, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
