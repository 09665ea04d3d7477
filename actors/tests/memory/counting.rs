//! An allocator that counts the bytes it has given out and not taken back.
#![expect(
    unsafe_code,
    reason = "what an allocator is made of; it hands everything to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

static GIVEN: AtomicU64 = AtomicU64::new(0);
static TAKEN_BACK: AtomicU64 = AtomicU64::new(0);

/// See the module.
pub(crate) struct Counting;

// SAFETY: every call is handed on to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        GIVEN.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        TAKEN_BACK.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Bytes of this process that are given out now.
pub(crate) fn live_bytes() -> u64 {
    let taken_back = TAKEN_BACK.load(Ordering::Relaxed);
    GIVEN.load(Ordering::Relaxed).saturating_sub(taken_back)
}
