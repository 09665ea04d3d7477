//! Sections 2.2, 3 and 4: the handshake, sessions, and what the environment is.

use std::time::Duration;

use serde_json::{Value, json};

use super::lab::Lab;
use super::{Case, Holds};

/// How long a session waits for its client, and an ended process can be read; and some more.
const WAITS: Duration = Duration::from_secs(80);
const MARGIN: Duration = Duration::from_secs(4);

pub(crate) const CASES: &[Case] = &[
    Case::scene(
        "session.waits-80-seconds",
        "3",
        |lab| Box::pin(waits(lab)),
        Holds::Both(r#"[true, true, "-32600 unknown session id $SESSION", true, "is killed"]"#),
    ),
    Case::scene(
        "process.readable-80-seconds",
        "6.3",
        |lab| Box::pin(readable(lab)),
        Holds::Both(r#"[true, "-32600 unknown process id p", {"processId": "p"}]"#),
    ),
    Case::same(
        "state.nothing-before-initialize",
        "2.2",
        &[
            ("@fresh", ""),
            ("environment/status", ""),
            ("process/terminate", r#"{"processId":"p"}"#),
            ("fs/getMetadata", r#"{"path":"file:///"}"#),
            (
                "http/request",
                r#"{"method":"GET","url":"http://127.0.0.1:1/","headers":[],"requestId":"r"}"#,
            ),
            ("initialize", r#"{"clientName":"c"}"#),
        ],
        r#"["-32600 client must call initialize before using environment status methods",
            "-32600 client must call initialize before using exec methods",
            "-32600 client must call initialize before using filesystem methods",
            "-32600 client must call initialize before using http methods",
            {"sessionId": "$SESSION"}]"#,
    ),
    Case::same(
        "state.nothing-between-initialize-and-initialized",
        "2.2",
        &[
            ("@fresh", ""),
            ("initialize", r#"{"clientName":"c"}"#),
            ("environment/info", ""),
            ("fs/readFile", r#"{"path":"file:///"}"#),
            ("@say", r#"{"method":"initialized","params":{}}"#),
            ("environment/status", ""),
        ],
        r#"[{"sessionId": "$SESSION"}, "-32600 client must send initialized before using environment info methods",
            "-32600 client must send initialized before using filesystem methods", {"status": "ready"}]"#,
    ),
    Case::same(
        "state.unknown-method-in-any-state",
        "2.1",
        &[
            ("@fresh", ""),
            ("process/resize", "{}"),
            ("initialize", r#"{"clientName":"c"}"#),
            ("process/list", "{}"),
        ],
        r#"["-32601 exec-server stub does not implement `process/resize` yet", {},
            "-32601 exec-server stub does not implement `process/list` yet"]"#,
    ),
    Case::same(
        "state.failed-initialize-may-be-repeated-a-good-one-not",
        "2.2",
        &[
            ("@fresh", ""),
            ("initialize", "{}"),
            ("initialize", r#"{"clientName":"","resumeSessionId":"nonsense"}"#),
            ("initialize", r#"{"clientName":"","resumeSessionId":null}"#),
            ("initialize", r#"{"clientName":"c"}"#),
        ],
        r#"["-32602 missing field `clientName`", "-32600 unknown session id nonsense", {"sessionId": "$SESSION"},
            "-32600 initialize may only be sent once per connection"]"#,
    ),
    Case::differs(
        "session.an-empty-id",
        "3",
        &[
            ("@fresh", ""),
            ("initialize", r#"{"clientName":"","resumeSessionId":""}"#),
        ],
        r#"["-32600 unknown session id "]"#,
        r#"[{"sessionId": "$SESSION"}]"#,
    ),
    Case::same(
        "state.everything-at-once",
        "2.2",
        &[
            ("@fresh", ""),
            ("@say", r#"{"id":"a","method":"initialize","params":["c",null]}"#),
            ("@say", r#"{"method":"initialized"}"#),
            ("@text", r#"{"id":"b","method":"environment/status"}"#),
            ("@open", ""),
        ],
        r#"[["a", {"environmentInfo": {}}], true]"#,
    ),
    Case::same(
        "state.initialized-again-is-harmless",
        "2",
        &[
            ("@say", r#"{"method":"initialized","params":["x"]}"#),
            ("@say", r#"{"method":"initialized","params":"x"}"#),
            ("@say", r#"{"method":"initialized"}"#),
            ("@open", ""),
        ],
        "[true]",
    ),
    Case::same(
        "state.initialized-before-initialize-closes",
        "2",
        &[
            ("@fresh", ""),
            ("@say", r#"{"method":"initialized"}"#),
            ("@open", ""),
        ],
        "[false]",
    ),
    Case::same(
        "session.process-names-are-its-own",
        "3",
        &[
            ("@sh", "p sleep 1000"),
            ("@leave", ""),
            ("initialize", r#"{"clientName":"other"}"#),
            ("@say", r#"{"method":"initialized"}"#),
            ("process/read", r#"{"processId":"p"}"#),
            ("process/terminate", r#"{"processId":"p"}"#),
            ("@sh", "p exit 0"),
        ],
        r#"[{}, {}, "-32600 unknown process id p", {"running": false}, {"processId": "p"}]"#,
    ),
    Case::same(
        "session.resumed-with-processes-numbers-and-writes",
        "3",
        &[
            ("@run", r#"{"argv":["cat"],"pipeStdin":true}"#),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQo=","writeId":"1"}"#,
            ),
            ("@output", "p"),
            ("@drop", ""),
            ("@resume", ""),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQo=","writeId":"1"}"#,
            ),
            (
                "process/write",
                r#"{"processId":"p","chunk":"Ygo=","writeId":"2"}"#,
            ),
            ("@output", "p"),
            ("process/read", r#"{"processId":"p","afterSeq":1}"#),
        ],
        r#"[{}, {"status": "accepted"}, [1, "stdout", "a\n"], "$SESSION", {"status": "accepted"},
            {"status": "accepted"}, [2, "stdout", "b\n"], {"chunks": [{"seq": 2, "chunk": "Ygo="}], "nextSeq": 3}]"#,
    ),
    Case::same(
        "session.resumed-after-a-clean-close-too",
        "3",
        &[
            ("@sh", "p sleep 1000"),
            ("@leave", ""),
            ("@resume", ""),
            ("process/terminate", r#"{"processId":"p"}"#),
        ],
        r#"[{}, "$SESSION", {"running": true}]"#,
    ),
    Case::same(
        "session.what-was-told-to-nobody-is-read",
        "3",
        &[
            (
                "@sh",
                "p while [ ! -e $DIR/go ]; do sleep 0.01; done; echo a; : >$DIR/said; sleep 1000",
            ),
            ("@drop", ""),
            ("@touch", "$DIR/go"),
            ("@awaits", "$DIR/said"),
            ("@resume", ""),
            ("process/read", r#"{"processId":"p","afterSeq":0,"waitMs":5000}"#),
        ],
        r#"[{}, "$SESSION", {"chunks": [{"seq": 1, "chunk": "YQo="}]}]"#,
    ),
    Case::same(
        "session.tells-live-events-before-its-client-says-that-it-knows",
        "3",
        &[
            (
                "@sh",
                "p while [ ! -e $DIR/go ]; do sleep 0.01; done; echo a; sleep 1000",
            ),
            ("@drop", ""),
            ("@half", ""),
            ("@touch", "$DIR/go"),
            ("@output", "p"),
        ],
        r#"[{}, "$SESSION", [1, "stdout", "a\n"]]"#,
    ),
    Case::same(
        "session.loses-its-open-files",
        "3",
        &[
            ("fs/open", r#"{"handleId":"h","path":"file://$DIR/file"}"#),
            ("@drop", ""),
            ("@resume", ""),
            ("fs/readBlock", r#"{"handleId":"h","offset":0,"len":1}"#),
            ("fs/open", r#"{"handleId":"h","path":"file://$DIR/file"}"#),
        ],
        r#"[{"handleId": "h"}, "$SESSION", "-32004 *", {"handleId": "h"}]"#,
    ),
    Case::scene(
        "session.attached-is-refused-and-its-owner-not-disturbed",
        "3",
        |lab| Box::pin(attached(lab)),
        Holds::Both(
            r#"["-32010 session $SESSION is already attached to another connection", true, "$SESSION"]"#,
        ),
    ),
    Case::scene(
        "session.half-open-connection-keeps-it",
        "3",
        |lab| Box::pin(half_open(lab)),
        Holds::Differ {
            stock: r#""-32010 session $SESSION is already attached to another connection""#,
            dwell: r#""$SESSION""#,
        },
    ),
    Case::same(
        "environment.info-and-status",
        "4",
        &[
            ("environment/info", ""),
            ("environment/info", "{}"),
            ("environment/info", "[]"),
            ("environment/info", r#"{"a":1}"#),
            ("environment/status", ""),
            ("environment/status", "[]"),
        ],
        r#"[{"shell": {"name": "*", "path": "/*"}, "executorVersion": "*", "providerId": "sha256:*", "cwd": "file:///*",
             "userHomeDir": "file:///*", "platformOs": "linux", "prependPathDirs": "*", "temporaryDirectories": [],
             "tempDir": "file:///tmp", "capabilities": {}},
            {"shell": {}}, "-32602 *expected unit*", "-32602 *expected unit*", {"status": "ready"}, "-32602 *expected unit*"]"#,
    ),
    Case::differs(
        "environment.capabilities",
        "4",
        &[("environment/info", "")],
        r#"[{"capabilities": {"fsWatchMissing": true, "environmentConfigRead": true, "capabilityDiscoveryV2": true, "fileWriteStreaming": true, "httpHeaderEnvVars": true}}]"#,
        r#"[{"capabilities": {"fsWatchMissing": true, "environmentConfigRead": false, "capabilityDiscoveryV2": false, "fileWriteStreaming": false, "httpHeaderEnvVars": true}}]"#,
    ),
    Case::scene(
        "environment.info-is-said-twice-alike",
        "4",
        |lab| Box::pin(said_twice(lab)),
        Holds::Both("true"),
    ),
];

fn hide(lab: &Lab, told: &Value, session: &str) -> Value {
    serde_json::from_str(&lab.anywhere(&told.to_string(), Some(session))).unwrap()
}

/// Within its time, beyond it, and the controls: they were there, and so was what one of them runs.
async fn waits(lab: Lab) -> Value {
    let (early, mut late) = (lab.begin().await, lab.begin().await);
    let script = lab.here(": >$DIR/up; sleep 1000; :");
    let start = super::steps::start(&json!({"argv": ["sh", "-c", script, lab.path("file")]}));
    late.call("process/start", start).await;
    super::steps::awaits(&lab.path("up")).await;
    let sessions = [early.session.clone().unwrap(), late.session.clone().unwrap()];
    drop((early, late));
    tokio::time::sleep(WAITS - MARGIN).await;
    let mut client = lab.connect().await;
    let early = client.initialize(json!(sessions[0])).await;
    let runs = super::ends::is_alive(&lab);
    tokio::time::sleep(2 * MARGIN).await;
    let mut other = lab.connect().await;
    let late = other.initialize(json!(sessions[1])).await;
    let kept = super::steps::is_open(&mut client).await;
    hide(
        &lab,
        &json!([
            early["sessionId"] == json!(sessions[0]),
            runs,
            late,
            kept,
            super::ends::lives(&lab).await
        ]),
        &sessions[1],
    )
}

async fn readable(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let start = super::steps::start(&json!({}));
    client.call("process/start", start.clone()).await;
    super::steps::events(&mut client, "p").await;
    let read = json!({"processId": "p"});
    // A connection that says nothing is pinged, and answers only while it reads.
    client.listen(WAITS - MARGIN).await;
    let early = client.call("process/read", read.clone()).await;
    client.listen(2 * MARGIN).await;
    let late = client.call("process/read", read).await;
    json!([early["closed"], late, client.call("process/start", start).await])
}

async fn attached(lab: Lab) -> Value {
    let mut owner = lab.begin().await;
    let session = owner.session.clone().unwrap();
    let mut other = lab.connect().await;
    // Whoever has it answers pings, as long as it reads.
    let refused = {
        let asked = other.initialize(json!(session));
        let mut asked = std::pin::pin!(asked);
        loop {
            tokio::select! {
                refused = &mut asked => break refused,
                () = owner.listen(Duration::from_millis(100)) => {}
            }
        }
    };
    let undisturbed = super::steps::is_open(&mut owner).await;
    drop(owner);
    let later = super::steps::resume(&mut other, &session, true).await;
    hide(&lab, &json!([refused, undisturbed, later]), &session)
}

/// Nobody reads the connection that has the session, and nobody closes it.
async fn half_open(lab: Lab) -> Value {
    let owner = lab.begin().await;
    let session = owner.session.clone().unwrap();
    let silent = owner.into_stream();
    let mut other = lab.connect().await;
    let told = other.initialize(json!(session)).await;
    drop(silent);
    hide(&lab, told.get("sessionId").unwrap_or(&told), &session)
}

async fn said_twice(lab: Lab) -> Value {
    let mut client = lab.connect().await;
    let begun = client.initialize(Value::Null).await;
    let info = client.call("environment/info", Value::Null).await;
    json!(begun["environmentInfo"] == info)
}
