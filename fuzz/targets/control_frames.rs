//! RESET and REFUSED: by anybody who can reach the port, and their text goes to a terminal.
#![no_main]

use bytes::BytesMut;
use dwell_relay::control::{CONTROL_TEXT_MAX_BYTES, ControlError, REFUSED_SUITES_MAX};
use dwell_relay::outer::{REFUSED_MAX_BYTES, RESET_MAX_BYTES};
use dwell_relay::{Refusal, RefusalReason, Reset, ResetCode};
use libfuzzer_sys::fuzz_target;

fn check_text(text: &str) {
    assert!(text.len() <= CONTROL_TEXT_MAX_BYTES);
    assert!(!text.contains(char::is_control), "a terminal does as it is told");
}

fn check_reset(data: &[u8]) {
    match Reset::decode(data) {
        Ok(reset) => {
            check_text(&reset.text);
            assert_eq!(reset.code.to_wire(), u16::from_be_bytes([data[0], data[1]]));
            let mut again = BytesMut::new();
            reset.encode(&mut again);
            assert!(again.len() <= data.len() && again.len() <= RESET_MAX_BYTES);
            assert_eq!(Reset::decode(&again), Ok(reset));
        }
        Err(ControlError::Truncated { actual }) => assert!(actual == data.len() && actual < 2),
        Err(ControlError::Text) => {
            let text = &data[2..];
            assert!(text.len() > CONTROL_TEXT_MAX_BYTES || std::str::from_utf8(text).is_err());
        }
        Err(ControlError::Suites { .. }) => panic!("a reset lists no suites"),
    }
}

fn check_refusal(data: &[u8]) {
    match Refusal::decode(data) {
        Ok(refusal) => {
            check_text(&refusal.text);
            assert!(refusal.suites.len() <= REFUSED_SUITES_MAX);
            assert_eq!(RefusalReason::from_wire(refusal.reason.to_wire()), refusal.reason);
            let mut again = BytesMut::new();
            refusal.encode(&mut again);
            assert!(again.len() <= data.len() && again.len() <= REFUSED_MAX_BYTES);
            assert_eq!(Refusal::decode(&again), Ok(refusal));
        }
        Err(ControlError::Truncated { actual }) => {
            let suites = data.get(6).map_or(0, |count| 2 * usize::from(*count));
            assert!(actual == data.len() && actual < 7 + suites);
        }
        Err(ControlError::Suites { actual }) => {
            assert!(actual == data[6] && usize::from(actual) > REFUSED_SUITES_MAX);
        }
        Err(ControlError::Text) => {
            let text = &data[7 + 2 * usize::from(data[6])..];
            assert!(text.len() > CONTROL_TEXT_MAX_BYTES || std::str::from_utf8(text).is_err());
        }
    }
}

fuzz_target!(|data: &[u8]| {
    check_reset(data);
    check_refusal(data);
    // What this side says for people is cut to size, and then always read.
    if let Ok(text) = std::str::from_utf8(data) {
        let mut bytes = BytesMut::new();
        Reset::with_text(ResetCode::Protocol, text).encode(&mut bytes);
        let read = Reset::decode(&bytes).expect("our own reset is one");
        assert!(
            text.chars()
                .filter(|c| !c.is_control())
                .collect::<String>()
                .starts_with(&read.text)
        );
        let mut bytes = BytesMut::new();
        Refusal::ours(RefusalReason::Suite, text).encode(&mut bytes);
        Refusal::decode(&bytes).expect("our own refusal is one");
    }
});
