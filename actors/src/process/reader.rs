//! One output reader: takes byte credit and an event slot before it reads the pipe, so nothing it reads ever waits.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use dwell_messages::process::CHUNK_MAX_BYTES;
use dwell_messages::{Envelope, OutputStream, TraceContext};
use tokio::sync::Notify;

use crate::mailbox::{BulkResidence, Mailbox};
use crate::spawn::OutputPipe;
use crate::telemetry::{Stage, Tick};
use crate::terminal_delivery::push::{PushMessage, TerminalDelivery};

/// How far the client takes each stream: absolute offsets, so that repeating one changes nothing.
#[derive(Default)]
pub(super) struct Credit {
    limits: [Cell<u64>; 2],
    more: [Notify; 2],
    /// Whether a reader waits for its consumer, and not for the pipe.
    held: [Cell<bool>; 2],
    /// When either stream last brought something.
    last_output: Cell<Option<Tick>>,
}

impl Credit {
    /// Raises a stream's limit. A lower one than before is a late repetition.
    pub(super) fn set(&self, stream: OutputStream, limit: u64) {
        let cell = &self.limits[stream.index()];
        if limit > cell.get() {
            cell.set(limit);
            self.more[stream.index()].notify_one();
        }
    }

    /// Whether it is the consumer that this stream waits for.
    pub(super) fn is_held(&self, stream: OutputStream) -> bool {
        self.held[stream.index()].get()
    }

    /// When output last came.
    pub(super) fn last_output(&self) -> Option<Tick> {
        self.last_output.get()
    }

    /// Nobody counts any more.
    pub(super) fn open(&self) {
        self.set(OutputStream::Stdout, u64::MAX);
        self.set(OutputStream::Stderr, u64::MAX);
    }

    /// Bytes that may be read beyond `offset`, waiting until there are some.
    async fn room(&self, stream: OutputStream, offset: u64) -> u64 {
        loop {
            let room = self.limits[stream.index()].get().saturating_sub(offset);
            if room > 0 {
                return room;
            }
            self.more[stream.index()].notified().await;
        }
    }
}

/// What a reader reads, and where it puts it.
pub(super) struct Source {
    pub(super) fd: OwnedFd,
    pub(super) stream: OutputStream,
    pub(super) credit: Rc<Credit>,
    pub(super) delivery: Mailbox<TerminalDelivery>,
    pub(super) context: TraceContext,
    pub(super) bulk: Arc<BulkResidence>,
    pub(super) spawn_ended: Tick,
}

/// What a reader has to tell at its end: all there ever is of it, however much it read.
pub(crate) struct ReaderReport {
    pub(super) end: u64,
    pub(super) first_byte: Option<Tick>,
    chunks: u64,
    credit_wait_ticks: u64,
    room_wait_ticks: u64,
    began: Tick,
    ended: Tick,
    error: Option<&'static str>,
    bulk: Arc<BulkResidence>,
}

/// The reader span's name.
pub(super) fn span_name(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "stdout reader",
        OutputStream::Stderr => "stderr reader",
    }
}

impl ReaderReport {
    /// The reader's one span.
    pub(super) fn stage(&self, context: &TraceContext, stream: OutputStream) -> Stage {
        let micros = |ticks| crate::telemetry::nanos(ticks) / 1_000;
        let stage = Stage::new(context, span_name(stream), self.began, self.ended)
            .number("process.io.bytes", self.end)
            .number("process.io.chunks", self.chunks)
            .number("process.io.credit_wait_us", micros(self.credit_wait_ticks))
            .number("process.io.room_wait_us", micros(self.room_wait_ticks))
            .number("actor.mailbox.count", self.bulk.count())
            .number("actor.mailbox.residence_total_us", self.bulk.total_us())
            .number("actor.mailbox.residence_longest_us", self.bulk.longest_us())
            .failed(self.error);
        match self.first_byte {
            Some(first) => stage.number("process.io.first_byte_us", first.micros_since(self.began)),
            None => stage,
        }
    }
}

/// Reads a pipe to its end.
pub(super) async fn read(source: Source) -> ReaderReport {
    let Source {
        fd,
        stream,
        credit,
        delivery,
        context,
        bulk,
        spawn_ended,
    } = source;
    let mut report = ReaderReport {
        end: 0,
        first_byte: None,
        chunks: 0,
        credit_wait_ticks: 0,
        room_wait_ticks: 0,
        began: spawn_ended,
        ended: spawn_ended,
        error: None,
        bulk: Arc::clone(&bulk),
    };
    let mut pipe = match OutputPipe::from_fd(fd) {
        Ok(pipe) => pipe,
        Err(error) => {
            tracing::warn!(%error, "an output pipe cannot be read");
            report.error = Some("pipe_unusable");
            return report;
        }
    };
    loop {
        let before = Tick::now();
        credit.held[stream.index()].set(true);
        let room = credit.room(stream, report.end).await;
        let credited = Tick::now();
        report.credit_wait_ticks += credited.ticks_since(before);
        let Ok(slot) = delivery.reserve().await else {
            report.error = Some("delivery_gone");
            break;
        };
        report.room_wait_ticks += Tick::now().ticks_since(credited);
        credit.held[stream.index()].set(false);
        let max = usize::try_from(room).unwrap_or(usize::MAX).min(CHUNK_MAX_BYTES);
        match pipe.read_chunk(max).await {
            Ok(Some(data)) => {
                let now = Tick::now();
                report.first_byte.get_or_insert(now);
                credit.last_output.set(Some(now));
                report.chunks += 1;
                let offset = report.end;
                report.end += data.len() as u64;
                let message = PushMessage::Output {
                    stream,
                    offset,
                    data,
                    bulk: Arc::clone(&bulk),
                };
                slot.send(Envelope::new(context.clone(), message));
            }
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "an output pipe failed");
                report.error = Some("pipe_failed");
                break;
            }
        }
    }
    report.ended = Tick::now();
    report
}
