//! Error numbers are for ever, and numbers of a peer never overflow ours.

use dwell_messages::error::{Blame, ErrorCode, WireError};
use dwell_messages::ids::{ParseKeyError, PublicKey};
use dwell_messages::process::ExitStatus;
use dwell_messages::{Timings, codec};
use proptest::prelude::*;

/// Numbers and names as they were released. Lines are added here, never changed.
const RELEASED: [(u16, ErrorCode, &str, Blame); 39] = [
    (100, ErrorCode::BadRequest, "bad_request", Blame::Caller),
    (101, ErrorCode::EmptyArgv, "empty_argv", Blame::Caller),
    (102, ErrorCode::UnknownMethod, "unknown_method", Blame::Caller),
    (103, ErrorCode::UnknownProcess, "unknown_process", Blame::Caller),
    (
        104,
        ErrorCode::DuplicateProcess,
        "duplicate_process",
        Blame::Caller,
    ),
    (105, ErrorCode::StdinClosed, "stdin_closed", Blame::Caller),
    (
        106,
        ErrorCode::DuplicateRequest,
        "duplicate_request",
        Blame::Caller,
    ),
    (107, ErrorCode::BadSignal, "bad_signal", Blame::Caller),
    (108, ErrorCode::BadOffset, "bad_offset", Blame::Caller),
    (109, ErrorCode::UnknownSession, "unknown_session", Blame::Caller),
    (110, ErrorCode::BadPath, "bad_path", Blame::Caller),
    (111, ErrorCode::UnknownHandle, "unknown_handle", Blame::Caller),
    (
        200,
        ErrorCode::PermissionDenied,
        "permission_denied",
        Blame::Permission,
    ),
    (300, ErrorCode::SpawnFailed, "spawn_failed", Blame::Machine),
    (301, ErrorCode::BadCwd, "bad_cwd", Blame::Machine),
    (
        302,
        ErrorCode::ResourceExhausted,
        "resource_exhausted",
        Blame::Machine,
    ),
    (303, ErrorCode::NotFound, "not_found", Blame::Machine),
    (304, ErrorCode::AccessDenied, "access_denied", Blame::Machine),
    (305, ErrorCode::NotADirectory, "not_a_directory", Blame::Machine),
    (306, ErrorCode::IsADirectory, "is_a_directory", Blame::Machine),
    (307, ErrorCode::AlreadyExists, "already_exists", Blame::Machine),
    (308, ErrorCode::SymlinkLoop, "symlink_loop", Blame::Machine),
    (309, ErrorCode::NoSpace, "no_space", Blame::Machine),
    (310, ErrorCode::NotEmpty, "not_empty", Blame::Machine),
    (311, ErrorCode::FileFailed, "file_failed", Blame::Machine),
    (312, ErrorCode::FileChanged, "file_changed", Blame::Machine),
    (313, ErrorCode::NotAFile, "not_a_file", Blame::Machine),
    (314, ErrorCode::HttpFailed, "http_failed", Blame::Machine),
    (400, ErrorCode::Busy, "busy", Blame::Capacity),
    (401, ErrorCode::TooLarge, "too_large", Blame::Capacity),
    (500, ErrorCode::Disconnected, "disconnected", Blame::Link),
    (501, ErrorCode::Protocol, "protocol", Blame::Link),
    (502, ErrorCode::Version, "version", Blame::Link),
    (503, ErrorCode::Superseded, "superseded", Blame::Link),
    (600, ErrorCode::ActorFailed, "actor_failed", Blame::Ours),
    (601, ErrorCode::OutcomeUnknown, "outcome_unknown", Blame::Ours),
    (602, ErrorCode::Stopped, "stopped", Blame::Ours),
    (603, ErrorCode::Cancelled, "cancelled", Blame::Ours),
    (604, ErrorCode::DeadlineExceeded, "deadline_exceeded", Blame::Ours),
];

#[test]
fn every_code_has_the_number_the_name_and_the_blame_it_was_released_with() {
    assert_eq!(
        ErrorCode::ALL.len(),
        RELEASED.len(),
        "a new code needs its line above"
    );
    for (number, code, name, blame) in RELEASED {
        assert_eq!(ErrorCode::from(number), code);
        assert_eq!(u16::from(code), number);
        assert_eq!((code.name(), code.blame()), (name, blame), "{number}");
        assert!(ErrorCode::ALL.contains(&code));
        assert!(
            !code.advice().is_empty() && !code.advice().ends_with('.'),
            "{name}"
        );
    }
}

#[test]
fn an_unknown_code_keeps_its_number_and_its_group() {
    for (number, blame) in [(199, Blame::Caller), (299, Blame::Permission), (599, Blame::Link)] {
        assert_eq!(ErrorCode::from(number), ErrorCode::Unknown(number));
        assert_eq!(ErrorCode::from(number).blame(), blame);
        assert_eq!(ErrorCode::from(number).name(), "_OTHER");
    }
    for number in [0, 99, 700, u16::MAX] {
        assert_eq!(ErrorCode::from(number).blame(), Blame::Ours);
    }
}

#[test]
fn an_error_says_its_limit_its_errno_and_what_to_do() {
    let error = WireError::new(ErrorCode::TooLarge, "the message is too large")
        .with_errno(Some(90))
        .with_limit(10, 11);
    assert_eq!(
        error.to_string(),
        "the message is too large (errno 90) (11, and the limit is 10): send less at once"
    );
}

/// Both once panicked on numbers that a peer chooses.
#[test]
fn no_number_of_a_peer_overflows() {
    assert_eq!(ExitStatus::Signal(i32::MAX).shell_code(), i32::MAX);
    assert_eq!(ExitStatus::Signal(9).shell_code(), 137);
    let timings = Timings {
        receive: u64::MAX,
        run: u64::MAX,
        total: 5,
        ..Timings::default()
    };
    assert_eq!(timings.named_sum(), u64::MAX);
    assert_eq!(timings.unattributed(), 0);
}

#[test]
fn a_public_key_is_read_in_either_case_and_says_what_is_wrong_with_it() {
    let text = "0123456789abcdef".repeat(4);
    let key: PublicKey = text.parse().unwrap();
    assert_eq!(key.0[..8], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    assert_eq!(text.to_uppercase().parse(), Ok(key));
    assert_eq!(key.to_string(), text);
    let refused = |text: &str| text.parse::<PublicKey>().unwrap_err();
    assert_eq!(refused(""), ParseKeyError::Length { actual: 0 });
    assert_eq!(refused(&text[1..]), ParseKeyError::Length { actual: 63 });
    assert_eq!(
        refused(&format!("{text}\n")),
        ParseKeyError::Length { actual: 65 }
    );
    assert_eq!(
        refused(&format!("+{}", &text[1..])),
        ParseKeyError::Digit { at: 1 }
    );
    assert_eq!(
        refused(&format!("{}é", &text[1..])),
        ParseKeyError::Digit { at: 64 }
    );
    assert_eq!(refused(&"é".repeat(32)), ParseKeyError::Length { actual: 32 });
}

#[test]
fn what_is_said_of_bytes_that_are_no_message_follows_the_house_rules() {
    let errors = [
        codec::DecodeError::Truncated.to_string(),
        codec::DecodeError::TooDeep { limit: 32 }.to_string(),
        codec::EncodeError::TooLarge { limit: 1, actual: 2 }.to_string(),
    ];
    for error in errors {
        assert!(error.starts_with(|first: char| !first.is_uppercase()), "{error}");
        assert!(!error.ends_with('.'), "{error}");
    }
}

proptest! {
    #[test]
    fn every_number_survives_being_a_code(number in any::<u16>()) {
        prop_assert_eq!(u16::from(ErrorCode::from(number)), number);
    }

    #[test]
    fn every_public_key_survives_its_text(key in any::<[u8; 32]>()) {
        prop_assert_eq!(PublicKey(key).to_string().parse(), Ok(PublicKey(key)));
    }
}
