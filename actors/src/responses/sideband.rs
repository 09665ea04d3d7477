//! The server's own timings, which come beside a response: what is read of them, and what of that may be exported. Pure.
//!
//! Everything in a sideband is optional, and nothing in it can fail a response. Its durations are the server's: they are
//! nested in one another, so adding them up is wrong, and they have no place on this machine's time axis.

use serde_json::{Map, Value};

use super::ordinal::Label;
use crate::telemetry::semconv;

/// The sideband's event type. It is never a model event.
pub const TIMING_EVENT: &str = "responsesapi.websocket_timing";
/// What is exported in place of the server's free text about how its numbers hang together.
pub const ROUTING_TIMING_SEMANTICS: &str = "nested_non_additive_v1";
/// The longest duration that is believed, in milliseconds: a day.
const DURATION_MAX_MS: f64 = 24.0 * 60.0 * 60.0 * 1_000.0;

/// One sideband event.
#[derive(Clone, PartialEq, Debug)]
pub struct Sideband {
    /// Which request it is about.
    pub label: Label,
    /// What it says.
    pub timings: ServerTimings,
}

/// What a server said of one request, in milliseconds of its own clock. What it did not say, or not as a duration, is
/// absent. Nothing else of a sideband is kept: no names of engines, clusters, regions, requests or routes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ServerTimings {
    /// The longest wait in a queue of an engine.
    pub engine_queue_max_ms: Option<f64>,
    /// From the request until the provider began on it, all calls together.
    pub taas_request_to_provider_start_total_ms: Option<f64>,
    /// The newest choice of an engine.
    pub latest_inference_engine_routing_ms: Option<f64>,
    /// The API's own part.
    pub responses_duration_excl_engine_and_client_tool_time_ms: Option<f64>,
    /// Before the inference began.
    pub pre_inference_ms: Option<f64>,
    /// The engine's time to its first token, as the API saw it.
    pub engine_iapi_ttft_total_ms: Option<f64>,
    /// The engine's time to its first token, as its service saw it.
    pub engine_service_ttft_total_ms: Option<f64>,
    /// From the provider's start to its first token.
    pub taas_provider_start_to_first_token_total_ms: Option<f64>,
    /// The newest choice of a load balancer.
    pub latest_inference_lb_routing_ms: Option<f64>,
    /// The newest way between clusters.
    pub latest_cross_cluster_network_overhead_ms: Option<f64>,
    /// How many calls of an engine the response took.
    pub num_engine_calls: Option<u64>,
}

impl Sideband {
    /// Reads a sideband event. Whatever is missing, unknown or of another type is passed over.
    pub fn read(event: &Map<String, Value>) -> Self {
        let none = Map::new();
        let metrics = event.get("timing_metrics").and_then(Value::as_object);
        Self {
            label: label(event.get("request_ordinal")),
            timings: ServerTimings::read(metrics.unwrap_or(&none)),
        }
    }
}

impl ServerTimings {
    fn read(metrics: &Map<String, Value>) -> Self {
        let ms = |name: &str| metrics.get(name).and_then(duration_ms);
        Self {
            engine_queue_max_ms: ms("engine_queue_max_ms"),
            taas_request_to_provider_start_total_ms: ms("taas_request_to_provider_start_total_ms"),
            latest_inference_engine_routing_ms: ms("latest_inference_engine_routing_ms"),
            responses_duration_excl_engine_and_client_tool_time_ms: ms(
                "responses_duration_excl_engine_and_client_tool_time_ms",
            ),
            pre_inference_ms: ms("pre_inference_ms"),
            engine_iapi_ttft_total_ms: ms("engine_iapi_ttft_total_ms"),
            engine_service_ttft_total_ms: ms("engine_service_ttft_total_ms"),
            taas_provider_start_to_first_token_total_ms: ms("taas_provider_start_to_first_token_total_ms"),
            latest_inference_lb_routing_ms: ms("latest_inference_lb_routing_ms"),
            latest_cross_cluster_network_overhead_ms: ms("latest_cross_cluster_network_overhead_ms"),
            num_engine_calls: metrics.get("num_engine_calls").and_then(count),
        }
    }

    /// The allow-list: what may leave this process, under which name. All else of a sideband stays here.
    pub fn exported(&self) -> [(&'static str, Option<f64>); 4] {
        [
            (semconv::INFERENCE_ENGINE_QUEUE_MAX_MS, self.engine_queue_max_ms),
            (
                semconv::INFERENCE_PROVIDER_START_MS,
                self.taas_request_to_provider_start_total_ms,
            ),
            (
                semconv::INFERENCE_LATEST_ENGINE_ROUTING_MS,
                self.latest_inference_engine_routing_ms,
            ),
            (
                semconv::RESPONSESAPI_OWN_MS,
                self.responses_duration_excl_engine_and_client_tool_time_ms,
            ),
        ]
    }

    /// What the server surely spent, in milliseconds: the longest single duration, since they may all be within one
    /// another. `None` when it named none.
    pub fn at_least_ms(&self) -> Option<f64> {
        let durations = [
            self.engine_queue_max_ms,
            self.taas_request_to_provider_start_total_ms,
            self.latest_inference_engine_routing_ms,
            self.responses_duration_excl_engine_and_client_tool_time_ms,
            self.pre_inference_ms,
            self.engine_iapi_ttft_total_ms,
            self.engine_service_ttft_total_ms,
            self.taas_provider_start_to_first_token_total_ms,
            self.latest_inference_lb_routing_ms,
            self.latest_cross_cluster_network_overhead_ms,
        ];
        durations.into_iter().flatten().reduce(f64::max)
    }
}

/// Integers and floats alike; nothing negative, endless, or longer than a day.
fn duration_ms(value: &Value) -> Option<f64> {
    value.as_f64().filter(|ms| (0.0..=DURATION_MAX_MS).contains(ms))
}

fn count(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}

fn label(value: Option<&Value>) -> Label {
    match value {
        None | Some(Value::Null) => Label::None,
        Some(Value::String(digits)) => digits.parse().map_or(Label::Malformed, Label::Ordinal),
        Some(value) => count(value).map_or(Label::Malformed, Label::Ordinal),
    }
}

/// A float that is a count; past 2^53 floats skip numbers, so none of them is.
fn whole(number: f64) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    ((0.0..EXACT_MAX).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}
