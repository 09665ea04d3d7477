//! Every answer says where its time went on the executor, whatever was asked and whether it was done.

use std::net::SocketAddr;

use bytes::Bytes;
use dwell_actors::executor::Executor;
use dwell_messages::process::{
    Pty, Read, Resize, Signal, SignalTarget, Start, TerminalSize, Terminate, Write,
};
use dwell_messages::{
    Cursor, ListSessions, Message, ProcessId, Reply, Request, RequestId, Timings, WireError,
};
use serde_bytes::ByteBuf;

use crate::replays::Raw;
use crate::support::keypair;

/// Microseconds of an account that rounding may leave to no segment: none is lost.
const ROUNDING_US: u64 = 0;

/// Does nothing to a process that runs.
const SIGCONT: i32 = 18;

struct Client {
    raw: Raw,
    asked: u64,
}

impl Client {
    /// The answer, and its account; events of processes pass by.
    async fn ask(&mut self, process: u64, request: Request) -> (Result<Reply, WireError>, Timings) {
        self.asked += 1;
        let id = RequestId(self.asked);
        let process = (process != 0).then_some(ProcessId(process));
        let message = Message::Request { id, process, request };
        self.raw.say(message, self.asked);
        loop {
            match self.raw.hear().await {
                Some(Message::Response {
                    id: of,
                    result,
                    timings,
                }) if of == id => return (result, timings),
                Some(_) => {}
                None => panic!("the link is gone"),
            }
        }
    }

    /// As `ask`, and the account is whole.
    async fn accounted(
        &mut self,
        what: &str,
        process: u64,
        request: Request,
    ) -> (Result<Reply, WireError>, Timings) {
        let (result, timings) = self.ask(process, request).await;
        assert!(timings.total > 0, "{what}: {timings:?}");
        assert_eq!(timings.unattributed(), ROUNDING_US, "{what}: {timings:?}");
        let parts = timings.open + timings.decode + timings.hand_off;
        assert!(parts <= timings.receive, "{what}: {timings:?}");
        (result, timings)
    }
}

fn start(script: &str) -> Request {
    let argv = ["sh", "-c", script].map(|part| ByteBuf::from(part.as_bytes()));
    Request::Start(Box::new(Start {
        argv: argv.to_vec(),
        stdin: true,
        pty: Some(Pty {
            size: TerminalSize {
                rows: 24,
                columns: 80,
            },
            term: "dumb".into(),
        }),
        credit: 1 << 20,
        grace_ms: 100,
        ..Start::default()
    }))
}

#[tokio::test]
async fn every_kind_of_answer_carries_an_account_without_a_gap() {
    let client = keypair();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    let address: SocketAddr = executor.local_addr().unwrap().parse().unwrap();
    let raw = Raw::connect(address, &client, executor.public_key()).await;
    let mut client = Client { raw, asked: 0 };
    let list = Request::Sessions(ListSessions {
        after: Cursor {
            session: 0,
            process: 0,
        },
    });
    let signal = Signal {
        signal: SIGCONT,
        target: SignalTarget::Leader,
        session: None,
    };
    let size = TerminalSize {
        rows: 10,
        columns: 10,
    };
    let write = Write {
        offset: 0,
        data: Bytes::from_static(b"x\n"),
        eof: false,
    };
    let terminate = Terminate {
        grace_ms: 10,
        session: None,
    };
    let read = Read {
        after: u64::MAX >> 1,
        max_bytes: 10,
        wait_ms: 40,
        session: None,
    };
    let asked = [
        ("environment", 0, Request::EnvironmentInfo, true),
        ("sessions", 0, list, true),
        ("start", 1, start("cat >/dev/null"), true),
        ("a start of a used number", 1, start("true"), false),
        ("write", 1, Request::Write(write), true),
        ("resize", 1, Request::Resize(Resize { size }), true),
        ("signal", 1, Request::Signal(signal), true),
        (
            "a signal that is none",
            1,
            Request::Signal(Signal {
                signal: 4_000,
                ..signal
            }),
            false,
        ),
        ("a read that waits", 1, Request::Read(read), true),
        ("terminate", 1, Request::Terminate(terminate), true),
        (
            "a process that is not there",
            9,
            Request::Terminate(terminate),
            false,
        ),
    ];
    for (what, process, request, done) in asked {
        let (result, timings) = client.accounted(what, process, request).await;
        assert_eq!(result.is_ok(), done, "{what}: {result:?}");
        if what == "a read that waits" {
            assert!(
                (35_000..5_000_000).contains(&timings.handler),
                "{what}: {timings:?}"
            );
            assert!(
                timings.mailbox < timings.handler,
                "the wait is no mailbox's: {timings:?}"
            );
        }
    }
}
