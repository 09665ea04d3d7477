//! Commands that cannot start: typed errors, never exit codes.

use std::time::Duration;

use dwell_actors::harness::{Command, Harness, RunError};
use dwell_messages::{ErrorCode, ExitStatus};
use dwell_testkit::TempHome;

use crate::support::{Roles, assert_works, shell, wait};

async fn refused(harness: &Harness, command: Command) -> (ErrorCode, Option<i32>) {
    let error = wait(harness.exec(command)).await.unwrap_err();
    assert!(matches!(error, RunError::Refused(_)), "{error:?}");
    assert!(!error.to_string().is_empty());
    (error.code().unwrap(), error.errno())
}

/// P-01, P-02 through the roles.
#[tokio::test]
async fn what_cannot_start_is_a_typed_error_with_its_errno() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let home = TempHome::new().unwrap();
    let plain = home.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();

    assert_eq!(
        refused(&harness, Command::new("no-such-program")).await,
        (ErrorCode::SpawnFailed, Some(2))
    );
    assert_eq!(
        refused(&harness, Command::new("/no/such/program")).await,
        (ErrorCode::SpawnFailed, Some(2))
    );
    assert_eq!(
        refused(&harness, Command::new(&plain)).await,
        (ErrorCode::SpawnFailed, Some(13))
    );
    assert_eq!(
        refused(&harness, Command::new(home.path())).await,
        (ErrorCode::SpawnFailed, Some(13))
    );
    let (code, errno) = refused(&harness, Command::new("true").current_dir("/no/such/dir")).await;
    assert_eq!((code, errno), (ErrorCode::BadCwd, Some(2)));
    assert_eq!(
        refused(&harness, Command::new("true").current_dir(&plain))
            .await
            .0,
        ErrorCode::BadCwd
    );
    assert_works(&harness).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_it_is_sent() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    assert_eq!(
        refused(&harness, Command::from_argv::<&str>([])).await.0,
        ErrorCode::EmptyArgv
    );
    assert_eq!(refused(&harness, Command::new("")).await.0, ErrorCode::EmptyArgv);
    assert_eq!(
        refused(&harness, Command::new("echo").arg("a\0b")).await.0,
        ErrorCode::BadRequest
    );
    assert_eq!(
        refused(&harness, Command::new("true").current_dir("/tmp\0"))
            .await
            .0,
        ErrorCode::BadRequest
    );
    assert_eq!(
        refused(&harness, Command::new("true").env("A=B", "x")).await.0,
        ErrorCode::BadRequest
    );
    assert_eq!(
        refused(&harness, Command::new("true").env("A", "x\0")).await.0,
        ErrorCode::BadRequest
    );
    assert_works(&harness).await;
}

/// P-03 through the roles. Once a message above the wire's limit was dropped with a log line, and its run waited for ever.
#[tokio::test]
async fn arguments_of_any_size_end_in_a_typed_error_and_the_link_lives() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    for size in [200 << 10, 1 << 20, 5 << 20, 40 << 20] {
        let command = Command::new("true").arg("x".repeat(size));
        let error = wait(harness.exec(command)).await.unwrap_err();
        assert!(matches!(error, RunError::Refused(_)), "{size}: {error:?}");
        assert_works(&harness).await;
    }
    for count in [40_000, 400_000] {
        let command = Command::new("true").args(vec![
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde";
            count
        ]);
        let error = wait(harness.exec(command)).await.unwrap_err();
        assert!(matches!(error, RunError::Refused(_)), "{count}: {error:?}");
        assert_works(&harness).await;
    }
    let finished = wait(harness.exec(Command::new("printf").arg("%s").arg("y".repeat(100 << 10))))
        .await
        .unwrap();
    assert_eq!(finished.output_bytes, [100 << 10, 0]);
}

#[tokio::test]
async fn a_run_that_was_refused_tells_no_event_and_takes_no_input() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let mut run = harness.exec(Command::new("no-such-program").stdin_piped());
    assert_eq!(
        crate::support::bounded("the end of events", run.next()).await,
        None
    );
    let wrote = crate::support::bounded("a write", run.write_stdin("x".into())).await;
    assert!(wrote.is_err());
    run.terminate(Duration::ZERO);
    assert_eq!(wait(run).await.unwrap_err().errno(), Some(2));
}

#[tokio::test]
async fn signals_that_do_not_exist_are_refused_and_real_ones_arrive() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let mut run = harness.exec(shell(
        "trap 'echo usr1; exit 3' USR1; echo ready; while :; do sleep 0.01; done",
    ));
    crate::support::output_until(&mut run, "ready").await;
    for number in [0, -1, 65, i32::MAX, i32::MIN] {
        let error = crate::support::bounded("a signal", run.signal(number))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::BadSignal), "{number}: {error:?}");
    }
    crate::support::bounded("a signal", run.signal(10)).await.unwrap();
    let finished = wait(run).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(3));
}
