//! Spans of recent traces, kept until the trace's terminal event asks for them. Bounded three ways.

use std::collections::{HashMap, VecDeque};

use dwell_messages::{Span, TraceId};

/// Spans kept of one trace; more are counted.
pub(crate) const SPANS_PER_TRACE_MAX: usize = 512;
/// Traces kept; the oldest makes room.
pub(crate) const TRACES_MAX: usize = 1_024;

/// One trace's spans.
#[derive(Debug, Default)]
pub struct Kept {
    /// The spans, in the order they were finished.
    pub spans: Vec<Span>,
    /// Spans there was no room for.
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    traces: HashMap<TraceId, Kept>,
    order: VecDeque<TraceId>,
}

impl Recent {
    /// Keeps a span, or counts it.
    pub(super) fn keep(&mut self, span: Span) {
        let trace = span.trace();
        if !self.traces.contains_key(&trace) {
            if self.order.len() >= TRACES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.traces.remove(&oldest);
            }
            self.order.push_back(trace);
        }
        let kept = self.traces.entry(trace).or_default();
        if kept.spans.len() >= SPANS_PER_TRACE_MAX {
            kept.dropped += 1;
        } else {
            kept.spans.push(span);
        }
    }

    /// Hands out what there is of a trace and forgets it.
    pub(super) fn take(&mut self, trace: TraceId) -> Kept {
        let kept = self.traces.remove(&trace).unwrap_or_default();
        if !kept.spans.is_empty() {
            self.order.retain(|other| *other != trace);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use dwell_messages::SpanKind;

    use super::*;

    fn span(trace: u16) -> Span {
        let mut trace_id = [1; 16];
        trace_id[..2].copy_from_slice(&trace.to_be_bytes());
        Span {
            trace_id,
            span_id: [1; 8],
            parent: [0; 8],
            name: "x".into(),
            kind: SpanKind::Internal,
            start_unix_ns: 0,
            end_unix_ns: 0,
            attributes: vec![],
            link: None,
            error: None,
        }
    }

    #[test]
    fn a_trace_past_its_bound_counts_what_it_drops() {
        let mut recent = Recent::default();
        (0..SPANS_PER_TRACE_MAX + 3).for_each(|_| recent.keep(span(7)));
        let kept = recent.take(span(7).trace());
        assert_eq!((kept.spans.len(), kept.dropped), (SPANS_PER_TRACE_MAX, 3));
        assert!(recent.take(span(7).trace()).spans.is_empty());
    }

    #[test]
    fn the_oldest_trace_makes_room_for_the_newest() {
        let mut recent = Recent::default();
        (0..=u16::try_from(TRACES_MAX).unwrap()).for_each(|trace| recent.keep(span(trace)));
        assert!(recent.take(span(0).trace()).spans.is_empty());
        assert_eq!(recent.take(span(1).trace()).spans.len(), 1);
    }
}
