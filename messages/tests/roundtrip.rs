//! Every message that can be written comes back as it was, with its context and its number.

#[allow(dead_code, reason = "every test binary uses another part of it")]
mod common;

use bytes::Bytes;
use dwell_messages::codec;
use dwell_messages::error::{ErrorCode, WireError};
use dwell_messages::ids::{ProcessId, RequestId};
use dwell_messages::kinds::MessageKind;
use dwell_messages::message::{Message, Reply, Request, TraceRecords};
use dwell_messages::process::{
    Closed, Containment, EnvironmentPolicy, Event, ExitStatus, Exited, Inherit, Output, OutputStream, Read,
    ReadReply, Signal, Start, Started, Terminate, Write, Written,
};
use dwell_messages::session::{EnvironmentInfo, Hello, Welcome};
use dwell_messages::{
    Envelope, Role, Span, SpanId, SpanKind, Timings, TraceContext, TraceFlags, TraceId, TraceState, Value,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_bytes::ByteBuf;

fn octets(most: usize) -> impl Strategy<Value = ByteBuf> {
    vec(any::<u8>(), 0..most).prop_map(ByteBuf::from)
}

fn argument() -> impl Strategy<Value = ByteBuf> {
    vec(1_u8.., 0..40).prop_map(ByteBuf::from)
}

fn name() -> impl Strategy<Value = ByteBuf> {
    let letter = (1_u8..).prop_filter("no '='", |byte| *byte != b'=');
    vec(letter, 1..20).prop_map(ByteBuf::from)
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..600).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,30}"
}

fn context() -> impl Strategy<Value = TraceContext> {
    let state = proptest::option::of("[a-z][a-z0-9_*/@-]{0,9}=[!-+--<>-~]{1,9}");
    (any::<[u8; 16]>(), any::<[u8; 8]>(), 0_u8..2, state)
        .prop_filter("ids are never zero", |(trace, span, ..)| {
            *trace != [0; 16] && *span != [0; 8]
        })
        .prop_map(|(trace, span, flags, state)| {
            let mut context = TraceContext::new(TraceId(trace), SpanId(span), TraceFlags(flags));
            context.state = state.map(|state| TraceState::parse(&state).expect("valid by its making").into());
            context
        })
}

fn timings() -> impl Strategy<Value = Timings> {
    any::<[u64; 11]>().prop_map(|v| Timings {
        receive: v[0],
        mailbox: v[1],
        admission: v[2],
        dispatch: v[3],
        spawn_queue: v[4],
        spawn: v[5],
        first_byte: v[6],
        run: v[7],
        drain: v[8],
        delivery: v[9],
        total: v[10],
    })
}

fn stream() -> impl Strategy<Value = OutputStream> {
    prop_oneof![Just(OutputStream::Stdout), Just(OutputStream::Stderr)]
}

fn status() -> impl Strategy<Value = ExitStatus> {
    prop_oneof![
        any::<i32>().prop_map(ExitStatus::Code),
        any::<i32>().prop_map(ExitStatus::Signal)
    ]
}

fn start() -> impl Strategy<Value = Start> {
    let inherit = prop_oneof![Just(Inherit::Core), Just(Inherit::All), Just(Inherit::None)];
    let environment = (inherit, vec((name(), argument()), 0..5), vec(octets(9), 0..4));
    let rest = (
        any::<bool>(),
        any::<u64>(),
        any::<u32>(),
        proptest::option::of(octets(27)),
    );
    (
        vec(argument(), 0..6),
        proptest::option::of(argument()),
        environment,
        rest,
    )
        .prop_map(
            |(argv, cwd, (inherit, set, unset), (stdin, credit, grace_ms, launch))| Start {
                argv,
                cwd,
                env: EnvironmentPolicy { inherit, set, unset },
                stdin,
                credit,
                grace_ms,
                launch,
            },
        )
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::EnvironmentInfo),
        start().prop_map(Request::Start),
        (any::<u64>(), data(), any::<bool>()).prop_map(|(offset, data, eof)| Request::Write(Write {
            offset,
            data,
            eof
        })),
        any::<i32>().prop_map(|signal| Request::Signal(Signal { signal })),
        any::<u32>().prop_map(|grace_ms| Request::Terminate(Terminate { grace_ms })),
        (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(after, max_bytes, wait_ms)| {
            Request::Read(Read {
                after,
                max_bytes,
                wait_ms,
            })
        }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<u64>(), stream(), any::<u64>(), data()).prop_map(|(event, stream, offset, data)| {
            Output {
                event,
                stream,
                offset,
                data,
            }
            .into()
        }),
        (any::<u64>(), status(), any::<bool>(), any::<u64>(), any::<u64>()).prop_map(
            |(event, status, core_dumped, stdout_end, stderr_end)| {
                Exited {
                    event,
                    status,
                    core_dumped,
                    stdout_end,
                    stderr_end,
                }
                .into()
            }
        ),
        (
            any::<[u64; 3]>(),
            proptest::option::of(status()),
            any::<bool>(),
            timings()
        )
            .prop_map(|([event, stdout_end, stderr_end], status, drained, timings)| {
                Closed {
                    event,
                    status,
                    stdout_end,
                    stderr_end,
                    drained,
                    timings,
                }
                .into()
            }),
    ]
}

fn environment() -> impl Strategy<Value = EnvironmentInfo> {
    let shell = proptest::option::of(text());
    (
        any::<[u8; 4]>(),
        octets(40),
        shell,
        any::<u32>(),
        vec(text(), 0..4),
        text(),
    )
        .prop_map(
            |(seed, cwd, shell, cpus, capabilities, hostname)| EnvironmentInfo {
                os: format!("os{}", seed[0]),
                arch: format!("arch{}", seed[1]),
                hostname,
                version: format!("{}.{}", seed[2], seed[3]),
                cwd,
                shell,
                cpus,
                capabilities,
            },
        )
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        environment().prop_map(Reply::EnvironmentInfo),
        (any::<u32>(), text(), vec(text(), 0..4)).prop_map(|(pid, containment, withheld)| {
            let containment = Containment::from(containment);
            Reply::Started(Started {
                pid,
                containment,
                withheld,
            })
        }),
        any::<u64>().prop_map(|offset| Reply::Written(Written { offset })),
        Just(Reply::Signalled),
        Just(Reply::Terminated),
        (vec(event(), 0..5), any::<u64>(), any::<bool>(), any::<bool>()).prop_map(
            |(events, next, closed, truncated)| Reply::Read(ReadReply {
                events,
                next,
                closed,
                truncated,
            })
        ),
    ]
}

fn error() -> impl Strategy<Value = WireError> {
    let number = proptest::option::of(any::<u64>());
    (
        any::<u16>(),
        text(),
        proptest::option::of(any::<i32>()),
        number.clone(),
        number,
    )
        .prop_map(|(code, message, errno, limit, actual)| WireError {
            code: ErrorCode::from(code),
            message,
            errno,
            limit,
            actual,
        })
}

fn span() -> impl Strategy<Value = Span> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        proptest::num::f64::NORMAL.prop_map(Value::F64),
        text().prop_map(|text| Value::Str(text.into())),
    ];
    let kind = prop_oneof![
        Just(SpanKind::Internal),
        Just(SpanKind::Client),
        Just(SpanKind::Server)
    ];
    let ids = (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<[u8; 8]>());
    let link = proptest::option::of(any::<[u8; 8]>());
    let attributes = vec((text(), value), 0..5);
    (
        ids,
        text(),
        kind,
        any::<[u64; 2]>(),
        attributes,
        link,
        proptest::option::of(text()),
    )
        .prop_map(
            |((trace_id, span_id, parent), name, kind, [start, end], attributes, link, error)| Span {
                trace_id,
                span_id,
                parent,
                name: name.into(),
                kind,
                start_unix_ns: start,
                end_unix_ns: end,
                attributes: attributes
                    .into_iter()
                    .map(|(key, value)| (key.into(), value))
                    .collect(),
                link,
                error: error.map(Into::into),
            },
        )
}

fn records() -> impl Strategy<Value = TraceRecords> {
    let role = prop_oneof![Just(Role::Harness), Just(Role::Executor), Just(Role::Relay)];
    (role, vec(span(), 0..4), any::<u64>(), any::<bool>()).prop_map(|(role, spans, dropped, last)| {
        TraceRecords {
            role,
            spans,
            dropped,
            last,
        }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let id = || (1_u64..).prop_map(RequestId);
    let process = || (1_u64..).prop_map(ProcessId);
    let result = prop_oneof![reply().prop_map(Ok), error().prop_map(Err)];
    prop_oneof![
        6 => (id(), process(), request()).prop_map(|(id, process, request)| Message::Request {
            id,
            process: (request != Request::EnvironmentInfo).then_some(process),
            request,
        }),
        6 => (id(), result, timings())
            .prop_map(|(id, result, timings)| Message::Response { id, result, timings }),
        3 => (process(), event()).prop_map(|(process, event)| Message::Event { process, event }),
        1 => id().prop_map(Message::Cancel),
        1 => any::<u64>().prop_map(Message::Ack),
        1 => (process(), stream(), any::<u64>())
            .prop_map(|(process, stream, limit)| Message::Credit { process, stream, limit }),
        1 => any::<u64>().prop_map(Message::Ping),
        1 => any::<u64>().prop_map(Message::Pong),
        1 => text().prop_map(Message::Goodbye),
        2 => (process(), records())
            .prop_map(|(process, records)| Message::TraceRecords { process, records }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn every_message_comes_back_as_it_was(
        message in message(), context in context(), sequence in any::<u64>(),
    ) {
        let envelope = Envelope::new(context, message);
        let bytes = codec::encode(&envelope, sequence).unwrap();
        let decoded = codec::decode(&bytes).unwrap();
        prop_assert_eq!(decoded.message.kind(), envelope.body.kind());
        prop_assert_eq!(decoded.trailer.is_some(), envelope.body.has_trailer());
        prop_assert_eq!(decoded.message, envelope.body);
        prop_assert_eq!(decoded.context, Some(envelope.context));
        prop_assert_eq!((decoded.sequence, decoded.context_malformed), (sequence, false));
    }

    #[test]
    fn the_handshakes_payloads_come_back_as_they_were(
        timestamp_ms in any::<u64>(), authorization in octets(4_097),
        epoch in any::<[u8; 16]>(), grant in any::<[u8; 32]>(), unix_ns in any::<u64>(), environment in environment(),
    ) {
        let hello = Hello { timestamp_ms, authorization };
        prop_assert_eq!(Hello::decode(&hello.encode().unwrap()), Ok(hello));
        let welcome = Welcome {
            epoch: ByteBuf::from(epoch.to_vec()), grant: ByteBuf::from(grant.to_vec()), unix_ns, environment,
        };
        prop_assert_eq!(Welcome::decode(&welcome.encode().unwrap()), Ok(welcome));
    }
}

/// The positive control of the strategies: they reach every kind.
#[test]
fn the_strategies_make_every_kind() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut missing: Vec<MessageKind> = MessageKind::ALL.to_vec();
    for _ in 0..2_000 {
        let kind = message().new_tree(&mut runner).unwrap().current().kind();
        missing.retain(|other| *other != kind);
    }
    assert_eq!(missing, []);
}
