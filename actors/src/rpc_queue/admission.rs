//! The server's side of RPC: which requests are admitted, each id at most once.

use std::collections::{BTreeSet, HashMap};

use dwell_messages::RequestId;

/// Requests of one client served at a time; more are answered `Busy`.
pub const ADMITTED_MAX: usize = 256;
/// Ids remembered beyond the first that is missing; with more, the missing ones count as used.
pub(super) const OUT_OF_ORDER_MAX: usize = 4_096;

/// Why a request is not served.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Refusal {
    /// The id was used before: a request is served at most once.
    Duplicate,
    /// `ADMITTED_MAX` requests are being served.
    Busy,
}

/// What is being served. A client's ids only grow, but lanes overtake each other: up to `floor` every id counts as
/// used, above it those in `above`.
#[derive(Debug)]
pub(super) struct AdmissionCore<C> {
    pub(super) credulous: bool,
    floor: u64,
    above: BTreeSet<u64>,
    serving: HashMap<RequestId, C>,
}

impl<C> Default for AdmissionCore<C> {
    fn default() -> Self {
        Self {
            credulous: false,
            floor: 0,
            above: BTreeSet::new(),
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
        if self.serving.len() >= ADMITTED_MAX {
            return Err(Refusal::Busy);
        }
        self.serving.insert(id, call);
        Ok(())
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
