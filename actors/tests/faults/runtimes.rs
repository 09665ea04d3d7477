//! The harness on any runtime and on none, and parents that are nonsense.

use dwell_actors::harness::{Command, Harness};
use dwell_messages::{ExitStatus, SpanId, TraceContext, TraceFlags, TraceId};

use crate::support::{Roles, assert_works, copy, wait};

async fn use_one(client: dwell_relay::StaticKeypair, target: dwell_actors::harness::Target) {
    let harness = Harness::builder().identity(client).connect(target).await.unwrap();
    let finished = harness
        .exec(Command::new("echo").arg("here"))
        .wait()
        .await
        .unwrap();
    assert_eq!(finished.stdout.to_text(), "here\n");
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    run.write_stdin("in".into()).await.unwrap();
    run.close_stdin().await.unwrap();
    assert_eq!(run.await.unwrap().stdout.to_text(), "in");
    harness.environment_info().await.unwrap();
    harness.flush().await.unwrap();
    harness.shutdown().await;
}

#[cfg(feature = "otlp")]
#[test]
fn it_works_on_a_plain_thread() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let roles = runtime.block_on(Roles::start());
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    let (client, target) = (copy(&roles.client), roles.through_relay());
    std::thread::spawn(move || {
        futures_executor::block_on(use_one(client, target));
        done.send(()).unwrap();
    });
    wait.recv_timeout(crate::support::BOUND).unwrap();
}

#[test]
fn it_works_on_either_flavour_of_tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let roles = runtime.block_on(Roles::start());
    let bound = |future| async { tokio::time::timeout(crate::support::BOUND, future).await.unwrap() };
    runtime.block_on(bound(use_one(copy(&roles.client), roles.through_relay())));
    let current = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    current.block_on(bound(use_one(copy(&roles.client), roles.direct())));
}

#[cfg(feature = "otlp")]
#[test]
fn all_three_roles_work_without_any_runtime() {
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        futures_executor::block_on(async {
            let client = crate::support::keypair();
            let executor = dwell_actors::executor::Executor::builder()
                .listen("127.0.0.1:0")
                .authorize(client.public())
                .serve()
                .await
                .unwrap();
            let address = executor.local_addr().unwrap();
            let target = dwell_actors::harness::Target::direct(address, executor.public_key());
            use_one(client, target).await;
            executor.shutdown().await;
        });
        done.send(()).unwrap();
    });
    wait.recv_timeout(crate::support::BOUND).unwrap();
}

#[tokio::test]
async fn no_parent_context_ever_fails_a_call() {
    let roles = Roles::start().await;
    let harness = roles.harness().await;
    let parents = [
        TraceContext::default(),
        TraceContext::new(TraceId([0; 16]), SpanId([1; 8]), TraceFlags::SAMPLED),
        TraceContext::new(TraceId([1; 16]), SpanId([0; 8]), TraceFlags::SAMPLED),
        TraceContext::new(TraceId([0xff; 16]), SpanId([0xff; 8]), TraceFlags(0xff)),
    ];
    for parent in parents {
        let finished = wait(harness.exec(Command::new("true").parent(parent)))
            .await
            .unwrap();
        assert_eq!(finished.status, ExitStatus::Code(0));
    }
    assert_works(&harness).await;
}

/// Keeps the trace ids of what its role made.
#[derive(Clone, Default)]
struct Seen(std::sync::Arc<std::sync::Mutex<Vec<[u8; 16]>>>);

impl dwell_actors::telemetry::SpanSink for Seen {
    fn export(
        &mut self,
        role: dwell_messages::Role,
        _: Option<dwell_actors::telemetry::ClockOffset>,
        spans: &[dwell_messages::Span],
    ) -> Result<(), dwell_actors::telemetry::SinkError> {
        if role == dwell_messages::Role::Harness {
            self.0.lock().unwrap().extend(
                spans
                    .iter()
                    .filter(|span| span.name.starts_with("mailbox "))
                    .map(|span| span.trace_id),
            );
        }
        Ok(())
    }
}

#[test]
fn two_sessions_on_one_arbiter_keep_their_traces_apart_and_leave_it_running() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let roles = runtime.block_on(Roles::start());
    let seen = [Seen::default(), Seen::default()];
    dwell_actors::block_on(async {
        let parents =
            [1, 2].map(|n| TraceContext::new(TraceId([n; 16]), SpanId([n; 8]), TraceFlags::SAMPLED));
        let mut harnesses = Vec::new();
        for seen in &seen {
            let builder = Harness::builder().identity(copy(&roles.client)).here();
            let connected = builder.sink(seen.clone()).connect(roles.direct());
            harnesses.push(crate::support::bounded("connecting", connected).await.unwrap());
        }
        for (harness, parent) in harnesses.iter().zip(parents) {
            let run = harness.exec(Command::new("true").parent(parent)).wait();
            crate::support::bounded("the run", run).await.unwrap();
        }
        for harness in harnesses {
            crate::support::bounded("the end", harness.shutdown()).await;
        }
        // The arbiter is the caller's: it goes on.
        use_one(copy(&roles.client), roles.through_relay()).await;
    });
    for (seen, trace) in seen.iter().zip([[1; 16], [2; 16]]) {
        let seen = seen.0.lock().unwrap();
        assert!(!seen.is_empty(), "no residence came to the session's own sink");
        assert!(
            seen.iter().all(|id| *id == trace),
            "another session's residence: {seen:?}"
        );
    }
}

#[tokio::test]
async fn a_session_cannot_be_put_where_there_is_no_arbiter() {
    let roles = Roles::start().await;
    let builder = Harness::builder().identity(copy(&roles.client)).here();
    let error = builder.connect(roles.direct()).await.unwrap_err();
    assert!(error.to_string().contains("arbiter"), "{error}");
}

#[tokio::test]
async fn a_start_that_nothing_follows_is_told_all_the_same() {
    let roles = Roles::start().await;
    let harness = roles.connect(roles.through_relay()).await.unwrap();
    let mut run = harness.exec(Command::new("sleep").arg("30"));
    assert!(crate::support::started(&mut run).await > 0);
}
