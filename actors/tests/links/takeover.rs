//! Sessions that are listed, looked at and taken up by somebody else who holds the key.

use std::time::Duration;

use bytes::Bytes;
use dwell_actors::executor::Executor;
use dwell_actors::harness::{
    Command, ConnectError, Harness, ProcessState, Run, RunError, RunEvent, SessionInfo, TakeUp,
};
use dwell_actors::keys::{Grant, Scope, ScopeSet};
use dwell_messages::{ErrorCode, Event, ExitStatus, OutputStream};
use dwell_testkit::{Cut, Direction};

use crate::support::{bounded, copy, keypair, output_until, shell, started};
use crate::world::{World, lines, until};

const TERM: i32 = 15;

async fn listed(harness: &Harness) -> Vec<SessionInfo> {
    bounded("a list", harness.sessions()).await.unwrap()
}

/// The session that runs something.
async fn busy(harness: &Harness) -> SessionInfo {
    let all = listed(harness).await;
    let found = all.iter().find(|session| !session.processes.is_empty());
    found.unwrap_or_else(|| panic!("nothing runs: {all:?}")).clone()
}

async fn take(world: &World, session: TakeUp) -> Result<Harness, ConnectError> {
    let builder = Harness::builder()
        .identity(copy(&world.client))
        .sampled(false)
        .take_up(session);
    bounded("taking a session up", builder.connect(world.target())).await
}

/// Everything a run tells to its end: bytes of standard output, gaps, and its status.
async fn all(run: &mut Run) -> (Vec<u8>, u64, Option<ExitStatus>) {
    let (mut text, mut gaps, mut status) = (Vec::new(), 0, None);
    while let Some(event) = bounded("an event", run.next()).await {
        match event {
            RunEvent::Stdout(data) => text.extend_from_slice(&data),
            RunEvent::Gap(gap) => {
                assert_eq!(gap.stream, OutputStream::Stdout);
                gaps += gap.bytes();
            }
            RunEvent::Exited(exited) => status = Some(exited),
            RunEvent::Stderr(_) | RunEvent::Started { .. } => {}
        }
    }
    (text, gaps, status)
}

/// K-11: another instance with the same key lists what its predecessor ran, and takes it up: output, input, signals, end.
#[tokio::test]
async fn a_session_is_listed_and_taken_up_by_another_harness_with_the_same_key() {
    let world = World::start().await;
    let first = world.harness().await;
    let mut run =
        first.exec(shell("echo before; while read line; do echo \"$line $$\"; done; exit 7").stdin_piped());
    let pid = started(&mut run).await;
    bounded("a write", run.write_stdin(Bytes::from_static(b"one\n")))
        .await
        .unwrap();
    output_until(&mut run, "one").await;
    let second = world.harness_of_its_own().await;
    let session = busy(&second).await;
    let process = &session.processes[0];
    assert_eq!(
        (
            process.pid,
            process.state,
            process.program.as_str(),
            process.stdin,
            process.tty
        ),
        (pid, ProcessState::Running, "sh", true, false)
    );
    assert!(session.connected && session.owner == 1 && session.session == first.session());
    let taken = take(&world, session.take_up()).await.unwrap();
    let mut adopted = taken.adopt(process.process).unwrap();
    assert!(taken.adopt(process.process).is_none(), "once");
    let text = output_until(&mut adopted, "one").await;
    assert!(text.starts_with("before\none "), "from its first byte: {text}");
    // The input goes on where the other owner's ended.
    bounded("a write", adopted.write_stdin(Bytes::from_static(b"two\n")))
        .await
        .unwrap();
    let expected = format!("two {pid}\n");
    while !output_until(&mut adopted, "\n").await.ends_with(&expected) {}
    bounded("closing", adopted.close_stdin()).await.unwrap();
    let finished = bounded("its end", adopted.wait()).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(7));
    // The older owner was told, and by whom.
    let outcome = bounded("the older owner's run", run.wait()).await;
    let Err(RunError::Lost(why)) = outcome else {
        panic!("expected a lost run, not {outcome:?}");
    };
    assert!(why.contains("taken over") && why.contains("number 2"), "{why}");
    // New commands do not collide with the earlier owner's.
    let later = bounded("a new command", taken.exec(Command::new("true")).wait()).await;
    assert_eq!(later.unwrap().status, ExitStatus::Code(0));
}

/// K-04: of two who take a session up at once exactly one has it, and the other hears who.
#[tokio::test]
async fn of_two_who_take_a_session_up_exactly_one_has_it() {
    for round in 0..20 {
        let world = World::start().await;
        let first = world.harness().await;
        let mut run = first.exec(Command::new("cat").stdin_piped());
        started(&mut run).await;
        let session = busy(&first).await;
        let (one, other) = tokio::join!(take(&world, session.take_up()), take(&world, session.take_up()));
        let (winner, loser) = match (one, other) {
            (Ok(winner), Err(loser)) | (Err(loser), Ok(winner)) => (winner, loser),
            (Ok(_), Ok(_)) => panic!("round {round}: two owners"),
            (Err(one), Err(other)) => panic!("round {round}: none: {one}, {other}"),
        };
        assert!(matches!(loser, ConnectError::Superseded { owner: 2 }), "{loser}");
        let mut adopted = winner.adopt(session.processes[0].process).unwrap();
        bounded("a write", adopted.write_stdin(Bytes::from_static(b"mine\n")))
            .await
            .unwrap();
        assert_eq!(
            output_until(&mut adopted, "\n").await,
            "mine\n",
            "and nobody else's"
        );
        drop(run);
    }
}

/// K-05: the owner before is fenced, whatever it still sends and however often it has tried to come back.
#[tokio::test]
async fn what_an_owner_sends_after_it_was_superseded_does_nothing() {
    let world = World::start().await;
    let zombie = world.harness().await;
    let effects = world.spool.path().join("effects");
    let mut run = zombie.exec(shell(&format!("exec cat >> {}", effects.display())).stdin_piped());
    started(&mut run).await;
    // It loses links and comes back, so that its own count is far ahead of the next owner's.
    for _ in 0..5 {
        world.proxy.cut(Cut::Reset);
        bounded("a round trip", zombie.environment_info()).await.unwrap();
    }
    // What it sends from now on waits in the network; it has heard of nothing.
    world.proxy.hold(Direction::ToUpstream);
    let stdin = run.stdin();
    let late = tokio::spawn(async move { stdin.write(Bytes::from_static(b"late\n")).await });
    let other = world.harness_of_its_own().await;
    let session = busy(&other).await;
    let direct = Harness::builder()
        .identity(copy(&world.client))
        .sampled(false)
        .take_up(session.take_up());
    let taken = bounded("taking it up", direct.connect(world.direct()))
        .await
        .unwrap();
    let mut adopted = taken.adopt(session.processes[0].process).unwrap();
    // Now its frames arrive; then it dials again.
    world.proxy.heal();
    let outcome = bounded("the late write", late).await.unwrap();
    assert!(outcome.is_err(), "{outcome:?}");
    let end = bounded("the zombie's run", run.wait()).await;
    assert!(matches!(end, Err(RunError::Lost(_))), "{end:?}");
    bounded("a write", adopted.write_stdin(Bytes::from_static(b"mine\n")))
        .await
        .unwrap();
    bounded("closing", adopted.close_stdin()).await.unwrap();
    let finished = bounded("its end", adopted.wait()).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(0));
    assert_eq!(std::fs::read_to_string(&effects).unwrap(), "mine\n");
}

/// The positive control of the fence: without a takeover the very same write comes through.
#[tokio::test]
async fn what_an_owner_sends_late_is_done_when_nobody_has_superseded_it() {
    let world = World::start().await;
    let harness = world.harness().await;
    let effects = world.spool.path().join("effects");
    let mut run = harness.exec(shell(&format!("exec cat >> {}", effects.display())).stdin_piped());
    started(&mut run).await;
    world.proxy.hold(Direction::ToUpstream);
    let stdin = run.stdin();
    let late = tokio::spawn(async move { stdin.write(Bytes::from_static(b"late\n")).await });
    let other = world.harness_of_its_own().await;
    busy(&other).await;
    world.proxy.heal();
    bounded("the late write", late).await.unwrap().unwrap();
    bounded("closing", run.close_stdin()).await.unwrap();
    bounded("its end", run.wait()).await.unwrap();
    assert_eq!(std::fs::read_to_string(&effects).unwrap(), "late\n");
}

/// K-02: from its first byte, from a byte that is not kept any more, from one in between and from one that was not written
/// yet. A gap names exactly what is missing, and never ends the process.
#[tokio::test]
async fn a_process_is_taken_up_from_any_offset_and_gaps_are_exact() {
    let world = World::start().await;
    let bytes: u64 = 8 << 20;
    let script = format!("seq 0 100000000 | head -c {bytes}; read line; echo end");
    let expected: Vec<u8> = {
        let mut text = String::new();
        for number in 0.. {
            text.push_str(&format!("{number}\n"));
            if text.len() as u64 >= bytes {
                break;
            }
        }
        text.into_bytes()[..usize::try_from(bytes).unwrap()].to_vec()
    };
    let first = world.harness().await;
    let mut run = first.exec(shell(&script).stdin_piped());
    let mut seen = 0;
    while seen < bytes {
        match bounded("output", run.next()).await {
            Some(RunEvent::Stdout(data)) => seen += data.len() as u64,
            Some(RunEvent::Started { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    // All of it was consumed: only what is retained can be had again.
    let mut owner = first;
    let kept = busy(&owner).await.processes[0].kept[0];
    assert!(kept > 0 && bytes - kept <= 2 << 20, "kept from {kept}");
    for from in [0, kept, bytes - 100, bytes, bytes + 2] {
        let session = busy(&owner).await;
        let process = session.processes[0].process;
        let claim = session.take_up().from(process, [from, 0]);
        let next = take(&world, claim).await.unwrap();
        let mut adopted = next.adopt(process).unwrap();
        let (mut at, mut gap) = (from, 0);
        while at < bytes {
            match bounded("output", adopted.next()).await {
                Some(RunEvent::Stdout(data)) => {
                    let place = usize::try_from(at).unwrap();
                    assert!(data == expected[place..place + data.len()], "what stands at {at}");
                    at += data.len() as u64;
                }
                Some(RunEvent::Gap(missing)) => {
                    assert_eq!(missing.from, at, "from {from}");
                    gap += missing.bytes();
                    at = missing.to;
                }
                other => panic!("{other:?}"),
            }
        }
        let missing = busy(&next).await.processes[0].kept[0]
            .saturating_sub(from)
            .min(bytes);
        assert!(gap >= missing && gap <= kept, "{gap} of {missing} from {from}");
        if from > bytes {
            bounded("a line", adopted.write_stdin(Bytes::from_static(b"\n")))
                .await
                .ok();
            let (text, gaps, status) = all(&mut adopted).await;
            let tail = &b"end\n"[usize::try_from(from - bytes).unwrap()..];
            assert_eq!((&text[..], gaps, status), (tail, 0, Some(ExitStatus::Code(0))));
            return;
        }
        adopted.detach();
        owner = next;
    }
    drop(run);
}

/// K-15, K-11: output of a detached command, more than is retained, its end included, for whoever comes; to the last byte.
#[tokio::test]
async fn a_detached_command_is_kept_whole_until_somebody_takes_its_end() {
    let world = World::start().await;
    let starter = world.harness().await;
    let bytes = 24 << 20;
    let done = world.spool.path().join("done");
    let script = format!(
        "seq 0 100000000 | head -c {bytes}; touch {}; exit 5",
        done.display()
    );
    let started = bounded("a start", starter.start(shell(&script))).await.unwrap();
    let session = starter.session();
    // Nobody here takes it, and it is not held up by that, link or no link.
    until("the command", || done.exists()).await;
    bounded("leaving", starter.leave()).await;
    let later = world.harness().await;
    let mut info = busy(&later).await;
    // That it has exited may be known before the last of its output was read.
    bounded("its exit", async {
        while info.processes[0].state.is_running() || info.processes[0].written[0] < bytes {
            info = busy(&later).await;
        }
    })
    .await;
    let process = &info.processes[0];
    assert_eq!((info.session, process.process), (session, started.process));
    assert_eq!(process.state, ProcessState::Exited(ExitStatus::Code(5)));
    assert_eq!((process.written, process.kept), ([bytes, 0], [0, 0]));
    // An observer has the newest of it and the end, and takes nothing.
    let observed = later.observe(session, process.process);
    let reply = bounded("a read", observed.read(0, u32::MAX, Duration::ZERO))
        .await
        .unwrap();
    assert!(
        reply.truncated && reply.gaps[0].from == 0 && reply.gaps[0].to > bytes - (2 << 20),
        "{:?}",
        reply.gaps
    );
    let taken = take(&world, info.take_up()).await.unwrap();
    let mut adopted = taken.adopt(process.process).unwrap();
    let (text, gaps, status) = all(&mut adopted).await;
    assert_eq!(
        (text.len() as u64, gaps, status),
        (bytes, 0, Some(ExitStatus::Code(5)))
    );
    assert_eq!(
        bounded("its end", adopted.wait()).await.unwrap().status,
        ExitStatus::Code(5)
    );
}

/// Links of whoever has taken a session up die like any other, and it goes on; also with processes that it left to others.
#[tokio::test]
async fn a_session_that_was_taken_up_goes_on_over_its_new_owners_links() {
    let world = World::start().await;
    let starter = world.harness().await;
    let one = bounded(
        "a start",
        starter.start(shell("while read l; do echo $l; done").stdin_piped()),
    )
    .await
    .unwrap();
    let other = bounded("a start", starter.start(shell("sleep 1000")))
        .await
        .unwrap();
    bounded("leaving", starter.leave()).await;
    let looker = world.harness_of_its_own().await;
    let session = busy(&looker).await;
    let taken = take(&world, session.take_up().only(one.process)).await.unwrap();
    let mut adopted = taken.adopt(one.process).unwrap();
    for round in 0..5 {
        world
            .proxy
            .cut(if round % 2 == 0 { Cut::Reset } else { Cut::Close });
        let line = format!("round {round}\n");
        bounded("a write", adopted.write_stdin(Bytes::from(line.clone())))
            .await
            .unwrap();
        assert_eq!(output_until(&mut adopted, "\n").await, line);
    }
    let still = busy(&looker).await;
    let states: Vec<_> = still
        .processes
        .iter()
        .map(|process| (process.process, process.state))
        .collect();
    assert_eq!(
        states,
        [
            (one.process, ProcessState::Running),
            (other.process, ProcessState::Running)
        ]
    );
    let observed = looker.observe(still.session, other.process);
    let report = bounded("ending the other", observed.stop(Duration::ZERO)).await;
    assert_eq!(report.unwrap().unkillable, 0);
}

/// K-06: a hundred observers, one that lags, and a consumer who is not held up by any of them.
#[tokio::test]
async fn a_hundred_observers_read_along_and_hold_nobody_up() {
    let world = World::start().await;
    let owner = world.harness().await;
    let bytes: u64 = 16 << 20;
    let script = format!("read line; seq 0 100000000 | head -c {bytes}; echo; sleep 1000");
    let mut run = owner.exec(shell(&script).stdin_piped());
    started(&mut run).await;
    let looker = world.harness_of_its_own().await;
    let session = busy(&looker).await;
    let observed = looker.observe(session.session, session.processes[0].process);
    // Each waits for news that comes later.
    let observers: Vec<_> = (0..100)
        .map(|_| {
            let observed = observed.clone();
            tokio::spawn(async move {
                let (mut after, mut last, mut seen, mut gap) = (0, 0, 0, 0);
                while seen + gap <= bytes {
                    let reply = observed
                        .read(after, 64 * 1024, Duration::from_secs(20))
                        .await
                        .unwrap();
                    assert!(reply.next > after, "K-16: the cursor only grows");
                    gap += reply.gaps.iter().map(|gap| gap.bytes()).sum::<u64>();
                    for event in &reply.events {
                        assert!(event.number() > last);
                        last = event.number();
                        if let Event::Output(output) = event {
                            seen += output.data.len() as u64;
                        }
                    }
                    after = reply.next - 1;
                }
                (seen, gap)
            })
        })
        .collect();
    bounded("a line", run.write_stdin(Bytes::from_static(b"\n")))
        .await
        .unwrap();
    let mut taken = 0;
    while taken <= bytes {
        match bounded("output", run.next()).await {
            Some(RunEvent::Stdout(data)) => taken += data.len() as u64,
            other => panic!("{other:?}"),
        }
    }
    // One that looks for the first time now has missed what is not kept, and is told how much.
    let reply = bounded("a late read", observed.read(0, u32::MAX, Duration::ZERO))
        .await
        .unwrap();
    assert!(reply.truncated && reply.gaps[0].bytes() > bytes / 2);
    for observer in observers {
        let (seen, gap) = bounded("an observer", observer).await.unwrap();
        assert_eq!(
            seen + gap,
            bytes + 1,
            "what it saw and what it missed are the whole"
        );
    }
    // And by whom it can be ended.
    bounded("a signal", observed.signal_to(Default::default(), TERM))
        .await
        .unwrap();
    let finished = bounded("its end", run.wait()).await.unwrap();
    assert_eq!(finished.status, ExitStatus::Signal(TERM));
    let gone = bounded("a late signal", observed.signal_to(Default::default(), TERM)).await;
    assert_eq!(gone.unwrap_err().code(), Some(ErrorCode::UnknownProcess));
}

/// C-17: whoever comes with another key sees nothing, and hears the same of a session that is there and of one that is not.
#[tokio::test]
async fn another_key_neither_sees_nor_gets_a_session_and_hears_the_same_of_all() {
    let stranger = keypair();
    let audit = tempfile::tempdir().unwrap();
    let path = audit.path().join("audit.jsonl");
    let world = World::with(1 << 20, |builder| {
        builder.authorize(stranger.public()).audit(path.clone())
    })
    .await;
    let owner = world.harness().await;
    let started = bounded("a start", owner.start(Command::new("sleep").arg("1000")))
        .await
        .unwrap();
    let session = busy(&owner).await;
    let connect = |claim: Option<TakeUp>| {
        let mut builder = Harness::builder().identity(copy(&stranger)).sampled(false);
        if let Some(claim) = claim {
            builder = builder.take_up(claim);
        }
        builder.connect(world.direct())
    };
    let other = bounded("connecting", connect(None)).await.unwrap();
    let own = listed(&other).await;
    assert_eq!(
        (own.len(), own[0].session),
        (1, other.session()),
        "its own and no other"
    );
    let mut told = Vec::new();
    for number in [session.session, 4_711] {
        let observed = other.observe(number, started.process);
        let read = bounded("a read", observed.read(0, 1_000, Duration::ZERO)).await;
        let signal = bounded("a signal", observed.signal_to(Default::default(), TERM)).await;
        told.push((read.unwrap_err(), signal.unwrap_err()));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].0.code(), Some(ErrorCode::UnknownSession));
    // With the number, the owner and the very grant of the other client.
    let refused = bounded("taking it", connect(Some(session.take_up()))).await;
    assert!(matches!(refused, Err(ConnectError::NoSession)), "{refused:?}");
    until("a line in the audit file", || {
        std::fs::read_to_string(&path)
            .unwrap()
            .contains("\"session_take\",\"result\":\"refused\"")
    })
    .await;
    assert!(
        busy(&owner).await.processes[0].state.is_running(),
        "nothing was done"
    );
    // Positive control: the same claim with the right key.
    let taken = take(&world, session.take_up()).await.unwrap();
    assert!(taken.adopt(started.process).is_some());
    until("a line in the audit file", || {
        std::fs::read_to_string(&path)
            .unwrap()
            .contains("\"session_take\",\"result\":\"ok\"")
    })
    .await;
}

/// C-16: without `attach` a key neither lists, observes nor takes over, and goes on with its own links all the same.
#[tokio::test]
async fn a_key_without_attach_takes_nothing_over_and_goes_on_with_its_own() {
    let narrow = keypair();
    let scopes = ScopeSet::of(&[Scope::Spawn, Scope::Stdin]);
    let world = World::with(1 << 20, |builder| {
        builder.authorize_with(narrow.public(), Grant::scopes(scopes))
    })
    .await;
    let connect = |target| {
        let builder = Harness::builder().identity(copy(&narrow)).sampled(false);
        builder.connect(target)
    };
    let harness = bounded("connecting", connect(world.target())).await.unwrap();
    let mut run = harness.exec(Command::new("cat").stdin_piped());
    started(&mut run).await;
    let denied = bounded("a list", harness.sessions()).await.unwrap_err();
    assert_eq!(denied.code(), Some(ErrorCode::PermissionDenied));
    let read = bounded("a read", harness.observe(1, 1).read(0, 1, Duration::ZERO)).await;
    assert_eq!(read.unwrap_err().code(), Some(ErrorCode::PermissionDenied));
    let stop = bounded("a stop", harness.observe(1, 1).stop(Duration::ZERO)).await;
    assert_eq!(stop.unwrap_err().code(), Some(ErrorCode::PermissionDenied));
    // Its own link is not a takeover.
    world.proxy.cut(Cut::Reset);
    bounded("a write", run.write_stdin(Bytes::from_static(b"still\n")))
        .await
        .unwrap();
    assert_eq!(output_until(&mut run, "\n").await, "still\n");
}

/// A session that is of no use to anybody ends by itself; one with something to tell does not.
#[tokio::test]
async fn a_session_with_nothing_to_come_for_ends_by_itself() {
    let world = World::with(1 << 20, |builder| builder.idle_life(Duration::from_millis(100))).await;
    let useful = world.harness_of_its_own().await;
    bounded("a start", useful.start(shell("echo kept")))
        .await
        .unwrap();
    let number = useful.session();
    let idle = world.harness().await;
    bounded("a command", idle.exec(Command::new("true")).wait())
        .await
        .unwrap();
    assert_eq!(world.executor.sessions(), 2);
    bounded("leaving", useful.leave()).await;
    bounded("leaving", idle.leave()).await;
    until("the idle session's end", || world.executor.sessions() == 1).await;
    let later = world.harness().await;
    let left = listed(&later).await;
    assert!(left.iter().any(|session| session.session == number), "{left:?}");
}

/// K-03, K-09: what an executor's earlier life had is refused by its number, its grant and its epoch.
#[tokio::test]
async fn a_session_of_an_earlier_life_is_not_taken_up() {
    let mut world = World::start().await;
    let first = world.harness().await;
    bounded("a start", first.start(Command::new("sleep").arg("1000")))
        .await
        .unwrap();
    let claim = busy(&first).await.take_up();
    drop(first);
    world.restart().await;
    let refused = take(&world, claim).await;
    assert!(matches!(refused, Err(ConnectError::NoSession)), "{refused:?}");
}

/// Sessions of several threads are listed by any of them.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_every_thread_are_listed_with_what_they_run() {
    let world = World::with(1 << 20, |builder| builder.arbiters(3)).await;
    let mut starters = Vec::new();
    for _ in 0..12 {
        let harness = world.harness_of_its_own().await;
        bounded("a start", harness.start(Command::new("sleep").arg("1000")))
            .await
            .unwrap();
        starters.push(harness);
    }
    let looker = world.harness_of_its_own().await;
    let sessions = listed(&looker).await;
    let running: usize = sessions.iter().map(|session| session.processes.len()).sum();
    assert_eq!((sessions.len(), running), (13, 12));
    assert!(sessions.windows(2).all(|pair| pair[0].session < pair[1].session));
    assert!(
        sessions
            .iter()
            .all(|session| !session.silent && session.connected)
    );
    let moved = take(&world, sessions[3].take_up()).await.unwrap();
    assert!(moved.adopt(sessions[3].processes[0].process).is_some());
}

/// An executor whose sessions end with their links says so, and nothing is left behind there.
#[tokio::test]
async fn an_executor_says_whether_commands_can_be_left_to_it() {
    for (life, expected) in [(Duration::ZERO, false), (Duration::from_secs(60), true)] {
        let client = keypair();
        let executor = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize(client.public())
            .detached_life(life)
            .serve()
            .await
            .unwrap();
        let target =
            dwell_actors::harness::Target::direct(executor.local_addr().unwrap(), executor.public_key());
        let harness = Harness::builder().identity(copy(&client)).connect(target);
        let harness = bounded("connecting", harness).await.unwrap();
        let says = &harness.environment().capabilities;
        assert_eq!(
            says.iter().any(|word| word == dwell_actors::executor::DETACHES),
            expected
        );
    }
}

/// What two owners did one after the other is done once each, whatever was under way between them.
#[tokio::test]
async fn what_the_earlier_owner_asked_before_the_takeover_is_done_once() {
    let world = World::start().await;
    let first = world.harness().await;
    let effects = world.spool.path().join("effects");
    let asked: Vec<_> = (0..50)
        .map(|round| {
            let script = format!("echo {round} >> {}", effects.display());
            first.exec(shell(&script))
        })
        .collect();
    let other = world.harness_of_its_own().await;
    let session = listed(&other).await;
    let session = session
        .iter()
        .find(|info| info.session == first.session())
        .unwrap();
    let taken = take(&world, session.take_up()).await.unwrap();
    for run in asked {
        // Ended, or unknown: never nothing.
        bounded("a definite end", run.wait()).await.ok();
    }
    bounded(
        "a command",
        taken
            .exec(shell(&format!("echo last >> {}", effects.display())))
            .wait(),
    )
    .await
    .unwrap();
    until("quiet", || lines(&effects) >= 1).await;
    let text = std::fs::read_to_string(&effects).unwrap();
    let mut said: Vec<_> = text.lines().collect();
    said.sort_unstable();
    let total = said.len();
    said.dedup();
    assert_eq!(said.len(), total, "each once: {text}");
}
