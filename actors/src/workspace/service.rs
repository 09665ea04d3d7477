//! Workspaces on the executor: a request is a job or two on the threads for files, and one answer.
//!
//! Of a session `LOADS_AT_WORK_MAX` requests are at work at a time; the others wait in the order in which they came. They
//! hold nothing but themselves, and there are no more of them than the session's admission lets in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use dwell_messages::workspace::{FindUp, FoundUp, WorkspaceLoad, WorkspaceReply};
use dwell_messages::{ErrorCode, Reply, Request, TraceContext, WireError};
use tokio::sync::{Semaphore, oneshot};

use super::loader::{LoadSpans, Loader, Span, finish};
use super::pipeline::at_once;
use super::plan::Plan;
use crate::files::{FilePool, FilesHere, PoolSpan};
use crate::find_up::{LOCAL_PROBES, Query, find_up};
use crate::mailbox::{Actor, Turn};
use crate::rpc_queue::server::Call;
use crate::telemetry::{Collector, Stage, Tick, semconv};

/// Requests of one session at work at a time: a load has two jobs, and the pool two threads for what may take long.
pub const LOADS_AT_WORK_MAX: usize = 2;

/// See the module.
#[derive(Clone)]
pub(crate) struct WorkspaceService(Arc<Inner>);

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
    pub(crate) fn new(pool: FilePool, collector: Collector, cwd: Vec<u8>) -> Self {
        use std::os::unix::ffi::OsStringExt as _;
        let home = std::env::var_os("HOME").map(|home| home.into_vec());
        Self(Arc::new(Inner {
            pool,
            collector,
            cwd,
            home: home.filter(|home| home.first() == Some(&b'/')),
            at_work: Arc::new(Semaphore::new(LOADS_AT_WORK_MAX)),
        }))
    }

    /// Serves a request, when its turn comes.
    pub(crate) fn serve<A: Actor>(&self, context: TraceContext, call: Call, turn: &Turn<'_, A>) {
        let inner = Arc::clone(&self.0);
        turn.spawn(async move {
            let cancellation = call.responder.cancellation();
            let permit = tokio::select! {
                permit = Arc::clone(&inner.at_work).acquire_owned() => permit,
                // Its client has been told.
                () = cancellation.cancelled() => return,
            };
            if permit.is_err() || !call.responder.begin() {
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
                | Request::File(_) => {
                    let why = "the request is about no workspace";
                    Err(WireError::new(ErrorCode::BadRequest, why))
                }
            };
            drop(permit);
            call.responder.answer_later(context, result, call.account).await;
        })
        .detach();
    }
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
