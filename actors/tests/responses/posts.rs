//! Where there is no WebSocket: POST and server-sent events.

use std::time::Duration;

use dwell_actors::responses::mock::{
    Act, MockModel, Posting, Seen, Upgrade, call, completed, created, sideband,
};
use dwell_actors::responses::{MESSAGE_MAX_BYTES, MetadataKeys, ResponsesError};
use serde_json::json;

use crate::support::{KEY, World, ask, bounded, says};

async fn refusing(upgrade: Upgrade, play: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> World {
    let model = MockModel::with(upgrade, Posting::Takes, play).await.unwrap();
    World::of(model, |builder| builder)
}

#[tokio::test]
async fn a_post_takes_over_when_the_websocket_is_refused_and_carries_neither_stamp_nor_ordinal_nor_trace() {
    for upgrade in [Upgrade::Refuses(426), Upgrade::Refuses(404), Upgrade::Cuts] {
        let world = refusing(upgrade, |seen| {
            let mut acts = vec![created("r")];
            if seen.connection < 3 {
                acts.extend(call("c1", "shell", &json!({})));
            }
            acts.extend([Act::Ping, completed("r")]);
            acts
        })
        .await;
        let response = world
            .session
            .ask(ask("run it").sampled(true).metadata("session_id", "s"));
        let trace = response.context().to_traceparent();
        let first = bounded("an answer", response.finish()).await.unwrap();
        assert_eq!((first.calls().len(), first.ordinal), (1, None), "{upgrade:?}");
        world
            .answer(ask("run it").output(&first.output).function_output("c1", "done"))
            .await;
        let seen = world.model.seen();
        assert!(seen.iter().all(|seen| seen.is_post));
        assert_eq!(seen.len(), 2);
        let keys = MetadataKeys::default();
        for key in [&keys.start_ms, &keys.ordinal, &keys.traceparent, &keys.tracestate] {
            assert_eq!(seen[0].metadata(key), None);
        }
        assert_eq!(seen[0].metadata("session_id"), Some("s"));
        assert_eq!(seen[1].body.get("client_metadata"), None);
        // Its trace is where HTTP has it, and there it is each request's own.
        assert_eq!(seen[0].header("traceparent"), Some(trace.as_str()));
        assert_ne!(seen[1].header("traceparent"), Some(trace.as_str()));
        assert_eq!(
            seen[0].header("authorization"),
            Some(format!("Bearer {KEY}").as_str())
        );
        // Nothing is kept in mind there.
        assert_eq!(seen[1].body.get("previous_response_id"), None);
        assert_eq!(seen[1].body["input"].as_array().unwrap().len(), 3);
        // The upgrade was asked for once: it and two posts are three connections.
        assert_eq!(seen[1].connection, 3);
    }
}

#[tokio::test]
async fn an_upgrade_that_is_refused_for_the_key_or_for_the_rate_is_told_and_not_posted() {
    for (status, kind) in [(401, "unauthorized"), (429, "rate_limited")] {
        let world = refusing(Upgrade::Refuses(status), |seen| says(seen, "yes")).await;
        assert_eq!(world.error(ask("x")).await, kind);
        assert_eq!(world.model.seen().len(), 0, "nothing was sent");
    }
}

#[tokio::test]
async fn what_was_sent_on_a_websocket_is_never_posted() {
    let world = refusing(Upgrade::Takes, |_| vec![Act::Cut]).await;
    assert_eq!(world.error(ask("x")).await, "interrupted");
    assert!(world.model.seen().iter().all(|seen| !seen.is_post));
}

#[tokio::test]
async fn a_status_says_who_has_to_act() {
    let of = async |status: u16, head: &str, body: &str| {
        let posting = Posting::Refuses {
            status,
            head: head.into(),
            body: body.into(),
        };
        let model = MockModel::with(Upgrade::Refuses(404), posting, |_| Vec::new())
            .await
            .unwrap();
        let world = World::of(model, |builder| builder);
        bounded("an error", world.session.ask(ask("x")).finish())
            .await
            .unwrap_err()
    };
    assert!(matches!(
        of(401, "", "").await,
        ResponsesError::Unauthorized { status: 401 }
    ));
    assert!(matches!(
        of(503, "", "<html>").await,
        ResponsesError::Server { status: 503 }
    ));
    assert!(matches!(
        of(404, "", "").await,
        ResponsesError::Status { status: 404 }
    ));
    let limited = of(429, "Retry-After: 7\r\n", "").await;
    let after = Some(Duration::from_secs(7));
    assert!(matches!(limited, ResponsesError::RateLimited { retry_after } if retry_after == after));
    assert!(limited.to_string().contains("for 7 s"), "{limited}");
    let told = of(
        400,
        "",
        r#"{"error":{"code":"bad_model","message":"no such model"}}"#,
    )
    .await;
    assert!(told.to_string().contains("no such model (bad_model)"), "{told}");
    let endless = "x".repeat(1 << 20);
    assert!(matches!(
        of(400, "", &endless).await,
        ResponsesError::Status { status: 400 }
    ));
}

#[tokio::test]
async fn a_stream_of_events_that_ends_early_or_is_none_is_told() {
    let world = refusing(Upgrade::Refuses(404), |seen| match seen.connection {
        2 => vec![created("r"), Act::Cut],
        3 => vec![Act::Text("no JSON".into())],
        4 => vec![Act::Binary(b"data: \xff\n\n".to_vec())],
        5 => vec![Act::Binary(vec![b'x'; MESSAGE_MAX_BYTES + 100])],
        _ => says(seen, "yes"),
    })
    .await;
    for kind in ["interrupted", "malformed", "malformed", "too_large"] {
        assert_eq!(world.error(ask("x")).await, kind);
    }
    assert_eq!(world.answer(ask("x")).await.text(), "yes");
}

#[tokio::test]
async fn prewarming_is_for_websockets_only() {
    let world = refusing(Upgrade::Refuses(404), |seen| says(seen, "yes")).await;
    assert_eq!(world.error(ask("x").prewarm()).await, "nothing_to_warm");
    assert_eq!(world.answer(ask("x")).await.text(), "yes");
}

#[tokio::test]
async fn a_sideband_among_the_events_of_a_post_is_no_event_either() {
    let world = refusing(Upgrade::Refuses(404), |seen| {
        let mut acts = vec![sideband(&json!(null), &json!({ "engine_queue_max_ms": 1 }))];
        acts.extend(says(seen, "yes"));
        acts
    })
    .await;
    let mut response = world.session.ask(ask("x").sampled(true));
    while let Some(event) = bounded("an event", response.next()).await {
        assert!(!format!("{event:?}").contains("websocket_timing"));
    }
    let answer = bounded("the end", response.finish()).await.unwrap();
    assert_eq!(
        answer.server.and_then(|server| server.engine_queue_max_ms),
        Some(1.0)
    );
}
