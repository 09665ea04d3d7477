//! What can be asked on the command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dwell_actors::harness::signal_number;
use dwell_actors::keys::{ExecutorName, Grant, ScopeSet, parse_authorization};
use dwell_actors::relay_server::TOKEN_MAX_BYTES;
use dwell_messages::{PublicKey, Role};
use dwell_relay::driver::tls::{Certificate, Trust as Roots};

use super::dialect::Dialect;
use super::failure::Failure;
use super::oversight::{Inspected, Overseen};
use super::sessions::Id;

/// The longest a command may be given: 30 days.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const EXIT_CODES: &str = "Exit codes: those of the command; 128+n when signal n ended it; 124 when its time was over; \
                          126 when it cannot be executed, 127 when it is not there, 125 for errors of dwell itself.";

/// What `dwell run --help` ends with.
const RUN_EXAMPLES: &str = "\
Examples:
  dwell run --on build -- uname -a         the executor that `dwell trust` knows as build
  dwell run -- uname -a                    the one of $DWELL_EXECUTOR
  dwell run --timeout 60 --limit memory=2G -- make test
  dwell run --environment ws://127.0.0.1:7436 --tty=never -- make     on a `codex exec-server`
  dwell run -- bash                     a terminal, when this is one; Ctrl-] three times leaves it
  tar c src | dwell run -- tar xC /tmp  input and output are bytes, untouched
  id=$(dwell run --detach -- make)         it runs on without this side; then dwell logs -f $id, dwell attach $id

Exit codes: those of the command; 128+n when signal n ended it; 124 when its time was over; 126 when it cannot be
executed, 127 when it is not there, 125 for errors of dwell itself.";

/// What `dwell ps --help` ends with.
const PS_EXAMPLES: &str = "\
Examples:
  dwell ps --on build
  dwell ps --all --json | jq -r '.commands[] | select(.state != \"running\") | .id'

A command that has ended is kept until somebody has taken its end (`dwell attach`), for a day at the most unless the
executor says otherwise; after that for 30 seconds. Commands of other keys are not shown.";

/// What `dwell attach --help` ends with.
const ATTACH_EXAMPLES: &str = "\
Examples:
  dwell attach k3f9x-12.1
  dwell attach --new k3f9x-12.1      a terminal without what it said before

Whoever had the command is told that it was taken over. Ctrl-] three times on a terminal, or an interrupt elsewhere,
leaves the command running. Ends with the command's exit code, as `dwell run` does.";

/// What `dwell logs --help` ends with.
const LOGS_EXAMPLES: &str = "\
Examples:
  dwell logs k3f9x-12.1
  dwell logs --follow --stderr k3f9x-12.1

Shows the newest MiB of what the command said, and says what is missing before it. Any number may look at once, and
nothing is taken from whoever has the command: `dwell attach` has all of it. With --follow and --json it prints one
object a line.";

/// What `dwell kill --help` ends with.
const KILL_EXAMPLES: &str = "\
Examples:
  dwell kill k3f9x-12.1               TERM to it and all it started, KILL after 5 seconds
  dwell kill --signal HUP k3f9x-12.1";

/// What `dwell executor --help` ends with.
const EXECUTOR_EXAMPLES: &str = "\
Examples:
  dwell executor --relay relay.example.org     prints a line: give it to `dwell trust` on the agent's machine
  dwell executor --listen 0.0.0.0 --scopes spawn+stdin
  dwell executor --listen ws://127.0.0.1:7436     then, for a Codex CLI: CODEX_EXEC_SERVER_URL=ws://127.0.0.1:7436
  dwell executor --authorize KEY,scopes=spawn,expires=2027-01-31 --relay relay.example.org
  echo 'KEY scopes=spawn+pty max-processes=8 # ci' >> ~/.config/dwell/authorized_clients

Scopes: spawn (start commands), pty (give them terminals), stdin (write to them), signal (signal and end them), attach
(read again what they said), files, admin. A key without scopes= has all but admin. Changes of the file hold at once: a
key that is taken off it loses its sessions.";

/// What `dwell bridge --help` ends with.
const BRIDGE_EXAMPLES: &str = "\
Examples:
  dwell bridge --on build --listen ws://127.0.0.1:7436
  CODEX_EXEC_SERVER_URL=ws://127.0.0.1:7436 codex exec ...";

/// What `dwell trust --help` ends with.
const TRUST_EXAMPLES: &str = "\
Examples:
  dwell trust dwell+relay:build:KEY:CODE@relay.example.org:7433
  dwell trust --name fast dwell+direct:build:KEY:CODE@192.0.2.7:7434
  dwell run --on fast -- uname -a

The line is good for ten minutes and for one client. It comes from somebody who can read the executor's terminal: that
is what makes its key the right one. A known name whose key has changed is refused, with both fingerprints.";

/// Runs commands on another machine, and accounts for every microsecond on the way.
#[derive(Parser, Debug)]
#[command(name = "dwell", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How logs are written to standard error. DWELL_LOG (or RUST_LOG) says which.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The shape of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Show it all on this machine: a relay, an executor, one command, and where its time went.
    Demo(Demo),
    /// A whole first turn of an agent: ask a model, run what it calls for, and show where the time went.
    #[command(after_help = super::turn::EXAMPLES)]
    Turn(Box<super::turn::Turn>),
    /// Forward sealed frames between harnesses and executors.
    Relay(Relay),
    /// Run commands on this machine for the clients in authorized_clients.
    Executor(Executor),
    /// Serve a Codex CLI on this machine with an executor on another one, over a sealed link.
    Bridge(Box<Bridge>),
    /// Run a command on an executor's machine.
    Run(Box<Run>),
    /// List what this machine's key runs on an executor's machine, whoever started it.
    Ps(Ps),
    /// Take a command up: its output so far and from now on, its input, its exit code.
    Attach(Attach),
    /// Print what a command said, without taking it from anybody.
    Logs(Logs),
    /// End a command, or send it a signal.
    Kill(Kill),
    /// Show what is unfinished in the dwell processes of this machine, and what they wait for.
    Inspect(super::inspect::Inspect),
    /// As `dwell trace top`.
    #[command(hide = true)]
    Top(super::top::Top),
    /// Trust an executor, and be trusted by it, with the line that it printed.
    Trust(Trust),
    /// Started by an executor: ends its commands when it dies.
    #[command(hide = true)]
    Guard,
    /// Show this machine's key, and make it on first use.
    Key(Key),
    /// Where the time of calls went: draw one, list them, explain one, export one.
    #[command(after_help = super::trace::EXAMPLES)]
    Trace(super::trace::Trace),
    /// The conversations that agents keep on this machine.
    #[command(after_help = super::threads::EXAMPLES)]
    Threads(super::threads::Threads),
    /// Measure dwell on this machine, beside others.
    #[command(after_help = super::bench::NOTES)]
    Bench(super::bench::Bench),
    /// Print the version.
    Version,
}

#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// The command; without one, the ten largest files below this directory.
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Where an address is dialled.
#[derive(Args, Clone, Debug)]
pub(crate) struct Trusting {
    /// With tls:// and wss://: accept certificates of the authorities in this PEM file only [default: those that
    /// browsers trust].
    #[arg(long, value_name = "FILE", env = "DWELL_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
}

/// Where an address is listened on.
#[derive(Args, Debug)]
pub(crate) struct Proving {
    /// Serve TLS on the same port as well: the certificate chain in PEM, the server's own first.
    #[arg(long, value_name = "FILE", env = "DWELL_TLS_CERT", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(long, value_name = "FILE", env = "DWELL_TLS_KEY", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

impl Trusting {
    pub(crate) fn trust(&self) -> Result<Roots, Failure> {
        match &self.tls_ca {
            Some(file) => Roots::load(file).map_err(|error| Failure::of("tls", &error)),
            None => Ok(Roots::default()),
        }
    }
}

impl Proving {
    pub(crate) fn certificate(&self) -> Result<Option<Certificate>, Failure> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(chain), Some(key)) => Certificate::load(chain, key)
                .map(Some)
                .map_err(|error| Failure::of("tls", &error)),
            (Some(_), None) | (None, Some(_)) => {
                Err(Failure::new("tls", "--tls-cert and --tls-key go together").advise("give both"))
            }
            (None, None) => Ok(None),
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Relay {
    /// Address to listen on, for TCP and WebSockets alike [default: 127.0.0.1:7433].
    #[arg(long, value_name = "ADDR", env = "DWELL_RELAY_LISTEN")]
    pub(crate) listen: Option<String>,
    /// Who may use it; needed on any address but loopback. Lines of `executor KEY`, `token TEXT` and
    /// `harness HASH` (a token's).
    #[arg(long, value_name = "FILE", env = "DWELL_RELAY_ALLOW")]
    pub(crate) allow: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) proving: Proving,
    #[command(flatten)]
    pub(crate) overseen: Overseen,
    /// For a parent process: print the ready line, and end when standard input does.
    #[arg(long, hide = true)]
    pub(crate) ready_json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = EXECUTOR_EXAMPLES)]
pub(crate) struct Executor {
    /// Register at this relay: HOST:PORT, or wss://, ws:// or tls:// before it [default without --listen:
    /// 127.0.0.1:7433].
    #[arg(long, value_name = "ADDR", env = "DWELL_RELAY")]
    pub(crate) relay: Option<String>,
    /// Listen on this address for harnesses that connect directly, by TCP or WebSocket. With ws:// before it, or as
    /// stdio: serve a stock Codex CLI instead, and print nothing but the address.
    #[arg(long, value_name = "ADDR", env = "DWELL_EXECUTOR_LISTEN")]
    pub(crate) listen: Option<String>,
    /// Put this client on the list of those to serve, and print no line to trust; may be repeated. What it may do
    /// follows behind commas: scopes=spawn+pty, expires=2027-01-31, max-sessions=4, max-processes=16.
    #[arg(long, value_name = "KEY[,OPTIONS]", value_parser = authorization)]
    pub(crate) authorize: Vec<(PublicKey, Grant)>,
    /// What the client may do that takes the printed line [default: everything but admin].
    #[arg(long, value_name = "SCOPE+SCOPE", value_parser = scopes, conflicts_with_all = ["authorize", "no_pairing"])]
    pub(crate) scopes: Option<ScopeSet>,
    /// What this executor calls itself in the printed line [default: the machine's name].
    #[arg(long, value_name = "NAME", value_parser = executor_name)]
    pub(crate) name: Option<ExecutorName>,
    /// Print no line to trust: for services, whose output is kept.
    #[arg(long)]
    pub(crate) no_pairing: bool,
    /// The clients to serve, one key a line [default: authorized_clients beside the keys].
    #[arg(long, value_name = "FILE", env = "DWELL_AUTHORIZED_CLIENTS")]
    pub(crate) authorized_clients: Option<PathBuf>,
    /// For how many seconds a session whose client is away goes on, what it runs running [default: 86400, a day].
    #[arg(long, value_name = "SECS", env = "DWELL_DETACHED_LIFE", value_parser = seconds)]
    pub(crate) detached_life: Option<Duration>,
    /// Do not remember the last seconds of calls that are not traced: a client that asks for one which failed gets
    /// nothing. Saves a megabyte a core.
    #[arg(long)]
    pub(crate) no_flight_recorder: bool,
    #[command(flatten)]
    pub(crate) dialect: Dialect,
    #[command(flatten)]
    pub(crate) overseen: Overseen,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
    #[command(flatten)]
    pub(crate) proving: Proving,
    /// For a parent process: print the ready line, and end when standard input does.
    #[arg(long, hide = true)]
    pub(crate) ready_json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = BRIDGE_EXAMPLES)]
pub(crate) struct Bridge {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Where the Codex CLI is served: ws://IP:PORT or stdio. Nothing but the address is printed.
    #[arg(long, value_name = "ADDR", default_value = "ws://127.0.0.1:0")]
    pub(crate) listen: String,
    /// For how many seconds a session whose client is away goes on, what it runs running [default: 80].
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) detached_life: Option<Duration>,
    #[command(flatten)]
    pub(crate) dialect: Dialect,
}

/// Which executor, and how it is reached.
#[derive(Args, Debug)]
pub(crate) struct Reach {
    /// Reach the executor through this relay: HOST:PORT, or wss://, ws:// or tls:// before it [default:
    /// 127.0.0.1:7433].
    #[arg(long, value_name = "ADDR", env = "DWELL_RELAY")]
    pub(crate) relay: Option<String>,
    /// Reach the executor directly, at an address as for --relay; overrides DWELL_RELAY.
    #[arg(long, value_name = "ADDR", env = "DWELL_DIRECT")]
    pub(crate) direct: Option<String>,
    /// The executor that `dwell trust` knows by this name; overrides DWELL_EXECUTOR.
    #[arg(long, value_name = "NAME", value_parser = executor_name)]
    pub(crate) on: Option<ExecutorName>,
    /// The executor's public key, as `dwell executor` prints it; without --on.
    #[arg(
        long,
        value_name = "KEY",
        env = "DWELL_EXECUTOR",
        value_parser = public_key,
        required_unless_present_any = ["on", "environment"]
    )]
    pub(crate) executor: Option<PublicKey>,
    /// Only with `dwell run`: no executor of dwell's, but a server of Codex's JSON dialect, such as `codex exec-server`:
    /// ws://HOST:PORT. Nothing is sealed on the way there: for loopback, or what a tunnel protects. Overrides all of the
    /// above.
    #[arg(long, value_name = "URL")]
    pub(crate) environment: Option<String>,
    /// What admits this side to a relay that others can reach, or to such a server; better in the environment, where `ps`
    /// does not show it.
    #[arg(long, value_name = "TEXT", env = "DWELL_RELAY_TOKEN", hide_env_values = true, value_parser = token)]
    pub(crate) relay_token: Option<String>,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
}

/// As [`Reach`], for what starts an executor of its own when none is named.
#[derive(Args, Clone, Debug)]
pub(crate) struct OptionalReach {
    /// Reach the executor through this relay, as with `dwell run`.
    #[arg(long, value_name = "ADDR", env = "DWELL_RELAY")]
    pub(crate) relay: Option<String>,
    /// Reach the executor directly, as with `dwell run`.
    #[arg(long, value_name = "ADDR", env = "DWELL_DIRECT")]
    pub(crate) direct: Option<String>,
    /// The executor that `dwell trust` knows by this name.
    #[arg(long, value_name = "NAME", value_parser = executor_name)]
    pub(crate) on: Option<ExecutorName>,
    /// The executor's public key; without --on.
    #[arg(long, value_name = "KEY", env = "DWELL_EXECUTOR", value_parser = public_key)]
    pub(crate) executor: Option<PublicKey>,
    /// What admits this side to a relay that others can reach; better in the environment, where `ps` does not show it.
    #[arg(long, value_name = "TEXT", env = "DWELL_RELAY_TOKEN", hide_env_values = true, value_parser = token)]
    pub(crate) relay_token: Option<String>,
}

impl OptionalReach {
    /// Whether an executor is named at all.
    pub(crate) fn is_named(&self) -> bool {
        self.on.is_some() || self.executor.is_some()
    }

    pub(crate) fn named(self, trusting: Trusting) -> Reach {
        Reach {
            relay: self.relay,
            direct: self.direct,
            on: self.on,
            executor: self.executor,
            environment: None,
            relay_token: self.relay_token,
            trusting,
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Working directory on the executor's machine.
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Set a variable for the command; may be repeated.
    #[arg(long = "env", value_name = "K=V", value_parser = OsStringValueParser::new().try_map(variable))]
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// Which of the executor's variables the command inherits.
    #[arg(long, value_enum, default_value = "core", value_name = "WHICH")]
    pub(crate) inherit: InheritName,
    /// Of what is inherited only names that fit PATTERN (`*`, `?`); may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) env_include: Vec<OsString>,
    /// Names that fit PATTERN are not inherited; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) env_exclude: Vec<OsString>,
    /// Inherit names that look like secrets (KEY, SECRET, TOKEN, PASSWORD) like any other.
    #[arg(long)]
    pub(crate) env_secrets: bool,
    /// Give the command a terminal.
    #[arg(
        short = 't',
        long,
        value_enum,
        default_value = "auto",
        default_missing_value = "always",
        num_args = 0..=1,
        require_equals = true,
        value_name = "WHEN"
    )]
    pub(crate) tty: Tty,
    /// Terminate the command, and all it started, when it takes longer than this many seconds.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Time between TERM and KILL, in seconds.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) grace: Option<Duration>,
    /// For how many seconds a link that died is dialled again, the command running on, before its outcome counts as
    /// unknown [default: 600].
    #[arg(long, value_name = "SECS", env = "DWELL_RESUME_FOR", value_parser = seconds)]
    pub(crate) resume_for: Option<Duration>,
    /// Limit what the command may use, it and each process it starts: memory, file-size, core (bytes, with K, M or G),
    /// files, processes, cpu (seconds), nice (-20 to 19); may be repeated.
    #[arg(long = "limit", value_name = "WHAT=N", value_parser = limit)]
    pub(crate) limits: Vec<Limit>,
    /// Start the command, print its id, and leave it: dwell ps, attach, logs and kill find it. It gets no terminal
    /// unless --tty asks for one, and no input unless --stdin does.
    #[arg(short = 'd', long, conflicts_with = "timings")]
    pub(crate) detach: bool,
    /// With --detach: give the command an input, which `dwell attach` writes.
    #[arg(long, requires = "detach")]
    pub(crate) stdin: bool,
    /// Let the command outlive the executor itself; nothing else does. Nobody finds it then but its machine.
    #[arg(long)]
    pub(crate) outlive_executor: bool,
    /// Hand this member of $BAGGAGE on to the command; may be repeated. Without it none is.
    #[arg(long, value_name = "NAME")]
    pub(crate) baggage: Vec<String>,
    /// Print where the time went, to standard error.
    #[arg(long)]
    pub(crate) timings: bool,
    /// Keep a trace only when the command fails or takes longer than this many seconds: it is remembered for a few
    /// seconds at both ends, and costs nothing otherwise.
    #[arg(long, value_name = "SECS", value_parser = seconds, conflicts_with = "detach")]
    pub(crate) slower_than: Option<Duration>,
    #[command(flatten)]
    pub(crate) inspected: Inspected,
    /// The program and its arguments; no shell is between.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
#[command(after_help = PS_EXAMPLES)]
pub(crate) struct Ps {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Also those that have ended and are still kept.
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Args, Debug)]
#[command(after_help = ATTACH_EXAMPLES)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Only what it writes from now on, and not what it wrote before.
    #[arg(long)]
    pub(crate) new: bool,
    /// Which, as `dwell ps` and `dwell run --detach` print it.
    #[arg(value_name = "ID")]
    pub(crate) id: Id,
}

#[derive(Args, Debug)]
#[command(after_help = LOGS_EXAMPLES)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Go on with what it writes, until it has ended.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only its standard output.
    #[arg(long)]
    pub(crate) stdout: bool,
    /// Only its standard error.
    #[arg(long)]
    pub(crate) stderr: bool,
    /// Which, as `dwell ps` and `dwell run --detach` print it.
    #[arg(value_name = "ID")]
    pub(crate) id: Id,
}

#[derive(Args, Debug)]
#[command(after_help = KILL_EXAMPLES)]
pub(crate) struct Kill {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Send this signal to the command itself, by its name or number, instead of ending it and all it started.
    #[arg(short, long, value_name = "NAME", value_parser = signal)]
    pub(crate) signal: Option<i32>,
    /// Time between TERM and KILL, in seconds [default: 5].
    #[arg(long, value_name = "SECS", value_parser = seconds, conflicts_with = "signal")]
    pub(crate) grace: Option<Duration>,
    /// Which, as `dwell ps` and `dwell run --detach` print it.
    #[arg(value_name = "ID")]
    pub(crate) id: Id,
}

/// When a command gets a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Tty {
    /// When input and output here are one.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which variables are inherited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum InheritName {
    /// A few harmless ones: PATH, HOME, LANG and the like.
    #[default]
    Core,
    /// All that do not look like secrets.
    All,
    /// None.
    None,
}

/// One limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Limit {
    Memory(u64),
    FileSize(u64),
    Core(u64),
    Files(u64),
    Processes(u64),
    Cpu(u64),
    Nice(i8),
}

#[derive(Args, Debug)]
pub(crate) struct Key {
    /// What to do.
    #[arg(value_enum, default_value = "make")]
    pub(crate) action: KeyAction,
    /// Whose key.
    #[arg(long, value_enum, default_value = "harness")]
    pub(crate) role: RoleName,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum KeyAction {
    /// Show the key; make it if there is none.
    Make,
    /// Show the key; an error if there is none.
    Show,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum RoleName {
    Harness,
    Executor,
    Relay,
}

#[derive(Args, Debug)]
#[command(after_help = TRUST_EXAMPLES)]
pub(crate) struct Trust {
    /// The line that `dwell executor` printed.
    #[arg(value_name = "LINE")]
    pub(crate) line: String,
    /// What to call the executor here [default: what it calls itself].
    #[arg(long, value_name = "NAME", value_parser = executor_name)]
    pub(crate) name: Option<ExecutorName>,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
    /// What admits this side to a relay that others can reach; better in the environment, where `ps` does not show it.
    #[arg(long, value_name = "TEXT", env = "DWELL_RELAY_TOKEN", hide_env_values = true, value_parser = token)]
    pub(crate) relay_token: Option<String>,
}

impl RoleName {
    pub(crate) fn role(self) -> Role {
        match self {
            Self::Harness => Role::Harness,
            Self::Executor => Role::Executor,
            Self::Relay => Role::Relay,
        }
    }
}

/// A public key from its text, of either case.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, String> {
    let bytes: [u8; 32] = unhex(&text.to_ascii_lowercase())
        .ok_or("a key is 64 hexadecimal digits: copy the line that `dwell executor` prints")?;
    dwell_relay::parse_public_key(&bytes).map_err(|error| error.to_string())
}

fn executor_name(text: &str) -> Result<ExecutorName, &'static str> {
    ExecutorName::new(text)
}

fn authorization(text: &str) -> Result<(PublicKey, Grant), &'static str> {
    parse_authorization(text)
}

fn scopes(text: &str) -> Result<ScopeSet, &'static str> {
    ScopeSet::parse(text)
}

fn token(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > TOKEN_MAX_BYTES {
        return Err(format!("a token has 1 to {TOKEN_MAX_BYTES} bytes"));
    }
    Ok(text.to_owned())
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(bytes)
}

#[expect(clippy::needless_pass_by_value, reason = "the parser hands its value over")]
fn variable(text: OsString) -> Result<(OsString, OsString), &'static str> {
    let bytes = text.as_bytes();
    let at = bytes
        .iter()
        .position(|byte| *byte == b'=')
        .ok_or("a variable is NAME=VALUE")?;
    if at == 0 {
        return Err("a variable needs a name before the `=`");
    }
    let name = OsStr::from_bytes(&bytes[..at]).to_owned();
    Ok((name, OsString::from_vec(bytes[at + 1..].to_vec())))
}

fn signal(text: &str) -> Result<i32, String> {
    let number = text
        .parse::<i32>()
        .ok()
        .filter(|number| (1..=64).contains(number));
    number.or_else(|| signal_number(text)).ok_or_else(|| {
        format!("{text:?} is no signal: use a name, as TERM, HUP or USR1, or a number from 1 to 64")
    })
}

fn limit(text: &str) -> Result<Limit, String> {
    let (what, amount) = text.split_once('=').ok_or("a limit is WHAT=N, as in memory=2G")?;
    let number = || {
        amount
            .parse::<u64>()
            .map_err(|_| format!("{what} takes a whole number, not {amount:?}"))
    };
    Ok(match what {
        "memory" => Limit::Memory(bytes(what, amount)?),
        "file-size" => Limit::FileSize(bytes(what, amount)?),
        "core" => Limit::Core(bytes(what, amount)?),
        "files" => Limit::Files(number()?),
        "processes" => Limit::Processes(number()?),
        "cpu" => Limit::Cpu(number()?),
        "nice" => Limit::Nice(
            amount
                .parse()
                .ok()
                .filter(|nice| (-20..=19).contains(nice))
                .ok_or("nice is a number from -20 to 19")?,
        ),
        _ => {
            return Err(format!(
                "{what:?} cannot be limited: use memory, file-size, core, files, processes, cpu or nice"
            ));
        }
    })
}

/// A number of bytes, with K, M or G for powers of 1024.
fn bytes(what: &str, amount: &str) -> Result<u64, String> {
    let wrong = || format!("{what} takes bytes, as 4096, 512K, 64M or 2G, not {amount:?}");
    let (digits, shift) = match amount.as_bytes().last() {
        Some(b'K' | b'k') => (&amount[..amount.len() - 1], 10),
        Some(b'M' | b'm') => (&amount[..amount.len() - 1], 20),
        Some(b'G' | b'g') => (&amount[..amount.len() - 1], 30),
        Some(_) | None => (amount, 0),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "seconds are a number above 0 and at most {}",
            TIMEOUT_MAX.as_secs()
        )
    };
    let duration = text
        .parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(wrong)?;
    (!duration.is_zero() && duration <= TIMEOUT_MAX)
        .then_some(duration)
        .ok_or_else(wrong)
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
