//! What leaves: spans, logs and counts of real requests, and what is in none of them.

use std::sync::Arc;
use std::time::Duration;

use dwell_actors::responses::mock::{Act, MockModel, Seen, completed, created, sideband};
use dwell_actors::telemetry::root;
use dwell_messages::{Span, SpanKind, Value as Attribute};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::sidebands;
use crate::support::{KEY, World, ask, bounded, logs, says};

const REQUEST: &str = "model request";
const TIMING: &str = "model server timing";
/// Spans that are made one after the other are put on the wall clock by rates that may differ.
const CLOCK_NS: u64 = 5_000_000;

fn number(span: &Span, name: &str) -> Option<f64> {
    match span.attribute(name)? {
        Attribute::F64(number) => Some(*number),
        Attribute::I64(number) => Some(*number as f64),
        _ => None,
    }
}

fn ordinals(spans: &[Span]) -> Vec<f64> {
    spans
        .iter()
        .map(|span| number(span, "dwell.model.request_ordinal").unwrap())
        .collect()
}

/// A response with these sidebands before its end.
fn with(seen: &Seen, sidebands: Vec<Act>) -> Vec<Act> {
    let mut acts = says(seen, "yes");
    let end = acts.pop().unwrap();
    acts.extend(sidebands);
    acts.push(end);
    acts
}

#[tokio::test]
async fn a_sideband_is_exported_through_the_allow_list_and_nothing_else_of_it() {
    let world = World::new(|seen| with(seen, vec![Act::Event(sidebands::full(&json!(seen.request)))])).await;
    // A prewarming request counts, so this is the second.
    world.answer(ask("canary-prompt").prewarm()).await;
    let parent = root(true);
    let answer = world.answer(ask("canary-prompt").parent(parent.clone())).await;
    assert_eq!(
        answer.server.and_then(|server| server.pre_inference_ms),
        Some(3.0)
    );
    world.session.flush_traces().await;

    let of_trace = |name: &str| -> Vec<_> {
        let spans = world.kept.named(name).into_iter();
        spans.filter(|span| span.trace() == parent.trace_id).collect()
    };
    let (requests, timings) = (of_trace(REQUEST), of_trace(TIMING));
    assert_eq!((requests.len(), timings.len()), (1, 1));
    let (request, timing) = (&requests[0], &timings[0]);
    assert_eq!(
        (request.parent, request.kind),
        (parent.span_id.0, SpanKind::Client)
    );
    assert_eq!(timing.parent, request.span_id, "a child of its request");
    let expected = [
        ("dwell.model.request_ordinal", 2.0),
        ("dwell.inference.engine_queue_max_ms", 41.5),
        ("dwell.inference.taas_request_to_provider_start_total_ms", 98.5),
        ("dwell.inference.latest_engine_routing_ms", 8.5),
        (
            "dwell.responsesapi.duration_excl_engine_and_client_tool_time_ms",
            87.25,
        ),
    ];
    for (name, value) in expected {
        assert_eq!(number(timing, name), Some(value), "{name}");
    }
    let semantics = Attribute::Str("nested_non_additive_v1".into());
    assert_eq!(
        timing.attribute("dwell.inference.routing_timing_semantics"),
        Some(&semantics)
    );
    assert_eq!(timing.attributes.len(), expected.len() + 1, "{timing:?}");

    let text = logs().text();
    let line = text
        .lines()
        .find(|line| line.contains("dwell.model.request_ordinal=2") && line.contains("87.25"))
        .expect("one log line");
    assert!(
        line.contains("nested_non_additive_v1") && line.contains("=41.5"),
        "{line}"
    );
    // The control: it is all in what was sent.
    let sent = sidebands::full(&json!(2)).to_string();
    assert!(sent.contains("canary-cluster") && sent.matches("canary").count() > 10);
    for (place, found) in [("spans", format!("{:?}", world.kept.all())), ("logs", text)] {
        assert!(!found.contains("canary"), "{place}");
        for forbidden in [
            "response_id",
            "engine_ids",
            "upstream_request",
            "provider\"",
            "cluster",
            "region",
            "geography",
            "replica",
            "image_tag",
            "lb_tag",
            "diagnostics",
        ] {
            assert!(!found.contains(forbidden), "{forbidden} is in {place}");
        }
    }
}

#[tokio::test]
async fn the_servers_durations_are_not_on_the_clients_time_axis() {
    let world = World::new(|seen| {
        with(
            seen,
            vec![sideband(
                &json!(1),
                &json!({ "engine_iapi_ttft_total_ms": 86_000_000 }),
            )],
        )
    })
    .await;
    world.answer(ask("x").sampled(true)).await;
    world.session.flush_traces().await;
    let (request, timing) = (&world.kept.named(REQUEST)[0], &world.kept.named(TIMING)[0]);
    assert_eq!(timing.duration_ns(), 0);
    let within = request.start_unix_ns - CLOCK_NS..=request.end_unix_ns + CLOCK_NS;
    assert!(within.contains(&timing.start_unix_ns));
    // More than the whole: nothing is left, and that is said.
    assert_eq!(number(request, "dwell.model.unaccounted_us"), Some(0.0));
    assert_eq!(
        request.attribute("dwell.model.unaccounted_clamped"),
        Some(&Attribute::Bool(true))
    );
}

#[tokio::test]
async fn duplicate_unknown_unlabelled_and_malformed_sidebands_are_tolerated() {
    let metrics = json!({ "engine_queue_max_ms": 1 });
    let world = World::new(move |seen| {
        let labelled = |ordinal: Value| sideband(&ordinal, &metrics);
        let broken = format!(r#"{{"type":"{}","#, dwell_actors::responses::TIMING_EVENT);
        with(
            seen,
            match seen.request {
                1 => vec![labelled(json!(1)), labelled(json!(1)), labelled(json!(null))],
                2 => vec![
                    labelled(json!(7)),
                    labelled(json!("x")),
                    labelled(json!(-1)),
                    Act::Text(broken),
                ],
                _ => vec![labelled(json!(null)), sideband(&json!(3), &json!("nothing"))],
            },
        )
    })
    .await;
    for _ in 0..3 {
        let mut response = world.session.ask(ask("x").sampled(true));
        while let Some(event) = bounded("an event", response.next()).await {
            assert!(
                !format!("{event:?}").contains("timing"),
                "never an event of the model"
            );
        }
        assert_eq!(bounded("the end", response.finish()).await.unwrap().text(), "yes");
    }
    world.session.flush_traces().await;
    assert_eq!(world.kept.named(REQUEST).len(), 3);
    // The first once; the second has none; the third by holding the stream.
    assert_eq!(ordinals(&world.kept.named(TIMING)), [1.0, 3.0]);
}

#[tokio::test]
async fn a_late_sideband_is_its_own_requests_and_nobody_waits_for_it() {
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let world = World::new(move |seen| {
        let metrics = json!({ "engine_queue_max_ms": 0 });
        let mut acts = says(seen, "yes");
        match seen.request {
            1 => acts.extend([Act::Hold(Arc::clone(&held)), sideband(&json!(1), &metrics)]),
            2 => acts.insert(0, sideband(&json!(1), &metrics)),
            // Nobody holds the stream by then; what follows shows that the first was read.
            3 => acts.extend([sideband(&json!(null), &metrics), sideband(&json!(2), &metrics)]),
            _ => {}
        }
        acts
    })
    .await;
    let first = world.session.ask(ask("x").sampled(true));
    let trace = first.trace_id();
    // It is there although the sideband is not.
    bounded("the answer", first.finish()).await.unwrap();
    world.session.flush_traces().await;
    assert_eq!(world.kept.named(TIMING), []);
    hold.notify_one();
    world
        .until("the late one comes", |world| !world.kept.named(TIMING).is_empty())
        .await;
    for _ in 0..2 {
        world.answer(ask("x").sampled(true)).await;
    }
    world
        .until("the second's comes", |world| world.kept.named(TIMING).len() >= 2)
        .await;
    world.answer(ask("x").sampled(true)).await;
    world.session.flush_traces().await;
    let timings = world.kept.named(TIMING);
    assert_eq!(
        timings.len(),
        2,
        "the second about it does not count, nor does one of nobody's"
    );
    assert_eq!((timings[0].trace(), ordinals(&timings)), (trace, vec![1.0, 2.0]));
    let request = world
        .kept
        .named(REQUEST)
        .into_iter()
        .find(|span| span.trace() == trace);
    assert_eq!(request.map(|span| span.span_id), Some(timings[0].parent));
    assert!(number(&timings[0], "dwell.model.unaccounted_us").is_some());
}

#[tokio::test]
async fn a_requests_parts_are_spans_below_it() {
    let world = World::new(|seen| {
        let mut acts = says(seen, "a b");
        acts.insert(1, Act::Pause(Duration::from_millis(200)));
        acts
    })
    .await;
    world.answer(ask("x").sampled(true)).await;
    world.session.flush_traces().await;
    let request = &world.kept.named(REQUEST)[0];
    for name in ["model connect", "model send", "model wait", "model stream"] {
        let spans = world.kept.named(name);
        assert_eq!(spans.len(), 1, "{name}");
        assert_eq!(spans[0].parent, request.span_id, "{name}");
        assert!(
            spans[0].start_unix_ns + CLOCK_NS >= request.start_unix_ns
                && spans[0].end_unix_ns <= request.end_unix_ns + CLOCK_NS
        );
    }
    assert_eq!(
        world.kept.named("mailbox ResponsesSession")[0].parent,
        request.span_id
    );
    assert!(number(request, "dwell.model.first_token_us") >= Some(100_000.0));
    // What is not sampled leaves nothing.
    world.answer(ask("x").sampled(false)).await;
    world.session.flush_traces().await;
    assert_eq!(world.kept.named(REQUEST).len(), 1);
}

#[tokio::test]
async fn the_key_is_in_no_log_no_span_no_error_and_no_debug_output() {
    let world = World::new(|seen| match seen.request {
        // A server that says it back.
        1 => vec![dwell_actors::responses::mock::refused(
            400,
            "bad",
            seen.header("authorization").unwrap(),
        )],
        _ => says(seen, "yes"),
    })
    .await;
    let refused = bounded("an error", world.session.ask(ask("x").sampled(true)).finish()).await;
    world.answer(ask("x").sampled(true)).await;
    world.session.flush_traces().await;
    // The control: it was sent, and would be found.
    assert_eq!(
        world.model.seen()[0].header("authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
    tracing::info!("logs are searched for {}", "a-word-that-is-there");
    let logs = logs().text();
    assert!(logs.contains("a-word-that-is-there"));
    let spans = format!("{:?}", world.kept.all());
    for (place, text) in [
        ("logs", logs),
        ("spans", spans),
        (
            "Debug",
            format!("{:?} {:?}", world.session, world.session.ask(ask("x"))),
        ),
    ] {
        assert!(!text.contains(KEY), "{place}");
    }
    // What a server says is the caller's to read, and goes no further.
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_turn_is_one_span_and_one_that_is_dropped_is_cancelled() {
    use dwell_actors::executor::Executor;
    use dwell_actors::harness::{Harness, Target, Turn};
    let client = dwell_relay::StaticKeypair::generate(&mut dwell_relay::OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public());
    let executor = bounded("serving", executor.serve()).await.unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let kept = crate::support::Kept::default();
    let harness = Harness::builder().identity(client).sink(kept.clone());
    let harness = bounded("connecting", harness.connect(target)).await.unwrap();
    let turns: Vec<_> = (0..3).map(|_| Turn::begin(true).on(&harness)).collect();
    let ids: Vec<_> = turns.iter().map(|turn| turn.turn().trace_id()).collect();
    let mut turns = turns.into_iter();
    turns.next().unwrap().finish();
    turns.next().unwrap().fail("refused");
    drop(turns);
    bounded("the harness's end", harness.shutdown()).await;
    let spans = kept.named("agent turn");
    let error = |id| {
        spans
            .iter()
            .find(|span| span.trace() == id)
            .unwrap()
            .error
            .as_deref()
    };
    assert_eq!(
        ids.into_iter().map(error).collect::<Vec<_>>(),
        [None, Some("refused"), Some("cancelled")]
    );
    assert!(spans.iter().all(|span| span.parent == [0; 8]));
    bounded("the executor's end", executor.shutdown()).await;
}

#[tokio::test]
async fn kinds_of_events_are_counted_under_fixed_names() {
    use dwell_actors::executor::Executor;
    use dwell_actors::harness::{Harness, Target};
    use dwell_actors::oversight::Oversight;
    use dwell_actors::responses::Responses;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let client = dwell_relay::StaticKeypair::generate(&mut dwell_relay::OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public());
    let executor = bounded("serving", executor.serve()).await.unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let oversight = Oversight::new().metrics("127.0.0.1:0".parse().unwrap());
    let harness = Harness::builder().identity(client).oversight(oversight);
    let harness = bounded("connecting", harness.connect(target)).await.unwrap();
    let model = MockModel::start(|seen| {
        let strange = json!({ "type": format!("response.canary_{}", seen.request) });
        vec![created("r"), Act::Event(strange), completed("r")]
    })
    .await
    .unwrap();
    let session = Responses::builder(model.endpoint()).beside(&harness).unwrap();
    for _ in 0..2 {
        bounded("an answer", session.ask(ask("x")).finish())
            .await
            .unwrap();
    }
    let mut stream = tokio::net::TcpStream::connect(harness.metrics_addr().unwrap())
        .await
        .unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    bounded("a scrape", stream.read_to_string(&mut text))
        .await
        .unwrap();
    for line in [
        r#"dwell_model_events_total{kind="_OTHER"} 2"#,
        r#"dwell_model_events_total{kind="created"} 2"#,
        r#"dwell_model_requests_total{outcome="completed"} 2"#,
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("canary"), "{text}");
    drop(session);
    bounded("the harness's end", harness.shutdown()).await;
    bounded("the executor's end", executor.shutdown()).await;
}
