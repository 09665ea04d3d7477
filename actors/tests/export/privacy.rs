//! What never leaves: arguments beyond the program's name, values of the environment, input, output, paths, contents of
//! files. Real roles run with canaries in all of these, and everything that telemetry makes is searched for them.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use dwell_actors::executor::Executor;
use dwell_actors::harness::{Command, Harness, Target};
use dwell_actors::relay_server::Relay;
use dwell_actors::telemetry::otlp::OtlpSink;
use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink, console_line};
use dwell_actors::trace_file;
use dwell_actors::waterfall::{Options, render};
use dwell_messages::{ExitStatus, Role, Span};
use dwell_relay::{OsRandomness, StaticKeypair};

use crate::server::{Manner, Server};
use crate::support::{Kept, bounded, contains, span};

const PROGRAM: &str = "visible-program";
const DIRECTORY: &str = "canary-directory-1f";
const CANARIES: [&str; 8] = [
    "canary-argument-2a",
    "canary-value-3b",
    "canary-input-4c",
    "canary-output-5d",
    "canary-file-6e",
    DIRECTORY,
    "canary-refused-7a",
    "canary-baggage-8b",
];

/// All logs of this program, at every level, and the text of every panic.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl Write for Logs {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logs() -> &'static Logs {
    static LOGS: OnceLock<Logs> = OnceLock::new();
    LOGS.get_or_init(|| {
        let logs = Logs::default();
        let writer = logs.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        let told = logs.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            drop(writeln!(told.clone(), "{panic}"));
            before(panic);
        }));
        logs
    })
}

/// A program in a directory that nobody is to hear of.
fn program(dir: &Path, name: &str) -> std::path::PathBuf {
    let dir = dir.join(DIRECTORY);
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    let script =
        "#!/bin/sh\ncat; printf '%s%s' canary-output -5d; cat \"$2\"; printf %s \"$HIDDEN\" >&2; exit 3\n";
    dwell_testkit::write_program(&path, script.as_bytes()).unwrap();
    path
}

/// What was made of it, by where.
type Found = Vec<(&'static str, Vec<u8>)>;

async fn run_everything(dir: &Path, bodies: &Server, name: &str) -> Found {
    let program = program(dir, name);
    let content = program.with_file_name("content");
    std::fs::write(&content, "canary-file-6e").unwrap();
    let (client, kept) = (
        StaticKeypair::generate(&mut OsRandomness::new()).unwrap(),
        Kept::default(),
    );
    let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
    let traces = [dir.join("own"), dir.join("theirs")];
    let executor = Executor::builder()
        .relay(relay.local_addr())
        .authorize(client.public())
        .traces(&traces[1])
        .sink(kept.clone())
        .sink(OtlpSink::to(Role::Executor, bodies.endpoint()).unwrap());
    let executor = bounded("serving", executor.serve()).await.unwrap();
    bounded("registering", executor.registered()).await.unwrap();
    let target = Target::relay(relay.local_addr(), executor.public_key());
    let harness = Harness::builder()
        .identity(client)
        .traces(&traces[0])
        .sink(kept.clone())
        .sink(OtlpSink::to(Role::Harness, bodies.endpoint()).unwrap());
    let harness = bounded("connecting", harness.connect(target)).await.unwrap();

    let mut baggage = dwell_actors::propagation::Baggage::default();
    baggage.insert("tenant", "canary-baggage-8b").unwrap();
    let command = Command::new(&program)
        .arg("canary-argument-2a")
        .arg(&content)
        .env("HIDDEN", "canary-value-3b")
        .current_dir(program.parent().unwrap())
        .baggage(&baggage)
        .stdin_piped();
    let mut run = harness.exec(command);
    bounded("a write", run.write_stdin("canary-input-4c".into()))
        .await
        .unwrap();
    bounded("a close", run.close_stdin()).await.unwrap();
    let finished = bounded("a run", run.wait()).await.unwrap();
    // All of it was there to be told.
    assert_eq!(finished.status, ExitStatus::Code(3));
    let told = finished.stdout.to_text() + &finished.stderr.to_text();
    for canary in &CANARIES[1..5] {
        assert!(told.contains(canary), "{told:?} lacks {canary}");
    }
    // And what is refused, with a reason each.
    let refused = [
        // Its own name is no secret; where it is looked for is.
        Command::new(dir.join("canary-refused-7a").join(name)),
        Command::new(&program).current_dir(dir.join("canary-refused-7a")),
        Command::new(&program).arg("canary-refused-7a\0"),
        Command::new(&program).env("canary-refused-7a=", "x"),
    ];
    for command in refused {
        assert!(bounded("a refusal", harness.exec(command).wait()).await.is_err());
    }
    bounded("the harness's end", harness.shutdown()).await;
    bounded("the executor's end", executor.shutdown()).await;
    bounded("the relay's end", relay.shutdown()).await;

    let spans = kept.all();
    let lines: Vec<_> = spans
        .iter()
        .map(|(role, span)| console_line(*role, span))
        .collect();
    let mut found = vec![
        ("spans", format!("{spans:?}").into_bytes()),
        ("console", lines.join("\n").into_bytes()),
        ("OTLP", bodies.bytes()),
        ("logs", logs().0.lock().unwrap().clone()),
    ];
    for dir in &traces {
        for entry in std::fs::read_dir(dir).unwrap() {
            found.push(("a trace file", std::fs::read(entry.unwrap().path()).unwrap()));
        }
    }
    let trace = trace_file::find_trace(&traces[0], finished.trace_id)
        .unwrap()
        .unwrap();
    let options = Options {
        width: 120,
        color: false,
        ascii: false,
    };
    found.push(("the picture", render(&trace, &options).into_bytes()));
    found
}

#[tokio::test]
async fn what_is_secret_is_in_no_span_log_file_or_body() {
    logs();
    tracing::info!("the search finds what is there: {}", PROGRAM);
    let (dir, bodies) = (tempfile::TempDir::new().unwrap(), Server::start(Manner::Takes));
    let found = run_everything(dir.path(), &bodies, PROGRAM).await;
    assert!(found.len() >= 7, "two trace files and the rest");
    for (place, bytes) in &found {
        for canary in CANARIES {
            assert!(
                !contains(bytes, canary.as_bytes()),
                "{canary} is in {place}: {}",
                String::from_utf8_lossy(around(bytes, canary.as_bytes()))
            );
        }
        // The control: the program's own name is no secret, and is wherever spans are. The picture has spans' names only.
        let there = if *place == "the picture" {
            "process"
        } else {
            PROGRAM
        };
        assert!(contains(bytes, there.as_bytes()), "{there} is not in {place}");
    }
}

fn around<'a>(bytes: &'a [u8], needle: &[u8]) -> &'a [u8] {
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap_or(0);
    &bytes[at.saturating_sub(200)..(at + 100).min(bytes.len())]
}

#[tokio::test]
async fn control_characters_never_reach_a_terminal() {
    logs();
    let (dir, bodies) = (tempfile::TempDir::new().unwrap(), Server::start(Manner::Takes));
    let found = run_everything(dir.path(), &bodies, "red\x1b[31m\r\nname\u{9b}").await;
    for (place, bytes) in &found {
        let text = String::from_utf8_lossy(bytes);
        let binary = *place == "OTLP";
        let found = text.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t');
        assert!(binary || found.is_none(), "{place} has {found:?}");
        assert!(!contains(bytes, b"\x1b[31m"), "{place} has the sequence");
    }
    // Nor from spans that others made.
    let mut hostile = span(1);
    hostile.name = "a\x1b[2Jname\n".into();
    hostile.error = Some("\x07".into());
    hostile.attributes.push((
        "k\r".into(),
        dwell_messages::Value::Str("\u{9b}31m\u{202e}".into()),
    ));
    let line = console_line(Role::Executor, &hostile);
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert!(line.contains("\\u{1b}[2J"), "{line}");
}

/// A sink that fails in its own words does not bring its words where they do not belong.
#[derive(Debug)]
struct Failing;

impl SpanSink for Failing {
    fn export(&mut self, _: Role, _: Option<ClockOffset>, _: &[Span]) -> Result<(), SinkError> {
        panic!("a panic of a sink");
    }
}

#[tokio::test]
async fn a_panic_beside_a_secret_does_not_tell_it() {
    logs();
    let ends = crate::support::Ends::with(|builder| builder.sink(Failing), Failing).await;
    let secret = "canary-argument-2a canary-value-3b";
    let finished = ends
        .run(Command::new("true").arg(secret).env("HIDDEN", secret))
        .await;
    assert_eq!(finished.status, ExitStatus::Code(0));
    ends.end().await;
    let text = logs().0.lock().unwrap().clone();
    assert!(contains(&text, b"a panic of a sink"), "panics are seen");
    assert!(!contains(&text, b"canary"), "and say nothing of the command");
}
