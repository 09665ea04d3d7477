//! What is read of a sideband, what of that may be exported, and that nothing in it can do harm.

use dwell_actors::responses::{
    Label, Message, ROUTING_TIMING_SEMANTICS, ServerTimings, Sideband, StreamCore, TIMING_EVENT, read,
};
use dwell_actors::telemetry::semconv;
use dwell_messages::TraceContext;
use proptest::prelude::*;
use serde_json::{Value, json};

fn sideband(event: &Value) -> Sideband {
    match read(&event.to_string()) {
        Ok(Message::Sideband(sideband)) => sideband,
        other => panic!("a sideband, not {other:?}"),
    }
}

fn with(metrics: &Value) -> ServerTimings {
    sideband(&json!({ "type": TIMING_EVENT, "timing_metrics": metrics })).timings
}

/// All there is of it, with everything that must not leave.
pub(crate) fn full(ordinal: &Value) -> Value {
    json!({
        "type": TIMING_EVENT,
        "request_ordinal": ordinal,
        "response_id": "canary-response-id",
        "timing_metrics": {
            "engine_queue_max_ms": 41.5,
            "taas_request_to_provider_start_total_ms": 98.5,
            "latest_inference_engine_routing_ms": 8.5,
            "responses_duration_excl_engine_and_client_tool_time_ms": 87.25,
            "inference_routing_timing_semantics": "canary-free-text",
            "pre_inference_ms": 3,
            "engine_iapi_ttft_total_ms": 60,
            "engine_service_ttft_total_ms": 55.5,
            "taas_provider_start_to_first_token_total_ms": 12,
            "latest_inference_lb_routing_ms": 1,
            "latest_cross_cluster_network_overhead_ms": 2,
            "num_engine_calls": 1,
            "engine_ids": ["canary-engine-id"],
            "upstream_request_id": "canary-upstream-request-id",
            "provider": "canary-provider",
            "cluster": "canary-cluster",
            "region": "canary-region",
            "geography": "canary-geography",
            "replica_id": "canary-replica",
            "replica_snapshot": { "tag": "canary-snapshot" },
            "image_tag": "canary-image",
            "lb_tag": "canary-balancer",
            "route_diagnostics": { "blob": "canary-diagnostics" }
        }
    })
}

#[test]
fn the_allow_list_has_these_names_and_these_values() {
    let read = sideband(&full(&json!(2)));
    assert_eq!(read.label, Label::Ordinal(2));
    let exported = [
        ("dwell.inference.engine_queue_max_ms", Some(41.5)),
        (
            "dwell.inference.taas_request_to_provider_start_total_ms",
            Some(98.5),
        ),
        ("dwell.inference.latest_engine_routing_ms", Some(8.5)),
        (
            "dwell.responsesapi.duration_excl_engine_and_client_tool_time_ms",
            Some(87.25),
        ),
    ];
    assert_eq!(read.timings.exported(), exported);
    assert_eq!(semconv::MODEL_REQUEST_ORDINAL, "dwell.model.request_ordinal");
    assert_eq!(ROUTING_TIMING_SEMANTICS, "nested_non_additive_v1");
    // Nothing of the rest is even kept.
    assert!(!format!("{read:?}").contains("canary"));
}

#[test]
fn integers_floats_and_zero_are_durations_alike() {
    let timings =
        with(&json!({ "engine_queue_max_ms": 7, "pre_inference_ms": 0, "engine_iapi_ttft_total_ms": 0.0 }));
    assert_eq!(timings.engine_queue_max_ms, Some(7.0));
    assert_eq!(timings.pre_inference_ms, Some(0.0));
    assert_eq!(timings.engine_iapi_ttft_total_ms, Some(0.0));
    assert_eq!(
        with(&json!({ "num_engine_calls": 3.0 })).num_engine_calls,
        Some(3)
    );
}

#[test]
fn what_is_no_duration_is_absent_and_takes_nothing_with_it() {
    for wrong in [
        json!(null),
        json!("7"),
        json!(-1),
        json!([7]),
        json!({}),
        json!(true),
        json!(1e12),
    ] {
        let timings = with(&json!({ "engine_queue_max_ms": wrong, "pre_inference_ms": 5 }));
        assert_eq!(timings.engine_queue_max_ms, None, "{wrong}");
        assert_eq!(timings.pre_inference_ms, Some(5.0));
    }
    for nothing in [json!(null), json!([]), json!("x"), json!(7), json!({})] {
        assert_eq!(with(&nothing), ServerTimings::default());
    }
    let bare = sideband(&json!({ "type": TIMING_EVENT }));
    assert_eq!(
        (bare.label, bare.timings),
        (Label::None, ServerTimings::default())
    );
}

#[test]
fn an_ordinal_may_be_written_as_any_whole_number_and_what_is_none_is_no_missing_one() {
    let of = |ordinal: Value| sideband(&full(&ordinal)).label;
    for two in [json!(2), json!(2.0), json!("2")] {
        assert_eq!(of(two), Label::Ordinal(2));
    }
    assert_eq!(of(json!(null)), Label::None);
    for wrong in [json!(-2), json!(2.5), json!("two"), json!([2]), json!(1e300)] {
        assert_eq!(of(wrong.clone()), Label::Malformed, "{wrong}");
    }
}

#[test]
fn a_sideband_that_cannot_be_read_is_passed_over_and_other_nonsense_is_told() {
    let too_great = format!(r#"{{"type":"{TIMING_EVENT}","timing_metrics":{{"pre_inference_ms":1e999}}}}"#);
    let cut = format!(r#" {{ "type" : "{TIMING_EVENT}", "timing_metrics": {{"#);
    let deep = format!(
        r#"{{"type":"{TIMING_EVENT}","timing_metrics":{}1{}}}"#,
        "[".repeat(4_000),
        "]".repeat(4_000)
    );
    for text in [too_great, cut, deep] {
        assert!(
            matches!(read(&text), Ok(Message::MalformedSideband)),
            "{text:.80}"
        );
    }
    let named = format!(r#"{{"type":"response.output_text.delta","delta":"{TIMING_EVENT}"#);
    for text in ["", "{", "[]", "7", r#"{"type":7}"#, "{}", named.as_str()] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn a_sideband_is_never_an_event_of_the_model() {
    let mut core = StreamCore::default();
    core.begin(TraceContext::default());
    let texts = [
        full(&json!(1)).to_string(),
        full(&json!(1)).to_string(),
        full(&json!(9)).to_string(),
        full(&json!("?")).to_string(),
        format!(r#"{{"type":"{TIMING_EVENT}","#),
    ];
    let steps: Vec<_> = texts.iter().map(|text| core.message(text).unwrap()).collect();
    assert!(matches!(&steps[0], dwell_actors::responses::Step::Timing(timing) if timing.ordinal.get() == 1));
    for step in &steps[1..] {
        assert!(matches!(step, dwell_actors::responses::Step::Ignored), "{step:?}");
    }
}

#[test]
fn the_servers_time_is_the_longest_of_its_durations_because_they_lie_within_one_another() {
    let timings = with(
        &json!({ "engine_iapi_ttft_total_ms": 60, "engine_service_ttft_total_ms": 55, "pre_inference_ms": 3 }),
    );
    assert_eq!(timings.at_least_ms(), Some(60.0));
    assert_eq!(ServerTimings::default().at_least_ms(), None);
}

proptest! {
    #[test]
    fn whatever_calls_itself_a_sideband_fails_nothing(rest in ".{0,200}", ordinal in any::<f64>()) {
        let mut core = StreamCore::default();
        core.begin(TraceContext::default());
        let text = format!(r#"{{"type":"{TIMING_EVENT}","request_ordinal":{ordinal},{rest}"#);
        prop_assert!(core.message(&text).is_ok());
        let whole = json!({ "type": TIMING_EVENT, "request_ordinal": rest, "timing_metrics": { "pre_inference_ms": ordinal } });
        prop_assert!(core.message(&whole.to_string()).is_ok());
    }
}
