//! Sections 6.4 and 6.5: input, interrupts and ends.

use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::lab::{BOUND, Lab};
use super::{Case, Holds, steps};

/// What is to die has died by then.
const KILLED_WITHIN: Duration = Duration::from_secs(6);

pub(crate) const CASES: &[Case] = &[
    Case::same(
        "write.statuses",
        "6.4",
        &[
            (
                "process/write",
                r#"{"processId":"x","chunk":"YQ==","writeId":"1"}"#,
            ),
            ("@sh", "p sleep 1000"),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQ==","writeId":"1"}"#,
            ),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQ==","writeId":""}"#,
            ),
            ("process/write", r#"{"processId":"p","chunk":"?","writeId":"1"}"#),
            ("process/write", r#"{"processId":"p","chunk":"YQ=="}"#),
        ],
        r#"[{"status": "unknownProcess"}, {}, {"status": "stdinClosed"}, "-32602 *", "-32602 *", "-32602 missing field `writeId`"]"#,
    ),
    Case::differs(
        "write.behind-the-end",
        "6.4",
        &[
            ("@run", r#"{"argv":["true"],"pipeStdin":true}"#),
            ("@events", "p"),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQ==","writeId":"1"}"#,
            ),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQ==","writeId":"2"}"#,
            ),
            ("@run", r#"{"processId":"q","argv":["true"],"tty":true}"#),
            ("@events", "q"),
            (
                "process/write",
                r#"{"processId":"q","chunk":"YQ==","writeId":"1"}"#,
            ),
            ("@run", r#"{"processId":"r","argv":["true"]}"#),
            ("@events", "r"),
            (
                "process/write",
                r#"{"processId":"r","chunk":"YQ==","writeId":"1"}"#,
            ),
        ],
        r#"[{}, {"exit": 0}, {"status": "accepted"}, "*", {}, {"exit": 0}, {"status": "accepted"}, {}, {"exit": 0},
            {"status": "stdinClosed"}]"#,
        r#"[{}, {"exit": 0}, "-32603 failed to write to process stdin", "-32603 failed to write to process stdin", {}, {"exit": 0}, {"status": "accepted"}, {}, {"exit": 0},
            {"status": "stdinClosed"}]"#,
    ),
    Case::same(
        "write.the-same-again-is-written-once",
        "6.4",
        &[
            ("@run", r#"{"argv":["cat"],"pipeStdin":true}"#),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQo=","writeId":"1"}"#,
            ),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQo=","writeId":"1"}"#,
            ),
            ("process/write", r#"{"processId":"p","chunk":"","writeId":"2"}"#),
            (
                "process/write",
                r#"{"processId":"p","chunk":"Ygo=","writeId":"3"}"#,
            ),
            ("@output", "p"),
            ("process/read", r#"{"processId":"p","afterSeq":1,"waitMs":2000}"#),
        ],
        r#"[{}, {"status": "accepted"}, {"status": "accepted"}, {"status": "accepted"}, {"status": "accepted"},
            [1, "stdout", "a\n*"], "*"]"#,
    ),
    Case::scene(
        "write.some-count-as-written-and-then-one-waits",
        "6.4",
        |lab| Box::pin(full(lab)),
        Holds::Both(r#"{"accepted_mebibytes": true, "waits": true}"#),
    ),
    Case::same(
        "signal.reaches-the-group-and-what-is-gone-is-no-error",
        "6.5",
        &[
            (
                "@sh",
                r#"p trap 'echo parent; exit 9' INT; sh -c 'trap "echo child; exit" INT; : >$DIR/up; while :; do sleep 0.01; done'"#,
            ),
            ("@awaits", "$DIR/up"),
            ("process/signal", r#"{"processId":"p","signal":"interrupt"}"#),
            ("@events", "p"),
            ("process/signal", r#"{"processId":"p","signal":"interrupt"}"#),
            ("process/signal", r#"{"processId":"x","signal":"interrupt"}"#),
            ("process/signal", r#"{"processId":"p","signal":"terminate"}"#),
        ],
        r#"[{}, {"=": {}}, {"stdout": "child\nparent\n", "exit": 9}, {"=": {}}, {"=": {}}, "-32602 *"]"#,
    ),
    Case::same(
        "signal.on-a-terminal",
        "6.5",
        &[
            (
                "@run",
                r#"{"argv":["/bin/sh","-c","trap 'exit 9' INT; : >$DIR/up; while :; do sleep 0.01; done"],"tty":true}"#,
            ),
            ("@awaits", "$DIR/up"),
            ("process/signal", r#"{"processId":"p","signal":"interrupt"}"#),
            ("@events", "p"),
        ],
        r#"[{}, {}, {"exit": 9}]"#,
    ),
    Case::same(
        "terminate.kills-the-group-at-once",
        "6.5",
        &[
            ("@sh", "p trap '' TERM; sleep 1000 & : >$DIR/up; wait; sleep 1000"),
            ("@awaits", "$DIR/up"),
            ("process/terminate", r#"{"processId":"p"}"#),
            ("@events", "p"),
            ("process/terminate", r#"{"processId":"p"}"#),
            ("process/terminate", r#"{"processId":"x"}"#),
            ("@run", r#"{"processId":"t","argv":["sleep","1000"],"tty":true}"#),
            ("process/terminate", r#"{"processId":"t"}"#),
            ("@events", "t"),
        ],
        r#"[{}, {"running": true}, {"exit": 137, "order": "ec"}, {"running": false}, {"running": false}, {}, {"running": true}, {"exit": 1}]"#,
    ),
    Case::scene(
        "terminate.what-left-the-group",
        "6.5",
        |lab| Box::pin(left_the_group(lab)),
        Holds::Differ {
            stock: r#""lives""#,
            dwell: r#""is killed""#,
        },
    ),
    Case::scene(
        "terminate.what-outlives-the-leader",
        "6.5",
        |lab| Box::pin(outlives(lab)),
        Holds::Differ {
            stock: r#"[{"running": false}, "lives"]"#,
            dwell: r#"[{"running": false}, "is killed"]"#,
        },
    ),
];

async fn full(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    client
        .call(
            "process/start",
            steps::start(&json!({"argv": ["sleep", "1000"], "pipeStdin": true})),
        )
        .await;
    let chunk = "A".repeat(64 * 1024 / 3 * 4);
    let mut accepted = 0;
    loop {
        let write = json!({"processId": "p", "chunk": chunk, "writeId": format!("{accepted}")});
        let id = client.ask("process/write", write).await;
        let is_it = |message: &Value| message["id"] == json!(id);
        // Only what may be one too many is given up soon.
        let bound = if accepted < 100 {
            BOUND
        } else {
            Duration::from_secs(1)
        };
        match tokio::time::timeout(bound, client.find(is_it)).await {
            Ok(Some(answer)) => assert_eq!(answer["result"]["status"], json!("accepted"), "{answer}"),
            Ok(None) => panic!("closed"),
            Err(_) => break,
        }
        accepted += 1;
        assert!(accepted < 1_000, "some time it is full");
    }
    json!({"accepted_mebibytes": (100..=140).contains(&accepted), "waits": true})
}

/// The process that has this place's own file as an argument. By that and not by its number: it may see another one.
fn marked(lab: &Lab) -> Option<String> {
    let marker = lab.path("file");
    let has = |pid: &String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // What is dead and not reaped has no arguments.
        line.split(|byte| *byte == 0)
            .any(|argument| argument == marker.as_os_str().as_encoded_bytes())
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .find(has)
}

pub(crate) fn is_alive(lab: &Lab) -> bool {
    marked(lab).is_some()
}

/// Whether it lives still.
#[expect(
    deprecated,
    reason = "deprecated for types that lie about their descriptor; this one owns its own"
)]
pub(crate) async fn lives(lab: &Lab) -> &'static str {
    let until = Instant::now() + KILLED_WITHIN;
    while let Some(pid) = marked(lab) {
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        // Its end is told by its descriptor: it is a child of somebody else's.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        if !is_alive(lab) {
            break;
        }
        let process = AsyncFd::with_interest(process, Interest::READABLE).unwrap();
        if timeout_at(until, process.readable()).await.is_err() {
            pidfd_send_signal(process.get_ref(), Signal::KILL).unwrap();
            return "lives";
        }
    }
    "is killed"
}

async fn left_the_group(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let script = lab.here("setsid sh -c ': >$DIR/up; sleep 30; :' $DIR/file & sleep 1000");
    client
        .call(
            "process/start",
            steps::start(&json!({"argv": ["sh", "-c", script]})),
        )
        .await;
    steps::awaits(&lab.path("up")).await;
    client.call("process/terminate", json!({"processId": "p"})).await;
    json!(lives(&lab).await)
}

async fn outlives(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let script =
        lab.here("sh -c ': >$DIR/up; sleep 30; :' $DIR/file & while [ ! -e $DIR/up ]; do sleep 0.01; done");
    client
        .call(
            "process/start",
            steps::start(&json!({"argv": ["sh", "-c", script]})),
        )
        .await;
    client.find(|message| message["method"] == "process/exited").await;
    let told = client.call("process/terminate", json!({"processId": "p"})).await;
    json!([told, lives(&lab).await])
}
