//! Requests that are given up: before they were sent, on their way, while they wait and while they are done.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use dwell_actors::harness::{Command, Harness, RunError};
use dwell_messages::{ErrorCode, ExitStatus};
use dwell_testkit::{Cut, Direction};

use crate::support::{bounded, shell, started};
use crate::world::{Dice, World, lines, seed, soak, until};

/// The processes of this test that are there: each has the mark in its command line.
fn living(mark: &str) -> usize {
    let Ok(all) = std::fs::read_dir("/proc") else {
        return 0;
    };
    all.flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| line.windows(mark.len()).any(|part| part == mark.as_bytes()))
        .count()
}

/// Polls a future so many times, with a turn of the runtime between, and drops it.
async fn polled(future: impl Future, times: u64) {
    let mut future = pin!(future);
    for _ in 0..times {
        let done = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if done {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn works(harness: &Harness) {
    let finished = bounded("a command", harness.exec(Command::new("true")).wait()).await;
    assert_eq!(finished.unwrap().status, ExitStatus::Code(0));
}

/// K-07, K-08: a start that is given up at any moment leaves no process, and nothing else is harmed.
#[tokio::test]
async fn a_start_that_is_given_up_at_any_moment_leaves_no_process() {
    let mut dice = Dice(seed());
    let world = World::start().await;
    let harness = world.harness().await;
    let mark = format!("{}.75", 100_000 + std::process::id());
    let rounds = if soak() { 2_000 } else { 200 };
    for round in 0..rounds {
        let command = Command::new("sleep").arg(&mark);
        let wait = Duration::from_micros(dice.below(4_000));
        match round % 4 {
            0 => polled(harness.exec(command).wait(), dice.below(12)).await,
            1 => drop(tokio::time::timeout(wait, harness.exec(command).wait()).await),
            2 => drop(tokio::time::timeout(wait, harness.start(command).ended()).await),
            _ => polled(harness.start(command).ended(), dice.below(12)).await,
        }
    }
    until("every process's end", || living(&mark) == 0).await;
    works(&harness).await;
}

/// A start that was answered belongs to whoever asked; here it is ended at once.
trait Ended {
    async fn ended(self);
}

impl<F: Future<Output = Result<dwell_actors::harness::StartedProcess, RunError>>> Ended for F {
    async fn ended(self) {
        if let Ok(started) = self.await {
            // Without the harness, whose own calls are what is looked at.
            let pid = started.pid.to_string();
            std::process::Command::new("kill")
                .args(["-9", &pid])
                .status()
                .unwrap();
        }
    }
}

/// K-07: what waits in the harness, for the lock here, is never sent.
#[tokio::test]
async fn a_command_that_waits_for_its_turn_and_is_given_up_never_runs() {
    let world = World::start().await;
    let harness = world.harness().await;
    let effects = world.spool.path().join("effects");
    let mut first = harness.exec(shell("read line").stdin_piped().serial());
    started(&mut first).await;
    let script = format!("echo x >> {}", effects.display());
    for _ in 0..50 {
        drop(harness.exec(shell(&script)));
    }
    let kept = harness.exec(shell(&script));
    bounded("a line", first.write_stdin(Bytes::from_static(b"\n")))
        .await
        .unwrap();
    bounded("the first", first.wait()).await.unwrap();
    // Positive control: the one that nobody gave up.
    bounded("the kept one", kept.wait()).await.unwrap();
    works(&harness).await;
    assert_eq!(lines(&effects), 1);
}

/// K-07: a read that waits on the executor is answered at once when it is given up, and its place is free.
#[tokio::test]
async fn reads_that_are_given_up_make_room_for_others() {
    let world = World::start().await;
    let harness = world.harness().await;
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    started(&mut run).await;
    let looker = world.harness_of_its_own().await;
    let observed = looker.observe(harness.session(), 1);
    let long = Duration::from_secs(60);
    // A few times as many as may wait at once, and as may be in flight at all.
    for _ in 0..20 {
        let reads: Vec<_> = (0..100)
            .map(|_| {
                let observed = observed.clone();
                tokio::spawn(async move { observed.read(5, 1, long).await.map(drop) })
            })
            .collect();
        tokio::time::timeout(Duration::from_millis(20), std::future::pending::<()>())
            .await
            .ok();
        for read in reads {
            read.abort();
            read.await.ok();
        }
    }
    let reply = bounded("one more", observed.read(0, 1, Duration::ZERO))
        .await
        .unwrap();
    assert!(reply.events.is_empty());
    let waiting = observed.read(0, 1, Duration::from_secs(20));
    let writing = run.write_stdin(Bytes::from_static(b"news\n"));
    let (reply, written) = bounded("news", async { tokio::join!(waiting, writing) }).await;
    written.unwrap();
    assert_eq!(reply.unwrap().events.len(), 1);
}

/// K-07: a write that waits for a process that does not read is withdrawn, and the ones after it stand where they should.
#[tokio::test]
async fn writes_that_are_given_up_tear_no_hole_and_swallow_nothing() {
    let world = World::start().await;
    let harness = world.harness().await;
    let taken = world.spool.path().join("taken");
    let go = world.spool.path().join("go");
    let script = format!(
        "while ! test -e {}; do sleep 0.01; done; cat > {}",
        go.display(),
        taken.display()
    );
    let mut run = harness.exec(shell(&script).stdin_piped());
    started(&mut run).await;
    let stdin = run.stdin();
    // Whole chunks of one letter each: what was begun is written to its end, what was not leaves no trace.
    for letter in b'a'..=b'p' {
        let chunk = Bytes::from(vec![letter; 48 * 1024]);
        // Of the first two something fits into the pipe; a busy machine is waited for until it has begun them.
        let patience = if letter < b'c' { 2_000 } else { 5 };
        drop(tokio::time::timeout(Duration::from_millis(patience), stdin.write(chunk)).await);
    }
    std::fs::write(&go, "").unwrap();
    bounded("the last", stdin.write(Bytes::from_static(b"END")))
        .await
        .unwrap();
    bounded("closing", stdin.close()).await.unwrap();
    bounded("its end", run.wait()).await.unwrap();
    let bytes = std::fs::read(&taken).unwrap();
    let (text, end) = bytes.split_at(bytes.len() - 3);
    assert_eq!(end, b"END");
    let mut letters: Vec<_> = text.chunk_by(|a, b| a == b).collect();
    let written = letters.len();
    assert!(
        (2..16).contains(&written),
        "some were written and some not: {written}"
    );
    for run in &letters {
        assert_eq!(run.len(), 48 * 1024, "whole or not at all: {}", run[0] as char);
    }
    letters.dedup();
    assert!(
        letters.windows(2).all(|pair| pair[0][0] < pair[1][0]),
        "in order, each once"
    );
}

/// K-07 over a link that dies: the withdrawal has its place in the order and comes through once; nothing is done of a
/// request that it overtook, and nothing is done twice.
#[tokio::test]
async fn a_withdrawal_over_links_that_die_does_nothing_twice_and_leaks_nothing() {
    let mut dice = Dice(seed());
    let world = World::start().await;
    let harness = world.harness().await;
    let mark = format!("{}.76", 100_000 + std::process::id());
    for round in 0..if soak() { 400 } else { 40 } {
        bounded("a round trip", harness.environment_info()).await.unwrap();
        world.proxy.hold(Direction::ToUpstream);
        let run = harness.exec(Command::new("sleep").arg(&mark));
        drop(tokio::time::timeout(Duration::from_micros(dice.below(3_000)), run.wait()).await);
        world
            .proxy
            .cut(if round % 2 == 0 { Cut::Reset } else { Cut::Close });
        world.proxy.heal();
    }
    until("every process's end", || living(&mark) == 0).await;
    works(&harness).await;
    assert_eq!(world.executor.sessions(), 1);
}

/// Whoever withdraws nothing is served: the positive control of all of the above.
#[tokio::test]
async fn what_is_not_given_up_is_done() {
    let world = World::start().await;
    let harness = world.harness().await;
    let mark = format!("{}.77", 100_000 + std::process::id());
    let mut run = harness.exec(Command::new("sleep").arg(&mark));
    started(&mut run).await;
    assert_eq!(living(&mark), 1);
    let late = bounded(
        "a signal to nobody",
        harness.observe(harness.session(), 99).stop(Duration::ZERO),
    )
    .await;
    assert_eq!(late.unwrap_err().code(), Some(ErrorCode::UnknownProcess));
    drop(run);
    until("its end", || living(&mark) == 0).await;
}
