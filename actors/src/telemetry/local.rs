//! What one arbiter's thread holds of telemetry: its ring of records, and who it is.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::record::Record;

/// Records one arbiter may have written that the collector has not yet taken: 1 MiB, 16 ms of the fastest burst.
pub const RING_RECORDS: usize = 16_384;

/// Names one thread among those that host actors; 0 is every other thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadTag(pub u32);

thread_local! {
    static LOCAL: OnceCell<Rc<ArbiterLocal>> = const { OnceCell::new() };
    static TAG: Cell<u32> = const { Cell::new(0) };
}

/// The consuming half of one arbiter's ring, for the collector.
#[derive(Debug)]
pub(crate) struct RingReader {
    pub(crate) records: rtrb::Consumer<Record>,
    pub(crate) dropped: Arc<AtomicU64>,
}

/// The producing half. It never waits and never wakes anyone.
#[derive(Debug)]
pub(crate) struct ArbiterLocal {
    records: RefCell<rtrb::Producer<Record>>,
    dropped: Arc<AtomicU64>,
}

impl ArbiterLocal {
    /// Makes this thread an actor thread. Returns the reader for the collector, or nothing if it already was one.
    pub(crate) fn install() -> Option<RingReader> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        LOCAL.with(|local| {
            if local.get().is_some() {
                return None;
            }
            let (producer, consumer) = rtrb::RingBuffer::new(RING_RECORDS);
            let dropped = Arc::new(AtomicU64::new(0));
            TAG.with(|tag| tag.set(NEXT.fetch_add(1, Ordering::Relaxed)));
            let made = Rc::new(Self {
                records: RefCell::new(producer),
                dropped: Arc::clone(&dropped),
            });
            local.set(made).ok()?;
            Some(RingReader {
                records: consumer,
                dropped,
            })
        })
    }

    /// This thread's ring, if it is an actor thread.
    pub(crate) fn current() -> Option<Rc<Self>> {
        LOCAL.with(|local| local.get().cloned())
    }

    /// Writes one record, or counts it as dropped when the collector is behind.
    #[inline]
    pub(crate) fn push(&self, record: Record) {
        if self.records.borrow_mut().push(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Which thread this is.
#[inline]
pub fn thread_tag() -> ThreadTag {
    ThreadTag(TAG.with(Cell::get))
}
