//! The table as it is shown: what `dwell inspect` reads from a process, and what `--json` prints.
//!
//! Durations are microseconds and no moments, since whoever reads it has another clock. Fields are only ever added:
//! readers pass over what they do not know, and `version` changes when something changes its meaning.

use dwell_messages::Role;
use serde::{Deserialize, Serialize};

/// The version of the answer.
pub const VERSION: u32 = 1;
/// Rows of one table in an answer; the oldest come first, and `left_out` counts the rest.
pub const ROWS_MAX: usize = 1_024;

/// What is unfinished in one role of one process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// `VERSION` of whoever answers.
    pub version: u32,
    /// Which role.
    pub role: Role,
    /// Its process.
    pub pid: u32,
    /// dwell's version there.
    pub dwell: String,
    /// How long the role has been there.
    pub up_us: u64,
    /// Its actor threads.
    pub arbiters: Vec<ArbiterView>,
    /// Its mailboxes that hold something or are in a turn, the fullest first; idle ones are counted only.
    pub mailboxes: Vec<MailboxView>,
    /// Mailboxes that are idle.
    pub idle_mailboxes: u64,
    /// Calls under way, the oldest first.
    pub calls: Vec<CallView>,
    /// Processes that run, the oldest first.
    pub processes: Vec<ProcessView>,
    /// Links, the oldest first.
    pub links: Vec<LinkView>,
    /// What a relay passes on.
    #[serde(default)]
    pub relay: Option<RelayView>,
    /// What the watchdog has found stuck.
    pub stuck: Vec<Stuck>,
    /// Warnings of the watchdog since the start.
    pub warnings: u64,
    /// Rows that are not in here.
    pub left_out: u64,
}

/// One actor thread.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ArbiterView {
    /// Its number, as in `MailboxView`; 0 while it has not run anything of the watchdog's.
    pub thread: u32,
    /// How long the watchdog's last task waited until it ran there.
    pub lag_us: u64,
    /// How long the present one has waited, if it has not run.
    pub waiting_us: Option<u64>,
}

/// One mailbox.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MailboxView {
    /// Its actor.
    pub actor: String,
    /// The actor thread it lives on.
    pub thread: u32,
    /// Messages that wait, are in a turn, or whose effects have not left.
    pub depth: u32,
    /// Of those: their turn is over, and what came of it waits for room elsewhere.
    pub leaving: u32,
    /// Places taken, reserved and kept ones included.
    pub taken: u32,
    /// Places there are, all ports together.
    pub capacity: u32,
    /// Control messages that wait.
    pub control_depth: u32,
    /// Messages taken out so far.
    pub dequeued: u64,
    /// What it handles now, if it is in a turn.
    pub turn: Option<String>,
    /// How long ago the message of that turn was put into the mailbox: the oldest one's age.
    pub message_age_us: Option<u64>,
    /// For how long the watchdog has seen nothing taken out although something is in it, or the same turn under way.
    /// Looked at four times within the time after which it warns, so that it may be shorter than the truth by that.
    pub still_us: u64,
}

/// One call.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CallView {
    /// `run`, `request` or `served`.
    pub kind: String,
    /// Its method.
    pub method: String,
    /// Its trace, as 32 hexadecimal digits.
    pub trace_id: String,
    /// Whether that trace is recorded.
    pub sampled: bool,
    /// The process it is about; 0: none yet.
    pub process: u64,
    /// How old it is.
    pub age_us: u64,
    /// Where it is: `hand_off`, `dispatch`, `window`, `link`, `response`, `running`, `draining`, `consumer` on a
    /// harness; `admitted`, `service`, `spawner` on an executor.
    pub at: String,
    /// For how long it has been there.
    pub at_us: u64,
}

/// One process.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ProcessView {
    /// Its number in its session.
    pub process: u64,
    /// Its process id on this machine; 0 while it is being started, and once it is gone.
    pub pid: u32,
    /// The program's name.
    pub program: String,
    /// The trace of the call it runs for.
    pub trace_id: String,
    /// How old it is.
    pub age_us: u64,
    /// `starting`, `running`, `stopped` or `draining`.
    pub state: String,
    /// Of standard output and standard error: what they wait for (`process`, `consumer`, `anybody`, `link`).
    pub waits: [String; 2],
    /// For how long each has waited for that; 0 where it is the process.
    pub waits_us: [u64; 2],
    /// Bytes that came of each.
    pub bytes: [u64; 2],
}

/// One link.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LinkView {
    /// `direct`, `relayed` or `registration`.
    pub kind: String,
    /// Half of its stream's number, as 16 hexadecimal digits: the same at both ends and at the relay.
    pub stream: String,
    /// How old it is.
    pub age_us: u64,
    /// For how long a ping has had no answer.
    pub silent_us: Option<u64>,
    /// For how long something has waited that may not leave, and how many bytes.
    pub held_us: Option<u64>,
    /// Bytes that wait then.
    pub held_bytes: u64,
    /// For how long one write has taken that is not over.
    pub writing_us: Option<u64>,
}

/// A relay's work.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RelayView {
    /// How old this is: the relay's actor brings it up to date four times a second while there is traffic.
    pub as_of_us: u64,
    /// Connections open.
    pub connections: u64,
    /// Connections that have not said what they are.
    pub openings: u64,
    /// Executors registered.
    pub executors: u64,
    /// Streams, half-open ones included; the oldest first.
    pub streams: Vec<StreamView>,
    /// How many streams there are.
    pub streams_total: u64,
    /// Frames dropped since the start, by reason.
    pub dropped: Vec<(String, u64)>,
    /// Turned away since the start, by reason.
    pub refused: Vec<(String, u64)>,
}

/// One stream at a relay.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StreamView {
    /// Half of its number, as 16 hexadecimal digits.
    pub stream: String,
    /// Whether the executor has not answered yet.
    pub half_open: bool,
    /// Harness to executor.
    pub up: FlowView,
    /// Executor to harness.
    pub down: FlowView,
}

/// One direction of a stream at a relay.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FlowView {
    /// Frames that wait.
    pub queued_frames: u64,
    /// How long the oldest of them has waited.
    pub queued_us: u64,
    /// Bytes passed on since the start.
    pub bytes: u64,
    /// Bytes that its sender may still send before the window is opened further.
    pub window_left_bytes: u64,
}

/// Something that has not moved for too long.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stuck {
    /// What: `turn`, `mailbox`, `arbiter`, `stopped_child`, `consumer`, `window`, `silent_peer`, `write`, `relay_flow`.
    pub what: String,
    /// For how long.
    pub for_us: u64,
    /// Who waits for what, and what to do.
    pub text: String,
}
