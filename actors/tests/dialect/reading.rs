//! `process/read`: what was told can be read again, and waited for.

use serde_json::{Value, json};

use crate::client::{Client, bytes, executor, executor_with, options, refused, shell, start};

fn seqs(answer: &Value) -> Vec<u64> {
    let chunks = answer["chunks"].as_array().unwrap();
    chunks
        .iter()
        .map(|chunk| chunk["seq"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn what_was_told_is_read_again_as_often_as_one_likes() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    client
        .call("process/start", shell("p", "echo a; sleep 0.1; echo b; exit 3"))
        .await
        .unwrap();
    let events = client.events("p").await;
    for _ in 0..2 {
        let all = client
            .call("process/read", json!({"processId": "p"}))
            .await
            .unwrap();
        let told = events.iter().filter(|event| event["method"] == "process/output");
        let told: Vec<_> = told
            .map(|event| event["params"]["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(seqs(&all), told);
        assert_eq!(all["nextSeq"], events.len() as u64 + 1);
        assert_eq!(
            (&all["exited"], &all["exitCode"], &all["closed"]),
            (&json!(true), &json!(3), &json!(true))
        );
        assert_eq!(
            (&all["failure"], &all["sandboxDenied"]),
            (&Value::Null, &json!(false))
        );
    }
    let ask = json!({"processId": "p", "afterSeq": 0, "maxBytes": 0, "waitMs": null});
    let first = client.call("process/read", ask).await.unwrap();
    assert_eq!(
        (seqs(&first), &first["nextSeq"]),
        (vec![1], &json!(2)),
        "one chunk in any case"
    );
    let ask = json!({"processId": "p", "afterSeq": 1_000_000, "waitMs": 1_000_000});
    let none = client.call("process/read", ask).await.unwrap();
    assert_eq!(
        (seqs(&none), &none["closed"]),
        (vec![], &json!(true)),
        "an end is never waited for"
    );
    let unknown = client.call("process/read", json!({"processId": "x"})).await;
    assert_eq!(unknown, refused(-32600, "unknown process id x"));
    executor.shutdown().await;
}

#[tokio::test]
async fn a_read_waits_for_output_for_the_exit_and_for_its_time() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    client
        .call("process/start", shell("p", "read x; echo a; read x; exit 4"))
        .await
        .unwrap();
    client.events("p").await;
    let piped = json!({"processId": "q", "argv": ["/bin/sh", "-c", "read x; echo a; read x; exit 4"], "cwd": "file:///",
        "env": {}, "tty": false, "pipeStdin": true});
    client.call("process/start", piped).await.unwrap();
    let empty = client
        .call("process/read", json!({"processId": "q", "waitMs": 50}))
        .await
        .unwrap();
    assert_eq!(
        (seqs(&empty), &empty["nextSeq"], &empty["exited"]),
        (vec![], &json!(1), &json!(false))
    );
    // The longest that can be said.
    let waiting = client
        .ask("process/read", json!({"processId": "q", "waitMs": u64::MAX}))
        .await;
    client
        .call(
            "process/write",
            json!({"processId": "q", "chunk": "Cg==", "writeId": "1"}),
        )
        .await
        .unwrap();
    let output = client.answer(&json!(waiting)).await.unwrap();
    assert_eq!(bytes(&output["chunks"][0]["chunk"]), b"a\n");
    let waiting = client
        .ask(
            "process/read",
            json!({"processId": "q", "afterSeq": 1, "waitMs": 1_000_000}),
        )
        .await;
    client
        .call(
            "process/write",
            json!({"processId": "q", "chunk": "Cg==", "writeId": "2"}),
        )
        .await
        .unwrap();
    let exited = client.answer(&json!(waiting)).await.unwrap();
    assert_eq!(
        (&exited["exited"], &exited["exitCode"]),
        (&json!(true), &json!(4))
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn the_oldest_chunks_go_when_there_is_more_than_is_kept_and_how_much_that_is_can_be_said() {
    for (retention, output) in [
        (64 * 1024_u64, 300_000_u64),
        (1 << 20, 300_000),
        (1 << 20, 3_000_000),
    ] {
        let executor = executor_with(options().retention(retention)).await;
        let (mut client, _) = Client::begin(&executor).await;
        let script = format!("head -c {output} /dev/zero");
        client.call("process/start", shell("p", &script)).await.unwrap();
        client.events("p").await;
        let all = client
            .call("process/read", json!({"processId": "p"}))
            .await
            .unwrap();
        let chunks = all["chunks"].as_array().unwrap();
        let kept: usize = chunks.iter().map(|chunk| bytes(&chunk["chunk"]).len()).sum();
        let numbers = seqs(&all);
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
        if output <= retention {
            assert_eq!(
                (kept as u64, numbers[0]),
                (output, 1),
                "nothing is lost inside it"
            );
        } else {
            assert!(
                kept as u64 <= retention && kept as u64 > retention - 64 * 1024,
                "{kept} of {retention}"
            );
            assert!(numbers[0] > 1, "only the numbers say that something is gone");
        }
        executor.shutdown().await;
    }
}

#[tokio::test]
async fn a_process_can_be_read_while_it_is_silent() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    client
        .call("process/start", start("p", &["sleep", "1000"]))
        .await
        .unwrap();
    let answer = client
        .call("process/read", json!({"processId": "p", "maxBytes": 5}))
        .await
        .unwrap();
    assert_eq!(
        (&answer["nextSeq"], &answer["exitCode"]),
        (&json!(1), &Value::Null)
    );
    executor.shutdown().await;
}
