//! What a process's spans say of its end.

use std::borrow::Cow;

use dwell_messages::ExitStatus;

use crate::harness::signal_name;
use crate::telemetry::{Stage, semconv};

/// A command's `error.type`: its span is in error where it did not end with code 0, whatever that means to its caller.
pub(super) fn failure(status: Option<ExitStatus>) -> Option<Cow<'static, str>> {
    match status {
        Some(ExitStatus::Code(0)) => None,
        Some(ExitStatus::Code(_)) => Some("exit_code".into()),
        Some(ExitStatus::Signal(signal)) => Some(match signal_name(signal) {
            Some(name) => format!("signal:SIG{name}").into(),
            None => format!("signal:{signal}").into(),
        }),
        None => Some("wait_status_lost".into()),
    }
}

/// What ended it, as attributes.
pub(super) fn ended_by(stage: Stage, status: Option<ExitStatus>) -> Stage {
    match status {
        Some(ExitStatus::Code(code)) => stage.number(semconv::PROCESS_EXIT_CODE, code),
        Some(ExitStatus::Signal(signal)) => stage.number(semconv::PROCESS_SIGNAL, signal),
        None => stage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_code_of_zero_is_no_error_and_a_signal_is_named() {
        let of = |status| failure(status).map(Cow::into_owned);
        assert_eq!(of(Some(ExitStatus::Code(0))), None);
        assert_eq!(of(Some(ExitStatus::Code(7))).as_deref(), Some("exit_code"));
        assert_eq!(of(Some(ExitStatus::Signal(9))).as_deref(), Some("signal:SIGKILL"));
        assert_eq!(of(Some(ExitStatus::Signal(34))).as_deref(), Some("signal:34"));
        assert_eq!(of(None).as_deref(), Some("wait_status_lost"));
    }
}
