//! Workspaces, as a harness loads them.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, PoisonError};

use dwell_messages::{EnvironmentInfo, ExitStatus, Reply as WireReply, Request, TraceContext};
use tokio::sync::oneshot;

use super::handle::ancestry;
use super::run::{Run, RunError, unanswered};
use super::{Command, Harness, StartUpStage};
use crate::files::FileSystem;
use crate::find_up::{Found, Query};
use crate::mailbox::Reply;
use crate::telemetry::{Sampler, Tick};
use crate::workspace::{
    Load, STATUS_DEADLINE, Through, WORKSPACE, WorkspaceLoaded, WorkspaceMessage, WorkspaceOptions,
};

/// A load that goes with the session's first record.
pub(crate) struct First {
    pub(crate) load: Load,
    /// Its own span's.
    pub(crate) context: TraceContext,
    /// Whether the files are asked for one by one in any case.
    pub(crate) from_here: bool,
}

/// Its answer, for whoever asks first.
pub(super) struct Awaited {
    answer: oneshot::Receiver<Result<WorkspaceLoaded, RunError>>,
    status: Option<Run>,
}

impl First {
    /// What is asked, and where the answer comes.
    pub(super) fn of(
        options: &WorkspaceOptions,
        sampler: &Sampler,
    ) -> (Self, oneshot::Receiver<Result<WorkspaceLoaded, RunError>>) {
        let begun = Tick::now();
        let (reply, answer) = Reply::channel();
        let (context, parent) = ancestry(sampler, options.parent.as_ref(), options.sampled);
        let load = Load {
            request: options.load.clone(),
            through: Through::Executor,
            parent,
            begun,
            stage: None,
            reply,
        };
        let from_here = options.from_here;
        let first = Self {
            load,
            context,
            from_here,
        };
        (first, answer)
    }
}

/// Whether an environment answers a load at once.
pub(crate) fn loads_at_once(environment: &EnvironmentInfo) -> bool {
    environment
        .capabilities
        .iter()
        .any(|capability| capability == WORKSPACE)
}

impl Awaited {
    pub(super) fn new(
        harness: &Harness,
        options: &WorkspaceOptions,
        answer: oneshot::Receiver<Result<WorkspaceLoaded, RunError>>,
    ) -> Self {
        Self {
            answer,
            status: harness.status(options),
        }
    }
}

impl Harness {
    /// Loads a workspace: instructions, skills and repository around a directory. One round trip, whatever there is; from an
    /// environment that only answers questions about files, a few. Each load looks at everything again. Needs the scope
    /// `files`. Cancellation safe: a load that is given up changes nothing.
    ///
    /// # Errors
    /// When the options make no sense, the key lacks the scope, and when the link is lost. What is wrong with the workspace
    /// itself is no error: see `WorkspaceLoaded::warnings`.
    pub async fn workspace(&self, options: &WorkspaceOptions) -> Result<WorkspaceLoaded, RunError> {
        let begun = Tick::now();
        let stage = Some(self.start_up.stage_at(StartUpStage::Workspace, begun));
        let status = self.status(options);
        let (context, parent) = ancestry(&self.sampler, options.parent.as_ref(), options.sampled);
        let through = if loads_at_once(&self.connected.environment) && !options.from_here {
            Through::Executor
        } else {
            let files: Arc<dyn FileSystem> = Arc::new(self.files().parent(context.clone()));
            Through::Files(files, self.connected.environment.cwd.to_vec())
        };
        let answer = self.connected.workspace.ask(context, |reply| {
            let load = Load {
                request: options.load.clone(),
                through,
                parent,
                begun,
                stage,
                reply,
            };
            WorkspaceMessage::Load(Box::new(load))
        });
        let loaded = answer.await.map_err(|error| unanswered(&error))??;
        Ok(with_status(loaded, status).await)
    }

    /// What was asked for with `HarnessBuilder::workspace`, once: its request was in the session's first record. `None`:
    /// nothing was, or somebody has it already. Not cancellation safe: given up, it is gone.
    ///
    /// # Errors
    /// As `workspace`.
    pub async fn first_workspace(&self) -> Option<Result<WorkspaceLoaded, RunError>> {
        let awaited = self.first.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let answer = awaited.answer.await;
        let lost = || RunError::Lost("the harness's own actor failed while a workspace was loaded".into());
        Some(match answer.unwrap_or_else(|_| Err(lost())) {
            Ok(loaded) => Ok(with_status(loaded, awaited.status).await),
            Err(error) => Err(error),
        })
    }

    /// Looks for the nearest directory that holds a marker, in one round trip. Needs the scope `files`. Cancellation safe.
    ///
    /// # Errors
    /// The first failed probe in order, where the query says that errors are propagated; as `workspace` otherwise.
    pub async fn find_up(&self, query: &Query) -> Result<Found, RunError> {
        let (context, _) = ancestry(&self.sampler, None, None);
        match self
            .asker(context)
            .ask(None, Request::FindUp(query.into()))
            .await?
        {
            WireReply::FoundUp(found) => Ok(found.into()),
            _ => Err(RunError::Lost(
                "the executor answered a search with something else".into(),
            )),
        }
    }

    /// `git status`, if it is wanted: a command like any other, of which nothing is kept but whether it says something.
    fn status(&self, options: &WorkspaceOptions) -> Option<Run> {
        if !options.dirty {
            return None;
        }
        // Nothing is locked, and no monitor of the repository's choosing is started.
        let mut command = Command::new("git")
            .args([
                "--no-optional-locks",
                "-c",
                "core.fsmonitor=false",
                "status",
                "--porcelain",
            ])
            .output_limit(1)
            .deadline(STATUS_DEADLINE);
        if let Some(cwd) = &options.load.cwd {
            command = command.current_dir(std::ffi::OsStr::from_bytes(cwd));
        }
        if let Some(sampled) = options.sampled {
            command = command.sampled(sampled);
        }
        if let Some(parent) = &options.parent {
            command = command.parent(parent.clone());
        }
        Some(self.run(command, Tick::now()))
    }
}

/// With what `git status` says. Where it fails, or takes too long, it is not known.
async fn with_status(mut loaded: WorkspaceLoaded, status: Option<Run>) -> WorkspaceLoaded {
    if let (Some(repository), Some(status)) = (&mut loaded.repository, status)
        && let Ok(finished) = status.wait().await
        && finished.status == ExitStatus::Code(0)
    {
        repository.dirty = Some(finished.output_bytes[0] > 0);
    }
    loaded
}
