//! Section 6.3: `process/read`.

use serde_json::{Value, json};

use super::lab::Lab;
use super::{Case, Holds, steps};

pub(crate) const CASES: &[Case] = &[
    Case::same(
        "read.answer",
        "6.3",
        &[
            ("@sh", "p echo a; exit 3"),
            ("@events", "p"),
            ("process/read", r#"{"processId":"p"}"#),
            (
                "process/read",
                r#"{"processId":"p","afterSeq":null,"maxBytes":null,"waitMs":null}"#,
            ),
            ("process/read", r#"{"processId":"p","afterSeq":3}"#),
        ],
        r#"[{}, {"exit": 3, "denied": false, "dense": true, "stdout": "a\n"},
            {"chunks": [{"seq": "*", "stream": "stdout", "chunk": "YQo="}], "nextSeq": 4, "exited": true, "exitCode": 3,
             "closed": true, "failure": null, "sandboxDenied": false},
            {"chunks": [{"stream": "stdout", "chunk": "YQo="}], "nextSeq": 4},
            {"chunks": [], "nextSeq": 4, "exited": true, "closed": true}]"#,
    ),
    Case::same(
        "read.one-chunk-in-any-case-and-the-rest-within-max-bytes",
        "6.3",
        &[
            ("@run", r#"{"argv":["cat"],"pipeStdin":true}"#),
            (
                "process/write",
                r#"{"processId":"p","chunk":"YQo=","writeId":"1"}"#,
            ),
            ("@output", "p"),
            (
                "process/write",
                r#"{"processId":"p","chunk":"Ygo=","writeId":"2"}"#,
            ),
            ("@output", "p"),
            ("process/read", r#"{"processId":"p","maxBytes":0}"#),
            ("process/read", r#"{"processId":"p","maxBytes":4}"#),
            ("process/read", r#"{"processId":"p","maxBytes":3}"#),
            ("process/read", r#"{"processId":"p","afterSeq":2,"maxBytes":9}"#),
        ],
        r#"[{}, {}, [1, "stdout", "a\n"], {}, [2, "stdout", "b\n"], {"chunks": [{"seq": 1}], "nextSeq": 2},
            {"chunks": [{"seq": 1}, {"seq": 2}], "nextSeq": 3}, {"chunks": [{"seq": 1}], "nextSeq": 2},
            {"chunks": [], "nextSeq": 3, "exited": false, "exitCode": null, "closed": false}]"#,
    ),
    Case::same(
        "read.waits-for-output-exit-and-its-time",
        "6.3",
        &[
            (
                "@sh",
                "p while [ ! -e $DIR/go ]; do sleep 0.01; done; echo a; while [ ! -e $DIR/end ]; do sleep 0.01; done; exit 4",
            ),
            ("process/read", r#"{"processId":"p","waitMs":30}"#),
            ("@touch", "$DIR/go"),
            (
                "process/read",
                r#"{"processId":"p","waitMs":18446744073709551615}"#,
            ),
            ("@touch", "$DIR/end"),
            ("process/read", r#"{"processId":"p","afterSeq":1,"waitMs":10000}"#),
        ],
        r#"[{}, {"chunks": [], "nextSeq": 1, "exited": false}, {"chunks": [{"seq": 1}]}, {"chunks": [], "exited": true, "exitCode": 4}]"#,
    ),
    Case::same(
        "read.an-end-is-not-waited-for",
        "6.3",
        &[
            ("@sh", "p exit 0"),
            ("@events", "p"),
            (
                "process/read",
                r#"{"processId":"p","afterSeq":1000,"waitMs":1000000}"#,
            ),
        ],
        r#"[{}, {"order": "ec"}, {"chunks": [], "closed": true}]"#,
    ),
    Case::same(
        "read.unknown-process",
        "6.3",
        &[
            ("process/read", r#"{"processId":"x"}"#),
            ("process/read", r#"{"processId":"x","afterSeq":-1}"#),
        ],
        r#"["-32600 unknown process id x", "-32602 *"]"#,
    ),
    Case::scene(
        "read.the-newest-mebibyte-is-kept",
        "6.3",
        |lab| Box::pin(kept(lab)),
        Holds::Both(r#"{"is_dense": true, "begins_late": true, "is_within": true}"#),
    ),
];

async fn kept(lab: Lab) -> Value {
    const KEPT: usize = 1024 * 1024;
    let mut client = lab.begin().await;
    let flood = json!({"argv": ["head", "-c", "3000000", "/dev/zero"]});
    client.call("process/start", steps::start(&flood)).await;
    steps::events(&mut client, "p").await;
    let told = client.call("process/read", json!({"processId": "p"})).await;
    let chunks = told["chunks"].as_array().unwrap();
    let seqs: Vec<_> = chunks
        .iter()
        .map(|chunk| chunk["seq"].as_u64().unwrap())
        .collect();
    let bytes: usize = chunks
        .iter()
        .map(|chunk| chunk["chunk"].as_str().unwrap().len() / 4 * 3)
        .sum();
    json!({
        // The exit may stand among them, and has a number as well.
        "is_dense": seqs[seqs.len() - 1] - seqs[0] < seqs.len() as u64 + 1,
        "begins_late": seqs[0] > 1,
        // Whole chunks, the longest of 64 KiB; and what base64 fills up with.
        "is_within": bytes <= KEPT + 3 * chunks.len() && bytes + 64 * 1024 > KEPT,
    })
}
