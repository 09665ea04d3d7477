//! Input and output, when one side is slow, gone or loud.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dwell_actors::harness::{Command, RunEvent};
use dwell_messages::{ErrorCode, ExitStatus};
use dwell_testkit::{Marker, wait_until};

use crate::support::{BOUND, Roles, assert_works, bounded, shell, started, wait};

const MIB: usize = 1 << 20;

/// FNV-1a, 64 bits.
fn hash(state: u64, data: &[u8]) -> u64 {
    data.iter().fold(state, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

#[tokio::test]
async fn a_mebibyte_through_cat_comes_back_as_it_was() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let data: Vec<u8> = (0..MIB).map(|index| (index * 31 + index / 251) as u8).collect();
    let mut run = harness.exec(Command::new("cat").stdin_piped().output_limit(MIB));
    bounded("writing", run.write_stdin(Bytes::from(data.clone())))
        .await
        .unwrap();
    bounded("closing", run.close_stdin()).await.unwrap();
    let wrote = bounded("a late write", run.write_stdin("late".into()))
        .await
        .unwrap_err();
    assert!(
        wrote
            .code()
            .is_none_or(|code| matches!(code, ErrorCode::StdinClosed | ErrorCode::UnknownProcess))
    );
    let finished = wait(run).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(0));
    assert_eq!(
        hash(HASH_START, &finished.stdout.to_vec()),
        hash(HASH_START, &data)
    );
}

#[tokio::test]
async fn a_write_to_a_command_without_input_is_refused() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let mut run = harness.exec(Command::new("sleep").arg("1000"));
    let error = bounded("a write", run.write_stdin("x".into())).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::StdinClosed));
    let error = bounded("a close", run.close_stdin()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::StdinClosed));
}

#[tokio::test]
async fn writing_to_what_has_closed_its_input_is_an_error_and_no_hang() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let mut run = harness.exec(shell("exec <&-; echo up; sleep 1000").stdin_piped());
    crate::support::output_until(&mut run, "up").await;
    let error = bounded("a write", run.write_stdin(Bytes::from(vec![1; MIB])))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::StdinClosed), "{error:?}");
    assert_works(&harness).await;
}

#[tokio::test]
async fn a_write_that_nobody_reads_ends_with_the_process() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let mut run = harness.exec(Command::new("sleep").arg("1000").stdin_piped());
    started(&mut run).await;
    run.terminate(Duration::from_millis(100));
    let wrote = bounded("a write", run.write_stdin(Bytes::from(vec![1; 4 * MIB]))).await;
    assert!(wrote.is_err());
    assert_eq!(wait(run).await.unwrap().status, ExitStatus::Signal(15));
}

#[tokio::test]
async fn a_grandchild_with_the_pipe_delays_the_end_and_not_the_exit() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let marker = Marker::new().unwrap();
    let (name, value) = marker.pair();
    let mut run = harness.exec(shell("sleep 1000 & echo out; exit 4").env(name, value));
    let begun = Instant::now();
    let exited = bounded("the exit", async {
        loop {
            match run.next().await {
                Some(RunEvent::Exited(status)) => return status,
                Some(_) => {}
                None => panic!("it ended without an exit"),
            }
        }
    })
    .await;
    assert_eq!(exited, ExitStatus::Code(4));
    let exited_after = begun.elapsed();
    let finished = wait(run).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(4));
    assert!(!finished.drained);
    assert_eq!(finished.holders, 1, "the sleep");
    assert!(
        begun.elapsed() >= exited_after + Duration::from_secs(1),
        "{:?}, {exited_after:?}",
        begun.elapsed()
    );
    assert_works(&harness).await;
    bounded("the end", harness.shutdown()).await;
    wait_until(BOUND, || marker.living().unwrap().is_empty())
        .await
        .unwrap();
}

#[tokio::test]
async fn sixty_four_mebibytes_come_through_the_relay_as_they_were() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let line = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ!\n";
    let script = format!("yes '{}' | head -c {}", line.trim_end(), 64 * MIB);
    let mut run = harness.exec(shell(&script));
    let (mut state, mut count) = (HASH_START, 0);
    bounded("64 MiB", async {
        while let Some(event) = run.next().await {
            if let RunEvent::Stdout(data) = event {
                state = hash(state, &data);
                count += data.len();
            }
        }
    })
    .await;
    let finished = wait(run).await.unwrap();
    assert_eq!(count, 64 * MIB);
    assert_eq!(finished.output_bytes, [64 * MIB as u64, 0]);
    let expected = (0..MIB).fold(HASH_START, |state, _| hash(state, line.as_bytes()));
    assert_eq!(state, expected);
}

/// Bytes a process has written, by the kernel's count.
fn written(pid: u32) -> Option<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines()
        .find_map(|line| line.strip_prefix("wchar: "))?
        .parse()
        .ok()
}

#[tokio::test]
async fn a_consumer_that_takes_nothing_stops_the_child_and_nobody_else() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let mut run = harness.exec(Command::new("cat").arg("/dev/zero"));
    let pid = started(&mut run).await;
    let (mut last, mut same) = (0, 0);
    wait_until(BOUND, || {
        let now = written(pid).expect("it lives");
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        same >= 200
    })
    .await
    .unwrap();
    assert!(
        last <= 16 * MIB as u64,
        "the child wrote {last} bytes that nobody took"
    );
    assert_works(&harness).await;
    assert_eq!(written(pid), Some(last));
    // And goes on when somebody takes.
    let mut taken = 0;
    bounded("the rest", async {
        while taken < 4 * last {
            match run.next().await {
                Some(RunEvent::Stdout(data)) => taken += data.len() as u64,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    drop(run);
    assert_works(&harness).await;
    let process = format!("/proc/{pid}");
    wait_until(BOUND, || !std::path::Path::new(&process).exists())
        .await
        .unwrap();
}

/// Reads on from `after` until it is all told: the output's bytes, and those in gaps.
async fn read_all(run: &dwell_actors::harness::Run) -> (Vec<u8>, u64) {
    let (mut after, mut text, mut missing) = (0, Vec::new(), None);
    loop {
        let reply = bounded("a read", run.read(after, 100_000, Duration::from_secs(20)))
            .await
            .unwrap();
        missing.get_or_insert_with(|| reply.gaps.iter().map(dwell_messages::process::Gap::bytes).sum());
        for event in &reply.events {
            if let dwell_messages::Event::Output(output) = event {
                text.extend_from_slice(&output.data);
            }
        }
        if reply.closed {
            return (text, missing.unwrap());
        }
        assert!(reply.next > after + 1, "a read with a wait tells something new");
        after = reply.next - 1;
    }
}

#[tokio::test]
async fn what_a_process_told_can_be_read_again_and_what_is_gone_is_counted() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let script = "yes 0123456789abcde | head -c 3145728";
    let mut run = harness.exec(shell(script).retention(1024 * 1024));
    while bounded("an event", run.next()).await.is_some() {}
    let (text, missing) = read_all(&run).await;
    let mib = MIB as u64;
    assert_eq!(text.len() as u64 + missing, 3 * mib);
    assert!(
        text.len() as u64 <= mib && text.len() as u64 > mib - 65_536,
        "{}",
        text.len()
    );
    assert!(text.ends_with(b"0123456789abcde\n"));
    assert_eq!(
        bounded("the end", run.wait()).await.unwrap().output_bytes,
        [3 * mib, 0]
    );
}

#[tokio::test]
async fn a_read_waits_for_what_is_still_to_come() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    started(&mut run).await;
    let input = run.stdin();
    let (reply, ()) = tokio::join!(run.read(0, 1_000, Duration::from_secs(20)), async {
        input.write("late".into()).await.unwrap();
    });
    let reply = reply.unwrap();
    assert_eq!((reply.events.len(), reply.closed), (1, false));
    let nothing = run
        .read(reply.next - 1, 1_000, Duration::from_millis(20))
        .await
        .unwrap();
    assert!(nothing.events.is_empty() && !nothing.closed);
    input.close().await.unwrap();
    input.close().await.unwrap();
    assert_eq!(wait(run).await.unwrap().status, ExitStatus::Code(0));
}
