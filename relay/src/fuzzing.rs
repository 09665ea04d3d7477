//! For fuzz targets only: both sides of a record's inside, without a key.

use std::time::Instant;

use bytes::BytesMut;

use crate::chunk::ChunkError;
use crate::lanes::{CutLimits, CutMessage, EnqueueError, Lane, Lanes, Outgoing};
use crate::reassembly::{Brought, Incoming, Reassembly};

/// A link's unfinished messages.
#[derive(Default)]
pub struct Chunks(Reassembly);

impl Chunks {
    /// Takes one record's plaintext; what it completes, and what was wrong behind that.
    pub fn accept(
        &mut self,
        now: Instant,
        relay_us: u32,
        record: BytesMut,
    ) -> (Vec<Incoming>, Result<(), ChunkError>) {
        let mut whole = Vec::new();
        let outcome = self.0.accept(now, relay_us, record, |brought| match brought {
            Brought::Message(message) => whole.push(message),
            // The link's own words are no messages; what they do is the link target's.
            Brought::Own(..) => {}
        });
        (whole, outcome)
    }
}

/// A link's lanes.
pub struct Cutter<T>(Lanes<T>);

impl<T> Default for Cutter<T> {
    fn default() -> Self {
        Self(Lanes::new())
    }
}

impl<T> Cutter<T> {
    /// As `Link::enqueue`.
    pub fn enqueue(&mut self, message: Outgoing<T>) -> Result<(), EnqueueError<T>> {
        self.0.enqueue(message)
    }

    /// Message bytes that wait in a lane.
    pub fn queued_bytes(&self, lane: Lane) -> usize {
        self.0.queued_bytes(lane)
    }

    /// Cuts one record's plaintext; its bytes of bulk lanes, and what was cut to its end.
    pub fn cut(
        &mut self,
        now: Instant,
        record_bytes: usize,
        bulk_bytes: usize,
        out: &mut BytesMut,
    ) -> (usize, Vec<CutMessage<T>>) {
        let limits = CutLimits {
            record_bytes,
            bulk_bytes,
        };
        let mut finished = Vec::new();
        let bulk = self.0.cut(now, limits, out, &mut finished);
        (bulk, finished)
    }
}
