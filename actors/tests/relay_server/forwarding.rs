//! What passes through a relay, and that nobody's slowness is another's.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dwell_actors::relay_server::Relay;
use dwell_actors::runtime::Runtime;
use dwell_actors::telemetry::{Collector, CollectorOptions};
use dwell_messages::Role;
use dwell_relay::driver::memory::Hub;
use dwell_relay::rendezvous::Census;

use crate::support::{
    Executor, FLOOD_MESSAGE_BYTES, Harness, PATIENCE, Wire, dial, flood_request, keypair, serve,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_links_exchange_messages_over_tcp_through_the_relay() {
    let relay = serve(Relay::builder()).await;
    let executor = Executor::start(dial(&relay).await, keypair()).await;
    let mut harness = Harness::connect(dial(&relay).await, executor.key, b"")
        .await
        .unwrap();
    for number in 0..100 {
        harness.echo(&format!("message {number}")).await;
    }
    let census = relay.census().await.unwrap();
    let expected = Census {
        connections: 2,
        openings: 0,
        executors: 1,
        streams: 1,
        reports_left_out: 0,
    };
    assert_eq!(census.core, expected);
    assert_eq!(census.dropped.total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_links_exchange_messages_over_memory_through_the_relay() {
    let hub = Hub::new();
    let relay = Relay::builder()
        .memory(hub.clone(), "relay")
        .serve()
        .await
        .unwrap();
    assert_eq!(relay.local_addr(), "relay");
    let wire = async || Wire::new(hub.connect("relay").await.unwrap());
    let executor = Executor::start(wire().await, keypair()).await;
    let mut harness = Harness::connect(wire().await, executor.key, b"").await.unwrap();
    harness.echo("over memory").await;
    harness.send(flood_request(32)).await;
    harness.take_flood(32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_runs_on_a_runtime_it_was_given() {
    let options = CollectorOptions {
        role: Role::Relay,
        keep_recent: false,
        sinks: Vec::new(),
    };
    let runtime = Runtime::start(2, Collector::start(options).unwrap()).unwrap();
    let relay = serve(Relay::builder().runtime(runtime.clone())).await;
    let other = serve(Relay::builder().runtime(runtime)).await;
    assert_ne!(
        relay.public_key(),
        other.public_key(),
        "each drew a key of its own"
    );
    for relay in [relay, other] {
        let executor = Executor::start(dial(&relay).await, keypair()).await;
        let mut harness = Harness::connect(dial(&relay).await, executor.key, b"")
            .await
            .unwrap();
        harness.echo("here").await;
        relay.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_pass_intact() {
    const MESSAGES: usize = 64 * 1024 * 1024 / FLOOD_MESSAGE_BYTES;
    let relay = serve(Relay::builder()).await;
    let executor = Executor::start(dial(&relay).await, keypair()).await;
    let mut harness = Harness::connect(dial(&relay).await, executor.key, b"")
        .await
        .unwrap();
    harness.send(flood_request(MESSAGES)).await;
    harness.take_flood(MESSAGES).await;
    assert_eq!(relay.census().await.unwrap().dropped.total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_harness_uploads_arrives_intact() {
    const BYTES: usize = 1024 * 1024;
    let relay = serve(Relay::builder()).await;
    let executor = Executor::start(dial(&relay).await, keypair()).await;
    let mut harness = Harness::connect(dial(&relay).await, executor.key, b"")
        .await
        .unwrap();
    for round in 0_u8..8 {
        let sent: Vec<u8> = (0..BYTES).map(|index| (index >> 7) as u8 ^ round).collect();
        harness.send(sent.clone()).await;
        assert!(harness.message().await.bytes == sent, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_harness_that_reads_nothing_holds_up_no_other_and_loses_nothing() {
    const MESSAGES: usize = 512;
    let relay = serve(Relay::builder()).await;
    let executor = Executor::start(dial(&relay).await, keypair()).await;
    let mut slow = Harness::connect(dial(&relay).await, executor.key, b"")
        .await
        .unwrap();
    let mut other = Harness::connect(dial(&relay).await, executor.key, b"")
        .await
        .unwrap();
    slow.send(flood_request(MESSAGES)).await;
    // The other's messages travel on the executor's same connection, beside and then behind the flood.
    for number in 0..200 {
        other.echo(&format!("message {number}")).await;
    }
    let held_back = executor.held_back.load(Ordering::SeqCst);
    assert!(held_back > 0, "the flood was too small to be held back");
    slow.take_flood(MESSAGES).await;
    other.echo("still here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_harness_left_is_forgotten_and_its_executor_serves_on() {
    let relay = serve(Relay::builder()).await;
    let executor = Executor::start(dial(&relay).await, keypair()).await;
    let mut harness = Harness::connect(dial(&relay).await, executor.key, b"")
        .await
        .unwrap();
    harness.echo("hello").await;
    drop(harness);
    let relay = &relay;
    let forgotten = async move || {
        let census = relay.census().await.unwrap().core;
        (census.connections, census.streams) == (1, 0)
    };
    tokio::time::timeout(PATIENCE, async {
        while !forgotten().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the stream is forgotten");
    let mut harness = Harness::connect(dial(relay).await, executor.key, b"")
        .await
        .unwrap();
    harness.echo("again").await;
}
