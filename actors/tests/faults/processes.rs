//! What processes write and read, from the client's side, through a relay: the executor here has no guard.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dwell_actors::harness::{Command, Run, RunEvent};
use dwell_messages::process::SignalTarget;
use dwell_messages::{ErrorCode, ExitStatus};
use dwell_testkit::{Marker, wait_until};

use crate::support::{BOUND, Roles, assert_works, bounded, output_until, shell, started, wait};

/// Both outputs to their ends, each by itself.
async fn both(run: &mut Run) -> [Vec<u8>; 2] {
    let [mut out, mut err] = [Vec::new(), Vec::new()];
    bounded("the output", async {
        while let Some(event) = run.next().await {
            match event {
                RunEvent::Stdout(data) => out.extend_from_slice(&data),
                RunEvent::Stderr(data) => err.extend_from_slice(&data),
                RunEvent::Started { .. } | RunEvent::Gap(_) | RunEvent::Exited(_) => {}
            }
        }
    })
    .await;
    [out, err]
}

/// P-17: written in turns, each stream comes whole and in its own order. Between the two there is none: two pipes have none.
#[tokio::test]
async fn two_streams_written_in_turns_are_each_exact_and_in_order() {
    const LINES: usize = 20_000;
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let script = format!(
        "awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) {{ print \"out\", i; print \"err\", i > \"/dev/stderr\" }} }}'"
    );
    let mut run = harness.exec(shell(&script));
    let [out, err] = both(&mut run).await;
    let expected = |name: &str| -> String { (0..LINES).map(|line| format!("{name} {line}\n")).collect() };
    assert!(out == expected("out").into_bytes(), "{} bytes", out.len());
    assert!(err == expected("err").into_bytes(), "{} bytes", err.len());
    // By turns of a byte each, so that the readers have to change all the time.
    let script = "i=0; while [ $i -lt 1000 ]; do printf o; printf e >&2; i=$((i+1)); done";
    let [out, err] = both(&mut harness.exec(shell(script))).await;
    assert_eq!((out, err), (vec![b'o'; 1_000], vec![b'e'; 1_000]));
}

/// P-18: every byte there is, invalid UTF-8 and NULs among them, there and back, and cut anywhere.
#[tokio::test]
async fn bytes_of_every_value_go_there_and_come_back() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let mut bytes: Vec<u8> = (0..=255).collect::<Vec<u8>>().repeat(2_000);
    bytes.extend_from_slice(b"\xff\xfe\xc3\x28\xe2\x82\xed\xa0\x80\xf0\x9f\x98\0\0\0\xf0\x9f\x98\x80");
    for size in [1, 3, 4_095, 65_536, bytes.len()] {
        // Pieces of one byte are a few, or the test takes as long as all the others.
        let sent = &bytes[bytes.len() - bytes.len().min(size * 500)..];
        let mut run = harness.exec(shell("tee /dev/stderr").stdin_piped());
        started(&mut run).await;
        let input = run.stdin();
        let writing = async {
            for piece in sent.chunks(size) {
                input.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            input.close().await.unwrap();
        };
        let ((), [out, err]) = tokio::join!(writing, both(&mut run));
        assert!(
            out == sent && err == sent,
            "pieces of {size}: {} and {}",
            out.len(),
            err.len()
        );
    }
    // Arguments and environment are bytes too, as far as the system's own have them.
    let odd = std::ffi::OsString::from_vec((1..=255_u8).collect());
    let command = shell("printf %s \"$1\"; printf %s \"$ODD\" >&2")
        .arg("sh")
        .arg(&odd)
        .env("ODD", &odd);
    let [out, err] = both(&mut harness.exec(command)).await;
    assert!(out == odd.as_bytes() && err == odd.as_bytes());
}

/// P-24: neither side takes anything any more, and an interrupt is heard all the same. The key itself would lie behind
/// what was typed: the signal does not.
#[tokio::test]
async fn a_terminal_that_is_full_both_ways_hears_an_interrupt() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let marker = Marker::new().unwrap();
    let (name, value) = marker.pair();
    let script = "stty raw -echo isig; echo up; exec yes";
    let mut run = harness.exec(shell(script).pty(24, 80).env(name, value));
    output_until(&mut run, "up").await;
    let input = run.stdin();
    let flood = tokio::spawn(async move { input.write(Bytes::from(vec![b'x'; 1 << 20])).await });
    // The output stands still when nobody takes it.
    let (mut last, mut same) = (0, 0);
    wait_until(BOUND, || {
        let now = written(&marker);
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        same >= 100
    })
    .await
    .unwrap();
    assert_works(&harness).await;
    assert!(!flood.is_finished(), "nobody reads: the writer waits");
    let begun = Instant::now();
    bounded("the signal", run.signal_to(SignalTarget::Foreground, 2))
        .await
        .unwrap();
    wait_until(BOUND, || marker.living().unwrap().is_empty())
        .await
        .unwrap();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "heard after {took:?}");
    let refused = bounded("the writer", flood).await.unwrap().unwrap_err();
    assert!(
        matches!(
            refused.code(),
            Some(ErrorCode::StdinClosed | ErrorCode::UnknownProcess)
        ),
        "{refused:?}"
    );
    // What was written is still to be had.
    let [out, _] = both(&mut run).await;
    assert!(out.len() > 1_000);
    assert_eq!(wait(run).await.unwrap().status, ExitStatus::Signal(2));
}

/// What the marked processes have written, by the kernel's count.
fn written(marker: &Marker) -> u64 {
    let count = |pid: u32| {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        io.lines()
            .find_map(|line| line.strip_prefix("wchar: "))?
            .parse::<u64>()
            .ok()
    };
    let processes = marker.living().unwrap();
    processes.iter().filter_map(|process| count(process.pid)).sum()
}

/// P-20 from the client's side: closed, closed twice, written to after the close and after the end.
#[tokio::test]
async fn input_that_is_closed_stays_closed_and_says_so() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    started(&mut run).await;
    let input = run.stdin();
    for _ in 0..2 {
        bounded("a close", input.close()).await.unwrap();
    }
    let closed = |code| matches!(code, Some(ErrorCode::StdinClosed | ErrorCode::UnknownProcess));
    let refused = bounded("a write", input.write("x".into())).await.unwrap_err();
    assert!(closed(refused.code()), "{refused:?}");
    while bounded("the end", run.next()).await.is_some() {}
    let refused = bounded("a write", input.write("x".into())).await.unwrap_err();
    assert!(closed(refused.code()), "{refused:?}");
    assert_eq!(wait(run).await.unwrap().status, ExitStatus::Code(0));
    assert_works(&harness).await;
}
