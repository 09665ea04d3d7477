//! `dwell demo`: three processes on this machine, one command, and where its time went.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use dwell_actors::config::Home;
use dwell_actors::trace_file::Trace;
use dwell_actors::waterfall;
use dwell_messages::{ExitStatus, Role};
use dwell_relay::StaticKeypair;
use dwell_relay::driver::tls::Trust;
use serde_json::Value;
use tempfile::TempDir;

use super::args::Demo;
use super::failure::Failure;
use super::fleet::{self, Fleet};
use super::identity;
use super::output::{self, Surroundings};
use super::oversight::Inspected;
use super::pump::{self, OnStop, Outcome, Pumped, Sink};
use super::ready::Ready;
use super::roles::{CommandSpec, ConnectSpec, Route, Session};
use super::run;
use super::signals::Stop;
use super::trace;

/// The ten largest files below the working directory, by tools that every Linux has.
const DEFAULT_SCRIPT: &str =
    r#"find . -type f -not -path "./target/*" -not -path "./.git/*" -printf "%s %p\n" | sort -rn | head -10"#;

pub(crate) async fn demo(ask: Demo, json: bool) -> Result<u8, Failure> {
    // Before anything is started: from here on Ctrl-C ends the demo in order.
    let mut stop = Stop::listen()?;
    let place = TempDir::with_prefix("dwell-demo-")
        .map_err(|error| Failure::because("demo", "no temporary directory can be made", &error))?;
    let mut fleet = Fleet::default();
    let outcome = drive(ask, json, place.path(), &mut fleet, &mut stop).await;
    fleet.end().await;
    if let Err(error) = place.close() {
        tracing::warn!(%error, "the demo's temporary directory is still there");
    }
    outcome
}

async fn drive(
    ask: Demo,
    json: bool,
    place: &Path,
    fleet: &mut Fleet,
    stop: &mut Stop,
) -> Result<u8, Failure> {
    let home = Home::at(&place.join("harness"));
    let own = identity::load_or_make(&home, Role::Harness)?;
    let client = own.pair.public();
    let (relay, executor) = stop.or(fleet.serve(place, &client)).await?;
    let relay_address = relay
        .address
        .clone()
        .ok_or_else(|| Failure::new("demo", "the relay does not say where it listens"))?;
    if !json {
        fleet::introduce(&relay, &executor, &client);
    }
    let session = stop
        .or(Session::connect(connect_spec(
            own.pair,
            relay_address,
            &executor,
            &home,
        )))
        .await?;
    let sink = Sink::new(json)?;
    let command = command(ask)?;
    let cwd = command.cwd.clone().unwrap_or_default();
    let program = command
        .argv
        .first()
        .map(|name| name.to_string_lossy().into_owned());
    let conversation = session.converse(&home.threads_dir(), &cwd).await?;
    let running = session.exec(command);
    conversation
        .turn(&running, program.as_deref().unwrap_or("?"))
        .await;
    let how = (false, OnStop::Terminate);
    let pumped = pump::pump(running, None, sink, stop, how).await;
    let status = match &pumped {
        Ok(Pumped::Ended(outcome)) => status_line(outcome.ended.status),
        Ok(_) | Err(_) => "not known".to_owned(),
    };
    stop.orderly(async {
        conversation.end(&status).await;
        session.shutdown().await;
    })
    .await;
    let Pumped::Ended(outcome) = pumped? else {
        return Err(Failure::interrupted());
    };
    let spans = trace::load(&home.traces_dir(), Some(outcome.ended.trace_id))?;
    if json {
        output::print_json(&to_json(&outcome, spans.as_ref()));
    } else {
        conclude(&outcome, spans.as_ref());
    }
    Ok(outcome.exit)
}

fn connect_spec(identity: StaticKeypair, relay: String, executor: &Ready, home: &Home) -> ConnectSpec {
    ConnectSpec {
        resume_for: None,
        identity,
        route: Route::Relay(relay),
        trust: Trust::default(),
        executor: executor.public_key,
        authorization: Vec::new(),
        token: None,
        traces: home.traces_dir(),
        store: home.runs_db(),
        oversight: Inspected::default().oversight(home),
        slower_than: None,
    }
}

fn command(ask: Demo) -> Result<CommandSpec, Failure> {
    let argv = if ask.command.is_empty() {
        ["sh", "-c", DEFAULT_SCRIPT].map(OsString::from).to_vec()
    } else {
        ask.command
    };
    let cwd: PathBuf = std::env::current_dir()
        .map_err(|error| Failure::because("demo", "the working directory is not known", &error))?;
    Ok(CommandSpec {
        argv,
        cwd: Some(cwd),
        ..CommandSpec::default()
    })
}

fn conclude(outcome: &Outcome, spans: Option<&Trace>) {
    let mut text = format!("\n{}\n\n", status_line(outcome.ended.status));
    match spans {
        Some(spans) => text.push_str(&waterfall::render(
            spans,
            &Surroundings::of_stdout().options(None),
        )),
        // The account travels in the result and needs no trace.
        None => text.push_str(&format!("{}\n", outcome.ended.timings_text)),
    }
    output::print(&text);
}

/// How a command ended, in words.
pub(crate) fn status_line(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exit status {code}"),
        ExitStatus::Signal(signal) => format!("ended by signal {signal}"),
    }
}

fn to_json(outcome: &Outcome, spans: Option<&Trace>) -> Value {
    let mut value = run::to_json(outcome);
    value["waterfall"] = spans.map_or(Value::Null, waterfall::to_json);
    value
}
