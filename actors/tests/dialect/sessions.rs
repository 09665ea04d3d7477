//! Sessions outlive their connections, for a while.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{
    Client, Refused, bounded, bytes, executor, executor_with, options, refused, shell, start, start_with,
};

#[tokio::test]
async fn a_session_is_taken_up_with_its_processes_its_numbers_and_its_writes() {
    let executor = executor().await;
    let (mut client, session) = Client::begin(&executor).await;
    let cat = start_with("p", &["cat"], &json!({"pipeStdin": true}));
    client.call("process/start", cat).await.unwrap();
    let write = json!({"processId": "p", "chunk": "YQ==", "writeId": "1"});
    client.call("process/write", write.clone()).await.unwrap();
    let first = client.event("p").await;
    assert_eq!(first["params"]["seq"], json!(1));
    drop(client);
    let mut back = Client::connect(&executor).await;
    back.resume(&session).await;
    // The same write again is none.
    assert_eq!(
        back.call("process/write", write).await,
        Ok(json!({"status": "accepted"}))
    );
    let more = json!({"processId": "p", "chunk": "Yg==", "writeId": "2"});
    back.call("process/write", more).await.unwrap();
    let second = back.event("p").await;
    assert_eq!(
        (&second["params"]["seq"], &second["params"]["chunk"]),
        (&json!(2), &json!("Yg=="))
    );
    let all = back
        .call("process/read", json!({"processId": "p"}))
        .await
        .unwrap();
    assert_eq!(all["chunks"].as_array().unwrap().len(), 2);
    executor.shutdown().await;
}

#[tokio::test]
async fn what_was_told_to_nobody_is_read_and_not_told_again() {
    let executor = executor().await;
    let (mut client, session) = Client::begin(&executor).await;
    let dir = tempfile::tempdir().unwrap();
    // The first goes with the directory, so that nothing waits for it when this has failed.
    let (gate, said) = (dir.path().join("gate"), dir.path().join("said"));
    std::fs::write(&gate, "").unwrap();
    let script = format!(
        "echo a; while [ -e '{}' ]; do sleep 0.01; done; echo b; : >'{}'; read x; echo c",
        gate.display(),
        said.display()
    );
    let piped = start_with("p", &["/bin/sh", "-c", &script], &json!({"pipeStdin": true}));
    client.call("process/start", piped).await.unwrap();
    client.event("p").await;
    drop(client);
    // Its second line comes while nobody is there.
    let mut back = Client::connect(&executor).await;
    std::fs::remove_file(&gate).unwrap();
    bounded(async {
        while !said.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // It is in the pipe; nothing but the executor sees it leave that.
    tokio::time::sleep(Duration::from_secs(2)).await;
    back.resume(&session).await;
    let missed = back
        .call(
            "process/read",
            json!({"processId": "p", "afterSeq": 1, "waitMs": 0}),
        )
        .await
        .unwrap();
    assert_eq!(
        (&missed["chunks"][0]["seq"], bytes(&missed["chunks"][0]["chunk"])),
        (&json!(2), b"b\n".to_vec())
    );
    back.call(
        "process/write",
        json!({"processId": "p", "chunk": "Cg==", "writeId": "1"}),
    )
    .await
    .unwrap();
    let next = back.event("p").await;
    assert_eq!(
        next["params"]["seq"],
        json!(3),
        "live events go on where the read ended"
    );
    executor.shutdown().await;
}

/// The connection breaks in the middle of a flood, again and again: every byte is there once.
#[tokio::test]
async fn a_flood_over_many_connections_is_whole() {
    let executor = executor_with(options().retention(16 << 20)).await;
    let (mut client, session) = Client::begin(&executor).await;
    client
        .call("process/start", shell("p", "seq 1 300000"))
        .await
        .unwrap();
    let (mut after, mut text) = (0, Vec::new());
    let mut connections = 0;
    'over: loop {
        connections += 1;
        // A few live events, then the connection is gone.
        for _ in 0..3 {
            let event = client.event("p").await;
            if event["params"]["seq"] == json!(after + 1) {
                after += 1;
                match event["method"].as_str().unwrap() {
                    "process/output" => text.extend(bytes(&event["params"]["chunk"])),
                    "process/closed" => break 'over,
                    _ => {}
                }
            }
        }
        drop(client);
        client = Client::connect(&executor).await;
        client.resume(&session).await;
        let ask = json!({"processId": "p", "afterSeq": after, "maxBytes": null, "waitMs": 0});
        let answer = client.call("process/read", ask).await.unwrap();
        for chunk in answer["chunks"].as_array().unwrap() {
            assert!(chunk["seq"].as_u64().unwrap() > after);
            text.extend(bytes(&chunk["chunk"]));
        }
        after = answer["nextSeq"].as_u64().unwrap() - 1;
        if answer["closed"] == json!(true) {
            break;
        }
    }
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.lines()
            .map(|line| line.parse::<u64>().unwrap())
            .eq(1..=300_000),
        "after {connections} connections"
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn a_session_that_is_attached_is_refused_and_its_connection_is_not_disturbed() {
    let executor = executor().await;
    let (mut client, session) = Client::begin(&executor).await;
    client
        .call("process/start", start("p", &["sleep", "1000"]))
        .await
        .unwrap();
    let mut second = Client::connect(&executor).await;
    // Its owner answers pings, as any client does that reads.
    let reading = tokio::spawn(async move {
        let answer = client
            .call("process/read", json!({"processId": "p", "waitMs": 1_000_000}))
            .await;
        (client, answer)
    });
    let refusal = second.initialize(json!(session)).await;
    let text = format!("session {session} is already attached to another connection");
    assert_eq!(
        refusal,
        Err(Refused {
            code: -32010,
            message: text
        })
    );
    // The newcomer stays open, and gets it when it is free.
    reading.abort();
    drop(reading.await);
    second.resume(&session).await;
    executor.shutdown().await;
}

/// A connection whose other end is gone without a word: the kernel keeps it, and nobody answers. With the original such a
/// session cannot be taken up.
#[tokio::test]
async fn a_connection_that_does_not_answer_loses_its_session_to_who_asks_for_it() {
    let executor = executor().await;
    let (mut client, session) = Client::begin(&executor).await;
    client
        .call("process/start", start("p", &["sleep", "1000"]))
        .await
        .unwrap();
    // The socket is open, and nobody reads it.
    let silent = client.into_stream();
    let mut back = Client::connect(&executor).await;
    assert_eq!(back.initialize(json!(session)).await, Ok(session));
    assert_eq!(
        back.call("process/terminate", json!({"processId": "p"})).await,
        Ok(json!({"running": true}))
    );
    // The old one was closed.
    let mut rest = Vec::new();
    bounded(async {
        loop {
            silent.readable().await.unwrap();
            match silent.try_read_buf(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    })
    .await;
    executor.shutdown().await;
}

#[tokio::test]
async fn a_session_is_over_when_nobody_comes_back_in_time_and_so_is_what_it_runs() {
    let executor = executor_with(options().detached_life(Duration::from_millis(300))).await;
    let (mut client, session) = Client::begin(&executor).await;
    let marker = format!("{}.{}", std::process::id(), 77_001);
    client
        .call("process/start", start("p", &["sleep", &marker]))
        .await
        .unwrap();
    let lives = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| {
                line.split(|byte| *byte == 0)
                    .any(|word| word == marker.as_bytes())
            })
        })
    };
    assert!(lives(), "the control");
    drop(client);
    let mut back = Client::connect(&executor).await;
    bounded(async {
        while back.initialize(json!(session)).await != Err(unknown(&session)) {
            // It was there: it is given up again, and its time begins anew.
            back = Client::connect(&executor).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    })
    .await;
    bounded(async {
        while lives() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    executor.shutdown().await;
}

fn unknown(session: &str) -> Refused {
    Refused {
        code: -32600,
        message: format!("unknown session id {session}"),
    }
}

#[tokio::test]
async fn a_session_that_never_was_is_unknown_and_a_new_one_may_begin_on_the_same_connection() {
    let executor = executor().await;
    let mut client = Client::connect(&executor).await;
    assert_eq!(
        client.initialize(json!("nonsense")).await,
        Err(unknown("nonsense"))
    );
    assert!(client.initialize(Value::Null).await.is_ok());
    executor.shutdown().await;
}

#[tokio::test]
async fn names_of_processes_are_a_sessions_own() {
    let executor = executor().await;
    let (mut first, _) = Client::begin(&executor).await;
    let (mut second, _) = Client::begin(&executor).await;
    first
        .call("process/start", start("p", &["sleep", "1000"]))
        .await
        .unwrap();
    let foreign = second.call("process/read", json!({"processId": "p"})).await;
    assert_eq!(foreign, refused(-32600, "unknown process id p"));
    assert_eq!(
        second.call("process/terminate", json!({"processId": "p"})).await,
        Ok(json!({"running": false}))
    );
    assert!(second.call("process/start", start("p", &["true"])).await.is_ok());
    assert_eq!(
        first.call("process/terminate", json!({"processId": "p"})).await,
        Ok(json!({"running": true}))
    );
    executor.shutdown().await;
}
