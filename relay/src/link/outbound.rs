//! What a link writes: clear frames, windows, and as many records as may leave.

use std::time::Instant;

use bytes::BytesMut;
use dwell_messages::kinds::OuterKind;

use crate::chunk::CHUNK_HEADER_BYTES;
use crate::control::{Reset, ResetCode};
use crate::lanes::CutLimits;
use crate::outer::{OUTER_HEADER_BYTES, begin_outer, encode_outer, end_outer};
use crate::own::{OwnChunk, RENEWAL_BYTES};
use crate::record::{RECORD_PLAINTEXT_MAX_BYTES, TAG_BYTES};

use super::{Link, LinkError, RECORD_LIMIT_MIN_BYTES, State, TransmitReport};

/// What a record costs on the wire besides its plaintext.
const RECORD_OVERHEAD_BYTES: usize = OUTER_HEADER_BYTES + TAG_BYTES;

/// Room that every record keeps for what the link says of itself: a mark and an answer to one.
const OWN_CHUNKS_BYTES: usize = 2 * (CHUNK_HEADER_BYTES + size_of::<u64>());
/// Room that a record keeps for a message of a renewal.
const RENEWAL_CHUNK_BYTES: usize = CHUNK_HEADER_BYTES + RENEWAL_BYTES;

/// Most room made at once for one call's records; the next ones make theirs one by one.
const RESERVE_MAX_BYTES: usize = 1024 * 1024;
/// Room for the heads of a record's first chunks.
const SMALL_CUT_BYTES: usize = 64;

impl<T> Link<T> {
    /// Whether anything waits to be sent, whether or not it may leave now.
    pub fn has_pending(&self) -> bool {
        !self.outbox.is_empty() || self.grant_window.is_due() || self.must_speak() || self.lanes.has_bulk()
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) would write something now.
    pub fn can_transmit(&self) -> bool {
        !self.outbox.is_empty()
            || self.grant_window.is_due()
            || (self.is_up()
                && self.plaintext_room(usize::MAX).is_some()
                && (self.must_speak() || self.bulk_may_leave()))
    }

    /// Whether something waits for nothing but room.
    fn must_speak(&self) -> bool {
        self.confirmation_is_due()
            || self.lanes.has_urgent()
            || self.opened.is_due()
            || self.renewal.must_speak()
            || self.renewal_is_due()
            || self.pace.mark_is_due(self.lanes.has_bulk())
    }

    fn renewal_is_due(&self) -> bool {
        match &self.state {
            State::Up(keys) => self.renewal.is_due(keys),
            State::AwaitingWelcome(_)
            | State::AwaitingHello(_)
            | State::AwaitingVerdict(_)
            | State::AwaitingFirstRecord(_)
            | State::Over => false,
        }
    }

    fn bulk_may_leave(&self) -> bool {
        self.lanes.has_bulk() && self.pace.allowance() >= RECORD_LIMIT_MIN_BYTES as u64
    }

    /// The executor acts on nothing before a record proves this side alive, so the first one goes even when it is empty.
    fn confirmation_is_due(&self) -> bool {
        self.is_up() && self.initiator && !self.confirmed
    }

    /// Plaintext that the next record may have; `None` when not even a small one may leave.
    fn plaintext_room(&self, bytes_left: usize) -> Option<usize> {
        let window = usize::try_from(self.send_window.left()).unwrap_or(usize::MAX);
        let room = bytes_left.min(window).checked_sub(RECORD_OVERHEAD_BYTES)?;
        (room >= RECORD_LIMIT_MIN_BYTES).then_some(room.min(self.record_max().0))
    }

    /// Plaintext of the next record, and how much of it from the bulk lanes, by what is known of the link.
    fn record_max(&self) -> (usize, usize) {
        let (record, bulk) = self.pace.record_max();
        let most = (self.options.record_max_bytes).clamp(RECORD_LIMIT_MIN_BYTES, RECORD_PLAINTEXT_MAX_BYTES);
        (record.min(most), bulk.min(most))
    }

    /// Appends what may leave now: clear frames first, then records up to `max_bytes` (taken as at least one small
    /// record) and the send window. One call, one write: small messages share a record, sealed where it will be
    /// written from.
    ///
    /// # Errors
    /// [`LinkError::Record`] when the key is exhausted, [`LinkError::Renewal`] without randomness for a fresh one; the link
    /// is then over and the reset is in `out`.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        out: &mut BytesMut,
        max_bytes: usize,
    ) -> Result<TransmitReport<T>, LinkError> {
        let start = out.len();
        let mut report = TransmitReport {
            wire_bytes: 0,
            data_bytes: 0,
            records: 0,
            bulk_bytes: 0,
            finished: Vec::new(),
        };
        if !self.outbox.is_empty() {
            self.said_at.get_or_insert(now);
        }
        self.flush_outbox(out);
        if let Some(limit) = self.grant_window.take_due().filter(|_| !self.is_over()) {
            encode_outer(out, OuterKind::Window, self.stream, 0, &limit.to_be_bytes());
        }
        let result = self.records(now, out, max_bytes, &mut report);
        if let Err(error) = result {
            self.end(&Reset::new(ResetCode::Exhausted));
            self.flush_outbox(out);
            return Err(error);
        }
        report.wire_bytes = out.len() - start;
        Ok(report)
    }

    fn flush_outbox(&mut self, out: &mut BytesMut) {
        if !self.outbox.is_empty() {
            out.extend_from_slice(&self.outbox);
            // Handshake messages come once in a link's life: their room is not worth keeping.
            self.outbox = BytesMut::new();
        }
    }

    /// Bulk plaintext that the next record may have.
    fn bulk_room(&self) -> usize {
        match usize::try_from(self.pace.allowance()) {
            Ok(bytes) if bytes < RECORD_LIMIT_MIN_BYTES => 0,
            Ok(bytes) => bytes.min(self.record_max().1),
            Err(_) => self.record_max().1,
        }
    }

    fn records(
        &mut self,
        now: Instant,
        out: &mut BytesMut,
        max_bytes: usize,
        report: &mut TransmitReport<T>,
    ) -> Result<(), LinkError> {
        let max_bytes = max_bytes.max(RECORD_OVERHEAD_BYTES + RECORD_LIMIT_MIN_BYTES);
        if self.plaintext_room(max_bytes).is_some() && self.is_up() {
            // Room for all of it at once, since growing would copy what is already sealed.
            let queued = self.lanes.queued_bytes_total();
            let window = usize::try_from(self.send_window.left()).unwrap_or(usize::MAX);
            out.reserve(
                (queued + queued / 64)
                    .min(max_bytes)
                    .min(window)
                    .min(RESERVE_MAX_BYTES),
            );
        }
        while self.must_speak() || self.bulk_may_leave() {
            let Some(record_bytes) = self.plaintext_room(max_bytes - report.data_bytes.min(max_bytes)) else {
                break;
            };
            if !self.record(now, record_bytes, out, report)? {
                break;
            }
        }
        Ok(())
    }

    /// Cuts and seals one record. False: there was nothing for it, or nothing may follow what was reported.
    fn record(
        &mut self,
        now: Instant,
        record_bytes: usize,
        out: &mut BytesMut,
        report: &mut TransmitReport<T>,
    ) -> Result<bool, LinkError> {
        let confirming = self.confirmation_is_due();
        let bulk_bytes = self.bulk_room();
        let State::Up(keys) = &mut self.state else {
            return Ok(false);
        };
        match keys.sealer.admit(record_bytes) {
            Ok(()) => {}
            // What was cut so far is reported first; the next call says that this was the end.
            Err(_) if report.records > 0 => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        if self.renewal.is_due(keys) {
            self.renewal.ask(keys.peer)?;
        }
        let renewing = self.renewal.must_speak();
        let kept = OWN_CHUNKS_BYTES + if renewing { RENEWAL_CHUNK_BYTES } else { 0 };
        let limits = CutLimits {
            record_bytes: record_bytes - kept,
            bulk_bytes,
        };
        // What waits, and the heads of its chunks: a record may be far longer than what there is to say. Too little grows.
        let queued = self.lanes.queued_bytes_total();
        let cut_bytes = (queued + queued / 64 + SMALL_CUT_BYTES).min(record_bytes);
        out.reserve(RECORD_OVERHEAD_BYTES + cut_bytes + kept);
        let frame = begin_outer(out, OuterKind::Data, self.stream);
        let bulk = self.lanes.cut(now, limits, out, &mut report.finished);
        let more = self.lanes.has_bulk();
        if bulk > 0 {
            self.pace.cut(now, bulk as u64, more);
        }
        if let Some(bytes) = self.opened.take() {
            OwnChunk::Opened(bytes).encode(out);
        }
        if self.pace.mark_is_due(more) {
            OwnChunk::Mark(self.pace.mark(now)).encode(out);
        }
        if let Some(own) = self.renewal.says() {
            own.encode(out);
        }
        if out.len() == frame + OUTER_HEADER_BYTES && !confirming {
            out.truncate(frame);
            return Ok(false);
        }
        keys.sealer.seal_in_place(out, frame + OUTER_HEADER_BYTES)?;
        if renewing {
            self.renewal.sealed(now, keys);
        }
        self.confirmed = true;
        end_outer(out, frame);
        let wire = out.len() - frame;
        self.send_window.sent(wire);
        report.bulk_bytes += bulk;
        report.data_bytes += wire;
        report.records += 1;
        Ok(true)
    }
}
