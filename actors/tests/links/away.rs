//! Output while nobody is there to take it.

use std::time::Duration;

use dwell_actors::harness::{Command, RunError, RunEvent};
use dwell_messages::{ExitStatus, OutputStream};
use dwell_testkit::Cut;

use crate::support::{bounded, output_until, shell, started};
use crate::world::{World, until};

/// Numbers, one a line, up to so many bytes.
fn numbers(bytes: usize) -> String {
    let mut text = String::new();
    for number in 0.. {
        text.push_str(&format!("{number}\n"));
        if text.len() >= bytes {
            text.truncate(bytes);
            return text;
        }
    }
    text
}

/// P-16, K-15: a process whose client is away writes to the spool, ends, and is told whole when the client is back.
#[tokio::test]
async fn what_a_process_writes_while_its_client_is_away_is_told_when_it_is_back() {
    let world = World::start().await;
    let harness = world.harness().await;
    let done = world.spool.path().join("done");
    let bytes = 24 << 20;
    let script = format!(
        "echo ready; read line; seq 0 100000000 | head -c {bytes}; echo end >&2; touch {}",
        done.display()
    );
    let mut run = harness.exec(shell(&script).stdin_piped().output_limit(2 * bytes));
    started(&mut run).await;
    output_until(&mut run, "ready").await;
    bounded("a write", run.write_stdin("go\n".into())).await.unwrap();
    world.proxy.freeze();
    world.proxy.cut(Cut::Reset);
    // It is done long before anybody reads what it wrote.
    until("the process", || done.exists()).await;
    world.proxy.heal();
    let mut text = Vec::new();
    let mut errors = Vec::new();
    while let Some(event) = bounded("an event", run.next()).await {
        match event {
            RunEvent::Stdout(data) => text.extend_from_slice(&data),
            RunEvent::Stderr(data) => errors.extend_from_slice(&data),
            RunEvent::Gap(gap) => panic!("nothing was to be dropped: {gap:?}"),
            RunEvent::Started { .. } | RunEvent::Exited(_) => {}
        }
    }
    assert_eq!(errors, b"end\n");
    assert_eq!(text.len(), bytes);
    assert!(text == numbers(bytes).as_bytes(), "every byte, in order");
    assert_eq!(
        bounded("its end", run.wait()).await.unwrap().status,
        ExitStatus::Code(0)
    );
}

/// A full spool stops the process, not the executor; nothing is dropped.
#[tokio::test]
async fn a_process_waits_when_its_spool_is_full() {
    let world = World::with(1 << 20, |builder| builder).await;
    let harness = world.harness().await;
    let done = world.spool.path().join("done");
    let bytes = 16 << 20;
    let script = format!("seq 0 100000000 | head -c {bytes}; touch {}", done.display());
    let mut run = harness.exec(shell(&script).output_limit(2 * bytes));
    started(&mut run).await;
    world.proxy.freeze();
    world.proxy.cut(Cut::Reset);
    let other = world.harness_of_its_own().await;
    let finished = bounded(
        "another client's command",
        other.exec(Command::new("true")).wait(),
    )
    .await;
    assert_eq!(finished.unwrap().status, ExitStatus::Code(0));
    assert!(
        !done.exists(),
        "the process waits: 16 MiB do not fit into 1 MiB, two windows and its pipes"
    );
    world.proxy.heal();
    let finished = bounded("its end", run.wait()).await.unwrap();
    assert_eq!(finished.stdout.total(), bytes as u64);
    assert!(finished.stdout.to_vec() == numbers(bytes).as_bytes());
    assert!(done.exists());
}

/// K-15: under the ring policy nobody waits, and what is dropped is told to the byte.
#[tokio::test]
async fn a_ring_drops_the_oldest_and_says_exactly_how_much() {
    let world = World::with(1 << 20, |builder| builder).await;
    let harness = world.harness().await;
    let done = world.spool.path().join("done");
    let bytes = 32 << 20;
    let script = format!("seq 0 100000000 | head -c {bytes}; touch {}", done.display());
    // Nobody takes a byte of it until it is done.
    let mut run = harness.exec(shell(&script).ring());
    until("the process", || done.exists()).await;
    let expected = numbers(bytes);
    let (mut at, mut gaps) = (0_usize, 0_u64);
    while let Some(event) = bounded("an event", run.next()).await {
        match event {
            RunEvent::Stdout(data) => {
                assert!(
                    data == expected.as_bytes()[at..at + data.len()],
                    "what stands at {at}"
                );
                at += data.len();
            }
            RunEvent::Gap(gap) => {
                assert_eq!((gap.stream, gap.from), (OutputStream::Stdout, at as u64));
                gaps += gap.bytes();
                at = usize::try_from(gap.to).unwrap();
            }
            RunEvent::Started { .. } | RunEvent::Stderr(_) | RunEvent::Exited(_) => {}
        }
    }
    assert_eq!(at, bytes, "bytes and gaps together are the whole");
    assert!(gaps > 16 << 20, "{gaps} bytes were dropped");
    let finished = bounded("its end", run.wait()).await.unwrap();
    assert_eq!(finished.output_bytes[0], bytes as u64);
}

/// K-03: a session that nobody takes up ends, and what it runs with it; whoever comes later hears it.
#[tokio::test]
async fn a_session_that_nobody_takes_up_ends_with_its_processes() {
    let world = World::with(1 << 20, |builder| {
        builder.detached_life(Duration::from_millis(200))
    })
    .await;
    let harness = world.harness().await;
    let mut run = harness.exec(Command::new("sleep").arg("1000"));
    let pid = started(&mut run).await;
    world.proxy.freeze();
    world.proxy.cut(Cut::Reset);
    until("the session's end", || world.executor.sessions() == 0).await;
    let there = std::path::PathBuf::from(format!("/proc/{pid}"));
    until("the process", || !there.exists()).await;
    world.proxy.heal();
    let outcome = bounded("a definite end", run.wait()).await;
    let Err(RunError::Lost(why)) = outcome else {
        panic!("expected an unknown outcome, not {outcome:?}");
    };
    assert!(why.contains("no such session"), "{why}");
}

/// The harness gives up too: every call has an end.
#[tokio::test]
async fn a_harness_gives_a_link_up_in_time() {
    let world = World::start().await;
    let patient =
        |builder: dwell_actors::harness::HarnessBuilder| builder.resume_for(Duration::from_millis(300));
    let harness = world.harness_with(patient).await;
    let mut run = harness.exec(Command::new("sleep").arg("1000"));
    started(&mut run).await;
    world.proxy.freeze();
    world.proxy.cut(Cut::Reset);
    let outcome = bounded("a definite end", run.wait()).await;
    assert!(matches!(outcome, Err(RunError::Lost(_))), "{outcome:?}");
}
