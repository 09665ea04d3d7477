//! Starting real processes: what comes back, what fails and how, and that nothing is left behind.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use dwell_actors::spawn::{
    Environment, ExitStatus, OutputPipe, SpawnOutcome, SpawnRequest, Spawner, StdinMode,
};

/// Longer than anything here takes, shorter than a hang.
const PATIENCE: Duration = Duration::from_secs(20);

fn request(argv: &[&str]) -> SpawnRequest {
    SpawnRequest {
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        cwd: None,
        env: Environment::exact(
            std::env::vars_os()
                .filter(|(name, _)| name == "PATH")
                .map(|(name, value): (OsString, OsString)| (name.into_vec(), value.into_vec())),
        ),
        stdin: StdinMode::Null,
    }
}

async fn submit(spawner: &Spawner, request: SpawnRequest) -> SpawnOutcome {
    let (reply, outcome) = tokio::sync::oneshot::channel();
    spawner
        .try_submit(
            request,
            Box::new(move |outcome| {
                let _ = reply.send(outcome);
            }),
        )
        .unwrap();
    tokio::time::timeout(PATIENCE, outcome)
        .await
        .expect("an answer in time")
        .unwrap()
}

#[tokio::test]
async fn true_ends_with_code_0_and_is_reaped() {
    let spawner = Spawner::start().unwrap();
    let outcome = submit(&spawner, request(&["true"])).await;
    let spawned = outcome.result.unwrap();
    let exit = spawned.process.watch().unwrap().wait().await.unwrap();
    assert_eq!(exit.status, ExitStatus::Code(0));
    assert!(matches!(
        spawned.process.reap(),
        Ok(dwell_actors::spawn::Reap::Done(_))
    ));
    let mut out = OutputPipe::from_fd(spawned.stdout).unwrap();
    assert_eq!(out.read_chunk(10).await.unwrap(), None);
}
