//! `MetadataWriter`: one live thread's history on its way to the disk, and its metadata behind it.
//!
//! Owns what is to be written of the thread's record (`core`) and what its history implies (`observer`). Never touches the
//! disk: history goes to the thread of the event logs, which hands each update on to the store's thread when the
//! history before it is on the disk; both are behind bounded channels. Mailbox full: appends wait for room. Stop: only
//! by `shutdown`, `discard` or the end of its handle; each gives the thread's lease back. Who sends: the thread's handle,
//! and the two threads, into rooms reserved ahead. Not restarted: after a panic the handle's calls say so, and the
//! history is as complete as it was handed over.

mod core;
mod gather;
mod observer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use dwell_messages::{Envelope, TraceContext};

pub use self::core::{Flight, GATHER, MetadataCore, Next, Release, TOUCH_INTERVAL};
use self::gather::Gather;
pub use self::gather::{APPENDS_GATHERED_MAX, GATHERED_MAX_BYTES};
pub use self::observer::{Observer, PREVIEW_MAX_BYTES};
use crate::event_log::worker::{Appending, LogJob, LogKey};
use crate::fault_point::{FaultPoint, reach};
use crate::feed::{FEED_RETRY, Fed, Feed};
use crate::mailbox::{Actor, Mailbox, Message, Reply, Room, TimerGuard, Turn};
use crate::metadata_store::worker::{Done, Update};
use crate::metadata_store::{Holder, ThreadId, ThreadPatch};
use crate::telemetry::{Collector, Stage, Tick, semconv, span_id};
use crate::threads::ThreadError;

/// Appends, barriers and mutations of one thread that may wait.
pub const METADATA_MAILBOX_MAX: usize = 256;
/// Answers of the two threads: one that is handled, one update under way, and one close.
const ANSWERS_MAX: usize = 3;

type Answer = Result<(), ThreadError>;

/// What it is told.
pub(crate) enum MetadataMessage {
    /// Items were appended; with a reply, a barrier right behind them.
    Append(Appended, Option<Reply<Answer>>),
    /// Answer when everything before this is kept. `materialise`: also if nothing has been appended yet.
    Barrier { materialise: bool, reply: Reply<Answer> },
    /// Change the record explicitly, behind everything before this.
    Mutate(Box<ThreadPatch>, Reply<Answer>),
    /// A barrier, then the end.
    Shutdown(Reply<Answer>),
    /// The end, when what is under way is over.
    Discard(Reply<Answer>),
    /// The update under way is over.
    Updated(Answer),
    /// The lease is given back, or is not.
    Released(Answer),
}

/// What was appended.
pub(crate) struct Appended {
    pub(crate) appending: Box<Appending>,
    /// What the caller says besides.
    pub(crate) patch: Option<Box<ThreadPatch>>,
}

/// What it is told urgently.
pub(crate) enum MetadataControl {
    /// Look again: the channel may have room, or a patch has waited long enough.
    Wake,
    /// The thread's handle is gone: end in order.
    Abandoned,
}

impl Message for MetadataMessage {
    const NAMES: &'static [&'static str] = &[
        "Append", "Barrier", "Mutate", "Shutdown", "Discard", "Updated", "Released",
    ];

    fn index(&self) -> usize {
        match self {
            Self::Append(..) => 0,
            Self::Barrier { .. } => 1,
            Self::Mutate(..) => 2,
            Self::Shutdown(_) => 3,
            Self::Discard(_) => 4,
            Self::Updated(_) => 5,
            Self::Released(_) => 6,
        }
    }
}

/// What a live thread is made of.
pub(crate) struct Live {
    pub(crate) id: ThreadId,
    pub(crate) log: LogKey,
    /// Items that the log has.
    pub(crate) items: u64,
    pub(crate) holder: Holder,
    pub(crate) deferred: ThreadPatch,
    pub(crate) observer: Observer,
    pub(crate) jobs: std::sync::mpsc::SyncSender<LogJob>,
    pub(crate) collector: Collector,
    /// Set by the handle when it asks for the end, and taken back here when the end fails: the handle's call may be gone by
    /// then.
    pub(crate) closing: Arc<AtomicBool>,
    /// Its place among the live threads.
    pub(crate) _seat: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// Who waits for something; it keeps its room in the mailbox, which bounds those that wait.
pub(crate) struct Waiter {
    reply: Option<Reply<Answer>>,
    _room: Option<Room>,
    purpose: Purpose,
    context: TraceContext,
    since: Tick,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Barrier,
    Mutation,
    /// The thread ends when this is over.
    End,
}

/// How far its end is.
enum Ending {
    Open,
    /// Waits for what is in flight, and for nothing else.
    Discarding(Vec<Waiter>),
    /// The lease is being given back. After a discard it is over in any case.
    Closing {
        waiters: Vec<Waiter>,
        discarded: bool,
    },
    Closed,
}

/// See the module.
pub(crate) struct MetadataWriter {
    core: MetadataCore<Waiter>,
    live: Live,
    gather: Gather,
    feed: Feed<LogJob>,
    answers: Option<Mailbox<Self>>,
    ending: Ending,
    /// Nobody has the handle any more: what fails is given up.
    abandoned: bool,
    /// The end that follows from that has begun.
    ends: bool,
    /// The next update makes the log's file even if it has no items.
    materialise: bool,
    wake: Option<(Instant, TimerGuard)>,
}

impl MetadataWriter {
    /// `open` gives the log to its thread, before anything else goes there.
    pub(crate) fn new(live: Live, open: LogJob) -> Self {
        let mut feed = Feed::new(live.jobs.clone());
        feed.queue(open, None);
        Self {
            core: MetadataCore::new(live.deferred.clone()),
            gather: Gather::new(live.log, live.items),
            feed,
            live,
            answers: None,
            ending: Ending::Open,
            abandoned: false,
            ends: false,
            materialise: false,
            wake: None,
        }
    }

    fn append(
        &mut self,
        appended: Appended,
        reply: Option<Reply<Answer>>,
        at: Instant,
        turn: &mut Turn<'_, Self>,
    ) {
        let began = Tick::now();
        let Appended { appending, patch } = appended;
        let inside = appending.trace.inside();
        let called = appending.trace.called;
        let observed = inside.child(span_id());
        let mut derived = self.live.observer.observe(&appending.items);
        if let Some(patch) = patch {
            derived.merge(patch.cleaned());
        }
        let kept = if reply.is_some() {
            turn.take_room()
        } else {
            self.gather.keep_room(turn);
            None
        };
        if let Some(large) = self.gather.add(appending) {
            let (before, room) = self.gather.take();
            if let Some(before) = before {
                self.feed.queue(before, None);
            }
            self.feed.queue(LogJob::Append(self.live.log, large), room);
        }
        reach(FaultPoint::Accepted);
        self.core.observe(derived, observed.clone(), at);
        if inside.is_sampled() {
            self.live.collector.stage(Stage::with_id(
                &inside,
                observed.span_id,
                semconv::span::METADATA_OBSERVE,
                began,
                Tick::now(),
            ));
        }
        if let Some(reply) = reply {
            self.wait(Waiter {
                reply: Some(reply),
                _room: kept,
                purpose: Purpose::Barrier,
                context: inside,
                since: called,
            });
        }
    }

    /// Puts a job behind everything that was appended.
    fn queue(&mut self, job: LogJob) {
        self.hand_on();
        self.feed.queue(job, None);
    }

    fn hand_on(&mut self) {
        if let (Some(gathered), room) = self.gather.take() {
            self.feed.queue(gathered, room);
        }
    }

    fn wait(&mut self, waiter: Waiter) {
        if let Some(waiter) = self.core.barrier(waiter) {
            self.tell(waiter, Ok(()));
        }
    }

    /// Tells a waiter. One that wants the end sees it begin, if what it waited for is kept.
    fn tell(&mut self, waiter: Waiter, outcome: Answer) {
        match (waiter.purpose, &outcome) {
            (Purpose::End, Ok(())) if !matches!(self.ending, Ending::Closed) => {
                self.close(vec![waiter], false)
            }
            (Purpose::End, Err(_)) if self.abandoned => self.close(vec![waiter], true),
            (Purpose::End | Purpose::Barrier | Purpose::Mutation, _) => {
                if waiter.purpose == Purpose::End && outcome.is_err() {
                    self.live.closing.store(false, Ordering::Release);
                }
                waiter.answer(outcome, &self.live.collector);
            }
        }
    }

    fn tell_all(&mut self, released: Vec<Release<Waiter, ThreadError>>) {
        for Release { waiter, outcome } in released {
            self.tell(waiter, outcome);
        }
    }

    /// Gives the lease back, behind everything that was appended.
    fn close(&mut self, waiters: Vec<Waiter>, discarded: bool) {
        if let Ending::Closing { waiters: others, .. } = &mut self.ending {
            others.extend(waiters);
            return;
        }
        self.ending = Ending::Closing { waiters, discarded };
        if discarded {
            self.give_up();
        }
        if let Some(done) = self.done(TraceContext::default(), MetadataMessage::Released) {
            let job = LogJob::Close {
                log: self.live.log,
                id: self.live.id,
                holder: self.live.holder.clone(),
                sync: !discarded,
                done,
            };
            self.queue(job);
        }
    }

    /// Nothing more is written: who waits for it is told. Only when there is no way back, for what is not written yet is
    /// dropped here.
    fn give_up(&mut self) {
        for Release { waiter, outcome } in self.core.abandon(&ThreadError::Closed) {
            waiter.answer(outcome, &self.live.collector);
        }
    }

    /// Where one of the two threads answers: room for it is reserved before it is asked.
    fn done(&self, context: TraceContext, message: fn(Answer) -> MetadataMessage) -> Option<Done> {
        let slot = self.answers.as_ref()?.try_reserve()?;
        Some(Done::new(move |outcome| {
            slot.send(Envelope::new(context, message(outcome)));
        }))
    }

    fn released(&mut self, outcome: Answer, turn: &mut Turn<'_, Self>) {
        let Ending::Closing { waiters, discarded } = std::mem::replace(&mut self.ending, Ending::Open) else {
            return;
        };
        let over = outcome.is_ok() || discarded || self.abandoned;
        let told = if discarded { Ok(()) } else { outcome };
        if over {
            self.ending = Ending::Closed;
            self.give_up();
            self.queue(LogJob::Forget(self.live.log));
            turn.stop();
        } else {
            self.live.closing.store(false, Ordering::Release);
        }
        for waiter in waiters {
            waiter.answer(told.clone(), &self.live.collector);
        }
    }

    /// Does what there is to do now, and sees to it that somebody comes back for the rest.
    fn drive(&mut self, turn: &Turn<'_, Self>) {
        if self.abandoned {
            self.abandon(turn);
        }
        if matches!(self.ending, Ending::Discarding(_))
            && !self.core.is_in_flight()
            && let Ending::Discarding(waiters) = std::mem::replace(&mut self.ending, Ending::Open)
        {
            self.close(waiters, true);
        }
        let mut wake = None;
        if self.abandoned && !self.ends && matches!(self.ending, Ending::Open) {
            // What is under way may be withdrawn, of which nobody tells.
            wake = Some(now() + GATHER);
        }
        if matches!(self.ending, Ending::Open) {
            match self.core.next(now()) {
                Next::Start(flight) => self.start(*flight),
                Next::WaitUntil(due) => wake = Some(wake.map_or(due, |wake: Instant| wake.min(due))),
                Next::Idle => {}
            }
        }
        self.hand_on();
        match self.feed.push() {
            Fed::All => {}
            Fed::Full => wake = Some(now() + FEED_RETRY),
            Fed::Gone(jobs) => {
                tracing::error!("the thread of the event logs is gone");
                drop(jobs);
            }
        }
        self.wake_at(wake, turn);
    }

    fn wake_at(&mut self, due: Option<Instant>, turn: &Turn<'_, Self>) {
        let Some(due) = due else { return };
        if self.wake.as_ref().is_none_or(|(set, _)| due < *set) {
            let guard = turn.timer(due.saturating_duration_since(now()), MetadataControl::Wake);
            self.wake = Some((due, guard));
        }
    }

    fn start(&mut self, flight: Flight) {
        let Some(done) = self.done(flight.context.clone(), MetadataMessage::Updated) else {
            // There is room for all that can be under way; if there were none, the flight has failed.
            let released = self.core.finished(Err(ThreadError::WorkerFailed), now());
            return self.tell_all(released);
        };
        let update = Update {
            id: self.live.id,
            holder: self.live.holder.clone(),
            patch: flight.patch,
            context: flight.context,
            oldest: Tick::from_instant(flight.oldest),
            done,
        };
        let job = LogJob::Update {
            log: self.live.log,
            update: Box::new(update),
            materialise: std::mem::take(&mut self.materialise),
        };
        self.queue(job);
    }

    /// A waiter of this turn's message, or `None`, told that the thread is closed.
    fn waiter(
        &self,
        reply: Reply<Answer>,
        purpose: Purpose,
        context: TraceContext,
        turn: &mut Turn<'_, Self>,
    ) -> Option<Waiter> {
        let waiter = Waiter {
            reply: Some(reply),
            _room: turn.take_room(),
            purpose,
            context,
            since: turn.residence().enqueued,
        };
        if matches!(self.ending, Ending::Open) {
            return Some(waiter);
        }
        waiter.answer(Err(ThreadError::Closed), &self.live.collector);
        None
    }

    fn discard(&mut self, waiter: Waiter) {
        self.ending = Ending::Discarding(vec![waiter]);
    }

    /// Ends like a shutdown of which nobody hears, once the last of what was accepted is handled: that the handle is gone
    /// was told past it.
    fn abandon(&mut self, turn: &Turn<'_, Self>) {
        if matches!(self.ending, Ending::Open) && turn.is_last() && !std::mem::replace(&mut self.ends, true) {
            self.wait(Waiter {
                reply: None,
                _room: None,
                purpose: Purpose::End,
                context: TraceContext::default(),
                since: Tick::now(),
            });
        }
    }
}

impl Waiter {
    fn answer(self, outcome: Answer, collector: &Collector) {
        if self.context.is_sampled() {
            let name = match self.purpose {
                Purpose::Barrier | Purpose::End => semconv::span::THREAD_BARRIER,
                Purpose::Mutation => semconv::span::THREAD_MUTATION,
            };
            let kind = outcome.as_ref().err().map(ThreadError::kind);
            collector.stage(Stage::new(&self.context, name, self.since, Tick::now()).failed(kind));
        }
        if let Some(reply) = self.reply {
            reply.send(outcome);
        }
    }
}

/// The clock of the timers, which tests may pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Actor for MetadataWriter {
    const NAME: &'static str = "MetadataWriter";
    type Message = MetadataMessage;
    type Control = MetadataControl;

    fn started(&mut self, turn: &mut Turn<'_, Self>) {
        self.answers = Some(turn.mailbox().port(ANSWERS_MAX));
        self.drive(turn);
    }

    fn receive(&mut self, envelope: Envelope<MetadataMessage>, turn: &mut Turn<'_, Self>) {
        let Envelope { context, body } = envelope;
        match body {
            MetadataMessage::Append(appended, reply) => {
                let is_awaited = reply.is_some();
                let at = now();
                self.append(appended, reply, at, turn);
                if !is_awaited && self.feed.waiting() == 0 && !self.gather.is_full() {
                    // Handed on together with what comes behind it, which wakes the log's thread once: nobody waits for it.
                    return self.wake_at(Some(at + GATHER), turn);
                }
            }
            MetadataMessage::Barrier { materialise, reply } => {
                if let Some(waiter) = self.waiter(reply, Purpose::Barrier, context.clone(), turn) {
                    if materialise {
                        self.materialise = true;
                        self.core.materialise(context, now());
                    }
                    self.wait(waiter);
                }
            }
            MetadataMessage::Mutate(patch, reply) => {
                if let Some(waiter) = self.waiter(reply, Purpose::Mutation, context.clone(), turn) {
                    self.core.mutate(patch.cleaned(), context, now(), waiter);
                }
            }
            MetadataMessage::Shutdown(reply) => {
                if let Some(waiter) = self.waiter(reply, Purpose::End, context, turn) {
                    self.wait(waiter);
                }
            }
            MetadataMessage::Discard(reply) => {
                if let Some(waiter) = self.waiter(reply, Purpose::End, context, turn) {
                    self.discard(waiter);
                }
            }
            MetadataMessage::Updated(outcome) => {
                let released = self.core.finished(outcome, now());
                self.tell_all(released);
            }
            MetadataMessage::Released(outcome) => self.released(outcome, turn),
        }
        self.drive(turn);
    }

    fn control(&mut self, control: MetadataControl, turn: &mut Turn<'_, Self>) {
        match control {
            MetadataControl::Wake => self.wake = None,
            MetadataControl::Abandoned => self.abandoned = true,
        }
        self.drive(turn);
    }
}

impl Drop for MetadataWriter {
    fn drop(&mut self) {
        self.hand_on();
        if self.feed.waiting() > 0 || !matches!(self.ending, Ending::Closed) {
            // A panic, or the end of the arbiter: what was accepted is kept, and the lease is given back, if there is room.
            drop(self.feed.push());
            let job = LogJob::Drop {
                log: self.live.log,
                id: self.live.id,
                holder: self.live.holder.clone(),
            };
            drop(self.live.jobs.try_send(job));
        }
    }
}
