//! Two servers, a place of its own for each conversation, and a client that knows nothing but JSON.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dwell_testkit::Origin;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// How long anything may take.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// A server under test; ended when dropped.
pub(crate) struct Server {
    pub(crate) is_stock: bool,
    pub(crate) url: String,
    /// Program and the arguments before `--listen`.
    pub(crate) line: Vec<PathBuf>,
    child: Child,
    home: TempDir,
}

impl Server {
    pub(crate) fn stock(codex: &Path) -> Self {
        Self::start(true, vec![codex.into(), "exec-server".into()])
    }

    pub(crate) fn dwell() -> Self {
        Self::start(false, vec![env!("CARGO_BIN_EXE_dwell").into(), "executor".into()])
    }

    fn start(is_stock: bool, line: Vec<PathBuf>) -> Self {
        // The stock server puts no helpers below /tmp, where this may have been built.
        let home = TempDir::new_in("/var/tmp").unwrap();
        let mut child = command(&line, home.path())
            .args(["--listen", "ws://127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        Self {
            is_stock,
            url: url.trim_end().to_owned(),
            line,
            child,
            home,
        }
    }

    /// This server's program, as it was started itself.
    pub(crate) fn command(&self) -> Command {
        command(&self.line, self.home.path())
    }
}

/// The same environment for both, whatever the test has.
fn command(line: &[PathBuf], home: &Path) -> Command {
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .env_clear()
        .envs([
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("LANG", "C.UTF-8"),
            ("SHELL", "/bin/bash"),
            ("PLAIN", "1"),
            ("MY_TOKEN", "t"),
            ("MY_PASSWORD", "p"),
        ])
        .env("HOME", home)
        .env("CODEX_HOME", home)
        .env("DWELL_HOME", home)
        .current_dir(home);
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One conversation's place: a directory with something of everything in it.
pub(crate) struct Lab {
    pub(crate) server: Arc<Server>,
    pub(crate) dir: TempDir,
    /// A web server, where the conversation is about one.
    origin: OnceLock<Origin>,
}

impl Lab {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        let dir = TempDir::with_prefix("conformance").unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "hello\n").unwrap();
        for name in ["dir", "dir/sub", "dir/.hidden", "empty"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        for name in ["dir/b", "dir/a", "dir/sub/c", "dir/.hidden/d"] {
            std::fs::write(at(name), name).unwrap();
        }
        for (target, name) in [
            ("file", "link"),
            ("nowhere", "dangling"),
            ("dir", "dirlink"),
            ("loop", "loop"),
            ("sub", "dir/sublink"),
            ("a", "dir/alink"),
        ] {
            std::os::unix::fs::symlink(target, at(name)).unwrap();
        }
        let made = Command::new("mkfifo").arg(at("fifo")).status().unwrap();
        assert!(made.success());
        Self {
            server,
            dir,
            origin: OnceLock::new(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn origin(&self) -> &Origin {
        self.origin.get_or_init(|| Origin::start().unwrap())
    }

    fn dir(&self) -> &str {
        std::str::from_utf8(self.dir.path().as_os_str().as_bytes()).unwrap()
    }

    /// What a case says, with this place's own names.
    pub(crate) fn here(&self, text: &str) -> String {
        let text = text.replace("$DIR", self.dir());
        if text.contains("$ORIGIN") {
            return text.replace("$ORIGIN", &self.origin().url(""));
        }
        text
    }

    /// What was answered, without this place's own names.
    pub(crate) fn anywhere(&self, text: &str, session: Option<&str>) -> String {
        let text = text.replace(self.dir(), "$DIR");
        session.map_or(text.clone(), |session| text.replace(session, "$SESSION"))
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(&self.server.url).await
    }

    /// Connected, and ready for requests.
    pub(crate) async fn begin(&self) -> Client {
        let mut client = self.connect().await;
        client.initialize(Value::Null).await;
        client
    }
}

/// Whether an answer is what is expected. Objects may have more members, unless they are below `=`; texts may have stars.
pub(crate) fn fits(expected: &Value, told: &Value) -> bool {
    match (expected, told) {
        (Value::Object(expected), told) if expected.len() == 1 && expected.contains_key("=") => {
            expected["="] == *told
        }
        (Value::Object(expected), Value::Object(told)) => expected
            .iter()
            .all(|(name, value)| told.get(name).is_some_and(|told| fits(value, told))),
        (Value::Array(expected), Value::Array(told)) => {
            expected.len() == told.len()
                && expected
                    .iter()
                    .zip(told)
                    .all(|(expected, told)| fits(expected, told))
        }
        (Value::String(pattern), Value::String(text)) => glob(pattern, text),
        (Value::String(any), _) if any == "*" => true,
        (expected, told) => expected == told,
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// One connection.
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    next_id: i64,
    kept: VecDeque<Value>,
    pub(crate) session: Option<String>,
}

impl Client {
    pub(crate) async fn connect(url: &str) -> Self {
        let stream = TcpStream::connect(url.strip_prefix("ws://").unwrap())
            .await
            .unwrap();
        let config = WebSocketConfig::default()
            .max_frame_size(None)
            .max_message_size(None);
        let asked = tokio_tungstenite::client_async_with_config(format!("{url}/"), stream, Some(config));
        let (socket, _) = tokio::time::timeout(BOUND, asked)
            .await
            .expect("an upgrade in time")
            .unwrap();
        Self {
            socket,
            next_id: 1,
            kept: VecDeque::new(),
            session: None,
        }
    }

    /// The handshake, and its outcome.
    pub(crate) async fn initialize(&mut self, resume: Value) -> Value {
        let params = json!({"clientName": "conformance", "resumeSessionId": resume});
        let told = self.call("initialize", params).await;
        if let Some(session) = told["sessionId"].as_str() {
            self.session = Some(session.to_owned());
            self.say(r#"{"method":"initialized","params":{}}"#).await;
        }
        told
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.frame(Message::text(text)).await;
    }

    pub(crate) async fn frame(&mut self, message: Message) {
        // Whoever was closed is told by what it reads next.
        drop(tokio::time::timeout(BOUND, self.socket.send(message)).await);
    }

    /// Sends a request, and gives its id.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        self.say(&json!({"id": id, "method": method, "params": params}).to_string())
            .await;
        id
    }

    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params).await;
        self.answer(json!(id)).await
    }

    /// What was answered: the result, or the error as one text, or that the connection is closed.
    pub(crate) async fn answer(&mut self, id: Value) -> Value {
        self.find(|message| message.get("method").is_none() && message["id"] == id)
            .await
            .map_or(json!("closed"), |message| outcome(&message))
    }

    /// The next message that fits; others stay for whoever wants them. `None`: the connection is closed.
    pub(crate) async fn find(&mut self, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
        if let Some(at) = self.kept.iter().position(&is_it) {
            return self.kept.remove(at);
        }
        loop {
            let message = self.read().await?;
            if is_it(&message) {
                return Some(message);
            }
            self.kept.push_back(message);
        }
    }

    /// The next message. `None`: the connection is closed.
    pub(crate) async fn read(&mut self) -> Option<Value> {
        loop {
            match self.next().await? {
                Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
                Message::Close(_) => return Some(json!({"method": "close frame"})),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// What comes next, whatever it is.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        let next = tokio::time::timeout(BOUND, self.socket.next()).await;
        next.expect("an answer in time")?.ok()
    }

    /// Reads for so long, and keeps what comes: a client that reads answers pings.
    pub(crate) async fn listen(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while let Ok(Some(Ok(message))) = tokio::time::timeout_at(until, self.socket.next()).await {
            if let Message::Text(text) = message {
                self.kept.push_back(serde_json::from_str(&text).unwrap());
            }
        }
    }

    /// Like `next`, for as long as is said.
    pub(crate) async fn next_within(&mut self, bound: Duration) -> Option<Message> {
        tokio::time::timeout(bound, self.socket.next()).await.ok()??.ok()
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.socket.into_inner()
    }
}

/// The outcome of a response in one value.
pub(crate) fn outcome(message: &Value) -> Value {
    match message.get("error") {
        Some(error) => json!(format!(
            "{} {}",
            error["code"],
            error["message"].as_str().unwrap_or("no text")
        )),
        None => message["result"].clone(),
    }
}
