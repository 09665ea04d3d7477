//! Places where a test may end the process: before and after each step that a promise rests on; in `delay`, places
//! where it may make a call wait.

#[cfg(feature = "fault-points")]
pub mod delay;
#[cfg(not(feature = "fault-points"))]
pub(crate) mod delay;

use std::sync::OnceLock;

/// A step of keeping a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultPoint {
    /// An event log was opened and read, and nothing of it is repaired yet.
    Opened,
    /// An append was accepted by its thread's actor, and nobody else knows of it yet.
    Accepted,
    /// Items are about to be written to an event log.
    BeforeWrite,
    /// They are written, and not synced.
    AfterWrite,
    /// An event log is about to be synced.
    BeforeSync,
    /// It is synced.
    AfterSync,
    /// Room behind an event log is written, and not synced.
    Prepared,
    /// A thread's record is about to be written.
    BeforeCommit,
    /// It is written, and nobody knows yet.
    AfterCommit,
}

static HOOK: OnceLock<fn(FaultPoint)> = OnceLock::new();

/// Calls `hook` at every step from now on, on the thread that takes it. Once a process; for tests.
pub fn set(hook: fn(FaultPoint)) {
    HOOK.get_or_init(|| hook);
}

pub(crate) fn reach(point: FaultPoint) {
    if let Some(hook) = HOOK.get() {
        hook(point);
    }
}
