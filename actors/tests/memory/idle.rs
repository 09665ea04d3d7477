//! Sessions in which nothing happens.

use std::time::Duration;

use dwell_actors::harness::{Command, Harness, Target};
use dwell_actors::relay_server::Relay;
use dwell_relay::StaticKeypair;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::executor::ExecutorProcess;
use crate::{BOUND, keypair};

/// What a session may cost.
const IDLE_MAX_BYTES: u64 = 64 * 1024;
/// Sessions that are there before any is weighed, for which an executor makes room that it has once; and as many again
/// that are weighed.
const SESSIONS: u64 = 32;
/// The one that a gateway of the JSON dialect has for itself.
const GATEWAYS: u64 = 1;
/// What a session may keep of a command that wrote much, once it is quiet: what is known of its last processes.
const KEPT_MAX_BYTES: u64 = 8 * 1024;

/// What each of so many sessions costs, if that is within the budget.
fn within_budget(before: u64, after: u64) -> Result<u64, u64> {
    let each = after.saturating_sub(before) / SESSIONS;
    if each <= IDLE_MAX_BYTES {
        Ok(each)
    } else {
        Err(each)
    }
}

pub(crate) async fn connect(identity: &StaticKeypair, target: &Target) -> Harness {
    let copy = StaticKeypair::from_private(identity.expose_private().to_owned().into());
    let builder = Harness::builder().identity(copy).sampled(false).here();
    builder.connect(target.clone()).await.unwrap()
}

/// What each of so many sessions adds behind as many others, in bytes.
async fn weigh<S>(executor: &mut ExecutorProcess, mut begin: impl AsyncFnMut() -> S) -> Result<u64, u64> {
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(begin().await);
    }
    let before = executor.settled(GATEWAYS + SESSIONS).await;
    for _ in 0..SESSIONS {
        sessions.push(begin().await);
    }
    let after = executor.settled(GATEWAYS + 2 * SESSIONS).await;
    within_budget(before, after)
}

fn alone(test: impl Future<Output = ()>) {
    dwell_actors::block_on(async { tokio::time::timeout(BOUND, test).await.expect("a test ends") });
}

#[test]
fn an_idle_session_is_within_its_budget_directly() {
    alone(async {
        let client = keypair();
        let mut executor = ExecutorProcess::start(client.public(), None);
        let target = Target::direct(executor.address.clone(), executor.key);
        let each = weigh(&mut executor, async || connect(&client, &target).await).await;
        println!("an idle session, directly: {each:?} bytes");
        each.unwrap();
    });
}

#[test]
fn an_idle_session_is_within_its_budget_through_a_relay() {
    alone(async {
        let client = keypair();
        let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
        let address = relay.local_addr().to_string();
        let mut executor = ExecutorProcess::start(client.public(), Some(address.clone()));
        let target = Target::relay(address, executor.key);
        let each = weigh(&mut executor, async || connect(&client, &target).await).await;
        println!("an idle session, through a relay: {each:?} bytes");
        each.unwrap();
    });
}

/// What a Codex CLI says until it could ask for something.
async fn begin_dialect(url: &str) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(url.strip_prefix("ws://").unwrap())
        .await
        .unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(format!("{url}/"), stream)
        .await
        .unwrap();
    let params = json!({ "clientName": "test", "resumeSessionId": null });
    let initialize = json!({ "id": 1, "method": "initialize", "params": params });
    socket.send(Message::text(initialize.to_string())).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap();
    let answer: Value = serde_json::from_str(&answer.into_text().unwrap()).unwrap();
    assert!(answer["result"]["sessionId"].is_string(), "{answer}");
    let initialized = json!({ "method": "initialized", "params": {} });
    socket.send(Message::text(initialized.to_string())).await.unwrap();
    socket
}

#[test]
fn an_idle_session_is_within_its_budget_by_the_json_dialect() {
    alone(async {
        let mut executor = ExecutorProcess::start(keypair().public(), None);
        let url = executor.dialect.clone();
        let each = weigh(&mut executor, async || begin_dialect(&url).await).await;
        println!("an idle session, by the JSON dialect: {each:?} bytes");
        each.unwrap();
    });
}

/// The control of the three above: they fail where a session holds so much more.
#[test]
fn sessions_that_hold_64_kib_more_are_over_their_budget() {
    alone(async {
        let client = keypair();
        let mut executor = ExecutorProcess::start(client.public(), None);
        let target = Target::direct(executor.address.clone(), executor.key);
        let mut more = 0..2 * SESSIONS;
        let mut sessions = Vec::new();
        let mut each = async || -> u64 {
            for _ in more.by_ref().take(usize::try_from(SESSIONS).unwrap()) {
                sessions.push(connect(&client, &target).await);
                executor.hold(IDLE_MAX_BYTES);
            }
            executor.settled(GATEWAYS + sessions.len() as u64).await
        };
        let (before, after) = (each().await, each().await);
        within_budget(before, after).unwrap_err();
    });
}

/// Sessions that are pinged so often, and what its executor has given out before each has a command that writes much.
async fn flooded(
    client: &StaticKeypair,
    executor: &mut ExecutorProcess,
    ping_every: Duration,
) -> (Vec<Harness>, u64) {
    let target = Target::direct(executor.address.clone(), executor.key);
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let copy = StaticKeypair::from_private(client.expose_private().to_owned().into());
        let builder = Harness::builder().identity(copy).sampled(false).here();
        let builder = builder.pings(ping_every, BOUND);
        sessions.push(builder.connect(target.clone()).await.unwrap());
    }
    let flood = || {
        Command::new("head")
            .args(["-c", "4000000", "/dev/zero"])
            .retention(0)
    };
    // What the process has once for all of them.
    sessions[0].exec(flood()).wait().await.unwrap();
    // Pings make it waver, by far less than what is allowed.
    let before = executor.live_now();
    for session in &sessions {
        let finished = session.exec(flood()).wait().await.unwrap();
        assert_eq!(finished.output_bytes[0], 4_000_000);
    }
    (sessions, before)
}

#[test]
fn a_session_gives_back_what_a_flood_of_output_took() {
    alone(async {
        let client = keypair();
        let mut executor = ExecutorProcess::start(client.public(), None);
        // What a minute's pings give back comes back at once.
        let (_sessions, before) = flooded(&client, &mut executor, Duration::from_millis(50)).await;
        executor.at_most(before + SESSIONS * KEPT_MAX_BYTES).await;
    });
}

/// The control of the one above: a flood does take more, and where nothing at all passes it is not looked at again.
#[test]
fn a_flood_of_output_takes_more_than_a_quiet_session_keeps() {
    alone(async {
        let client = keypair();
        let mut executor = ExecutorProcess::start(client.public(), None);
        let (_sessions, before) = flooded(&client, &mut executor, BOUND).await;
        let after = executor.settled(GATEWAYS + SESSIONS).await;
        assert!(
            after > before + SESSIONS * KEPT_MAX_BYTES,
            "{before}, then {after}"
        );
    });
}
