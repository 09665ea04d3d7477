//! Whether somebody types, and what output that floods leaves them while they do.
//!
//! A keystroke passes every queue of ours ahead of output. What it still waits for is a core: a flood keeps its child, the
//! executor and the consumer busy, and where those are as many as there are cores, the shell that a key is for waits for
//! the scheduler's slices. So for a moment after a keystroke output is read no faster than a fast network carries it.
//! Whoever waits for the output of a build sees no difference; whoever types does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::telemetry::Tick;

/// How long after a keystroke its typist is expected to type again, or to read what it did.
pub const TYPING_LASTS: Duration = Duration::from_millis(250);
/// Standard input in one write that a person may have typed or pasted; more is a program's, which types nothing.
pub const TYPED_MAX_BYTES: usize = 1_024;
/// Output of all processes of an executor in one [`WINDOW`] while somebody types: 128 MiB a second.
pub const WINDOW_BYTES: u64 = 128 * 1024;
/// Output of one stream in one window that never waits: an echo is not a flood.
pub const SHARE_BYTES: u64 = 16 * 1024;
/// A runtime's timers are not finer.
pub const WINDOW: Duration = Duration::from_millis(1);

/// Shared by every process of an executor. What two threads count at once may be counted once: it is a pace, not a bound.
#[derive(Default)]
pub(crate) struct Attention {
    /// When a key was last typed, as a raw tick; 0 before the first.
    typed: AtomicU64,
    /// When the window began, as a raw tick.
    window: AtomicU64,
    /// Bytes in it.
    bytes: AtomicU64,
}

/// What one stream has had of its window.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    window: u64,
    bytes: u64,
}

impl Attention {
    /// So many bytes were written to a process's standard input.
    pub(super) fn wrote(&self, bytes: usize, now: Tick) {
        if (1..=TYPED_MAX_BYTES).contains(&bytes) {
            self.typed.store(now.to_raw(), Ordering::Relaxed);
        }
    }

    /// A stream brought so many bytes: how long it waits before it reads on, if it does.
    pub(super) fn brought(&self, share: &mut Share, bytes: u64, now: Tick) -> Option<Duration> {
        let typed = self.typed.load(Ordering::Relaxed);
        if typed == 0 || since(now, typed) >= TYPING_LASTS {
            return None;
        }
        let began = self.window.load(Ordering::Relaxed);
        let into = since(now, began);
        let began = if began == 0 || into >= WINDOW {
            self.window.store(now.to_raw(), Ordering::Relaxed);
            self.bytes.store(0, Ordering::Relaxed);
            now.to_raw()
        } else {
            began
        };
        if share.window != began {
            *share = Share {
                window: began,
                bytes: 0,
            };
        }
        share.bytes += bytes;
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let floods = share.bytes > SHARE_BYTES && all >= WINDOW_BYTES;
        floods.then(|| WINDOW.saturating_sub(since(now, began)))
    }
}

fn since(now: Tick, raw: u64) -> Duration {
    Duration::from_nanos(now.nanos_since(Tick::from_raw(raw)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: usize = 1;
    const CHUNK: u64 = 64 * 1024;

    /// Moments of a second that ends now, by their microsecond.
    fn at() -> impl Fn(u64) -> Tick {
        let end = Tick::now();
        move |us| end.earlier_by_micros(1_000_000 - us)
    }

    #[test]
    fn a_flood_waits_for_the_next_window_while_somebody_types() {
        let (attention, at, mut share) = (Attention::default(), at(), Share::default());
        attention.wrote(KEY, at(0));
        assert_eq!(attention.brought(&mut share, CHUNK, at(10)), None);
        let waits = attention.brought(&mut share, CHUNK, at(110)).unwrap();
        assert!(waits <= WINDOW && waits >= WINDOW * 8 / 10, "{waits:?}");
        assert_eq!(
            attention.brought(&mut share, CHUNK, at(1_200)),
            None,
            "a new window"
        );
    }

    #[test]
    fn a_flood_does_not_wait_when_nobody_types_nor_when_they_have_stopped() {
        let (attention, at, mut share) = (Attention::default(), at(), Share::default());
        for us in 0..100 {
            assert_eq!(attention.brought(&mut share, CHUNK, at(us)), None);
        }
        attention.wrote(KEY, at(100));
        let typing = u64::try_from(TYPING_LASTS.as_micros()).unwrap();
        for us in 0..100 {
            let now = at(100 + typing + 1_000 + us);
            assert_eq!(attention.brought(&mut share, CHUNK, now), None);
        }
    }

    #[test]
    fn what_a_program_writes_is_not_typing() {
        let (attention, at, mut share) = (Attention::default(), at(), Share::default());
        attention.wrote(0, at(0));
        attention.wrote(TYPED_MAX_BYTES + 1, at(0));
        for us in 0..100 {
            assert_eq!(attention.brought(&mut share, CHUNK, at(us)), None);
        }
    }

    #[test]
    fn an_echo_does_not_wait_for_a_flood_of_others() {
        let (attention, at) = (Attention::default(), at());
        let (mut flood, mut echo) = (Share::default(), Share::default());
        attention.wrote(KEY, at(0));
        for us in 1..20 {
            attention.brought(&mut flood, CHUNK, at(us));
            assert_eq!(attention.brought(&mut echo, 80, at(us)), None);
        }
        assert!(attention.brought(&mut flood, CHUNK, at(21)).is_some());
    }
}
