//! Room for what is appended and not written yet: a share of it for each thread, and a bound for all of them together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};

use super::error::ThreadError;

/// Bytes of all live threads' items that may wait to be written.
pub const APPEND_QUEUE_MAX_BYTES: usize = 32 << 20;
/// Of these the bytes of one thread's: a log that takes nothing leaves the others room.
pub const THREAD_QUEUE_MAX_BYTES: usize = 8 << 20;

/// Some bytes, for which those that want of them wait in their order.
#[derive(Clone)]
pub(super) struct Allowance {
    room: Arc<Semaphore>,
    max: usize,
    /// How many of them are held by what could not be written.
    stuck: watch::Receiver<usize>,
}

impl Allowance {
    /// With the end at which is told how many of its bytes are held by what could not be written.
    pub(super) fn new(max: usize) -> (Self, watch::Sender<usize>) {
        let (is_stuck, stuck) = watch::channel(0);
        let room = Arc::new(Semaphore::new(max));
        (Self { room, max, stuck }, is_stuck)
    }

    /// Waits for room, but not for a disk that takes nothing.
    async fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ThreadError> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(wanted) {
            Ok(room) => return Ok(room),
            Err(TryAcquireError::Closed) => return Err(ThreadError::Closed),
            Err(TryAcquireError::NoPermits) => {}
        }
        let mut stuck = self.stuck.clone();
        tokio::select! {
            biased;
            room = Arc::clone(&self.room).acquire_many_owned(wanted) => room.map_err(|_| ThreadError::Closed),
            held = stuck.wait_for(|held| held + bytes > self.max) => Err(match held {
                Ok(_) => ThreadError::Backlog { max: self.max },
                Err(_) => ThreadError::Closed,
            }),
        }
    }
}

/// Where one thread's appends find room.
pub(super) struct Gate {
    /// This thread's alone.
    pub(super) share: Allowance,
    pub(super) all: Allowance,
}

impl Gate {
    /// Waits for room, and fails where no more can come before something is written that cannot be.
    pub(super) async fn admit(&self, bytes: usize) -> Result<AppendRoom, ThreadError> {
        // Its own first: whoever waits for that keeps nobody else's.
        let share = self.share.take(bytes).await?;
        let all = self.all.take(bytes).await?;
        Ok(AppendRoom { share, all })
    }
}

/// Room for the bytes of some items of one thread; given back when dropped.
pub(crate) struct AppendRoom {
    share: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

impl AppendRoom {
    /// For tests of those that hold it.
    #[cfg(test)]
    pub(crate) fn of(room: &Arc<Semaphore>, bytes: u32) -> Self {
        let some = || Arc::clone(room).try_acquire_many_owned(bytes / 2).unwrap();
        Self {
            share: some(),
            all: some(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.all.num_permits()
    }

    /// Puts more of the same thread's with what there is.
    pub(crate) fn merge(there: &mut Option<Self>, more: Option<Self>) {
        match (there, more) {
            (Some(there), Some(more)) => {
                there.share.merge(more.share);
                there.all.merge(more.all);
            }
            (there @ None, more) => *there = more,
            (Some(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// What a try comes to now; `None`: it waits.
    fn tried(gate: &Gate, bytes: usize) -> Option<Result<AppendRoom, ThreadError>> {
        gate.admit(bytes).now_or_never()
    }

    #[test]
    fn what_waits_for_room_is_refused_only_where_what_cannot_be_written_has_it() {
        let (all, all_stuck) = Allowance::new(10);
        let gate = |max| {
            let (share, stuck) = Allowance::new(max);
            let all = all.clone();
            (Gate { share, all }, stuck)
        };
        let ((one, one_stuck), (two, _two_stuck)) = (gate(6), gate(8));
        let held = tried(&one, 6).unwrap().unwrap();
        assert_eq!(held.bytes(), 6);
        // Full of what is about to be written: both wait.
        assert!(tried(&one, 1).is_none() && tried(&two, 5).is_none());
        one_stuck.send_replace(6);
        all_stuck.send_replace(6);
        assert!(matches!(
            tried(&one, 1),
            Some(Err(ThreadError::Backlog { max: 6 }))
        ));
        // The other one's own is free, and there is as much as it wants.
        let other = tried(&two, 4).unwrap().unwrap();
        // Its own are being written, so these will fit; what never fits beside what is stuck is refused.
        assert!(tried(&two, 3).is_none());
        assert!(matches!(
            tried(&two, 5),
            Some(Err(ThreadError::Backlog { max: 10 })) | None
        ));
        drop(other);
        assert!(matches!(
            tried(&two, 5),
            Some(Err(ThreadError::Backlog { max: 10 }))
        ));
        drop(tried(&two, 4).unwrap().unwrap());
        // What waits is told when it comes to that, and has its room when it is given back.
        one_stuck.send_replace(0);
        all_stuck.send_replace(0);
        let mut waits = Box::pin(two.admit(5));
        assert!(waits.as_mut().now_or_never().is_none());
        all_stuck.send_replace(6);
        assert!(matches!(
            waits.now_or_never(),
            Some(Err(ThreadError::Backlog { max: 10 }))
        ));
        let mut held = Some(held);
        AppendRoom::merge(&mut held, None);
        drop(held);
        drop(tried(&two, 8).unwrap().unwrap());
    }

    #[test]
    fn room_that_is_put_together_is_given_back_together() {
        let gate = Gate {
            share: Allowance::new(4).0,
            all: Allowance::new(5).0,
        };
        let mut held = None;
        for expected in [1, 3] {
            AppendRoom::merge(&mut held, Some(tried(&gate, expected).unwrap().unwrap()));
        }
        assert_eq!(held.as_ref().map(AppendRoom::bytes), Some(4));
        assert!(!matches!(tried(&gate, 1), Some(Ok(_))));
        drop(held);
        drop(tried(&gate, 4).unwrap().unwrap());
    }
}
