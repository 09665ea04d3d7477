//! Sections 2.1, 5 and 8 once more: what the system refuses, links that are not followed, and limits of files.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::lab::Lab;
use super::own::{LISTEN, Own};
use super::{Case, Holds};

pub(crate) const CASES: &[Case] = &[
    Case::same(
        "error.of-the-system",
        "2.1",
        &[
            // A file that nobody may remove, whoever asks.
            ("fs/remove", r#"{"path":"file:///proc/uptime","recursive":false}"#),
            (
                "fs/getMetadata",
                r#"{"path":"file://$DIR/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#,
            ),
            ("fs/canonicalize", r#"{"path":"file://$DIR/loop"}"#),
            ("fs/readDirectory", r#"{"path":"file://$DIR/loop"}"#),
            ("fs/canonicalize", r#"{"path":"file://$DIR/file/x"}"#),
        ],
        r#"["-32600 * (os error 1*)", "-32603 * (os error 36)", "-32603 * (os error 40)", "-32603 * (os error 40)",
            "-32603 Not a directory (os error 20)"]"#,
    ),
    Case::scene(
        "error.of-permissions",
        "2.1",
        |lab| Box::pin(denied(lab)),
        Holds::Both(
            r#"["-32600 Permission denied (os error 13)", "-32600 Permission denied (os error 13)", "-32600 Permission denied (os error 13)",
                "-32600 Permission denied (os error 13)", "-32600 Permission denied (os error 13)", "-32600 Permission denied (os error 13)",
                "-32600 Permission denied (os error 13)", "-32600 Permission denied (os error 13)", "-32600 Permission denied (os error 13)",
                "-32600 Permission denied (os error 13)", "-32603 Permission denied (os error 13)"]"#,
        ),
    ),
    Case::same(
        "link.is-not-followed-where-it-must-not-be",
        "8",
        &[
            (
                "fs/createDirectory",
                r#"{"path":"file://$DIR/dirlink/new","followSymlinks":false}"#,
            ),
            (
                "fs/createDirectory",
                r#"{"path":"file://$DIR/dirlink/new","followSymlinks":false,"recursive":false}"#,
            ),
            (
                "fs/createDirectory",
                r#"{"path":"file://$DIR/dirlink","followSymlinks":false}"#,
            ),
            (
                "fs/createDirectory",
                r#"{"path":"file://$DIR/dirlink","followSymlinks":false,"recursive":false}"#,
            ),
            (
                "fs/createDirectory",
                r#"{"path":"file://$DIR/x/y","followSymlinks":false}"#,
            ),
            (
                "fs/writeFile",
                r#"{"path":"file://$DIR/dirlink/new","dataBase64":"","followSymlinks":false}"#,
            ),
            (
                "fs/writeFile",
                r#"{"path":"file://$DIR/new","dataBase64":"YQ==","followSymlinks":false}"#,
            ),
            (
                "fs/remove",
                r#"{"path":"file://$DIR/dirlink/a","recursive":false,"followSymlinks":false}"#,
            ),
            (
                "fs/remove",
                r#"{"path":"file://$DIR/link","recursive":false,"followSymlinks":false}"#,
            ),
            (
                "fs/remove",
                r#"{"path":"file://$DIR/none","recursive":false,"followSymlinks":false}"#,
            ),
            (
                "fs/remove",
                r#"{"path":"file://$DIR/none","recursive":false,"force":false,"followSymlinks":false}"#,
            ),
            (
                "fs/remove",
                r#"{"path":"file://$DIR/new","recursive":false,"followSymlinks":false}"#,
            ),
            (
                "fs/readFile",
                r#"{"path":"file://$DIR/dirlink/none","followSymlinks":false}"#,
            ),
            (
                "fs/getMetadata",
                r#"{"path":"file://$DIR/dirlink/alink","followSymlinks":false}"#,
            ),
            (
                "fs/getMetadata",
                r#"{"path":"file://$DIR/link","followSymlinks":null}"#,
            ),
            ("@contents", "$DIR/dir/a"),
            ("@contents", "$DIR/link"),
            // The controls: where nothing is said, they are followed.
            ("fs/createDirectory", r#"{"path":"file://$DIR/dirlink/new"}"#),
            (
                "fs/writeFile",
                r#"{"path":"file://$DIR/dirlink/new/file","dataBase64":"YQ==","followSymlinks":true,"sandbox":null}"#,
            ),
            ("fs/remove", r#"{"path":"file://$DIR/dirlink/a","sandbox":null}"#),
            ("@contents", "$DIR/dir/new/file"),
            ("@contents", "$DIR/dir/a"),
        ],
        r#"["-32603 Not a directory (os error 20)", "-32603 Not a directory (os error 20)", "-32603 Not a directory (os error 20)",
            "-32603 File exists (os error 17)", {}, "-32603 Not a directory (os error 20)", {}, "-32603 Not a directory (os error 20)", "-32600 path contains a symbolic link",
            {}, "-32004 *", {}, "-32603 Not a directory (os error 20)", "-32603 Not a directory (os error 20)", {"isSymlink": true},
            "dir/a", "hello\n", {}, {}, {}, "a", "none"]"#,
    ),
    Case::scene(
        "file.modified-at",
        "8",
        |lab| Box::pin(modified(lab)),
        Holds::Both("[1234567890987, 1234567890987, 0]"),
    ),
    Case::same(
        "file.removing-is-as-forceful-as-it-can-be-by-default",
        "8",
        &[
            (
                "fs/remove",
                r#"{"path":"file://$DIR/dir","recursive":null,"force":null}"#,
            ),
            ("fs/remove", r#"{"path":"file://$DIR/dir"}"#),
            ("fs/remove", r#"{"path":"file://$DIR/none/x"}"#),
            ("fs/remove", r#"{"path":"file://$DIR/file/x"}"#),
            ("fs/remove", r#"{"path":"file://$DIR/dangling"}"#),
            ("fs/remove", r#"{"path":"file://$DIR/fifo"}"#),
            ("fs/readDirectory", r#"{"path":"file://$DIR/empty"}"#),
        ],
        r#"[{}, {}, {}, "-32603 Not a directory (os error 20)", {}, {}, {"=": {"entries": []}}]"#,
    ),
    Case::same(
        "handle.lengths",
        "8",
        &[
            (
                "fs/open",
                r#"{"handleId":"üüüüüüüüüüüüüüüüü","path":"file://$DIR/file"}"#,
            ),
            (
                "fs/open",
                r#"{"handleId":"üüüüüüüüüüüüüüüü","path":"file://$DIR/link","mode":"read"}"#,
            ),
            (
                "fs/open",
                r#"{"handleId":"n","path":"file://$DIR/file","mode":null}"#,
            ),
            (
                "fs/readBlock",
                r#"{"handleId":"üüüüüüüüüüüüüüüü","offset":0,"len":0}"#,
            ),
            (
                "fs/writeBlock",
                r#"{"handleId":"üüüüüüüüüüüüüüüü","offset":0,"chunk":"?"}"#,
            ),
            (
                "fs/readBlock",
                r#"{"handleId":"üüüüüüüüüüüüüüüü","offset":1,"len":2}"#,
            ),
        ],
        r#"["-32600 *", {"handleId": "üüüüüüüüüüüüüüüü"}, "-32602 *", "-32600 *", "-32602 *",
            {"chunk": "ZWw=", "eof": false}]"#,
    ),
    Case::scene(
        "handle.longest-block-and-holes",
        "8",
        |lab| Box::pin(longest(lab)),
        Holds::Both(r#"[{}, "-32600 *", {}, 2000001, "-32600 *"]"#),
    ),
    Case::same(
        "handle.behind-the-longest-file",
        "8",
        &[
            (
                "fs/open",
                r#"{"handleId":"d","path":"file://$DIR","mode":"replace"}"#,
            ),
            (
                "fs/open",
                r#"{"handleId":"w","path":"file://$DIR/new","mode":"replace"}"#,
            ),
            (
                "fs/writeBlock",
                r#"{"handleId":"w","offset":9223372036854775807,"chunk":"YQ=="}"#,
            ),
            ("fs/writeBlock", r#"{"handleId":"w","offset":0,"chunk":"YQ=="}"#),
            ("@contents", "$DIR/new"),
            ("fs/open", r#"{"handleId":"r","path":"file://$DIR/file"}"#),
            (
                "fs/readBlock",
                r#"{"handleId":"r","offset":9223372036854775808,"len":1}"#,
            ),
        ],
        r#"["-32603 Is a directory (os error 21)", {}, "-32600 *", {}, "a", {}, "-32600 Invalid argument (os error 22)"]"#,
    ),
    Case::differs(
        "file.written-to-a-device",
        "8",
        &[(
            "fs/writeFile",
            r#"{"path":"file:///dev/null","dataBase64":"YQ=="}"#,
        )],
        "[{}]",
        r#"["-32600 path `/dev/null` is not a file"]"#,
    ),
    Case::differs(
        "copy.onto-what-is-not-meant",
        "8",
        &[
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/file","destinationPath":"file://$DIR/file","recursive":false}"#,
            ),
            ("@contents", "$DIR/file"),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/dir/b","destinationPath":"file://$DIR/link","recursive":false}"#,
            ),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/file","destinationPath":"file://$DIR/dir","recursive":false}"#,
            ),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/link","destinationPath":"file://$DIR/dir/a","recursive":false}"#,
            ),
            ("@sh", "p mkfifo $DIR/empty/pipe"),
            ("@events", "p"),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/empty","destinationPath":"file://$DIR/copy","recursive":true}"#,
            ),
        ],
        r#"[{}, "", {}, "-32603 Is a directory (os error 21)", "-32603 File exists (os error 17)", {}, {"exit": 0}, {}]"#,
        r#"["-32600 *", "hello\n", "-32603 * (os error 40)", "-32600 *", {}, {}, {"exit": 0}, "-32600 *"]"#,
    ),
    Case::same(
        "file.more-absent-methods",
        "8",
        &[
            ("skills/list", "{}"),
            ("skills/read", "{}"),
            ("fs/exists", "{}"),
            ("process/stat", "{}"),
        ],
        r#"["-32601 exec-server stub does not implement `skills/list` yet", "-32601 *", "-32601 *", "-32601 *"]"#,
    ),
];

/// A server that may not read what its own user may not.
pub(crate) fn without_privileges(lab: &Lab) -> Own {
    for name in ["open", "open/locked"] {
        std::fs::create_dir(lab.path(name)).unwrap();
    }
    for name in ["open/a", "open/locked/x"] {
        std::fs::write(lab.path(name), "").unwrap();
    }
    for name in ["file", "open/locked"] {
        std::fs::set_permissions(lab.path(name), std::fs::Permissions::from_mode(0o0)).unwrap();
    }
    let less = "-dac_override,-dac_read_search";
    Own::start_by(
        lab,
        &["setpriv", "--bounding-set", less, "--inh-caps", less],
        &LISTEN,
    )
}

async fn denied(lab: Lab) -> Value {
    let mut own = without_privileges(&lab);
    let mut client = own.begin().await;
    let mut told = Vec::new();
    for (method, params) in [
        ("fs/readFile", r#"{"path":"file://$DIR/file"}"#),
        ("fs/writeFile", r#"{"path":"file://$DIR/file","dataBase64":""}"#),
        (
            "fs/writeFile",
            r#"{"path":"file://$DIR/open/locked/y","dataBase64":""}"#,
        ),
        ("fs/getMetadata", r#"{"path":"file://$DIR/open/locked/x"}"#),
        ("fs/readDirectory", r#"{"path":"file://$DIR/open/locked"}"#),
        ("fs/createDirectory", r#"{"path":"file://$DIR/open/locked/y"}"#),
        ("fs/remove", r#"{"path":"file://$DIR/open/locked/x"}"#),
        (
            "fs/copy",
            r#"{"sourcePath":"file://$DIR/file","destinationPath":"file://$DIR/x","recursive":false}"#,
        ),
        ("fs/open", r#"{"handleId":"h","path":"file://$DIR/file"}"#),
        ("fs/canonicalize", r#"{"path":"file://$DIR/open/locked/x"}"#),
        (
            "process/start",
            r#"{"processId":"p","argv":["true"],"cwd":"file://$DIR/open/locked","env":{},"tty":false}"#,
        ),
    ] {
        let params = serde_json::from_str(&lab.here(params)).unwrap();
        told.push(client.call(method, params).await);
    }
    json!(told)
}

async fn modified(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let mut told = Vec::new();
    for (time, name) in [
        ("@1234567890.9875", "file"),
        ("@1234567890.9875", "link"),
        ("@-5", "file"),
    ] {
        let touched = Command::new("touch")
            .args(["-d", time])
            .arg(lab.path("file"))
            .status();
        assert!(touched.unwrap().success());
        let ask = json!({"path": lab.here(&format!("file://$DIR/{name}"))});
        let answer = client.call("fs/getMetadata", ask).await;
        told.push(answer["modifiedAtMs"].clone());
    }
    json!(told)
}

async fn longest(lab: Lab) -> Value {
    const MOST: usize = 1024 * 1024;
    let mut client = lab.begin().await;
    let open = json!({"handleId": "w", "path": lab.here("file://$DIR/new"), "mode": "replace"});
    client.call("fs/open", open).await;
    let mut told = Vec::new();
    for (offset, bytes) in [(0, MOST), (0, MOST + 1), (2_000_000, 1)] {
        let chunk = STANDARD.encode(vec![b'x'; bytes]);
        let write = json!({"handleId": "w", "offset": offset, "chunk": chunk});
        told.push(client.call("fs/writeBlock", write).await);
    }
    told.push(json!(std::fs::metadata(lab.path("new")).unwrap().len()));
    let empty = json!({"handleId": "w", "offset": 0, "chunk": ""});
    told.push(client.call("fs/writeBlock", empty).await);
    json!(told)
}
