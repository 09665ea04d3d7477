//! What a client makes of one process's events: each once, in their order, and to the end. A pure core.
//!
//! Events are pushed, and in most calls nothing is asked. `process/read` from behind the last event that was applied is the
//! recovery where pushing is not enough: whoever receives fell behind, a number is missing, an end came from a server that
//! does not say whether its sandbox had a hand in it, or the connection was another one meanwhile. What a read cannot
//! bring any more is an error and never a silence.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::process::{Closed, Exited, Output, ReadAnswer, StreamName};

/// Events that may wait for one with a lower number. The event that closes the gap needs no room.
pub const PENDING_MAX: usize = 256;
/// Bytes of output of those.
pub const PENDING_MAX_BYTES: usize = 1024 * 1024;

/// Something that a process told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// It wrote.
    Output(StreamName, Bytes),
    /// It ended. Output may follow.
    Exited {
        /// Its code, 128 and the signal, or -1.
        code: i32,
        /// Whether what confined it seems to have stopped it; `None`: the server does not say.
        sandbox_denied: Option<bool>,
    },
    /// Nothing follows.
    Closed,
}

impl Told {
    fn bytes(&self) -> usize {
        match self {
            Self::Output(_, bytes) => bytes.len(),
            Self::Exited { .. } | Self::Closed => 0,
        }
    }
}

/// An event as it came: its number among its process's events, and what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Numbered {
    /// From 1, without gaps, over all three kinds.
    pub seq: u64,
    /// What happened.
    pub told: Told,
}

impl From<Output> for Numbered {
    fn from(output: Output) -> Self {
        Self {
            seq: output.seq,
            told: Told::Output(output.stream, output.chunk.0),
        }
    }
}

impl From<Exited> for Numbered {
    fn from(exited: Exited) -> Self {
        Self {
            seq: exited.seq,
            told: Told::Exited {
                code: exited.exit_code,
                sandbox_denied: exited.sandbox_denied,
            },
        }
    }
}

impl From<Closed> for Numbered {
    fn from(closed: Closed) -> Self {
        Self {
            seq: closed.seq,
            told: Told::Closed,
        }
    }
}

/// Why a process cannot be followed any further. It is to be ended, and its call is an error.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FollowError {
    /// The server keeps less than was missed.
    #[error(
        "events {from} to {to} of the process are not kept any more, and what it wrote cannot be told whole: read its \
         output faster, or let it write less at a time"
    )]
    NotRetained {
        /// The first one that is missing.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A read brought nothing new although the server had told of more.
    #[error("the server told of event {told}, and a read ends at {read}: it contradicts itself")]
    NoProgress {
        /// What was told of.
        told: u64,
        /// Up to where the read went.
        read: u64,
    },
    /// More waits for an event than may.
    #[error(
        "more than {PENDING_MAX} events or {PENDING_MAX_BYTES} bytes wait for event {missing} of the process"
    )]
    TooMuchPending {
        /// What they wait for.
        missing: u64,
    },
    /// Something has a number behind the end, or the end has another number than before.
    #[error("event {seq} of the process came behind its end, {end}")]
    BehindTheEnd {
        /// The number.
        seq: u64,
        /// The end's.
        end: u64,
    },
    /// The server knows why nothing is known.
    #[error("the server lost the process: {0}")]
    Failed(String),
}

/// One process, as its client sees it.
#[derive(Debug, Default)]
pub struct Follower {
    /// The last event that was applied.
    last: u64,
    pending: BTreeMap<u64, Told>,
    pending_bytes: usize,
    /// The highest number that was heard of.
    highest: u64,
    /// A read is under way; and what had been heard of when it was made.
    reading: bool,
    asked: u64,
    /// What makes a read necessary once the one under way is back.
    missed: bool,
    exited: bool,
    /// An end whose verdict is asked for.
    unjudged: Option<i32>,
    end: Option<u64>,
    closed: bool,
}

impl Follower {
    /// From the process's start on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Behind which event a read is to begin.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether nothing follows.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Events that wait for one with a lower number.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// An event was pushed. What can be told now is, in order. True: a read is to be made.
    ///
    /// # Errors
    /// The process cannot be followed any further.
    pub fn pushed(&mut self, event: Numbered, mut tell: impl FnMut(Told)) -> Result<bool, FollowError> {
        let Numbered { seq, told } = event;
        if seq <= self.last || self.closed {
            return Ok(false);
        }
        self.judge_end(seq, &told)?;
        self.highest = self.highest.max(seq);
        if seq == self.last + 1 && self.unjudged.is_none() {
            self.apply(seq, told, &mut tell);
            self.drain(&mut tell);
        } else if !self.pending.contains_key(&seq) {
            let bytes = self.pending_bytes + told.bytes();
            if self.pending.len() >= PENDING_MAX || bytes > PENDING_MAX_BYTES {
                return Err(FollowError::TooMuchPending {
                    missing: self.last + 1,
                });
            }
            self.pending_bytes = bytes;
            self.pending.insert(seq, told);
        }
        Ok(self.wants_read())
    }

    /// Whoever receives has lost events, and does not know which. True: a read is to be made.
    pub fn lagged(&mut self) -> bool {
        if self.closed {
            return false;
        }
        self.missed = true;
        self.wants_read()
    }

    /// A read that was under way is not answered: its connection is gone.
    pub fn unanswered(&mut self) {
        self.missed |= std::mem::replace(&mut self.reading, false);
    }

    /// The session goes on over another connection: what was told meanwhile was told to nobody. True: a read is to be made.
    pub fn resumed(&mut self) -> bool {
        self.unanswered();
        self.lagged()
    }

    /// A read from behind `last` was answered. True: another is to be made.
    ///
    /// # Errors
    /// The process cannot be followed any further.
    pub fn read(&mut self, answer: ReadAnswer, mut tell: impl FnMut(Told)) -> Result<bool, FollowError> {
        self.reading = false;
        if self.closed {
            return Ok(false);
        }
        if let Some(why) = answer.failure {
            return Err(FollowError::Failed(why));
        }
        let to = answer.next_seq.saturating_sub(1);
        // What was told since may be newer than the answer.
        if to < self.asked {
            return Err(FollowError::NoProgress {
                told: self.asked,
                read: to,
            });
        }
        if answer.exited {
            if let Some(code) = self.unjudged.take() {
                self.tell_exit(code, answer.sandbox_denied, &mut tell);
            }
        } else if self.unjudged.is_some() && self.asked >= self.last {
            // The answer is not older than the exit, and does not know of it.
            return Err(FollowError::NoProgress {
                told: self.last,
                read: to,
            });
        }
        for chunk in answer.chunks {
            if chunk.seq > self.last && chunk.seq <= to {
                self.forget(chunk.seq);
                self.pending
                    .insert(chunk.seq, Told::Output(chunk.stream, chunk.chunk.0));
            }
        }
        self.complete(
            to,
            (answer.exited, answer.closed),
            answer.exit_code,
            answer.sandbox_denied,
        )?;
        self.highest = self.highest.max(to);
        self.pending_bytes = 0;
        self.drain(&mut tell);
        self.pending_bytes = self.pending.values().map(Told::bytes).sum();
        Ok(self.wants_read())
    }

    /// Puts the ends that a read tells of where their numbers are missing, and looks whether any other is.
    fn complete(
        &mut self,
        to: u64,
        (exited, closed): (bool, bool),
        code: Option<i32>,
        denied: bool,
    ) -> Result<(), FollowError> {
        if closed {
            self.judge_end(to, &Told::Closed)?;
            if to > self.last {
                self.pending.insert(to, Told::Closed);
            }
        }
        let missing: Vec<u64> = (self.last + 1..=to)
            .filter(|seq| !self.pending.contains_key(seq))
            // More than one is one too many, whichever.
            .take(2)
            .collect();
        let is_known = self.exited
            || self
                .pending
                .values()
                .any(|told| matches!(told, Told::Exited { .. }));
        match missing[..] {
            [] => {}
            [seq] if exited && !is_known => {
                let told = Told::Exited {
                    code: code.unwrap_or(UNKNOWN_CODE),
                    sandbox_denied: Some(denied),
                };
                self.pending.insert(seq, told);
            }
            [from, ..] => {
                let next = self.pending.range(from..).next().map(|(seq, _)| *seq);
                let to = next.map_or(to, |next| to.min(next - 1));
                return Err(FollowError::NotRetained { from, to });
            }
        }
        // A verdict that this server gives when it is asked, and only of what it knows then.
        for told in self.pending.values_mut().filter(|_| exited) {
            if let Told::Exited { sandbox_denied, .. } = told {
                *sandbox_denied = Some(sandbox_denied.unwrap_or(false) || denied);
            }
        }
        Ok(())
    }

    /// Nothing comes behind the end, and it has one number.
    fn judge_end(&mut self, seq: u64, told: &Told) -> Result<(), FollowError> {
        let behind = |end| FollowError::BehindTheEnd { seq, end };
        match (self.end, told) {
            (Some(end), Told::Closed) if seq != end => Err(behind(end)),
            (Some(end), Told::Output(..) | Told::Exited { .. }) if seq >= end => Err(behind(end)),
            (None, Told::Closed) => {
                if let Some((last, _)) = self.pending.last_key_value()
                    && *last >= seq
                    && self.pending.get(&seq) != Some(&Told::Closed)
                {
                    return Err(FollowError::BehindTheEnd { seq: *last, end: seq });
                }
                self.end = Some(seq);
                Ok(())
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    fn forget(&mut self, seq: u64) {
        if let Some(told) = self.pending.remove(&seq) {
            self.pending_bytes = self.pending_bytes.saturating_sub(told.bytes());
        }
    }

    fn drain(&mut self, tell: &mut impl FnMut(Told)) {
        while self.unjudged.is_none()
            && let Some(told) = self.pending.remove(&(self.last + 1))
        {
            self.pending_bytes = self.pending_bytes.saturating_sub(told.bytes());
            self.apply(self.last + 1, told, tell);
        }
    }

    fn apply(&mut self, seq: u64, told: Told, tell: &mut impl FnMut(Told)) {
        self.last = seq;
        match told {
            Told::Exited {
                code,
                sandbox_denied: None,
            } => self.unjudged = Some(code),
            Told::Exited {
                code,
                sandbox_denied: Some(denied),
            } => self.tell_exit(code, denied, tell),
            Told::Closed => {
                self.closed = true;
                self.pending.clear();
                tell(Told::Closed);
            }
            output @ Told::Output(..) => tell(output),
        }
    }

    fn tell_exit(&mut self, code: i32, denied: bool, tell: &mut impl FnMut(Told)) {
        if !std::mem::replace(&mut self.exited, true) {
            tell(Told::Exited {
                code,
                sandbox_denied: Some(denied),
            });
        }
    }

    /// Whether a read is to be made now: one at a time.
    fn wants_read(&mut self) -> bool {
        let is_behind = self.missed || self.unjudged.is_some() || !self.pending.is_empty();
        if self.closed || self.reading || !is_behind {
            return false;
        }
        (self.reading, self.missed, self.asked) = (true, false, self.highest);
        true
    }
}

/// An exit code that nobody knows.
const UNKNOWN_CODE: i32 = -1;

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
