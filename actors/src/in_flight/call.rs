//! A call under way, and where it is now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use dwell_messages::{ProcessId, TraceContext, TraceId};

use crate::relay_framer::SendStamps;
use crate::telemetry::Tick;

/// What kind of call it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CallKind {
    /// A command, from `exec` until its consumer has the end.
    Run,
    /// A request of this side that waits for its answer.
    Request,
    /// A request of the other side that is being served.
    Served,
}

impl CallKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Request => "request",
            Self::Served => "served",
        }
    }
}

/// Where a call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Given to the `Dispatcher`, which has not taken it.
    HandOff = 0,
    /// Waits for the link, or for the lock that keeps serial calls apart.
    Dispatch,
    /// Waits for its place among the requests in flight.
    Window,
    /// With the framer, not written yet.
    Link,
    /// Written; the executor has not answered.
    Response,
    /// Its process runs.
    Running,
    /// Its process has exited; a pipe of it is still open.
    Draining,
    /// Over; whoever asked has not taken the end.
    Consumer,
    /// Admitted, on its way to the `Dispatcher`.
    Admitted,
    /// On its way to whoever serves it, or there.
    Service,
    /// With the thread that spawns.
    Spawner,
}

impl Stage {
    const ALL: [Self; 11] = [
        Self::HandOff,
        Self::Dispatch,
        Self::Window,
        Self::Link,
        Self::Response,
        Self::Running,
        Self::Draining,
        Self::Consumer,
        Self::Admitted,
        Self::Service,
        Self::Spawner,
    ];

    /// One word, of a fixed set.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HandOff => "hand_off",
            Self::Dispatch => "dispatch",
            Self::Window => "window",
            Self::Link => "link",
            Self::Response => "response",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Consumer => "consumer",
            Self::Admitted => "admitted",
            Self::Service => "service",
            Self::Spawner => "spawner",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) kind: CallKind,
    /// Of a fixed set.
    pub(crate) method: &'static str,
    pub(crate) trace: TraceId,
    pub(crate) sampled: bool,
    pub(crate) began: Tick,
    process: AtomicU64,
    at: AtomicU8,
    since: AtomicU64,
    /// When the request was written, once it has been.
    stamps: Option<Arc<SendStamps>>,
}

impl Call {
    pub(crate) fn new(kind: CallKind, method: &'static str, context: &TraceContext, began: Tick) -> Self {
        let at = match kind {
            CallKind::Run => Stage::HandOff,
            CallKind::Request => Stage::Window,
            CallKind::Served => Stage::Admitted,
        };
        Self {
            kind,
            method,
            trace: context.trace_id,
            sampled: context.is_sampled(),
            began,
            process: AtomicU64::new(0),
            at: AtomicU8::new(at as u8),
            since: AtomicU64::new(began.to_raw()),
            stamps: None,
        }
    }

    /// The process that it is about, if that is known.
    #[must_use]
    pub(crate) fn about(self, process: Option<ProcessId>) -> Self {
        self.process
            .store(process.map_or(0, |process| process.0), Ordering::Relaxed);
        self
    }

    /// Where it is found when its request was written.
    #[must_use]
    pub(crate) fn stamped(mut self, stamps: Arc<SendStamps>) -> Self {
        self.stamps = Some(stamps);
        self
    }

    pub(crate) fn of_process(&self, process: ProcessId) {
        self.process.store(process.0, Ordering::Relaxed);
    }

    pub(crate) fn process(&self) -> u64 {
        self.process.load(Ordering::Relaxed)
    }

    /// It has come to the next stage.
    pub(crate) fn at(&self, stage: Stage, now: Tick) {
        self.since.store(now.to_raw(), Ordering::Relaxed);
        self.at.store(stage as u8, Ordering::Relaxed);
    }

    /// Where it is, and since when.
    pub(crate) fn place(&self) -> (Stage, Tick) {
        let at = usize::from(self.at.load(Ordering::Relaxed));
        let stage = Stage::ALL.get(at).copied().unwrap_or(Stage::HandOff);
        let since = Tick::from_raw(self.since.load(Ordering::Relaxed));
        let written = self.stamps.as_ref().and_then(|stamps| stamps.first_written());
        match (stage, written) {
            (Stage::Link, Some(written)) => (Stage::Response, written),
            _ => (stage, since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_comes_back_as_itself_and_has_a_name_of_its_own() {
        let call = Call::new(
            CallKind::Run,
            "Process/Start",
            &TraceContext::default(),
            Tick::now(),
        );
        let mut names: Vec<_> = Stage::ALL.iter().map(|stage| stage.name()).collect();
        for stage in Stage::ALL {
            let now = Tick::now();
            call.at(stage, now);
            assert_eq!(call.place(), (stage, now));
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Stage::ALL.len());
    }

    #[test]
    fn a_request_waits_for_its_answer_as_soon_as_it_is_written() {
        let stamps = Arc::new(SendStamps::default());
        let context = TraceContext::default();
        let call = Call::new(CallKind::Request, "Process/Start", &context, Tick::now());
        let call = call.stamped(Arc::clone(&stamps));
        call.at(Stage::Link, Tick::now());
        assert_eq!(call.place().0, Stage::Link);
        let now = Tick::now();
        stamps.written(now);
        assert_eq!(call.place(), (Stage::Response, now));
    }
}
