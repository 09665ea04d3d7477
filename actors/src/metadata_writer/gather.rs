//! Appended items on their way to the log's thread: made records of in the turn that accepts them, and handed on together.
//!
//! A record is a few hundred bytes. Made where its item was, it is one copy and a checksum; handed on as an item it is
//! three allocations that another thread gives back, and a place in a channel. Measured, that was half of what an append
//! cost.

use crate::event_log::encode_record;
use crate::event_log::worker::{Appending, LogJob, LogKey, Records};
use crate::mailbox::{Room, Turn};
use crate::threads::AppendRoom;

use super::MetadataWriter;

/// Appends that are handed on to the log's thread together, unless somebody waits for them or `GATHER` is over.
pub const APPENDS_GATHERED_MAX: usize = 64;
/// Bytes of records that are handed on together; items of an append that is larger go as they are, and their records are
/// made on the log's thread, so that no turn takes as long as a large copy.
pub const GATHERED_MAX_BYTES: usize = 64 << 10;

/// See the module.
pub(super) struct Gather {
    log: LogKey,
    /// The number of the next item.
    next: u64,
    records: Records,
    appends: usize,
    /// Of those that nobody waits for: what waits here takes room in the mailbox.
    room: Option<Room>,
    /// Bytes that were last handed on: as many will be next.
    expected: usize,
}

impl Gather {
    /// For a log that has `items` items.
    pub(super) fn new(log: LogKey, items: u64) -> Self {
        Self {
            log,
            next: items,
            records: Records::default(),
            appends: 0,
            room: None,
            expected: 0,
        }
    }

    /// Takes an append that is small enough; gives a large one back, which goes behind what is gathered.
    pub(super) fn add(&mut self, mut appending: Box<Appending>) -> Option<Box<Appending>> {
        let bytes: usize = appending.items.iter().map(|item| item.encoded_bytes()).sum();
        if bytes > GATHERED_MAX_BYTES {
            self.next += appending.items.len() as u64;
            return Some(appending);
        }
        let records = &mut self.records;
        if records.bytes.capacity() == 0 {
            records.bytes.reserve(self.expected.max(bytes));
        }
        for item in &appending.items {
            encode_record(&mut records.bytes, self.next, item);
            self.next += 1;
            records.items += 1;
        }
        AppendRoom::merge(&mut records.room, appending.room.take());
        if appending.trace.parent.is_sampled() {
            records.traces.push(appending.trace);
        }
        self.appends += 1;
        None
    }

    /// Keeps the room of this turn's message for as long as what is gathered waits.
    pub(super) fn keep_room(&mut self, turn: &mut Turn<'_, MetadataWriter>) {
        turn.take_room_into(&mut self.room);
    }

    /// Whether what is gathered is to be handed on without waiting for more.
    pub(super) fn is_full(&self) -> bool {
        self.appends >= APPENDS_GATHERED_MAX || self.records.bytes.len() >= GATHERED_MAX_BYTES
    }

    /// What is gathered, if anything, and the room that was kept.
    pub(super) fn take(&mut self) -> (Option<LogJob>, Option<Room>) {
        let room = self.room.take();
        if std::mem::take(&mut self.appends) == 0 {
            return (None, room);
        }
        let records = std::mem::take(&mut self.records);
        self.expected = records.bytes.len().min(GATHERED_MAX_BYTES);
        (Some(LogJob::Records(self.log, Box::new(records))), room)
    }
}

#[cfg(test)]
mod tests {
    use dwell_messages::TraceContext;

    use super::*;
    use crate::event_log::worker::AppendTrace;
    use crate::event_log::{Item, ItemKind};
    use crate::telemetry::{Tick, root, span_id};

    fn item(bytes: usize) -> Item {
        Item {
            kind: ItemKind::Note,
            at_unix_us: 7,
            body: vec![b'x'; bytes],
        }
    }

    fn appending(parent: TraceContext, sizes: &[usize]) -> Box<Appending> {
        Box::new(Appending {
            items: sizes.iter().map(|bytes| item(*bytes)).collect(),
            room: None,
            trace: AppendTrace {
                parent,
                span: span_id(),
                called: Tick::now(),
            },
        })
    }

    fn taken(gather: &mut Gather) -> Records {
        match gather.take() {
            (Some(LogJob::Records(log, records)), None) => {
                assert_eq!(log, LogKey(4));
                *records
            }
            _ => panic!("records, and no room"),
        }
    }

    #[test]
    fn so_many_appends_or_bytes_are_handed_on_together_as_the_records_that_a_log_would_make() {
        let mut gather = Gather::new(LogKey(4), 10);
        assert!(gather.take().0.is_none());
        let mut expected = Vec::new();
        for append in 0..APPENDS_GATHERED_MAX {
            assert!(!gather.is_full(), "{append}");
            assert!(gather.add(appending(root(false), &[append, 3])).is_none());
            for (number, bytes) in [(0, append), (1, 3)] {
                encode_record(&mut expected, 10 + 2 * append as u64 + number, &item(bytes));
            }
        }
        assert!(gather.is_full());
        let records = taken(&mut gather);
        assert_eq!((records.bytes == expected, records.items), (true, 128));
        assert!(!gather.is_full() && gather.take().0.is_none());
        // By bytes, long before so many.
        for _ in 0..2 {
            assert!(!gather.is_full());
            assert!(
                gather
                    .add(appending(root(false), &[GATHERED_MAX_BYTES / 2]))
                    .is_none()
            );
        }
        assert!(gather.is_full());
        assert_eq!(taken(&mut gather).items, 2);
    }

    #[test]
    fn a_large_append_is_given_back_and_its_numbers_are_kept_for_it() {
        let mut gather = Gather::new(LogKey(4), 0);
        assert!(gather.add(appending(root(false), &[1])).is_none());
        let large = gather.add(appending(root(false), &[1, GATHERED_MAX_BYTES]));
        assert_eq!(large.unwrap().items.len(), 2);
        assert_eq!(taken(&mut gather).items, 1);
        assert!(gather.add(appending(root(false), &[5])).is_none());
        let mut expected = Vec::new();
        encode_record(&mut expected, 3, &item(5));
        assert_eq!(taken(&mut gather).bytes, expected);
    }

    #[test]
    fn of_appends_that_are_handed_on_together_the_sampled_ones_keep_their_spans() {
        let mut gather = Gather::new(LogKey(4), 0);
        for is_sampled in [false, true, false, true] {
            assert!(gather.add(appending(root(is_sampled), &[1])).is_none());
        }
        let traces = taken(&mut gather).traces;
        assert!(traces.len() == 2 && traces.iter().all(|trace| trace.parent.is_sampled()));
    }
}
