//! Machines whose clocks are apart: the drawing is aligned to within the error it states, and no duration knows of it.
//!
//! With `faketime`.

use std::process::Command;

use dwell_actors::trace_file;
use dwell_messages::{Role, Value};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::roles::{dwell, serve};

/// The executor's clock minus this machine's, in seconds.
const SKEWS_SECONDS: [i64; 3] = [-86_400, 3_600, 7];

/// As the command, on a machine whose wall clock is that far off. Its monotonic clock is not set with it.
fn skewed(seconds: i64, command: &Command) -> Command {
    let mut shifted = Command::new("faketime");
    shifted
        .args(["-f", &format!("{seconds:+}s")])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear();
    let variables = command.get_envs();
    shifted.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    shifted.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    shifted
}

#[test]
fn a_clock_that_is_apart_is_found_to_within_its_stated_error_and_is_in_no_duration() {
    let there = Command::new("faketime").arg("--version").output();
    there.unwrap_or_else(|error| panic!("this needs `faketime`: {error}"));
    for skew in SKEWS_SECONDS {
        let homes = TempDir::new().unwrap();
        let home = |role: &str| homes.path().join(role);
        let key = dwell(&home("harness"))
            .args(["key", "make", "--json"])
            .output()
            .unwrap();
        let key: Json = serde_json::from_slice(&key.stdout).unwrap();
        let mut executor = dwell(&home("executor"));
        executor.args(["executor", "--ready-json", "--listen", "127.0.0.1:0"]);
        executor.args(["--authorize", key["public_key"].as_str().unwrap()]);
        let executor = serve(skewed(skew, &executor));
        let output = dwell(&home("harness"))
            .args(["run", "--json"])
            .args(["--direct", executor.ready["address"].as_str().unwrap()])
            .args(["--executor", executor.ready["public_key"].as_str().unwrap()])
            .args(["--", "sh", "-c", "sleep 0.05"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let traces = home("harness").join(".local/state/dwell/traces");
        let trace = trace_file::last_trace(&traces).unwrap().unwrap();
        let (_, clock) = trace
            .offsets
            .iter()
            .find(|(role, _)| *role == Role::Executor)
            .unwrap();
        let off = (clock.offset_us - skew * 1_000_000).abs();
        // Two processes read the machine's clock at their starts, a moment of scheduling apart from their own.
        let start_us = 2_000;
        assert!(off <= clock.error_us + start_us, "{skew} s: {clock:?}");
        assert!(clock.error_us < 1_000_000, "{skew} s: {clock:?}");

        let mut total_us = 0;
        for (role, span) in &trace.spans {
            assert!(
                span.end_unix_ns >= span.start_unix_ns,
                "{skew} s: {role:?} {}",
                span.name
            );
            let long_ns = 60_000_000_000;
            assert!(span.duration_ns() < long_ns, "{skew} s: {role:?} {}", span.name);
            if span.name == trace_file::ROOT_SPAN_NAME {
                total_us = span.duration_ns() / 1_000;
                let chain = span
                    .attributes
                    .iter()
                    .filter(|(name, _)| name.starts_with("chain."));
                for (name, value) in chain {
                    let Value::I64(us) = value else {
                        panic!("{name} is no number")
                    };
                    let us = u64::try_from(*us).unwrap_or_else(|_| panic!("{skew} s: {name} is {us} µs"));
                    assert!(us <= total_us + 1, "{skew} s: {name} is {us} µs of {total_us}");
                }
            }
        }
        assert!(
            (50_000..30_000_000).contains(&total_us),
            "{skew} s: {total_us} µs"
        );
    }
}
