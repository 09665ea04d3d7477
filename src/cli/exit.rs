//! How the process ends: the command's own code, or one that says what kept it from having one.

use std::io::Write as _;

use dwell_messages::{ErrorCode, ExitStatus};
use rustix::io::Errno;

use super::failure::Failure;
use super::output;

/// A process that was asked does not answer.
pub(crate) const UNANSWERED: u8 = 1;
/// The command was terminated because its time was over.
pub(crate) const TIMED_OUT: u8 = 124;
/// An error of dwell's own: nothing is known of the command, or it was never asked for.
pub(crate) const OWN_ERROR: u8 = 125;
/// The program is there and cannot be executed.
pub(crate) const CANNOT_EXECUTE: u8 = 126;
/// The program is not there.
pub(crate) const NOT_FOUND: u8 = 127;
/// Added to the number of the signal that ended the command.
pub(crate) const SIGNAL_BASE: u8 = 128;

const SIGINT: u8 = 2;
const SIGPIPE: u8 = 13;

/// The user ended dwell before there was anything else to report.
pub(crate) const INTERRUPTED: u8 = SIGNAL_BASE + SIGINT;
/// Whoever read the output went away.
pub(crate) const OUTPUT_CLOSED: u8 = SIGNAL_BASE + SIGPIPE;

/// The exit code that stands for how a command ended, the way shells have it.
pub(crate) fn of_status(status: ExitStatus) -> u8 {
    match status {
        ExitStatus::Code(code) => (code & 0xff) as u8,
        ExitStatus::Signal(signal) => SIGNAL_BASE.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
    }
}

/// The exit code for a command that has no status: only a program that could not be started has codes of its own.
pub(crate) fn of_refusal(code: Option<ErrorCode>, errno: Option<i32>) -> u8 {
    if code != Some(ErrorCode::SpawnFailed) {
        return OWN_ERROR;
    }
    match errno.map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => NOT_FOUND,
        Some(Errno::ACCESS | Errno::NOEXEC) => CANNOT_EXECUTE,
        Some(_) | None => OWN_ERROR,
    }
}

/// Prints what the parser has to say; help and version are no errors. An error is one for programs too, where `json` is
/// among the arguments: they are not parsed, so what stands behind `--` is the only place where it means something else.
pub(crate) fn usage(error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        // Nobody is left to tell when this fails.
        drop(error.print());
        drop(std::io::stdout().flush());
        return 0;
    }
    let own = std::env::args_os().take_while(|argument| argument != "--");
    if own.into_iter().any(|argument| argument == "--json") {
        let text = error.render().to_string();
        let mut parts = text.trim_end().split("\n\n");
        let what = parts.next().unwrap_or_default();
        let failure = Failure::new("usage", what.strip_prefix("error: ").unwrap_or(what));
        output::print_json(&parts.fold(failure, Failure::advise).to_json());
    }
    drop(error.print());
    OWN_ERROR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_ran_gives_its_own_code() {
        assert_eq!(of_status(ExitStatus::Code(0)), 0);
        assert_eq!(of_status(ExitStatus::Code(3)), 3);
        assert_eq!(of_status(ExitStatus::Code(255)), 255);
        assert_eq!(of_status(ExitStatus::Signal(9)), 137);
        assert_eq!(of_status(ExitStatus::Signal(15)), 143);
    }

    #[test]
    fn no_status_that_a_peer_invents_makes_the_code_overflow() {
        assert_eq!(of_status(ExitStatus::Signal(i32::MAX)), 255);
        assert_eq!(of_status(ExitStatus::Signal(-1)), 255);
        assert_eq!(of_status(ExitStatus::Code(256 + 7)), 7);
        assert_eq!(of_status(ExitStatus::Code(-1)), 255);
    }

    #[test]
    fn a_program_that_cannot_be_started_gives_the_codes_of_a_shell() {
        let code = |errno: Errno| of_refusal(Some(ErrorCode::SpawnFailed), Some(errno.raw_os_error()));
        assert_eq!(code(Errno::NOENT), NOT_FOUND);
        assert_eq!(code(Errno::ACCESS), CANNOT_EXECUTE);
        assert_eq!(code(Errno::NOEXEC), CANNOT_EXECUTE);
        assert_eq!(code(Errno::NOMEM), OWN_ERROR);
    }

    #[test]
    fn a_missing_directory_is_no_missing_program() {
        let errno = Some(Errno::NOENT.raw_os_error());
        assert_eq!(of_refusal(Some(ErrorCode::BadCwd), errno), OWN_ERROR);
        assert_eq!(of_refusal(None, errno), OWN_ERROR);
    }
}
