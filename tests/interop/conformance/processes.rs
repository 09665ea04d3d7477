//! Sections 6.1, 6.2 and 6.4: starting, events, and terminals.

use serde_json::{Value, json};

use super::lab::Lab;
use super::{Case, Holds, steps};

pub(crate) const CASES: &[Case] = &[
    Case::same(
        "start.answer-and-events",
        "6.2",
        &[("@sh", "p echo out; echo err >&2; exit 3"), ("@events", "p")],
        r#"[{"=": {"processId": "p", "sandboxType": "none"}},
            {"stdout": "out\n", "stderr": "err\n", "exit": 3, "denied": false, "dense": true}]"#,
    ),
    Case::same(
        "start.any-name-also-none",
        "6.1",
        &[
            ("@run", r#"{"processId":""}"#),
            ("@run", r#"{"processId":"ü\n"}"#),
            ("@events", "ü\n"),
        ],
        r#"[{"processId": ""}, {"processId": "ü\n"}, {"exit": 0}]"#,
    ),
    Case::same(
        "start.a-name-is-taken-while-it-runs-and-while-it-can-be-read",
        "6.1",
        &[
            ("@sh", "p sleep 1000"),
            ("@sh", "p true"),
            ("process/terminate", r#"{"processId":"p"}"#),
            ("@events", "p"),
            ("@sh", "p true"),
        ],
        r#"[{}, "-32600 process p already exists", {"running": true}, {"exit": 137}, "-32600 process p already exists"]"#,
    ),
    Case::same(
        "start.failures-leave-the-name-free",
        "6.1",
        &[
            ("@run", r#"{"argv":[]}"#),
            ("@run", r#"{"argv":[""]}"#),
            ("@run", r#"{"argv":["no-such-program"]}"#),
            ("@run", r#"{"argv":["/nowhere/x"]}"#),
            ("@run", r#"{"argv":["/etc"]}"#),
            ("@run", r#"{"argv":["true","a\u0000b"]}"#),
            ("@run", r#"{"cwd":"file:///nowhere"}"#),
            ("@run", r#"{"env":{"PATH":"/bin","A":"a\u0000b"}}"#),
            ("@run", "{}"),
        ],
        r#"["-32602 argv must not be empty", "-32603 *", "-32603 No such file or directory (os error 2)",
            "-32603 No such file or directory (os error 2)", "-32603 Permission denied (os error 13)", "-32603 *",
            "-32603 No such file or directory (os error 2)", "-32603 *", {"processId": "p"}]"#,
    ),
    Case::same(
        "start.required-members",
        "6.1",
        &[
            (
                "process/start",
                r#"{"argv":["true"],"cwd":"file:///","env":{},"tty":false}"#,
            ),
            (
                "process/start",
                r#"{"processId":"p","cwd":"file:///","env":{},"tty":false}"#,
            ),
            (
                "process/start",
                r#"{"processId":"p","argv":["true"],"env":{},"tty":false}"#,
            ),
            (
                "process/start",
                r#"{"processId":"p","argv":["true"],"cwd":"file:///","tty":false}"#,
            ),
            (
                "process/start",
                r#"{"processId":"p","argv":["true"],"cwd":"file:///","env":{}}"#,
            ),
            (
                "process/start",
                r#"{"processId":"p","argv":"true","cwd":"file:///","env":{},"tty":false}"#,
            ),
            (
                "process/start",
                r#"{"processId":"p","argv":["true"],"cwd":"file:///","env":{},"tty":false,"envPolicy":{"inherit":"all"}}"#,
            ),
            (
                "process/start",
                r#"{"processId":"p","argv":["/bin/true"],"cwd":"file:///","env":{},"tty":false}"#,
            ),
        ],
        r#"["-32602 missing field `processId`", "-32602 missing field `argv`", "-32602 missing field `cwd`",
            "-32602 missing field `env`", "-32602 missing field `tty`", "-32602 *", "-32602 missing field *", {"processId": "p"}]"#,
    ),
    Case::differs(
        "start.a-missing-directory-on-a-terminal",
        "6.1",
        &[("@run", r#"{"cwd":"file:///nowhere","tty":true}"#)],
        r#"[{"processId": "p"}]"#,
        r#"["-32603 No such file or directory (os error 2)"]"#,
    ),
    Case::differs(
        "start.a-terminal-without-a-path",
        "6.1",
        &[("@run", r#"{"env":{},"tty":true}"#)],
        r#"["-32603 *Unable to resolve the PATH*"]"#,
        r#"[{"processId": "p"}]"#,
    ),
    Case::same(
        "start.metadata-is-not-looked-at",
        "6.1",
        &[
            ("@run", r#"{"metadata":{"toolCallId":"t"}}"#),
            ("@run", r#"{"processId":"q","metadata":null}"#),
        ],
        r#"[{"processId": "p"}, {"processId": "q"}]"#,
    ),
    Case::same(
        "start.programs-are-looked-for-in-the-commands-own-path",
        "6.1",
        &[
            ("@run", r#"{"argv":["file"],"env":{"PATH":"$DIR"}}"#),
            (
                "@run",
                r#"{"processId":"q","argv":["sh","-c","exit 7"],"env":{}}"#,
            ),
            ("@events", "q"),
        ],
        r#"["-32603 Permission denied (os error 13)", {"processId": "q"}, {"exit": 7}]"#,
    ),
    Case::same(
        "start.arg0",
        "6.1",
        &[
            ("@run", r#"{"argv":["/bin/sh","-c","echo $0"],"arg0":"me"}"#),
            ("@run", r#"{"processId":"q","arg0":null}"#),
        ],
        r#"[{"processId": "p"}, {"processId": "q"}]"#,
    ),
    Case::scene(
        "start.terminated-before-it-runs",
        "6.1",
        |lab| Box::pin(cancelled(lab)),
        Holds::Both(r#"{"terminated": {"running": true}, "ends": true}"#),
    ),
    Case::differs(
        "environment.without-a-policy-exactly-what-is-given",
        "6.1",
        &[
            (
                "@run",
                r#"{"argv":["/usr/bin/env"],"env":{"A":"1","CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN":"t","CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE":"1","CODEX_API_KEY":"k"}}"#,
            ),
            ("@events", "p"),
        ],
        r#"[{}, {"stdout": "A=1\nCODEX_API_KEY=k\n"}]"#,
        r#"[{}, {"stdout": "A=1\nCODEX_API_KEY=k\nTRACEPARENT=00-*\n"}]"#,
    ),
    Case::scene(
        "environment.policies",
        "6.1",
        |lab| Box::pin(policies(lab)),
        Holds::Both(
            r#"{"all": "HOME LANG OVERLAY PATH PLAIN SET SHELL", "core": "HOME LANG OVERLAY PATH SHELL", "none": "OVERLAY SET",
                "secrets": "MY_TOKEN", "exclude": "HOME LANG OVERLAY SHELL", "include": "OVERLAY PATH PLAIN PSET"}"#,
        ),
    ),
    Case::differs(
        "environment.names-that-look-like-secrets",
        "6.1",
        &[
            (
                "@run",
                r#"{"argv":["/bin/sh","-c","env | grep ^MY_"],"env":{"PATH":"/usr/bin:/bin"},"envPolicy":{"inherit":"all","ignoreDefaultExcludes":false,"exclude":[],"set":{},"includeOnly":[]}}"#,
            ),
            ("@events", "p"),
        ],
        r#"[{}, {"stdout": "MY_PASSWORD=p\n", "exit": 0}]"#,
        r#"[{}, {"exit": 1, "order": "ec"}]"#,
    ),
    Case::same(
        "pipes.input-is-empty-and-the-leader-has-a-session",
        "6.1",
        &[
            (
                "@sh",
                r#"p cat; set -- $(cat /proc/$$/stat); [ $1 = $$ ] && [ $5 = $$ ] && [ $6 = $$ ] && [ $7 = 0 ] && echo leader; ls /proc/$$/fd"#,
            ),
            ("@events", "p"),
        ],
        r#"[{}, {"stdout": "leader\n0\n1\n2\n"}]"#,
    ),
    Case::differs(
        "terminal.size-and-environment",
        "6.1",
        &[
            (
                "@run",
                r#"{"argv":["/bin/sh","-c","stty size; test -t 0 && test -t 1 && test -t 2 && echo term=$TERM. shell=${SHELL:+set}."],"tty":true}"#,
            ),
            ("@events", "p"),
        ],
        r#"[{}, {"pty": "24 80\r\nterm=. shell=set.\r\n", "exit": 0, "dense": true}]"#,
        r#"[{}, {"pty": "24 80\r\nterm=xterm-256color. shell=.\r\n", "exit": 0, "dense": true}]"#,
    ),
    Case::same(
        "terminal.echoes-interrupts-and-ends-its-input",
        "6.4",
        &[
            ("@run", r#"{"argv":["cat"],"tty":true}"#),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQo=","writeId":"1"}"#,
            ),
            (
                "process/write",
                r#"{"processId":"p","chunk":"BA==","writeId":"2"}"#,
            ),
            ("@events", "p"),
            ("@run", r#"{"processId":"q","argv":["sleep","1000"],"tty":true}"#),
            (
                "process/write",
                r#"{"processId":"q","chunk":"Aw==","writeId":"1"}"#,
            ),
            ("@events", "q"),
        ],
        r#"[{}, {"status": "accepted"}, {"status": "accepted"}, {"pty": "a\r\na\r\n", "exit": 0}, {}, {"status": "accepted"},
            {"pty": "^C", "exit": 1}]"#,
    ),
    Case::differs(
        "terminal.ends-with-its-leader",
        "6.2",
        &[
            (
                "@run",
                r#"{"argv":["/bin/sh","-c","trap '' HUP; (sleep 3; echo late) & exit 0"],"tty":true}"#,
            ),
            ("@events", "p"),
        ],
        r#"[{}, {"exit": 0, "pty": "late\r\n"}]"#,
        r#"[{}, {"exit": 0, "order": "ec"}]"#,
    ),
    Case::same(
        "exit.of-signals",
        "6.2",
        &[
            ("@sh", "a kill -2 $$"),
            ("@events", "a"),
            ("@sh", "b kill -9 $$"),
            ("@events", "b"),
            ("@sh", "c kill -11 $$"),
            ("@events", "c"),
            ("@sh", "d kill -15 $$"),
            ("@events", "d"),
            (
                "@run",
                r#"{"processId":"e","argv":["/bin/sh","-c","kill -9 $$"],"tty":true}"#,
            ),
            ("@events", "e"),
            ("@sh", "f exit 255"),
            ("@events", "f"),
        ],
        r#"[{}, {"exit": 130}, {}, {"exit": 137}, {}, {"exit": 139}, {}, {"exit": 143}, {}, {"exit": 1}, {}, {"exit": 255}]"#,
    ),
    Case::same(
        "exit.output-may-follow-and-nothing-follows-closed",
        "6.2",
        &[
            (
                "@sh",
                "p (while [ ! -e $DIR/go ]; do sleep 0.01; done; echo late) & exit 5",
            ),
            ("process/read", r#"{"processId":"p","waitMs":10000}"#),
            ("@touch", "$DIR/go"),
            ("@events", "p"),
        ],
        r#"[{}, {"exited": true, "exitCode": 5, "closed": false}, {"stdout": "late\n", "exit": 5, "order": "eoc"}]"#,
    ),
    Case::scene(
        "output.twenty-megabytes-dense-and-in-order",
        "6.2",
        |lab| Box::pin(flood(lab)),
        Holds::Both(r#"{"whole": true, "dense": true}"#),
    ),
    Case::scene(
        "output.chunks",
        "6.2",
        |lab| Box::pin(chunks(lab)),
        Holds::Differ {
            stock: r#""at most 8 KiB""#,
            dwell: r#""at most 64 KiB""#,
        },
    ),
];

async fn cancelled(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let started = client
        .ask("process/start", steps::start(&json!({"argv": ["sleep", "1000"]})))
        .await;
    let ended = client.ask("process/terminate", json!({"processId": "p"})).await;
    let terminated = client.answer(json!(ended)).await;
    let told = client.answer(json!(started)).await;
    // It was quicker than its end, or never ran.
    let ends = told == json!("-32600 process p start was cancelled")
        || steps::events(&mut client, "p").await["exit"] == json!(137);
    json!({"terminated": terminated, "ends": ends})
}

/// Names of variables, by policy; those that shells and dwell add are left out.
async fn policies(lab: Lab) -> Value {
    let policies = [
        ("all", json!({"set": {"SET": "1"}})),
        ("core", json!({"inherit": "core"})),
        ("none", json!({"inherit": "none", "set": {"SET": "1"}})),
        (
            "secrets",
            json!({"ignoreDefaultExcludes": true, "includeOnly": ["my_*"]}),
        ),
        ("exclude", json!({"exclude": ["p?th", "PLAI*"]})),
        (
            "include",
            json!({"includeOnly": ["P*"], "set": {"SET": "1", "PSET": "2"}}),
        ),
    ];
    let mut client = lab.begin().await;
    let mut told = serde_json::Map::new();
    for (name, more) in policies {
        let mut policy = json!({"inherit": "all", "ignoreDefaultExcludes": false, "exclude": [], "set": {}, "includeOnly": []});
        for (member, value) in more.as_object().unwrap() {
            policy[member] = value.clone();
        }
        let env = if name == "secrets" {
            json!({})
        } else {
            json!({"OVERLAY": "1"})
        };
        let start = json!({"processId": name, "argv": ["/usr/bin/env"], "env": env, "envPolicy": policy});
        client.call("process/start", steps::start(&start)).await;
        let text = steps::events(&mut client, name).await["stdout"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let mut names: Vec<_> = text
            .lines()
            .filter_map(|line| line.split('=').next())
            .filter(|name| {
                !name.starts_with("CODEX_")
                    && !name.starts_with("DWELL_")
                    && !["TRACEPARENT", "MY_PASSWORD"].contains(name)
            })
            .collect();
        names.sort_unstable();
        told.insert(name.into(), json!(names.join(" ")));
    }
    Value::Object(told)
}

async fn flood(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    client
        .call(
            "process/start",
            steps::start(&json!({"argv": ["seq", "1", "2800000"]})),
        )
        .await;
    let told = steps::events(&mut client, "p").await;
    let text = told["stdout"].as_str().unwrap();
    let whole = text
        .lines()
        .map(|line| line.parse::<u64>().unwrap())
        .eq(1..=2_800_000);
    json!({"whole": whole, "dense": told["dense"]})
}

async fn chunks(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    client
        .call(
            "process/start",
            steps::start(&json!({"argv": ["head", "-c", "3000000", "/dev/zero"]})),
        )
        .await;
    let mut longest = 0;
    loop {
        let event = client
            .find(|message| message["params"]["processId"] == "p")
            .await
            .unwrap();
        match event["params"]["chunk"].as_str() {
            Some(chunk) => longest = longest.max(chunk.len() / 4 * 3),
            None => break,
        }
    }
    let kibibytes = longest / 1024;
    json!(format!("at most {kibibytes} KiB"))
}
