//! Sections 1 and 1.1 once more: what is no address, who may come in, and standard input and output.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use ring::hmac;
use serde_json::{Value, json};

use super::lab::{Client, Lab};
use super::listener::listens;
use super::own::{LISTEN, Own};
use super::{Case, Holds, steps};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(crate) const CASES: &[Case] = &[
    Case::scene(
        "listen.what-is-no-address",
        "1",
        |lab| Box::pin(no_addresses(lab)),
        Holds::Both(r#"["fails", "fails", "fails", "fails", "fails", "fails", "ws://127.0.0.1:*"]"#),
    ),
    Case::scene(
        "listen.addresses-of-another-protocol",
        "1",
        |lab| Box::pin(other_addresses(lab)),
        Holds::Differ {
            stock: r#"["fails", "fails"]"#,
            dwell: r#"["another protocol", "another protocol"]"#,
        },
    ),
    Case::scene(
        "listen.one-line-on-standard-output",
        "1",
        |lab| Box::pin(one_line(lab)),
        Holds::Both(r#""ws://127.0.0.1:*\n""#),
    ),
    Case::same(
        "http.answers-are-plain-text",
        "1",
        &[
            ("@http", "GET /health"),
            ("@http", "GET /livez"),
            ("@http", "GET /"),
            ("@http", "POST /"),
        ],
        r#"[{"status": "404", "body": ""}, {"status": "404", "body": ""}, {"status": "400", "content-type": "text/plain*", "body": "*e*"},
            {"status": "405", "content-type": "text/plain*", "body": "*e*"}]"#,
    ),
    Case::scene(
        "auth.token-by-its-hash-or-a-relative-path",
        "1.1",
        |lab| Box::pin(tokens(lab)),
        Holds::Both(
            r#"[[{"status": "101"}, {"status": "401", "content-type": "text/plain*", "body": "invalid websocket bearer token"}, {"status": "404"}, {"status": "403"}],
                [{"status": "101"}, {"status": "401"}, {"status": "404"}, {"status": "403"}]]"#,
        ),
    ),
    Case::scene(
        "auth.none-by-default",
        "1.1",
        |lab| Box::pin(open(lab)),
        Holds::Both(r#"[{"status": "101"}, {"status": "101"}]"#),
    ),
    Case::scene(
        "auth.clocks-algorithms-and-claims",
        "1.1",
        |lab| Box::pin(claims(lab)),
        Holds::Both(
            r#"{"expired 20 s ago": "101", "expired 40 s ago": "401 expired websocket jwt", "valid in 20 s": "101",
                "valid in 100 s": "401 websocket jwt is not valid yet", "with a type": "101", "unsigned": "401 invalid websocket jwt",
                "another algorithm": "401 invalid websocket jwt", "an end that is a text": "401 invalid websocket jwt",
                "no token": "401 invalid websocket jwt", "for anybody": "101"}"#,
        ),
    ),
    Case::scene(
        "auth.how-far-clocks-may-be-apart",
        "1.1",
        |lab| Box::pin(skew(lab)),
        Holds::Both(r#"["101", "401 expired websocket jwt"]"#),
    ),
    Case::scene(
        "auth.what-does-not-go-together",
        "1.1",
        |lab| Box::pin(misfits(lab)),
        Holds::Both(r#"["fails", "fails", "fails", "fails", "fails", "fails", "fails"]"#),
    ),
    Case::scene(
        "stdio.the-last-line-needs-no-end-and-the-end-kills",
        "1",
        |lab| Box::pin(last_line(lab)),
        Holds::Differ {
            stock: r#"{"exit": 0, "served": "*", "child": "is killed", "said": "messages only"}"#,
            dwell: r#"{"exit": 0, "served": true, "child": "is killed", "said": "messages only"}"#,
        },
    ),
];

async fn no_addresses(lab: Lab) -> Value {
    let told = [
        "wss://127.0.0.1:0",
        "unix:///tmp/x",
        "ws://127.0.0.1:65536",
        "ws://[::1]",
        "ws://:0",
        "",
        // The control.
        "ws://127.0.0.1:0",
    ]
    .map(|address| listens(&lab, &["--listen", address]));
    json!(told)
}

async fn other_addresses(lab: Lab) -> Value {
    json!(["tcp://127.0.0.1:0", "127.0.0.1:0"].map(|address| listens(&lab, &["--listen", address])))
}

async fn one_line(lab: Lab) -> Value {
    let mut own = Own::start_with(&lab, &LISTEN, |command| {
        command.env("RUST_LOG", "info");
    });
    let mut output = BufReader::new(own.0.stdout.take().unwrap());
    let mut told = String::new();
    output.read_line(&mut told).unwrap();
    let mut client = Client::connect(told.trim_end()).await;
    client.initialize(Value::Null).await;
    let start = steps::start(&json!({"argv": ["echo", "a"]}));
    client.call("process/start", start).await;
    steps::events(&mut client, "p").await;
    let pid = own.0.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-s", "TERM", &pid])
        .status();
    assert!(sent.unwrap().success());
    output.read_to_string(&mut told).unwrap();
    json!(told)
}

async fn tokens(lab: Lab) -> Value {
    std::fs::write(lab.path("token"), "\n secret \n").unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, b"secret");
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut told = Vec::new();
    for more in [["--ws-token-sha256", &hash], ["--ws-token-file", "token"]] {
        let arguments = [&LISTEN[..], &["--ws-auth", "capability-token"], &more].concat();
        let mut own = Own::start_with(&lab, &arguments, |command| {
            command.current_dir(lab.dir.path());
        });
        let url = own.line();
        let mut answers = Vec::new();
        for request in [
            "GET /\nUPGRADE\nAuthorization: BEARER secret",
            "GET /\nUPGRADE\nAuthorization: Bearer Secret",
            "GET /secret\nUPGRADE",
            "GET /\nUPGRADE\nAuthorization: Bearer secret\nOrigin: http://h",
        ] {
            answers.push(steps::http(&url, request).await);
        }
        told.push(answers);
    }
    json!(told)
}

async fn open(lab: Lab) -> Value {
    json!([
        steps::http(&lab.server.url, "GET /\nUPGRADE").await,
        steps::http(&lab.server.url, "GET /\nUPGRADE\nAuthorization: Bearer any").await,
    ])
}

fn part(value: &Value) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
}

fn token(head: &Value, claims: &Value, algorithm: hmac::Algorithm) -> String {
    use base64::Engine as _;
    let text = format!("{}.{}", part(head), part(claims));
    let key = hmac::Key::new(algorithm, SECRET.as_bytes());
    let signature = hmac::sign(&key, text.as_bytes());
    format!(
        "{text}.{}",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature)
    )
}

fn asks_for_a_signature(lab: &Lab, more: &[&str]) -> Own {
    let file = lab.path("secret");
    std::fs::write(&file, SECRET).unwrap();
    let auth = [
        "--ws-auth",
        "signed-bearer-token",
        "--ws-shared-secret-file",
        file.to_str().unwrap(),
    ];
    Own::start(lab, &[&LISTEN[..], &auth, more].concat())
}

/// The status, and why it is not another one.
async fn admitted(url: &str, token: &str) -> Value {
    let request = format!("GET /\nUPGRADE\nAuthorization: Bearer {token}");
    let told = steps::http(url, &request).await;
    let text = format!(
        "{} {}",
        told["status"].as_str().unwrap(),
        told["body"].as_str().unwrap()
    );
    json!(text.trim_end())
}

async fn claims(lab: Lab) -> Value {
    let mut own = asks_for_a_signature(&lab, &[]);
    let url = own.line();
    let now = dwell_actors::telemetry::wall_unix_ms() / 1_000;
    let (far, head) = (now + 1_000, json!({"alg": "HS256"}));
    let signed = |claims: Value| token(&head, &claims, hmac::HMAC_SHA256);
    let with = |head: Value, algorithm| token(&head, &json!({"exp": far}), algorithm);
    let unsigned = format!(
        "{}.{}.",
        part(&json!({"alg": "none"})),
        part(&json!({"exp": far}))
    );
    let mut told = serde_json::Map::new();
    for (name, token) in [
        ("expired 20 s ago", signed(json!({"exp": now - 20}))),
        ("expired 40 s ago", signed(json!({"exp": now - 40}))),
        ("valid in 20 s", signed(json!({"exp": far, "nbf": now + 20}))),
        ("valid in 100 s", signed(json!({"exp": far, "nbf": now + 100}))),
        (
            "with a type",
            with(json!({"alg": "HS256", "typ": "JWT"}), hmac::HMAC_SHA256),
        ),
        ("unsigned", unsigned),
        (
            "another algorithm",
            with(json!({"alg": "HS512"}), hmac::HMAC_SHA512),
        ),
        ("an end that is a text", signed(json!({"exp": far.to_string()}))),
        ("no token", "a.b".to_owned()),
        (
            "for anybody",
            signed(json!({"exp": far, "iss": "x", "aud": ["x", "y"]})),
        ),
    ] {
        told.insert(name.into(), admitted(&url, &token).await);
    }
    Value::Object(told)
}

async fn skew(lab: Lab) -> Value {
    let head = json!({"alg": "HS256"});
    let mut told = Vec::new();
    for (seconds, ago) in [("100", 60), ("0", 5)] {
        let mut own = asks_for_a_signature(&lab, &["--ws-max-clock-skew-seconds", seconds]);
        let url = own.line();
        let now = dwell_actors::telemetry::wall_unix_ms() / 1_000;
        let token = token(&head, &json!({"exp": now - ago}), hmac::HMAC_SHA256);
        told.push(admitted(&url, &token).await);
    }
    json!(told)
}

async fn misfits(lab: Lab) -> Value {
    let (file, hash) = (lab.path("token"), "a".repeat(64));
    // A secret has 32 bytes at least, and this one has 31.
    std::fs::write(&file, &SECRET[..31]).unwrap();
    let (file, nowhere) = (file.to_str().unwrap(), lab.path("nowhere"));
    let nowhere = nowhere.to_str().unwrap();
    let token = ["--ws-auth", "capability-token"];
    let signed = ["--ws-auth", "signed-bearer-token", "--ws-shared-secret-file"];
    let misfits: [Vec<&str>; 7] = [
        [&token[..], &["--ws-token-file", file, "--ws-token-sha256", &hash]].concat(),
        [&token[..], &["--ws-token-file", nowhere]].concat(),
        [&token[..], &["--ws-token-sha256", &hash[1..]]].concat(),
        [&signed[..], &[file]].concat(),
        vec!["--ws-token-file", file],
        vec!["--ws-issuer", "me"],
        vec!["--exit-on-stdin-close"],
    ];
    json!(misfits.map(|more| listens(&lab, &[&LISTEN[..], &more].concat())))
}

async fn last_line(lab: Lab) -> Value {
    let mut own = Own::start(&lab, &["--listen", "stdio"]);
    let mut input = own.0.stdin.take().unwrap();
    let mut output = BufReader::new(own.0.stdout.take().unwrap());
    let script = lab.here(": >$DIR/up; sleep 30; :");
    let start = steps::start(&json!({"argv": ["sh", "-c", script, lab.path("file")]}));
    let make = json!({"path": lab.here("file://$DIR/made")});
    let lines = [
        json!({"id": 1, "method": "initialize", "params": {"clientName": "c"}}),
        json!({"method": "initialized"}),
        json!({"id": 2, "method": "process/start", "params": start}),
        json!({"id": 3, "method": "fs/createDirectory", "params": make}),
    ]
    .map(|line| line.to_string());
    input.write_all(lines[..3].join("\n").as_bytes()).unwrap();
    input.write_all(b"\n").unwrap();
    steps::awaits(&lab.path("up")).await;
    // The start's answer too: the end may come before a stock server has written it.
    let mut said = String::new();
    while !said.contains(r#""id":2"#) && output.read_line(&mut said).unwrap() > 0 {}
    input.write_all(lines[3].as_bytes()).unwrap();
    drop(input);
    let exit = own.exit();
    output.read_to_string(&mut said).unwrap();
    let is_message = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object());
    let only = said.lines().count() >= 2 && said.lines().all(is_message);
    json!({
        "exit": exit,
        "served": lab.path("made").is_dir(),
        "child": super::ends::lives(&lab).await,
        "said": if only { "messages only" } else { &said },
    })
}
