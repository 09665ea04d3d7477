//! Counts wake-ups of one thread by another: each costs as much as a hundred messages on one thread.

use std::sync::atomic::{AtomicU64, Ordering};

static CROSSINGS: AtomicU64 = AtomicU64::new(0);

/// One message goes to another thread.
#[inline]
pub fn count_crossing() {
    CROSSINGS.fetch_add(1, Ordering::Relaxed);
}

/// Messages that went to another thread since the process began.
pub fn crossings() -> u64 {
    CROSSINGS.load(Ordering::Relaxed)
}
