//! Workspaces on the executor: a request is a job or two on the threads for files, and one answer.
//!
//! Of a session `LOADS_AT_WORK_MAX` requests are at work at a time; the others wait in the order in which they came. They
//! hold nothing but themselves, and there are no more of them than the session's admission lets in. None is begun while the
//! session's client has not acknowledged enough of what it was answered: answers are kept until then.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dwell_messages::workspace::{FindUp, FoundUp, WorkspaceLoad, WorkspaceReply};
use dwell_messages::{ErrorCode, Reply, Request, TraceContext, WireError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::loader::{LoadSpans, Loader, Span, finish};
use super::pipeline::at_once;
use super::plan::Plan;
use crate::files::{FilePool, FilesHere, PoolSpan, UNACKNOWLEDGED_MAX_BYTES};
use crate::find_up::{LOCAL_PROBES, Query, find_up};
use crate::mailbox::{Actor, Turn};
use crate::relay_framer::Unacknowledged;
use crate::rpc_queue::server::Call;
use crate::telemetry::{Collector, Stage, Tick, semconv};

/// Requests of one session at work at a time: a load has two jobs, and the pool two threads for what may take long.
pub const LOADS_AT_WORK_MAX: usize = 2;
/// How long is waited before it is looked again whether the client has acknowledged what it was answered.
const RETRY: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Clone)]
pub(crate) struct WorkspaceService {
    inner: Arc<Inner>,
    unacknowledged: Rc<Unacknowledged>,
}

struct Inner {
    pool: FilePool,
    collector: Collector,
    /// What a request leaves to the environment.
    cwd: Vec<u8>,
    home: Option<Vec<u8>>,
    at_work: Arc<Semaphore>,
}

impl WorkspaceService {
    /// Of one session.
    pub(crate) fn new(
        pool: FilePool,
        collector: Collector,
        unacknowledged: Rc<Unacknowledged>,
        cwd: Vec<u8>,
    ) -> Self {
        use std::os::unix::ffi::OsStringExt as _;
        let home = std::env::var_os("HOME").map(|home| home.into_vec());
        let inner = Inner {
            pool,
            collector,
            cwd,
            home: home.filter(|home| home.first() == Some(&b'/')),
            at_work: Arc::new(Semaphore::new(LOADS_AT_WORK_MAX)),
        };
        Self {
            inner: Arc::new(inner),
            unacknowledged,
        }
    }

    /// The session is over: what waits is dropped.
    pub(crate) fn close(&self) {
        self.inner.at_work.close();
    }

    /// Serves a request, when its turn comes.
    pub(crate) fn serve<A: Actor>(&self, context: TraceContext, call: Call, turn: &Turn<'_, A>) {
        let (inner, unacknowledged) = (Arc::clone(&self.inner), Rc::clone(&self.unacknowledged));
        turn.spawn(async move {
            let cancellation = call.responder.cancellation();
            let permit = tokio::select! {
                permit = its_turn(&inner.at_work, &unacknowledged) => permit,
                // Its client has been told.
                () = cancellation.cancelled() => return,
            };
            if permit.is_none() || !call.responder.begin() {
                return;
            }
            let result = match call.request {
                Request::FindUp(find) => inner.find(find).await.map(Reply::FoundUp),
                Request::WorkspaceLoad(load) => {
                    let loaded = inner.load(&context, &load).await;
                    loaded.map(|reply| Reply::Workspace(Box::new(reply)))
                }
                Request::EnvironmentInfo
                | Request::Start(_)
                | Request::Write(_)
                | Request::Signal(_)
                | Request::Terminate(_)
                | Request::Resize(_)
                | Request::Read(_)
                | Request::Sessions(_)
                | Request::File(_)
                | Request::Http(_) => {
                    let why = "the request is about no workspace";
                    Err(WireError::new(ErrorCode::BadRequest, why))
                }
            };
            call.responder.answer_later(context, result, call.account).await;
            drop(permit);
        })
        .detach();
    }
}

/// Waits for a place at work, and then until the client has acknowledged enough; whoever waits keeps its place. `None`: the
/// session is over.
async fn its_turn(at_work: &Arc<Semaphore>, unacknowledged: &Unacknowledged) -> Option<OwnedSemaphorePermit> {
    let permit = Arc::clone(at_work).acquire_owned().await.ok()?;
    while unacknowledged.bytes.get() >= UNACKNOWLEDGED_MAX_BYTES {
        tokio::time::sleep(RETRY).await;
        if at_work.is_closed() {
            return None;
        }
    }
    Some(permit)
}

impl Inner {
    async fn find(&self, find: FindUp) -> Result<FoundUp, WireError> {
        let query = Query::try_from(&find)?;
        let job = move || at_once(find_up(&FilesHere, &query, LOCAL_PROBES));
        outcome(self.job(job)?).await?.map(FoundUp::from)
    }

    async fn load(&self, context: &TraceContext, load: &WorkspaceLoad) -> Result<WorkspaceReply, WireError> {
        let plan = Arc::new(Plan::new(load, &self.cwd, self.home.as_deref())?);
        let begun = Tick::now();
        let (its, other) = (Arc::clone(&plan), Arc::clone(&plan));
        // Two jobs, so that the repository is read beside the rest where there is a thread for it.
        let instructions = self.job(move || at_once(Loader::local(&FilesHere, &its).instructions()))?;
        let repository = self.job(move || at_once(Loader::local(&FilesHere, &other).repository()))?;
        let (instructions, repository) = (outcome(instructions).await?, outcome(repository).await?);
        let (reply, spans) = finish(&plan, begun, instructions, repository);
        draw(&self.collector, context, &spans);
        Ok(reply)
    }

    /// Does something on a thread that may block.
    fn job<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> Result<oneshot::Receiver<Option<T>>, WireError> {
        if !self.pool.admit() {
            return Err(WireError::new(ErrorCode::Busy, "too much work on files waits"));
        }
        let (done, wait) = oneshot::channel();
        let job = move || {
            let outcome = catch_unwind(AssertUnwindSafe(work)).ok().flatten();
            drop(done.send(outcome));
        };
        self.pool.put(Box::new(job), PoolSpan::Long);
        Ok(wait)
    }
}

async fn outcome<T>(wait: oneshot::Receiver<Option<T>>) -> Result<T, WireError> {
    match wait.await {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(WireError::new(
            ErrorCode::ActorFailed,
            "work on a workspace panicked",
        )),
        Err(_) => Err(WireError::new(
            ErrorCode::Stopped,
            "the threads for files have ended",
        )),
    }
}

/// A load's parts, below whoever asked for it.
pub(super) fn draw(collector: &Collector, context: &TraceContext, spans: &LoadSpans) {
    if !collector.wants(context) {
        return;
    }
    let stage = |name, span: Span| collector.stage(Stage::new(context, name, span.begun, span.ended));
    stage(semconv::span::ROOT_WALK, spans.root_walk);
    stage(semconv::span::AGENTS_LOAD, spans.agents);
    stage(semconv::span::SKILLS_LOAD, spans.skills);
    stage(semconv::span::REPOSITORY_DISCOVERY, spans.repository);
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_begun_while_a_client_acknowledges_nothing_and_few_are_at_work() {
        let (at_work, unacknowledged) = (
            Arc::new(Semaphore::new(LOADS_AT_WORK_MAX)),
            Unacknowledged::default(),
        );
        unacknowledged.bytes.set(UNACKNOWLEDGED_MAX_BYTES);
        let waits = tokio::time::timeout(Duration::from_secs(3_600), its_turn(&at_work, &unacknowledged));
        assert!(waits.await.is_err());
        // Given up, its place is free again.
        assert_eq!(at_work.available_permits(), LOADS_AT_WORK_MAX);
        unacknowledged.bytes.set(UNACKNOWLEDGED_MAX_BYTES - 1);
        let first = its_turn(&at_work, &unacknowledged).await;
        let second = its_turn(&at_work, &unacknowledged).await;
        assert!(first.is_some() && second.is_some());
        let mut third = std::pin::pin!(its_turn(&at_work, &unacknowledged));
        let mut poll =
            async || std::future::poll_fn(|cx| Poll::Ready(third.as_mut().poll(cx).is_ready())).await;
        assert!(!poll().await);
        drop(first);
        assert!(poll().await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_when_the_session_ends_is_told_to_stop() {
        let (at_work, unacknowledged) = (Arc::new(Semaphore::new(1)), Unacknowledged::default());
        unacknowledged.bytes.set(UNACKNOWLEDGED_MAX_BYTES);
        let close = async {
            tokio::task::yield_now().await;
            at_work.close();
        };
        let both = async {
            tokio::join!(
                its_turn(&at_work, &unacknowledged),
                its_turn(&at_work, &unacknowledged),
                close
            )
        };
        let (first, second, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        assert!(first.is_none() && second.is_none());
    }
}
