//! How connections and relays end.

use std::time::Instant;

use bytes::BytesMut;
use dwell_actors::relay_server::Relay;
use dwell_messages::kinds::OuterKind;
use dwell_relay::driver::tcp;
use dwell_relay::rendezvous::OPENING_TIMEOUT;
use dwell_relay::{Dialer, Link, LinkOptions, OsRandomness, Preamble, Reset, ResetCode, encode_outer};
use tokio::time::timeout;

use crate::support::{Executor, Harness, PATIENCE, dial, fresh_stream, keypair, serve};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_closes_every_connection_and_the_address() {
    let relay = serve(Relay::builder()).await;
    let address = relay.local_addr();
    let executor = Executor::start(dial(&relay).await, keypair()).await;
    let mut harness = Harness::connect(dial(&relay).await, executor.key, b"")
        .await
        .unwrap();
    harness.echo("before").await;
    let mut silent = dial(&relay).await;
    relay.shutdown().await;
    harness.wire.end().await;
    silent.end().await;
    timeout(PATIENCE, executor.task).await.unwrap().unwrap();
    assert!(tcp::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_handle_ends_the_relay() {
    let relay = serve(Relay::builder()).await;
    let address = relay.local_addr();
    let executor = Executor::start(dial(&relay).await, keypair()).await;
    drop(relay);
    timeout(PATIENCE, executor.task).await.unwrap().unwrap();
    assert!(tcp::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_goes_away_resets_its_harnesses() {
    let relay = serve(Relay::builder()).await;
    let executor = Executor::start(dial(&relay).await, keypair()).await;
    let mut harness = Harness::connect(dial(&relay).await, executor.key, b"")
        .await
        .unwrap();
    executor.task.abort();
    let frame = harness.wire.frame().await.unwrap();
    assert_eq!(frame.kind, OuterKind::Reset);
    assert_eq!(Reset::decode(&frame.payload).unwrap().code, ResetCode::PeerGone);
    harness.wire.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_of_two_registrations_is_told_and_the_newer_serves() {
    let relay = serve(Relay::builder()).await;
    let identity = keypair();
    let mut older = dial(&relay).await;
    older.register(&identity).await.unwrap();
    let newer = Executor::start(dial(&relay).await, identity).await;
    assert_eq!(older.frame().await.unwrap().kind, OuterKind::Refused);
    older.end().await;
    let mut harness = Harness::connect(dial(&relay).await, newer.key, b"")
        .await
        .unwrap();
    harness.echo("served by the newer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_not_ours_end_their_connection() {
    let relay = serve(Relay::builder()).await;
    let mut wire = dial(&relay).await;
    wire.write(b"GET / HTTP/1.1\r\n\r\n").await;
    wire.end().await;
}

/// With unread bytes in a socket its closing would be a TCP reset, which takes the last frame from the peer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_harness_that_still_sends_gets_the_last_word_before_the_end() {
    let relay = serve(Relay::builder()).await;
    let preamble = Preamble::new(Dialer::Harness, keypair().public(), fresh_stream(), b"").unwrap();
    let (identity, options, rng) = (keypair(), LinkOptions::relayed(), &mut OsRandomness::new());
    let mut link =
        Link::<()>::dial(Instant::now(), &identity, &preamble, b"", b"hello", options, rng).unwrap();
    let mut bytes = BytesMut::new();
    let _ = link
        .poll_transmit(Instant::now(), &mut bytes, usize::MAX)
        .unwrap();
    for _ in 0..16 * 1024 {
        encode_outer(&mut bytes, OuterKind::Ping, preamble.stream, 0, &[0; 8]);
    }
    let mut wire = dial(&relay).await;
    wire.write(&bytes).await;
    let frame = wire
        .frame()
        .await
        .expect("the reset arrives in spite of what is under way");
    assert_eq!(frame.kind, OuterKind::Reset);
    wire.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_says_nothing_is_closed_at_the_opening_deadline() {
    let relay = serve(Relay::builder()).await;
    let began = Instant::now();
    let mut wire = dial(&relay).await;
    wire.end().await;
    assert!(
        began.elapsed() >= OPENING_TIMEOUT,
        "closed too early, after {:?}",
        began.elapsed()
    );
    assert_eq!(relay.census().await.unwrap().core.connections, 0);
}
