//! What one connection can make its executor hold.

use dwell_actors::dialect::{OUTBOUND_MAX_BYTES, REQUESTS_MAX_BYTES};
use dwell_messages::dialect::{ID_MAX_BYTES, uri_of};
use serde_json::{Value, json};

use crate::client::{Client, base64, bytes, executor, refused, start};

fn uri(path: &std::path::Path) -> String {
    uri_of(path.as_os_str().as_encoded_bytes())
}

/// Whoever asks for a hundred files and takes none of them has two of them read, beside what waits to be written to it.
/// The rest is read when it is taken, which shows in what was read.
#[tokio::test]
async fn files_that_nobody_takes_are_not_read_ahead() {
    const ASKED: usize = 128;
    const FILE_BYTES: usize = 1024 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::fs::write(&path, vec![b'0'; FILE_BYTES]).unwrap();
    let executor = executor().await;
    let (mut idle, _) = Client::begin(&executor).await;
    let ask = json!({"path": uri(&path)});
    let mut asked = Vec::new();
    for _ in 0..ASKED {
        asked.push(idle.ask("fs/readFile", ask.clone()).await);
    }
    // Another connection is served meanwhile, as often as would have been enough for all of them.
    let (mut other, _) = Client::begin(&executor).await;
    for _ in 0..ASKED {
        other.call("fs/readFile", ask.clone()).await.unwrap();
    }
    std::fs::write(&path, vec![b'1'; FILE_BYTES]).unwrap();
    let (mut before, mut met) = (0, 0);
    for id in asked {
        match idle.answer(&json!(id)).await {
            Ok(answer) => before += usize::from(bytes(&answer["dataBase64"])[0] == b'0'),
            // It was being read when it was written.
            Err(_) => met += 1,
        }
    }
    // As text, what waits to be written; as much again for the sockets, and the two.
    let room = 2 * OUTBOUND_MAX_BYTES / FILE_BYTES + 2;
    assert!(
        (1..=room).contains(&before) && met <= 2,
        "{before} of {ASKED} and {met}, room for {room} and 2"
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn requests_are_refused_beyond_their_bytes_and_a_small_one_is_served() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    client
        .call("process/start", start("p", &["sleep", "1000"]))
        .await
        .unwrap();
    // Long polls whose messages are large: members that nobody knows are passed over.
    let large = json!({"processId": "p", "waitMs": 100_000, "more": "x".repeat(15 * 1024 * 1024)});
    let room = REQUESTS_MAX_BYTES / (15 * 1024 * 1024);
    for _ in 0..room {
        client.ask("process/read", large.clone()).await;
    }
    let refusal = client.call("process/read", large).await.unwrap_err();
    assert!(
        refusal.code == -32603 && refusal.message.contains(&REQUESTS_MAX_BYTES.to_string()),
        "{refusal:?}"
    );
    // Regression: a start was refused for want of room, and ran.
    let mut start = start("q", &["sleep", "1000"]);
    start["metadata"] = json!("x".repeat(15 * 1024 * 1024));
    let refusal = client.call("process/start", start).await.unwrap_err();
    assert!(
        refusal.message.contains(&REQUESTS_MAX_BYTES.to_string()),
        "{refusal:?}"
    );
    let unknown = client.call("process/read", json!({"processId": "q"})).await;
    assert_eq!(unknown, refused(-32600, "unknown process id q"));
    let ended = client.call("process/terminate", json!({"processId": "p"})).await;
    assert_eq!(
        ended,
        Ok(json!({"running": true})),
        "the control: what is small is served"
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn names_have_a_length_and_one_byte_more_is_refused() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let (longest, longer) = ("x".repeat(ID_MAX_BYTES), "x".repeat(ID_MAX_BYTES + 1));
    for (name, is_taken) in [(&longer, false), (&longest, true)] {
        let mut cat = start(name, &["cat"]);
        cat["pipeStdin"] = json!(true);
        let started = client.call("process/start", cat).await;
        assert_eq!(started.is_ok(), is_taken);
        if let Err(refusal) = started {
            assert!(
                refusal.code == -32602 && refusal.message.contains("1024"),
                "{refusal:?}"
            );
        }
    }
    for (name, is_taken) in [(&longer, false), (&longest, true)] {
        let write = json!({"processId": longest, "chunk": base64(b"x"), "writeId": name});
        let written = client.call("process/write", write).await;
        assert_eq!(
            written.map_err(|refusal| refusal.code).map(|_| ()),
            if is_taken { Ok(()) } else { Err(-32602) }
        );
    }
    client
        .send(&json!({"id": longer, "method": "environment/status"}))
        .await;
    let refusal = client.find(|message| message["id"] == -1).await;
    assert_eq!(refusal["error"]["code"], -32600);
    client
        .send(&json!({"id": longest, "method": "environment/status"}))
        .await;
    assert_eq!(
        client.answer(&Value::String(longest)).await,
        Ok(json!({"status": "ready"}))
    );
    executor.shutdown().await;
}
