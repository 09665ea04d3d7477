//! The bound of a mailbox: how many messages have a place in it.
//!
//! tokio's semaphore takes a lock whenever a place is given back, which was a tenth of what a message cost here. So free
//! places lie in one atomic number as long as nobody waits, and only whoever waits goes to the semaphore. Between the two
//! nothing gets lost: who waits says so before it looks for free places, and who gives a place back looks for those who
//! wait after it has put it there; both in one total order, so that at least one of them sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::Semaphore;

/// Set in `free` once nothing is to be taken any more.
const CLOSED: u64 = 1 << 63;

/// See the module.
#[derive(Debug)]
pub(super) struct Bound {
    /// Free places, and whether the bound is closed.
    free: AtomicU64,
    /// How many wait for a place, or have just got one.
    waiting: AtomicU32,
    /// Places that were passed on to those who wait.
    passed: Semaphore,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// None is free now.
    Full,
    /// There will be none.
    Closed,
}

/// A place; dropping it gives it back.
#[must_use = "dropping it gives the place back"]
#[derive(Debug)]
pub(super) struct Taken<'a>(Option<&'a Bound>);

impl Taken<'_> {
    /// Leaves the place taken: it is given back by [`Bound::give`].
    #[inline]
    pub(super) fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Taken<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(bound) = self.0 {
            bound.give();
        }
    }
}

/// Counts among those who wait while it lives.
struct Waits<'a>(&'a AtomicU32);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Bound {
    pub(super) fn new(places: u32) -> Self {
        Self {
            free: AtomicU64::new(u64::from(places)),
            waiting: AtomicU32::new(0),
            passed: Semaphore::new(0),
        }
    }

    /// A place, if one is free now.
    #[inline]
    pub(super) fn try_take(&self) -> Result<Taken<'_>, Refused> {
        let mut free = self.free.load(Ordering::Acquire);
        loop {
            if free & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            if free == 0 {
                return self.try_take_passed();
            }
            match self
                .free
                .compare_exchange_weak(free, free - 1, Ordering::SeqCst, Ordering::Acquire)
            {
                Ok(_) => return Ok(Taken(Some(self))),
                Err(now) => free = now,
            }
        }
    }

    /// One that was passed on to somebody who gave up waiting.
    #[cold]
    fn try_take_passed(&self) -> Result<Taken<'_>, Refused> {
        match self.passed.try_acquire() {
            Ok(permit) => {
                permit.forget();
                Ok(Taken(Some(self)))
            }
            Err(tokio::sync::TryAcquireError::NoPermits) => Err(Refused::Full),
            Err(tokio::sync::TryAcquireError::Closed) => Err(Refused::Closed),
        }
    }

    /// A place, as soon as there is one. Cancellation safe. `None`: there will be none.
    pub(super) async fn take(&self) -> Option<Taken<'_>> {
        match self.try_take() {
            Ok(taken) => return Some(taken),
            Err(Refused::Closed) => return None,
            Err(Refused::Full) => {}
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waits = Waits(&self.waiting);
        self.pass_on();
        let permit = self.passed.acquire().await.ok()?;
        permit.forget();
        drop(waits);
        Some(Taken(Some(self)))
    }

    /// Gives one place back.
    #[inline]
    pub(super) fn give(&self) {
        self.give_all(1);
    }

    /// Gives some places back.
    #[inline]
    pub(super) fn give_all(&self, places: u32) {
        self.free.fetch_add(u64::from(places), Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.pass_on();
        }
    }

    /// Hands what is free to those who wait.
    #[cold]
    fn pass_on(&self) {
        let free = self.free.fetch_and(CLOSED, Ordering::SeqCst) & !CLOSED;
        if free > 0 {
            self.passed.add_permits(usize::try_from(free).unwrap_or(0));
        }
    }

    /// Places that are free. While some are being passed on, fewer than there are.
    #[inline]
    pub(super) fn free(&self) -> usize {
        let free = self.free.load(Ordering::SeqCst) & !CLOSED;
        usize::try_from(free).unwrap_or(usize::MAX) + self.passed.available_permits()
    }

    /// Nothing is taken from now on; who waits is told.
    pub(super) fn close(&self) {
        self.free.fetch_or(CLOSED, Ordering::SeqCst);
        self.passed.close();
    }

    /// Whether nothing is to be taken any more.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.free.load(Ordering::SeqCst) & CLOSED != 0
    }
}

/// A place that does not borrow its bound.
#[must_use = "dropping it gives the place back"]
#[derive(Debug)]
pub(super) struct OwnedTaken(Option<Arc<Bound>>);

impl OwnedTaken {
    pub(super) async fn take(bound: &Arc<Bound>) -> Option<Self> {
        bound.take().await?.forget();
        Some(Self(Some(Arc::clone(bound))))
    }

    pub(super) fn try_take(bound: &Arc<Bound>) -> Option<Self> {
        bound.try_take().ok()?.forget();
        Some(Self(Some(Arc::clone(bound))))
    }

    /// As [`Taken::forget`].
    pub(super) fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for OwnedTaken {
    fn drop(&mut self) {
        if let Some(bound) = self.0.take() {
            bound.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn places_are_counted_and_a_closed_bound_gives_none() {
        let bound = Bound::new(2);
        let first = bound.try_take().unwrap();
        bound.try_take().unwrap().forget();
        assert_eq!(bound.try_take().unwrap_err(), Refused::Full);
        drop(first);
        assert_eq!(bound.free(), 1);
        bound.close();
        assert_eq!(bound.try_take().unwrap_err(), Refused::Closed);
        bound.give();
        assert_eq!((bound.free(), bound.is_closed()), (2, true));
    }

    #[tokio::test]
    async fn who_gives_up_waiting_takes_no_place_along() {
        let bound = Bound::new(1);
        bound.try_take().unwrap().forget();
        {
            let mut waiting = std::pin::pin!(bound.take());
            assert!(futures_poll(&mut waiting).is_pending());
            // Passed on to the one that waits, which then goes away.
            bound.give();
        }
        assert_eq!(bound.free(), 1);
        bound.take().await.unwrap().forget();
        assert_eq!(bound.try_take().unwrap_err(), Refused::Full);
    }

    #[tokio::test]
    async fn closing_tells_those_who_wait() {
        let bound = Bound::new(1);
        bound.try_take().unwrap().forget();
        let mut waiting = std::pin::pin!(bound.take());
        assert!(futures_poll(&mut waiting).is_pending());
        bound.close();
        assert!(waiting.await.is_none());
    }

    fn futures_poll<F: Future>(future: &mut std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut cx)
    }

    /// Threads that take, hold and give back, some waiting and some giving up: never more than the places at once, nobody
    /// waits for ever, and all places are there at the end.
    #[test]
    fn under_contention_no_place_is_lost_and_none_is_made() {
        const PLACES: u32 = 3;
        let bound = Arc::new(Bound::new(PLACES));
        let inside = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..4_u64)
            .map(|seed| {
                let (bound, inside) = (Arc::clone(&bound), Arc::clone(&inside));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .build()
                        .unwrap();
                    let mut state = seed + 1;
                    for _ in 0..3_000 {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let taken = match state >> 60 {
                            0..4 => bound.try_take().ok(),
                            4..6 => runtime.block_on(async {
                                tokio::select! {
                                    biased;
                                    taken = bound.take() => taken,
                                    () = tokio::task::yield_now() => None,
                                }
                            }),
                            _ => runtime.block_on(bound.take()),
                        };
                        if let Some(taken) = taken {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < PLACES as usize);
                            std::hint::black_box(&taken);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(bound.free(), PLACES as usize);
    }
}
