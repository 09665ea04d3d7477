//! Replies that are lost, and what was asked all the same: once.

use std::time::Duration;

use bytes::Bytes;
use dwell_actors::harness::{Command, Harness, Run, RunError, RunEvent, Target};
use dwell_messages::ExitStatus;
use dwell_testkit::{Cut, Direction, FrameRule, HostileProxy};

use crate::support::{bounded, copy, output_until, shell, started};
use crate::world::{World, lines, soak, until};

const USR1: i32 = 10;

/// Worlds at once: most of a round is the wait for its next link.
const LANES: usize = 5;

/// How many of each kind: a campaign of 10,000 in all, and a part of that in every run. In one of the lanes.
fn rounds() -> usize {
    (if soak() { 2_500 } else { 250 }) / LANES
}

async fn in_lanes<F: Future<Output = ()>>(lane: impl Fn() -> F) {
    futures_util::future::join_all((0..LANES).map(|_| lane())).await;
}

/// Does something whose reply does not come through, sees that it was done, and only then loses the link with the reply.
async fn with_lost_reply<T>(
    (world, harness): (&World, &Harness),
    doing: impl Future<Output = T>,
    done: impl Future<Output = ()>,
) -> T {
    // The link of the last round may still be on its way.
    bounded("a round trip", harness.environment_info()).await.unwrap();
    world.proxy.hold(Direction::ToClient);
    let losing = async {
        done.await;
        world.proxy.cut(Cut::Reset);
        world.proxy.heal();
    };
    let (result, ()) = bounded("a request whose reply was lost", async {
        tokio::join!(doing, losing)
    })
    .await;
    result
}

/// K-10: every start whose reply is lost makes one process.
#[tokio::test]
async fn a_start_whose_reply_is_lost_starts_once() {
    in_lanes(starts).await;
}

async fn starts() {
    let world = World::start().await;
    let harness = world.harness().await;
    let effects = world.spool.path().join("effects");
    for round in 1..=rounds() {
        let script = format!("echo {round} >> {}", effects.display());
        let finished = with_lost_reply(
            (&world, &harness),
            async { harness.exec(shell(&script)).wait().await },
            until("the effect", || lines(&effects) >= round),
        )
        .await;
        assert_eq!(finished.unwrap().status, ExitStatus::Code(0), "round {round}");
        assert_eq!(lines(&effects), round, "each start has its effect once");
    }
    assert_eq!(world.executor.sessions(), 1);
}

/// K-10, P-21: bytes whose acknowledgement is lost are written once.
#[tokio::test]
async fn a_write_whose_reply_is_lost_is_written_once() {
    in_lanes(writes).await;
}

async fn writes() {
    let world = World::start().await;
    let harness = world.harness().await;
    let effects = world.spool.path().join("effects");
    let script = format!("exec cat > {}", effects.display());
    let mut run = harness.exec(shell(&script).stdin_piped());
    started(&mut run).await;
    for round in 1..=rounds() {
        let stdin = run.stdin();
        let writing = stdin.write(Bytes::from(format!("{round}\n")));
        with_lost_reply(
            (&world, &harness),
            writing,
            until("the effect", || lines(&effects) >= round),
        )
        .await
        .unwrap();
    }
    run.close_stdin().await.unwrap();
    bounded("its end", run.wait()).await.unwrap();
    let expected: String = (1..=rounds()).map(|round| format!("{round}\n")).collect();
    assert_eq!(std::fs::read_to_string(&effects).unwrap(), expected);
}

/// A process that counts signals in a file, and does nothing else.
async fn counting(world: &World, harness: &Harness) -> (Run, std::path::PathBuf) {
    let effects = world.spool.path().join("effects");
    let script = format!(
        "trap 'echo >> {}' USR1; sleep 1000 & echo ready; while :; do wait; done",
        effects.display()
    );
    let mut run = harness.exec(shell(&script));
    started(&mut run).await;
    output_until(&mut run, "ready").await;
    (run, effects)
}

/// The last signal has been counted when another, which nothing happens to, has been.
async fn settle(run: &mut Run, effects: &std::path::Path, before: usize) -> usize {
    let seen = lines(effects).max(before);
    run.signal(USR1).await.unwrap();
    until("the last signal", || lines(effects) > seen).await;
    lines(effects) - 1
}

/// K-10: a signal whose reply is lost is sent once.
#[tokio::test]
async fn a_signal_whose_reply_is_lost_is_sent_once() {
    in_lanes(signals).await;
}

async fn signals() {
    let world = World::start().await;
    let harness = world.harness().await;
    let (mut run, effects) = counting(&world, &harness).await;
    for round in 1..=rounds() {
        let signalling = run.signal(USR1);
        with_lost_reply(
            (&world, &harness),
            signalling,
            until("the effect", || lines(&effects) >= round),
        )
        .await
        .unwrap();
        assert_eq!(lines(&effects), round);
    }
    assert_eq!(settle(&mut run, &effects, rounds()).await, rounds());
    run.terminate(Duration::ZERO);
    bounded("its end", run.wait()).await.unwrap();
}

/// The positive control: an executor that takes repetitions for new sends signals twice.
#[tokio::test]
async fn without_the_sessions_order_lost_replies_do_things_twice() {
    let world = World::with(1 << 20, |builder| builder.credulous()).await;
    let harness = world.harness().await;
    let (mut run, effects) = counting(&world, &harness).await;
    let mut sent = 0;
    while sent < 50 && lines(&effects) <= sent {
        sent += 1;
        let signalling = run.signal(USR1);
        with_lost_reply(
            (&world, &harness),
            signalling,
            until("the effect", || lines(&effects) >= sent),
        )
        .await
        .ok();
        settle(&mut run, &effects, sent).await;
        sent += 1;
    }
    assert!(
        lines(&effects) > sent,
        "{sent} signals were sent and {} came",
        lines(&effects)
    );
    run.terminate(Duration::ZERO);
    bounded("its end", run.wait()).await.ok();
}

/// Whether a process is there and no zombie.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// A termination whose reply is lost ends its process, once, and is answered.
#[tokio::test]
async fn a_termination_whose_reply_is_lost_is_answered() {
    in_lanes(terminations).await;
}

async fn terminations() {
    let world = World::start().await;
    let harness = world.harness().await;
    for round in 1..=rounds() {
        let mut run = harness.exec(Command::new("sleep").arg("1000"));
        let pid = started(&mut run).await;
        let report = with_lost_reply(
            (&world, &harness),
            run.stop(Duration::from_secs(5)),
            until("the effect", || !runs(pid)),
        )
        .await;
        assert_eq!(report.unwrap().unkillable, 0, "round {round}");
        let finished = bounded("its end", run.wait()).await.unwrap();
        assert_eq!(
            finished.status,
            ExitStatus::Signal(15),
            "TERM was enough, and came once"
        );
    }
}

/// An executor that was restarted answers nothing of what its earlier life was asked, and nothing is sent again.
#[tokio::test]
async fn what_a_restarted_executor_had_not_answered_ends_as_unknown() {
    let mut world = World::start().await;
    let harness = world.harness().await;
    let effects = world.spool.path().join("effects");
    let script = format!("echo x >> {}; exec sleep 1000", effects.display());
    let run = harness.exec(shell(&script));
    world.proxy.hold(Direction::ToClient);
    until("the effect", || lines(&effects) == 1).await;
    // Nothing of its earlier life comes through any more, not even a goodbye.
    world.proxy.freeze();
    world.proxy.cut(Cut::Reset);
    world.restart().await;
    world.proxy.heal();
    let outcome = bounded("a definite end", run.wait()).await;
    let Err(RunError::Lost(why)) = outcome else {
        panic!("expected an unknown outcome, not {outcome:?}");
    };
    assert!(why.contains("restarted"), "{why}");
    assert_eq!(lines(&effects), 1, "it is not sent again");
    let later = bounded("a later call", harness.exec(Command::new("true")).wait()).await;
    assert!(matches!(later, Err(RunError::NotStarted(_))), "{later:?}");
}

/// A link that died before its session's first message came through: the session begins over, and nothing runs twice.
#[tokio::test]
async fn a_session_that_never_began_begins_over_the_next_link() {
    let world = World::start().await;
    world.proxy.hold(Direction::ToUpstream);
    let connecting = world.harness();
    let healing = async {
        until("a connection", || world.proxy.accepted() >= 1).await;
        // The handshake passes; nothing behind it does.
        world.proxy.heal();
    };
    let (harness, ()) = tokio::join!(connecting, healing);
    world.proxy.hold(Direction::ToUpstream);
    let effects = world.spool.path().join("effects");
    let mut run = harness.exec(shell(&format!("echo x >> {}", effects.display())));
    world.proxy.cut(Cut::Reset);
    world.proxy.heal();
    while let Some(event) = bounded("an event", run.next()).await {
        drop::<RunEvent>(event);
    }
    assert_eq!(
        bounded("its end", run.wait()).await.unwrap().status,
        ExitStatus::Code(0)
    );
    assert_eq!(lines(&effects), 1);
}

/// A session whose first message the network holds back until the session has begun over another link, and a command in it.
async fn with_a_late_first_message(world: &World) -> (Harness, std::path::PathBuf) {
    let upstream = world.executor.local_addr().unwrap().parse().unwrap();
    let proxy = HostileProxy::start(upstream, 1).await.unwrap();
    let by = Duration::from_millis(300);
    // Message 1 passes, and what comes behind it comes late.
    proxy.script_next(vec![(1, FrameRule::Orphan { by })], Vec::new());
    let target = Target::direct(proxy.address().to_string(), world.executor.public_key());
    let builder = Harness::builder().identity(copy(&world.client)).sampled(false);
    let harness = bounded("connecting", builder.connect(target)).await.unwrap();
    let effects = world.spool.path().join("effects");
    let script = format!("echo x >> {}", effects.display());
    let finished = bounded("a command", harness.exec(shell(&script)).wait()).await;
    assert_eq!(finished.unwrap().status, ExitStatus::Code(0));
    assert_eq!(proxy.accepted(), 2, "it went over the second link");
    until("what was late", || proxy.orphans() == 1).await;
    (harness, effects)
}

/// A first message that the network brings when its session has begun over another link: it used to begin a session of
/// its own, and everything in it was done twice.
#[tokio::test]
async fn a_first_message_that_comes_late_begins_nothing() {
    let world = World::start().await;
    let (_harness, effects) = with_a_late_first_message(&world).await;
    // What it would begin runs before what is asked now.
    let own = world.harness_of_its_own().await;
    bounded("a later call", own.exec(Command::new("true")).wait())
        .await
        .unwrap();
    assert_eq!(lines(&effects), 1);
    assert_eq!(
        world.executor.sessions(),
        2,
        "this session, and the one of its own"
    );
}

/// Its positive control.
#[tokio::test]
async fn without_the_sessions_order_a_late_first_message_does_things_twice() {
    let world = World::with(1 << 20, |builder| builder.credulous()).await;
    let (_harness, effects) = with_a_late_first_message(&world).await;
    until("the double", || lines(&effects) == 2).await;
}

/// The answer that a session begins over another link is lost too: what began unheard ends, and nothing runs twice.
#[tokio::test]
async fn a_session_that_begins_over_twice_leaves_one() {
    let world = World::start().await;
    let upstream = world.executor.local_addr().unwrap().parse().unwrap();
    let proxy = HostileProxy::start(upstream, 1).await.unwrap();
    proxy.script_next(vec![(1, FrameRule::Reset)], Vec::new());
    // Message 2 passes, and the answer behind it does not.
    proxy.script_next(Vec::new(), vec![(1, FrameRule::Reset)]);
    let target = Target::direct(proxy.address().to_string(), world.executor.public_key());
    let builder = Harness::builder().identity(copy(&world.client)).sampled(false);
    let harness = bounded("connecting", builder.connect(target)).await.unwrap();
    let effects = world.spool.path().join("effects");
    let finished = bounded(
        "a command",
        harness
            .exec(shell(&format!("echo x >> {}", effects.display())))
            .wait(),
    )
    .await;
    assert_eq!(finished.unwrap().status, ExitStatus::Code(0));
    assert_eq!(proxy.accepted(), 3);
    assert_eq!(lines(&effects), 1);
    until("one session", || world.executor.sessions() == 1).await;
}
