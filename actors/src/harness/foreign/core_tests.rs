use bytes::Bytes;
use dwell_messages::process::{EnvironmentPolicy, Limits, Overflow, Signal, SignalTarget, Start, Terminate};
use dwell_messages::{Event, OutputStream};
use serde_bytes::ByteBuf;
use serde_json::{Value, json};

use super::*;

const P: ProcessId = ProcessId(7);

struct Pair {
    core: ForeignCore<()>,
    /// What was said to the server, and not looked at yet.
    said: VecDeque<Value>,
    /// What the harness was told.
    told: VecDeque<Wire>,
    failed: Vec<String>,
    asked: u64,
}

impl Pair {
    fn new() -> Self {
        Self {
            core: ForeignCore::new(json::EnvironmentInfo::default()),
            said: VecDeque::new(),
            told: VecDeque::new(),
            failed: Vec::new(),
            asked: 0,
        }
    }

    /// With a process that runs.
    fn running() -> Self {
        let mut pair = Self::new();
        pair.ask(start(1 << 20));
        pair.answer(
            "process/start",
            &json!({"processId": "dwell-7", "sandboxType": "none"}),
        );
        assert!(matches!(pair.outcome(), Ok(Reply::Started(_))));
        pair
    }

    fn drain(&mut self) {
        while let Some(effect) = self.core.poll() {
            match effect {
                Effect::Say(bytes, _) => self.said.push_back(serde_json::from_slice(&bytes).unwrap()),
                Effect::Tell(_, wire) => self.told.push_back(*wire),
                Effect::Fail(_, why) => self.failed.push(why),
            }
        }
    }

    fn ask(&mut self, request: Request) {
        self.asked += 1;
        let request = Wire::Request {
            id: RequestId(self.asked),
            process: Some(P),
            request,
        };
        self.core.said(TraceContext::default(), request, None);
        self.drain();
    }

    fn hear(&mut self, message: &Value) {
        self.core.heard(message.to_string().as_bytes()).unwrap();
        self.drain();
    }

    fn tell(&mut self, method: &str, params: Value) {
        let mut params = params;
        params["processId"] = json!("dwell-7");
        self.hear(&json!({"method": method, "params": params}));
    }

    fn output(&mut self, seq: u64, chunk: &str) {
        self.tell(
            "process/output",
            json!({"seq": seq, "stream": "stdout", "chunk": chunk}),
        );
    }

    /// The next request that was made, which is this one.
    fn made(&mut self, method: &str) -> Value {
        let made = self
            .said
            .pop_front()
            .unwrap_or_else(|| panic!("{method} was asked"));
        assert_eq!(made["method"], method);
        made
    }

    fn answer(&mut self, method: &str, result: &Value) -> Value {
        let made = self.made(method);
        self.hear(&json!({"id": made["id"], "result": result}));
        made
    }

    fn outcome(&mut self) -> Result<Reply, WireError> {
        match self.told.pop_front() {
            Some(Wire::Response { result, .. }) => result,
            other => panic!("an answer, not {other:?}"),
        }
    }

    fn event(&mut self) -> Event {
        match self.told.pop_front() {
            Some(Wire::Event { process: P, event }) => event,
            other => panic!("an event, not {other:?}"),
        }
    }
}

fn start(credit: u64) -> Request {
    Request::Start(Box::new(Start {
        argv: vec![ByteBuf::from("true")],
        program: None,
        confinement: None,
        cwd: None,
        env: EnvironmentPolicy::default(),
        stdin: true,
        pty: None,
        limits: Limits::default(),
        drain: None,
        retention_bytes: None,
        overflow: Overflow::default(),
        spool_bytes: None,
        outlive: false,
        unattended: false,
        credit,
        grace_ms: 0,
        launch: None,
    }))
}

fn write(offset: u64, data: &'static [u8]) -> Request {
    Request::Write(Write {
        offset,
        data: Bytes::from_static(data),
        eof: false,
    })
}

fn terminate() -> Request {
    Request::Terminate(Terminate {
        grace_ms: 0,
        session: None,
    })
}

#[test]
fn a_call_that_is_pushed_to_its_end_is_told_as_an_executor_would_and_asks_for_nothing() {
    let mut pair = Pair::running();
    pair.output(1, "YWI=");
    pair.tell(
        "process/output",
        json!({"seq": 2, "stream": "stderr", "chunk": "Yw=="}),
    );
    pair.tell(
        "process/exited",
        json!({"seq": 3, "exitCode": 3, "sandboxDenied": false}),
    );
    pair.tell("process/closed", json!({"seq": 4}));
    assert!(matches!(pair.event(), Event::Output(output) if (output.offset, &output.data[..]) == (0, b"ab")));
    assert!(matches!(pair.event(), Event::Output(output) if output.stream == OutputStream::Stderr));
    assert!(matches!(pair.event(), Event::Exited(exited) if exited.status == ExitStatus::Code(3)));
    let Event::Closed(closed) = pair.event() else {
        panic!("the end")
    };
    assert_eq!(
        (closed.stdout_end, closed.stderr_end, closed.status),
        (2, 1, Some(ExitStatus::Code(3)))
    );
    assert!(pair.said.is_empty() && pair.failed.is_empty());
}

#[test]
fn no_more_is_told_than_there_is_credit_for() {
    let mut pair = Pair::new();
    pair.ask(start(3));
    pair.answer("process/start", &json!({"processId": "dwell-7"}));
    pair.outcome().unwrap();
    pair.output(1, "YWJjZGVm");
    pair.tell(
        "process/exited",
        json!({"seq": 2, "exitCode": 0, "sandboxDenied": false}),
    );
    pair.tell("process/closed", json!({"seq": 3}));
    assert!(matches!(pair.event(), Event::Output(output) if &output.data[..] == b"abc"));
    assert!(pair.told.is_empty(), "nor is the end, which stands behind it");
    let credit = Wire::Credit {
        process: P,
        stream: OutputStream::Stdout,
        limit: 100,
    };
    pair.core.said(TraceContext::default(), credit, None);
    pair.drain();
    assert!(
        matches!(pair.event(), Event::Output(output) if (output.offset, &output.data[..]) == (3, b"def"))
    );
    assert!(matches!(pair.event(), Event::Exited(_)) && matches!(pair.event(), Event::Closed(_)));
}

#[test]
fn whoever_holds_too_much_back_is_read_for_later_and_not_told_meanwhile() {
    let mut pair = Pair::new();
    pair.ask(start(0));
    pair.answer("process/start", &json!({"processId": "dwell-7"}));
    pair.outcome().unwrap();
    pair.output(1, "YQ==");
    assert!(pair.core.held_up().is_empty());
    pair.core.give_up_for_now(P);
    pair.output(2, "Yg==");
    assert!(pair.said.is_empty(), "not while nothing is taken");
    let credit = Wire::Credit {
        process: P,
        stream: OutputStream::Stdout,
        limit: 100,
    };
    pair.core.said(TraceContext::default(), credit, None);
    pair.drain();
    assert!(matches!(pair.event(), Event::Output(output) if &output.data[..] == b"a"));
    let read = pair.answer(
        "process/read",
        &json!({"chunks": [{"seq": 2, "stream": "stdout", "chunk": "Yg=="}], "nextSeq": 3, "exited": false,
            "exitCode": null, "closed": false, "failure": null}),
    );
    assert_eq!(
        (&read["params"]["afterSeq"], &read["params"]["waitMs"]),
        (&json!(1), &json!(0))
    );
    assert!(matches!(pair.event(), Event::Output(output) if (output.offset, &output.data[..]) == (1, b"b")));
}

#[test]
fn what_cannot_be_recovered_ends_the_run_with_an_error_and_the_process_with_it() {
    let mut pair = Pair::running();
    pair.output(5, "YQ==");
    pair.answer(
        "process/read",
        &json!({"chunks": [{"seq": 5, "stream": "stdout", "chunk": "YQ=="}], "nextSeq": 6, "exited": false,
            "exitCode": null, "closed": false, "failure": null}),
    );
    assert!(pair.failed[0].contains("events 1 to 4"), "{:?}", pair.failed);
    pair.made("process/terminate");
    // What still comes of it is nobody's.
    pair.output(6, "YQ==");
    assert!(pair.told.is_empty());
}

#[test]
fn input_goes_one_write_at_a_time_and_an_end_that_cannot_be_said_is_refused() {
    let mut pair = Pair::running();
    pair.ask(write(0, b"ab"));
    pair.ask(write(2, b"c"));
    assert_eq!(pair.said.len(), 1, "there is no order between two");
    let first = pair.answer("process/write", &json!({"status": "accepted"}));
    assert!(matches!(pair.outcome(), Ok(Reply::Written(written)) if written.offset == 2));
    let second = pair.answer("process/write", &json!({"status": "accepted"}));
    assert!(matches!(pair.outcome(), Ok(Reply::Written(written)) if written.offset == 3));
    assert_ne!(first["params"]["writeId"], second["params"]["writeId"]);
    pair.ask(Request::Write(Write {
        offset: 3,
        data: Bytes::new(),
        eof: true,
    }));
    assert_eq!(pair.outcome().unwrap_err().code, ErrorCode::UnknownMethod);
    pair.ask(write(9, b"x"));
    assert_eq!(pair.outcome().unwrap_err().code, ErrorCode::BadOffset);
    // Where the stream is; and what was written before is not written again.
    pair.ask(write(0, b""));
    assert!(matches!(pair.outcome(), Ok(Reply::Written(written)) if written.offset == 3));
    pair.ask(write(1, b"bcd"));
    assert_eq!(pair.made("process/write")["params"]["chunk"], "ZA==");
}

#[test]
fn a_termination_is_answered_when_the_process_has_ended() {
    let mut pair = Pair::running();
    pair.ask(terminate());
    pair.answer("process/terminate", &json!({"running": true}));
    assert!(pair.told.is_empty(), "it has not ended yet");
    pair.tell(
        "process/exited",
        json!({"seq": 1, "exitCode": 137, "sandboxDenied": false}),
    );
    pair.tell("process/closed", json!({"seq": 2}));
    assert!(matches!(pair.event(), Event::Exited(_)) && matches!(pair.event(), Event::Closed(_)));
    assert!(matches!(pair.outcome(), Ok(Reply::Terminated(_))));
}

#[test]
fn a_lost_connection_leaves_no_request_without_an_answer_and_asks_again_what_may_be_asked_twice() {
    let mut pair = Pair::running();
    pair.output(1, "YQ==");
    pair.event();
    pair.ask(write(0, b"ab"));
    let write = pair.made("process/write");
    let interrupt = Request::Signal(Signal {
        signal: SIGINT,
        target: SignalTarget::Leader,
        session: None,
    });
    pair.ask(interrupt.clone());
    pair.made("process/signal");
    pair.core.detached();
    pair.drain();
    assert_eq!(
        pair.outcome().unwrap_err().code,
        ErrorCode::OutcomeUnknown,
        "nobody can say what became of it"
    );
    // Without a connection nothing is begun.
    pair.ask(interrupt);
    assert_eq!(pair.outcome().unwrap_err().code, ErrorCode::Disconnected);
    pair.core.resumed();
    pair.drain();
    assert_eq!(
        pair.made("process/write"),
        write,
        "the same write, by the same name"
    );
    let read = pair.answer(
        "process/read",
        &json!({"chunks": [], "nextSeq": 4, "exited": true, "exitCode": 0, "closed": true, "failure": null}),
    );
    assert_eq!(read["params"]["afterSeq"], 1);
    // What was missed are both ends.
    assert!(matches!(pair.event(), Event::Exited(_)) && matches!(pair.event(), Event::Closed(_)));
    assert!(pair.failed.is_empty());
}

#[test]
fn a_start_whose_answer_was_lost_is_known_by_a_read() {
    let mut pair = Pair::new();
    pair.ask(start(1 << 20));
    pair.made("process/start");
    pair.core.detached();
    pair.drain();
    assert!(pair.told.is_empty(), "it may have come about");
    pair.core.resumed();
    pair.drain();
    pair.answer(
        "process/read",
        &json!({"chunks": [{"seq": 1, "stream": "stdout", "chunk": "YQ=="}], "nextSeq": 2, "exited": false,
            "exitCode": null, "closed": false, "failure": null}),
    );
    assert!(matches!(pair.outcome(), Ok(Reply::Started(_))));
    assert!(matches!(pair.event(), Event::Output(output) if &output.data[..] == b"a"));
}

#[test]
fn a_start_that_nobody_knows_of_is_unknown_and_ended_should_it_come_about() {
    for is_forgotten in [false, true] {
        let mut pair = Pair::new();
        pair.ask(start(1));
        pair.made("process/start");
        pair.core.detached();
        if is_forgotten {
            pair.core.forget(P);
        }
        pair.core.resumed();
        pair.drain();
        if !is_forgotten {
            let read = pair.made("process/read");
            let unknown = json!({"code": -32600, "message": "unknown process id dwell-7"});
            pair.hear(&json!({"id": read["id"], "error": unknown}));
        }
        assert_eq!(pair.outcome().unwrap_err().code, ErrorCode::OutcomeUnknown);
        assert_eq!(pair.made("process/terminate")["params"]["processId"], "dwell-7");
    }
}

#[test]
fn what_there_are_no_words_for_is_refused_and_said_to_nobody() {
    let mut pair = Pair::running();
    let kill = Signal {
        signal: 9,
        target: SignalTarget::Leader,
        session: None,
    };
    pair.ask(Request::Signal(kill));
    assert_eq!(pair.outcome().unwrap_err().code, ErrorCode::BadSignal);
    pair.ask(Request::EnvironmentInfo);
    assert_eq!(pair.outcome().unwrap_err().code, ErrorCode::UnknownMethod);
    assert!(pair.said.is_empty());
}

#[test]
fn what_the_server_says_beside_the_rules_ends_its_connection_and_what_nobody_asked_for_does_not() {
    let mut pair = Pair::running();
    for stray in [
        json!({"id": 99, "result": {}}),
        json!({"id": -1, "error": {"code": 1, "message": "m"}}),
        json!({"method": "unheard/of", "params": {}}),
        json!({"method": "process/output", "params": {"processId": "x", "seq": 1, "stream": "stdout", "chunk": ""}}),
    ] {
        pair.hear(&stray);
    }
    pair.hear(&json!({"id": "q", "method": "network/policyRequest", "params": {}}));
    assert_eq!(pair.said.pop_front().unwrap()["error"]["code"], -32601);
    for broken in [
        json!([]),
        json!({"method": "process/output", "params": {"processId": "dwell-7"}}),
    ] {
        assert!(
            pair.core.heard(broken.to_string().as_bytes()).is_err(),
            "{broken}"
        );
    }
}
