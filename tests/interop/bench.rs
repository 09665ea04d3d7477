//! dwell beside the stock server, small.

use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::world::{codex, confined};

#[test]
fn the_stock_server_is_measured_beside_dwell_and_answers_as_it_must() {
    if !confined("bench::the_stock_server_is_measured_beside_dwell_and_answers_as_it_must") {
        return;
    }
    let place = TempDir::new().unwrap();
    let only = "round_trip,one_shot,in_flight_8,throughput,echo_pipe,echo_terminal,cold,idle_memory";
    let output = Command::new(env!("CARGO_BIN_EXE_dwell"))
        .args([
            "bench",
            "--quick",
            "--json",
            "--latency",
            "0",
            "--only",
            only,
            "--codex",
        ])
        .arg(codex())
        .env("TMPDIR", place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let peers = told["peers"].as_array().unwrap();
    let version = peers.iter().find(|peer| peer["peer"] == "codex").unwrap()["version"].as_str();
    assert!(
        version.is_some_and(|version| version.contains("0.169")),
        "{version:?}"
    );
    let measured = told["measured"].as_array().unwrap();
    for peer in ["codex", "codex_quick_acks", "dwell_json"] {
        let of: Vec<_> = measured.iter().filter(|one| one["peer"] == peer).collect();
        assert_eq!(of.len(), only.split(',').count(), "{peer}");
        for one in of {
            assert_eq!(
                (one["timeouts"].as_u64(), one["failures"].as_u64()),
                (Some(0), Some(0)),
                "{one}"
            );
            assert!(one["samples"].as_u64().unwrap() > 0, "{one}");
        }
    }
    let left = std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(left, 0, "the benchmark leaves nothing behind");
}
