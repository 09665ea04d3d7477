//! Messages 1 that were let through, by their MACs: the same once more is a replay.

use std::collections::{HashSet, VecDeque};

use crate::first_message::FirstMac;

/// MACs that are remembered, the newest. Only a listed client's message comes in here, and each costs a token: a flood
/// of strangers' flushes nothing.
pub const REPEATS_MAX: usize = 4_096;

/// The set, oldest forgotten first.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    known: HashSet<FirstMac>,
    order: VecDeque<FirstMac>,
}

impl Repeats {
    pub(super) fn contains(&self, mac: &FirstMac) -> bool {
        self.known.contains(mac)
    }

    /// Remembers one. False: it was known.
    pub(super) fn insert(&mut self, mac: FirstMac) -> bool {
        if !self.known.insert(mac) {
            return false;
        }
        self.order.push_back(mac);
        if self.order.len() > REPEATS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: usize) -> FirstMac {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        FirstMac::from_bytes(bytes)
    }

    #[test]
    fn the_newest_are_remembered_and_no_more() {
        let mut repeats = Repeats::default();
        for number in 0..REPEATS_MAX {
            assert!(repeats.insert(mac(number)));
        }
        assert!(!repeats.insert(mac(0)), "it was there");
        assert!(repeats.contains(&mac(0)));
        assert!(repeats.insert(mac(REPEATS_MAX)));
        assert!(!repeats.contains(&mac(0)), "the oldest is forgotten");
        assert!(repeats.contains(&mac(1)) && repeats.contains(&mac(REPEATS_MAX)));
        assert_eq!(
            (repeats.known.len(), repeats.order.len()),
            (REPEATS_MAX, REPEATS_MAX)
        );
    }
}
