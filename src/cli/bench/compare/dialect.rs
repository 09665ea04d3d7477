//! A client of the JSON dialect, the same for dwell's gateway and for a `codex exec-server`: it says what a Codex CLI
//! says, in its order, and takes the pushed events.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::child::{Server, search_path};
use super::paths::Paths;
use super::peer::{Client, Live, Name, Peer, Ran, Soon, Stands, Trouble};
use super::socket::{self, Socket};
use super::task::Task;

/// Events of one process that nobody has taken yet; then its connection is not read any more.
const EVENTS_MAX: usize = 256;

/// A server of the dialect.
#[derive(Debug)]
pub(crate) struct DialectPeer {
    pub(crate) name: Name,
    pub(crate) version: Option<String>,
    pub(crate) address: SocketAddr,
    pub(crate) quick_acks: bool,
    pub(crate) servers: Vec<u32>,
    pub(crate) paths: Rc<Paths>,
}

impl Peer for DialectPeer {
    fn name(&self) -> Name {
        self.name
    }

    fn version(&self) -> Option<String> {
        self.version.clone()
    }

    fn connect(&self, round_trip: Duration) -> Soon<'_, Rc<dyn Client>> {
        Box::pin(async move {
            let address = self.paths.to(self.address, round_trip)?;
            let socket = socket::connect(address, self.quick_acks).await?;
            let client = DialectClient::new(socket);
            let hello = json!({ "clientName": "dwell-bench", "resumeSessionId": null });
            client.connection.call("initialize", &hello).await?;
            let initialized = json!({ "method": "initialized", "params": {} });
            client.connection.say(&initialized).await?;
            Ok(Rc::new(client) as Rc<dyn Client>)
        })
    }

    fn servers(&self) -> Vec<u32> {
        self.servers.clone()
    }
}

/// A process's events, in the order in which they came.
#[derive(Debug)]
enum Event {
    Output(Bytes),
    Exited(Option<i32>),
    Closed,
}

/// Everything that this dialect's messages to a client have that is looked at here.
#[derive(Deserialize)]
struct Told<'a> {
    id: Option<i64>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
    result: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow)]
    process_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    chunk: Option<Cow<'a, str>>,
    exit_code: Option<i32>,
}

type Answer = Result<Value, Trouble>;

#[derive(Debug)]
struct Connection {
    sink: Mutex<SplitSink<Socket, Message>>,
    next: Cell<i64>,
    asked: RefCell<HashMap<i64, oneshot::Sender<Answer>>>,
    processes: RefCell<HashMap<String, mpsc::Sender<Event>>>,
}

impl Connection {
    async fn say(&self, message: &Value) -> Result<(), Trouble> {
        let text = Message::Text(message.to_string().into());
        let said = self.sink.lock().await.send(text).await;
        said.map_err(|error| Trouble::failed("writing a message", error))
    }

    fn number(&self) -> i64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// Asks and waits for the answer. Cancellation: the answer is passed over.
    async fn call(&self, method: &'static str, params: &Value) -> Answer {
        let id = self.number();
        let (told, answer) = oneshot::channel();
        self.asked.borrow_mut().insert(id, told);
        self.say(&json!({ "id": id, "method": method, "params": params }))
            .await?;
        let lost = |_| Trouble::failed(method, "the connection ended");
        answer.await.map_err(lost)?
    }

    /// Starts a process whose events come from now on.
    async fn start(
        &self,
        argv: &[String],
        stands: Option<Stands>,
    ) -> Result<(String, mpsc::Receiver<Event>), Trouble> {
        let process = format!("bench-{}", self.number());
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        self.processes.borrow_mut().insert(process.clone(), tell);
        let params = json!({
            "processId": process,
            "argv": argv,
            "cwd": "file:///",
            "env": { "PATH": search_path() },
            "tty": stands == Some(Stands::Terminal),
            "pipeStdin": stands == Some(Stands::Pipes),
        });
        match self.call("process/start", &params).await {
            Ok(_) => Ok((process, events)),
            Err(trouble) => {
                self.processes.borrow_mut().remove(&process);
                Err(trouble)
            }
        }
    }

    /// Takes one message.
    async fn take(&self, text: &str) -> Result<(), Trouble> {
        let told: Told<'_> =
            serde_json::from_str(text).map_err(|error| Trouble::failed("reading a message", error))?;
        if let Some(method) = told.method {
            let Some((params, process)) = told.params.and_then(|params| {
                let process = params.process_id.clone()?;
                Some((params, process))
            }) else {
                return Ok(());
            };
            let event = match method.as_ref() {
                "process/output" => {
                    let chunk = params.chunk.unwrap_or_default();
                    let data = STANDARD
                        .decode(chunk.as_bytes())
                        .map_err(|error| Trouble::failed("reading output", error))?;
                    Event::Output(data.into())
                }
                "process/exited" => Event::Exited(params.exit_code),
                "process/closed" => Event::Closed,
                _ => return Ok(()),
            };
            let consumer = self.processes.borrow().get(process.as_ref()).cloned();
            if matches!(event, Event::Closed) {
                self.processes.borrow_mut().remove(process.as_ref());
            }
            if let Some(consumer) = consumer {
                // Whoever does not listen any more need not hear it.
                drop(consumer.send(event).await);
            }
            return Ok(());
        }
        let asked = told.id.and_then(|id| self.asked.borrow_mut().remove(&id));
        if let Some(asked) = asked {
            let answer = match told.error {
                Some(error) => Err(Trouble::failed(
                    "a call",
                    error["message"].as_str().unwrap_or("refused"),
                )),
                None => Ok(told.result.unwrap_or(Value::Null)),
            };
            drop(asked.send(answer));
        }
        Ok(())
    }
}

async fn read(mut stream: SplitStream<Socket>, connection: Rc<Connection>) {
    while let Some(message) = stream.next().await {
        let taken = match message {
            Ok(Message::Text(text)) => connection.take(&text).await,
            Ok(Message::Binary(bytes)) => connection.take(&String::from_utf8_lossy(&bytes)).await,
            // The library answers these.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => Ok(()),
            Err(error) => Err(Trouble::failed("reading", error)),
        };
        if let Err(error) = taken {
            tracing::debug!(%error, "a connection of the JSON dialect broke");
            break;
        }
    }
    // Whoever waits learns that nothing comes any more.
    connection.asked.borrow_mut().clear();
    connection.processes.borrow_mut().clear();
}

#[derive(Debug)]
struct DialectClient {
    connection: Rc<Connection>,
    reader: JoinHandle<()>,
}

impl Drop for DialectClient {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl DialectClient {
    fn new(socket: Socket) -> Self {
        let (sink, stream) = socket.split();
        let connection = Rc::new(Connection {
            sink: Mutex::new(sink),
            next: Cell::new(0),
            asked: RefCell::default(),
            processes: RefCell::default(),
        });
        let reader = tokio::task::spawn_local(read(stream, Rc::clone(&connection)));
        Self { connection, reader }
    }
}

impl Client for DialectClient {
    fn round_trip(&self) -> Option<Soon<'_, ()>> {
        Some(Box::pin(async {
            self.connection
                .call("environment/info", &Value::Null)
                .await
                .map(drop)
        }))
    }

    fn run<'a>(&'a self, task: &'a Task) -> Soon<'a, Ran> {
        Box::pin(async move {
            let (_, mut events) = self.connection.start(&task.argv, None).await?;
            let (mut tally, mut code) = (task.tally(), None);
            loop {
                match events.recv().await {
                    Some(Event::Output(data)) => tally.take(&data),
                    Some(Event::Exited(exited)) => code = exited,
                    Some(Event::Closed) => break,
                    None => return Err(Trouble::failed("a command", "the connection ended")),
                }
            }
            task.judge(code, &tally)?;
            Ok(Ran { first: tally.first })
        })
    }

    fn open(&self, stands: Stands, argv: Vec<String>) -> Option<Soon<'_, Box<dyn Live>>> {
        Some(Box::pin(async move {
            let (process, events) = self.connection.start(&argv, Some(stands)).await?;
            Ok(Box::new(DialectLive {
                connection: Rc::clone(&self.connection),
                process,
                events,
            }) as Box<dyn Live>)
        }))
    }

    fn close(self: Rc<Self>) -> Soon<'static, ()> {
        Box::pin(async move {
            let closed = self.connection.sink.lock().await.close().await;
            closed.map_err(|error| Trouble::failed("closing", error))
        })
    }
}

#[derive(Debug)]
struct DialectLive {
    connection: Rc<Connection>,
    process: String,
    events: mpsc::Receiver<Event>,
}

impl Live for DialectLive {
    fn write<'a>(&'a mut self, data: &'a [u8]) -> Soon<'a, ()> {
        Box::pin(async move {
            // The answer is read, and its echo is not kept waiting for it.
            let id = self.connection.number();
            let params = json!({
                "processId": self.process,
                "chunk": STANDARD.encode(data),
                "writeId": id.to_string(),
            });
            let message = json!({ "id": id, "method": "process/write", "params": params });
            self.connection.say(&message).await
        })
    }

    fn read(&mut self) -> Soon<'_, Bytes> {
        Box::pin(async move {
            match self.events.recv().await {
                Some(Event::Output(data)) => Ok(data),
                Some(Event::Exited(_) | Event::Closed) | None => {
                    Err(Trouble::failed("reading output", "the command ended"))
                }
            }
        })
    }

    fn poll(&self, wait: Duration) -> Option<Soon<'_, ()>> {
        Some(Box::pin(async move {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let params = json!({
                "processId": self.process, "afterSeq": 1_000_000, "maxBytes": 1024, "waitMs": wait_ms,
            });
            self.connection.call("process/read", &params).await.map(drop)
        }))
    }

    fn end(mut self: Box<Self>) -> Soon<'static, ()> {
        Box::pin(async move {
            let params = json!({ "processId": self.process });
            let ended = async {
                while let Some(event) = self.events.recv().await {
                    if matches!(event, Event::Closed) {
                        return;
                    }
                }
            };
            // What it still writes is taken, or the answer would wait behind it.
            let (answered, ()) = tokio::join!(self.connection.call("process/terminate", &params), ended);
            answered.map(drop)
        })
    }
}

/// A `codex exec-server`, and the two ways of listening to it.
pub(crate) async fn codex(
    program: &std::path::Path,
    place: &std::path::Path,
    paths: &Rc<Paths>,
) -> Result<(Server, [DialectPeer; 2]), Trouble> {
    let home = place.join("codex");
    std::fs::create_dir(&home).map_err(|error| Trouble::failed("a home for codex", error))?;
    let mut command = tokio::process::Command::new(program);
    command
        .args(["exec-server", "--listen", "ws://127.0.0.1:0"])
        .current_dir(&home)
        .env("CODEX_HOME", &home);
    let mut server = Server::start(command, place.join("codex.log"))?;
    let address = match url(&mut server).await {
        Ok(address) => address,
        Err(trouble) => {
            let complaint = server.complaint();
            server.end().await;
            return Err(Trouble::failed(
                "codex exec-server",
                format!("{trouble}; {complaint}"),
            ));
        }
    };
    let version = version(program).await;
    let peer = |name, quick_acks| DialectPeer {
        name,
        version: version.clone(),
        address,
        quick_acks,
        servers: vec![server.id()],
        paths: Rc::clone(paths),
    };
    let peers = [peer(Name::Codex, false), peer(Name::CodexQuick, true)];
    Ok((server, peers))
}

/// The address, which is the one line that a server of the dialect prints.
async fn url(server: &mut Server) -> Result<SocketAddr, Trouble> {
    let Some(stdout) = server.stdout() else {
        return Err(Trouble::failed("codex exec-server", "its output is not there"));
    };
    let line = super::peer::within("codex exec-server's address", START_LIMIT, async {
        let mut line = String::new();
        let mut stdout = tokio::io::AsyncReadExt::take(tokio::io::BufReader::new(stdout), URL_MAX_BYTES);
        tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line)
            .await
            .map_err(|error| Trouble::failed("hearing a server", error))?;
        Ok(line)
    })
    .await?;
    address_of(&line)
}

/// Of `ws://IP:PORT`.
pub(crate) fn address_of(url: &str) -> Result<SocketAddr, Trouble> {
    let address = url
        .trim()
        .strip_prefix("ws://")
        .and_then(|address| address.parse().ok());
    address.ok_or_else(|| Trouble::failed("a server's address", "it says something else than ws://IP:PORT"))
}

/// The longest line that says where a server is.
const URL_MAX_BYTES: u64 = 256;
/// The longest it takes until it says so.
const START_LIMIT: Duration = Duration::from_secs(20);

async fn version(program: &std::path::Path) -> Option<String> {
    let asked = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let said = tokio::time::timeout(START_LIMIT, asked).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_the_line_and_from_nothing_else() {
        assert_eq!(
            address_of("ws://127.0.0.1:7\n").unwrap(),
            ([127, 0, 0, 1], 7).into()
        );
        for wrong in [
            "",
            "listening on ws://127.0.0.1:7",
            "http://127.0.0.1:7",
            "ws://localhost:7",
        ] {
            assert!(address_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn messages_are_read_whatever_else_is_in_them() {
        let text = r#"{"jsonrpc":"2.0","method":"process/output","params":{"processId":"p\u0031","seq":1,"stream":"stdout","chunk":"b3V0"}}"#;
        let told: Told<'_> = serde_json::from_str(text).unwrap();
        let params = told.params.unwrap();
        assert_eq!(
            (
                params.process_id.unwrap().as_ref(),
                params.chunk.unwrap().as_ref()
            ),
            ("p1", "b3V0")
        );
        let told: Told<'_> =
            serde_json::from_str(r#"{"error":{"code":-32600,"message":"no"},"id":-1}"#).unwrap();
        assert_eq!(told.id, Some(-1));
        assert!(told.method.is_none() && told.error.is_some());
    }
}
