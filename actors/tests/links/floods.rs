//! Who waits behind a flood, and who does not. Figures are printed; what is asserted has a factor of ten.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dwell_actors::harness::{Command, Harness, Run, RunEvent};
use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink, semconv};
use dwell_messages::{Role, Span, Value};

use crate::support::{bounded, started};
use crate::world::World;

/// Keystrokes of each kind.
const KEYSTROKES: usize = 100;
/// Rounds of them before it counts as too slow: others have the machine too.
const ROUNDS: usize = 5;

fn p99(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// One key after the other, each awaited.
async fn keystrokes(run: &mut Run) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..KEYSTROKES {
        let begun = Instant::now();
        bounded("a write", run.write_stdin(Bytes::from_static(b"x")))
            .await
            .unwrap();
        loop {
            match bounded("an echo", run.next()).await {
                Some(RunEvent::Stdout(data)) => {
                    assert_eq!(&data[..], b"x");
                    break;
                }
                Some(RunEvent::Started { .. }) => {}
                other => panic!("expected an echo, not {other:?}"),
            }
        }
        times.push(begun.elapsed());
    }
    times
}

/// A command that never stops writing, and somebody who takes all of it.
async fn flood(harness: &Harness) -> tokio::task::JoinHandle<u64> {
    let mut run = harness.exec(Command::new("cat").arg("/dev/zero"));
    started(&mut run).await;
    let mut taken = 0;
    while taken < 8 << 20 {
        if let Some(RunEvent::Stdout(data)) = bounded("a flood", run.next()).await {
            taken += data.len() as u64;
        }
    }
    tokio::spawn(async move {
        while let Some(event) = run.next().await {
            if let RunEvent::Stdout(data) = event {
                taken += data.len() as u64;
            }
        }
        taken
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keystroke_is_not_behind_a_flood() {
    let world = World::start().await;
    let harness = world.harness_of_its_own().await;
    let echo = Command::new("cat").stdin_piped();
    for (kind, command) in [("pipe", echo.clone()), ("terminal", echo.pty(24, 80))] {
        let mut run = harness.exec(command);
        started(&mut run).await;
        let idle = p99(&mut keystrokes(&mut run).await);
        let flooding = flood(&harness).await;
        let mut seen = Vec::new();
        loop {
            let flooded = p99(&mut keystrokes(&mut run).await);
            println!("{kind}: p99 of a keystroke's echo {idle:?} idle, {flooded:?} behind a flood");
            if flooded <= 10 * (2 * idle + Duration::from_millis(1)) {
                break;
            }
            seen.push(flooded);
            assert!(
                seen.len() < ROUNDS,
                "{kind}: {idle:?} idle, {seen:?} behind a flood"
            );
        }
        assert!(!flooding.is_finished());
        flooding.abort();
        drop(flooding.await);
    }
}

/// How long the readers of standard output have left the machine to a typist, in microseconds.
#[derive(Clone, Default)]
struct Yielded(Arc<Mutex<i64>>);

impl SpanSink for Yielded {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        let readers = spans
            .iter()
            .filter(|span| span.name == semconv::span::STDOUT_READER);
        for value in readers.filter_map(|span| span.attribute(semconv::STREAM_YIELDED_US)) {
            if let Value::I64(us) = value {
                *self.0.lock().unwrap() += us;
            }
        }
        Ok(())
    }
}

/// Told by its reader, so that no clock of a busy machine decides it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_leaves_a_typist_some_of_the_machine_and_else_takes_all_of_it() {
    const FLOOD: u64 = 64 << 20;
    for types in [true, false] {
        let world = World::start().await;
        let yielded = Yielded::default();
        let sink = yielded.clone();
        let harness = world
            .harness_with(|builder| builder.sink(sink).sampled(true))
            .await;
        let mut echo = harness.exec(Command::new("cat").stdin_piped().sampled(false));
        started(&mut echo).await;
        if types {
            keystrokes(&mut echo).await;
        }
        let flood = harness.exec(Command::new("head").args(["-c", &FLOOD.to_string(), "/dev/zero"]));
        let flood = tokio::spawn(flood.wait());
        while types && !flood.is_finished() {
            keystrokes(&mut echo).await;
        }
        let finished = bounded("a flood", flood).await.unwrap().unwrap();
        assert_eq!(finished.output_bytes[0], FLOOD, "whole in any case");
        bounded("traces", harness.flush_traces()).await;
        let us = *yielded.0.lock().unwrap();
        assert_eq!(us > 0, types, "{us} µs left to a typist");
    }
}

#[tokio::test]
async fn a_call_is_not_behind_another_calls_wait() {
    let world = World::start().await;
    let harness = world.harness_of_its_own().await;
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    started(&mut run).await;
    let long = run.read(1_000, 1_024, Duration::from_secs(20));
    tokio::pin!(long);
    // Every one of them is answered while the read still waits.
    for _ in 0..50 {
        tokio::select! {
            biased;
            read = &mut long => panic!("nothing is there to be read: {read:?}"),
            asked = bounded("a call", harness.environment_info()) => drop(asked.unwrap()),
        }
    }
    run.terminate(Duration::ZERO);
    let read = bounded("the read", long).await.unwrap();
    assert!(
        read.ended || read.closed,
        "it ended with the process and not before"
    );
}
