//! Processes: what to start, what can be done to one, and what it tells.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::confinement::Confinement;
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

/// How a command's environment is made: inherited by `inherit`, then narrowed by `include` and `exclude`, then `set`
/// and `unset`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EnvironmentPolicy {
    /// What is inherited.
    pub inherit: Inherit,
    /// Patterns of names, `*` for any run of bytes and `?` for one. Not empty: of what is inherited only these stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<ByteBuf>,
    /// Patterns of names that are not inherited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<ByteBuf>,
    /// Whether names that look like secrets are inherited like any other.
    #[serde(default, skip_serializing_if = "is_false")]
    pub secrets: bool,
    /// What is set, also when it would be withheld.
    #[serde(default)]
    pub set: Vec<(ByteBuf, ByteBuf)>,
    /// What is removed.
    #[serde(default)]
    pub unset: Vec<ByteBuf>,
}

/// A terminal's size, in characters. The executor makes of 0 the usual 24 or 80, and of more than it gives, what it
/// gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A terminal for a command, in place of its three pipes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pty {
    /// Its size at the start.
    pub size: TerminalSize,
    /// What it says it is, as `TERM`.
    pub term: String,
}

/// What a command may use at the most, it and each process it starts. Absent: as the executor itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Milliseconds from its start until it is terminated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// Open descriptors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Address space in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_space_bytes: Option<u64>,
    /// Processes and threads of the same user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// The largest core file in bytes; 0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_bytes: Option<u64>,
    /// The largest file that may be written, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Processor time in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Priority, from -20 (first) to 19 (last).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<i8>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How long pipes that others hold are read after the exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drain {
    /// Milliseconds without output after which they are given up.
    pub idle_ms: u32,
    /// Milliseconds after which they are given up in any case.
    pub total_ms: u32,
}

impl Default for Drain {
    /// 2 s without output, 5 s in all.
    fn default() -> Self {
        Self {
            idle_ms: 2_000,
            total_ms: 5_000,
        }
    }
}

/// Starts a process.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Start {
    /// Program and arguments, as bytes.
    pub argv: Vec<ByteBuf>,
    /// The program, where it is not what the command is told as its own name: that stays `argv`'s first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ByteBuf>,
    /// Working directory; absent: the executor's own.
    #[serde(default)]
    pub cwd: Option<ByteBuf>,
    /// Its environment.
    #[serde(default)]
    pub env: EnvironmentPolicy,
    /// Whether it gets a pipe as standard input; else it reads nothing.
    #[serde(default)]
    pub stdin: bool,
    /// A terminal in place of the pipes; `stdin` then says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pty: Option<Pty>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// How long held pipes are read after its exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// Bytes of output kept to be read again; absent: the executor's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_bytes: Option<u64>,
    /// What happens to output that nobody takes once its spool is full.
    #[serde(default, skip_serializing_if = "Overflow::is_block")]
    pub overflow: Overflow,
    /// Bytes of output kept on the executor's disk while nobody takes them; absent: the executor's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool_bytes: Option<u64>,
    /// What it may reach; absent: whatever the executor may. Only to an executor that says it can: an older one would
    /// pass it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
    /// Whether it may outlive the executor.
    #[serde(default, skip_serializing_if = "is_false")]
    pub outlive: bool,
    /// Whether nobody takes its events until a client asks for them with a `Resume`: past its first credit its output
    /// goes to the spool, link or no link.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unattended: bool,
    /// First credit of each output stream, in bytes.
    pub credit: u64,
    /// Time between TERM and KILL when its link is lost or its time is over, in milliseconds.
    pub grace_ms: u32,
    /// The span that the process's own spans belong under: the call, not the request, which ends long before.
    #[serde(default)]
    pub launch: Option<ByteBuf>,
}

impl Start {
    /// What is executed, if the command has anything.
    pub fn executed(&self) -> Option<&ByteBuf> {
        self.program.as_ref().or(self.argv.first())
    }
}

/// What happens to output for which there is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Overflow {
    /// The process waits.
    #[default]
    #[serde(rename = "block")]
    Block,
    /// The process never waits: the oldest output that nobody has taken is dropped, and a `Gap` says how much.
    #[serde(rename = "ring")]
    Ring,
}

impl Overflow {
    fn is_block(&self) -> bool {
        *self == Self::Block
    }
}

/// Declares a choice that is a word on the wire, and may be a word this version does not know.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// Something this version does not know.
            Other(String),
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($word => Self::$variant,)*
                    _ => Self::Other(text),
                }
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                match value {
                    $($name::$variant => $word.into(),)*
                    $name::Other(text) => text,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)*
                    Self::Other(text) => text,
                })
            }
        }
    };
}

words! {
    /// What ends a process when the executor dies.
    ExecutorDeath {
        /// The kernel, which ends the namespace of process ids it is in.
        PidNamespace = "pid-namespace",
        /// A guard, which hunts what it started.
        GuardHunt = "guard-hunt",
        /// Nothing, as asked: it is detached.
        Outlives = "outlives",
        /// Nothing.
        Nothing = "nothing",
    }
}

words! {
    /// What finds a process's descendants when it is terminated.
    TreeHold {
        /// A control group, and descent.
        Cgroup = "cgroup",
        /// Descent from a subreaper of its own.
        Subreaper = "subreaper",
        /// Its process group, which a descendant may leave.
        ProcessGroup = "process-group",
    }
}

/// What the two duties of containment rest on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Containment {
    /// What ends it when the executor dies.
    pub executor_death: ExecutorDeath,
    /// What finds its descendants when it is terminated.
    pub tree: TreeHold,
}

/// The process runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Started {
    /// Its id, as other commands of this executor see it.
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

/// Whom a signal is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum SignalTarget {
    /// The process that was started.
    #[default]
    #[serde(rename = "leader")]
    Leader,
    /// Its terminal's foreground job; without a terminal, its process group.
    #[serde(rename = "foreground")]
    Foreground,
    /// It and all its descendants.
    #[serde(rename = "tree")]
    Tree,
}

impl SignalTarget {
    fn is_leader(&self) -> bool {
        *self == Self::Leader
    }
}

/// Sends a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signal {
    /// The signal's number on the executor's system.
    pub signal: i32,
    /// To whom.
    #[serde(default, skip_serializing_if = "SignalTarget::is_leader")]
    pub target: SignalTarget,
    /// The session the process is in, where it is another one of the same client.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
}

/// Gives the terminal another size: the foreground job is told. Answered also when the process has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resize {
    /// The size.
    pub size: TerminalSize,
}

/// Ends a process: TERM and CONT, then KILL when the grace is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Terminate {
    /// The grace in milliseconds.
    pub grace_ms: u32,
    /// The session the process is in, where it is another one of the same client.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
}

/// What became of the processes that were told to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Terminated {
    /// Those that had to be killed.
    #[serde(default)]
    pub killed: u32,
    /// Those that were still there after that: the kernel does not let go of them.
    #[serde(default)]
    pub unkillable: u32,
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
    /// The session the process is in, where it is another one of the same client.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
}

/// Output that is no longer kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// Of which output.
    pub stream: OutputStream,
    /// Its first byte that is missing.
    pub from: u64,
    /// The first that is not.
    pub to: u64,
}

impl Gap {
    /// How many bytes are missing.
    pub fn bytes(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
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
    /// Which output was in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// Whether nothing but `Closed` can follow these events: it has exited, and its outputs are at their end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ended: bool,
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

/// What a process and those it waited for have used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in its own code, in microseconds.
    pub user_us: u64,
    /// Processor time in the kernel, in microseconds.
    pub system_us: u64,
    /// The most memory one of them held, in bytes.
    pub max_rss_bytes: u64,
}

/// Why the executor ended a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ending {
    /// Its time was over.
    #[serde(rename = "deadline")]
    Deadline,
    /// Its client asked for it.
    #[serde(rename = "terminated")]
    Terminated,
    /// Its session ended.
    #[serde(rename = "session")]
    Session,
}

/// Bytes a process wrote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Output {
    /// Number of this event among the process's events, from 1; 0 where it repeats what was lost with a link.
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

/// Output that was dropped, or is no longer kept: its consumer goes on behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// Number of this event among the process's events; 0 where it repeats what was lost with a link.
    #[serde(rename = "n")]
    pub event: u64,
    /// Which output.
    #[serde(rename = "s")]
    pub stream: OutputStream,
    /// The first byte that is missing.
    #[serde(rename = "f")]
    pub from: u64,
    /// The first that is not.
    #[serde(rename = "t")]
    pub to: u64,
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
    /// Whether the kernel killed it, or one of its own, for want of memory. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// What it has used. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Why the executor ended it, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
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
    /// How many processes still held one then, as far as is known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub holders: u32,
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
    /// Some of what it wrote is gone.
    #[serde(rename = "gap")]
    Gap(Skipped),
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
            Self::Gap(skipped) => skipped.event,
            Self::Exited(exited) => exited.event,
            Self::Closed(closed) => closed.event,
        }
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}
