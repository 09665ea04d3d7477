//! The order of a thread's metadata, rule by rule: no runtime, no store, time as an argument.

use std::time::{Duration, Instant};

use dwell_actors::metadata_store::{Change, ThreadPatch};
use dwell_actors::metadata_writer::{Flight, GATHER, MetadataCore, Next, Release, TOUCH_INTERVAL};
use dwell_messages::TraceContext;

type Core = MetadataCore<u32>;
type Told = Vec<(u32, Result<(), &'static str>)>;

fn title(text: &str) -> ThreadPatch {
    ThreadPatch {
        title: Change::Set(text.into()),
        ..ThreadPatch::default()
    }
}

fn turns(turns: u64) -> ThreadPatch {
    ThreadPatch {
        turns: Some(turns),
        ..ThreadPatch::default()
    }
}

fn touch(at: i64) -> ThreadPatch {
    ThreadPatch {
        updated_unix_us: Some(at),
        ..ThreadPatch::default()
    }
}

fn start(core: &mut Core, now: Instant) -> Flight {
    match core.next(now) {
        Next::Start(flight) => *flight,
        other => panic!("a flight, not {other:?}"),
    }
}

fn finish(core: &mut Core, outcome: Result<(), &'static str>, now: Instant) -> Told {
    told(core.finished(outcome, now))
}

fn told(released: Vec<Release<u32, &'static str>>) -> Told {
    released
        .into_iter()
        .map(|release| (release.waiter, release.outcome))
        .collect()
}

fn observe(core: &mut Core, patch: ThreadPatch, now: Instant) {
    core.observe(patch, TraceContext::default(), now);
}

fn core() -> (Core, Instant) {
    (Core::new(ThreadPatch::default()), Instant::now())
}

#[test]
fn queue_age_is_measured_from_the_oldest_patch_that_was_merged() {
    let (mut core, now) = core();
    let at = |ms| now + Duration::from_millis(ms);
    observe(&mut core, touch(1), at(0));
    observe(&mut core, title("a"), at(1));
    observe(&mut core, turns(1), at(2));
    assert_eq!(start(&mut core, at(9)).oldest, at(0));
    // Also when it failed, and was merged with what came behind it.
    observe(&mut core, turns(2), at(10));
    assert_eq!(finish(&mut core, Err("no"), at(11)), []);
    observe(&mut core, turns(3), at(12));
    assert_eq!(start(&mut core, at(19)).oldest, at(0));
    assert_eq!(finish(&mut core, Ok(()), at(20)), []);
    observe(&mut core, turns(4), at(21));
    assert_eq!(start(&mut core, at(29)).oldest, at(21));
}

#[test]
fn patches_that_wait_coalesce_into_one_and_the_later_wins_field_by_field() {
    let (mut core, now) = core();
    observe(&mut core, title("a"), now);
    let first = start(&mut core, now + GATHER);
    observe(&mut core, turns(1), now);
    observe(&mut core, title("b"), now);
    observe(&mut core, turns(2), now);
    assert_eq!(
        core.next(now + GATHER),
        Next::Idle,
        "one update is in flight at most"
    );
    assert_eq!(finish(&mut core, Ok(()), now), []);
    let second = start(&mut core, now + GATHER);
    assert_eq!((first.patch, first.generation), (title("a"), 1));
    let mut merged = title("b");
    merged.merge(turns(2));
    assert_eq!((second.patch, second.generation), (merged, 4));
    assert_eq!(finish(&mut core, Ok(()), now), []);
    assert_eq!(core.next(now + GATHER), Next::Idle);
    assert!(core.is_settled());
}

#[test]
fn a_barrier_waits_for_the_generation_at_its_entry_and_no_later_one() {
    let (mut core, now) = core();
    observe(&mut core, title("a"), now);
    assert_eq!(core.barrier(1), None);
    start(&mut core, now);
    observe(&mut core, title("b"), now);
    assert_eq!(core.barrier(2), None);
    assert_eq!(finish(&mut core, Ok(()), now), [(1, Ok(()))]);
    start(&mut core, now);
    observe(&mut core, title("c"), now);
    assert_eq!(finish(&mut core, Ok(()), now), [(2, Ok(()))]);
    assert!(!core.is_settled());
}

#[test]
fn a_barrier_with_nothing_to_wait_for_is_over_at_once() {
    let (mut core, now) = core();
    assert_eq!(core.barrier(1), Some(1));
    observe(&mut core, title("a"), now);
    start(&mut core, now + GATHER);
    assert_eq!(finish(&mut core, Ok(()), now), []);
    assert_eq!(core.barrier(2), Some(2));
}

#[test]
fn a_failure_in_flight_that_a_newer_success_supersedes_does_not_fail_the_barrier() {
    let (mut core, now) = core();
    observe(&mut core, title("a"), now);
    start(&mut core, now + GATHER);
    observe(&mut core, turns(1), now);
    assert_eq!(core.barrier(1), None);
    assert_eq!(finish(&mut core, Err("first"), now), []);
    let second = start(&mut core, now);
    let mut both = title("a");
    both.merge(turns(1));
    assert_eq!(second.patch, both, "the newer patch contains the older");
    assert_eq!(finish(&mut core, Ok(()), now), [(1, Ok(()))]);
}

#[test]
fn a_barrier_returns_the_error_of_its_covering_update_and_the_next_tries_again() {
    let (mut core, now) = core();
    observe(&mut core, title("a"), now);
    start(&mut core, now + GATHER);
    assert_eq!(finish(&mut core, Err("background"), now), [], "nobody waited");
    assert_eq!(
        core.next(now + Duration::from_secs(60)),
        Next::Idle,
        "nobody retries for nobody"
    );
    for outcome in [Err("conflict"), Ok(())] {
        assert_eq!(core.barrier(1), None);
        assert_eq!(start(&mut core, now).patch, title("a"));
        assert_eq!(finish(&mut core, outcome, now), [(1, outcome)]);
    }
    assert_eq!(core.barrier(2), Some(2));
}

#[test]
fn a_failed_patch_is_tried_again_with_the_next_one() {
    let (mut core, now) = core();
    observe(&mut core, title("a"), now);
    start(&mut core, now + GATHER);
    assert_eq!(finish(&mut core, Err("no"), now), []);
    observe(&mut core, turns(1), now);
    let flight = start(&mut core, now + GATHER);
    assert_eq!(
        (flight.patch.title, flight.oldest),
        (Change::Set("a".into()), now)
    );
}

#[test]
fn what_was_known_at_the_beginning_is_written_with_the_first_item_and_not_before() {
    let now = Instant::now();
    let mut core = Core::new(title("created"));
    assert_eq!(core.barrier(1), Some(1), "a flush does not make a thread exist");
    assert_eq!(core.next(now + Duration::from_secs(60)), Next::Idle);
    observe(&mut core, touch(1), now);
    let flight = start(&mut core, now + GATHER);
    assert_eq!(flight.patch.title, Change::Set("created".into()));
    assert_eq!(flight.patch.updated_unix_us, Some(1));
}

#[test]
fn persist_makes_a_thread_exist_of_which_nothing_was_appended() {
    let now = Instant::now();
    let mut core = Core::new(title("created"));
    core.materialise(TraceContext::default(), now);
    assert_eq!(core.barrier(1), None);
    assert_eq!(start(&mut core, now).patch, title("created"));
    assert_eq!(finish(&mut core, Ok(()), now), [(1, Ok(()))]);
    core.materialise(TraceContext::default(), now);
    assert_eq!(core.barrier(2), Some(2), "once is enough");
}

#[test]
fn bare_touches_wait_five_seconds_and_facts_do_not() {
    let (mut core, now) = core();
    observe(&mut core, touch(1), now);
    start(&mut core, now + GATHER);
    let written = now + GATHER;
    assert_eq!(finish(&mut core, Ok(()), written), []);
    observe(&mut core, touch(2), written);
    observe(&mut core, touch(3), written);
    let due = written + TOUCH_INTERVAL;
    assert_eq!(core.next(written + Duration::from_secs(1)), Next::WaitUntil(due));
    let fact = written + Duration::from_secs(2);
    observe(&mut core, turns(1), fact);
    assert_eq!(
        core.next(fact),
        Next::WaitUntil(fact + GATHER),
        "a fact takes the touches along"
    );
    let flight = start(&mut core, fact + GATHER);
    assert_eq!(
        (flight.patch.updated_unix_us, flight.patch.turns),
        (Some(3), Some(1))
    );
    assert_eq!(
        flight.oldest, written,
        "its age counts from the oldest patch in it"
    );
    assert_eq!(finish(&mut core, Ok(()), fact), []);
    observe(&mut core, touch(4), fact);
    assert_eq!(
        start(&mut core, fact + TOUCH_INTERVAL).patch,
        touch(4),
        "a touch is late, never lost"
    );
}

#[test]
fn a_barrier_does_not_wait_for_the_time_of_touches() {
    let (mut core, now) = core();
    for at in 1..3 {
        observe(&mut core, touch(at), now);
        assert_eq!(core.barrier(1), None);
        assert_eq!(start(&mut core, now).patch, touch(at));
        assert_eq!(finish(&mut core, Ok(()), now), [(1, Ok(()))]);
    }
}

#[test]
fn a_mutation_is_written_behind_what_was_derived_before_it_and_before_what_was_derived_after() {
    let (mut core, now) = core();
    observe(&mut core, title("derived before"), now);
    core.mutate(title("explicit"), TraceContext::default(), now, 1);
    observe(&mut core, turns(1), now);
    assert_eq!(core.barrier(2), None);
    assert_eq!(start(&mut core, now).patch, title("derived before"));
    assert_eq!(finish(&mut core, Ok(()), now), []);
    assert_eq!(start(&mut core, now).patch, title("explicit"));
    assert_eq!(finish(&mut core, Ok(()), now), [(1, Ok(()))]);
    assert_eq!(start(&mut core, now).patch, turns(1));
    assert_eq!(finish(&mut core, Ok(()), now), [(2, Ok(()))]);
}

#[test]
fn a_mutation_whose_barrier_fails_is_not_made() {
    let (mut core, now) = core();
    observe(&mut core, title("derived"), now);
    core.mutate(title("explicit"), TraceContext::default(), now, 1);
    observe(&mut core, turns(1), now);
    start(&mut core, now);
    assert_eq!(finish(&mut core, Err("no"), now), [(1, Err("no"))]);
    assert_eq!(core.barrier(2), None);
    let flight = start(&mut core, now);
    let mut rest = title("derived");
    rest.merge(turns(1));
    assert_eq!(flight.patch, rest, "nothing of the mutation is left");
    assert_eq!(finish(&mut core, Ok(()), now), [(2, Ok(()))]);
    assert!(core.is_settled());
}

#[test]
fn a_failed_mutation_is_its_callers_error_and_not_the_next_flushes() {
    let (mut core, now) = core();
    core.mutate(title("explicit"), TraceContext::default(), now, 1);
    assert_eq!(core.barrier(2), None);
    start(&mut core, now);
    assert_eq!(finish(&mut core, Err("no"), now), [(1, Err("no")), (2, Ok(()))]);
    assert_eq!(core.next(now), Next::Idle, "it is not tried again");
}

#[test]
fn giving_up_tells_everybody_and_drops_what_waits() {
    let (mut core, now) = core();
    observe(&mut core, title("a"), now);
    assert_eq!(core.barrier(1), None);
    core.mutate(title("b"), TraceContext::default(), now, 2);
    assert_eq!(
        told(core.abandon(&"discarded")),
        [(2, Err("discarded")), (1, Err("discarded"))]
    );
    assert_eq!(core.next(now + TOUCH_INTERVAL), Next::Idle);
    assert_eq!(core.barrier(3), Some(3));
}
