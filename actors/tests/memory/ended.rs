//! What is left of sessions that are over.

use dwell_actors::harness::{Command, Target};

use crate::executor::ExecutorProcess;
use crate::idle::connect;
use crate::{BOUND, keypair};

/// What a session may leave behind: its number and its handshake's, of which 4,096 are kept of each, and its share of what
/// tables and the trace file's buffer have grown by.
const LEFT_MAX_BYTES: u64 = 1_024;
/// Sessions that are weighed, and a few before them.
const SESSIONS: u64 = 200;
const BEFORE: u64 = 20;
/// Commands that fill an executor's flight recorder, each with eight stages of its 4,096.
const COMMANDS: u64 = 600;
/// The one that a gateway of the JSON dialect has for itself.
const GATEWAYS: u64 = 1;

/// What each of so many sessions has left, if that is little.
fn little(before: u64, after: u64) -> Result<u64, u64> {
    let each = after.saturating_sub(before) / SESSIONS;
    if each <= LEFT_MAX_BYTES {
        Ok(each)
    } else {
        Err(each)
    }
}

/// What sessions of one command leave behind, and of `more` bytes each that the executor holds besides.
async fn left(more: u64) -> Result<u64, u64> {
    let client = keypair();
    let mut executor = ExecutorProcess::start(client.public(), None);
    let target = Target::direct(executor.address.clone(), executor.key);
    let session = connect(&client, &target).await;
    for _ in 0..COMMANDS {
        session.exec(Command::new("true")).wait().await.unwrap();
    }
    session.shutdown().await;
    let mut before = 0;
    for number in 0..BEFORE + SESSIONS {
        if number == BEFORE {
            before = executor.settled(GATEWAYS).await;
        }
        let session = connect(&client, &target).await;
        session.exec(Command::new("true")).wait().await.unwrap();
        session
            .exec(Command::new("true").sampled(true))
            .wait()
            .await
            .unwrap();
        session.shutdown().await;
        executor.hold(more);
    }
    little(before, executor.settled(GATEWAYS).await)
}

fn alone(test: impl Future<Output = ()>) {
    dwell_actors::block_on(async { tokio::time::timeout(BOUND, test).await.expect("a test ends") });
}

#[test]
fn sessions_that_are_over_leave_next_to_nothing() {
    alone(async {
        let each = left(0).await;
        println!("a session that is over: {each:?} bytes");
        each.unwrap();
    });
}

/// The control of the one above.
#[test]
fn sessions_that_leave_two_kibibytes_are_noticed() {
    alone(async {
        left(2 * LEFT_MAX_BYTES).await.unwrap_err();
    });
}
