//! How often one thread wakes another on the way of a one-shot command, from `exec` to `Finished`.
//!
//! The executor is a process of its own, this binary again, so that each side's count stands alone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use dwell_actors::executor::Executor;
use dwell_actors::harness::{Command, Harness, Target};
use dwell_actors::telemetry::crossings;
use dwell_messages::ExitStatus;
use dwell_relay::{OsRandomness, StaticKeypair};

/// Holds the client's key where this binary is to be the executor.
const CLIENT: &str = "DWELL_TEST_CROSSINGS_CLIENT";
/// Runs that are counted.
const RUNS: u64 = 50;
/// What a run may need on each side.
const CROSSINGS_MAX: u64 = 2;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Standard error is the executor's voice: standard output is the test runner's.
struct OtherProcess {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
}

impl OtherProcess {
    fn start(client: &str) -> Self {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_executor_of_the_other_test", "--nocapture"])
            .env(CLIENT, client)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn crossings(&mut self) -> u64 {
        writeln!(self.child.stdin.as_mut().unwrap(), "count").unwrap();
        self.line().parse().unwrap()
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// Not a test of its own: does nothing unless the other test started it.
#[test]
fn the_executor_of_the_other_test() {
    let Ok(client) = std::env::var(CLIENT) else { return };
    runtime().block_on(async {
        let executor = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize(client.parse().unwrap())
            .serve()
            .await
            .unwrap();
        eprintln!("{} {}", executor.public_key(), executor.local_addr().unwrap());
        // Blocks this thread only: the executor has its own.
        for line in std::io::stdin().lines() {
            assert_eq!(line.unwrap(), "count");
            eprintln!("{}", crossings());
        }
    });
}

async fn run(harness: &Harness) {
    let run = harness.exec(Command::new("true").sampled(false));
    let finished = tokio::time::timeout(Duration::from_secs(20), run.wait())
        .await
        .expect("the run ends")
        .unwrap();
    assert_eq!(finished.status, ExitStatus::Code(0));
}

/// The counter is the whole process's: who counts is alone.
static COUNTING: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_session_on_the_callers_own_arbiter_crosses_no_thread() {
    let _alone = COUNTING.lock().unwrap();
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let mut executor = OtherProcess::start(&client.public().to_string());
    let line = executor.line();
    let (key, address) = line.split_once(' ').unwrap();
    let target = Target::direct(address, key.parse().unwrap());
    dwell_actors::block_on(async {
        let builder = Harness::builder().identity(client).here();
        let harness = builder.connect(target).await.unwrap();
        run(&harness).await;
        let before = crossings();
        for _ in 0..RUNS {
            run(&harness).await;
        }
        assert_eq!(crossings() - before, 0);
        harness.shutdown().await;
    });
}

#[test]
fn a_one_shot_command_crosses_threads_at_most_twice_on_each_side() {
    let _alone = COUNTING.lock().unwrap();
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let mut executor = OtherProcess::start(&client.public().to_string());
    let line = executor.line();
    let (key, address) = line.split_once(' ').unwrap();
    let target = Target::direct(address, key.parse().unwrap());
    runtime().block_on(async {
        let harness = Harness::builder().identity(client).connect(target).await.unwrap();
        run(&harness).await;
        let (here, there) = (crossings(), executor.crossings());
        for _ in 0..RUNS {
            run(&harness).await;
        }
        let (here, there) = (crossings() - here, executor.crossings() - there);
        for (side, count) in [("harness", here), ("executor", there)] {
            assert!(
                count >= RUNS,
                "{count} crossings of the {side} in {RUNS} runs: the counter does not count"
            );
            assert!(
                count <= RUNS * CROSSINGS_MAX,
                "{count} crossings of the {side} in {RUNS} runs"
            );
        }
        harness.shutdown().await;
    });
}
