//! Every message survives the way there, and nothing else is taken for one.

use proptest::prelude::*;

use super::wire::{FromGuard, FromKeeper, Scope, ToGuard, ToKeeper};
use crate::spawn::{
    Environment, Exit, ExitStatus, LimitName, Limits, SpawnErrorKind, SpawnRequest, TerminalSize, TreeReport,
};

fn request() -> SpawnRequest {
    SpawnRequest {
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), vec![255, 1, 2]],
        program: Some(b"/bin/sh".to_vec()),
        cwd: Some(b"/tmp".to_vec()),
        env: Environment::exact([(b"A".to_vec(), b"1=2".to_vec()), (b"B".to_vec(), Vec::new())]),
        terminal: Some(TerminalSize::default()),
        limits: Limits {
            open_files: Some(64),
            core_bytes: Some(0),
            nice: Some(-3),
            ..Limits::default()
        },
        detach: true,
        ..SpawnRequest::default()
    }
}

fn exit() -> Exit {
    Exit {
        status: ExitStatus::Signal(9),
        core_dumped: true,
        user_us: Some(1),
        system_us: Some(u64::MAX),
        max_rss_kib: None,
        oom_killed: Some(true),
    }
}

fn to_keeper() -> Vec<ToKeeper> {
    let request = Box::new(request());
    vec![
        ToKeeper::Start {
            generation: 7,
            request,
        },
        ToKeeper::StartAttached { generation: 8 },
        ToKeeper::Signal {
            generation: 9,
            scope: Scope::Foreground,
            signal: 28,
        },
        ToKeeper::Terminate {
            generation: u32::MAX,
            grace_ms: 10_000,
        },
    ]
}

fn from_keeper() -> Vec<FromKeeper> {
    let limit = LimitName::Nice;
    vec![
        FromKeeper::Started {
            generation: 1,
            pid: 2,
        },
        FromKeeper::Failed {
            generation: 1,
            kind: SpawnErrorKind::LimitRefused { limit, errno: 1 },
        },
        FromKeeper::Failed {
            generation: 1,
            kind: SpawnErrorKind::CwdUnusable { errno: 2 },
        },
        FromKeeper::Exited {
            generation: 1,
            exit: exit(),
            is_empty: true,
        },
        FromKeeper::TreeEmpty { generation: 3 },
        FromKeeper::TreeEnded {
            generation: 3,
            report: TreeReport {
                ended_by_term: 1,
                killed: 2,
                unkillable: 3,
            },
        },
        FromKeeper::Died,
    ]
}

#[test]
fn every_message_is_read_as_it_was_written() {
    for message in to_keeper() {
        assert_eq!(ToKeeper::decode(&message.encode()), Ok(message));
    }
    for message in from_keeper() {
        assert_eq!(FromKeeper::decode(&message.encode()), Ok(message));
    }
    for message in [
        ToGuard::Hello {
            namespaces: true,
            cgroups: false,
        },
        ToGuard::Keeper { detached: true },
    ] {
        assert_eq!(ToGuard::decode(&message.encode()), Ok(message));
    }
    for message in [
        FromGuard::Ready { is_namespaced: true },
        FromGuard::Keeper { has_cgroup: true },
        FromGuard::NoKeeper { errno: 11 },
    ] {
        assert_eq!(FromGuard::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn a_message_cut_anywhere_or_with_a_byte_too_many_is_refused() {
    for message in to_keeper() {
        let mut bytes = message.encode();
        for length in 0..bytes.len() {
            assert!(
                ToKeeper::decode(&bytes[..length]).is_err(),
                "{message:?} at {length}"
            );
        }
        bytes.push(0);
        assert!(ToKeeper::decode(&bytes).is_err());
    }
    for message in from_keeper() {
        let mut bytes = message.encode();
        for length in 0..bytes.len() {
            assert!(
                FromKeeper::decode(&bytes[..length]).is_err(),
                "{message:?} at {length}"
            );
        }
        bytes.push(0);
        assert!(FromKeeper::decode(&bytes).is_err());
    }
}

#[test]
fn another_version_is_refused() {
    let mut bytes = ToGuard::Keeper { detached: false }.encode();
    bytes[0] += 1;
    assert!(
        ToGuard::decode(&bytes)
            .unwrap_err()
            .to_string()
            .contains("version")
    );
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), kind in 0_u8..40) {
        let mut led = bytes.clone();
        led.splice(0..0, [super::codec::VERSION, kind]);
        for bytes in [bytes, led] {
            let _ = ToGuard::decode(&bytes);
            let _ = FromGuard::decode(&bytes);
            let _ = ToKeeper::decode(&bytes);
            let _ = FromKeeper::decode(&bytes);
        }
    }
}
