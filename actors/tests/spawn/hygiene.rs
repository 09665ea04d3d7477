//! Nothing is left behind, and nothing leaks into a child.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use dwell_actors::spawn::{
    OutputPipe, Reap, RejectedReason, SPAWN_QUEUE_MAX_REQUESTS, SpawnOutcome, SpawnRequest, Spawner,
};
use dwell_testkit::{Census, Leak, inheritable_fds, wait_until};

use super::support::{
    PATIENCE, counting, finish, in_directory, not_counting, request, run, shell, start, submit, submit_later,
    with_stdin,
};

/// What a test left behind, its runtime and its spawner being gone.
fn left_by(test: impl FnOnce()) -> Leak {
    let before = Census::take().unwrap();
    test();
    let begun = std::time::Instant::now();
    loop {
        // The other tests' threads may be waiting at the lock or ending: only ours count.
        let mut leak = Census::take().unwrap().leak_since(&before);
        leak.threads.retain(|(_, name)| name == "dwell-spawn");
        // The kernel lists a thread for a moment after it was joined.
        if leak == Leak::default() || begun.elapsed() > PATIENCE {
            return leak;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_start_that_succeeds_leaves_nothing() {
    let _alone = counting();
    let leak = left_by(|| {
        run(async {
            let spawner = Spawner::start().unwrap();
            for _ in 0..5 {
                finish(start(&spawner, with_stdin(shell("echo a; echo b >&2"))).await).await;
            }
        });
    });
    assert_eq!(leak, Leak::default());
}

/// P-01, P-02, P-05: what they leave.
#[test]
fn starts_that_fail_leave_nothing() {
    let _alone = counting();
    let long = "x".repeat(100_000);
    let too_much: Vec<&str> = std::iter::once("true")
        .chain(std::iter::repeat_n(long.as_str(), 100))
        .collect();
    let failing = [
        request(&["/no/such"]),
        request(&["/tmp"]),
        request(&["no-such"]),
        request(&too_much),
        in_directory(request(&["true"]), std::path::Path::new("/no/such")),
    ];
    let leak = left_by(|| {
        run(async {
            let spawner = Spawner::start().unwrap();
            for request in failing {
                assert!(submit(&spawner, with_stdin(request)).await.result.is_err());
            }
        });
    });
    assert_eq!(leak, Leak::default());
}

#[test]
fn the_census_sees_what_is_held() {
    let _alone = counting();
    // The positive control of every test here.
    run(async {
        let spawner = Spawner::start().unwrap();
        let before = Census::take().unwrap();
        let spawned = start(&spawner, with_stdin(request(&["true"]))).await;
        spawned.process.watch().unwrap().wait().await.unwrap();
        let now = Census::take().unwrap();
        assert_eq!(now.leak_since(&before).fds.len(), 4, "three pipes and a pidfd");
        assert_eq!(now.zombies(), [spawned.process.pid()]);
        finish(spawned).await;
        let left = Census::take().unwrap().leak_since(&before);
        assert!(left.fds.is_empty() && left.children.is_empty(), "{left:?}");
    });
}

/// P-36, without a guard.
#[test]
fn two_hundred_at_once_leave_no_descriptor_and_no_zombie() {
    let _alone = counting();
    let leak = left_by(|| {
        run(async {
            let spawner = Spawner::start().unwrap();
            let outcomes: Vec<_> = (0..200)
                .map(|_| submit_later(&spawner, request(&["echo", "x"])))
                .collect();
            let mut running = tokio::task::JoinSet::new();
            for outcome in outcomes {
                running.spawn(async { finish(outcome.await.unwrap().result.unwrap()).await.stdout });
            }
            while let Some(output) = running.join_next().await {
                assert_eq!(output.unwrap(), b"x\n");
            }
        });
    });
    assert_eq!(leak, Leak::default());
}

#[test]
fn a_process_that_nobody_owns_is_killed_and_reaped() {
    let _alone = counting();
    let leak = left_by(|| {
        run(async {
            let spawner = Spawner::start().unwrap();
            for _ in 0..20 {
                drop(start(&spawner, shell("trap '' TERM; sleep 60 & sleep 60")).await);
            }
            // Nobody listens for this one's start.
            drop(submit_later(&spawner, request(&["sleep", "60"])));
            submit(&spawner, request(&["/no/such"])).await;
            wait_until(PATIENCE, || Census::take().unwrap().children.is_empty())
                .await
                .unwrap();
        });
    });
    assert_eq!(leak, Leak::default());
}

#[test]
fn a_process_that_outlives_its_spawner_is_killed_and_reaped_when_dropped() {
    let _alone = counting();
    let leak = left_by(|| {
        run(async {
            let spawner = Spawner::start().unwrap();
            let spawned = start(&spawner, request(&["sleep", "60"])).await;
            drop(spawner);
            assert_eq!(spawned.process.exit().unwrap(), None);
            drop(spawned);
        });
    });
    assert_eq!(leak, Leak::default());
}

#[test]
fn a_reply_that_panics_is_contained_and_its_process_is_killed() {
    let _alone = counting();
    let leak = left_by(|| {
        run(async {
            let spawner = Spawner::start().unwrap();
            let reply = Box::new(|outcome: SpawnOutcome| {
                let _held = outcome.result.unwrap();
                panic!("a reply's own fault, expected in this test");
            });
            spawner.try_submit(request(&["sleep", "60"]), reply).unwrap();
            finish(start(&spawner, request(&["true"])).await).await;
            wait_until(PATIENCE, || Census::take().unwrap().children.is_empty())
                .await
                .unwrap();
        });
    });
    assert_eq!(leak, Leak::default());
}

/// Occupies the spawner's thread until told otherwise.
fn occupy(spawner: &Spawner) -> std::sync::mpsc::SyncSender<()> {
    let (release, held): (_, Receiver<()>) = sync_channel(1);
    let (taken, is_taken) = sync_channel(1);
    let reply = Box::new(move |outcome: SpawnOutcome| {
        drop(outcome);
        taken.send(()).unwrap();
        held.recv().unwrap();
    });
    spawner.try_submit(request(&["/no/such"]), reply).unwrap();
    is_taken.recv_timeout(PATIENCE).unwrap();
    release
}

#[test]
fn a_full_queue_gives_the_request_back_and_answers_all_it_took() {
    let _alone = counting();
    let leak = left_by(|| {
        let spawner = Spawner::start().unwrap();
        let release = occupy(&spawner);
        let answered = Arc::new(Mutex::new(0));
        let counted = || {
            let answered = Arc::clone(&answered);
            Box::new(move |outcome: SpawnOutcome| {
                assert!(outcome.result.is_err());
                *answered.lock().unwrap() += 1;
            })
        };
        for _ in 0..SPAWN_QUEUE_MAX_REQUESTS {
            spawner.try_submit(request(&["/no/such"]), counted()).unwrap();
        }
        let marked = request(&["/no/such", "the", "one"]);
        let rejected = spawner.try_submit(marked.clone(), counted()).unwrap_err();
        assert_eq!(
            rejected.reason,
            RejectedReason::Full {
                limit: SPAWN_QUEUE_MAX_REQUESTS
            }
        );
        assert_eq!(rejected.request, marked);
        assert!(rejected.to_string().contains("256"));
        release.send(()).unwrap();
        drop(spawner);
        assert_eq!(
            *answered.lock().unwrap(),
            SPAWN_QUEUE_MAX_REQUESTS,
            "the drop waited for every answer"
        );
        let SpawnRequest { argv, .. } = rejected.request;
        assert_eq!(argv.len(), 3);
    });
    assert_eq!(leak, Leak::default());
}

#[test]
fn a_spawner_dropped_by_its_own_reply_ends_its_thread_after_the_queue() {
    let _alone = counting();
    let leak = left_by(|| {
        let spawner = Spawner::start().unwrap();
        let release = occupy(&spawner);
        let spawner = Arc::new(spawner);
        let (last, answers) = sync_channel(1);
        let held = Arc::clone(&spawner);
        let dropping = Box::new(move |outcome| drop((held, outcome)));
        spawner.try_submit(request(&["true"]), dropping).unwrap();
        let answering = Box::new(move |outcome: SpawnOutcome| last.send(outcome.result.is_ok()).unwrap());
        spawner.try_submit(request(&["true"]), answering).unwrap();
        drop(spawner);
        release.send(()).unwrap();
        assert!(answers.recv_timeout(PATIENCE).unwrap());
        run(async {
            let is_over = || {
                !Census::take()
                    .unwrap()
                    .threads
                    .values()
                    .any(|name| name == "dwell-spawn")
            };
            wait_until(PATIENCE, is_over).await.unwrap();
        });
    });
    assert_eq!(leak, Leak::default());
}

/// P-30.
#[test]
fn a_child_sees_its_three_descriptors_and_no_other() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        // What this test itself was started with does not pass through either.
        let inherited = inheritable_fds().unwrap();
        // Others that are open while it starts, ours and another process's.
        let neighbour = start(&spawner, with_stdin(request(&["sleep", "60"]))).await;
        let _file = std::fs::File::open("/etc/passwd").unwrap();
        let finished = finish(start(&spawner, with_stdin(request(&["ls", "/proc/self/fd"]))).await).await;
        let seen = String::from_utf8(finished.stdout).unwrap();
        let mut seen: Vec<u32> = seen.lines().map(|fd| fd.parse().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3], "the last is the listing's own");
        assert_eq!(
            inheritable_fds().unwrap(),
            inherited,
            "we open nothing that a child would keep"
        );
        drop(neighbour);
    });
}

#[test]
fn every_descriptor_handed_out_is_closed_on_exec_and_does_not_block() {
    let _shared = not_counting();
    run(async {
        let spawner = Spawner::start().unwrap();
        let spawned = start(&spawner, with_stdin(request(&["true"]))).await;
        let pidfd = spawned.process.pidfd();
        let pipes = [
            spawned.stdin.as_ref().unwrap(),
            &spawned.stdout,
            spawned.stderr.as_ref().unwrap(),
        ];
        for fd in pipes.into_iter().chain([&*pidfd]) {
            assert!(
                rustix::io::fcntl_getfd(fd)
                    .unwrap()
                    .contains(rustix::io::FdFlags::CLOEXEC)
            );
        }
        for fd in pipes {
            assert!(
                rustix::fs::fcntl_getfl(fd)
                    .unwrap()
                    .contains(rustix::fs::OFlags::NONBLOCK)
            );
        }
        let end = spawned.process.watch().unwrap().wait().await;
        assert!(end.is_ok());
        drop(OutputPipe::from_fd(spawned.stdout).unwrap());
        assert!(matches!(spawned.process.reap(), Ok(Reap::Done(_))));
    });
}
