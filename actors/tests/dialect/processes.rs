//! Starting processes, and what they tell.

use dwell_actors::dialect::Sandbox;
use serde_json::{Value, json};

use crate::client::{
    Client, executor, executor_with, exit_code, options, refused, shell, start, start_with, written,
};

fn numbers(events: &[Value]) -> Vec<u64> {
    events
        .iter()
        .map(|event| event["params"]["seq"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_command_tells_its_output_its_exit_and_its_end_in_one_count() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let started = client
        .call("process/start", shell("p1", "echo out; echo err >&2; exit 3"))
        .await;
    assert_eq!(started, Ok(json!({"processId": "p1", "sandboxType": "none"})));
    let events = client.events("p1").await;
    assert_eq!(numbers(&events), (1..=events.len() as u64).collect::<Vec<_>>());
    let of = |stream: &str| {
        events
            .iter()
            .find(|event| event["params"]["stream"] == stream)
            .unwrap()
    };
    assert_eq!(of("stdout")["params"]["chunk"], "b3V0Cg==");
    assert_eq!(of("stderr")["params"]["chunk"], "ZXJyCg==");
    let exited = events
        .iter()
        .find(|event| event["method"] == "process/exited")
        .unwrap();
    let exited = &exited["params"];
    assert_eq!(
        (&exited["exitCode"], &exited["sandboxDenied"]),
        (&json!(3), &json!(false))
    );
    executor.shutdown().await;
}

/// A command that says something at once was heard of before its start was answered, now and then.
#[tokio::test]
async fn a_start_is_answered_before_its_process_tells_anything() {
    const COMMANDS: usize = 30;
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    for number in 0..COMMANDS {
        client
            .ask("process/start", start(&number.to_string(), &["echo", "a"]))
            .await;
    }
    let (mut answered, mut ended) = (Vec::new(), 0);
    while ended < COMMANDS {
        let message = client.read().await.unwrap();
        if message.get("method").is_none() {
            answered.push(message["result"]["processId"].clone());
            continue;
        }
        assert!(answered.contains(&message["params"]["processId"]), "{message}");
        ended += usize::from(message["method"] == "process/closed");
    }
    executor.shutdown().await;
}

#[tokio::test]
async fn a_process_that_a_signal_kills_exits_with_128_more() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    for (name, signal) in [("a", 15), ("b", 9), ("c", 11)] {
        client
            .call("process/start", shell(name, &format!("kill -{signal} $$")))
            .await
            .unwrap();
        assert_eq!(exit_code(&client.events(name).await), 128 + signal);
    }
    let tty = start_with("t", &["/bin/sh", "-c", "kill -9 $$"], &json!({"tty": true}));
    client.call("process/start", tty).await.unwrap();
    assert_eq!(
        exit_code(&client.events("t").await),
        1,
        "on a terminal any signal is 1"
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn a_name_is_taken_while_its_process_runs_and_while_it_can_be_read() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    client
        .call("process/start", start("p1", &["sleep", "1000"]))
        .await
        .unwrap();
    let again = client.call("process/start", start("p1", &["true"])).await;
    assert_eq!(again, refused(-32600, "process p1 already exists"));
    client
        .call("process/terminate", json!({"processId": "p1"}))
        .await
        .unwrap();
    client.events("p1").await;
    let again = client.call("process/start", start("p1", &["true"])).await;
    assert_eq!(again, refused(-32600, "process p1 already exists"));
    // Any name does, also none.
    client.call("process/start", start("", &["true"])).await.unwrap();
    assert_eq!(exit_code(&client.events("").await), 0);
    executor.shutdown().await;
}

#[tokio::test]
async fn a_start_that_fails_says_what_the_system_said_and_leaves_the_name_free() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let mut fails = async |params: Value| client.call("process/start", params).await;
    assert_eq!(
        fails(start("p", &[])).await,
        refused(-32602, "argv must not be empty")
    );
    let missing = "No such file or directory (os error 2)";
    assert_eq!(
        fails(start("p", &["no-such-program"])).await,
        refused(-32603, missing)
    );
    assert_eq!(fails(start("p", &["/nowhere/x"])).await, refused(-32603, missing));
    assert_eq!(fails(start("p", &[""])).await.unwrap_err().code, -32603);
    assert_eq!(
        fails(start("p", &["/etc"])).await,
        refused(-32603, "Permission denied (os error 13)")
    );
    assert_eq!(
        fails(start("p", &["true", "a\0b"])).await.unwrap_err().code,
        -32603
    );
    for tty in [false, true] {
        let bad_cwd = start_with("p", &["true"], &json!({"cwd": "file:///nowhere", "tty": tty}));
        assert_eq!(fails(bad_cwd).await, refused(-32603, missing));
    }
    let no_uri = start_with("p", &["true"], &json!({"cwd": "/tmp"}));
    assert_eq!(
        fails(no_uri).await,
        refused(-32602, "invalid URI: relative URL without a base")
    );
    let web = start_with("p", &["true"], &json!({"cwd": "http://h/"}));
    assert_eq!(
        fails(web).await,
        refused(-32602, "unsupported path URI scheme `http`")
    );
    assert!(fails(start("p", &["true"])).await.is_ok());
    executor.shutdown().await;
}

#[tokio::test]
async fn a_command_is_told_another_name_than_its_programs_where_it_is_asked_for() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let script = "tr '\\0' ' ' < /proc/$$/cmdline; true";
    for (process, arg0, name) in [("a", json!("other name"), "other name"), ("b", Value::Null, "sh")] {
        let named = start_with(process, &["sh", "-c", script], &json!({"arg0": arg0}));
        client.call("process/start", named).await.unwrap();
        let said = written(&client.events(process).await);
        assert!(said.starts_with(&format!("{name} -c ")), "{said}");
    }
    let missing = start_with("c", &["no-such-program"], &json!({"arg0": "sh"}));
    let refusal = client.call("process/start", missing).await;
    assert_eq!(refusal, refused(-32603, "No such file or directory (os error 2)"));
    executor.shutdown().await;
}

#[tokio::test]
async fn a_command_gets_exactly_its_environment_and_ancestry() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let env = start_with(
        "p",
        &["/usr/bin/env"],
        &json!({"env": {"A": "1", "CODEX_EXEC_SERVER_NOISE_AUTH_TOKEN": "t"}}),
    );
    client.call("process/start", env).await.unwrap();
    let events = client.events("p").await;
    let text = written(&events);
    let names: Vec<_> = text.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(
        names,
        ["A", "TRACEPARENT"],
        "a difference: a command can hang its own spans below its call"
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn a_policy_inherits_filters_and_is_overlaid() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let policy = |more: Value| {
        let mut policy = json!({"inherit": "all", "ignoreDefaultExcludes": true, "exclude": [], "set": {}, "includeOnly": []});
        for (name, value) in more.as_object().unwrap() {
            policy[name] = value.clone();
        }
        json!({"env": {"OVERLAY": "1"}, "envPolicy": policy})
    };
    let mut names = async |process: &str, more: Value| {
        let env = start_with(process, &["/usr/bin/env"], &policy(more));
        client.call("process/start", env).await.unwrap();
        let text = written(&client.events(process).await);
        text.lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name.to_owned())
            .collect::<Vec<_>>()
    };
    let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
    let all = names("a", json!({"set": {"SET": "1"}})).await;
    assert!(has(&all, "PATH") && has(&all, "SET") && has(&all, "OVERLAY"));
    let none = names("b", json!({"inherit": "none"})).await;
    assert!(!has(&none, "PATH") && has(&none, "OVERLAY"));
    let excluded = names("c", json!({"exclude": ["p?th"]})).await;
    assert!(!has(&excluded, "PATH"), "whatever the case of its letters");
    let only = names(
        "d",
        json!({"includeOnly": ["P*"], "set": {"SET": "1", "PSET": "2"}}),
    )
    .await;
    assert!(has(&only, "PATH") && has(&only, "PSET") && !has(&only, "SET") && has(&only, "OVERLAY"));
    executor.shutdown().await;
}

#[tokio::test]
async fn a_terminal_has_24_lines_of_80_and_one_output() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let tty = start_with(
        "t",
        &["/bin/sh", "-c", "stty size; test -t 0 && echo term=$TERM."],
        &json!({"tty": true}),
    );
    client.call("process/start", tty).await.unwrap();
    let events = client.events("t").await;
    let text = written(&events);
    assert!(text.contains("24 80"), "{text}");
    // A difference: on a terminal a command is told that it is on one, unless it is told so already.
    assert!(text.contains("term=xterm-256color."), "{text}");
    let streams = events.iter().filter(|event| event["method"] == "process/output");
    assert!(
        streams
            .into_iter()
            .all(|event| event["params"]["stream"] == "pty")
    );
    executor.shutdown().await;
}

#[tokio::test]
async fn standard_input_is_empty_unless_it_is_asked_for_and_the_leader_has_a_session_of_its_own() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let script = r#"cat; set -- $(cut -d" " -f1,5,6 /proc/self/stat); ps -o sid= -p $$ 2>/dev/null; echo $$"#;
    client.call("process/start", shell("p", script)).await.unwrap();
    let events = client.events("p").await;
    assert_eq!(exit_code(&events), 0, "cat came to its end at once");
    executor.shutdown().await;
}

#[tokio::test]
async fn what_a_background_child_writes_comes_between_the_exit_and_the_end() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let dir = tempfile::tempdir().unwrap();
    // It goes with the directory, so that nothing waits for it when this has failed.
    let gate = dir.path().join("gate");
    std::fs::write(&gate, "").unwrap();
    let script = format!(
        "(while [ -e '{}' ]; do sleep 0.01; done; echo late) & exit 5",
        gate.display()
    );
    client.call("process/start", shell("p", &script)).await.unwrap();
    assert_eq!(client.event("p").await["method"], "process/exited");
    std::fs::remove_file(&gate).unwrap();
    let methods: Vec<_> = client
        .events("p")
        .await
        .iter()
        .map(|event| event["method"].clone())
        .collect();
    assert_eq!(methods, ["process/output", "process/closed"]);
    executor.shutdown().await;
}

#[tokio::test]
async fn twenty_megabytes_come_whole_and_in_order() {
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    client
        .call("process/start", shell("p", "seq 1 2800000"))
        .await
        .unwrap();
    let events = client.events("p").await;
    assert_eq!(numbers(&events), (1..=events.len() as u64).collect::<Vec<_>>());
    let text = written(&events);
    assert!(text.len() > 20_000_000);
    assert!(
        text.lines()
            .map(|line| line.parse::<u64>().unwrap())
            .eq(1..=2_800_000)
    );
    let chunks = events.iter().filter(|event| event["method"] == "process/output");
    let longest = chunks
        .map(|event| event["params"]["chunk"].as_str().unwrap().len())
        .max()
        .unwrap();
    assert!(longest <= 1024 * 1024 / 3 * 4, "a client takes 1 MiB: {longest}");
    executor.shutdown().await;
}

#[tokio::test]
async fn what_asks_for_a_sandbox_is_refused_unless_the_operator_said_otherwise_and_then_told() {
    let sandbox =
        json!({"sandbox": {"permissions": {"type": "disabled"}, "windowsSandboxLevel": "disabled"}});
    let executor = executor().await;
    let (mut client, _) = Client::begin(&executor).await;
    let refusal = client
        .call("process/start", start_with("p", &["true"], &sandbox))
        .await
        .unwrap_err();
    assert!(
        refusal.code == -32603 && refusal.message.contains("--sandbox=off"),
        "{refusal:?}"
    );
    assert!(
        client.call("process/start", start("p", &["true"])).await.is_ok(),
        "the name is free"
    );
    executor.shutdown().await;

    let executor = executor_with(options().sandbox(Sandbox::Off)).await;
    let (mut client, _) = Client::begin(&executor).await;
    for (name, more) in [("a", sandbox), ("b", json!({}))] {
        let started = client
            .call("process/start", start_with(name, &["true"], &more))
            .await
            .unwrap();
        assert_eq!(
            started,
            json!({"processId": name, "sandboxType": "none", "sandbox": "off"})
        );
    }
    executor.shutdown().await;
}
