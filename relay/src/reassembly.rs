//! Messages out of chunks: whole ones are parts of their record, cut ones are put together under one budget.

use std::collections::HashMap;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::chunk::{CHUNK_HEADER_BYTES, ChunkError, ChunkHeader};
use crate::lanes::{Lane, MESSAGE_MAX_BYTES};
use crate::own::OwnChunk;

/// Most bytes of unfinished messages a link holds.
pub const REASSEMBLY_MAX_BYTES: usize = 8 * 1024 * 1024;
/// What one unfinished message counts for besides its bytes, so that a million empty beginnings are not free.
const PARTIAL_OVERHEAD_BYTES: usize = 256;
/// A record with less plaintext is copied once, so that its messages do not hold on to the larger read buffer.
const COPY_BELOW_BYTES: usize = 4 * 1024;

/// One received message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incoming {
    /// Its lane.
    pub lane: Lane,
    /// Its channel.
    pub channel: u32,
    /// Its bytes. They may share a buffer of up to 64 KiB with others: copy what is kept for long.
    pub bytes: Bytes,
    /// When the record with its first byte arrived.
    pub first_record_at: Instant,
    /// The longest time one of its records spent in relays, in microseconds, by their unauthenticated word.
    pub relay_us: u32,
    /// Over how many records it was spread.
    pub records: u32,
    /// Its share of the records' plaintext: its bytes and chunk headers.
    pub sealed_bytes: u64,
}

/// What a record brings.
#[derive(Debug)]
pub(crate) enum Brought {
    /// A message that is complete.
    Message(Incoming),
    /// Something of the link's own, and how much of the bulk lanes came before it in all.
    Own(OwnChunk, u64),
}

struct Partial {
    bytes: BytesMut,
    first_record_at: Instant,
    relay_us: u32,
    records: u32,
    sealed_bytes: u64,
}

/// The unfinished messages of one link.
#[derive(Default)]
pub(crate) struct Reassembly {
    partial: HashMap<(Lane, u32), Partial>,
    held_bytes: usize,
    /// Plaintext of the bulk lanes so far, chunk headers included.
    bulk_bytes: u64,
}

impl Reassembly {
    /// Plaintext of the bulk lanes that has been opened so far, chunk headers included.
    pub(crate) fn bulk_bytes(&self) -> u64 {
        self.bulk_bytes
    }

    /// Takes one opened record apart and gives each message it completes to `deliver`, in order.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        relay_us: u32,
        record: BytesMut,
        mut deliver: impl FnMut(Brought),
    ) -> Result<(), ChunkError> {
        let mut rest = if record.len() < COPY_BELOW_BYTES {
            Bytes::copy_from_slice(&record)
        } else {
            record.freeze()
        };
        while !rest.is_empty() {
            if OwnChunk::is_next(&rest) {
                let own = OwnChunk::decode(&mut rest)?;
                if own.is_last() && !rest.is_empty() {
                    return Err(ChunkError::BehindTheKey);
                }
                deliver(Brought::Own(own, self.bulk_bytes));
                continue;
            }
            let header = ChunkHeader::decode(&mut rest)?;
            let bytes = rest.split_to(usize::from(header.length));
            if let Some(message) = self.chunk(now, relay_us, header, bytes)? {
                deliver(Brought::Message(message));
            }
        }
        Ok(())
    }

    fn chunk(
        &mut self,
        now: Instant,
        relay_us: u32,
        header: ChunkHeader,
        bytes: Bytes,
    ) -> Result<Option<Incoming>, ChunkError> {
        let ChunkHeader { lane, channel, .. } = header;
        let sealed_bytes = (CHUNK_HEADER_BYTES + bytes.len()) as u64;
        if lane.is_bulk() {
            self.bulk_bytes += sealed_bytes;
        }
        match (header.first, header.last) {
            (true, _) if self.partial.contains_key(&(lane, channel)) => {
                Err(ChunkError::Interleaved { lane, channel })
            }
            (true, true) => Ok(Some(Incoming {
                lane,
                channel,
                bytes,
                first_record_at: now,
                relay_us,
                records: 1,
                sealed_bytes,
            })),
            (true, false) => {
                self.hold(bytes.len() + PARTIAL_OVERHEAD_BYTES)?;
                let mut buffer = BytesMut::with_capacity(2 * bytes.len());
                buffer.extend_from_slice(&bytes);
                let partial = Partial {
                    bytes: buffer,
                    first_record_at: now,
                    relay_us,
                    records: 1,
                    sealed_bytes,
                };
                self.partial.insert((lane, channel), partial);
                Ok(None)
            }
            (false, last) => {
                self.extend(lane, channel, relay_us, &bytes)?;
                if last {
                    Ok(self.finish(lane, channel))
                } else {
                    Ok(None)
                }
            }
        }
    }

    fn hold(&mut self, bytes: usize) -> Result<(), ChunkError> {
        let held = self.held_bytes + bytes;
        if held > REASSEMBLY_MAX_BYTES {
            return Err(ChunkError::ReassemblyFull {
                max: REASSEMBLY_MAX_BYTES,
            });
        }
        self.held_bytes = held;
        Ok(())
    }

    fn extend(&mut self, lane: Lane, channel: u32, relay_us: u32, bytes: &Bytes) -> Result<(), ChunkError> {
        self.hold(bytes.len())?;
        let partial = self
            .partial
            .get_mut(&(lane, channel))
            .ok_or(ChunkError::Orphan { lane, channel })?;
        if partial.bytes.len() + bytes.len() > MESSAGE_MAX_BYTES {
            return Err(ChunkError::MessageTooLong {
                max: MESSAGE_MAX_BYTES,
            });
        }
        partial.bytes.extend_from_slice(bytes);
        partial.relay_us = partial.relay_us.max(relay_us);
        partial.records = partial.records.saturating_add(1);
        partial.sealed_bytes += (CHUNK_HEADER_BYTES + bytes.len()) as u64;
        Ok(())
    }

    fn finish(&mut self, lane: Lane, channel: u32) -> Option<Incoming> {
        let partial = self.partial.remove(&(lane, channel))?;
        self.held_bytes -= partial.bytes.len() + PARTIAL_OVERHEAD_BYTES;
        Some(Incoming {
            lane,
            channel,
            bytes: partial.bytes.freeze(),
            first_record_at: partial.first_record_at,
            relay_us: partial.relay_us,
            records: partial.records,
            sealed_bytes: partial.sealed_bytes,
        })
    }
}
