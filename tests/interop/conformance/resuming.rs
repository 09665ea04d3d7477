//! Sections 3 and 4 once more: what a resume brings and what it does not, and whose the environment is.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::lab::Lab;
use super::own::{LISTEN, Own};
use super::{Case, Holds, steps};

pub(crate) const CASES: &[Case] = &[
    Case::scene(
        "session.what-was-told-to-nobody-is-not-told-again",
        "3",
        |lab| Box::pin(not_again(lab)),
        Holds::Both(r#"{"begins_again": false, "ends": true, "is_read": 1}"#),
    ),
    Case::scene(
        "session.loses-requests-in-flight",
        "3",
        |lab| Box::pin(in_flight(lab)),
        Holds::Both(r#"{"answered": false, "the_new_one": true}"#),
    ),
    Case::same(
        "session.begun-by-position-without-its-last-member",
        "3",
        &[
            ("@fresh", ""),
            ("initialize", r#"{"clientName":7}"#),
            ("initialize", r#"["c",null,null]"#),
            ("initialize", r#"["c"]"#),
        ],
        r#"["-32602 *", "-32602 *", {"sessionId": "$SESSION"}]"#,
    ),
    Case::scene(
        "session.id-is-a-version-4-uuid",
        "3",
        |lab| Box::pin(uuid(lab)),
        Holds::Both("[true, true]"),
    ),
    Case::same(
        "session.process-names-are-its-own-when-it-is-taken-up",
        "3",
        &[
            ("@sh", "p exit 4"),
            ("@events", "p"),
            ("@drop", ""),
            ("@resume", ""),
            ("@sh", "p true"),
            ("process/read", r#"{"processId":"p"}"#),
            ("process/signal", r#"{"processId":"p","signal":"interrupt"}"#),
            ("initialize", r#"{"clientName":"c","resumeSessionId":"$SESSION"}"#),
        ],
        r#"[{}, {"exit": 4}, "$SESSION", "-32600 process p already exists", {"exited": true, "exitCode": 4, "closed": true}, {},
            "-32600 initialize may only be sent once per connection"]"#,
    ),
    Case::scene(
        "environment.is-its-servers-own",
        "4",
        |lab| Box::pin(described(lab)),
        Holds::Both(
            r#"{"cwd": "file://$DIR", "home": "file://$DIR/home", "temporary": ["file://$DIR/t%20t"], "temp": "file://$DIR/t%20t"}"#,
        ),
    ),
    Case::scene(
        "environment.is-the-same-after-a-restart",
        "4",
        |lab| Box::pin(restarted(lab)),
        Holds::Both("true"),
    ),
    Case::scene(
        "environment.shell",
        "4",
        |lab| Box::pin(shell(lab)),
        Holds::Both(r#"{"=": {"name": "bash", "path": "/bin/bash"}}"#),
    ),
];

/// More is written than a pipe takes while nobody is connected: what came first can only be in what is kept.
async fn not_again(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let script = lab.here(
        "while [ ! -e $DIR/go ]; do sleep 0.01; done; echo first; head -c 900000 /dev/zero; : >$DIR/said; \
         while [ ! -e $DIR/more ]; do sleep 0.01; done; echo last; sleep 1000",
    );
    let start = steps::start(&json!({"argv": ["sh", "-c", script]}));
    client.call("process/start", start).await;
    let session = client.session.clone().unwrap();
    drop(client);
    std::fs::write(lab.path("go"), "").unwrap();
    steps::awaits(&lab.path("said")).await;
    let mut client = lab.connect().await;
    assert_eq!(steps::resume(&mut client, &session, true).await, json!(session));
    let read = json!({"processId": "p", "maxBytes": 0});
    let read = client.call("process/read", read).await;
    std::fs::write(lab.path("more"), "").unwrap();
    let mut begins_again = false;
    loop {
        let event = client.find(|message| message["method"] == "process/output").await;
        let params = &event.unwrap()["params"];
        let chunk = STANDARD.decode(params["chunk"].as_str().unwrap()).unwrap();
        begins_again |= params["seq"] == json!(1) || chunk.starts_with(b"first");
        if chunk.ends_with(b"last\n") {
            break;
        }
    }
    json!({"begins_again": begins_again, "ends": true, "is_read": read["chunks"][0]["seq"]})
}

/// A read that waits longer than the one that was lost: when it is answered the other one would have been.
async fn in_flight(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let start = steps::start(&json!({"argv": ["sleep", "1000"]}));
    client.call("process/start", start).await;
    let session = client.session.clone().unwrap();
    client
        .say(r#"{"id":"lost","method":"process/read","params":{"processId":"p","waitMs":200}}"#)
        .await;
    drop(client);
    let mut client = lab.connect().await;
    assert_eq!(steps::resume(&mut client, &session, true).await, json!(session));
    let read = json!({"processId": "p", "waitMs": 1_000});
    let later = client.call("process/read", read).await;
    let lost = client.find(|message| message["id"] == "lost");
    let answered = tokio::time::timeout(Duration::from_millis(1), lost).await.is_ok();
    json!({"answered": answered, "the_new_one": later["chunks"].is_array()})
}

async fn uuid(lab: Lab) -> Value {
    let (first, second) = (lab.begin().await, lab.begin().await);
    let (first, second) = (first.session.unwrap(), second.session.unwrap());
    let is_plain = first.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        14 => byte == b'4',
        _ => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
    });
    json!([is_plain && first.len() == 36, first != second])
}

/// What a server with this home, this directory and this place for temporary files says of itself.
async fn environment(lab: &Lab) -> Value {
    for name in ["home", "t t"] {
        std::fs::create_dir_all(lab.path(name)).unwrap();
    }
    let mut own = Own::start_with(lab, &LISTEN, |command| {
        command
            .env("HOME", lab.path("home"))
            .env("TMPDIR", lab.path("t t"))
            .current_dir(lab.dir.path());
    });
    own.begin().await.call("environment/info", Value::Null).await
}

async fn described(lab: Lab) -> Value {
    let told = environment(&lab).await;
    let told = json!({"cwd": told["cwd"], "home": told["userHomeDir"], "temporary": told["temporaryDirectories"], "temp": told["tempDir"]});
    serde_json::from_str(&lab.anywhere(&told.to_string(), None)).unwrap()
}

async fn restarted(lab: Lab) -> Value {
    let (first, second) = (environment(&lab).await, environment(&lab).await);
    json!(first["providerId"].is_string() && first["providerId"] == second["providerId"])
}

async fn shell(lab: Lab) -> Value {
    let told = lab.begin().await.call("environment/info", Value::Null).await;
    told["shell"].clone()
}
