//! Sections 5 and 8: paths and files.

use serde_json::{Value, json};

use super::lab::Lab;
use super::{Case, Holds};

pub(crate) const CASES: &[Case] = &[
    Case::same(
        "path.spellings",
        "5",
        &[
            ("fs/readFile", r#"{"path":"file:$DIR/file"}"#),
            ("fs/readFile", r#"{"path":"file://localhost$DIR/file"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/%66ile"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/nowhere/../file"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/file?x"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/file#x"}"#),
            ("fs/readFile", r#"{"path":"http://h/x"}"#),
            ("fs/readFile", r#"{"path":"$DIR/file"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/fi%00le"}"#),
            ("fs/getMetadata", r#"{"path":"file:etc"}"#),
        ],
        r#"[{"dataBase64": "aGVsbG8K"}, {"dataBase64": "aGVsbG8K"}, {"dataBase64": "aGVsbG8K"}, {"dataBase64": "aGVsbG8K"},
            "-32602 *", "-32602 *", "-32602 unsupported path URI scheme `http`",
            "-32602 invalid URI: relative URL without a base", "-3260*", {"isDirectory": true}]"#,
    ),
    Case::same(
        "path.other-machines",
        "5",
        &[
            ("fs/getMetadata", r#"{"path":"file://elsewhere/x"}"#),
            ("fs/getMetadata", r#"{"path":"file:///C:/x"}"#),
        ],
        r#"["-3260*is invalid on 'linux'*", "-3260*is invalid on 'linux'*"]"#,
    ),
    Case::same(
        "file.read",
        "8",
        &[
            ("fs/readFile", r#"{"path":"file://$DIR/file"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/link"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/none"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/dangling"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/dir"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/fifo"}"#),
            ("fs/readFile", r#"{"path":"file:///dev/null"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/file/x"}"#),
            ("fs/readFile", r#"{"path":"file://$DIR/loop"}"#),
            (
                "fs/readFile",
                r#"{"path":"file://$DIR/link","followSymlinks":false}"#,
            ),
            (
                "fs/readFile",
                r#"{"path":"file://$DIR/dirlink/a","followSymlinks":false}"#,
            ),
            (
                "fs/readFile",
                r#"{"path":"file://$DIR/file","followSymlinks":false}"#,
            ),
        ],
        r#"[{"=": {"dataBase64": "aGVsbG8K"}}, {"dataBase64": "aGVsbG8K"}, "-32004 No such file or directory (os error 2)",
            "-32004 No such file or directory (os error 2)", "-32600 path `$DIR/dir` is not a file", "-32600 path `$DIR/fifo` is not a file",
            "-32600 path `/dev/null` is not a file", "-32603 Not a directory (os error 20)",
            "-32603 * (os error 40)", "-32603 * (os error 40)",
            "-32603 Not a directory (os error 20)", {"dataBase64": "aGVsbG8K"}]"#,
    ),
    Case::scene(
        "file.read-size",
        "8",
        |lab| Box::pin(sizes(lab)),
        Holds::Differ {
            stock: r#"["read", "read", "-32600 file is too large to read: limit is 536870912 bytes"]"#,
            dwell: r#"["read", "-32600 file is too large to read: limit is 50328576 bytes", "-32600 file is too large to read: limit is 50328576 bytes"]"#,
        },
    ),
    Case::scene(
        "file.long-answers",
        "1.2",
        |lab| Box::pin(long_answer(lab)),
        Holds::Differ {
            stock: r#""one frame""#,
            dwell: r#""frames of 16 MiB""#,
        },
    ),
    Case::same(
        "file.write",
        "8",
        &[
            (
                "fs/writeFile",
                r#"{"path":"file://$DIR/new","dataBase64":"YQ=="}"#,
            ),
            ("@contents", "$DIR/new"),
            ("@mode", "$DIR/new"),
            (
                "fs/writeFile",
                r#"{"path":"file://$DIR/link","dataBase64":"Yg=="}"#,
            ),
            ("@contents", "$DIR/file"),
            (
                "fs/writeFile",
                r#"{"path":"file://$DIR/none/new","dataBase64":"YQ=="}"#,
            ),
            (
                "fs/writeFile",
                r#"{"path":"file://$DIR/dir","dataBase64":"YQ=="}"#,
            ),
            ("fs/writeFile", r#"{"path":"file://$DIR/new","dataBase64":"?"}"#),
            ("fs/writeFile", r#"{"path":"file://$DIR/new","dataBase64":""}"#),
            ("@contents", "$DIR/new"),
            (
                "fs/writeFile",
                r#"{"path":"file://$DIR/link","dataBase64":"Yw==","followSymlinks":false}"#,
            ),
        ],
        r#"[{"=": {}}, "a", "644", {}, "b", "-32004 No such file or directory (os error 2)", "-32603 Is a directory (os error 21)",
            "-32600 *", {}, "", "-32603 * (os error 40)"]"#,
    ),
    Case::same(
        "directory.create",
        "8",
        &[
            ("fs/createDirectory", r#"{"path":"file://$DIR/x/y/z"}"#),
            ("fs/createDirectory", r#"{"path":"file://$DIR/x/y/z"}"#),
            (
                "fs/createDirectory",
                r#"{"path":"file://$DIR/x","recursive":false}"#,
            ),
            (
                "fs/createDirectory",
                r#"{"path":"file://$DIR/v/w","recursive":false}"#,
            ),
            (
                "fs/createDirectory",
                r#"{"path":"file://$DIR/file","recursive":true}"#,
            ),
            ("fs/getMetadata", r#"{"path":"file://$DIR/x/y/z"}"#),
        ],
        r#"[{"=": {}}, {}, "-32603 File exists (os error 17)", "-32004 No such file or directory (os error 2)",
            "-32603 File exists (os error 17)", {"isDirectory": true}]"#,
    ),
    Case::same(
        "file.metadata",
        "8",
        &[
            ("fs/getMetadata", r#"{"path":"file://$DIR/file"}"#),
            ("fs/getMetadata", r#"{"path":"file://$DIR/dir"}"#),
            ("fs/getMetadata", r#"{"path":"file://$DIR/link"}"#),
            ("fs/getMetadata", r#"{"path":"file://$DIR/dirlink"}"#),
            ("fs/getMetadata", r#"{"path":"file://$DIR/fifo"}"#),
            ("fs/getMetadata", r#"{"path":"file://$DIR/dangling"}"#),
            ("fs/getMetadata", r#"{"path":"file://$DIR/none"}"#),
            ("fs/getMetadata", r#"{"path":"file://$DIR/file/x"}"#),
            (
                "fs/getMetadata",
                r#"{"path":"file://$DIR/link","followSymlinks":false}"#,
            ),
            (
                "fs/getMetadata",
                r#"{"path":"file://$DIR/dirlink/a","followSymlinks":false}"#,
            ),
            (
                "fs/getMetadata",
                r#"{"path":"file://$DIR/file","followSymlinks":false}"#,
            ),
            ("fs/getMetadata", "{}"),
        ],
        r#"[{"isDirectory": false, "isFile": true, "isSymlink": false, "size": 6, "createdAtMs": "*", "modifiedAtMs": "*"},
            {"isDirectory": true, "isFile": false, "isSymlink": false}, {"isFile": true, "isSymlink": true, "size": 6},
            {"isDirectory": true, "isSymlink": true}, {"isDirectory": false, "isFile": false, "isSymlink": false},
            "-32004 No such file or directory (os error 2)", "-32004 No such file or directory (os error 2)",
            "-32603 Not a directory (os error 20)", "-32600 path contains a symbolic link", "-32603 Not a directory (os error 20)",
            {"isFile": true}, "-32602 missing field `path`"]"#,
    ),
    Case::scene(
        "file.created-at",
        "8",
        |lab| Box::pin(created(lab)),
        Holds::Differ {
            stock: r#""known""#,
            dwell: r#""not known""#,
        },
    ),
    Case::same(
        "path.canonicalize",
        "8",
        &[
            ("fs/canonicalize", r#"{"path":"file://$DIR/dirlink/a"}"#),
            ("fs/canonicalize", r#"{"path":"file://$DIR/link"}"#),
            ("fs/canonicalize", r#"{"path":"file://$DIR/none"}"#),
            ("fs/canonicalize", r#"{"path":"file://$DIR/dangling"}"#),
            ("fs/canonicalize", r#"{"path":"file:///"}"#),
        ],
        r#"[{"=": {"path": "file://$DIR/dir/a"}}, {"path": "file://$DIR/file"}, "-32004 *", "-32004 *", {"path": "file:///"}]"#,
    ),
    Case::scene(
        "directory.read",
        "8",
        |lab| Box::pin(listed(lab)),
        Holds::Both(
            r#"["dir d f; dirlink d f; empty d f; fifo f f; file f t; link f t", "-32004 No such file or directory (os error 2)",
                "-32603 Not a directory (os error 20)"]"#,
        ),
    ),
    Case::same(
        "file.remove",
        "8",
        &[
            ("fs/remove", r#"{"path":"file://$DIR/none"}"#),
            ("fs/remove", r#"{"path":"file://$DIR/none","force":false}"#),
            ("fs/remove", r#"{"path":"file://$DIR/dir","recursive":false}"#),
            ("fs/remove", r#"{"path":"file://$DIR/link"}"#),
            ("@contents", "$DIR/file"),
            ("fs/remove", r#"{"path":"file://$DIR/dirlink"}"#),
            ("fs/remove", r#"{"path":"file://$DIR/empty","recursive":false}"#),
            (
                "fs/remove",
                r#"{"path":"file://$DIR/dir","recursive":true,"followSymlinks":false}"#,
            ),
            ("fs/remove", r#"{"path":"file://$DIR/dir"}"#),
            ("fs/getMetadata", r#"{"path":"file://$DIR/dir"}"#),
            (
                "fs/remove",
                r#"{"path":"file://$DIR/file","recursive":false,"force":false}"#,
            ),
            (
                "fs/remove",
                r#"{"path":"file://$DIR/file","recursive":false,"force":false}"#,
            ),
        ],
        r#"[{"=": {}}, "-32004 No such file or directory (os error 2)", "-32603 Directory not empty (os error 39)", {}, "hello\n", {}, {},
            "-32603 *unsupported*", {}, "-32004 *", {}, "-32004 *"]"#,
    ),
    Case::same(
        "file.copy",
        "8",
        &[
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/file","destinationPath":"file://$DIR/dir/a","recursive":false}"#,
            ),
            ("@contents", "$DIR/dir/a"),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/dir","destinationPath":"file://$DIR/copy","recursive":false}"#,
            ),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/dir","destinationPath":"file://$DIR/copy","recursive":true}"#,
            ),
            ("@contents", "$DIR/copy/sub/c"),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/empty","destinationPath":"file://$DIR/copy","recursive":true}"#,
            ),
            ("@contents", "$DIR/copy/b"),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/dir","destinationPath":"file://$DIR/dir/in","recursive":true}"#,
            ),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/link","destinationPath":"file://$DIR/link2","recursive":false}"#,
            ),
            ("fs/getMetadata", r#"{"path":"file://$DIR/link2"}"#),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/fifo","destinationPath":"file://$DIR/fifo2","recursive":false}"#,
            ),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/none","destinationPath":"file://$DIR/x","recursive":false}"#,
            ),
            (
                "fs/copy",
                r#"{"sourcePath":"file://$DIR/file","destinationPath":"file://$DIR/x"}"#,
            ),
        ],
        r#"[{"=": {}}, "hello\n", "-32600 *", {}, "dir/sub/c", {}, "dir/b", "-32600 *", {}, {"isSymlink": true}, "-32600 *",
            "-32004 No such file or directory (os error 2)", "-32602 missing field `recursive`"]"#,
    ),
    Case::same(
        "handle.read-by-blocks",
        "8",
        &[
            ("fs/open", r#"{"handleId":"","path":"file://$DIR/file"}"#),
            ("fs/open", r#"{"handleId":"","path":"file://$DIR/file"}"#),
            ("fs/readBlock", r#"{"handleId":"","offset":0,"len":6}"#),
            ("fs/readBlock", r#"{"handleId":"","offset":6,"len":1}"#),
            ("fs/readBlock", r#"{"handleId":"","offset":4,"len":1048576}"#),
            ("fs/readBlock", r#"{"handleId":"","offset":0,"len":0}"#),
            ("fs/readBlock", r#"{"handleId":"","offset":0,"len":1048577}"#),
            ("fs/writeBlock", r#"{"handleId":"","offset":0,"chunk":"YQ=="}"#),
            ("fs/close", r#"{"handleId":""}"#),
            ("fs/close", r#"{"handleId":""}"#),
            ("fs/readBlock", r#"{"handleId":"","offset":0,"len":1}"#),
        ],
        r#"[{"=": {"handleId": ""}}, "-32600 *", {"=": {"chunk": "aGVsbG8K", "eof": false}}, {"=": {"chunk": "", "eof": true}},
            {"=": {"chunk": "bwo=", "eof": true}}, "-32600 *", "-32600 *", "-32603 Bad file descriptor (os error 9)", {"=": {}}, {"=": {}},
            "-32004 *"]"#,
    ),
    Case::same(
        "handle.write-by-blocks",
        "8",
        &[
            (
                "fs/open",
                r#"{"handleId":"w","path":"file://$DIR/new","mode":"replace"}"#,
            ),
            ("fs/writeBlock", r#"{"handleId":"w","offset":3,"chunk":"YQ=="}"#),
            ("fs/writeBlock", r#"{"handleId":"w","offset":0,"chunk":"eHl6"}"#),
            ("fs/writeBlock", r#"{"handleId":"w","offset":0,"chunk":""}"#),
            ("fs/readBlock", r#"{"handleId":"w","offset":0,"len":1}"#),
            ("fs/close", r#"{"handleId":"w"}"#),
            ("@contents", "$DIR/new"),
            (
                "fs/open",
                r#"{"handleId":"w","path":"file://$DIR/new","mode":"replace"}"#,
            ),
            ("@contents", "$DIR/new"),
        ],
        r#"[{"handleId": "w"}, {"=": {}}, {}, "-32600 *", "-32603 Bad file descriptor (os error 9)", {}, "xyza", {}, ""]"#,
    ),
    Case::same(
        "handle.names-and-kinds",
        "8",
        &[
            (
                "fs/open",
                r#"{"handleId":"12345678901234567890123456789012","path":"file://$DIR/file"}"#,
            ),
            (
                "fs/open",
                r#"{"handleId":"123456789012345678901234567890123","path":"file://$DIR/file"}"#,
            ),
            ("fs/open", r#"{"handleId":"d","path":"file://$DIR/dir"}"#),
            ("fs/open", r#"{"handleId":"f","path":"file://$DIR/fifo"}"#),
            ("fs/open", r#"{"handleId":"n","path":"file://$DIR/none"}"#),
            (
                "fs/open",
                r#"{"handleId":"m","path":"file://$DIR/file","mode":"append"}"#,
            ),
            ("fs/writeBlock", r#"{"handleId":"x","offset":0,"chunk":"YQ=="}"#),
        ],
        r#"[{}, "-32600 *", "-32600 *is not a file*", "-32600 *is not a file*", "-32004 No such file or directory (os error 2)", "-32602 *",
            "-32004 *"]"#,
    ),
    Case::scene(
        "handle.128-of-a-connection",
        "8",
        |lab| Box::pin(many(lab)),
        Holds::Both(r#"[128, "-32600 *"]"#),
    ),
    Case::same(
        "handle.an-error-of-the-system-drops-it",
        "8",
        &[
            ("fs/open", r#"{"handleId":"h","path":"file://$DIR/file"}"#),
            (
                "fs/readBlock",
                r#"{"handleId":"h","offset":18446744073709551615,"len":1}"#,
            ),
            ("fs/readBlock", r#"{"handleId":"h","offset":0,"len":1}"#),
        ],
        r#"[{}, "-3260*", "-32004 *"]"#,
    ),
    Case::same(
        "watch.missing",
        "8",
        &[
            (
                "fs/watchMissing",
                r#"{"watchId":1,"missing":["file://$DIR/none"],"present":null}"#,
            ),
            ("@touch", "$DIR/none"),
            ("@told", "fs/missingChanged"),
            (
                "fs/watchMissing",
                r#"{"watchId":2,"missing":["file://$DIR/none","file://$DIR/a/b/c"],"present":null}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":3,"missing":["file://$DIR/a/b/c"]}"#,
            ),
            (
                "fs/createDirectory",
                r#"{"path":"file://$DIR/a","recursive":false}"#,
            ),
            ("@told", "fs/missingChanged"),
            (
                "fs/watchMissing",
                r#"{"watchId":4,"missing":["file://$DIR/a/b/c"]}"#,
            ),
            ("@touch", "$DIR/a/x"),
            ("@touch", "$DIR/a/b"),
            ("@told", "fs/missingChanged"),
        ],
        r#"[{"=": {"watching": true}}, {"=": {"watchId": 1}}, {"watching": false}, {"watching": true}, {}, {"=": {"watchId": 3}},
            {"watching": true}, {"=": {"watchId": 4}}]"#,
    ),
    Case::same(
        "watch.is-one-of-a-connection",
        "8",
        &[
            (
                "fs/watchMissing",
                r#"{"watchId":0,"missing":["file://$DIR/none"]}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":5,"missing":["file://$DIR/first"]}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":5,"missing":["file://$DIR/second"]}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":4,"missing":["file://$DIR/second"]}"#,
            ),
            ("@touch", "$DIR/first"),
            ("@told", "fs/missingChanged"),
            (
                "fs/watchMissing",
                r#"{"watchId":6,"missing":["file://$DIR/second"]}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":7,"missing":["file://$DIR/third"]}"#,
            ),
            ("@touch", "$DIR/second"),
            ("@touch", "$DIR/third"),
            ("@told", "fs/missingChanged"),
        ],
        r#"[{"watching": false}, {"watching": true}, {"watching": false}, {"watching": false}, {"watchId": 5},
            {"watching": true}, {"watching": true}, {"watchId": 7}]"#,
    ),
    Case::same(
        "watch.what-is-there",
        "8",
        &[
            (
                "fs/watchMissing",
                r#"{"watchId":1,"missing":["file://$DIR/none"],"present":"file://$DIR/nowhere"}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":2,"missing":["file://$DIR/none"],"present":"file://$DIR/link"}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":3,"missing":[],"present":"file://$DIR/file"}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":4,"missing":["file://$DIR/none"],"present":"file://$DIR/file"}"#,
            ),
            ("@contents", "$DIR/file"),
            ("@unlink", "$DIR/file"),
            ("@told", "fs/missingChanged"),
        ],
        r#"[{"watching": false}, {"watching": false}, {"watching": false}, {"watching": true}, "hello\n", {"watchId": 4}]"#,
    ),
    Case::same(
        "watch.where-nothing-is-watched",
        "8",
        &[
            ("fs/watchMissing", r#"{"watchId":1,"missing":[]}"#),
            (
                "fs/watchMissing",
                r#"{"watchId":2,"missing":["file://$DIR/file"]}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":3,"missing":["file://$DIR/dangling"]}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":4,"missing":["file://$DIR/dirlink/none"]}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":5,"missing":["file://$DIR/file/none"]}"#,
            ),
            (
                "fs/watchMissing",
                r#"{"watchId":6,"missing":["file:///proc/none"]}"#,
            ),
            ("fs/watchMissing", r#"{"watchId":7,"missing":["none"]}"#),
            (
                "fs/watchMissing",
                r#"{"watchId":7,"missing":[],"present":"none"}"#,
            ),
            ("fs/watchMissing", r#"{"watchId":7}"#),
            ("fs/watchMissing", r#"{"watchId":-7,"missing":[]}"#),
            ("fs/watchMissing", r#"{"watchId":7,"missing":[7]}"#),
            (
                "fs/watchMissing",
                r#"{"watchId":7,"missing":["file://$DIR/dir/../none"]}"#,
            ),
        ],
        r#"[{"watching": false}, {"watching": false}, {"watching": false}, {"watching": false}, {"watching": false},
            {"watching": false}, "-32602 invalid URI*", "-32602 invalid URI*", "-32602 *", "-32602 *", "-32602 *",
            {"watching": true}]"#,
    ),
    Case::scene(
        "watch.64-paths",
        "8",
        |lab| Box::pin(many_missing(lab)),
        Holds::Both("[true, false]"),
    ),
    Case::same(
        "watch.is-lost-with-its-connection",
        "3",
        &[
            (
                "fs/watchMissing",
                r#"{"watchId":5,"missing":["file://$DIR/first"]}"#,
            ),
            ("@drop", ""),
            ("@resume", ""),
            ("@touch", "$DIR/first"),
            (
                "fs/watchMissing",
                r#"{"watchId":1,"missing":["file://$DIR/second"]}"#,
            ),
            ("@touch", "$DIR/second"),
            ("@told", "fs/missingChanged"),
        ],
        r#"[{"watching": true}, "$SESSION", {"watching": true}, {"watchId": 1}]"#,
    ),
    Case::same(
        "file.absent-methods",
        "8",
        &[
            ("fs/join", "{}"),
            ("fs/parent", "{}"),
            ("fs/watch", "{}"),
            ("fs/readStream", "{}"),
            ("fs/writeStream", "{}"),
            ("fs/rename", "{}"),
            ("process/kill", "{}"),
            ("http/cancel", "{}"),
        ],
        r#"["-32601 *", "-32601 *", "-32601 *", "-32601 *", "-32601 *", "-32601 *", "-32601 *", "-32601 *"]"#,
    ),
];

async fn many_missing(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let mut told = Vec::new();
    for (id, count) in [(1, 64), (2, 65)] {
        let missing: Vec<_> = (0..count)
            .map(|at| lab.here(&format!("file://$DIR/none{at}")))
            .collect();
        let answer = client
            .call("fs/watchMissing", json!({"watchId": id, "missing": missing}))
            .await;
        told.push(answer["watching"].clone());
    }
    Value::from(told)
}

async fn sizes(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let mut told = Vec::new();
    for bytes in [20_u64 << 20, 49 << 20, (512 << 20) + 1] {
        let file = std::fs::File::create(lab.path("large")).unwrap();
        file.set_len(bytes).unwrap();
        let answer = client
            .call("fs/readFile", json!({"path": lab.here("file://$DIR/large")}))
            .await;
        let is_whole = answer["dataBase64"]
            .as_str()
            .is_some_and(|data| data.len() as u64 / 4 * 3 >= bytes);
        told.push(if is_whole { json!("read") } else { answer });
    }
    Value::from(told)
}

async fn long_answer(lab: Lab) -> Value {
    use tokio::io::AsyncReadExt as _;
    let mut client = lab.begin().await;
    let file = std::fs::File::create(lab.path("large")).unwrap();
    file.set_len(20 << 20).unwrap();
    client
        .ask("fs/readFile", json!({"path": lab.here("file://$DIR/large")}))
        .await;
    // The first frame's head: whether it is the last of its message, and how long it is.
    let mut stream = client.into_stream();
    let mut head = [0; 10];
    stream.read_exact(&mut head).await.unwrap();
    let length = u64::from_be_bytes(head[2..].try_into().unwrap());
    json!(if head[0] & 0x80 != 0 {
        "one frame".to_owned()
    } else {
        format!("frames of {} MiB", length >> 20)
    })
}

async fn created(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let told = client
        .call(
            "fs/getMetadata",
            json!({"path": lab.here("file://$DIR/file"), "followSymlinks": false}),
        )
        .await;
    let is_known = std::fs::metadata(lab.path("file")).unwrap().created().is_ok();
    assert!(
        is_known,
        "the file system of this machine says when a file was created"
    );
    json!(if told["createdAtMs"] == json!(0) {
        "not known"
    } else {
        "known"
    })
}

async fn listed(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    let mut told = Vec::new();
    for name in ["", "/none", "/file"] {
        let answer = client
            .call(
                "fs/readDirectory",
                json!({"path": lab.here(&format!("file://$DIR{name}"))}),
            )
            .await;
        let Some(entries) = answer["entries"].as_array() else {
            told.push(answer);
            continue;
        };
        let letter = |value: &Value| if value == &json!(true) { 't' } else { 'f' };
        let mut lines: Vec<_> = entries
            .iter()
            .map(|entry| {
                let kind = if entry["isDirectory"] == json!(true) {
                    'd'
                } else {
                    'f'
                };
                format!(
                    "{} {kind} {}",
                    entry["fileName"].as_str().unwrap(),
                    letter(&entry["isFile"])
                )
            })
            .collect();
        lines.sort();
        told.push(json!(lines.join("; ")));
    }
    Value::from(told)
}

async fn many(lab: Lab) -> Value {
    let mut client = lab.begin().await;
    for number in 0.. {
        let open = json!({"handleId": format!("{number}"), "path": lab.here("file://$DIR/file")});
        let told = client.call("fs/open", open).await;
        if told.is_string() {
            return json!([number, told]);
        }
    }
    unreachable!("some time there are too many")
}
