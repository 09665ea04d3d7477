//! All three roles in one process: a relay, an executor that registers there, and a harness that asks.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use dwell::{Command, Executor, Harness, Relay, Target};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = dwell::relay::StaticKeypair::generate(&mut dwell::relay::OsRandomness::new())?;
    let relay = Relay::builder().listen("127.0.0.1:0").serve().await?;
    let executor = Executor::builder()
        .relay(relay.local_addr())
        .authorize(client.public())
        .serve()
        .await?;
    executor.registered().await?;
    let target = Target::relay(relay.local_addr(), executor.public_key());
    let harness = Harness::builder().identity(client).connect(target).await?;
    let finished = harness.exec(Command::new("uname").arg("-sr")).wait().await?;
    print!("{}", finished.stdout.to_text());
    println!("{}", finished.timings);
    assert!(finished.status.success());
    harness.shutdown().await;
    executor.shutdown().await;
    relay.shutdown().await;
    Ok(())
}
