//! Who answers, who does not, and who may ask.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use dwell_actors::inspect::view::VERSION;
use dwell_actors::inspect::{ANSWER_TIMEOUT, InspectError, ask, candidates};
use dwell_messages::Role;

use crate::support::{World, look};

#[tokio::test]
async fn every_role_answers_at_a_socket_that_only_its_owner_may_reach() {
    let world = World::start().await;
    let harness = world.harness(world.direct(), |builder| builder).await;
    let sockets = [
        world.relay.inspect_socket().unwrap().to_owned(),
        world.executor.inspect_socket().unwrap().to_owned(),
        harness.inspect_socket().unwrap().to_owned(),
    ];
    for socket in &sockets {
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    }
    for role in [Role::Relay, Role::Executor, Role::Harness] {
        let snapshot = world.look(role);
        assert_eq!(
            (snapshot.version, snapshot.pid, snapshot.role),
            (VERSION, std::process::id(), role)
        );
    }
    drop(harness);
    crate::support::until("its socket goes with it", || !sockets[2].exists()).await;
}

#[tokio::test]
async fn a_process_that_hangs_is_reported_and_does_not_keep_the_others_from_answering() {
    let world = World::start().await;
    // Listens and never accepts, as a process does that was stopped.
    let hung = world.dir.path().join("harness-4711-1.sock");
    let _listener = UnixListener::bind(&hung).unwrap();
    let begun = Instant::now();
    let answers = ask(candidates(world.dir.path()).unwrap());
    assert!(begun.elapsed() < ANSWER_TIMEOUT * 4, "{:?}", begun.elapsed());
    let (well, ill): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answered| answered.answer.is_ok());
    assert_eq!((well.len(), ill.len()), (2, 1));
    assert!(
        matches!(ill[0].answer, Err(InspectError::Hangs { pid: 4711, .. })),
        "{:?}",
        ill[0].answer
    );
}

#[test]
fn the_socket_of_a_process_that_has_ended_is_removed_and_other_files_are_left() {
    let dir = crate::support::private_dir();
    let stale = dir.path().join("executor-4711-1.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let (other, file) = (
        dir.path().join("other.sock"),
        dir.path().join("executor-1-1.sock"),
    );
    drop(UnixListener::bind(&other).unwrap());
    std::fs::write(&file, b"no socket").unwrap();
    let found = candidates(dir.path()).unwrap();
    assert_eq!(found.len(), 1);
    let answers = ask(found);
    assert!(
        matches!(answers[0].answer, Err(InspectError::Gone { .. })),
        "{:?}",
        answers[0].answer
    );
    assert!(!stale.exists() && other.exists() && file.exists());
}

#[tokio::test]
async fn questions_that_are_none_take_nobodys_time_and_nothing_away() {
    let world = World::start().await;
    let socket = world.executor.inspect_socket().unwrap();
    let say = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        drop(stream.write_all(bytes));
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer));
        answer
    };
    assert!(say(b"{\"version\":9}\n").contains("unknown question"));
    assert_eq!(say(&[b'x'; 4_096]), "", "too long: closed without a word");
    // One that says nothing holds the place for two seconds, and no longer.
    let _silent = UnixStream::connect(socket).unwrap();
    assert!(look(world.dir.path(), Role::Relay).pid > 0);
    crate::support::until("it answers again", || {
        let all = candidates(world.dir.path()).unwrap();
        ask(all).iter().all(|answered| answered.answer.is_ok())
    })
    .await;
}
