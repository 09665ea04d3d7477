//! HTTP requests, as the dialect has them.

use std::time::Duration;

use dwell_actors::dialect::{HTTP_BODIES_MAX_BYTES, OUTBOUND_MAX_BYTES, WHOLE_BODY_MAX_BYTES};
use dwell_actors::http_client::EXCHANGES_MAX;
use dwell_messages::dialect::{CHUNK_MAX_BYTES, ID_MAX_BYTES};
use dwell_testkit::{Origin, wait_until};
use serde_json::{Value, json};

use crate::client::{BOUND, Client, base64, bytes, executor, refused};

/// The parameters of a request, with some members changed.
pub(crate) fn get(url: &str, more: &Value) -> Value {
    let mut params = json!({"method": "GET", "url": url, "headers": [], "requestId": "r"});
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    params
}

fn text(answer: &Value) -> String {
    String::from_utf8(bytes(&answer["bodyBase64"])).unwrap()
}

/// What a body's pieces are, to the last one.
async fn pieces(client: &mut Client, name: &str) -> Vec<Value> {
    let mut pieces = Vec::new();
    loop {
        let piece = client
            .find(|message| {
                message["method"] == "http/request/bodyDelta" && message["params"]["requestId"] == name
            })
            .await;
        let params = piece["params"].clone();
        assert_eq!(
            params["seq"],
            pieces.len() as u64 + 1,
            "numbers begin at 1 and have no gaps"
        );
        assert!(bytes(&params["deltaBase64"]).len() <= CHUNK_MAX_BYTES);
        let done = params["done"] == true;
        pieces.push(params);
        if done {
            return pieces;
        }
    }
}

fn body(pieces: &[Value]) -> Vec<u8> {
    pieces
        .iter()
        .flat_map(|piece| bytes(&piece["deltaBase64"]))
        .collect()
}

#[tokio::test]
async fn a_body_is_told_as_a_whole_with_small_names_repetitions_and_nothing_decoded() {
    let (executor, origin) = (executor().await, Origin::start().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    let answer = client
        .call("http/request", get(&origin.url("/headers"), &json!({})))
        .await
        .unwrap();
    assert_eq!(answer["status"], 200);
    let header = |name: &str, value: &str| json!({"name": name, "value": value});
    assert_eq!(
        answer["headers"],
        json!([
            header("x-two", "a"),
            header("x-two", "b"),
            header("set-cookie", "a=1"),
            header("set-cookie", "b=2"),
            header("content-encoding", "gzip"),
            header("content-length", "6"),
        ]),
        "values that are no text are dropped"
    );
    assert_eq!(bytes(&answer["bodyBase64"]), b"\x1f\x8bnone");
    let post = json!({
        "method": "POST", "bodyBase64": base64(b"hello"),
        "headers": [{"name": "X-Path", "value": "is ", "valueEnvVar": "PATH"}],
    });
    let echo = client
        .call("http/request", get(&origin.url("/echo"), &post))
        .await
        .unwrap();
    let told = text(&echo);
    let line = format!("\r\nx-path: is {}\r\n", std::env::var("PATH").unwrap());
    assert!(
        told.starts_with("POST /echo ") && told.contains(&line) && told.ends_with("\r\n\r\nhello"),
        "{told}"
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn a_body_is_told_in_pieces_behind_its_head_and_the_last_has_nothing_but_the_end() {
    let (executor, origin) = (executor().await, Origin::start().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    let stream = json!({"streamResponse": true});
    for (path, length) in [("/large/3000000", 3_000_000), ("/empty", 0)] {
        let answer = client
            .call("http/request", get(&origin.url(path), &stream))
            .await
            .unwrap();
        assert_eq!(answer["bodyBase64"], "");
        let pieces = pieces(&mut client, "r").await;
        let last = pieces.last().unwrap();
        assert_eq!(body(&pieces).len(), length);
        assert_eq!((&last["deltaBase64"], &last["error"]), (&json!(""), &Value::Null));
    }
    // One that is not whole says so at its end; its name is free then.
    for _ in 0..2 {
        client
            .call("http/request", get(&origin.url("/cut"), &stream))
            .await
            .unwrap();
        let pieces = pieces(&mut client, "r").await;
        let last = pieces.last().unwrap();
        assert_eq!(body(&pieces), b"abc");
        assert!(last["deltaBase64"] == "" && last["error"].is_string(), "{last}");
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn a_name_is_taken_as_long_as_its_body_comes_and_by_bodies_in_pieces_only() {
    let (executor, origin) = (executor().await, Origin::start().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    let stream = json!({"streamResponse": true, "requestId": "s"});
    client
        .call("http/request", get(&origin.url("/pieces"), &stream))
        .await
        .unwrap();
    let twice = client
        .call("http/request", get(&origin.url("/echo"), &stream))
        .await;
    let text = "http/request streamResponse requestId `s` is already active";
    assert_eq!(twice, refused(-32602, text));
    let whole = json!({"requestId": "s"});
    client
        .call("http/request", get(&origin.url("/echo"), &whole))
        .await
        .unwrap();
    origin.go();
    assert_eq!(body(&pieces(&mut client, "s").await), b"abcdef");
    client
        .call("http/request", get(&origin.url("/echo"), &stream))
        .await
        .unwrap();
    let longer = json!({"requestId": "x".repeat(ID_MAX_BYTES + 1)});
    let refusal = client
        .call("http/request", get(&origin.url("/echo"), &longer))
        .await;
    assert_eq!(refusal.unwrap_err().code, -32602);
    executor.shutdown().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_apart_from_what_went_wrong() {
    let (executor, origin) = (executor().await, Origin::start().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    let header = |name: &str, value: &str, variable: Value| json!({"headers": [{"name": name, "value": value, "valueEnvVar": variable}]});
    for (path, more, code, told) in [
        (
            "/echo",
            json!({"method": "G T"}),
            -32602,
            "http/request method is invalid: invalid HTTP method",
        ),
        (
            "/echo",
            json!({"url": "ftp://h/"}),
            -32602,
            "http/request only supports http and https URLs, got ftp",
        ),
        (
            "/echo",
            json!({"url": "x"}),
            -32602,
            "http/request url is invalid: relative URL without a base",
        ),
        (
            "/echo",
            header("A B", "x", Value::Null),
            -32602,
            "http/request header name is invalid: invalid HTTP header name",
        ),
        (
            "/echo",
            header("A", "x\ny", Value::Null),
            -32602,
            "http/request header value is invalid for A: failed to parse header value",
        ),
        (
            "/echo",
            header("A", "", json!("DWELL_TEST_NOT_THERE")),
            -32602,
            "http/request header A requires executor environment variable DWELL_TEST_NOT_THERE",
        ),
        (
            "/echo",
            json!({"redirectPolicy": "maybe"}),
            -32602,
            "unknown variant `maybe`, expected `follow` or `stop`",
        ),
        (
            "/echo",
            json!({"requestId": null}),
            -32602,
            "invalid type: null, expected a string",
        ),
        (
            "/loop",
            json!({}),
            -32603,
            "http/request failed: too many redirects",
        ),
        (
            "/echo",
            json!({"timeoutMs": 0}),
            -32603,
            "http/request failed: the HTTP request timed out",
        ),
        (
            "/never",
            json!({"timeoutMs": 50}),
            -32603,
            "http/request failed: the HTTP request timed out",
        ),
        (
            "/begun",
            json!({"timeoutMs": 3_000}),
            -32603,
            "failed to read http/request response body: the HTTP request timed out",
        ),
    ] {
        let answer = client.call("http/request", get(&origin.url(path), &more)).await;
        assert_eq!(answer, refused(code, told));
    }
    let gone = client
        .call("http/request", get("http://127.0.0.1:1/secret", &json!({})))
        .await
        .unwrap_err();
    assert!(
        gone.code == -32603 && gone.message.starts_with("http/request failed: "),
        "{gone:?}"
    );
    assert!(!gone.message.contains("secret"), "{gone:?}");
    executor.shutdown().await;
}

/// A body without an end is told piece by piece to whoever takes it, and as a whole to nobody.
#[tokio::test]
async fn a_body_that_is_too_large_to_be_told_as_a_whole_says_how_it_is_told() {
    let (executor, origin) = (executor().await, Origin::start().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    let refusal = client
        .call("http/request", get(&origin.url("/endless"), &json!({})))
        .await
        .unwrap_err();
    assert_eq!(refusal.code, -32603);
    for part in [&WHOLE_BODY_MAX_BYTES.to_string(), "streamResponse"] {
        assert!(refusal.message.contains(part), "{refusal:?}");
    }
    wait_until(BOUND, || origin.open() == 0).await.unwrap();
    // Of several, each smaller than that, what is held is bounded too.
    const { assert!(3 * (40 << 20) > HTTP_BODIES_MAX_BYTES && 40 << 20 < WHOLE_BODY_MAX_BYTES) };
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(
            client
                .ask("http/request", get(&origin.url("/held/41943040"), &json!({})))
                .await,
        );
    }
    let refusal = client.find(|message| message["error"].is_object()).await;
    let text = refusal["error"]["message"].as_str().unwrap();
    assert!(text.contains(&HTTP_BODIES_MAX_BYTES.to_string()), "{text}");
    asked.retain(|id| refusal["id"] != *id);
    origin.go();
    for id in asked {
        let answer = client.answer(&json!(id)).await.unwrap();
        assert_eq!(bytes(&answer["bodyBase64"]).len(), 40 << 20, "the control");
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_the_server_up_and_no_other_client() {
    let (executor, origin) = (executor().await, Origin::start().unwrap());
    let (mut idle, _) = Client::begin(&executor).await;
    let stream = json!({"streamResponse": true});
    idle.ask("http/request", get(&origin.url("/endless"), &stream))
        .await;
    let (mut last, mut same) = (0, 0);
    wait_until(BOUND, || {
        let written = origin.written();
        same = if written == last && written > 0 {
            same + 1
        } else {
            0
        };
        last = written;
        same >= 300
    })
    .await
    .unwrap();
    // What waits to be written, as text, and the buffers of two connections.
    let room = OUTBOUND_MAX_BYTES as u64 + (48 << 20);
    assert!(origin.written() < room, "{} of {room}", origin.written());
    let (mut other, _) = Client::begin(&executor).await;
    other
        .call("http/request", get(&origin.url("/echo"), &json!({})))
        .await
        .unwrap();
    // The control: what is taken makes room for more.
    let mut taken = 0;
    while taken < 2 * room {
        let piece = idle
            .find(|message| message["method"] == "http/request/bodyDelta")
            .await;
        taken += bytes(&piece["params"]["deltaBase64"]).len() as u64;
    }
    assert!(origin.written() >= taken);
    executor.shutdown().await;
}

#[tokio::test]
async fn the_end_of_a_connection_ends_its_bodies_and_leaves_the_session() {
    let (executor, origin) = (executor().await, Origin::start().unwrap());
    let (mut client, session) = Client::begin(&executor).await;
    let stream = json!({"streamResponse": true});
    client
        .call("http/request", get(&origin.url("/begun"), &stream))
        .await
        .unwrap();
    client
        .ask(
            "http/request",
            get(&origin.url("/never"), &json!({"requestId": "w"})),
        )
        .await;
    wait_until(BOUND, || origin.open() == 2).await.unwrap();
    drop(client);
    wait_until(BOUND, || origin.open() == 0).await.unwrap();
    let mut client = Client::connect(&executor).await;
    client.resume(&session).await;
    client
        .call("http/request", get(&origin.url("/large/3"), &stream))
        .await
        .unwrap();
    assert_eq!(body(&pieces(&mut client, "r").await), b"xxx", "its name is free");
    executor.shutdown().await;
}

#[tokio::test]
async fn a_request_that_waits_holds_nothing_up_and_there_are_so_many() {
    let (executor, origin) = (executor().await, Origin::start().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    for at in 0..EXCHANGES_MAX {
        let ask = get(&origin.url("/never"), &json!({"requestId": at.to_string()}));
        client.ask("http/request", ask).await;
    }
    wait_until(BOUND, || origin.open() == EXCHANGES_MAX)
        .await
        .unwrap();
    let bound = Duration::from_secs(5);
    let status = tokio::time::timeout(bound, client.call("environment/status", Value::Null)).await;
    assert_eq!(status.unwrap(), Ok(json!({"status": "ready"})));
    let refusal = client
        .call("http/request", get(&origin.url("/echo"), &json!({})))
        .await
        .unwrap_err();
    assert!(
        refusal.code == -32603 && refusal.message.contains("too many"),
        "{refusal:?}"
    );
    executor.shutdown().await;
}
