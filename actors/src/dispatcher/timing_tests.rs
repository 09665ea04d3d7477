use std::panic::{AssertUnwindSafe, catch_unwind};

use dwell_messages::Role;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::telemetry::{CollectorOptions, root};

/// So many microseconds after the call was made.
fn at(micros: u64) -> Tick {
    Tick::from_raw(1_000_000_000_000).earlier_by_micros(1_000_000 - micros)
}

fn marks(taken: u64, ready: Option<u64>, locked: u64, started: u64) -> Marks {
    Marks {
        begun: at(0),
        taken: Some(at(taken)),
        ready: ready.map(at),
        locked: Some(at(locked)),
        started: Some(at(started)),
    }
}

/// Ticks are not whole microseconds.
fn about(figure: u64, micros: u64) -> bool {
    figure.abs_diff(micros) <= 1
}

#[test]
fn a_call_is_dispatch_until_it_is_begun_and_handler_from_then_on() {
    let timings = marks(10, Some(30), 100, 110).timings(at(500));
    assert!(timings.execution_started);
    assert!(about(timings.readiness_us, 20), "{timings:?}");
    assert!(about(timings.lock_us, 70), "{timings:?}");
    assert!(about(timings.dispatch_us, 110), "{timings:?}");
    assert!(about(timings.handler_us, 390), "{timings:?}");
    assert!(about(timings.total_us, 500), "{timings:?}");
}

#[test]
fn a_link_that_was_up_before_the_call_is_not_waited_for() {
    let mut early = marks(10, None, 100, 110);
    early.ready = Some(at(0).earlier_by_micros(1_000));
    let timings = early.timings(at(500));
    assert_eq!(timings.readiness_us, 0);
    assert!(about(timings.lock_us, 90), "{timings:?}");
}

#[test]
fn a_call_that_was_cancelled_before_its_start_has_no_handler() {
    let mut waiting = Marks::new(at(0));
    waiting.taken = Some(at(10));
    let timings = waiting.timings(at(300));
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
    let timings = marks(10, Some(0), 301, 302).timings(at(300));
    assert!(!timings.execution_started);
    assert_eq!((timings.dispatch_us, timings.handler_us), (timings.total_us, 0));
    let begun = marks(10, Some(0), 298, 299).timings(at(300));
    assert!(begun.execution_started, "one before it is not");
}

proptest! {
    #[test]
    fn dispatch_and_handler_make_the_total_whatever_the_marks(
        times in prop::collection::vec(option::of(0_u64..1_000_000), 4),
        over in 0_u64..1_000_000,
    ) {
        let mark = |index: usize| times[index].map(at);
        let marks = Marks { begun: at(0), taken: mark(0), ready: mark(1), locked: mark(2), started: mark(3) };
        let timings = marks.timings(at(over));
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
