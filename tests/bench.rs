//! `dwell bench`, small: that it measures and tells, and nothing of how fast this machine is.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "cli")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn bench(arguments: &[&str]) -> Output {
    let place = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dwell"))
        .args(["bench", "attribution"])
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
