//! The collector's thread: takes records and stages from every arbiter and makes spans of them.
//!
//! It polls, so that the hot path never wakes anyone: every millisecond while there is work, slower while there is
//! none. Nothing ever waits for it; what does not fit is dropped and counted, residence before stages because they
//! have queues of their own.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use dwell_messages::{PackedSpans, Role, Span, TraceContext, TraceId};
use tokio::sync::oneshot;

use super::clock::Anchor;
use super::local::{ArbiterLocal, CollectorId, Entered, RingReader};
use super::recent::{Kept, Recent};
use super::stage::Stage;
use crate::in_flight::Board;

/// Stage spans that may wait for the collector.
pub const STAGES_MAX: usize = 8_192;
/// Requests that may wait for the collector.
const REQUESTS_MAX: usize = 1_024;
/// Spans exported in one go.
const BATCH_SPANS: usize = 512;
/// Longest a span waits for others to be exported with.
const BATCH_AGE: Duration = Duration::from_millis(200);
/// How often the collector looks while there is work.
const POLL_BUSY: Duration = Duration::from_millis(1);
/// How often it looks when there has been none for a while. A ring holds what a fast burst writes meanwhile.
const POLL_IDLE: Duration = Duration::from_millis(16);

/// Where finished spans go. Runs on the collector's thread: what may hang needs a thread of its own.
pub trait SpanSink: Send {
    /// Takes spans made by `role`; `clock` is given for those of another machine.
    ///
    /// # Errors
    /// The spans are then counted as lost and the sink is called again with the next batch.
    fn export(&mut self, role: Role, clock: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError>;

    /// Makes what was exported durable or sent, within a bound of its own.
    ///
    /// # Errors
    /// What could not be made so is lost.
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Spans that were taken and will never arrive, since the sink was made.
    fn lost(&self) -> u64 {
        0
    }
}

/// A sink could not take or finish a batch.
#[derive(Debug, thiserror::Error)]
#[error("spans could not be exported: {0}")]
pub struct SinkError(pub String);

/// How far another machine's clock is from this one's. Only ever used to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// The other clock minus this one, in microseconds.
    pub offset_us: i64,
    /// How wrong that may be either way, in microseconds.
    pub error_us: u64,
}

/// How a collector is set up.
pub struct CollectorOptions {
    /// Whose spans these are.
    pub role: Role,
    /// Whether recent traces are kept for `Collector::take`.
    pub keep_recent: bool,
    /// Where spans go.
    pub sinks: Vec<Box<dyn SpanSink>>,
}

impl fmt::Debug for CollectorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorOptions")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

type TakeReply = Box<dyn FnOnce(Vec<Kept>) + Send>;

enum Request {
    Ring(RingReader),
    Foreign(Role, ClockOffset, PackedSpans),
    Take(Vec<TraceId>, TakeReply),
    Dump(TraceId),
    Flush(oneshot::Sender<()>),
    End,
}

/// What the collector has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Spans made.
    pub spans: u64,
    /// Residence records that found their ring full.
    pub records_dropped: u64,
    /// Stages and foreign spans that found their queue full.
    pub stages_dropped: u64,
    /// Spans a sink refused, or took and lost.
    pub export_failed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    spans: AtomicU64,
    records_dropped: AtomicU64,
    stages_dropped: AtomicU64,
    export_failed: AtomicU64,
}

struct Shared {
    id: CollectorId,
    stages: SyncSender<Stage>,
    requests: SyncSender<Request>,
    thread: OnceLock<Thread>,
    join: Mutex<Option<std::thread::JoinHandle<()>>>,
    counters: Counters,
    board: Arc<Board>,
}

/// A handle to one role's collector. Cheap to clone; the thread ends with `end`, or with the last handle.
#[derive(Clone)]
pub struct Collector(Arc<Shared>);

/// A collector that may be gone.
#[derive(Clone)]
#[cfg_attr(
    not(feature = "otlp"),
    allow(dead_code, reason = "only what is exported over OTLP needs it")
)]
pub(crate) struct WeakCollector(Weak<Shared>);

impl WeakCollector {
    #[cfg_attr(
        not(feature = "otlp"),
        allow(dead_code, reason = "only what is exported over OTLP needs it")
    )]
    pub(crate) fn upgrade(&self) -> Option<Collector> {
        self.0.upgrade().map(Collector)
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("stats", &self.stats()).finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The thread holds only the counters' weak half; closed channels end it.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Collector {
    /// Starts the collector's thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(options: CollectorOptions) -> std::io::Result<Self> {
        let (stages, stage_queue) = sync_channel(STAGES_MAX);
        let (requests, request_queue) = sync_channel(REQUESTS_MAX);
        let board = Arc::new(Board::new(options.role));
        let shared = Arc::new(Shared {
            id: CollectorId::next(),
            stages,
            requests,
            thread: OnceLock::new(),
            join: Mutex::new(None),
            counters: Counters::default(),
            board: Arc::clone(&board),
        });
        let weak = Arc::downgrade(&shared);
        let core = Core {
            role: options.role,
            recent: options.keep_recent.then(Recent::default),
            sinks: options.sinks,
            rings: Vec::new(),
            pending: Vec::new(),
            pending_since: None,
            dropped_before: 0,
            counted: Stats::default(),
            board,
        };
        let join = std::thread::Builder::new()
            .name("dwell-trace".into())
            .spawn(move || {
                run(core, &stage_queue, &request_queue, |counted| {
                    if let Some(shared) = weak.upgrade() {
                        publish(&shared.counters, counted);
                    }
                });
            })?;
        shared.thread.get_or_init(|| join.thread().clone());
        *shared
            .join
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(join);
        Ok(Self(shared))
    }

    /// Makes the calling thread one whose mailboxes leave records with this collector, unless those of another that
    /// still runs are there already.
    pub fn install(&self) {
        if let Some(ring) = ArbiterLocal::install(self.0.id, &self.0.board) {
            drop(self.request(Request::Ring(ring)));
        }
    }

    /// While the guard lives, mailboxes that start on this thread leave their records with this collector.
    pub(crate) fn enter(&self) -> Entered {
        self.install();
        ArbiterLocal::enter(self.0.id)
    }

    /// Hands over a finished stage, if it is sampled or remembered. Never waits.
    pub fn stage(&self, stage: Stage) {
        if stage.is_sampled() {
            if self.0.stages.try_send(stage).is_err() {
                self.0.counters.stages_dropped.fetch_add(1, Ordering::Relaxed);
            }
        } else if let Some(flight) = self.0.board.flight() {
            flight.stage(stage);
        }
    }

    /// Remembers the last few seconds of calls that are not sampled, for `take` and `dump`. To be called before any
    /// thread is installed: those that are do not remember their deliveries.
    pub fn remember_unsampled(&self) {
        self.0.board.begin_flight();
    }

    /// Whether calls that are not sampled are remembered.
    pub fn remembers_unsampled(&self) -> bool {
        self.0.board.flight().is_some()
    }

    /// Whether stages of this call are of any use: it is sampled, or remembered.
    pub(crate) fn wants(&self, context: &TraceContext) -> bool {
        context.is_sampled() || self.remembers_unsampled()
    }

    /// Exports what is remembered of an unsampled trace, as if it had been sampled. Lost if the collector is too far
    /// behind.
    pub fn dump(&self, trace: TraceId) {
        if self.remembers_unsampled() && self.request(Request::Dump(trace)).is_err() {
            self.0.counters.stages_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A handle that keeps it from nothing.
    #[cfg_attr(
        not(feature = "otlp"),
        allow(dead_code, reason = "only what is exported over OTLP needs it")
    )]
    pub(crate) fn downgrade(&self) -> WeakCollector {
        WeakCollector(Arc::downgrade(&self.0))
    }

    /// What is unfinished in this collector's role.
    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.0.board
    }

    /// Hands over spans that another machine made. They are unpacked on the collector's thread: what cannot be is counted
    /// there as one, and so is a block that finds the collector too far behind.
    pub fn foreign(&self, role: Role, clock: ClockOffset, spans: PackedSpans) {
        if !spans.is_empty() && self.request(Request::Foreign(role, clock, spans)).is_err() {
            self.0.counters.stages_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes everything known of some traces, records not yet collected included: in their order, so that one which stands
    /// there twice comes once and then empty. `reply` runs on the collector's thread; if the collector has ended or is
    /// too far behind, it runs here and now with nothing.
    pub fn take(&self, traces: Vec<TraceId>, reply: impl FnOnce(Vec<Kept>) + Send + 'static) {
        if let Err(Request::Take(_, reply)) = self.request(Request::Take(traces, Box::new(reply))) {
            reply(Vec::new());
        }
    }

    /// Exports all there is, and flushes the sinks. Cancellation safe: the flush goes on.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.request(Request::Flush(done)).is_ok() {
            drop(wait.await);
        }
    }

    /// Flushes and ends the thread, and waits for that. For the end of a process; blocks.
    pub fn end(&self) {
        // Waits for room: an end that got lost would be waited for without end. Fails if the thread has ended.
        drop(self.0.requests.send(Request::End));
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
        let join = self
            .0
            .join
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take();
        if let Some(join) = join {
            drop(join.join());
        }
    }

    /// What has been counted so far.
    pub fn stats(&self) -> Stats {
        let counters = &self.0.counters;
        Stats {
            spans: counters.spans.load(Ordering::Relaxed),
            records_dropped: counters.records_dropped.load(Ordering::Relaxed),
            stages_dropped: counters.stages_dropped.load(Ordering::Relaxed),
            export_failed: counters.export_failed.load(Ordering::Relaxed),
        }
    }

    fn request(&self, request: Request) -> Result<(), Request> {
        let sent = self.0.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
        });
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
        sent
    }
}

fn publish(counters: &Counters, counted: Stats) {
    counters.spans.store(counted.spans, Ordering::Relaxed);
    counters
        .records_dropped
        .store(counted.records_dropped, Ordering::Relaxed);
    counters
        .export_failed
        .store(counted.export_failed, Ordering::Relaxed);
}

fn run(mut core: Core, stages: &Receiver<Stage>, requests: &Receiver<Request>, publish: impl Fn(Stats)) {
    let mut pause = POLL_BUSY;
    loop {
        let mut worked = core.collect(stages);
        loop {
            match requests.try_recv() {
                Ok(Request::Ring(ring)) => core.rings.push(ring),
                Ok(Request::Foreign(role, clock, spans)) => core.foreign(role, clock, &spans),
                Ok(Request::Take(traces, reply)) => {
                    core.collect(stages);
                    let kept = traces.into_iter().map(|trace| core.take(trace)).collect();
                    let replied = contained(|| {
                        reply(kept);
                        Ok(())
                    });
                    if let Err(error) = replied {
                        tracing::warn!(%error, "the taker of traces panicked");
                    }
                }
                Ok(Request::Dump(trace)) => {
                    for span in core
                        .board
                        .flight()
                        .map(|flight| flight.spans(trace))
                        .into_iter()
                        .flatten()
                    {
                        core.made(span);
                    }
                }
                Ok(Request::Flush(done)) => {
                    core.collect(stages);
                    core.flush();
                    publish(core.stats());
                    done.send(()).ok();
                }
                Err(TryRecvError::Empty) => break,
                Ok(Request::End) | Err(TryRecvError::Disconnected) => {
                    core.collect(stages);
                    core.flush();
                    return publish(core.stats());
                }
            }
            worked = true;
        }
        core.export_if_due(Instant::now());
        publish(core.stats());
        pause = if worked {
            POLL_BUSY
        } else {
            (pause * 2).min(POLL_IDLE)
        };
        std::thread::park_timeout(pause);
    }
}

struct Core {
    role: Role,
    recent: Option<Recent>,
    sinks: Vec<Box<dyn SpanSink>>,
    rings: Vec<RingReader>,
    pending: Vec<Span>,
    pending_since: Option<Instant>,
    /// Records dropped by threads that have ended.
    dropped_before: u64,
    counted: Stats,
    board: Arc<Board>,
}

impl Core {
    /// Makes spans of all that is waiting. Says whether there was anything.
    fn collect(&mut self, stages: &Receiver<Stage>) -> bool {
        let before = self.counted.spans;
        let anchor = Anchor::take();
        let mut rings = std::mem::take(&mut self.rings);
        for ring in &mut rings {
            // What was there when we began: a busy arbiter cannot keep us here.
            for _ in 0..ring.records.slots() {
                let Ok(record) = ring.records.pop() else { break };
                self.board.meters().delivery(&record);
                self.made(record.residence(&anchor));
                self.made(record.turn(&anchor));
            }
        }
        let dropped = |ring: &RingReader| ring.dropped.load(Ordering::Relaxed);
        rings.retain(|ring| {
            let ended = ring.records.is_abandoned() && ring.records.is_empty();
            self.dropped_before += if ended { dropped(ring) } else { 0 };
            !ended
        });
        self.counted.records_dropped = self.dropped_before + rings.iter().map(dropped).sum::<u64>();
        self.rings = rings;
        for _ in 0..STAGES_MAX {
            let Ok(stage) = stages.try_recv() else { break };
            self.made(stage.into_span(&anchor));
        }
        self.counted.spans != before
    }

    /// What is known of a trace: its sampled spans, or what is remembered of one that has none. Of a sampled call, what is
    /// not sampled on purpose (its writes) stays out: nothing of it has a parent elsewhere.
    fn take(&mut self, trace: TraceId) -> Kept {
        let mut kept = self
            .recent
            .as_mut()
            .map(|recent| recent.take(trace))
            .unwrap_or_default();
        if let Some(flight) = self.board.flight().filter(|_| kept.spans.is_empty()) {
            kept.spans.extend(flight.spans(trace));
        }
        kept
    }

    fn made(&mut self, span: Span) {
        self.counted.spans += 1;
        match (&mut self.recent, self.sinks.is_empty()) {
            (Some(recent), true) => return recent.keep(span),
            (Some(recent), false) => recent.keep(span.clone()),
            (None, true) => return,
            (None, false) => {}
        }
        self.pending.push(span);
        self.pending_since.get_or_insert_with(Instant::now);
        if self.pending.len() >= BATCH_SPANS {
            self.export();
        }
    }

    fn foreign(&mut self, role: Role, clock: ClockOffset, packed: &PackedSpans) {
        let spans = match packed.unpack() {
            Ok(spans) => spans,
            Err(error) => {
                self.counted.export_failed += 1;
                return tracing::warn!(%error, "spans of another machine were lost");
            }
        };
        self.counted.spans += spans.len() as u64;
        for sink in &mut self.sinks {
            if let Err(error) = contained(|| sink.export(role, Some(clock), &spans)) {
                self.counted.export_failed += spans.len() as u64;
                tracing::warn!(%error, "spans of another machine were lost");
            }
        }
    }

    fn export_if_due(&mut self, now: Instant) {
        if self
            .pending_since
            .is_some_and(|since| now.saturating_duration_since(since) >= BATCH_AGE)
        {
            self.export();
        }
    }

    fn export(&mut self) {
        self.pending_since = None;
        let spans = std::mem::take(&mut self.pending);
        if spans.is_empty() {
            return;
        }
        for sink in &mut self.sinks {
            if let Err(error) = contained(|| sink.export(self.role, None, &spans)) {
                self.counted.export_failed += spans.len() as u64;
                tracing::warn!(%error, "spans were lost");
            }
        }
    }

    fn stats(&self) -> Stats {
        let lost: u64 = self.sinks.iter().map(|sink| sink.lost()).sum();
        Stats {
            export_failed: self.counted.export_failed + lost,
            ..self.counted
        }
    }

    fn flush(&mut self) {
        self.export();
        for sink in &mut self.sinks {
            if let Err(error) = contained(|| sink.flush()) {
                tracing::warn!(%error, "a span sink could not flush");
            }
        }
    }
}

/// Runs what others gave us: a panic in it must not end the collector for everyone else.
fn contained(work: impl FnOnce() -> Result<(), SinkError>) -> Result<(), SinkError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(SinkError("it panicked".to_owned())))
}
