//! Tests of what is told.

use super::super::budget::verdicts;
use super::super::peer::Trouble;
use super::*;

fn report() -> Report {
    let mut results = Results::default();
    let mut put = |measure, latency_ms, name, value: f64| {
        results
            .cell_mut(measure, latency_ms, name)
            .series
            .push_round(vec![value]);
    };
    put(Measure::OneShot, 0, Name::Direct, 1_000.0);
    put(Measure::OneShot, 20, Name::Direct, 21_200.0);
    put(Measure::OneShot, 0, Name::Relay, 1_200.0);
    put(Measure::OneShot, 0, Name::Codex, 48_000.0);
    put(Measure::InFlight32, 0, Name::Direct, 1_600.0);
    put(Measure::IdleMemory, 0, Name::Direct, 40.0);
    results
        .cell_mut(Measure::EchoPipe, 0, Name::Codex)
        .note(&Trouble::failed("an echo", "it ended"));
    results.path_mut(0).push_round(vec![60.0]);
    results.path_mut(20).push_round(vec![20_060.0]);
    let verdicts = verdicts(&results, &[0, 20]);
    Report {
        calibration: Calibration {
            spawn_us: 800,
            echo_us: 60,
            sync_us: 400,
        },
        quick: false,
        rounds: 1,
        cores: 2,
        latencies_ms: vec![0, 20],
        peers: vec![
            (Name::Direct, None),
            (Name::Relay, None),
            (Name::Codex, Some("codex-cli 0.1".into())),
        ],
        absent: vec![Absent {
            what: "ssh".into(),
            why: "not given".into(),
        }],
        results,
        verdicts,
    }
}

#[test]
fn a_table_has_absolute_figures_ratios_and_round_trips_in_columns() {
    let text = report().text(false);
    let line = |begin: &str| {
        text.lines()
            .find(|line| line.trim_start().starts_with(begin))
            .unwrap()
    };
    let head = line("one-shot");
    let of = |name: &str| {
        let after = text.split_once("one-shot `true`").unwrap().1;
        after
            .lines()
            .find(|line| line.trim_start().starts_with(name))
            .unwrap()
            .to_owned()
    };
    let direct = of("dwell, direct");
    assert!(
        direct.contains("1.00 ms") && direct.contains("1.00x") && direct.ends_with("1.01 R"),
        "{direct}"
    );
    let codex = of("codex");
    assert!(
        codex.contains("48.0 ms") && codex.contains("48x") && codex.ends_with(NONE),
        "{codex}"
    );
    assert_eq!(head.chars().count(), direct.chars().count(), "aligned");
    assert!(!text.contains("\x1b["), "no colour unless asked for");
    assert!(text.lines().all(|line| line.chars().count() <= 120));
}

#[test]
fn the_absent_the_troubled_and_the_unmet_are_named() {
    let text = report().text(false);
    for expected in [
        "absent: ssh: not given",
        "codex: codex-cli 0.1",
        "fdatasync 400 µs",
        "at 20 ms a bare echo takes 20.00 ms more",
        "codex: echo, pipe at 0 ms: 0 timeouts, 1 failures; the first: an echo failed: it ended",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let promise = |what: &str| {
        text.lines()
            .find(|line| line.trim_start().starts_with(what))
            .unwrap()
    };
    assert!(promise("one-shot, relay, over codex ").ends_with("  met"));
    assert!(promise("one-shot, relay, over ssh").ends_with("not measured"));
    assert!(report().text(true).contains("\x1b[32mmet"));
}

#[test]
fn programs_get_every_figure_and_every_promise() {
    let value = report().json();
    let measured = value["measured"].as_array().unwrap();
    let find = |measure: &str, peer: &str, ms: u64| {
        let is = |one: &&Value| one["measure"] == measure && one["peer"] == peer && one["latency_ms"] == ms;
        measured.iter().find(is).unwrap()
    };
    assert_eq!(find("one_shot", "codex", 0)["ratio_to_dwell_direct"], 48.0);
    assert_eq!(find("one_shot", "dwell_direct", 20)["round_trips"], 1.01);
    assert_eq!(find("echo_pipe", "codex", 0)["failures"], 1);
    assert_eq!(value["absent"][0]["what"], "ssh");
    assert_eq!(value["paths"][0]["echo_adds_p50_us"], 20_000.0);
    let promised = value["promised"].as_array().unwrap();
    assert!(promised.iter().any(|one| one["met"] == true) && promised.iter().any(|one| one["met"].is_null()));
}

#[test]
fn figures_have_a_unit_and_three_digits() {
    let shown = [999.4, 999.6, 9_994.0, 9_996.0, 99_960.0].map(|value| figure(Unit::Micros, value));
    assert_eq!(shown, ["999 µs", "1.00 ms", "9.99 ms", "10.0 ms", "100 ms"]);
    assert_eq!([ratio(0.046), ratio(9.96)], ["0.05x", "10x"]);
}
