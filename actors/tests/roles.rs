//! Harness, relay and executor in one process.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::time::Duration;

use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::{Command, Finished, Harness, Target};
use dwell_actors::relay_server::{Relay, RelayHandle};
use dwell_messages::ExitStatus;
use dwell_relay::{OsRandomness, StaticKeypair};

async fn run(harness: &Harness, command: Command) -> Finished {
    tokio::time::timeout(Duration::from_secs(20), harness.exec(command).wait())
        .await
        .expect("the run ends")
        .unwrap()
}

async fn relayed() -> (RelayHandle, ExecutorHandle, Harness) {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
    let executor = Executor::builder()
        .relay(relay.local_addr())
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    executor.registered().await.unwrap();
    let target = Target::relay(relay.local_addr(), executor.public_key());
    let harness = Harness::builder().identity(client).connect(target).await.unwrap();
    (relay, executor, harness)
}

#[tokio::test]
async fn a_command_runs_directly_and_its_output_status_and_account_come_back() {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let harness = Harness::builder().identity(client).connect(target).await.unwrap();
    let finished = run(
        &harness,
        Command::new("sh").args(["-c", "echo out; echo err >&2; exit 7"]),
    )
    .await;
    assert_eq!(finished.status, ExitStatus::Code(7));
    assert_eq!(finished.stdout.to_text(), "out\n");
    assert_eq!(finished.stderr.to_text(), "err\n");
    harness.shutdown().await;
    executor.shutdown().await;
}

#[tokio::test]
async fn a_command_runs_through_a_relay() {
    let (relay, executor, harness) = relayed().await;
    for _ in 0..20 {
        let finished = run(&harness, Command::new("true")).await;
        assert_eq!(finished.status, ExitStatus::Code(0));
        println!("{}", finished.timings);
    }
    let finished = run(
        &harness,
        Command::new("head").args(["-c", "200000000", "/dev/zero"]),
    )
    .await;
    assert_eq!(finished.output_bytes, [200_000_000, 0]);
    println!("{}", finished.timings);
    harness.shutdown().await;
    executor.shutdown().await;
    relay.shutdown().await;
}
