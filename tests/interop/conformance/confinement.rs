//! Section 7: what confines a command, and file operations.

use serde_json::{Value, json};

use super::lab::Lab;
use super::{Case, Holds, steps};

pub(crate) const CASES: &[Case] = &[
    Case::scene(
        "sandbox.writes-within-and-not-without",
        "7",
        |lab| Box::pin(within(lab)),
        Holds::Both(
            r#"[{"sandboxType": "linuxSeccomp"}, {"stdout": "in\n", "exit": 3, "denied": true, "stderr": "*Read-only file system*"}, "none",
                {"exit": 4, "denied": false}, {"exit": 137}, {"exit": 143}, {"exit": 0, "denied": false}, {"exit": 143}]"#,
        ),
    ),
    Case::scene(
        "sandbox.read-only-is-the-root-alone",
        "7",
        |lab| Box::pin(read_only(lab)),
        Holds::Both(r#"{"stdout": "hello\n", "exit": 1, "denied": true}"#),
    ),
    Case::scene(
        "sandbox.of-files",
        "7",
        |lab| Box::pin(files(lab)),
        Holds::Both(
            r#"["-32603 Read-only file system (os error 30)", "-32603 Read-only file system (os error 30)", "-32603 Read-only file system (os error 30)",
                "-32603 Read-only file system (os error 30)", {"dataBase64": "aGVsbG8K"}, {"isFile": true}, {}, {}, {}, {"handleId": "r"},
                {"path": "file://$DIR/file"}, "-32004 *"]"#,
        ),
    ),
    Case::scene(
        "sandbox.words",
        "7",
        |lab| Box::pin(words(lab)),
        Holds::Both(r#"["linuxSeccomp", "linuxSeccomp", "linuxSeccomp", "linuxSeccomp", "linuxSeccomp"]"#),
    ),
    Case::scene(
        "sandbox.words-that-cannot-be-enforced",
        "7",
        |lab| Box::pin(unclear(lab)),
        Holds::Differ {
            stock: r#"["linuxSeccomp", "linuxSeccomp", "linuxSeccomp", "linuxSeccomp", "linuxSeccomp"]"#,
            dwell: r#"["-32603 *--sandbox=off*", "-32603 *--sandbox=off*", "-32603 *--sandbox=off*", "-32603 *--sandbox=off*", "-32603 *--sandbox=off*"]"#,
        },
    ),
    Case::same(
        "sandbox.required-members",
        "7",
        &[
            ("@run", r#"{"sandbox":{"permissions":{"type":"disabled"}}}"#),
            ("@run", r#"{"sandbox":{"windowsSandboxLevel":"disabled"}}"#),
            ("@run", r#"{"sandbox":"text"}"#),
            (
                "@run",
                r#"{"sandbox":{"permissions":{"type":"disabled"},"windowsSandboxLevel":"mxc"}}"#,
            ),
            (
                "@run",
                r#"{"sandbox":{"permissions":{"type":"disabled"},"windowsSandboxLevel":"high"}}"#,
            ),
            (
                "@run",
                r#"{"sandbox":{"permissions":{"type":"disabled"},"windowsSandboxLevel":"restricted-token"}}"#,
            ),
            ("fs/readFile", r#"{"path":"file://$DIR/file","sandbox":{}}"#),
        ],
        r#"["-32602 missing field `windowsSandboxLevel`", "-32602 missing field `permissions`", "-32602 *", "-32602 *", "-32602 *",
            {"sandboxType": "linuxSeccomp"}, "-32602 missing field `permissions`"]"#,
    ),
    Case::scene(
        "sandbox.a-program-that-is-not-there",
        "7",
        |lab| Box::pin(missing(lab)),
        Holds::Differ {
            stock: r#"{"exit": 101, "denied": true}"#,
            dwell: r#""-32603 No such file or directory (os error 2)""#,
        },
    ),
    Case::scene(
        "sandbox.of-a-file-that-is-not-there",
        "7",
        |lab| Box::pin(not_there(lab)),
        Holds::Differ {
            stock: r#"["-32004 *", "-32004 *"]"#,
            dwell: r#"["-32603 Read-only file system (os error 30)", "-32004 *"]"#,
        },
    ),
    Case::scene(
        "sandbox.of-a-file-that-is-copied",
        "7",
        |lab| Box::pin(copied(lab)),
        Holds::Differ {
            stock: r#"[{}, {}]"#,
            dwell: r#"["-32603 *--sandbox=off*", "-32603 *--sandbox=off*"]"#,
        },
    ),
];

fn special(kind: &str, access: &str) -> Value {
    json!({"path": {"type": "special", "value": {"kind": kind}}, "access": access})
}

/// What a stock client says, with this place's `dir` as its project.
fn policy(lab: &Lab, entries: &[Value]) -> Value {
    let project = lab.here("file://$DIR/dir");
    json!({
        "permissions": {"type": "managed", "file_system": {"type": "restricted", "entries": entries}, "network": "restricted"},
        "cwd": project, "workspaceRoots": [project], "windowsSandboxLevel": "disabled",
        "windowsSandboxProxySettingsMode": "reconcile", "useLegacyLandlock": false,
    })
}

fn workspace(lab: &Lab) -> Value {
    let git = json!({"path": {"type": "special", "value": {"kind": "project_roots", "subpath": ".git"}},
        "access": "read", "missing_path_behavior": "skip"});
    policy(
        lab,
        &[special("root", "read"), special("project_roots", "write"), git],
    )
}

/// As a stock client starts it: in its project, with what the server inherits.
fn shell(lab: &Lab, name: &str, script: &str, sandbox: &Value) -> Value {
    let inherits = json!({"inherit": "all", "ignoreDefaultExcludes": false, "exclude": [], "set": {}, "includeOnly": []});
    steps::start(&json!({
        "processId": name, "argv": ["/bin/sh", "-c", lab.here(script)], "cwd": lab.here("file://$DIR/dir"), "env": {},
        "envPolicy": inherits, "sandbox": sandbox,
    }))
}

fn anywhere(lab: &Lab, told: &Value) -> Value {
    serde_json::from_str(&lab.anywhere(&told.to_string(), None)).unwrap()
}

async fn within(lab: Lab) -> Value {
    let (mut client, sandbox) = (lab.begin().await, workspace(&lab));
    let script = "echo in >inside && cat inside; touch $DIR/outside || exit 3";
    let started = client
        .call("process/start", shell(&lab, "p", script, &sandbox))
        .await;
    let mut told = vec![started, steps::events(&mut client, "p").await];
    told.push(json!(if lab.path("outside").exists() {
        "there"
    } else {
        "none"
    }));
    for (name, script) in [
        ("a", "exit 4"),
        ("b", "kill -9 $$"),
        ("c", "kill -15 $$"),
        ("d", "echo Read-only file system >&2"),
        ("terminal", "kill -15 $$"),
    ] {
        let mut start = shell(&lab, name, script, &sandbox);
        start["tty"] = json!(name == "terminal");
        client.call("process/start", start).await;
        told.push(steps::events(&mut client, name).await);
    }
    json!(told)
}

async fn read_only(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let sandbox = policy(&lab, &[special("root", "read")]);
    let script = "cat $DIR/file; touch inside";
    client
        .call("process/start", shell(&lab, "p", script, &sandbox))
        .await;
    steps::events(&mut client, "p").await
}

async fn files(lab: Lab) -> Value {
    let (mut client, sandbox) = (lab.begin().await, workspace(&lab));
    let mut told = Vec::new();
    for (method, params) in [
        ("fs/writeFile", r#"{"path":"file://$DIR/new","dataBase64":""}"#),
        ("fs/createDirectory", r#"{"path":"file://$DIR/new"}"#),
        ("fs/remove", r#"{"path":"file://$DIR/file","recursive":false}"#),
        (
            "fs/open",
            r#"{"handleId":"w","path":"file://$DIR/new","mode":"replace"}"#,
        ),
        ("fs/readFile", r#"{"path":"file://$DIR/file"}"#),
        ("fs/getMetadata", r#"{"path":"file://$DIR/file"}"#),
        (
            "fs/writeFile",
            r#"{"path":"file://$DIR/dir/new","dataBase64":""}"#,
        ),
        ("fs/createDirectory", r#"{"path":"file://$DIR/dir/made"}"#),
        (
            "fs/remove",
            r#"{"path":"file://$DIR/dir/new","recursive":false,"force":false}"#,
        ),
        ("fs/open", r#"{"handleId":"r","path":"file://$DIR/file"}"#),
        ("fs/canonicalize", r#"{"path":"file://$DIR/link"}"#),
        ("fs/readFile", r#"{"path":"file://$DIR/none"}"#),
    ] {
        let mut params: Value = serde_json::from_str(&lab.here(params)).unwrap();
        params["sandbox"] = sandbox.clone();
        told.push(client.call(method, params).await);
    }
    anywhere(&lab, &json!(told))
}

/// What is said of starts that are confined like this.
async fn types(lab: &Lab, sandboxes: &[Value]) -> Value {
    let mut client = lab.begin().await;
    let mut told = Vec::new();
    for (number, sandbox) in sandboxes.iter().enumerate() {
        let start = shell(lab, &number.to_string(), "true", sandbox);
        let started = client.call("process/start", start).await;
        told.push(started.get("sandboxType").cloned().unwrap_or(started));
    }
    json!(told)
}

async fn words(lab: Lab) -> Value {
    let path = json!({"path": {"type": "path", "path": lab.here("file://$DIR/empty")}, "access": "write"});
    let root = || special("root", "read");
    let mut elsewhere = policy(&lab, &[root(), special("project_roots", "write")]);
    for member in ["cwd", "workspaceRoots"] {
        let said = elsewhere[member].take();
        elsewhere.as_object_mut().unwrap().remove(member);
        elsewhere["policyContext"][member] = said;
    }
    let everything = json!({"permissions": {"type": "managed", "file_system": {"type": "unrestricted"}, "network": "enabled"},
        "windowsSandboxLevel": "disabled"});
    let mut optional = policy(
        &lab,
        &[root(), special("slash_tmp", "write"), special("tmpdir", "write")],
    );
    for (member, value) in [
        ("userHomeDir", json!("file:///")),
        ("temporaryDirectories", json!([lab.here("file://$DIR/empty")])),
        ("sandboxOverride", json!("noOverride")),
        ("windowsSandboxProxySettingsMode", json!("preserve")),
    ] {
        optional[member] = value;
    }
    let sandboxes = [
        policy(&lab, &[root(), path]),
        policy(&lab, &[root(), special("current_working_directory", "write")]),
        elsewhere,
        everything,
        optional,
    ];
    types(&lab, &sandboxes).await
}

async fn unclear(lab: Lab) -> Value {
    let root = || special("root", "read");
    let hidden = |path: Value| policy(&lab, &[root(), json!({"path": path, "access": "deny"})]);
    let external =
        json!({"permissions": {"type": "external", "network": "enabled"}, "windowsSandboxLevel": "disabled"});
    let file = lab.here("file://$DIR/file");
    let unknown =
        json!({"path": {"type": "special", "value": {"kind": "unknown", "path": "x"}}, "access": "read"});
    let sandboxes = [
        external,
        hidden(json!({"type": "glob_pattern", "pattern": "*.env"})),
        hidden(json!({"type": "path", "path": file})),
        policy(&lab, &[special("minimal", "read")]),
        policy(&lab, &[root(), unknown]),
    ];
    types(&lab, &sandboxes).await
}

async fn missing(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let mut start = shell(&lab, "p", "", &workspace(&lab));
    start["argv"] = json!(["no-such-program"]);
    let started = client.call("process/start", start).await;
    if started.is_string() {
        return started;
    }
    steps::events(&mut client, "p").await
}

/// Where nothing may be written, and where it may.
async fn not_there(lab: Lab) -> Value {
    let (mut client, sandbox) = (lab.begin().await, workspace(&lab));
    let mut told = Vec::new();
    for path in ["file://$DIR/none", "file://$DIR/dir/none"] {
        let remove = json!({"path": lab.here(path), "recursive": false, "force": false, "sandbox": sandbox});
        told.push(client.call("fs/remove", remove).await);
    }
    json!(told)
}

async fn copied(lab: Lab) -> Value {
    let (mut client, sandbox) = (lab.begin().await, workspace(&lab));
    let copy = json!({"sourcePath": lab.here("file://$DIR/file"), "destinationPath": lab.here("file://$DIR/dir/copy"),
        "recursive": false, "sandbox": sandbox});
    let remove = json!({"path": lab.here("file://$DIR/dir/sub"), "sandbox": sandbox});
    json!([
        client.call("fs/copy", copy).await,
        client.call("fs/remove", remove).await
    ])
}
