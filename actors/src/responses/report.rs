//! What telemetry is told of a request: spans, one log line a sideband, counts. The one place where anything of this
//! module leaves the process beside the request itself, so what is not named here stays here.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dwell_messages::{SpanKind, TraceContext};

use super::error::ResponsesError;
use super::events::EventKind;
use super::measure::{ClientTimings, Unaccounted};
use super::ordinal::Ordinal;
use super::sideband::{ROUTING_TIMING_SEMANTICS, ServerTimings};
use super::stream::Timing;
use crate::in_flight::unpoisoned;
use crate::metrics::{Gathered, MODEL_EVENTS, MODEL_REQUESTS};
use crate::telemetry::{Collector, Stage, Tick, semconv};

/// What was counted of models, in one role.
#[derive(Debug, Default)]
pub(crate) struct ModelMeters {
    /// By the position of their kind in [`EventKind::ALL`].
    events: [AtomicU64; EventKind::ALL.len()],
    /// Kinds of errors are constants.
    requests: Mutex<BTreeMap<&'static str, u64>>,
}

impl ModelMeters {
    /// An event of a response came.
    pub(super) fn event(&self, kind: EventKind) {
        self.events[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn request(&self, outcome: &'static str) {
        let mut requests = unpoisoned(&self.requests);
        *requests.entry(outcome).or_default() += 1;
    }

    /// Those that are not zero: who never asks a model has none of these.
    pub(crate) fn gather(&self, all: &mut Gathered) {
        for (kind, count) in EventKind::ALL.iter().zip(&self.events) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                all.number(MODEL_EVENTS, &[kind.label()], count as f64);
            }
        }
        for (outcome, count) in unpoisoned(&self.requests).iter() {
            all.number(MODEL_REQUESTS, &[outcome], *count as f64);
        }
    }
}

/// How a request travelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    WebSocket,
    Post,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Post => "post",
        }
    }
}

/// A request that is over.
#[derive(Debug)]
pub(super) struct Over<'a> {
    pub(super) context: &'a TraceContext,
    pub(super) parent: Option<&'a TraceContext>,
    pub(super) begun: Tick,
    pub(super) sending: Option<Tick>,
    pub(super) sent: Option<Tick>,
    pub(super) first_event: Option<Tick>,
    pub(super) ended: Tick,
    pub(super) ordinal: Option<Ordinal>,
    pub(super) attempts: u32,
    pub(super) transport: Transport,
    pub(super) timings: ClientTimings,
    pub(super) server: Option<ServerTimings>,
    pub(super) error: Option<&'static str>,
    /// The response was cut short.
    pub(super) incomplete: bool,
}

/// Writes a request's spans, and counts it. `prewarm` requests are counted apart: they are answered with nothing.
pub(super) fn request(collector: &Collector, over: &Over<'_>) {
    let outcome = match (over.error, over.timings.prewarm, over.incomplete) {
        (Some(error), _, _) => error,
        (None, true, _) => "prewarmed",
        (None, false, true) => "incomplete",
        (None, false, false) => "completed",
    };
    collector.board().meters().model.request(outcome);
    if !collector.wants(over.context) {
        return;
    }
    let part = |name, from: Option<Tick>, to: Option<Tick>| {
        if let (Some(from), Some(to)) = (from, to) {
            collector.stage(Stage::new(over.context, name, from, to));
        }
    };
    part(semconv::span::MODEL_SEND, over.sending, over.sent);
    let waited = over.first_event.unwrap_or(over.ended);
    part(semconv::span::MODEL_WAIT, over.sent, Some(waited));
    part(semconv::span::MODEL_STREAM, over.first_event, Some(over.ended));
    let mut parent = over.parent.unwrap_or(over.context).clone();
    // The request's own decision, where a sampler went past its parent's.
    parent.flags.0 |= over.context.flags.0;
    let name = semconv::span::MODEL_REQUEST;
    let mut stage = Stage::with_id(&parent, over.context.span_id, name, over.begun, over.ended);
    if over.parent.is_none() {
        stage = stage.root();
    }
    let (timings, gaps) = (&over.timings, &over.timings.gaps);
    let has_gaps = gaps.count > 0;
    let stage = stage
        .kind(SpanKind::Client)
        .failed(over.error)
        .text(semconv::MODEL_TRANSPORT, over.transport.name())
        .flag(semconv::MODEL_PREWARM, timings.prewarm)
        .number(semconv::MODEL_ATTEMPTS, over.attempts)
        .number(semconv::MODEL_QUEUE_US, timings.queue_us)
        .maybe_number(semconv::MODEL_REQUEST_ORDINAL, over.ordinal.map(Ordinal::get))
        .maybe_number(semconv::MODEL_FIRST_EVENT_US, timings.first_event_us)
        .maybe_number(semconv::MODEL_FIRST_TOKEN_US, timings.first_token_us)
        .maybe_number(semconv::MODEL_TOKEN_GAPS, has_gaps.then_some(gaps.count))
        .maybe_number(
            semconv::MODEL_TOKEN_GAP_TOTAL_US,
            has_gaps.then_some(gaps.total_us),
        )
        .maybe_number(
            semconv::MODEL_TOKEN_GAP_LONGEST_US,
            has_gaps.then_some(gaps.longest_us),
        );
    let left = over.server.and_then(|server| timings.unaccounted(&server));
    collector.stage(unaccounted(stage, left));
}

/// Writes the span of a connection that was made, or was not.
pub(super) fn connect(
    collector: &Collector,
    context: &TraceContext,
    began: Tick,
    error: Option<&'static str>,
) {
    if collector.wants(context) {
        let name = semconv::span::MODEL_CONNECT;
        collector.stage(Stage::new(context, name, began, Tick::now()).failed(error));
    }
}

/// Exports a sideband through the allow-list: one log line, and one span below its request's. The span stands where the
/// sideband came and has no length: the server's durations are attributes, and never on this machine's time axis.
pub(super) fn timing(collector: &Collector, timing: &Timing, at: Tick) {
    let about = &timing.about;
    let exported = timing.timings.exported();
    let [queue, provider, routing, api] = exported.map(|(_, value)| value);
    tracing::info!(
        { semconv::MODEL_REQUEST_ORDINAL } = timing.ordinal.get(),
        { semconv::INFERENCE_ENGINE_QUEUE_MAX_MS } = queue,
        { semconv::INFERENCE_PROVIDER_START_MS } = provider,
        { semconv::INFERENCE_LATEST_ENGINE_ROUTING_MS } = routing,
        { semconv::RESPONSESAPI_OWN_MS } = api,
        { semconv::INFERENCE_ROUTING_TIMING_SEMANTICS } = ROUTING_TIMING_SEMANTICS,
        "a model's server told its own time"
    );
    if !collector.wants(&about.context) {
        return;
    }
    let name = semconv::span::MODEL_SERVER_TIMING;
    let stage = Stage::new(&about.context, name, at, at)
        .number(semconv::MODEL_REQUEST_ORDINAL, timing.ordinal.get())
        .text(
            semconv::INFERENCE_ROUTING_TIMING_SEMANTICS,
            ROUTING_TIMING_SEMANTICS,
        );
    let stage = exported
        .into_iter()
        .fold(stage, |stage, (name, value)| stage.maybe_float(name, value));
    // One that comes late finds its request's span written already.
    let left = about
        .timings
        .and_then(|client| client.unaccounted(&timing.timings));
    collector.stage(unaccounted(stage, left));
}

fn unaccounted(stage: Stage, left: Option<Unaccounted>) -> Stage {
    match left {
        Some(left) => stage
            .number(semconv::MODEL_UNACCOUNTED_US, left.us)
            .flag(semconv::MODEL_UNACCOUNTED_CLAMPED, left.clamped),
        None => stage,
    }
}

/// `error.type` of how a request ended.
pub(super) fn kind<T>(outcome: &Result<T, ResponsesError>) -> Option<&'static str> {
    outcome.as_ref().err().map(ResponsesError::kind)
}
