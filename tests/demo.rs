//! The whole system as `dwell demo` starts it: three processes of the binary on this machine.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "cli")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

fn demo(place: &Path, options: &[&str], command: &[&str]) -> Command {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_dwell"));
    demo.arg("demo")
        .args(options)
        .arg("--")
        .args(command)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    demo
}

fn run(options: &[&str], command: &[&str]) -> Output {
    let place = TempDir::new().unwrap();
    let output = demo(place.path(), options, command).output().unwrap();
    let left = std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(left, 0, "the demo leaves nothing behind");
    output
}

/// A demo whose command has said its first line.
fn started(place: &Path, script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = demo(place, &[], &["sh", "-c", script]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    (child, stdout)
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

fn ended(mut child: Child, mut stdout: impl std::io::Read) -> ExitStatus {
    // Also everything the demo started must let go of the pipe.
    stdout.read_to_end(&mut Vec::new()).unwrap();
    child.wait().unwrap()
}

#[test]
fn output_comes_first_then_the_status_the_picture_and_the_account() {
    let output = run(&[], &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(out.starts_with("out\n"), "{out}");
    for expected in ["exit status 3", "call", "executor", "unattributed"] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    for expected in ["harness", "relay", "executor", "BLAKE2s:", "err\n"] {
        assert!(err.contains(expected), "{expected}: {err}");
    }
}

#[test]
fn the_exit_code_tells_how_the_command_ended() {
    for (command, code) in [
        (&["sh", "-c", "kill -9 $$"][..], 137),
        (&["/nonexistent/program"], 127),
        (&["/etc/passwd"], 126),
    ] {
        assert_eq!(run(&[], command).status.code(), Some(code), "{command:?}");
    }
}

#[test]
fn for_programs_there_is_one_object_with_everything() {
    let output = run(&["--json"], &["printf", "a\\377"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["exit_code"], 0);
    assert_eq!(
        (&value["stdout"]["text"], &value["stdout"]["base64"]),
        (&"a\u{fffd}".into(), &"Yf8=".into())
    );
    assert_eq!(value["waterfall"]["trace_id"], value["trace_id"]);
    assert!(
        value["waterfall"]["rows"].as_array().unwrap().len() > 5,
        "{value}"
    );
    assert!(value["timings"]["total_us"].as_u64().unwrap() > 0);
}

#[test]
fn what_is_kept_of_the_command_is_in_the_picture_and_not_on_its_way() {
    let output = run(&["--json"], &["sh", "-c", "sleep 2"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = value["waterfall"]["rows"].as_array().unwrap();
    let named = |name: &str| rows.iter().filter(|row| row["name"] == name).collect::<Vec<_>>();
    let span = |row: &Value| {
        (
            row["start_us"].as_f64().unwrap(),
            row["duration_us"].as_f64().unwrap(),
        )
    };
    let (_, wall) = span(named("call")[0]);
    for name in [
        "thread append",
        "metadata observe",
        "log append",
        "log sync",
        "metadata queue",
        "metadata apply",
    ] {
        let rows = named(name);
        assert!(!rows.is_empty(), "{name}: {value}");
        // It lies over the command's own time, and waits for none of it.
        let start = rows.iter().map(|row| span(row).0).fold(f64::MAX, f64::min);
        assert!(start < wall, "{name} begins at {start} of {wall}");
    }
    let account = value["waterfall"]["account"].to_string();
    assert!(
        !account.contains("metadata") && !account.contains("log "),
        "{account}"
    );
}

#[test]
fn an_interrupt_ends_the_command_and_leaves_nothing_behind() {
    let place = TempDir::new().unwrap();
    let begun = Instant::now();
    let (child, stdout) = started(place.path(), "echo begun; exec sleep 600");
    signal(&child, rustix::process::Signal::INT);
    assert_eq!(ended(child, stdout).code(), Some(143));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_reader_that_goes_away_ends_a_command_that_floods() {
    let place = TempDir::new().unwrap();
    let (mut child, stdout) = started(place.path(), "echo begun; exec yes");
    drop(stdout);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141), "{err}");
}

#[test]
fn roles_end_when_their_parent_is_killed() {
    let place = TempDir::new().unwrap();
    let (mut child, stdout) = started(place.path(), "echo begun; exec sleep 600");
    let mut stderr = child.stderr.take().unwrap();
    signal(&child, rustix::process::Signal::KILL);
    ended(child, stdout);
    // Relay and executor inherited it: it ends when both have.
    stderr.read_to_string(&mut String::new()).unwrap();
}
