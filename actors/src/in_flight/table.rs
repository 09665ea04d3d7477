//! A bounded table whose entries leave by themselves.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::unpoisoned;

/// See the module.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: Mutex<HashMap<u64, Arc<T>>>,
    next: AtomicU64,
    max: usize,
    left_out: AtomicU64,
}

/// One entry; it is in the table until this is dropped.
#[must_use = "dropping it takes the entry out of the table"]
#[derive(Debug)]
pub(crate) struct Entered<T> {
    table: Arc<Table<T>>,
    id: u64,
    entry: Arc<T>,
}

impl<T> Table<T> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            entries: Mutex::default(),
            next: AtomicU64::new(1),
            max,
            left_out: AtomicU64::new(0),
        }
    }

    /// Enters it. Past the table's bound it is counted instead, and can be used all the same.
    pub(super) fn enter(table: &Arc<Self>, entry: T) -> Entered<T> {
        let entry = Arc::new(entry);
        let id = table.next.fetch_add(1, Ordering::Relaxed);
        let mut entries = unpoisoned(&table.entries);
        if entries.len() < table.max {
            entries.insert(id, Arc::clone(&entry));
        } else {
            table.left_out.fetch_add(1, Ordering::Relaxed);
        }
        drop(entries);
        Entered {
            table: Arc::clone(table),
            id,
            entry,
        }
    }

    pub(super) fn all(&self) -> Vec<(u64, Arc<T>)> {
        let entries = unpoisoned(&self.entries);
        entries
            .iter()
            .map(|(id, entry)| (*id, Arc::clone(entry)))
            .collect()
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

impl<T> Entered<T> {
    /// The entry itself, for others who know of it; it leaves the table with this guard.
    pub(crate) fn share(&self) -> Arc<T> {
        Arc::clone(&self.entry)
    }
}

impl<T> Deref for Entered<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.entry
    }
}

impl<T> Drop for Entered<T> {
    fn drop(&mut self) {
        unpoisoned(&self.table.entries).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_there_until_its_guard_goes_and_past_the_bound_it_is_counted() {
        let table = Arc::new(Table::new(2));
        let (a, b) = (Table::enter(&table, 'a'), Table::enter(&table, 'b'));
        let c = Table::enter(&table, 'c');
        assert_eq!((table.all().len(), table.left_out(), *c), (2, 1, 'c'));
        drop((a, c));
        let left: Vec<_> = table.all().into_iter().map(|(_, entry)| *entry).collect();
        assert_eq!(left, ['b']);
        drop(b);
        assert!(table.all().is_empty());
    }
}
