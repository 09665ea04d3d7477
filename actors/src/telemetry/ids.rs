//! Fresh trace and span ids: unpredictable seeds, then a generator that costs two nanoseconds.

use std::cell::Cell;

use dwell_messages::{SpanId, TraceContext, TraceFlags, TraceId};

thread_local! {
    static STATE: Cell<u64> = Cell::new(seed());
}

fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        // Ids need to be distinct, not secret: without a random source the thread and the moment must do.
        let thread = std::thread::current().id();
        let mut hash = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&(thread, super::clock::unix_now_ns()), &mut hash);
        std::hash::Hasher::finish(&hash)
    })
}

/// The next number of this thread's sequence (splitmix64).
#[inline]
fn next() -> u64 {
    STATE.with(|state| {
        let mut z = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(z);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A span id that is not zero.
#[inline]
pub fn span_id() -> SpanId {
    SpanId(next().max(1).to_be_bytes())
}

/// A trace id that is not zero.
pub fn trace_id() -> TraceId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&next().to_be_bytes());
    id[8..].copy_from_slice(&next().max(1).to_be_bytes());
    TraceId(id)
}

/// A new root: its span id names a span that the caller will write.
pub fn root(sampled: bool) -> TraceContext {
    TraceContext::new(
        trace_id(),
        span_id(),
        if sampled {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::NONE
        },
    )
}
