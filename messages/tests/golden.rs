//! The bytes on the wire do not change unseen.
//!
//! `DWELL_WRITE_GOLDEN=1 cargo test -p dwell-messages --test golden` writes the files anew; a change of one that has
//! been released is a new version of the wire.

#[allow(dead_code, reason = "every test binary uses another part of it")]
mod common;

use std::path::PathBuf;

use bytes::Bytes;
use dwell_messages::codec::{self, TRAILER_BYTES, Trailer};
use dwell_messages::kinds::MessageKind;
use dwell_messages::session::{Hello, Welcome};
use dwell_messages::{Closed, Event, Message, Pong, Reply, Timings};

use common::{SEQUENCE, context, encoded, hello, message, welcome};

const BYTES_PER_LINE: usize = 32;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.hex"))
}

fn to_text(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes
        .chunks(BYTES_PER_LINE)
        .map(|chunk| line(chunk) + "\n")
        .collect()
}

fn from_text(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    assert!(digits.len().is_multiple_of(2), "a golden file holds half a byte");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("a golden file is hexadecimal"))
        .collect()
}

fn golden(name: &str) -> Result<Vec<u8>, String> {
    std::fs::read_to_string(path(name))
        .map(|text| from_text(&text))
        .map_err(|error| {
            format!("the golden bytes of {name} are missing ({error}): run with DWELL_WRITE_GOLDEN=1 once and look at what it wrote")
        })
}

/// Says where `actual` differs from the golden bytes.
fn compare(name: &str, actual: &[u8]) -> Result<(), String> {
    let expected = golden(name)?;
    if expected == actual {
        return Ok(());
    }
    let at = expected.iter().zip(actual).take_while(|(a, b)| a == b).count();
    Err(format!(
        "{name} differs from its golden bytes at offset {at} ({} bytes, now {})",
        expected.len(),
        actual.len()
    ))
}

fn check(name: &str, actual: &[u8]) {
    if std::env::var_os("DWELL_WRITE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(path(name), to_text(actual)).expect("the golden folder takes files");
    }
    compare(name, actual).unwrap_or_else(|problem| panic!("{problem}"));
}

fn name(kind: MessageKind) -> String {
    format!("{:02x}-{kind:?}", kind.to_wire()).to_lowercase()
}

#[test]
fn every_kind_encodes_to_its_golden_bytes() {
    for kind in MessageKind::ALL {
        check(&name(*kind), &encoded(*kind));
    }
}

#[test]
fn every_golden_message_decodes_to_its_sample() {
    for kind in MessageKind::ALL {
        let bytes = golden(&name(*kind)).unwrap_or_else(|problem| panic!("{problem}"));
        let decoded = codec::decode(&Bytes::from(bytes)).unwrap();
        assert_eq!(decoded.message, message(*kind));
        assert_eq!(decoded.message.kind(), *kind);
        assert_eq!(decoded.sequence, SEQUENCE);
        assert_eq!(decoded.context, Some(context()));
        assert!(!decoded.context_malformed);
        let trailer = decoded.message.has_trailer().then(Trailer::default);
        assert_eq!(decoded.trailer, trailer, "{kind:?}");
    }
}

/// What a kind's sample was before accounts had parts and pongs a clock.
fn earlier(kind: MessageKind) -> Message {
    let before = Timings {
        receive: 1,
        mailbox: 2,
        admission: 3,
        dispatch: 4,
        spawn_queue: 5,
        spawn: 600,
        first_byte: 700,
        run: 80_000,
        drain: 9,
        delivery: 10,
        total: 80_700,
        ..Timings::default()
    };
    let closed_before = |closed| Closed {
        timings: before,
        ..closed
    };
    match message(kind) {
        Message::Response { id, mut result, .. } => {
            if let Ok(Reply::Read(reply)) = &mut result {
                for event in &mut reply.events {
                    if let Event::Closed(closed) = event {
                        *closed = closed_before(closed.clone());
                    }
                }
            }
            Message::Response {
                id,
                result,
                timings: before,
            }
        }
        Message::Event {
            process,
            event: Event::Closed(closed),
        } => Message::Event {
            process,
            event: Event::Closed(closed_before(closed)),
        },
        Message::Pong(pong) => Message::Pong(Pong { unix_ns: 0, ..pong }),
        other => panic!("{other:?} has not changed"),
    }
}

#[test]
fn what_was_encoded_before_accounts_had_parts_still_means_the_same() {
    let mut seen = 0;
    for kind in MessageKind::ALL {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden_earlier")
            .join(format!("{}.hex", name(*kind)));
        let Ok(text) = std::fs::read_to_string(file) else {
            continue;
        };
        let decoded = codec::decode(&Bytes::from(from_text(&text))).unwrap();
        assert_eq!(decoded.message, earlier(*kind), "{kind:?}");
        seen += 1;
    }
    assert_eq!(seen, 11, "earlier encodings are missing");
}

/// Whoever sums the account as it was then finds nothing counted twice.
#[test]
fn parts_of_an_account_stand_within_the_sums_that_older_ends_know() {
    let timings = Timings {
        receive: 100,
        open: 30,
        decode: 20,
        hand_off: 1,
        mailbox: 200,
        rpc_mailbox: 60,
        process_mailbox: 30,
        run: 7,
        total: 310,
        ..Timings::default()
    };
    let segments: std::collections::BTreeMap<_, _> = timings.segments().into_iter().collect();
    assert_eq!((segments["receive"], segments["mailbox"]), (49, 110));
    assert_eq!(timings.named_sum(), 307);
    assert_eq!(timings.unattributed(), 3);
}

#[test]
fn the_handshake_payloads_are_their_golden_bytes_both_ways() {
    check("hello", &hello().encode().unwrap());
    check("welcome", &welcome().encode().unwrap());
    assert_eq!(Hello::decode(&golden("hello").unwrap()), Ok(hello()));
    assert_eq!(Welcome::decode(&golden("welcome").unwrap()), Ok(welcome()));
}

#[test]
fn a_missing_golden_file_is_said_in_a_sentence() {
    let problem = compare("no-such-kind", b"").unwrap_err();
    assert!(
        problem.contains("golden bytes of no-such-kind are missing"),
        "{problem}"
    );
    assert!(problem.contains("DWELL_WRITE_GOLDEN=1"), "{problem}");
}

/// The positive control: the comparison sees every single changed byte.
#[test]
fn every_changed_byte_of_every_message_is_noticed() {
    for kind in MessageKind::ALL {
        let bytes = encoded(*kind).to_vec();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let problem = compare(&name(*kind), &changed).unwrap_err();
            assert!(problem.contains(&format!("at offset {at} ")), "{problem}");
        }
        assert!(compare(&name(*kind), &bytes[..bytes.len() - 1]).is_err());
    }
}

#[test]
fn no_golden_file_is_left_over_from_a_kind_that_is_gone() {
    let mut expected: Vec<String> = MessageKind::ALL.iter().map(|kind| name(*kind)).collect();
    expected.extend(["hello".into(), "welcome".into()]);
    for entry in std::fs::read_dir(path("x").parent().unwrap()).unwrap() {
        let file = entry.unwrap().path();
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(expected.contains(&stem), "{stem} belongs to no kind");
    }
}

#[test]
fn the_trailer_is_the_last_eight_bytes_turnaround_first() {
    for kind in MessageKind::ALL
        .iter()
        .filter(|kind| message(**kind).has_trailer())
    {
        let mut bytes = encoded(*kind).to_vec();
        let at = bytes.len() - TRAILER_BYTES;
        bytes[at..].copy_from_slice(&[0, 0, 1, 2, 3, 0, 0, 4]);
        let decoded = codec::decode(&Bytes::from(bytes)).unwrap();
        let expected = Trailer {
            turnaround_us: 0x0102,
            queued_us: 0x0300_0004,
        };
        assert_eq!(decoded.trailer, Some(expected));
        assert_eq!(decoded.message, message(*kind));
    }
}

/// PROTOCOL.md names every kind with its number, which ids it needs and whether a trailer follows.
#[test]
fn the_protocol_page_has_a_line_for_every_kind_and_every_error() {
    let page = include_str!("../../PROTOCOL.md");
    let mark = |set: bool| if set { " x " } else { " " };
    for kind in MessageKind::ALL {
        let header = codec::Header::read(&encoded(*kind)).unwrap();
        let line = format!(
            "| {:#04x} | {kind:?} |{}|{}|{}|\n",
            kind.to_wire(),
            mark(header.id != 0),
            mark(header.process != 0),
            mark(header.trailer)
        );
        assert!(page.contains(&line), "PROTOCOL.md lacks {line:?}");
    }
    for code in dwell_messages::ErrorCode::ALL {
        let entry = format!("{} {}", u16::from(*code), code.name());
        assert!(page.contains(&entry), "PROTOCOL.md lacks {entry:?}");
    }
}
