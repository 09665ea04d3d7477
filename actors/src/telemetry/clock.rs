//! The one clock of the process: cheap ticks on the hot path, nanoseconds and wall time off it.
//!
//! A tick is the time-stamp counter where the kernel itself trusts it as its clock, else nanoseconds of `Instant`.
//! Nothing outside this module reads the wall clock: it is read once and every timestamp is derived from that
//! anchor, so that a step of the wall clock can neither reorder nor stretch spans.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use crate::sys;

/// A moment on this machine, in units of the process's clock source. Only differences mean anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tick(u64);

const SOURCE_UNKNOWN: u8 = 0;
const SOURCE_COUNTER: u8 = 1;
const SOURCE_INSTANT: u8 = 2;

static SOURCE: AtomicU8 = AtomicU8::new(SOURCE_UNKNOWN);
static BASE: OnceLock<Base> = OnceLock::new();
/// Nanoseconds per tick as the bits of an `f64`; 0 while not yet measured over a useful span.
static RATE_BITS: AtomicU64 = AtomicU64::new(0);

/// How long the rate is measured before it is kept, in nanoseconds: the error of two clock reads (about 60 ns) is
/// then below one in a million.
const RATE_SETTLED_NS: u64 = 100_000_000;
/// How often two clocks are read at most until nothing came in between.
const PAIRINGS_MAX: usize = 8;

/// Where the process's clock began.
struct Base {
    tick: u64,
    instant: Instant,
    unix_ns: u64,
    /// Ticks within which another clock is read.
    spread: u64,
}

/// What was read at a tick.
struct Paired<T> {
    tick: u64,
    /// How many ticks the reading took: it is wrong by half of them at the most.
    spread: u64,
    value: T,
}

/// Reads something together with a tick: of some tries the one that was least interrupted, the first good one if there is
/// such. A thread that loses its core between two clocks would otherwise put the one as late as it is kept waiting, and
/// what is settled once, the rate and the wall time, would be wrong for the life of the process.
#[inline]
fn paired<T>(ticks: impl Fn() -> u64, good: u64, read: impl Fn() -> T) -> Paired<T> {
    let look = || {
        let before = ticks();
        let value = read();
        let spread = ticks().saturating_sub(before);
        let tick = before + spread / 2;
        Paired { tick, spread, value }
    };
    let mut best = look();
    for _ in 1..PAIRINGS_MAX {
        if best.spread <= good {
            break;
        }
        let next = look();
        if next.spread < best.spread {
            best = next;
        }
    }
    best
}

/// The present tick and `Instant`.
#[inline]
fn paired_now() -> (Tick, Instant) {
    // A few times what it takes at its best: not every try is that.
    let good = base().spread.saturating_mul(4);
    let pair = paired(|| Tick::now().0, good, Instant::now);
    (Tick(pair.tick), pair.value)
}

/// A pairing of ticks and wall time, re-taken per batch so that no error of the rate can add up.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    tick: u64,
    unix_ns: u64,
    ns_per_tick: f64,
}

impl Tick {
    /// Now.
    #[inline]
    pub fn now() -> Self {
        match SOURCE.load(Ordering::Relaxed) {
            SOURCE_COUNTER => Self(sys::counter()),
            _ => Self(slow_now()),
        }
    }

    /// The raw counter value, for a record.
    #[inline]
    pub fn to_raw(self) -> u64 {
        self.0
    }

    /// A tick from a raw counter value of this process.
    #[inline]
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Nanoseconds since `earlier`, 0 if that is later: counters of two cores may differ by a few ticks.
    pub fn nanos_since(self, earlier: Self) -> u64 {
        nanos(self.0.saturating_sub(earlier.0))
    }

    /// Microseconds since `earlier`, saturating both ways.
    pub fn micros_since(self, earlier: Self) -> u64 {
        self.nanos_since(earlier) / 1_000
    }

    /// Ticks since `earlier`, 0 if that is later.
    #[inline]
    pub fn ticks_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// A tick so many microseconds before this one.
    pub fn earlier_by_micros(self, micros: u64) -> Self {
        Self(
            self.0
                .saturating_sub((micros as f64 * 1_000.0 / rate_now()) as u64),
        )
    }

    /// The tick of an `Instant` of this process.
    pub fn from_instant(instant: Instant) -> Self {
        let (tick, now) = paired_now();
        let ago = now.saturating_duration_since(instant).as_nanos() as f64;
        Self(tick.0.saturating_sub((ago / rate_now()) as u64))
    }

    /// The `Instant` of this tick, for a core that takes those.
    pub fn to_instant(self) -> Instant {
        let (now, instant) = paired_now();
        instant
            .checked_sub(std::time::Duration::from_nanos(now.nanos_since(self)))
            .unwrap_or(instant)
    }
}

/// Nanoseconds in so many ticks.
pub fn nanos(ticks: u64) -> u64 {
    (ticks as f64 * rate_now()) as u64
}

/// One rate for several conversions. Until a process has measured it for a while the rate changes from look to look, so
/// that of two numbers of ticks converted one after the other the larger may give fewer nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    ns_per_tick: f64,
}

impl Scale {
    /// The rate as well as it is known now.
    pub fn now() -> Self {
        Self {
            ns_per_tick: rate_now(),
        }
    }

    /// Nanoseconds in so many ticks: never fewer for more.
    pub fn nanos(self, ticks: u64) -> u64 {
        (ticks as f64 * self.ns_per_tick) as u64
    }
}

/// Nanoseconds per tick, as well as it is known now.
fn rate_now() -> f64 {
    let bits = RATE_BITS.load(Ordering::Relaxed);
    if bits == 0 {
        Anchor::take().ns_per_tick
    } else {
        f64::from_bits(bits)
    }
}

impl Anchor {
    /// Pairs the present tick with the present wall time.
    pub fn take() -> Self {
        let base = base();
        let (Tick(tick), instant) = paired_now();
        let elapsed_ns =
            u64::try_from(instant.saturating_duration_since(base.instant).as_nanos()).unwrap_or(u64::MAX);
        Self {
            tick,
            unix_ns: base.unix_ns.saturating_add(elapsed_ns),
            ns_per_tick: rate(base, tick, elapsed_ns),
        }
    }

    /// The wall time of a tick, in Unix nanoseconds.
    #[inline]
    pub fn unix_ns(&self, tick: Tick) -> u64 {
        if tick.0 <= self.tick {
            self.unix_ns
                .saturating_sub(((self.tick - tick.0) as f64 * self.ns_per_tick) as u64)
        } else {
            self.unix_ns
                .saturating_add(((tick.0 - self.tick) as f64 * self.ns_per_tick) as u64)
        }
    }
}

/// The present wall time in Unix nanoseconds, derived from the process's one anchor.
pub fn unix_now_ns() -> u64 {
    Anchor::take().unix_ns
}

fn rate(base: &Base, tick: u64, elapsed_ns: u64) -> f64 {
    if SOURCE.load(Ordering::Relaxed) != SOURCE_COUNTER {
        RATE_BITS.store(1.0_f64.to_bits(), Ordering::Relaxed);
        return 1.0;
    }
    let settled = RATE_BITS.load(Ordering::Relaxed);
    if settled != 0 {
        return f64::from_bits(settled);
    }
    let ticks = tick.saturating_sub(base.tick).max(1);
    let rate = elapsed_ns.max(1) as f64 / ticks as f64;
    if elapsed_ns >= RATE_SETTLED_NS {
        RATE_BITS.store(rate.to_bits(), Ordering::Relaxed);
    }
    rate
}

#[cold]
fn slow_now() -> u64 {
    let base = base();
    if SOURCE.load(Ordering::Relaxed) == SOURCE_COUNTER {
        return sys::counter();
    }
    u64::try_from(base.instant.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn base() -> &'static Base {
    BASE.get_or_init(|| {
        SOURCE.store(choose(), Ordering::Relaxed);
        let counter = SOURCE.load(Ordering::Relaxed) == SOURCE_COUNTER;
        let origin = Instant::now();
        let since = || u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let ticks = || if counter { sys::counter() } else { since() };
        let pair = paired(ticks, 0, || (Instant::now(), wall_now_ns()));
        let (instant, unix_ns) = pair.value;
        Base {
            tick: pair.tick,
            instant,
            unix_ns,
            spread: pair.spread,
        }
    })
}

/// The wall clock as it is now, in milliseconds since 1970: for dates that people wrote, never for a duration.
pub fn wall_unix_ms() -> u64 {
    wall_now_ns() / 1_000_000
}

/// The wall clock as it is now, in microseconds since 1970: for what people read, never for order or a duration.
pub fn wall_unix_us() -> i64 {
    i64::try_from(wall_now_ns() / 1_000).unwrap_or(i64::MAX)
}

/// The kernel's own choice decides: it has checked that the counters are synchronous and never stop.
fn choose() -> u8 {
    let trusted = cfg!(target_arch = "x86_64")
        && std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .is_ok_and(|name| name.trim() == "tsc");
    if trusted { SOURCE_COUNTER } else { SOURCE_INSTANT }
}

#[expect(
    clippy::disallowed_types,
    reason = "the one place where the wall clock is read"
)]
fn wall_now_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_instant_within_a_factor_of_ten_and_wall_time_follows_ticks() {
        let (tick, instant) = (Tick::now(), Instant::now());
        while instant.elapsed().as_micros() < 2_000 {
            std::hint::spin_loop();
        }
        let nanos = Tick::now().nanos_since(tick);
        assert!(
            (200_000..200_000_000).contains(&nanos),
            "2 ms measured as {nanos} ns"
        );
        let anchor = Anchor::take();
        assert!(anchor.unix_ns(tick) < anchor.unix_ns(Tick::now()));
    }

    /// Regression: a process whose thread lost its core between two clocks at its start had its wall time, or the rate of
    /// its ticks, wrong for as long as it lived.
    #[test]
    fn of_two_clocks_the_reading_that_was_least_interrupted_counts() {
        let at = std::cell::Cell::new(0);
        // How many ticks each reading takes.
        let readings = |takes: &'static [u64]| {
            let count = std::cell::Cell::new(0);
            at.set(0);
            let pair = paired(
                || at.get(),
                10,
                || {
                    let reading = count.get();
                    count.set(reading + 1);
                    at.set(at.get() + takes[reading]);
                    reading
                },
            );
            (pair.value, pair.tick, pair.spread)
        };
        assert_eq!(readings(&[8]), (0, 4, 8), "a good one is not tried again");
        assert_eq!(readings(&[5_000, 700, 6]), (2, 5_703, 6));
        assert_eq!(
            readings(&[90, 80, 70, 20, 40, 50, 60, 30]),
            (3, 250, 20),
            "the best there was"
        );
    }

    #[test]
    fn a_later_tick_never_gives_a_negative_duration() {
        let early = Tick::now();
        let late = Tick::now();
        assert_eq!(early.nanos_since(Tick(late.0 + 10)), 0);
    }
}
