//! Session numbers that nobody may begin any more. Pure.
//!
//! A session begins with its client's first message over the link whose welcome named it. That message can be under way
//! for long: whoever carries it decides when it arrives. So once a client has been told that its session begins over
//! another link, the number is spent: a first message that comes later begins nothing.

use std::collections::BTreeMap;

use super::SessionId;

/// Spent numbers that are remembered.
const PAST_MAX: usize = 4_096;

/// What began in the place of a session that never had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Anew {
    /// Its number.
    pub(super) session: SessionId,
    /// Which link of the client's asked for it.
    pub(super) link: u64,
}

/// The session may have begun and is over, or was begun anew for a later link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Over;

/// The newest spent numbers: what is neither a session nor here never began.
#[derive(Default)]
pub(super) struct Past {
    /// With what began instead, where something did.
    spent: BTreeMap<SessionId, Option<Anew>>,
    /// Of numbers up to here nothing is known any more.
    forgotten: SessionId,
}

impl Past {
    /// A session is over.
    pub(super) fn end(&mut self, id: SessionId) {
        self.spend(id, None);
    }

    /// Whether a first message may begin this session.
    pub(super) fn may_begin(&self, id: SessionId) -> bool {
        id > self.forgotten && !self.spent.contains_key(&id)
    }

    /// A client asks for a session that is not there: it begins as another, if it never did before. `Some`: what began in
    /// its place for an earlier link, of which the client cannot have heard.
    pub(super) fn begin_anew(&mut self, id: SessionId, anew: Anew) -> Result<Option<SessionId>, Over> {
        if id <= self.forgotten {
            return Err(Over);
        }
        let unheard = match self.spent.get(&id) {
            None => None,
            Some(Some(earlier)) if anew.link > earlier.link => Some(earlier.session),
            Some(Some(_) | None) => return Err(Over),
        };
        self.spend(id, Some(anew));
        Ok(unheard)
    }

    fn spend(&mut self, id: SessionId, anew: Option<Anew>) {
        self.spent.insert(id, anew);
        if self.spent.len() > PAST_MAX
            && let Some((lowest, _)) = self.spent.pop_first()
        {
            // A session that lived long ends with a low number: what was forgotten before stays so.
            self.forgotten = self.forgotten.max(lowest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anew(session: SessionId, link: u64) -> Anew {
        Anew { session, link }
    }

    #[test]
    fn what_was_begun_anew_begins_no_more_and_only_a_later_link_begins_it_over() {
        let mut past = Past::default();
        assert!(past.may_begin(1));
        assert_eq!(past.begin_anew(1, anew(2, 5)), Ok(None));
        assert!(!past.may_begin(1) && past.may_begin(2));
        // The answer was lost, and the client asks once more.
        assert_eq!(past.begin_anew(1, anew(3, 6)), Ok(Some(2)));
        // What comes late from before changes nothing, and neither does a repetition.
        assert_eq!(past.begin_anew(1, anew(4, 5)), Err(Over));
        assert_eq!(past.begin_anew(1, anew(4, 6)), Err(Over));
        past.end(3);
        assert_eq!(past.begin_anew(3, anew(5, 9)), Err(Over), "it had begun");
    }

    #[test]
    fn the_past_is_bounded_and_what_is_forgotten_begins_nothing() {
        let mut past = Past::default();
        for id in 1..=10_000 {
            past.end(id);
        }
        assert_eq!(past.spent.len(), PAST_MAX);
        for id in [1, 5_000, 10_000] {
            assert!(!past.may_begin(id));
            assert_eq!(past.begin_anew(id, anew(20_000, 2)), Err(Over));
        }
        assert!(past.may_begin(10_001));
        // The oldest session of all ends last.
        past.end(1);
        for id in [1, 500, 5_000] {
            assert!(!past.may_begin(id), "{id} is still over");
            assert_eq!(past.begin_anew(id, anew(20_000, 2)), Err(Over));
        }
    }
}
