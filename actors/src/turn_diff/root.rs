//! Where an environment's repository begins: looked for at most once a turn, by whoever needs it first.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use dwell_messages::TraceContext;
use dwell_messages::workspace::OnError;

use crate::files::FileSystem;
use crate::find_up::{Found, PROBES_MAX, Query, find_up};
use crate::telemetry::{Collector, Stage, Tick, semconv};

/// What marks a repository's beginning: a directory, or a file that names one.
const MARKER: &[u8] = b".git";

/// One of a turn's environments.
#[derive(Clone)]
pub struct TurnEnvironment {
    pub(super) id: Arc<str>,
    pub(super) cwd: Arc<[u8]>,
    pub(super) files: Arc<dyn FileSystem>,
}

impl fmt::Debug for TurnEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnEnvironment")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl TurnEnvironment {
    /// An environment by the id that its deltas bear, with its working directory and its files. The repository is the
    /// nearest one above that directory, not above each file.
    pub fn new(id: impl AsRef<str>, cwd: impl AsRef<[u8]>, files: Arc<dyn FileSystem>) -> Self {
        Self {
            id: id.as_ref().into(),
            cwd: cwd.as_ref().into(),
            files,
        }
    }

    /// Whether what was found for the other holds for this.
    pub(super) fn is_where(&self, other: &Self) -> bool {
        self.cwd == other.cwd && self.files.identity() == other.files.identity()
    }
}

/// What a search tells of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Teller {
    pub(super) trace: Option<(Collector, TraceContext)>,
    pub(super) begun: Arc<AtomicU64>,
}

type Walk = Pin<Box<dyn Future<Output = Arc<[u8]>> + Send>>;

/// One environment's search. Nothing is asked before the first `wait`.
pub(super) struct Search {
    found: OnceLock<Arc<[u8]>>,
    /// Whoever waits drives it. Another goes on where one was dropped, so that nothing is asked twice.
    walk: tokio::sync::Mutex<Option<Walk>>,
}

impl Search {
    pub(super) fn new(environment: TurnEnvironment, teller: Teller) -> Self {
        Self {
            found: OnceLock::new(),
            walk: tokio::sync::Mutex::new(Some(Box::pin(walk(environment, teller)))),
        }
    }

    /// What was found.
    pub(super) fn root(&self) -> Option<Arc<[u8]>> {
        self.found.get().cloned()
    }

    /// Whether nobody waits for it.
    pub(super) fn is_idle(&self) -> bool {
        self.walk.try_lock().is_ok()
    }

    async fn wait(&self) {
        let mut walk = self.walk.lock().await;
        if let Some(under_way) = walk.as_mut() {
            let root = under_way.await;
            self.found.get_or_init(|| root);
            *walk = None;
        }
    }
}

/// Waits for all of them at once.
pub(super) async fn wait_for(searches: &[Arc<Search>]) {
    let mut waits: Vec<_> = searches.iter().map(|search| Box::pin(search.wait())).collect();
    poll_fn(|cx| {
        waits.retain_mut(|wait| wait.as_mut().poll(cx).is_pending());
        if waits.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// The search itself: the repository's directory, or the working directory where there is none or nothing answers.
async fn walk(environment: TurnEnvironment, teller: Teller) -> Arc<[u8]> {
    teller.begun.fetch_add(1, Ordering::Relaxed);
    let mut span = DiscoverySpan {
        trace: teller.trace,
        began: Tick::now(),
        found: None,
    };
    let found = nearest(&*environment.files, &environment.cwd)
        .await
        .unwrap_or_default();
    span.found = Some((found.root.is_some(), found.probed));
    found.root.map_or(environment.cwd, Arc::from)
}

/// The nearest directory at or above `cwd` that holds the marker. What cannot be looked at holds none: a diff must not fail for
/// that. A working directory that is no path has nothing above it.
async fn nearest(files: &dyn FileSystem, cwd: &[u8]) -> Option<Found> {
    let query = Query::new(cwd, [MARKER], OnError::Ignore).ok()?;
    find_up(files, &query, PROBES_MAX).await.ok()
}

/// Written when the search is over, and when nobody needs it any more.
struct DiscoverySpan {
    trace: Option<(Collector, TraceContext)>,
    began: Tick,
    /// Whether there is one, and how many probes that took.
    found: Option<(bool, u32)>,
}

impl Drop for DiscoverySpan {
    fn drop(&mut self) {
        if let Some((collector, context)) = &self.trace {
            let name = semconv::span::TURN_DIFF_ROOT;
            let stage = Stage::new(context, name, self.began, Tick::now())
                .maybe_number(
                    semconv::REPOSITORY_FOUND,
                    self.found.map(|(found, _)| i64::from(found)),
                )
                .maybe_number(semconv::REPOSITORY_PROBES, self.found.map(|(_, probes)| probes))
                .failed(self.found.is_none().then_some(semconv::CANCELLED));
            collector.stage(stage);
        }
    }
}
