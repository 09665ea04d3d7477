//! Whatever one client does, another's session goes on.

use dwell_messages::dialect::FRAME_MAX_BYTES;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, address, bounded, executor, shell, start_with, written};

#[tokio::test]
async fn no_misuse_takes_down_another_session() {
    let executor = executor().await;
    let url = executor.dialect_url().unwrap().to_owned();
    let (mut honest, _) = Client::begin(&executor).await;
    let cat = start_with("cat", &["cat"], &json!({"pipeStdin": true}));
    honest.call("process/start", cat).await.unwrap();
    let misuses: [Misuse; 9] = [
        Misuse::Text("nonsense".into()),
        Misuse::Text(r#"{"id":1,"id":1,"method":"m"}"#.into()),
        Misuse::Text(format!(
            r#"{{"id":1,"method":"m","params":{}"#,
            "[".repeat(1_000_000)
        )),
        Misuse::Text(r#"{"method":"nonsense"}"#.into()),
        Misuse::Text(r#"{"id":1,"result":{}}"#.into()),
        Misuse::Text("x".repeat(FRAME_MAX_BYTES + 1)),
        Misuse::Early,
        Misuse::Raw(b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec()),
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

enum Misuse {
    Text(String),
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
