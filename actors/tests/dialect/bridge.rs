//! The dialect over a sealed link to an executor elsewhere.

use std::time::Duration;

use dwell_actors::dialect::Bridge;
use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::Target;
use dwell_actors::relay_server::Relay;
use dwell_relay::{OsRandomness, StaticKeypair};
use dwell_testkit::{Cut, Origin, TcpFaultProxy};
use serde_json::{Value, json};

use crate::client::{Client, bounded, bytes, exit_code, options, shell, start_with, written};
use crate::http::get;

fn keypair() -> StaticKeypair {
    StaticKeypair::generate(&mut OsRandomness::new()).unwrap()
}

async fn listening(client: &StaticKeypair) -> ExecutorHandle {
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public());
    executor.serve().await.unwrap()
}

async fn begin(bridge: &Bridge) -> Client {
    let mut client = Client::connect_to(bridge.url().unwrap()).await;
    client.initialize(Value::Null).await.unwrap();
    client
}

#[tokio::test]
async fn a_client_runs_commands_and_reads_files_through_a_relay_that_can_read_nothing() {
    let key = keypair();
    let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
    let executor = Executor::builder()
        .relay(relay.local_addr())
        .authorize(key.public())
        .serve()
        .await
        .unwrap();
    executor.registered().await.unwrap();
    let target = Target::relay(relay.local_addr(), executor.public_key());
    let bridge = Bridge::serve(options(), key, target).await.unwrap();
    let mut client = begin(&bridge).await;
    client
        .call("process/start", shell("p", "echo out; exit 3"))
        .await
        .unwrap();
    let events = client.events("p").await;
    assert_eq!((&*written(&events), exit_code(&events)), ("out\n", 3));
    let info = client
        .call("fs/getMetadata", json!({"path": "file:///"}))
        .await
        .unwrap();
    assert_eq!(info["isDirectory"], json!(true));
    let origin = Origin::start().unwrap();
    let ask = get(&origin.url("/large/2000000"), &json!({"streamResponse": true}));
    assert_eq!(client.call("http/request", ask).await.unwrap()["status"], 200);
    let mut length = 0;
    loop {
        let piece = client
            .find(|message| message["method"] == "http/request/bodyDelta")
            .await;
        length += bytes(&piece["params"]["deltaBase64"]).len();
        if piece["params"]["done"] == true {
            break;
        }
    }
    assert_eq!(length, 2_000_000);
    bridge.shutdown().await;
    executor.shutdown().await;
    relay.shutdown().await;
}

#[tokio::test]
async fn a_sealed_link_that_breaks_in_a_flood_is_resumed_and_the_client_does_not_notice() {
    let key = keypair();
    let executor = listening(&key).await;
    let upstream = executor.local_addr().unwrap().parse().unwrap();
    let proxy = TcpFaultProxy::start(upstream, 1).await.unwrap();
    let target = Target::direct(proxy.address().to_string(), executor.public_key());
    let bridge = Bridge::serve(options(), key, target).await.unwrap();
    let mut client = begin(&bridge).await;
    let cat = start_with("cat", &["cat"], &json!({"pipeStdin": true}));
    client.call("process/start", cat).await.unwrap();
    client
        .call("process/start", shell("p", "seq 1 300000"))
        .await
        .unwrap();
    let mut events = Vec::new();
    loop {
        let event = client.event("p").await;
        let (seq, over) = (
            event["params"]["seq"].as_u64().unwrap(),
            event["method"] == "process/closed",
        );
        assert_eq!(seq, events.len() as u64 + 1, "numbers have no gaps");
        events.push(event);
        if over {
            break;
        }
        if seq % 10 == 0 {
            let before = proxy.accepted();
            bounded(async {
                // Again, as a connection that is only being made is not cut.
                while proxy.accepted() == before {
                    proxy.cut(Cut::Reset);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
    }
    assert!(proxy.accepted() > 3, "the control: links were lost");
    assert!(
        written(&events)
            .lines()
            .map(|line| line.parse::<u64>().unwrap())
            .eq(1..=300_000)
    );
    client
        .call(
            "process/write",
            json!({"processId": "cat", "chunk": "YQ==", "writeId": "1"}),
        )
        .await
        .unwrap();
    assert_eq!(written(&[client.event("cat").await]), "a");
    bridge.shutdown().await;
    executor.shutdown().await;
}

#[tokio::test]
async fn a_key_that_is_not_listed_is_told_before_anything_is_served() {
    let executor = listening(&keypair()).await;
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    assert!(Bridge::serve(options(), keypair(), target).await.is_err());
    executor.shutdown().await;
}
