//! The thread on which everything that blocks in starting a process happens.
//!
//! One thread is enough: two start 1.35 times as many processes, and the children run on the same cores. Its queue is
//! bounded; when it is full the request comes back. Its last duty is to reap what others dropped.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::SpawnError;
use super::graveyard::{Graveyard, SWEEP_INTERVAL};
use super::request::SpawnRequest;
use super::start::{Spawned, start};
use crate::confine::Confiner;
use crate::fault_point::delay::{self, DelayPoint};
use crate::guard::{ExecutorDeath, GuardClient, GuardOptions, GuardProblem};

/// How many requests wait for the thread: a quarter of a second's work for it.
pub const SPAWN_QUEUE_MAX_REQUESTS: usize = 256;

/// How often the guard is started anew within [`GUARD_RESTART_WINDOW`]; after that commands are started without it.
pub const GUARD_RESTARTS_MAX: usize = 5;

/// See [`GUARD_RESTARTS_MAX`].
pub const GUARD_RESTART_WINDOW: Duration = Duration::from_secs(10);

/// Who is told what came of a request. Runs on the spawner's thread, so it must not block: it passes the outcome on.
pub type Reply = Box<dyn FnOnce(SpawnOutcome) + Send>;

/// What came of a request, and when.
#[derive(Debug)]
pub struct SpawnOutcome {
    /// When the request was submitted.
    pub submitted: Instant,
    /// When the thread took it up.
    pub started: Instant,
    /// When the process ran or the failure was known.
    pub ended: Instant,
    /// The process, or why there is none.
    pub result: Result<Spawned, SpawnError>,
}

/// The handle to the thread. Shared by reference or in an `Arc` between all arbiters.
///
/// Dropping it waits for the requests that are queued, each of which is answered, and then ends the guard and with it
/// every command that is not detached. Without a guard those left over kill and reap themselves when they are dropped,
/// waiting up to 100 ms each.
#[derive(Debug)]
pub struct Spawner {
    jobs: SyncSender<Job>,
    state: Arc<Mutex<GuardState>>,
    confiner: Arc<Mutex<Option<Confiner>>>,
    /// Set when the last handle went away on the thread itself, which then cannot be sent a `Stop`.
    is_orphaned: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Whether there is a guard, and what it can promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardState {
    /// It is being started; requests wait for that.
    Starting,
    /// It runs, and this ends its commands when the executor dies.
    Running(ExecutorDeath),
    /// There is none, and nothing ends commands when the executor dies. Says why and what to do.
    Absent(String),
}

/// A request that was not taken, given back whole.
#[derive(thiserror::Error)]
#[error("{reason}")]
pub struct Rejected {
    /// The request.
    pub request: SpawnRequest,
    /// Its reply, which has not run.
    pub reply: Reply,
    /// Why it was not taken.
    pub reason: RejectedReason,
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RejectedReason {
    /// The queue is full.
    #[error("{limit} commands are waiting to be started, which is the limit: try again when one has")]
    Full {
        /// How many may wait.
        limit: usize,
    },
    /// The thread is gone.
    #[error("the spawner has stopped: start another")]
    Stopped,
}

/// What the thread is sent.
pub(super) enum Job {
    /// Start this, boxed so that the empty places of the queue stay small.
    Start(Box<Start>),
    /// A killed process waits to be reaped.
    Sweep,
    /// No request follows.
    Stop,
}

/// One queued request.
pub(super) struct Start {
    request: SpawnRequest,
    reply: Reply,
    submitted: Instant,
}

impl Spawner {
    /// Starts the thread, and on it the guard, if this program has called [`guard::init`](crate::guard::init).
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> io::Result<Self> {
        Self::with_guard(GuardOptions::default())
    }

    /// Starts the thread, and on it the guard. A guard that does not come up is not an error here: commands are then
    /// started without one, as [`guard_state`](Self::guard_state) and every start say.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn with_guard(options: GuardOptions) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(SPAWN_QUEUE_MAX_REQUESTS);
        let graveyard = Arc::new(Graveyard::new(jobs.clone()));
        let is_orphaned = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_orphaned);
        let state = Arc::new(Mutex::new(GuardState::Starting));
        let confiner = Arc::<Mutex<Option<Confiner>>>::default();
        let guard = GuardKeeper {
            confiner: Arc::clone(&confiner),
            options,
            guard: None,
            starts: VecDeque::new(),
            has_given_up: false,
            state: Arc::clone(&state),
        };
        let thread = std::thread::Builder::new()
            .name("dwell-spawn".into())
            .spawn(move || run(&queue, &graveyard, &seen, guard))?;
        Ok(Self {
            jobs,
            state,
            confiner,
            is_orphaned,
            thread: Some(thread),
        })
    }

    /// Whether there is a guard. Never blocks.
    #[must_use]
    pub fn guard_state(&self) -> GuardState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What confines the commands that ask for it, from the next request on; without it those are refused.
    pub fn confine_by(&self, confiner: Option<Confiner>) {
        *self.confiner.lock().unwrap_or_else(PoisonError::into_inner) = confiner;
    }

    /// Queues a request; never blocks. `reply` is called exactly once, on the spawner's thread, unless the request is
    /// given back. A reply that panics is contained, and the process it was to be told of is killed.
    ///
    /// # Errors
    /// [`Rejected`] with the request, when the queue is full or the thread is gone.
    #[expect(
        clippy::result_large_err,
        reason = "the request is given back whole, and only when there is no room"
    )]
    pub fn try_submit(&self, request: SpawnRequest, reply: Reply) -> Result<(), Rejected> {
        let start = Box::new(Start {
            request,
            reply,
            submitted: Instant::now(),
        });
        let (job, reason) = match self.jobs.try_send(Job::Start(start)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(job)) => (
                job,
                RejectedReason::Full {
                    limit: SPAWN_QUEUE_MAX_REQUESTS,
                },
            ),
            Err(TrySendError::Disconnected(job)) => (job, RejectedReason::Stopped),
        };
        match job {
            Job::Start(start) => Err(Rejected {
                request: start.request,
                reply: start.reply,
                reason,
            }),
            Job::Sweep | Job::Stop => {
                unreachable!("the channel gives back what was sent, and that is a start")
            }
        }
    }
}

impl SpawnOutcome {
    /// How long the request waited for the thread.
    #[must_use]
    pub fn queued(&self) -> Duration {
        self.started.saturating_duration_since(self.submitted)
    }

    /// How long starting the process took.
    #[must_use]
    pub fn spawning(&self) -> Duration {
        self.ended.saturating_duration_since(self.started)
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if thread.thread().id() == std::thread::current().id() {
            // A reply held the last handle: the thread cannot wait for itself, nor for room in its own queue.
            self.is_orphaned.store(true, Ordering::Relaxed);
            return;
        }
        // Fails only when the thread is gone; the queue drains, so this ends.
        let _ = self.jobs.send(Job::Stop);
        // A panic of the thread was reported where it happened.
        let _ = thread.join();
    }
}

impl std::fmt::Debug for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rejected")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start(_) => "Start",
            Self::Sweep => "Sweep",
            Self::Stop => "Stop",
        })
    }
}

/// The guard, as far as there is one.
struct GuardKeeper {
    confiner: Arc<Mutex<Option<Confiner>>>,
    options: GuardOptions,
    guard: Option<GuardClient>,
    starts: VecDeque<Instant>,
    has_given_up: bool,
    state: Arc<Mutex<GuardState>>,
}

impl GuardKeeper {
    /// A living guard, started anew where it must be.
    fn living(&mut self) -> Option<&mut GuardClient> {
        if self.guard.as_mut().is_some_and(|guard| !guard.is_alive()) {
            tracing::warn!("the guard has ended, and its commands with it: another is started");
            self.guard = None;
        }
        if self.guard.is_none() && !self.has_given_up {
            match self.start() {
                Ok(guard) => {
                    self.say(GuardState::Running(guard.executor_death()));
                    self.guard = Some(guard);
                }
                Err(problem) => {
                    self.has_given_up = true;
                    let because = std::error::Error::source(&problem).map(|source| format!(" ({source})"));
                    self.say(GuardState::Absent(format!(
                        "{problem}{}",
                        because.unwrap_or_default()
                    )));
                    if !matches!(problem, GuardProblem::Unwanted | GuardProblem::NotPrepared) {
                        tracing::warn!(%problem, "commands are started without a guard");
                    }
                }
            }
        }
        self.guard.as_mut()
    }

    fn start(&mut self) -> Result<GuardClient, GuardProblem> {
        let now = Instant::now();
        self.starts
            .retain(|start| now.saturating_duration_since(*start) < GUARD_RESTART_WINDOW);
        if self.starts.len() > GUARD_RESTARTS_MAX {
            return Err(GuardProblem::KeepsEnding {
                times: self.starts.len(),
                seconds: GUARD_RESTART_WINDOW.as_secs(),
            });
        }
        self.starts.push_back(now);
        let mut guard = GuardClient::start(&self.options)?;
        guard.prepare();
        Ok(guard)
    }

    fn say(&self, state: GuardState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Between two requests.
    fn prepare(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.prepare();
        }
    }
}

fn run(queue: &Receiver<Job>, graveyard: &Arc<Graveyard>, is_orphaned: &AtomicBool, mut guard: GuardKeeper) {
    guard.living();
    while let Some(job) = next(queue, graveyard, is_orphaned) {
        match job {
            Job::Start(request) => serve(*request, &mut guard, graveyard),
            Job::Sweep => {}
            Job::Stop => break,
        }
    }
    drop(guard);
    graveyard.close();
}

/// Waits for a job, and meanwhile for the dead. `None` when no request can follow.
fn next(queue: &Receiver<Job>, graveyard: &Graveyard, is_orphaned: &AtomicBool) -> Option<Job> {
    if is_orphaned.load(Ordering::Relaxed) {
        return queue.try_recv().ok();
    }
    while graveyard.sweep() {
        match queue.recv_timeout(SWEEP_INTERVAL) {
            Ok(job) => return Some(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    queue.recv().ok()
}

fn serve(job: Start, guard: &mut GuardKeeper, graveyard: &Arc<Graveyard>) {
    let Start {
        request,
        reply,
        submitted,
    } = job;
    delay::reach(DelayPoint::ExecutorSpawnQueue);
    let started = Instant::now();
    delay::reach(DelayPoint::ExecutorSpawn);
    let confiner = guard
        .confiner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let result = start(request, guard.living(), graveyard, confiner.as_ref());
    let ended = Instant::now();
    let outcome = SpawnOutcome {
        submitted,
        started,
        ended,
        result,
    };
    // The panic hook has reported it; the unwinding dropped the outcome and with it the process.
    let _ = catch_unwind(AssertUnwindSafe(|| reply(outcome)));
    // After the answer: nobody waits for the next one's keeper.
    guard.prepare();
}
