//! The server's side of RPC: which requests are admitted, each id at most once.

use std::collections::{BTreeSet, HashMap};

use dwell_messages::RequestId;

/// Requests of one client served at a time; more are answered `Busy`.
pub const ADMITTED_MAX: usize = 256;
/// Ids remembered beyond the first that is missing; with more, the missing ones count as used.
pub(super) const OUT_OF_ORDER_MAX: usize = 4_096;

/// Withdrawals that came before their requests and wait for them; with more, the oldest are forgotten.
pub const CANCELLED_MAX: usize = 1_024;

/// Why a request is not served.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Refusal {
    /// The id was used before: a request is served at most once.
    Duplicate,
    /// `ADMITTED_MAX` requests are being served.
    Busy,
    /// It was withdrawn before it came.
    Cancelled,
}

/// What is being served. A client's ids only grow, but lanes overtake each other: up to `floor` every id counts as
/// used, above it those in `above`.
#[derive(Debug)]
pub(super) struct AdmissionCore<C> {
    pub(super) credulous: bool,
    floor: u64,
    above: BTreeSet<u64>,
    /// Withdrawn, and not come yet.
    cancelled: BTreeSet<u64>,
    /// Whoever asked up to here has lost the session: nobody waits for these answers.
    fence: u64,
    serving: HashMap<RequestId, C>,
}

impl<C> Default for AdmissionCore<C> {
    fn default() -> Self {
        Self {
            credulous: false,
            floor: 0,
            above: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            fence: 0,
            serving: HashMap::new(),
        }
    }
}

impl<C> AdmissionCore<C> {
    /// Admits a request, or says why not.
    ///
    /// # Errors
    /// The refusal; the id of a refused busy request counts as used.
    pub(super) fn admit(&mut self, id: RequestId, call: C) -> Result<(), Refusal> {
        if !self.credulous && (id.0 <= self.floor || !self.above.insert(id.0)) {
            return Err(Refusal::Duplicate);
        }
        if self.above.len() > OUT_OF_ORDER_MAX
            && let Some(lowest) = self.above.pop_first()
        {
            self.floor = lowest;
        }
        while self.above.first().is_some_and(|lowest| *lowest - 1 == self.floor) {
            self.above.pop_first();
            self.floor += 1;
        }
        if self.cancelled.remove(&id.0) {
            return Err(Refusal::Cancelled);
        }
        if self.serving.len() >= ADMITTED_MAX {
            return Err(Refusal::Busy);
        }
        self.serving.insert(id, call);
        Ok(())
    }

    /// The client withdraws a request. `Some`: it is being served. One that has not come yet is refused when it does; one
    /// that was answered was answered.
    pub(super) fn cancel(&mut self, id: RequestId) -> Option<&C> {
        let served = self.serving.get(&id);
        if served.is_none() && id.0 > self.floor && !self.above.contains(&id.0) {
            self.cancelled.insert(id.0);
            if self.cancelled.len() > CANCELLED_MAX {
                self.cancelled.pop_first();
            }
        }
        served
    }

    /// The session has another owner, who goes on behind these ids.
    pub(super) fn take_over(&mut self, last: RequestId) {
        self.floor = self.floor.max(last.0);
        self.fence = self.fence.max(last.0);
        self.above.clear();
        self.cancelled.clear();
    }

    /// Whether anybody waits for this request's answer.
    pub(super) fn is_awaited(&self, id: RequestId) -> bool {
        id.0 > self.fence
    }

    /// A request has its answer. `None`: it had one already, or was never admitted.
    pub(super) fn finish(&mut self, id: RequestId) -> Option<C> {
        self.serving.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_served_once_even_after_it_was_answered() {
        let mut core = AdmissionCore::default();
        assert_eq!(core.admit(RequestId(5), 'a'), Ok(()));
        assert_eq!(core.admit(RequestId(5), 'b'), Err(Refusal::Duplicate));
        assert_eq!(core.finish(RequestId(5)), Some('a'));
        assert_eq!(core.finish(RequestId(5)), None);
        assert_eq!(core.admit(RequestId(5), 'c'), Err(Refusal::Duplicate));
    }

    /// Once a write in a faster lane made the start behind it a duplicate.
    #[test]
    fn an_id_that_was_overtaken_is_served_and_only_once() {
        let mut core = AdmissionCore::default();
        assert_eq!(core.admit(RequestId(2), ()), Ok(()));
        assert_eq!(core.admit(RequestId(1), ()), Ok(()));
        assert_eq!(core.admit(RequestId(1), ()), Err(Refusal::Duplicate));
        assert_eq!(core.admit(RequestId(2), ()), Err(Refusal::Duplicate));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_forgotten_counts_as_used() {
        let mut core = AdmissionCore::default();
        for id in 1..=3 * OUT_OF_ORDER_MAX as u64 {
            core.admit(RequestId(2 * id), ()).ok();
            assert!(core.above.len() <= OUT_OF_ORDER_MAX);
        }
        assert_eq!(core.admit(RequestId(2), ()), Err(Refusal::Duplicate));
        assert_eq!(core.admit(RequestId(3), ()), Err(Refusal::Duplicate));
    }

    /// K-07.
    #[test]
    fn a_withdrawal_that_overtook_its_request_refuses_it_once_and_is_remembered_within_a_bound() {
        let mut core = AdmissionCore::default();
        assert!(core.cancel(RequestId(5)).is_none());
        assert_eq!(core.admit(RequestId(5), 'a'), Err(Refusal::Cancelled));
        assert_eq!(core.admit(RequestId(5), 'a'), Err(Refusal::Duplicate));
        assert_eq!(core.admit(RequestId(6), 'b'), Ok(()));
        assert_eq!(core.cancel(RequestId(6)), Some(&'b'));
        assert_eq!(core.finish(RequestId(6)), Some('b'));
        // Answered: there is nothing to withdraw, and nothing is remembered.
        assert!(core.cancel(RequestId(6)).is_none() && core.cancelled.is_empty());
        for id in 10..10 + 2 * CANCELLED_MAX as u64 {
            core.cancel(RequestId(id));
            assert!(core.cancelled.len() <= CANCELLED_MAX);
        }
    }

    #[test]
    fn after_a_takeover_earlier_ids_are_used_and_their_answers_nobodys() {
        let mut core = AdmissionCore::default();
        assert_eq!(core.admit(RequestId(3), 'a'), Ok(()));
        core.take_over(RequestId(7));
        assert_eq!(core.admit(RequestId(6), 'b'), Err(Refusal::Duplicate));
        assert!(!core.is_awaited(RequestId(3)) && core.is_awaited(RequestId(8)));
        assert_eq!(core.admit(RequestId(8), 'c'), Ok(()));
        assert_eq!(core.finish(RequestId(3)), Some('a'));
    }

    #[test]
    fn the_bound_answers_busy_and_forgets_nothing() {
        let mut core = AdmissionCore::default();
        for id in 1..=ADMITTED_MAX as u64 {
            assert_eq!(core.admit(RequestId(id), ()), Ok(()));
        }
        assert_eq!(core.admit(RequestId(1_000), ()), Err(Refusal::Busy));
        assert!(core.finish(RequestId(1)).is_some());
        assert_eq!(core.admit(RequestId(1_001), ()), Ok(()));
        assert_eq!(core.admit(RequestId(1_002), ()), Err(Refusal::Busy));
    }
}
