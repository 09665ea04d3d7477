//! Files.

use std::os::unix::fs::symlink;
use std::path::Path;

use dwell_actors::dialect::Sandbox;
use dwell_messages::dialect::{HANDLES_MAX, uri_of};
use serde_json::{Value, json};

use crate::client::{Client, Refused, base64, bytes, executor, executor_with, options, refused};

fn uri(path: impl AsRef<Path>) -> String {
    uri_of(path.as_ref().as_os_str().as_encoded_bytes())
}

const MISSING: &str = "No such file or directory (os error 2)";

fn missing() -> Result<Value, Refused> {
    refused(-32004, MISSING)
}

#[tokio::test]
async fn a_file_is_written_and_read_whole() {
    let (executor, dir) = (executor().await, tempfile::tempdir().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    let file = uri(dir.path().join("a b.txt"));
    assert_eq!(client.call("fs/readFile", json!({"path": file})).await, missing());
    for contents in [&b"hello"[..], b"", &vec![7; 3_000_000]] {
        let write = json!({"path": file, "dataBase64": base64(contents), "sandbox": null});
        assert_eq!(client.call("fs/writeFile", write).await, Ok(json!({})));
        let read = client.call("fs/readFile", json!({"path": file})).await.unwrap();
        assert!(bytes(&read["dataBase64"]) == contents);
    }
    let bad = client
        .call("fs/writeFile", json!({"path": file, "dataBase64": "?"}))
        .await;
    assert_eq!(bad.unwrap_err().code, -32600);
    let nowhere = json!({"path": uri(dir.path().join("x/y")), "dataBase64": ""});
    assert_eq!(client.call("fs/writeFile", nowhere).await, missing());
    let directory = client.call("fs/readFile", json!({"path": uri(dir.path())})).await;
    assert_eq!(
        directory,
        refused(-32600, &format!("path `{}` is not a file", dir.path().display()))
    );
    let device = client
        .call("fs/readFile", json!({"path": "file:///dev/null"}))
        .await;
    assert_eq!(device, refused(-32600, "path `/dev/null` is not a file"));
    executor.shutdown().await;
}

#[tokio::test]
async fn links_are_followed_unless_it_is_said_otherwise() {
    let (executor, dir) = (executor().await, tempfile::tempdir().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    std::fs::write(dir.path().join("file"), "x").unwrap();
    symlink("file", dir.path().join("link")).unwrap();
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    let link = uri(dir.path().join("link"));
    assert!(client.call("fs/readFile", json!({"path": link})).await.is_ok());
    let refusal = client
        .call("fs/readFile", json!({"path": link, "followSymlinks": false}))
        .await;
    assert_eq!(
        refusal,
        refused(-32603, "Too many levels of symbolic links (os error 40)")
    );
    let info = client
        .call("fs/getMetadata", json!({"path": link}))
        .await
        .unwrap();
    assert_eq!(
        (&info["isFile"], &info["isSymlink"], &info["size"]),
        (&json!(true), &json!(true), &json!(1))
    );
    assert!(info["modifiedAtMs"].as_i64().unwrap() > 1_500_000_000_000);
    let refusal = client
        .call("fs/getMetadata", json!({"path": link, "followSymlinks": false}))
        .await;
    assert_eq!(refusal, refused(-32600, "path contains a symbolic link"));
    let plain = json!({"path": uri(dir.path().join("file")), "followSymlinks": false});
    assert_eq!(
        client.call("fs/getMetadata", plain).await.unwrap()["isSymlink"],
        json!(false)
    );
    let dangling = json!({"path": uri(dir.path().join("dangling"))});
    assert_eq!(client.call("fs/getMetadata", dangling).await, missing());
    let canonical = client
        .call("fs/canonicalize", json!({"path": link}))
        .await
        .unwrap();
    let real = std::fs::canonicalize(dir.path().join("file")).unwrap();
    assert_eq!(canonical, json!({"path": uri(real)}));
    assert_eq!(
        client
            .call("fs/canonicalize", json!({"path": uri(dir.path().join("no"))}))
            .await,
        missing()
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn directories_are_made_listed_copied_and_removed() {
    let (executor, dir) = (executor().await, tempfile::tempdir().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    let at = |name: &str| uri(dir.path().join(name));
    assert_eq!(
        client
            .call("fs/createDirectory", json!({"path": at("a/b")}))
            .await,
        Ok(json!({}))
    );
    assert_eq!(
        client
            .call(
                "fs/createDirectory",
                json!({"path": at("a/b"), "recursive": true})
            )
            .await,
        Ok(json!({}))
    );
    let again = client
        .call(
            "fs/createDirectory",
            json!({"path": at("a/b"), "recursive": false}),
        )
        .await;
    assert_eq!(again, refused(-32603, "File exists (os error 17)"));
    std::fs::write(dir.path().join("a/file"), "x").unwrap();
    symlink("file", dir.path().join("a/link")).unwrap();
    symlink("nowhere", dir.path().join("a/dangling")).unwrap();
    let listed = client
        .call("fs/readDirectory", json!({"path": at("a")}))
        .await
        .unwrap();
    let mut names: Vec<_> = listed["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let is = (
                entry["isDirectory"] == json!(true),
                entry["isFile"] == json!(true),
            );
            (entry["fileName"].as_str().unwrap().to_owned(), is)
        })
        .collect();
    names.sort();
    let named = |name: &str, is| (name.to_owned(), is);
    assert_eq!(
        names,
        [
            named("b", (true, false)),
            named("file", (false, true)),
            named("link", (false, true))
        ]
    );
    let copy = |to: &str, recursive: bool| json!({"sourcePath": at("a"), "destinationPath": at(to), "recursive": recursive});
    assert_eq!(
        client.call("fs/copy", copy("c", false)).await.unwrap_err().code,
        -32600
    );
    assert_eq!(client.call("fs/copy", copy("c", true)).await, Ok(json!({})));
    assert!(
        std::fs::symlink_metadata(dir.path().join("c/link"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(
        client
            .call("fs/copy", copy("a/b/inside", true))
            .await
            .unwrap_err()
            .code,
        -32600,
        "into itself"
    );
    let full = json!({"path": at("a"), "recursive": false});
    assert_eq!(
        client.call("fs/remove", full).await,
        refused(-32603, "Directory not empty (os error 39)")
    );
    assert_eq!(
        client.call("fs/remove", json!({"path": at("a/link")})).await,
        Ok(json!({}))
    );
    assert!(dir.path().join("a/file").exists(), "a link goes itself");
    assert_eq!(
        client.call("fs/remove", json!({"path": at("a")})).await,
        Ok(json!({}))
    );
    assert_eq!(
        client.call("fs/remove", json!({"path": at("a")})).await,
        Ok(json!({})),
        "what is missing is no error"
    );
    assert_eq!(
        client
            .call("fs/remove", json!({"path": at("a"), "force": false}))
            .await,
        missing()
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn a_walk_is_breadth_first_and_within_its_bounds() {
    let (executor, dir) = (executor().await, tempfile::tempdir().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    for name in ["b/deep", ".hidden/in", "a"] {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    for name in ["b/deep/file", "z", ".hidden/in/x"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    symlink("z", dir.path().join("link")).unwrap();
    let ask = |options: Value| {
        let mut all = json!({"maxDepth": 6, "maxDirectories": 2000, "maxEntries": 20000,
            "followDirectorySymlinks": true, "pruneHiddenDirectories": true});
        for (name, value) in options.as_object().unwrap() {
            all[name] = value.clone();
        }
        json!({"path": uri(dir.path()), "options": all})
    };
    let root = uri(dir.path());
    let names = |walked: &Value| -> Vec<String> {
        let entries = walked["entries"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| entry["path"].as_str().unwrap()[root.len() + 1..].to_owned())
            .collect()
    };
    let walked = client.call("fs/walk", ask(json!({}))).await.unwrap();
    assert_eq!(
        names(&walked),
        [".hidden", "a", "b", "z", "b/deep", "b/deep/file"]
    );
    assert_eq!(
        (&walked["truncated"], &walked["errors"]),
        (&json!(false), &json!([]))
    );
    let shallow = client
        .call("fs/walk", ask(json!({"maxDepth": 0, "maxEntries": 2})))
        .await
        .unwrap();
    assert_eq!((names(&shallow).len(), &shallow["truncated"]), (2, &json!(true)));
    let all = client
        .call("fs/walk", ask(json!({"pruneHiddenDirectories": false})))
        .await
        .unwrap();
    assert!(names(&all).contains(&".hidden/in/x".to_owned()));
    for wrong in [
        json!({"maxDepth": 65}),
        json!({"maxDirectories": 10_001}),
        json!({"maxEntries": 50_001}),
        json!({"maxEntries": 0}),
        json!({"maxDirectories": 0}),
    ] {
        assert_eq!(client.call("fs/walk", ask(wrong)).await.unwrap_err().code, -32600);
    }
    let mut file = ask(json!({}));
    file["path"] = json!(uri(dir.path().join("z")));
    let empty = client.call("fs/walk", file.clone()).await;
    assert_eq!(
        empty,
        Ok(json!({"entries": [], "errors": [], "truncated": false}))
    );
    file["path"] = json!(uri(dir.path().join("nowhere")));
    assert_eq!(client.call("fs/walk", file).await, missing());
    executor.shutdown().await;
}

#[tokio::test]
async fn open_files_are_read_and_written_by_blocks_and_end_with_their_connection() {
    let (executor, dir) = (executor().await, tempfile::tempdir().unwrap());
    let (mut client, session) = Client::begin(&executor).await;
    let path = dir.path().join("file");
    let open = |id: &str, mode: &str| json!({"handleId": id, "path": uri(&path), "mode": mode});
    assert_eq!(client.call("fs/open", open("r", "read")).await, missing());
    assert_eq!(
        client.call("fs/open", open("w", "replace")).await,
        Ok(json!({"handleId": "w"}))
    );
    assert_eq!(
        client
            .call("fs/open", open("w", "replace"))
            .await
            .unwrap_err()
            .code,
        -32600,
        "twice"
    );
    let contents: Vec<u8> = (0..1_500_000_u32).map(|at| (at % 251) as u8).collect();
    for (at, block) in contents.chunks(1024 * 1024).enumerate() {
        let write = json!({"handleId": "w", "offset": at * 1024 * 1024, "chunk": base64(block)});
        assert_eq!(client.call("fs/writeBlock", write).await, Ok(json!({})));
    }
    let unreadable = client
        .call("fs/readBlock", json!({"handleId": "w", "offset": 0, "len": 1}))
        .await;
    assert_eq!(unreadable, refused(-32603, "Bad file descriptor (os error 9)"));
    assert_eq!(
        client.call("fs/close", json!({"handleId": "w"})).await,
        Ok(json!({}))
    );
    assert_eq!(
        client.call("fs/close", json!({"handleId": "w"})).await,
        Ok(json!({})),
        "closing is idempotent"
    );
    assert!(std::fs::read(&path).unwrap() == contents);

    assert!(client.call("fs/open", open("r", "read")).await.is_ok());
    let mut read = async |offset: usize, len: usize| {
        client
            .call(
                "fs/readBlock",
                json!({"handleId": "r", "offset": offset, "len": len}),
            )
            .await
    };
    let first = read(0, 1024 * 1024).await.unwrap();
    assert!(bytes(&first["chunk"]) == contents[..1024 * 1024] && first["eof"] == json!(false));
    let last = read(1024 * 1024, 1024 * 1024).await.unwrap();
    assert!(bytes(&last["chunk"]) == contents[1024 * 1024..] && last["eof"] == json!(true));
    let exact = read(1_499_999, 1).await.unwrap();
    assert_eq!(
        (&exact["eof"], bytes(&exact["chunk"]).len()),
        (&json!(false), 1),
        "whoever asked got all of it"
    );
    let behind = read(1_500_000, 1).await.unwrap();
    assert_eq!((&behind["eof"], bytes(&behind["chunk"]).len()), (&json!(true), 0));
    for wrong in [0, 1024 * 1024 + 1] {
        assert_eq!(read(0, wrong).await.unwrap_err().code, -32600);
    }
    assert!(read(0, 1).await.is_ok(), "a wrong length costs nothing");
    let unwritable = json!({"handleId": "r", "offset": 0, "chunk": base64(b"x")});
    assert_eq!(
        client.call("fs/writeBlock", unwritable).await,
        refused(-32603, "Bad file descriptor (os error 9)")
    );
    let unknown = client
        .call("fs/readBlock", json!({"handleId": "x", "offset": 0, "len": 1}))
        .await;
    assert_eq!(unknown.unwrap_err().code, -32004);

    drop(client);
    let mut back = Client::connect(&executor).await;
    back.resume(&session).await;
    let gone = back
        .call("fs/readBlock", json!({"handleId": "r", "offset": 0, "len": 1}))
        .await;
    assert_eq!(gone.unwrap_err().code, -32004);
    assert!(
        back.call("fs/open", open("r", "read")).await.is_ok(),
        "its name is free"
    );
    let long = json!({"handleId": "x".repeat(33), "path": uri(&path)});
    assert_eq!(back.call("fs/open", long).await.unwrap_err().code, -32600);
    for number in 1..HANDLES_MAX {
        assert!(
            back.call("fs/open", open(&number.to_string(), "read"))
                .await
                .is_ok()
        );
    }
    assert_eq!(
        back.call("fs/open", open("one more", "read"))
            .await
            .unwrap_err()
            .code,
        -32600
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn a_block_behind_the_longest_file_is_refused_and_its_file_stays_open() {
    let (executor, dir) = (executor().await, tempfile::tempdir().unwrap());
    let (mut client, _) = Client::begin(&executor).await;
    let open = |path: &Path| json!({"handleId": "h", "path": uri(path), "mode": "replace"});
    assert_eq!(
        client.call("fs/open", open(dir.path())).await,
        refused(-32603, "Is a directory (os error 21)")
    );
    client
        .call("fs/open", open(&dir.path().join("file")))
        .await
        .unwrap();
    for offset in [i64::MAX as u64, u64::MAX] {
        let write = json!({"handleId": "h", "offset": offset, "chunk": "YQ=="});
        let refusal = client.call("fs/writeBlock", write).await.unwrap_err();
        assert_eq!(refusal.code, -32600, "{refusal:?}");
    }
    let write = json!({"handleId": "h", "offset": 0, "chunk": "YQ=="});
    assert_eq!(client.call("fs/writeBlock", write).await, Ok(json!({})));
    executor.shutdown().await;
}

#[tokio::test]
async fn methods_that_there_are_not_are_not_there() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    for method in [
        "fs/join",
        "fs/parent",
        "fs/watch",
        "fs/readStream",
        "fs/writeStream",
        "fs/rename",
        "process/list",
        "process/kill",
        "http/cancel",
    ] {
        let text = format!("exec-server stub does not implement `{method}` yet");
        assert_eq!(client.call(method, json!({})).await, refused(-32601, &text));
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn what_asks_for_a_sandbox_is_refused_with_files_too() {
    let confined = json!({"path": "file:///etc/hostname", "sandbox": {"permissions": {"type": "managed"}, "windowsSandboxLevel": "disabled"}});
    let unconfined = executor_with(options().sandbox(Sandbox::Off)).await;
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    for method in [
        "fs/readFile",
        "fs/getMetadata",
        "fs/canonicalize",
        "fs/remove",
        "fs/createDirectory",
        "fs/readDirectory",
    ] {
        let refusal = client.call(method, confined.clone()).await.unwrap_err();
        assert!(
            refusal.code == -32603 && refusal.message.contains("--sandbox=off"),
            "{method}: {refusal:?}"
        );
    }
    let (mut client, _) = Client::begin(&unconfined).await;
    assert!(
        client.call("fs/getMetadata", confined).await.is_ok(),
        "the control"
    );
    executor.shutdown().await;
    unconfined.shutdown().await;
}
