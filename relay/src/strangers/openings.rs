//! Connections that have proven nothing yet: how many there may be, and which one makes room.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// How many there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpeningsLimits {
    /// Of all sources together.
    pub all: usize,
    /// Of one source.
    pub per_source: usize,
}

/// Those there are. `S` tells sources apart, `K` connections.
///
/// When one too many comes, the oldest makes room: of its own source where that has too many, else of the source that
/// has the most. So one address that opens without end crowds out itself.
#[derive(Debug)]
pub struct Openings<S, K> {
    limits: OpeningsLimits,
    per_source: HashMap<S, Crowd<K>>,
    /// The weight of all.
    weight: usize,
    count: usize,
}

/// Those of one source, oldest first, each with its weight.
#[derive(Debug)]
struct Crowd<K> {
    keys: VecDeque<(K, usize)>,
    weight: usize,
}

impl<K> Default for Crowd<K> {
    fn default() -> Self {
        Self {
            keys: VecDeque::new(),
            weight: 0,
        }
    }
}

impl<S: Copy + Eq + Hash, K: Copy + Eq> Openings<S, K> {
    /// None yet.
    pub fn new(limits: OpeningsLimits) -> Self {
        Self {
            limits,
            per_source: HashMap::new(),
            weight: 0,
            count: 0,
        }
    }

    /// One has come. Gives the one that makes room for it: end that one; it is no longer counted. Where some weigh more
    /// than others, use [`Self::enter_weighing`].
    pub fn enter(&mut self, source: S, key: K) -> Option<K> {
        self.enter_weighing(source, key, 1).pop()
    }

    /// One has come that counts as so many, at least 1. Gives those that make room for it: end them; they are no longer
    /// counted.
    pub fn enter_weighing(&mut self, source: S, key: K, weight: usize) -> Vec<K> {
        let weight = weight.max(1);
        let mut evicted = Vec::new();
        while let Some(crowded) = self.crowded(source, weight) {
            evicted.extend(self.pop(crowded));
        }
        let crowd = self.per_source.entry(source).or_default();
        crowd.keys.push_back((key, weight));
        crowd.weight += weight;
        self.weight += weight;
        self.count += 1;
        evicted
    }

    /// The source that has to make room for a weight of this one's, if any has to.
    fn crowded(&self, source: S, weight: usize) -> Option<S> {
        let own = self.per_source.get(&source).map_or(0, |crowd| crowd.weight);
        if own > 0 && own + weight > self.limits.per_source {
            return Some(source);
        }
        if self.weight + weight <= self.limits.all {
            return None;
        }
        // At most `all` sources are looked at.
        let most = self.per_source.iter().max_by_key(|(_, crowd)| crowd.weight);
        most.map(|(source, _)| *source)
    }

    /// One has proven itself, or is gone. One that made room already is passed over.
    pub fn leave(&mut self, source: S, key: K) {
        let Some(crowd) = self.per_source.get_mut(&source) else {
            return;
        };
        let Some(at) = crowd.keys.iter().position(|(other, _)| *other == key) else {
            return;
        };
        let weight = crowd.keys.remove(at).map_or(0, |(_, weight)| weight);
        self.left(source, weight);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn pop(&mut self, source: S) -> Option<K> {
        let (oldest, weight) = self.per_source.get_mut(&source)?.keys.pop_front()?;
        self.left(source, weight);
        Some(oldest)
    }

    /// One of this source and weight is no longer among them.
    fn left(&mut self, source: S, weight: usize) {
        self.weight -= weight;
        self.count -= 1;
        if let Some(crowd) = self.per_source.get_mut(&source) {
            crowd.weight -= weight;
            if crowd.keys.is_empty() {
                self.per_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OpeningsLimits = OpeningsLimits {
        all: 8,
        per_source: 6,
    };

    #[test]
    fn a_source_with_too_many_makes_room_for_itself() {
        let mut openings = Openings::new(LIMITS);
        for key in 0..6 {
            assert_eq!(openings.enter("one", key), None);
        }
        assert_eq!(openings.enter("one", 6), Some(0));
        assert_eq!(openings.enter("other", 7), None, "there is room for others");
        assert_eq!(openings.len(), 7);
    }

    #[test]
    fn when_all_is_full_the_source_with_the_most_makes_room() {
        let mut openings = Openings::new(LIMITS);
        assert_eq!(openings.enter("honest", 0), None);
        for key in 1..8 {
            openings.enter(if key < 6 { "flood" } else { "other" }, key);
        }
        assert_eq!(openings.len(), LIMITS.all);
        assert_eq!(openings.enter("third", 8), Some(1), "the oldest of the flood");
        assert_eq!(openings.len(), LIMITS.all);
        openings.leave("honest", 0);
        assert_eq!(openings.len(), LIMITS.all - 1, "the honest one was still there");
    }

    #[test]
    fn what_weighs_more_pushes_more_out_and_leaves_more_room() {
        let mut openings = Openings::new(LIMITS);
        for key in 0..4 {
            assert_eq!(openings.enter("light", key), None);
        }
        assert!(openings.enter_weighing("heavy", 4, 2).is_empty());
        let evicted = openings.enter_weighing("other", 5, 4);
        assert_eq!(evicted, [0, 1], "two make room for four");
        assert_eq!((openings.len(), openings.weight), (4, LIMITS.all));
        let evicted = openings.enter_weighing("heavy", 6, 5);
        assert_eq!(evicted, [4, 5], "its own source first, then whoever has the most");
        assert_eq!((openings.len(), openings.weight), (3, 7));
        openings.leave("heavy", 6);
        assert_eq!((openings.len(), openings.weight), (2, 2));
        assert_eq!(
            openings.enter_weighing("vast", 7, 100),
            [2, 3],
            "one alone is let in all the same"
        );
    }

    #[test]
    fn whoever_leaves_or_was_evicted_is_not_counted() {
        let mut openings = Openings::new(LIMITS);
        for key in 0..7 {
            openings.enter("one", key);
        }
        openings.leave("one", 0);
        assert_eq!(openings.len(), 6, "it had made room already");
        for key in 1..7 {
            openings.leave("one", key);
        }
        assert!(openings.is_empty());
        assert!(openings.per_source.is_empty(), "and nothing of it is kept");
    }
}
