//! The caller's side of RPC: request ids, the in-flight window, and who waits for which response.

use std::collections::{HashMap, VecDeque};

use dwell_messages::RequestId;

/// Requests in flight on one link; more wait.
pub const IN_FLIGHT_MAX: usize = 256;
/// Requests that may wait for the window.
pub const WAITING_MAX: usize = 1_024;

/// Neither the window nor the queue behind it has room; the call comes back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full<C>(pub(super) C);

/// The pending table. `C` is what is known of a call, before and after it was sent.
#[derive(Debug)]
pub(super) struct PendingCore<C> {
    next_id: u64,
    in_flight: HashMap<RequestId, C>,
    waiting: VecDeque<C>,
    closed: bool,
}

impl<C> Default for PendingCore<C> {
    fn default() -> Self {
        Self {
            next_id: 1,
            in_flight: HashMap::new(),
            waiting: VecDeque::new(),
            closed: false,
        }
    }
}

impl<C> PendingCore<C> {
    /// Registers a call. `Some(id)`: send it now; `None`: it waits for the window.
    ///
    /// # Errors
    /// `Full` when too many wait, or the link is closed: registering and checking are one step, so that no call can
    /// slip in behind the end and wait for ever.
    pub(super) fn submit(&mut self, call: C) -> Result<Option<RequestId>, Full<C>> {
        if self.closed || self.waiting.len() >= WAITING_MAX {
            return Err(Full(call));
        }
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            self.waiting.push_back(call);
            return Ok(None);
        }
        Ok(Some(self.register(call)))
    }

    /// The call behind a response, at most once.
    pub(super) fn complete(&mut self, id: RequestId) -> Option<C> {
        self.in_flight.remove(&id)
    }

    /// For a session that others had before: ids go on behind the highest of theirs.
    pub(super) fn go_on_behind(&mut self, last: u64) {
        self.next_id = self.next_id.max(last.saturating_add(1));
    }

    /// Takes out the waiting calls that are withdrawn, and says which of those in flight are.
    pub(super) fn withdraw(&mut self, mut is_withdrawn: impl FnMut(&C) -> bool) -> (Vec<C>, Vec<RequestId>) {
        let mut waiting = Vec::new();
        for call in std::mem::take(&mut self.waiting) {
            if is_withdrawn(&call) {
                waiting.push(call);
            } else {
                self.waiting.push_back(call);
            }
        }
        let mut in_flight: Vec<_> = self
            .in_flight
            .iter()
            .filter(|(_, call)| is_withdrawn(call))
            .map(|(id, _)| *id)
            .collect();
        in_flight.sort_unstable();
        (waiting, in_flight)
    }

    /// The next waiting call whose turn it is, with its new id.
    pub(super) fn next_waiting(&mut self) -> Option<RequestId> {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let call = self.waiting.pop_front()?;
        Some(self.register(call))
    }

    /// A call in flight.
    pub(super) fn call_mut(&mut self, id: RequestId) -> Option<&mut C> {
        self.in_flight.get_mut(&id)
    }

    /// The link is over: every call that will have no response. Nothing is taken any more.
    pub(super) fn close(&mut self) -> Vec<C> {
        self.closed = true;
        self.in_flight
            .drain()
            .map(|(_, call)| call)
            .chain(self.waiting.drain(..))
            .collect()
    }

    /// Whether this id was handed out.
    pub(super) fn was_issued(&self, id: RequestId) -> bool {
        id.0 != 0 && id.0 < self.next_id
    }

    fn register(&mut self, call: C) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.in_flight.insert(id, call);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_out_of_order_find_their_calls_and_each_only_once() {
        let mut core = PendingCore::default();
        let (a, b) = (
            core.submit('a').unwrap().unwrap(),
            core.submit('b').unwrap().unwrap(),
        );
        assert_eq!(core.complete(b), Some('b'));
        assert_eq!(core.complete(b), None);
        assert_eq!(core.complete(a), Some('a'));
        assert!(core.was_issued(a) && !core.was_issued(RequestId(3)));
    }

    #[test]
    fn the_window_holds_calls_back_and_lets_them_go_in_order() {
        let mut core = PendingCore::default();
        for call in 0..IN_FLIGHT_MAX {
            assert!(core.submit(call).unwrap().is_some());
        }
        assert_eq!(core.submit(9_000), Ok(None));
        assert_eq!(core.next_waiting(), None);
        core.complete(RequestId(1));
        let id = core.next_waiting().unwrap();
        assert_eq!(core.complete(id), Some(9_000));
    }

    #[test]
    fn withdrawn_calls_that_wait_are_given_back_and_those_in_flight_are_named_and_stay() {
        let mut core = PendingCore::default();
        core.go_on_behind(40);
        for call in 0..IN_FLIGHT_MAX + 3 {
            core.submit(call).unwrap();
        }
        let odd = |call: &usize| *call >= IN_FLIGHT_MAX - 1;
        let (waiting, in_flight) = core.withdraw(odd);
        assert_eq!(waiting, [IN_FLIGHT_MAX, IN_FLIGHT_MAX + 1, IN_FLIGHT_MAX + 2]);
        assert_eq!(in_flight, [RequestId(40 + IN_FLIGHT_MAX as u64)]);
        assert_eq!(core.complete(in_flight[0]), Some(IN_FLIGHT_MAX - 1));
        assert_eq!(core.next_waiting(), None);
    }

    #[test]
    fn after_the_end_every_call_is_given_back_and_none_is_taken() {
        let mut core = PendingCore::default();
        core.submit(1).unwrap();
        assert_eq!(core.close(), vec![1]);
        assert_eq!(core.submit(2), Err(Full(2)));
    }
}
