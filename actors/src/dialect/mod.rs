//! The gateway of the JSON dialect: a stock Codex CLI at one side, an ordinary session at the other.
//!
//! It translates and owns nothing else. Behind each of its sessions is a harness's session of its own, over whatever link
//! that has: one in memory where the executor is this process's, a sealed one through a relay where it is not. So every
//! actor serves both encodings, and there is one way in to each of them. What the gateway keeps is what the dialect
//! promises: its numbers, what can be read again, and sessions that wait for their client.
//!
//! Everything of one gateway is on one arbiter and made of tasks: a reader and a writer a connection, one for each process
//! and for each request that waits. Bounds are beside what they bound, in `outbox`, `held`, `writes`, `log`, `session`,
//! `gateway`, `connection` and `socket`. Full: a client that does not read makes its own commands wait. Stop: connections are closed
//! without a word, and what their sessions run is killed.

mod auth;
mod bridge;
mod command;
mod connection;
mod denial;
mod discovery;
mod files;
mod gateway;
mod head;
mod held;
mod http;
mod line;
mod log;
mod missing;
mod outbox;
mod process;
mod reach;
mod session;
mod socket;
mod stdio;
mod task;
mod writes;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dwell_relay::StaticKeypair;
use tokio::sync::{oneshot, watch};

pub use auth::{Auth, CLOCK_SKEW, SECRET_MIN_BYTES, ShortSecret, Signed};
pub use bridge::Bridge;
pub use connection::CALLS_MAX;
pub use files::{DIRECTORY_MAX_ENTRIES, READ_FILE_MAX_BYTES};
pub use gateway::SESSIONS_MAX;
pub use held::{ANSWERS_MAX_BYTES, HTTP_BODIES_MAX_BYTES, REQUESTS_MAX_BYTES};
pub use http::WHOLE_BODY_MAX_BYTES;
pub use line::PROBE_TIMEOUT;
pub use log::{LOGGED_CHUNKS_MAX, WRITE_IDS_MAX};
pub use outbox::{OUTBOUND_MAX, OUTBOUND_MAX_BYTES};
pub use process::ENDED_KEPT_FOR;
pub use session::{ENDED_KEPT_MAX, ENDED_KEPT_MAX_BYTES};
pub use socket::{CONNECTIONS_MAX, PING_INTERVAL};
pub use writes::{ACCEPTED_MAX_BYTES, WAITING_MAX_BYTES, WRITES_ACCEPTED_MAX, WRITES_WAITING_MAX};

use self::command::Wish;
use self::gateway::{Behind, Gateway};
use self::session::Rules;
use crate::executor::CONFINES;
use crate::harness::{ConnectError, Harness, Target};
use crate::terminal_delivery::RETENTION_BYTES;

/// How long a session without a connection waits for its client unless it is said otherwise.
pub const DETACHED_LIFE: Duration = Duration::from_secs(80);

/// Where clients come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// WebSockets at this address; port 0 takes a free one.
    WebSocket(SocketAddr),
    /// This process's own standard input and output: one client.
    Stdio,
}

/// What becomes of a client's wish that a command be confined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sandbox {
    /// It is enforced where the executor can enforce all of it, and refused otherwise.
    #[default]
    Enforced,
    /// It is refused.
    Refused,
    /// It is passed over: the operator's word. Every start says so.
    Off,
}

/// How the dialect is served.
#[derive(Clone, Debug)]
pub struct DialectOptions {
    endpoint: Endpoint,
    auth: Auth,
    detached_life: Duration,
    retention_bytes: u64,
    sandbox: Sandbox,
    traces: Option<PathBuf>,
}

impl DialectOptions {
    /// To whoever connects there. By an address that other machines reach, only with `auth`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            auth: Auth::Anybody,
            detached_life: DETACHED_LIFE,
            retention_bytes: RETENTION_BYTES,
            sandbox: Sandbox::Enforced,
            traces: None,
        }
    }

    /// Whom to serve. Standard input is not asked.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// How long a session without a connection waits for its client, what it runs running. Default `DETACHED_LIFE`.
    #[must_use]
    pub fn detached_life(mut self, life: Duration) -> Self {
        self.detached_life = life;
        self
    }

    /// Bytes of each process's output that are kept to be read again. Default 1 MiB, at most 16 MiB.
    #[must_use]
    pub fn retention(mut self, bytes: u64) -> Self {
        self.retention_bytes = bytes;
        self
    }

    /// What becomes of a wish to be confined. Default: it is enforced or refused.
    #[must_use]
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// Writes the harness's side of each trace into this directory.
    #[must_use]
    pub fn traces(mut self, dir: impl Into<PathBuf>) -> Self {
        self.traces = Some(dir.into());
        self
    }

    /// Where clients come from.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }
}

/// Why the dialect is not served.
#[derive(Debug, thiserror::Error)]
pub enum DialectError {
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}; choose another address, or end what listens there")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Anybody on the network could run commands here.
    #[error(
        "{0} can be reached from other machines, and nobody would be asked who they are: listen on 127.0.0.1, or say \
         whom to serve (--ws-auth)"
    )]
    Unguarded(SocketAddr),
    /// There is no session with the executor.
    #[error("the gateway has no session with its executor")]
    Connect(#[from] ConnectError),
    /// The gateway's thread ended.
    #[error("the gateway ended before it served")]
    Ended,
}

/// What a gateway is made of.
pub(crate) struct Plan {
    pub(crate) options: DialectOptions,
    pub(crate) identity: StaticKeypair,
    pub(crate) target: Target,
    /// Whether the executor is this process's own, so that its user's directories are known.
    pub(crate) is_local: bool,
    /// Hears the URL, or that standard input is read.
    pub(crate) ready: oneshot::Sender<Result<Serving, DialectError>>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// A gateway that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Where it listens, if it does.
    pub(crate) url: Option<String>,
    /// Set when its one client is gone.
    pub(crate) over: watch::Receiver<bool>,
}

impl Serving {
    /// Waits until the gateway has ended, and with it everything that it had to write down.
    pub(crate) async fn ended(&self) {
        // A gateway that failed has nothing more to write.
        drop(self.over.clone().wait_for(|over| *over).await);
    }

    /// Waits until the one client on standard input is gone; for ever, where there is none.
    pub(crate) async fn client_is_gone(&self) {
        if self.url.is_some() {
            return std::future::pending().await;
        }
        self.ended().await;
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Serves until told to stop, or until its one client is gone. On an arbiter, where everything of it lives.
pub(crate) async fn serve(plan: Plan) {
    let Plan {
        options,
        identity,
        target,
        is_local,
        ready,
        mut stop,
    } = plan;
    let (ended, over) = watch::channel(false);
    let opened = open(&options, identity, target, is_local).await;
    let (gateway, listener, url) = match opened {
        Ok(opened) => opened,
        Err(error) => return drop(ready.send(Err(error))),
    };
    drop(ready.send(Ok(Serving { url, over })));
    match listener {
        Some(listener) => {
            socket::accept(listener, Rc::clone(&gateway), Rc::new(options.auth), stop).await;
        }
        None => {
            tokio::select! {
                () = stdio::serve(Rc::clone(&gateway)) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
    }
    gateway.end();
    // What its clients' calls took is written down before whoever ends this process goes on.
    gateway.flush().await;
    ended.send_replace(true);
}

type Opened = (Rc<Gateway>, Option<tokio::net::TcpListener>, Option<String>);

async fn open(
    options: &DialectOptions,
    identity: StaticKeypair,
    target: Target,
    is_local: bool,
) -> Result<Opened, DialectError> {
    let listener = match options.endpoint {
        Endpoint::Stdio => None,
        Endpoint::WebSocket(address) => Some(listen(address, &options.auth).await?),
    };
    let url = match &listener {
        Some(listener) => listener
            .local_addr()
            .ok()
            .map(|address| format!("ws://{address}")),
        None => None,
    };
    let identity = Arc::new(identity);
    let mut builder = Harness::builder().here();
    if let Some(traces) = &options.traces {
        builder = builder.traces(traces);
    }
    let provider = provider(&target);
    let copy = StaticKeypair::from_private(identity.expose_private().to_owned().into());
    let base = builder.identity(copy).connect(target.clone()).await?;
    let variable = |name: &str| is_local.then(|| std::env::var_os(name)).flatten();
    let (home, temporary) = (variable("HOME"), variable("TMPDIR"));
    let bytes =
        |value: &Option<std::ffi::OsString>| value.as_ref().map(|value| value.as_encoded_bytes().to_vec());
    let environment = gateway::environment(
        base.environment(),
        &provider,
        bytes(&home).as_deref(),
        bytes(&temporary).as_deref(),
    );
    let capabilities = &base.environment().capabilities;
    let confines = capabilities.iter().any(|capability| capability == CONFINES);
    let wish = match options.sandbox {
        Sandbox::Off => Wish::PassedOver,
        Sandbox::Enforced if confines => Wish::Enforced,
        Sandbox::Enforced | Sandbox::Refused => Wish::Refused,
    };
    let behind = Behind {
        base,
        identity,
        target,
        environment: Rc::new(environment),
    };
    let rules = Rules {
        retention_bytes: options.retention_bytes,
        wish,
    };
    Ok((Gateway::new(behind, rules, options.detached_life), listener, url))
}

async fn listen(address: SocketAddr, auth: &Auth) -> Result<tokio::net::TcpListener, DialectError> {
    if !address.ip().is_loopback() && !auth.asks() {
        return Err(DialectError::Unguarded(address));
    }
    tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| DialectError::Listen { address, source })
}

/// An executor's name that stays the same as long as its key does.
fn provider(target: &Target) -> String {
    use std::fmt::Write as _;
    let hash = ring::digest::digest(&ring::digest::SHA256, &target.executor.0);
    hash.as_ref().iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}
