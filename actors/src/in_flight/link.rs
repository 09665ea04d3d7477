//! A link, or a registration at a relay, and what it waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dwell_messages::StreamId;

use crate::telemetry::Tick;

/// What kind of connection it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkKind {
    /// To the other end, over a connection of its own.
    Direct,
    /// To the other end, through a relay.
    Relayed,
    /// An executor's to its relay.
    Registration,
}

impl LinkKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
            Self::Registration => "registration",
        }
    }
}

/// See the module. A tick of 0 is no moment.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) kind: LinkKind,
    /// Of its stream, the first half: enough to tell links apart, and nothing to find one by.
    pub(crate) stream: u64,
    pub(crate) began: Tick,
    /// The oldest ping without an answer.
    pinged: AtomicU64,
    /// Since when something waits to be sent and may not leave.
    held: AtomicU64,
    /// Bytes that wait then.
    held_bytes: AtomicU64,
    /// The write that is under way on its connection.
    writing: Arc<AtomicU64>,
}

impl Link {
    /// `writing` is its connection's, for all links on it.
    pub(crate) fn new(kind: LinkKind, stream: StreamId, writing: Arc<AtomicU64>) -> Self {
        let mut half = [0; 8];
        half.copy_from_slice(&stream.0[..8]);
        Self {
            kind,
            stream: u64::from_be_bytes(half),
            began: Tick::now(),
            pinged: AtomicU64::new(0),
            held: AtomicU64::new(0),
            held_bytes: AtomicU64::new(0),
            writing,
        }
    }

    /// A ping leaves. The oldest without an answer counts.
    pub(crate) fn pinged(&self) {
        if self.pinged.load(Ordering::Relaxed) == 0 {
            self.pinged.store(Tick::now().to_raw(), Ordering::Relaxed);
        }
    }

    /// An answer came.
    pub(crate) fn heard(&self) {
        self.pinged.store(0, Ordering::Relaxed);
    }

    /// So many bytes wait and may not leave; 0: none do. It has moved when they are fewer than before: what needs no
    /// room passes them all the time, as the answer to a ping does. Only from its connection's thread.
    pub(crate) fn holds(&self, bytes: u64) {
        let before = self.held_bytes.swap(bytes, Ordering::Relaxed);
        if bytes == 0 {
            self.held.store(0, Ordering::Relaxed);
        } else if before == 0 || bytes < before {
            self.held.store(Tick::now().to_raw(), Ordering::Relaxed);
        }
    }

    /// Since when a ping has no answer.
    pub(crate) fn silent_since(&self) -> Option<Tick> {
        moment(&self.pinged)
    }

    /// Since when something may not leave, and how many bytes.
    pub(crate) fn held_since(&self) -> Option<(Tick, u64)> {
        Some((moment(&self.held)?, self.held_bytes.load(Ordering::Relaxed)))
    }

    /// Since when one write has not come to its end.
    pub(crate) fn writing_since(&self) -> Option<Tick> {
        moment(&self.writing)
    }
}

fn moment(cell: &AtomicU64) -> Option<Tick> {
    Some(cell.load(Ordering::Relaxed))
        .filter(|raw| *raw != 0)
        .map(Tick::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_link_has_moved_when_less_of_it_waits_and_not_when_something_passed_it() {
        let link = Link::new(LinkKind::Relayed, StreamId([7; 16]), Arc::default());
        assert_eq!(link.held_since(), None);
        link.holds(100);
        let (first, _) = link.held_since().unwrap();
        // A ping's answer left, and more was queued.
        link.holds(100);
        link.holds(300);
        assert_eq!(link.held_since(), Some((first, 300)));
        link.holds(200);
        assert!(link.held_since().unwrap().0 >= first);
        link.holds(0);
        assert_eq!(link.held_since(), None);
    }

    #[test]
    fn the_oldest_ping_without_an_answer_counts() {
        let link = Link::new(LinkKind::Direct, StreamId([7; 16]), Arc::default());
        link.pinged();
        let first = link.silent_since();
        link.pinged();
        assert!(first.is_some() && link.silent_since() == first);
        link.heard();
        assert_eq!(link.silent_since(), None);
    }
}
