//! Playing the executor in a process of its own, for tests in which it dies.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use dwell_actors::guard::{GuardOptions, GuardProgram};
use dwell_actors::spawn::{Environment, OutputPipe, SpawnRequest, Spawned, Spawner};
use dwell_testkit::Marker;

use super::support::{PATH, read_some, run, start};

/// Says that this process plays, and with which guard.
pub(crate) const ROLE: &str = "DWELL_GUARD_ROLE";

/// What it starts, one script each, with its mark. `up` is what each says when all of it stands.
const TREES: &str = "DWELL_GUARD_TREES";

/// What the executor of a test runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guarded {
    /// Whatever can be had.
    Fully,
    /// Neither a namespace nor control groups.
    ByHunt,
    /// No guard.
    Not,
}

/// A process that plays the executor.
pub(crate) struct Executor {
    pub(crate) process: Child,
    pub(crate) said: BufReader<ChildStdout>,
}

impl Guarded {
    pub(crate) fn options(self) -> GuardOptions {
        let (program, tries) = match self {
            Self::Fully => (GuardProgram::Own, true),
            Self::ByHunt => (GuardProgram::Own, false),
            Self::Not => (GuardProgram::Nowhere, false),
        };
        GuardOptions {
            program,
            namespaces: tries,
            cgroups: tries,
        }
    }
}

impl Executor {
    /// Starts one and waits until all its trees stand.
    pub(crate) fn with_trees(guarded: Guarded, marker: &Marker, trees: &[&str]) -> Self {
        let (name, value) = marker.pair();
        let role = match guarded {
            Guarded::Fully => "full",
            Guarded::ByHunt => "hunt",
            Guarded::Not => "none",
        };
        let mut process = Command::new("/proc/self/exe")
            .env(ROLE, role)
            .env(TREES, trees.join("\u{1}"))
            .env("DWELL_GUARD_MARK", format!("{name}={value}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process, said }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A script with a mark in its environment; a leading `detach:` detaches it.
pub(crate) fn marked(script: &str, mark: (&str, &str)) -> SpawnRequest {
    let (detach, script) = match script.strip_prefix("detach:") {
        Some(script) => (true, script),
        None => (false, script),
    };
    SpawnRequest {
        argv: ["sh", "-c", script]
            .iter()
            .map(|part| part.as_bytes().to_vec())
            .collect(),
        env: Environment::exact([
            (b"PATH".to_vec(), PATH.as_bytes().to_vec()),
            (mark.0.as_bytes().to_vec(), mark.1.as_bytes().to_vec()),
        ]),
        detach,
        ..SpawnRequest::default()
    }
}

/// Starts a script and waits until it says that it is up.
pub(crate) async fn stand(spawner: &Spawner, script: &str, mark: (&str, &str)) -> (Spawned, OutputPipe) {
    let spawned = start(spawner, marked(script, mark)).await;
    let copy = spawned.stdout.try_clone().unwrap();
    let mut out = OutputPipe::from_fd(copy).unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"up\n") {
        said.extend_from_slice(&read_some(&mut out).await.expect("it says that it is up"));
    }
    (spawned, out)
}

/// The executor's part, until it is killed.
pub(crate) fn play(role: &OsStr) {
    let guarded = match role.to_str() {
        Some("full") => Guarded::Fully,
        Some("hunt") => Guarded::ByHunt,
        _ => Guarded::Not,
    };
    let mark = std::env::var("DWELL_GUARD_MARK").unwrap();
    let trees = std::env::var(TREES).unwrap();
    run(async {
        let spawner = Spawner::with_guard(guarded.options()).unwrap();
        let mut held = Vec::new();
        for script in trees.split('\u{1}').filter(|script| !script.is_empty()) {
            held.push(stand(&spawner, script, mark.split_once('=').unwrap()).await);
        }
        println!("ready");
        std::io::stdout().flush().unwrap();
        std::future::pending::<()>().await;
        drop(held);
    });
}
