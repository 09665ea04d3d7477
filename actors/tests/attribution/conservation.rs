//! Sum, transit and unattributed are the whole, for every call: under load, through delays, and when links die.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_actors::harness::{CallTimings, Command, Harness};
use dwell_testkit::{Cut, Direction, Fault, Plan};

use super::world::{Route, World, alone, bounded, check, judge, shell, timed};

/// Calls of one test, and how many are under way at a time.
const CALLS: usize = 160;
const IN_FLIGHT: usize = 16;

/// Commands that differ in what takes their time.
fn command(index: usize) -> Command {
    match index % 5 {
        0 | 1 => Command::new("true"),
        2 => shell("echo out; echo err >&2"),
        3 => shell("sleep 0.01"),
        _ => Command::new("head").args(["-c", "300000", "/dev/zero"]),
    }
}

/// Runs `calls` commands, `IN_FLIGHT` at a time, and checks every account. Calls `between` now and then.
async fn load(harness: Harness, calls: usize, mut between: impl FnMut(usize)) -> Vec<CallTimings> {
    let harness = Arc::new(harness);
    let mut under_way = tokio::task::JoinSet::new();
    let mut accounts = Vec::new();
    for index in 0..calls {
        if under_way.len() >= IN_FLIGHT {
            let (finished, watched): (dwell_actors::harness::Finished, _) =
                bounded("a call", under_way.join_next()).await.unwrap().unwrap();
            check(&finished.timings, watched);
            accounts.push(finished.timings);
            between(accounts.len());
        }
        let harness = Arc::clone(&harness);
        under_way.spawn(async move {
            let begun = Instant::now();
            timed(harness.exec(command(index)), begun).await
        });
    }
    while let Some(ended) = bounded("a call", under_way.join_next()).await {
        let (finished, watched) = ended.unwrap();
        check(&finished.timings, watched);
        accounts.push(finished.timings);
    }
    accounts
}

#[tokio::test]
async fn every_account_adds_up_under_load_directly_and_through_the_relay() {
    let _alone = alone().await;
    let world = World::start().await;
    for route in [Route::Direct, Route::Relay] {
        let accounts = load(world.harness(route).await, CALLS, |_| {}).await;
        assert_eq!(accounts.len(), CALLS);
        let relayed = accounts.iter().filter(|call| call.relay_us > 0).count();
        match route {
            Route::Direct => assert_eq!(relayed, 0, "there is no relay"),
            Route::Relay => assert!(relayed > CALLS / 2, "{relayed} calls know of the relay"),
        }
    }
}

#[tokio::test]
async fn every_account_adds_up_while_links_are_cut_and_says_what_the_outage_took() {
    let _alone = alone().await;
    let world = World::start().await;
    for route in [Route::Direct, Route::Relay] {
        let proxy = world.proxy(route).await;
        let harness = world.harness_through(route, &proxy).await;
        let mut cuts = 0;
        load(harness, CALLS / 2, |ended| {
            if ended % 12 == 3 {
                proxy.cut(if cuts % 2 == 0 { Cut::Reset } else { Cut::Close });
                cuts += 1;
            }
        })
        .await;
        assert!(cuts >= 4 && proxy.accepted() > 2, "{cuts} cuts");
    }
}

#[tokio::test]
async fn every_account_adds_up_through_a_slow_link_whose_round_trip_explains_its_transit() {
    let _alone = alone().await;
    let world = World::start().await;
    let by = Duration::from_millis(15);
    for route in [Route::Direct, Route::Relay] {
        let proxy = world.proxy(route).await;
        let slow = Plan::one(Direction::ToUpstream, Fault::Delay { by });
        proxy.plan(slow.and(Direction::ToClient, Fault::Delay { by }));
        let harness = world.harness_through(route, &proxy).await;
        let mut medians = Vec::new();
        // A machine that others keep busy is looked at again.
        while medians.last().is_none_or(|median| *median > 50) {
            assert!(
                medians.len() < 3,
                "{medians:?} parts of a thousand are beyond the round trip"
            );
            // One at a time, and each long enough that nothing is right before its end: the proxy keeps what comes behind
            // another piece for longer.
            let mut excess = Vec::new();
            for _ in 0..15 {
                let begun = Instant::now();
                let run = harness.exec(Command::new("sleep").arg("0.05"));
                let (finished, watched) = timed(run, begun).await;
                let call = finished.timings;
                check(&call, watched);
                assert!(call.transit_us >= 30_000, "{call}");
                assert!(call.ping_us >= 30_000, "{call}");
                excess.push(call.transit_excess_us * 1_000 / call.total_us);
            }
            excess.sort_unstable();
            medians.push(excess[excess.len() / 2]);
        }
    }
}

/// A transit that no round trip explains is unattributed: the way back is slow for a while, and no ping says so.
#[tokio::test]
async fn what_is_lost_on_the_way_counts_as_unattributed() {
    let _alone = alone().await;
    let world = World::start().await;
    let proxy = world.proxy(Route::Direct).await;
    let harness = world.harness_through(Route::Direct, &proxy).await;
    let begun = Instant::now();
    check(
        &timed(harness.exec(Command::new("true")), begun).await.0.timings,
        begun.elapsed(),
    );
    let other = world.harness(Route::Direct).await;
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("done");
    proxy.hold(Direction::ToClient);
    let run = harness.exec(shell(&format!(": > '{}'", done.display())));
    dwell_testkit::wait_until(crate::world::BOUND, || done.exists())
        .await
        .unwrap();
    // The command has ended, and its end lies on the way until another one has ended elsewhere.
    timed(other.exec(shell("sleep 0.15")), Instant::now()).await;
    proxy.heal();
    let call = bounded("a run", run.wait()).await.unwrap().timings;
    judge(&call).unwrap();
    assert!(call.transit_excess_us >= 50_000, "{call}");
    assert!(call.unattributed_us() >= call.transit_excess_us, "{call}");
}

/// The positive control: an account that loses a segment, counts one twice or moves a microsecond is noticed.
#[tokio::test]
async fn an_account_that_loses_a_segment_or_counts_one_twice_is_noticed() {
    let _alone = alone().await;
    let world = World::start().await;
    let harness = world.harness(Route::Relay).await;
    let call = bounded("a run", harness.exec(Command::new("true")).wait())
        .await
        .unwrap()
        .timings;
    judge(&call).unwrap();
    assert!(call.harness.len() >= 5 && call.executor.len() >= 5, "{call}");
    for at in 0..call.harness.len() {
        let mut without = call.clone();
        without.harness.remove(at);
        assert!(judge(&without).is_err(), "{at}");
        let mut twice = call.clone();
        let again = twice.harness[at];
        twice.harness.push(again);
        assert!(judge(&twice).is_err(), "{at}");
    }
    // Its own queueing is there even when it is nothing.
    for at in 0..call.executor.len() - 1 {
        let mut without = call.clone();
        without.executor.remove(at);
        assert!(judge(&without).is_err(), "{at}");
    }
    let mut moved = call;
    moved.transit_us += 1;
    assert!(judge(&moved).is_err());
}
