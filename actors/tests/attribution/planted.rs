//! A delay in one place shows in that place's segment and in no other.
//!
//! Calls with and without it alternate, because a machine that is shared is never quiet, and the lower quartiles of each
//! figure are compared: what others do on the machine only ever adds, while what was planted is in every call.

use std::collections::BTreeMap;
use std::time::Duration;

use dwell_actors::fault_point::delay::{DelayPoint, lift, plant};
use dwell_actors::harness::{CallTimings, Command, Harness, RunEvent};

use super::world::{Route, World, alone, bounded, judge, shell};

const DELAY: Duration = Duration::from_millis(20);
/// How far off the planted segment may be, and how far any other may move. Under `DWELL_SOAK=1`, on a machine that has
/// nothing else to do, these are the promise; elsewhere they have room, and still tell the planted segment from the others.
const PROMISED_US: (u64, u64) = (2_000, 1_000);

fn bounds_us() -> (u64, u64) {
    if std::env::var_os("DWELL_SOAK").is_some_and(|value| value == "1") {
        PROMISED_US
    } else {
        (8_000, 8_000)
    }
}

/// Calls of each kind in one round, and rounds before it counts as wrong.
const CALLS: usize = 15;
const ROUNDS: usize = 5;
/// How often in a row a call may end before its delay was planted.
const OVERTAKEN_MAX: usize = 5;

/// Every figure of one call, by machine and name.
type Figures = BTreeMap<(&'static str, &'static str), u64>;

fn figures(call: &CallTimings) -> Figures {
    judge(call).unwrap_or_else(|problem| panic!("{problem}\n{call}"));
    let own = call.harness.iter().map(|(name, us)| (("harness", *name), *us));
    let theirs = call.executor.iter().map(|(name, us)| (("executor", *name), *us));
    let rest = [
        (("transit", "way"), call.transit_us - call.relay_us),
        (("transit", "relay"), call.relay_us),
        (("unattributed", "harness"), call.unattributed_harness_us),
        (("unattributed", "executor"), call.unattributed_executor_us),
    ];
    own.chain(theirs).chain(rest).collect()
}

async fn call(harness: &Harness, command: Command) -> Figures {
    figures(
        &bounded("a run", harness.exec(command).wait())
            .await
            .unwrap()
            .timings,
    )
}

/// The lower quartile of each figure; what a call does not have took no time in it.
fn quartiles(calls: &[Figures]) -> Figures {
    let keys = calls.iter().flat_map(BTreeMap::keys).copied();
    keys.map(|key| {
        let values = calls.iter().map(|call| call.get(&key).copied().unwrap_or(0));
        let mut values: Vec<_> = values.collect();
        values.sort_unstable();
        (key, values[values.len() / 4])
    })
    .collect()
}

/// What moved by how much, and whether only `expected` did, by the delay.
fn verdict(
    without: &[Figures],
    with: &[Figures],
    expected: (&'static str, &'static str),
    (tolerance_us, moved_max_us): (u64, u64),
) -> Result<(), String> {
    let (before, after) = (quartiles(without), quartiles(with));
    let moved = |key: &(&'static str, &'static str)| {
        let (before, after) = (before.get(key), after.get(key));
        after.copied().unwrap_or(0).abs_diff(before.copied().unwrap_or(0))
    };
    let planted = u64::try_from(DELAY.as_micros()).unwrap();
    let seen = moved(&expected);
    if seen.abs_diff(planted) > tolerance_us {
        return Err(format!("{expected:?} moved by {seen} µs"));
    }
    let others = before.keys().chain(after.keys()).filter(|key| **key != expected);
    match others.max_by_key(|key| moved(key)) {
        Some(key) if moved(key) > moved_max_us => Err(format!("{key:?} moved by {} µs too", moved(key))),
        Some(_) | None => Ok(()),
    }
}

/// Alternates calls of two kinds until one round satisfies. What was wrong with each, if none does.
async fn compare<'a, F: Future<Output = Figures> + 'a>(
    what: &str,
    expected: (&'static str, &'static str),
    mut call: impl FnMut(bool) -> F,
) -> Option<String> {
    let mut wrong = Vec::new();
    for _ in 0..ROUNDS {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            without.push(call(false).await);
            with.push(call(true).await);
        }
        match verdict(&without, &with, expected, bounds_us()) {
            Ok(()) => return None,
            Err(problem) => wrong.push(problem),
        }
    }
    Some(format!("{what}: {wrong:?}"))
}

/// What the harness does with any frame is planted once the start's answer is there: only the end is still to come.
fn is_late(point: DelayPoint) -> bool {
    matches!(point, DelayPoint::HarnessReceive | DelayPoint::HarnessOpen)
}

/// A call that comes by a point, and waits there if it is to. One whose end overtook the planting, on a machine that
/// stood still just then, is made again.
async fn passing(harness: &Harness, point: DelayPoint, delayed: bool) -> Figures {
    for _ in 0..OVERTAKEN_MAX {
        if let Some(figures) = passed(harness, point, delayed).await {
            return figures;
        }
    }
    panic!("nobody came by {point:?}");
}

/// Nothing when nobody came by.
async fn passed(harness: &Harness, point: DelayPoint, delayed: bool) -> Option<Figures> {
    let late = is_late(point);
    if delayed && !late {
        plant(point, DELAY);
    }
    let command = if late {
        Command::new("sleep").arg("0.03")
    } else {
        Command::new("true")
    };
    let mut run = harness.exec(command);
    if late {
        let started = bounded("a start", run.next()).await;
        assert!(matches!(started, Some(RunEvent::Started { .. })), "{started:?}");
        if delayed {
            plant(point, DELAY);
        }
    }
    let figures = figures(&bounded("a run", run.wait()).await.unwrap().timings);
    (!lift(point)).then_some(figures)
}

async fn planted(route: Route, points: &[(DelayPoint, (&'static str, &'static str))]) {
    let _alone = alone().await;
    let world = World::start().await;
    let harness = world.harness(route).await;
    for _ in 0..5 {
        call(&harness, Command::new("true")).await;
    }
    let mut wrong = Vec::new();
    for (point, expected) in points {
        let name = format!("{point:?}");
        let compared = compare(&name, *expected, |delayed| passing(&harness, *point, delayed));
        wrong.extend(compared.await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_delay_on_the_harness_shows_in_the_segment_it_was_planted_in_and_in_no_other() {
    planted(
        Route::Direct,
        &[
            (DelayPoint::HarnessSubmit, ("harness", "submit")),
            (DelayPoint::HarnessDispatch, ("harness", "dispatch")),
            (DelayPoint::HarnessRpcMailbox, ("harness", "mailbox.rpc")),
            (DelayPoint::HarnessAdmission, ("harness", "admission")),
            (DelayPoint::HarnessFramerMailbox, ("harness", "mailbox.framer")),
            (DelayPoint::HarnessSerialize, ("harness", "serialize")),
            (DelayPoint::HarnessQueue, ("harness", "queue")),
            (DelayPoint::HarnessSeal, ("harness", "seal")),
            (DelayPoint::HarnessWrite, ("harness", "write")),
            (DelayPoint::HarnessReceive, ("harness", "receive")),
            (DelayPoint::HarnessOpen, ("harness", "open")),
            (DelayPoint::HarnessDecode, ("harness", "decode")),
            (DelayPoint::HarnessHandOff, ("harness", "hand_off")),
            (
                DelayPoint::HarnessDeliveryMailbox,
                ("harness", "mailbox.delivery"),
            ),
            (DelayPoint::HarnessDelivery, ("harness", "delivery")),
            (DelayPoint::HarnessConsume, ("harness", "consume")),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_delay_on_the_executor_shows_in_the_segment_it_was_planted_in_and_in_no_other() {
    planted(
        Route::Direct,
        &[
            (DelayPoint::ExecutorReceive, ("executor", "receive")),
            (DelayPoint::ExecutorOpen, ("executor", "open")),
            (DelayPoint::ExecutorDecode, ("executor", "decode")),
            (DelayPoint::ExecutorHandOff, ("executor", "hand_off")),
            (DelayPoint::ExecutorRpcMailbox, ("executor", "mailbox.rpc")),
            (DelayPoint::ExecutorAdmission, ("executor", "admission")),
            (
                DelayPoint::ExecutorDispatcherMailbox,
                ("executor", "mailbox.dispatcher"),
            ),
            (DelayPoint::ExecutorDispatch, ("executor", "dispatch")),
            (
                DelayPoint::ExecutorSupervisorMailbox,
                ("executor", "mailbox.supervisor"),
            ),
            (
                DelayPoint::ExecutorProcessMailbox,
                ("executor", "mailbox.process"),
            ),
            (DelayPoint::ExecutorSpawnQueue, ("executor", "spawn_queue")),
            (DelayPoint::ExecutorSpawn, ("executor", "spawn")),
            (
                DelayPoint::ExecutorDeliveryMailbox,
                ("executor", "mailbox.delivery"),
            ),
            (DelayPoint::ExecutorDelivery, ("executor", "delivery")),
        ],
    )
    .await;
}

/// It leaves the executor 20 ms late, and no millisecond of that is on the way.
#[tokio::test]
async fn a_delay_in_the_executors_outbound_queue_is_its_own_queueing_and_not_in_transit() {
    for route in [Route::Direct, Route::Relay] {
        planted(route, &[(DelayPoint::ExecutorQueue, ("executor", "queue"))]).await;
    }
}

#[tokio::test]
async fn a_delay_in_the_relay_is_the_relays_and_not_the_ways() {
    planted(Route::Relay, &[(DelayPoint::Relay, ("transit", "relay"))]).await;
}

/// What a child and its own children do needs no hook.
#[tokio::test]
async fn a_child_that_runs_longer_shows_in_its_run_and_a_pipe_that_is_held_in_its_drain() {
    let _alone = alone().await;
    let world = World::start().await;
    let harness = world.harness(Route::Direct).await;
    let child = compare("a slow child", ("executor", "run"), |delayed| {
        let script = if delayed {
            "exec sleep 0.02"
        } else {
            "exec sleep 0"
        };
        call(&harness, shell(script))
    });
    let child = child.await;
    let pipe = compare("a held pipe", ("executor", "drain"), |delayed| {
        // Both leave a process behind; one lets the pipe go at once. It begins a moment after its parent has ended.
        let script = if delayed {
            "sleep 0.0195 & exec true"
        } else {
            "sleep 0.0195 >/dev/null 2>&1 & exec true"
        };
        call(&harness, shell(script))
    });
    let pipe = pipe.await;
    assert_eq!((child, pipe), (None, None));
}

/// The positive control: a delay that shows elsewhere, or in two places, does not pass.
#[test]
fn a_delay_that_shows_in_another_segment_or_in_two_is_noticed() {
    let figures = |dispatch: u64, queue: u64| -> Vec<Figures> {
        let call = BTreeMap::from([(("harness", "dispatch"), dispatch), (("harness", "queue"), queue)]);
        vec![call; CALLS]
    };
    let before = figures(100, 50);
    let expected = ("harness", "dispatch");
    assert_eq!(
        verdict(&before, &figures(20_100, 50), expected, PROMISED_US),
        Ok(())
    );
    assert!(verdict(&before, &figures(20_100, 1_100), expected, PROMISED_US).is_err());
    assert!(verdict(&before, &figures(100, 20_050), expected, PROMISED_US).is_err());
    assert!(verdict(&before, &figures(17_000, 50), expected, PROMISED_US).is_err());
}
