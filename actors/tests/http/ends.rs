//! How exchanges end before they are over.

use std::time::Duration;

use dwell_messages::ErrorCode;

use crate::site::{Site, whole};
use crate::support::bounded;
use crate::world::until;

#[tokio::test]
async fn giving_a_request_up_closes_its_connection_wherever_it_is() {
    let site = Site::start().await;
    {
        let http = site.http();
        let mut waits = std::pin::pin!(http.request(site.get("/never")));
        tokio::select! {
            _ = &mut waits => panic!("it never is answered"),
            () = until("the control: it is made", || site.origin.accepted() == 1) => {}
        }
    }
    until("the one without a head is closed", || site.origin.open() == 0).await;
    let mut begun = site.http().request(site.get("/begun")).await.unwrap();
    assert_eq!(bounded("a part", begun.next()).await.unwrap().unwrap(), "abc");
    let waits = tokio::time::timeout(Duration::from_millis(200), begun.next());
    assert!(
        waits.await.is_err() && site.origin.open() == 1,
        "the control: it goes on"
    );
    drop(begun);
    until("the one with half a body is closed", || site.origin.open() == 0).await;
    let after = site.http().request(site.get("/large/3")).await.unwrap();
    assert_eq!(whole(after).await, b"xxx", "the session lives on");
    site.end().await;
}

#[tokio::test]
async fn what_came_while_nobody_waited_comes_with_the_next_call() {
    let site = Site::start().await;
    let mut pieces = site.http().request(site.get("/pieces")).await.unwrap();
    assert_eq!(bounded("a part", pieces.next()).await.unwrap().unwrap(), "abc");
    for _ in 0..3 {
        let waits = tokio::time::timeout(Duration::from_millis(20), pieces.next());
        assert!(waits.await.is_err());
    }
    site.origin.go();
    assert_eq!(whole(pieces).await, b"def");
    site.end().await;
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_exchanges() {
    let site = Site::start().await;
    let begun = site.http().request(site.get("/begun")).await.unwrap();
    let head = site.http();
    let never = site.get("/never");
    let waiting = tokio::spawn(async move { head.request(never).await });
    until("both are under way", || site.origin.open() == 2).await;
    bounded("the harness's end", site.harness.shutdown()).await;
    until("both are closed", || site.origin.open() == 0).await;
    let error = bounded("an answer", waiting).await.unwrap().unwrap_err();
    assert!(
        matches!(
            error.code,
            ErrorCode::OutcomeUnknown | ErrorCode::Stopped | ErrorCode::Cancelled
        ),
        "{error}"
    );
    drop(begun);
    bounded("the executor's end", site.world.executor.shutdown()).await;
}
