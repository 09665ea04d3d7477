//! Fresh keys while messages go on: at pathological limits, by age, unanswered, tampered with.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use dwell_messages::kinds::OuterKind;
use dwell_relay::chunk::ChunkError;
use dwell_relay::handshake::{Established, Responder};
use dwell_relay::link::{KEY_AGE_MAX, RENEW_AFTER, RenewAfter, RenewalError};
use dwell_relay::record::RecordError;
use dwell_relay::{Lane, Link, LinkError, LinkOptions, OuterFrame, ResetCode, encode_outer};

use support::{Pair, PairOptions, Seeded, frames_of, is_data, message, pattern};

fn renewing(records: u64, bytes: u64) -> LinkOptions {
    LinkOptions {
        renew_after: RenewAfter {
            records,
            bytes,
            age: RENEW_AFTER,
        },
        ..LinkOptions::direct()
    }
}

/// Only the end that dialled begins, so only its limits count.
fn pair(harness: LinkOptions) -> Pair {
    let mut pair = Pair::up(&PairOptions {
        harness,
        executor: LinkOptions::direct(),
        ..PairOptions::default()
    });
    pair.executor.events.clear();
    pair
}

fn renewals(pair: &Pair) -> [u64; 2] {
    [pair.harness.link.renewals(), pair.executor.link.renewals()]
}

/// Sends messages of all lanes and sizes both ways, and expects every one of them once and in its order.
fn carries_everything(pair: &mut Pair, rounds: u32) {
    let mut dice = Seeded(3);
    let mut sent = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for (end, sent) in sent.iter_mut().enumerate() {
            let lane = Lane::ALL[(dice.next() % 6) as usize];
            let longest = if round.is_multiple_of(10) { 90_000 } else { 300 };
            let bytes = pattern((dice.next() % longest + 1) as usize, u64::from(round));
            sent.push((lane, bytes.clone()));
            let end = if end == 0 {
                &mut pair.harness
            } else {
                &mut pair.executor
            };
            end.link.enqueue(message(lane, 1, bytes)).unwrap();
        }
        if round.is_multiple_of(3) {
            pair.drive();
        } else {
            pair.transmit();
        }
    }
    pair.drive();
    assert!(pair.harness.error.is_none() && pair.executor.error.is_none());
    for (sent, received) in sent.iter().zip([&pair.executor.received, &pair.harness.received]) {
        assert_eq!(received.len(), sent.len());
        for lane in Lane::ALL {
            let sent: Vec<_> = sent
                .iter()
                .filter(|(of, _)| *of == lane)
                .map(|(_, bytes)| bytes)
                .collect();
            let received: Vec<_> = received
                .iter()
                .filter(|message| message.lane == lane)
                .map(|message| &message.bytes)
                .collect();
            assert_eq!(received, sent, "{lane:?}");
        }
    }
}

#[test]
fn renewals_at_every_record_carry_all_traffic() {
    let mut pair = pair(renewing(1, u64::MAX));
    carries_everything(&mut pair, 600);
    let [harness, executor] = renewals(&pair);
    assert_eq!(harness, executor);
    assert!(harness > 200, "{harness}");
}

#[test]
fn renewals_at_every_sixteen_bytes_carry_all_traffic() {
    let mut pair = pair(renewing(u64::MAX, 16));
    carries_everything(&mut pair, 600);
    assert!(renewals(&pair)[0] > 200);
}

#[test]
fn without_a_reached_limit_keys_stay() {
    let mut pair = pair(LinkOptions::direct());
    carries_everything(&mut pair, 600);
    assert_eq!(renewals(&pair), [0, 0]);
}

#[test]
fn an_idle_link_does_not_renew_its_keys_over_and_over() {
    let mut pair = pair(renewing(1, 1));
    carries_everything(&mut pair, 1);
    let before = renewals(&pair)[0];
    let sealed = pair.harness.records_sealed;
    for _ in 0..100 {
        pair.drive();
    }
    assert_eq!(
        (renewals(&pair)[0], pair.harness.records_sealed),
        (before, sealed)
    );
}

#[test]
fn keys_are_renewed_every_hour_and_traffic_goes_on_meanwhile() {
    let mut pair = pair(LinkOptions::direct());
    for hour in 1..=5 {
        assert!(!pair.harness.link.can_transmit());
        let due = pair.harness.link.poll_timeout().unwrap();
        assert!(due - pair.now <= RENEW_AFTER && due - pair.now > RENEW_AFTER - Duration::from_secs(1));
        pair.now = due;
        pair.harness.link.handle_timeout(pair.now).unwrap();
        pair.executor.link.handle_timeout(pair.now).unwrap();
        // Asked, and not yet answered: both sides go on under the old keys.
        let asked = pair.harness.transmit(pair.now, usize::MAX);
        for number in 0..5 {
            pair.harness
                .link
                .enqueue(message(Lane::Control, number, "there"))
                .unwrap();
            pair.executor
                .link
                .enqueue(message(Lane::Control, number, "back"))
                .unwrap();
            let [there, back] = [
                pair.harness.transmit(pair.now, usize::MAX),
                pair.executor.transmit(pair.now, usize::MAX),
            ];
            if number == 0 {
                pair.to_executor.extend(frames_of(asked.clone()));
            }
            pair.to_executor.extend(frames_of(there));
            pair.to_harness.extend(frames_of(back));
        }
        assert_eq!(renewals(&pair), [hour - 1, hour - 1]);
        pair.drive();
        assert_eq!(renewals(&pair), [hour, hour]);
        assert_eq!(pair.executor.received.len() as u64, 5 * hour);
        assert_eq!(pair.harness.received.len() as u64, 5 * hour);
    }
}

#[test]
fn limits_that_both_directions_reach_together_make_one_renewal() {
    let mut pair = pair(renewing(10, u64::MAX));
    for _ in 0..30 {
        pair.harness
            .link
            .enqueue(message(Lane::Control, 1, pattern(40_000, 1)))
            .unwrap();
        pair.executor
            .link
            .enqueue(message(Lane::Control, 1, pattern(40_000, 1)))
            .unwrap();
    }
    pair.transmit();
    pair.transmit();
    assert_eq!(renewals(&pair), [0, 0]);
    pair.drive();
    assert_eq!(renewals(&pair), [1, 1], "once for all that was under way");
    assert_eq!(
        [pair.harness.received.len(), pair.executor.received.len()],
        [30, 30]
    );
}

#[test]
fn keys_that_nobody_renews_end_the_link_at_both_ends() {
    let mut pair = pair(LinkOptions::direct());
    // The executor hears nothing of what is asked.
    pair.now += RENEW_AFTER;
    pair.harness.link.handle_timeout(pair.now).unwrap();
    drop(pair.harness.transmit(pair.now, usize::MAX));
    let due = pair.harness.link.poll_timeout().unwrap();
    assert!(
        due > pair.now + RENEW_AFTER - Duration::from_secs(1),
        "not asked twice"
    );
    pair.now = due.max(pair.executor.link.poll_timeout().unwrap());
    for end in [&mut pair.harness, &mut pair.executor] {
        assert!(matches!(
            end.link.handle_timeout(pair.now),
            Err(LinkError::KeysTooOld { age_seconds }) if age_seconds == KEY_AGE_MAX.as_secs()
        ));
        assert!(end.link.is_over() && end.link.poll_timeout().is_none());
    }
    let last = pair.harness.transmit(pair.now, usize::MAX);
    for frame in frames_of(last) {
        assert_eq!(frame.kind, OuterKind::Reset);
    }
}

#[test]
fn a_key_that_nobody_renews_ends_its_link_at_twice_its_records() {
    let mut options = renewing(10, u64::MAX);
    options.seal_limits.records_max = 20;
    let mut pair = pair(options);
    let mut sealed = 0;
    while pair.harness.error.is_none() {
        pair.harness.link.enqueue(message(Lane::Control, 1, "x")).unwrap();
        drop(pair.harness.transmit(pair.now, usize::MAX));
        sealed += 1;
        assert!(sealed < 100, "the hard limit holds");
    }
    assert!(matches!(
        pair.harness.error,
        Some(LinkError::Record(RecordError::Exhausted { records: 20, .. }))
    ));
}

/// The records of one renewal, one by one: what the end that dialled asks, the answer, and the closing.
#[test]
fn every_flipped_bit_of_a_renewal_is_fatal() {
    for step in 0..3 {
        let mut length = None;
        let mut bit = 0;
        while length.is_none_or(|length| bit < length * 8) {
            let mut pair = pair(renewing(2, u64::MAX));
            pair.harness.link.enqueue(message(Lane::Control, 1, "x")).unwrap();
            let mut flipped = false;
            let mut now = 0;
            while !flipped {
                let from_harness = now % 2 == 0;
                let end = if from_harness {
                    &mut pair.harness
                } else {
                    &mut pair.executor
                };
                let mut frames = frames_of(end.transmit(pair.now, usize::MAX));
                if now == step {
                    // A message may be before it in a record of its own.
                    let renewal = frames.last_mut().unwrap();
                    assert!(is_data(renewal));
                    length = Some(renewal.payload.len());
                    renewal.payload[bit / 8] ^= 1 << (bit % 8);
                    flipped = true;
                }
                for frame in frames {
                    let other = if from_harness {
                        &mut pair.executor
                    } else {
                        &mut pair.harness
                    };
                    other.handle(pair.now, frame);
                }
                now += 1;
            }
            let end = if step % 2 == 0 {
                &pair.executor
            } else {
                &pair.harness
            };
            assert!(
                matches!(end.error, Some(LinkError::Record(RecordError::BadSeal { .. })))
                    && end.link.is_over(),
                "step {step}, bit {bit}: {:?}",
                end.error
            );
            // Every byte, and each of its bits in turn.
            bit += 9;
        }
    }
    let mut untouched = pair(renewing(2, u64::MAX));
    untouched
        .harness
        .link
        .enqueue(message(Lane::Control, 1, "x"))
        .unwrap();
    untouched.drive();
    let [harness, executor] = renewals(&untouched);
    assert!(harness == executor && harness > 0, "positive control");
}

#[test]
fn a_record_of_an_old_key_does_not_open_under_the_next() {
    let mut pair = pair(renewing(2, u64::MAX));
    pair.harness.link.enqueue(message(Lane::Control, 1, "x")).unwrap();
    let before = renewals(&pair)[0];
    let asked = frames_of(pair.harness.transmit(pair.now, usize::MAX));
    pair.to_executor.extend(asked.clone());
    pair.drive();
    assert_eq!(renewals(&pair), [before + 1, before + 1]);
    pair.executor.handle(pair.now, asked[0].clone());
    assert!(matches!(
        pair.executor.error,
        Some(LinkError::Record(RecordError::BadSeal { record: 0 }))
    ));
    assert_eq!(pair.executor.received.len(), 1);
}

/// An executor that holds the keys and says what it likes.
struct Rogue {
    link: Link<u32>,
    keys: Established,
    now: std::time::Instant,
}

impl Rogue {
    fn new() -> Self {
        let executor = support::keypair(2);
        let preamble = support::harness_preamble(executor.public());
        let now = std::time::Instant::now();
        let mut link = Link::dial(
            now,
            &support::keypair(1),
            &preamble,
            &[],
            b"",
            renewing(1, u64::MAX),
            &mut Seeded(1),
        )
        .unwrap();
        let mut out = BytesMut::new();
        let _ = link.poll_transmit(now, &mut out, usize::MAX).unwrap();
        let first = frames_of(out.split_off(64)).remove(0);
        let verdict =
            Responder::read_hello(&executor, &preamble.encode(), 1, &first.payload, &mut Seeded(2)).unwrap();
        let (keys, second) = verdict.welcome(b"").unwrap();
        let mut out = BytesMut::new();
        encode_outer(&mut out, OuterKind::Handshake, support::STREAM, 0, &second);
        link.handle_frame(now, frames_of(out).remove(0)).unwrap();
        Self { link, keys, now }
    }

    /// The harness asks for fresh keys.
    fn asks(&mut self) {
        for _ in 0..2 {
            let mut out = BytesMut::new();
            let _ = self.link.poll_transmit(self.now, &mut out, usize::MAX).unwrap();
        }
    }

    fn says(&mut self, plaintext: &[u8]) -> Result<(), LinkError> {
        let mut record = BytesMut::from(plaintext);
        self.keys.sealer.seal_in_place(&mut record, 0).unwrap();
        let frame = OuterFrame {
            kind: OuterKind::Data,
            stream: support::STREAM,
            stamp_us: 0,
            payload: record,
        };
        self.link.handle_frame(self.now, frame)
    }
}

fn own(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut chunk = vec![0, 0, 0, kind, 0b0111_0011, 0, u8::try_from(bytes.len()).unwrap()];
    chunk.extend(bytes);
    chunk
}

#[test]
fn a_peer_that_renews_out_of_turn_or_with_another_key_ends_the_link() {
    let out_of_turn = |outcome| match outcome {
        Err(LinkError::Renewal(RenewalError::OutOfTurn { .. })) => {}
        other => panic!("{other:?}"),
    };
    out_of_turn(Rogue::new().says(&own(3, &[1; 96])));
    out_of_turn(Rogue::new().says(&own(4, &[1; 48])));
    out_of_turn(Rogue::new().says(&own(5, &1_u64.to_be_bytes())));
    let mut rogue = Rogue::new();
    rogue.asks();
    out_of_turn(rogue.says(&own(5, &1_u64.to_be_bytes())));

    // It was asked, and answers with something else than an answer to that.
    let mut rogue = Rogue::new();
    rogue.asks();
    let outcome = rogue.says(&own(4, &[1; 48]));
    assert!(
        matches!(outcome, Err(LinkError::Renewal(RenewalError::Handshake(_)))),
        "{outcome:?}"
    );
    assert!(rogue.link.is_over());
    let mut rogue = Rogue::new();
    rogue.asks();
    let behind = [own(4, &[1; 48]), own(2, &[0; 8])].concat();
    assert!(matches!(
        rogue.says(&behind),
        Err(LinkError::Chunk(ChunkError::BehindTheKey))
    ));
    let mut rogue = Rogue::new();
    rogue.asks();
    assert!(rogue.says(&own(2, &[0; 8])).is_ok(), "positive control");
}

#[test]
fn an_unanswered_renewal_costs_a_lost_link_and_the_next_one_has_keys_of_its_own() {
    let mut first = pair(renewing(1, u64::MAX));
    first
        .harness
        .link
        .enqueue(message(Lane::Control, 1, "x"))
        .unwrap();
    let asked = frames_of(first.harness.transmit(first.now, usize::MAX));
    drop(first);
    let mut next = pair(renewing(1, u64::MAX));
    for frame in asked {
        next.executor.handle(next.now, frame);
    }
    assert!(matches!(
        next.executor.error,
        Some(LinkError::Record(RecordError::BadSeal { .. }))
    ));
    assert_eq!(next.executor.link.renewals(), renewals(&next)[0]);
}

#[test]
fn the_end_that_fails_says_so() {
    let mut options = renewing(10, u64::MAX);
    options.key_age_max = Duration::from_secs(60);
    let mut pair = pair(options);
    pair.now += Duration::from_secs(60);
    assert!(pair.harness.link.handle_timeout(pair.now).is_err());
    pair.drive();
    assert_eq!(pair.executor.closed_code(), Some(ResetCode::Exhausted));
}
