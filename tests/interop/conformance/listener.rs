//! Section 1: listening, upgrades, who is served, lines on standard input, and ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use ring::hmac;
use serde_json::{Value, json};

use super::lab::{Client, Lab};
use super::own::Own;
use super::{Case, Holds, steps};

pub(crate) const CASES: &[Case] = &[
    Case::same(
        "http.paths",
        "1",
        &[
            ("@http", "GET /readyz"),
            ("@http", "HEAD /readyz"),
            ("@http", "POST /readyz"),
            ("@http", "GET /healthz"),
            ("@http", "GET /metrics"),
            ("@http", "GET /"),
            ("@http", "POST /"),
            ("@http", "GET /foo\nUPGRADE"),
            ("@http", "GET /\nUPGRADE"),
            ("@http", "GET /?token=x\nUPGRADE"),
        ],
        r#"[{"status": "200", "body": ""}, {"status": "200", "body": ""}, {"status": "405", "allow": "GET,HEAD"}, {"status": "404"},
            {"status": "404"}, {"status": "400"}, {"status": "405"}, {"status": "404"},
            {"status": "101", "sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, {"status": "101"}]"#,
    ),
    Case::same(
        "http.nothing-with-an-origin",
        "1",
        &[
            ("@http", "GET /\nUPGRADE\nOrigin: http://h"),
            ("@http", "GET /\nUPGRADE\nOrigin:"),
            ("@http", "GET /readyz\nOrigin: null"),
        ],
        r#"[{"status": "403", "body": ""}, {"status": "403", "body": ""}, {"status": "403", "body": ""}]"#,
    ),
    Case::same(
        "http.no-extensions-no-protocols-one-version",
        "1",
        &[
            (
                "@http",
                "GET /\nUPGRADE\nSec-WebSocket-Extensions: permessage-deflate\nSec-WebSocket-Protocol: a",
            ),
            (
                "@http",
                "GET /\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 12\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ),
        ],
        r#"[{"status": "101", "sec-websocket-extensions": null, "sec-websocket-protocol": null}, {"status": "400"}]"#,
    ),
    Case::scene(
        "listen.addresses",
        "1",
        |lab| Box::pin(addresses(lab)),
        Holds::Both(
            r#"{"ws://127.0.0.1:0": "ws://127.0.0.1:*", "ws://[::1]:0": "ws://[::1]:*", "ws://localhost:0": "fails",
                "ws://127.0.0.1:0/": "fails", "ws://127.0.0.1": "fails", "http://127.0.0.1:0": "fails", "stdio://x": "fails"}"#,
        ),
    ),
    Case::scene(
        "listen.by-default",
        "1",
        |lab| Box::pin(by_default(lab)),
        Holds::Differ {
            stock: r#""ws://127.0.0.1:*""#,
            dwell: r#""another protocol""#,
        },
    ),
    Case::scene(
        "listen.everywhere-without-asking",
        "1",
        |lab| Box::pin(everywhere(lab)),
        Holds::Differ {
            stock: r#""ws://0.0.0.0:*""#,
            dwell: r#""fails""#,
        },
    ),
    Case::scene(
        "listen.concurrent-requests",
        "2.3",
        |lab| Box::pin(concurrent(lab)),
        Holds::Differ {
            stock: r#"["ws://127.0.0.1:*", "fails"]"#,
            dwell: r#"["fails", "fails"]"#,
        },
    ),
    Case::scene(
        "auth.capability-token",
        "1.1",
        |lab| Box::pin(token(lab)),
        Holds::Both(
            r#"[{"status": "401", "body": "missing websocket bearer token"}, {"status": "401", "body": "invalid websocket bearer token"},
                {"status": "401", "body": "invalid authorization header"}, {"status": "401", "body": "missing websocket bearer token"},
                {"status": "101"}, {"status": "101"}, {"status": "200"}]"#,
        ),
    ),
    Case::scene(
        "auth.signed-token",
        "1.1",
        |lab| Box::pin(signed(lab)),
        Holds::Both(
            r#"[{"status": "101"}, {"status": "401", "body": "expired websocket jwt"}, {"status": "401", "body": "websocket jwt is not valid yet"},
                {"status": "401", "body": "websocket jwt issuer mismatch"}, {"status": "401", "body": "websocket jwt audience mismatch"},
                {"status": "401", "body": "invalid websocket jwt"}, {"status": "401", "body": "invalid websocket jwt"}, {"status": "101"}]"#,
        ),
    ),
    Case::scene(
        "auth.flags-that-do-not-fit",
        "1.1",
        |lab| Box::pin(misfits(lab)),
        Holds::Both(r#"["fails", "fails", "fails", "fails"]"#),
    ),
    Case::scene(
        "stdio.lines",
        "1",
        |lab| Box::pin(lines(lab)),
        Holds::Both(
            r#"[{"sessionId": "*"}, {"status": "ready"}, "-32600 failed to parse JSON-RPC message from exec-server stdio: *",
                {"exit": 0}]"#,
        ),
    ),
    Case::scene(
        "stdio.not-utf-8-ends-it",
        "1",
        |lab| Box::pin(not_utf8(lab)),
        Holds::Both("0"),
    ),
    Case::scene(
        "end.by-sigterm",
        "1",
        |lab| Box::pin(ended(lab, "TERM")),
        Holds::Both(r#"{"exit": 0, "farewell": "no close frame", "child": "is killed"}"#),
    ),
    Case::scene(
        "end.by-sigint",
        "1",
        |lab| Box::pin(ended(lab, "INT")),
        Holds::Both(r#"{"exit": 0, "farewell": "no close frame", "child": "is killed"}"#),
    ),
    Case::scene(
        "end.by-sighup",
        "1",
        |lab| Box::pin(ended(lab, "HUP")),
        Holds::Both(r#"{"farewell": "no close frame", "child": "is killed"}"#),
    ),
    Case::scene(
        "end.by-sigkill",
        "1",
        |lab| Box::pin(ended(lab, "KILL")),
        Holds::Both(r#"{"exit": null, "farewell": "no close frame", "child": "is killed"}"#),
    ),
];

/// The URL it listens on, or that it does not.
pub(crate) fn listens(lab: &Lab, arguments: &[&str]) -> Value {
    let mut own = Own::start(lab, arguments);
    let line = own.line();
    if line.starts_with("ws://") {
        return json!(line);
    }
    json!(if line.is_empty() && own.exit().is_some_and(|code| code != 0) {
        "fails"
    } else {
        "another protocol"
    })
}

async fn addresses(lab: Lab) -> Value {
    let mut told = serde_json::Map::new();
    for address in [
        "ws://127.0.0.1:0",
        "ws://[::1]:0",
        "ws://localhost:0",
        "ws://127.0.0.1:0/",
        "ws://127.0.0.1",
        "http://127.0.0.1:0",
        "stdio://x",
    ] {
        told.insert(address.into(), listens(&lab, &["--listen", address]));
    }
    Value::Object(told)
}

async fn by_default(lab: Lab) -> Value {
    listens(&lab, &[])
}

async fn everywhere(lab: Lab) -> Value {
    listens(&lab, &["--listen", "ws://0.0.0.0:0"])
}

async fn concurrent(lab: Lab) -> Value {
    let with = |count| {
        listens(
            &lab,
            &["--listen", "ws://127.0.0.1:0", "--concurrent-requests", count],
        )
    };
    json!([with("4"), with("0")])
}

async fn token(lab: Lab) -> Value {
    let file = lab.path("token");
    std::fs::write(&file, " secret\n").unwrap();
    let mut own = Own::start(
        &lab,
        &[
            "--listen",
            "ws://127.0.0.1:0",
            "--ws-auth",
            "capability-token",
            "--ws-token-file",
            file.to_str().unwrap(),
        ],
    );
    let url = own.line();
    let mut told = Vec::new();
    for request in [
        "GET /\nUPGRADE",
        "GET /\nUPGRADE\nAuthorization: Bearer other",
        "GET /\nUPGRADE\nAuthorization: secret",
        "GET /?token=secret\nUPGRADE",
        "GET /\nUPGRADE\nAuthorization: Bearer secret",
        "GET /\nUPGRADE\nauthorization: bearer secret",
        "GET /readyz",
    ] {
        told.push(steps::http(&url, request).await);
    }
    Value::from(told)
}

async fn signed(lab: Lab) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let file = lab.path("secret");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef").unwrap();
    let mut own = Own::start(
        &lab,
        &[
            "--listen",
            "ws://127.0.0.1:0",
            "--ws-auth",
            "signed-bearer-token",
            "--ws-shared-secret-file",
            file.to_str().unwrap(),
            "--ws-issuer",
            "me",
            "--ws-audience",
            "you",
        ],
    );
    let url = own.line();
    let far = 100_000_000_000_u64;
    let now = dwell_actors::telemetry::wall_unix_ms() / 1_000;
    let mut told = Vec::new();
    for (claims, secret) in [
        (
            json!({"exp": far, "iss": "me", "aud": ["you"]}),
            "0123456789abcdef0123456789abcdef",
        ),
        (
            json!({"exp": 1, "iss": "me", "aud": "you"}),
            "0123456789abcdef0123456789abcdef",
        ),
        (
            json!({"exp": far, "nbf": far, "iss": "me", "aud": "you"}),
            "0123456789abcdef0123456789abcdef",
        ),
        (
            json!({"exp": far, "iss": "x", "aud": "you"}),
            "0123456789abcdef0123456789abcdef",
        ),
        (
            json!({"exp": far, "iss": "me", "aud": "x"}),
            "0123456789abcdef0123456789abcdef",
        ),
        (
            json!({"iss": "me", "aud": "you"}),
            "0123456789abcdef0123456789abcdef",
        ),
        (
            json!({"exp": far, "iss": "me", "aud": "you"}),
            "another-secret-of-32-bytes-and-more",
        ),
        // Within what clocks may be apart.
        (
            json!({"exp": now - 10, "iss": "me", "aud": "you"}),
            "0123456789abcdef0123456789abcdef",
        ),
    ] {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            text.as_bytes(),
        ));
        let request = format!("GET /\nUPGRADE\nAuthorization: Bearer {text}.{signature}");
        told.push(steps::http(&url, &request).await);
    }
    Value::from(told)
}

async fn misfits(lab: Lab) -> Value {
    let listen = ["--listen", "ws://127.0.0.1:0"];
    let misfits: [&[&str]; 4] = [
        &["--ws-auth", "capability-token"],
        &["--ws-auth", "nonsense"],
        &["--ws-token-sha256", "ab"],
        &["--ws-auth", "signed-bearer-token"],
    ];
    let told = misfits
        .iter()
        .map(|more| listens(&lab, &[&listen, *more].concat()));
    Value::from(told.collect::<Vec<_>>())
}

async fn lines(lab: Lab) -> Value {
    let mut own = Own::start(&lab, &["--listen", "stdio"]);
    let mut input = own.0.stdin.take().unwrap();
    let mut output = BufReader::new(own.0.stdout.take().unwrap());
    let mut answer = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        super::lab::outcome(&serde_json::from_str(&line).unwrap())
    };
    let mut told = Vec::new();
    input
        .write_all(b"\n  \r\n{\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"c\"}}\r\n")
        .unwrap();
    told.push(answer());
    input
        .write_all(b"{\"method\":\"initialized\"}\n{\"id\":2,\"method\":\"environment/status\"}\n")
        .unwrap();
    told.push(answer());
    let status = "{\"id\":3,\"method\":\"environment/status\"}";
    input
        .write_all(format!("{status} {status}\n").as_bytes())
        .unwrap();
    told.push(answer());
    // The last line needs no end; whether its answer comes before this one's is up to both.
    input.write_all(status.as_bytes()).unwrap();
    drop(input);
    told.push(json!({"exit": own.exit()}));
    Value::from(told)
}

async fn not_utf8(lab: Lab) -> Value {
    let mut own = Own::start(&lab, &["--listen", "stdio://"]);
    let mut input = own.0.stdin.take().unwrap();
    input.write_all(b"\xff\xfe\n").unwrap();
    let mut rest = Vec::new();
    own.0.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    drop(input);
    json!(own.exit())
}

async fn ended(lab: Lab, signal: &str) -> Value {
    // A test that was started by `nohup`, or in the background of a script, would pass on what it ignores.
    let heard = ["env", "--default-signal=HUP,INT,TERM"];
    let mut own = Own::start_by(&lab, &heard, &["--listen", "ws://127.0.0.1:0"]);
    let mut client = Client::connect(&own.line()).await;
    client.initialize(Value::Null).await;
    let script = lab.here(": >$DIR/up; sleep 30; :");
    client
        .call(
            "process/start",
            steps::start(&json!({"argv": ["sh", "-c", script, lab.path("file")]})),
        )
        .await;
    steps::awaits(&lab.path("up")).await;
    let pid = own.0.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-s", signal, &pid])
        .status();
    assert!(sent.unwrap().success());
    let farewell = loop {
        match client.read().await {
            Some(message) if message["method"] == "close frame" => break "a close frame",
            Some(_) => {}
            None => break "no close frame",
        }
    };
    let exit = own.exit();
    json!({"exit": exit, "farewell": farewell, "child": super::ends::lives(&lab).await})
}
