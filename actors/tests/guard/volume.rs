//! Much output and much input: all of it arrives, and what nobody takes stays where it is.
//!
//! With `DWELL_SOAK=1` the amounts are those of a release.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dwell_actors::harness::{Command, Run, RunEvent};
use dwell_messages::{ErrorCode, ExitStatus};
use dwell_testkit::{Marker, wait_until};
use ring::digest::{Context, SHA256};

use super::endings::own_memory;
use super::ends::{assert_works, connect, shell, started, wait};
use super::runner::{is_soak, tests};
use super::support::PATIENCE;

tests! {
    RootAndNobody:
        much_output_arrives_as_it_was_written,
        output_that_nobody_takes_stops_the_command_and_costs_no_memory,
        input_that_nobody_reads_is_held_back_and_the_session_goes_on;
}

const MIB: u64 = 1 << 20;

/// What harness and executor, which are one process here, may need for a command's data that is on its way.
const MEMORY_MAX: u64 = 48 * MIB;

/// As the other tests, without their bound on the time: the runner has one.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Random bytes, and on standard error what they hash to where they were made.
fn hashed(bytes: u64) -> Command {
    shell(&format!(
        "{{ head -c {bytes} /dev/urandom | tee /dev/fd/3 | sha256sum >&2; }} 3>&1"
    ))
}

/// Takes all there is, and gives its number of bytes and whether it hashes to the same here and there.
async fn compare(run: &mut Run) -> (u64, bool, u64) {
    let (mut here, mut there, mut count) = (Context::new(&SHA256), String::new(), 0);
    let mut most = 0;
    while let Some(event) = run.next().await {
        match event {
            RunEvent::Stdout(data) => {
                here.update(&data);
                let before = count / (16 * MIB);
                count += data.len() as u64;
                if count / (16 * MIB) > before {
                    most = most.max(own_memory());
                }
            }
            RunEvent::Stderr(data) => there.push_str(&String::from_utf8_lossy(&data)),
            RunEvent::Started { .. } | RunEvent::Gap(_) | RunEvent::Exited(_) => {}
        }
    }
    let here: String = here
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    (count, there.starts_with(&here), most)
}

/// P-15.
fn much_output_arrives_as_it_was_written() {
    let bytes = if is_soak() { 10_240 * MIB } else { 256 * MIB };
    run(async {
        let ends = connect().await;
        assert_works(&ends.harness).await;
        let before = own_memory();
        let begun = std::time::Instant::now();
        let mut run = ends.harness.exec(hashed(bytes));
        let (count, is_same, most) = compare(&mut run).await;
        let took = begun.elapsed().as_secs_f64();
        println!(
            "{} MiB in {took:.1} s, {:.0} MiB/s, hashed at both ends; at most {} KiB of memory more",
            count / MIB,
            count as f64 / MIB as f64 / took,
            most.saturating_sub(before) / 1_024
        );
        assert!(is_same && count == bytes, "{count} of {bytes} bytes");
        assert!(most.saturating_sub(before) <= MEMORY_MAX, "{most} after {before}");
        assert_eq!(wait(run).await.unwrap().status, ExitStatus::Code(0));
    });
}

/// What the marked processes have written, by the kernel's count.
fn written(marker: &Marker) -> u64 {
    let processes = marker.living().unwrap();
    let count = |pid: u32| {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
        io.lines()
            .find_map(|line| line.strip_prefix("wchar: "))?
            .parse::<u64>()
            .ok()
    };
    processes.iter().filter_map(|process| count(process.pid)).sum()
}

/// P-16.
fn output_that_nobody_takes_stops_the_command_and_costs_no_memory() {
    let bytes = if is_soak() { 10_240 * MIB } else { 256 * MIB };
    run(async {
        let ends = connect().await;
        assert_works(&ends.harness).await;
        let before = own_memory();
        let marker = Marker::new().unwrap();
        let (name, value) = marker.pair();
        let mut run = ends.harness.exec(hashed(bytes).env(name, value));
        started(&mut run).await;
        let (mut last, mut same) = (0, 0);
        wait_until(PATIENCE, || {
            let now = written(&marker);
            same = if now == last && now > 0 { same + 1 } else { 0 };
            last = now;
            same >= 100
        })
        .await
        .unwrap();
        // Three programs of a pipeline write it.
        assert!(last <= 64 * MIB, "{last} bytes were written that nobody took");
        for _ in 0..3 {
            assert_works(&ends.harness).await;
        }
        let grown = own_memory().saturating_sub(before);
        println!(
            "the command stopped after {} KiB, at {} KiB of memory more",
            last / 1_024,
            grown / 1_024
        );
        assert!(grown <= MEMORY_MAX, "{grown} bytes more for what nobody takes");
        // And nothing is lost by the stop.
        let (count, is_same, _) = compare(&mut run).await;
        assert!(is_same && count == bytes, "{count} of {bytes} bytes");
    });
}

/// P-19.
fn input_that_nobody_reads_is_held_back_and_the_session_goes_on() {
    let offered = if is_soak() { 1_024 * MIB } else { 64 * MIB };
    run(async {
        let ends = connect().await;
        assert_works(&ends.harness).await;
        let before = own_memory();
        let mut run = ends.harness.exec(Command::new("sleep").arg("1000").stdin_piped());
        started(&mut run).await;
        let (input, taken) = (run.stdin(), Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&taken);
        let flood = tokio::spawn(async move {
            let chunk = Bytes::from_static(&[b'x'; 65_536]);
            while counter.load(Ordering::Relaxed) < offered {
                input.write(chunk.clone()).await?;
                counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            Ok::<(), dwell_actors::harness::RunError>(())
        });
        let (mut last, mut same) = (0, 0);
        while same < 20 {
            // Another command of the same session answers all the while.
            assert_works(&ends.harness).await;
            let now = taken.load(Ordering::Relaxed);
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        assert!(last <= 2 * MIB, "{last} bytes were taken that nobody reads");
        let grown = own_memory().saturating_sub(before);
        println!(
            "{} KiB taken of {} MiB, at {} KiB of memory more",
            last / 1_024,
            offered / MIB,
            grown / 1_024
        );
        assert!(grown <= MEMORY_MAX, "{grown} bytes more for what nobody reads");
        assert!(!flood.is_finished(), "the writer waits");
        let report = run.stop(Duration::from_secs(2)).await.unwrap();
        assert_eq!(report.unkillable, 0);
        let ended = flood.await.unwrap().unwrap_err();
        let code = ended.code();
        assert!(
            matches!(code, Some(ErrorCode::StdinClosed | ErrorCode::UnknownProcess)),
            "{ended:?}"
        );
        assert_eq!(wait(run).await.unwrap().status, ExitStatus::Signal(15));
        assert_works(&ends.harness).await;
    });
}
