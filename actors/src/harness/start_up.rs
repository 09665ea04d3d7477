//! A harness's start-up: which stages it goes through until its first command is over, and how long each takes.
//!
//! A stage is measured by whoever goes through it, by a guard that it holds meanwhile. Nothing waits for a measurement, and nothing
//! happens in another order because of one: a stage that comes after a later one has begun is no part of the start-up
//! any more, and has no span.

use std::fmt;
use std::sync::{Arc, Mutex};

use dwell_messages::{SpanId, TraceContext};

use crate::in_flight::unpoisoned;
use crate::telemetry::{Collector, Stage, Tick, semconv, span_id};

/// The stages, in their order. What a harness has no use for is left out; stages may overlap, but none begins before an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StartUpStage {
    /// Dialling, and proving both ends.
    Connect,
    /// Taking over what the executor said of itself, and setting the session up.
    Environment,
    /// Learning what the working directory is about.
    Workspace,
    /// Choosing the shell that command lines are for. Where the environment names it, only the instant.
    Shell,
    /// The first command, from `exec` until its end is in the caller's hands.
    FirstCommand,
}

impl StartUpStage {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Connect,
        Self::Environment,
        Self::Workspace,
        Self::Shell,
        Self::FirstCommand,
    ];

    /// Its span's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => semconv::span::CONNECT,
            Self::Environment => semconv::span::ENVIRONMENT,
            Self::Workspace => semconv::span::WORKSPACE,
            Self::Shell => semconv::span::SHELL,
            Self::FirstCommand => semconv::span::FIRST_COMMAND,
        }
    }
}

#[derive(Debug, Default)]
struct Progress {
    /// The last stage that has begun.
    at: Option<StartUpStage>,
    /// The latest end of one.
    end: Option<Tick>,
    error: Option<&'static str>,
    told: bool,
}

impl Progress {
    /// Whether a stage is in its place now. Each is at most once.
    fn begin(&mut self, stage: StartUpStage) -> bool {
        let in_order = !self.told && self.at.is_none_or(|at| at < stage);
        if in_order {
            self.at = Some(stage);
        }
        in_order
    }
}

struct Shared {
    collector: Collector,
    /// Its own span's.
    context: TraceContext,
    parent: TraceContext,
    begun: Tick,
    progress: Mutex<Progress>,
}

impl Shared {
    /// The start-up is over.
    fn tell(&self) {
        let mut progress = unpoisoned(&self.progress);
        if std::mem::replace(&mut progress.told, true) {
            return;
        }
        let (end, error) = (progress.end.unwrap_or_else(Tick::now), progress.error);
        drop(progress);
        let mut parent = self.parent.clone();
        // The start-up's own decision, where a sampler went past its parent's.
        parent.flags.0 |= self.context.flags.0;
        let name = semconv::span::START_UP;
        let stage = Stage::with_id(&parent, self.context.span_id, name, self.begun, end);
        if self.context.is_sampled() {
            self.collector.stage(stage.failed(error));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tell();
    }
}

/// One harness's start-up. It is over with the first command, or when nobody can add to it any more.
#[derive(Clone)]
pub struct StartUp(Arc<Shared>);

impl fmt::Debug for StartUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartUp")
            .field("at", &unpoisoned(&self.0.progress).at)
            .finish_non_exhaustive()
    }
}

impl StartUp {
    /// Begins at `begun`. `context` is its own span's, `parent` the one it hangs below.
    pub(crate) fn new(
        collector: Collector,
        (context, parent): (TraceContext, TraceContext),
        begun: Tick,
    ) -> Self {
        Self(Arc::new(Shared {
            collector,
            context,
            parent,
            begun,
            progress: Mutex::default(),
        }))
    }

    /// Begins a stage now. Returns at once, also where the stage comes too late to be one.
    pub fn stage(&self, stage: StartUpStage) -> StageGuard {
        self.stage_at(stage, Tick::now())
    }

    pub(crate) fn stage_at(&self, stage: StartUpStage, begun: Tick) -> StageGuard {
        let counts = unpoisoned(&self.0.progress).begin(stage);
        StageGuard {
            of: counts.then(|| self.clone()),
            stage,
            span_id: span_id(),
            begun,
            ended: None,
        }
    }

    /// A command is called. The first begins its stage; what comes before that and was not measured took no time.
    pub(crate) fn command(&self, begun: Tick) -> Option<StageGuard> {
        self.stage_at(StartUpStage::Shell, begun).finish_at(begun);
        let first = self.stage_at(StartUpStage::FirstCommand, begun);
        first.of.is_some().then_some(first)
    }

    fn ended(&self, stage: &StageGuard, end: Tick, error: Option<&'static str>) {
        let mut progress = unpoisoned(&self.0.progress);
        progress.end = Some(progress.end.map_or(end, |before| before.max(end)));
        progress.error = progress.error.or(error);
        drop(progress);
        if self.0.context.is_sampled() {
            let name = stage.stage.name();
            let span = Stage::with_id(&self.0.context, stage.span_id, name, stage.begun, end);
            self.0.collector.stage(span.failed(error));
        }
        match stage.stage {
            StartUpStage::FirstCommand => self.0.tell(),
            StartUpStage::Connect
            | StartUpStage::Environment
            | StartUpStage::Workspace
            | StartUpStage::Shell => {}
        }
    }
}

/// A stage under way. Dropped without an end it counts as given up.
#[must_use = "dropping it gives the stage up: finish it when it is over"]
pub struct StageGuard {
    of: Option<StartUp>,
    stage: StartUpStage,
    span_id: SpanId,
    begun: Tick,
    ended: Option<(Tick, Option<&'static str>)>,
}

impl fmt::Debug for StageGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageGuard")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl StageGuard {
    /// What belongs to the stage hangs below this; `None` where it is no part of the start-up.
    pub fn context(&self) -> Option<TraceContext> {
        let start_up = self.of.as_ref()?;
        Some(TraceContext {
            span_id: self.span_id,
            ..start_up.0.context.clone()
        })
    }

    /// It is over.
    pub fn finish(self) {
        self.finish_at(Tick::now());
    }

    /// It has failed, with an `error.type` of a fixed set.
    pub fn fail(mut self, error: &'static str) {
        self.ended = Some((Tick::now(), Some(error)));
    }

    pub(crate) fn finish_at(mut self, now: Tick) {
        self.ended = Some((now, None));
    }
}

impl Drop for StageGuard {
    fn drop(&mut self) {
        if let Some(start_up) = self.of.take() {
            let given_up = || (Tick::now(), Some(semconv::CANCELLED));
            let (end, error) = self.ended.take().unwrap_or_else(given_up);
            start_up.ended(self, end, error);
        }
    }
}

#[cfg(test)]
#[path = "start_up_tests.rs"]
mod tests;
