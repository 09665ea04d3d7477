//! What may be done to a frame.

use std::time::Duration;

use crate::proxy::next_random;

/// What happens to one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameRule {
    /// It never arrives.
    Drop,
    /// It and what follows it arrive later.
    Delay {
        /// By so much.
        by: Duration,
    },
    /// It arrives more than once.
    Duplicate {
        /// So many times more.
        copies: u32,
    },
    /// It arrives behind frames that came after it.
    Reorder {
        /// Behind so many.
        behind: u32,
    },
    /// Only its first bytes arrive.
    Truncate {
        /// So many; taken modulo its length.
        at_byte: u32,
    },
    /// One of its bits is turned.
    Flip {
        /// Which; taken modulo its bits.
        bit: u32,
    },
    /// From here on nothing arrives on this connection this way until the proxy heals.
    Stall,
    /// The next frames arrive slowly.
    Throttle {
        /// At so many bytes a second.
        bytes_per_second: u32,
    },
    /// This way ends properly (FIN), the other goes on.
    HalfClose,
    /// Both ends of the connection get a reset.
    Reset,
    /// It arrives under the id of another stream that was seen.
    Splice,
    /// An earlier frame of this way arrives again behind it.
    Replay {
        /// So many frames earlier; taken modulo those that are kept.
        back: u32,
    },
    /// Every connection of the proxy gets a reset, as when a relay is restarted.
    Restart,
    /// From here on nothing arrives from who dialled; later it gets a reset, and as much later all that it had sent
    /// arrives at the other end.
    Orphan {
        /// How much.
        by: Duration,
    },
}

/// The kinds of [`FrameRule`], for choosing and counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the rule of its name")]
pub enum RuleKind {
    Drop,
    Delay,
    Duplicate,
    Reorder,
    Truncate,
    Flip,
    Stall,
    Throttle,
    HalfClose,
    Reset,
    Splice,
    Replay,
    Restart,
    Orphan,
}

/// The longest a delay drawn at random is.
const DELAY_MAX_MS: u64 = 300;
/// The slowest and the fastest that a throttle drawn at random is, in bytes a second.
const THROTTLE_BYTES: std::ops::Range<u64> = 20_000..400_000;

/// How often which rules are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostility {
    /// One of so many frames, drawn at random; 0: none.
    pub one_in: u64,
    /// Which rules, each as often as the others.
    pub kinds: Vec<RuleKind>,
}

impl Hostility {
    /// Everything passes.
    #[must_use]
    pub fn none() -> Self {
        Self {
            one_in: 0,
            kinds: Vec::new(),
        }
    }

    /// Every rule, on one frame of so many.
    #[must_use]
    pub fn every_rule(one_in: u64) -> Self {
        Self {
            one_in,
            kinds: RuleKind::ALL.to_vec(),
        }
    }

    /// The rule for the next frame, if there is one. Kinds come from a deck that is shuffled when it is empty, so that each
    /// has its turn.
    pub(super) fn draw(&self, random: &mut u64, deck: &mut Vec<RuleKind>) -> Option<FrameRule> {
        if self.kinds.is_empty() || self.one_in == 0 || !next_random(random).is_multiple_of(self.one_in) {
            return None;
        }
        deck.retain(|kind| self.kinds.contains(kind));
        if deck.is_empty() {
            let mut left = self.kinds.clone();
            while !left.is_empty() {
                let at = usize::try_from(next_random(random)).unwrap_or(0) % left.len();
                deck.push(left.swap_remove(at));
            }
        }
        deck.pop().map(|kind| kind.draw(random))
    }
}

impl RuleKind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Drop,
        Self::Delay,
        Self::Duplicate,
        Self::Reorder,
        Self::Truncate,
        Self::Flip,
        Self::Stall,
        Self::Throttle,
        Self::HalfClose,
        Self::Reset,
        Self::Splice,
        Self::Replay,
        Self::Restart,
        Self::Orphan,
    ];

    fn draw(self, random: &mut u64) -> FrameRule {
        let mut below = |limit: u64| u32::try_from(next_random(random) % limit).unwrap_or(0);
        let mut delay = || Duration::from_millis(u64::from(below(DELAY_MAX_MS)));
        match self {
            Self::Drop => FrameRule::Drop,
            Self::Delay => FrameRule::Delay { by: delay() },
            Self::Orphan => FrameRule::Orphan { by: delay() },
            Self::Duplicate => FrameRule::Duplicate { copies: 1 + below(3) },
            Self::Reorder => FrameRule::Reorder { behind: 1 + below(4) },
            Self::Truncate => FrameRule::Truncate {
                at_byte: below(40_000),
            },
            Self::Flip => FrameRule::Flip { bit: below(400_000) },
            Self::Stall => FrameRule::Stall,
            Self::Throttle => {
                let span = THROTTLE_BYTES.end - THROTTLE_BYTES.start;
                let slowest = u32::try_from(THROTTLE_BYTES.start).unwrap_or(1);
                FrameRule::Throttle {
                    bytes_per_second: slowest + below(span),
                }
            }
            Self::HalfClose => FrameRule::HalfClose,
            Self::Reset => FrameRule::Reset,
            Self::Splice => FrameRule::Splice,
            Self::Replay => FrameRule::Replay { back: below(64) },
            Self::Restart => FrameRule::Restart,
        }
    }
}

impl FrameRule {
    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> RuleKind {
        match self {
            Self::Drop => RuleKind::Drop,
            Self::Delay { .. } => RuleKind::Delay,
            Self::Duplicate { .. } => RuleKind::Duplicate,
            Self::Reorder { .. } => RuleKind::Reorder,
            Self::Truncate { .. } => RuleKind::Truncate,
            Self::Flip { .. } => RuleKind::Flip,
            Self::Stall => RuleKind::Stall,
            Self::Throttle { .. } => RuleKind::Throttle,
            Self::HalfClose => RuleKind::HalfClose,
            Self::Reset => RuleKind::Reset,
            Self::Splice => RuleKind::Splice,
            Self::Replay { .. } => RuleKind::Replay,
            Self::Restart => RuleKind::Restart,
            Self::Orphan { .. } => RuleKind::Orphan,
        }
    }
}
