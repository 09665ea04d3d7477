//! `fs/watchMissing`: one watch of a connection, that tells once.

use std::path::Path;
use std::time::Duration;

use dwell_actors::dialect::Bridge;
use dwell_actors::executor::Executor;
use dwell_actors::harness::Target;
use dwell_relay::{OsRandomness, StaticKeypair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, Refused, bounded, executor, options, refused};

/// How long something that must not come is waited for.
const QUIET: Duration = Duration::from_millis(100);

fn uri(path: &Path) -> String {
    format!("file://{}", path.to_str().unwrap())
}

/// A client, and a directory for what it watches.
struct Watcher {
    client: Client,
    dir: TempDir,
}

impl Watcher {
    fn with(client: Client) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { client, dir }
    }

    fn touch(&self, name: &str) {
        std::fs::write(self.dir.path().join(name), "x").unwrap();
    }

    fn params(&self, id: u64, missing: &[&str]) -> Value {
        let missing: Vec<_> = missing
            .iter()
            .map(|name| uri(&self.dir.path().join(name)))
            .collect();
        json!({"watchId": id, "missing": missing, "present": null})
    }

    async fn watch(&mut self, id: u64, missing: &[&str]) -> bool {
        let params = self.params(id, missing);
        let answer = self.client.call("fs/watchMissing", params).await.unwrap();
        answer["watching"].as_bool().unwrap()
    }

    /// The next watch that has seen something.
    async fn told(&mut self) -> Value {
        let told = self
            .client
            .find(|message| message["method"] == "fs/missingChanged")
            .await;
        told["params"].clone()
    }

    /// Nothing is told by what is answered now, nor soon.
    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(QUIET, self.told()).await.is_err()
    }
}

#[tokio::test]
async fn a_path_that_appears_is_told_once() {
    let executor = executor().await;
    let mut one = Watcher::with(Client::begin(&executor).await.0);
    assert!(one.watch(1, &["a", "b/c"]).await);
    assert!(one.is_quiet().await);
    one.touch("a");
    assert_eq!(one.told().await, json!({"watchId": 1}));
    std::fs::remove_file(one.dir.path().join("a")).unwrap();
    one.touch("a");
    std::fs::create_dir(one.dir.path().join("b")).unwrap();
    assert!(one.is_quiet().await, "it was told");
    // The next missing name is another watch's.
    assert!(one.watch(2, &["b/c"]).await);
    one.touch("b/c");
    assert_eq!(one.told().await, json!({"watchId": 2}));
    executor.shutdown().await;
}

#[tokio::test]
async fn a_watch_takes_the_place_of_the_one_before_it() {
    let executor = executor().await;
    let mut one = Watcher::with(Client::begin(&executor).await.0);
    assert!(one.watch(1, &["a"]).await && one.watch(2, &["b"]).await);
    one.touch("a");
    assert!(one.is_quiet().await);
    one.touch("b");
    assert_eq!(one.told().await, json!({"watchId": 2}));
    // So does one that comes to nothing.
    for (id, nothing) in [(4, &["there"][..]), (6, &[])] {
        one.touch("there");
        let missing = format!("missing-{id}");
        assert!(one.watch(id - 1, &[&missing]).await);
        assert!(!one.watch(id, nothing).await);
        one.touch(&missing);
        assert!(one.is_quiet().await);
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn a_watchs_number_is_higher_than_any_before_it_or_nothing_is_watched() {
    let executor = executor().await;
    let mut one = Watcher::with(Client::begin(&executor).await.0);
    assert!(!one.watch(0, &["a"]).await);
    assert!(one.watch(7, &["a"]).await);
    assert!(!one.watch(7, &["b"]).await && !one.watch(6, &["b"]).await);
    one.touch("a");
    assert_eq!(one.told().await, json!({"watchId": 7}), "the present one stays");
    // What came to nothing has had its number, too.
    assert!(!one.watch(8, &[]).await && !one.watch(8, &["b"]).await);
    assert!(one.watch(u64::MAX, &["b"]).await && !one.watch(u64::MAX, &["b"]).await);
    // Another connection counts for itself.
    let mut other = Watcher::with(Client::begin(&executor).await.0);
    assert!(other.watch(1, &["a"]).await);
    executor.shutdown().await;
}

#[tokio::test]
async fn what_a_watch_is_asked_for_is_read_before_it_takes_anothers_place() {
    let executor = executor().await;
    let mut one = Watcher::with(Client::begin(&executor).await.0);
    assert!(one.watch(1, &["a"]).await);
    let relative = "invalid URI: relative URL without a base";
    let there = uri(one.dir.path());
    for (params, message) in [
        (json!({"watchId": 2, "missing": ["a"], "present": null}), relative),
        (
            json!({"watchId": 2, "missing": [there], "present": "a"}),
            relative,
        ),
        (
            json!({"watchId": 2, "missing": ["http://h/a"]}),
            "unsupported path URI scheme `http`",
        ),
    ] {
        let answer = one.client.call("fs/watchMissing", params).await;
        assert_eq!(answer, refused(-32602, message));
    }
    for params in [
        json!({}),
        json!({"watchId": 2}),
        json!({"watchId": -1, "missing": []}),
        json!({"watchId": 2, "missing": null}),
        json!({"watchId": 2, "missing": [1]}),
        json!({"watchId": 2, "missing": [], "present": 5}),
    ] {
        let answer = one.client.call("fs/watchMissing", params).await;
        assert!(matches!(answer, Err(Refused { code: -32602, .. })), "{answer:?}");
    }
    one.touch("a");
    assert_eq!(one.told().await, json!({"watchId": 1}));
    assert!(one.watch(2, &["b"]).await);
    executor.shutdown().await;
}

#[tokio::test]
async fn a_watch_has_64_paths_and_watches_what_is_there_too() {
    let executor = executor().await;
    let mut one = Watcher::with(Client::begin(&executor).await.0);
    let names: Vec<String> = (0..65).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(!one.watch(1, &names).await);
    assert!(one.watch(2, &names[..64]).await);
    let mut params = one.params(3, &["missing"]);
    params["present"] = json!(uri(&one.dir.path().join("there")));
    let none = one.client.call("fs/watchMissing", params.clone()).await;
    assert_eq!(none, Ok(json!({"watching": false})));
    one.touch("there");
    params["watchId"] = json!(4);
    let watching = one.client.call("fs/watchMissing", params).await;
    assert_eq!(watching, Ok(json!({"watching": true})));
    std::fs::remove_file(one.dir.path().join("there")).unwrap();
    assert_eq!(one.told().await, json!({"watchId": 4}));
    executor.shutdown().await;
}

#[tokio::test]
async fn watches_that_come_faster_than_they_are_put_in_place_are_all_answered_and_the_last_one_watches() {
    let executor = executor().await;
    let mut one = Watcher::with(Client::begin(&executor).await.0);
    let mut ids = Vec::new();
    for number in 1..=40 {
        let params = one.params(number, &["a"]);
        ids.push(one.client.ask("fs/watchMissing", params).await);
    }
    let mut watching = Vec::new();
    for id in ids {
        watching.push(one.client.answer(&json!(id)).await.unwrap()["watching"].clone());
    }
    assert_eq!(watching.last(), Some(&json!(true)));
    one.touch("a");
    assert_eq!(one.told().await, json!({"watchId": 40}));
    assert!(one.is_quiet().await, "those before it are over");
    executor.shutdown().await;
}

#[tokio::test]
async fn whoever_takes_a_session_up_has_no_watch_and_counts_anew() {
    let executor = executor().await;
    let (client, session) = Client::begin(&executor).await;
    let mut one = Watcher::with(client);
    assert!(one.watch(5, &["a"]).await);
    let mut next = Client::connect(&executor).await;
    std::mem::swap(&mut one.client, &mut next);
    drop(next);
    one.client.resume(&session).await;
    one.touch("a");
    assert!(one.is_quiet().await);
    assert!(one.watch(1, &["b"]).await);
    one.touch("b");
    assert_eq!(one.told().await, json!({"watchId": 1}));
    executor.shutdown().await;
}

#[tokio::test]
async fn a_watch_keeps_nothing_waiting_behind_it() {
    let executor = executor().await;
    let mut one = Watcher::with(Client::begin(&executor).await.0);
    assert!(one.watch(1, &["a"]).await);
    one.touch("file");
    let read = json!({"path": uri(&one.dir.path().join("file"))});
    for _ in 0..20 {
        let contents = one.client.call("fs/readFile", read.clone()).await.unwrap();
        assert_eq!(contents["dataBase64"], "eA==");
    }
    one.touch("a");
    assert_eq!(one.told().await, json!({"watchId": 1}));
    executor.shutdown().await;
}

#[tokio::test]
async fn a_bridge_watches_on_its_executors_machine() {
    let key = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(key.public())
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let bridge = Bridge::serve(options(), key, target).await.unwrap();
    let mut client = Client::connect_to(bridge.url().unwrap()).await;
    client.initialize(Value::Null).await.unwrap();
    let info = client.call("environment/info", Value::Null).await.unwrap();
    assert_eq!(info["capabilities"]["fsWatchMissing"], true);
    let mut one = Watcher::with(client);
    assert!(one.watch(1, &["a"]).await);
    one.touch("a");
    assert_eq!(one.told().await, json!({"watchId": 1}));
    assert!(one.watch(2, &["b"]).await);
    bounded(bridge.shutdown()).await;
    executor.shutdown().await;
}
