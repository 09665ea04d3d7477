//! The handle: takes deltas, finds what it needs for showing them, and says what is to be shown.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use dwell_messages::TraceContext;
use tokio::sync::watch;

use super::change::{Change, Delta};
use super::ledger::{Basis, Ledger, Part, VoidReason};
use super::render::{FileDiff, render};
use super::root::{Search, Teller, TurnEnvironment, wait_for};
use crate::in_flight::unpoisoned;
use crate::telemetry::Collector;

/// How long one file's lines are compared before what is left of it is shown as replaced.
pub const FILE_BUDGET: Duration = Duration::from_millis(100);

/// What a delta means for whoever shows the diff.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "the diff that is shown is out of date"]
pub enum Update {
    /// What is shown is right.
    Unchanged,
    /// This is to be shown in place of what was. Without files when everything was undone.
    Shown(RenderedDiff),
    /// What was shown is not true any more, and there will be no diff of this turn. Said once, and only if there was one.
    Void(VoidReason),
}

/// A turn's diff at one instant. Cheap to clone: files that did not change are shared with earlier ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RenderedDiff {
    revision: u64,
    files: Vec<Arc<FileDiff>>,
}

impl RenderedDiff {
    /// Grows with every diff of a turn: of two that concurrent calls returned the higher one is to be shown.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Its files, by environment and path.
    pub fn files(&self) -> &[Arc<FileDiff>] {
        &self.files
    }

    /// Whether nothing is left of what the turn changed.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// All of it as one text. Copies: files of several environments stand behind each other, each environment's paths
    /// relative to its own repository.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.files.iter().map(|file| file.text.len()).sum());
        for file in &self.files {
            text.extend_from_slice(&file.text);
        }
        text
    }
}

/// What a turn's diff has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Searches for a repository: at most one an environment.
    pub discoveries: u64,
    /// Files rendered. One that did not change is not rendered again.
    pub renders: u64,
}

struct Place {
    environment: TurnEnvironment,
    search: Arc<Search>,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    places: BTreeMap<Arc<str>, Place>,
    /// What the consumer was last told to show.
    shown: Vec<Arc<FileDiff>>,
    revision: u64,
    void: bool,
}

/// One turn's diff. `Send` and `Sync`; calls may come from several tasks, on any runtime.
///
/// Comparing files happens in the call that made it necessary, on its thread, [`FILE_BUDGET`] for each file that
/// changed at the most; between files other tasks get a turn.
pub struct TurnDiff {
    /// Never held while anything is asked or rendered.
    state: Mutex<State>,
    /// One renders at a time, so that diffs come out in their order.
    rendering: tokio::sync::Mutex<()>,
    voided: watch::Sender<bool>,
    budget: Duration,
    teller: Teller,
    renders: AtomicU64,
}

impl fmt::Debug for TurnDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnDiff")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl TurnDiff {
    /// Of a turn that begins, in these environments. Asks nothing.
    pub fn new(environments: impl IntoIterator<Item = TurnEnvironment>) -> Self {
        let diff = Self {
            state: Mutex::default(),
            rendering: tokio::sync::Mutex::default(),
            voided: watch::Sender::new(false),
            budget: FILE_BUDGET,
            teller: Teller::default(),
            renders: AtomicU64::new(0),
        };
        diff.place(environments);
        diff
    }

    /// Gives each file more or less time than [`FILE_BUDGET`].
    #[must_use]
    pub fn file_budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Its searches are spans of this trace. To be called before the first delta.
    #[must_use]
    pub fn traced(mut self, collector: Collector, context: TraceContext) -> Self {
        self.teller.trace = Some((collector, context));
        let mut state = self.state();
        let places = std::mem::take(&mut state.places);
        drop(state);
        self.place(places.into_values().map(|place| place.environment));
        self
    }

    /// Takes a step of the turn in, and says what it means for what is shown. Never fails for want of a repository.
    /// Environments that it was not told of are shown with absolute paths.
    ///
    /// Cancellation safe: the delta counts as soon as this is first polled, and the next call shows it.
    pub async fn apply(&self, delta: Delta) -> Update {
        let (environment, changes) = match delta {
            Delta::Inexact => return self.invalidate(VoidReason::Inexact),
            Delta::Exact { environment, changes } => (environment, changes),
        };
        if changes.is_empty() {
            return Update::Unchanged;
        }
        match self.record(&environment, changes) {
            Ok(()) => self.update(Some(&environment)).await,
            Err(reason) => self.invalidate(reason),
        }
    }

    /// The turn's environments are others now. Where one that has changes to show lies elsewhere than before, its
    /// repository is looked for, and what was rendered of it is rendered again. Those that are gone keep what they
    /// have.
    ///
    /// Cancellation safe, as `apply` is.
    pub async fn set_environments(&self, environments: impl IntoIterator<Item = TurnEnvironment>) -> Update {
        self.place(environments);
        self.update(None).await
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        Counts {
            discoveries: self.teller.begun.load(Ordering::Relaxed),
            renders: self.renders.load(Ordering::Relaxed),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(&self.state)
    }

    fn place(&self, environments: impl IntoIterator<Item = TurnEnvironment>) {
        let mut state = self.state();
        if state.void {
            return;
        }
        let mut before = std::mem::take(&mut state.places);
        for environment in environments {
            let id = Arc::clone(&environment.id);
            let place = match before.remove(&id) {
                Some(place) if place.environment.is_where(&environment) => place,
                Some(_) | None => Place {
                    search: Arc::new(Search::new(environment.clone(), self.teller.clone())),
                    environment,
                },
            };
            state.places.insert(id, place);
        }
        for (id, place) in before {
            if state.ledger.shows(&id) {
                state.places.entry(id).or_insert(place);
            }
        }
    }

    fn record(&self, environment: &str, changes: Vec<Change>) -> Result<(), VoidReason> {
        let mut state = self.state();
        if state.void {
            return Ok(());
        }
        state.ledger.record(environment, changes)
    }

    /// From now on nothing is rendered and nothing asked; what is being asked is given up.
    fn invalidate(&self, reason: VoidReason) -> Update {
        let mut state = self.state();
        let before = std::mem::take(&mut *state);
        state.void = true;
        drop(state);
        self.voided.send_replace(true);
        if before.shown.is_empty() {
            Update::Unchanged
        } else {
            Update::Void(reason)
        }
    }

    /// Finds the roots that are missing, of this environment or of all, and renders what is out of date.
    async fn update(&self, environment: Option<&str>) -> Update {
        let searches = self.searches(environment);
        if !searches.is_empty() {
            let mut voided = self.voided.subscribe();
            tokio::select! {
                biased;
                _ = voided.wait_for(|voided| *voided) => return Update::Unchanged,
                () = wait_for(&searches) => {}
            }
        }
        let _alone = self.rendering.lock().await;
        let parts = self.parts();
        let mut files = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Part::Rendered(file) => files.push(file),
                Part::Stale(shape, basis) => {
                    let file = Arc::new(render(&shape, basis.root(), Instant::now() + self.budget));
                    self.renders.fetch_add(1, Ordering::Relaxed);
                    if !self.keep(basis, &file) {
                        return Update::Unchanged;
                    }
                    files.push(file);
                    tokio::task::yield_now().await;
                }
            }
        }
        self.show(files)
    }

    /// Of environments that have something to show and no root yet. One that another call waits for is that call's to
    /// show: it may take long.
    fn searches(&self, environment: Option<&str>) -> Vec<Arc<Search>> {
        let state = self.state();
        let missing = |(id, place): (&Arc<str>, &Place)| {
            let own = environment.is_none_or(|own| own == &**id) || place.search.is_idle();
            let wanted = own && place.search.root().is_none() && state.ledger.shows(id);
            wanted.then(|| Arc::clone(&place.search))
        };
        state.places.iter().filter_map(missing).collect()
    }

    fn parts(&self) -> Vec<Part> {
        let state = self.state();
        state.ledger.parts(|id| match state.places.get(id) {
            // Whoever waits for its root will show it.
            Some(place) => place.search.root().map(Some),
            None => Some(None),
        })
    }

    /// Keeps what was rendered; false if there is no diff any more.
    fn keep(&self, basis: Basis, file: &Arc<FileDiff>) -> bool {
        let mut state = self.state();
        state.ledger.keep(basis, file);
        !state.void
    }

    fn show(&self, files: Vec<Arc<FileDiff>>) -> Update {
        let mut state = self.state();
        if state.void || state.shown == files {
            return Update::Unchanged;
        }
        state.shown.clone_from(&files);
        state.revision += 1;
        Update::Shown(RenderedDiff {
            revision: state.revision,
            files,
        })
    }
}
