//! The 64-byte record of one delivery: all the hot path ever writes about it.

use dwell_messages::{Span, SpanKind, TraceContext, Value};

use super::clock::{Anchor, Tick};
use super::{semconv, template};

/// Name of the attribute that says how many messages were in the mailbox when this one was put there.
pub const ATTR_DEPTH: &str = semconv::MAILBOX_DEPTH;
/// Name of the attribute that holds a residence span's actor.
pub const ATTR_ACTOR: &str = semconv::ACTOR_TYPE;
/// Name of the attribute that holds a residence or turn span's message.
pub const ATTR_MESSAGE: &str = semconv::MESSAGE_TYPE;

/// The bit of `Record::depth` that says that the sender's span was made by another process.
const REMOTE: u16 = 0x8000;

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
    /// Messages in the mailbox at enqueue, itself included, saturating at 32,767; the highest bit says that the
    /// sender's span was made by another process.
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
            depth: if context.is_remote() { REMOTE } else { 0 },
            template,
            lifecycle,
        }
    }

    /// The same record with the mailbox's depth at enqueue.
    #[must_use]
    #[inline]
    pub fn with_depth(mut self, depth: u16) -> Self {
        self.depth = (self.depth & REMOTE) | depth.min(!REMOTE);
        self
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
            attributes: self.attributes(&names, Some(self.depth & !REMOTE)),
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
                .unix_ns(Tick::from_raw(
                    self.dequeued.saturating_add(u64::from(self.turn_ticks)),
                ))
                .max(start),
            attributes: self.attributes(&names, None),
            link: Some(self.lifecycle.to_be_bytes()),
            error: None,
        }
    }

    fn attributes(
        &self,
        names: &template::Names,
        depth: Option<u16>,
    ) -> Vec<(std::borrow::Cow<'static, str>, Value)> {
        let remote = self.depth & REMOTE != 0;
        let mut attributes = Vec::with_capacity(2 + usize::from(depth.is_some()) + usize::from(remote));
        attributes.push((ATTR_ACTOR.into(), Value::Str(names.actor.into())));
        attributes.push((ATTR_MESSAGE.into(), Value::Str(names.message.into())));
        attributes.extend(depth.map(|depth| (ATTR_DEPTH.into(), Value::I64(i64::from(depth)))));
        if remote {
            attributes.push((semconv::PARENT_REMOTE.into(), Value::Bool(true)));
        }
        attributes
    }
}
