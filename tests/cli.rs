//! The binary as its users meet it, where no other role is needed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The binary with a home of its own and nothing of the caller's environment that could steer it.
    fn dwell(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dwell"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DWELL_HOME", self.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.dwell(arguments).output().unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    let text = out(output);
    assert_eq!(text.lines().count(), 1, "one object on one line: {text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_key_is_made_once_in_a_file_that_only_its_owner_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let first = json(&place.run(&["key", "--json"]));
    assert_eq!(
        (&first["created"], &first["role"]),
        (&Value::Bool(true), &"harness".into())
    );
    let path = first["path"].as_str().unwrap();
    assert_eq!(
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let second = json(&place.run(&["key", "make", "--json"]));
    assert_eq!(second["created"], false);
    assert_eq!(second["public_key"], first["public_key"]);
    let shown = place.run(&["key", "show"]);
    assert!(out(&shown).contains(first["public_key"].as_str().unwrap()));
    assert!(out(&shown).contains(first["fingerprint"].as_str().unwrap()));
}

#[test]
fn every_role_has_a_key_of_its_own() {
    let place = Place::new();
    let key = |role: &str| json(&place.run(&["key", "--json", "--role", role]))["public_key"].clone();
    let keys = ["harness", "executor", "relay"].map(key);
    assert_ne!(keys[0], keys[1]);
    assert_ne!(keys[1], keys[2]);
    assert_ne!(keys[0], keys[2]);
}

#[test]
fn showing_a_key_makes_none() {
    let place = Place::new();
    let shown = place.run(&["key", "show", "--json"]);
    assert_eq!(shown.status.code(), Some(125));
    assert_eq!(json(&shown)["error"]["kind"], "key");
    assert!(err(&shown).contains("make one"), "{}", err(&shown));
    assert!(!place.path().join("keys").exists());
}

#[test]
fn a_key_that_others_can_read_is_refused_and_not_replaced() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let path = json(&place.run(&["key", "--json"]))["path"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = std::fs::read(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = place.run(&["key"]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(err(&refused).contains("chmod"), "{}", err(&refused));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// C-23: a lost key is not made anew behind the back of those who know the old one.
#[test]
fn a_lost_key_is_an_error_for_the_role_that_lost_it() {
    for (role, list) in [("executor", "authorized_clients"), ("harness", "known_executors")] {
        let place = Place::new();
        std::fs::write(place.path().join(list), "").unwrap();
        let refused = place.run(&["key", "--role", role, "--json"]);
        assert_eq!(refused.status.code(), Some(125));
        assert!(
            err(&refused).contains(list) && err(&refused).contains("backup"),
            "{}",
            err(&refused)
        );
        assert!(!place.path().join("keys").join(format!("{role}.key")).exists());
        // Positive control: the other roles lost nothing.
        assert_eq!(place.run(&["key", "--role", "relay"]).status.code(), Some(0));
    }
}

/// C-24.
#[test]
fn a_name_with_two_keys_or_a_corrupted_line_is_told_by_its_line_and_others_are_kept() {
    let place = Place::new();
    place.run(&["key"]);
    let [one, two] = ["ab", "cd"].map(|pair| pair.repeat(32));
    let known = format!("twice {one}\nfine {one} direct=127.0.0.1:1\ntwice {two}\nbroken\n");
    std::fs::write(place.path().join("known_executors"), known).unwrap();
    for (name, told) in [("twice", "line 3: twice has several keys"), ("other", "line 3")] {
        let refused = place.run(&["run", "--on", name, "--", "ls"]);
        assert_eq!(refused.status.code(), Some(125));
        assert!(err(&refused).contains(told), "{}", err(&refused));
    }
    // The name is known, so that what fails is the connection.
    let unreachable = place.run(&["run", "--on", "fine", "--", "ls"]);
    let text = err(&unreachable);
    assert!(text.contains("127.0.0.1:1 cannot be reached"), "{text}");
    assert!(text.contains("line 3") && text.contains("line 4"), "{text}");
}

#[test]
fn a_relative_home_is_refused() {
    let place = Place::new();
    let output = place.dwell(&["key"]).env("DWELL_HOME", "here").output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(err(&output).contains("DWELL_HOME"));
}

#[test]
fn without_a_trace_the_advice_says_how_to_get_one() {
    let place = Place::new();
    for arguments in [&["trace"][..], &["trace", "0123456789abcdef0123456789abcdef"]] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(125));
        assert!(out(&output).is_empty());
        assert!(
            err(&output).contains("dwell trace") || err(&output).contains("dwell run"),
            "{}",
            err(&output)
        );
    }
}

/// A call of one millisecond, as a harness writes it.
const TRACE: &str = concat!(
    r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"dwell.role","value":{"stringValue":"harness"}}]},"#,
    r#""scopeSpans":[{"scope":{"name":"dwell"},"spans":[{"traceId":"0123456789abcdef0123456789abcdef","#,
    r#""spanId":"0123456789abcdef","name":"call","kind":1,"startTimeUnixNano":"1000000000","#,
    r#""endTimeUnixNano":"1001000000"}]}]}]}"#,
    "\n"
);

fn with_trace() -> Place {
    let place = Place::new();
    let dir = place.path().join("traces");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("traces-harness.jsonl"), TRACE).unwrap();
    place
}

#[test]
fn the_newest_call_is_drawn_without_colours_into_a_pipe() {
    let place = with_trace();
    let drawn = place.run(&["trace", "--width", "80"]);
    assert_eq!(drawn.status.code(), Some(0), "{}", err(&drawn));
    let text = out(&drawn);
    assert!(
        text.contains("call") && text.contains("0123456789abcdef0123456789abcdef"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_trace_for_programs_has_the_rows_of_the_picture() {
    let place = with_trace();
    let value = json(&place.run(&["trace", "0123456789ABCDEF0123456789ABCDEF", "--json"]));
    assert_eq!(value["trace_id"], "0123456789abcdef0123456789abcdef");
    assert_eq!(value["rows"][0]["name"], "call");
    assert_eq!(value["wall_us"], 1000.0);
}

#[test]
fn a_trace_is_found_by_its_first_digits_and_an_ambiguous_few_are_refused_with_what_they_could_mean() {
    let place = with_trace();
    let value = json(&place.run(&["trace", "show", "0123", "--json"]));
    assert_eq!(value["trace_id"], "0123456789abcdef0123456789abcdef");

    let other = TRACE.replace(
        "\"0123456789abcdef0123456789abcdef\"",
        "\"0123ffff89abcdef0123456789abcdef\"",
    );
    let file = place.path().join("traces/traces-harness.jsonl");
    std::fs::write(file, [TRACE, &other].concat()).unwrap();
    let refused = place.run(&["trace", "0123", "--json"]);
    assert_eq!(refused.status.code(), Some(125));
    let error = &json(&refused)["error"];
    assert_eq!(error["kind"], "ambiguous_trace");
    assert_eq!(error["advice"].as_array().unwrap().len(), 2);
    assert!(err(&refused).contains("0123ffff89abcdef0123456789abcdef"));
    assert_eq!(place.run(&["trace", "01234"]).status.code(), Some(0));

    let missing = place.run(&["trace", "why", "fff"]);
    assert_eq!(missing.status.code(), Some(125));
    assert!(err(&missing).contains("dwell trace list"), "{}", err(&missing));
}

#[test]
fn calls_are_listed_for_people_and_for_programs() {
    let place = with_trace();
    let listed = place.run(&["trace", "list"]);
    let text = out(&listed);
    assert!(
        text.lines()
            .nth(1)
            .unwrap()
            .ends_with("0123456789abcdef0123456789abcdef"),
        "{text}"
    );
    assert!(text.contains("1.000 ms"), "{text}");
    let value = json(&place.run(&["trace", "list", "--limit", "1", "--json"]));
    assert_eq!(value["calls"][0]["duration_us"], 1_000);
    let none = Place::new();
    assert_eq!(
        json(&none.run(&["trace", "list", "--json"]))["calls"],
        serde_json::json!([])
    );
}

#[test]
fn a_call_without_a_usual_is_explained_by_shares() {
    let place = with_trace();
    let text = out(&place.run(&["trace", "why"]));
    assert!(
        text.contains("no usual yet") && text.contains("1. 100.0%"),
        "{text}"
    );
    assert_eq!(
        json(&place.run(&["trace", "why", "--json"]))["ranked"],
        "no_usual"
    );
}

#[test]
fn an_export_goes_to_standard_output_or_into_a_private_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = with_trace();
    for format in ["otlp-json", "jaeger-json", "perfetto"] {
        let output = place.run(&["trace", "export", "--format", format]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert!(
            serde_json::from_slice::<Value>(&output.stdout).is_ok(),
            "{format}"
        );
    }
    let page = place.path().join("call.html");
    let path = page.to_str().unwrap();
    let written = json(&place.run(&[
        "trace", "export", "0123", "--format", "html", "-o", path, "--json",
    ]));
    assert_eq!(written["path"], path);
    assert_eq!(written["bytes"], std::fs::metadata(&page).unwrap().len());
    assert_eq!(
        std::fs::metadata(&page).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let refused = place.run(&["trace", "export", "--format", "html", "-o", "/nonexistent/x"]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(
        err(&refused).contains("/nonexistent/x cannot be written"),
        "{}",
        err(&refused)
    );
}

#[test]
fn help_and_version_are_no_errors() {
    let place = Place::new();
    for verb in [
        "demo", "turn", "relay", "executor", "run", "ps", "attach", "logs", "kill", "trust", "key", "trace",
        "version",
    ] {
        let output = place.run(&[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        assert!(out(&output).contains("--json"), "{verb}");
    }
    assert!(out(&place.run(&["--help"])).contains("Exit codes"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(out(&place.run(&["version"])), format!("dwell {version}\n"));
    assert_eq!(json(&place.run(&["version", "--json"]))["version"], version);
}

#[test]
fn bad_input_ends_with_125_and_says_why() {
    let place = Place::new();
    let key = "ab".repeat(32);
    let known = format!("build {key}\n");
    std::fs::write(place.path().join("known_executors"), known).unwrap();
    let cases: [(&[&str], &str); 21] = [
        (&[], "Usage"),
        (&["dance"], "dance"),
        (&["run", "--", "ls"], "--executor"),
        (&["ps"], "--executor"),
        (&["attach", "--executor", &key, "12"], "k3f9x-12.1"),
        (&["logs", "--executor", &key], "<ID>"),
        (
            &["kill", "--executor", &key, "--signal", "LOUD", "k3f9x-12.1"],
            "no signal",
        ),
        (&["run", "--executor", &key, "--stdin", "--", "ls"], "--detach"),
        (&["run", "--executor", "abc", "--", "ls"], "64 hexadecimal digits"),
        (
            &["run", "--executor", &key, "--timeout", "0", "--", "ls"],
            "above 0",
        ),
        (&["run", "--executor", &key, "--env", "=x", "--", "ls"], "name"),
        (
            &["run", "--executor", &key, "--relay", "a b", "--", "ls"],
            "HOST:PORT",
        ),
        (&["run", "--on", "a b", "--", "ls"], "letter or digit first"),
        (&["run", "--on", "nobody", "--", "ls"], "known are build"),
        (&["trust", "relay.example.org"], "dwell+relay:"),
        (
            &[
                "trust",
                &format!("dwell+direct:build:{key}:{}@THIS_HOST:7434", "07".repeat(16)),
            ],
            "in the place of THIS_HOST",
        ),
        (&["executor", "--authorize", &key[1..]], "64 hexadecimal digits"),
        (
            &["executor", "--authorize", &format!("{key},scopes=all")],
            "scopes are spawn",
        ),
        (
            &["executor", "--scopes", "spawn", "--no-pairing"],
            "cannot be used with",
        ),
        (&["relay", "--listen", "0.0.0.0:0"], "--allow"),
        (&["relay", "--allow", "/nonexistent/allow"], "cannot be read"),
    ];
    for (arguments, expected) in cases {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        assert!(err(&output).contains(expected), "{arguments:?}: {}", err(&output));
        assert!(out(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_environment_names_the_executor_and_a_flag_overrules_it() {
    let place = Place::new();
    let run = |arguments: &[&str]| {
        place
            .dwell(arguments)
            .env("DWELL_EXECUTOR", "no key")
            .output()
            .unwrap()
    };
    assert!(err(&run(&["run", "--", "ls"])).contains("64 hexadecimal digits"));
    let key = "ab".repeat(32);
    let overruled = run(&["run", "--executor", &key, "--relay", "a b", "--", "ls"]);
    assert!(err(&overruled).contains("HOST:PORT"), "{}", err(&overruled));
}

#[test]
fn logs_are_json_where_asked_and_a_bad_filter_is_told() {
    let place = Place::new();
    let output = place
        .dwell(&["--log-format", "json", "version"])
        .env("DWELL_LOG", "a=b=c")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let line: Value = serde_json::from_str(err(&output).lines().next().unwrap()).unwrap();
    assert_eq!(line["level"], "WARN");
}

#[test]
fn a_limit_that_is_none_is_told_with_one_that_is() {
    let place = Place::new();
    let key = "ab".repeat(32);
    let cases = [
        ("memory", "memory=2G"),
        ("memory=lots", "4096, 512K, 64M or 2G"),
        ("memory=99999999999G", "4096, 512K, 64M or 2G"),
        ("memory=-1", "4096, 512K, 64M or 2G"),
        ("files=many", "whole number"),
        ("cpu=1.5", "whole number"),
        ("nice=20", "-20 to 19"),
        ("nice=low", "-20 to 19"),
        (
            "flies=3",
            "memory, file-size, core, files, processes, cpu or nice",
        ),
    ];
    for (limit, expected) in cases {
        let output = place.run(&["run", "--executor", &key, "--limit", limit, "--", "ls"]);
        assert_eq!(output.status.code(), Some(125), "{limit}");
        assert!(err(&output).contains(expected), "{limit}: {}", err(&output));
        assert!(out(&output).is_empty(), "{limit}");
    }
}

#[test]
fn the_guard_by_hand_says_what_it_is_for() {
    let place = Place::new();
    for mark in [None, Some("1"), Some("0")] {
        let mut command = place.dwell(&["guard"]);
        if let Some(mark) = mark {
            command.env("DWELL_GUARD", mark);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(out(&output).is_empty());
        let text = err(&output);
        assert!(
            text.contains("started by an executor") && text.contains("`dwell executor` starts its own"),
            "{text}"
        );
    }
    let told = json(&place.run(&["guard", "--json"]));
    assert_eq!(told["error"]["kind"], "guard");
    assert!(
        !out(&place.run(&["--help"])).contains("guard"),
        "nobody is sent to it"
    );
}

#[test]
fn a_certificate_without_its_key_and_files_that_are_none_are_told() {
    let place = Place::new();
    let output = place.run(&["relay", "--listen", "127.0.0.1:0", "--tls-cert", "missing.pem"]);
    assert!(!output.status.success());
    assert!(err(&output).contains("--tls-key"), "{}", err(&output));
    let both = ["--tls-cert", "missing.pem", "--tls-key", "missing.pem"];
    let output = place.run(&[&["relay", "--listen", "127.0.0.1:0"], &both[..]].concat());
    assert_eq!(output.status.code(), Some(125));
    assert!(
        err(&output).contains("missing.pem cannot be read as PEM"),
        "{}",
        err(&output)
    );
    let output = place.run(&[&["executor", "--relay", "127.0.0.1:1"], &both[..]].concat());
    assert_eq!(output.status.code(), Some(125));
    let output = place.run(&["relay", "--listen", "wss://127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(err(&output).contains("--tls-cert FILE"), "{}", err(&output));
}

#[test]
fn an_error_of_usage_is_one_for_programs_too_where_they_ask() {
    let place = Place::new();
    let refused = place.run(&["key", "--json", "--role", "nobody"]);
    assert_eq!(refused.status.code(), Some(125));
    let error = &json(&refused)["error"];
    assert_eq!(
        (&error["kind"], &error["exit_code"]),
        (&"usage".into(), &125.into())
    );
    assert!(error["message"].as_str().unwrap().contains("'nobody'"), "{error}");
    assert!(err(&refused).starts_with("error: "), "people are told as well");
    // What stands behind `--` is the command's.
    let refused = place.run(&["run", "--no-such-flag", "--", "echo", "--json"]);
    assert_eq!((refused.status.code(), out(&refused).as_str()), (Some(125), ""));
}
