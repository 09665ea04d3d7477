//! A harness whose environment is a server of the JSON dialect: rules of pushed events and of recovery, over a server that
//! says what a script says.

use std::time::Duration;

use dwell_actors::harness::{Command, Finished, Harness, RunError, RunEvent, Target};
use dwell_messages::{ErrorCode, ExitStatus};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{base64, bounded, executor};

/// A server that says nothing by itself.
struct Server {
    listener: TcpListener,
}

/// One connection of a harness.
struct Peer {
    socket: WebSocketStream<TcpStream>,
}

impl Server {
    async fn start() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.listener.local_addr().unwrap())
    }

    /// The next connection, up to its handshake's end. `resumes`: it asks for the session that it had.
    async fn accept(&self, resumes: bool) -> Peer {
        let (stream, _) = bounded(self.listener.accept()).await.unwrap();
        let socket = bounded(tokio_tungstenite::accept_async(stream)).await.unwrap();
        let mut peer = Peer { socket };
        let begin = peer.asked("initialize").await;
        let session = if resumes { json!("s") } else { Value::Null };
        assert_eq!(begin["params"]["resumeSessionId"], session);
        let info = json!({"shell": {"name": "sh", "path": "/bin/sh"}, "cwd": "file:///w"});
        peer.answer(&begin, json!({"sessionId": "s", "environmentInfo": info}))
            .await;
        assert_eq!(peer.read().await.unwrap()["method"], "initialized");
        peer
    }

    /// A harness here, and its connection.
    async fn connected(&self) -> (Harness, Peer) {
        let connecting = Box::pin(Harness::builder().connect(Target::dialect(self.url())));
        let (harness, peer) = bounded(async { tokio::join!(connecting, self.accept(false)) }).await;
        (harness.unwrap(), peer)
    }
}

impl Peer {
    /// The next message; `None`: the connection is over.
    async fn read(&mut self) -> Option<Value> {
        loop {
            match bounded(self.socket.next()).await? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Ping(_)) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// The next request, which must be this one.
    async fn asked(&mut self, method: &str) -> Value {
        let asked = self.read().await.unwrap_or_else(|| panic!("{method} was asked"));
        assert_eq!(asked["method"], method, "{asked}");
        asked
    }

    async fn say(&mut self, message: &Value) {
        bounded(self.socket.send(Message::text(message.to_string())))
            .await
            .unwrap();
    }

    async fn answer(&mut self, asked: &Value, result: Value) {
        self.say(&json!({"id": asked["id"], "result": result})).await;
    }

    /// A command is started: its name.
    async fn starts(&mut self) -> String {
        let start = self.asked("process/start").await;
        let name = start["params"]["processId"].as_str().unwrap().to_owned();
        self.answer(&start, json!({"processId": name, "sandboxType": "none"}))
            .await;
        name
    }

    async fn output(&mut self, name: &str, seq: u64, text: &str) {
        let params =
            json!({"processId": name, "seq": seq, "stream": "stdout", "chunk": base64(text.as_bytes())});
        self.say(&json!({"method": "process/output", "params": params}))
            .await;
    }

    async fn exited(&mut self, name: &str, seq: u64, denied: Value) {
        let mut params = json!({"processId": name, "seq": seq, "exitCode": 3});
        if !denied.is_null() {
            params["sandboxDenied"] = denied;
        }
        self.say(&json!({"method": "process/exited", "params": params}))
            .await;
    }

    async fn closed(&mut self, name: &str, seq: u64) {
        let params = json!({"processId": name, "seq": seq});
        self.say(&json!({"method": "process/closed", "params": params}))
            .await;
    }

    /// A read is made from behind this event, without waiting; it is answered so.
    async fn reads(&mut self, after: u64, chunks: &[(u64, &str)], next: u64, over: bool) {
        let read = self.asked("process/read").await;
        let params = &read["params"];
        assert_eq!(
            (&params["afterSeq"], &params["waitMs"]),
            (&json!(after), &json!(0))
        );
        let chunks: Vec<_> = chunks
            .iter()
            .map(|(seq, text)| json!({"seq": seq, "stream": "stdout", "chunk": base64(text.as_bytes())}))
            .collect();
        let code = if over { json!(3) } else { Value::Null };
        let answer = json!({"chunks": chunks, "nextSeq": next, "exited": over, "exitCode": code, "closed": over,
            "failure": null, "sandboxDenied": false});
        self.answer(&read, answer).await;
    }

    /// Nothing is asked any more: the harness goes, and nothing is said before that.
    async fn silent(&mut self, harness: Harness) {
        let gone = harness.shutdown();
        let (said, ()) = tokio::join!(self.read(), gone);
        assert_eq!(said, None, "nothing more was asked");
    }
}

fn text(finished: &Finished) -> String {
    String::from_utf8_lossy(&finished.stdout.head).into_owned()
}

#[tokio::test]
async fn a_call_that_is_pushed_to_its_end_issues_no_read_at_all() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let run = harness.exec(Command::new("c"));
    let script = async {
        let name = peer.starts().await;
        peer.output(&name, 1, "a").await;
        peer.exited(&name, 2, json!(false)).await;
        peer.output(&name, 3, "b").await;
        peer.closed(&name, 4).await;
    };
    let (finished, ()) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    let finished = finished.unwrap();
    assert_eq!(
        (finished.status, text(&finished)),
        (ExitStatus::Code(3), "ab".into())
    );
    // Nothing is known of where the time went over there: it is all on the way.
    let timings = &finished.timings;
    assert!(
        timings.executor.iter().all(|(_, micros)| *micros == 0),
        "{timings}"
    );
    let harness_us: u64 = timings.harness.iter().map(|(_, micros)| micros).sum();
    assert_eq!(
        timings.total_us,
        harness_us + timings.transit_us + timings.unattributed_harness_us
    );
    peer.silent(harness).await;
}

#[tokio::test]
async fn an_exit_without_a_verdict_issues_exactly_one_read() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let run = harness.exec(Command::new("c"));
    let script = async {
        let name = peer.starts().await;
        peer.output(&name, 1, "a").await;
        peer.exited(&name, 2, Value::Null).await;
        peer.closed(&name, 3).await;
        peer.reads(2, &[], 4, true).await;
    };
    let (finished, ()) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    assert_eq!(text(&finished.unwrap()), "a");
    peer.silent(harness).await;
}

#[tokio::test]
async fn a_gap_is_read_and_what_comes_twice_is_told_once() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let run = harness.exec(Command::new("c"));
    let script = async {
        let name = peer.starts().await;
        peer.output(&name, 1, "a").await;
        peer.output(&name, 1, "a").await;
        peer.output(&name, 3, "c").await;
        peer.reads(1, &[(2, "b"), (3, "c")], 4, false).await;
        peer.output(&name, 3, "c").await;
        peer.exited(&name, 4, json!(false)).await;
        peer.closed(&name, 5).await;
    };
    let (finished, ()) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    assert_eq!(text(&finished.unwrap()), "abc");
    peer.silent(harness).await;
}

#[tokio::test]
async fn a_pushed_exit_that_is_missing_is_made_from_a_read() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let run = harness.exec(Command::new("c"));
    let script = async {
        let name = peer.starts().await;
        peer.output(&name, 1, "a").await;
        peer.closed(&name, 3).await;
        peer.reads(1, &[], 4, true).await;
    };
    let (finished, ()) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    assert_eq!(finished.unwrap().status, ExitStatus::Code(3));
    peer.silent(harness).await;
}

#[tokio::test]
async fn a_read_that_does_not_cover_the_gap_fails_the_run_and_ends_its_process() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let run = harness.exec(Command::new("c"));
    let script = async {
        let name = peer.starts().await;
        peer.output(&name, 3, "c").await;
        peer.reads(0, &[], 1, false).await;
        let ended = peer.asked("process/terminate").await;
        assert_eq!(ended["params"]["processId"], json!(name));
        peer.answer(&ended, json!({"running": true})).await;
    };
    let (finished, ()) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    assert!(matches!(finished, Err(RunError::Lost(why)) if why.contains("contradicts")));
    // Another command goes on as if nothing had been.
    let run = harness.exec(Command::new("d"));
    let script = async {
        let name = peer.starts().await;
        peer.exited(&name, 1, json!(false)).await;
        peer.closed(&name, 2).await;
    };
    let (finished, ()) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    assert_eq!(finished.unwrap().status, ExitStatus::Code(3));
}

#[tokio::test]
async fn what_is_not_kept_any_more_fails_the_run_and_is_no_silence() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let run = harness.exec(Command::new("c"));
    let script = async {
        let name = peer.starts().await;
        peer.output(&name, 1, "a").await;
        peer.output(&name, 9, "i").await;
        peer.reads(1, &[(8, "h"), (9, "i")], 10, false).await;
        peer.asked("process/terminate").await;
    };
    let (finished, ()) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    assert!(matches!(finished, Err(RunError::Lost(why)) if why.contains("events 2 to 7")));
}

#[tokio::test]
async fn a_session_goes_on_over_another_connection_and_what_was_missed_is_read() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let run = harness.exec(Command::new("c"));
    let script = async {
        let name = peer.starts().await;
        peer.output(&name, 1, "a").await;
        drop(peer);
        let mut peer = server.accept(true).await;
        // What comes meanwhile waits for the read's answer.
        peer.output(&name, 4, "d").await;
        peer.reads(1, &[(2, "b"), (3, "c"), (4, "d")], 5, false).await;
        peer.exited(&name, 5, json!(false)).await;
        peer.closed(&name, 6).await;
        peer
    };
    let (finished, peer) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    assert_eq!(text(&finished.unwrap()), "abcd");
    drop(peer);
}

#[tokio::test]
async fn what_the_server_says_beside_the_rules_costs_a_connection_and_no_call() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let run = harness.exec(Command::new("c"));
    let script = async {
        let name = peer.starts().await;
        peer.say(&json!({"method": "process/output", "params": {"processId": name}}))
            .await;
        assert_eq!(peer.read().await, None, "it is given up");
        let mut peer = server.accept(true).await;
        peer.reads(0, &[(1, "a")], 4, true).await;
        peer
    };
    let (finished, peer) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    assert_eq!(text(&finished.unwrap()), "a");
    drop(peer);
}

#[tokio::test]
async fn a_session_that_is_gone_ends_every_call_and_says_so() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let run = harness.exec(Command::new("c"));
    let script = async {
        peer.starts().await;
        drop(peer);
        let (stream, _) = server.listener.accept().await.unwrap();
        let socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let mut peer = Peer { socket };
        let begin = peer.asked("initialize").await;
        let refusal = json!({"code": -32600, "message": "unknown session id s"});
        peer.say(&json!({"id": begin["id"], "error": refusal})).await;
        peer
    };
    let (finished, peer) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    assert!(matches!(finished, Err(RunError::Lost(why)) if why.contains("unknown session id")));
    let late = bounded(harness.exec(Command::new("d")).wait()).await;
    assert!(matches!(late, Err(RunError::NotStarted(_))), "{late:?}");
    drop(peer);
}

#[tokio::test]
async fn a_start_that_was_not_answered_is_known_by_a_read_or_unknown_and_ended() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    for came_about in [true, false] {
        let run = harness.exec(Command::new("c"));
        let script = async {
            let start = peer.asked("process/start").await;
            drop(peer);
            let mut peer = server.accept(true).await;
            if came_about {
                peer.reads(0, &[(1, "a")], 4, true).await;
                return peer;
            }
            let read = peer.asked("process/read").await;
            let unknown = json!({"code": -32600, "message": "unknown process id"});
            peer.say(&json!({"id": read["id"], "error": unknown})).await;
            let ended = peer.asked("process/terminate").await;
            assert_eq!(ended["params"]["processId"], start["params"]["processId"]);
            peer
        };
        let (finished, again) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
        peer = again;
        if came_about {
            assert_eq!(text(&finished.unwrap()), "a");
        } else {
            assert!(matches!(finished, Err(RunError::Lost(_))), "{finished:?}");
        }
    }
}

#[tokio::test]
async fn a_write_that_was_not_answered_is_said_again_by_the_same_name() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let mut run = harness.exec(Command::new("c").stdin_piped());
    let name = peer.starts().await;
    assert!(matches!(
        bounded(run.next()).await,
        Some(RunEvent::Started { .. })
    ));
    let script = async {
        let first = peer.asked("process/write").await;
        drop(peer);
        let mut peer = server.accept(true).await;
        let (mut again, mut read) = (peer.read().await.unwrap(), peer.read().await.unwrap());
        if again["method"] != "process/write" {
            std::mem::swap(&mut again, &mut read);
        }
        assert_eq!(again["params"], first["params"]);
        peer.answer(&again, json!({"status": "accepted"})).await;
        (peer, read)
    };
    let (wrote, (mut peer, read)) = bounded(Box::pin(async {
        tokio::join!(run.write_stdin("x".into()), script)
    }))
    .await;
    wrote.unwrap();
    assert_eq!(read["method"], "process/read");
    let answer =
        json!({"chunks": [], "nextSeq": 3, "exited": true, "exitCode": 3, "closed": true, "failure": null});
    peer.answer(&read, answer).await;
    assert_eq!(bounded(run.wait()).await.unwrap().status, ExitStatus::Code(3));
    drop(name);
}

#[tokio::test]
async fn what_the_dialect_has_no_words_for_is_refused_by_a_typed_error_and_nothing_is_sent() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let limited = Command::new("c").pty(25, 80);
    let refused = bounded(harness.exec(limited).wait()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::UnknownMethod), "{refused}");
    let huge = Command::new("c").arg("x".repeat(20 << 20));
    let refused = bounded(harness.exec(huge).wait()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::TooLarge), "{refused}");
    assert!(
        bounded(harness.files().read_file("/etc/hostname", 10))
            .await
            .is_err()
    );
    peer.silent(harness).await;
}

#[tokio::test]
async fn a_run_that_is_dropped_ends_its_process() {
    let server = Server::start().await;
    let (harness, mut peer) = server.connected().await;
    let run = harness.exec(Command::new("c"));
    let name = peer.starts().await;
    drop(run);
    let ended = peer.asked("process/terminate").await;
    assert_eq!(ended["params"]["processId"], json!(name));
    peer.answer(&ended, json!({"running": true})).await;
    peer.exited(&name, 1, json!(false)).await;
    peer.closed(&name, 2).await;
    // The control: a run that is waited for is not ended.
    let run = harness.exec(Command::new("d"));
    let script = async {
        let name = peer.starts().await;
        peer.exited(&name, 1, json!(false)).await;
        peer.closed(&name, 2).await;
    };
    let (finished, ()) = bounded(Box::pin(async { tokio::join!(run.wait(), script) })).await;
    assert!(finished.is_ok());
    peer.silent(harness).await;
}

#[tokio::test]
async fn nobody_there_and_nobody_who_speaks_it_are_told_apart() {
    let free = Server::start().await.url();
    let refused = bounded(Harness::builder().connect(Target::dialect(free))).await;
    assert!(refused.unwrap_err().to_string().contains("cannot be reached"));
    let wrong = bounded(Harness::builder().connect(Target::dialect("http://127.0.0.1:1"))).await;
    assert!(wrong.is_err());
}

/// Both ends are dwell's: a harness at an executor's own gateway.
#[tokio::test]
async fn a_harness_runs_commands_through_the_gateway_of_its_own_side() {
    let executor = executor().await;
    let target = Target::dialect(executor.dialect_url().unwrap());
    let harness = bounded(Harness::builder().connect(target)).await.unwrap();
    let many = Command::new("sh").args(["-c", "seq 1 200000; echo err >&2; exit 4"]);
    let finished = bounded(harness.exec(many.output_limit(4 << 20)).wait())
        .await
        .unwrap();
    assert_eq!(finished.status, ExitStatus::Code(4));
    let lines = text(&finished).lines().count();
    assert_eq!((lines, finished.output_bytes[1]), (200_000, 4));
    let missing = bounded(harness.exec(Command::new("no-such-program")).wait())
        .await
        .unwrap_err();
    assert_eq!(
        (missing.code(), missing.errno()),
        (Some(ErrorCode::SpawnFailed), Some(2))
    );
    let mut cat = harness.exec(Command::new("cat").stdin_piped());
    assert!(matches!(
        bounded(cat.next()).await,
        Some(RunEvent::Started { .. })
    ));
    bounded(cat.write_stdin("hello".into())).await.unwrap();
    assert_eq!(bounded(cat.next()).await, Some(RunEvent::Stdout("hello".into())));
    assert!(bounded(cat.close_stdin()).await.is_err(), "it cannot be said");
    cat.terminate(Duration::ZERO);
    assert_eq!(bounded(cat.wait()).await.unwrap().status, ExitStatus::Code(137));
    drop(harness);
    executor.shutdown().await;
}
