//! `dwell turn`: a whole first turn of an agent. Connects, learns where it is, asks a model, runs what that calls for,
//! and says where the time went.

mod agent;
mod approval;
mod learn;
mod shell;
mod summary;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use dwell_actors::config::Home;
use dwell_actors::harness::Turn as Span;
use dwell_actors::responses::mock::{MockModel, first_turn};
use dwell_actors::responses::{
    ApiKey, Deadlines, ENDPOINT_DEFAULT, Endpoint, KEY_VARIABLE, KeyError, Responses, ResponsesBuilder,
};
use dwell_actors::workspace::WorkspaceOptions;
use dwell_messages::{PublicKey, Role};
use dwell_relay::driver::tls::Trust;
use tempfile::TempDir;

use self::agent::{Agent, Told};
use self::approval::Approval;
use self::learn::Learned;
use super::args::{OptionalReach, Trusting};
use super::failure::Failure;
use super::fleet::{self, Fleet};
use super::identity;
use super::oversight::Inspected;
use super::roles::{ConnectSpec, Route, Session};
use super::run;
use super::signals::Stop;
use super::trace;

/// The model that is asked unless another is named.
const MODEL_DEFAULT: &str = "gpt-5";
/// What is asked with `--mock` and nothing else.
const MOCK_PROMPT: &str = "What is in this directory?";
/// What the mock wants run.
const MOCK_COMMAND: [&str; 2] = ["ls", "-1A"];
/// How often a model is asked in one turn.
const ROUNDS_DEFAULT: u32 = 8;

/// What `dwell turn --help` ends with.
pub(crate) const EXAMPLES: &str = "\
Examples:
  dwell turn --mock                             all of it on this machine: no network, no key
  OPENAI_API_KEY=… dwell turn 'How big is this repository?'
  dwell turn --on build --yes 'Do the tests pass?'

Without --on or --executor, a relay and an executor are started on this machine for as long as the turn takes. Before a
command is run it is shown and asked about, unless --yes is given; only the mock's is not.";

#[derive(Args, Debug)]
pub(crate) struct Turn {
    /// Ask a server on this machine that plays a model: it understands nothing, and shows everything.
    #[arg(long, conflicts_with_all = ["endpoint", "model"])]
    pub(crate) mock: bool,
    /// Which model to ask.
    #[arg(long, value_name = "NAME", env = "DWELL_MODEL", default_value = MODEL_DEFAULT)]
    pub(crate) model: String,
    /// Where models are asked, by the Responses API.
    #[arg(long, value_name = "URL", env = "DWELL_MODEL_ENDPOINT", default_value = ENDPOINT_DEFAULT, value_parser = endpoint)]
    pub(crate) endpoint: Endpoint,
    /// The variable that has the key for it. Never the key itself, which `ps` would show.
    #[arg(long, value_name = "VARIABLE", default_value = KEY_VARIABLE)]
    pub(crate) key_env: String,
    /// How often the model is asked at most.
    #[arg(long, value_name = "N", default_value_t = ROUNDS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Give the model up when one answer takes longer than this many seconds.
    #[arg(long, value_name = "SECS", value_parser = super::args::seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Run what the model calls for without asking first.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// The directory it is about, on the executor's machine [default: this one, where the executor is started here].
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) reach: OptionalReach,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
    /// What to ask.
    #[arg(
        value_name = "PROMPT", required_unless_present = "mock",
        value_parser = clap::builder::NonEmptyStringValueParser::new(),
    )]
    pub(crate) prompt: Option<String>,
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse()
        .map_err(|error: dwell_actors::responses::EndpointError| error.to_string())
}

pub(crate) async fn turn(ask: Turn, json: bool) -> Result<u8, Failure> {
    let mut stop = Stop::listen()?;
    // Before anything is started: a key that is missing is told at once.
    let (model, mock) = model(&ask).await?;
    let prompt = ask.prompt.clone().unwrap_or_else(|| MOCK_PROMPT.to_owned());
    let approval = Approval::of(ask.yes || ask.mock);
    if ask.reach.is_named() {
        let home = identity::home()?;
        let (executor, route) = run::target(&ask.reach.clone().named(ask.trusting.clone()), &home)?;
        let place = Place {
            home,
            executor,
            route,
            trust: ask.trusting.trust()?,
            token: ask.reach.relay_token.clone().map(String::into_bytes),
            cwd: ask.cwd.clone(),
        };
        return drive(&ask, &prompt, model, approval, place, json, &mut stop).await;
    }
    let dir = TempDir::with_prefix("dwell-turn-")
        .map_err(|error| Failure::because("turn", "no temporary directory can be made", &error))?;
    let mut fleet = Fleet::default().without(&ask.key_env);
    let outcome = match stop
        .or(started(&mut fleet, dir.path(), ask.cwd.clone(), json))
        .await
    {
        Ok(place) => drive(&ask, &prompt, model, approval, place, json, &mut stop).await,
        Err(failure) => Err(failure),
    };
    fleet.end().await;
    drop(mock);
    if let Err(error) = dir.close() {
        tracing::warn!(%error, "the turn's temporary directory is still there");
    }
    outcome
}

/// The server to ask, and the one of this machine if it is that.
async fn model(ask: &Turn) -> Result<(ResponsesBuilder, Option<MockModel>), Failure> {
    if ask.mock {
        let mock = MockModel::start(first_turn(&MOCK_COMMAND))
            .await
            .map_err(|error| Failure::because("mock", "the mock cannot listen on loopback", &error))?;
        return Ok((Responses::builder(mock.endpoint()), Some(mock)));
    }
    let mut builder = Responses::builder(ask.endpoint.clone()).trust(ask.trusting.trust()?);
    if let Some(timeout) = ask.timeout {
        builder = builder.deadlines(Deadlines {
            idle: timeout,
            total: timeout,
            connect: timeout.min(Deadlines::default().connect),
        });
    }
    match ApiKey::from_env(&ask.key_env) {
        Ok(key) => Ok((builder.key(key), None)),
        // A server of this machine may want none.
        Err(KeyError::Missing(_)) if ask.endpoint.is_loopback() => Ok((builder, None)),
        Err(error) => Err(Failure::of("no_key", &error)
            .advise(format!(
                "export {}=…, or name another variable with --key-env",
                ask.key_env
            ))
            .advise("`dwell turn --mock` needs no key and no network")),
    }
}

/// An executor, and how it is reached.
struct Place {
    home: Home,
    executor: PublicKey,
    route: Route,
    trust: Trust,
    token: Option<Vec<u8>>,
    cwd: Option<PathBuf>,
}

async fn started(fleet: &mut Fleet, dir: &Path, cwd: Option<PathBuf>, json: bool) -> Result<Place, Failure> {
    let home = Home::at(&dir.join("harness"));
    let client = identity::load_or_make(&home, Role::Harness)?.pair.public();
    let (relay, executor) = fleet.serve(dir, &client).await?;
    let address = relay
        .address
        .clone()
        .ok_or_else(|| Failure::new("turn", "the relay does not say where it listens"))?;
    if !json {
        fleet::introduce(&relay, &executor, &client);
    }
    let here = || std::env::current_dir();
    let cwd = match cwd {
        Some(cwd) => cwd,
        None => {
            here().map_err(|error| Failure::because("turn", "the working directory is not known", &error))?
        }
    };
    Ok(Place {
        home,
        executor: executor.public_key,
        route: Route::Relay(address),
        trust: Trust::default(),
        token: None,
        cwd: Some(cwd),
    })
}

async fn drive(
    ask: &Turn,
    prompt: &str,
    model: ResponsesBuilder,
    approval: Approval,
    place: Place,
    json: bool,
    stop: &mut Stop,
) -> Result<u8, Failure> {
    let own = identity::load_or_make(&place.home, Role::Harness)?;
    let (begun, span) = (Instant::now(), Span::begin(true));
    // It goes with the first record, right behind the executor's proof.
    let about = WorkspaceOptions::new().parent(span.context().clone());
    let about = match &place.cwd {
        Some(cwd) => about.cwd(cwd),
        None => about,
    };
    let session = stop
        .or(Session::connect_about(
            ConnectSpec {
                identity: own.pair,
                route: place.route,
                trust: place.trust,
                executor: place.executor,
                authorization: Vec::new(),
                resume_for: None,
                token: place.token,
                traces: place.home.traces_dir(),
                store: place.home.runs_db(),
                oversight: Inspected::default().oversight(&place.home),
                slower_than: None,
            },
            about,
            span.context().clone(),
        ))
        .await?;
    let connected = begun.elapsed();
    let guard = session.turn(span);
    let context = guard.turn().context().clone();
    let trace_id = context.trace_id;
    let model = session.model(model)?;
    // The way to the model is made while the workspace is on its way.
    model.warm(context.clone());
    let learning = Instant::now();
    let (loaded, problem) = match stop.or(session.workspace()).await {
        Ok(loaded) => (loaded, None),
        Err(failure) if failure.kind() == "interrupted" => return Err(failure),
        // An agent without its instructions is told so, and goes on.
        Err(failure) => (None, Some(failure.message().to_owned())),
    };
    let learned = Learned {
        took: learning.elapsed(),
        problem,
        ..Learned::of(session.environment(), loaded.as_ref())
    };
    let mut agent = Agent {
        session: &session,
        model: &model,
        name: if ask.mock { "mock" } else { &ask.model },
        context,
        cwd: place.cwd,
        rounds: ask.rounds,
        approval,
        narrate: !json,
        told: Told {
            connected,
            learned,
            ..Told::default()
        },
    };
    let outcome = agent.turn(prompt, stop).await;
    let mut told = agent.told;
    told.total = begun.elapsed();
    match &outcome {
        Ok(()) => guard.finish(),
        Err(failure) => guard.fail(failure.kind()),
    }
    drop(model);
    // Also after a failure: its trace is what explains it.
    stop.orderly(session.shutdown()).await;
    outcome?;
    let spans = trace::load(&place.home.traces_dir(), Some(trace_id))?;
    summary::print(&told, trace_id, spans.as_ref(), json);
    Ok(0)
}
