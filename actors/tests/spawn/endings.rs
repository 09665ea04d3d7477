//! How processes end.

use dwell_actors::spawn::{ExitStatus, Reap, Spawner};

use super::support::{finish, not_counting, request, run, shell, start, submit};

fn ending(argv: &[&str]) -> ExitStatus {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        finish(start(&spawner, request(argv)).await).await.exit.status
    })
}

#[test]
fn true_ends_with_code_0() {
    assert_eq!(ending(&["true"]), ExitStatus::Code(0));
}

#[test]
fn false_ends_with_code_1() {
    assert_eq!(ending(&["false"]), ExitStatus::Code(1));
}

#[test]
fn an_exit_code_comes_through() {
    assert_eq!(ending(&["sh", "-c", "exit 7"]), ExitStatus::Code(7));
    assert_eq!(ending(&["sh", "-c", "exit 255"]), ExitStatus::Code(255));
}

#[test]
fn a_death_by_signal_is_told_from_an_exit_code() {
    assert_eq!(ending(&["sh", "-c", "kill -KILL $$"]), ExitStatus::Signal(9));
    assert_eq!(
        ending(&["sh", "-c", "kill -PIPE $$"]),
        ExitStatus::Signal(13),
        "SIGPIPE is not ignored in the child"
    );
    assert_eq!(ending(&["sh", "-c", "exit 137"]), ExitStatus::Code(137));
}

#[test]
fn an_end_is_seen_again_and_only_the_reaping_ends_that() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, shell("exit 3")).await;
        let mut first = spawned.process.watch().unwrap();
        let exit = first.wait().await.unwrap();
        assert_eq!(exit, first.wait().await.unwrap());
        assert_eq!(spawned.process.exit().unwrap(), Some(exit));
        assert!(
            spawned.process.start_ticks().unwrap() > 0,
            "a zombie still has its place in /proc"
        );
        let pidfd = spawned.process.pidfd();
        assert!(matches!(spawned.process.reap().unwrap(), Reap::Done(same) if same == exit));
        assert_eq!(first.wait().await.unwrap(), exit);
        drop(first);
        let mut late = dwell_actors::spawn::ExitWatcher::new(pidfd).unwrap();
        let lost = late.wait().await.unwrap_err();
        assert_eq!(lost.raw_os_error(), Some(rustix::io::Errno::CHILD.raw_os_error()));
    });
}

#[test]
fn a_dropped_wait_loses_nothing() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, request(&["sleep", "60"])).await;
        let mut watcher = spawned.process.watch().unwrap();
        for _ in 0..100 {
            tokio::select! {
                biased;
                exit = watcher.wait() => panic!("ended early: {exit:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        let process = match spawned.process.reap().unwrap() {
            Reap::Running(process) => process,
            Reap::Done(exit) => panic!("reaped a living process: {exit:?}"),
        };
        process.signal_leader(9).unwrap();
        assert_eq!(watcher.wait().await.unwrap().status, ExitStatus::Signal(9));
    });
}

#[test]
fn the_account_of_a_start_is_in_order() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let outcome = submit(&spawner, request(&["true"])).await;
        assert!(outcome.submitted <= outcome.started && outcome.started < outcome.ended);
        assert_eq!(
            outcome.queued() + outcome.spawning(),
            outcome.ended - outcome.submitted
        );
        drop(outcome);
    });
}
