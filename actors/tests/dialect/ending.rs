//! `process/signal` and `process/terminate`.

use serde_json::{Value, json};

use crate::client::{Client, executor, exit_code, refused, shell, start, start_with, written};

fn of(process: &str) -> Value {
    json!({"processId": process})
}

#[tokio::test]
async fn a_terminated_process_is_killed_at_once_and_with_all_of_its_group() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    // It would ignore being asked, and its child holds the pipe.
    client
        .call(
            "process/start",
            shell("p", "trap '' TERM; sleep 1000 & echo up; wait"),
        )
        .await
        .unwrap();
    assert_eq!(written(&[client.event("p").await]), "up\n");
    assert_eq!(
        client.call("process/terminate", of("p")).await,
        Ok(json!({"running": true}))
    );
    let events = client.events("p").await;
    assert_eq!(exit_code(&events), 137);
    assert_eq!(
        client.call("process/terminate", of("p")).await,
        Ok(json!({"running": false}))
    );
    assert_eq!(
        client.call("process/terminate", of("unknown")).await,
        Ok(json!({"running": false}))
    );
    let tty = start_with("t", &["sleep", "1000"], &json!({"tty": true}));
    client.call("process/start", tty).await.unwrap();
    client.call("process/terminate", of("t")).await.unwrap();
    assert_eq!(exit_code(&client.events("t").await), 1);
    executor.shutdown().await;
}

#[tokio::test]
async fn an_interrupt_reaches_the_whole_group_and_what_is_gone_is_no_error() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    // A child of the foreground: in the background a shell's children ignore interrupts.
    let script = "trap 'echo parent; exit 9' INT; \
                  sh -c 'trap \"echo child; exit\" INT; echo up; while :; do sleep 0.01; done'";
    client.call("process/start", shell("p", script)).await.unwrap();
    assert_eq!(written(&[client.event("p").await]), "up\n");
    let interrupt = |process: &str| json!({"processId": process, "signal": "interrupt"});
    assert_eq!(client.call("process/signal", interrupt("p")).await, Ok(json!({})));
    let events = client.events("p").await;
    let text = written(&events);
    assert!(text.contains("parent") && text.contains("child"), "{text}");
    assert_eq!(exit_code(&events), 9);
    for gone in ["p", "unknown"] {
        assert_eq!(
            client.call("process/signal", interrupt(gone)).await,
            Ok(json!({}))
        );
    }
    let other = client
        .call("process/signal", json!({"processId": "p", "signal": "terminate"}))
        .await;
    assert_eq!(other.unwrap_err().code, -32602);
    executor.shutdown().await;
}

#[tokio::test]
async fn a_start_that_is_terminated_before_it_runs_was_cancelled() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    // Both are there before the executor has begun to look.
    let started = client.ask("process/start", start("p", &["sleep", "1000"])).await;
    let written = client
        .ask(
            "process/write",
            json!({"processId": "p", "chunk": "", "writeId": "1"}),
        )
        .await;
    let ended = client.ask("process/terminate", of("p")).await;
    let status = client.answer(&json!(written)).await.unwrap();
    assert_eq!(client.answer(&json!(ended)).await, Ok(json!({"running": true})));
    match client.answer(&json!(started)).await {
        Err(refusal) => {
            assert_eq!(
                (refusal.code, &*refusal.message),
                (-32600, "process p start was cancelled")
            );
            assert_eq!(status, json!({"status": "starting"}));
            // Its name is free.
            assert!(client.call("process/start", start("p", &["true"])).await.is_ok());
        }
        // It was quicker than its end.
        Ok(_) => assert_eq!(exit_code(&client.events("p").await), 137),
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn what_a_client_may_not_name_is_refused() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let missing = client.call("process/terminate", json!({})).await;
    assert_eq!(missing, refused(-32602, "missing field `processId`"));
    executor.shutdown().await;
}
