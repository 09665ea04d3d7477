//! A whole first turn, as `dwell turn` makes it: the binary, its own relay and executor, and a model on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use dwell::responses::mock::{
    Act, MockModel, Posting, Seen, Upgrade, call, completed, created, first_turn, message,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const KEY: &str = "sk-canary-key-4d";
const BOUND: Duration = Duration::from_secs(60);
/// The longest one run of the binary may take.
const RUN_MAX: Duration = Duration::from_secs(120);

fn command(place: &Path, arguments: &[&str]) -> Command {
    let mut turn = Command::new(env!("CARGO_BIN_EXE_dwell"));
    turn.arg("turn")
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    turn
}

/// What a child said to its end; one that does not come to it is killed.
fn end(child: Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    if let Ok(output) = told.recv_timeout(RUN_MAX) {
        return output.unwrap();
    }
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let output = told.recv_timeout(BOUND).unwrap().unwrap();
    panic!("not over after {RUN_MAX:?}: {}{}", out(&output), err(&output));
}

fn output(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null());
    end(command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap())
}

/// Runs it in a directory with two files, and sees that nothing is left elsewhere.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let (place, about) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for name in ["first.txt", "second.txt"] {
        std::fs::write(about.path().join(name), "x").unwrap();
    }
    let mut turn = command(place.path(), arguments);
    let output = output(turn.current_dir(about.path()).envs(variables.iter().copied()));
    assert_eq!(
        std::fs::read_dir(place.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
    output
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A model on a runtime of its own, while the binary runs here.
struct Model {
    model: MockModel,
    _runtime: tokio::runtime::Runtime,
}

impl Model {
    fn start(
        upgrade: Upgrade,
        posting: Posting,
        play: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let model = runtime.block_on(MockModel::with(upgrade, posting, play)).unwrap();
        Self {
            model,
            _runtime: runtime,
        }
    }

    fn playing(play: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::start(Upgrade::Takes, Posting::Takes, play)
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let endpoint = self.model.url();
        let arguments = [&["--endpoint", &endpoint], arguments, &["what is here?"]].concat();
        run(&arguments, &[("OPENAI_API_KEY", KEY)])
    }
}

#[test]
fn a_first_turn_with_the_mock_needs_nothing_and_shows_all_of_it() {
    let output = run(&["--mock"], &[]);
    let (out, err) = (out(&output), err(&output));
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(
        out.starts_with("\nThe command printed 2 lines: first.txt, second.txt.\n"),
        "{out}"
    );
    for expected in [
        "to the executor before the first model request",
        "connect ",
        "workspace ",
        "model 1 ",
        "first token after",
        "the server names",
        "command 1 ",
        "ls: exit status 0",
        "model 2 ",
        "rest ",
        // And the picture.
        "agent turn",
        "model request",
        "model server timing",
        "mailbox ResponsesSession",
        "process",
        "critical path",
    ] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    for expected in [
        "relay",
        "executor",
        "What is in this directory?",
        "calls for: ls -1A",
    ] {
        assert!(err.contains(expected), "{expected}: {err}");
    }
}

#[test]
fn for_programs_there_is_one_object_whose_steps_are_within_the_whole() {
    let output = run(&["--mock", "--json", "anything"], &[]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        value["answer"],
        "The command printed 2 lines: first.txt, second.txt."
    );
    assert_eq!(value["commands"][0]["argv"], json!(["ls", "-1A"]));
    assert_eq!(value["model_requests"].as_array().unwrap().len(), 2);
    assert_eq!(value["waterfall"]["trace_id"], value["trace_id"]);
    let number = |value: &Value| value.as_u64().unwrap();
    let steps = number(&value["connect_us"])
        + value["model_requests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| number(&one["total_us"]))
            .sum::<u64>()
        + value["commands"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| number(&one["took_us"]))
            .sum::<u64>();
    assert!(steps > 0 && steps <= number(&value["total_us"]), "{value}");
    let rounds = number(&value["round_trips_before_first_model_request"]);
    assert!((1..=2).contains(&rounds), "{rounds}");
    for name in ["agent turn", "model request", "call"] {
        let rows = value["waterfall"]["rows"].as_array().unwrap();
        assert!(rows.iter().any(|row| row["name"] == name), "{name}");
    }
}

#[test]
fn the_workspace_is_known_before_the_model_is_asked_and_within_two_round_trips() {
    let about = TempDir::new().unwrap();
    let skill = about.path().join(".agents/skills/bake");
    std::fs::create_dir_all(&skill).unwrap();
    std::fs::create_dir(about.path().join(".git")).unwrap();
    std::fs::write(about.path().join("AGENTS.md"), "Always say please.").unwrap();
    std::fs::write(
        skill.join("SKILL.md"),
        "---\nname: bake\ndescription: Bakes bread.\n---\nKnead.",
    )
    .unwrap();
    let model = Model::playing(|seen| vec![created("r"), message(&seen.request.to_string()), completed("r")]);
    let endpoint = model.model.url();
    let place = TempDir::new().unwrap();
    let mut turn = command(place.path(), &["--json", "--endpoint", &endpoint, "x"]);
    let output = output(turn.current_dir(about.path()));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&value["instruction_files"], &value["skills"]),
        (&json!(1), &json!(1)),
        "{}",
        err(&output)
    );
    let rounds = value["round_trips_before_first_model_request"].as_u64().unwrap();
    assert!((1..=2).contains(&rounds), "{rounds}");
    let seen = model.model.seen();
    let told = seen[0].body["instructions"].as_str().unwrap();
    for expected in ["Always say please.", "bake: Bakes bread.", "AGENTS.md"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(!told.contains("Knead."), "bodies of skills are read on use");
}

#[test]
fn a_missing_key_says_what_to_set_before_anything_is_started() {
    let output = run(&["what is here?"], &[]);
    let text = err(&output);
    assert_eq!(output.status.code(), Some(125));
    for expected in ["set OPENAI_API_KEY", "--key-env", "dwell turn --mock"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("relay"), "{text}");
    let named = run(
        &["--key-env", "MY_KEY", "--json", "x"],
        &[("OPENAI_API_KEY", KEY)],
    );
    let value: Value = serde_json::from_slice(&named.stdout).unwrap();
    assert_eq!(value["error"]["kind"], "no_key");
    assert!(err(&named).contains("set MY_KEY"));
}

#[test]
fn what_is_no_question_or_no_endpoint_is_told() {
    for (arguments, expected) in [
        (&[][..], "PROMPT"),
        (&["--endpoint", "ws://example.org/", "x"], "in the clear"),
        (&["--endpoint", "example.org", "x"], "wss://"),
        (
            &["--mock", "--endpoint", "wss://example.org/", "x"],
            "cannot be used with",
        ),
    ] {
        let output = run(arguments, &[]);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}");
        assert!(err(&output).contains(expected), "{arguments:?}: {}", err(&output));
    }
}

#[test]
fn what_the_models_server_says_is_told_with_what_to_do() {
    let refusing = |status: u16| {
        let posting = Posting::Refuses {
            status,
            head: String::new(),
            body: String::new(),
        };
        Model::start(Upgrade::Refuses(404), posting, |_| Vec::new()).ask(&[])
    };
    for (status, kind, advice) in [
        (401, "does not accept the key (HTTP 401)", "OPENAI_API_KEY"),
        (429, "takes no more requests now (HTTP 429)", "wait"),
        (500, "failed with HTTP 500", "later"),
        (404, "answers with HTTP 404", "/v1/responses"),
    ] {
        let output = refusing(status);
        let text = err(&output);
        assert_eq!(output.status.code(), Some(125), "{text}");
        assert!(text.contains(kind) && text.contains(advice), "{text}");
    }
    let hangs = Model::start(Upgrade::Hangs, Posting::Takes, |_| Vec::new()).ask(&["--timeout", "0.3"]);
    assert!(
        err(&hangs).contains("no answer in time: 0.3 s"),
        "{}",
        err(&hangs)
    );
    let nobody = run(&["--endpoint", "ws://127.0.0.1:1/", "x"], &[]);
    assert!(
        err(&nobody).contains("no connection to 127.0.0.1:1"),
        "{}",
        err(&nobody)
    );
}

#[test]
fn nothing_is_run_without_leave() {
    let play = || first_turn(&["touch", "was-run"]);
    let model = Model::playing(play());
    let refused = model.ask(&[]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(err(&refused).contains("--yes"), "{}", err(&refused));
    assert_eq!(model.model.seen().len(), 1);
    // The control.
    let allowed = Model::playing(play()).ask(&["--yes"]);
    assert_eq!(allowed.status.code(), Some(0), "{}", err(&allowed));
    assert!(out(&allowed).contains("command 1"), "{}", out(&allowed));
}

#[test]
fn the_key_is_the_models_and_nobody_elses() {
    let model = Model::playing(first_turn(&["sh", "-c", "env; cat /proc/$PPID/environ"]));
    let endpoint = model.model.url();
    let arguments = ["--yes", "--endpoint", &endpoint, "--json", "x"];
    let output = run(&arguments, &[("OPENAI_API_KEY", KEY), ("DWELL_LOG", "trace")]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let seen = model.model.seen();
    // The controls: it was sent as a header, and the command printed an environment.
    assert_eq!(
        seen[0].header("authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
    let printed = seen[1].last_input().unwrap().to_string();
    assert!(printed.contains("PATH="), "{printed}");
    for (place, text) in [
        (
            "what the model is told",
            seen.iter().map(|seen| seen.body.to_string()).collect(),
        ),
        ("output", out(&output)),
        ("logs", err(&output)),
    ] {
        assert!(!text.contains(KEY), "{place}");
    }
}

#[test]
fn a_model_that_never_answers_is_given_up_after_so_many_rounds() {
    let model = Model::playing(|seen| {
        let mut acts = vec![created("r")];
        acts.extend(call(
            &format!("c{}", seen.request),
            "shell",
            &json!({ "argv": ["true"] }),
        ));
        acts.push(completed("r"));
        acts
    });
    let output = model.ask(&["--yes", "--rounds", "3"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        err(&output).contains("no answer after 3 rounds"),
        "{}",
        err(&output)
    );
    assert_eq!(model.model.seen().len(), 3);
}

#[test]
fn what_is_wrong_with_a_call_is_the_models_to_hear() {
    let model = Model::playing(|seen| {
        let bad = match seen.request {
            1 => call("c1", "shell", &json!({ "argv": ["/nowhere/to/be/found"] })),
            2 => call("c2", "shell", &json!({ "argv": [] })),
            3 => call("c3", "no_such_function", &json!({})),
            4 => call(
                "c4",
                "shell",
                &json!({ "argv": ["sh", "-c", "echo said; exit 3"] }),
            ),
            _ => vec![message("enough")],
        };
        let mut acts = vec![created("r")];
        acts.extend(bad);
        acts.push(completed("r"));
        acts
    });
    let output = model.ask(&["--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("\nenough\n"), "{}", out(&output));
    let told: Vec<_> = model.model.seen()[1..]
        .iter()
        .map(|seen| seen.last_input().unwrap()["output"].as_str().unwrap().to_owned())
        .collect();
    for (told, expected) in told
        .iter()
        .zip(["error", "`argv` has", "no such function", "exit status 3"])
    {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    assert!(told[3].contains("said"), "{}", told[3]);
}

#[test]
fn an_interrupt_ends_a_turn_and_leaves_nothing_behind() {
    let (asked, was_asked) = sync_channel(1);
    let model = Model::playing(move |_| {
        let _ = asked.try_send(());
        vec![created("r"), Act::Pause(Duration::from_secs(600))]
    });
    let place = TempDir::new().unwrap();
    let endpoint = model.model.url();
    let child = command(place.path(), &["--endpoint", &endpoint, "x"])
        .spawn()
        .unwrap();
    was_asked.recv_timeout(BOUND).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = end(child);
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn an_executor_that_is_named_is_used_and_the_trace_is_kept() {
    let home = TempDir::new().unwrap();
    let dwell = |arguments: &[&str]| {
        let mut dwell = Command::new(env!("CARGO_BIN_EXE_dwell"));
        let dwell = dwell.args(arguments).env_clear().env("DWELL_HOME", home.path());
        output(dwell.env("PATH", std::env::var_os("PATH").unwrap_or_default()))
    };
    let key: Value = serde_json::from_slice(&dwell(&["key", "--json"]).stdout).unwrap();
    let bytes = key["public_key"].as_str().unwrap();
    let bytes: [u8; 32] = std::array::from_fn(|n| u8::from_str_radix(&bytes[2 * n..2 * n + 2], 16).unwrap());
    let client = dwell::relay::parse_public_key(&bytes).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let serving = dwell::Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client)
        .serve();
    let executor = runtime.block_on(serving).unwrap();
    let (address, public) = (executor.local_addr().unwrap(), executor.public_key().to_string());
    let output = dwell(&[
        "turn",
        "--mock",
        "--direct",
        &address,
        "--executor",
        &public,
        "--cwd",
        "/",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        !err(&output).contains("relay"),
        "none was started: {}",
        err(&output)
    );
    let drawn = dwell(&["trace"]);
    assert!(out(&drawn).contains("agent turn"), "{}", out(&drawn));
    runtime.block_on(executor.shutdown());
}
