//! The session on its WebSocket: order, reuse, retries, bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dwell_actors::responses::mock::{
    Act, MockModel, Posting, Seen, Upgrade, call, completed, created, failed, incomplete, refused,
};
use dwell_actors::responses::{
    EVENTS_WAITING_MAX, EVENTS_WAITING_MAX_BYTES, Endpoint, EventKind, MESSAGE_MAX_BYTES, MetadataKeys,
    REQUESTS_WAITING_MAX, Responses, TokenGaps,
};
use dwell_actors::telemetry::root;
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{World, ask, bounded, says, short};

fn stamp_of(seen: &Seen) -> u64 {
    let keys = MetadataKeys::default();
    let text = seen.metadata(&keys.start_ms).unwrap();
    assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    text.parse().unwrap()
}

fn ordinal_of(seen: &Seen) -> &str {
    let keys = MetadataKeys::default();
    seen.metadata(&keys.ordinal).unwrap()
}

#[tokio::test]
async fn one_socket_carries_many_requests_each_with_its_own_trace_stamp_and_ordinal() {
    let world = World::new(|seen| says(seen, "well done")).await;
    let mut traces = Vec::new();
    for n in 0..3 {
        let response = world.session.ask(ask(&n.to_string()).sampled(true));
        traces.push(response.context().to_traceparent());
        let answer = bounded("an answer", response.finish()).await.unwrap();
        assert_eq!(answer.text(), "well done");
        assert_eq!(answer.timings.connect_us.is_some(), n == 0, "dialled once");
        assert!(answer.timings.first_token_us >= answer.timings.first_event_us);
    }
    let seen = world.model.seen();
    let place: Vec<_> = seen
        .iter()
        .map(|seen| (seen.connection, seen.request, ordinal_of(seen)))
        .collect();
    assert_eq!(place, [(1, 1, "1"), (1, 2, "2"), (1, 3, "3")]);
    let keys = MetadataKeys::default();
    for (seen, trace) in seen.iter().zip(&traces) {
        assert_eq!(seen.metadata(&keys.traceparent), Some(trace.as_str()));
        // The connection itself belongs to no request.
        assert_eq!(seen.header("traceparent"), None);
    }
    assert_ne!(traces[0], traces[1]);
    assert!(stamp_of(&seen[0]) <= stamp_of(&seen[2]));
}

#[tokio::test]
async fn a_prewarming_request_has_an_ordinal_and_no_first_token() {
    let world = World::new(|seen| says(seen, "a b c")).await;
    let warmed = world.answer(ask("x").prewarm()).await;
    let answer = world.answer(ask("x")).await;
    assert_eq!(warmed.ordinal.map(|ordinal| ordinal.get()), Some(1));
    assert_eq!(answer.ordinal.map(|ordinal| ordinal.get()), Some(2));
    assert!(warmed.timings.prewarm && warmed.timings.first_token_us.is_none());
    assert_eq!(warmed.timings.gaps, TokenGaps::default());
    assert!(answer.timings.first_token_us.is_some() && answer.timings.gaps.count == 2);
    let seen = world.model.seen();
    assert_eq!(seen[0].body["generate"], false);
    assert_eq!(ordinal_of(&seen[1]), "2");
    // The mock answers a prewarming request like any other; what follows goes on from there only if it has that too.
    assert_eq!(seen[1].body.get("previous_response_id"), None);
}

#[tokio::test]
async fn only_what_is_new_is_sent_while_the_connection_lasts() {
    let world = World::new(|seen| {
        let mut acts = vec![created("r1")];
        if seen.request == 1 {
            acts.extend(call("c1", "shell", &json!({ "argv": ["true"] })));
        }
        acts.push(completed("r1"));
        acts
    })
    .await;
    let first = world.answer(ask("run it")).await;
    let calls = first.calls();
    assert_eq!((calls.len(), calls[0].name.as_str()), (1, "shell"));
    world
        .answer(ask("run it").output(&first.output).function_output("c1", "done"))
        .await;
    let seen = world.model.seen();
    assert_eq!(seen[1].body["previous_response_id"], "r1");
    assert_eq!(seen[1].body["input"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_retry_on_another_connection_is_stamped_anew_and_sent_whole() {
    let world = World::new(|seen| match (seen.connection, seen.request) {
        (1, 2) => vec![Act::Pause(Duration::from_millis(5)), Act::Cut],
        _ => says(seen, "yes"),
    })
    .await;
    let first = world.answer(ask("one")).await;
    let more = ask("one").output(&first.output).user("two");
    let answer = world.answer(more.sampled(true)).await;
    assert_eq!((answer.attempts, answer.text().as_str()), (2, "yes"));
    let seen = world.model.seen();
    let place: Vec<_> = seen
        .iter()
        .map(|seen| (seen.connection, ordinal_of(seen)))
        .collect();
    assert_eq!(
        place,
        [(1, "1"), (1, "2"), (2, "1")],
        "a fresh connection begins anew"
    );
    assert!(
        stamp_of(&seen[2]) >= stamp_of(&seen[1]) + 5,
        "the stamp is of this sending"
    );
    assert_eq!(seen[1].body["previous_response_id"], "r1.1");
    assert_eq!(seen[2].body.get("previous_response_id"), None);
    assert_eq!(seen[2].body["input"].as_array().unwrap().len(), 3);
    // One logical request: the same trace, and one span.
    let keys = MetadataKeys::default();
    assert_eq!(
        seen[1].metadata(&keys.traceparent),
        seen[2].metadata(&keys.traceparent)
    );
    world.session.flush_traces().await;
    let spans = world.kept.named("model request");
    assert_eq!(spans.len(), 2);
}

#[tokio::test]
async fn a_connection_that_is_lost_within_a_response_is_told_and_not_asked_again() {
    let world = World::new(|seen| match seen.connection {
        1 => vec![created("r"), Act::Cut],
        2 => vec![created("r"), Act::Close],
        _ => says(seen, "yes"),
    })
    .await;
    for _ in 0..2 {
        assert_eq!(world.error(ask("x")).await, "interrupted");
    }
    assert_eq!(world.answer(ask("x")).await.text(), "yes");
    assert_eq!(world.model.seen().len(), 3);
}

#[tokio::test]
async fn a_server_that_cuts_every_time_is_given_up() {
    let world = World::new(|_| vec![Act::Cut]).await;
    assert_eq!(world.error(ask("x")).await, "interrupted");
    assert_eq!(world.model.seen().len(), 3);
}

#[tokio::test]
async fn a_server_that_forgot_is_sent_the_whole_on_the_same_connection() {
    let world = World::new(|seen| {
        if seen.body.get("previous_response_id").is_some() {
            return vec![refused(400, "previous_response_not_found", "gone")];
        }
        says(seen, "yes")
    })
    .await;
    let first = world.answer(ask("one")).await;
    let answer = world.answer(ask("one").output(&first.output).user("two")).await;
    assert_eq!(answer.attempts, 2);
    let seen = world.model.seen();
    let place: Vec<_> = seen
        .iter()
        .map(|seen| (seen.connection, ordinal_of(seen)))
        .collect();
    assert_eq!(place, [(1, "1"), (1, "2"), (1, "3")]);
    assert_eq!(seen[2].body["input"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn what_the_server_refuses_is_told_and_the_connection_goes_on() {
    let world = World::new(|seen| match seen.request {
        1 => vec![refused(400, "invalid_prompt", "no")],
        2 => vec![created("r"), failed("server_is_tired", "later")],
        3 => vec![created("r"), incomplete("r", "max_output_tokens")],
        _ => says(seen, "yes"),
    })
    .await;
    for _ in 0..2 {
        assert_eq!(world.error(ask("x")).await, "refused");
    }
    assert_eq!(
        world.answer(ask("x")).await.incomplete.as_deref(),
        Some("max_output_tokens")
    );
    assert_eq!(world.answer(ask("x")).await.text(), "yes");
    assert!(world.model.seen().iter().all(|seen| seen.connection == 1));
}

#[tokio::test]
async fn requests_wait_for_the_one_that_holds_the_stream_and_keep_their_order() {
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let world = World::new(move |seen| {
        let mut acts = says(seen, "yes");
        if seen.request == 1 {
            acts.insert(1, Act::Hold(Arc::clone(&held)));
        }
        acts
    })
    .await;
    let mut first = world.session.ask(ask("0"));
    let others: Vec<_> = (1..4).map(|n| world.session.ask(ask(&n.to_string()))).collect();
    assert_eq!(
        bounded("an event", first.next()).await.map(|event| event.kind),
        Some(EventKind::Created)
    );
    assert_eq!(world.model.seen().len(), 1, "one request holds the stream");
    hold.notify_one();
    bounded("the first", first.finish()).await.unwrap();
    for other in others {
        bounded("another", other.finish()).await.unwrap();
    }
    let asked: Vec<_> = world
        .model
        .seen()
        .iter()
        .map(|seen| {
            seen.body["input"][0]["content"][0]["text"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(asked, ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn more_requests_than_may_wait_are_refused_as_busy() {
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let world = World::new(move |_| vec![Act::Hold(Arc::clone(&held)), Act::Cut]).await;
    let waiting: Vec<_> = (0..REQUESTS_WAITING_MAX)
        .map(|_| world.session.ask(ask("x")))
        .collect();
    assert_eq!(world.error(ask("x")).await, "busy");
    // Whoever gives up makes room.
    drop(waiting);
    world
        .until("there is room", |world| {
            !format!("{:?}", world.session).contains(&format!("depth: {REQUESTS_WAITING_MAX}"))
        })
        .await;
}

#[tokio::test]
async fn a_response_that_is_dropped_is_nobody_elses() {
    let world = World::new(|seen| match seen.connection {
        1 => vec![created("dropped"), Act::Pause(Duration::from_secs(600))],
        _ => says(seen, "mine"),
    })
    .await;
    let mut dropped = world.session.ask(ask("x"));
    bounded("an event", dropped.next()).await.unwrap();
    drop(dropped);
    let answer = world.answer(ask("y")).await;
    assert_eq!(answer.text(), "mine");
    assert_eq!(world.model.seen()[1].connection, 2, "its connection went with it");
}

#[tokio::test]
async fn a_slow_consumer_holds_back_the_socket_and_loses_nothing() {
    const EVENTS: usize = 4_000;
    let mark = Arc::new(AtomicU64::new(0));
    let marks = Arc::clone(&mark);
    let world = World::new(move |seen| {
        let padding = "x".repeat(8 * 1024);
        let mut acts = Vec::new();
        for n in 0..EVENTS {
            let body =
                json!({ "type": "response.output_text.delta", "delta": n.to_string(), "padding": padding });
            acts.extend([Act::Event(body), Act::Mark(Arc::clone(&marks))]);
        }
        acts.push(completed(&seen.request.to_string()));
        acts
    })
    .await;
    let mut response = world.session.ask(ask("x"));
    // The server stands still while nothing is taken: what it sent fills the sockets' buffers and one queue.
    let mut last = (0, 0);
    bounded("the server stands", async {
        while last.1 < 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = mark.load(Ordering::Relaxed);
            last = if now == last.0 && now > 0 {
                (now, last.1 + 1)
            } else {
                (now, 0)
            };
        }
    })
    .await;
    assert!(
        last.0 < EVENTS as u64 * 9 / 10,
        "{} of {EVENTS} were sent and nothing was taken",
        last.0
    );
    assert!(last.0 > EVENTS_WAITING_MAX as u64 / 2);
    let mut next = 0;
    while let Some(event) = bounded("an event", response.next()).await {
        if let Some(delta) = event.text_delta() {
            assert_eq!(delta, next.to_string());
            next += 1;
        }
    }
    assert_eq!(next, EVENTS, "the control: all of it comes once it is taken");
    bounded("the end", response.finish()).await.unwrap();
}

#[tokio::test]
async fn large_events_that_wait_are_bounded_by_their_bytes() {
    const EVENTS: u64 = 60;
    let mark = Arc::new(AtomicU64::new(0));
    let marks = Arc::clone(&mark);
    let world = World::new(move |_| {
        let large = "x".repeat(1 << 20);
        let event = json!({ "type": "response.in_progress", "padding": large });
        let each = [Act::Event(event), Act::Mark(Arc::clone(&marks))];
        let mut acts: Vec<_> = std::iter::repeat_n(each, EVENTS as usize).flatten().collect();
        acts.push(completed("r"));
        acts
    })
    .await;
    let mut response = world.session.ask(ask("x"));
    // As many as there is room for and one more are read, and some are in the sockets' buffers.
    let room = (EVENTS_WAITING_MAX_BYTES >> 20) as u64;
    world
        .until("as many come as there is room for", |_| {
            mark.load(Ordering::Relaxed) >= room - 1
        })
        .await;
    let mut last = (0, 0);
    bounded("the server stands", async {
        while last.1 < 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = mark.load(Ordering::Relaxed);
            last = (now, if now == last.0 { last.1 + 1 } else { 0 });
        }
    })
    .await;
    assert!(
        last.0 < EVENTS - 20,
        "{} of {EVENTS} were sent and nothing was taken",
        last.0
    );
    let mut all = 0;
    while bounded("an event", response.next()).await.is_some() {
        all += 1;
    }
    assert_eq!(all, EVENTS + 1, "the control: all of it comes once it is taken");
}

#[tokio::test]
async fn a_connection_made_ahead_is_the_first_requests() {
    let world = World::new(|seen| says(seen, "yes")).await;
    let parent = root(true);
    world.session.warm(parent.clone());
    world
        .until("it is there", |world| {
            !world.kept.named("model connect").is_empty()
        })
        .await;
    assert_eq!(world.kept.named("model connect")[0].parent, parent.span_id.0);
    let answer = world.answer(ask("x")).await;
    assert_eq!(
        (
            answer.timings.connect_us,
            answer.ordinal.map(|ordinal| ordinal.get())
        ),
        (None, Some(1))
    );
    world.session.warm(root(true));
    world.answer(ask("x")).await;
    assert!(
        world.model.seen().iter().all(|seen| seen.connection == 1),
        "one is enough"
    );
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_ahead_is_told_to_whoever_asks() {
    let model = MockModel::with(Upgrade::Refuses(401), Posting::Takes, |_| Vec::new())
        .await
        .unwrap();
    let world = World::of(model, |builder| builder);
    world.session.warm(root(true));
    assert_eq!(world.error(ask("x")).await, "unauthorized");
}

#[tokio::test]
async fn every_deadline_is_kept() {
    let hangs = MockModel::with(Upgrade::Hangs, Posting::Takes, |_| Vec::new())
        .await
        .unwrap();
    let hangs = World::of(hangs, |builder| builder.deadlines(short(100, 60_000, 60_000)));
    assert_eq!(hangs.error(ask("x")).await, "deadline_exceeded");

    let silent = |seen: &Seen| match seen.connection {
        1 => vec![created("r"), Act::Ping, Act::Pause(Duration::from_secs(600))],
        _ => says(seen, "yes"),
    };
    let idle = World::of(MockModel::start(silent).await.unwrap(), |builder| {
        builder.deadlines(short(60_000, 2_000, 60_000))
    });
    assert_eq!(idle.error(ask("x")).await, "deadline_exceeded");
    assert_eq!(
        idle.answer(ask("x")).await.text(),
        "yes",
        "and then the next one is served"
    );

    let chatty = |seen: &Seen| {
        let again = [created("r"), Act::Pause(Duration::from_millis(20))];
        std::iter::repeat_n(again, 10_000)
            .flatten()
            .chain(says(seen, "late"))
            .collect()
    };
    let total = World::of(MockModel::start(chatty).await.unwrap(), |builder| {
        builder.deadlines(short(60_000, 60_000, 300))
    });
    assert_eq!(total.error(ask("x")).await, "deadline_exceeded");
}

#[tokio::test]
async fn messages_that_are_too_large_or_no_events_end_their_response_and_nothing_else() {
    let world = World::new(|seen| match seen.connection {
        1 => vec![Act::Text("x".repeat(MESSAGE_MAX_BYTES + 1))],
        2 => vec![created("r"), Act::Text("no JSON".into())],
        3 => vec![created("r"), Act::Binary(vec![0xff, 0xfe])],
        4 => vec![Act::Text("[]".into())],
        5 => vec![
            created("r"),
            Act::Event(json!({ "type": "response.function_call_arguments.delta", "item_id": "i", "delta": "x".repeat(2 << 20) })),
        ],
        _ => says(seen, "yes"),
    })
    .await;
    for kind in ["too_large", "malformed", "malformed", "malformed", "too_large"] {
        assert_eq!(world.error(ask("x")).await, kind);
    }
    assert_eq!(world.answer(ask("x")).await.text(), "yes");
}

#[tokio::test]
async fn json_in_binary_messages_and_events_of_unknown_kinds_are_taken() {
    let world = World::new(|seen| {
        let strange = json!({ "type": "response.invented", "x": 1 });
        let mut acts = vec![Act::Binary(strange.to_string().into_bytes())];
        acts.extend(says(seen, "yes"));
        acts
    })
    .await;
    let mut response = world.session.ask(ask("x"));
    let first = bounded("an event", response.next()).await.unwrap();
    assert_eq!((first.kind, &first.body["x"]), (EventKind::Other, &json!(1)));
    assert_eq!(bounded("the end", response.finish()).await.unwrap().text(), "yes");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let endpoint: Endpoint = "ws://127.0.0.1:1/".parse().unwrap();
    let session = Responses::builder(endpoint).open().unwrap();
    let error = bounded("an error", session.ask(ask("x")).finish())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert_eq!(error.kind(), "unreachable");
}

#[tokio::test]
async fn a_session_ends_with_its_last_handle_and_its_last_response() {
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let model = MockModel::start(move |seen| {
        let mut acts = says(seen, "yes");
        acts.insert(0, Act::Hold(Arc::clone(&held)));
        acts
    })
    .await
    .unwrap();
    let session = Responses::builder(model.endpoint()).open().unwrap();
    let response = session.ask(ask("x"));
    drop(session);
    hold.notify_one();
    assert_eq!(bounded("the end", response.finish()).await.unwrap().text(), "yes");
}
