//! Section 10 once more: pieces of a body, what ends an exchange, and its defaults.

use serde_json::{Value, json};

use super::lab::{BOUND, Lab};
use super::{Case, Holds};

pub(crate) const CASES: &[Case] = &[
    Case::scene(
        "http.pieces-are-at-most-a-mebibyte",
        "10",
        |lab| Box::pin(pieces(lab)),
        Holds::Both(r#"{"bytes": 5000000, "are_short": true, "dense": true}"#),
    ),
    Case::scene(
        "http.an-exchange-ends-with-its-connection",
        "10",
        |lab| Box::pin(ends(lab)),
        Holds::Both(r#"{"before": 1, "after": 0}"#),
    ),
    Case::scene(
        "order.an-exchange-that-waits-holds-up-what-comes-behind-it",
        "2.3",
        |lab| Box::pin(behind_an_exchange(lab)),
        Holds::Differ {
            stock: r#"["exchange", "status"]"#,
            dwell: r#"["status", "exchange"]"#,
        },
    ),
    Case::same(
        "http.more-arguments",
        "10",
        &[
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/echo","requestId":"r","bodyBase64":"?"}"#,
            ),
            (
                "http/request",
                r#"{"method":"","url":"$ORIGIN/echo","requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"file:///etc/hostname","requestId":"r"}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/echo","requestId":"r","headers":[{"name":"a","value":"b\nc"}]}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/echo","requestId":"r","headers":[{"name":"a"}]}"#,
            ),
            (
                "http/request",
                r#"{"method":"GET","url":"$ORIGIN/echo","requestId":"r","timeoutMs":-1}"#,
            ),
            ("http/request", r#"{"url":"$ORIGIN/echo","requestId":"r"}"#),
            ("http/request", r#"{"method":"GET","requestId":"r"}"#),
        ],
        r#"["-32602 *", "-32602 http/request method is invalid: invalid HTTP method",
            "-32602 http/request only supports http and https URLs, got file", "-32602 http/request header value is invalid for a: *",
            "-32602 missing field `value`", "-32602 *", "-32602 missing field `method`", "-32602 missing field `url`"]"#,
    ),
    Case::same(
        "http.defaults",
        "10",
        &[
            (
                "@body",
                r#"{"method":"GET","url":"$ORIGIN/redirect/1","requestId":"r"}"#,
            ),
            (
                "@body",
                r#"{"method":"GET","url":"$ORIGIN/large/3","requestId":"","bodyBase64":null,"timeoutMs":null,"streamResponse":false}"#,
            ),
            // By the name of one that is over.
            (
                "@body",
                r#"{"method":"OPTIONS","url":"$ORIGIN/echo","requestId":"r","timeoutMs":60000}"#,
            ),
        ],
        r#"[{"status": 200, "body": "end"}, {"status": 200, "body": "xxx"}, {"status": 200, "body": "OPTIONS /echo HTTP/1.1*"}]"#,
    ),
];

fn request(lab: &Lab, path: &str) -> Value {
    json!({"method": "GET", "url": lab.origin().url(path), "requestId": "s", "streamResponse": true})
}

async fn pieces(lab: Lab) -> Value {
    use base64::Engine as _;
    let mut client = lab.begin().await;
    client.call("http/request", request(&lab, "/large/5000000")).await;
    let (mut bytes, mut longest, mut count, mut is_dense) = (0, 0, 0_u64, true);
    loop {
        let piece = client
            .find(|message| message["method"] == "http/request/bodyDelta")
            .await
            .unwrap();
        let params = &piece["params"];
        let data = base64::engine::general_purpose::STANDARD
            .decode(params["deltaBase64"].as_str().unwrap())
            .unwrap();
        count += 1;
        is_dense &= params["seq"] == json!(count);
        bytes += data.len();
        longest = longest.max(data.len());
        if params["done"] == json!(true) {
            break;
        }
    }
    json!({"bytes": bytes, "are_short": longest <= 1024 * 1024, "dense": is_dense})
}

/// In which order they are answered: the exchange never is by its server, and its time is over after a while.
async fn behind_an_exchange(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let never =
        json!({"method": "GET", "url": lab.origin().url("/never"), "requestId": "s", "timeoutMs": 5_000});
    let exchange = client.ask("http/request", never).await;
    client.ask("environment/status", Value::Null).await;
    let mut order = Vec::new();
    for _ in 0..2 {
        let answer = client.read().await.unwrap();
        order.push(if answer["id"] == json!(exchange) {
            "exchange"
        } else {
            "status"
        });
    }
    json!(order)
}

async fn ends(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    client.call("http/request", request(&lab, "/endless")).await;
    client
        .find(|message| message["method"] == "http/request/bodyDelta")
        .await
        .unwrap();
    let before = lab.origin().open();
    drop(client);
    drop(tokio::time::timeout(BOUND, lab.origin().closed()).await);
    json!({"before": before, "after": lab.origin().open()})
}
