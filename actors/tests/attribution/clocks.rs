//! The other machine's clock: known to within a stated error, used to draw, and in no duration.

use std::time::Duration;

use dwell_actors::harness::Command;
use dwell_actors::trace_file::{CLOCK_ERROR_US, find_trace};
use dwell_messages::Role;
use dwell_testkit::{Direction, Fault, Plan};

use super::world::{Route, World, alone, bounded, judge};

/// All roles are on one machine here, so that the truth is known: its clock is nothing apart from itself.
#[tokio::test]
async fn a_clock_that_is_not_apart_is_found_so_to_within_its_own_error() {
    let _alone = alone().await;
    let world = World::start().await;
    for route in [Route::Direct, Route::Relay] {
        let dir = tempfile::tempdir().unwrap();
        let harness = world.traced(route, dir.path()).await;
        bounded("a run", harness.exec(Command::new("true")).wait())
            .await
            .unwrap();
        let finished = bounded("a run", harness.exec(Command::new("true")).wait())
            .await
            .unwrap();
        bounded("the traces", harness.flush_traces()).await;
        let trace = find_trace(dir.path(), finished.trace_id).unwrap().unwrap();
        let (_, clock) = trace
            .offsets
            .iter()
            .find(|(role, _)| *role == Role::Executor)
            .unwrap();
        assert!(
            clock.offset_us.abs() <= clock.error_us,
            "{clock:?} ({CLOCK_ERROR_US})"
        );
        // Half a round trip on one machine, however busy, and no longer that of dialling.
        assert!(clock.error_us < 50_000, "{clock:?}");
    }
}

/// The way there takes 40 ms and the way back none, which no clock can tell from one that is 20 ms off: the error says so.
#[tokio::test]
async fn a_way_that_is_slow_in_one_direction_is_within_the_stated_error() {
    let _alone = alone().await;
    let world = World::start().await;
    let proxy = world.proxy(Route::Direct).await;
    let by = Duration::from_millis(40);
    proxy.plan(Plan::one(Direction::ToUpstream, Fault::Delay { by }));
    let dir = tempfile::tempdir().unwrap();
    let harness = world.traced_through(Route::Direct, &proxy, dir.path()).await;
    let finished = bounded("a run", harness.exec(Command::new("true")).wait())
        .await
        .unwrap();
    judge(&finished.timings).unwrap();
    bounded("the traces", harness.flush_traces()).await;
    let trace = find_trace(dir.path(), finished.trace_id).unwrap().unwrap();
    let (_, clock) = trace
        .offsets
        .iter()
        .find(|(role, _)| *role == Role::Executor)
        .unwrap();
    assert!(clock.offset_us.abs() <= clock.error_us, "{clock:?}");
    assert!(
        clock.offset_us >= 10_000,
        "positive control: half the difference shows: {clock:?}"
    );
}
