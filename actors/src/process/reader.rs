//! One output reader: takes byte credit and an event slot before it reads the pipe, so nothing it reads ever waits.
//!
//! While the session has no link, or the process is not to wait in any case, output for which there is no credit goes to
//! a spool on disk, and from there to the client before anything that comes later.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use dwell_messages::process::{CHUNK_MAX_BYTES, Overflow};
use dwell_messages::{Envelope, OutputStream, TraceContext};

use super::attention::{Attention, Share};
use super::credit::{Credit, Presence};
use super::spool::{Spool, SpoolPlace};
use crate::in_flight::Waits;
use crate::mailbox::{BulkResidence, Mailbox, Slot};
use crate::spawn::OutputPipe;
use crate::telemetry::{Stage, Tick, semconv};
use crate::terminal_delivery::push::{PushMessage, TerminalDelivery};
use crate::terminal_delivery::record::Record;

/// What a reader reads, and where it puts it.
pub(super) struct Source {
    pub(super) fd: OwnedFd,
    pub(super) stream: OutputStream,
    pub(super) credit: Rc<Credit>,
    pub(super) delivery: Mailbox<TerminalDelivery>,
    pub(super) record: Rc<Record>,
    pub(super) context: TraceContext,
    pub(super) bulk: Arc<BulkResidence>,
    pub(super) spawn_ended: Tick,
    pub(super) presence: Presence,
    pub(super) overflow: Overflow,
    pub(super) spool: SpoolPlace,
    pub(super) attention: Arc<Attention>,
}

/// What a reader has to tell at its end: all there ever is of it, however much it read.
pub(crate) struct ReaderReport {
    pub(super) end: u64,
    pub(super) first_byte: Option<Tick>,
    chunks: u64,
    credit_wait_ticks: u64,
    room_wait_ticks: u64,
    yielded_ticks: u64,
    spooled: u64,
    spool_ticks: u64,
    skipped: u64,
    began: Tick,
    ended: Tick,
    error: Option<&'static str>,
    bulk: Arc<BulkResidence>,
}

/// The reader span's name.
pub(super) fn span_name(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => semconv::span::STDOUT_READER,
        OutputStream::Stderr => semconv::span::STDERR_READER,
    }
}

impl ReaderReport {
    /// The reader's one span.
    pub(super) fn stage(&self, context: &TraceContext, stream: OutputStream) -> Stage {
        let micros = |ticks| crate::telemetry::nanos(ticks) / 1_000;
        let stage = Stage::new(context, span_name(stream), self.began, self.ended)
            .number(semconv::STREAM_BYTES, self.end)
            .number(semconv::STREAM_CHUNKS, self.chunks)
            .number(semconv::STREAM_CREDIT_WAIT_US, micros(self.credit_wait_ticks))
            .number(semconv::STREAM_ROOM_WAIT_US, micros(self.room_wait_ticks))
            .number(semconv::STREAM_YIELDED_US, micros(self.yielded_ticks))
            .number(semconv::MAILBOX_COUNT, self.bulk.count())
            .number(semconv::MAILBOX_RESIDENCE_TOTAL_US, self.bulk.total_us())
            .number(semconv::MAILBOX_RESIDENCE_LONGEST_US, self.bulk.longest_us())
            .failed(self.error);
        let stage = if self.spooled > 0 {
            stage
                .number(semconv::STREAM_SPOOLED_BYTES, self.spooled)
                .number(semconv::STREAM_SPOOL_US, micros(self.spool_ticks))
                .number(semconv::STREAM_DROPPED_BYTES, self.skipped)
        } else {
            stage
        };
        match self.first_byte {
            Some(first) => stage.number(semconv::STREAM_FIRST_BYTE_US, first.micros_since(self.began)),
            None => stage,
        }
    }
}

/// Reads a pipe to its end.
pub(super) async fn read(source: Source) -> ReaderReport {
    let mut report = ReaderReport {
        end: 0,
        first_byte: None,
        chunks: 0,
        credit_wait_ticks: 0,
        room_wait_ticks: 0,
        yielded_ticks: 0,
        spooled: 0,
        spool_ticks: 0,
        skipped: 0,
        began: source.spawn_ended,
        ended: source.spawn_ended,
        error: None,
        bulk: Arc::clone(&source.bulk),
    };
    let pipe = match OutputPipe::from_fd(source.fd) {
        Ok(pipe) => pipe,
        Err(error) => {
            tracing::warn!(%error, "an output pipe cannot be read");
            report.error = Some("pipe_unusable");
            return report;
        }
    };
    let mut reader = Reader {
        pipe,
        stream: source.stream,
        credit: source.credit,
        delivery: source.delivery,
        record: source.record,
        context: source.context,
        presence: source.presence,
        overflow: source.overflow,
        spool: Spool::new(&source.spool),
        attention: source.attention,
        share: Share::default(),
        delivered: 0,
        at_end: false,
        report,
    };
    while reader.step().await {}
    reader.credit.hold(reader.stream, false);
    reader.waits(Waits::Process, Tick::now());
    reader.report.ended = Tick::now();
    reader.report
}

struct Reader {
    pipe: OutputPipe,
    stream: OutputStream,
    credit: Rc<Credit>,
    delivery: Mailbox<TerminalDelivery>,
    record: Rc<Record>,
    context: TraceContext,
    presence: Presence,
    overflow: Overflow,
    spool: Spool,
    attention: Arc<Attention>,
    share: Share,
    /// Bytes handed to the delivery, or dropped; `report.end` counts those taken from the pipe.
    delivered: u64,
    at_end: bool,
    report: ReaderReport,
}

/// What a reader does next.
enum Next {
    /// So many bytes may be delivered.
    Room(u64),
    /// The pipe has something, or nothing more, and it goes to the spool.
    Spool(std::io::Result<Option<bytes::Bytes>>),
    /// The session's link came or went.
    Look,
}

impl Reader {
    /// Moves one chunk. False: that was the end.
    async fn step(&mut self) -> bool {
        if self.at_end && self.spool.is_empty() {
            return false;
        }
        let before = Tick::now();
        self.credit.hold(self.stream, true);
        let next = self.next(before).await;
        let now = Tick::now();
        self.waits(Waits::Process, now);
        self.report.credit_wait_ticks += now.ticks_since(before);
        match next {
            Next::Look => true,
            Next::Spool(read) => match read {
                Ok(Some(data)) => {
                    self.came(now);
                    self.keep(data).await
                }
                other => self.pipe_ended(other),
            },
            Next::Room(room) => self.deliver(room, now).await,
        }
    }

    fn waits(&self, waits: Waits, now: Tick) {
        self.credit.waits(self.stream, waits, self.report.end, now);
    }

    async fn next(&mut self, before: Tick) -> Next {
        let usable = self.spool.is_usable() && !self.at_end;
        let ring = self.overflow == Overflow::Ring;
        let attended = self.presence.is_attached() && !self.credit.is_unattended();
        let may_spool = usable && (ring || (!attended && self.spool.room() >= CHUNK_MAX_BYTES as u64));
        if !may_spool && !self.credit.has_room(self.stream, self.delivered) {
            let waits = if attended { Waits::Consumer } else { Waits::Anybody };
            self.waits(waits, before);
        }
        let room = self.credit.room(self.stream, self.delivered);
        if may_spool {
            tokio::select! {
                biased;
                room = room => Next::Room(room),
                read = self.pipe.read_chunk(CHUNK_MAX_BYTES) => Next::Spool(read),
            }
        } else if usable && attended {
            tokio::select! {
                biased;
                room = room => Next::Room(room),
                () = self.presence.gone() => Next::Look,
                () = self.credit.attendance_changed() => Next::Look,
            }
        } else {
            tokio::select! {
                biased;
                room = room => Next::Room(room),
                () = self.presence.changed() => Next::Look,
                () = self.credit.attendance_changed() => Next::Look,
            }
        }
    }

    fn came(&mut self, now: Tick) {
        self.report.first_byte.get_or_insert(now);
        self.credit.output_came(now);
    }

    /// To the spool; from one that fails the bytes wait here for their credit.
    async fn keep(&mut self, data: bytes::Bytes) -> bool {
        let offset = self.report.end;
        self.report.end += data.len() as u64;
        self.record.output(self.stream, offset, &data);
        let before = Tick::now();
        let appended = self.spool.append(offset, data).await;
        self.report.spool_ticks += Tick::now().ticks_since(before);
        match appended {
            Ok(()) => {
                self.report.spooled += self.report.end - offset;
                true
            }
            Err((error, mut data)) => {
                tracing::warn!(%error, "output that nobody takes cannot be kept on disk: the process waits");
                // What the spool holds stands before them.
                while !self.spool.is_empty() {
                    let room = self.credit.room(self.stream, self.delivered).await;
                    if !self.deliver_spooled(room).await {
                        return false;
                    }
                }
                while !data.is_empty() {
                    let room = self.credit.room(self.stream, self.delivered).await;
                    let part = data.split_to(usize::try_from(room).unwrap_or(usize::MAX).min(data.len()));
                    if !self.send(part).await {
                        return false;
                    }
                }
                true
            }
        }
    }

    async fn deliver(&mut self, room: u64, credited: Tick) -> bool {
        if !self.spool.is_empty() {
            return self.deliver_spooled(room).await;
        }
        self.waits(Waits::Link, credited);
        let Ok(slot) = self.delivery.reserve().await else {
            self.report.error = Some("delivery_gone");
            return false;
        };
        self.waits(Waits::Process, credited);
        self.report.room_wait_ticks += Tick::now().ticks_since(credited);
        self.credit.hold(self.stream, false);
        let max = usize::try_from(room).unwrap_or(usize::MAX).min(CHUNK_MAX_BYTES);
        match self.pipe.read_chunk(max).await {
            Ok(Some(data)) => {
                self.came(Tick::now());
                let event = self.record.output(self.stream, self.report.end, &data);
                let bytes = data.len() as u64;
                self.report.end += bytes;
                self.put(slot, data, event);
                self.leave_time(bytes).await;
                true
            }
            other => self.pipe_ended(other),
        }
    }

    /// Waits a moment, if somebody types and this floods.
    async fn leave_time(&mut self, bytes: u64) {
        let before = Tick::now();
        if let Some(pause) = self.attention.brought(&mut self.share, bytes, before) {
            tokio::time::sleep(pause).await;
            self.report.yielded_ticks += Tick::now().ticks_since(before);
        }
    }

    fn pipe_ended(&mut self, read: std::io::Result<Option<bytes::Bytes>>) -> bool {
        self.at_end = true;
        self.record.ended(self.stream);
        if let Err(error) = read {
            tracing::warn!(%error, "an output pipe failed");
            self.report.error = Some("pipe_failed");
        }
        true
    }

    async fn deliver_spooled(&mut self, room: u64) -> bool {
        let start = self.spool.start();
        if start > self.delivered {
            let (from, to) = (self.delivered, start);
            let Ok(slot) = self.delivery.reserve().await else {
                self.report.error = Some("delivery_gone");
                return false;
            };
            self.report.skipped += to - from;
            self.delivered = to;
            let gap = PushMessage::Gap {
                stream: self.stream,
                from,
                to,
            };
            slot.send(Envelope::new(self.context.clone(), gap));
            return true;
        }
        let before = Tick::now();
        let taken = self.spool.take(room).await;
        self.report.spool_ticks += Tick::now().ticks_since(before);
        match taken {
            Ok(data) => self.send(data).await,
            Err(error) => {
                tracing::error!(%error, "spooled output cannot be read: it is lost");
                self.report.error = Some("spool_failed");
                false
            }
        }
    }

    async fn send(&mut self, data: bytes::Bytes) -> bool {
        let Ok(slot) = self.delivery.reserve().await else {
            self.report.error = Some("delivery_gone");
            return false;
        };
        // Its number went with how it was read, and it has been cut anew since.
        self.put(slot, data, 0);
        true
    }

    fn put(&mut self, slot: Slot<TerminalDelivery>, data: bytes::Bytes, event: u64) {
        self.report.chunks += 1;
        let offset = self.delivered;
        self.delivered += data.len() as u64;
        let message = PushMessage::Output {
            event,
            stream: self.stream,
            offset,
            data,
            bulk: Arc::clone(&self.report.bulk),
        };
        slot.send(Envelope::new(self.context.clone(), message));
    }
}
