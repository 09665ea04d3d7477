//! What happens to the bytes of one direction of one connection.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

/// Which way bytes go through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From who dialled the proxy to the address behind it.
    ToUpstream,
    /// From the address behind the proxy to who dialled it.
    ToClient,
}

/// One thing that happens to the bytes of one direction. Offsets count from the direction's first byte, which is byte 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Bit `bit` (0 is the lowest) of the byte at `at_byte` is turned.
    FlipBit {
        /// The byte's offset.
        at_byte: u64,
        /// 0 to 7; taken modulo 8.
        bit: u8,
    },
    /// After exactly `after_bytes` bytes both ways are closed properly (FIN), and what was not sent is lost.
    Truncate {
        /// How many bytes still pass.
        after_bytes: u64,
    },
    /// After exactly `after_bytes` bytes both ends get a reset (RST). What they have not read yet is lost with it.
    Reset {
        /// How many bytes still pass.
        after_bytes: u64,
    },
    /// After exactly `after_bytes` bytes nothing more is read or written this way, until the proxy heals: to the
    /// sender it looks like a full window, to the receiver like silence.
    Stall {
        /// How many bytes still pass.
        after_bytes: u64,
    },
    /// Every byte is written by itself.
    OneByteWrites,
    /// Each piece waits this long before it is written.
    Delay {
        /// How long.
        by: Duration,
    },
    /// Each piece waits a time drawn anew, at most this long.
    Jitter {
        /// How long at most.
        up_to: Duration,
    },
}

/// What happens to one connection, each way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Towards the address behind the proxy.
    pub to_upstream: Vec<Fault>,
    /// Towards who dialled.
    pub to_client: Vec<Fault>,
}

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait.
    Pause(Duration),
    /// Write these bytes in one go.
    Write(Bytes),
    /// Do nothing until the proxy heals.
    Stall,
    /// Close both ways properly; nothing follows.
    Close,
    /// Reset both ends; nothing follows.
    Reset,
}

/// The pure part: bytes in, steps out.
#[derive(Debug, Clone)]
pub struct Lane {
    faults: Vec<Fault>,
    offset: u64,
    random: u64,
}

impl Plan {
    /// Nothing happens.
    #[must_use]
    pub fn pass() -> Self {
        Self::default()
    }

    /// One fault, one way.
    #[must_use]
    pub fn one(direction: Direction, fault: Fault) -> Self {
        Self::pass().and(direction, fault)
    }

    /// One more fault.
    #[must_use]
    pub fn and(mut self, direction: Direction, fault: Fault) -> Self {
        match direction {
            Direction::ToUpstream => self.to_upstream.push(fault),
            Direction::ToClient => self.to_client.push(fault),
        }
        self
    }

    /// A close, a reset or a turned bit at a random byte below `within_bytes`, either way; the same for the same seed.
    #[must_use]
    pub fn random(seed: u64, within_bytes: u64) -> Self {
        let mut random = seed;
        let at = next_random(&mut random) % within_bytes.max(1);
        let direction = if next_random(&mut random).is_multiple_of(2) {
            Direction::ToUpstream
        } else {
            Direction::ToClient
        };
        let fault = match next_random(&mut random) % 3 {
            0 => Fault::Truncate { after_bytes: at },
            1 => Fault::Reset { after_bytes: at },
            _ => Fault::FlipBit {
                at_byte: at,
                bit: (at % 8) as u8,
            },
        };
        Self::one(direction, fault)
    }
}

impl Lane {
    /// A lane at its first byte. The seed is for [`Fault::Jitter`].
    #[must_use]
    pub fn new(faults: Vec<Fault>, seed: u64) -> Self {
        Self {
            faults,
            offset: 0,
            random: seed,
        }
    }

    /// How many bytes have passed.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What to do before any byte has come: a fault that lets zero bytes pass happens at once.
    pub fn open(&mut self) -> Vec<Step> {
        self.stops_at(self.offset)
    }

    /// What to do with the next bytes. After [`Step::Close`] or [`Step::Reset`] the lane takes no more; after
    /// [`Step::Stall`] the driver heals it, and only then goes on with what follows.
    pub fn push(&mut self, input: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut rest = input;
        while !rest.is_empty() {
            let length = self.piece_bytes(rest.len());
            let (piece, behind) = rest.split_at(length);
            rest = behind;
            if let Some(pause) = self.pause() {
                steps.push(Step::Pause(pause));
            }
            steps.push(Step::Write(self.flipped(piece)));
            self.offset += length as u64;
            steps.extend(self.stops_at(self.offset));
            if matches!(steps.last(), Some(Step::Close | Step::Reset)) {
                break;
            }
        }
        steps
    }

    /// How much of `available` goes in one write: up to the next byte at which something ends.
    fn piece_bytes(&self, available: usize) -> usize {
        let next_stop = self
            .faults
            .iter()
            .filter_map(Fault::ends_after)
            .filter(|after| *after > self.offset)
            .min();
        let room = next_stop.map_or(u64::MAX, |after| after - self.offset);
        let room = if self.faults.contains(&Fault::OneByteWrites) {
            1
        } else {
            room
        };
        available.min(usize::try_from(room).unwrap_or(usize::MAX))
    }

    fn flipped(&self, piece: &[u8]) -> Bytes {
        let mut piece = BytesMut::from(piece);
        for fault in &self.faults {
            if let Fault::FlipBit { at_byte, bit } = fault
                && let Some(index) = at_byte.checked_sub(self.offset)
                && let Some(byte) = usize::try_from(index).ok().and_then(|index| piece.get_mut(index))
            {
                *byte ^= 1 << (bit % 8);
            }
        }
        piece.freeze()
    }

    fn pause(&mut self) -> Option<Duration> {
        let mut total = Duration::ZERO;
        for fault in &self.faults {
            match fault {
                Fault::Delay { by } => total += *by,
                Fault::Jitter { up_to } => {
                    let share = next_random(&mut self.random) % 1_000;
                    total += up_to.mul_f64(share as f64 / 1_000.0);
                }
                Fault::FlipBit { .. }
                | Fault::Truncate { .. }
                | Fault::Reset { .. }
                | Fault::Stall { .. }
                | Fault::OneByteWrites => {}
            }
        }
        (!total.is_zero()).then_some(total)
    }

    /// What stops the lane at this byte, in the plan's order, up to what ends it.
    fn stops_at(&self, offset: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        for fault in self
            .faults
            .iter()
            .filter(|fault| fault.ends_after() == Some(offset))
        {
            match fault {
                Fault::Truncate { .. } => steps.push(Step::Close),
                Fault::Reset { .. } => steps.push(Step::Reset),
                Fault::Stall { .. } => {
                    steps.push(Step::Stall);
                    continue;
                }
                Fault::FlipBit { .. } | Fault::OneByteWrites | Fault::Delay { .. } | Fault::Jitter { .. } => {
                    continue;
                }
            }
            break;
        }
        steps
    }
}

impl Fault {
    /// After how many bytes this stops the lane.
    fn ends_after(&self) -> Option<u64> {
        match self {
            Self::Truncate { after_bytes } | Self::Reset { after_bytes } | Self::Stall { after_bytes } => {
                Some(*after_bytes)
            }
            Self::FlipBit { .. } | Self::OneByteWrites | Self::Delay { .. } | Self::Jitter { .. } => None,
        }
    }
}

/// One step of splitmix64: small, and good enough to choose faults by.
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
