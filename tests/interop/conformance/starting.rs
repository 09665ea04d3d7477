//! Section 6.1: what a start takes, and what its command finds.

use serde_json::{Value, json};

use super::lab::Lab;
use super::own::{LISTEN, Own};
use super::{Case, Holds, steps};

pub(crate) const CASES: &[Case] = &[
    Case::same(
        "start.by-position-with-all-fourteen",
        "6.1",
        &[
            (
                "process/start",
                r#"["p",null,["/bin/sh","-c","echo $0 $A; pwd"],"file:///usr",null,null,{"A":"1"},false,false,"zero",null,false,null,null]"#,
            ),
            ("@events", "p"),
            (
                "process/start",
                r#"["q",null,["true"],"file:///",null,null,{},false,false,null,null,false,null]"#,
            ),
            (
                "process/start",
                r#"["q",null,["true"],"file:///",null,null,{},false,false,null,null,false,null,null,null]"#,
            ),
        ],
        r#"[{"processId": "p"}, {"stdout": "zero 1\n/usr\n", "exit": 0}, "-32602 invalid length 13, expected *", "-32602 *15*"]"#,
    ),
    Case::same(
        "start.a-name-is-taken-while-it-starts",
        "6.1",
        &[(
            "@all",
            r#"[["process/start",{"processId":"p","argv":["sleep","1000"],"cwd":"file:///","env":{"PATH":"/bin"},"tty":false}],
                ["process/start",{"processId":"p","argv":["sleep","1000"],"cwd":"file:///","env":{"PATH":"/bin"},"tty":false}]]"#,
        )],
        r#"[[{"processId": "p"}, "-32600 process p already exists"]]"#,
    ),
    Case::same(
        "start.its-directory-is-a-file-uri",
        "6.1",
        &[
            ("@run", r#"{"cwd":"/usr"}"#),
            ("@run", r#"{"cwd":"http://h/x"}"#),
            ("@run", r#"{"cwd":"file:///usr?x"}"#),
            ("@run", r#"{"cwd":"file:///C:/x"}"#),
            (
                "@run",
                r#"{"argv":["/bin/pwd"],"cwd":"file://localhost/usr/../%75sr"}"#,
            ),
            ("@events", "p"),
        ],
        r#"["-32602 invalid URI: relative URL without a base", "-32602 unsupported path URI scheme `http`", "-32602 *",
            "-32602 *is invalid on 'linux'*", {}, {"stdout": "/usr\n"}]"#,
    ),
    Case::same(
        "start.optional-members",
        "6.1",
        &[
            (
                "@run",
                r#"{"processId":"a","metadata":{"threadId":"83ccb856-74bb-4b82-92e4-523ed0381c5a","toolCallId":"t"}}"#,
            ),
            ("@run", r#"{"processId":"b","metadata":{}}"#),
            (
                "@run",
                r#"{"processId":"c","shellSnapshot":{"scopeId":"s","shell":{"name":"bash","path":"/bin/bash"}}}"#,
            ),
            ("@run", r#"{"processId":"d","shellSnapshot":{"scopeId":"s"}}"#),
            (
                "@run",
                r#"{"processId":"d","shellSnapshot":null,"envPolicy":null}"#,
            ),
            (
                "@run",
                r#"{"processId":"e","managedNetwork":{"loopbackPorts":[1],"allowLocalBinding":true}}"#,
            ),
            ("@run", r#"{"processId":"f","managedNetwork":{}}"#),
            (
                "@run",
                r#"{"processId":"g","managedNetwork":null,"networkProxy":null,"enforceManagedNetwork":false}"#,
            ),
        ],
        r#"[{"processId": "a"}, {"processId": "b"}, {"processId": "c"}, "-32602 missing field `shell`", {"processId": "d"},
            {"processId": "e"}, {"processId": "f"}, {"processId": "g"}]"#,
    ),
    Case::differs(
        "start.members-that-say-nothing-here",
        "6.1",
        &[
            ("@run", r#"{"metadata":{"threadId":"not a number"}}"#),
            ("@run", r#"{"processId":"q","managedNetwork":"text"}"#),
        ],
        r#"["-32602 *", "-32602 *"]"#,
        r#"[{"processId": "p"}, {"processId": "q"}]"#,
    ),
    Case::differs(
        "start.behind-a-proxy",
        "6.1",
        &[("@run", r#"{"enforceManagedNetwork":true}"#)],
        r#"[{"processId": "p"}]"#,
        r#"["-32603 *--sandbox=off*"]"#,
    ),
    Case::same(
        "start.a-program-that-is-not-there-on-a-terminal",
        "6.1",
        &[
            ("@run", r#"{"argv":["no-such-program"],"tty":true}"#),
            ("@run", r#"{"tty":true}"#),
        ],
        r#"["-32603 *", {"processId": "p"}]"#,
    ),
    Case::same(
        "start.arg0-is-what-it-is-told-it-is-called",
        "6.1",
        &[
            (
                "@run",
                r#"{"argv":["/bin/sh","-c","tr '\\0' ' ' </proc/$$/cmdline"],"arg0":"me"}"#,
            ),
            ("@events", "p"),
            (
                "@run",
                r#"{"processId":"q","argv":["sh","-c","tr '\\0' ' ' </proc/$$/cmdline"]}"#,
            ),
            ("@events", "q"),
        ],
        r#"[{}, {"stdout": "me -c *"}, {}, {"stdout": "sh -c *"}]"#,
    ),
    Case::same(
        "terminal.is-the-controlling-one-with-the-usual-settings",
        "6.1",
        &[
            (
                "@run",
                r#"{"argv":["/bin/sh","-c","a=$(stty -a); for w in isig icanon echo onlcr icrnl; do case \"$a\" in *[!-]$w[!a-z]*) echo $w; esac; done; case \"$a\" in *'erase = ^?'*) echo erase; esac; (: </dev/tty) && echo tty; echo err >&2"],"tty":true}"#,
            ),
            ("@events", "p"),
        ],
        r#"[{}, {"pty": "isig\r\nicanon\r\necho\r\nonlcr\r\nicrnl\r\nerase\r\ntty\r\nerr\r\n", "exit": 0, "denied": false, "dense": true}]"#,
    ),
    Case::same(
        "environment.names-that-pass-though-they-look-like-secrets",
        "6.1",
        &[
            (
                "@run",
                r#"{"argv":["/bin/sh","-c","env | grep -c '_KEY=\\|_TOKEN=\\|_URL='"],"env":{"PATH":"/usr/bin:/bin","CODEX_ACCESS_TOKEN":"1","CODEX_API_KEY":"1","OPENAI_API_KEY":"1","CODEX_EXEC_SERVER_URL":"1","CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN":"1"}}"#,
            ),
            ("@events", "p"),
        ],
        r#"[{}, {"stdout": "4\n"}]"#,
    ),
    Case::same(
        "environment.a-policy-has-five-members",
        "6.1",
        &[
            (
                "@run",
                r#"{"envPolicy":{"ignoreDefaultExcludes":false,"exclude":[],"set":{},"includeOnly":[]}}"#,
            ),
            (
                "@run",
                r#"{"envPolicy":{"inherit":"all","exclude":[],"set":{},"includeOnly":[]}}"#,
            ),
            (
                "@run",
                r#"{"envPolicy":{"inherit":"all","ignoreDefaultExcludes":false,"set":{},"includeOnly":[]}}"#,
            ),
            (
                "@run",
                r#"{"envPolicy":{"inherit":"all","ignoreDefaultExcludes":false,"exclude":[],"includeOnly":[]}}"#,
            ),
            (
                "@run",
                r#"{"envPolicy":{"inherit":"all","ignoreDefaultExcludes":false,"exclude":[],"set":{}}}"#,
            ),
            (
                "@run",
                r#"{"envPolicy":{"inherit":"some","ignoreDefaultExcludes":false,"exclude":[],"set":{},"includeOnly":[]}}"#,
            ),
        ],
        r#"["-32602 missing field `inherit`", "-32602 missing field `ignoreDefaultExcludes`", "-32602 missing field `exclude`",
            "-32602 missing field `set`", "-32602 missing field `includeOnly`", "-32602 unknown variant `some`*"]"#,
    ),
    Case::same(
        "environment.a-policy-cannot-set-the-servers-own-names",
        "6.1",
        &[
            (
                "@run",
                r#"{"argv":["/bin/sh","-c","env | grep ^CODEX_EXEC_SERVER; echo $Q"],"env":{"PATH":"/usr/bin:/bin","CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN":"1"},"envPolicy":{"inherit":"none","ignoreDefaultExcludes":true,"exclude":[],"set":{"Q":"q","CODEX_EXEC_SERVER_EXIT_ON_STDIN_CLOSE":"1"},"includeOnly":[]}}"#,
            ),
            ("@events", "p"),
        ],
        r#"[{}, {"stdout": "q\n"}]"#,
    ),
    Case::scene(
        "environment.core-names",
        "6.1",
        |lab| Box::pin(core(lab)),
        Holds::Differ {
            stock: r#""HOME LANG LC_ALL LOGNAME PATH SHELL TMPDIR USER""#,
            dwell: r#""HOME LANG LC_ALL LOGNAME PATH SHELL TERM TMPDIR TZ USER""#,
        },
    ),
    Case::scene(
        "environment.names-with-key-secret-or-token-in-them",
        "6.1",
        |lab| Box::pin(secrets(lab)),
        Holds::Both(r#"["PLAIN", "A_KEY MONKEY MyToken PLAIN a_secret"]"#),
    ),
];

/// Names of a server's own variables that reach a command.
async fn names(lab: &Lab, own: &[(&str, &str)], policies: &[Value]) -> Vec<String> {
    let mut server = Own::start_with(lab, &LISTEN, |command| {
        command.envs(own.iter().copied());
    });
    let mut client = server.begin().await;
    let mut told = Vec::new();
    for (number, more) in policies.iter().enumerate() {
        let mut policy = json!({"inherit": "all", "ignoreDefaultExcludes": false, "exclude": [], "set": {}, "includeOnly": []});
        for (member, value) in more.as_object().unwrap() {
            policy[member] = value.clone();
        }
        let name = number.to_string();
        let start = json!({"processId": name, "argv": ["/usr/bin/env"], "env": {}, "envPolicy": policy});
        client.call("process/start", steps::start(&start)).await;
        let events = steps::events(&mut client, &name).await;
        let text = events["stdout"].as_str().unwrap_or_default();
        let mut names: Vec<_> = text
            .lines()
            .filter_map(|line| line.split('=').next())
            .filter(|name| *name != "TRACEPARENT")
            .collect();
        names.sort_unstable();
        told.push(names.join(" "));
    }
    told
}

async fn core(lab: Lab) -> Value {
    let own = [
        ("USER", "u"),
        ("LOGNAME", "u"),
        ("TMPDIR", "/tmp"),
        ("TERM", "xterm"),
        ("TZ", "UTC"),
        ("LC_ALL", "C"),
        ("EDITOR", "e"),
        ("PWD", "/"),
        ("HOSTNAME", "h"),
        ("XDG_RUNTIME_DIR", "/x"),
        ("LD_LIBRARY_PATH", "/x"),
    ];
    let told = names(&lab, &own, &[json!({"inherit": "core"})]).await;
    json!(told[0])
}

async fn secrets(lab: Lab) -> Value {
    let own = [
        ("A_KEY", "1"),
        ("a_secret", "1"),
        ("MyToken", "1"),
        ("MONKEY", "1"),
    ];
    let only = json!(["A_KEY", "a_secret", "MyToken", "MONKEY", "PLAIN"]);
    let policies = [
        json!({"includeOnly": only}),
        json!({"includeOnly": only, "ignoreDefaultExcludes": true}),
    ];
    json!(names(&lab, &own, &policies).await)
}
