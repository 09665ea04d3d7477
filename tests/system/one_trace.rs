//! One command is one trace, whole, in the harness's own file.

use std::collections::HashMap;

use dwell_actors::telemetry::{ATTR_ACTOR, ATTR_MESSAGE, semconv};
use dwell_messages::{Role, Span};

use crate::roles::{Picture, System, text};

/// Which span a message's residence hangs below: that of the stage that sent it.
fn sender(role: Role, actor: &str, message: &str) -> &'static str {
    match (role, actor, message) {
        (Role::Harness, "Dispatcher", "Exec")
        | (Role::Harness, "RpcQueue", "Call")
        | (Role::Harness, "RunRecorder", "Record") => "call",
        (Role::Harness, "RelayFramer", "Send")
        | (Role::Harness, "RpcQueue", "Response")
        | (Role::Executor, "RpcQueue", "Request") => "Process/Start client",
        (Role::Executor, "Dispatcher" | "ProcessSupervisor", "Call")
        | (Role::Executor, "Process", "Call")
        | (Role::Executor, "RpcQueue", "Respond") => "Process/Start server",
        (Role::Executor, "Process", "Spawned" | "ReaderEnded" | "Exited")
        | (Role::Executor, "TerminalDelivery", "Exited" | "Closed")
        | (Role::Executor, "TraceCollector", "Ship")
        | (Role::Harness, "TerminalDelivery", "Event")
        | (Role::Harness, "TraceCollector", "Await") => "process",
        // The executor's framer sends the response under the request's span, the events under the process's.
        (Role::Executor, "RelayFramer", "Send") => "Process/Start client or process",
        other => panic!("a residence span nobody expects: {other:?}"),
    }
}

fn described(picture: &Picture, span: &Span) -> String {
    let Some((_, parent)) = picture.parent(span) else {
        return "nothing".into();
    };
    match (parent.name.as_ref(), parent.kind) {
        (name, dwell_messages::SpanKind::Server) => format!("{name} server"),
        ("process", _) => "process".into(),
        (name, dwell_messages::SpanKind::Client) => format!("{name} client"),
        (name, dwell_messages::SpanKind::Internal) => name.to_owned(),
    }
}

#[test]
fn one_command_is_one_whole_trace_in_the_harness_file() {
    let system = System::start(&[]);
    system.run(&[], &["sh", "-c", "printf out; printf err >&2; sleep 0.02"]);
    let picture = system.last_trace();
    let spans = &picture.trace.spans;

    picture.assert_whole();

    for (role, actors) in [
        (
            Role::Harness,
            &[
                "Dispatcher",
                "RpcQueue",
                "RelayFramer",
                "TerminalDelivery",
                "RunRecorder",
                "TraceCollector",
            ][..],
        ),
        (
            Role::Executor,
            &[
                "RelayFramer",
                "RpcQueue",
                "Dispatcher",
                "ProcessSupervisor",
                "Process",
                "TerminalDelivery",
                "TraceCollector",
            ],
        ),
    ] {
        for actor in actors {
            let name = format!("mailbox {actor}");
            assert!(
                !picture.named(role, &name).is_empty(),
                "{role:?} has no span {name}"
            );
        }
    }
    for (role, span) in spans.iter().filter(|(_, span)| span.name.starts_with("mailbox ")) {
        let (actor, message) = (text(span, ATTR_ACTOR), text(span, ATTR_MESSAGE));
        let (expected, actual) = (sender(*role, actor, message), described(&picture, span));
        assert!(
            expected.contains(&actual),
            "{role:?} {actor} {message}: {actual} and not {expected}"
        );
        assert!(span.end_unix_ns >= span.start_unix_ns);
    }

    for (role, name) in [
        (Role::Harness, "relay hop"),
        (Role::Executor, "relay hop"),
        (Role::Executor, "spawn"),
        (Role::Executor, "stdout reader"),
        (Role::Executor, "stderr reader"),
        (Role::Executor, "exit watcher"),
        (Role::Executor, "close"),
        (Role::Harness, "terminal delivery"),
        (Role::Harness, "metadata queue"),
        (Role::Harness, "metadata apply"),
    ] {
        assert!(
            !picture.named(role, name).is_empty(),
            "{role:?} has no span {name}"
        );
    }
    let process = picture.one(Role::Executor, "process");
    for name in ["spawn", "stdout reader", "stderr reader", "exit watcher", "close"] {
        let span = picture.one(Role::Executor, name);
        assert_eq!(
            span.parent, process.span_id,
            "{name} hangs below the process and nothing else"
        );
    }
    assert_eq!(
        process.parent,
        picture.one(Role::Harness, "call").span_id,
        "launched by the call"
    );

    let server = picture.one(Role::Executor, "Process/Start");
    let exited = picture
        .named(Role::Executor, "mailbox TerminalDelivery")
        .into_iter()
        .find(|span| text(span, ATTR_MESSAGE) == "Exited")
        .expect("the exit was delivered");
    assert!(
        server.end_unix_ns <= exited.start_unix_ns,
        "the RPC had ended before the exit was enqueued"
    );
}

fn census(picture: &Picture) -> HashMap<(Role, String), usize> {
    let mut counted = HashMap::new();
    for (role, span) in &picture.trace.spans {
        *counted.entry((*role, span.name.to_string())).or_default() += 1;
    }
    counted
}

#[test]
fn a_gibibyte_has_as_many_spans_as_a_kibibyte() {
    let system = System::start(&[]);
    let small = system.run(&[], &["head", "-c", "1024", "/dev/zero"]);
    assert_eq!(small.stdout.len(), 1024);
    let small = census(&system.last_trace());
    let large = system.run(&[], &["head", "-c", "1073741824", "/dev/zero"]);
    assert_eq!(large.stdout.len(), 1 << 30);
    let large = system.last_trace();
    assert_eq!(census(&large), small);
    let reader = large.one(Role::Executor, "stdout reader");
    let bytes = reader.attribute(semconv::STREAM_BYTES);
    assert_eq!(
        bytes,
        Some(&dwell_messages::Value::I64(1 << 30)),
        "what has no span is summed in the reader's"
    );
}
