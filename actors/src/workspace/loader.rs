//! Loading a workspace through a file system: the same on the executor, whose disk is near, and on a client, for whom each
//! question is a round trip.
//!
//! Four parts: the root walk, then instructions and skills side by side, and the repository beside all three. None waits
//! for another that it does not need, and none fails another.

use std::sync::atomic::{AtomicU32, Ordering};

use dwell_messages::files::DirectoryEntry;
use dwell_messages::workspace::{
    LoadCounts, LoadStages, OnError, StageTime, WARNINGS_MAX, Warning, WorkspaceReply,
};
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;

use super::agents::AgentsLoaded;
use super::assemble::assemble;
use super::hint::{HintCounts, RootHint};
use super::plan::Plan;
use super::repository::RepositoryLoaded;
use super::skills::SkillsLoaded;
use crate::files::{FileSystem, Front};
use crate::find_up::{Found, LOCAL_PROBES, PROBES_MAX, Query, find_up};
use crate::telemetry::Tick;

/// Reads a workspace, and counts what that takes.
pub struct Loader<'a> {
    pub(super) files: &'a dyn FileSystem,
    pub(super) plan: &'a Plan,
    pub(super) in_flight: usize,
    clock: fn() -> Tick,
    read: AtomicU32,
    listed: AtomicU32,
    probed: AtomicU32,
}

/// When a part of a load was at work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// From then.
    pub begun: Tick,
    /// Until then.
    pub ended: Tick,
}

/// The project's root, as the instructions' load looks for it.
#[derive(Debug)]
pub struct RootLook {
    /// The root, where a marker was found.
    pub root: Option<Vec<u8>>,
    /// It again, for the skills' load next to this one.
    pub hint: Option<RootHint>,
    /// Why nobody knows.
    pub error: Option<WireError>,
}

/// The root walk, instructions and skills.
#[derive(Debug)]
pub struct Instructions {
    pub(super) look: RootLook,
    pub(super) agents: AgentsLoaded,
    pub(super) skills: SkillsLoaded,
    /// Root walk, instructions, skills.
    pub(super) spans: [Span; 3],
    pub(super) counts: LoadCounts,
}

/// The spans of a load's parts, for whoever draws them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadSpans {
    /// Looking for the root.
    pub root_walk: Span,
    /// Reading instructions.
    pub agents: Span,
    /// Reading skills.
    pub skills: Span,
    /// The repository.
    pub repository: Span,
}

impl<'a> Loader<'a> {
    /// Through a file system that is far: `PROBES_MAX` questions at a time.
    pub fn remote(files: &'a dyn FileSystem, plan: &'a Plan) -> Self {
        Self::new(files, plan, PROBES_MAX, Tick::now)
    }

    /// Through one that is here: one question after the other.
    pub fn local(files: &'a dyn FileSystem, plan: &'a Plan) -> Self {
        Self::new(files, plan, LOCAL_PROBES, Tick::now)
    }

    /// With so many questions in flight, and this clock.
    pub fn new(files: &'a dyn FileSystem, plan: &'a Plan, in_flight: usize, clock: fn() -> Tick) -> Self {
        Self {
            files,
            plan,
            in_flight,
            clock,
            read: AtomicU32::new(0),
            listed: AtomicU32::new(0),
            probed: AtomicU32::new(0),
        }
    }

    /// Everything. Never fails: what could not be read is in the answer's warnings.
    pub async fn load(&self) -> (WorkspaceReply, LoadSpans) {
        let begun = self.now();
        let beside = Self::new(self.files, self.plan, self.in_flight, self.clock);
        let (instructions, repository) = tokio::join!(self.instructions(), beside.repository());
        finish(self.plan, begun, instructions, repository)
    }

    /// The root walk, then instructions and skills.
    pub async fn instructions(&self) -> Instructions {
        let begun = self.now();
        let mut look = self.root().await;
        let walked = Span {
            begun,
            ended: self.now(),
        };
        let hint = look.hint.take();
        let failed = look.error.is_some();
        let (agents, skills) = tokio::join!(
            self.timed(async {
                if failed {
                    AgentsLoaded::default()
                } else {
                    self.agents(look.root.as_deref()).await
                }
            }),
            self.timed(self.skills(hint)),
        );
        Instructions {
            counts: self.counts(skills.0.hints),
            agents: agents.0,
            skills: skills.0,
            spans: [walked, agents.1, skills.1],
            look,
        }
    }

    /// Looks for the project's root. A failed probe fails it: to take a further root for the nearest would be to follow
    /// somebody else's instructions.
    pub async fn root(&self) -> RootLook {
        let plan = self.plan;
        match self.search(&plan.markers, OnError::Propagate).await {
            Ok(found) => {
                let hint = found
                    .root
                    .as_ref()
                    .map(|root| RootHint::new(self.files.identity(), &plan.cwd, root, &plan.markers));
                RootLook {
                    root: found.root,
                    hint,
                    error: None,
                }
            }
            Err(error) => RootLook {
                root: None,
                hint: None,
                error: Some(error),
            },
        }
    }

    pub(super) fn counts(&self, hints: HintCounts) -> LoadCounts {
        LoadCounts {
            probed: self.probed.load(Ordering::Relaxed),
            read: self.read.load(Ordering::Relaxed),
            listed: self.listed.load(Ordering::Relaxed),
            hint_used: hints.used,
            hint_rejected: hints.rejected,
        }
    }

    pub(super) fn now(&self) -> Tick {
        (self.clock)()
    }

    pub(super) async fn timed<T>(&self, part: impl Future<Output = T>) -> (T, Span) {
        let begun = self.now();
        let value = part.await;
        let ended = self.now();
        (value, Span { begun, ended })
    }

    /// A search from the directory upwards.
    pub(super) async fn search<M: AsRef<[u8]>>(
        &self,
        markers: &[M],
        on_error: OnError,
    ) -> Result<Found, WireError> {
        let query = Query::new(&self.plan.cwd, markers, on_error)?;
        let outcome = find_up(self.files, &query, self.in_flight).await;
        if let Ok(found) = &outcome {
            self.probed.fetch_add(found.probed, Ordering::Relaxed);
        }
        outcome
    }

    pub(super) async fn front(&self, path: &[u8], max_bytes: usize) -> Result<Front, WireError> {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.files.front(path, max_bytes as u64).await
    }

    pub(super) async fn list(&self, path: &[u8], max: usize) -> Result<Vec<DirectoryEntry>, WireError> {
        self.listed.fetch_add(1, Ordering::Relaxed);
        self.files.list(path, max).await
    }
}

/// Puts the parts together, within the bounds of one answer. `begun`: when the load began.
pub(super) fn finish(
    plan: &Plan,
    begun: Tick,
    instructions: Instructions,
    repository: (RepositoryLoaded, Span),
) -> (WorkspaceReply, LoadSpans) {
    let (repository, beside) = repository;
    let [root_walk, agents, skills] = instructions.spans;
    let time = |span: Span| StageTime {
        at_us: span.begun.micros_since(begun),
        took_us: span.ended.micros_since(span.begun),
    };
    let (own, other) = (instructions.counts, repository.counts);
    let mut reply = assemble(plan, instructions, repository);
    reply.stages = LoadStages {
        root_walk: time(root_walk),
        agents: time(agents),
        skills: time(skills),
        repository: time(beside),
    };
    reply.counts = LoadCounts {
        probed: own.probed.saturating_add(other.probed),
        read: own.read.saturating_add(other.read),
        listed: own.listed.saturating_add(other.listed),
        ..own
    };
    let spans = LoadSpans {
        root_walk,
        agents,
        skills,
        repository: beside,
    };
    (reply, spans)
}

/// Warnings of one part, at most `WARNINGS_MAX`; the others are counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Notes {
    pub(super) warnings: Vec<Warning>,
    pub(super) dropped: u32,
}

impl Notes {
    pub(super) fn note(&mut self, code: ErrorCode, path: &[u8], message: impl Into<String>) {
        if self.warnings.len() >= WARNINGS_MAX {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.warnings.push(Warning {
            code,
            path: ByteBuf::from(path.to_vec()),
            message: message.into(),
        });
    }

    pub(super) fn failed(&mut self, path: &[u8], error: &WireError) {
        self.note(error.code, path, error.message.clone());
    }

    pub(super) fn append(&mut self, other: Self) {
        self.dropped = self.dropped.saturating_add(other.dropped);
        for warning in other.warnings {
            self.note(warning.code, &warning.path, warning.message);
        }
    }
}
