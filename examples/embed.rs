//! From a multi-thread tokio application: events as they come, several commands at once, a typed error, the account.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use dwell::{Command, Executor, Harness, RunError, RunEvent, Target};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The other machine; here it is this one, and reached without a relay.
    let client = dwell::relay::StaticKeypair::generate(&mut dwell::relay::OsRandomness::new())?;
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .serve()
        .await?;
    let address = executor.local_addr().ok_or("the executor listens")?;

    let harness = Harness::builder()
        .identity(client)
        .connect(Target::direct(address, executor.public_key()))
        .await?;
    println!("{} on {}", harness.environment().os, harness.environment().arch);

    let mut run = harness.exec(Command::new("sh").args(["-c", "echo first; sleep 0.1; echo second >&2"]));
    while let Some(event) = run.next().await {
        match event {
            RunEvent::Started { pid, .. } => println!("started as {pid}"),
            RunEvent::Stdout(data) => print!("out: {}", String::from_utf8_lossy(&data)),
            RunEvent::Stderr(data) => print!("err: {}", String::from_utf8_lossy(&data)),
            RunEvent::Gap(gap) => println!("{} bytes of output are gone", gap.bytes()),
            RunEvent::Exited(status) => println!("exited: {status:?}"),
        }
    }
    println!("{}", run.wait().await?.timings);

    // Runs are `Send`: each may be waited for in a task of its own.
    let tasks: Vec<_> = (0..4)
        .map(|n| tokio::spawn(harness.exec(Command::new("echo").arg(n.to_string())).wait()))
        .collect();
    for task in tasks {
        print!("{}", task.await??.stdout.to_text());
    }

    match harness.exec(Command::new("no-such-program")).wait().await {
        Err(RunError::Refused(error)) => println!("as expected: {error}"),
        other => return Err(format!("a program that is not there gave {other:?}").into()),
    }
    harness.shutdown().await;
    executor.shutdown().await;
    Ok(())
}
