//! A store whose updates a test holds back, fails and counts; and a place to keep threads in.

use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::time::Duration;

use dwell_actors::metadata_store::{
    Change, Holder, MemoryStore, MetadataStore, RunRecord, StoreError, ThreadId, ThreadPage, ThreadPatch,
    ThreadQuery, ThreadRecord,
};
use dwell_actors::threads::{Item, ItemKind, NewThread, Thread, ThreadError, Threads};
use tempfile::TempDir;
use tokio::sync::watch;

/// How long anything may take that is expected to happen.
const BOUND: Duration = Duration::from_secs(30);

/// Waits for what is expected to happen.
pub(crate) async fn bounded<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, what)
        .await
        .expect("it happens in time")
}

/// What an update comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Fails,
    Conflicts,
    Panics,
}

/// What the store was asked to do, in order.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    Updated(Box<ThreadPatch>),
    Failed(Fate),
    Released,
}

#[derive(Default)]
struct Inner {
    /// Updates that may go through; `None`: all of them.
    allowed: Option<usize>,
    fates: VecDeque<Option<Fate>>,
    releases_fail: usize,
    events: Vec<Event>,
}

/// The test's hand on the store.
#[derive(Clone)]
pub(crate) struct Gate {
    inner: Arc<(Mutex<Inner>, Condvar)>,
    begun: watch::Receiver<usize>,
}

struct GatedStore {
    memory: MemoryStore,
    gate: Gate,
    begun: watch::Sender<usize>,
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.0.lock().unwrap());
        self.inner.1.notify_all();
    }

    /// From now on no update goes through but those allowed.
    pub(crate) fn block(&self) {
        self.change(|inner| inner.allowed = Some(0));
    }

    pub(crate) fn allow(&self, more: usize) {
        self.change(|inner| inner.allowed = inner.allowed.map(|allowed| allowed + more));
    }

    pub(crate) fn open(&self) {
        self.change(|inner| inner.allowed = None);
    }

    /// What the next updates come to, one each.
    pub(crate) fn fates(&self, fates: impl IntoIterator<Item = Option<Fate>>) {
        self.change(|inner| inner.fates.extend(fates));
    }

    pub(crate) fn fail_releases(&self, count: usize) {
        self.change(|inner| inner.releases_fail = count);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.inner.0.lock().unwrap().events.clone()
    }

    pub(crate) fn updates(&self) -> Vec<ThreadPatch> {
        let events = self.events().into_iter();
        let updates = events.filter_map(|event| match event {
            Event::Updated(patch) => Some(*patch),
            Event::Failed(_) | Event::Released => None,
        });
        updates.collect()
    }

    /// Waits until so many updates have been begun.
    pub(crate) async fn begun(&self, count: usize) {
        bounded(self.begun.clone().wait_for(|begun| *begun >= count))
            .await
            .unwrap();
    }
}

impl MetadataStore for GatedStore {
    fn record_runs(&mut self, batch: &[RunRecord]) -> Result<(), StoreError> {
        let (lock, changed) = &*self.gate.inner;
        let held = changed.wait_while(lock.lock().unwrap(), |inner| inner.allowed == Some(0));
        drop(held.unwrap());
        self.memory.record_runs(batch)
    }

    fn lease(&mut self, id: ThreadId, holder: &Holder) -> Result<Option<ThreadRecord>, StoreError> {
        self.memory.lease(id, holder)
    }

    fn release(&mut self, id: ThreadId, holder: &Holder) -> Result<(), StoreError> {
        let mut inner = self.gate.inner.0.lock().unwrap();
        if inner.releases_fail > 0 {
            inner.releases_fail -= 1;
            return Err(StoreError::Busy { path: "here".into() });
        }
        inner.events.push(Event::Released);
        self.memory.release(id, holder)
    }

    fn update_thread(
        &mut self,
        id: ThreadId,
        holder: &Holder,
        patch: &ThreadPatch,
    ) -> Result<(), StoreError> {
        self.begun.send_modify(|begun| *begun += 1);
        let (lock, changed) = &*self.gate.inner;
        let blocked = |inner: &mut Inner| inner.allowed == Some(0);
        let mut inner = changed.wait_while(lock.lock().unwrap(), blocked).unwrap();
        inner.allowed = inner.allowed.map(|allowed| allowed - 1);
        let fate = inner.fates.pop_front().flatten();
        if let Some(fate) = fate {
            inner.events.push(Event::Failed(fate));
            drop(inner);
            return Err(match fate {
                Fate::Fails => StoreError::Write {
                    path: "here".into(),
                    source: "no space".into(),
                },
                Fate::Conflicts => StoreError::LeaseLost { id },
                Fate::Panics => panic!("injected"),
            });
        }
        inner.events.push(Event::Updated(Box::new(patch.clone())));
        drop(inner);
        self.memory.update_thread(id, holder, patch)
    }

    fn delete_thread(&mut self, id: ThreadId, holder: &Holder) -> Result<bool, StoreError> {
        self.memory.delete_thread(id, holder)
    }

    fn thread(&self, id: ThreadId) -> Result<Option<ThreadRecord>, StoreError> {
        self.memory.thread(id)
    }

    fn threads(&self, query: &ThreadQuery) -> Result<ThreadPage, StoreError> {
        self.memory.threads(query)
    }

    fn recent_runs(&self, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        self.memory.recent_runs(limit)
    }

    fn is_poisoned(&self) -> bool {
        false
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A store in the test's hand.
pub(crate) fn gated() -> (impl MetadataStore + 'static, Gate) {
    let (begun, is_begun) = watch::channel(0);
    let gate = Gate {
        inner: Arc::default(),
        begun: is_begun,
    };
    let store = GatedStore {
        memory: MemoryStore::new(),
        gate: gate.clone(),
        begun,
    };
    (store, gate)
}

/// Threads on a gated store, in a directory of their own.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) threads: Threads,
    pub(crate) gate: Gate,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(
        set: impl FnOnce(dwell_actors::threads::ThreadsBuilder) -> dwell_actors::threads::ThreadsBuilder,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, gate) = gated();
        let builder = Threads::builder(dir.path().join("threads")).metadata_store(store);
        let threads = set(builder).open().unwrap();
        Self { dir, threads, gate }
    }

    pub(crate) async fn thread(&self) -> Thread {
        bounded(self.threads.create(NewThread::default())).await.unwrap()
    }

    /// A thread that somebody is about to give back, or that nobody has.
    pub(crate) async fn resumed(&self, id: ThreadId) -> Thread {
        bounded(async {
            loop {
                match self.threads.resume(id).await {
                    Ok(thread) => break thread,
                    Err(ThreadError::Store(_)) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other}"),
                }
            }
        })
        .await
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("threads")
    }

    /// From now on no event log can be made: a file stands where their directory would.
    pub(crate) fn break_logs(&self) {
        std::fs::write(self.logs(), b"").unwrap();
    }

    pub(crate) fn mend_logs(&self) {
        std::fs::remove_file(self.logs()).unwrap();
    }

    /// The bodies of a thread's items on the disk.
    pub(crate) fn history(&self, id: ThreadId) -> Vec<String> {
        let history = self.threads.history(id).unwrap();
        history
            .map(|item| String::from_utf8(item.unwrap().body).unwrap())
            .collect()
    }
}

/// Something that changes the record: a turn.
pub(crate) fn turn(text: &str) -> Item {
    Item::now(ItemKind::TurnStarted, text)
}

/// Something that does not.
pub(crate) fn note(text: &str) -> Item {
    Item::now(ItemKind::Note, text)
}

pub(crate) fn title(text: &str) -> ThreadPatch {
    ThreadPatch {
        title: Change::Set(text.into()),
        ..ThreadPatch::default()
    }
}

/// Begins to wait, and goes on doing something else.
pub(crate) async fn begun<F: Future>(mut future: std::pin::Pin<&mut F>) {
    std::future::poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending(), "it waits");
        Poll::Ready(())
    })
    .await;
}

pub(crate) fn store_kind(outcome: Result<(), ThreadError>) -> &'static str {
    match outcome {
        Err(ThreadError::Store(error)) => error.kind(),
        other => panic!("the store's error, not {other:?}"),
    }
}

pub(crate) async fn turns(place: &Place, id: ThreadId) -> u64 {
    bounded(place.threads.get(id))
        .await
        .unwrap()
        .map_or(0, |record| record.turns)
}
