//! The account of one call on the executor, in durations. Never wall clocks.

use serde::{Deserialize, Serialize};

/// The executor's segments of one call, in microseconds: differences of neighbouring stamps of one causal chain, so
/// none overlaps another. Unknown segments of a newer executor are passed over, absent ones are 0.
///
/// `receive` and `mailbox` are sums that older ends know; their parts travel beside them, and what no part names of a
/// sum is a segment of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// From the arrival of the request's first record until it was handed on, decoded: `open`, `decode` and `hand_off`
    /// are parts of it, and the rest is its wait for the framer.
    #[serde(rename = "rx")]
    pub receive: u64,
    /// Part of `receive`: opening the record that completes it, and putting it together.
    #[serde(rename = "op", skip_serializing_if = "is_zero")]
    pub open: u64,
    /// Part of `receive`: decoding.
    #[serde(rename = "dc", skip_serializing_if = "is_zero")]
    pub decode: u64,
    /// Part of `receive`: from there into the `RpcQueue`'s mailbox.
    #[serde(rename = "ho", skip_serializing_if = "is_zero")]
    pub hand_off: u64,
    /// Waiting in mailboxes, all of them.
    #[serde(rename = "mb")]
    pub mailbox: u64,
    /// Part of `mailbox`: the `RpcQueue`'s, on both ways.
    #[serde(rename = "mq", skip_serializing_if = "is_zero")]
    pub rpc_mailbox: u64,
    /// Part of `mailbox`: the `Dispatcher`'s.
    #[serde(rename = "md", skip_serializing_if = "is_zero")]
    pub dispatcher_mailbox: u64,
    /// Part of `mailbox`: the `ProcessSupervisor`'s.
    #[serde(rename = "ms", skip_serializing_if = "is_zero")]
    pub supervisor_mailbox: u64,
    /// Part of `mailbox`: the `Process`'s.
    #[serde(rename = "mp", skip_serializing_if = "is_zero")]
    pub process_mailbox: u64,
    /// Part of `mailbox`: the `TerminalDelivery`'s.
    #[serde(rename = "mt", skip_serializing_if = "is_zero")]
    pub delivery_mailbox: u64,
    /// Deciding whether it is served.
    #[serde(rename = "ad")]
    pub admission: u64,
    /// Choosing who serves it, and preparing that.
    #[serde(rename = "di")]
    pub dispatch: u64,
    /// Waiting for the thread that spawns.
    #[serde(rename = "sq")]
    pub spawn_queue: u64,
    /// Starting the child.
    #[serde(rename = "sp")]
    pub spawn: u64,
    /// From the child's start to its first byte of output; beside the chain, not part of its sum.
    #[serde(rename = "fb")]
    pub first_byte: u64,
    /// The child itself.
    #[serde(rename = "ru")]
    pub run: u64,
    /// From the child's end to the end of its pipes.
    #[serde(rename = "dr")]
    pub drain: u64,
    /// Serving a request that starts nothing: a write until the pipe took it, a read until there was something to read.
    #[serde(rename = "ha", skip_serializing_if = "is_zero")]
    pub handler: u64,
    /// Ordering and handing on the answer.
    #[serde(rename = "de")]
    pub delivery: u64,
    /// How long the relay kept the request, by its word; beside the chain, before its first stamp.
    #[serde(rename = "re", skip_serializing_if = "is_zero")]
    pub relay: u64,
    /// The whole chain, first stamp to last.
    #[serde(rename = "to")]
    pub total: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// How many segments the executor's chain has.
pub const EXECUTOR_SEGMENTS: usize = 18;

impl Timings {
    /// The chain's segments by name, in chain order. Each stands for itself: `receive` and `mailbox` are here what their
    /// parts leave of them.
    pub fn segments(&self) -> [(&'static str, u64); EXECUTOR_SEGMENTS] {
        let rest = |sum: u64, parts: &[u64]| parts.iter().fold(sum, |rest, part| rest.saturating_sub(*part));
        let mailboxes = [
            self.rpc_mailbox,
            self.dispatcher_mailbox,
            self.supervisor_mailbox,
            self.process_mailbox,
            self.delivery_mailbox,
        ];
        [
            (
                "receive",
                rest(self.receive, &[self.open, self.decode, self.hand_off]),
            ),
            ("open", self.open),
            ("decode", self.decode),
            ("hand_off", self.hand_off),
            ("mailbox", rest(self.mailbox, &mailboxes)),
            ("mailbox.rpc", self.rpc_mailbox),
            ("admission", self.admission),
            ("mailbox.dispatcher", self.dispatcher_mailbox),
            ("dispatch", self.dispatch),
            ("mailbox.supervisor", self.supervisor_mailbox),
            ("mailbox.process", self.process_mailbox),
            ("spawn_queue", self.spawn_queue),
            ("spawn", self.spawn),
            ("run", self.run),
            ("drain", self.drain),
            ("handler", self.handler),
            ("mailbox.delivery", self.delivery_mailbox),
            ("delivery", self.delivery),
        ]
    }

    /// All segments of the chain together, in microseconds; at most `u64::MAX`.
    pub fn named_sum(&self) -> u64 {
        // The peer's word: a sum that does not fit must not panic.
        self.segments()
            .iter()
            .fold(0, |sum, (_, micros)| sum.saturating_add(*micros))
    }

    /// What the chain's length has that no segment names, in microseconds.
    pub fn unattributed(&self) -> u64 {
        self.total.saturating_sub(self.named_sum())
    }
}
