//! Whatever one client does, another's session goes on.

use dwell_messages::dialect::{DEPTH_MAX, FRAME_MAX_BYTES, MESSAGE_MAX_BYTES, VALUES_MAX};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::client::{Client, address, bounded, executor, shell, start_with, written};

#[tokio::test]
async fn no_misuse_takes_down_another_session() {
    let executor = executor().await;
    let url = executor.dialect_url().unwrap().to_owned();
    let (mut honest, _) = Client::begin(&executor).await;
    let cat = start_with("cat", &["cat"], &json!({"pipeStdin": true}));
    honest.call("process/start", cat).await.unwrap();
    let nested = format!(
        r#"{{"id":1,"method":"m","params":{}{}}}"#,
        "[".repeat(DEPTH_MAX),
        "]".repeat(DEPTH_MAX)
    );
    let many = format!(
        r#"{{"id":1,"method":"m","params":[{}]}}"#,
        vec!["0"; VALUES_MAX].join(",")
    );
    let misuses = [
        // Malformed.
        Misuse::Text("nonsense".into()),
        Misuse::Text("".into()),
        Misuse::Text(r#"[{"id":1,"method":"environment/status"}]"#.into()),
        // A key twice.
        Misuse::Text(r#"{"id":1,"id":1,"method":"m"}"#.into()),
        Misuse::Text(r#"{"id":1,"method":"process/start","params":{"argv":[],"argv":[]}}"#.into()),
        // Too deep, closed and not.
        Misuse::Text(nested),
        Misuse::Text(format!(
            r#"{{"id":1,"method":"m","params":{}"#,
            "[".repeat(1_000_000)
        )),
        // Too long: a frame, a message, values.
        Misuse::Text("x".repeat(FRAME_MAX_BYTES + 1)),
        Misuse::Pieces(MESSAGE_MAX_BYTES + 1),
        Misuse::Text(many),
        // Unknown.
        Misuse::Text(r#"{"method":"nonsense"}"#.into()),
        Misuse::Text(r#"{"id":1,"method":"nonsense"}"#.into()),
        Misuse::Text(r#"{"id":1,"result":{}}"#.into()),
        Misuse::Text(r#"{"id":1,"error":{"code":1,"message":"m"}}"#.into()),
        // Out of order.
        Misuse::Early,
        Misuse::Text(r#"{"id":1,"method":"initialize","params":{"clientName":"again"}}"#.into()),
        Misuse::Unbegun(r#"{"method":"initialized"}"#.into()),
        Misuse::Strangers,
        // No frames: a length of all ones, a reserved kind, one that is not masked, one that goes on with nothing.
        Misuse::Raw(b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec()),
        Misuse::Raw(b"\x83\x80\0\0\0\0".to_vec()),
        Misuse::Raw(b"\x81\x02{}".to_vec()),
        Misuse::Raw(b"\x80\x82\0\0\0\0{}".to_vec()),
        // Half of one, and gone.
        Misuse::Half,
        Misuse::AfterClose,
    ];
    for (number, misuse) in misuses.into_iter().enumerate() {
        misuse.commit(&url).await;
        let line = format!("{number}\n");
        let write =
            json!({"processId": "cat", "chunk": crate::client::base64(line.as_bytes()), "writeId": line});
        honest.call("process/write", write).await.unwrap();
        assert_eq!(
            written(&[honest.event("cat").await]),
            line,
            "after misuse {number}"
        );
    }
    let (mut late, _) = Client::begin(&executor).await;
    late.call("process/start", shell("p", "echo ok")).await.unwrap();
    assert_eq!(written(&late.events("p").await), "ok\n");
    executor.shutdown().await;
}

/// What one client says in a session of its own does not cost it that session either: its processes wait for it.
#[tokio::test]
async fn whoever_loses_its_connection_by_misuse_takes_its_own_session_up_again() {
    let executor = executor().await;
    for text in [
        r#"{"method":"nonsense"}"#.to_owned(),
        r#"{"id":1,"result":{}}"#.to_owned(),
        "x".repeat(FRAME_MAX_BYTES + 1),
    ] {
        let (mut client, session) = Client::begin(&executor).await;
        let cat = start_with("cat", &["cat"], &json!({"pipeStdin": true}));
        client.call("process/start", cat).await.unwrap();
        client.send_frame(Message::text(text)).await;
        assert!(client.is_closed().await);
        let mut back = Client::connect(&executor).await;
        back.resume(&session).await;
        let write = json!({"processId": "cat", "chunk": crate::client::base64(b"a"), "writeId": "1"});
        back.call("process/write", write).await.unwrap();
        assert_eq!(written(&[back.event("cat").await]), "a");
    }
    executor.shutdown().await;
}

enum Misuse {
    Text(String),
    /// A message of so many bytes, in frames of half the limit.
    Pieces(usize),
    /// Something before the handshake.
    Unbegun(String),
    /// About processes and files that are nobody's, or another session's.
    Strangers,
    /// A frame that ends before its bytes, with its connection.
    Half,
    /// Everything but the handshake.
    Early,
    /// Bytes that are no frame.
    Raw(Vec<u8>),
    /// Messages behind a close.
    AfterClose,
}

impl Misuse {
    async fn commit(self, url: &str) {
        let mut client = Client::connect_to(url).await;
        match self {
            Self::Early => {
                for method in ["process/start", "process/read", "fs/readFile", "http/request"] {
                    let refusal = client.call(method, json!({})).await.unwrap_err();
                    assert_eq!(refusal.code, -32600);
                }
            }
            Self::Text(text) => {
                client.initialize(Value::Null).await.unwrap();
                client.send_frame(Message::text(text)).await;
                // A complaint, or the end of the connection.
                drop(client.read().await);
            }
            Self::Pieces(bytes) => {
                client.initialize(Value::Null).await.unwrap();
                let (mut left, mut kind) = (bytes, Data::Text);
                while left > 0 {
                    let piece = left.min(FRAME_MAX_BYTES / 2);
                    left -= piece;
                    let frame = Frame::message(vec![b'x'; piece], OpCode::Data(kind), left == 0);
                    client.send_frame(Message::Frame(frame)).await;
                    kind = Data::Continue;
                }
                assert!(client.is_closed().await);
            }
            Self::Unbegun(text) => {
                client.send_text(&text).await;
                assert!(client.is_closed().await);
            }
            Self::Strangers => {
                client.initialize(Value::Null).await.unwrap();
                for (method, params) in [
                    ("process/terminate", json!({"processId": "cat"})),
                    (
                        "process/signal",
                        json!({"processId": "cat", "signal": "interrupt"}),
                    ),
                    (
                        "process/write",
                        json!({"processId": "cat", "chunk": "eA==", "writeId": "1"}),
                    ),
                    ("process/read", json!({"processId": "cat"})),
                    ("fs/readBlock", json!({"handleId": "h", "offset": 0, "len": 1})),
                ] {
                    // Refused, or of no effect: not on what is another session's.
                    drop(client.call(method, params).await);
                }
            }
            Self::Half => {
                client.initialize(Value::Null).await.unwrap();
                let mut stream = client.into_stream();
                stream.write_all(b"\x81\xfe\xff\xff\0\0\0\0{").await.unwrap();
            }
            Self::Raw(bytes) => {
                client.initialize(Value::Null).await.unwrap();
                let mut stream = client.into_stream();
                stream.write_all(&bytes).await.unwrap();
                let mut rest = Vec::new();
                bounded(stream.read_to_end(&mut rest)).await.ok();
            }
            Self::AfterClose => {
                client.initialize(Value::Null).await.unwrap();
                client.send_frame(Message::Close(None)).await;
                let mut stream = client.into_stream();
                // A masked text frame, as if nothing had been said.
                stream.write_all(b"\x81\x82\0\0\0\0{}").await.ok();
                let mut rest = Vec::new();
                bounded(stream.read_to_end(&mut rest)).await.ok();
            }
        }
    }
}

/// One that has upgraded and says nothing more is let go; one that has begun may be silent for as long.
#[tokio::test]
async fn a_websocket_that_never_begins_is_let_go() {
    let executor = executor().await;
    let (mut begun, _) = Client::begin(&executor).await;
    let mut silent = Client::connect(&executor).await;
    assert!(silent.is_closed().await);
    assert!(begun.call("environment/status", Value::Null).await.is_ok());
    executor.shutdown().await;
}

/// Connections that say nothing, or half of something, cost nobody anything.
#[tokio::test]
async fn a_connection_that_never_begins_holds_up_no_other() {
    let executor = executor().await;
    let address = address(executor.dialect_url().unwrap());
    let mut idle = Vec::new();
    for half in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(half).await.unwrap();
        idle.push(stream);
    }
    let (mut client, _) = Client::begin(&executor).await;
    assert!(client.call("environment/status", Value::Null).await.is_ok());
    executor.shutdown().await;
}
