//! Sessions that reach their executor through a relay, which may be restarted, cut off or full of others.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dwell_actors::executor::Executor;
use dwell_actors::harness::{Command, Harness, Target};
use dwell_actors::relay_server::{Relay, RelayHandle};
use dwell_messages::ExitStatus;
use dwell_messages::kinds::OuterKind;
use dwell_relay::{PreambleDecoder, Refusal, RefusalReason, encode_outer};
use dwell_testkit::{Cut, Direction, Fault, Plan, TcpFaultProxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{bounded, copy, keypair, output_until, shell, started};
use crate::world::{Dice, seed, until};

async fn relay(listen: &str) -> RelayHandle {
    bounded("a relay", async {
        loop {
            match Relay::builder().listen(listen).serve().await {
                Ok(relay) => return relay,
                // Its predecessor's port is free in a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

/// T-15: a relay that is restarted costs time and no byte; the session is the same.
#[tokio::test]
async fn a_session_goes_on_through_a_relay_that_was_restarted() {
    let client = keypair();
    let mut first = relay("127.0.0.1:0").await;
    let address = first.local_addr();
    let executor = Executor::builder()
        .relay(address.clone())
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    bounded("registering", executor.registered()).await.unwrap();
    let target = Target::relay(address.clone(), executor.public_key());
    let builder = Harness::builder().identity(copy(&client)).sampled(false);
    let harness = bounded("connecting", builder.connect(target)).await.unwrap();
    let mut run = harness.exec(shell("while read line; do echo \"$line $$\"; done").stdin_piped());
    let pid = started(&mut run).await;
    for round in 0..3 {
        let line = format!("round {round}\n");
        bounded("a write", run.write_stdin(Bytes::from(line)))
            .await
            .unwrap();
        assert_eq!(
            output_until(&mut run, "\n").await,
            format!("round {round} {pid}\n")
        );
        drop(first);
        first = relay(&address).await;
    }
    bounded("closing", run.close_stdin()).await.unwrap();
    let finished = bounded("its end", run.wait()).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(0));
    assert_eq!(executor.sessions(), 1);
}

/// T-07 behind a relay: several clients share the executor's connection, each link breaks by itself, and now and then
/// the executor's own does, with all of them.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_share_a_connection_go_on_each_by_itself() {
    let mut dice = Dice(seed());
    let client = keypair();
    let relay = relay("127.0.0.1:0").await;
    let upstream = relay.local_addr().parse().unwrap();
    let executors_way = TcpFaultProxy::start(upstream, 1).await.unwrap();
    let clients_way = TcpFaultProxy::start(upstream, 2).await.unwrap();
    let executor = Executor::builder()
        .relay(executors_way.address().to_string())
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    bounded("registering", executor.registered()).await.unwrap();
    for _ in 0..40 {
        let after_bytes = dice.below(1_500_000);
        clients_way.plan_next(Plan::one(Direction::ToClient, Fault::Reset { after_bytes }));
    }
    let mut harnesses = Vec::new();
    while harnesses.len() < 4 {
        let target = Target::relay(clients_way.address().to_string(), executor.public_key());
        let builder = Harness::builder().identity(copy(&client)).sampled(false);
        // A first link that breaks during its handshake is the caller's to try again.
        if let Ok(harness) = bounded("connecting", builder.connect(target)).await {
            harnesses.push(harness);
        }
    }
    let runs: Vec<_> = harnesses
        .iter()
        .map(|harness| harness.exec(shell("seq 1 400000").output_limit(4 << 20)))
        .collect();
    executors_way.cut(Cut::Reset);
    let expected: String = (1..=400_000).map(|line| format!("{line}\n")).collect();
    for run in runs {
        let finished = tokio::time::timeout(Duration::from_secs(100), run.wait()).await;
        let finished = finished.unwrap().unwrap();
        assert!(finished.stdout.to_text() == expected, "every byte, in order");
    }
    println!("{} links of clients", clients_way.accepted());
    assert!(clients_way.accepted() > 8);
    let finished = bounded("a later call", harnesses[0].exec(Command::new("true")).wait()).await;
    assert_eq!(finished.unwrap().status, ExitStatus::Code(0));
}

/// A refusal has no proof: whoever is in between can say so as well. It is told to whoever asks, and ends nothing.
#[tokio::test]
async fn an_executor_that_hears_a_refusal_registers_all_the_same_once_it_may() {
    let relay = relay("127.0.0.1:0").await;
    let between = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let executor = Executor::builder()
        .relay(between.local_addr().unwrap().to_string())
        .serve()
        .await
        .unwrap();
    let (mut first, _) = bounded("a registration", between.accept()).await.unwrap();
    let mut preamble = PreambleDecoder::new();
    let stream = bounded("its preamble", async {
        loop {
            if let Some((preamble, _)) = preamble.decode().unwrap() {
                return preamble.stream;
            }
            first.read_buf(preamble.buffer_mut()).await.unwrap();
        }
    })
    .await;
    let mut payload = BytesMut::new();
    let refusal = Refusal {
        reason: RefusalReason::Version,
        version_min: 9,
        version_max: 9,
        suites: Vec::new(),
        text: "not here".into(),
    };
    refusal.encode(&mut payload);
    let mut out = BytesMut::new();
    encode_outer(&mut out, OuterKind::Refused, stream, 0, &payload);
    first.write_all(&out).await.unwrap();
    let told = bounded("the refusal", executor.registered()).await;
    assert!(told.is_err(), "it is told");
    drop(first);
    // From now on nobody interferes.
    let (mut near, _) = bounded("another attempt", between.accept()).await.unwrap();
    let mut far = tokio::net::TcpStream::connect(relay.local_addr()).await.unwrap();
    let passing = tokio::io::copy_bidirectional(&mut near, &mut far);
    let registered = async {
        while executor.registered().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    bounded("registering", async {
        tokio::select! {
            _ = passing => panic!("the connection ended"),
            () = registered => {}
        }
    })
    .await;
}

/// T-08 behind a relay: an executor's own connection that died without a word is left, though nothing was to be said over
/// it. It used to wait there for ever, out of reach.
#[tokio::test]
async fn an_idle_executor_leaves_a_silent_connection_to_its_relay() {
    let client = keypair();
    let relay = relay("127.0.0.1:0").await;
    let way = TcpFaultProxy::start(relay.local_addr().parse().unwrap(), 1)
        .await
        .unwrap();
    let stall = Fault::Stall { after_bytes: 900 };
    way.plan_next(Plan::one(Direction::ToClient, stall).and(Direction::ToUpstream, stall));
    let executor = Executor::builder()
        .relay(way.address().to_string())
        .authorize(client.public())
        .relay_pings(Duration::from_millis(20), Duration::from_millis(400))
        .serve()
        .await
        .unwrap();
    bounded("registering", executor.registered()).await.unwrap();
    until("another connection", || way.accepted() == 2).await;
    let connecting = async {
        loop {
            let target = Target::relay(relay.local_addr(), executor.public_key());
            let builder = Harness::builder().identity(copy(&client)).sampled(false);
            // It may be between the two connections.
            if let Ok(harness) = builder.connect(target).await {
                return harness;
            }
        }
    };
    let harness = bounded("connecting", connecting).await;
    let finished = bounded("a command", harness.exec(Command::new("true")).wait()).await;
    assert_eq!(finished.unwrap().status, ExitStatus::Code(0));
}
