//! Networks that are gone for a while: at every step of a handshake, under many sessions at once, and for how long it takes
//! to go on once they are back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_actors::executor::Executor;
use dwell_actors::harness::{Command, Harness, HarnessBuilder, Run, RunError, RunEvent, Target};
use dwell_actors::relay_server::Relay;
use dwell_actors::terminal_delivery::OUTPUT_WINDOW_BYTES;
use dwell_messages::ExitStatus;
use dwell_messages::kinds::OuterKind;
use dwell_relay::OuterDecoder;
use dwell_relay::outer::OUTER_HEADER_BYTES;
use dwell_relay::preamble::PREAMBLE_BYTES;
use dwell_testkit::{Cut, Direction, Fault, FrameRule, HostileProxy, Plan, TcpFaultProxy};

use crate::support::{bounded, copy, keypair, output_until, shell, started};
use crate::world::{Dice, World, lines, seed, soak, until};

/// What goes on may take longer on a busy machine by this factor.
const BUSY: u32 = 10;
/// A session goes on within this and three round trips, after an outage of less than 10 s.
const RESUME_MAX: Duration = Duration::from_millis(250);

/// How the network is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outage {
    /// Every connection and every attempt is reset.
    Refusing,
    /// Connections stand, and nothing arrives.
    Silent,
}

async fn echo(run: &mut Run) {
    bounded("a write", run.write_stdin(Bytes::from_static(b"x\n")))
        .await
        .unwrap();
    output_until(run, "\n").await;
}

/// One outage; how long after its end the session has carried something there and back.
async fn out_of_reach(proxy: &TcpFaultProxy, run: &mut Run, outage: Outage, time: Duration) -> Duration {
    match outage {
        Outage::Refusing => {
            let refused = Fault::Reset { after_bytes: 0 };
            proxy.plan(Plan::one(Direction::ToUpstream, refused));
            proxy.cut(Cut::Reset);
        }
        Outage::Silent => proxy.freeze(),
    }
    let stdin = run.stdin();
    let writing = stdin.write(Bytes::from_static(b"x\n"));
    let ending = async {
        tokio::time::timeout(time, std::future::pending::<()>())
            .await
            .ok();
        proxy.heal();
        Instant::now()
    };
    let (written, healed) = bounded("a write across an outage", async {
        tokio::join!(writing, ending)
    })
    .await;
    written.unwrap();
    output_until(run, "\n").await;
    healed.elapsed()
}

/// The figure of the resume: 250 ms and three round trips at the 99th percentile, here with a factor for a busy machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_soon_after_an_outage_of_less_than_ten_seconds() {
    let mut dice = Dice(seed());
    let (lanes, rounds, longest_ms) = if soak() { (16, 20, 9_900) } else { (16, 5, 900) };
    for outage in [Outage::Refusing, Outage::Silent] {
        let lanes: Vec<_> = (0..lanes)
            .map(|_| {
                let mut dice = Dice(dice.roll() | 1);
                tokio::spawn(async move {
                    let world = World::start().await;
                    let quick = |builder: HarnessBuilder| {
                        builder.pings(Duration::from_millis(100), Duration::from_millis(400))
                    };
                    let harness = world.harness_with(quick).await;
                    let mut run = harness.exec(Command::new("cat").stdin_piped());
                    started(&mut run).await;
                    let mut taken = Vec::new();
                    for _ in 0..rounds {
                        echo(&mut run).await;
                        let time = Duration::from_millis(dice.below(longest_ms));
                        taken.push(out_of_reach(&world.proxy, &mut run, outage, time).await);
                    }
                    assert_eq!(world.executor.sessions(), 1);
                    taken
                })
            })
            .collect();
        let mut taken = Vec::new();
        for lane in lanes {
            taken.extend(lane.await.unwrap());
        }
        taken.sort();
        let (p50, p99) = (taken[taken.len() / 2], taken[taken.len() * 99 / 100]);
        println!(
            "{outage:?}: {} outages, going on after p50 {p50:?}, p99 {p99:?}",
            taken.len()
        );
        assert!(p99 < BUSY * RESUME_MAX, "{outage:?}: {p99:?}");
    }
}

/// The steps of a handshake and of what follows it, as the frame that does not arrive.
const STEPS: [(&str, Direction, u64); 4] = [
    ("message 1", Direction::ToUpstream, 0),
    ("message 2", Direction::ToClient, 0),
    ("the first record", Direction::ToUpstream, 1),
    ("its answer", Direction::ToClient, 1),
];

fn script(proxy: &HostileProxy, way: Direction, frame: u64, rule: FrameRule) {
    let script = vec![(frame, rule)];
    match way {
        Direction::ToUpstream => proxy.script_next(script, Vec::new()),
        Direction::ToClient => proxy.script_next(Vec::new(), script),
    }
}

/// T-11: a partition at each step of a first handshake and of a resume, silent or with a word. What was asked for starts
/// once, and no session is left over.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_at_any_step_of_a_handshake_or_a_resume_starts_everything_once() {
    let mut cases = Vec::new();
    for (name, way, frame) in STEPS {
        for rule in [FrameRule::Reset, FrameRule::Stall, FrameRule::Drop] {
            for first in [true, false] {
                let name = format!(
                    "{rule:?} at {name} of {}",
                    if first { "the first link" } else { "a resume" }
                );
                cases.push((name, tokio::spawn(partition(way, frame, rule, first))));
            }
        }
    }
    for (name, case) in cases {
        if let Err(error) = case.await {
            panic!("{name}: {error}");
        }
    }
}

async fn partition(way: Direction, frame: u64, rule: FrameRule, first: bool) {
    let world = World::start().await;
    let upstream = world.executor.local_addr().unwrap().parse().unwrap();
    let proxy = HostileProxy::start(upstream, 1).await.unwrap();
    let connect = || {
        let target = Target::direct(proxy.address().to_string(), world.executor.public_key());
        let builder = Harness::builder().identity(copy(&world.client)).sampled(false);
        builder
            .pings(Duration::from_millis(100), Duration::from_millis(400))
            .connect(target)
    };
    if first {
        script(&proxy, way, frame, rule);
    }
    // A first link that does not come about is the caller's to try again.
    let harness = loop {
        if let Ok(harness) = bounded("connecting", connect()).await {
            break harness;
        }
    };
    let effects = world.spool.path().join("effects");
    let say = |text: &str| shell(&format!("echo {text} >> {}", effects.display()));
    if !first {
        let finished = bounded("a first call", harness.exec(say("first")).wait()).await;
        assert_eq!(finished.unwrap().status, ExitStatus::Code(0));
        // Twice in a row: the second attempt has the same fate.
        script(&proxy, way, frame, rule);
        script(&proxy, way, frame, rule);
        proxy.restart();
    }
    let finished = bounded("a call", harness.exec(say("second")).wait()).await;
    assert_eq!(finished.unwrap().status, ExitStatus::Code(0));
    assert_eq!(lines(&effects), if first { 1 } else { 2 });
    assert!(!proxy.log().is_empty(), "the partition took place");
    until("one session", || world.executor.sessions() == 1).await;
}

/// T-15: a relay that is restarted on another port under many sessions. All go on, and they do not come at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_go_on_when_their_relay_is_restarted_on_another_port() {
    let sessions: u64 = if soak() { 200 } else { 32 };
    let client = keypair();
    let first = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
    let upstream: SocketAddr = first.local_addr().parse().unwrap();
    // What a name service would do: the same address for both lives.
    let clients_way = Arc::new(HostileProxy::start(upstream, 1).await.unwrap());
    let executors_way = HostileProxy::start(upstream, 2).await.unwrap();
    let executor = Executor::builder()
        .relay(executors_way.address().to_string())
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    bounded("registering", executor.registered()).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..sessions {
        let target = Target::relay(clients_way.address().to_string(), executor.public_key());
        let builder = Harness::builder().identity(copy(&client)).sampled(false);
        let harness = bounded("connecting", builder.connect(target)).await.unwrap();
        let mut run = harness.exec(Command::new("cat").stdin_piped());
        started(&mut run).await;
        runs.push((harness, run));
    }
    assert_eq!(clients_way.accepted(), sessions);
    drop(first);
    let down = Instant::now();
    let second = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
    let upstream = second.local_addr().parse().unwrap();
    clients_way.move_upstream(upstream);
    executors_way.move_upstream(upstream);
    let going_on: Vec<_> = runs
        .into_iter()
        .map(|(harness, mut run)| {
            tokio::spawn(async move {
                for _ in 0..3 {
                    echo(&mut run).await;
                }
                run.close_stdin().await.unwrap();
                let finished = bounded("its end", run.wait()).await.unwrap();
                assert_eq!(finished.status, ExitStatus::Code(0));
                drop(harness);
            })
        })
        .collect();
    for going_on in going_on {
        tokio::time::timeout(Duration::from_secs(100), going_on)
            .await
            .unwrap()
            .unwrap();
    }
    let (took, dials) = (down.elapsed(), clients_way.accepted() - sessions);
    println!("{sessions} sessions went on after {took:?} and {dials} dials");
    // One each at once, and then no more than one every 50 ms each while their executor was not back.
    let most = sessions * (2 + u64::try_from(took.as_millis()).unwrap() / 50);
    assert!(
        (sessions..=most).contains(&dials),
        "{dials} dials, {most} at the most"
    );
}

/// T-18: two processes with one key. The newer registration has the streams, the older one's clients find it there as
/// another life, and hear that what they had asked is not known; nothing is done twice or mixed.
#[tokio::test]
async fn of_two_executors_with_one_key_the_newer_serves_and_nothing_is_done_twice() {
    let (client, identity) = (keypair(), keypair());
    let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
    let serve = || async {
        let executor = Executor::builder()
            .identity(copy(&identity))
            .relay(relay.local_addr())
            .authorize(client.public())
            .serve()
            .await
            .unwrap();
        bounded("registering", executor.registered()).await.unwrap();
        executor
    };
    let connect = || async {
        let target = Target::relay(relay.local_addr(), identity.public());
        bounded("connecting", async {
            loop {
                let builder = Harness::builder().identity(copy(&client)).sampled(false);
                if let Ok(harness) = builder.connect(target.clone()).await {
                    return harness;
                }
            }
        })
        .await
    };
    let older = serve().await;
    let harness = connect().await;
    let files = tempfile::tempdir().unwrap();
    let effects = files.path().join("effects");
    let mut run = harness.exec(shell(&format!("echo x >> {}; exec cat", effects.display())).stdin_piped());
    started(&mut run).await;
    until("the effect", || lines(&effects) == 1).await;
    // From here on both register again whenever the other has.
    let newer = serve().await;
    let ended = bounded("a definite end", run.wait()).await;
    assert!(matches!(ended, Err(RunError::Lost(_))), "{ended:?}");
    assert_eq!(lines(&effects), 1, "it is not started at the other one");
    drop(older);
    let harness = connect().await;
    let finished = bounded("a call", harness.exec(Command::new("echo").arg("newer")).wait()).await;
    assert_eq!(finished.unwrap().stdout.to_text(), "newer\n");
    assert_eq!(newer.sessions(), 1);
}

/// Bytes of the frames with which the end behind the proxy answered the first connection's handshake.
fn answer_bytes(captured: &[u8]) -> u64 {
    let mut decoder = OuterDecoder::new();
    decoder.feed(BytesMut::from(captured));
    let first = decoder.next_frame().unwrap().expect("message 2 is there");
    assert_eq!(first.kind, OuterKind::Handshake);
    (OUTER_HEADER_BYTES + first.payload.len()) as u64
}

/// Whether a client's bytes hold a preamble, message 1 and a record.
fn has_said_something(captured: &[u8]) -> bool {
    let Some(frames) = captured.get(PREAMBLE_BYTES..) else {
        return false;
    };
    let mut decoder = OuterDecoder::new();
    decoder.feed(BytesMut::from(frames));
    std::iter::from_fn(|| decoder.next_frame().unwrap()).any(|frame| frame.kind == OuterKind::Data)
}

/// Credit has no place in the order. What was given between a link's first words and their answer was said by nobody: a
/// consumer that was as slow as that, with its whole window full, waited for ever.
#[tokio::test]
async fn credit_that_is_given_while_a_session_is_taken_up_is_not_lost() {
    const BYTES: usize = 4 << 20;
    let world = World::start().await;
    let harness = world.harness().await;
    let mut run = harness.exec(shell(&format!("head -c {BYTES} /dev/zero")));
    started(&mut run).await;
    // The consumer takes nothing until its window is full here.
    let full = || world.proxy.captured(Direction::ToClient).len() as u64 > OUTPUT_WINDOW_BYTES;
    until("a full window", full).await;
    bounded("all of it", async {
        let sent = || world.proxy.captured(Direction::ToClient).len();
        let mut before = 0;
        // Only answers are left to come.
        while sent() > before + 4096 {
            before = sent();
            harness.environment_info().await.unwrap();
        }
    })
    .await;
    // The next link's first words arrive, and nothing that is said to them but message 2.
    let after_bytes = answer_bytes(&world.proxy.captured(Direction::ToClient));
    let before = world.proxy.captured(Direction::ToUpstream).len();
    let stall = Fault::Stall { after_bytes };
    world.proxy.plan_next(Plan::one(Direction::ToClient, stall));
    world.proxy.cut(Cut::Reset);
    until("the next link's first words", || {
        has_said_something(&world.proxy.captured(Direction::ToUpstream)[before..])
    })
    .await;
    let mut taken = 0;
    while taken < OUTPUT_WINDOW_BYTES as usize {
        match bounded("what is here already", run.next()).await.unwrap() {
            RunEvent::Stdout(data) => taken += data.len(),
            other => panic!("{other:?}"),
        }
    }
    world.proxy.heal();
    let finished = bounded("the rest", run.wait()).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(0));
    let rest = finished.stdout;
    assert_eq!(
        taken + rest.head.len() + rest.tail.len() + rest.omitted as usize,
        BYTES
    );
}
