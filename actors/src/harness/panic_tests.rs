//! What a run is told when an actor of its session panics.

use std::path::PathBuf;
use std::time::Duration;

use dwell_messages::{Request, TraceContext};
use dwell_relay::{OsRandomness, StaticKeypair};

use super::{Command, Harness, RunError, RunEvent, Target};
use crate::account::Account;
use crate::executor::{Executor, ExecutorHandle};
use crate::relay_framer::FramerControl;
use crate::rpc_queue::caller::{Call, RpcMessage};
use crate::telemetry::Tick;

const BOUND: Duration = Duration::from_secs(20);

async fn connect(detached_life: Duration) -> (ExecutorHandle, Harness) {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .detached_life(detached_life)
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let harness = Harness::builder().identity(client).connect(target).await.unwrap();
    (executor, harness)
}

/// A run under way, which `inject` breaks: it ends as lost, and nothing of it is left on the executor.
async fn is_told(detached_life: Duration, inject: impl FnOnce(&Harness)) -> String {
    let (executor, harness) = connect(detached_life).await;
    let mut run = harness.exec(Command::new("sleep").arg("1000"));
    let Some(RunEvent::Started { pid, .. }) = run.next().await else {
        panic!("a start comes first");
    };
    inject(&harness);
    let ended = tokio::time::timeout(BOUND, run.wait())
        .await
        .expect("whoever waits is told");
    let later = harness.exec(Command::new("true")).wait();
    let refused = tokio::time::timeout(BOUND, later)
        .await
        .expect("so is whoever comes later");
    assert!(refused.is_err());
    let there = PathBuf::from(format!("/proc/{pid}"));
    tokio::time::timeout(BOUND, async {
        while there.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("its process is terminated");
    executor.shutdown().await;
    match ended {
        Err(RunError::Lost(why)) => why,
        other => panic!("a lost run, not {other:?}"),
    }
}

#[tokio::test]
async fn the_panic_of_a_sessions_actor_ends_its_runs_and_is_named() {
    let why = is_told(crate::executor::DETACHED_LIFE, |harness| {
        let call = Call {
            process: None,
            request: Request::EnvironmentInfo,
            deadline: None,
            ticket: None,
            account: Account::begin(Tick::now()),
            reply: Box::new(|_| panic!("injected")),
        };
        let message = RpcMessage::Call(Box::new(call));
        let envelope = dwell_messages::Envelope::new(TraceContext::default(), message);
        assert!(harness.connected.rpc.try_tell(envelope).is_ok());
    })
    .await;
    assert!(why.contains("RpcQueue") && why.contains("injected"), "{why}");
}

#[tokio::test]
async fn the_panic_of_a_framer_ends_its_runs() {
    // Nobody is left to say goodbye.
    let why = is_told(Duration::ZERO, |harness| {
        let panics = FramerControl::Upper(Box::new(|_| panic!("injected")));
        assert!(harness.connected.framer.control(panics).is_ok());
    })
    .await;
    assert!(why.contains("failed"), "{why}");
}
