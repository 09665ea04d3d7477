//! The handshake by which an executor registers: each side is given, at each step, what the other never said.
#![no_main]

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use dwell_fuzz::{Constant, Script, identity};
use dwell_messages::StreamId;
use dwell_messages::kinds::OuterKind;
use dwell_relay::registration::{AwaitingProof, AwaitingRelay, Registrant, Registrar, RegistrationError};
use dwell_relay::{Dialer, OuterDecoder, OuterFrame, Preamble, PreambleDecoder};
use libfuzzer_sys::fuzz_target;

const STREAM: StreamId = StreamId([5; 16]);

/// The two messages of the executor and the one of the relay, as they are when nobody interferes.
struct Honest {
    preamble: Preamble,
    first: Bytes,
    answer: Bytes,
    proof: Bytes,
}

fn registrant() -> (AwaitingRelay, Bytes) {
    let identity = identity(1);
    let preamble =
        Preamble::new(Dialer::Executor, identity.public(), STREAM, &[]).expect("no token is short");
    Registrant::start(identity, &preamble, &[], &mut Constant(3)).expect("the generator never fails")
}

fn registrar(preamble: &Preamble, message: &[u8]) -> Result<(AwaitingProof, Bytes), RegistrationError> {
    Registrar::read_first(identity(2), preamble, message, &mut Constant(4))
}

fn payload(frame: &[u8]) -> Bytes {
    let mut decoder = OuterDecoder::new();
    decoder.feed(BytesMut::from(frame));
    let frame = decoder.next_frame().expect("ours is a frame").expect("and whole");
    assert_eq!(frame.kind, OuterKind::Handshake);
    frame.payload.freeze()
}

fn handshake(payload: &[u8]) -> OuterFrame {
    frame(OuterKind::Handshake, payload)
}

fn frame(kind: OuterKind, payload: &[u8]) -> OuterFrame {
    OuterFrame {
        kind,
        stream: STREAM,
        stamp_us: 0,
        payload: BytesMut::from(payload),
    }
}

fn honest() -> &'static Honest {
    static HONEST: OnceLock<Honest> = OnceLock::new();
    HONEST.get_or_init(|| {
        let (waiting, bytes) = registrant();
        let mut decoder = PreambleDecoder::new();
        decoder.feed(BytesMut::from(&bytes[..]));
        let (preamble, _) = decoder.decode().expect("ours is a preamble").expect("and whole");
        let first = decoder
            .into_frames()
            .next_frame()
            .expect("ours is a frame")
            .expect("and whole");
        let (proof, answer) = registrar(&preamble, &first.payload).expect("an honest message is read");
        let (_, bytes) = waiting
            .handle_frame(&handshake(&answer))
            .expect("an honest answer is read");
        let message = payload(&bytes);
        assert_eq!(
            proof.read(&message).expect("an honest proof").key(),
            preamble.executor
        );
        Honest {
            preamble,
            first: first.payload.freeze(),
            answer,
            proof: message,
        }
    })
}

/// Either bytes of the script's own, or an honest message with some bytes changed, cut or grown.
fn message(script: &mut Script<'_>, honest: &Bytes) -> Vec<u8> {
    if script.flag() {
        return script.clone().rest().to_vec();
    }
    let mut message = honest.to_vec();
    for _ in 0..script.below(4) {
        let at = usize::from(script.u16()) % message.len();
        message[at] ^= script.byte();
    }
    match script.below(8) {
        1 => message.truncate(usize::from(script.u16()) % (message.len() + 1)),
        2 => message.extend_from_slice(script.bytes(64)),
        _ => {}
    }
    message
}

fuzz_target!(|data: &[u8]| {
    let honest = honest();
    let mut script = Script::new(data);
    match script.below(4) {
        0 => {
            let message = message(&mut script, &honest.first);
            if let Ok((proof, answer)) = registrar(&honest.preamble, &message) {
                // Message 1 proves nothing; it binds the proof all the same.
                let outcome = proof.read(&honest.proof);
                assert_eq!(outcome.is_ok(), message == honest.first[..]);
                assert_eq!(answer == honest.answer, message == honest.first[..]);
            }
        }
        1 => {
            let message = message(&mut script, &honest.answer);
            let outcome = registrant().0.handle_frame(&handshake(&message));
            assert_eq!(
                outcome.is_ok(),
                message == honest.answer[..],
                "an answer is not forged"
            );
        }
        2 => {
            let message = message(&mut script, &honest.proof);
            let (proof, _) = registrar(&honest.preamble, &honest.first).expect("an honest message is read");
            match proof.read(&message) {
                Ok(proven) => {
                    assert_eq!(message, honest.proof[..], "a proof is not forged");
                    assert_eq!(proven.key(), honest.preamble.executor);
                }
                Err(error) => assert!(matches!(error, RegistrationError::Handshake(_)), "{error}"),
            }
        }
        _ => {
            let (_, kind) = (
                script.flag(),
                OuterKind::from_wire(script.byte()).unwrap_or(OuterKind::Registered),
            );
            let verdict = frame(kind, script.clone().rest());
            let (waiting, _) = registrant();
            let waiting = if script.flag() {
                waiting
                    .handle_frame(&handshake(&honest.answer))
                    .expect("an honest answer is read")
                    .0
            } else {
                if kind != OuterKind::Handshake {
                    assert!(
                        waiting.handle_frame(&verdict).is_err(),
                        "there is no verdict before a proof"
                    );
                }
                return;
            };
            match waiting.handle_frame(&verdict) {
                Ok(registered) => {
                    assert!(kind == OuterKind::Registered && verdict.payload.len() >= 2);
                    assert_eq!(registered.relay, identity(2).public());
                }
                Err(RegistrationError::Refused(_)) => assert_eq!(kind, OuterKind::Refused),
                Err(RegistrationError::Closed(_)) => assert_eq!(kind, OuterKind::Reset),
                Err(RegistrationError::Control(_)) => {
                    assert!(matches!(
                        kind,
                        OuterKind::Registered | OuterKind::Refused | OuterKind::Reset
                    ));
                }
                Err(RegistrationError::UnexpectedFrame { kind: named }) => assert_eq!(named, kind),
                Err(other) => panic!("a verdict is no {other}"),
            }
        }
    }
});
