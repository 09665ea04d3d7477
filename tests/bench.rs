//! `dwell bench`, small: that it measures and tells, and nothing of how fast this machine is.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "cli")]

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn bench(arguments: &[&str]) -> Output {
    run(&[&["attribution"], arguments].concat())
}

fn run(arguments: &[&str]) -> Output {
    let place = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dwell"))
        .arg("bench")
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let left = std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(left, 0, "the benchmark leaves nothing behind");
    output
}

const SMALL: [&str; 6] = ["--runs", "5", "--slow-runs", "3", "--delay", "10"];

#[test]
fn attribution_tells_of_every_case_and_of_the_machine() {
    let output = bench(&[&SMALL[..], &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(told["calibration"]["spawn_p50_us"].as_u64().unwrap() > 0);
    assert!(told["calibration"]["echo_p50_us"].as_u64().unwrap() > 0);
    let cases = told["cases"].as_array().unwrap();
    let names: Vec<_> = cases.iter().map(|case| case["case"].as_str().unwrap()).collect();
    assert_eq!(names, ["direct", "relay", "slow link"]);
    for case in cases {
        let figure = |name: &str| case[name]["p50_us"].as_u64().unwrap();
        assert!(figure("unattributed") <= figure("total"), "{case}");
        assert!(case["met"].is_boolean(), "{case}");
    }
    assert_eq!(cases[2]["runs"], 3);
    let slow = cases[2]["transit"]["p50_us"].as_u64().unwrap();
    assert!(slow >= 20_000, "both ways are slow: {slow} µs");
    assert!(
        errors.contains("slow link: 3 runs"),
        "progress is shown: {errors}"
    );
}

#[test]
fn attribution_says_in_words_whether_the_budget_is_met() {
    let output = bench(&SMALL);
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "calibration",
        "unattributed",
        "direct",
        "relay",
        "slow link",
        "met",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_number_of_runs_that_is_none_is_refused() {
    let output = bench(&["--runs", "0"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--runs"));
}

/// The peers that are always there; those that others bring stand in `absent`.
const OWN_PEERS: [&str; 4] = ["bare", "dwell_direct", "dwell_relay", "dwell_json"];

#[test]
fn without_peers_dwell_is_measured_alone_and_the_absent_are_named() {
    let output = run(&["--quick", "--json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = |name: &str| told[name].as_array().unwrap();
    let peers: Vec<_> = list("peers")
        .iter()
        .map(|peer| peer["peer"].as_str().unwrap())
        .collect();
    assert_eq!(peers, OWN_PEERS);
    let absent: Vec<_> = list("absent")
        .iter()
        .map(|one| one["what"].as_str().unwrap())
        .collect();
    assert_eq!(absent, ["codex exec-server", "OpenSSH"]);
    for name in ["spawn_p50_us", "echo_p50_us", "fdatasync_p50_us"] {
        assert!(told["calibration"][name].is_u64(), "{name}");
    }
    // Everything that travels at both latencies, with samples, and everything as it must be.
    let mut seen = BTreeSet::new();
    for one in list("measured") {
        assert_eq!(
            (one["timeouts"].as_u64(), one["failures"].as_u64()),
            (Some(0), Some(0)),
            "{one}"
        );
        assert!(
            one["samples"].as_u64().unwrap() > 0 && one["p50"].as_f64().is_some(),
            "{one}"
        );
        let text = |name: &str| one[name].as_str().unwrap().to_owned();
        seen.insert((text("measure"), text("peer"), one["latency_ms"].as_u64().unwrap()));
    }
    let everywhere = [
        "round_trip",
        "one_shot",
        "in_flight_1",
        "in_flight_8",
        "in_flight_32",
        "throughput",
        "echo_pipe",
        "echo_pipe_flooded",
        "echo_terminal",
        "echo_terminal_flooded",
        "behind_poll",
        "cold",
    ];
    for peer in &OWN_PEERS[1..] {
        for measure in everywhere {
            for latency_ms in [0, 20] {
                let one = (measure.to_owned(), (*peer).to_owned(), latency_ms);
                assert!(seen.contains(&one), "{one:?}");
            }
        }
        for measure in ["idle_memory", "processor"] {
            assert!(
                seen.contains(&(measure.to_owned(), (*peer).to_owned(), 0)),
                "{measure}, {peer}"
            );
        }
    }
    // A latency is really there: nothing that travels is faster than it.
    for one in list("measured") {
        if one["latency_ms"] == 20 && one["unit"] == "us" {
            assert!(one["p50"].as_f64().unwrap() >= 20_000.0, "{one}");
        }
    }
    let promised = list("promised");
    assert!(promised.iter().any(|one| one["met"].is_boolean()));
    assert!(
        promised.iter().any(|one| one["met"].is_null()),
        "what needs a peer is not measured"
    );
    assert!(errors.contains("one-shot"), "progress is shown: {errors}");
}

#[test]
fn a_peer_that_does_not_start_is_named_and_ends_nothing() {
    let output = run(&[
        "--quick",
        "--only",
        "one_shot",
        "--latency",
        "0",
        "--codex",
        "/nowhere/codex",
    ]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "absent: codex exec-server: starting a server failed",
        "one-shot",
        "dwell, relay",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_measurement_that_there_is_not_is_refused_with_those_that_there_are() {
    let output = run(&["--only", "nothing"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("behind_poll"));
}
