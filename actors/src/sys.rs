//! The one module of this crate that may be unsafe: reading the processor's time-stamp counter.

/// The time-stamp counter, where the processor has one. Costs 10 ns; `Instant::now` costs 25.
#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "the intrinsic has no safe form")]
pub(crate) fn counter() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor, reads no memory and has no side effect. Where an operating
    // system forbids it to user code the clock never chooses it: `clock::choose` asks the kernel first.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Without a counter that user code can read cheaply the clock falls back to `Instant`.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn counter() -> u64 {
    0
}
