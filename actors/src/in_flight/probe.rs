//! What is to be seen of a mailbox from outside, by a few relaxed loads.

use crate::telemetry::Tick;

/// A mailbox as others may look at it.
pub(crate) trait Probe: Send + Sync {
    /// What it is like now. Every number is exact, but not all of the same instant.
    fn look(&self) -> Look;
}

/// One look at a mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Tells mailboxes of one process apart; never used twice.
    pub(crate) id: u64,
    pub(crate) actor: &'static str,
    /// Its thread's tag; 0 until it has begun.
    pub(crate) thread: u32,
    /// Messages under way: those that wait, the one in a turn, and those whose effects have not left.
    pub(crate) depth: u32,
    /// Of those: their turn is over, and their effects wait for somebody else's room.
    pub(crate) leaving: u32,
    /// Places that are taken, those included that are only reserved or kept.
    pub(crate) taken: u32,
    pub(crate) capacity: u32,
    pub(crate) control_depth: u32,
    /// Messages taken out so far, and control messages.
    pub(crate) dequeued: u64,
    pub(crate) controls: u64,
    pub(crate) turn: Option<TurnSeen>,
    pub(crate) stopped: bool,
}

/// The turn that a mailbox's actor is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TurnSeen {
    /// What it handles: a message's name, or `(control)`.
    pub(crate) message: &'static str,
    /// When that was put into the mailbox; of a control message, when its turn began.
    pub(crate) enqueued: Tick,
}

/// How a turn is written into one word: when its message was enqueued, and which message it is. Zero is no turn.
///
/// The upper 56 bits of a tick would wrap after 278 days at 3 GHz; `unpack` puts them beside the present ones.
const MESSAGE_BITS: u32 = 8;
const MESSAGE_MASK: u64 = (1 << MESSAGE_BITS) - 1;
/// Every turn that is no message's.
pub(crate) const CONTROL_TURN: usize = MESSAGE_MASK as usize - 1;

/// The word of a turn.
#[inline]
pub(crate) fn turn_word(enqueued: Tick, message: usize) -> u64 {
    let message = if message < CONTROL_TURN {
        message
    } else {
        CONTROL_TURN
    };
    (enqueued.to_raw() << MESSAGE_BITS) | (message as u64 + 1)
}

/// The turn of a word.
pub(crate) fn turn_of(word: u64, names: &'static [&'static str]) -> Option<TurnSeen> {
    let message = usize::try_from((word & MESSAGE_MASK).checked_sub(1)?).ok()?;
    let top = Tick::now().to_raw() >> (u64::BITS - MESSAGE_BITS) << (u64::BITS - MESSAGE_BITS);
    Some(TurnSeen {
        message: names.get(message).copied().unwrap_or("(control)"),
        enqueued: Tick::from_raw(top | (word >> MESSAGE_BITS)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_survives_its_word_and_no_turn_is_zero() {
        let names = &["Start", "Write"];
        let now = Tick::now();
        for (message, name) in [
            (0, "Start"),
            (1, "Write"),
            (7, "(control)"),
            (CONTROL_TURN, "(control)"),
            (9_999, "(control)"),
        ] {
            let word = turn_word(now, message);
            assert_ne!(word, 0);
            assert_eq!(
                turn_of(word, names),
                Some(TurnSeen {
                    message: name,
                    enqueued: now
                })
            );
        }
        assert_eq!(turn_of(0, names), None);
    }
}
