//! `process/write`.

use serde_json::{Value, json};

use crate::client::{Client, base64, executor, exit_code, refused, start, start_with, written};

fn write(process: &str, bytes: &[u8], id: &str) -> Value {
    json!({"processId": process, "chunk": base64(bytes), "writeId": id})
}

fn status(word: &str) -> Result<Value, crate::client::Refused> {
    Ok(json!({"status": word}))
}

#[tokio::test]
async fn input_is_written_once_for_each_id() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let head = start_with("p", &["head", "-c", "9"], &json!({"pipeStdin": true}));
    client.call("process/start", head).await.unwrap();
    for (bytes, id) in [
        ("abc", "1"),
        ("abc", "1"),
        ("", "2"),
        ("def", "3"),
        ("abc", "1"),
        ("ghi", "4"),
    ] {
        assert_eq!(
            client
                .call("process/write", write("p", bytes.as_bytes(), id))
                .await,
            status("accepted")
        );
    }
    let events = client.events("p").await;
    assert_eq!(
        (written(&events), exit_code(&events)),
        ("abcdefghi".to_owned(), 0)
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_written_says_why() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    assert_eq!(
        client.call("process/write", write("x", b"a", "1")).await,
        status("unknownProcess")
    );
    client
        .call("process/start", start("p", &["sleep", "1000"]))
        .await
        .unwrap();
    assert_eq!(
        client.call("process/write", write("p", b"a", "1")).await,
        status("stdinClosed")
    );
    client
        .call("process/terminate", json!({"processId": "p"}))
        .await
        .unwrap();
    client.events("p").await;
    assert_eq!(
        client.call("process/write", write("p", b"a", "1")).await,
        status("stdinClosed"),
        "also after its exit"
    );
    let piped = start_with("q", &["true"], &json!({"pipeStdin": true}));
    client.call("process/start", piped).await.unwrap();
    client.events("q").await;
    for _ in 0..2 {
        let late = client.call("process/write", write("q", b"a", "1")).await;
        assert_eq!(
            late,
            refused(-32603, "failed to write to process stdin"),
            "also when it comes again"
        );
    }
    let tty = start_with("t", &["true"], &json!({"tty": true}));
    client.call("process/start", tty).await.unwrap();
    client.events("t").await;
    assert_eq!(
        client.call("process/write", write("t", b"a", "1")).await,
        status("accepted"),
        "a terminal takes anything"
    );
    assert_eq!(
        client
            .call(
                "process/write",
                json!({"processId": "q", "chunk": "", "writeId": ""})
            )
            .await
            .unwrap_err()
            .code,
        -32602
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn two_hundred_writes_at_once_keep_their_order() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let head = start_with("p", &["head", "-n", "200"], &json!({"pipeStdin": true}));
    client.call("process/start", head).await.unwrap();
    for number in 0..200 {
        client
            .ask(
                "process/write",
                write("p", format!("{number}\n").as_bytes(), &number.to_string()),
            )
            .await;
    }
    let text = written(&client.events("p").await);
    assert!(
        text.lines().map(|line| line.parse::<u32>().unwrap()).eq(0..200),
        "{text}"
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn what_a_process_does_not_read_waits_and_holds_up_nothing_else() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let silent = start_with("p", &["sleep", "1000"], &json!({"pipeStdin": true}));
    client.call("process/start", silent).await.unwrap();
    let chunk = vec![b'x'; 64 * 1024];
    let mut asked = Vec::new();
    for number in 0..200 {
        asked.push(
            client
                .ask("process/write", write("p", &chunk, &number.to_string()))
                .await,
        );
    }
    // Behind all of them, and answered at once.
    assert!(client.call("environment/status", Value::Null).await.is_ok());
    assert_eq!(
        client.call("process/terminate", json!({"processId": "p"})).await,
        Ok(json!({"running": true}))
    );
    let (mut accepted, mut failed) = (0, 0);
    for id in asked {
        match client.answer(&json!(id)).await {
            Ok(_) => accepted += 1,
            Err(refusal) => {
                assert_eq!(
                    (refusal.code, &*refusal.message),
                    (-32603, "failed to write to process stdin")
                );
                failed += 1;
            }
        }
    }
    assert!(
        accepted >= 128 && failed > 0,
        "{accepted} were taken and {failed} were not"
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn what_is_typed_at_a_terminal_is_echoed_and_interrupts() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let tty = start_with("t", &["cat"], &json!({"tty": true}));
    client.call("process/start", tty).await.unwrap();
    client
        .call("process/write", write("t", b"hello\n", "1"))
        .await
        .unwrap();
    let mut text = String::new();
    while text.matches("hello").count() < 2 {
        text.push_str(&written(&[client.event("t").await]));
    }
    client.call("process/write", write("t", &[3], "2")).await.unwrap();
    assert_eq!(exit_code(&client.events("t").await), 1);
    executor.shutdown().await;
}
