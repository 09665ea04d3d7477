//! Starting the roles, and reading what they leave.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use dwell_actors::trace_file::{self, Trace};
use dwell_messages::{Role, Span, Value};
use dwell_testkit::Authority;
use serde_json::Value as Json;
use tempfile::TempDir;

/// A role's process; ended when dropped.
pub(crate) struct Serving {
    child: Child,
    /// What it said when it was ready.
    pub(crate) ready: Json,
}

impl Serving {
    /// Kills it now.
    pub(crate) fn end(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(feature = "system-tests")]
impl Serving {
    /// Whether it has not ended.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.end();
    }
}

/// A relay, an executor and a place for harnesses, all fresh.
pub(crate) struct System {
    pub(crate) homes: TempDir,
    pub(crate) relay: Serving,
    pub(crate) executor: Serving,
    way: Way,
    authority: Authority,
}

/// How the roles reach each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Through the relay, which both dial by this scheme (with the `://`, or nothing).
    Relay(&'static str),
    /// The executor listens, and the harness dials it by this scheme.
    Direct(&'static str),
}

/// The binary, seeing nothing of this process's environment but `PATH`.
pub(crate) fn dwell(home: &Path) -> Command {
    std::fs::create_dir_all(home).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dwell"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .stdin(Stdio::null());
    command
}

pub(crate) fn serve(mut command: Command) -> Serving {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    Serving { child, ready }
}

/// Gives a listener its certificate, where the way needs one.
fn certify(command: &mut Command, way: Way, authority: &Authority) {
    let (Way::Relay(scheme) | Way::Direct(scheme)) = way;
    if matches!(scheme, "tls://" | "wss://") {
        command.arg("--tls-cert").arg(authority.file("cert.pem"));
        command.arg("--tls-key").arg(authority.file("key.pem"));
    }
}

impl System {
    /// Starts relay and executor, and lists the harness's key.
    pub(crate) fn start(environment: &[(&str, &str)]) -> Self {
        Self::reached(Way::Relay(""), environment)
    }

    /// The same, reached in this way. What listens has a certificate where the scheme needs one.
    pub(crate) fn reached(way: Way, environment: &[(&str, &str)]) -> Self {
        let authority = Authority::new().unwrap();
        let homes = TempDir::new().unwrap();
        let home = |role: &str| homes.path().join(role);
        let mut relay = dwell(&home("relay"));
        relay.args(["relay", "--listen", "127.0.0.1:0", "--json"]);
        certify(&mut relay, way, &authority);
        let relay = serve(relay);
        let key = dwell(&home("harness"))
            .args(["key", "make", "--json"])
            .output()
            .unwrap();
        let key: Json = serde_json::from_slice(&key.stdout).unwrap();
        let list = homes.path().join("authorized_clients");
        std::fs::write(
            &list,
            format!("{} # the test\n", key["public_key"].as_str().unwrap()),
        )
        .unwrap();
        let mut executor = dwell(&home("executor"));
        executor.envs(environment.iter().copied());
        executor.args(["executor", "--json"]);
        executor.arg("--authorized-clients").arg(&list);
        match way {
            Way::Relay(scheme) => {
                let address = relay.ready["address"].as_str().unwrap();
                executor.arg("--relay").arg(format!("{scheme}{address}"));
                executor.arg("--tls-ca").arg(authority.file("ca.pem"));
            }
            Way::Direct(_) => {
                executor.args(["--listen", "127.0.0.1:0"]);
                certify(&mut executor, way, &authority);
            }
        }
        let executor = serve(executor);
        Self {
            homes,
            relay,
            executor,
            way,
            authority,
        }
    }

    /// `dwell run` of a command that is expected to succeed.
    pub(crate) fn run(&self, environment: &[(&str, &str)], command: &[&str]) -> Output {
        let output = self.run_trusting(Some("ca.pem"), environment, command);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// `dwell run` of a command, that accepts certificates of this file's authorities, or those that browsers trust.
    pub(crate) fn run_trusting(
        &self,
        authorities: Option<&str>,
        environment: &[(&str, &str)],
        command: &[&str],
    ) -> Output {
        let (flag, scheme, served) = match self.way {
            Way::Relay(scheme) => ("--relay", scheme, &self.relay),
            Way::Direct(scheme) => ("--direct", scheme, &self.executor),
        };
        let address = format!("{scheme}{}", served.ready["address"].as_str().unwrap());
        let mut run = dwell(&self.harness_home());
        run.envs(environment.iter().copied())
            .args(["run", flag, &address]);
        if let Some(file) = authorities {
            run.arg("--tls-ca").arg(self.authority.file(file));
        }
        run.args([
            "--executor",
            self.executor.ready["public_key"].as_str().unwrap(),
            "--",
        ])
        .args(command)
        .output()
        .unwrap()
    }

    pub(crate) fn harness_home(&self) -> PathBuf {
        self.homes.path().join("harness")
    }

    /// The last run's trace, from the harness's own file alone.
    pub(crate) fn last_trace(&self) -> Picture {
        let traces = self.harness_home().join(".local/state/dwell/traces");
        let trace = trace_file::last_trace(&traces)
            .unwrap()
            .expect("the run was traced");
        Picture::new(trace)
    }
}

/// A trace with an index.
pub(crate) struct Picture {
    pub(crate) trace: Trace,
    by_id: HashMap<[u8; 8], usize>,
}

impl Picture {
    fn new(trace: Trace) -> Self {
        let by_id = trace
            .spans
            .iter()
            .enumerate()
            .map(|(index, (_, span))| (span.span_id, index))
            .collect();
        Self { trace, by_id }
    }

    /// Spans of this name made by this role.
    pub(crate) fn named(&self, role: Role, name: &str) -> Vec<&Span> {
        let spans = self.trace.spans.iter();
        spans
            .filter(|(by, span)| *by == role && span.name == name)
            .map(|(_, span)| span)
            .collect()
    }

    /// One trace id, one root, no span whose parent is not there.
    pub(crate) fn assert_whole(&self) {
        let spans = &self.trace.spans;
        let id = self.trace.trace_id;
        assert!(spans.iter().all(|(_, span)| span.trace() == id), "one trace id");
        let roots: Vec<_> = spans.iter().filter(|(_, span)| span.parent == [0; 8]).collect();
        assert_eq!(roots.len(), 1, "one root");
        assert_eq!(roots[0].1.name, "call");
        let orphans: Vec<_> = spans
            .iter()
            .filter(|(_, span)| span.parent != [0; 8] && self.parent(span).is_none())
            .map(|(role, span)| format!("{role:?} {}", span.name))
            .collect();
        assert_eq!(orphans, Vec::<String>::new(), "no orphans");
    }

    /// The one span of this name made by this role.
    pub(crate) fn one(&self, role: Role, name: &str) -> &Span {
        let found = self.named(role, name);
        assert_eq!(found.len(), 1, "spans called {name} by {role:?}");
        found[0]
    }

    /// The span a span hangs below.
    pub(crate) fn parent(&self, span: &Span) -> Option<&(Role, Span)> {
        self.by_id
            .get(&span.parent)
            .map(|index| &self.trace.spans[*index])
    }
}

/// An attribute's text.
pub(crate) fn text<'a>(span: &'a Span, name: &str) -> &'a str {
    match span.attribute(name) {
        Some(Value::Str(text)) => text,
        other => panic!("{name} of {} is {other:?}", span.name),
    }
}
