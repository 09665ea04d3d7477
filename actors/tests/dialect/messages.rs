//! What is no message, and what a connection survives.

use dwell_messages::dialect::{FRAME_MAX_BYTES, MESSAGE_MAX_BYTES, VALUES_MAX};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::client::{Client, executor};

/// Sends what is no message; gives what is said of it, and sees that the connection goes on.
async fn complaint(client: &mut Client, text: &str) -> String {
    client.send_text(text).await;
    let answer = client.find(|message| message.get("error").is_some()).await;
    assert_eq!(
        (&answer["id"], &answer["error"]["code"]),
        (&json!(-1), &json!(-32600))
    );
    let status = client.call("environment/status", Value::Null).await;
    assert_eq!(
        status,
        Ok(json!({"status": "ready"})),
        "the connection stays open"
    );
    answer["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_malformed_message_is_complained_of_and_the_connection_stays_open() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let nested = format!(
        r#"{{"id":1,"method":"m","params":{}1{}}}"#,
        "[".repeat(127),
        "]".repeat(127)
    );
    let many = format!(
        r#"{{"id":1,"method":"m","params":[{}]}}"#,
        vec!["0"; VALUES_MAX].join(",")
    );
    let cases = [
        ("nonsense", "expected"),
        ("[]", "expected a JSON-RPC object"),
        (
            r#"[{"id":1,"method":"environment/status"}]"#,
            "expected a JSON-RPC object",
        ),
        (r#"{"id":1,"id":2,"method":"m"}"#, "duplicate object key"),
        (
            r#"{"id":1,"method":"m","params":{"a":1,"a":1}}"#,
            "duplicate object key",
        ),
        (r#"{"id":null,"method":"m"}"#, "invalid id"),
        (r#"{"id":1.5,"method":"m"}"#, "invalid id"),
        (r#"{"id":9223372036854775808,"method":"m"}"#, "invalid id"),
        (
            r#"{"id":1,"method":"environment/status","trace":"text"}"#,
            "invalid trace",
        ),
        (r#"{"id":1}"#, ""),
        (&nested, "recursion limit exceeded"),
        (&many, "JSON-RPC message exceeds the limit of 262144 JSON values"),
    ];
    for (text, why) in cases {
        let said = complaint(&mut client, text).await;
        let begins = "failed to parse websocket JSON-RPC message from exec-server websocket 127.0.0.1:";
        assert!(said.starts_with(begins) && said.contains(why), "{said}");
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn what_is_said_beside_the_rules_closes_the_connection_without_a_word() {
    let executor = executor().await;
    for message in [
        json!({"method": "process/output", "params": {}}),
        json!({"method": "nonsense"}),
        json!({"id": 1, "result": {}}),
        json!({"id": -1, "error": {"code": 1, "message": "m"}}),
    ] {
        let (mut client, _) = Client::begin(&executor).await;
        client.send(&message).await;
        assert!(client.is_closed().await, "{message}");
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn binary_frames_and_fragments_carry_messages_too() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let text = r#"{"id":"b","method":"environment/status","jsonrpc":"2.0"}"#;
    client.send_frame(Message::binary(text.as_bytes().to_vec())).await;
    assert!(client.answer(&json!("b")).await.is_ok());
    let (first, second) = text.as_bytes().split_at(9);
    let piece =
        |bytes: &[u8], kind, last| Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(kind), last));
    client.send_frame(piece(first, Data::Text, false)).await;
    client.send_frame(piece(second, Data::Continue, true)).await;
    assert!(client.answer(&json!("b")).await.is_ok());
    executor.shutdown().await;
}

/// A request of exactly so many bytes.
fn sized(bytes: usize) -> String {
    let around = r#"{"id":"sized","method":"environment/status","more":""}"#;
    let filler = "x".repeat(bytes - around.len());
    let text = format!(r#"{{"id":"sized","method":"environment/status","more":"{filler}"}}"#);
    assert_eq!(text.len(), bytes);
    text
}

#[tokio::test]
async fn a_frame_of_the_limit_is_read_and_one_of_a_byte_more_ends_the_connection() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    client.send_text(&sized(FRAME_MAX_BYTES)).await;
    assert!(client.answer(&json!("sized")).await.is_ok());
    client.send_frame(Message::text(sized(FRAME_MAX_BYTES + 1))).await;
    assert!(client.is_closed().await);
    executor.shutdown().await;
}

#[tokio::test]
async fn a_message_of_the_limit_is_put_together_and_one_of_a_byte_more_ends_the_connection() {
    let executor = executor().await;
    for (bytes, is_read) in [(MESSAGE_MAX_BYTES, true), (MESSAGE_MAX_BYTES + 1, false)] {
        let (mut client, _) = Client::begin(&executor).await;
        let text = sized(bytes);
        let mut rest = text.as_bytes();
        let mut kind = Data::Text;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(FRAME_MAX_BYTES / 2));
            let frame = Frame::message(piece.to_vec(), OpCode::Data(kind), later.is_empty());
            client.send_frame(Message::Frame(frame)).await;
            (rest, kind) = (later, Data::Continue);
        }
        if is_read {
            assert!(client.answer(&json!("sized")).await.is_ok());
        } else {
            assert!(client.is_closed().await);
        }
    }
    executor.shutdown().await;
}
