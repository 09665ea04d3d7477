//! The account of one call on the executor, in durations. Never wall clocks.

use serde::{Deserialize, Serialize};

/// The executor's segments of one call, in microseconds: differences of neighbouring stamps of one causal chain, so
/// none overlaps another. Unknown segments of a newer executor are passed over, absent ones are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// From the arrival of the request's first record until it was handed on, decoded.
    #[serde(rename = "rx")]
    pub receive: u64,
    /// Waiting in mailboxes.
    #[serde(rename = "mb")]
    pub mailbox: u64,
    /// Deciding whether it is served.
    #[serde(rename = "ad")]
    pub admission: u64,
    /// Choosing who serves it.
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
    /// Ordering and handing on the answer.
    #[serde(rename = "de")]
    pub delivery: u64,
    /// The whole chain, first stamp to last.
    #[serde(rename = "to")]
    pub total: u64,
}

impl Timings {
    /// The chain's segments by name, in chain order.
    pub fn segments(&self) -> [(&'static str, u64); 9] {
        [
            ("receive", self.receive),
            ("mailbox", self.mailbox),
            ("admission", self.admission),
            ("dispatch", self.dispatch),
            ("spawn_queue", self.spawn_queue),
            ("spawn", self.spawn),
            ("run", self.run),
            ("drain", self.drain),
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
