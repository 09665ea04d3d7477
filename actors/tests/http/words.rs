//! The vocabulary itself: what is asked out of its order, twice, too much of, and of what is gone.

use bytes::Bytes;
use dwell_actors::harness::Harness;
use dwell_actors::http_client::{COMMANDS_MAX, RemoteHttp};
use dwell_messages::http::{Close, ExchangeId, HttpReply, HttpRequest, Open, Read, Redirects, Send};
use dwell_messages::{ErrorCode, WireError};

use crate::site::Site;
use crate::support::{bounded, copy};
use crate::world::until;

fn open(exchange: ExchangeId, url: String, body_bytes: u64, data: &'static [u8]) -> HttpRequest {
    HttpRequest::Open(Box::new(Open {
        exchange,
        method: "POST".into(),
        url,
        headers: Vec::new(),
        redirects: Redirects::Follow,
        timeout_ms: None,
        body_bytes,
        data: Bytes::from_static(data),
    }))
}

fn send(exchange: ExchangeId, data: &'static [u8]) -> HttpRequest {
    let data = Bytes::from_static(data);
    HttpRequest::Send(Send { exchange, data })
}

fn read(exchange: ExchangeId, max_bytes: u32) -> HttpRequest {
    HttpRequest::Read(Read { exchange, max_bytes })
}

fn close(exchange: ExchangeId) -> HttpRequest {
    HttpRequest::Close(Close { exchange })
}

async fn call(http: &RemoteHttp, request: HttpRequest) -> Result<HttpReply, WireError> {
    bounded("an answer", http.call(request)).await
}

fn code(answer: Result<HttpReply, WireError>) -> ErrorCode {
    answer.expect_err("it is refused").code
}

/// Asks without waiting, and gives the answer to come.
fn asked(http: &RemoteHttp, request: HttpRequest) -> tokio::task::JoinHandle<Result<HttpReply, WireError>> {
    let http = http.clone();
    tokio::spawn(async move { http.call(request).await })
}

#[tokio::test]
async fn what_is_asked_out_of_its_order_is_refused_and_the_exchange_goes_on() {
    let site = Site::start().await;
    let http = site.http();
    let exchange = http.fresh_exchange();
    let opening = asked(&http, open(exchange, site.origin.url("/echo"), 6, b"abc"));
    // Before it has begun there is nothing of this number.
    bounded("the opening", async {
        while code(http.call(read(exchange, 1)).await) == ErrorCode::UnknownHandle {}
    })
    .await;
    assert_eq!(code(call(&http, read(exchange, 1)).await), ErrorCode::BadRequest);
    let twice = open(exchange, site.origin.url("/echo"), 0, b"");
    assert_eq!(code(call(&http, twice).await), ErrorCode::BadRequest);
    assert_eq!(site.origin.accepted(), 0, "its body is not whole");
    assert_eq!(call(&http, send(exchange, b"def")).await, Ok(HttpReply::Sent));
    let head = bounded("a head", opening).await.unwrap().unwrap();
    assert!(matches!(head, HttpReply::Head(head) if head.status == 200));
    assert_eq!(
        code(call(&http, send(exchange, b"ghi")).await),
        ErrorCode::BadRequest
    );
    let mut told = Vec::new();
    loop {
        let HttpReply::Body(part) = call(&http, read(exchange, 7)).await.unwrap() else {
            panic!("it is a part");
        };
        assert!(part.data.len() <= 7, "no more than was asked for");
        told.extend_from_slice(&part.data);
        if part.end {
            break;
        }
    }
    assert!(told.ends_with(b"\r\n\r\nabcdef"));
    assert_eq!(
        code(call(&http, read(exchange, 7)).await),
        ErrorCode::UnknownHandle
    );
    assert_eq!(
        call(&http, close(exchange)).await,
        Ok(HttpReply::Closed),
        "no error"
    );
    site.end().await;
}

#[tokio::test]
async fn more_of_a_body_than_was_said_ends_the_exchange_before_it_is_made() {
    let site = Site::start().await;
    let http = site.http();
    let exchange = http.fresh_exchange();
    let opening = asked(&http, open(exchange, site.origin.url("/echo"), 6, b"abc"));
    bounded("the opening", async {
        while code(http.call(send(exchange, b"defg")).await) == ErrorCode::UnknownHandle {}
    })
    .await;
    assert_eq!(
        code(bounded("its end", opening).await.unwrap()),
        ErrorCode::BadRequest
    );
    assert_eq!(
        code(call(&http, send(exchange, b"def")).await),
        ErrorCode::UnknownHandle
    );
    assert_eq!(site.origin.accepted(), 0);
    site.end().await;
}

#[tokio::test]
async fn so_many_parts_are_asked_for_at_a_time_and_giving_up_answers_all() {
    let site = Site::start().await;
    let http = site.http();
    let exchange = http.fresh_exchange();
    call(&http, open(exchange, site.origin.url("/begun"), 0, b""))
        .await
        .unwrap();
    let HttpReply::Body(part) = call(&http, read(exchange, 64)).await.unwrap() else {
        panic!("it is a part");
    };
    assert_eq!(part.data, "abc");
    // One is looked for, and so many wait.
    let waiting: Vec<_> = (0..=COMMANDS_MAX)
        .map(|_| asked(&http, read(exchange, 64)))
        .collect();
    let refused = bounded("a refusal", async {
        loop {
            let one_more = asked(&http, read(exchange, 64));
            let bound = std::time::Duration::from_millis(50);
            let mut one_more = std::pin::pin!(one_more);
            match tokio::time::timeout(bound, &mut one_more).await {
                Ok(answer) => return answer.unwrap().unwrap_err(),
                Err(_) => one_more.abort(),
            }
        }
    })
    .await;
    assert_eq!(
        (refused.code, refused.limit),
        (ErrorCode::Busy, Some(COMMANDS_MAX as u64))
    );
    assert_eq!(call(&http, close(exchange)).await, Ok(HttpReply::Closed));
    for waiting in waiting {
        let code = code(bounded("an answer", waiting).await.unwrap());
        assert!(matches!(code, ErrorCode::Cancelled | ErrorCode::Busy), "{code:?}");
    }
    until("the connection is closed", || site.origin.open() == 0).await;
    site.end().await;
}

#[tokio::test]
async fn the_next_owner_of_a_session_finds_no_exchange() {
    let site = Site::start().await;
    let begun = site.http().request(site.get("/begun")).await.unwrap();
    let other = site.world.harness_with(|builder| builder).await;
    let sessions = bounded("a list", other.sessions()).await.unwrap();
    let mine = sessions
        .iter()
        .find(|session| session.session == site.harness.session());
    let builder = Harness::builder()
        .identity(copy(&site.world.client))
        .sampled(false)
        .take_up(mine.unwrap().take_up());
    assert_eq!(site.origin.open(), 1, "the control");
    let taken = bounded("taking it up", builder.connect(site.world.direct()))
        .await
        .unwrap();
    until("the connection is closed", || site.origin.open() == 0).await;
    let mut answer = taken.http().request(site.get("/large/3")).await.unwrap();
    assert_eq!(bounded("a part", answer.next()).await.unwrap().unwrap(), "xxx");
    drop(begun);
    taken.shutdown().await;
    other.shutdown().await;
    site.end().await;
}
