//! Requests run beside each other: what waits holds up nothing.

use serde_json::{Value, json};

use crate::client::{Client, executor, shell, start};

#[tokio::test]
async fn a_long_poll_holds_up_neither_the_next_request_nor_a_termination() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    client
        .call("process/start", start("p", &["sleep", "1000"]))
        .await
        .unwrap();
    let mut polls = Vec::new();
    for _ in 0..6 {
        polls.push(
            client
                .ask("process/read", json!({"processId": "p", "waitMs": 100_000}))
                .await,
        );
    }
    assert!(client.call("environment/status", Value::Null).await.is_ok());
    assert!(
        client.call("process/start", start("q", &["true"])).await.is_ok(),
        "a start neither"
    );
    assert_eq!(
        client.call("process/terminate", json!({"processId": "p"})).await,
        Ok(json!({"running": true}))
    );
    for poll in polls {
        let answer = client.answer(&json!(poll)).await.unwrap();
        assert_eq!(answer["exited"], json!(true), "each poll hears of the end");
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn requests_beyond_what_a_connection_may_have_are_refused_and_a_termination_is_not() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    client
        .call("process/start", start("p", &["sleep", "1000"]))
        .await
        .unwrap();
    let max = dwell_actors::dialect::CALLS_MAX;
    for _ in 0..max {
        client
            .ask("process/read", json!({"processId": "p", "waitMs": 100_000}))
            .await;
    }
    let one_more = client
        .call("process/read", json!({"processId": "p", "waitMs": 100_000}))
        .await;
    assert_eq!(one_more.unwrap_err().code, -32603);
    assert_eq!(
        client.call("process/terminate", json!({"processId": "p"})).await,
        Ok(json!({"running": true}))
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_makes_its_own_command_wait_and_no_other() {
    let executor = executor().await;
    let (mut slow, session) = Client::begin(&executor).await;
    // Far more than all buffers hold; the second line comes when the first is through.
    let script = "head -c 50000000 /dev/zero; echo done >&2";
    slow.call("process/start", shell("p", script)).await.unwrap();
    // It reads no more. Somebody else is served all the same.
    let (mut other, _) = Client::begin(&executor).await;
    other
        .call("process/start", shell("p", "head -c 3000000 /dev/zero"))
        .await
        .unwrap();
    other.events("p").await;
    drop(slow);
    // Without its client the command goes on, and the newest of what it wrote is kept.
    let mut back = Client::connect(&executor).await;
    back.resume(&session).await;
    let mut after = 0;
    loop {
        let ask = json!({"processId": "p", "afterSeq": after, "waitMs": 100_000});
        let answer = back.call("process/read", ask).await.unwrap();
        after = answer["nextSeq"].as_u64().unwrap() - 1;
        if answer["closed"] == json!(true) {
            assert_eq!(answer["exitCode"], json!(0));
            break;
        }
    }
    executor.shutdown().await;
}
