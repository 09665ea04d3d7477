//! Files behind links, and times before there were any.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use dwell_messages::dialect::uri_of;
use serde_json::{Value, json};

use crate::client::{Client, executor, refused};

fn uri(path: impl AsRef<Path>) -> String {
    uri_of(path.as_ref().as_os_str().as_encoded_bytes())
}

#[tokio::test]
async fn a_link_on_the_way_is_no_directory_where_links_are_not_followed() {
    let (executor, dir) = (executor().await, tempfile::tempdir().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    std::fs::create_dir(dir.path().join("dir")).unwrap();
    std::fs::write(dir.path().join("dir/file"), "x").unwrap();
    symlink("dir", dir.path().join("link")).unwrap();
    symlink("file", dir.path().join("dir/link")).unwrap();
    let at = |name: &str, more: &Value| {
        let mut params = json!({"path": uri(dir.path().join(name))});
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        params
    };
    let not = json!({"followSymlinks": false, "recursive": false, "dataBase64": ""});
    for (method, name) in [
        ("fs/readFile", "link/file"),
        ("fs/readFile", "link/link"),
        ("fs/readFile", "link/none"),
        ("fs/writeFile", "link/new"),
        ("fs/getMetadata", "link/link"),
        ("fs/createDirectory", "link/new"),
        ("fs/remove", "link/file"),
    ] {
        let refusal = client.call(method, at(name, &not)).await;
        assert_eq!(
            refusal,
            refused(-32603, "Not a directory (os error 20)"),
            "{method} {name}"
        );
    }
    let made = client
        .call(
            "fs/createDirectory",
            at("link", &json!({"followSymlinks": false})),
        )
        .await;
    assert_eq!(made, refused(-32603, "Not a directory (os error 20)"));
    let removed = client.call("fs/remove", at("link", &not)).await;
    assert_eq!(removed, refused(-32600, "path contains a symbolic link"));
    assert!(dir.path().join("link").is_symlink() && dir.path().join("dir/file").exists());
    // The controls: the same where links are followed, which is also what null means.
    for said in [json!(true), Value::Null] {
        let read = client
            .call("fs/readFile", at("link/file", &json!({"followSymlinks": said})))
            .await;
        assert_eq!(read, Ok(json!({"dataBase64": "eA=="})));
    }
    let removed = client
        .call("fs/remove", at("link", &json!({"recursive": false})))
        .await;
    assert!(removed.is_ok() && !dir.path().join("link").is_symlink());
    executor.shutdown().await;
}

#[tokio::test]
async fn a_walk_enters_a_root_that_is_a_link_only_where_links_are_followed() {
    let (executor, dir) = (executor().await, tempfile::tempdir().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    std::fs::create_dir(dir.path().join("dir")).unwrap();
    std::fs::write(dir.path().join("dir/.file"), "x").unwrap();
    symlink("dir", dir.path().join("link")).unwrap();
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    let mut walked = async |root: &str, follow: bool| {
        // Hidden directories are entered where nothing is said of them.
        let options =
            json!({"maxDepth": 1, "maxDirectories": 9, "maxEntries": 9, "followDirectorySymlinks": follow});
        let walk = json!({"path": uri(dir.path().join(root)), "options": options});
        let told = client.call("fs/walk", walk).await;
        told.map(|told| told["entries"].as_array().unwrap().len())
            .map_err(|refusal| refusal.code)
    };
    assert_eq!(walked("link", false).await, Ok(0));
    assert_eq!(walked("link", true).await, Ok(1));
    assert_eq!(walked("dir", false).await, Ok(1));
    assert_eq!(walked("dangling", false).await, Err(-32004));
    executor.shutdown().await;
}

#[tokio::test]
async fn what_was_changed_before_time_began_was_changed_then() {
    let (executor, dir) = (executor().await, tempfile::tempdir().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    for (time, expected) in [("@-5", 0), ("@1234567890.9875", 1_234_567_890_987_i64)] {
        let touched = Command::new("touch")
            .args(["-d", time])
            .arg(dir.path().join("file"))
            .status();
        assert!(touched.unwrap().success());
        let ask = json!({"path": uri(dir.path().join("file"))});
        let told = client.call("fs/getMetadata", ask).await.unwrap();
        assert_eq!(told["modifiedAtMs"], json!(expected));
    }
    executor.shutdown().await;
}
