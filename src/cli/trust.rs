//! `dwell trust`.

use dwell_actors::config::{EXECUTOR_PORT_DEFAULT, Home, RELAY_PORT_DEFAULT};
use dwell_actors::keys::{
    ExecutorName, KeyError, KnownExecutor, KnownExecutors, KnownRoute, Pinned, TrustLine,
};
use dwell_actors::oversight::Oversight;
use dwell_messages::Role;
use dwell_relay::fingerprint;
use serde_json::json;

use super::address::with_port;
use super::args::Trust;
use super::failure::Failure;
use super::identity;
use super::output;
use super::roles::{ConnectSpec, Route, Session};
use super::signals::Stop;

/// What an executor that listens everywhere calls its own machine: see `address::as_dialled`.
const THIS_HOST: &str = "THIS_HOST";

pub(crate) async fn trust(ask: Trust, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    let line = TrustLine::parse(&ask.line).map_err(|problem| {
        Failure::new("trust", problem)
            .advise("copy the whole line that `dwell executor` printed, on that machine")
    })?;
    if let KnownRoute::Relay(address) | KnownRoute::Direct(address) = &line.route
        && address.contains(THIS_HOST)
    {
        return Err(
            Failure::new("trust", "the line does not say where the executor is").advise(format!(
                "put the executor's name or address in the place of {THIS_HOST}"
            )),
        );
    }
    let route = route(&line.route)?;
    let trust = ask.trusting.trust()?;
    let home = identity::home()?;
    // Before anything is pinned: a known_executors says that there was a key.
    let own = identity::load_or_make(&home, Role::Harness)?;
    let known = line.known(ask.name);
    let pinned = KnownExecutors::pin(&home.known_executors(), &known).map_err(|error| not_pinned(&error))?;
    let spec = ConnectSpec {
        identity: own.pair,
        route,
        trust,
        executor: known.key,
        authorization: line.code.authorization(),
        resume_for: None,
        token: ask.relay_token.map(String::into_bytes),
        traces: home.traces_dir(),
        oversight: Oversight::new(),
        slower_than: None,
        store: home.runs_db(),
    };
    let session = stop.or(Session::connect(spec)).await.map_err(|failure| {
        failure
            .advise(format!("{} is pinned all the same; once that is mended, give the same line again", known.name))
            .advise("a line is good for ten minutes and for one client: after that take a new one from `dwell executor`")
    })?;
    // A client that is listed by its first record has to send one.
    let answered = stop.or(session.answers()).await;
    stop.orderly(session.shutdown()).await;
    answered?;
    if json {
        output::print_json(&json!({
            "name": known.name.as_str(),
            "public_key": known.key.to_string(),
            "fingerprint": fingerprint(&known.key),
            "created": pinned == Pinned::New,
            "path": home.known_executors().to_string_lossy(),
        }));
    } else {
        output::print(&to_text(&known, &home));
    }
    Ok(0)
}

fn not_pinned(error: &KeyError) -> Failure {
    let kind = match error {
        KeyError::Changed { .. } => "executor_key_mismatch",
        _ => "trust",
    };
    Failure::of(kind, error)
}

/// Where a known executor is reached, with a port.
pub(crate) fn route(known: &KnownRoute) -> Result<Route, Failure> {
    match known {
        KnownRoute::Relay(address) => with_port(address, RELAY_PORT_DEFAULT).map(Route::Relay),
        KnownRoute::Direct(address) => with_port(address, EXECUTOR_PORT_DEFAULT).map(Route::Direct),
    }
}

/// The executor that is called this; says what is wrong with other lines.
pub(crate) fn named(home: &Home, name: &ExecutorName) -> Result<KnownExecutor, Failure> {
    let all = KnownExecutors::load(&home.known_executors()).map_err(|error| Failure::of("key", &error))?;
    let found = all.find(name.as_str()).map_err(|error| {
        let names: Vec<_> = all.entries().iter().map(|known| known.name.as_str()).collect();
        let failure = Failure::of("key", &error);
        if names.is_empty() {
            failure
        } else {
            failure.advise(format!("known are {}", names.join(", ")))
        }
    })?;
    for problem in all.problems() {
        output::note(&format!("dwell: {problem}"));
    }
    Ok(found.clone())
}

fn to_text(known: &KnownExecutor, home: &Home) -> String {
    format!(
        "{} is trusted, and serves this machine\nkey {}\nfingerprint {}\nfile {}\nnow:\n  dwell run --on {} -- CMD\n",
        known.name,
        known.key,
        fingerprint(&known.key),
        home.known_executors().display(),
        known.name,
    )
}
