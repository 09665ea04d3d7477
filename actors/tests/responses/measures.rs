//! The client's own times.

use dwell_actors::responses::{ClientTimings, Measure, ServerTimings, TokenGaps, Unaccounted};

fn measured(prewarm: bool, events: &[(u64, bool)]) -> ClientTimings {
    let mut measure = Measure::sent(1_000, prewarm);
    for (at, has_tokens) in events {
        measure.event(*at, *has_tokens);
    }
    let mut timings = ClientTimings::default();
    measure.finish(&mut timings);
    timings
}

#[test]
fn the_first_event_is_not_the_first_token_and_gaps_lie_between_tokens() {
    let timings = measured(
        false,
        &[
            (1_100, false),
            (1_300, true),
            (1_400, false),
            (1_450, true),
            (2_000, true),
        ],
    );
    assert_eq!(timings.first_event_us, Some(100));
    assert_eq!(timings.first_token_us, Some(300));
    let gaps = TokenGaps {
        count: 2,
        total_us: 700,
        longest_us: 550,
    };
    assert_eq!(timings.gaps, gaps);
}

#[test]
fn a_prewarming_request_has_no_first_token_and_no_gaps() {
    let timings = measured(true, &[(1_100, false), (1_200, true), (1_300, true)]);
    assert_eq!(
        (timings.first_token_us, timings.gaps),
        (None, TokenGaps::default())
    );
    assert_eq!(timings.first_event_us, Some(100));
    assert!(timings.prewarm);
}

#[test]
fn a_clock_that_stands_still_or_goes_back_makes_no_negative_time() {
    let timings = measured(false, &[(900, true), (800, true)]);
    assert_eq!(timings.first_token_us, Some(0));
    assert_eq!(timings.gaps.longest_us, 0);
}

#[test]
fn what_the_server_leaves_is_clamped_at_zero_and_flagged() {
    let timings = ClientTimings {
        queue_us: 10_000,
        connect_us: Some(20_000),
        send_us: 1_000,
        total_us: 131_000,
        ..ClientTimings::default()
    };
    let server = |ms| ServerTimings {
        engine_iapi_ttft_total_ms: Some(ms),
        ..ServerTimings::default()
    };
    // 131 ms less what came before the request was written is 100 ms.
    let left = |us, clamped| Some(Unaccounted { us, clamped });
    assert_eq!(timings.unaccounted(&server(60.0)), left(40_000, false));
    assert_eq!(timings.unaccounted(&server(100.0)), left(0, false));
    assert_eq!(timings.unaccounted(&server(100.5)), left(0, true));
    assert_eq!(timings.unaccounted(&ServerTimings::default()), None);
}
