//! The JSON dialect with the binary as its users have it: what it prints, what it ends, and how it ends itself.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "cli")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// The longest anything here may take.
const BOUND: Duration = Duration::from_secs(60);

fn executor(home: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dwell"))
        .env_clear()
        .env("DWELL_HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .arg("executor")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Killed when dropped.
struct Serving {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Serving {
    fn start(home: &Path, arguments: &[&str]) -> Self {
        let mut child = executor(home, arguments);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Its exit code, and what it still had to say.
    fn end(&mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(begun.elapsed() < BOUND, "it ends"),
            }
            std::thread::park_timeout(Duration::from_millis(1));
        };
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (status.code(), rest)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn start(process: &str, script: &str) -> Value {
    json!({"processId": process, "argv": ["/bin/sh", "-c", script], "cwd": "file:///", "tty": false,
        "env": {"PATH": "/usr/bin:/bin"}})
}

struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn begin(url: &str) -> Self {
        let stream = TcpStream::connect(url.strip_prefix("ws://").unwrap())
            .await
            .unwrap();
        let (socket, _) = tokio_tungstenite::client_async(format!("{url}/"), stream)
            .await
            .unwrap();
        let mut client = Self(socket);
        client
            .send(json!({"id": 1, "method": "initialize", "params": {"clientName": "c"}}))
            .await;
        client.send(json!({"method": "initialized"})).await;
        client.find(|message| message["id"] == json!(1)).await;
        client
    }

    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn find(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        let found = async {
            loop {
                if let Message::Text(text) = self.0.next().await.unwrap().unwrap() {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if fits(&message) {
                        return message;
                    }
                }
            }
        };
        tokio::time::timeout(BOUND, found).await.unwrap()
    }
}

/// Whether a process has this word among its arguments.
fn lives(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|argument| argument == word.as_bytes())
    })
}

async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < BOUND, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_address_is_all_that_is_printed_and_a_termination_takes_what_left_its_group() {
    let home = TempDir::new().unwrap();
    let mut serving = Serving::start(home.path(), &["--listen", "ws://127.0.0.1:0"]);
    let line = serving.line();
    let url = line.strip_suffix('\n').unwrap().to_owned();
    assert!(
        url.strip_prefix("ws://127.0.0.1:")
            .is_some_and(|port| port.parse::<u16>().is_ok()),
        "{url}"
    );
    let mut client = Client::begin(&url).await;
    let word = format!("{}.{}", std::process::id(), 88_001);
    // In a session of its own, where a signal to the group does not reach it.
    let script = format!("setsid sleep {word} & echo up; wait");
    client
        .send(json!({"id": 2, "method": "process/start", "params": start("p", &script)}))
        .await;
    client.find(|message| message["method"] == "process/output").await;
    wait_until("it runs", || lives(&word)).await;
    client
        .send(json!({"id": 3, "method": "process/terminate", "params": {"processId": "p"}}))
        .await;
    let answer = client.find(|message| message["id"] == json!(3)).await;
    assert_eq!(answer["result"], json!({"running": true}));
    client.find(|message| message["method"] == "process/closed").await;
    wait_until("it is gone", || !lives(&word)).await;
    serving.signal(rustix::process::Signal::TERM);
    assert_eq!(
        serving.end(),
        (Some(0), String::new()),
        "nothing else was printed"
    );
}

#[tokio::test]
async fn what_a_client_runs_ends_with_the_executor() {
    let home = TempDir::new().unwrap();
    let mut serving = Serving::start(home.path(), &["--listen", "ws://127.0.0.1:0"]);
    let url = serving.line().trim_end().to_owned();
    let mut client = Client::begin(&url).await;
    let word = format!("{}.{}", std::process::id(), 88_002);
    let script = format!("trap '' TERM; sleep {word}");
    client
        .send(json!({"id": 2, "method": "process/start", "params": start("p", &script)}))
        .await;
    wait_until("it runs", || lives(&word)).await;
    serving.signal(rustix::process::Signal::TERM);
    assert_eq!(serving.end().0, Some(0));
    wait_until("it is gone", || !lives(&word)).await;
}

#[test]
fn standard_input_carries_a_line_a_message_and_its_end_is_the_end() {
    let home = TempDir::new().unwrap();
    let mut serving = Serving::start(home.path(), &["--listen", "stdio"]);
    let mut input = serving.child.stdin.take().unwrap();
    let messages = [
        "{\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"c\"}}\r\n",
        "\n   \n{\"method\":\"initialized\"}\n",
        "{\"id\":2,\"method\":\"environment/status\"} {\"id\":3,\"method\":\"environment/status\"}\n",
    ];
    input.write_all(messages.concat().as_bytes()).unwrap();
    let mut answer = || serde_json::from_str::<Value>(&serving.line()).unwrap();
    assert!(answer()["result"]["sessionId"].is_string());
    let complaint = answer();
    let text = complaint["error"]["message"].as_str().unwrap();
    assert!(
        text.starts_with("failed to parse JSON-RPC message from exec-server stdio: "),
        "{text}"
    );
    // The last line needs no end, and is done though nobody is there to hear of it: also where that takes a moment.
    let made = home.path().join("made");
    let make = json!({"id": 4, "method": "fs/createDirectory", "params": {"path": format!("file://{}", made.display())}});
    input.write_all(make.to_string().as_bytes()).unwrap();
    drop(input);
    assert_eq!(answer(), json!({"id": 4, "result": {}}));
    assert!(made.is_dir());
    assert_eq!(serving.end(), (Some(0), String::new()));
}

#[test]
fn an_input_that_stays_open_does_not_keep_the_executor_from_ending() {
    let home = TempDir::new().unwrap();
    let mut serving = Serving::start(home.path(), &["--listen", "stdio"]);
    let mut input = serving.child.stdin.take().unwrap();
    input
        .write_all(b"{\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"c\"}}\n")
        .unwrap();
    assert!(serving.line().contains("sessionId"), "it serves");
    serving.signal(rustix::process::Signal::TERM);
    assert_eq!(serving.end(), (Some(0), String::new()));
    drop(input);
}

#[test]
fn an_address_that_is_none_and_words_that_do_not_fit_are_refused() {
    let home = TempDir::new().unwrap();
    for arguments in [
        &["--listen", "ws://localhost:0"][..],
        &["--listen", "ws://127.0.0.1:0/"],
        &["--listen", "ws://0.0.0.0:0"],
        &["--listen", "ws://127.0.0.1:0", "--ws-auth", "capability-token"],
        &["--listen", "127.0.0.1:0", "--sandbox", "off"],
    ] {
        let (code, printed) = Serving::start(home.path(), arguments).end();
        assert!(
            code.is_some_and(|code| code != 0) && printed.is_empty(),
            "{arguments:?}: {code:?} {printed}"
        );
    }
}
