//! Processes: what to start, what can be done to one, and what it tells.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::timings::Timings;

/// Most bytes one `Output` or `Write` carries.
pub const CHUNK_MAX_BYTES: usize = 64 * 1024;

/// One of a process's two outputs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OutputStream {
    /// Standard output.
    #[serde(rename = "o")]
    Stdout,
    /// Standard error.
    #[serde(rename = "e")]
    Stderr,
}

impl OutputStream {
    /// 0 for standard output, 1 for standard error.
    pub fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

/// Which of the executor's own variables a command inherits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Inherit {
    /// A short list of harmless ones.
    #[default]
    #[serde(rename = "core")]
    Core,
    /// All that do not look like secrets.
    #[serde(rename = "all")]
    All,
    /// None.
    #[serde(rename = "none")]
    None,
}

/// How a command's environment is made.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EnvironmentPolicy {
    /// What is inherited.
    pub inherit: Inherit,
    /// What is set, also when it would be withheld.
    #[serde(default)]
    pub set: Vec<(ByteBuf, ByteBuf)>,
    /// What is removed.
    #[serde(default)]
    pub unset: Vec<ByteBuf>,
}

/// Starts a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Program and arguments, as bytes.
    pub argv: Vec<ByteBuf>,
    /// Working directory; absent: the executor's own.
    #[serde(default)]
    pub cwd: Option<ByteBuf>,
    /// Its environment.
    #[serde(default)]
    pub env: EnvironmentPolicy,
    /// Whether it gets a pipe as standard input; else it reads nothing.
    #[serde(default)]
    pub stdin: bool,
    /// First credit of each output stream, in bytes.
    pub credit: u64,
    /// Time between TERM and KILL when its link is lost, in milliseconds.
    pub grace_ms: u32,
    /// The span that the process's own spans belong under: the call, not the request, which ends long before.
    #[serde(default)]
    pub launch: Option<ByteBuf>,
}

/// What contains a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Containment {
    /// Its process group only.
    ProcessGroup,
    /// Something this version does not know.
    Other(String),
}

impl From<String> for Containment {
    fn from(text: String) -> Self {
        match text.as_str() {
            "process-group" => Self::ProcessGroup,
            _ => Self::Other(text),
        }
    }
}

impl From<Containment> for String {
    fn from(containment: Containment) -> Self {
        match containment {
            Containment::ProcessGroup => "process-group".into(),
            Containment::Other(text) => text,
        }
    }
}

/// The process runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Started {
    /// Its id on the executor's machine.
    pub pid: u32,
    /// What `terminate` and the executor's end rest on.
    pub containment: Containment,
    /// Names of inherited variables that were withheld because they look like secrets.
    #[serde(default)]
    pub withheld: Vec<String>,
}

/// Writes to a process's standard input.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Write {
    /// Where in the stream these bytes stand.
    pub offset: u64,
    /// The bytes; at most `CHUNK_MAX_BYTES`.
    pub data: Bytes,
    /// Whether the stream ends behind them.
    #[serde(default)]
    pub eof: bool,
}

/// The bytes before this offset have been written to the process's pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Written {
    /// Offset of the next byte.
    pub offset: u64,
}

/// Sends a signal to the process's leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signal {
    /// The signal's number on the executor's system.
    pub signal: i32,
}

/// Ends a process: TERM and CONT, then KILL when the grace is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Terminate {
    /// The grace in milliseconds.
    pub grace_ms: u32,
}

/// Asks for the events after a sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Read {
    /// The last event already known; 0 for none.
    pub after: u64,
    /// Most bytes of output wanted.
    pub max_bytes: u32,
    /// How long to wait for an event when there is none, in milliseconds.
    pub wait_ms: u32,
}

/// The events asked for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReadReply {
    /// In order.
    pub events: Vec<Event>,
    /// The sequence number the next event will have.
    pub next: u64,
    /// Whether `Closed` is among them or before them.
    pub closed: bool,
    /// Whether events after `after` are no longer kept.
    pub truncated: bool,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    #[serde(rename = "code")]
    Code(i32),
    /// A signal ended it.
    #[serde(rename = "signal")]
    Signal(i32),
}

impl ExitStatus {
    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// What a shell would report: the code, or 128 and the signal.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            // The peer's word: a number no system has must not panic.
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// Bytes a process wrote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Output {
    /// Number of this event among the process's events, from 1.
    #[serde(rename = "n")]
    pub event: u64,
    /// Which output.
    #[serde(rename = "s")]
    pub stream: OutputStream,
    /// Where in that output these bytes stand.
    #[serde(rename = "o")]
    pub offset: u64,
    /// The bytes; 1 to `CHUNK_MAX_BYTES`.
    #[serde(rename = "d")]
    pub data: Bytes,
}

/// The wait status of a process is known. Output may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exited {
    /// Number of this event among the process's events.
    pub event: u64,
    /// How it ended.
    pub status: ExitStatus,
    /// Whether it left a core.
    #[serde(default)]
    pub core_dumped: bool,
    /// Bytes of standard output sent before this.
    pub stdout_end: u64,
    /// Bytes of standard error sent before this.
    pub stderr_end: u64,
}

/// Nothing follows of this process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Closed {
    /// Number of this event among the process's events.
    pub event: u64,
    /// How it ended, where that is known.
    #[serde(default)]
    pub status: Option<ExitStatus>,
    /// Bytes of standard output in all.
    pub stdout_end: u64,
    /// Bytes of standard error in all.
    pub stderr_end: u64,
    /// Whether every pipe reached its end; else somebody still held one when the drain grace was over.
    pub drained: bool,
    /// The executor's account of the call.
    #[serde(default)]
    pub timings: Timings,
}

/// What a process tells, each with its number.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// It wrote.
    #[serde(rename = "output")]
    Output(Output),
    /// It ended.
    #[serde(rename = "exited")]
    Exited(Exited),
    /// Its pipes ended.
    #[serde(rename = "closed")]
    Closed(Closed),
}

impl Event {
    /// Its number among the process's events.
    pub fn number(&self) -> u64 {
        match self {
            Self::Output(output) => output.event,
            Self::Exited(exited) => exited.event,
            Self::Closed(closed) => closed.event,
        }
    }
}
