//! What goes over the wire, letter by letter.

use bytes::Bytes;
use dwell_messages::dialect::{Accepted, EnvironmentInfo, ShellInfo, WriteStatus};
use dwell_messages::dialect::{
    Blob, Chunk, Closed, Exited, Fault, FileInfo, Id, Incoming, Initialize, Initialized, Output, ReadAnswer,
    Started, StreamName, Terminated, encode_error, encode_notification, encode_response, notification,
};
use serde_json::json;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn blob(bytes: &'static [u8]) -> Blob {
    Blob(Bytes::from_static(bytes))
}

#[test]
fn events_of_a_process() {
    let output = Output {
        process_id: "p1".into(),
        seq: 1,
        stream: StreamName::Stdout,
        chunk: blob(b"out\n"),
    };
    assert_eq!(
        text(encode_notification(notification::OUTPUT, &output)),
        r#"{"method":"process/output","params":{"processId":"p1","seq":1,"stream":"stdout","chunk":"b3V0Cg=="}}"#
    );
    let exited = Exited {
        process_id: "p1".into(),
        seq: 3,
        exit_code: 3,
        sandbox_denied: Some(false),
    };
    assert_eq!(
        text(encode_notification(notification::EXITED, &exited)),
        r#"{"method":"process/exited","params":{"processId":"p1","seq":3,"exitCode":3,"sandboxDenied":false}}"#
    );
    let closed = Closed {
        process_id: "p1".into(),
        seq: 4,
    };
    assert_eq!(
        text(encode_notification(notification::CLOSED, &closed)),
        r#"{"method":"process/closed","params":{"processId":"p1","seq":4}}"#
    );
}

#[test]
fn answers() {
    let one = Id::Number(1);
    let started = Started {
        process_id: "p1".into(),
        sandbox_type: Some("none".into()),
        sandbox: None,
    };
    assert_eq!(
        text(encode_response(&one, &started)),
        r#"{"id":1,"result":{"processId":"p1","sandboxType":"none"}}"#
    );
    let read = ReadAnswer {
        chunks: vec![Chunk {
            seq: 2,
            stream: StreamName::Pty,
            chunk: blob(b""),
        }],
        next_seq: 5,
        exited: true,
        exit_code: Some(3),
        closed: true,
        failure: None,
        sandbox_denied: false,
    };
    assert_eq!(
        text(encode_response(&Id::Text("x".into()), &read)),
        r#"{"id":"x","result":{"chunks":[{"seq":2,"stream":"pty","chunk":""}],"nextSeq":5,"exited":true,"exitCode":3,"closed":true,"failure":null,"sandboxDenied":false}}"#
    );
    assert_eq!(
        text(encode_response(
            &one,
            &Accepted {
                status: WriteStatus::StdinClosed
            }
        )),
        r#"{"id":1,"result":{"status":"stdinClosed"}}"#
    );
    assert_eq!(
        text(encode_response(&one, &Terminated { running: true })),
        r#"{"id":1,"result":{"running":true}}"#
    );
    let info = FileInfo {
        is_directory: false,
        is_file: true,
        is_symlink: false,
        size: 3,
        created_at_ms: 0,
        modified_at_ms: 5,
    };
    assert_eq!(
        text(encode_response(&one, &info)),
        r#"{"id":1,"result":{"isDirectory":false,"isFile":true,"isSymlink":false,"size":3,"createdAtMs":0,"modifiedAtMs":5}}"#
    );
    assert_eq!(
        text(encode_error(&Id::NOBODY, &Fault::invalid_request("why"))),
        r#"{"error":{"code":-32600,"message":"why"},"id":-1}"#
    );
}

#[test]
fn a_session_begins_as_a_stock_client_has_it() {
    let sent = br#"{"id":1,"method":"initialize","params":{"clientName":"codex-environment","resumeSessionId":null}}"#;
    let Incoming::Request { params, .. } = Incoming::decode(sent).unwrap() else {
        panic!("a request");
    };
    let initialize: Initialize = serde_json::from_value(params).unwrap();
    assert_eq!(
        (&*initialize.client_name, initialize.resume_session_id),
        ("codex-environment", None)
    );
    let answer = Initialized {
        session_id: "s".into(),
        environment_info: Some(EnvironmentInfo {
            shell: ShellInfo {
                name: "bash".into(),
                path: "/bin/bash".into(),
            },
            executor_version: "0.1.0".into(),
            ..EnvironmentInfo::default()
        }),
    };
    let value = serde_json::to_value(&answer).unwrap();
    assert_eq!(
        value["environmentInfo"]["shell"],
        json!({"name": "bash", "path": "/bin/bash"})
    );
    assert_eq!(
        value["environmentInfo"]["capabilities"]["fsWatchMissing"],
        json!(false)
    );
    // What a minimal server says is enough.
    let minimal =
        json!({"sessionId": "x", "environmentInfo": {"shell": {"name": "bash", "path": "/bin/bash"}}});
    let minimal: Initialized = serde_json::from_value(minimal).unwrap();
    assert_eq!(minimal.environment_info.unwrap().cwd, None);
}

/// One type, two encodings: text for people, bytes for machines.
#[test]
fn bytes_are_base64_for_people_and_themselves_for_machines() {
    let blob = blob(&[0, 255, 7]);
    assert_eq!(serde_json::to_string(&blob).unwrap(), r#""AP8H""#);
    let packed = rmp_serde::to_vec(&blob).unwrap();
    assert_eq!(packed, [0xc4, 3, 0, 255, 7]);
    assert_eq!(rmp_serde::from_slice::<Blob>(&packed).unwrap(), blob);
    assert_eq!(serde_json::from_str::<Blob>(r#""AP8H""#).unwrap(), blob);
}
