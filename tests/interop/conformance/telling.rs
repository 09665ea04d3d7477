//! Sections 2 to 2.3, 6.2 and 6.3: the form of what is told, and its order.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::lab::{Client, Lab};
use super::{Case, Holds, steps};

pub(crate) const CASES: &[Case] = &[
    Case::scene(
        "message.what-a-server-says-has-these-members-and-no-others",
        "2",
        |lab| Box::pin(members(lab)),
        Holds::Both(
            r#"[{"=": {"id": "a", "result": {"status": "ready"}}}, {"=": {"id": 7, "error": {"code": -32600, "message": "unknown process id x"}}},
                {"=": {"id": "b", "result": {"processId": "p", "sandboxType": "none"}}},
                {"=": {"method": "process/output", "params": {"processId": "p", "seq": 1, "stream": "stdout", "chunk": "YQo="}}},
                {"=": {"method": "process/exited", "params": {"processId": "p", "seq": 2, "exitCode": 0, "sandboxDenied": false}}},
                {"=": {"method": "process/closed", "params": {"processId": "p", "seq": 3}}}]"#,
        ),
    ),
    Case::same(
        "message.positional-parameters-of-files",
        "2",
        &[
            ("fs/readFile", r#"["file://$DIR/link",false,null]"#),
            ("fs/writeFile", r#"["file://$DIR/link","",false,null]"#),
            ("fs/getMetadata", r#"["file://$DIR/link",false,null]"#),
            ("fs/createDirectory", r#"["file://$DIR/x/y",false,null,null]"#),
            ("fs/remove", r#"["file://$DIR/none",false,false,true,null]"#),
            ("fs/canonicalize", r#"["file://$DIR/link",null]"#),
            ("fs/readDirectory", r#"["file://$DIR/empty",null]"#),
            ("fs/walk", r#"["file://$DIR/empty",[1,1,1,false,false],null]"#),
            ("fs/copy", r#"["file://$DIR/file","file://$DIR/copy",false,null]"#),
            ("fs/open", r#"["h","file://$DIR/file","read",null]"#),
            ("fs/readBlock", r#"["h",0,1]"#),
            ("fs/writeBlock", r#"["h",0,"YQ=="]"#),
            ("fs/close", r#"["h"]"#),
            ("fs/readFile", r#"["file://$DIR/file"]"#),
            ("fs/readFile", r#"["file://$DIR/file",null]"#),
            ("fs/readFile", r#"["file://$DIR/file",null,null,null]"#),
            ("fs/remove", r#"["file://$DIR/none",null,null,null]"#),
            ("fs/copy", r#"["file://$DIR/file","file://$DIR/copy",false]"#),
        ],
        r#"["-32603 * (os error 40)", "-32603 * (os error 40)", "-32600 path contains a symbolic link", "-32004 *", "-32004 *",
            {"path": "file://$DIR/file"}, {"entries": []}, {"entries": []}, {}, {"handleId": "h"}, {"chunk": "aA=="},
            "-32603 Bad file descriptor (os error 9)", {}, "-32602 invalid length *", "-32602 invalid length 2, expected *",
            "-32602 *", "-32602 invalid length 4, expected *", "-32602 invalid length 3, expected *"]"#,
    ),
    Case::same(
        "message.a-carrier-of-another-form-is-malformed",
        "2",
        &[
            (
                "@text",
                r#"{"id":"s","method":"environment/status","trace":{"traceparent":7}}"#,
            ),
            (
                "@text",
                r#"{"id":"s","method":"environment/status","trace":{"traceparent":null,"more":7}}"#,
            ),
            ("@open", ""),
        ],
        r#"[[-1, "-32600 *"], ["s", {"status": "ready"}], true]"#,
    ),
    Case::same(
        "message.parameters-of-another-form",
        "2.1",
        &[
            ("process/terminate", ""),
            ("process/terminate", "{}"),
            ("process/read", r#"{"processId":7}"#),
            ("process/signal", r#"{"processId":"p"}"#),
            ("process/write", r#"{"chunk":"","writeId":"1"}"#),
            ("process/write", r#"{"processId":"p","writeId":"1"}"#),
            ("fs/open", r#"{"path":"file:///"}"#),
            ("fs/readBlock", r#"{"handleId":"h","offset":0}"#),
            ("fs/readBlock", r#"{"handleId":"h","offset":-1,"len":1}"#),
        ],
        r#"["-32602 *", "-32602 missing field `processId`", "-32602 *", "-32602 missing field `signal`", "-32602 missing field `processId`",
            "-32602 missing field `chunk`", "-32602 missing field `handleId`", "-32602 missing field `len`", "-32602 *"]"#,
    ),
    Case::same(
        "state.each-group-says-its-name",
        "2.2",
        &[
            ("@fresh", ""),
            ("environment/info", ""),
            (
                "environmentConfig/read",
                r#"{"cwd":"file:///","configPaths":[["a"]],"requirementsPaths":[]}"#,
            ),
            ("capabilityRoots/discoverV1", r#"{"roots":[]}"#),
            ("capabilities/discoverV2", r#"{"cwd":"file:///"}"#),
            ("process/read", r#"{"processId":"p"}"#),
            ("fs/close", r#"{"handleId":"h"}"#),
        ],
        r#"["-32600 client must call initialize before using environment info methods",
            "-32600 client must call initialize before using environment config methods",
            "-32600 client must call initialize before using capability discovery methods",
            "-32600 client must call initialize before using capability discovery methods",
            "-32600 client must call initialize before using exec methods",
            "-32600 client must call initialize before using filesystem methods"]"#,
    ),
    Case::scene(
        "order.a-start-is-answered-before-its-first-event",
        "2.3",
        |lab| Box::pin(answered_first(lab)),
        Holds::Differ {
            stock: r#"{"ended": 40}"#,
            dwell: r#"{"ended": 40, "early": 0}"#,
        },
    ),
    Case::scene(
        "order.a-write-that-waits-holds-up-what-comes-behind-it",
        "2.3",
        |lab| Box::pin(behind_a_write(lab)),
        Holds::Differ {
            stock: r#""held up""#,
            dwell: r#"{"running": true}"#,
        },
    ),
    Case::same(
        "write.ids-are-of-one-process",
        "6.4",
        &[
            ("@run", r#"{"argv":["head","-n","1"],"pipeStdin":true}"#),
            (
                "@run",
                r#"{"processId":"q","argv":["head","-n","1"],"pipeStdin":true}"#,
            ),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQo=","writeId":"1"}"#,
            ),
            (
                "process/write",
                r#"{"processId":"q","chunk":"Ygo=","writeId":"1"}"#,
            ),
            ("@events", "p"),
            ("@events", "q"),
        ],
        r#"[{}, {}, {"status": "accepted"}, {"status": "accepted"}, {"stdout": "a\n", "exit": 0}, {"stdout": "b\n", "exit": 0}]"#,
    ),
    Case::same(
        "read.counts-its-exit-and-waits-only-for-what-follows-that",
        "6.3",
        &[
            ("@sh", "p (while [ ! -e $DIR/go ]; do sleep 0.01; done) & exit 5"),
            ("process/read", r#"{"processId":"p","waitMs":10000}"#),
            (
                "process/read",
                r#"{"processId":"p","afterSeq":0,"waitMs":1000000}"#,
            ),
            ("process/read", r#"{"processId":"p","afterSeq":1,"waitMs":50}"#),
            ("@touch", "$DIR/go"),
            (
                "process/read",
                r#"{"processId":"p","afterSeq":1,"waitMs":1000000}"#,
            ),
        ],
        r#"[{}, {"chunks": [], "nextSeq": 2, "exited": true, "exitCode": 5, "closed": false},
            {"chunks": [], "nextSeq": 2, "exited": true, "closed": false}, {"chunks": [], "nextSeq": 2, "closed": false},
            {"chunks": [], "nextSeq": 3, "exited": true, "exitCode": 5, "closed": true}]"#,
    ),
    Case::same(
        "read.is-repeatable-and-begins-behind-any-number",
        "6.3",
        &[
            ("@sh", "p echo a"),
            ("@events", "p"),
            ("process/read", r#"{"processId":"p","afterSeq":0}"#),
            ("process/read", r#"{"processId":"p"}"#),
            ("process/read", r#"["p",0,null,0]"#),
            (
                "process/read",
                r#"{"processId":"p","afterSeq":18446744073709551615,"maxBytes":18446744073709551615}"#,
            ),
        ],
        r#"[{}, {}, {"chunks": [{"chunk": "YQo="}]}, {"chunks": [{"chunk": "YQo="}]}, {"chunks": [{"chunk": "YQo="}]},
            {"chunks": [], "nextSeq": 4, "closed": true}]"#,
    ),
];

async fn members(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let trace = r#""trace":{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"a=b"}"#;
    // An exit is not said before what was written before it is heard.
    let script = lab.here("echo a; while [ ! -e $DIR/go ]; do sleep 0.01; done");
    let start = steps::start(&json!({"argv": ["sh", "-c", script]}));
    let mut told = Vec::new();
    for (text, answers) in [
        (
            format!(r#"{{"id":"a","method":"environment/status",{trace}}}"#),
            1,
        ),
        (
            format!(r#"{{"id":7,"method":"process/read","params":{{"processId":"x"}},{trace}}}"#),
            1,
        ),
        (
            format!(r#"{{"id":"b","method":"process/start","params":{start},{trace}}}"#),
            2,
        ),
    ] {
        client.say(&text).await;
        let mut said = Vec::new();
        for _ in 0..answers {
            said.push(client.read().await.unwrap_or(json!("closed")));
        }
        // An answer may come behind a first event there.
        said.sort_by_key(|message| message.get("method").is_some());
        told.extend(said);
    }
    std::fs::write(lab.path("go"), "").unwrap();
    for _ in 0..2 {
        told.push(client.read().await.unwrap_or(json!("closed")));
    }
    Value::from(told)
}

/// Of commands that say something at once, how many were heard of before their start was answered.
async fn answered_first(lab: Lab) -> Value {
    const COMMANDS: usize = 40;
    let mut client = lab.begin().await;
    let mut asked = BTreeSet::new();
    for number in 0..COMMANDS {
        let start = json!({"processId": number.to_string(), "argv": ["echo", "a"]});
        asked.insert(client.ask("process/start", steps::start(&start)).await);
    }
    let (mut answered, mut early, mut ended) = (BTreeSet::new(), 0, 0);
    while ended < COMMANDS {
        let message = client.read().await.unwrap();
        match message["method"].as_str() {
            None => {
                answered.insert(message["result"]["processId"].to_string());
            }
            Some(method) => {
                early += usize::from(!answered.contains(&message["params"]["processId"].to_string()));
                ended += usize::from(method == "process/closed");
            }
        }
    }
    json!({"ended": ended, "early": early})
}

async fn fill(client: &mut Client, process: &str) {
    let chunk = "A".repeat(64 * 1024 / 3 * 4);
    for number in 0..150 {
        let write = json!({"processId": process, "chunk": chunk, "writeId": number.to_string()});
        client.ask("process/write", write).await;
    }
}

/// Of a process that reads nothing more is written than can wait; then another one is terminated.
async fn behind_a_write(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    for name in ["p", "q"] {
        let start = json!({"processId": name, "argv": ["sleep", "1000"], "pipeStdin": name == "p"});
        client.call("process/start", steps::start(&start)).await;
    }
    fill(&mut client, "p").await;
    let id = client.ask("process/terminate", json!({"processId": "q"})).await;
    let answer = client.answer(json!(id));
    match tokio::time::timeout(std::time::Duration::from_secs(6), answer).await {
        Ok(answer) => answer,
        Err(_) => json!("held up"),
    }
}
