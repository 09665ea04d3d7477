//! The environment as a carrier: what `dwell run` is started under, and what its command is told.

use std::process::Output;

use dwell_messages::Role;

use crate::roles::{System, dwell};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// `dwell run`, with options of its own before the command.
fn run(system: &System, environment: &[(&str, &str)], options: &[&str], script: &str) -> Output {
    let output = dwell(&system.harness_home())
        .envs(environment.iter().copied())
        .args(["run", "--relay", system.relay.ready["address"].as_str().unwrap()])
        .args([
            "--executor",
            system.executor.ready["public_key"].as_str().unwrap(),
        ])
        .args(options)
        .args(["--", "sh", "-c", script])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// What the command finds of the four variables.
const TELL: &str = "echo \"w3c=$TRACEPARENT state=$TRACESTATE jaeger=$UBER_TRACE_ID baggage=$BAGGAGE\"";

#[test]
fn an_inherited_parent_is_the_calls_and_the_command_is_below_it() {
    let system = System::start(&[]);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let environment = [
        ("TRACEPARENT", parent.as_str()),
        ("TRACESTATE", "vendor=1"),
        ("BAGGAGE", "tenant=blue,secret=hidden"),
    ];
    let told = text(&run(&system, &environment, &[], TELL).stdout);
    let picture = system.last_trace();
    let call = picture.one(Role::Harness, "call");
    assert_eq!(call.trace().to_string(), TRACE);
    assert_eq!(dwell_messages::SpanId(call.parent).to_string(), SPAN);
    assert!(call.attribute("dwell.parent.remote").is_some());
    let process = picture.one(Role::Executor, "process").id();
    assert_eq!(
        told,
        format!("w3c=00-{TRACE}-{process}-01 state=vendor=1 jaeger= baggage="),
        "and no baggage that nobody asked for"
    );

    let told = text(&run(&system, &environment, &["--baggage", "tenant"], TELL).stdout);
    assert!(told.ends_with("baggage=tenant=blue"), "{told}");
}

#[test]
fn jaegers_parent_is_taken_and_given_where_it_is_spoken() {
    let system = System::start(&[("OTEL_PROPAGATORS", "jaeger")]);
    let field = format!("{TRACE}:{SPAN}:0:1");
    let environment = [("OTEL_PROPAGATORS", "jaeger"), ("UBER_TRACE_ID", field.as_str())];
    let told = text(&run(&system, &environment, &[], TELL).stdout);
    let picture = system.last_trace();
    let call = picture.one(Role::Harness, "call");
    assert_eq!(dwell_messages::SpanId(call.parent).to_string(), SPAN);
    let process = picture.one(Role::Executor, "process").id();
    assert_eq!(told, format!("w3c= state= jaeger={TRACE}:{process}:0:1 baggage="));
    // Not where it is not.
    run(&system, &environment[1..], &[], TELL);
    assert_eq!(system.last_trace().one(Role::Harness, "call").parent, [0; 8]);
}

#[test]
fn a_malformed_parent_begins_a_new_trace() {
    let system = System::start(&[]);
    let zeroes = format!("00-{}-{SPAN}-01", "0".repeat(32));
    let version = format!("ff-{TRACE}-{SPAN}-01");
    for malformed in ["nonsense", zeroes.as_str(), version.as_str()] {
        let output = run(&system, &[("TRACEPARENT", malformed)], &[], TELL);
        let warning = text(&output.stderr);
        assert!(warning.contains("TRACEPARENT is malformed"), "{warning}");
        let call = system.last_trace();
        let call = call.one(Role::Harness, "call");
        assert_eq!(call.parent, [0; 8]);
        assert_ne!(call.trace().to_string(), TRACE);
        assert!(text(&output.stdout).starts_with(&format!("w3c=00-{}-", call.trace())));
    }
}

/// Whoever started the executor is not the parent of what clients run there.
#[test]
fn the_executors_own_ancestry_is_no_commands() {
    let parent = format!("00-{}-{SPAN}-01", "d".repeat(32));
    let own = [
        ("TRACEPARENT", parent.as_str()),
        ("TRACESTATE", "of=executor"),
        ("BAGGAGE", "of=executor"),
        ("UBER_TRACE_ID", "1:2:0:1"),
        ("CONTROL", "inherited"),
        ("OTEL_PROPAGATORS", "none"),
    ];
    let system = System::start(&own);
    let script = format!("{TELL}; echo \"$CONTROL\"");
    let told = text(&run(&system, &[], &["--inherit", "all"], &script).stdout);
    assert_eq!(told, "w3c= state= jaeger= baggage=\ninherited");
}

#[test]
fn a_setting_of_unknown_propagators_is_one_warning_and_nothing_fails() {
    let system = System::start(&[]);
    let output = run(&system, &[("OTEL_PROPAGATORS", "b3,xray,jaeger")], &[], TELL);
    let warning = text(&output.stderr);
    assert_eq!(warning.matches("OTEL_PROPAGATORS").count(), 1, "{warning}");
}

#[test]
fn a_sampler_of_the_environment_is_honoured() {
    let system = System::start(&[]);
    run(&system, &[], &[], TELL);
    let before = system.last_trace().trace.trace_id;
    let told = text(&run(&system, &[("OTEL_TRACES_SAMPLER", "always_off")], &[], TELL).stdout);
    assert!(told.contains("-00 state="), "{told}");
    assert_eq!(
        system.last_trace().trace.trace_id,
        before,
        "nothing was traced since"
    );
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let environment = [
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
        ("TRACEPARENT", parent.as_str()),
    ];
    run(&system, &environment, &[], TELL);
    assert_eq!(system.last_trace().trace.trace_id.to_string(), TRACE);
}

#[test]
fn the_console_is_an_exporter_and_a_disabled_sdk_has_none() {
    let system = System::start(&[]);
    let console = ("OTEL_TRACES_EXPORTER", "console");
    let lines = |output: &Output| {
        let text = text(&output.stderr);
        let lines = text.lines().filter(|line| line.starts_with("span harness "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let output = run(&system, &[console], &[], "true");
    let trace = system.last_trace();
    let own = trace
        .trace
        .spans
        .iter()
        .filter(|(role, _)| *role == Role::Harness);
    let (own, lines_of) = (own.count(), lines(&output));
    assert_eq!(
        lines_of.len(),
        own,
        "each of its own spans is a line: {lines_of:#?}"
    );
    assert!(
        lines_of.iter().any(|line| line.contains("internal \"call\"")),
        "{lines_of:#?}"
    );
    let output = run(&system, &[console, ("OTEL_SDK_DISABLED", "true")], &[], "true");
    assert_eq!(lines(&output), Vec::<String>::new());
    assert_ne!(
        system.last_trace().trace.trace_id,
        trace.trace.trace_id,
        "the local file is dwell's own and stays"
    );
}
