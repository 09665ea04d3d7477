//! The one actix actor that hosts every actor of ours.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix::{ActorContext as _, AsyncContext as _};
use dwell_messages::{Envelope, TraceContext};

use super::actor::{Actor, Message as _, Residence, Stamps, Turn};
use super::delivery::{Delivery, Doorbell, DrainMark, Permit, StopNow};
use super::handle::Mailbox;
use super::outbox::{Item, Outbox, contained};
use super::shared::{Life, Shared};
use super::start::Seed;
use super::supervise::{Failure, Intensity, reason};
use crate::fault_point::delay;
use crate::in_flight::{CONTROL_TURN, Probe};
use crate::telemetry::{ArbiterLocal, Record, Tick, nanos, span_id, template, thread_tag};

/// Deliveries after which a host lets its arbiter's timers and sockets run.
pub const TURNS_PER_SLICE: u32 = 64;
/// Time after which it does so, in nanoseconds.
const SLICE_MAX_NS: u64 = 200_000;
/// Every so many deliveries the time is looked at. Divides `TURNS_PER_SLICE`.
const CLOCK_EVERY: u32 = 16;
const _: () = assert!(TURNS_PER_SLICE.is_multiple_of(CLOCK_EVERY));
/// How often a drain looks whether a sender on another thread has put what it holds room for.
const DRAIN_LOOK: Duration = Duration::from_millis(1);
/// How often it looks at most: a sender is between the two for less than a microsecond, unless its thread is stopped.
const DRAIN_LOOKS_MAX: u32 = 1_000;

pub(super) type Factory<A> = Box<dyn FnMut() -> A>;
pub(super) type Escalate = Box<dyn FnOnce(Failure)>;

/// Hosts one actor. Its state may be gone while its mailbox lives.
pub struct Host<A: Actor> {
    actor: Option<A>,
    /// Nothing, once an actor that is not restarted has begun: what it was made of is not kept.
    factory: Option<Factory<A>>,
    restart: bool,
    escalate: Option<Escalate>,
    intensity: Intensity,
    mailbox: Mailbox<A>,
    outbox: Rc<Outbox>,
    held: Vec<Box<dyn FnOnce()>>,
    ring: Option<Rc<ArbiterLocal>>,
    /// Whether its ring remembers what is not sampled.
    flies: bool,
    template: u16,
    lifecycle: u64,
    turns: u32,
    slice_began: Tick,
    drain_looks: u32,
    _life: Life<A::Control>,
}

impl<A: Actor> fmt::Debug for Host<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("actor", &A::NAME)
            .finish_non_exhaustive()
    }
}

impl<A: Actor> Host<A> {
    pub(super) fn new(
        seed: Seed<A::Control>,
        restart: bool,
        escalate: Option<Escalate>,
        factory: Factory<A>,
        addr: Arc<actix::Addr<Self>>,
    ) -> Self {
        let ring = ArbiterLocal::current();
        if let Some(ring) = &ring {
            let shared: Weak<dyn Probe> = Arc::<Shared<A::Control>>::downgrade(&seed.shared);
            ring.board().watch(shared);
        }
        Self {
            actor: None,
            factory: Some(factory),
            restart,
            escalate,
            intensity: Intensity::default(),
            outbox: Rc::new(Outbox::new(
                Arc::clone(&seed.room),
                Arc::clone(&seed.shared.leaving),
            )),
            mailbox: Mailbox {
                addr,
                room: seed.room,
                capacity: seed.capacity,
                is_port: false,
                shared: seed.shared,
            },
            held: Vec::new(),
            flies: ring.as_ref().is_some_and(|ring| ring.flight().is_some()),
            ring,
            template: template::intern(A::NAME, <A::Message as super::Message>::NAMES),
            lifecycle: u64::from_be_bytes(span_id().0),
            turns: 0,
            slice_began: Tick::now(),
            drain_looks: 0,
            _life: seed.life,
        }
    }

    /// An index past the names it indexes must not land among another actor's.
    #[inline]
    fn template_of(&self, index: usize) -> u16 {
        if index < <A::Message as super::Message>::NAMES.len() {
            self.template
                .saturating_add(u16::try_from(index).unwrap_or(u16::MAX))
        } else {
            u16::MAX
        }
    }

    /// Runs `work` on the actor inside the unwind barrier. Says whether effects were queued.
    #[inline]
    fn turn(
        &mut self,
        (stamps, message): (Stamps, usize),
        ctx: &mut actix::Context<Self>,
        room: &mut Option<Permit>,
        work: impl FnOnce(&mut A, &mut Turn<'_, A>),
    ) -> bool {
        let Some(actor) = self.actor.as_mut() else {
            return false;
        };
        self.mailbox.shared.turn_begins(stamps.enqueued, message);
        let mut turn = Turn {
            mailbox: &self.mailbox,
            outbox: &self.outbox,
            stamps,
            held: &mut self.held,
            room,
            queued: false,
            stop: false,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(actor, &mut turn)));
        let (queued, stop) = (turn.queued, turn.stop);
        self.mailbox.shared.turn_ends();
        if let Err(payload) = outcome {
            self.failed(&reason(payload.as_ref()), ctx);
        } else if stop {
            self.mailbox.begin_drain();
        }
        queued
    }

    /// A turn panicked: drop the state, then start anew or give up.
    #[cold]
    fn failed(&mut self, reason: &str, ctx: &mut actix::Context<Self>) {
        let held = std::mem::take(&mut self.held);
        let state = self.actor.take();
        // A state broken by the panic may panic again in its drop, which would abort during the unwind.
        drop(catch_unwind(AssertUnwindSafe(|| drop(held))));
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
        let Some(mut factory) = self.factory.take() else {
            return;
        };
        let restart = self.restart;
        match catch_unwind(AssertUnwindSafe(move || (factory(), restart.then_some(factory)))) {
            Ok((actor, factory)) => {
                self.factory = factory;
                self.actor = Some(actor);
                self.plain_turn(ctx, |actor, turn| actor.started(turn));
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
        self.mailbox.shared.close();
        if let Some(escalate) = self.escalate.take() {
            drop(catch_unwind(AssertUnwindSafe(|| escalate(failure))));
        }
        ctx.stop();
    }

    /// Gives a delivery's room back when its effects have left, unless the turn took it.
    #[inline]
    fn settle(&mut self, queued: bool, room: Option<Permit>) {
        match (queued, room) {
            (true, Some(permit)) => self.outbox.push(Item::Release(permit)),
            (false, Some(permit)) => permit.release(&self.mailbox.room),
            (_, None) => {}
        }
    }

    /// Leaves the record of a delivery whose turn has just ended.
    #[inline]
    fn record(&self, context: &TraceContext, template: u16, enqueued: Tick, dequeued: Tick, depth: u16) {
        let Some(ring) = self.ring.as_ref() else { return };
        let turn_ticks = Tick::now().ticks_since(dequeued);
        let record = Record {
            enqueued: enqueued.to_raw(),
            dequeued: dequeued.to_raw(),
            turn_ticks: u32::try_from(turn_ticks).unwrap_or(u32::MAX),
            ..Record::new(context, span_id().0, template, self.lifecycle).with_depth(depth)
        };
        match ring.flight() {
            Some(flight) if !context.is_sampled() => flight.push(&record),
            Some(_) | None => ring.push(record),
        }
    }

    /// Whether a delivery of an unsampled call is remembered for a while. What belongs to no call has no trace.
    #[inline]
    fn is_remembered(&self, context: &TraceContext) -> bool {
        self.flies && context.trace_id.0 != [0; 16]
    }

    /// A turn without a delivery. Says whether effects were queued.
    fn plain_turn(
        &mut self,
        ctx: &mut actix::Context<Self>,
        work: impl FnOnce(&mut A, &mut Turn<'_, A>),
    ) -> bool {
        let now = Tick::now();
        let residence = Residence {
            enqueued: now,
            dequeued: now,
        };
        let queued = self.turn((residence.into(), CONTROL_TURN), ctx, &mut None, work);
        self.run_held();
        queued
    }

    #[inline]
    fn run_held(&mut self) {
        if !self.held.is_empty() {
            std::mem::take(&mut self.held).into_iter().for_each(contained);
        }
    }

    /// Handles the control messages that wait now. Those that their own turns add have a doorbell under way.
    #[cold]
    fn empty_control(&mut self, ctx: &mut actix::Context<Self>) {
        let shared = Arc::clone(&self.mailbox.shared);
        shared.control_waiting.store(false, Ordering::Release);
        for _ in 0..shared.control_depth() {
            let Some(control) = shared.pop_control() else {
                return;
            };
            let queued = self.plain_turn(ctx, |actor, turn| actor.control(control, turn));
            let handled = shared.controls.load(Ordering::Relaxed) + 1;
            shared.controls.store(handled, Ordering::Relaxed);
            if queued {
                // No permit bounds these effects, so they keep their place in the control queue until they have left.
                shared.control_unsettled.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&shared);
                self.outbox.push(Item::Run(Box::new(move || {
                    shared.control_unsettled.fetch_sub(1, Ordering::Relaxed);
                })));
            }
        }
    }

    /// Counts a turn against the slice and yields when it is used up: without this one busy mailbox starves every
    /// timer and socket of its arbiter.
    #[inline]
    fn budget(&mut self, ctx: &mut actix::Context<Self>) {
        self.turns += 1;
        if self.turns.is_multiple_of(CLOCK_EVERY) {
            self.look_at_slice(ctx);
        }
    }

    #[inline(never)]
    fn look_at_slice(&mut self, ctx: &mut actix::Context<Self>) {
        let now = Tick::now();
        if self.turns < TURNS_PER_SLICE && nanos(now.ticks_since(self.slice_began)) < SLICE_MAX_NS {
            return;
        }
        self.turns = 0;
        self.slice_began = now;
        let shared = &self.mailbox.shared;
        let more =
            shared.under_way() > self.outbox.permits() || shared.control_waiting.load(Ordering::Acquire);
        // With nothing left to handle, actix leaves its loop by itself.
        if more {
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
    }
}

impl<A: Actor> actix::Handler<Delivery<A::Message>> for Host<A> {
    type Result = ();

    #[inline]
    fn handle(&mut self, mut delivery: Delivery<A::Message>, ctx: &mut Self::Context) {
        if self.mailbox.shared.control_waiting.load(Ordering::Acquire) {
            self.empty_control(ctx);
        }
        if delivery.ask.as_ref().is_some_and(|ask| !ask.begin()) {
            self.settle(false, Some(delivery.permit));
            return self.budget(ctx);
        }
        let Some(body) = delivery.body.as_ref() else {
            return self.settle(false, Some(delivery.permit));
        };
        delay::in_mailbox::<A>(body);
        let count = &self.mailbox.shared.dequeued;
        // Only this thread writes it, so no read-modify-write is needed.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let enqueued = delivery.enqueued;
        let index = body.index();
        // Only a turn that leaves something behind pays for the clock.
        let (mut dequeued, mut template) = (None, None);
        if let Some(bulk) = body.bulk() {
            let now = *dequeued.insert(Tick::now());
            bulk.observe(Residence {
                enqueued,
                dequeued: now,
            });
        } else if delivery.context.is_sampled() || self.is_remembered(&delivery.context) {
            template = Some(self.template_of(index));
            dequeued = Some(Tick::now());
        }
        let stamps = Stamps {
            enqueued,
            dequeued: Cell::new(dequeued),
        };
        let (context, body) = (&delivery.context, &mut delivery.body);
        let mut room = Some(delivery.permit);
        let queued = self.turn((stamps, index), ctx, &mut room, |actor, turn| {
            if let Some(body) = body.take() {
                actor.receive(Envelope::new(context.clone(), body), turn);
            }
        });
        if let (Some(template), Some(dequeued)) = (template, dequeued) {
            self.record(context, template, enqueued, dequeued, delivery.depth);
        }
        self.settle(queued, room);
        self.run_held();
        self.budget(ctx);
    }
}

impl<A: Actor> actix::Handler<Doorbell> for Host<A> {
    type Result = ();

    fn handle(&mut self, _: Doorbell, ctx: &mut Self::Context) {
        self.mailbox.shared.rung.store(false, Ordering::Release);
        self.empty_control(ctx);
        self.budget(ctx);
    }
}

impl<A: Actor> actix::Handler<DrainMark> for Host<A> {
    type Result = ();

    fn handle(&mut self, _: DrainMark, ctx: &mut Self::Context) {
        // A sender on another thread may hold room that it took before the rooms closed: its message comes behind us.
        let under_way = self.mailbox.shared.under_way() > self.outbox.permits();
        if under_way && self.drain_looks < DRAIN_LOOKS_MAX {
            self.drain_looks += 1;
            let addr = Arc::clone(&self.mailbox.addr);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(DRAIN_LOOK).await;
                #[expect(
                    clippy::disallowed_methods,
                    reason = "one mark at a time, a bounded number of times"
                )]
                addr.do_send(DrainMark);
            });
            return;
        }
        self.empty_control(ctx);
        self.plain_turn(ctx, |actor, turn| actor.drained(turn));
        if self.outbox.is_empty() {
            return ctx.stop();
        }
        let addr = Arc::clone(&self.mailbox.addr);
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
