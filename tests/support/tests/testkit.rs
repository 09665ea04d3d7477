//! The tools that other tests trust.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use dwell_testkit::{Cut, Direction, Fault, Lane, Marker, Plan, Step, TcpFaultProxy, TempHome, wait_until};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);

async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, test)
        .await
        .expect("the test ends in time")
}

/// A proxy with a listener behind it, and one connection through both.
struct Through {
    proxy: TcpFaultProxy,
    listener: TcpListener,
}

impl Through {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream: SocketAddr = listener.local_addr().unwrap();
        Self {
            proxy: TcpFaultProxy::start(upstream, 1).await.unwrap(),
            listener,
        }
    }

    async fn connect(&self) -> (TcpStream, TcpStream) {
        let (client, server) = tokio::join!(TcpStream::connect(self.proxy.address()), self.listener.accept());
        (client.unwrap(), server.unwrap().0)
    }
}

async fn rest(stream: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.map_err(|error| error.kind())?;
    Ok(all)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

#[tokio::test]
async fn without_faults_everything_passes_and_is_captured_each_way() {
    within(async {
        let through = Through::new().await;
        let (mut client, mut server) = through.connect().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut server).await.unwrap(), b"question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        assert_eq!(
            rest(&mut client).await.unwrap(),
            b"answer",
            "half-closed is not closed"
        );
        assert_eq!(through.proxy.captured(Direction::ToUpstream), b"question");
        assert_eq!(through.proxy.captured(Direction::ToClient), b"answer");
        assert_eq!(through.proxy.accepted(), 1);
    })
    .await;
}

#[tokio::test]
async fn one_bit_is_turned_at_its_byte_and_the_capture_shows_what_was_sent() {
    within(async {
        let through = Through::new().await;
        through.proxy.plan(Plan::one(
            Direction::ToUpstream,
            Fault::FlipBit {
                at_byte: 1_000,
                bit: 3,
            },
        ));
        let (mut client, mut server) = through.connect().await;
        let sent = pattern(3_000);
        client.write_all(&sent[..500]).await.unwrap();
        client.write_all(&sent[500..]).await.unwrap();
        client.shutdown().await.unwrap();
        let received = rest(&mut server).await.unwrap();
        let mut expected = sent.clone();
        expected[1_000] ^= 8;
        assert!(received == expected);
        assert!(through.proxy.captured(Direction::ToUpstream) == sent);
    })
    .await;
}

#[tokio::test]
async fn a_truncated_stream_ends_properly_after_exactly_its_bytes() {
    within(async {
        for after_bytes in [0, 1, 4_095, 4_096, 70_001] {
            let through = Through::new().await;
            through
                .proxy
                .plan(Plan::one(Direction::ToUpstream, Fault::Truncate { after_bytes }));
            let (mut client, mut server) = through.connect().await;
            // What the receiver wrote and nobody read must not cost it the bytes that passed.
            let _ = server.write_all(b"unread").await;
            let sent = pattern(100_000);
            let _ = client.write_all(&sent).await;
            let received = rest(&mut server).await.unwrap();
            assert!(
                received == sent[..usize::try_from(after_bytes).unwrap()],
                "{after_bytes}: {}",
                received.len()
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_reset_reaches_both_ends() {
    within(async {
        let through = Through::new().await;
        through
            .proxy
            .plan(Plan::one(Direction::ToUpstream, Fault::Reset { after_bytes: 10 }));
        let (mut client, mut server) = through.connect().await;
        client.write_all(&pattern(10)).await.unwrap();
        assert_eq!(rest(&mut client).await.unwrap_err(), ErrorKind::ConnectionReset);
        assert_eq!(rest(&mut server).await.unwrap_err(), ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test]
async fn a_stalled_way_waits_for_the_healing_and_the_other_way_does_not() {
    within(async {
        let through = Through::new().await;
        through
            .proxy
            .plan(Plan::one(Direction::ToUpstream, Fault::Stall { after_bytes: 4 }));
        let (mut client, mut server) = through.connect().await;
        client.write_all(b"12345678").await.unwrap();
        let mut first = [0; 4];
        server.read_exact(&mut first).await.unwrap();
        server.write_all(b"ok").await.unwrap();
        let mut answer = [0; 2];
        client.read_exact(&mut answer).await.unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(30), server.read_u8())
                .await
                .is_err()
        );
        through.proxy.heal();
        let mut second = [0; 4];
        server.read_exact(&mut second).await.unwrap();
        assert_eq!((&first, &second, &answer), (b"1234", b"5678", b"ok"));
    })
    .await;
}

#[tokio::test]
async fn a_frozen_network_closes_nothing_and_goes_on_when_healed() {
    within(async {
        let through = Through::new().await;
        let (mut client, mut server) = through.connect().await;
        through.proxy.freeze();
        client.write_all(b"late").await.unwrap();
        assert!(
            tokio::time::timeout(Duration::from_millis(30), server.read_u8())
                .await
                .is_err()
        );
        through.proxy.heal();
        let mut late = [0; 4];
        server.read_exact(&mut late).await.unwrap();
        assert_eq!(&late, b"late");
    })
    .await;
}

#[tokio::test]
async fn a_cut_ends_what_is_open_and_spares_what_comes_after() {
    within(async {
        let through = Through::new().await;
        let (mut client, mut server) = through.connect().await;
        client.write_u8(1).await.unwrap();
        server.read_u8().await.unwrap();
        through.proxy.cut(Cut::Reset);
        assert_eq!(rest(&mut client).await.unwrap_err(), ErrorKind::ConnectionReset);
        assert_eq!(rest(&mut server).await.unwrap_err(), ErrorKind::ConnectionReset);
        let (mut client, mut server) = through.connect().await;
        client.write_u8(2).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), 2);
        through.proxy.cut(Cut::Close);
        assert_eq!(rest(&mut client).await.unwrap(), b"");
        assert_eq!(rest(&mut server).await.unwrap(), b"");
    })
    .await;
}

#[tokio::test]
async fn plans_for_the_next_connections_are_used_once_each_in_order() {
    within(async {
        let through = Through::new().await;
        through
            .proxy
            .plan_next(Plan::one(Direction::ToClient, Fault::Truncate { after_bytes: 1 }));
        through
            .proxy
            .plan_next(Plan::one(Direction::ToClient, Fault::Truncate { after_bytes: 2 }));
        for expected in [1, 2, 3] {
            let (mut client, mut server) = through.connect().await;
            server.write_all(b"abc").await.unwrap();
            server.shutdown().await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(rest(&mut client).await.unwrap().len(), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_refuses_resets_the_client() {
    within(async {
        let Through { proxy, listener } = Through::new().await;
        drop(listener);
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(rest(&mut client).await.unwrap_err(), ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_proxy_closes_its_connections() {
    within(async {
        let Through { proxy, listener } = Through::new().await;
        let (client, server) = tokio::join!(TcpStream::connect(proxy.address()), listener.accept());
        let (mut client, _server) = (client.unwrap(), server.unwrap());
        drop(proxy);
        assert!(rest(&mut client).await.is_ok_and(|rest| rest.is_empty()));
    })
    .await;
}

fn written(steps: &[Step]) -> Vec<u8> {
    let writes = steps.iter().filter_map(|step| match step {
        Step::Write(bytes) => Some(bytes.clone()),
        Step::Pause(_) | Step::Stall | Step::Close | Step::Reset => None,
    });
    writes.collect::<Vec<Bytes>>().concat()
}

#[test]
fn every_byte_is_a_write_of_its_own_and_waits_its_time() {
    let delay = Fault::Delay {
        by: Duration::from_millis(5),
    };
    let steps = Lane::new(vec![Fault::OneByteWrites, delay], 0).push(b"ab");
    let pause = Step::Pause(Duration::from_millis(5));
    let write = |byte: &'static [u8]| Step::Write(Bytes::from_static(byte));
    assert_eq!(steps, [pause.clone(), write(b"a"), pause, write(b"b")]);
}

#[test]
fn jitter_follows_from_its_seed_and_keeps_its_bound() {
    let fault = vec![
        Fault::OneByteWrites,
        Fault::Jitter {
            up_to: Duration::from_millis(9),
        },
    ];
    let steps = |seed| Lane::new(fault.clone(), seed).push(&[0; 100]);
    assert_eq!(steps(7), steps(7));
    assert_ne!(steps(7), steps(8));
    let within = |step: &Step| !matches!(step, Step::Pause(pause) if *pause > Duration::from_millis(9));
    assert!(steps(7).iter().all(within));
}

#[test]
fn random_plans_follow_from_their_seed_and_differ() {
    assert_eq!(Plan::random(3, 1_000), Plan::random(3, 1_000));
    let plans: Vec<_> = (0..100).map(|seed| Plan::random(seed, 1_000)).collect();
    assert!(plans.iter().any(|plan| !plan.to_client.is_empty()));
    assert!(plans.iter().any(|plan| !plan.to_upstream.is_empty()));
    assert_eq!(
        Plan::random(3, 0),
        Plan::random(3, 1),
        "no room is room for the first byte"
    );
}

proptest! {
    #[test]
    fn however_a_stream_is_cut_a_lane_does_the_same_to_it(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..12),
        flip in 0..200_u64,
        bit in 0..8_u8,
        end in 0..250_u64,
        stall in 0..250_u64,
        is_split in any::<bool>(),
    ) {
        let mut faults = vec![
            Fault::FlipBit { at_byte: flip, bit },
            Fault::Stall { after_bytes: stall },
            Fault::Truncate { after_bytes: end },
        ];
        faults.extend(is_split.then_some(Fault::OneByteWrites));
        let whole = pieces.concat();
        let mut lane = Lane::new(faults, 0);
        let mut steps = lane.open();
        for piece in &pieces {
            if steps.contains(&Step::Close) {
                break;
            }
            steps.extend(lane.push(piece));
        }
        let mut expected = whole[..whole.len().min(end as usize)].to_vec();
        if let Some(byte) = expected.get_mut(flip as usize) {
            *byte ^= 1 << bit;
        }
        prop_assert_eq!(lane.offset(), expected.len() as u64);
        prop_assert!(written(&steps) == expected);
        prop_assert_eq!(steps.contains(&Step::Close), whole.len() as u64 >= end);
        let stalls = steps.iter().filter(|step| **step == Step::Stall).count();
        prop_assert_eq!(stalls, usize::from(stall <= end.min(whole.len() as u64)));
    }
}

#[tokio::test]
async fn waiting_ends_with_the_condition_or_with_the_bound() {
    let mut looks = 0;
    let third_time = || {
        looks += 1;
        looks == 3
    };
    wait_until(PATIENCE, third_time).await.unwrap();
    let error = wait_until(Duration::from_millis(5), || false).await.unwrap_err();
    assert!(error.to_string().contains("5ms"));
}

#[tokio::test]
async fn a_marked_daemon_is_found_after_it_left_its_parent() {
    let marker = Marker::new().unwrap();
    let (name, value) = marker.pair();
    let mut command = Command::new("sh");
    command
        .args(["-c", "setsid sleep 60 >/dev/null 2>&1 & exit 0"])
        .env(name, value)
        .stdin(Stdio::null());
    assert!(command.status().unwrap().success());
    // A process that is executing its program has no environment to be known by: what was seen counts.
    let mut found = Vec::new();
    wait_until(PATIENCE, || {
        found = marker.living().unwrap();
        found.iter().any(|process| process.name == "sleep")
    })
    .await
    .unwrap();
    assert_eq!(found.len(), 1);
    assert_ne!(found[0].parent, std::process::id());
    assert!(
        Marker::new().unwrap().living().unwrap().is_empty(),
        "another mark finds nothing"
    );
    let killed = Command::new("kill")
        .args(["-KILL", &found[0].pid.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    wait_until(PATIENCE, || marker.living().unwrap().is_empty())
        .await
        .unwrap();
}

#[test]
fn a_home_is_private_and_goes_away() {
    let home = TempHome::new().unwrap();
    let path = home.path().to_path_buf();
    assert!(home.dwell().is_dir());
    assert!(
        home.environment()
            .iter()
            .all(|(_, value)| std::path::Path::new(value).starts_with(&path))
    );
    drop(home);
    assert!(!path.exists());
}
