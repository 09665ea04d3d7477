//! What one arbiter's thread holds of telemetry: its ring of records, and who it is.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::flight::FlightRing;
use super::record::Record;
use crate::in_flight::Board;

/// Records one arbiter may have written that the collector has not yet taken: 1 MiB, 16 ms of the fastest burst.
pub const RING_RECORDS: usize = 16_384;

/// Names one thread among those that host actors; 0 is every other thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadTag(pub u32);

/// Collectors that one thread's actors may leave records with.
pub(super) const COLLECTORS_PER_THREAD_MAX: usize = 64;

thread_local! {
    /// Where hosts that start now leave their records.
    static CURRENT: RefCell<Option<Rc<ArbiterLocal>>> = const { RefCell::new(None) };
    /// All rings of this thread, by their collector.
    static RINGS: RefCell<Vec<(CollectorId, Rc<ArbiterLocal>)>> = const { RefCell::new(Vec::new()) };
    static TAG: Cell<u32> = const { Cell::new(0) };
}

/// Tells collectors apart; never used twice in a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CollectorId(u64);

impl CollectorId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// While it lives, hosts that start on this thread leave their records with the collector that was entered.
#[must_use = "dropping it leaves the collector"]
#[derive(Debug)]
pub(crate) struct Entered(Option<Rc<ArbiterLocal>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        CURRENT.with(|current| *current.borrow_mut() = before);
    }
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
    board: Arc<Board>,
    /// Where unsampled deliveries are remembered, if they are.
    flight: Option<Arc<FlightRing>>,
}

impl ArbiterLocal {
    /// Makes this thread an actor thread that leaves records with this collector, from now on with no other if there
    /// was none. Returns the reader if the ring is new.
    pub(crate) fn install(collector: CollectorId, board: &Arc<Board>) -> Option<RingReader> {
        tag_thread();
        let found = Self::of(collector);
        let (ring, reader) = match found {
            Some(ring) => (ring, None),
            None => {
                let (ring, reader) = Self::make(board);
                RINGS.with(|rings| {
                    let mut rings = rings.borrow_mut();
                    rings.retain(|(_, ring)| !ring.is_abandoned());
                    if rings.len() < COLLECTORS_PER_THREAD_MAX {
                        rings.push((collector, Rc::clone(&ring)));
                    }
                });
                (ring, Some(reader))
            }
        };
        CURRENT.with(|current| {
            let mut current = current.borrow_mut();
            if current.as_ref().is_none_or(|current| current.is_abandoned()) {
                *current = Some(ring);
            }
        });
        reader
    }

    /// From here to the guard's end hosts leave their records with this collector, which must be installed.
    pub(crate) fn enter(collector: CollectorId) -> Entered {
        let ring = Self::of(collector);
        Entered(CURRENT.with(|current| std::mem::replace(&mut *current.borrow_mut(), ring)))
    }

    fn of(collector: CollectorId) -> Option<Rc<Self>> {
        RINGS.with(|rings| {
            let rings = rings.borrow();
            let found = rings.iter().find(|(id, _)| *id == collector)?;
            Some(Rc::clone(&found.1))
        })
    }

    fn make(board: &Arc<Board>) -> (Rc<Self>, RingReader) {
        let (producer, consumer) = rtrb::RingBuffer::new(RING_RECORDS);
        let dropped = Arc::new(AtomicU64::new(0));
        let ring = Rc::new(Self {
            records: RefCell::new(producer),
            dropped: Arc::clone(&dropped),
            board: Arc::clone(board),
            flight: board.flight().map(|flight| flight.ring()),
        });
        let reader = RingReader {
            records: consumer,
            dropped,
        };
        (ring, reader)
    }

    /// Whether the collector has ended.
    fn is_abandoned(&self) -> bool {
        self.records.borrow().is_abandoned()
    }

    /// The ring that hosts of this thread write to now, if it is an actor thread.
    pub(crate) fn current() -> Option<Rc<Self>> {
        CURRENT.with(|current| current.borrow().clone())
    }

    /// The table of what is unfinished in the role of this ring.
    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Where deliveries of unsampled calls are remembered, if they are.
    #[inline]
    pub(crate) fn flight(&self) -> Option<&FlightRing> {
        self.flight.as_deref()
    }

    /// Writes one record, or counts it as dropped when the collector is behind.
    #[inline]
    pub(crate) fn push(&self, record: Record) {
        if self.records.borrow_mut().push(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn tag_thread() {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    TAG.with(|tag| {
        if tag.get() == 0 {
            tag.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
    });
}

/// Which thread this is.
#[inline]
pub fn thread_tag() -> ThreadTag {
    ThreadTag(TAG.with(Cell::get))
}
