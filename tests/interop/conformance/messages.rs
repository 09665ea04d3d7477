//! Section 2: what a message is, and what becomes of one that is none.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::lab::{BOUND, Client, Lab};
use super::{Case, Holds, steps};

const STATUS: &str = r#"{"id":"s","method":"environment/status"}"#;

pub(crate) const CASES: &[Case] = &[
    Case::same(
        "message.text-binary-and-fragments",
        "1",
        &[("@text", STATUS), ("@binary", STATUS), ("@pieces", STATUS)],
        r#"[["s", {"status": "ready"}], ["s", {"status": "ready"}], ["s", {"status": "ready"}]]"#,
    ),
    Case::same(
        "message.unknown-members-are-passed-over",
        "2",
        &[
            (
                "@text",
                r#"{"jsonrpc":"2.0","id":"s","method":"environment/status","more":[1]}"#,
            ),
            (
                "@text",
                r#"{"id":"s","method":"process/terminate","params":{"processId":"x","more":1}}"#,
            ),
            ("@text", r#"{"id":"s","method":"environment/status","result":{}}"#),
        ],
        r#"[["s", {"status": "ready"}], ["s", {"running": false}], ["s", {"status": "ready"}]]"#,
    ),
    Case::same(
        "message.ids",
        "2",
        &[
            (
                "@text",
                r#"{"id":-9223372036854775808,"method":"environment/status"}"#,
            ),
            ("@text", r#"{"id":"","method":"environment/status"}"#),
            ("@text", r#"{"id":null,"method":"environment/status"}"#),
            ("@text", r#"{"id":1.5,"method":"environment/status"}"#),
            (
                "@text",
                r#"{"id":9223372036854775808,"method":"environment/status"}"#,
            ),
            ("@text", r#"{"id":true,"method":"environment/status"}"#),
            ("@open", ""),
        ],
        r#"[[-9223372036854775808, {"status": "ready"}], ["", {"status": "ready"}],
            [-1, "-32600 failed to parse websocket JSON-RPC message from exec-server websocket 127.0.0.1:*: *"],
            [-1, "-32600 *"], [-1, "-32600 *"], [-1, "-32600 *"], true]"#,
    ),
    Case::same(
        "message.positional-parameters",
        "2",
        &[
            (
                "@text",
                r#"{"id":"s","method":"process/terminate","params":["x"]}"#,
            ),
            (
                "@text",
                r#"{"id":"s","method":"process/terminate","params":["x","y"]}"#,
            ),
            ("@text", r#"{"id":"s","method":"process/read","params":["x"]}"#),
            (
                "@text",
                r#"{"id":"s","method":"process/read","params":["x",null,null,null]}"#,
            ),
            (
                "@text",
                r#"{"id":"s","method":"environment/status","params":null}"#,
            ),
            ("@text", r#"{"id":"s","method":"environment/status","params":{}}"#),
        ],
        r#"[["s", {"running": false}], ["s", "-32602 *"], ["s", "-32602 *"], ["s", "-32600 unknown process id x"],
            ["s", {"status": "ready"}], ["s", {"status": "ready"}]]"#,
    ),
    Case::same(
        "message.trace",
        "2",
        &[
            (
                "@text",
                r#"{"id":"s","method":"environment/status","trace":{"traceparent":"nonsense","tracestate":null}}"#,
            ),
            (
                "@text",
                r#"{"id":"s","method":"environment/status","trace":null}"#,
            ),
            ("@text", r#"{"id":"s","method":"environment/status","trace":[]}"#),
            ("@text", r#"{"id":"s","method":"environment/status","trace":{}}"#),
            (
                "@text",
                r#"{"id":"s","method":"environment/status","trace":"text"}"#,
            ),
            ("@text", r#"{"id":"s","method":"environment/status","trace":7}"#),
            ("@say", r#"{"method":"initialized","trace":"text"}"#),
            ("@open", ""),
        ],
        r#"[["s", {"status": "ready"}], ["s", {"status": "ready"}], ["s", {"status": "ready"}], ["s", {"status": "ready"}],
            [-1, "-32600 *"], [-1, "-32600 *"], true]"#,
    ),
    Case::same(
        "message.malformed-is-complained-of-and-the-connection-stays",
        "2",
        &[
            ("@text", "nonsense"),
            ("@text", "[]"),
            ("@text", r#"[{"id":1,"method":"environment/status"}]"#),
            ("@text", "7"),
            ("@text", ""),
            ("@text", r#"{"id":1}"#),
            ("@text", "{}"),
            ("@text", r#"{"id":1,"method":7}"#),
            ("@text", r#"{"id":1,"id":2,"method":"m"}"#),
            ("@text", r#"{"id":1,"method":"m","params":{"a":1,"a":1}}"#),
            (
                "@text",
                r#"{"id":"s","method":"environment/status"} {"id":"t","method":"environment/status"}"#,
            ),
            ("@open", ""),
        ],
        r#"[[-1, "-32600 failed to parse websocket JSON-RPC message from exec-server websocket 127.0.0.1:*: *"],
            [-1, "-32600 *expected a JSON-RPC object*"], [-1, "-32600 *expected a JSON-RPC object*"], [-1, "-32600 *"],
            [-1, "-32600 *"], [-1, "-32600 *"], [-1, "-32600 *"], [-1, "-32600 *"], [-1, "-32600 *duplicate*"],
            [-1, "-32600 *duplicate*"], [-1, "-32600 *"], true]"#,
    ),
    Case::scene(
        "message.too-deep-or-too-many-values",
        "2",
        |lab| Box::pin(too_much(lab)),
        Holds::Both(
            r#"["-32601 *", "-32600 *recursion limit exceeded*", "-32601 *",
                "-32600 *JSON-RPC message exceeds the limit of 262144 JSON values*", true]"#,
        ),
    ),
    Case::same(
        "message.unknown-notification-closes",
        "2",
        &[("@say", r#"{"method":"nonsense"}"#), ("@open", "")],
        "[false]",
    ),
    Case::same(
        "message.notification-of-a-request-closes",
        "2",
        &[("@say", r#"{"method":"environment/status"}"#), ("@open", "")],
        "[false]",
    ),
    Case::same(
        "message.unasked-response-closes",
        "2",
        &[("@say", r#"{"id":1,"result":{}}"#), ("@open", "")],
        "[false]",
    ),
    Case::same(
        "message.unasked-error-closes",
        "2",
        &[
            ("@say", r#"{"id":-1,"error":{"code":1,"message":"m"}}"#),
            ("@open", ""),
        ],
        "[false]",
    ),
    Case::scene(
        "message.closes-without-a-close-frame",
        "2",
        |lab| Box::pin(no_farewell(lab)),
        Holds::Both(r#""no close frame""#),
    ),
    Case::scene(
        "message.id-in-flight-twice-is-answered-twice",
        "2",
        |lab| Box::pin(twice(lab)),
        Holds::Both(r#"[[7, {"status": "ready"}], [7, {"status": "ready"}]]"#),
    ),
    Case::scene(
        "size.frame-of-16-mebibytes",
        "1.2",
        |lab| Box::pin(sizes(lab, false)),
        Holds::Both(r#"[{"status": "ready"}, "closed"]"#),
    ),
    Case::scene(
        "size.message-of-64-mebibytes",
        "1.2",
        |lab| Box::pin(sizes(lab, true)),
        Holds::Both(r#"[{"status": "ready"}, "closed"]"#),
    ),
    Case::scene(
        "ping.every-30-seconds-and-no-answer-is-no-offence",
        "1.2",
        |lab| Box::pin(pings(lab)),
        Holds::Both(r#"[true, true]"#),
    ),
    Case::scene(
        "order.a-read-that-waits-holds-up-what-comes-behind-it",
        "2.3",
        |lab| Box::pin(behind_a_wait(lab)),
        Holds::Differ {
            stock: r#"["read", "status", "terminate"]"#,
            dwell: r#"["status", "terminate", "read"]"#,
        },
    ),
    Case::scene(
        "order.notifications-flow-while-a-read-waits",
        "2.3",
        |lab| Box::pin(flows(lab)),
        Holds::Both(r#""process/output""#),
    ),
    Case::scene(
        "order.writes-at-once-keep-their-order",
        "2.3",
        |lab| Box::pin(ordered(lab)),
        Holds::Both("true"),
    ),
    Case::scene(
        "order.a-client-that-does-not-read-stops-its-command-and-no-other",
        "2.3",
        |lab| Box::pin(unread(lab)),
        Holds::Both(r#"{"stops": true, "other": true, "ends_when_it_is_gone": true}"#),
    ),
];

async fn complaint(client: &mut Client, text: String) -> Value {
    client.frame(Message::text(text)).await;
    let answer = client.find(|message| message.get("error").is_some()).await;
    answer.map_or(json!("closed"), |answer| super::lab::outcome(&answer))
}

async fn too_much(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let nested = |levels| {
        format!(
            r#"{{"id":1,"method":"m","params":{}1{}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    let many = |values: usize| {
        format!(
            r#"{{"id":1,"method":"m","params":[{}]}}"#,
            vec!["0"; values].join(",")
        )
    };
    let mut told = Vec::new();
    // Beside the elements: the message, its id, its method and the array.
    for text in [nested(126), nested(127), many(262_144 - 4), many(262_144 - 3)] {
        told.push(complaint(&mut client, text).await);
    }
    told.push(json!(steps::is_open(&mut client).await));
    Value::from(told)
}

async fn no_farewell(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    client.say(r#"{"method":"nonsense"}"#).await;
    match client.read().await {
        Some(message) => message,
        None => json!("no close frame"),
    }
}

async fn twice(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let mut told = Vec::new();
    for _ in 0..2 {
        client.say(r#"{"id":7,"method":"environment/status"}"#).await;
    }
    for _ in 0..2 {
        let answer = client.read().await.unwrap();
        told.push(json!([answer["id"], super::lab::outcome(&answer)]));
    }
    Value::from(told)
}

async fn sizes(lab: Lab, in_pieces: bool) -> Value {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    const FRAME: usize = 16 * 1024 * 1024;
    let limit = if in_pieces { 4 * FRAME } else { FRAME };
    let mut told = Vec::new();
    for bytes in [limit, limit + 1] {
        let mut client = lab.begin().await;
        let around = r#"{"id":"s","method":"environment/status","more":""}"#.len();
        let text = format!(
            r#"{{"id":"s","method":"environment/status","more":"{}"}}"#,
            "x".repeat(bytes - around)
        );
        if in_pieces {
            let (mut rest, mut kind) = (text.as_bytes(), Data::Text);
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(FRAME / 2));
                client
                    .frame(Message::Frame(Frame::message(
                        piece.to_vec(),
                        OpCode::Data(kind),
                        later.is_empty(),
                    )))
                    .await;
                (rest, kind) = (later, Data::Continue);
            }
        } else {
            client.frame(Message::text(text)).await;
        }
        told.push(client.answer(json!("s")).await);
    }
    Value::from(told)
}

async fn pings(lab: Lab) -> Value {
    let begun = tokio::time::Instant::now();
    let mut client = lab.begin().await;
    let next = client.next_within(Duration::from_secs(33) + BOUND).await;
    let is_ping = matches!(next, Some(Message::Ping(payload)) if payload.is_empty())
        && begun.elapsed() > Duration::from_secs(27);
    // What is not read is not answered.
    tokio::time::sleep(Duration::from_secs(40)).await;
    json!([is_ping, steps::is_open(&mut client).await])
}

async fn behind_a_wait(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let start = steps::start(&json!({"argv": ["sleep", "1000"]}));
    client.call("process/start", start).await;
    let names = ["read", "status", "terminate"];
    // Of a process that says nothing: five seconds. Another one is terminated.
    client
        .call(
            "process/start",
            steps::start(&json!({"processId": "q", "argv": ["sleep", "1000"]})),
        )
        .await;
    let mut ids = vec![
        client
            .ask("process/read", json!({"processId": "p", "waitMs": 5_000}))
            .await,
    ];
    ids.push(client.ask("environment/status", Value::Null).await);
    ids.push(client.ask("process/terminate", json!({"processId": "q"})).await);
    let mut order = Vec::new();
    while order.len() < names.len() {
        let answer = client
            .find(|message| message.get("method").is_none())
            .await
            .unwrap();
        let at = ids.iter().position(|id| answer["id"] == json!(id)).unwrap();
        order.push(names[at]);
    }
    json!(order)
}

async fn flows(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let script = lab.here("while [ ! -e $DIR/go ]; do sleep 0.01; done; echo a; sleep 1000");
    for (name, script) in [("p", "sleep 1000"), ("q", &script)] {
        let start = json!({"processId": name, "argv": ["sh", "-c", script]});
        client.call("process/start", steps::start(&start)).await;
    }
    client
        .ask("process/read", json!({"processId": "p", "waitMs": 5_000}))
        .await;
    std::fs::write(lab.path("go"), "").unwrap();
    client.read().await.unwrap()["method"].clone()
}

/// With the stock server only because it serves one request at a time, which is its default.
async fn ordered(lab: Lab) -> Value {
    use base64::Engine as _;
    let mut client = lab.begin().await;
    client
        .call(
            "process/start",
            steps::start(&json!({"argv": ["head", "-n", "200"], "pipeStdin": true})),
        )
        .await;
    let mut expected = String::new();
    for number in 0..200 {
        let line = format!("{number}\n");
        let chunk = base64::engine::general_purpose::STANDARD.encode(&line);
        client
            .ask(
                "process/write",
                json!({"processId": "p", "chunk": chunk, "writeId": line}),
            )
            .await;
        expected += &line;
    }
    json!(steps::events(&mut client, "p").await["stdout"] == json!(expected))
}

async fn unread(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let done = lab.path("done");
    let flood = format!("head -c 100000000 /dev/zero; : >{}", done.display());
    client
        .call(
            "process/start",
            steps::start(&json!({"argv": ["sh", "-c", flood]})),
        )
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stops = !done.exists();
    let mut other = lab.begin().await;
    let is_open = steps::is_open(&mut other).await;
    drop(client);
    steps::awaits(&done).await;
    json!({"stops": stops, "other": is_open, "ends_when_it_is_gone": true})
}
