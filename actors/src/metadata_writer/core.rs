//! The projection of one thread: what is to be written of it, in which order, and who waits for that.
//!
//! Every accepted change gets the next *generation*. Changes lie in *segments*, in the order of their generations:
//! derived patches merge into the last segment, and an explicit mutation is a segment of its own, so that nothing
//! derived before it is written after it. At most one segment is in flight, always the first. A *barrier* waits until
//! its target, the generation at its entry, is resolved.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dwell_messages::TraceContext;

use crate::metadata_store::ThreadPatch;

/// How long a bare touch waits after the last write: nobody needs to know to the second when a thread was touched.
pub const TOUCH_INTERVAL: Duration = Duration::from_secs(5);
/// How long a derived patch waits for others, and appended items for others on their way to the log's thread, unless
/// somebody waits for them.
pub const GATHER: Duration = Duration::from_millis(3);

/// One update, to be written now. `finished` says what came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Flight {
    /// What to write.
    pub patch: ThreadPatch,
    /// The newest change that is in it.
    pub generation: u64,
    /// When the oldest change in it was accepted: the queue age counts from here.
    pub oldest: Instant,
    /// The trace of that change.
    pub context: TraceContext,
}

/// What to do now.
#[derive(Clone, PartialEq, Debug)]
pub enum Next {
    /// Write this.
    Start(Box<Flight>),
    /// Ask again then.
    WaitUntil(Instant),
    /// Nothing until something is accepted or finished.
    Idle,
}

/// A waiter, and what it is told.
#[derive(Clone, PartialEq, Debug)]
pub struct Release<W, E> {
    /// Who waits.
    pub waiter: W,
    /// How it ended for it.
    pub outcome: Result<(), E>,
}

struct Derived {
    patch: ThreadPatch,
    oldest: Instant,
    context: TraceContext,
    /// Since when there has been more in it than touches.
    factual: Option<Instant>,
}

enum Change<W> {
    Derived(Derived),
    Mutation {
        patch: ThreadPatch,
        since: Instant,
        context: TraceContext,
        waiter: W,
    },
}

struct Segment<W> {
    generation: u64,
    change: Change<W>,
}

/// See the module. `W` is whoever waits: a reply, in tests a number.
pub struct MetadataCore<W> {
    /// What is known since the thread was made or resumed, and does not make it exist.
    deferred: Option<Box<ThreadPatch>>,
    segments: VecDeque<Segment<W>>,
    in_flight: bool,
    /// The first segment has failed, and is tried again only when something new comes.
    parked: bool,
    /// The last change that was accepted, and the last that is written or given up.
    generation: u64,
    resolved: u64,
    waiters: VecDeque<(u64, W)>,
    written_at: Option<Instant>,
}

impl<W> MetadataCore<W> {
    /// Nothing to write but `deferred`, and that only with the first change.
    pub fn new(deferred: ThreadPatch) -> Self {
        Self {
            deferred: (!deferred.is_empty()).then(|| Box::new(deferred)),
            segments: VecDeque::new(),
            in_flight: false,
            parked: false,
            generation: 0,
            resolved: 0,
            waiters: VecDeque::new(),
            written_at: None,
        }
    }

    /// Whether everything accepted is written or given up.
    pub fn is_settled(&self) -> bool {
        self.resolved == self.generation
    }

    /// Whether a segment is being written.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// Accepts what history implies. Its generation.
    pub fn observe(&mut self, patch: ThreadPatch, context: TraceContext, now: Instant) -> u64 {
        self.generation += 1;
        self.parked = false;
        let deferred = self.deferred.take();
        let has_deferred = deferred.is_some();
        let patch = match deferred {
            Some(mut whole) => {
                whole.merge(patch);
                *whole
            }
            None => patch,
        };
        // Asked only where it makes a difference: an append is one among many, and a patch has many fields.
        let is_factual = |patch: &ThreadPatch| has_deferred || !patch.is_touch();
        let first_is_taken = self.in_flight && self.segments.len() == 1;
        if let Some(Segment {
            generation,
            change: Change::Derived(last),
        }) = self.segments.back_mut().filter(|_| !first_is_taken)
        {
            *generation = self.generation;
            if last.factual.is_none() && is_factual(&patch) {
                last.factual = Some(now);
            }
            last.patch.merge(patch);
            return self.generation;
        }
        let factual = is_factual(&patch).then_some(now);
        self.segments.push_back(Segment {
            generation: self.generation,
            change: Change::Derived(Derived {
                patch,
                oldest: now,
                context,
                factual,
            }),
        });
        self.generation
    }

    /// Makes what was deferred a change like any other, if there is something.
    pub fn materialise(&mut self, context: TraceContext, now: Instant) {
        if self.deferred.is_some() {
            self.observe(ThreadPatch::default(), context, now);
        }
    }

    /// Waits for everything accepted so far. `Some` gives the waiter back: there is nothing to wait for.
    #[must_use = "a waiter that comes back is told at once"]
    pub fn barrier(&mut self, waiter: W) -> Option<W> {
        if self.is_settled() {
            return Some(waiter);
        }
        self.parked = false;
        self.waiters.push_back((self.generation, waiter));
        None
    }

    /// Accepts an explicit change: written when everything before it is, and only then; before everything after it.
    pub fn mutate(&mut self, patch: ThreadPatch, context: TraceContext, now: Instant, waiter: W) {
        // It makes the thread exist, so what was known before goes first.
        self.materialise(context.clone(), now);
        self.generation += 1;
        self.parked = false;
        self.segments.push_back(Segment {
            generation: self.generation,
            change: Change::Mutation {
                patch,
                since: now,
                context,
                waiter,
            },
        });
    }

    /// What to do now. A flight that is handed out is in flight until `finished`.
    pub fn next(&mut self, now: Instant) -> Next {
        let urgent = !self.waiters.is_empty() || self.segments.len() > 1;
        let Some(first) = self.segments.front().filter(|_| !self.in_flight) else {
            return Next::Idle;
        };
        let (patch, oldest, context) = match &first.change {
            Change::Mutation {
                patch,
                since,
                context,
                ..
            } => (patch, *since, context),
            Change::Derived(derived) => {
                if self.parked {
                    return Next::Idle;
                }
                let due = self.due(derived);
                if !urgent && now < due {
                    return Next::WaitUntil(due);
                }
                (&derived.patch, derived.oldest, &derived.context)
            }
        };
        let flight = Flight {
            patch: patch.clone(),
            generation: first.generation,
            oldest,
            context: context.clone(),
        };
        self.in_flight = true;
        Next::Start(Box::new(flight))
    }

    fn due(&self, derived: &Derived) -> Instant {
        let gathered = derived.factual.unwrap_or(derived.oldest) + GATHER;
        match (derived.factual, self.written_at) {
            (None, Some(written)) => gathered.max(written + TOUCH_INTERVAL),
            (Some(_), _) | (None, None) => gathered,
        }
    }

    /// The segment in flight is written, or is not. Who is told what.
    #[must_use = "those released have to be told"]
    pub fn finished<E: Clone>(&mut self, outcome: Result<(), E>, now: Instant) -> Vec<Release<W, E>> {
        self.in_flight = false;
        let Some(Segment { generation, change }) = self.segments.pop_front() else {
            return Vec::new();
        };
        let mut released = Vec::new();
        match (change, outcome) {
            (Change::Derived(_), Ok(())) => self.resolve(generation, now, &mut released),
            (Change::Derived(derived), Err(error)) => {
                self.put_back(derived, generation, &error, &mut released);
            }
            // A failed mutation is its author's to repeat; those behind it do not wait for it.
            (Change::Mutation { waiter, .. }, outcome) => {
                released.push(Release { waiter, outcome });
                self.resolve(generation, now, &mut released);
            }
        }
        released
    }

    fn resolve<E>(&mut self, generation: u64, now: Instant, released: &mut Vec<Release<W, E>>) {
        self.resolved = generation;
        self.written_at = Some(now);
        while self
            .waiters
            .front()
            .is_some_and(|(target, _)| *target <= generation)
        {
            released.extend(self.waiters.pop_front().map(|(_, waiter)| Release {
                waiter,
                outcome: Ok(()),
            }));
        }
    }

    /// A failed patch stays the first, with what was derived after it merged in. Those who waited for no more than it
    /// are told; a mutation right behind it is one of them. Others wait for the next attempt.
    fn put_back<E: Clone>(
        &mut self,
        mut failed: Derived,
        mut generation: u64,
        error: &E,
        released: &mut Vec<Release<W, E>>,
    ) {
        let fail = |waiter| Release {
            waiter,
            outcome: Err(error.clone()),
        };
        while self
            .waiters
            .front()
            .is_some_and(|(target, _)| *target <= generation)
        {
            released.extend(self.waiters.pop_front().map(|(_, waiter)| fail(waiter)));
        }
        while let Some(segment) = self.segments.pop_front() {
            generation = segment.generation;
            match segment.change {
                Change::Mutation { waiter, .. } => released.push(fail(waiter)),
                Change::Derived(next) => {
                    failed.patch.merge(next.patch);
                    failed.factual = failed.factual.or(next.factual);
                    break;
                }
            }
        }
        self.segments.push_front(Segment {
            generation,
            change: Change::Derived(failed),
        });
        self.parked = self.waiters.is_empty() && self.segments.len() == 1;
    }

    /// Gives everything up: who waits is told why.
    #[must_use = "those released have to be told"]
    pub fn abandon<E: Clone>(&mut self, error: &E) -> Vec<Release<W, E>> {
        let mutations = self
            .segments
            .drain(..)
            .filter_map(|segment| match segment.change {
                Change::Mutation { waiter, .. } => Some(waiter),
                Change::Derived(_) => None,
            });
        let waiters = self.waiters.drain(..).map(|(_, waiter)| waiter);
        let released = mutations.chain(waiters).map(|waiter| Release {
            waiter,
            outcome: Err(error.clone()),
        });
        let released = released.collect();
        self.in_flight = false;
        self.resolved = self.generation;
        self.deferred = None;
        released
    }
}
