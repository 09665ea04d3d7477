//! `dwell run`.

use std::io::IsTerminal as _;

use dwell_actors::config::{EXECUTOR_PORT_DEFAULT, Home, RELAY_PORT_DEFAULT};
use dwell_actors::propagation::{AllowList, Extracted, Propagators, environment_name};
use dwell_messages::process::Ending;
use dwell_messages::{ExitStatus, PublicKey, Role};
use dwell_relay::StaticKeypair;
use serde_json::{Value, json};

use super::address::with_port;
use super::args::{Reach, Run, Tty};
use super::exit;
use super::failure::Failure;
use super::identity;
use super::output;
use super::pump::{self, OnStop, Outcome, Pumped, Sink};
use super::roles::{CommandSpec, ConnectSpec, Route, Session};
use super::sessions::Id;
use super::signals::Stop;
use super::stdin;
use super::terminal::{self, RawMode};
use super::trust;

pub(crate) async fn run(ask: Run, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let home = identity::home()?;
    let (executor, route) = match &ask.reach.environment {
        // Nobody there has a key.
        Some(url) => (PublicKey([0; 32]), Route::Environment(url.clone())),
        None => target(&ask.reach, &home)?,
    };
    let own = identity::load_or_make(&home, Role::Harness)?;
    if own.created {
        output::note(&format!("dwell: made this machine's key {}", own.pair.public()));
    }
    let session = stop
        .or(Session::connect(connect_spec(
            own.pair, route, executor, &ask, &home,
        )?))
        .await?;
    if ask.detach {
        return detach(session, ask, &mut stop, json).await;
    }
    let tty = match ask.tty {
        Tty::Auto => !json && terminal::is_interactive(),
        Tty::Always => true,
        Tty::Never => false,
    };
    // What has nothing in it needs no end.
    let is_foreign = ask.reach.environment.is_some();
    let forwards = stdin::is_forwarded() && !(is_foreign && stdin::is_null());
    if is_foreign && !tty && forwards {
        // It would wait for ever for an end that nobody can tell it of.
        stop.orderly(session.shutdown()).await;
        return Err(Failure::new(
            "refused",
            "a server of the JSON dialect cannot be told where a command's input ends",
        )
        .advise("give it none: </dev/null"));
    }
    let input = if tty || forwards {
        Some(stdin::read()?)
    } else {
        None
    };
    let (timings, timeout, sink) = (ask.timings, ask.timeout, Sink::new(json)?);
    let program = ask
        .command
        .first()
        .map(|program| program.to_string_lossy().into_owned());
    let command = command_spec(ask, input.is_some(), tty);
    let raw = if tty && std::io::stdin().is_terminal() {
        Some(RawMode::enter()?)
    } else {
        None
    };
    let how = (raw.is_some(), OnStop::Terminate);
    let outcome = pump::pump(session.exec(command), input, sink, &mut stop, how).await;
    let outcome = match outcome {
        Ok(Pumped::Ended(outcome)) => Ok(*outcome),
        Ok(Pumped::Left(running)) => {
            drop(running);
            Err(Failure::interrupted().advise("the command was left, and is told to end"))
        }
        Err(failure) if failure.is_about_the_command() => {
            Err(failure.about(program.as_deref().unwrap_or_default()))
        }
        Err(failure) => Err(failure),
    };
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

/// Starts the command, says how it is found again, and leaves.
async fn detach(session: Session, ask: Run, stop: &mut Stop, json: bool) -> Result<u8, Failure> {
    if !session.detaches() {
        let refused = Failure::new(
            "refused",
            "this executor ends what it runs with its client's link",
        )
        .advise("its operator lets no session outlive its link: stay connected, or ask for that");
        stop.orderly(session.shutdown()).await;
        return Err(refused);
    }
    let (stdin, tty) = (ask.stdin, ask.tty == Tty::Always);
    let started = stop.or(session.start(command_spec(ask, stdin, tty))).await;
    let id = started.as_ref().map(|started| {
        let id = Id::new(session.epoch(), session.number(), started.process);
        (id, started.pid)
    });
    match id {
        Ok((id, pid)) => {
            if json {
                output::print_json(&json!({ "id": id.to_string(), "pid": pid }));
            } else {
                output::print(&format!("{id}\n"));
            }
            stop.orderly(session.leave()).await;
            Ok(0)
        }
        Err(_) => {
            stop.orderly(session.shutdown()).await;
            started.map(|_| 0)
        }
    }
}

/// Which executor, and how it is reached. A name stands before a key; an address that is given, before a known one.
pub(crate) fn target(ask: &Reach, home: &Home) -> Result<(PublicKey, Route), Failure> {
    if ask.environment.is_some() {
        return Err(Failure::new(
            "usage",
            "only `dwell run` can use an environment that is no executor",
        )
        .advise("leave --environment out, and name an executor with --on NAME or --executor KEY"));
    }
    let known = ask.on.as_ref().map(|name| trust::named(home, name)).transpose()?;
    let executor = known
        .as_ref()
        .map(|known| known.key)
        .or(ask.executor)
        .ok_or_else(|| {
            Failure::new("usage", "no executor is named").advise(
                "name it with --on NAME, as `dwell trust` has it, or with --executor KEY or $DWELL_EXECUTOR",
            )
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
        trust: ask.reach.trusting.trust()?,
        executor,
        authorization: Vec::new(),
        resume_for: ask.resume_for,
        token: ask.reach.relay_token.clone().map(String::into_bytes),
        traces: home.traces_dir(),
        oversight: ask.inspected.oversight(home),
        slower_than: ask.slower_than,
        store: home.runs_db(),
    })
}

fn command_spec(ask: Run, stdin: bool, tty: bool) -> CommandSpec {
    let inherited = inherited(
        Propagators::of_this_process(),
        &AllowList::names(ask.baggage),
        |name| std::env::var(name).ok(),
    );
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
        outlive: ask.outlive_executor,
        stdin: stdin && !tty,
        terminal: tty.then(|| {
            let (rows, columns) = terminal::size();
            (rows, columns, terminal::name())
        }),
        parent: inherited.context,
        baggage: inherited.baggage,
    }
}

/// The span that whoever started dwell has for this, and what came with it; what is malformed is passed over.
fn inherited(
    propagators: &Propagators,
    allowed: &AllowList,
    lookup: impl Fn(&str) -> Option<String>,
) -> Extracted {
    let inherited = propagators.extract(|field| lookup(&environment_name(field)), allowed);
    for field in &inherited.malformed {
        let name = environment_name(field);
        tracing::warn!("{name} is malformed: what it says is passed over");
    }
    inherited
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

pub(crate) fn status_json(status: ExitStatus) -> Value {
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
        let with = |variable: &str, text: &str| {
            let lookup = |name: &str| (name == variable).then(|| text.to_owned());
            inherited(&Propagators::default(), &AllowList::nothing(), lookup)
        };
        let inherited = with("TRACEPARENT", &parent);
        assert_eq!(
            inherited.context.map(|context| context.to_traceparent()),
            Some(parent)
        );
        let nonsense = with("TRACEPARENT", "00-nonsense");
        assert_eq!(
            (nonsense.context, nonsense.malformed),
            (None, vec!["traceparent"])
        );
        assert_eq!(with("TRACEPARENT", ""), Extracted::default());
        // Not spoken unless asked for.
        assert_eq!(with("UBER_TRACE_ID", "1:2:0:1"), Extracted::default());
    }
}
