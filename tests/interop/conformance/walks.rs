//! Section 8: `fs/walk`.

use serde_json::{Value, json};

use super::edges::without_privileges;
use super::lab::Lab;
use super::{Case, Holds};

pub(crate) const CASES: &[Case] = &[
    Case::same(
        "walk.breadth-first-by-name",
        "8",
        &[
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dir","options":{"maxDepth":6,"maxDirectories":2000,"maxEntries":20000,"followDirectorySymlinks":false,"pruneHiddenDirectories":true}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dir","options":{"maxDepth":0,"maxDirectories":2000,"maxEntries":20000,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dir","options":{"maxDepth":64,"maxDirectories":10000,"maxEntries":50000,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dir","options":{"maxDepth":6,"maxDirectories":10,"maxEntries":2,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
        ],
        r#"[{"entries": [{"path": "file://$DIR/dir/.hidden", "kind": "directory"}, {"path": "file://$DIR/dir/a", "kind": "file"},
                         {"path": "file://$DIR/dir/b", "kind": "file"}, {"path": "file://$DIR/dir/sub", "kind": "directory"},
                         {"path": "file://$DIR/dir/sub/c", "kind": "file"}], "errors": [], "truncated": false},
            {"entries": [{"path": "file://$DIR/dir/.hidden"}, {"path": "file://$DIR/dir/a"}, {"path": "file://$DIR/dir/b"}, {"path": "file://$DIR/dir/sub"}]},
            {"entries": [{"path": "file://$DIR/dir/.hidden"}, {"path": "file://$DIR/dir/a"}, {"path": "file://$DIR/dir/b"}, {"path": "file://$DIR/dir/sub"},
                         {"path": "file://$DIR/dir/.hidden/d"}, {"path": "file://$DIR/dir/sub/c"}]},
            {"entries": [{"path": "file://$DIR/dir/.hidden"}, {"path": "file://$DIR/dir/a"}], "truncated": true}]"#,
    ),
    Case::same(
        "walk.links-to-directories-are-entered-once",
        "8",
        &[(
            "fs/walk",
            r#"{"path":"file://$DIR/dir","options":{"maxDepth":6,"maxDirectories":2000,"maxEntries":20000,"followDirectorySymlinks":true,"pruneHiddenDirectories":true}}"#,
        )],
        r#"[{"entries": [{"path": "file://$DIR/dir/.hidden"}, {"path": "file://$DIR/dir/a"}, {"path": "file://$DIR/dir/b"},
                         {"path": "file://$DIR/dir/sub"}, {"path": "file://$DIR/dir/sublink", "kind": "directory"},
                         {"path": "file://$DIR/dir/sub/c"}], "truncated": false}]"#,
    ),
    Case::same(
        "walk.bounds-and-odd-roots",
        "8",
        &[
            (
                "fs/walk",
                r#"{"path":"file://$DIR","options":{"maxDepth":65,"maxDirectories":1,"maxEntries":1,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR","options":{"maxDepth":1,"maxDirectories":10001,"maxEntries":1,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR","options":{"maxDepth":1,"maxDirectories":1,"maxEntries":50001,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR","options":{"maxDepth":1,"maxDirectories":0,"maxEntries":1,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR","options":{"maxDepth":1,"maxDirectories":1,"maxEntries":0,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            ("fs/walk", r#"{"path":"file://$DIR","options":{"maxDepth":1}}"#),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/file","options":{"maxDepth":1,"maxDirectories":1,"maxEntries":1,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/none","options":{"maxDepth":1,"maxDirectories":1,"maxEntries":1,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
        ],
        r#"["-32600 *", "-32600 *", "-32600 *", "-32600 *", "-32600 *", "-32602 missing field *",
            {"entries": [], "errors": [], "truncated": false}, "-32004 No such file or directory (os error 2)"]"#,
    ),
    Case::scene(
        "walk.what-cannot-be-read-is-told-as-an-error",
        "8",
        |lab| Box::pin(unreadable(lab)),
        Holds::Both(
            r#"[{"entries": [{"path": "file://$DIR/open/a", "kind": "file"}, {"path": "file://$DIR/open/locked", "kind": "directory"}],
                 "errors": [{"=": {"path": "file://$DIR/open/locked", "message": "Permission denied (os error 13)"}}], "truncated": false},
                {"entries": [], "errors": [{"path": "file://$DIR/open/locked"}], "truncated": false}]"#,
        ),
    ),
    Case::same(
        "walk.which-members-must-be-there",
        "8",
        &[
            (
                "fs/walk",
                r#"{"path":"file://$DIR","options":{"maxDirectories":9,"maxEntries":9,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR","options":{"maxDepth":0,"maxEntries":9,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR","options":{"maxDepth":0,"maxDirectories":9,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR","options":{"maxDepth":0,"maxDirectories":9,"maxEntries":9,"pruneHiddenDirectories":false}}"#,
            ),
            // Of this one it is said that it must be there, and it need not be: hidden directories are entered.
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dir","options":{"maxDepth":9,"maxDirectories":9,"maxEntries":9,"followDirectorySymlinks":false}}"#,
            ),
            ("fs/walk", r#"{"path":"file://$DIR"}"#),
        ],
        r#"["-32602 missing field `maxDepth`", "-32602 missing field `maxDirectories`", "-32602 missing field `maxEntries`",
            "-32602 missing field `followDirectorySymlinks`",
            {"entries": [{"path": "file://$DIR/dir/.hidden"}, {"path": "file://$DIR/dir/a"}, {"path": "file://$DIR/dir/b"},
                         {"path": "file://$DIR/dir/sub"}, {"path": "file://$DIR/dir/.hidden/d"}, {"path": "file://$DIR/dir/sub/c"}]},
            "-32602 missing field `options`"]"#,
    ),
    Case::same(
        "walk.what-is-cut-short-and-what-is-not-told",
        "8",
        &[
            (
                "fs/walk",
                r#"{"path":"file://$DIR","options":{"maxDepth":0,"maxDirectories":9,"maxEntries":99,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dir","options":{"maxDepth":9,"maxDirectories":9,"maxEntries":8,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dir","options":{"maxDepth":9,"maxDirectories":9,"maxEntries":7,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dir","options":{"maxDepth":9,"maxDirectories":1,"maxEntries":9,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dir","options":{"maxDepth":9,"maxDirectories":3,"maxEntries":9,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dirlink","options":{"maxDepth":0,"maxDirectories":3,"maxEntries":9,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dirlink/sub","options":{"maxDepth":0,"maxDirectories":3,"maxEntries":9,"followDirectorySymlinks":false,"pruneHiddenDirectories":false}}"#,
            ),
            (
                "fs/walk",
                r#"{"path":"file://$DIR/dirlink","options":{"maxDepth":0,"maxDirectories":3,"maxEntries":9,"followDirectorySymlinks":true,"pruneHiddenDirectories":false}}"#,
            ),
        ],
        r#"[{"entries": [{"path": "file://$DIR/dir"}, {"path": "file://$DIR/empty"}, {"path": "file://$DIR/file", "kind": "file"}],
             "errors": [], "truncated": false},
            {"entries": ["*", "*", "*", "*", "*", "*"], "truncated": false}, {"entries": ["*", "*", "*", "*", "*"], "truncated": true},
            {"entries": ["*", "*", "*", "*"], "truncated": true},
            {"entries": ["*", "*", "*", "*", "*", "*"], "truncated": false}, {"entries": [], "errors": [], "truncated": false},
            {"entries": [{"path": "file://$DIR/dirlink/sub/c"}]},
            {"entries": [{"path": "file://$DIR/dirlink/.hidden"}, {"path": "file://$DIR/dirlink/a"}, {"path": "file://$DIR/dirlink/b"},
                         {"path": "file://$DIR/dirlink/sub"}, {"path": "file://$DIR/dirlink/sublink"}]}]"#,
    ),
];

async fn unreadable(lab: Lab) -> Value {
    let mut own = without_privileges(&lab);
    let mut client = own.begin().await;
    let options = json!({"maxDepth": 9, "maxDirectories": 9, "maxEntries": 9, "followDirectorySymlinks": false, "pruneHiddenDirectories": false});
    let mut told = Vec::new();
    for root in ["file://$DIR/open", "file://$DIR/open/locked"] {
        let walk = json!({"path": lab.here(root), "options": options});
        told.push(client.call("fs/walk", walk).await);
    }
    serde_json::from_str(&lab.anywhere(&json!(told).to_string(), None)).unwrap()
}
