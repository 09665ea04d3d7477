//! The listener: its paths, and whom it serves.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dwell_actors::dialect::{Auth, DialectOptions, Endpoint, Signed};
use dwell_actors::executor::{Executor, ExecutorHandle, ServeError};
use ring::hmac;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{address, bounded, executor, executor_with, options};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The whole answer to one request; of a WebSocket only its head.
async fn ask(executor: &ExecutorHandle, first: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address(executor.dialect_url().unwrap()))
        .await
        .unwrap();
    let request = format!("{first} HTTP/1.1\r\nHost: anything\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    bounded(async {
        while !answer.starts_with(b"HTTP/1.1 101") || !answer.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut answer).await.unwrap() == 0 {
                return;
            }
        }
    })
    .await;
    String::from_utf8(answer).unwrap()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn one_port_answers_who_asks_whether_it_is_ready_and_upgrades_one_path() {
    let executor = executor().await;
    let upgraded = ask(&executor, "GET /", UPGRADE).await;
    assert!(upgraded.starts_with("HTTP/1.1 101 "), "{upgraded}");
    assert!(upgraded.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(!upgraded.to_lowercase().contains("sec-websocket-extensions"));
    let offered =
        format!("{UPGRADE}Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: a\r\n");
    let offered = ask(&executor, "GET /?token=in-the-url", &offered).await;
    assert!(
        offered.starts_with("HTTP/1.1 101 ") && !offered.to_lowercase().contains("sec-websocket-protocol")
    );
    assert!(
        ask(&executor, "GET /foo", UPGRADE)
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    for method in ["GET", "HEAD"] {
        let ready = ask(&executor, &format!("{method} /readyz"), "").await;
        assert!(
            ready.starts_with("HTTP/1.1 200 ") && body(&ready).is_empty(),
            "{ready}"
        );
    }
    let posted = ask(&executor, "POST /readyz", "").await;
    assert!(posted.starts_with("HTTP/1.1 405 ") && posted.contains("allow: GET,HEAD"));
    assert!(
        ask(&executor, "GET /metrics", "")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(ask(&executor, "GET /", "").await.starts_with("HTTP/1.1 400 "));
    assert!(ask(&executor, "POST /", "").await.starts_with("HTTP/1.1 405 "));
    executor.shutdown().await;
}

#[tokio::test]
async fn nothing_is_for_a_page_in_a_browser() {
    let executor = executor().await;
    for origin in ["Origin: http://evil.test\r\n", "origin: \r\n", "Origin: null\r\n"] {
        for first in ["GET /", "GET /readyz"] {
            let answer = ask(&executor, first, &format!("{UPGRADE}{origin}")).await;
            assert!(
                answer.starts_with("HTTP/1.1 403 ") && body(&answer).is_empty(),
                "{answer}"
            );
        }
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn who_has_the_token_is_served_and_everybody_else_is_told_why_not() {
    let executor = executor_with(options().auth(Auth::token("secret"))).await;
    let with = |header: &str| format!("{UPGRADE}{header}");
    assert!(
        ask(&executor, "GET /", &with("Authorization: bearer secret\r\n"))
            .await
            .starts_with("HTTP/1.1 101 ")
    );
    for (header, why) in [
        ("", "missing websocket bearer token"),
        (
            "Authorization: Bearer other\r\n",
            "invalid websocket bearer token",
        ),
        ("Authorization: secret\r\n", "invalid authorization header"),
    ] {
        let answer = ask(&executor, "GET /?token=secret", &with(header)).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(
            answer.contains("content-type: text/plain") && body(&answer) == why,
            "{answer}"
        );
    }
    // Whether it is ready is no secret.
    assert!(
        ask(&executor, "GET /readyz", "")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn a_signed_token_is_judged_by_its_signature_and_its_claims() {
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    let signed = Signed::new(SECRET)
        .unwrap()
        .audience("me")
        .clock_skew(Duration::from_secs(5));
    let executor = executor_with(options().auth(Auth::Signed(signed))).await;
    let token = |claims: serde_json::Value, secret: &[u8]| {
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(json!({"alg": "HS256", "typ": "JWT"})), part(claims));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
        format!(
            "{UPGRADE}Authorization: Bearer {text}.{}\r\n",
            URL_SAFE_NO_PAD.encode(signature)
        )
    };
    let far = 100_000_000_000_u64;
    let good = token(json!({"exp": far, "aud": ["me"]}), SECRET);
    assert!(ask(&executor, "GET /", &good).await.starts_with("HTTP/1.1 101 "));
    for (headers, why) in [
        (
            token(json!({"exp": 1, "aud": "me"}), SECRET),
            "expired websocket jwt",
        ),
        (
            token(json!({"exp": far, "aud": "me"}), &[0; 32]),
            "invalid websocket jwt",
        ),
        (token(json!({"aud": "me"}), SECRET), "invalid websocket jwt"),
        (
            token(json!({"exp": far, "nbf": far, "aud": "me"}), SECRET),
            "websocket jwt is not valid yet",
        ),
        (
            token(json!({"exp": far}), SECRET),
            "websocket jwt audience mismatch",
        ),
    ] {
        let answer = ask(&executor, "GET /", &headers).await;
        assert!(
            answer.starts_with("HTTP/1.1 401 ") && body(&answer) == why,
            "{answer}"
        );
    }
    executor.shutdown().await;
}

/// A difference: the original listens anywhere without asking.
#[tokio::test]
async fn nobody_is_served_unasked_by_an_address_that_others_reach() {
    let everywhere = Endpoint::WebSocket("0.0.0.0:0".parse().unwrap());
    let refused = Executor::builder()
        .dialect(DialectOptions::new(everywhere))
        .serve()
        .await;
    assert!(matches!(refused, Err(ServeError::Dialect(_))));
    let guarded = DialectOptions::new(everywhere).auth(Auth::token("secret"));
    Executor::builder()
        .dialect(guarded)
        .serve()
        .await
        .unwrap()
        .shutdown()
        .await;
}
