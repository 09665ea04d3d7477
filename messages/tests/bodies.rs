//! Bodies field by field: what may be absent, what must not, what else may come, and how large they get.

#[allow(dead_code, reason = "every test binary uses another part of it")]
mod common;

use bytes::Bytes;
use dwell_messages::codec::{self, DecodeError, EncodeError, HEADER_BYTES, Header};
use dwell_messages::ids::{ProcessId, RequestId};
use dwell_messages::kinds::MessageKind;
use dwell_messages::message::{Message, Reply, Request};
use dwell_messages::process::{CHUNK_MAX_BYTES, Output, OutputStream, ReadReply, Start, Write};
use dwell_messages::session::{AUTHORIZATION_MAX_BYTES, Hello, Welcome};
use dwell_messages::{Envelope, Timings, TraceContext};
use proptest::prelude::*;
use rmpv::Value;

use common::{bytes, encoded, hello, message, raw, request, start, welcome};

/// Most bytes a message may add to the output it carries: 60 of header, the map, and room for a tracestate-free context.
const OUTPUT_OVERHEAD_MAX_BYTES: usize = 160;

fn body(kind: MessageKind) -> Value {
    let message = encoded(kind);
    let header = Header::read(&message).expect("a sample has a header");
    let at = HEADER_BYTES + header.tracestate;
    read(&message[at..at + header.body])
}

fn read(mut bytes: &[u8]) -> Value {
    let value = rmpv::decode::read_value(&mut bytes).expect("a second reader understands the body");
    assert!(bytes.is_empty(), "a second reader finds one value only");
    value
}

fn write(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("a vector takes everything");
    bytes
}

fn decode(kind: MessageKind, body: &Value) -> Result<Message, DecodeError> {
    codec::decode(&raw(kind.to_wire(), 8, 5, &write(body))).map(|decoded| decoded.message)
}

fn pairs(value: &Value) -> Vec<(Value, Value)> {
    value.as_map().expect("a map").clone()
}

fn keys(value: &Value) -> Vec<String> {
    pairs(value)
        .iter()
        .map(|(key, _)| key.as_str().expect("a text key").to_owned())
        .collect()
}

/// The body's own map: of a response what its value holds, else all of it.
fn fields(kind: MessageKind) -> Vec<String> {
    let body = body(kind);
    if body["value"].is_map() {
        keys(&body["value"])
    } else {
        keys(&body)
    }
}

#[test]
fn a_second_reader_finds_the_keys_that_the_protocol_names() {
    const METADATA: &[&str] = &["kind", "size", "mode", "modified_unix_ns", "device", "inode"];
    let table: [(MessageKind, &[&str]); 77] = [
        (MessageKind::EnvironmentInfo, &[]),
        (
            MessageKind::Start,
            &[
                "argv",
                "cwd",
                "env",
                "stdin",
                "pty",
                "limits",
                "drain",
                "retention_bytes",
                "overflow",
                "spool_bytes",
                "outlive",
                "unattended",
                "credit",
                "grace_ms",
                "launch",
            ],
        ),
        (MessageKind::Write, &["offset", "data", "eof"]),
        (MessageKind::Signal, &["signal", "target", "in"]),
        (MessageKind::Terminate, &["grace_ms", "in"]),
        (MessageKind::Read, &["after", "max_bytes", "wait_ms", "in"]),
        (MessageKind::Resize, &["size"]),
        (MessageKind::Resized, &[]),
        (MessageKind::Sessions, &["after"]),
        (MessageKind::SessionsReply, &["sessions", "now_unix_ms", "next"]),
        (MessageKind::FileMetadata, &["path", "links"]),
        (MessageKind::FileRead, &["path", "offset", "max_bytes", "links"]),
        (
            MessageKind::FileWrite,
            &["path", "data", "how", "permissions", "atomic", "sync", "links"],
        ),
        (
            MessageKind::FileList,
            &["path", "after", "max_entries", "resolve"],
        ),
        (
            MessageKind::FileCreateDirectory,
            &["path", "parents", "permissions", "links"],
        ),
        (MessageKind::FileRemove, &["path", "recursive", "force", "links"]),
        (
            MessageKind::FileCopy,
            &["from", "to", "recursive", "overwrite", "links"],
        ),
        (MessageKind::FileRename, &["from", "to", "overwrite"]),
        (MessageKind::FileCanonicalize, &["path"]),
        (
            MessageKind::FileWalk,
            &[
                "handle",
                "path",
                "max_depth",
                "max_directories",
                "max_entries",
                "follow",
                "prune_hidden",
                "ignore_files",
            ],
        ),
        (MessageKind::FileWalkOn, &["handle"]),
        (
            MessageKind::FileOpen,
            &[
                "handle",
                "path",
                "access",
                "permissions",
                "atomic",
                "sync",
                "links",
            ],
        ),
        (MessageKind::FileReadBlock, &["handle", "offset", "max_bytes"]),
        (MessageKind::FileWriteBlock, &["handle", "offset", "data"]),
        (MessageKind::FileClose, &["handle", "discard"]),
        (MessageKind::FileWatch, &["handle", "missing", "present"]),
        (MessageKind::FileAwait, &["handle"]),
        (MessageKind::FileMetadataReply, METADATA),
        (MessageKind::FileContents, &["data", "end", "metadata"]),
        (MessageKind::FileWritten, &["metadata"]),
        (MessageKind::FileListing, &["entries", "end"]),
        (MessageKind::FileDirectoryCreated, &["created"]),
        (MessageKind::FileRemoved, &["entries"]),
        (MessageKind::FileCopied, &["entries", "bytes"]),
        (MessageKind::FileRenamed, &[]),
        (MessageKind::FileCanonical, &["path"]),
        (
            MessageKind::FileWalked,
            &["entries", "errors", "end", "truncated"],
        ),
        (
            MessageKind::FileWalkedOn,
            &["entries", "errors", "end", "truncated"],
        ),
        (MessageKind::FileOpened, &["metadata"]),
        (MessageKind::FileBlock, &["data", "end"]),
        (MessageKind::FileBlockWritten, &["offset"]),
        (MessageKind::FileClosed, &["metadata"]),
        (MessageKind::FileWatching, &["watching"]),
        (MessageKind::FileSeen, &[]),
        (
            MessageKind::HttpOpen,
            &[
                "exchange",
                "method",
                "url",
                "headers",
                "redirects",
                "timeout_ms",
                "body_bytes",
                "data",
            ],
        ),
        (MessageKind::HttpSend, &["exchange", "data"]),
        (MessageKind::HttpRead, &["exchange", "max_bytes"]),
        (MessageKind::HttpClose, &["exchange"]),
        (MessageKind::HttpHead, &["status", "headers"]),
        (MessageKind::HttpSent, &[]),
        (MessageKind::HttpBody, &["data", "end"]),
        (MessageKind::HttpClosed, &[]),
        (MessageKind::FindUp, &["from", "markers", "on_error"]),
        (
            MessageKind::FoundUp,
            &["root", "marker", "visited", "probed", "ignored"],
        ),
        (
            MessageKind::WorkspaceLoad,
            &[
                "cwd",
                "markers",
                "agents",
                "skills",
                "user_skills",
                "home",
                "text_max_bytes",
            ],
        ),
        (
            MessageKind::WorkspaceLoaded,
            &[
                "cwd",
                "root",
                "agents",
                "agents_truncated",
                "agents_error",
                "skills",
                "skills_truncated",
                "repository",
                "warnings",
                "warnings_dropped",
                "stages",
                "counts",
            ],
        ),
        (
            MessageKind::EnvironmentInfoReply,
            &[
                "os",
                "arch",
                "hostname",
                "version",
                "cwd",
                "shell",
                "cpus",
                "capabilities",
            ],
        ),
        (MessageKind::Started, &["pid", "containment", "withheld"]),
        (MessageKind::Written, &["offset"]),
        (MessageKind::Signalled, &[]),
        (MessageKind::Terminated, &["killed", "unkillable"]),
        (
            MessageKind::ReadReply,
            &["events", "next", "closed", "truncated", "gaps", "ended"],
        ),
        (
            MessageKind::Error,
            &["code", "message", "errno", "limit", "actual"],
        ),
        (MessageKind::Output, &["n", "s", "o", "d"]),
        (
            MessageKind::Exited,
            &[
                "event",
                "status",
                "core_dumped",
                "oom_killed",
                "usage",
                "ending",
                "stdout_end",
                "stderr_end",
            ],
        ),
        (
            MessageKind::Closed,
            &[
                "event",
                "status",
                "stdout_end",
                "stderr_end",
                "drained",
                "holders",
                "timings",
            ],
        ),
        (MessageKind::Cancel, &[]),
        (MessageKind::Ack, &["v", "r"]),
        (MessageKind::Gap, &["n", "s", "f", "t"]),
        (
            MessageKind::Resume,
            &[
                "session",
                "token",
                "owner",
                "link",
                "received",
                "processes",
                "whole",
            ],
        ),
        (
            MessageKind::Resumed,
            &["owner", "received", "from", "anew", "requests", "processes"],
        ),
        (MessageKind::ResumeRefused, &["error", "owner"]),
        (MessageKind::Credit, &["s", "l"]),
        (MessageKind::Ping, &["v"]),
        (MessageKind::Pong, &["v", "t"]),
        (MessageKind::Goodbye, &["reason"]),
        (
            MessageKind::TraceRecords,
            &["role", "spans", "dropped", "last", "also"],
        ),
    ];
    assert_eq!(table.len(), MessageKind::ALL.len());
    for (kind, expected) in table {
        assert_eq!(fields(kind), expected, "{kind:?}");
    }
}

#[test]
fn what_a_second_writer_wrote_means_the_same() {
    for kind in MessageKind::ALL {
        let again = decode(*kind, &body(*kind)).unwrap();
        assert_eq!(again.kind(), *kind);
        let expected = codec::encode(&Envelope::new(TraceContext::default(), again), 1).unwrap();
        let header = Header::read(&expected).unwrap();
        assert_eq!(
            read(&expected[HEADER_BYTES..HEADER_BYTES + header.body]),
            body(*kind)
        );
    }
}

#[test]
fn bytes_travel_as_bytes_and_not_as_arrays_of_numbers() {
    let start = body(MessageKind::Start);
    assert!(start["argv"][0].is_bin() && start["cwd"].is_bin() && start["launch"].is_bin());
    assert!(start["env"]["set"][0][0].is_bin() && start["env"]["set"][0][1].is_bin());
    assert!(start["env"]["unset"][0].is_bin());
    assert!(body(MessageKind::Output)["d"].is_bin() && body(MessageKind::Write)["data"].is_bin());
    assert!(body(MessageKind::TraceRecords)["spans"].is_bin());
    assert!(body(MessageKind::FileWrite)["path"].is_bin() && body(MessageKind::FileWrite)["data"].is_bin());
    let contents = &body(MessageKind::FileContents)["value"];
    assert!(contents["data"].is_bin() && body(MessageKind::FileWriteBlock)["data"].is_bin());
    let page = &body(MessageKind::FileWalked)["value"];
    assert!(page["entries"][0]["p"].is_bin() && page["errors"][0]["p"].is_bin());
    assert!(body(MessageKind::FileListing)["value"]["entries"][0]["name"].is_bin());
    assert!(read(&hello().encode().unwrap())["authorization"].is_bin());
    let welcome = read(&welcome().encode().unwrap());
    assert!(welcome["epoch"].is_bin() && welcome["grant"].is_bin() && welcome["environment"]["cwd"].is_bin());
}

#[test]
fn the_overhead_of_an_output_is_small_and_does_not_grow_with_its_bytes() {
    for fill in [0x00, 0x7f, 0xff] {
        let data = Bytes::from(vec![fill; 32 * 1_024]);
        let length = data.len();
        let message = common_output(u64::MAX, data);
        let encoded = codec::encode(&Envelope::new(context_without_state(), message), u64::MAX).unwrap();
        let overhead = encoded.len() - length;
        assert!(
            overhead <= OUTPUT_OVERHEAD_MAX_BYTES,
            "{overhead} bytes for fill {fill:#x}"
        );
    }
}

/// The positive control: without `serde_bytes` the bound above does not hold.
#[test]
fn bytes_without_serde_bytes_would_pass_the_bound() {
    let naive = rmp_serde::to_vec_named(&vec![0xff_u8; 32 * 1_024]).unwrap();
    assert!(naive.len() > 32 * 1_024 + OUTPUT_OVERHEAD_MAX_BYTES);
}

fn context_without_state() -> TraceContext {
    TraceContext {
        state: None,
        ..common::context()
    }
}

fn common_output(offset: u64, data: Bytes) -> Message {
    Message::Event {
        process: ProcessId(u64::MAX),
        event: output(offset, data).into(),
    }
}

fn output(offset: u64, data: Bytes) -> Output {
    Output {
        event: u64::MAX,
        stream: OutputStream::Stderr,
        offset,
        data,
    }
}

const OPTIONAL: [&str; 46] = [
    "redirects",
    "timeout_ms",
    "home",
    "links",
    "how",
    "permissions",
    "atomic",
    "sync",
    "resolve",
    "parents",
    "recursive",
    "force",
    "overwrite",
    "follow",
    "prune_hidden",
    "ignore_files",
    "pty",
    "limits",
    "drain",
    "retention_bytes",
    "overflow",
    "spool_bytes",
    "r",
    "whole",
    "anew",
    "outlive",
    "unattended",
    "in",
    "target",
    "oom_killed",
    "usage",
    "ending",
    "holders",
    "cwd",
    "env",
    "stdin",
    "launch",
    "eof",
    "withheld",
    "errno",
    "limit",
    "actual",
    "core_dumped",
    "timings",
    "dropped",
    "shell",
];

#[test]
fn a_missing_field_is_named_unless_it_is_optional() {
    for kind in MessageKind::ALL {
        let whole = body(*kind);
        for (at, key) in keys(&whole).into_iter().enumerate() {
            let mut without = pairs(&whole);
            without.remove(at);
            let outcome = decode(*kind, &Value::Map(without));
            // A closed event may not know its status, nor an earlier pong its clock; a response without a value says nothing.
            let optional = OPTIONAL.contains(&key.as_str())
                || matches!(
                    (*kind, key.as_str()),
                    (MessageKind::Closed, "status")
                        | (MessageKind::Pong, "t")
                        | (MessageKind::FileRead, "offset")
                        | (MessageKind::FileList, "after")
                        | (MessageKind::TraceRecords, "also")
                        | (MessageKind::HttpOpen, "headers" | "data")
                        | (MessageKind::FileWatch, "present")
                        | (MessageKind::FileClose, "discard") // Among an answer's own fields: the value it lies in is never missing.
                );
            match outcome {
                Ok(_) => assert!(optional, "{kind:?} without {key} was accepted"),
                Err(error) => {
                    assert!(!optional, "{kind:?} without {key}: {error}");
                    assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
                    let answerable = (kind.to_wire() < 0x40).then_some(RequestId(8));
                    assert_eq!(error.request_id(), answerable, "{kind:?}");
                }
            }
        }
    }
}

#[test]
fn what_a_newer_peer_adds_is_passed_over() {
    let nested = Value::Map(vec![(
        Value::from(1),
        Value::Array(vec![Value::Nil, Value::from(2.5)]),
    )]);
    for kind in MessageKind::ALL {
        let expected = decode(*kind, &body(*kind)).unwrap();
        for first in [true, false] {
            let mut more = pairs(&body(*kind));
            let at = if first { 0 } else { more.len() };
            more.insert(at, ("from_the_future".into(), nested.clone()));
            assert_eq!(decode(*kind, &Value::Map(more)), Ok(expected.clone()), "{kind:?}");
        }
    }
}

#[test]
fn a_key_that_comes_twice_is_refused_and_named() {
    for kind in MessageKind::ALL {
        for (key, value) in pairs(&body(*kind)) {
            let mut twice = pairs(&body(*kind));
            twice.push((key.clone(), value));
            let error = decode(*kind, &Value::Map(twice)).expect_err("a key came twice");
            let why = format!("duplicate field `{}`", key.as_str().unwrap());
            assert!(error.to_string().contains(&why), "{kind:?}: {error}");
        }
    }
}

#[test]
fn a_field_of_another_type_is_refused() {
    for kind in MessageKind::ALL {
        for (at, key) in keys(&body(*kind)).into_iter().enumerate() {
            let mut other = pairs(&body(*kind));
            // No field of any body is a map with a numeric key.
            other[at].1 = Value::Map(vec![(Value::from(-1), Value::from(-1)), (Value::Nil, Value::Nil)]);
            let outcome = decode(*kind, &Value::Map(other));
            // Structs whose fields are all optional pass unknown keys over.
            if outcome.is_ok() {
                assert_eq!(key, "timings", "{kind:?}");
            }
        }
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_and_bytes_are_not_text() {
    let invalid = [0x81, 0xa6, b'r', b'e', b'a', b's', b'o', b'n', 0xa2, 0xff, 0xfe];
    let error = codec::decode(&raw(MessageKind::Goodbye.to_wire(), 0, 0, &invalid)).unwrap_err();
    assert!(matches!(error, DecodeError::BadBody { id: None, .. }), "{error}");
    // A key that is not UTF-8 is one more unknown field.
    let key = [0x82, 0xa1, 0xff, 1, 0xa1, b'v', 7];
    let decoded = codec::decode(&raw(MessageKind::Ping.to_wire(), 0, 0, &key)).unwrap();
    assert_eq!(decoded.message, Message::Ping(7));
}

/// Every start that no system could run, and the field that is to blame.
fn impossible_starts() -> Vec<(&'static str, Start)> {
    let with = |field, change: &dyn Fn(&mut Start)| {
        let mut start = start();
        change(&mut start);
        (field, start)
    };
    vec![
        with("argv", &|start| start.argv[0] = bytes(b"s\0h")),
        with("argv", &|start| start.argv.push(bytes(b"\0"))),
        with("cwd", &|start| start.cwd = Some(bytes(b"/tmp\0"))),
        with("env.set", &|start| start.env.set[0].0 = bytes(b"A\0")),
        with("env.set", &|start| start.env.set[0].1 = bytes(b"\0")),
        with("env.set", &|start| start.env.set[0].0 = bytes(b"A=B")),
        with("env.set", &|start| start.env.set[0].0 = bytes(b"=")),
        with("env.set", &|start| start.env.set[0].0 = bytes(b"")),
        with("argv", &|start| start.argv = vec![bytes(b""); 65_537]),
        with("env.unset", &|start| start.env.unset = vec![bytes(b""); 65_537]),
    ]
}

#[test]
fn a_start_that_no_system_takes_is_refused_on_both_sides() {
    for (expected, start) in impossible_starts() {
        let envelope = Envelope::new(
            common::context(),
            request(Request::Start(Box::new(start.clone()))),
        );
        match codec::encode(&envelope, 1) {
            Err(EncodeError::BadString { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
        let body = rmp_serde::to_vec_named(&start).unwrap();
        let error = codec::decode(&raw(MessageKind::Start.to_wire(), 8, 5, &body)).unwrap_err();
        assert_eq!(error.request_id(), Some(RequestId(8)), "{error}");
        assert!(matches!(error, DecodeError::BadBody { .. }), "{error}");
    }
}

#[test]
fn an_equals_sign_in_a_value_and_a_newline_in_a_name_are_the_callers_business() {
    let mut odd = start();
    odd.env.set = vec![(bytes(b"A\n"), bytes(b"=b=c="))];
    let envelope = Envelope::new(common::context(), request(Request::Start(Box::new(odd))));
    let encoded = codec::encode(&envelope, 1).unwrap();
    assert_eq!(codec::decode(&encoded).unwrap().message, envelope.body);
}

/// Messages with one chunk of `length`: pushed, written, and inside an answer to a read.
fn chunks(length: usize) -> [Message; 3] {
    let data = Bytes::from(vec![7; length]);
    [
        common_output(0, data.clone()),
        request(Request::Write(Write {
            offset: 0,
            data: data.clone(),
            eof: false,
        })),
        Message::Response {
            id: RequestId(8),
            result: Ok(Reply::Read(ReadReply {
                ended: false,
                events: vec![output(0, data).into()],
                next: 1,
                closed: false,
                truncated: false,
                gaps: Vec::new(),
            })),
            timings: Timings::default(),
        },
    ]
}

/// Chunks inside an answer to a read once had no limit of their own.
#[test]
fn a_chunk_past_the_limit_is_refused_on_both_sides() {
    for message in chunks(CHUNK_MAX_BYTES) {
        let envelope = Envelope::new(common::context(), message);
        let encoded = codec::encode(&envelope, 1).unwrap();
        assert_eq!(codec::decode(&encoded).unwrap().message, envelope.body);
    }
    let actual = CHUNK_MAX_BYTES + 1;
    let over = [
        rmp_serde::to_vec_named(&output(0, vec![7; actual].into())).unwrap(),
        rmp_serde::to_vec_named(&Write {
            offset: 0,
            data: vec![7; actual].into(),
            eof: false,
        })
        .unwrap(),
        {
            let event = rmp_serde::to_vec_named(&output(0, vec![7; actual].into())).unwrap();
            let event = Value::Map(vec![("output".into(), read(&event))]);
            let reply = vec![
                ("events".into(), Value::Array(vec![event])),
                ("next".into(), 1.into()),
                ("closed".into(), false.into()),
                ("truncated".into(), false.into()),
            ];
            write(&Value::Map(vec![("value".into(), Value::Map(reply))]))
        },
    ];
    for (message, body) in chunks(actual).into_iter().zip(over) {
        let kind = message.kind().to_wire();
        let limit = CHUNK_MAX_BYTES;
        let refused = codec::encode(&Envelope::new(common::context(), message), 1);
        assert_eq!(refused, Err(EncodeError::TooLarge { limit, actual }));
        let error = codec::decode(&raw(kind, 8, 5, &body)).unwrap_err();
        assert!(error.to_string().contains("65537 bytes in one chunk"), "{error}");
    }
}

#[test]
fn a_message_too_large_leaves_what_was_encoded_before_it() {
    let mut huge = start();
    huge.argv = vec![bytes(&vec![b'x'; codec::MESSAGE_MAX_BYTES])];
    let mut out = bytes::BytesMut::from(&b"before"[..]);
    for message in [
        request(Request::Start(Box::new(huge))),
        request(Request::Start(Box::new(impossible_starts()[0].1.clone()))),
    ] {
        let envelope = Envelope::new(common::context(), message);
        assert!(codec::encode_into(&mut out, &envelope, 1).is_err());
        assert_eq!(&out[..], b"before");
    }
    let envelope = Envelope::new(common::context(), message(MessageKind::Ping));
    codec::encode_into(&mut out, &envelope, 1).unwrap();
    assert_eq!(&out[6..], &codec::encode(&envelope, 1).unwrap()[..]);
}

#[test]
fn the_handshakes_lengths_are_checked() {
    let mut long = hello();
    long.authorization = bytes(&[1; AUTHORIZATION_MAX_BYTES]);
    assert_eq!(Hello::decode(&long.encode().unwrap()), Ok(long.clone()));
    long.authorization.push(1);
    let limit = AUTHORIZATION_MAX_BYTES;
    let actual = limit + 1;
    assert_eq!(long.encode(), Err(EncodeError::TooLarge { limit, actual }));
    let body = rmp_serde::to_vec_named(&long).unwrap();
    assert_eq!(Hello::decode(&body), Err(DecodeError::TooLarge { limit, actual }));

    for length in [0, 15, 17] {
        let mut short = welcome();
        short.epoch = bytes(&vec![1; length]);
        let error = Welcome::decode(&short.encode().unwrap()).unwrap_err();
        assert!(error.to_string().contains("epoch has"), "{error}");
    }
    let mut short = welcome();
    short.grant = bytes(&[1; 31]);
    let error = Welcome::decode(&short.encode().unwrap()).unwrap_err();
    assert!(
        error.to_string().contains("grant has 31 bytes and must have 32"),
        "{error}"
    );
}

#[test]
fn a_hello_of_a_newer_client_and_a_bare_one_are_understood() {
    let body = write(&Value::Map(vec![
        ("timestamp_ms".into(), 5.into()),
        ("later".into(), Value::Nil),
    ]));
    let hello = Hello::decode(&body).unwrap();
    assert_eq!((hello.timestamp_ms, hello.authorization.len()), (5, 0));
    let error = Hello::decode(&write(&Value::Map(vec![]))).unwrap_err();
    assert!(error.to_string().contains("`timestamp_ms`"), "{error}");
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 80, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            proptest::collection::vec((inner.clone(), inner), 0..20).prop_map(Value::from),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// What a second writer calls MessagePack passes, wherever nobody reads it.
    #[test]
    fn any_value_of_a_second_writer_is_passed_over_in_an_unknown_field(value in any_value()) {
        let body = Value::Map(vec![("later".into(), value), ("v".into(), 7.into())]);
        prop_assert_eq!(decode(MessageKind::Ping, &body), Ok(Message::Ping(7)));
    }

    /// What we accept a second reader understands too, as one value and to its last byte.
    #[test]
    fn a_changed_body_that_is_accepted_is_accepted_by_a_second_reader(
        kind in proptest::sample::select(MessageKind::ALL),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = write(&body(kind));
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if codec::decode(&raw(kind.to_wire(), 8, 5, &bytes)).is_ok() {
            prop_assert!(read(&bytes).is_map());
        }
    }
}
