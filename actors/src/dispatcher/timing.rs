//! How long a call waited until it was begun, and how long it then took.
//!
//! `Marks` is the pure part. `DispatchGuard` tells it, once: when the call is over, and else when it is dropped, so that a
//! call that was cancelled, refused or lost in a panic is told too.

use dwell_messages::process::Ending;
use dwell_messages::{ExitStatus, SpanId, TraceContext};
use serde::Serialize;

use super::Mode;
use crate::harness::{Ended, RunError};
use crate::telemetry::{Collector, Scale, Stage, Tick, semconv, span_id};

/// How one call was dispatched: always `dispatch_us + handler_us == total_us`. Whole microseconds, by this side's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DispatchTimings {
    /// Whether it was begun: the link was up, and its turn had come.
    pub execution_started: bool,
    /// From `exec` until it was begun; all of the time for one that never was.
    pub dispatch_us: u64,
    /// The part of that which it waited for the link to be ready.
    pub readiness_us: u64,
    /// The part of that which it waited for its turn after serial calls, or as one.
    pub lock_us: u64,
    /// From there until its end was known here; 0 for one that was never begun.
    pub handler_us: u64,
    /// From `exec` until its end was known here.
    pub total_us: u64,
}

/// What came of a dispatched call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DispatchOutcome {
    /// It ended by itself, with whatever code.
    Success,
    /// It has no end, or one that nobody here asked for.
    Error(&'static str),
    /// Its client had it ended.
    Terminated,
}

impl DispatchOutcome {
    /// Of a run that ended; `asked`: its client wanted it to.
    pub(crate) fn of(end: &Result<Ended, RunError>, asked: bool) -> Self {
        match end {
            Ok(ended) => match (ended.exited.and_then(|exited| exited.ending), ended.status) {
                (Some(Ending::Terminated), _) => Self::Terminated,
                (Some(Ending::Deadline), _) => Self::Error("deadline"),
                (Some(Ending::Session), _) => Self::Error("session"),
                (None, ExitStatus::Code(_)) => Self::Success,
                (None, ExitStatus::Signal(_)) if asked => Self::Terminated,
                (None, ExitStatus::Signal(_)) => Self::Error("signal"),
            },
            Err(error) => Self::Error(error.error_type()),
        }
    }

    /// As a label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error(_) => "error",
            Self::Terminated => "terminated",
        }
    }

    fn error_type(self) -> Option<&'static str> {
        match self {
            Self::Success | Self::Terminated => None,
            Self::Error(error) => Some(error),
        }
    }
}

/// The label of a call that was never begun, whatever its outcome.
pub(crate) const NOT_STARTED: &str = "not_started";

/// When a call came to what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    /// `exec` was called.
    begun: Tick,
    /// The dispatcher took it.
    taken: Option<Tick>,
    /// The link was up, which may have been before all of this.
    ready: Option<Tick>,
    /// Its turn came.
    locked: Option<Tick>,
    /// It was handed on.
    started: Option<Tick>,
}

impl Marks {
    pub(crate) fn new(begun: Tick) -> Self {
        Self {
            begun,
            taken: None,
            ready: None,
            locked: None,
            started: None,
        }
    }

    /// The account of a call that was over at `over`. What is said to have begun later has not.
    pub(crate) fn timings(&self, over: Tick) -> DispatchTimings {
        self.timings_at(over, Scale::now())
    }

    fn timings_at(&self, over: Tick, scale: Scale) -> DispatchTimings {
        let micros = |until: Tick, from: Tick| scale.nanos(until.ticks_since(from)) / 1_000;
        let within = |mark: Option<Tick>| mark.filter(|at| *at <= over);
        let total_us = micros(over, self.begun);
        let started = within(self.started);
        let dispatch_us = started.map_or(total_us, |at| micros(at, self.begun).min(total_us));
        let (mut readiness_us, mut lock_us) = (0, 0);
        if let Some(taken) = within(self.taken) {
            let locked = within(self.locked).unwrap_or(over);
            let ready = within(self.ready).unwrap_or(locked).max(taken);
            readiness_us = micros(ready, taken).min(dispatch_us);
            lock_us = micros(locked, ready).min(dispatch_us - readiness_us);
        }
        DispatchTimings {
            execution_started: started.is_some(),
            dispatch_us,
            readiness_us,
            lock_us,
            handler_us: total_us - dispatch_us,
            total_us,
        }
    }

    /// The dispatch itself as a span, and its waits below it if there were any.
    fn stages(&self, context: &TraceContext, id: SpanId, over: Tick, mode: Mode) -> Vec<Stage> {
        let timings = self.timings(over);
        let from = self.taken.unwrap_or(self.begun);
        let until = self.started.filter(|at| *at <= over).unwrap_or(over);
        let mut stages = vec![
            Stage::with_id(context, id, semconv::span::TOOL_DISPATCH, from, until)
                .text(semconv::DISPATCH_LOCK, mode.name())
                .flag(semconv::DISPATCH_STARTED, timings.execution_started)
                .number(semconv::DISPATCH_US, timings.dispatch_us)
                .number(semconv::DISPATCH_READINESS_US, timings.readiness_us)
                .number(semconv::DISPATCH_LOCK_US, timings.lock_us),
        ];
        let below = TraceContext {
            span_id: id,
            ..context.clone()
        };
        let locked = self.locked.unwrap_or(until);
        let ready = self.ready.unwrap_or(locked).max(from);
        for (name, start, end, waited) in [
            (semconv::span::READINESS, from, ready, timings.readiness_us),
            (semconv::span::LOCK, ready, locked, timings.lock_us),
        ] {
            if waited > 0 {
                stages.push(Stage::new(&below, name, start, end));
            }
        }
        stages
    }
}

/// One call's dispatch, until it is told.
#[derive(Debug)]
pub(crate) struct DispatchGuard {
    marks: Marks,
    mode: Mode,
    context: TraceContext,
    /// Of the dispatch's own span.
    span_id: SpanId,
    collector: Collector,
    told: bool,
}

/// A call that is begun: its spans, for whoever holds no lock.
#[must_use = "nobody else makes these spans"]
pub(crate) struct Begun {
    marks: Marks,
    mode: Mode,
    span_id: SpanId,
}

impl Begun {
    pub(crate) fn tell(&self, collector: &Collector, context: &TraceContext) {
        if let (true, Some(started)) = (collector.wants(context), self.marks.started) {
            let stages = self.marks.stages(context, self.span_id, started, self.mode);
            stages.into_iter().for_each(|stage| collector.stage(stage));
        }
    }
}

impl DispatchGuard {
    /// Of a call that was made at `begun`.
    pub(crate) fn new(collector: &Collector, context: &TraceContext, begun: Tick, mode: Mode) -> Self {
        Self {
            marks: Marks::new(begun),
            mode,
            context: context.clone(),
            span_id: span_id(),
            collector: collector.clone(),
            told: false,
        }
    }

    /// The dispatcher has it.
    pub(crate) fn taken(&mut self, now: Tick) {
        self.marks.taken = Some(now);
    }

    /// The link was up at `ready`, its turn came at `locked`, and now it is handed on.
    pub(crate) fn started(&mut self, ready: Option<Tick>, locked: Tick, now: Tick) -> Begun {
        self.marks.ready = ready;
        self.marks.locked = Some(locked);
        self.marks.started = Some(now);
        Begun {
            marks: self.marks,
            mode: self.mode,
            span_id: self.span_id,
        }
    }

    /// Whether it was handed on.
    pub(crate) fn is_started(&self) -> bool {
        self.marks.started.is_some()
    }

    /// It is over.
    pub(crate) fn over(mut self, now: Tick, outcome: DispatchOutcome) -> DispatchTimings {
        self.tell(now, outcome)
    }

    fn tell(&mut self, now: Tick, outcome: DispatchOutcome) -> DispatchTimings {
        self.told = true;
        let timings = self.marks.timings(now);
        let label = if timings.execution_started {
            outcome.name()
        } else {
            NOT_STARTED
        };
        let meters = self.collector.board().meters();
        meters.dispatched(self.mode.name(), label, timings);
        if !self.collector.wants(&self.context) {
            return timings;
        }
        match self.marks.started.filter(|_| timings.execution_started) {
            Some(started) => {
                let below = TraceContext {
                    span_id: self.span_id,
                    ..self.context.clone()
                };
                let handler = Stage::new(&below, semconv::span::HANDLER, started, now)
                    .number(semconv::DISPATCH_HANDLER_US, timings.handler_us)
                    .number(semconv::DISPATCH_TOTAL_US, timings.total_us)
                    .failed(outcome.error_type());
                self.collector.stage(handler);
            }
            None => {
                let mut stages = self
                    .marks
                    .stages(&self.context, self.span_id, now, self.mode)
                    .into_iter();
                if let Some(dispatch) = stages.next() {
                    self.collector.stage(dispatch.failed(Some(NOT_STARTED)));
                }
                stages.for_each(|stage| self.collector.stage(stage));
            }
        }
        timings
    }
}

impl Drop for DispatchGuard {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Tick::now(), DispatchOutcome::Error(semconv::CANCELLED));
        }
    }
}

#[cfg(test)]
#[path = "timing_tests.rs"]
mod tests;
