//! One connection: its handshake, and its requests. Requests run beside each other; what has an order is begun in it.
//!
//! A request that waits (for output, for room in a pipe, for a file) is a task and holds up nothing. What is said in
//! between keeps its order: input of one process, and the state of the connection itself.

use std::rc::Rc;
use std::time::Duration;

use dwell_messages::dialect::{
    Accepted, Call, EnvironmentStatus, Fault, HttpRequest, ID_MAX_BYTES, Id, Incoming, Initialize,
    Initialized, Method, Start, Terminated, WatchMissing, Watching, WriteStatus, encode_error,
    encode_response,
};
use dwell_messages::{SpanId, SpanKind, TraceContext};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::discovery;
use super::files::{Handles, Served};
use super::gateway::Gateway;
use super::held::{Held, REQUESTS_MAX_BYTES};
use super::http::{self, Streams};
use super::line::Liveness;
use super::missing::Watches;
use super::outbox::{Gone, Outbox};
use super::session::Session;
use crate::telemetry::{Stage, Tick, semconv, span_id};

/// Requests of one connection that run at a time; more are refused.
pub const CALLS_MAX: usize = 1_024;

/// The connection is over: it broke the rules, or is gone.
#[derive(Debug)]
pub(super) struct Over;

impl From<Gone> for Over {
    fn from(_: Gone) -> Self {
        Self
    }
}

/// How far the handshake is.
enum State {
    New,
    /// The session is there, and its client has not said that it knows.
    Begun(Rc<Session>, u64),
    Ready(Rc<Session>, u64),
}

/// Where messages come from, as complaints about them say it.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    WebSocket(String),
    Stdio,
}

impl Origin {
    fn complaint(&self, why: &str) -> String {
        match self {
            Self::WebSocket(peer) => {
                format!("failed to parse websocket JSON-RPC message from exec-server websocket {peer}: {why}")
            }
            Self::Stdio => format!("failed to parse JSON-RPC message from exec-server stdio: {why}"),
        }
    }
}

/// See the module.
pub(super) struct Connection {
    gateway: Rc<Gateway>,
    origin: Origin,
    outbox: Outbox,
    liveness: Rc<Liveness>,
    state: State,
    calls: JoinSet<()>,
    handles: Rc<Handles>,
    streams: Rc<Streams>,
    watches: Watches,
    held: Held,
}

/// A request that is being served.
struct Asked {
    id: Id,
    method: Method,
    context: Option<TraceContext>,
    begun: Tick,
    /// Of its message.
    bytes: usize,
}

impl Connection {
    pub(super) fn new(gateway: Rc<Gateway>, origin: Origin, outbox: Outbox, liveness: Rc<Liveness>) -> Self {
        Self {
            gateway,
            origin,
            outbox,
            liveness,
            state: State::New,
            calls: JoinSet::new(),
            handles: Rc::default(),
            streams: Rc::default(),
            watches: Watches::default(),
            held: Held::default(),
        }
    }

    /// One message.
    ///
    /// # Errors
    /// The connection is to be closed without a word.
    pub(super) async fn handle(&mut self, message: &[u8]) -> Result<(), Over> {
        while self.calls.try_join_next().is_some() {}
        match Incoming::decode(message) {
            Ok(Incoming::Request {
                id,
                method,
                params,
                trace,
            }) => {
                let context = trace.context().map(TraceContext::received);
                self.request(id, &method, params, context, message.len()).await
            }
            Ok(Incoming::Notification { method, .. }) => self.heard(&method),
            // Nothing is ever asked of a client.
            Ok(Incoming::Response { .. } | Incoming::Error { .. }) => Err(Over),
            Err(malformed) => {
                let fault = Fault::invalid_request(self.origin.complaint(&malformed.0));
                self.refuse(&Id::NOBODY, &fault).await
            }
        }
    }

    fn heard(&mut self, method: &str) -> Result<(), Over> {
        if method != dwell_messages::dialect::INITIALIZED {
            return Err(Over);
        }
        match std::mem::replace(&mut self.state, State::New) {
            State::New => Err(Over),
            State::Begun(session, number) | State::Ready(session, number) => {
                self.state = State::Ready(session, number);
                Ok(())
            }
        }
    }

    async fn request(
        &mut self,
        id: Id,
        name: &str,
        params: Value,
        context: Option<TraceContext>,
        bytes: usize,
    ) -> Result<(), Over> {
        if let Id::Text(text) = &id
            && text.len() > ID_MAX_BYTES
        {
            let text = format!("a request's id has at most {ID_MAX_BYTES} bytes");
            return self.refuse(&Id::NOBODY, &Fault::invalid_request(text)).await;
        }
        let Some(method) = Method::of(name) else {
            return self.refuse(&id, &Fault::unknown_method(name)).await;
        };
        let asked = Asked {
            id,
            method,
            context,
            begun: Tick::now(),
            bytes,
        };
        if method == Method::Initialize {
            return self.initialize(asked.id, params).await;
        }
        let group = method.group().name();
        let session = match &self.state {
            State::Ready(session, _) => Rc::clone(session),
            State::New => {
                let text = format!("client must call initialize before using {group} methods");
                return self.refuse(&asked.id, &Fault::invalid_request(text)).await;
            }
            State::Begun(..) => {
                let text = format!("client must send initialized before using {group} methods");
                return self.refuse(&asked.id, &Fault::invalid_request(text)).await;
            }
        };
        match Call::decode(method, params) {
            Ok(call) => self.call(&session, asked, call).await,
            Err(fault) => self.refuse(&asked.id, &fault).await,
        }
    }

    async fn call(&mut self, session: &Rc<Session>, asked: Asked, call: Call) -> Result<(), Over> {
        let id = asked.id.clone();
        match call {
            Call::Initialize(_) => Ok(()),
            Call::EnvironmentInfo => self.answer(&id, session.environment()).await,
            Call::EnvironmentStatus => {
                let status = EnvironmentStatus {
                    status: "ready".into(),
                };
                self.answer(&id, &status).await
            }
            Call::ReadEnvironmentConfig(ask) => self.outcome(&id, discovery::config(&ask)).await,
            Call::DiscoverRoots(ask) => self.answer(&id, &discovery::roots(ask)).await,
            Call::DiscoverCapabilities(_) => self.answer(&id, &discovery::capabilities()).await,
            Call::WatchMissing(ask) => self.watch(session, asked, &ask).await,
            Call::Start(start) => self.start(session, asked, &start).await,
            Call::Read(read) => match session.process(&read.process_id) {
                Some(process) if read.wait_ms.unwrap_or(0) == 0 => {
                    let answer = process.read(&read);
                    self.answer(&id, &answer).await
                }
                Some(process) => {
                    let (outbox, held) = (self.outbox.clone(), self.held.clone());
                    self.beside(&asked, async move {
                        process.news(&read).await;
                        let _room = held.answer(process.kept_bytes()).await;
                        drop(outbox.send(encode_response(&id, &process.read(&read))).await);
                    })
                    .await
                }
                None => {
                    let text = format!("unknown process id {}", read.process_id);
                    self.refuse(&id, &Fault::invalid_request(text)).await
                }
            },
            Call::Write(write) => {
                let written = match session.process(&write.process_id) {
                    Some(process) => process.write(write, &id, &self.outbox),
                    None => Some(Ok(WriteStatus::UnknownProcess)),
                };
                match written {
                    Some(outcome) => self.outcome(&id, outcome.map(|status| Accepted { status })).await,
                    None => Ok(()),
                }
            }
            Call::Signal(signal) => match session.process(&signal.process_id) {
                Some(process) => {
                    let outbox = self.outbox.clone();
                    self.beside(&asked, async move {
                        process.interrupt().await;
                        drop(
                            outbox
                                .send(encode_response(&id, &Value::Object(Default::default())))
                                .await,
                        );
                    })
                    .await
                }
                None => self.answer(&id, &Value::Object(Default::default())).await,
            },
            Call::Terminate(terminate) => {
                let running = session
                    .process(&terminate.process_id)
                    .is_some_and(|process| process.terminate());
                self.answer(&id, &Terminated { running }).await
            }
            call @ (Call::ReadFile(_)
            | Call::WriteFile(_)
            | Call::CreateDirectory(_)
            | Call::GetMetadata(_)
            | Call::Canonicalize(_)
            | Call::ReadDirectory(_)
            | Call::Walk(_)
            | Call::Remove(_)
            | Call::Copy(_)
            | Call::OpenFile(_)
            | Call::ReadBlock(_)
            | Call::WriteBlock(_)
            | Call::CloseFile(_)) => self.file(session, asked, call).await,
            Call::Http(ask) => self.http(session, asked, *ask).await,
        }
    }

    /// The process's name is taken before the next request is looked at; its answer comes when it runs.
    async fn start(&mut self, session: &Rc<Session>, asked: Asked, start: &Start) -> Result<(), Over> {
        // This request has a span, and the run hangs below it: a client that says no parent begins a trace with it.
        let span = span_id();
        let context = asked.context.unwrap_or_else(|| session.harness().origin());
        let parent = Some(context.child(span));
        let asked = Asked {
            context: Some(context),
            ..asked
        };
        // First: what is refused for want of room does not run.
        let begun = self
            .room(&asked)
            .and_then(|held| session.start(start, parent).map(|started| (held, started)));
        let (held, started) = match begun {
            Ok(begun) => begun,
            Err(fault) => {
                record(session, &asked, span, Some("refused"));
                return self.refuse(&asked.id, &fault).await;
            }
        };
        let (outbox, session, name) = (self.outbox.clone(), Rc::clone(session), start.process_id.clone());
        self.calls.spawn_local(async move {
            let outcome = started
                .await
                .unwrap_or_else(|_| Err(Fault::failed("the session ended while the command was started")));
            record(&session, &asked, span, outcome.as_ref().err().map(|_| "refused"));
            let (message, silence) = match outcome {
                Ok(silence) => (encode_response(&asked.id, &session.started(name)), Some(silence)),
                Err(fault) => (encode_error(&asked.id, &fault), None),
            };
            drop(outbox.send(message).await);
            drop((silence, held));
        });
        Ok(())
    }

    /// Files are another thread's, and take their time.
    async fn file(&mut self, session: &Rc<Session>, asked: Asked, call: Call) -> Result<(), Over> {
        let span = span_id();
        let files = session.harness().files();
        let files = match &asked.context {
            Some(context) => files.parent(context.child(span)),
            None => files,
        };
        let served = Served {
            files,
            handles: Rc::clone(&self.handles),
            held: self.held.clone(),
            wish: session.wish(),
        };
        let held = match self.room(&asked) {
            Ok(held) => held,
            Err(fault) => return self.refuse(&asked.id, &fault).await,
        };
        let (outbox, session) = (self.outbox.clone(), Rc::clone(session));
        self.calls.spawn_local(async move {
            let _room = served.room(&call).await;
            let answer = served.answer(&asked.id, call).await;
            drop(held);
            record(&session, &asked, span, answer.as_ref().err().map(|_| "refused"));
            let message = answer.unwrap_or_else(|fault| encode_error(&asked.id, &fault));
            drop(outbox.send(message).await);
        });
        Ok(())
    }

    /// A server takes its time, and what it sends piece by piece its client's.
    async fn http(&mut self, session: &Rc<Session>, asked: Asked, ask: HttpRequest) -> Result<(), Over> {
        let span = span_id();
        let http = session.harness().http();
        let http = match &asked.context {
            Some(context) => http.parent(context.child(span)),
            None => http,
        };
        let begun = self
            .room(&asked)
            .and_then(|held| http::of(&self.streams, ask).map(|asking| (held, asking)));
        let (room, asking) = match begun {
            Ok(begun) => begun,
            Err(fault) => return self.refuse(&asked.id, &fault).await,
        };
        let (outbox, session, held) = (self.outbox.clone(), Rc::clone(session), self.held.clone());
        self.calls.spawn_local(async move {
            let outcome = asking.answer(&asked.id, &http, &held).await;
            drop(room);
            record(&session, &asked, span, outcome.as_ref().err().map(|_| "refused"));
            match outcome {
                Ok(answered) => drop(answered.tell(&outbox).await),
                Err(fault) => drop(outbox.send(encode_error(&asked.id, &fault)).await),
            }
        });
        Ok(())
    }

    /// A watch takes its predecessor's place before the next request is looked at, and tells when it sees.
    async fn watch(&mut self, session: &Rc<Session>, asked: Asked, ask: &WatchMissing) -> Result<(), Over> {
        let span = span_id();
        let files = session.harness().files();
        let files = match &asked.context {
            Some(context) => files.parent(context.child(span)),
            None => files,
        };
        let begun = self
            .room(&asked)
            .and_then(|room| self.watches.of(ask).map(|asking| (room, asking)));
        let (room, asking) = match begun {
            Ok((room, Some(asking))) => (room, asking),
            Ok((_, None)) => return self.answer(&asked.id, &Watching { watching: false }).await,
            Err(fault) => return self.refuse(&asked.id, &fault).await,
        };
        let (outbox, session) = (self.outbox.clone(), Rc::clone(session));
        self.calls.spawn_local(async move {
            let answered = |fault: Option<&Fault>| {
                drop(room);
                record(&session, &asked, span, fault.map(|_| "refused"));
            };
            drop(asking.serve(&asked.id, &files, &outbox, answered).await);
        });
        Ok(())
    }

    /// Serves a request beside the others.
    async fn beside(&mut self, asked: &Asked, work: impl Future<Output = ()> + 'static) -> Result<(), Over> {
        let held = match self.room(asked) {
            Ok(held) => held,
            Err(fault) => return self.refuse(&asked.id, &fault).await,
        };
        self.calls.spawn_local(async move {
            work.await;
            drop(held);
        });
        Ok(())
    }

    /// Room for one more request to be served beside the others.
    fn room(&self, asked: &Asked) -> Result<OwnedSemaphorePermit, Fault> {
        if self.calls.len() >= CALLS_MAX {
            return Err(Fault::failed(format!(
                "{CALLS_MAX} requests of this connection are being served: wait for one to end"
            )));
        }
        self.held.request(asked.bytes).ok_or_else(|| {
            Fault::failed(format!(
                "requests of {REQUESTS_MAX_BYTES} bytes are being served for this connection: wait for one to end"
            ))
        })
    }

    /// The handshake has an order of its own: nothing is looked at meanwhile.
    async fn initialize(&mut self, id: Id, params: Value) -> Result<(), Over> {
        if !matches!(self.state, State::New) {
            let text = "initialize may only be sent once per connection";
            return self.refuse(&id, &Fault::invalid_request(text)).await;
        }
        let ask = match Call::decode(Method::Initialize, params) {
            Ok(Call::Initialize(ask)) => ask,
            Ok(_) => return Err(Over),
            Err(fault) => return self.refuse(&id, &fault).await,
        };
        let session = match self.session(ask).await {
            Ok(session) => session,
            Err(fault) => return self.refuse(&id, &fault).await,
        };
        let line = session.line();
        let claim = match line.claim().await {
            Ok(claim) => claim,
            Err(_) => {
                let text = format!(
                    "session {} is already attached to another connection",
                    session.id()
                );
                return self.refuse(&id, &Fault::new(Fault::STILL_ATTACHED, text)).await;
            }
        };
        let answer = Initialized {
            session_id: session.id().to_owned(),
            environment_info: Some(session.environment().clone()),
        };
        // Room first: what processes tell comes behind the answer, and at once.
        let Ok(room) = self.outbox.reserve().await else {
            // Whoever had the session has lost it to this connection, which is over: nobody else would end it.
            self.gateway.detached(&session);
            return Err(Over);
        };
        // Its time may have been over while it was asked for.
        if self.gateway.session(session.id()).is_none() {
            drop(room);
            let text = format!("unknown session id {}", session.id());
            return self.refuse(&id, &Fault::invalid_request(text)).await;
        }
        room.send_small(encode_response(&id, &answer));
        let number = line.attach(self.outbox.clone(), Rc::clone(&self.liveness));
        drop(claim);
        session.expires(None);
        self.state = State::Begun(session, number);
        Ok(())
    }

    /// Returns when nothing more is being served. Cancellation safe.
    pub(super) async fn served(&mut self) {
        while self.calls.join_next().await.is_some() {}
    }

    /// Whether its client has said how it begins.
    pub(super) fn has_begun(&self) -> bool {
        !matches!(self.state, State::New)
    }

    /// The session that is asked for: a new one, or one whose connection was lost.
    async fn session(&self, ask: Initialize) -> Result<Rc<Session>, Fault> {
        match ask.resume_session_id.filter(|id| !id.is_empty()) {
            None => self.gateway.begin().await,
            Some(id) => self
                .gateway
                .session(&id)
                .ok_or_else(|| Fault::invalid_request(format!("unknown session id {id}"))),
        }
    }

    async fn answer<T: Serialize>(&self, id: &Id, result: &T) -> Result<(), Over> {
        Ok(self.outbox.send(encode_response(id, result)).await?)
    }

    async fn refuse(&self, id: &Id, fault: &Fault) -> Result<(), Over> {
        Ok(self.outbox.send(encode_error(id, fault)).await?)
    }

    async fn outcome<T: Serialize>(&self, id: &Id, outcome: Result<T, Fault>) -> Result<(), Over> {
        match outcome {
            Ok(result) => self.answer(id, &result).await,
            Err(fault) => self.refuse(id, &fault).await,
        }
    }
}

impl Drop for Connection {
    /// The session waits for its client, for a while.
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, State::New) {
            State::New => {}
            State::Begun(session, number) | State::Ready(session, number) => {
                self.handles.end(&session.harness().files());
                if session.line().detach(number) {
                    self.gateway.detached(&session);
                }
            }
        }
    }
}

/// The span of a request that came with a parent, or began a trace.
fn record(session: &Session, asked: &Asked, span: SpanId, error: Option<&'static str>) {
    let Some(context) = &asked.context else { return };
    let method = asked.method.name();
    session.harness().collector().stage(
        Stage::with_id(context, span, method, asked.begun, Tick::now())
            .kind(SpanKind::Server)
            .text(semconv::RPC_SYSTEM_NAME, semconv::RPC_SYSTEM_JSON)
            .text(semconv::RPC_METHOD, method)
            .text(semconv::RPC_STATUS_CODE, error.unwrap_or(semconv::RPC_OK))
            .failed(error),
    );
}

/// How long what was answered may take to leave when a connection is over.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);
/// How long a connection that says nothing at first is listened to.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
