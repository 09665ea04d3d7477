//! Harness and executor over one direct link.

use std::time::Duration;

use dwell_actors::executor::Executor;
use dwell_actors::harness::{Command, Harness, Target};
use dwell_messages::ExitStatus;
use dwell_relay::{OsRandomness, StaticKeypair};

#[tokio::test]
async fn a_command_runs_and_its_output_status_and_account_come_back() {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor =
        Executor::builder().listen("127.0.0.1:0").authorize(client.public()).serve().await.unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let harness = Harness::builder().identity(client).connect(target).await.unwrap();
    let finished = tokio::time::timeout(
        Duration::from_secs(10),
        harness.exec(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 7"])).wait(),
    )
    .await
    .expect("the run ends")
    .unwrap();
    assert_eq!(finished.status, ExitStatus::Code(7));
    assert_eq!(finished.stdout.to_text(), "out\n");
    assert_eq!(finished.stderr.to_text(), "err\n");
    println!("{}", finished.timings);
    harness.shutdown().await;
    executor.shutdown().await;
}
