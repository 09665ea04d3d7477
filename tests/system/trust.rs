//! Two strangers that come to trust each other by one line, as processes.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::roles::{Serving, dwell, serve};

const BOUND: Duration = Duration::from_secs(20);

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn home(&self, role: &str) -> PathBuf {
        self.0.path().join(role)
    }

    fn executor(&self, home: &str, arguments: &[&str]) -> Serving {
        let mut command = dwell(&self.home(home));
        command
            .args(["executor", "--json", "--listen", "127.0.0.1:0", "--name", "build"])
            .args(arguments);
        serve(command)
    }

    fn run(&self, home: &str, arguments: &[&str]) -> Output {
        dwell(&self.home(home)).args(arguments).output().unwrap()
    }
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_done(output: &Output) -> String {
    assert!(output.status.success(), "{}", err(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_refused(output: &Output, told: &[&str]) {
    assert_eq!(output.status.code(), Some(125), "{}", err(output));
    for told in told {
        assert!(err(output).contains(told), "no {told:?} in {}", err(output));
    }
}

fn trust(executor: &Serving) -> String {
    executor.ready["trust"].as_str().unwrap().to_owned()
}

fn audit(home: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(home.join(".local/state/dwell/audit.jsonl")).unwrap();
    // The last may be on its way.
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn one_line_makes_an_executor_and_a_client_known_to_each_other() {
    let place = Place::new();
    let executor = place.executor("executor", &["--scopes", "spawn"]);
    let line = trust(&executor);
    assert!(line.starts_with("dwell+direct:build:"), "{line}");
    let stranger = place.run("other", &["key"]);
    assert_done(&stranger);

    let told: Json =
        serde_json::from_str(&assert_done(&place.run("agent", &["trust", &line, "--json"]))).unwrap();
    assert_eq!(
        (&told["name"], &told["fingerprint"]),
        (&"build".into(), &executor.ready["fingerprint"])
    );
    let output = place.run("agent", &["run", "--on", "build", "--", "echo", "hello"]);
    assert_eq!(assert_done(&output), "hello\n");

    // Used: nobody else comes in by it, and who is in may give it again.
    assert_refused(
        &place.run("other", &["trust", &line]),
        &["does not serve this client", "ten minutes"],
    );
    assert_done(&place.run("agent", &["trust", &line]));
    let list =
        std::fs::read_to_string(place.home("executor").join(".config/dwell/authorized_clients")).unwrap();
    assert_eq!(list.lines().count(), 1, "{list}");
    assert!(list.ends_with(" scopes=spawn # paired\n"), "{list}");

    // It has no terminal: the scopes are the operator's.
    let refused = place.run("agent", &["run", "--tty=always", "--on", "build", "--", "true"]);
    assert_refused(&refused, &["lacks the scope pty"]);
    let wanted = [
        ("pair", "ok"),
        ("pair", "refused"),
        ("session_begin", "ok"),
        ("call", "refused"),
    ];
    let home = place.home("executor");
    let begun = Instant::now();
    // The lines are written behind the answers.
    loop {
        let lines = audit(&home);
        let has = |(what, result): &(&str, &str)| {
            lines
                .iter()
                .any(|line| line["what"] == *what && line["result"] == *result)
        };
        if wanted.iter().all(has) {
            break;
        }
        assert!(begun.elapsed() < BOUND, "{lines:?}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// C-24: a name that answers with another key is a hard stop before anything is sent, and both fingerprints are told.
#[test]
fn a_known_name_with_another_key_is_refused_with_both_fingerprints() {
    let place = Place::new();
    let first = place.executor("first", &[]);
    assert_done(&place.run("agent", &["trust", &trust(&first)]));
    let second = place.executor("second", &[]);
    let fingerprints =
        [&first, &second].map(|executor| executor.ready["fingerprint"].as_str().unwrap().to_owned());
    let refused = place.run("agent", &["trust", &trust(&second)]);
    assert_refused(&refused, &[&fingerprints[0], &fingerprints[1]]);
    assert!(
        !place
            .home("second")
            .join(".config/dwell/authorized_clients")
            .exists()
    );
    // The pin holds: the other machine in the first one's place is told apart by its key.
    let address = second.ready["address"].as_str().unwrap();
    let replaced = place.run(
        "agent",
        &["run", "--on", "build", "--direct", address, "--", "true"],
    );
    assert_refused(&replaced, &[&fingerprints[0], &fingerprints[1]]);
    // Positive control.
    assert_done(&place.run("agent", &["run", "--on", "build", "--", "true"]));
    assert_done(&place.run("agent", &["trust", "--name", "second", &trust(&second)]));
}

#[test]
fn an_executor_that_is_told_its_clients_prints_no_line() {
    let place = Place::new();
    let key: Json = serde_json::from_str(&assert_done(&place.run("agent", &["key", "--json"]))).unwrap();
    let key = key["public_key"].as_str().unwrap();
    let executor = place.executor("executor", &["--authorize", &format!("{key},scopes=spawn")]);
    assert!(executor.ready["trust"].is_null());
    let (address, public) = (&executor.ready["address"], &executor.ready["public_key"]);
    let (address, public) = (address.as_str().unwrap(), public.as_str().unwrap());
    let reached = [
        "run",
        "--direct",
        address,
        "--executor",
        public,
        "--",
        "echo",
        "in",
    ];
    assert_eq!(assert_done(&place.run("agent", &reached)), "in\n");
    assert_refused(
        &place.run("other", &reached),
        &["does not serve this client", "dwell trust LINE"],
    );
    let silent = place.executor("silent", &["--no-pairing"]);
    assert!(silent.ready["trust"].is_null());
}
