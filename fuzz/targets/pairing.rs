//! One-time codes and the line that carries one: a model of the invitation, and the line's text.
#![no_main]

use std::time::{Duration, Instant};

use dwell_actors::access::{ClaimRefused, PAIRING_LIFE, PAIRING_TRIES_MAX, PairingOffer};
use dwell_actors::keys::{Grant, PairingCode, TrustLine};
use dwell_fuzz::Script;
use dwell_messages::PublicKey;
use dwell_relay::pairing::{PAIRING_CODE_BYTES, authorization, presented};
use libfuzzer_sys::fuzz_target;

const RIGHT: [u8; PAIRING_CODE_BYTES] = [7; PAIRING_CODE_BYTES];

/// What has to be remembered of an invitation, said as plainly as possible.
#[derive(Default)]
struct Model {
    wrong: u32,
    claimed_by: Option<PublicKey>,
    used: bool,
}

impl Model {
    fn claim(&mut self, late: bool, client: PublicKey, code: &[u8]) -> Result<(), ClaimRefused> {
        if self.wrong == PAIRING_TRIES_MAX {
            return Err(ClaimRefused::Void);
        }
        if code != RIGHT {
            self.wrong += 1;
            return Err(ClaimRefused::Wrong);
        }
        if late {
            return Err(ClaimRefused::Expired);
        }
        if self.used || self.claimed_by.is_some_and(|first| first != client) {
            return Err(ClaimRefused::Used);
        }
        self.claimed_by = Some(client);
        Ok(())
    }
}

fn check_offer(script: &mut Script<'_>) {
    let begun = Instant::now();
    let mut now = begun;
    let mut offer = PairingOffer::new(now, &PairingCode::from(RIGHT), Grant::default());
    let mut model = Model::default();
    let mut listed = Vec::new();
    for _ in 0..64 {
        if script.is_over() {
            break;
        }
        let client = PublicKey([script.byte() % 3; 32]);
        match script.below(6) {
            0 => now += Duration::from_secs(u64::from(script.byte())),
            1 | 2 => {
                let bytes = if script.flag() {
                    authorization(&RIGHT)
                } else {
                    script.bytes(24).to_vec()
                };
                let expected =
                    presented(&bytes).map(|code| model.claim(now - begun >= PAIRING_LIFE, client, code));
                assert_eq!(offer.claim(now, &client, &bytes), expected);
            }
            3 => {
                let mut code = RIGHT;
                code[script.below(PAIRING_CODE_BYTES)] ^= script.byte();
                let expected = model.claim(now - begun >= PAIRING_LIFE, client, &code);
                assert_eq!(offer.claim(now, &client, &authorization(&code)), Some(expected));
            }
            // Its first record has opened.
            _ => {
                let good = !model.used && model.claimed_by == Some(client);
                assert_eq!(offer.claimed(&client).is_some(), good);
                if good {
                    offer.use_up();
                    model.used = true;
                    listed.push(client);
                }
            }
        }
    }
    assert!(listed.len() <= 1, "one code, one client");
}

fn check_line(text: &str) {
    let Ok(line) = TrustLine::parse(text) else { return };
    let again = line.to_string();
    assert!(
        !again.contains(|c: char| c.is_whitespace() || c.is_control()),
        "it needs no quoting"
    );
    assert_eq!(TrustLine::parse(&again).as_ref(), Ok(&line));
    assert_eq!(
        again.len(),
        text.trim().len(),
        "nothing is left out and nothing added"
    );
    assert_eq!(line.known(None).key, line.key);
    let shown = format!("{line:?}");
    let code: String = line
        .code
        .expose()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let others = format!("{:?}{:?}{:?}", line.name, line.key, line.route);
    assert!(
        !shown.contains(&code) || others.contains(&code),
        "what is logged does not show the code"
    );
}

fuzz_target!(|data: &[u8]| {
    if let Some(code) = presented(data) {
        assert_eq!(authorization(code), data);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        check_line(text);
    }
    check_offer(&mut Script::new(data));
});
