//! An agent's turn: one span, below which its connection, its model requests and its commands hang.

use std::fmt;

use dwell_messages::{TraceContext, TraceId};

use super::Harness;
use crate::telemetry::{Collector, Stage, Tick, root, semconv};

/// A turn that has begun. Its harness may come about within it.
#[derive(Clone, Debug)]
pub struct Turn {
    context: TraceContext,
    begun: Tick,
}

impl Turn {
    /// Begins now, as the root of a trace.
    pub fn begin(sampled: bool) -> Self {
        Self {
            context: root(sampled),
            begun: Tick::now(),
        }
    }

    /// The parent of what belongs to it: `Command::parent`, `responses::Request::parent`.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Its trace.
    pub fn trace_id(&self) -> TraceId {
        self.context.trace_id
    }

    /// Has its span written where this harness's go, when the guard is dropped or told how the turn ended.
    pub fn on(self, harness: &Harness) -> TurnGuard {
        TurnGuard {
            turn: self,
            collector: harness.collector.clone(),
            error: Some(semconv::ABANDONED),
        }
    }
}

/// A turn under way. Dropped without an end, it counts as abandoned.
#[must_use = "dropping it ends the turn as abandoned"]
pub struct TurnGuard {
    turn: Turn,
    collector: Collector,
    error: Option<&'static str>,
}

impl fmt::Debug for TurnGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.turn.fmt(f)
    }
}

impl TurnGuard {
    /// The turn itself.
    pub fn turn(&self) -> &Turn {
        &self.turn
    }

    /// It is over.
    pub fn finish(mut self) {
        self.error = None;
    }

    /// It failed, with an `error.type` of low cardinality.
    pub fn fail(mut self, error: &'static str) {
        self.error = Some(error);
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        let Turn { context, begun } = &self.turn;
        let name = semconv::span::AGENT_TURN;
        let stage = Stage::with_id(context, context.span_id, name, *begun, Tick::now());
        self.collector.stage(stage.root().failed(self.error));
    }
}
