//! The 64-byte record of one delivery: all the hot path ever writes about it.

use dwell_messages::{Span, SpanKind, TraceContext, Value};

use super::clock::{Anchor, Tick};
use super::template;

/// Name of the attribute that says how many messages were in the mailbox when this one was put there.
pub const ATTR_DEPTH: &str = "actor.mailbox.depth";
/// Name of the attribute that holds a residence span's actor.
pub const ATTR_ACTOR: &str = "actor.type";
/// Name of the attribute that holds a residence or turn span's message.
pub const ATTR_MESSAGE: &str = "actor.message.type";

/// One delivery: its wait in the mailbox and the turn that served it. Two spans come of it, off the hot path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// The trace it belongs to.
    pub trace_id: [u8; 16],
    /// The sender's span.
    pub parent: [u8; 8],
    /// The residence span's id; the turn span's is this with its last bit turned over.
    pub span_id: [u8; 8],
    /// When it was put into the mailbox.
    pub enqueued: u64,
    /// When it was taken out.
    pub dequeued: u64,
    /// Ticks from dequeue to the end of the turn, saturating.
    pub turn_ticks: u32,
    /// Messages in the mailbox at enqueue, itself included, saturating.
    pub depth: u16,
    /// Actor and message (`template`).
    pub template: u16,
    /// The low half of the actor's lifecycle id: a link, never a parent.
    pub lifecycle: u64,
}

const _: () = assert!(size_of::<Record>() == 64);

impl Record {
    /// A record of a delivery that travelled under `context`.
    #[inline]
    pub fn new(context: &TraceContext, span_id: [u8; 8], template: u16, lifecycle: u64) -> Self {
        Self {
            trace_id: context.trace_id.0,
            parent: context.span_id.0,
            span_id,
            enqueued: 0,
            dequeued: 0,
            turn_ticks: 0,
            depth: 0,
            template,
            lifecycle,
        }
    }

    /// The residence span: from enqueue to dequeue, under the sender's span.
    pub fn residence(&self, anchor: &Anchor) -> Span {
        let names = template::names(self.template);
        let start = anchor.unix_ns(Tick::from_raw(self.enqueued));
        Span {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent: self.parent,
            name: names.mailbox.into(),
            kind: SpanKind::Internal,
            start_unix_ns: start,
            end_unix_ns: anchor.unix_ns(Tick::from_raw(self.dequeued)).max(start),
            attributes: vec![
                (ATTR_ACTOR.into(), Value::Str(names.actor.into())),
                (ATTR_MESSAGE.into(), Value::Str(names.message.into())),
                (ATTR_DEPTH.into(), Value::I64(i64::from(self.depth))),
            ],
            link: Some(self.lifecycle.to_be_bytes()),
            error: None,
        }
    }

    /// The turn span: from dequeue to the end of the handler, a sibling of the residence span.
    pub fn turn(&self, anchor: &Anchor) -> Span {
        let names = template::names(self.template);
        let start = anchor.unix_ns(Tick::from_raw(self.dequeued));
        let mut span_id = self.span_id;
        span_id[7] ^= 1;
        Span {
            trace_id: self.trace_id,
            span_id,
            parent: self.parent,
            name: names.turn.into(),
            kind: SpanKind::Internal,
            start_unix_ns: start,
            end_unix_ns: anchor
                .unix_ns(Tick::from_raw(self.dequeued + u64::from(self.turn_ticks)))
                .max(start),
            attributes: vec![
                (ATTR_ACTOR.into(), Value::Str(names.actor.into())),
                (ATTR_MESSAGE.into(), Value::Str(names.message.into())),
            ],
            link: Some(self.lifecycle.to_be_bytes()),
            error: None,
        }
    }
}
