//! When a request is sent again.

use std::time::Duration;

use dwell_actors::responses::{ATTEMPTS_MAX, Failure, RETRY_PAUSE, ResponsesError, Verdict, verdict};

fn refused(code: &str) -> ResponsesError {
    ResponsesError::Refused {
        code: code.into(),
        message: String::new(),
    }
}

fn answered(code: &str, content: bool) -> Failure {
    Failure::Answered {
        error: refused(code),
        content,
    }
}

#[test]
fn a_lost_connection_is_tried_again_only_while_nothing_of_the_response_had_come() {
    assert!(matches!(
        verdict(Failure::LostBeforeContent, 1),
        Verdict::FreshConnection(Duration::ZERO)
    ));
    assert!(matches!(
        verdict(Failure::LostBeforeContent, 2),
        Verdict::FreshConnection(RETRY_PAUSE)
    ));
    for failure in [
        (Failure::LostBeforeContent, ATTEMPTS_MAX),
        (Failure::LostAfterContent, 1),
    ] {
        assert!(matches!(
            verdict(failure.0, failure.1),
            Verdict::Fail(ResponsesError::Interrupted)
        ));
    }
}

#[test]
fn a_post_takes_the_place_of_a_websocket_only_when_that_was_refused() {
    for failure in [
        Failure::UpgradeRefused(404),
        Failure::UpgradeRefused(426),
        Failure::UpgradeRefused(403),
        Failure::UpgradeRefused(503),
        Failure::UpgradeFailed,
    ] {
        assert!(
            matches!(verdict(failure.clone(), 1), Verdict::Post),
            "{failure:?}"
        );
    }
    // These a POST would be told as well.
    for (status, kind) in [(401, "unauthorized"), (429, "rate_limited")] {
        let Verdict::Fail(error) = verdict(Failure::UpgradeRefused(status), 1) else {
            panic!("{status}");
        };
        assert_eq!(error.kind(), kind);
    }
    let unreachable = ResponsesError::Unreachable {
        authority: "127.0.0.1:1".into(),
        source: std::sync::Arc::new(std::io::ErrorKind::ConnectionRefused.into()),
    };
    assert!(matches!(
        verdict(Failure::NotConnected(unreachable), 1),
        Verdict::Fail(ResponsesError::Unreachable { .. })
    ));
    // What was sent is never posted.
    for failure in [
        Failure::LostBeforeContent,
        Failure::LostAfterContent,
        answered("x", false),
    ] {
        assert!(!matches!(verdict(failure, 1), Verdict::Post));
    }
}

#[test]
fn a_server_that_forgot_is_sent_the_whole_and_one_that_is_full_is_dialled_anew() {
    let forgot = "previous_response_not_found";
    assert!(matches!(
        verdict(answered(forgot, false), 1),
        Verdict::SameConnection
    ));
    assert!(matches!(
        verdict(answered("websocket_connection_limit_reached", false), 1),
        Verdict::FreshConnection(_)
    ));
    for failure in [
        (answered(forgot, true), 1),
        (answered(forgot, false), ATTEMPTS_MAX),
        (answered("anything", false), 1),
    ] {
        assert!(matches!(
            verdict(failure.0, failure.1),
            Verdict::Fail(ResponsesError::Refused { .. })
        ));
    }
}
