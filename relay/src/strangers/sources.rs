//! What is remembered of each source: its bucket, how often it failed, when it was last known to be good.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Rate};

/// Message 1s of one source that are looked into. Redials race, three at a time, and one address may stand for a house
/// full of clients; whoever completes a handshake has its tokens back.
pub const SOURCE_RATE: Rate = Rate { per_s: 10, burst: 30 };
/// What a source has that has failed too often.
pub const PENALISED_RATE: Rate = Rate { per_s: 1, burst: 2 };
/// Failures of a source, without a success between, after which it is penalised: a person who tries a key before it
/// is listed stays below.
pub const FAILURES_MAX: u32 = 10;
/// How long a penalty lasts after the last failure.
pub const PENALTY_FOR: Duration = Duration::from_secs(60);
/// How long a source counts as familiar after a client from there was let in.
pub const FAMILIAR_FOR: Duration = Duration::from_secs(600);
/// Sources that are remembered. With one more, that of the least use is forgotten.
pub const SOURCES_MAX: usize = 1_024;
/// How long a source that did nothing is remembered: its bucket is full again by then.
pub const SOURCE_IDLE_FOR: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Source {
    bucket: Bucket,
    failures: u32,
    penalised_until: Option<Instant>,
    familiar_until: Option<Instant>,
    /// Until when forgetting it would make a difference.
    useful_until: Instant,
}

impl Source {
    fn penalised(&self, now: Instant) -> bool {
        self.penalised_until.is_some_and(|until| now < until)
    }

    fn rate(&self, now: Instant) -> Rate {
        if self.penalised(now) {
            PENALISED_RATE
        } else {
            SOURCE_RATE
        }
    }

    fn touch(&mut self, now: Instant) {
        let idle = now + SOURCE_IDLE_FOR;
        let held = self.penalised_until.max(self.familiar_until);
        self.useful_until = held.map_or(idle, |until| until.max(idle));
    }
}

/// A bounded table of sources.
#[derive(Debug)]
pub(super) struct Sources<S> {
    known: HashMap<S, Source>,
}

/// What a source may do just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It has a token.
    Free,
    /// It has used up its rate.
    Spent,
    /// It has used up the rate of those that failed too often.
    Penalised,
}

impl<S: Copy + Eq + Hash> Sources<S> {
    pub(super) fn new() -> Self {
        Self {
            known: HashMap::new(),
        }
    }

    /// Takes nothing, and remembers nothing new.
    pub(super) fn standing(&mut self, now: Instant, source: &S) -> Standing {
        let Some(source) = self.known.get_mut(source) else {
            return Standing::Free;
        };
        let rate = source.rate(now);
        match (source.bucket.has_one(now, rate), source.penalised(now)) {
            (true, _) => Standing::Free,
            (false, true) => Standing::Penalised,
            (false, false) => Standing::Spent,
        }
    }

    /// Whether a client from there was let in lately.
    pub(super) fn is_familiar(&self, now: Instant, source: &S) -> bool {
        let until = self.known.get(source).and_then(|source| source.familiar_until);
        until.is_some_and(|until| now < until)
    }

    /// Takes the source's token.
    pub(super) fn take(&mut self, now: Instant, source: S) {
        let source = self.entry(now, source);
        let rate = source.rate(now);
        source.bucket.take(now, rate);
        source.touch(now);
    }

    /// It has failed.
    pub(super) fn failed(&mut self, now: Instant, source: S) {
        let source = self.entry(now, source);
        source.failures = source.failures.saturating_add(1);
        if source.failures >= FAILURES_MAX {
            source.penalised_until = Some(now + PENALTY_FOR);
        }
        source.touch(now);
    }

    /// A client from there was let in: its token comes back, and what failed before is forgiven.
    pub(super) fn succeeded(&mut self, now: Instant, source: S) {
        let source = self.entry(now, source);
        source.failures = 0;
        source.penalised_until = None;
        source.familiar_until = Some(now + FAMILIAR_FOR);
        source.bucket.give_back(now, SOURCE_RATE);
        source.touch(now);
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    fn entry(&mut self, now: Instant, source: S) -> &mut Source {
        if self.known.len() >= SOURCES_MAX && !self.known.contains_key(&source) {
            self.make_room(now);
        }
        self.known.entry(source).or_insert_with(|| Source {
            bucket: Bucket::full(now, SOURCE_RATE),
            failures: 0,
            penalised_until: None,
            familiar_until: None,
            useful_until: now + SOURCE_IDLE_FOR,
        })
    }

    /// A look at all of them: no more often than new sources get a token, a hundred times a second.
    fn make_room(&mut self, now: Instant) {
        self.known.retain(|_, source| now < source.useful_until);
        if self.known.len() < SOURCES_MAX {
            return;
        }
        let least = self.known.iter().min_by_key(|(_, source)| source.useful_until);
        if let Some(least) = least.map(|(source, _)| *source) {
            self.known.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_failed_too_often_is_slowed_down_for_a_while() {
        let mut sources = Sources::new();
        let start = Instant::now();
        for _ in 0..FAILURES_MAX - 1 {
            sources.failed(start, 1);
        }
        assert!(!sources.known[&1].penalised(start), "not yet");
        sources.failed(start, 1);
        assert!(sources.known[&1].penalised(start));
        let through = |sources: &mut Sources<u32>, source, now| {
            (0..100)
                .filter(|_| {
                    let free = sources.standing(now, &source) == Standing::Free;
                    if free {
                        sources.take(now, source);
                    }
                    free
                })
                .count()
        };
        assert_eq!(through(&mut sources, 1, start), PENALISED_RATE.burst as usize);
        assert_eq!(sources.standing(start, &1), Standing::Penalised);
        assert_eq!(
            through(&mut sources, 2, start),
            SOURCE_RATE.burst as usize,
            "others are not"
        );
        assert_eq!(sources.standing(start, &2), Standing::Spent);
        assert_eq!(
            through(&mut sources, 1, start + PENALTY_FOR),
            SOURCE_RATE.burst as usize,
            "it is over"
        );
    }

    #[test]
    fn a_success_forgives_and_makes_familiar() {
        let mut sources = Sources::new();
        let start = Instant::now();
        for _ in 0..FAILURES_MAX {
            sources.failed(start, 1);
        }
        sources.succeeded(start, 1);
        assert!(!sources.known[&1].penalised(start));
        assert!(sources.is_familiar(start, &1));
        assert!(!sources.is_familiar(start + FAMILIAR_FOR, &1), "not for ever");
        assert!(!sources.is_familiar(start, &2));
    }

    #[test]
    fn a_crowd_of_sources_fills_the_table_and_pushes_out_neither_penalties_nor_familiar_ones() {
        let mut sources = Sources::new();
        let start = Instant::now();
        sources.succeeded(start, 0_u32);
        for _ in 0..FAILURES_MAX {
            sources.failed(start, 1);
        }
        for source in 2..10 * u32::try_from(SOURCES_MAX).unwrap() {
            sources.take(start, source);
            assert!(sources.len() <= SOURCES_MAX);
        }
        assert!(sources.is_familiar(start, &0) && sources.known[&1].penalised(start));
        // What is of no use any more goes first and at once.
        sources.take(start + SOURCE_IDLE_FOR, u32::MAX);
        assert_eq!(sources.len(), 3);
    }
}
