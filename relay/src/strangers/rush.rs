//! Connections as they come: more than anybody can need are dropped before they cost anything.
//!
//! Below a rate of all together everybody is taken. Above it a source is taken at a rate of its own, so that whoever comes
//! seldom still gets in while a crowd is turned away.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Rate};

/// Connections of all sources that are taken without a further question. An executor or a relay whose clients all come
/// back after an outage sees a few thousand at once, and never that many a second for long.
pub const RUSH_RATE: Rate = Rate {
    per_s: 1_000,
    burst: 2_000,
};
/// What each source has in any case: redials race, three at a time, every 50 to 200 ms.
pub const RUSH_SOURCE_RATE: Rate = Rate { per_s: 30, burst: 60 };
/// Sources that are told apart. One more is taken by the rate of all only, until one of these has been quiet.
pub const RUSH_SOURCES_MAX: usize = 1_024;
/// A source that was quiet for so long has its whole burst again: it need not be remembered.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

/// Who is taken. `S` tells sources apart.
#[derive(Debug)]
pub struct Rush<S> {
    all: Bucket,
    sources: HashMap<S, (Bucket, Instant)>,
    /// Not before then is the table looked through again.
    swept_at: Instant,
    turned_away: u64,
}

impl<S: Copy + Eq + Hash> Rush<S> {
    /// Nobody has come yet.
    pub fn new(now: Instant) -> Self {
        Self {
            all: Bucket::full(now, RUSH_RATE),
            sources: HashMap::new(),
            swept_at: now,
            turned_away: 0,
        }
    }

    /// Whether a connection from there is taken.
    pub fn takes(&mut self, now: Instant, source: S) -> bool {
        let own = self
            .own(now, source)
            .is_some_and(|bucket| bucket.take(now, RUSH_SOURCE_RATE));
        // Both are asked: whoever comes often uses up what is for all, and whoever comes seldom loses nothing by it.
        let all = self.all.take(now, RUSH_RATE);
        let taken = own || all;
        self.turned_away += u64::from(!taken);
        taken
    }

    /// Connections that were not taken so far.
    pub fn turned_away(&self) -> u64 {
        self.turned_away
    }

    fn own(&mut self, now: Instant, source: S) -> Option<&mut Bucket> {
        if self.sources.len() >= RUSH_SOURCES_MAX && !self.sources.contains_key(&source) {
            self.sweep(now);
            if self.sources.len() >= RUSH_SOURCES_MAX {
                return None;
            }
        }
        let (bucket, seen) = self
            .sources
            .entry(source)
            .or_insert_with(|| (Bucket::full(now, RUSH_SOURCE_RATE), now));
        *seen = now;
        Some(bucket)
    }

    /// Forgets who has been quiet; at most ten times a second, however many strange sources come.
    fn sweep(&mut self, now: Instant) {
        if now < self.swept_at {
            return;
        }
        self.swept_at = now + Duration::from_millis(100);
        self.sources.retain(|_, (_, seen)| now < *seen + FORGOTTEN_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of connections from one source, evenly; how many were taken.
    fn second(rush: &mut Rush<u32>, from: Instant, source: u32, connections: u32) -> u32 {
        let step = Duration::from_secs(1) / connections;
        (0..connections)
            .map(|number| u32::from(rush.takes(from + step * number, source)))
            .sum()
    }

    #[test]
    fn one_source_alone_may_use_the_rate_of_all() {
        let start = Instant::now();
        let mut rush = Rush::new(start);
        assert_eq!(second(&mut rush, start, 1, 900), 900);
        assert_eq!(second(&mut rush, start + Duration::from_secs(1), 1, 900), 900);
        assert_eq!(rush.turned_away(), 0);
    }

    #[test]
    fn whoever_comes_seldom_is_taken_in_the_middle_of_a_flood() {
        let start = Instant::now();
        let mut rush = Rush::new(start);
        let (mut flood, mut honest) = (0, 0);
        for tick in 0..20_000_u32 {
            let now = start + Duration::from_micros(100) * tick;
            flood += u32::from(rush.takes(now, tick % 8));
            if tick % 1_000 == 0 {
                honest += u32::from(rush.takes(now, 99));
            }
        }
        assert_eq!(honest, 20);
        let most =
            RUSH_RATE.burst + 2 * RUSH_RATE.per_s + 8 * (RUSH_SOURCE_RATE.burst + 2 * RUSH_SOURCE_RATE.per_s);
        assert!(flood <= most, "{flood} of at most {most}");
        assert_eq!(rush.turned_away(), u64::from(20_000 - flood));
    }

    #[test]
    fn the_table_of_sources_is_bounded_and_forgets_who_is_quiet() {
        let start = Instant::now();
        let mut rush = Rush::new(start);
        for source in 0..10 * u32::try_from(RUSH_SOURCES_MAX).unwrap() {
            rush.takes(start, source);
            assert!(rush.sources.len() <= RUSH_SOURCES_MAX);
        }
        let later = start + FORGOTTEN_AFTER + Duration::from_secs(1);
        rush.takes(later, u32::MAX);
        assert_eq!(rush.sources.len(), 1, "the quiet ones are forgotten");
    }
}
