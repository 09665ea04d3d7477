//! Stage spans: wider than one delivery, written by the stage that owns them, also when it fails.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use dwell_messages::{Span, SpanId, SpanKind, TraceContext, TraceFlags, TraceId, Value};

use super::clock::{Anchor, Tick};
use super::semconv;

/// Attributes that are worked out where the span is made: the call they are about waits for none of that.
pub(crate) trait Annotate: fmt::Debug + Send + Sync {
    /// Adds them.
    fn annotate(&self, stage: Stage) -> Stage;
}

/// A stage's span, finished, in ticks. The collector makes a `Span` of it.
#[derive(Clone, Debug)]
pub struct Stage {
    context: TraceContext,
    span_id: SpanId,
    name: &'static str,
    kind: SpanKind,
    start: Tick,
    end: Tick,
    attributes: Vec<(&'static str, Value)>,
    later: Option<Arc<dyn Annotate>>,
    error: Option<Cow<'static, str>>,
}

impl Stage {
    /// A span called `name` under `parent`, from `start` to `end`, with an id of its own.
    pub fn new(parent: &TraceContext, name: &'static str, start: Tick, end: Tick) -> Self {
        Self::with_id(parent, super::ids::span_id(), name, start, end)
    }

    /// As `new`, with an id that was handed out before: the stage's messages already travel under it.
    pub fn with_id(
        parent: &TraceContext,
        span_id: SpanId,
        name: &'static str,
        start: Tick,
        end: Tick,
    ) -> Self {
        Self {
            context: parent.clone(),
            span_id,
            name,
            kind: SpanKind::Internal,
            start,
            end,
            attributes: Vec::new(),
            later: None,
            error: None,
        }
    }

    /// Sets the span's kind.
    #[must_use]
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds an integer. Values past `i64::MAX` saturate.
    #[must_use]
    pub fn number(mut self, name: &'static str, value: impl TryInto<i64>) -> Self {
        self.attributes
            .push((name, Value::I64(value.try_into().unwrap_or(i64::MAX))));
        self
    }

    /// Adds whether something is so.
    #[must_use]
    pub fn flag(mut self, name: &'static str, value: bool) -> Self {
        self.attributes.push((name, Value::Bool(value)));
        self
    }

    /// As `number`, where there is one.
    #[must_use]
    pub fn maybe_number(self, name: &'static str, value: Option<impl TryInto<i64>>) -> Self {
        match value {
            Some(value) => self.number(name, value),
            None => self,
        }
    }

    /// Adds a floating-point number, where there is one that is finite.
    #[must_use]
    pub fn maybe_float(mut self, name: &'static str, value: Option<f64>) -> Self {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.attributes.push((name, Value::F64(value)));
        }
        self
    }

    /// Adds a text. Never content, arguments or paths.
    #[must_use]
    pub fn text(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.attributes.push((name, Value::Str(value.into())));
        self
    }

    /// Adds attributes on the collector's thread.
    #[must_use]
    pub(crate) fn annotated_later(mut self, by: Arc<dyn Annotate>) -> Self {
        self.later = Some(by);
        self
    }

    /// Marks the span as failed with an `error.type`, if there is one.
    #[must_use]
    pub fn failed(mut self, error: Option<&'static str>) -> Self {
        self.error = error.map(Cow::Borrowed);
        self
    }

    /// As `failed`, with one that is put together: still of low cardinality.
    #[must_use]
    pub fn failed_as(mut self, error: Option<Cow<'static, str>>) -> Self {
        self.error = error;
        self
    }

    /// The trace it belongs to.
    pub(crate) fn trace(&self) -> TraceId {
        self.context.trace_id
    }

    /// Whether anybody wants this span.
    pub fn is_sampled(&self) -> bool {
        self.context.is_sampled()
    }

    /// The finished span on the wall clock.
    pub fn into_span(mut self, anchor: &Anchor) -> Span {
        if let Some(later) = self.later.take() {
            self = later.annotate(self);
        }
        let start = anchor.unix_ns(self.start);
        let remote = self.context.is_remote();
        Span {
            trace_id: self.context.trace_id.0,
            span_id: self.span_id.0,
            parent: self.context.span_id.0,
            name: self.name.into(),
            kind: self.kind,
            start_unix_ns: start,
            end_unix_ns: anchor.unix_ns(self.end).max(start),
            attributes: self
                .attributes
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .chain(remote.then(|| (semconv::PARENT_REMOTE.into(), Value::Bool(true))))
                .collect(),
            link: None,
            error: self.error,
        }
    }

    /// As a root: no parent at all.
    #[must_use]
    pub fn root(mut self) -> Self {
        self.context = TraceContext::new(
            self.context.trace_id,
            SpanId::default(),
            TraceFlags(self.context.flags.0 & TraceFlags::SAMPLED.0),
        );
        self
    }
}
