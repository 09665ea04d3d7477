//! A client of the dialect that knows no more of it than the messages, and an executor to talk to.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dwell_actors::dialect::{DialectOptions, Endpoint};
use dwell_actors::executor::{Executor, ExecutorHandle};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long anything may take before a test has failed.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

pub(crate) fn options() -> DialectOptions {
    DialectOptions::new(Endpoint::WebSocket("127.0.0.1:0".parse().unwrap()))
}

pub(crate) async fn executor() -> ExecutorHandle {
    executor_with(options()).await
}

pub(crate) async fn executor_with(options: DialectOptions) -> ExecutorHandle {
    Executor::builder().dialect(options).serve().await.unwrap()
}

pub(crate) async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future)
        .await
        .expect("what was waited for came in time")
}

/// The address of a URL.
pub(crate) fn address(url: &str) -> String {
    url.strip_prefix("ws://")
        .unwrap()
        .trim_end_matches('/')
        .to_owned()
}

/// An error of a response.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) code: i64,
    pub(crate) message: String,
}

/// One connection.
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    next_id: i64,
    /// What came while something else was waited for.
    kept: VecDeque<Value>,
}

impl Client {
    pub(crate) async fn connect(executor: &ExecutorHandle) -> Self {
        Self::connect_to(executor.dialect_url().unwrap()).await
    }

    pub(crate) async fn connect_to(url: &str) -> Self {
        let stream = TcpStream::connect(address(url)).await.unwrap();
        let (socket, _) = bounded(tokio_tungstenite::client_async(format!("{url}/"), stream))
            .await
            .unwrap();
        Self {
            socket,
            next_id: 1,
            kept: VecDeque::new(),
        }
    }

    /// Connected, and ready for requests. The session's id.
    pub(crate) async fn begin(executor: &ExecutorHandle) -> (Self, String) {
        let mut client = Self::connect(executor).await;
        let session = client.initialize(Value::Null).await.unwrap();
        (client, session)
    }

    /// The handshake; `resume` is the session to take up, or null.
    pub(crate) async fn initialize(&mut self, resume: Value) -> Result<String, Refused> {
        let params = json!({"clientName": "test", "resumeSessionId": resume});
        let result = self.call("initialize", params).await?;
        self.send(&json!({"method": "initialized", "params": {}})).await;
        Ok(result["sessionId"].as_str().unwrap().to_owned())
    }

    /// Takes a session up as a stock client does: once more where its last connection is still there.
    pub(crate) async fn resume(&mut self, session: &str) {
        bounded(async {
            loop {
                match self.initialize(json!(session)).await {
                    Ok(id) => return assert_eq!(id, session),
                    Err(refusal) => assert_eq!(refusal.code, -32010),
                }
            }
        })
        .await;
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        bounded(self.socket.send(Message::text(text))).await.unwrap();
    }

    pub(crate) async fn send_frame(&mut self, message: Message) {
        // Whoever was closed is told by what it reads next.
        drop(bounded(self.socket.send(message)).await);
    }

    /// Sends a request, and gives its id.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"id": id, "method": method, "params": params}))
            .await;
        id
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Result<Value, Refused> {
        let id = self.ask(method, params).await;
        self.answer(&json!(id)).await
    }

    /// The answer to a request.
    pub(crate) async fn answer(&mut self, id: &Value) -> Result<Value, Refused> {
        let answer = self
            .find(|message| message.get("method").is_none() && message["id"] == *id)
            .await;
        outcome(&answer)
    }

    /// The next notification of a process.
    pub(crate) async fn event(&mut self, process: &str) -> Value {
        self.find(|message| message["params"]["processId"] == process)
            .await
    }

    /// Everything that a process tells, to its end.
    pub(crate) async fn events(&mut self, process: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.event(process).await;
            let over = event["method"] == "process/closed";
            events.push(event);
            if over {
                return events;
            }
        }
    }

    /// The next message that fits; others stay for whoever wants them.
    pub(crate) async fn find(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&fits) {
            return self.kept.remove(at).unwrap();
        }
        bounded(async {
            loop {
                let message = self.next().await.expect("the connection lives");
                if fits(&message) {
                    return message;
                }
                self.kept.push_back(message);
            }
        })
        .await
    }

    /// The next message, whatever it is; `None`: the connection is over.
    pub(crate) async fn read(&mut self) -> Option<Value> {
        bounded(self.next()).await
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Ping(_)) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// The connection is closed by its other end, and nothing was said.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.read().await.is_none()
    }

    /// The socket below.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.socket.into_inner()
    }
}

pub(crate) fn outcome(answer: &Value) -> Result<Value, Refused> {
    match answer.get("error") {
        None => Ok(answer["result"].clone()),
        Some(error) => Err(Refused {
            code: error["code"].as_i64().unwrap(),
            message: error["message"].as_str().unwrap().to_owned(),
        }),
    }
}

pub(crate) fn refused(code: i64, message: &str) -> Result<Value, Refused> {
    Err(Refused {
        code,
        message: message.into(),
    })
}

/// The parameters of a start by pipes.
pub(crate) fn start(process: &str, argv: &[&str]) -> Value {
    json!({
        "processId": process, "argv": argv, "cwd": "file:///", "env": {"PATH": "/usr/bin:/bin"}, "tty": false,
        "pipeStdin": false, "arg0": null, "sandbox": null,
    })
}

/// The same with some members changed.
pub(crate) fn start_with(process: &str, argv: &[&str], more: &Value) -> Value {
    let mut params = start(process, argv);
    for (name, value) in more.as_object().unwrap() {
        params[name] = value.clone();
    }
    params
}

pub(crate) fn shell(process: &str, script: &str) -> Value {
    start(process, &["/bin/sh", "-c", script])
}

pub(crate) fn bytes(chunk: &Value) -> Vec<u8> {
    STANDARD.decode(chunk.as_str().unwrap()).unwrap()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What a process wrote, by its events.
pub(crate) fn written(events: &[Value]) -> String {
    let chunks = events
        .iter()
        .filter(|event| event["method"] == "process/output")
        .flat_map(|event| bytes(&event["params"]["chunk"]));
    String::from_utf8_lossy(&chunks.collect::<Vec<_>>()).into_owned()
}

/// The exit code in a process's events.
pub(crate) fn exit_code(events: &[Value]) -> i64 {
    let exited = events.iter().find(|event| event["method"] == "process/exited");
    exited.unwrap()["params"]["exitCode"].as_i64().unwrap()
}
