//! `dwell run`.

use std::io::IsTerminal as _;

use dwell_actors::config::{EXECUTOR_PORT_DEFAULT, Home, RELAY_PORT_DEFAULT};
use dwell_messages::process::Ending;
use dwell_messages::{ExitStatus, PublicKey, Role, TraceContext};
use dwell_relay::StaticKeypair;
use serde_json::{Value, json};

use super::address::with_port;
use super::args::{Run, Tty};
use super::exit;
use super::failure::Failure;
use super::identity;
use super::output;
use super::pump::{self, Outcome, Sink};
use super::roles::{CommandSpec, ConnectSpec, Route, Session};
use super::signals::Stop;
use super::stdin;
use super::terminal::{self, RawMode};
use super::trust;

pub(crate) async fn run(ask: Run, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let home = identity::home()?;
    let (executor, route) = target(&ask, &home)?;
    let own = identity::load_or_make(&home, Role::Harness)?;
    if own.created {
        output::note(&format!("dwell: made this machine's key {}", own.pair.public()));
    }
    let session = stop
        .or(Session::connect(connect_spec(
            own.pair, route, executor, &ask, &home,
        )?))
        .await?;
    let tty = match ask.tty {
        Tty::Auto => !json && terminal::is_interactive(),
        Tty::Always => true,
        Tty::Never => false,
    };
    let input = if tty || stdin::is_forwarded() {
        Some(stdin::read()?)
    } else {
        None
    };
    let (timings, timeout, sink) = (ask.timings, ask.timeout, Sink::new(json)?);
    let command = command_spec(ask, input.is_some(), tty);
    let raw = if tty && std::io::stdin().is_terminal() {
        Some(RawMode::enter()?)
    } else {
        None
    };
    let outcome = pump::pump(session.exec(command), input, sink, &mut stop, raw.is_some()).await;
    // Before anything else is printed.
    drop(raw);
    // Also after a failure: its trace is what explains it.
    stop.orderly(session.shutdown()).await;
    let mut outcome = outcome?;
    if let (Some(Ending::Deadline), Some(timeout)) = (outcome.ended.ending, timeout) {
        outcome.exit = exit::TIMED_OUT;
        output::note(&format!(
            "dwell: the command was terminated after {} s, with all it had started: give it more with --timeout, or \
             look where its time went with `dwell trace`",
            timeout.as_secs_f64()
        ));
    }
    if json {
        output::print_json(&to_json(&outcome));
    } else if timings {
        for line in outcome.ended.timings_text.lines() {
            output::note(line);
        }
    }
    Ok(outcome.exit)
}

/// Which executor, and how it is reached. A name stands before a key; an address that is given, before a known one.
fn target(ask: &Run, home: &Home) -> Result<(PublicKey, Route), Failure> {
    let known = ask.on.as_ref().map(|name| trust::named(home, name)).transpose()?;
    let executor = known
        .as_ref()
        .map(|known| known.key)
        .or(ask.executor)
        .ok_or_else(|| {
            Failure::new("usage", "no executor is named").advise("name it with --on NAME or --executor KEY")
        })?;
    let route = match (&ask.direct, &ask.relay, known.and_then(|known| known.route)) {
        (Some(address), _, _) => with_port(address, EXECUTOR_PORT_DEFAULT).map(Route::Direct),
        (None, Some(address), _) => with_port(address, RELAY_PORT_DEFAULT).map(Route::Relay),
        (None, None, Some(known)) => trust::route(&known),
        (None, None, None) => with_port("127.0.0.1", RELAY_PORT_DEFAULT).map(Route::Relay),
    }?;
    Ok((executor, route))
}

fn connect_spec(
    identity: StaticKeypair,
    route: Route,
    executor: PublicKey,
    ask: &Run,
    home: &Home,
) -> Result<ConnectSpec, Failure> {
    Ok(ConnectSpec {
        identity,
        route,
        trust: ask.trusting.trust()?,
        executor,
        authorization: Vec::new(),
        resume_for: ask.resume_for,
        token: ask.relay_token.clone().map(String::into_bytes),
        traces: home.traces_dir(),
        store: home.runs_db(),
    })
}

fn command_spec(ask: Run, stdin: bool, tty: bool) -> CommandSpec {
    CommandSpec {
        argv: ask.command,
        cwd: ask.cwd,
        variables: ask.variables,
        inherit: ask.inherit,
        patterns: [ask.env_include, ask.env_exclude],
        secrets: ask.env_secrets,
        timeout: ask.timeout,
        grace: ask.grace,
        limits: ask.limits,
        detach: ask.detach,
        stdin: stdin && !tty,
        terminal: tty.then(|| {
            let (rows, columns) = terminal::size();
            (rows, columns, terminal::name())
        }),
        parent: inherited(|name| std::env::var(name).ok()),
    }
}

/// The span that whoever started dwell has for this; a malformed one is passed over.
fn inherited(lookup: impl Fn(&str) -> Option<String>) -> Option<TraceContext> {
    let parent = lookup("TRACEPARENT").filter(|text| !text.is_empty())?;
    let context = TraceContext::from_traceparent(&parent, lookup("TRACESTATE").as_deref());
    if context.is_none() {
        tracing::warn!("TRACEPARENT is malformed: a new trace begins");
    }
    context
}

/// A finished command for programs.
pub(crate) fn to_json(outcome: &Outcome) -> Value {
    let ended = &outcome.ended;
    let [stdout, stderr] = &*outcome.output;
    json!({
        "status": status_json(ended.status),
        "exit_code": outcome.exit,
        "ending": ended.ending.map(ending_text),
        "usage": ended.usage,
        "holders": ended.holders,
        "stdout": stdout.to_json(),
        "stderr": stderr.to_json(),
        "timings": ended.timings,
        "trace_id": ended.trace_id.to_string(),
    })
}

fn ending_text(ending: Ending) -> &'static str {
    match ending {
        Ending::Deadline => "deadline",
        Ending::Terminated => "terminated",
        Ending::Session => "session",
    }
}

fn status_json(status: ExitStatus) -> Value {
    match status {
        ExitStatus::Code(code) => json!({ "code": code, "signal": null }),
        ExitStatus::Signal(signal) => json!({ "code": null, "signal": signal }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::capture::Capture;
    use super::super::roles::Ended;
    use super::*;

    #[test]
    fn the_json_of_a_run_has_one_shape() {
        let mut output: Box<[Capture; 2]> = Box::default();
        output[0].push(b"out\n");
        let ended = Ended {
            status: ExitStatus::Signal(9),
            ending: Some(Ending::Deadline),
            usage: None,
            holders: 2,
            timings: json!({ "total_us": 7 }),
            timings_text: String::new(),
            trace_id: dwell_messages::TraceId([0xab; 16]),
        };
        let outcome = Outcome {
            ended,
            output,
            exit: 137,
        };
        let stream =
            |text: &str| json!({ "text": text, "base64": null, "omitted_at_byte": null, "omitted_bytes": 0 });
        assert_eq!(
            to_json(&outcome),
            json!({
                "status": { "code": null, "signal": 9 },
                "exit_code": 137,
                "ending": "deadline",
                "usage": null,
                "holders": 2,
                "stdout": stream("out\n"),
                "stderr": stream(""),
                "timings": { "total_us": 7 },
                "trace_id": "ab".repeat(16),
            })
        );
    }

    #[test]
    fn an_inherited_context_is_the_parent_and_a_malformed_one_is_none() {
        let parent = format!("00-{}-{}-01", "ab".repeat(16), "cd".repeat(8));
        let with = |text: &str| inherited(|name| (name == "TRACEPARENT").then(|| text.to_owned()));
        assert_eq!(
            with(&parent).map(|context| context.to_traceparent()),
            Some(parent)
        );
        assert_eq!(with("00-nonsense"), None);
        assert_eq!(with(""), None);
        assert_eq!(inherited(|_| None), None);
    }
}
