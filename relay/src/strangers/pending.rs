//! Handshakes between message 1 and the first valid record.

use std::collections::VecDeque;

/// Handshakes of one executor that have been answered and not yet confirmed. With one more the oldest makes room: of
/// strangers before the ones somebody speaks for.
pub const PENDING_MAX: usize = 32;

/// Names one such handshake.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

/// Those under way, oldest first.
#[derive(Debug)]
pub(super) struct Pending<T> {
    under_way: VecDeque<Entry<T>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<T> {
    ticket: Ticket,
    preferred: bool,
    held: T,
}

impl<T> Pending<T> {
    pub(super) fn new() -> Self {
        Self {
            under_way: VecDeque::new(),
            next: 0,
        }
    }

    /// Adds one, and says which made room for it.
    pub(super) fn insert(&mut self, held: T, preferred: bool) -> (Ticket, Option<Ticket>) {
        let mut evicted = None;
        if self.under_way.len() >= PENDING_MAX {
            let at = self
                .under_way
                .iter()
                .position(|entry| !entry.preferred)
                .unwrap_or(0);
            evicted = self.under_way.remove(at).map(|entry| entry.ticket);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.under_way.push_back(Entry {
            ticket,
            preferred,
            held,
        });
        (ticket, evicted)
    }

    /// Takes one out. `None`: it made room for another.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let at = self.under_way.iter().position(|entry| entry.ticket == ticket)?;
        self.under_way.remove(at).map(|entry| entry.held)
    }

    pub(super) fn contains(&self, ticket: Ticket) -> bool {
        self.under_way.iter().any(|entry| entry.ticket == ticket)
    }

    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_all_places_are_taken_the_oldest_stranger_makes_room() {
        let mut pending = Pending::new();
        let (first, none) = pending.insert("preferred", true);
        assert_eq!(none, None);
        let strangers: Vec<_> = (1..PENDING_MAX)
            .map(|_| pending.insert("stranger", false).0)
            .collect();
        assert_eq!(pending.len(), PENDING_MAX);
        let (_, evicted) = pending.insert("stranger", false);
        assert_eq!(evicted, Some(strangers[0]), "the oldest stranger, not the oldest");
        assert_eq!(pending.len(), PENDING_MAX);
        assert!(!pending.contains(strangers[0]) && pending.contains(first));
        assert_eq!(pending.remove(strangers[0]), None);
        assert_eq!(pending.remove(first), Some("preferred"));
    }

    #[test]
    fn among_preferred_ones_the_oldest_makes_room() {
        let mut pending = Pending::new();
        let tickets: Vec<_> = (0..PENDING_MAX).map(|_| pending.insert((), true).0).collect();
        assert_eq!(pending.insert((), false).1, Some(tickets[0]));
        assert_eq!(pending.len(), PENDING_MAX);
    }
}
