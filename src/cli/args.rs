//! What can be asked on the command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dwell_actors::keys::{ExecutorName, Grant, ScopeSet, parse_authorization};
use dwell_actors::relay_server::TOKEN_MAX_BYTES;
use dwell_messages::{PublicKey, Role, TraceId};
use dwell_relay::driver::tls::{Certificate, Trust as Roots};

use super::failure::Failure;

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
  dwell run -- bash                     a terminal, when this is one; Ctrl-] three times leaves it
  tar c src | dwell run -- tar xC /tmp  input and output are bytes, untouched

Exit codes: those of the command; 128+n when signal n ended it; 124 when its time was over; 126 when it cannot be
executed, 127 when it is not there, 125 for errors of dwell itself.";

/// What `dwell executor --help` ends with.
const EXECUTOR_EXAMPLES: &str = "\
Examples:
  dwell executor --relay relay.example.org     prints a line: give it to `dwell trust` on the agent's machine
  dwell executor --listen 0.0.0.0 --scopes spawn+stdin
  dwell executor --authorize KEY,scopes=spawn,expires=2027-01-31 --relay relay.example.org
  echo 'KEY scopes=spawn+pty max-processes=8 # ci' >> ~/.config/dwell/authorized_clients

Scopes: spawn (start commands), pty (give them terminals), stdin (write to them), signal (signal and end them), attach
(read again what they said), files, admin. A key without scopes= has all but admin. Changes of the file hold at once: a
key that is taken off it loses its sessions.";

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
    /// Forward sealed frames between harnesses and executors.
    Relay(Relay),
    /// Run commands on this machine for the clients in authorized_clients.
    Executor(Executor),
    /// Run a command on an executor's machine.
    Run(Box<Run>),
    /// Trust an executor, and be trusted by it, with the line that it printed.
    Trust(Trust),
    /// Started by an executor: ends its commands when it dies.
    #[command(hide = true)]
    Guard,
    /// Show this machine's key, and make it on first use.
    Key(Key),
    /// Draw where the time of a run went; the last one without an id.
    Trace(Trace),
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
#[derive(Args, Debug)]
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
    /// Listen on this address for harnesses that connect directly, by TCP or WebSocket.
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
    #[command(flatten)]
    pub(crate) trusting: Trusting,
    #[command(flatten)]
    pub(crate) proving: Proving,
    /// For a parent process: print the ready line, and end when standard input does.
    #[arg(long, hide = true)]
    pub(crate) ready_json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct Run {
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
        required_unless_present = "on"
    )]
    pub(crate) executor: Option<PublicKey>,
    /// What admits this side to a relay that others can reach; better in the environment, where `ps` does not show it.
    #[arg(long, value_name = "TEXT", env = "DWELL_RELAY_TOKEN", hide_env_values = true, value_parser = token)]
    pub(crate) relay_token: Option<String>,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
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
    /// Let the command outlive the executor itself; nothing else does.
    #[arg(long)]
    pub(crate) detach: bool,
    /// Print where the time went, to standard error.
    #[arg(long)]
    pub(crate) timings: bool,
    /// The program and its arguments; no shell is between.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
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

#[derive(Args, Debug)]
pub(crate) struct Trace {
    /// The trace's id, 32 hexadecimal digits; without it, the newest call.
    #[arg(value_parser = trace_id)]
    pub(crate) trace_id: Option<TraceId>,
    /// Columns of the picture [default: the terminal's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(60..=240))]
    pub(crate) width: Option<u16>,
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

fn trace_id(text: &str) -> Result<TraceId, String> {
    unhex(&text.to_ascii_lowercase())
        .map(TraceId)
        .ok_or_else(|| "a trace id is 32 hexadecimal digits".into())
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

fn seconds(text: &str) -> Result<Duration, String> {
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
