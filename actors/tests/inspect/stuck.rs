//! Everything that can be stuck is seen in the answer and warned of once; what is only busy is not.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dwell_actors::harness::{Command, Harness};
use dwell_actors::inspect::view::Snapshot;
use dwell_actors::mailbox::{Actor, HostOptions, Mailbox, Message, Turn, start_on};
use dwell_actors::relay_server::Relay;
use dwell_actors::runtime::Runtime;
use dwell_actors::telemetry::{Collector, CollectorOptions};
use dwell_messages::{Envelope, Role, TraceContext};
use dwell_testkit::Direction;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use crate::support::{World, bounded, look, private_dir, started, until, watched};

/// How long a place must have stood still when it is told of, and how much later that may be on a busy machine.
const AFTER: Duration = Duration::from_secs(1);
const TOLERANCE: Duration = Duration::from_secs(4);

/// Says that this is the only warning there is, now and some looks later.
async fn is_the_only_warning(what: &str, mut look: impl FnMut() -> Snapshot) {
    let first = look();
    let begun = Instant::now();
    until("some looks later", || begun.elapsed() > AFTER * 2).await;
    let later = look();
    for snapshot in [&first, &later] {
        let kinds: Vec<_> = snapshot.stuck.iter().map(|stuck| stuck.what.as_str()).collect();
        assert_eq!(kinds, [what], "{:?}", snapshot.stuck);
    }
    assert_eq!(later.warnings, 1, "once until it moves again: {:?}", later.stuck);
}

/// An actor that says when a turn begins, and whose turn lasts for as long as somebody else wants.
struct Wedge {
    begins: mpsc::Sender<()>,
    release: Receiver<()>,
}

enum Stand {
    Still,
}

impl Message for Stand {
    const NAMES: &'static [&'static str] = &["Still"];

    fn index(&self) -> usize {
        0
    }
}

impl Actor for Wedge {
    const NAME: &'static str = "Wedge";
    type Message = Stand;
    type Control = std::convert::Infallible;

    fn receive(&mut self, _: Envelope<Stand>, _: &mut Turn<'_, Self>) {
        self.begins.try_send(()).unwrap();
        self.release.recv().ok();
    }

    fn control(&mut self, control: Self::Control, _: &mut Turn<'_, Self>) {
        match control {}
    }
}

#[tokio::test]
async fn a_wedged_actor_is_named_with_its_message_and_what_waits_behind_it_is_not_told_of_beside_it() {
    let dir = private_dir();
    let options = CollectorOptions {
        role: Role::Relay,
        keep_recent: false,
        sinks: Vec::new(),
    };
    let runtime = Runtime::start(1, Collector::start(options).unwrap()).unwrap();
    let relay = Relay::builder()
        .listen("127.0.0.1:0")
        .runtime(runtime.clone())
        .oversight(watched(dir.path()))
        .serve()
        .await
        .unwrap();
    let (release, wedged) = sync_channel(1);
    let (begins, mut begun_turns) = mpsc::channel(2);
    let wedged = Arc::new(Mutex::new(Some(Wedge {
        begins,
        release: wedged,
    })));
    let place = runtime.place();
    let wedge: Mailbox<Wedge> = start_on(place.arbiter(), HostOptions::new(4), move || {
        wedged.lock().unwrap().take().unwrap()
    });
    let begun = Instant::now();
    for _ in 0..2 {
        assert!(
            wedge
                .try_tell(Envelope::new(TraceContext::default(), Stand::Still))
                .is_ok()
        );
    }
    // Its census waits in the relay's mailbox, on the same thread, when it is asked for after the turn has begun:
    // before that it may be answered first.
    bounded("the turn's begin", begun_turns.recv()).await.unwrap();
    let asking = tokio::spawn(async move {
        assert!(relay.census().await.is_ok());
        relay
    });
    until("the turn is told of", || {
        !look(dir.path(), Role::Relay).stuck.is_empty()
    })
    .await;
    assert!(begun.elapsed() < AFTER + TOLERANCE, "{:?}", begun.elapsed());
    is_the_only_warning("turn", || look(dir.path(), Role::Relay)).await;
    let snapshot = look(dir.path(), Role::Relay);
    assert!(
        snapshot.stuck[0]
            .text
            .starts_with("Wedge has been handling Still for "),
        "{}",
        snapshot.stuck[0].text
    );
    let mailbox = |actor: &str| snapshot.mailboxes.iter().find(|mailbox| mailbox.actor == actor);
    let wedge_seen = mailbox("Wedge").expect("it is in the table");
    assert_eq!((wedge_seen.depth, wedge_seen.turn.as_deref()), (2, Some("Still")));
    assert!(
        wedge_seen.message_age_us >= Some(1_000_000) && wedge_seen.still_us >= 1_000_000,
        "{wedge_seen:?}"
    );
    let behind = mailbox("RelayServer").expect("what waits behind it is in the table too");
    assert!(behind.depth >= 1 && behind.still_us >= 1_000_000, "{behind:?}");
    release.send(()).unwrap();
    drop(release);
    until("it moves again", || {
        look(dir.path(), Role::Relay).stuck.is_empty()
    })
    .await;
    let relay = bounded("the census", asking).await.unwrap();
    relay.shutdown().await;
}

#[tokio::test]
async fn a_child_that_a_signal_stopped_is_told_of_with_what_lets_it_go_on() {
    let world = World::start().await;
    let harness = world.harness(world.direct(), |builder| builder).await;
    let (run, pid) = started(&harness, Command::new("sleep").arg("1000")).await;
    let child = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(child, Signal::STOP).unwrap();
    let begun = Instant::now();
    let snapshot = world.until_stuck(Role::Executor, "stopped_child").await;
    assert!(begun.elapsed() < AFTER + TOLERANCE, "{:?}", begun.elapsed());
    assert_eq!(snapshot.processes[0].state, "stopped");
    assert_eq!(
        (snapshot.processes[0].pid, snapshot.processes[0].program.as_str()),
        (pid, "sleep")
    );
    let advice = format!("kill -CONT {pid} lets it go on");
    assert!(
        snapshot.stuck[0].text.contains(&advice),
        "{}",
        snapshot.stuck[0].text
    );
    is_the_only_warning("stopped_child", || world.look(Role::Executor)).await;
    kill_process(child, Signal::CONT).unwrap();
    until("it goes on", || world.look(Role::Executor).stuck.is_empty()).await;
    drop(run);
    harness.shutdown().await;
}

#[tokio::test]
async fn a_relay_that_says_nothing_any_more_is_told_of_a_second_after_the_ping() {
    let world = World::start().await;
    let pings = |every: u64, dead: u64| {
        move |builder: dwell_actors::harness::HarnessBuilder| {
            builder.pings(Duration::from_millis(every), Duration::from_secs(dead))
        }
    };
    let harness = world.harness(world.relayed(), pings(100, 600)).await;
    assert!(world.look(Role::Harness).stuck.is_empty());
    world.proxy.freeze();
    let begun = Instant::now();
    let snapshot = world.until_stuck(Role::Harness, "silent_peer").await;
    assert!(begun.elapsed() < AFTER + TOLERANCE, "{:?}", begun.elapsed());
    assert!(
        snapshot.links[0].silent_us >= Some(1_000_000),
        "{:?}",
        snapshot.links
    );
    assert!(
        snapshot.stuck[0].text.contains("has not answered a ping"),
        "{}",
        snapshot.stuck[0].text
    );
    is_the_only_warning("silent_peer", || world.look(Role::Harness)).await;
    world.proxy.heal();
    until("it answers again", || world.look(Role::Harness).stuck.is_empty()).await;
    drop(harness);
}

#[tokio::test]
async fn a_consumer_that_does_not_read_is_told_of_where_its_output_waits() {
    let world = World::start().await;
    let harness = world.harness(world.direct(), |builder| builder).await;
    // Nobody takes an event after the start.
    let (run, _) = started(&harness, Command::new("yes")).await;
    let snapshot = world.until_stuck(Role::Executor, "consumer").await;
    let process = &snapshot.processes[0];
    assert_eq!(process.waits[0], "consumer");
    assert!(
        process.waits_us[0] >= 1_000_000 && process.bytes[0] > 0,
        "{process:?}"
    );
    assert!(
        snapshot.stuck[0].text.contains("its consumer has not read"),
        "{}",
        snapshot.stuck[0].text
    );
    is_the_only_warning("consumer", || world.look(Role::Executor)).await;
    // Where it is is seen at the other end as well.
    let calls = world.look(Role::Harness).calls;
    let run_seen = calls
        .iter()
        .find(|call| call.kind == "run")
        .expect("the run is in flight");
    assert_eq!(run_seen.at, "running");
    drop(run);
    harness.shutdown().await;
}

#[tokio::test]
async fn a_link_over_which_nothing_may_leave_is_told_of_with_what_waits_for_it() {
    let world = World::start().await;
    let quiet = |builder: dwell_actors::harness::HarnessBuilder| {
        builder.pings(Duration::from_secs(600), Duration::from_secs(600))
    };
    let harness = world.harness(world.relayed(), quiet).await;
    let command = Command::new("sh")
        .args(["-c", "read line; exec yes"])
        .stdin_piped();
    let (run, _) = started(&harness, command).await;
    // Nothing comes to the harness any more, and so nothing comes back that would let more leave.
    world.proxy.hold(Direction::ToClient);
    let input = run.stdin();
    let writing = tokio::spawn(async move { input.write(Bytes::from_static(b"go\n")).await });
    let snapshot = world.until_stuck(Role::Executor, "window").await;
    let link = snapshot
        .links
        .iter()
        .find(|link| link.kind == "relayed")
        .expect("the link is there");
    assert!(link.held_us >= Some(1_000_000) && link.held_bytes > 0, "{link:?}");
    assert!(
        snapshot.stuck[0].text.contains("over which nothing may leave"),
        "{}",
        snapshot.stuck[0].text
    );
    assert_eq!(snapshot.processes[0].waits[0], "link");
    is_the_only_warning("window", || world.look(Role::Executor)).await;
    let streams = world
        .look(Role::Relay)
        .relay
        .expect("the relay tells what it passes on")
        .streams;
    assert_eq!((streams.len(), streams[0].half_open), (1, false));
    writing.abort();
    drop((run, harness));
}

/// The positive control: full, fast and long, and always moving.
#[tokio::test]
async fn what_is_busy_and_moves_is_not_warned_of() {
    let world = World::start().await;
    let harness = Arc::new(world.harness(world.relayed(), |builder| builder).await);
    let begun = Instant::now();
    let flood = tokio::spawn(flood(Arc::clone(&harness), begun));
    let mut commands = 0;
    while begun.elapsed() < AFTER * 4 {
        let finished = bounded("a command", harness.exec(Command::new("true")).wait()).await;
        assert!(finished.is_ok());
        commands += 1;
    }
    let bytes = bounded("the flood", flood).await.unwrap();
    assert!(bytes > 0);
    for role in [Role::Harness, Role::Executor, Role::Relay] {
        let snapshot = world.look(role);
        assert_eq!(
            snapshot.warnings, 0,
            "{role:?} after {commands} commands: {:?}",
            snapshot.stuck
        );
    }
}

async fn flood(harness: Arc<Harness>, begun: Instant) -> u64 {
    let mut bytes = 0;
    while begun.elapsed() < AFTER * 4 {
        let command = Command::new("head").args(["-c", "20000000", "/dev/zero"]);
        let finished = bounded("a flood", harness.exec(command).wait()).await.unwrap();
        bytes += finished.output_bytes[0];
    }
    bytes
}

#[tokio::test]
async fn a_harness_that_waits_for_an_executor_which_takes_nothing_shows_its_call_and_where_it_is() {
    let world = World::start().await;
    let quiet = |builder: dwell_actors::harness::HarnessBuilder| {
        builder.pings(Duration::from_secs(600), Duration::from_secs(600))
    };
    let harness = world.harness(world.relayed(), quiet).await;
    world.proxy.hold(Direction::ToUpstream);
    let run = harness.exec(Command::new("true"));
    let trace = run.trace_id().to_string();
    let mut seen = None;
    until("the call is in flight", || {
        let calls = world.look(Role::Harness).calls;
        seen = calls
            .into_iter()
            .find(|call| call.kind == "run" && call.at == "response");
        seen.is_some()
    })
    .await;
    let call = seen.unwrap();
    assert_eq!(
        (call.trace_id, call.process, call.method.as_str(), call.sampled),
        (trace, 1, "Process/Start", false)
    );
    world.proxy.heal();
    bounded("the run", run.wait()).await.unwrap();
    until("nothing is in flight", || {
        world.look(Role::Harness).calls.is_empty()
    })
    .await;
    until("nor at the executor", || {
        let snapshot = world.look(Role::Executor);
        snapshot.calls.is_empty() && snapshot.processes.is_empty()
    })
    .await;
    harness.shutdown().await;
}
