//! What one session can make an executor hold, and for how long.

use std::time::Duration;

use dwell_actors::executor::Executor;
use dwell_actors::harness::{Harness, Target};
use dwell_actors::http_client::{EXCHANGES_MAX, HttpAsk};
use dwell_actors::keys::{Grant, Scope, ScopeSet};
use dwell_messages::ErrorCode;
use dwell_testkit::Origin;

use crate::site::Site;
use crate::support::{bounded, copy, keypair};
use crate::world::until;

/// What the system's buffers of two ends of a connection on loopback may take, and some more.
const BUFFERS_MAX_BYTES: u64 = 24 << 20;

/// Waits until the server has written nothing more for many looks in a row.
async fn stalls(origin: &Origin) {
    let (mut last, mut same) = (0, 0);
    until("the server stands still", || {
        let written = origin.written();
        same = if written == last && written > 0 {
            same + 1
        } else {
            0
        };
        last = written;
        same >= 60
    })
    .await;
}

/// A body is drawn, and never pushed: whoever draws nothing holds its server up, and the executor holds nothing of it.
#[tokio::test]
async fn a_body_that_nobody_draws_holds_its_server_up() {
    let site = Site::start().await;
    let mut exchange = site.http().request(site.get("/endless")).await.unwrap();
    stalls(&site.origin).await;
    let held = site.origin.written();
    assert!(
        held < BUFFERS_MAX_BYTES,
        "{held} bytes were taken from the server"
    );
    // The control: what is drawn, the server goes on with.
    let (mut drawn, wanted) = (0_u64, 3 * BUFFERS_MAX_BYTES);
    while drawn < wanted {
        let part = bounded("a part of a body", exchange.next()).await.unwrap();
        drawn += part.unwrap().len() as u64;
    }
    stalls(&site.origin).await;
    let ahead = site.origin.written().saturating_sub(drawn);
    assert!(
        site.origin.written() >= wanted && ahead < BUFFERS_MAX_BYTES,
        "{ahead}"
    );
    drop(exchange);
    until("the connection is closed", || site.origin.open() == 0).await;
    site.end().await;
}

#[tokio::test]
async fn a_session_has_so_many_exchanges_and_one_more_when_one_is_given_up() {
    let site = Site::start().await;
    let mut open = Vec::new();
    for _ in 0..EXCHANGES_MAX {
        open.push(site.http().request(site.get("/begun")).await.unwrap());
    }
    let refused = site.http().request(site.get("/echo")).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.limit),
        (ErrorCode::Busy, Some(EXCHANGES_MAX as u64))
    );
    assert_eq!(site.origin.accepted(), EXCHANGES_MAX, "it was not made");
    // Another session has room of its own.
    let other = site.world.harness_with(|builder| builder).await;
    drop(other.http().request(site.get("/echo")).await.unwrap());
    drop(open.pop());
    let mut one = site.http().request(site.get("/echo")).await.unwrap();
    // One that came to its end has made room before its client hears of that.
    while bounded("a part of a body", one.next()).await.unwrap().is_some() {}
    drop(site.http().request(site.get("/echo")).await.unwrap());
    other.shutdown().await;
    site.end().await;
}

#[tokio::test]
async fn the_time_is_over_for_the_head_for_the_body_and_while_nobody_draws() {
    let site = Site::start().await;
    let within = |path: &str, millis| HttpAsk {
        timeout: Some(Duration::from_millis(millis)),
        ..site.get(path)
    };
    let at_once = site.http().request(within("/echo", 0)).await.unwrap_err();
    assert_eq!(at_once.code, ErrorCode::DeadlineExceeded);
    assert_eq!(site.origin.accepted(), 0, "nothing was asked");
    let head = bounded("an end", site.http().request(within("/never", 100))).await;
    assert_eq!(head.unwrap_err().code, ErrorCode::DeadlineExceeded);
    // What a busy machine has not begun in time is given more.
    let begun = async || {
        let mut millis = 200;
        loop {
            match site.http().request(within("/begun", millis)).await {
                Err(late) if late.code == ErrorCode::DeadlineExceeded && millis < 10_000 => millis *= 2,
                answer => break answer.unwrap(),
            }
        }
    };
    let mut body = begun().await;
    assert_eq!(bounded("a part", body.next()).await.unwrap().unwrap(), "abc");
    let error = bounded("an end", body.next()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    let mut undrawn = begun().await;
    until("the connection is closed", || site.origin.open() == 0).await;
    let error = bounded("an end", undrawn.next()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    // The control: without a time it goes on.
    let mut patient = site.http().request(site.get("/pieces")).await.unwrap();
    assert_eq!(bounded("a part", patient.next()).await.unwrap().unwrap(), "abc");
    let waits = tokio::time::timeout(Duration::from_millis(600), patient.next()).await;
    assert!(waits.is_err());
    site.origin.go();
    assert_eq!(bounded("a part", patient.next()).await.unwrap().unwrap(), "def");
    site.end().await;
}

/// A command could make the same request, so it takes what a command takes.
#[tokio::test]
async fn a_client_without_the_scope_spawn_makes_no_request() {
    let origin = Origin::start().unwrap();
    for may in [false, true] {
        let client = keypair();
        let scopes: Vec<Scope> = Scope::ALL
            .into_iter()
            .filter(|scope| may || *scope != Scope::Spawn)
            .collect();
        let executor = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize_with(client.public(), Grant::scopes(ScopeSet::of(&scopes)))
            .serve()
            .await
            .unwrap();
        let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
        let harness = Harness::builder()
            .identity(copy(&client))
            .connect(target)
            .await
            .unwrap();
        let answer = harness.http().request(HttpAsk::get(origin.url("/echo"))).await;
        match answer {
            Ok(answer) => assert!(may && answer.status() == 200),
            Err(error) => assert!(!may && error.code == ErrorCode::PermissionDenied, "{error}"),
        }
        assert_eq!(origin.accepted(), usize::from(may));
        harness.shutdown().await;
        executor.shutdown().await;
    }
}
