//! The one place where the command line touches the role assemblies.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use dwell_actors::Address;
use dwell_actors::access::PairingOffer;
use dwell_actors::dialect::{Bridge, DialectError, DialectOptions};
use dwell_actors::executor::{DETACHES, Executor, ExecutorHandle};
use dwell_actors::harness::{
    CallTimings, Command, ConnectError, GRACE, Harness, Inherit, Observed, RESUME_FOR, Run, RunError,
    RunEvent, RunStdin, SessionInfo, StartedProcess, TakeUp, Target, Turn, TurnGuard,
};
use dwell_actors::keys::{AuthorizedClients, Grant, KeyError};
use dwell_actors::metadata_store::{Change, ThreadPatch};
use dwell_actors::oversight::Oversight;
use dwell_actors::propagation::Baggage;
use dwell_actors::relay_server::{Relay, RelayHandle};
use dwell_actors::responses::{Responses, ResponsesBuilder};
use dwell_actors::threads::{Append, Item, ItemKind, NewThread, Thread};
use dwell_actors::workspace::{WorkspaceLoaded, WorkspaceOptions};
use dwell_messages::process::{Ending, Limits, Usage};
use dwell_messages::session::EnvironmentInfo;
use dwell_messages::{ErrorCode, ExitStatus, PublicKey, Role, TraceContext, TraceId};
use dwell_relay::driver::tls::{Certificate, Trust};
use dwell_relay::{Admission, StaticKeypair};
use serde_json::Value;

use super::address::authority;
use super::args::{InheritName, Limit};
use super::exit;
use super::failure::Failure;
use super::ready::Ready;

/// How long after a command's time is over its end is waited for, beyond its grace.
const UNHEARD: Duration = Duration::from_secs(10);

/// How the executor is reached; addresses have a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    Relay(String),
    Direct(String),
    /// No executor: the URL of a server of the JSON dialect.
    Environment(String),
}

#[derive(Debug)]
pub(crate) struct ConnectSpec {
    pub(crate) identity: StaticKeypair,
    pub(crate) route: Route,
    /// Whose certificates are accepted.
    pub(crate) trust: Trust,
    pub(crate) executor: PublicKey,
    /// What message 1 says to an executor that does not list this side yet.
    pub(crate) authorization: Vec<u8>,
    /// For how long a link that died is dialled again.
    pub(crate) resume_for: Option<Duration>,
    /// What admits this side to the relay.
    pub(crate) token: Option<Vec<u8>>,
    pub(crate) traces: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) oversight: Oversight,
    /// Traces are kept only of commands that fail or take longer than this.
    pub(crate) slower_than: Option<Duration>,
}

#[derive(Debug, Default)]
pub(crate) struct CommandSpec {
    pub(crate) argv: Vec<OsString>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) inherit: InheritName,
    pub(crate) patterns: [Vec<OsString>; 2],
    pub(crate) secrets: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) grace: Option<Duration>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) outlive: bool,
    pub(crate) stdin: bool,
    /// Rows, columns and the name of the terminal it gets.
    pub(crate) terminal: Option<(u16, u16, String)>,
    pub(crate) parent: Option<TraceContext>,
    pub(crate) baggage: Baggage,
}

/// What a running command lets hear.
#[derive(Debug)]
pub(crate) enum Heard {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Names of variables that were kept from it.
    Withheld(Vec<String>),
}

/// What is dialled.
fn reached(executor: PublicKey, route: &Route, trust: Trust, token: Option<Vec<u8>>) -> Target {
    let target = match route {
        Route::Relay(address) => Target::relay(Address::from(address.as_str()).trusting(trust), executor),
        Route::Direct(address) => Target::direct(Address::from(address.as_str()).trusting(trust), executor),
        Route::Environment(url) => Target::dialect(url),
    };
    match token {
        Some(token) => target.token(token),
        None => target,
    }
}

/// How an executor's machine becomes a Codex CLI's environment.
#[derive(Debug)]
pub(crate) struct BridgeSpec {
    pub(crate) identity: StaticKeypair,
    pub(crate) executor: PublicKey,
    pub(crate) route: Route,
    pub(crate) trust: Trust,
    pub(crate) token: Option<Vec<u8>>,
    pub(crate) dialect: DialectOptions,
}

#[derive(Debug)]
pub(crate) struct ServingBridge(Bridge);

impl ServingBridge {
    pub(crate) async fn start(spec: BridgeSpec) -> Result<Self, Failure> {
        let client = spec.identity.public();
        let target = reached(spec.executor, &spec.route, spec.trust, spec.token);
        Bridge::serve(spec.dialect, spec.identity, target)
            .await
            .map(Self)
            .map_err(|error| match error {
                DialectError::Connect(error) => not_connected(&error, &spec.route, &client),
                other => Failure::of("serve", &other),
            })
    }

    /// Where the Codex CLI is served, if by WebSockets.
    pub(crate) fn url(&self) -> Option<&str> {
        self.0.url()
    }

    /// Waits until the one client on standard input is gone.
    pub(crate) async fn over(&self) {
        self.0.over().await;
    }

    pub(crate) async fn shutdown(self) {
        self.0.shutdown().await;
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Why the executor ended it, if it did.
    pub(crate) ending: Option<Ending>,
    pub(crate) usage: Option<Usage>,
    pub(crate) holders: u32,
    pub(crate) timings: Value,
    pub(crate) timings_text: String,
    pub(crate) trace_id: TraceId,
}

/// A link to an executor.
#[derive(Debug)]
pub(crate) struct Session(Harness);

/// A conversation that a command is a turn of.
#[derive(Debug)]
pub(crate) struct Conversation(Thread);

/// A command under way; dropping it terminates it.
#[derive(Debug)]
pub(crate) struct Running(Run);

/// A command's standard input.
#[derive(Debug)]
pub(crate) struct Input(RunStdin);

impl Session {
    pub(crate) async fn connect(spec: ConnectSpec) -> Result<Self, Failure> {
        Self::connect_for(spec, None, None).await
    }

    /// Asks for a workspace in the first record; see `workspace`. The start-up is part of `turn`.
    pub(crate) async fn connect_about(
        spec: ConnectSpec,
        about: WorkspaceOptions,
        turn: TraceContext,
    ) -> Result<Self, Failure> {
        Self::connect_for(spec, None, Some((about, turn))).await
    }

    /// What was asked for with the first record, once.
    pub(crate) async fn workspace(&self) -> Result<Option<WorkspaceLoaded>, Failure> {
        let loaded = self.0.first_workspace().await.transpose();
        loaded.map_err(|error| not_run(&error))
    }

    /// Takes up a session that is there already.
    pub(crate) async fn take_up(spec: ConnectSpec, session: TakeUp) -> Result<Self, Failure> {
        Self::connect_for(spec, Some(session), None).await
    }

    async fn connect_for(
        spec: ConnectSpec,
        session: Option<TakeUp>,
        about: Option<(WorkspaceOptions, TraceContext)>,
    ) -> Result<Self, Failure> {
        let client = spec.identity.public();
        let target = reached(spec.executor, &spec.route, spec.trust, spec.token);
        let mut builder = Harness::builder();
        if let Some(session) = session {
            builder = builder.take_up(session);
        }
        if let Some((about, turn)) = about {
            builder = builder.workspace(about).parent(turn);
        }
        if let Some(slower_than) = spec.slower_than {
            builder = builder.sampled(false).flight_threshold(slower_than);
        }
        let builder = builder
            .identity(spec.identity)
            .authorization(spec.authorization)
            .traces(spec.traces)
            .store(spec.store)
            .oversight(spec.oversight)
            .resume_for(spec.resume_for.unwrap_or(RESUME_FOR))
            .here();
        let connected = builder.connect(target).await;
        connected
            .map(Self)
            .map_err(|error| not_connected(&error, &spec.route, &client))
    }

    /// What the executor said of itself with its first message.
    pub(crate) fn environment(&self) -> &EnvironmentInfo {
        self.0.environment()
    }

    /// A turn of an agent, whose span is kept with this session's.
    pub(crate) fn turn(&self, turn: Turn) -> TurnGuard {
        turn.on(&self.0)
    }

    /// A model, asked on this session's threads and kept in its traces.
    pub(crate) fn model(&self, builder: ResponsesBuilder) -> Result<Responses, Failure> {
        builder
            .beside(&self.0)
            .map_err(|error| Failure::of("model", &error))
    }

    /// One round trip: this side has spoken, and has been served.
    pub(crate) async fn answers(&self) -> Result<(), Failure> {
        self.0
            .environment_info()
            .await
            .map(drop)
            .map_err(|error| not_run(&error))
    }

    /// This key's sessions at the executor.
    pub(crate) async fn sessions(&self) -> Result<Vec<SessionInfo>, Failure> {
        self.0.sessions().await.map_err(|error| not_run(&error))
    }

    /// The executor's present life.
    pub(crate) fn epoch(&self) -> &[u8] {
        self.0.epoch()
    }

    /// This session's number in it.
    pub(crate) fn number(&self) -> u64 {
        self.0.session()
    }

    /// Whether sessions outlive their links there.
    pub(crate) fn detaches(&self) -> bool {
        let capabilities = &self.0.environment().capabilities;
        capabilities.iter().any(|capability| capability == DETACHES)
    }

    /// A process of another session, to look at.
    pub(crate) fn observe(&self, session: u64, process: u64) -> Observed {
        self.0.observe(session, process)
    }

    /// A process that was taken up with this session.
    pub(crate) fn adopt(&self, process: u64) -> Option<Running> {
        self.0.adopt(process).map(Running)
    }

    /// Starts a command that nobody here waits for.
    pub(crate) async fn start(&self, spec: CommandSpec) -> Result<StartedProcess, Failure> {
        self.0.start(command(spec)).await.map_err(|error| not_run(&error))
    }

    /// Goes, and leaves the session and what it runs.
    pub(crate) async fn leave(self) {
        self.0.leave().await;
    }

    pub(crate) fn exec(&self, spec: CommandSpec) -> Running {
        Running(self.0.exec(command(spec)))
    }

    /// Runs a program without a trace, and says where its time went.
    pub(crate) async fn measure(&self, program: &str) -> Result<CallTimings, Failure> {
        let run = self.0.exec(Command::new(program).sampled(false));
        let finished = run.wait().await.map_err(|error| not_run(&error))?;
        Ok(finished.timings)
    }

    /// Begins a conversation about a directory, kept below `dir`.
    pub(crate) async fn converse(&self, dir: &Path, cwd: &Path) -> Result<Conversation, Failure> {
        let new = NewThread {
            patch: ThreadPatch {
                cwd: Change::Set(cwd.to_string_lossy().into_owned()),
                ..ThreadPatch::default()
            },
        };
        let threads = self
            .0
            .threads(dir)
            .map_err(|error| Failure::of("threads", &error))?;
        let thread = threads.create(new).await;
        thread
            .map(Conversation)
            .map_err(|error| Failure::of("threads", &error))
    }

    /// Waits, within bounds, for the spans the executor still owes, and writes what is pending.
    pub(crate) async fn shutdown(self) {
        self.0.shutdown().await;
    }
}

impl Conversation {
    /// Its next turn is this command. The command's way does not wait for what is written of it.
    pub(crate) async fn turn(&self, running: &Running, program: &str) {
        let items = vec![
            Item::now(ItemKind::TurnStarted, ""),
            Item::now(ItemKind::ToolCall, program),
        ];
        let append = Append::new(items).parent(running.0.context().clone());
        if let Err(error) = self.0.append(append).await {
            tracing::warn!(%error, "the turn was not kept");
        }
    }

    /// The turn is over, and so is the conversation.
    pub(crate) async fn end(self, status: &str) {
        let items = vec![
            Item::now(ItemKind::ToolOutput, status),
            Item::now(ItemKind::TurnEnded, ""),
        ];
        let ended = match self.0.append(items).await {
            Ok(()) => self.0.shutdown().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "not all of the conversation was kept");
        }
    }
}

fn command(spec: CommandSpec) -> Command {
    let mut command = Command::from_argv(spec.argv);
    if let Some(cwd) = spec.cwd {
        command = command.current_dir(cwd);
    }
    for (name, value) in spec.variables {
        command = command.env(name, value);
    }
    command = command.inherit(match spec.inherit {
        InheritName::Core => Inherit::Core,
        InheritName::All => Inherit::All,
        InheritName::None => Inherit::None,
    });
    let [include, exclude] = spec.patterns;
    command = include.iter().fold(command, Command::env_include);
    command = exclude.iter().fold(command, Command::env_exclude);
    if spec.secrets {
        command = command.env_secrets();
    }
    let grace = spec.grace.unwrap_or(GRACE);
    command = command.grace(grace).limits(limits(&spec.limits, spec.timeout));
    if let Some(timeout) = spec.timeout {
        // The executor sees to it; this side only gives up when it hears nothing of that.
        command = command.deadline(timeout + grace + UNHEARD);
    }
    if let Some((rows, columns, term)) = spec.terminal {
        command = command.pty(rows, columns).term(term);
    }
    if spec.outlive {
        command = command.outlive_executor();
    }
    if spec.stdin {
        command = command.stdin_piped();
    }
    if let Some(parent) = spec.parent {
        command = command.parent(parent);
    }
    command.baggage(&spec.baggage)
}

impl Running {
    /// The next event; `None` when `wait` has the end. Cancellation safe.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        loop {
            match self.0.next().await? {
                RunEvent::Started { withheld, .. } if !withheld.is_empty() => {
                    return Some(Heard::Withheld(withheld));
                }
                RunEvent::Stdout(data) => return Some(Heard::Stdout(data)),
                RunEvent::Stderr(data) => return Some(Heard::Stderr(data)),
                RunEvent::Gap(gap) => {
                    tracing::warn!(
                        bytes = gap.bytes(),
                        from = gap.from,
                        "output is gone: nobody took it in time"
                    );
                }
                RunEvent::Started { .. } | RunEvent::Exited(_) => {}
            }
        }
    }

    pub(crate) async fn wait(self) -> Result<Ended, Failure> {
        let finished = self.0.wait().await.map_err(|error| not_run(&error))?;
        Ok(Ended {
            status: finished.status,
            ending: finished.ending,
            usage: finished.usage,
            holders: finished.holders,
            timings_text: finished.timings.to_string(),
            timings: serde_json::to_value(&finished.timings).unwrap_or_default(),
            trace_id: finished.trace_id,
        })
    }

    pub(crate) fn terminate(&self, grace: Duration) {
        self.0.terminate(grace);
    }

    /// The input, on its own so that it can be written while output is taken.
    pub(crate) fn input(&mut self) -> Input {
        Input(self.0.stdin())
    }
}

impl Input {
    /// # Errors
    /// With `Some`, the executor does not let this client write; else the command takes no more.
    pub(crate) async fn write(&mut self, data: Bytes) -> Result<(), Option<Failure>> {
        self.0.write(data).await.map_err(|error| {
            tracing::debug!(%error, "the command takes no more input");
            (error.code() == Some(ErrorCode::PermissionDenied)).then(|| not_run(&error))
        })
    }

    pub(crate) async fn resize(&self, rows: u16, columns: u16) -> Result<(), String> {
        self.0
            .resize(rows, columns)
            .await
            .map_err(|error| error.to_string())
    }

    pub(crate) async fn close(&mut self) -> Result<(), String> {
        self.0.close().await.map_err(|error| error.to_string())
    }
}

fn limits(asked: &[Limit], wall: Option<Duration>) -> Limits {
    let mut limits = Limits {
        wall_ms: wall.map(|wall| u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        ..Limits::default()
    };
    for limit in asked {
        match *limit {
            Limit::Memory(bytes) => limits.address_space_bytes = Some(bytes),
            Limit::FileSize(bytes) => limits.file_bytes = Some(bytes),
            Limit::Core(bytes) => limits.core_bytes = Some(bytes),
            Limit::Files(count) => limits.open_files = Some(count),
            Limit::Processes(count) => limits.processes = Some(count),
            Limit::Cpu(seconds) => limits.cpu_seconds = Some(seconds),
            Limit::Nice(nice) => limits.nice = Some(nice),
        }
    }
    limits
}

fn not_connected(error: &ConnectError, route: &Route, client: &PublicKey) -> Failure {
    let kind = match error {
        ConnectError::HandshakeRefused { .. } => "handshake_refused",
        ConnectError::ExecutorKeyMismatch { .. } => "executor_key_mismatch",
        ConnectError::NoSession => "unknown",
        ConnectError::Superseded { .. } => "superseded",
        ConnectError::NotTakenUp(_) => "refused",
        ConnectError::Unreachable { .. }
        | ConnectError::Transport { .. }
        | ConnectError::Failed { .. }
        | ConnectError::Refused(_)
        | ConnectError::Oversight(_)
        | ConnectError::Runtime(_)
        | ConnectError::Local(_) => "connect",
    };
    let mut failure = Failure::of(kind, error);
    if let (ConnectError::HandshakeRefused { .. } | ConnectError::Failed { .. }, Route::Relay(_)) =
        (error, route)
    {
        // To whoever is not admitted a relay looks like one without such an executor.
        failure = failure.advise("a relay that others can reach may want a token too: $DWELL_RELAY_TOKEN");
    }
    match (error, route) {
        (ConnectError::Unreachable { .. }, Route::Relay(address)) => failure
            .advise(format!(
                "is a relay running there? on its machine: dwell relay --listen {}",
                authority(address)
            ))
            .advise("name another one with --relay ADDR or $DWELL_RELAY"),
        (ConnectError::Unreachable { .. }, Route::Direct(address)) => failure.advise(format!(
            "is an executor running there? on its machine: dwell executor --listen {}",
            authority(address)
        )),
        (ConnectError::Unreachable { .. } | ConnectError::Failed { .. }, Route::Environment(_)) => failure.advise(
            "is it running there? on its machine: codex exec-server --listen ws://127.0.0.1:PORT; its token, if it asks \
             for one, is $DWELL_RELAY_TOKEN",
        ),
        // An executor that does not know the client answers as it answers garbage: by closing.
        (ConnectError::HandshakeRefused { .. } | ConnectError::Failed { .. }, _) => failure
            .advise(
                "if the executor does not know this machine yet, add this line to authorized_clients there:",
            )
            .advise(client.to_string())
            .advise(
                "or trust it from here, with the line that `dwell executor` prints there: dwell trust LINE",
            ),
        (ConnectError::ExecutorKeyMismatch { .. }, _) => failure.advise(
            "if the new key is the right one, take its old line out of known_executors and trust it again, or give it with --executor",
        ),
        (ConnectError::NoSession | ConnectError::Superseded { .. }, _) => failure.advise("what there is: dwell ps --all"),
        (
            ConnectError::Transport { .. }
            | ConnectError::NotTakenUp(_)
            | ConnectError::Refused(_)
            | ConnectError::Oversight(_)
            | ConnectError::Runtime(_)
            | ConnectError::Local(_),
            _,
        ) => failure,
    }
}

pub(crate) fn not_run(error: &RunError) -> Failure {
    let kind = match error {
        RunError::Refused(_) => "refused",
        RunError::NotStarted(_) => "not_started",
        RunError::Lost(_) => "outcome_unknown",
        RunError::DeadlineExceeded => "deadline_exceeded",
    };
    Failure::of(kind, error).exits(exit::of_refusal(error.code(), error.errno()))
}

/// Adds a client to an executor's list.
pub(crate) fn enroll(list: &Path, client: &PublicKey, grant: &Grant) -> Result<(), KeyError> {
    AuthorizedClients::add_with(list, client, grant, "--authorize").map(drop)
}

#[derive(Debug)]
pub(crate) struct ExecutorSpec {
    pub(crate) identity: StaticKeypair,
    pub(crate) authorized_clients: PathBuf,
    pub(crate) pairing: Option<PairingOffer>,
    pub(crate) audit: PathBuf,
    pub(crate) relay: Option<String>,
    /// Whose certificates are accepted from the relay.
    pub(crate) trust: Trust,
    pub(crate) listen: Option<String>,
    /// For the listener.
    pub(crate) certificate: Option<Certificate>,
    /// How long sessions without a client go on.
    pub(crate) detached_life: Option<Duration>,
    pub(crate) traces: PathBuf,
    pub(crate) oversight: Oversight,
    /// Whether the last seconds of untraced calls are remembered.
    pub(crate) flight: bool,
    /// How the JSON dialect is served, if it is.
    pub(crate) dialect: Option<DialectOptions>,
}

#[derive(Debug)]
pub(crate) struct ServingExecutor(ExecutorHandle);

impl ServingExecutor {
    pub(crate) async fn start(spec: ExecutorSpec) -> Result<Self, Failure> {
        let mut builder = Executor::builder()
            .identity(spec.identity)
            .authorized_clients(spec.authorized_clients)
            .audit(spec.audit)
            .traces(spec.traces)
            .oversight(spec.oversight)
            .flight_recorder(spec.flight);
        if let Some(life) = spec.detached_life {
            builder = builder.detached_life(life);
        }
        if let Some(offer) = spec.pairing {
            builder = builder.pairing(offer);
        }
        if let Some(relay) = spec.relay {
            builder = builder.relay(Address::from(relay).trusting(spec.trust));
        }
        if let Some(listen) = spec.listen {
            builder = builder.listen(listen);
        }
        if let Some(certificate) = spec.certificate {
            builder = builder.tls(certificate);
        }
        if let Some(dialect) = spec.dialect {
            builder = builder.dialect(dialect);
        }
        builder
            .serve()
            .await
            .map(Self)
            .map_err(|error| Failure::of("serve", &error))
    }

    /// Where a Codex CLI is served, if by WebSockets.
    pub(crate) fn dialect_url(&self) -> Option<&str> {
        self.0.dialect_url()
    }

    /// Waits until the one client on standard input is gone.
    pub(crate) async fn dialect_over(&self) {
        self.0.dialect_over().await;
    }

    /// Waits until the relay has confirmed the registration.
    pub(crate) async fn registered(&self) -> Result<(), Failure> {
        self.0
            .registered()
            .await
            .map_err(|error| Failure::of("register", &error))
    }

    pub(crate) fn ready(&self) -> Ready {
        Ready {
            role: Role::Executor,
            address: self.0.local_addr(),
            public_key: self.0.public_key(),
        }
    }

    pub(crate) async fn shutdown(self) {
        self.0.shutdown().await;
    }
}

#[derive(Debug)]
pub(crate) struct RelaySpec {
    pub(crate) listen: String,
    pub(crate) identity: StaticKeypair,
    pub(crate) admission: Admission,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) oversight: Oversight,
}

#[derive(Debug)]
pub(crate) struct ServingRelay(RelayHandle);

impl ServingRelay {
    pub(crate) async fn start(spec: RelaySpec) -> Result<Self, Failure> {
        let mut builder = Relay::builder()
            .listen(spec.listen)
            .identity(spec.identity)
            .oversight(spec.oversight)
            .admission(spec.admission);
        if let Some(certificate) = spec.certificate {
            builder = builder.tls(certificate);
        }
        builder
            .serve()
            .await
            .map(Self)
            .map_err(|error| Failure::of("serve", &error))
    }

    pub(crate) fn ready(&self) -> Ready {
        Ready {
            role: Role::Relay,
            address: Some(self.0.local_addr()),
            public_key: self.0.public_key(),
        }
    }

    pub(crate) async fn shutdown(self) {
        self.0.shutdown().await;
    }
}
