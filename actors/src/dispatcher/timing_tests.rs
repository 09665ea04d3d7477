use std::panic::{AssertUnwindSafe, catch_unwind};

use dwell_messages::Role;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::telemetry::{CollectorOptions, root};

/// One rate for a whole test: it becomes more exact while a process runs.
struct Clock(Scale);

impl Clock {
    fn new() -> Self {
        Self(Scale::now())
    }

    /// So many microseconds after the call was made.
    fn at(&self, micros: u64) -> Tick {
        let ns_in_a_million_ticks = self.0.nanos(1_000_000);
        Tick::from_raw(1_000_000_000 + micros * 1_000 * 1_000_000 / ns_in_a_million_ticks)
    }

    fn marks(&self, taken: u64, ready: Option<u64>, locked: u64, started: u64) -> Marks {
        Marks {
            begun: self.at(0),
            taken: Some(self.at(taken)),
            ready: ready.map(|micros| self.at(micros)),
            locked: Some(self.at(locked)),
            started: Some(self.at(started)),
        }
    }

    fn timings(&self, marks: &Marks, over: u64) -> DispatchTimings {
        marks.timings_at(self.at(over), self.0)
    }
}

/// Ticks are not whole microseconds.
fn about(figure: u64, micros: u64) -> bool {
    figure.abs_diff(micros) <= 2
}

#[test]
fn a_call_is_dispatch_until_it_is_begun_and_handler_from_then_on() {
    let clock = Clock::new();
    let timings = clock.timings(&clock.marks(10, Some(30), 100, 110), 500);
    assert!(timings.execution_started);
    assert!(about(timings.readiness_us, 20), "{timings:?}");
    assert!(about(timings.lock_us, 70), "{timings:?}");
    assert!(about(timings.dispatch_us, 110), "{timings:?}");
    assert!(about(timings.handler_us, 390), "{timings:?}");
    assert!(about(timings.total_us, 500), "{timings:?}");
}

#[test]
fn a_link_that_was_up_before_the_call_is_not_waited_for() {
    let clock = Clock::new();
    let mut early = clock.marks(10, None, 100, 110);
    early.ready = Some(Tick::from_raw(1));
    let timings = clock.timings(&early, 500);
    assert_eq!(timings.readiness_us, 0);
    assert!(about(timings.lock_us, 90), "{timings:?}");
}

#[test]
fn a_call_that_was_cancelled_before_its_start_has_no_handler() {
    let clock = Clock::new();
    let mut waiting = Marks::new(clock.at(0));
    waiting.taken = Some(clock.at(10));
    let timings = clock.timings(&waiting, 300);
    assert!(!timings.execution_started);
    assert_eq!((timings.dispatch_us, timings.handler_us), (timings.total_us, 0));
    assert!(about(timings.total_us, 300), "{timings:?}");
    assert!(
        about(timings.readiness_us, 290),
        "it knew of no link: {timings:?}"
    );
}

#[test]
fn a_mark_later_than_the_end_is_ignored() {
    let clock = Clock::new();
    let timings = clock.timings(&clock.marks(10, Some(0), 310, 320), 300);
    assert!(!timings.execution_started);
    assert_eq!((timings.dispatch_us, timings.handler_us), (timings.total_us, 0));
    let begun = clock.timings(&clock.marks(10, Some(0), 280, 290), 300);
    assert!(begun.execution_started, "one before it is not");
}

proptest! {
    #[test]
    fn dispatch_and_handler_make_the_total_whatever_the_marks(
        times in prop::collection::vec(option::of(0_u64..1_000_000), 4),
        over in 0_u64..1_000_000,
    ) {
        let clock = Clock::new();
        let mark = |index: usize| times[index].map(|micros| clock.at(micros));
        let marks = Marks { begun: clock.at(0), taken: mark(0), ready: mark(1), locked: mark(2), started: mark(3) };
        let timings = marks.timings(clock.at(over));
        prop_assert_eq!(timings.dispatch_us + timings.handler_us, timings.total_us);
        prop_assert!(timings.readiness_us + timings.lock_us <= timings.dispatch_us);
        if !timings.execution_started {
            prop_assert_eq!(timings.handler_us, 0);
        }
    }
}

fn collector() -> Collector {
    Collector::start(CollectorOptions {
        role: Role::Harness,
        keep_recent: false,
        sinks: Vec::new(),
    })
    .unwrap()
}

/// How often each outcome was told, of parallel calls.
fn told(collector: &Collector) -> Vec<(&'static str, u64)> {
    let dispatches = collector.board().meters().dispatches();
    dispatches
        .get("parallel")
        .map(|dispatched| {
            dispatched
                .outcomes
                .iter()
                .map(|(name, count)| (*name, *count))
                .collect()
        })
        .unwrap_or_default()
}

fn guard(collector: &Collector) -> DispatchGuard {
    DispatchGuard::new(collector, &root(false), Tick::now(), Mode::Parallel)
}

#[test]
fn a_guard_that_is_dropped_tells_and_one_that_has_told_does_not_tell_again() {
    let collector = collector();
    drop(guard(&collector));
    assert_eq!(told(&collector), [(NOT_STARTED, 1)]);
    let mut started = guard(&collector);
    drop(started.started(None, Tick::now(), Tick::now()));
    started.over(Tick::now(), DispatchOutcome::Success);
    assert_eq!(told(&collector), [(NOT_STARTED, 1), ("success", 1)]);
}

#[test]
fn a_guard_that_is_lost_in_a_panic_tells() {
    let collector = collector();
    let mut guard = guard(&collector);
    drop(guard.started(None, Tick::now(), Tick::now()));
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _held = guard;
        panic!("injected");
    }));
    assert!(panicked.is_err());
    assert_eq!(told(&collector), [("error", 1)]);
}
