//! Ends that come at the wrong time.

use std::time::{Duration, Instant};

use dwell_actors::harness::{Command, Harness, RunError};
use dwell_actors::relay_server::Relay;
use dwell_messages::ExitStatus;
use dwell_messages::process::Ending;
use dwell_testkit::{Cut, Marker, TcpFaultProxy, wait_until};

use crate::support::{BOUND, Roles, assert_works, bounded, connect_as, output_until, shell, started, wait};

/// Session grace, its KILL, and room for a busy machine.
const GONE_MAX: Duration = Duration::from_secs(10);

fn marked(command: Command, marker: &Marker) -> Command {
    let (name, value) = marker.pair();
    command.env(name, value)
}

async fn gone(marker: &Marker) {
    if wait_until(GONE_MAX, || marker.living().unwrap().is_empty())
        .await
        .is_err()
    {
        panic!("still there: {:?}", marker.living().unwrap());
    }
}

async fn alive(marker: &Marker) {
    wait_until(GONE_MAX, || !marker.living().unwrap().is_empty())
        .await
        .unwrap();
}

#[tokio::test]
async fn dropping_a_run_ends_its_process_and_the_sessions_others_live() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let marker = Marker::new().unwrap();
    let mut run = harness.exec(marked(shell("sleep 1000 & sleep 1000"), &marker));
    started(&mut run).await;
    alive(&marker).await;
    drop(run);
    gone(&marker).await;
    // Dropped before anything is known of it.
    for _ in 0..20 {
        drop(harness.exec(marked(Command::new("sleep").arg("1000"), &marker)));
    }
    assert_works(&harness).await;
    gone(&marker).await;
}

#[tokio::test]
async fn a_run_whose_wait_is_dropped_ends_its_process() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let marker = Marker::new().unwrap();
    let run = harness.exec(marked(Command::new("sleep").arg("1000"), &marker));
    let waiting = tokio::spawn(run.wait());
    alive(&marker).await;
    waiting.abort();
    gone(&marker).await;
}

#[tokio::test]
async fn a_lost_link_ends_runs_as_lost_and_their_processes() {
    let roles = Roles::start().await;
    let proxy = TcpFaultProxy::start(roles.relay_address(), 1).await.unwrap();
    for cut in [Cut::Reset, Cut::Close] {
        let harness = roles.connect(roles.through(proxy.address())).await.unwrap();
        let marker = Marker::new().unwrap();
        let mut run = harness.exec(marked(
            shell("trap '' TERM; echo up; sleep 1000 & wait; sleep 1000"),
            &marker,
        ));
        output_until(&mut run, "up").await;
        proxy.cut(cut);
        let error = wait(run).await.unwrap_err();
        assert!(matches!(error, RunError::Lost(_)), "{error:?}");
        gone(&marker).await;
        wait_until(BOUND, || roles.executor.sessions() == 0)
            .await
            .unwrap();
        let after = wait(harness.exec(Command::new("true"))).await.unwrap_err();
        assert!(matches!(after, RunError::NotStarted(_)), "{after:?}");
    }
}

#[tokio::test]
async fn a_relay_that_dies_ends_runs_and_the_executor_registers_again_at_its_successor() {
    let Roles {
        relay,
        relay_key,
        executor,
        client,
    } = Roles::start().await;
    let address = relay.local_addr().to_owned();
    let target = dwell_actors::harness::Target::relay(address.clone(), executor.public_key());
    let harness = connect_as(&client, target.clone()).await.unwrap();
    let marker = Marker::new().unwrap();
    let mut run = harness.exec(marked(Command::new("sleep").arg("1000"), &marker));
    started(&mut run).await;
    bounded("the relay's end", relay.shutdown()).await;
    let error = wait(run).await.unwrap_err();
    assert!(matches!(error, RunError::Lost(_)), "{error:?}");
    gone(&marker).await;

    let again = bounded("the successor", async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        loop {
            ticks.tick().await;
            if let Ok(relay) = Relay::builder().listen(address.clone()).serve().await {
                return relay;
            }
        }
    })
    .await;
    bounded("registering again", async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while again
            .census()
            .await
            .map_or(true, |census| census.core.executors == 0)
        {
            ticks.tick().await;
        }
    })
    .await;
    drop(relay_key);
    assert_works(&connect_as(&client, target).await.unwrap()).await;
}

#[tokio::test]
async fn an_executor_that_shuts_down_ends_runs_and_leaves_nothing() {
    let Roles {
        relay: _relay,
        executor,
        client,
        ..
    } = Roles::start().await;
    let target = dwell_actors::harness::Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let harness = connect_as(&client, target).await.unwrap();
    let marker = Marker::new().unwrap();
    let mut run = harness.exec(marked(Command::new("sleep").arg("1000"), &marker));
    started(&mut run).await;
    bounded("the executor's end", executor.shutdown()).await;
    gone(&marker).await;
    // It hears the end of what it ran before the goodbye.
    let finished = wait(run).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Signal(15));
    assert_eq!(finished.ending, Some(Ending::Session));
    let error = wait(harness.exec(Command::new("true"))).await.unwrap_err();
    assert!(matches!(error, RunError::NotStarted(_)), "{error:?}");
}

#[tokio::test]
async fn a_harness_that_is_dropped_ends_what_it_ran() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let marker = Marker::new().unwrap();
    let mut run = harness.exec(marked(Command::new("sleep").arg("1000"), &marker));
    started(&mut run).await;
    drop(harness);
    gone(&marker).await;
    let error = wait(run).await.unwrap_err();
    assert!(matches!(error, RunError::Lost(_)), "{error:?}");
    wait_until(BOUND, || roles.executor.sessions() == 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_deadline_ends_the_command_and_is_told() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let marker = Marker::new().unwrap();
    let begun = Instant::now();
    let command = marked(Command::new("sleep").arg("1000"), &marker).deadline(Duration::from_millis(300));
    let error = wait(harness.exec(command)).await.unwrap_err();
    assert_eq!(error, RunError::DeadlineExceeded);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    gone(&marker).await;
    assert_works(&harness).await;
}

/// Once a deadline that passed before the start was answered forgot the process that came of it.
#[tokio::test]
async fn a_deadline_before_the_start_is_answered_ends_the_command_all_the_same() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let marker = Marker::new().unwrap();
    for micros in [0, 50, 100, 200, 300, 400, 500, 700, 1_000, 1_500, 2_000, 3_000] {
        let command =
            marked(Command::new("sleep").arg("1000"), &marker).deadline(Duration::from_micros(micros));
        let error = wait(harness.exec(command)).await.unwrap_err();
        assert_eq!(error, RunError::DeadlineExceeded);
    }
    assert_works(&harness).await;
    gone(&marker).await;
}

async fn stubborn(harness: &Harness, marker: &Marker) -> dwell_actors::harness::Run {
    let mut run = harness.exec(marked(
        shell("trap '' TERM; echo up; while :; do sleep 0.05; done"),
        marker,
    ));
    output_until(&mut run, "up").await;
    run
}

#[tokio::test]
async fn terminate_kills_what_ignores_term_when_the_grace_is_over() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let marker = Marker::new().unwrap();
    let run = stubborn(&harness, &marker).await;
    let begun = Instant::now();
    run.terminate(Duration::from_millis(400));
    let finished = wait(run).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Signal(9));
    assert!(begun.elapsed() >= Duration::from_millis(400));
    gone(&marker).await;
}

/// Once the first grace held, however long, whoever asked again.
#[tokio::test]
async fn a_shorter_grace_asked_later_holds_and_the_end_of_the_session_does_not_wait_for_a_long_one() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let marker = Marker::new().unwrap();
    let run = stubborn(&harness, &marker).await;
    run.terminate(Duration::from_secs(3_600));
    assert_works(&harness).await;
    run.terminate(Duration::ZERO);
    assert_eq!(wait(run).await.unwrap().status, ExitStatus::Signal(9));

    let run = stubborn(&harness, &marker).await;
    run.terminate(Duration::from_secs(3_600));
    assert_works(&harness).await;
    bounded("the end", harness.shutdown()).await;
    gone(&marker).await;
    drop(run);
}

/// Once the group's number was given up with the leader, and with it everybody who had closed the pipes.
#[tokio::test]
async fn terminate_ends_the_groups_others_too_when_the_leader_is_gone() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let marker = Marker::new().unwrap();
    let script = "(trap '' TERM; echo up; exec >/dev/null 2>&1; while :; do sleep 0.05; done) & wait";
    let mut run = harness.exec(marked(shell(script), &marker));
    output_until(&mut run, "up").await;
    run.terminate(Duration::from_millis(200));
    let finished = wait(run).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Signal(15));
    gone(&marker).await;
}
