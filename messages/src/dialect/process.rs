//! Processes: what is asked of them, and what they tell.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::blob::Blob;
use super::session::{InheritName, ShellInfo};
use crate::process::OutputStream;

/// Starts a process. Its fields stand in their positional order.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// What its client calls it; any text.
    pub process_id: String,
    /// Whose turn it is part of. Not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its directory, as URI.
    pub cwd: String,
    /// What it inherits; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_policy: Option<EnvPolicy>,
    /// A shell whose state it would have. Not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell_snapshot: Option<Snapshot>,
    /// What its environment has in any case.
    pub env: BTreeMap<String, String>,
    /// Whether it runs on a terminal.
    pub tty: bool,
    /// Whether it gets a pipe as standard input.
    #[serde(default)]
    pub pipe_stdin: bool,
    /// What it is told it is called, in place of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arg0: Option<String>,
    /// What confines it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Value>,
    /// Whether it may reach the network through a proxy alone.
    #[serde(default)]
    pub enforce_managed_network: bool,
    /// What else of the network it may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_network: Option<Value>,
    /// The proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_proxy: Option<Value>,
}

/// Arguments and variables stay out of logs.
impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start")
            .field("process_id", &self.process_id)
            .field("tty", &self.tty)
            .field("pipe_stdin", &self.pipe_stdin)
            .finish_non_exhaustive()
    }
}

/// What a command inherits of the executor's own variables, and what becomes of that.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvPolicy {
    /// What passes.
    pub inherit: InheritName,
    /// Whether names that look like secrets pass too.
    pub ignore_default_excludes: bool,
    /// Patterns of names that do not pass.
    pub exclude: Vec<String>,
    /// What is added.
    pub set: BTreeMap<String, String>,
    /// Not empty: patterns of which names have to fit one.
    pub include_only: Vec<String>,
}

/// Values stay out of logs.
impl fmt::Debug for EnvPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvPolicy")
            .field("inherit", &self.inherit)
            .finish_non_exhaustive()
    }
}

/// A shell's state, by name.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Whose state.
    pub scope_id: String,
    /// Of which shell.
    pub shell: ShellInfo,
}

/// It runs.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// As its client calls it.
    pub process_id: String,
    /// What confines it; a client refuses what it does not know.
    #[serde(default)]
    pub sandbox_type: Option<String>,
    /// Set where confinement was asked for and the operator has switched it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// Asks for what a process has told.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Read {
    /// Which process.
    pub process_id: String,
    /// What is known already.
    #[serde(default)]
    pub after_seq: Option<u64>,
    /// Most bytes of output wanted, one chunk in any case; absent: all.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// How long to wait where there is nothing.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

/// One chunk that is kept.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Chunk {
    /// Its number among the process's events.
    pub seq: u64,
    /// Of which output.
    pub stream: StreamName,
    /// The bytes.
    pub chunk: Blob,
}

/// What a process has told, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadAnswer {
    /// Output, in order.
    pub chunks: Vec<Chunk>,
    /// Where to go on.
    pub next_seq: u64,
    /// Whether its end is known.
    pub exited: bool,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// Whether nothing follows.
    pub closed: bool,
    /// Why nothing is known of its end.
    pub failure: Option<String>,
    /// Whether what confined it seems to have stopped it.
    #[serde(default)]
    pub sandbox_denied: bool,
}

/// Writes to a process's input.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Write {
    /// Which process.
    pub process_id: String,
    /// The bytes.
    pub chunk: Blob,
    /// What this write is known by when it is repeated.
    pub write_id: String,
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WriteStatus {
    /// It is written, or will be.
    Accepted,
    /// There is no such process.
    UnknownProcess,
    /// It reads nothing.
    StdinClosed,
    /// It does not run yet.
    Starting,
}

/// The answer to a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Accepted {
    /// What became of it.
    pub status: WriteStatus,
}

/// Signals a process.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// Which process.
    pub process_id: String,
    /// The signal.
    pub signal: Interrupt,
}

/// The signals that there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Interrupt {
    /// As if somebody had typed it.
    Interrupt,
}

/// Ends a process.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Terminate {
    /// Which process.
    pub process_id: String,
}

/// The answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
pub struct Terminated {
    /// Whether it ran until now.
    pub running: bool,
}

/// An output's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A terminal, which has only one.
    Pty,
}

impl StreamName {
    /// The name of a process's output.
    pub fn of(stream: OutputStream, tty: bool) -> Self {
        match (stream, tty) {
            (_, true) => Self::Pty,
            (OutputStream::Stdout, false) => Self::Stdout,
            (OutputStream::Stderr, false) => Self::Stderr,
        }
    }
}

/// A process wrote.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Which process.
    pub process_id: String,
    /// The number of this event among the process's events, from 1 and without gaps.
    pub seq: u64,
    /// Which output.
    pub stream: StreamName,
    /// The bytes.
    pub chunk: Blob,
}

/// A process ended. Output may follow.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exited {
    /// Which process.
    pub process_id: String,
    /// The number of this event.
    pub seq: u64,
    /// How it ended: its code, 128 and the signal, or -1.
    pub exit_code: i32,
    /// Whether what confined it seems to have stopped it. Older servers do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_denied: Option<bool>,
}

/// Nothing follows.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Closed {
    /// Which process.
    pub process_id: String,
    /// The number of this event.
    pub seq: u64,
}
