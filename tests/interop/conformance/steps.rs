//! Conversations as steps: a method and its parameters, or one of these, each with one observation.
//!
//! | step | what it does, and observes |
//! |---|---|
//! | `@fresh` | first: no handshake |
//! | `@text`, `@binary`, `@pieces` | sends text as it is, in one frame or two; the answer, by whatever id |
//! | `@say` | sends text as it is; nothing |
//! | `@open` | whether the connection still is |
//! | `@all` | requests at once; their answers |
//! | `@sh` | starts a shell's script: name and script |
//! | `@run` | starts a process by pipes, in `/`, with a `PATH` and nothing else, but for what is given |
//! | `@events` | all that a process tells, to its end |
//! | `@output` | the next output of a process |
//! | `@drop`, `@leave` | breaks the connection off, or closes it; connects anew |
//! | `@resume`, `@half` | takes the first session up; the same without the word that it knows |
//! | `@touch`, `@unlink`, `@awaits`, `@mode`, `@contents` | of a file |
//! | `@told` | the next notification of a method; its parameters |
//! | `@body` | an `http/request`; its answer with the body as text |
//! | `@deltas` | the body that is told piece by piece under a name, to its end |
//! | `@go` | lets the web server go on |
//! | `@http` | one HTTP request on a connection of its own: status and body |

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::lab::{BOUND, Client, Lab, outcome};

pub(crate) async fn take(lab: Lab, calls: &'static [(&'static str, &'static str)]) -> Value {
    let is_fresh = calls.first().is_some_and(|(step, _)| *step == "@fresh");
    let mut client = if is_fresh {
        lab.connect().await
    } else {
        lab.begin().await
    };
    let mut session = client.session.clone();
    let mut told = Vec::new();
    for (step, given) in calls.iter().skip(usize::from(is_fresh)) {
        let given = lab
            .here(given)
            .replace("$SESSION", session.as_deref().unwrap_or("none"));
        if let Some(value) = one(&lab, &mut client, &mut session, step, &given).await {
            told.push(value);
        }
    }
    let text = lab.anywhere(&Value::from(told).to_string(), session.as_deref());
    serde_json::from_str(&text).unwrap()
}

async fn one(
    lab: &Lab,
    client: &mut Client,
    session: &mut Option<String>,
    step: &str,
    given: &str,
) -> Option<Value> {
    let file = || std::path::PathBuf::from(given);
    Some(match step {
        "@text" => raw(client, Message::text(given)).await,
        "@binary" => raw(client, Message::binary(given.as_bytes().to_vec())).await,
        "@pieces" => {
            let (first, second) = given.as_bytes().split_at(given.len() / 2);
            let piece = |bytes: &[u8], kind, last| {
                Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(kind), last))
            };
            client.frame(piece(first, Data::Text, false)).await;
            raw(client, piece(second, Data::Continue, true)).await
        }
        "@say" => {
            client.say(given).await;
            return None;
        }
        "@open" => json!(is_open(client).await),
        "@all" => {
            let asked: Vec<(String, Value)> = serde_json::from_str(given).unwrap();
            let mut ids = Vec::new();
            for (method, params) in asked {
                ids.push(client.ask(&method, params).await);
            }
            let mut told = Vec::new();
            for id in ids {
                told.push(client.answer(json!(id)).await);
            }
            Value::from(told)
        }
        "@sh" => {
            let (name, script) = given.split_once(' ').unwrap();
            client
                .call(
                    "process/start",
                    start(&json!({"processId": name, "argv": ["/bin/sh", "-c", script]})),
                )
                .await
        }
        "@run" => {
            client
                .call("process/start", start(&serde_json::from_str(given).unwrap()))
                .await
        }
        "@events" => events(client, given).await,
        "@output" => output(client, given).await,
        "@drop" | "@leave" => {
            if step == "@leave" {
                client.frame(Message::Close(None)).await;
            }
            *client = lab.connect().await;
            return None;
        }
        "@resume" | "@half" => resume(client, session.as_deref().unwrap(), step == "@resume").await,
        "@touch" => {
            std::fs::write(file(), "x").unwrap();
            return None;
        }
        "@unlink" => {
            std::fs::remove_file(file()).unwrap();
            return None;
        }
        "@awaits" => {
            awaits(&file()).await;
            return None;
        }
        "@mode" => {
            use std::os::unix::fs::PermissionsExt as _;
            json!(format!(
                "{:o}",
                std::fs::metadata(file()).unwrap().permissions().mode() & 0o7777
            ))
        }
        "@contents" => std::fs::read_to_string(file()).map_or(json!("none"), Value::from),
        "@body" => {
            let mut told = client
                .call("http/request", serde_json::from_str(given).unwrap())
                .await;
            if let Some(body) = told["bodyBase64"].as_str() {
                let body = STANDARD.decode(body).unwrap();
                told["body"] = json!(String::from_utf8_lossy(&body));
            }
            told
        }
        "@told" => client
            .find(|message| message["method"] == given)
            .await
            .map_or(json!("closed"), |message| message["params"].clone()),
        "@deltas" => deltas(client, given).await,
        "@go" => {
            lab.origin().go();
            return None;
        }
        "@http" => http(&lab.server.url, given).await,
        method => {
            assert!(!method.starts_with('@'), "no such step: {method}");
            let params = if given.is_empty() {
                Value::Null
            } else {
                serde_json::from_str(given).unwrap_or_else(|error| panic!("{given}: {error}"))
            };
            let told = client.call(method, params).await;
            if method == "initialize"
                && let Some(id) = told["sessionId"].as_str()
            {
                session.get_or_insert_with(|| id.to_owned());
            }
            told
        }
    })
}

/// The parameters of a start.
pub(crate) fn start(given: &Value) -> Value {
    let mut params = json!({"processId": "p", "argv": ["true"], "cwd": "file:///", "env": {"PATH": "/usr/bin:/bin"}, "tty": false});
    for (name, value) in given.as_object().unwrap() {
        params[name] = value.clone();
    }
    params
}

/// Waits for a file.
pub(crate) async fn awaits(file: &std::path::Path) {
    let until = tokio::time::Instant::now() + BOUND;
    while !file.exists() {
        assert!(
            tokio::time::Instant::now() < until,
            "{} is there in time",
            file.display()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn raw(client: &mut Client, message: Message) -> Value {
    client.frame(message).await;
    match client
        .find(|message| message.get("id").is_some() || message["method"] == "close frame")
        .await
    {
        Some(message) if message["method"] == "close frame" => json!("close frame"),
        Some(message) => json!([message["id"], outcome(&message)]),
        None => json!("closed"),
    }
}

pub(crate) async fn is_open(client: &mut Client) -> bool {
    client.call("environment/status", Value::Null).await == json!({"status": "ready"})
}

/// What a process tells: its output by stream, its exit, and in which order (`o`utput, `e`xited, `c`losed).
pub(crate) async fn events(client: &mut Client, process: &str) -> Value {
    let (mut order, mut last, mut is_dense) = (String::new(), None, true);
    let mut told = Map::new();
    let mut streams = std::collections::BTreeMap::<String, Vec<u8>>::new();
    loop {
        let Some(event) = client
            .find(|message| message["params"]["processId"] == process)
            .await
        else {
            return json!("closed");
        };
        let (params, seq) = (&event["params"], event["params"]["seq"].as_u64());
        is_dense &= last.is_none() || seq == last.map(|last: u64| last + 1);
        last = seq;
        let letter = match event["method"].as_str() {
            Some("process/output") => {
                let chunk = STANDARD.decode(params["chunk"].as_str().unwrap()).unwrap();
                streams
                    .entry(params["stream"].as_str().unwrap().to_owned())
                    .or_default()
                    .extend(chunk);
                'o'
            }
            Some("process/exited") => {
                told.insert("exit".into(), params["exitCode"].clone());
                told.insert("denied".into(), params["sandboxDenied"].clone());
                'e'
            }
            Some("process/closed") => 'c',
            other => panic!("{other:?}"),
        };
        if !order.ends_with(letter) {
            order.push(letter);
        }
        if letter == 'c' {
            break;
        }
    }
    for (stream, bytes) in streams {
        told.insert(stream, json!(String::from_utf8_lossy(&bytes)));
    }
    told.insert("order".into(), json!(order));
    told.insert("dense".into(), json!(is_dense));
    Value::Object(told)
}

/// A body as it is told: its text, whether its numbers begin at 1 and have no gaps, and its last piece.
async fn deltas(client: &mut Client, name: &str) -> Value {
    let (mut body, mut count, mut is_dense) = (Vec::new(), 0, true);
    loop {
        let Some(piece) = client
            .find(|message| {
                message["method"] == "http/request/bodyDelta" && message["params"]["requestId"] == name
            })
            .await
        else {
            return json!("closed");
        };
        let mut params = piece["params"].clone();
        count += 1;
        is_dense &= params["seq"] == count;
        body.extend(STANDARD.decode(params["deltaBase64"].as_str().unwrap()).unwrap());
        if params["done"] == true {
            params.as_object_mut().unwrap().remove("seq");
            let body = String::from_utf8_lossy(&body);
            return json!({"body": body, "dense": is_dense, "last": params});
        }
    }
}

async fn output(client: &mut Client, process: &str) -> Value {
    let found = client
        .find(|message| message["method"] == "process/output" && message["params"]["processId"] == process)
        .await;
    found.map_or(json!("closed"), |event| {
        let params = &event["params"];
        let chunk = STANDARD.decode(params["chunk"].as_str().unwrap()).unwrap();
        json!([params["seq"], params["stream"], String::from_utf8_lossy(&chunk)])
    })
}

/// Takes a session up as a stock client does: once more where its last connection is still there.
pub(crate) async fn resume(client: &mut Client, session: &str, says_so: bool) -> Value {
    let until = tokio::time::Instant::now() + BOUND;
    loop {
        let told = if says_so {
            client.initialize(json!(session)).await
        } else {
            let params = json!({"clientName": "conformance", "resumeSessionId": session});
            client.call("initialize", params).await
        };
        let is_attached = told.as_str().is_some_and(|text| text.starts_with("-32010"));
        if !is_attached || tokio::time::Instant::now() > until {
            return told.get("sessionId").cloned().unwrap_or(told);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `METHOD PATH` and a header a line: the status and the body. Of an upgrade that is granted only the head.
pub(crate) async fn http(url: &str, request: &str) -> Value {
    let mut stream = TcpStream::connect(url.strip_prefix("ws://").unwrap())
        .await
        .unwrap();
    let mut lines = request.lines();
    let mut head = format!("{} HTTP/1.1\r\nHost: anything\r\n", lines.next().unwrap());
    for line in lines {
        let line = match line {
            "UPGRADE" => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            }
            header => header,
        };
        head += &format!("{line}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read =
        async { while !is_whole(&answer, request) && stream.read_buf(&mut answer).await.unwrap_or(0) > 0 {} };
    tokio::time::timeout(BOUND, read)
        .await
        .expect("an answer in time");
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    let mut told = json!({"status": status, "body": body});
    for name in [
        "allow",
        "content-type",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "sec-websocket-accept",
    ] {
        told[name] = json!(header(head, name));
    }
    told
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// By its own length: a server may keep the connection.
fn is_whole(answer: &[u8], request: &str) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = header(head, "content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    request.starts_with("HEAD") || body.len() >= length
}
