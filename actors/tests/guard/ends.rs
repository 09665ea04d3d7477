//! Harness and executor in one process, over a sealed link.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::{Command, Finished, Harness, Run, RunError, RunEvent, Target};
use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink};
use dwell_messages::process::Containment;
use dwell_messages::{ExitStatus, Role, Span};
use dwell_relay::{OsRandomness, StaticKeypair};

use super::executor::Guarded;

/// The longest anything here may take.
pub(crate) const BOUND: Duration = Duration::from_secs(25);

/// Keeps every span.
#[derive(Clone, Default)]
pub(crate) struct Spans(pub(crate) Arc<Mutex<Vec<(Role, Span)>>>);

impl SpanSink for Spans {
    fn export(&mut self, role: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        let mut kept = self.0.lock().unwrap();
        kept.extend(spans.iter().map(|span| (role, span.clone())));
        Ok(())
    }
}

/// Both ends.
pub(crate) struct Ends {
    pub(crate) harness: Harness,
    pub(crate) executor: ExecutorHandle,
    pub(crate) spans: Spans,
}

pub(crate) async fn connect() -> Ends {
    connect_with(Guarded::Fully).await
}

pub(crate) async fn connect_with(guarded: Guarded) -> Ends {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .guard(guarded.options())
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let spans = Spans::default();
    let builder = Harness::builder().identity(client).sink(spans.clone());
    let harness = builder.connect(target).await.unwrap();
    Ends {
        harness,
        executor,
        spans,
    }
}

pub(crate) fn shell(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

pub(crate) async fn wait(run: Run) -> Result<Finished, RunError> {
    tokio::time::timeout(BOUND, run.wait()).await.expect("a run ends")
}

/// What a start tells: it comes first.
pub(crate) async fn started(run: &mut Run) -> (Vec<String>, Containment) {
    match tokio::time::timeout(BOUND, run.next()).await.expect("it starts") {
        Some(RunEvent::Started {
            withheld,
            containment,
            ..
        }) => (withheld, containment),
        other => panic!("a start comes first, not {other:?}"),
    }
}

/// Takes events until the output holds all of `texts`, and gives it.
pub(crate) async fn until_all(run: &mut Run, texts: &[&str]) -> String {
    let mut seen = String::new();
    while !texts.iter().all(|text| seen.contains(text)) {
        let event = tokio::time::timeout(BOUND, run.next()).await;
        match event.unwrap_or_else(|_| panic!("no {texts:?} in {seen:?}")) {
            Some(RunEvent::Stdout(data) | RunEvent::Stderr(data)) => {
                seen.push_str(&String::from_utf8_lossy(&data));
            }
            Some(RunEvent::Started { .. } | RunEvent::Gap(_) | RunEvent::Exited(_)) => {}
            None => panic!("it ended without {texts:?}: {seen:?}"),
        }
    }
    seen
}

pub(crate) async fn until(run: &mut Run, text: &str) -> String {
    until_all(run, &[text]).await
}

/// Takes events until the exit.
pub(crate) async fn exited(run: &mut Run) -> ExitStatus {
    loop {
        match tokio::time::timeout(BOUND, run.next()).await.expect("it ends") {
            Some(RunEvent::Exited(status)) => return status,
            Some(_) => {}
            None => panic!("it ended without an exit"),
        }
    }
}

/// The session answers.
pub(crate) async fn assert_works(harness: &Harness) {
    let finished = wait(harness.exec(shell("echo fine"))).await.unwrap();
    assert_eq!(finished.stdout.to_text(), "fine\n");
}
