//! Many at once, and what is left behind.

use dwell_actors::harness::Command;
use dwell_messages::ExitStatus;
use dwell_testkit::{Census, wait_until};

use crate::support::{BOUND, Roles, assert_works, bounded, wait};

/// Set in the process that has the test below to itself.
const ALONE: &str = "DWELL_FAULTS_ALONE";

#[tokio::test]
async fn a_hundred_at_once_all_finish() {
    let roles = Roles::start().await;
    for harness in [
        roles.harness().await,
        roles.connect(roles.direct()).await.unwrap(),
    ] {
        let runs: Vec<_> = (0..100).map(|_| harness.exec(Command::new("true"))).collect();
        for run in runs {
            assert_eq!(wait(run).await.unwrap().status, ExitStatus::Code(0));
        }
    }
}

/// The census is of a whole process, so it is taken in one of its own.
#[tokio::test]
async fn a_hundred_at_once_leave_no_descriptor_and_no_child() {
    let test = "limits::census_of_a_hundred";
    let mut alone = tokio::process::Command::new(std::env::current_exe().unwrap());
    alone
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(ALONE, "1")
        .kill_on_drop(true);
    let output = bounded("the census", alone.output()).await.unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "run by a_hundred_at_once_leave_no_descriptor_and_no_child, in a process of its own"]
async fn census_of_a_hundred() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    // What is made once and kept is made by now.
    for _ in 0..4 {
        assert_works(&harness).await;
    }
    let before = Census::take().unwrap();
    for _ in 0..3 {
        let mut runs: Vec<_> = (0..100).map(|_| harness.exec(Command::new("true"))).collect();
        runs.push(harness.exec(Command::new("no-such-program")));
        for run in runs {
            drop(wait(run).await);
        }
    }
    for _ in 0..5 {
        let other = roles.harness().await;
        assert_works(&other).await;
        bounded("the end", other.shutdown()).await;
    }
    let settled = wait_until(BOUND, || Census::take().unwrap().leak_since(&before).is_empty()).await;
    let after = Census::take().unwrap();
    assert!(settled.is_ok(), "{:?}", after.leak_since(&before));
    assert_eq!(after.zombies(), Vec::<u32>::new());
}
