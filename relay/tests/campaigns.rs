//! Campaigns against handshakes and records: every bit, every order, every other place. All of it is rejected, by the error
//! that it is.
//!
//! `DWELL_SOAK=1` makes the random one ten times as long.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "seeds are for whoever repeats a failure")]

mod support;

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use dwell_messages::StreamId;
use dwell_messages::kinds::OuterKind;
use dwell_relay::record::RecordError;
use dwell_relay::{
    Dialer, Lane, Link, LinkError, LinkOptions, OuterFrame, Preamble, Reset, ResetCode, StaticKeypair,
    encode_outer,
};

use support::{End, Pair, PairOptions, STREAM, Seeded, drain, frames_of, keypair, message};

/// Which end a record is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum To {
    Harness,
    Executor,
}

fn is_soak() -> bool {
    std::env::var_os("DWELL_SOAK").is_some_and(|value| value == "1")
}

/// A seed from the environment, or one that is printed.
fn seed() -> u64 {
    let given = std::env::var("DWELL_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let mut bytes = [0; 8];
        dwell_relay::Randomness::fill(&mut dwell_relay::OsRandomness::new(), &mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    });
    println!("DWELL_SEED={seed}");
    seed
}

/// The next record for one end, with so much in it.
fn record(pair: &mut Pair, to: To, bytes: usize) -> OuterFrame {
    let now = pair.now;
    let from = match to {
        To::Harness => &mut pair.executor,
        To::Executor => &mut pair.harness,
    };
    from.link
        .enqueue(message(Lane::Control, 1, vec![0x5a; bytes]))
        .unwrap();
    frames_of(from.transmit(now, usize::MAX)).remove(0)
}

fn deliver(pair: &mut Pair, to: To, frame: OuterFrame) {
    let now = pair.now;
    match to {
        To::Harness => pair.harness.handle(now, frame),
        To::Executor => pair.executor.handle(now, frame),
    }
}

fn end(pair: &mut Pair, to: To) -> &mut End {
    match to {
        To::Harness => &mut pair.harness,
        To::Executor => &mut pair.executor,
    }
}

/// The link is over for a seal that does not hold, at this record; nothing of the record came through, and the peer gets a
/// reset that says no more than that.
fn assert_bad_seal(pair: &mut Pair, to: To, received: usize, at: u64, name: &str) {
    let now = pair.now;
    let end = end(pair, to);
    match end.error {
        Some(LinkError::Record(RecordError::BadSeal { record })) => assert_eq!(record, at, "{name}"),
        ref other => panic!("{name}: {other:?}"),
    }
    assert!(end.link.is_over(), "{name}");
    assert_eq!(end.received.len(), received, "{name}");
    let last = frames_of(end.transmit(now, usize::MAX));
    assert_eq!(last.len(), 1, "{name}");
    assert_eq!(
        Reset::decode(&last[0].payload).unwrap(),
        Reset::new(ResetCode::Protocol),
        "{name}"
    );
}

fn flip(frame: &mut OuterFrame, bit: usize) {
    frame.payload[bit / 8] ^= 1 << (bit % 8);
}

/// Records opened before: the harness's first one is the confirmation.
fn opened_before(to: To) -> u64 {
    match to {
        To::Harness => 0,
        To::Executor => 1,
    }
}

#[test]
fn every_bit_of_twenty_short_records_is_a_bad_seal() {
    for to in [To::Harness, To::Executor] {
        for number in 0..10 {
            // The same seed makes the same records, so each bit has a link of its own.
            let lead = |pair: &mut Pair| {
                for before in 0..number {
                    let good = record(pair, to, 1 + before);
                    deliver(pair, to, good);
                }
                record(pair, to, 1 + number)
            };
            let mut pair = Pair::up(&PairOptions::default());
            let template = lead(&mut pair);
            deliver(&mut pair, to, template.clone());
            assert_eq!(end(&mut pair, to).received.len(), number + 1, "positive control");
            for bit in 0..template.payload.len() * 8 {
                let mut pair = Pair::up(&PairOptions::default());
                let mut changed = lead(&mut pair);
                assert_eq!(changed, template);
                flip(&mut changed, bit);
                deliver(&mut pair, to, changed);
                let at = opened_before(to) + number as u64;
                assert_bad_seal(
                    &mut pair,
                    to,
                    number,
                    at,
                    &format!("{to:?}, record {number}, bit {bit}"),
                );
            }
        }
    }
}

#[test]
fn a_random_bit_of_each_of_many_records_is_a_bad_seal() {
    let seed = seed();
    let mut dice = Seeded(seed);
    for round in 0..if is_soak() { 10_000 } else { 1_000 } {
        let mut below = |limit: u64| usize::try_from(dice.next() % limit).unwrap();
        let to = if below(2) == 0 { To::Harness } else { To::Executor };
        let mut pair = Pair::up(&PairOptions::default());
        let before = below(4);
        for _ in 0..before {
            let good = record(&mut pair, to, 1 + below(100));
            deliver(&mut pair, to, good);
        }
        let mut changed = record(&mut pair, to, 1 + below(8_000));
        let bit = below(8 * changed.payload.len() as u64);
        flip(&mut changed, bit);
        deliver(&mut pair, to, changed);
        let at = opened_before(to) + before as u64;
        assert_bad_seal(&mut pair, to, before, at, &format!("round {round}, bit {bit}"));
    }
}

/// Message 1 as it left the harness, and a fresh executor that waits for it.
fn asked() -> (Pair, OuterFrame) {
    let mut pair = Pair::new(&PairOptions::default());
    let first = pair.to_executor.pop_front().unwrap();
    (pair, first)
}

/// C-02, C-03, seen from the wire: whatever is wrong with message 1, the answer is the same, and nobody is asked about.
#[test]
fn every_bit_and_every_length_of_message_1_is_answered_like_garbage() {
    let garbage = {
        let (mut pair, mut first) = asked();
        first.payload.iter_mut().for_each(|byte| *byte = 0x5a);
        pair.executor.handle(pair.now, first);
        pair.executor.transmit(pair.now, usize::MAX)
    };
    let (mut pair, first) = asked();
    pair.executor.handle(pair.now, first.clone());
    assert_eq!(
        pair.executor.events.len(),
        1,
        "positive control: it asks about its client"
    );
    let length = first.payload.len();
    let refused = |change: &dyn Fn(&mut BytesMut), name: &str| {
        let (mut pair, mut first) = asked();
        change(&mut first.payload);
        pair.executor.handle(pair.now, first);
        assert!(
            matches!(
                pair.executor.error,
                Some(LinkError::Handshake(_) | LinkError::Frame(_))
            ),
            "{name}: {:?}",
            pair.executor.error
        );
        assert!(pair.executor.events.is_empty(), "{name}");
        assert_eq!(pair.executor.transmit(pair.now, usize::MAX), garbage, "{name}");
    };
    for bit in 0..8 * length {
        refused(&|bytes| bytes[bit / 8] ^= 1 << (bit % 8), &format!("bit {bit}"));
    }
    for shorter in 0..length {
        refused(&|bytes| bytes.truncate(shorter), &format!("{shorter} bytes"));
    }
    refused(&|bytes| bytes.extend_from_slice(&[0]), "one byte more");
}

/// C-02, C-03: and message 2 ends the dial, with the harness having said nothing else.
#[test]
fn every_bit_and_every_length_of_message_2_ends_the_dial() {
    let answered = || {
        let (mut pair, first) = asked();
        pair.executor.handle(pair.now, first);
        pair.transmit();
        let second = pair.to_harness.pop_front().unwrap();
        (pair, second)
    };
    let length = answered().1.payload.len();
    let refused = |change: &dyn Fn(&mut BytesMut), name: &str| {
        let (mut pair, mut second) = answered();
        change(&mut second.payload);
        pair.harness.handle(pair.now, second);
        assert!(
            matches!(
                pair.harness.error,
                Some(LinkError::Handshake(_) | LinkError::Frame(_))
            ),
            "{name}: {:?}",
            pair.harness.error
        );
        assert!(
            pair.harness.link.is_over() && !pair.harness.is_established(),
            "{name}"
        );
        let last = frames_of(pair.harness.transmit(pair.now, usize::MAX));
        assert!(
            last.iter().all(|frame| frame.kind == OuterKind::Reset),
            "{name}: {last:?}"
        );
    };
    for bit in 0..8 * length {
        refused(&|bytes| bytes[bit / 8] ^= 1 << (bit % 8), &format!("bit {bit}"));
    }
    for shorter in 0..length {
        refused(&|bytes| bytes.truncate(shorter), &format!("{shorter} bytes"));
    }
    refused(&|bytes| bytes.extend_from_slice(&[0]), "one byte more");
    let (mut pair, second) = answered();
    pair.harness.handle(pair.now, second);
    assert!(pair.harness.is_established(), "positive control");
}

/// C-09: a thousand tries at a record do not move the count that the real one needs, and do not leave the link open.
#[test]
fn a_thousand_garbage_records_and_then_the_real_one_open_nothing() {
    let mut pair = Pair::up(&PairOptions::default());
    let real = record(&mut pair, To::Harness, 40);
    for number in 0..1_000_u32 {
        let mut garbage = real.clone();
        let mut bytes = Seeded(u64::from(number));
        garbage
            .payload
            .iter_mut()
            .for_each(|byte| *byte = u8::try_from(bytes.next() & 0xff).unwrap());
        deliver(&mut pair, To::Harness, garbage);
    }
    deliver(&mut pair, To::Harness, real);
    assert_bad_seal(&mut pair, To::Harness, 0, 0, "after a thousand");
}

/// Two links of the same two ends at once, under stream ids of their own.
fn links(client: &StaticKeypair, server: &Arc<StaticKeypair>, stream: u8) -> Pair {
    let preamble = Preamble::new(Dialer::Harness, server.public(), StreamId([stream; 16]), &[]).unwrap();
    let (now, mut rng) = (Instant::now(), Seeded(u64::from(stream)));
    let options = LinkOptions::direct();
    let harness = Link::dial(now, client, &preamble, &[], b"hello", options, &mut rng).unwrap();
    let executor = Link::answer(now, Arc::clone(server), &preamble, options, &mut rng).unwrap();
    let mut pair = Pair::new(&PairOptions::default());
    (pair.harness, pair.executor) = (End::new(harness), End::new(executor));
    pair.to_executor.clear();
    let mut opening = dwell_relay::PreambleDecoder::new();
    opening.feed(pair.harness.transmit(now, usize::MAX));
    opening.decode().unwrap().unwrap();
    pair.to_executor.extend(drain(&mut opening.into_frames()));
    pair.drive();
    assert!(pair.harness.is_established() && pair.executor.is_established());
    pair
}

/// C-07: the very same two ends, and still a record opens on its own stream and in its own direction only.
#[test]
fn a_record_of_another_stream_or_of_the_other_direction_does_not_open() {
    let (client, server) = (keypair(1), Arc::new(keypair(2)));
    for to in [To::Harness, To::Executor] {
        for relabelled in [true, false] {
            let (mut one, mut two) = (links(&client, &server, 1), links(&client, &server, 2));
            let mut foreign = record(&mut one, to, 10);
            if relabelled {
                foreign.stream = two.harness.link.stream();
                deliver(&mut two, to, foreign);
                assert_bad_seal(&mut two, to, 0, opened_before(to), "spliced");
            } else {
                deliver(&mut two, to, foreign);
                let error = end(&mut two, to).error.take();
                assert!(matches!(error, Some(LinkError::WrongStream { .. })), "{error:?}");
            }
        }
        let mut pair = links(&client, &server, 3);
        let own = record(&mut pair, to, 10);
        let back = match to {
            To::Harness => To::Executor,
            To::Executor => To::Harness,
        };
        deliver(&mut pair, back, own);
        assert_bad_seal(&mut pair, back, 0, opened_before(back), "reflected");
    }
}

/// C-08: message 1 of one stream under the id of another, or for another key, or from another role.
#[test]
fn message_1_holds_for_its_own_preamble_only() {
    let (mut pair, first) = asked();
    let server = Arc::new({
        let mut rng = Seeded(PairOptions::default().seed);
        StaticKeypair::generate(&mut rng).unwrap();
        StaticKeypair::generate(&mut rng).unwrap()
    });
    let own = Preamble::new(Dialer::Harness, server.public(), STREAM, &[]).unwrap();
    let answer = |preamble: &Preamble| {
        Link::answer(
            pair.now,
            Arc::clone(&server),
            preamble,
            LinkOptions::direct(),
            &mut Seeded(5),
        )
        .unwrap()
    };
    let other_stream = Preamble {
        stream: StreamId([9; 16]),
        ..own
    };
    let other_key = Preamble {
        executor: keypair(77).public(),
        ..own
    };
    let other_role = Preamble {
        dialer: Dialer::Executor,
        ..own
    };
    for preamble in [other_stream, other_key, other_role] {
        let mut end = End::new(answer(&preamble));
        let relabelled = OuterFrame {
            stream: preamble.stream,
            ..first.clone()
        };
        end.handle(pair.now, relabelled);
        assert!(
            matches!(end.error, Some(LinkError::Handshake(_))),
            "{preamble:?}: {:?}",
            end.error
        );
        assert!(end.events.is_empty());
    }
    let mut positive = End::new(answer(&own));
    positive.handle(pair.now, first.clone());
    assert_eq!(positive.events.len(), 1, "positive control");
    pair.executor.handle(pair.now, first);
}

/// C-12: whoever changes the offer on the way gets no link: what is left over is refused, or does not verify.
#[test]
fn a_changed_offer_makes_no_link() {
    let own = support::harness_preamble(keypair(2).public());
    let offers = [(0, 0), (0, 1), (1, 2), (2, 9), (9, 9), (u16::MAX, u16::MAX)];
    let versions = offers.map(|(version_min, version_max)| Preamble {
        version_min,
        version_max,
        ..own
    });
    let suites = [0, 2, u16::MAX].map(|suite| Preamble { suite, ..own });
    let (client, server) = (keypair(1), Arc::new(keypair(2)));
    for changed in versions.into_iter().chain(suites) {
        let mut rng = Seeded(3);
        let now = Instant::now();
        let options = LinkOptions::direct();
        let mut dialled = Link::<u32>::dial(now, &client, &own, &[], b"hello", options, &mut rng).unwrap();
        let mut out = BytesMut::new();
        drop(dialled.poll_transmit(now, &mut out, usize::MAX).unwrap());
        let first = frames_of(out.split_off(64)).remove(0);
        match Link::answer(now, Arc::clone(&server), &changed, options, &mut rng) {
            Err(LinkError::Refused(_)) => {}
            Err(error) => panic!("{changed:?}: {error:?}"),
            Ok(link) => {
                let mut end = End::new(link);
                end.handle(now, first);
                assert!(
                    matches!(end.error, Some(LinkError::Handshake(_))),
                    "{changed:?}: {:?}",
                    end.error
                );
                assert!(end.events.is_empty(), "{changed:?}");
            }
        }
    }
}

/// C-21: what is in the clear where a record belongs is no record.
#[test]
fn clear_bytes_in_the_place_of_a_record_open_nothing() {
    let sealed = {
        let mut pair = Pair::up(&PairOptions::default());
        record(&mut pair, To::Executor, 30)
    };
    let mut out = BytesMut::new();
    // A chunk as it would lie in the seal, with room for a tag.
    let clear = [&[0, 0, 0, 1, 0x03, 0, 23][..], &[0x5a; 23], &[0; 16]].concat();
    encode_outer(&mut out, OuterKind::Data, STREAM, 0, &clear);
    let clear = frames_of(out).remove(0);
    // Before the handshake, between its messages, and when it is over.
    let (mut pair, first) = asked();
    pair.executor.handle(pair.now, clear.clone());
    assert!(matches!(
        pair.executor.error,
        Some(LinkError::UnexpectedFrame { .. })
    ));
    let (mut between, _) = asked();
    between.executor.handle(between.now, first);
    between.executor.handle(between.now, clear.clone());
    assert!(between.executor.error.is_some() && between.executor.received.is_empty());
    assert!(!between.executor.is_established());
    let mut pair = Pair::up(&PairOptions::default());
    deliver(&mut pair, To::Executor, clear);
    assert_bad_seal(&mut pair, To::Executor, 0, 1, "in the clear");
    let mut pair = Pair::up(&PairOptions::default());
    deliver(&mut pair, To::Executor, sealed);
    assert_eq!(pair.executor.received.len(), 1, "positive control");
}
