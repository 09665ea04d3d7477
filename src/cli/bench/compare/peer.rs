//! What is measured: servers behind one trait, clients of them, and commands that stay.

use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::task::Task;

/// What takes a while, and may fail.
pub(crate) type Soon<'a, T> = Pin<Box<dyn Future<Output = Result<T, Trouble>> + 'a>>;

/// Who is measured. In the order of the tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Name {
    /// Processes of this one, with nothing between.
    Bare,
    Direct,
    Relay,
    Json,
    Codex,
    /// The same server, and a client that acknowledges at once.
    CodexQuick,
    Ssh,
}

impl Name {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Bare => "tokio::process, here",
            Self::Direct => "dwell, direct",
            Self::Relay => "dwell, relay",
            Self::Json => "dwell, JSON dialect",
            Self::Codex => "codex",
            Self::CodexQuick => "codex, quick ACKs",
            Self::Ssh => "ssh, multiplexed",
        }
    }

    /// For programs.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Direct => "dwell_direct",
            Self::Relay => "dwell_relay",
            Self::Json => "dwell_json",
            Self::Codex => "codex",
            Self::CodexQuick => "codex_quick_acks",
            Self::Ssh => "ssh",
        }
    }
}

/// Why there is no figure.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{what} did not come within {seconds} s")]
    Timeout { what: &'static str, seconds: u64 },
    #[error("{what} failed: {why}")]
    Failed { what: &'static str, why: String },
    /// What was measured is not what was asked for.
    #[error("{what} was wrong: {why}")]
    Wrong { what: &'static str, why: String },
}

impl Trouble {
    #[allow(
        clippy::needless_pass_by_value,
        reason = "an error is told here, and of no more use to whoever had it"
    )]
    pub(crate) fn failed(what: &'static str, why: impl ToString) -> Self {
        Self::Failed {
            what,
            why: why.to_string(),
        }
    }

    pub(crate) fn wrong(what: &'static str, why: impl Into<String>) -> Self {
        Self::Wrong {
            what,
            why: why.into(),
        }
    }
}

/// `work`, or the name of what did not come. Everything that is measured stands in one of these.
pub(crate) async fn within<T>(
    what: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Trouble::Timeout {
            what,
            seconds: limit.as_secs(),
        }),
    }
}

/// How a task went that was done as it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ran {
    /// When its first output came.
    pub(crate) first: Option<Instant>,
}

/// What a command that stays stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stands {
    Pipes,
    Terminal,
}

/// A server.
pub(crate) trait Peer {
    fn name(&self) -> Name;

    /// Its program and version, where that is not this one.
    fn version(&self) -> Option<String> {
        None
    }

    /// A client of its own, over a path on which a round trip takes so long.
    fn connect(&self, round_trip: Duration) -> Soon<'_, Rc<dyn Client>>;

    /// The same as somebody who comes for the first time, and for one command.
    fn connect_cold(&self, round_trip: Duration) -> Soon<'_, Rc<dyn Client>> {
        self.connect(round_trip)
    }

    /// The processes that serve, without those that they have started.
    fn servers(&self) -> Vec<u32>;

    /// Those whose memory a session is part of.
    fn holders(&self) -> Vec<u32> {
        self.servers()
    }
}

/// One client's connection.
pub(crate) trait Client {
    /// The least that can be asked and answered; `None` where nothing can.
    fn round_trip(&self) -> Option<Soon<'_, ()>>;

    /// Runs a command to its end and sees that it is what it must be.
    fn run<'a>(&'a self, task: &'a Task) -> Soon<'a, Ran>;

    /// Starts a command that stays; `None` where there is nothing for it to stand on.
    fn open(&self, stands: Stands, argv: Vec<String>) -> Option<Soon<'_, Box<dyn Live>>>;

    /// Goes.
    fn close(self: Rc<Self>) -> Soon<'static, ()>;
}

/// A command that stays.
pub(crate) trait Live {
    /// Writes to its input.
    fn write<'a>(&'a mut self, data: &'a [u8]) -> Soon<'a, ()>;

    /// Its next output; an error when there is none any more.
    fn read(&mut self) -> Soon<'_, Bytes>;

    /// Asks for output, on this connection, that will not come, and waits for the answer to that; `None` where nobody
    /// asks.
    fn poll(&self, wait: Duration) -> Option<Soon<'_, ()>>;

    /// Kills it.
    fn end(self: Box<Self>) -> Soon<'static, ()>;
}
