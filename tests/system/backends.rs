//! Back ends that others wrote get a real run over OTLP http/protobuf, and give back what the local trace file has.
//!
//! `rotel` (PyPI) is a collector: it passes on what it got, and what it passes on is compared field by field. `trace-view`
//! (PyPI) is a viewer that keeps spans in a database: it keeps ids, parents, times and attributes, and neither names,
//! kinds nor status, so only the former are compared. It listens on every address, so it runs in a network namespace of
//! its own, with the roles beside it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use dwell_actors::telemetry::semconv;
use dwell_messages::{Span, SpanKind, Value};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as OtlpValue;
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use prost::Message as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value as Json;

use crate::roles::System;

/// The longest a back end may take to start, or to hand over what it got.
const BOUND: Duration = Duration::from_secs(60);

/// A back end's process; ended when dropped.
struct Backend(Child);

impl Drop for Backend {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Backend {
    /// Starts a program, or says where it comes from.
    fn start(mut command: Command, package: &str, variable: &str) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap_or_else(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            panic!("{program} cannot be started ({error}): install {package} from PyPI, and name it in {variable}")
        }))
    }

    fn wait_for(&mut self, port: u16) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = self.0.try_wait().unwrap();
            assert!(ended.is_none(), "the back end ended: {ended:?}");
            assert!(begun.elapsed() < BOUND, "nobody listens on {port}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn program(variable: &str, usual: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or_else(|| usual.into()))
}

fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // Held together, so that they are different ones.
    let listeners = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A run whose spans go to this port, and what the local trace file has of it.
fn run_to(port: u16) -> (System, Vec<Span>) {
    let endpoint = format!("http://127.0.0.1:{port}/v1/traces");
    let environment = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str())];
    let system = System::start(&environment);
    let output = system.run_trusting(
        Some("ca.pem"),
        &environment,
        &["sh", "-c", "printf out; printf err >&2; exit 3"],
    );
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let spans = system.last_trace().trace.spans;
    (system, spans.into_iter().map(|(_, span)| span).collect())
}

/// What a collector passes on, decoded, as it comes.
fn receive() -> (u16, Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (send, receive) = sync_channel(1_024);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let send = send.clone();
            std::thread::spawn(move || {
                let mut stream = stream;
                while let Some(body) = request(&mut stream) {
                    let decoded = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
                    send.send(decoded).unwrap();
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .unwrap();
                }
            });
        }
    });
    (port, receive)
}

/// One request's body; `None` when the peer is done.
fn request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let mut body = vec![0; field("content-length").unwrap().trim().parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    if field("content-encoding").is_some_and(|coding| coding.trim() == "gzip") {
        let mut plain = Vec::new();
        GzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
        return Some(plain);
    }
    Some(body)
}

fn own(value: &OtlpValue) -> Value {
    match value {
        OtlpValue::StringValue(text) => Value::Str(text.clone().into()),
        OtlpValue::BoolValue(value) => Value::Bool(*value),
        OtlpValue::IntValue(value) => Value::I64(*value),
        OtlpValue::DoubleValue(value) => Value::F64(*value),
        other => panic!("dwell writes no such value: {other:?}"),
    }
}

/// What was passed on, as dwell has it; whose own order of attributes nobody promises.
fn compare(span: &Span, other: &OtlpSpan) {
    let name = &span.name;
    assert_eq!(other.trace_id, span.trace_id, "{name}");
    assert_eq!(&other.name, name);
    let parent: &[u8] = if span.parent == [0; 8] { &[] } else { &span.parent };
    assert_eq!(other.parent_span_id, parent, "{name}");
    let kind = match span.kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
    };
    assert_eq!(other.kind, kind, "{name}");
    assert_eq!(
        (other.start_time_unix_nano, other.end_time_unix_nano),
        (span.start_unix_ns, span.end_unix_ns),
        "{name}"
    );
    let status = other.status.as_ref().map_or(0, |status| status.code);
    assert_eq!(status, if span.error.is_some() { 2 } else { 0 }, "{name}");
    let links: Vec<_> = other.links.iter().map(|link| link.span_id.clone()).collect();
    let link: Vec<_> = span.link.iter().map(|link| link.to_vec()).collect();
    assert_eq!(links, link, "{name}");
    let mut got: HashMap<_, _> = other
        .attributes
        .iter()
        .map(|pair| {
            let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
            (pair.key.clone(), own(value.unwrap()))
        })
        .collect();
    let error = got.remove(semconv::ERROR_TYPE);
    assert_eq!(error, span.error.clone().map(Value::Str), "{name}");
    // In OTLP that one is a flag.
    let remote = span.attribute(semconv::PARENT_REMOTE).is_some();
    assert_eq!(other.flags & 0x300, if remote { 0x300 } else { 0x100 }, "{name}");
    let attributes = span.attributes.iter();
    let wanted: HashMap<_, _> = attributes
        .filter(|(key, _)| key != semconv::PARENT_REMOTE)
        .map(|(key, value)| (key.to_string(), value.clone()))
        .collect();
    assert_eq!(got, wanted, "{name}");
}

#[test]
fn a_foreign_collector_passes_on_every_span_with_all_that_it_has() {
    let (behind, received) = receive();
    let [http, grpc] = free_ports();
    let dir = tempfile::TempDir::new().unwrap();
    let mut command = program("DWELL_ROTEL", "rotel-agent");
    command
        .env("ROTEL_PID_FILE", dir.path().join("pid"))
        .env("ROTEL_LOG_FILE", dir.path().join("log"))
        .arg("start")
        .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
        .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
        .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"])
        .args(["--otlp-exporter-endpoint", &format!("http://127.0.0.1:{behind}")]);
    let mut rotel = Backend::start(
        command,
        "rotel",
        "DWELL_ROTEL (the rotel-agent within the package)",
    );
    rotel.wait_for(http);
    let (_system, spans) = run_to(http);
    let trace = spans[0].trace_id;
    let (mut got, mut services) = (HashMap::new(), HashMap::new());
    let deadline = Instant::now() + BOUND;
    while got.len() < spans.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        let request = received
            .recv_timeout(left)
            .unwrap_or_else(|_| panic!("{} of {} spans were passed on", got.len(), spans.len()));
        for resource in request.resource_spans {
            assert_eq!(resource.schema_url, semconv::SCHEMA_URL);
            let attributes = resource.resource.unwrap().attributes;
            let service = attributes
                .into_iter()
                .find(|pair| pair.key == semconv::SERVICE_NAME);
            let service = own(&service.unwrap().value.unwrap().value.unwrap());
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                if span.trace_id == trace {
                    *services.entry(format!("{service:?}")).or_insert(0) += 1;
                    got.insert(span.span_id.clone(), span);
                }
            }
        }
    }
    for span in &spans {
        let other = got.get(span.span_id.as_slice());
        compare(
            span,
            other.unwrap_or_else(|| panic!("{} was not passed on", span.name)),
        );
    }
    assert_eq!(services.len(), 2, "each role exports its own: {services:?}");
}

/// A network namespace with nothing in it but loopback. Gone when this is.
struct Alone(String);

impl Alone {
    fn new() -> Self {
        let alone = Self(format!("dwell{}v", std::process::id()));
        let name = &alone.0;
        for arguments in [format!("netns add {name}"), format!("-n {name} link set lo up")] {
            let outcome = Command::new("ip").args(arguments.split_whitespace()).output();
            let outcome =
                outcome.unwrap_or_else(|error| panic!("ip cannot be run ({error}): install iproute2"));
            assert!(
                outcome.status.success(),
                "`ip {arguments}` failed: this test needs root, and may make network namespaces: {}",
                String::from_utf8_lossy(&outcome.stderr)
            );
        }
        alone
    }

    /// Puts this thread, and what it starts, in there.
    fn enter(&self) {
        let namespace = File::open(format!("/run/netns/{}", self.0)).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .unwrap_or_else(|error| panic!("a network namespace cannot be entered ({error}): run as root"));
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "delete", &self.0]).output());
    }
}

/// What the viewer answers, as JSON.
fn get(port: u16, path: &str) -> Json {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {head}"))
}

fn viewed(port: u16, span: &Span, other: &Json) {
    let name = &span.name;
    let parent = (span.parent != [0; 8]).then(|| dwell_messages::SpanId(span.parent).to_string());
    assert_eq!(
        other["parent_span_id"].as_str(),
        parent.as_deref(),
        "{name} on {port}"
    );
    assert_eq!(
        other["trace_id"].as_str(),
        Some(span.trace().to_string().as_str()),
        "{name}"
    );
    assert_eq!(other["start_time"].as_u64(), Some(span.start_unix_ns), "{name}");
    assert_eq!(other["end_time"].as_u64(), Some(span.end_unix_ns), "{name}");
    let own = span
        .attributes
        .iter()
        .filter(|(key, _)| key != semconv::PARENT_REMOTE);
    for (key, value) in own {
        let value = match value {
            Value::Bool(value) => Json::from(*value),
            Value::I64(value) => Json::from(*value),
            Value::F64(value) => Json::from(*value),
            Value::Str(value) => Json::from(value.as_ref()),
        };
        assert_eq!(other["metadata"][key.as_ref()], value, "{key} of {name}");
    }
}

/// What the viewer has of a trace, in whatever sessions it has put what each role exported.
fn everything_viewed(port: u16, trace: &str) -> Vec<Json> {
    let list = |path: &str| get(port, path).as_array().cloned().unwrap_or_default();
    let sessions = list("/api/sessions");
    let ids = sessions.iter().filter_map(|session| session["id"].as_str());
    let spans = ids.flat_map(|id| list(&format!("/api/sessions/{id}/spans")));
    spans.filter(|span| span["trace_id"] == trace).collect()
}

#[test]
fn a_foreign_viewer_keeps_every_span_with_its_parent_times_and_attributes() {
    let alone = Alone::new();
    let dir = tempfile::TempDir::new().unwrap();
    std::thread::scope(|scope| {
        let within = scope.spawn(|| {
            alone.enter();
            let [port] = free_ports();
            let mut command = program("DWELL_TRACE_VIEW", "tv");
            command
                .env("TV_PORT", port.to_string())
                .env("TV_DB_PATH", dir.path().join("traces.db"))
                .arg("serve");
            let mut viewer = Backend::start(command, "trace-view", "DWELL_TRACE_VIEW");
            viewer.wait_for(port);
            let (_system, spans) = run_to(port);
            let trace = spans[0].trace().to_string();
            let deadline = Instant::now() + BOUND;
            let got = loop {
                let got = everything_viewed(port, &trace);
                if got.len() >= spans.len() {
                    break got;
                }
                assert!(
                    Instant::now() < deadline,
                    "{} of {} spans are there",
                    got.len(),
                    spans.len()
                );
                std::thread::park_timeout(Duration::from_millis(1));
            };
            for span in &spans {
                let id = span.id().to_string();
                let other = got.iter().find(|other| other["id"].as_str() == Some(&id));
                viewed(
                    port,
                    span,
                    other.unwrap_or_else(|| panic!("{} is not there", span.name)),
                );
            }
        });
        within
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
