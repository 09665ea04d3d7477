//! An actor that runs what a test sends it, and systems with a bound on the test's time.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_actors::mailbox::{Actor, BulkResidence, HostOptions, Mailbox, Message, Slot, Turn, start_here};
use dwell_actors::telemetry::{ClockOffset, Collector, CollectorOptions, SinkError, SpanSink, root};
use dwell_messages::{Envelope, Role, Span};

/// Past this a test has hung. On paused time it costs nothing.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What the probe does in one turn.
pub(crate) type Work = Box<dyn FnOnce(&mut Probe, &mut Turn<'_, Probe>) + Send>;

/// What lies in the probe's mailbox.
pub(crate) enum Job {
    Note(u32),
    Run(Work),
    Bulk(Arc<BulkResidence>),
}

impl Message for Job {
    const NAMES: &'static [&'static str] = &["Note", "Run", "Bulk"];

    fn index(&self) -> usize {
        match self {
            Self::Note(_) => 0,
            Self::Run(_) => 1,
            Self::Bulk(_) => 2,
        }
    }

    fn bulk(&self) -> Option<&BulkResidence> {
        match self {
            Self::Bulk(sums) => Some(sums),
            Self::Note(_) | Self::Run(_) => None,
        }
    }
}

/// What the probes of one test saw, in order. Shared, so that it outlives a probe's state.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u32>>>);

impl Log {
    pub(crate) fn push(&self, entry: u32) {
        self.0.lock().unwrap().push(entry);
    }

    pub(crate) fn entries(&self) -> Vec<u32> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// An actor that notes numbers and runs closures.
pub(crate) struct Probe {
    pub(crate) log: Log,
    /// Set by a closure to make the state's drop panic.
    pub(crate) drop_panics: bool,
    /// Messages handled by this life of the state.
    pub(crate) handled: u32,
}

impl Drop for Probe {
    fn drop(&mut self) {
        assert!(!self.drop_panics, "the state's drop panics as the test asked");
    }
}

/// Noted when a probe has drained.
pub(crate) const DRAINED: u32 = 9_999;

impl Actor for Probe {
    const NAME: &'static str = "Probe";
    type Message = Job;
    type Control = Work;

    fn receive(&mut self, envelope: Envelope<Job>, turn: &mut Turn<'_, Self>) {
        self.handled += 1;
        match envelope.body {
            Job::Note(number) => self.log.push(number),
            Job::Run(work) => work(self, turn),
            Job::Bulk(_) => {}
        }
    }

    fn control(&mut self, control: Work, turn: &mut Turn<'_, Self>) {
        control(self, turn);
    }

    fn drained(&mut self, _: &mut Turn<'_, Self>) {
        self.log.push(DRAINED);
    }
}

/// A fresh state.
pub(crate) fn probe(log: &Log) -> Probe {
    Probe {
        log: log.clone(),
        drop_panics: false,
        handled: 0,
    }
}

/// A probe on this thread that is not restarted.
pub(crate) fn start_probe(capacity: usize) -> (Mailbox<Probe>, Log) {
    let log = Log::default();
    let state = log.clone();
    (start_here(HostOptions::new(capacity), move || probe(&state)), log)
}

/// An unsampled note.
pub(crate) fn note(number: u32) -> Envelope<Job> {
    Envelope::new(root(false), Job::Note(number))
}

/// An unsampled closure.
pub(crate) fn run(work: impl FnOnce(&mut Probe, &mut Turn<'_, Probe>) + Send + 'static) -> Envelope<Job> {
    Envelope::new(root(false), Job::Run(Box::new(work)))
}

/// A control message.
pub(crate) fn command(work: impl FnOnce(&mut Probe, &mut Turn<'_, Probe>) + Send + 'static) -> Work {
    Box::new(work)
}

/// Takes all the room of a mailbox: a receiver that serves nobody until the slots are dropped.
pub(crate) fn fill(mailbox: &Mailbox<Probe>) -> Vec<Slot<Probe>> {
    std::iter::from_fn(|| mailbox.try_reserve()).collect()
}

/// Waits until the mailbox has handled what is in it and its effects could move as far as they can.
pub(crate) async fn settle() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

/// Polls a future once and says whether it waits.
pub(crate) async fn waits<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

/// Runs a test on a system of its own whose time stands still unless nothing else can happen.
pub(crate) fn on_paused_system(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(async {
        tokio::time::pause();
        bounded(test).await;
    });
}

/// Runs a test on a system of its own in real time: for those that wait for another thread.
pub(crate) fn on_system(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(bounded(test));
}

async fn bounded(test: impl Future<Output = ()>) {
    tokio::time::timeout(TEST_TIMEOUT, test)
        .await
        .expect("the test ends within its bound");
}

/// Keeps what it is given.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<Span>>>);

impl Memory {
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }
}

impl SpanSink for Memory {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend_from_slice(spans);
        Ok(())
    }
}

/// A collector that keeps recent traces and exports to `sinks`.
pub(crate) fn collector(sinks: Vec<Box<dyn SpanSink>>) -> Collector {
    Collector::start(CollectorOptions {
        role: Role::Executor,
        keep_recent: true,
        sinks,
    })
    .expect("a thread can be started")
}
