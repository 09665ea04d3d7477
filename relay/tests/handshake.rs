//! Handshakes and registrations: every change on the way is found, and nobody learns what is not for them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_messages::PublicKey;
use dwell_messages::kinds::OuterKind;
use dwell_relay::first_message::{FIRST_MESSAGE_MAX_BYTES, MAC_BYTES, MacKey};
use dwell_relay::handshake::{
    AwaitingWelcome, HELLO_MAX_BYTES, HandshakeError, Initiator, Responder, WELCOME_MAX_BYTES,
};
use dwell_relay::keys::KeyError;
use dwell_relay::link::HANDSHAKE_TIMEOUT;
use dwell_relay::registration::{Registrant, Registrar, RegistrationError};
use dwell_relay::{
    Dialer, Link, LinkError, LinkEvent, LinkOptions, Preamble, PreambleDecoder, Refusal, RefusalReason,
    ResetCode, StaticKeypair, encode_outer, fingerprint, parse_public_key,
};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroizing;

use support::{Broken, End, Pair, PairOptions, STREAM, Seeded, drain, frames_of, harness_preamble, keypair};

struct Parties {
    client: StaticKeypair,
    server: StaticKeypair,
    preamble: [u8; 64],
}

impl Parties {
    fn new() -> Self {
        let server = keypair(2);
        Self {
            client: keypair(1),
            preamble: harness_preamble(server.public()).encode(),
            server,
        }
    }

    fn start(&self) -> (AwaitingWelcome, Bytes) {
        Initiator::start(
            &self.client,
            self.server.public(),
            &self.preamble,
            b"hello",
            &mut Seeded(3),
        )
        .unwrap()
    }

    /// With the MAC that somebody who knows the executor's key would make for it.
    fn with_mac(&self, noise: &[u8]) -> Vec<u8> {
        let mut message = noise.to_vec();
        MacKey::of(&self.server.public()).append(&self.preamble, &mut message);
        message
    }

    fn answer(&self, message: &[u8]) -> Result<Bytes, HandshakeError> {
        let verdict = Responder::read_hello(&self.server, &self.preamble, 1, message, &mut Seeded(4))?;
        assert_eq!(verdict.client(), self.client.public());
        assert_eq!(verdict.hello(), &b"hello"[..]);
        Ok(verdict.welcome(b"welcome")?.1)
    }
}

#[test]
fn both_sides_end_with_the_same_hash_and_each_others_words() {
    let parties = Parties::new();
    let (waiting, first) = parties.start();
    let verdict =
        Responder::read_hello(&parties.server, &parties.preamble, 1, &first, &mut Seeded(4)).unwrap();
    let (server, second) = verdict.welcome(b"welcome").unwrap();
    let client = waiting.read(&second).unwrap();
    assert_eq!(client.welcome, &b"welcome"[..]);
    assert_eq!(client.version, 1);
    assert_eq!(client.peer, parties.server.public());
    assert_eq!(server.peer, parties.client.public());
    assert_eq!(client.handshake_hash, server.handshake_hash);
}

#[test]
fn records_are_noise_transport_messages() {
    // The sealer is ours; what it makes must be what any other Noise implementation would open.
    let parties = Parties::new();
    let mut plain = snow::Builder::new("Noise_IK_25519_AESGCM_BLAKE2s".parse().unwrap())
        .local_private_key(parties.server.expose_private())
        .unwrap()
        .prologue(&parties.preamble)
        .unwrap()
        .build_responder()
        .unwrap();
    let (waiting, first) = parties.start();
    let mut payload = vec![0; 1024];
    let first = &first[..first.len() - MAC_BYTES];
    let length = plain.read_message(first, &mut payload).unwrap();
    assert_eq!(&payload[..length], b"hello");
    let mut second = vec![0; 1024];
    let length = plain.write_message(b"\x00\x01hi", &mut second).unwrap();
    let mut ours = waiting.read(&second[..length]).unwrap();
    let mut theirs = plain.into_transport_mode().unwrap();
    for round in 0..3_u8 {
        let mut record = BytesMut::from(&[round; 100][..]);
        ours.sealer.seal_in_place(&mut record, 0).unwrap();
        let length = theirs.read_message(&record, &mut payload).unwrap();
        assert_eq!(payload[..length], [round; 100]);
        let length = theirs.write_message(&[round; 50], &mut payload).unwrap();
        let mut record = BytesMut::from(&payload[..length]);
        ours.opener.open_in_place(&mut record).unwrap();
        assert_eq!(record[..], [round; 50]);
    }
}

#[test]
fn an_opener_that_failed_once_opens_nothing_ever_after() {
    let parties = Parties::new();
    let (waiting, first) = parties.start();
    let verdict =
        Responder::read_hello(&parties.server, &parties.preamble, 1, &first, &mut Seeded(4)).unwrap();
    let (mut server, second) = verdict.welcome(b"").unwrap();
    let mut client = waiting.read(&second).unwrap();
    let mut record = BytesMut::from(&b"good"[..]);
    client.sealer.seal_in_place(&mut record, 0).unwrap();
    let error = server
        .opener
        .open_in_place(&mut BytesMut::from(&[0; 32][..]))
        .unwrap_err();
    assert_eq!(server.opener.open_in_place(&mut record), Err(error));
    assert_eq!(server.opener.records(), 0);
}

#[test]
fn every_flipped_bit_of_message_1_is_rejected() {
    let parties = Parties::new();
    let (_, first) = parties.start();
    assert!(parties.answer(&first).is_ok(), "positive control");
    for bit in 0..first.len() * 8 {
        let mut changed = first.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(
            matches!(parties.answer(&changed), Err(HandshakeError::WrongMac)),
            "bit {bit}"
        );
    }
}

/// The MAC proves nothing: anybody who knows the executor's key can make it.
#[test]
fn every_flipped_bit_of_message_1_is_rejected_under_a_right_mac_too() {
    let parties = Parties::new();
    let (_, first) = parties.start();
    let noise = &first[..first.len() - MAC_BYTES];
    assert!(
        parties.answer(&parties.with_mac(noise)).is_ok(),
        "positive control"
    );
    for bit in 0..noise.len() * 8 {
        let mut changed = noise.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let answer = parties.answer(&parties.with_mac(&changed));
        assert!(
            matches!(
                answer,
                Err(HandshakeError::NotVerified(_) | HandshakeError::Key(_))
            ),
            "bit {bit}"
        );
    }
}

#[test]
fn every_flipped_bit_of_message_2_is_rejected() {
    let parties = Parties::new();
    let (_, first) = parties.start();
    let second = parties.answer(&first).unwrap();
    assert!(parties.start().0.read(&second).is_ok(), "positive control");
    for bit in 0..second.len() * 8 {
        let mut changed = second.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(parties.start().0.read(&changed).is_err(), "bit {bit}");
    }
}

#[test]
fn every_shorter_or_longer_message_is_rejected() {
    let parties = Parties::new();
    let (_, first) = parties.start();
    let second = parties.answer(&first).unwrap();
    for length in 0..first.len() {
        assert!(parties.answer(&first[..length]).is_err(), "message 1 of {length}");
    }
    for length in 0..second.len() {
        assert!(
            parties.start().0.read(&second[..length]).is_err(),
            "message 2 of {length}"
        );
    }
    let longer = |bytes: &[u8]| [bytes, &[0]].concat();
    assert!(parties.answer(&longer(&first)).is_err());
    assert!(parties.start().0.read(&longer(&second)).is_err());
}

#[test]
fn every_field_of_the_preamble_is_bound() {
    let parties = Parties::new();
    let (_, first) = parties.start();
    for byte in 0..64 {
        let mut preamble = parties.preamble;
        preamble[byte] ^= 1;
        let read = Responder::read_hello(&parties.server, &preamble, 1, &first, &mut Seeded(4));
        assert!(read.is_err(), "byte {byte}");
    }
}

#[test]
fn another_executor_cannot_read_message_1_nor_answer_it() {
    let parties = Parties::new();
    let (_, first) = parties.start();
    let other = keypair(99);
    let read = Responder::read_hello(&other, &parties.preamble, 1, &first, &mut Seeded(4));
    assert!(matches!(read, Err(HandshakeError::WrongMac)));
    let mut message = first[..first.len() - MAC_BYTES].to_vec();
    MacKey::of(&other.public()).append(&parties.preamble, &mut message);
    let read = Responder::read_hello(&other, &parties.preamble, 1, &message, &mut Seeded(4));
    assert!(matches!(read, Err(HandshakeError::NotVerified(_))));
}

#[test]
fn a_version_that_was_not_offered_is_not_accepted() {
    let parties = Parties::new();
    let (waiting, first) = parties.start();
    let verdict =
        Responder::read_hello(&parties.server, &parties.preamble, 9, &first, &mut Seeded(4)).unwrap();
    let (_, second) = verdict.welcome(b"").unwrap();
    assert!(matches!(
        waiting.read(&second),
        Err(HandshakeError::Version { chosen: 9 })
    ));
}

#[test]
fn payloads_have_their_limits() {
    let parties = Parties::new();
    let start = |length| {
        let hello = vec![1; length];
        Initiator::start(
            &parties.client,
            parties.server.public(),
            &parties.preamble,
            &hello,
            &mut Seeded(3),
        )
    };
    assert!(matches!(
        start(HELLO_MAX_BYTES + 1),
        Err(HandshakeError::PayloadTooLong { .. })
    ));
    let (_, first) = start(HELLO_MAX_BYTES).unwrap();
    assert_eq!(first.len(), FIRST_MESSAGE_MAX_BYTES);
    let (_, first) = parties.start();
    let verdict =
        || Responder::read_hello(&parties.server, &parties.preamble, 1, &first, &mut Seeded(4)).unwrap();
    let (_, second) = verdict().welcome(&vec![1; WELCOME_MAX_BYTES]).unwrap();
    assert_eq!(second.len(), 16 * 1024);
    let too_long = verdict().welcome(&vec![1; WELCOME_MAX_BYTES + 1]);
    assert!(matches!(too_long, Err(HandshakeError::PayloadTooLong { .. })));
}

#[test]
fn without_randomness_there_is_no_handshake() {
    let parties = Parties::new();
    let start = Initiator::start(
        &parties.client,
        parties.server.public(),
        &parties.preamble,
        b"",
        &mut Broken,
    );
    assert!(matches!(start, Err(HandshakeError::Randomness(_))));
    let (_, first) = parties.start();
    let read = Responder::read_hello(&parties.server, &parties.preamble, 1, &first, &mut Broken);
    assert!(matches!(read, Err(HandshakeError::Randomness(_))));
    assert!(StaticKeypair::generate(&mut Broken).is_err());
}

#[test]
fn keys_of_small_order_are_exactly_those_that_make_every_exchange_zero() {
    let hex = |text: &str| -> [u8; 32] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    };
    let f = "ff".repeat(30);
    let mut small: Vec<[u8; 32]> = vec![
        [0; 32],
        hex(&format!("01{}", "00".repeat(31))),
        hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        hex(&format!("ec{f}7f")),
        hex(&format!("ed{f}7f")),
        hex(&format!("ee{f}7f")),
    ];
    let high: Vec<[u8; 32]> = small
        .iter()
        .map(|key| {
            let mut key = *key;
            key[31] |= 0x80;
            key
        })
        .collect();
    small.extend(high);
    let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).unwrap();
    dh.set(&[0x42; 32]);
    let mut shared = [1; 32];
    for key in small {
        dh.dh(&key, &mut shared).unwrap();
        assert_eq!(shared, [0; 32], "the oracle agrees that this key has small order");
        assert_eq!(parse_public_key(&key), Err(KeyError::LowOrder));
    }
    let good = keypair(5).public();
    dh.dh(&good.0, &mut shared).unwrap();
    assert_ne!(shared, [0; 32]);
    assert_eq!(parse_public_key(&good.0), Ok(good));
    assert_eq!(parse_public_key(&[1; 31]), Err(KeyError::Length { actual: 31 }));
}

#[test]
fn a_pinned_key_or_an_ephemeral_of_small_order_is_refused() {
    let parties = Parties::new();
    let start = Initiator::start(
        &parties.client,
        PublicKey([0; 32]),
        &parties.preamble,
        b"",
        &mut Seeded(3),
    );
    assert!(matches!(start, Err(HandshakeError::Key(KeyError::LowOrder))));
    let (_, first) = parties.start();
    let mut zeroed = first[..first.len() - MAC_BYTES].to_vec();
    zeroed[..32].fill(0);
    assert!(matches!(
        parties.answer(&parties.with_mac(&zeroed)),
        Err(HandshakeError::Key(KeyError::LowOrder))
    ));
}

#[test]
fn a_stored_key_gives_the_same_pair_and_debug_shows_only_its_public_half() {
    let pair = keypair(6);
    let again = StaticKeypair::from_private(Zeroizing::new(*pair.expose_private()));
    assert_eq!(pair.public(), again.public());
    let shown = format!("{pair:?}");
    let private: String = pair
        .expose_private()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(shown.contains(&pair.public().to_string()) && !shown.contains(&private));
    let print = fingerprint(&pair.public());
    assert!(
        print.starts_with("BLAKE2s:") && print.len() == "BLAKE2s:".len() + 43,
        "{print}"
    );
    assert_ne!(print, fingerprint(&keypair(7).public()));
}

#[test]
fn an_unlisted_client_gets_what_garbage_gets() {
    let mut pair = Pair::new(&PairOptions::default());
    pair.executor.serve_clients = false;
    let first = pair.to_executor.pop_front().unwrap();
    pair.executor.handle(pair.now, first.clone());
    let unlisted = pair.executor.transmit(pair.now, usize::MAX);

    let mut pair = Pair::new(&PairOptions::default());
    let mut garbage = first;
    garbage.payload[70] ^= 1;
    pair.executor.handle(pair.now, garbage);
    assert!(pair.executor.error.is_some(), "the log has the reason");
    assert_eq!(
        unlisted,
        pair.executor.transmit(pair.now, usize::MAX),
        "the wire has not"
    );

    let frames = frames_of(unlisted);
    assert_eq!(frames.len(), 1, "one reset and nothing else");
    assert_eq!(frames[0].kind, OuterKind::Reset);
    let mut pair = Pair::new(&PairOptions::default());
    pair.harness.handle(pair.now, frames[0].clone());
    assert_eq!(pair.harness.closed_code(), Some(ResetCode::Unavailable));
}

#[test]
fn a_refused_version_ends_the_dial_with_what_is_supported() {
    let mut pair = Pair::new(&PairOptions::default());
    let mut refusal = Refusal::ours(RefusalReason::Version, "too old");
    (refusal.version_min, refusal.version_max) = (4, 5);
    let mut payload = BytesMut::new();
    refusal.encode(&mut payload);
    let mut out = BytesMut::new();
    encode_outer(&mut out, OuterKind::Refused, STREAM, 0, &payload);
    let frame = frames_of(out).remove(0);
    pair.harness.handle(pair.now, frame.clone());
    match pair.harness.error {
        Some(LinkError::Refused(said)) => {
            assert!(said.to_string().contains("4 to 5"), "{said}");
        }
        other => panic!("{other:?}"),
    }
    // Once a link is up the same frame, which anyone may forge, does nothing.
    let mut pair = Pair::up(&PairOptions::default());
    pair.harness.handle(pair.now, frame);
    assert!(pair.harness.error.is_none() && pair.harness.link.is_up());
}

#[test]
fn an_executor_answers_a_version_it_does_not_serve_with_a_refusal() {
    let mut preamble = harness_preamble(keypair(2).public());
    (preamble.version_min, preamble.version_max) = (8, 9);
    let answer = Link::<()>::answer(
        Instant::now(),
        Arc::new(keypair(2)),
        &preamble,
        LinkOptions::direct(),
        &mut Seeded(1),
    );
    match answer {
        Err(LinkError::Refused(refusal)) => assert_eq!(refusal.reason, RefusalReason::Version),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_handshake_that_stalls_ends_at_its_deadline_on_either_side() {
    // Nothing arrives at the harness.
    let mut pair = Pair::new(&PairOptions::default());
    let due = pair.harness.link.poll_timeout().unwrap();
    assert_eq!(due, pair.now + HANDSHAKE_TIMEOUT);
    assert!(
        pair.harness
            .link
            .handle_timeout(due - Duration::from_millis(1))
            .is_ok()
    );
    let late = pair.harness.link.handle_timeout(due);
    assert!(matches!(late, Err(LinkError::HandshakeDeadline { seconds: 10 })));
    assert!(pair.harness.link.is_over());
    // A replayed message 1 gets an answer, and then nothing follows it.
    let mut pair = Pair::new(&PairOptions::default());
    let first = pair.to_executor.pop_front().unwrap();
    pair.executor.handle(pair.now, first);
    pair.transmit();
    assert_eq!(pair.to_harness.len(), 1);
    assert!(!pair.executor.is_established(), "no record, no session");
    let due = pair.executor.link.poll_timeout().unwrap();
    assert!(pair.executor.link.handle_timeout(due).is_err());
    // Positive control: a link that is up has no deadline but that of its keys.
    let pair = Pair::up(&PairOptions::default());
    for end in [&pair.harness, &pair.executor] {
        let due = end.link.poll_timeout().unwrap();
        assert!(due > pair.now + Duration::from_secs(3_000));
    }
}

#[test]
fn a_confirmation_goes_out_even_when_there_is_nothing_to_say() {
    let pair = Pair::up(&PairOptions::default());
    assert_eq!(pair.harness.records_sealed, 1);
    assert!(pair.executor.received.is_empty());
}

#[test]
fn a_replayed_session_fails_at_its_first_record() {
    let options = PairOptions::default();
    let mut recorded = Pair::new(&options);
    let first = recorded.to_executor.pop_front().unwrap();
    recorded.executor.handle(recorded.now, first.clone());
    recorded.transmit();
    let second = recorded.to_harness.pop_front().unwrap();
    recorded.harness.handle(recorded.now, second);
    recorded.transmit();
    let record = recorded.to_executor.pop_front().unwrap();
    // The same executor key, another ephemeral: as after any restart, or any second dial.
    let mut victim = Pair::new(&options);
    let link = Link::answer(
        victim.now,
        Arc::new({
            let mut rng = Seeded(options.seed);
            StaticKeypair::generate(&mut rng).unwrap();
            StaticKeypair::generate(&mut rng).unwrap()
        }),
        &harness_preamble(harness_key(&options)),
        LinkOptions::direct(),
        &mut Seeded(77),
    )
    .unwrap();
    victim.executor = End::new(link);
    victim.executor.handle(victim.now, first);
    assert_eq!(
        victim.executor.events.len(),
        1,
        "message 1 is genuine, so it asks for a verdict"
    );
    victim.transmit();
    victim.executor.handle(victim.now, record);
    assert!(matches!(victim.executor.error, Some(LinkError::Record(_))));
    assert!(!victim.executor.is_established());
}

fn harness_key(options: &PairOptions) -> PublicKey {
    let mut rng = Seeded(options.seed);
    StaticKeypair::generate(&mut rng).unwrap();
    StaticKeypair::generate(&mut rng).unwrap().public()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let write = |seed| {
        let mut pair = Pair::new(&PairOptions {
            seed,
            ..PairOptions::default()
        });
        pair.to_executor.pop_front().unwrap().payload
    };
    assert_eq!(write(5), write(5));
    assert_ne!(write(5), write(6));
}

#[test]
fn frames_of_the_wrong_moment_are_fatal() {
    let frame_of = |kind: OuterKind, length: usize| {
        let mut out = BytesMut::new();
        encode_outer(&mut out, kind, STREAM, 0, &vec![0; length]);
        frames_of(out).remove(0)
    };
    // A record before the handshake is over.
    for end in [true, false] {
        let mut pair = Pair::new(&PairOptions::default());
        let now = pair.now;
        let end = if end {
            &mut pair.harness
        } else {
            &mut pair.executor
        };
        end.handle(now, frame_of(OuterKind::Data, 100));
        assert!(matches!(end.error, Some(LinkError::UnexpectedFrame { .. })));
    }
    // A handshake message, an open or a registration after it.
    for (kind, length) in [
        (OuterKind::Handshake, 100),
        (OuterKind::Open, 200),
        (OuterKind::Registered, 2),
    ] {
        let mut pair = Pair::up(&PairOptions::default());
        pair.executor.handle(pair.now, frame_of(kind, length));
        assert!(
            matches!(pair.executor.error, Some(LinkError::UnexpectedFrame { .. })),
            "{kind:?}"
        );
        pair.harness.handle(pair.now, frame_of(kind, length));
        assert!(
            matches!(pair.harness.error, Some(LinkError::UnexpectedFrame { .. })),
            "{kind:?}"
        );
    }
}

#[test]
fn a_verdict_nobody_asked_for_is_an_error() {
    let mut pair = Pair::up(&PairOptions::default());
    assert!(matches!(
        pair.harness.link.welcome(b""),
        Err(LinkError::NoVerdictNeeded)
    ));
}

fn registration_preamble(executor: &StaticKeypair) -> Preamble {
    Preamble::new(Dialer::Executor, executor.public(), STREAM, b"").unwrap()
}

fn first_frame(bytes: &[u8]) -> dwell_relay::OuterFrame {
    let mut decoder = PreambleDecoder::new();
    decoder.feed(BytesMut::from(bytes));
    decoder.decode().unwrap().unwrap();
    drain(&mut decoder.into_frames()).remove(0)
}

#[test]
fn a_registration_proves_the_named_key() {
    let (executor, relay) = (keypair(11), keypair(12));
    let preamble = registration_preamble(&executor);
    let (waiting, bytes) = Registrant::start(&executor, &preamble, b"", &mut Seeded(13)).unwrap();
    let (proof, answer) =
        Registrar::read_first(&relay, &preamble, &first_frame(&bytes).payload, &mut Seeded(14)).unwrap();
    let mut out = BytesMut::new();
    encode_outer(&mut out, OuterKind::Handshake, STREAM, 0, &answer);
    let (waiting, bytes) = waiting.handle_frame(&frames_of(out)[0]).unwrap();
    let third = frames_of(BytesMut::from(&bytes[..])).remove(0);
    assert_eq!(proof.read(&third.payload).unwrap().key(), executor.public());
    let mut out = BytesMut::new();
    encode_outer(&mut out, OuterKind::Registered, STREAM, 0, &1_u16.to_be_bytes());
    let registered = waiting.handle_frame(&frames_of(out)[0]).unwrap();
    assert_eq!(registered.relay, relay.public());
    assert_eq!(registered.version, 1);
}

#[test]
fn a_registration_under_another_ones_name_is_not_proven() {
    let (thief, owner, relay) = (keypair(21), keypair(22), keypair(23));
    let preamble = registration_preamble(&owner);
    let (waiting, bytes) = Registrant::start(&thief, &preamble, b"", &mut Seeded(13)).unwrap();
    let (proof, answer) =
        Registrar::read_first(&relay, &preamble, &first_frame(&bytes).payload, &mut Seeded(14)).unwrap();
    let mut out = BytesMut::new();
    encode_outer(&mut out, OuterKind::Handshake, STREAM, 0, &answer);
    let (_, bytes) = waiting.handle_frame(&frames_of(out)[0]).unwrap();
    let third = frames_of(BytesMut::from(&bytes[..])).remove(0);
    assert!(matches!(
        proof.read(&third.payload),
        Err(RegistrationError::OtherKey { .. })
    ));
}

#[test]
fn every_flipped_bit_of_a_registration_proof_is_rejected() {
    let (executor, relay) = (keypair(11), keypair(12));
    let preamble = registration_preamble(&executor);
    let run = |flip: Option<usize>| {
        let (waiting, bytes) = Registrant::start(&executor, &preamble, b"", &mut Seeded(13)).unwrap();
        let (proof, answer) =
            Registrar::read_first(&relay, &preamble, &first_frame(&bytes).payload, &mut Seeded(14)).unwrap();
        let mut out = BytesMut::new();
        encode_outer(&mut out, OuterKind::Handshake, STREAM, 0, &answer);
        let (_, bytes) = waiting.handle_frame(&frames_of(out)[0]).unwrap();
        let mut third = frames_of(BytesMut::from(&bytes[..])).remove(0);
        if let Some(bit) = flip.filter(|bit| *bit < third.payload.len() * 8) {
            third.payload[bit / 8] ^= 1 << (bit % 8);
        }
        proof.read(&third.payload).is_ok()
    };
    assert!(run(None), "positive control");
    for bit in 0..(32 + 16 + 16) * 8 {
        assert!(!run(Some(bit)), "bit {bit}");
    }
}

#[test]
fn a_refused_registration_says_why() {
    let executor = keypair(11);
    let (waiting, _) =
        Registrant::start(&executor, &registration_preamble(&executor), b"", &mut Seeded(13)).unwrap();
    let mut payload = BytesMut::new();
    Refusal::ours(RefusalReason::Registration, "no").encode(&mut payload);
    let mut out = BytesMut::new();
    encode_outer(&mut out, OuterKind::Refused, STREAM, 0, &payload);
    let error = waiting.handle_frame(&frames_of(out)[0]).unwrap_err();
    assert!(matches!(error, RegistrationError::Refused(_)), "{error}");
}

#[test]
fn an_authorization_event_names_the_proven_client() {
    let mut pair = Pair::new(&PairOptions {
        hello: b"since 12".to_vec(),
        ..PairOptions::default()
    });
    pair.drive();
    let client = StaticKeypair::generate(&mut Seeded(1)).unwrap().public();
    let asked = pair.executor.events.iter().any(|event| {
        matches!(event, LinkEvent::AuthorizationNeeded { client: who, hello, .. }
            if *who == client && hello == &b"since 12"[..])
    });
    assert!(asked);
}
