//! The handshake: one request, one notification, then everything else.

use serde_json::{Value, json};

use crate::client::{Client, executor, outcome, refused};

#[tokio::test]
async fn a_session_begins_with_a_request_and_a_notification_and_nothing_before() {
    let executor = executor().await;
    let mut client = Client::connect(&executor).await;
    let early = client.call("environment/status", Value::Null).await;
    assert_eq!(
        early,
        refused(
            -32600,
            "client must call initialize before using environment status methods"
        )
    );
    let early = client.call("process/terminate", json!({"processId": "p"})).await;
    assert_eq!(
        early,
        refused(-32600, "client must call initialize before using exec methods")
    );
    // A method that nobody knows is not known in any state.
    let unknown = client.call("process/resize", json!({})).await;
    assert_eq!(
        unknown,
        refused(-32601, "exec-server stub does not implement `process/resize` yet")
    );
    // A failed initialize may be repeated on the same connection.
    let failed = client.call("initialize", json!({})).await;
    assert_eq!(failed, refused(-32602, "missing field `clientName`"));
    let begun = client
        .call("initialize", json!({"clientName": "", "resumeSessionId": ""}))
        .await
        .unwrap();
    let id = begun["sessionId"].as_str().unwrap();
    assert_eq!((id.len(), &id[14..15]), (36, "4"), "a random UUID: {id}");
    assert!(
        begun["environmentInfo"]["shell"]["path"]
            .as_str()
            .unwrap()
            .starts_with('/')
    );
    let between = client.call("fs/getMetadata", json!({"path": "file:///"})).await;
    assert_eq!(
        between,
        refused(
            -32600,
            "client must send initialized before using filesystem methods"
        )
    );
    let again = client.call("initialize", json!({"clientName": "c"})).await;
    assert_eq!(
        again,
        refused(-32600, "initialize may only be sent once per connection")
    );
    for params in [json!({}), json!([]), json!("any"), Value::Null] {
        client
            .send(&json!({"method": "initialized", "params": params}))
            .await;
    }
    let status = client.call("environment/status", Value::Null).await;
    assert_eq!(status, Ok(json!({"status": "ready"})));
    executor.shutdown().await;
}

#[tokio::test]
async fn everything_may_be_sent_at_once() {
    let executor = executor().await;
    let mut client = Client::connect(&executor).await;
    client
        .send(&json!({"id": 1, "method": "initialize", "params": ["c", null]}))
        .await;
    client.send(&json!({"method": "initialized"})).await;
    client.send(&json!({"id": 2, "method": "environment/info"})).await;
    client
        .send(&json!({"id": "x", "method": "environment/status", "params": {}}))
        .await;
    let begun = client.answer(&json!(1)).await.unwrap();
    // What the environment is is said twice, and is the same.
    assert_eq!(
        client.answer(&json!(2)).await.as_ref(),
        Ok(&begun["environmentInfo"])
    );
    assert_eq!(client.answer(&json!("x")).await, Ok(json!({"status": "ready"})));
    executor.shutdown().await;
}

#[tokio::test]
async fn what_the_environment_is_has_what_a_client_needs() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let info = client.call("environment/info", json!(null)).await.unwrap();
    assert_eq!(info["platformOs"], "linux");
    assert!(info["cwd"].as_str().unwrap().starts_with("file:///"));
    assert!(info["providerId"].as_str().unwrap().starts_with("sha256:"));
    let name = info["shell"]["name"].as_str().unwrap();
    assert!(info["shell"]["path"].as_str().unwrap().ends_with(name));
    // What is not there is not claimed.
    for (ability, claimed) in info["capabilities"].as_object().unwrap() {
        let is_there = ["fsWatchMissing", "httpHeaderEnvVars"].contains(&ability.as_str());
        assert_eq!(claimed, is_there, "{ability}");
    }
    for params in [json!([]), json!({"a": 1})] {
        let refused = client.call("environment/info", params).await.unwrap_err();
        assert!(refused.code == -32602 && refused.message.contains("expected unit"));
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn an_initialized_before_a_session_closes_the_connection_without_a_word() {
    let executor = executor().await;
    let mut client = Client::connect(&executor).await;
    client.send(&json!({"method": "initialized"})).await;
    assert!(client.is_closed().await);
    // The control: behind an initialize it does not.
    let (mut client, _) = Client::begin(&executor).await;
    assert!(client.call("environment/status", Value::Null).await.is_ok());
    executor.shutdown().await;
}

#[tokio::test]
async fn discovery_has_its_minimal_answers() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let ask =
        json!({"cwd": "file:///", "configPaths": [["mcp_servers"]], "requirementsPaths": [["mcp_servers"]]});
    let config = client.call("environmentConfig/read", ask).await.unwrap();
    let empty = json!({"layers": [], "cloudInsertionIndex": 0});
    assert_eq!((&config["config"], &config["requirements"]), (&empty, &empty));
    for nothing in [
        json!({"cwd": "file:///", "configPaths": [], "requirementsPaths": []}),
        json!({"cwd": "file:///", "configPaths": [[]], "requirementsPaths": []}),
        json!({"cwd": "/", "configPaths": [["a"]], "requirementsPaths": []}),
    ] {
        let refusal = client.call("environmentConfig/read", nothing).await.unwrap_err();
        assert_eq!(refusal.code, -32602);
    }
    let roots = json!({"roots": [{"id": "a", "path": "file:///a"}, {"id": "b", "path": "nonsense"}]});
    let found = client.call("capabilityRoots/discoverV1", roots).await.unwrap();
    assert_eq!(
        (&found["roots"][0]["id"], &found["roots"][0]["error"]),
        (&json!("a"), &Value::Null)
    );
    assert!(found["roots"][1]["error"].is_string(), "each has its own error");
    let found = client
        .call("capabilities/discoverV2", json!({"cwd": "file:///"}))
        .await;
    assert_eq!(found, Ok(json!({"plugins": [], "skills": [], "warnings": []})));
    executor.shutdown().await;
}

#[tokio::test]
async fn an_id_in_flight_twice_is_answered_twice() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    for _ in 0..2 {
        client
            .send(&json!({"id": 77, "method": "environment/status"}))
            .await;
    }
    for _ in 0..2 {
        let answer = client.read().await.unwrap();
        assert_eq!(
            (&answer["id"], outcome(&answer)),
            (&json!(77), Ok(json!({"status": "ready"})))
        );
    }
    executor.shutdown().await;
}
