//! Links: packing, cutting, priorities, fairness, windows and their ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use dwell_messages::kinds::OuterKind;
use dwell_relay::chunk::ChunkError;
use dwell_relay::lanes::{LANE_QUEUE_MAX_BYTES, MESSAGE_MAX_BYTES};
use dwell_relay::link::SEND_WINDOW_INITIAL_BYTES;
use dwell_relay::record::RecordError;
use dwell_relay::{
    EnqueueProblem, Lane, LinkError, LinkOptions, OuterDecoder, OuterFrame, REASSEMBLY_MAX_BYTES, Reset,
    ResetCode, TrailerStamps, encode_outer,
};
use proptest::collection::vec;
use proptest::prelude::*;

use support::{Pair, PairOptions, frames_of, message, pattern};

#[test]
fn a_message_queued_before_the_handshake_arrives_behind_it() {
    let mut pair = Pair::new(&PairOptions::default());
    pair.harness
        .link
        .enqueue(message(Lane::Control, 1, "run"))
        .unwrap();
    pair.drive();
    assert_eq!(pair.executor.received[0].bytes, "run");
    assert_eq!(pair.harness.finished, [1]);
    assert_eq!(pair.harness.records_sealed, 1, "the message is the confirmation");
}

#[test]
fn a_hundred_small_messages_share_one_record() {
    let mut pair = Pair::up(&PairOptions::default());
    let before = pair.harness.records_sealed;
    for channel in 0..100 {
        pair.harness
            .link
            .enqueue(message(Lane::Control, channel, vec![channel as u8; 140]))
            .unwrap();
    }
    pair.drive();
    assert_eq!(pair.harness.records_sealed - before, 1);
    assert_eq!(pair.executor.received.len(), 100);
    assert_eq!(pair.harness.finished.len(), 100);
}

#[test]
fn a_mebibyte_is_cut_over_records_and_put_together_again() {
    let mut pair = Pair::up(&PairOptions::default());
    let before = pair.executor.records_sealed;
    let bytes = pattern(1024 * 1024, 3);
    pair.executor
        .link
        .enqueue(message(Lane::Bulk, 9, bytes.clone()))
        .unwrap();
    pair.drive();
    let received = &pair.harness.received[0];
    assert_eq!(received.bytes, bytes);
    assert_eq!(received.records, 33);
    assert_eq!(pair.executor.records_sealed - before, 33);
}

/// Everything that one end would write, record by record, in order.
fn first_lanes_after(pair: &mut Pair, records: usize) -> Vec<Lane> {
    let mut frames = Vec::new();
    while frames.len() < records && pair.executor.link.can_transmit() {
        frames.extend(frames_of(pair.executor.transmit(pair.now, 1)));
    }
    for frame in frames {
        pair.harness.handle(pair.now, frame);
    }
    pair.harness.received.iter().map(|message| message.lane).collect()
}

#[test]
fn at_most_one_record_waits_before_a_control_message() {
    let mut pair = Pair::up(&PairOptions::default());
    for channel in 0..10 {
        pair.executor
            .link
            .enqueue(message(Lane::Bulk, channel, pattern(1024 * 1024, 1)))
            .unwrap();
    }
    // One write is on its way when the control message comes; the next record carries it.
    let begun = pair.executor.transmit(pair.now, 32 * 1024);
    pair.executor
        .link
        .enqueue(message(Lane::Control, 1, "stop"))
        .unwrap();
    let next = pair.executor.transmit(pair.now, 32 * 1024);
    for frame in frames_of(begun) {
        pair.harness.handle(pair.now, frame);
    }
    assert!(pair.harness.received.is_empty());
    let next = frames_of(next);
    pair.harness.handle(pair.now, next[0].clone());
    assert_eq!(pair.harness.received[0].bytes, "stop");
}

#[test]
fn lanes_leave_in_the_order_of_their_priority() {
    let mut pair = Pair::up(&PairOptions::default());
    for lane in Lane::ALL.into_iter().rev() {
        pair.executor.link.enqueue(message(lane, 1, "x")).unwrap();
    }
    assert_eq!(first_lanes_after(&mut pair, 1), Lane::ALL);
}

#[test]
fn an_unfinished_urgent_message_lets_nothing_lower_into_its_record() {
    let mut pair = Pair::up(&PairOptions::default());
    pair.executor
        .link
        .enqueue(message(Lane::Bulk, 1, "later"))
        .unwrap();
    pair.executor
        .link
        .enqueue(message(Lane::Control, 1, pattern(100_000, 1)))
        .unwrap();
    assert_eq!(first_lanes_after(&mut pair, 1000), [Lane::Control, Lane::Bulk]);
}

#[test]
fn a_gap_too_small_for_an_urgent_message_is_not_given_to_a_lower_one() {
    let mut pair = Pair::up(&PairOptions::default());
    let link = &mut pair.executor.link;
    // The first leaves 100 bytes of its record, the second needs more, the third would fit.
    link.enqueue(message(Lane::Control, 1, pattern(32 * 1024 - 107, 1)))
        .unwrap();
    link.enqueue(message(Lane::Control, 1, pattern(1000, 1))).unwrap();
    link.enqueue(message(Lane::Bulk, 1, "fits")).unwrap();
    let records = frames_of(pair.executor.transmit(pair.now, usize::MAX));
    assert_eq!(records.len(), 2);
    pair.harness.handle(pair.now, records[0].clone());
    assert_eq!(pair.harness.received.len(), 1);
    pair.harness.handle(pair.now, records[1].clone());
    let lanes: Vec<Lane> = pair.harness.received.iter().map(|message| message.lane).collect();
    assert_eq!(lanes, [Lane::Control, Lane::Control, Lane::Bulk]);
}

#[test]
fn bulk_channels_take_turns_of_a_record_and_a_late_one_is_not_starved() {
    let mut pair = Pair::up(&PairOptions::default());
    for channel in [1, 2, 3] {
        pair.executor
            .link
            .enqueue(message(Lane::Bulk, channel, pattern(320_000, u64::from(channel))))
            .unwrap();
    }
    let first = frames_of(pair.executor.transmit(pair.now, 3 * 33_000));
    pair.executor
        .link
        .enqueue(message(Lane::Bulk, 4, "small"))
        .unwrap();
    let second = frames_of(pair.executor.transmit(pair.now, 4 * 33_000));
    for frame in first.into_iter().chain(second) {
        pair.harness.handle(pair.now, frame);
    }
    assert_eq!(pair.harness.received.len(), 1, "within one round of the others");
    assert_eq!(pair.harness.received[0].channel, 4);
    pair.drive();
    let mut order: Vec<u32> = pair
        .harness
        .received
        .iter()
        .map(|message| message.channel)
        .collect();
    order.sort_unstable();
    assert_eq!(order, [1, 2, 3, 4]);
}

#[test]
fn one_channel_keeps_its_order_over_ten_thousand_messages() {
    let mut pair = Pair::up(&PairOptions::default());
    for number in 0..10_000_u32 {
        pair.executor
            .link
            .enqueue(message(Lane::Files, 1, number.to_be_bytes().to_vec()))
            .unwrap();
    }
    pair.drive();
    let received: Vec<u32> = pair
        .harness
        .received
        .iter()
        .map(|message| u32::from_be_bytes(message.bytes[..].try_into().unwrap()))
        .collect();
    assert!(received.iter().copied().eq(0..10_000));
}

#[test]
fn a_trailer_is_written_when_the_last_chunk_is_cut() {
    let mut pair = Pair::up(&PairOptions::default());
    let arrived = pair.now;
    let enqueued = arrived + Duration::from_micros(1500);
    let mut outgoing = message(Lane::Control, 1, vec![0xee; 40]);
    outgoing.trailer = Some(TrailerStamps { arrived, enqueued });
    pair.executor.link.enqueue(outgoing).unwrap();
    pair.now = enqueued + Duration::from_micros(250);
    pair.drive();
    let bytes = &pair.harness.received[0].bytes;
    assert_eq!(bytes[..32], [0xee; 32]);
    assert_eq!(bytes[32..36], 1750_u32.to_be_bytes());
    assert_eq!(bytes[36..], 250_u32.to_be_bytes());
}

#[test]
fn a_trailer_is_never_torn_by_a_cut() {
    for length in (32 * 1024 - 40)..(32 * 1024 + 40) {
        let mut pair = Pair::up(&PairOptions::default());
        let arrived = pair.now;
        let mut outgoing = message(Lane::Bulk, 1, vec![0xee; length]);
        outgoing.trailer = Some(TrailerStamps {
            arrived,
            enqueued: arrived,
        });
        pair.executor.link.enqueue(outgoing).unwrap();
        pair.now += Duration::from_micros(7);
        let now = pair.now;
        for frame in frames_of(pair.executor.transmit(now, usize::MAX)) {
            pair.harness.handle(now, frame);
        }
        let bytes = &pair.harness.received[0].bytes;
        assert_eq!(bytes.len(), length);
        assert!(
            bytes[..length - 8].iter().all(|byte| *byte == 0xee),
            "length {length}"
        );
        assert_eq!(bytes[length - 8..], [0, 0, 0, 7, 0, 0, 0, 7], "length {length}");
    }
}

#[test]
fn a_trailer_saturates_instead_of_wrapping() {
    let mut pair = Pair::up(&PairOptions::default());
    let arrived = pair.now;
    let mut outgoing = message(Lane::Control, 1, vec![0; 8]);
    outgoing.trailer = Some(TrailerStamps {
        arrived,
        enqueued: arrived + Duration::from_secs(9_000),
    });
    pair.executor.link.enqueue(outgoing).unwrap();
    pair.now += Duration::from_secs(5_000);
    pair.drive();
    assert_eq!(
        pair.harness.received[0].bytes[..],
        [255, 255, 255, 255, 0, 0, 0, 0]
    );
}

#[test]
fn what_cannot_be_queued_comes_back() {
    let mut pair = Pair::up(&PairOptions::default());
    let link = &mut pair.harness.link;
    let problem = |link: &mut dwell_relay::Link<u32>, outgoing| {
        let error = link.enqueue(outgoing).unwrap_err();
        assert_eq!(error.message.token, 5, "with its token");
        error.problem
    };
    assert_eq!(problem(link, message(Lane::Bulk, 5, "")), EnqueueProblem::Empty);
    let long = vec![0; MESSAGE_MAX_BYTES + 1];
    assert!(matches!(
        problem(link, message(Lane::Bulk, 5, long)),
        EnqueueProblem::TooLong { .. }
    ));
    let mut short = message(Lane::Bulk, 5, "1234567");
    short.trailer = Some(TrailerStamps {
        arrived: pair.now,
        enqueued: pair.now,
    });
    assert!(matches!(
        problem(link, short),
        EnqueueProblem::NoRoomForTrailer { actual: 7 }
    ));
    let mebibyte = pattern(1024 * 1024, 1);
    for _ in 0..LANE_QUEUE_MAX_BYTES / mebibyte.len() {
        link.enqueue(message(Lane::Bulk, 5, mebibyte.clone())).unwrap();
    }
    assert!(matches!(
        problem(link, message(Lane::Bulk, 5, "x")),
        EnqueueProblem::LaneFull { .. }
    ));
    link.enqueue(message(Lane::Control, 5, "x")).unwrap();
    link.close(&Reset::new(ResetCode::Closed));
    assert_eq!(
        problem(link, message(Lane::Control, 5, "x")),
        EnqueueProblem::LinkOver
    );
}

#[test]
fn a_sender_stops_at_its_window_and_goes_on_with_the_next() {
    let mut pair = Pair::up(&PairOptions {
        executor: LinkOptions {
            paced: false,
            ..LinkOptions::relayed()
        },
        ..PairOptions::default()
    });
    let bytes = pattern(1024 * 1024, 1);
    pair.executor
        .link
        .enqueue(message(Lane::Bulk, 1, bytes.clone()))
        .unwrap();
    let out = pair.executor.transmit(pair.now, usize::MAX);
    assert!(out.len() as u64 <= SEND_WINDOW_INITIAL_BYTES);
    assert!(out.len() as u64 > SEND_WINDOW_INITIAL_BYTES - 2048, "and uses it");
    let sent = out.len() as u64;
    pair.to_harness.extend(frames_of(out));
    assert!(pair.executor.link.has_pending() && !pair.executor.link.can_transmit());
    assert!(pair.executor.transmit(pair.now, usize::MAX).is_empty());
    // Limits are absolute: a late, smaller one takes nothing back.
    for limit in [sent + 100_000, sent + 50_000] {
        pair.executor.handle(pair.now, window_frame(limit));
    }
    let more = pair.executor.transmit(pair.now, usize::MAX).len() as u64;
    assert!(more <= 100_000 && more > 95_000, "{more}");
    // Positive control: without the option the window does not hold.
    let mut free = Pair::up(&PairOptions::default());
    free.executor.link.enqueue(message(Lane::Bulk, 1, bytes)).unwrap();
    assert!(free.executor.transmit(free.now, usize::MAX).len() > 1024 * 1024);
}

#[test]
fn granted_windows_carry_any_amount_and_an_overrun_is_fatal() {
    let mut granting = LinkOptions::direct();
    granting.grants = true;
    let mut pair = Pair::up(&PairOptions {
        harness: granting,
        executor: LinkOptions::relayed(),
        ..PairOptions::default()
    });
    for seed in 0..8 {
        pair.executor
            .link
            .enqueue(message(Lane::Bulk, 1, pattern(1024 * 1024, seed)))
            .unwrap();
    }
    pair.drive();
    assert_eq!(pair.harness.received.len(), 8);
    assert!(pair.executor.finished.len() == 8 && pair.harness.error.is_none());
    // A sender that ignores windows.
    let mut pair = Pair::up(&PairOptions {
        harness: granting,
        ..PairOptions::default()
    });
    pair.executor
        .link
        .enqueue(message(Lane::Bulk, 1, pattern(1024 * 1024, 1)))
        .unwrap();
    for frame in frames_of(pair.executor.transmit(pair.now, usize::MAX)) {
        pair.harness.handle(pair.now, frame);
    }
    assert!(matches!(
        pair.harness.error,
        Some(LinkError::WindowOverrun { .. })
    ));
    // It counted what was left of the window when it wrote its last word, and there was less than nothing.
    let last = frames_of(pair.harness.transmit(pair.now, usize::MAX));
    let kinds: Vec<_> = last.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [OuterKind::Reset], "a reset and no window");
    assert!(!pair.harness.link.can_transmit());
}

/// A pair whose executor is paced, with 200 kB of bulk queued.
fn paced_pair() -> Pair {
    let mut pair = Pair::up(&PairOptions {
        executor: LinkOptions::direct(),
        ..PairOptions::default()
    });
    pair.executor
        .link
        .enqueue(message(Lane::Bulk, 1, pattern(200_000, 1)))
        .unwrap();
    pair
}

#[test]
fn bulk_waits_for_its_peers_word_and_control_does_not() {
    let mut pair = paced_pair();
    let first = pair.executor.transmit(pair.now, usize::MAX);
    assert!(first.len() > 15_000 && first.len() < 17_500, "{}", first.len());
    assert!(!pair.executor.link.can_transmit());
    pair.executor
        .link
        .enqueue(message(Lane::Control, 1, "now"))
        .unwrap();
    assert!(pair.executor.link.can_transmit());
    let urgent = pair.executor.transmit(pair.now, usize::MAX);
    assert!(!urgent.is_empty() && urgent.len() < 100);
    pair.to_harness.extend(frames_of(first));
    pair.to_harness.extend(frames_of(urgent));
    pair.drive();
    assert_eq!(
        pair.harness.received.len(),
        2,
        "the rest came with the harness's word"
    );
    assert_eq!(pair.harness.received[1].bytes, pattern(200_000, 1));
    assert!(!pair.executor.link.has_pending() && !pair.harness.link.has_pending());
}

#[test]
fn without_its_pace_all_bulk_leaves_at_once() {
    let mut pair = Pair::up(&PairOptions::default());
    pair.executor
        .link
        .enqueue(message(Lane::Bulk, 1, pattern(200_000, 1)))
        .unwrap();
    assert!(pair.executor.transmit(pair.now, usize::MAX).len() > 200_000);
    assert_eq!(pair.executor.link.bulk_bound_bytes(), u64::MAX);
}

#[test]
fn a_link_without_bulk_says_nothing_of_itself() {
    let direct = PairOptions {
        harness: LinkOptions::direct(),
        executor: LinkOptions::direct(),
        ..PairOptions::default()
    };
    let mut pair = Pair::up(&direct);
    let before = [pair.harness.records_sealed, pair.executor.records_sealed];
    for round in 0..1_000 {
        let link = &mut pair.harness.link;
        link.enqueue(message(Lane::Interactive, 1, pattern(200, round)))
            .unwrap();
        pair.drive();
        let link = &mut pair.executor.link;
        link.enqueue(message(Lane::Interactive, 1, pattern(300, round)))
            .unwrap();
        link.enqueue(message(Lane::Trace, 1, pattern(1_500, round)))
            .unwrap();
        pair.drive();
    }
    let after = [pair.harness.records_sealed, pair.executor.records_sealed];
    assert_eq!([after[0] - before[0], after[1] - before[1]], [1_000, 1_000]);
    assert_eq!(pair.harness.received.len(), 2_000);
}

#[test]
fn what_cannot_have_been_opened_or_counted_is_fatal() {
    let own = |kind: u8, value: u64| {
        let mut chunk = vec![0, 0, 0, kind, 0b0111_0011, 0, 8];
        chunk.extend(value.to_be_bytes());
        chunk
    };
    let bulk = chunk(0b0011_0011, &[1; 93]);
    assert!(
        sealed(&[bulk.clone(), own(1, 100)].concat()).is_ok(),
        "positive control"
    );
    assert!(
        sealed(&[chunk(3, b"x"), own(2, 0)].concat()).is_ok(),
        "positive control"
    );
    assert!(matches!(
        sealed(&[bulk, own(1, 101)].concat()),
        Err(LinkError::Miscounted {
            marked: 101,
            opened: 100
        })
    ));
    assert!(matches!(
        sealed(&own(2, 1)),
        Err(LinkError::OpenedTooMuch { opened: 1, sent: 0 })
    ));
}

#[test]
fn a_record_limit_makes_smaller_records() {
    let mut pair = Pair::up(&PairOptions {
        executor: LinkOptions {
            record_max_bytes: 1,
            ..support::unpaced()
        },
        ..PairOptions::default()
    });
    pair.executor
        .link
        .enqueue(message(Lane::Bulk, 1, pattern(10_000, 1)))
        .unwrap();
    let before = pair.executor.records_sealed;
    pair.drive();
    assert_eq!(
        pair.executor.records_sealed - before,
        11,
        "1,024 bytes are the least, and 30 of them are the link's own"
    );
    assert_eq!(pair.harness.received[0].bytes, pattern(10_000, 1));
}

/// Two records of the executor, for whatever may happen to them on the way.
fn two_records(pair: &mut Pair) -> [OuterFrame; 2] {
    pair.executor
        .link
        .enqueue(message(Lane::Control, 1, "one"))
        .unwrap();
    let first = frames_of(pair.executor.transmit(pair.now, usize::MAX)).remove(0);
    pair.executor
        .link
        .enqueue(message(Lane::Control, 1, "two"))
        .unwrap();
    let second = frames_of(pair.executor.transmit(pair.now, usize::MAX)).remove(0);
    [first, second]
}

fn bad_seal(pair: &Pair) -> bool {
    matches!(
        pair.harness.error,
        Some(LinkError::Record(RecordError::BadSeal { .. }))
    ) && pair.harness.link.is_over()
}

#[test]
fn a_record_lost_repeated_or_reordered_is_fatal() {
    for order in [&[1][..], &[0, 0][..], &[1, 0][..]] {
        let mut pair = Pair::up(&PairOptions::default());
        let records = two_records(&mut pair);
        for index in order {
            pair.harness.handle(pair.now, records[*index].clone());
        }
        assert!(bad_seal(&pair), "{order:?}");
    }
    // Positive control: in their order they open.
    let mut pair = Pair::up(&PairOptions::default());
    for record in two_records(&mut pair) {
        pair.harness.handle(pair.now, record);
    }
    assert_eq!(pair.harness.received.len(), 2);
}

#[test]
fn nothing_opens_after_a_record_that_did_not() {
    let mut pair = Pair::up(&PairOptions::default());
    let [first, second] = two_records(&mut pair);
    let mut garbage = first.clone();
    garbage.payload.iter_mut().for_each(|byte| *byte = 0);
    pair.harness.handle(pair.now, garbage);
    assert!(bad_seal(&pair));
    pair.harness.handle(pair.now, first);
    pair.harness.handle(pair.now, second);
    assert!(pair.harness.received.is_empty());
    let last = frames_of(pair.harness.transmit(pair.now, usize::MAX));
    assert_eq!(last.len(), 1);
    assert_eq!(Reset::decode(&last[0].payload).unwrap().code, ResetCode::Protocol);
}

#[test]
fn a_record_sent_back_or_spliced_from_another_link_does_not_open() {
    let mut pair = Pair::up(&PairOptions::default());
    let [own, _] = two_records(&mut pair);
    pair.executor.handle(pair.now, own);
    assert!(
        matches!(pair.executor.error, Some(LinkError::Record(_))),
        "reflected"
    );
    let mut other = Pair::up(&PairOptions {
        seed: 2,
        ..PairOptions::default()
    });
    let [foreign, _] = two_records(&mut other);
    let mut pair = Pair::up(&PairOptions::default());
    pair.harness.handle(pair.now, foreign);
    assert!(bad_seal(&pair), "spliced");
}

#[test]
fn every_flipped_bit_of_a_record_is_fatal_and_a_flipped_stamp_is_only_the_relays_word() {
    let template = {
        let mut pair = Pair::up(&PairOptions::default());
        let [first, _] = two_records(&mut pair);
        first
    };
    for bit in 0..template.payload.len() * 8 {
        let mut pair = Pair::up(&PairOptions::default());
        let mut record = template.clone();
        record.payload[bit / 8] ^= 1 << (bit % 8);
        pair.harness.handle(pair.now, record);
        assert!(bad_seal(&pair), "bit {bit}");
    }
    for bit in 0..32 {
        let mut pair = Pair::up(&PairOptions::default());
        let mut record = template.clone();
        record.stamp_us ^= 1 << bit;
        pair.harness.handle(pair.now, record);
        assert_eq!(pair.harness.received[0].bytes, "one");
        assert_eq!(pair.harness.received[0].relay_us, 1 << bit);
    }
}

#[test]
fn every_flipped_bit_of_a_frames_header_is_an_error_or_silence() {
    let mut pair = Pair::up(&PairOptions::default());
    pair.executor
        .link
        .enqueue(message(Lane::Control, 1, "one"))
        .unwrap();
    let bytes = pair.executor.transmit(pair.now, usize::MAX);
    // The stamp is the last four bytes of the header; all before them is either judged or authenticated by place.
    for bit in 0..24 * 8 {
        let mut pair = Pair::up(&PairOptions::default());
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let mut decoder = OuterDecoder::new();
        decoder.feed(changed);
        // Some kinds are clear and say nothing of their own accord, such as a pong.
        if let Ok(Some(frame)) = decoder.next_frame() {
            pair.harness.handle(pair.now, frame);
        }
        assert!(pair.harness.received.is_empty(), "bit {bit}");
    }
}

#[test]
fn keys_stop_at_their_limits_and_never_wrap() {
    let mut options = support::unpaced();
    options.seal_limits.records_max = 3;
    let mut pair = Pair::up(&PairOptions {
        executor: options,
        ..PairOptions::default()
    });
    for round in 0..3 {
        pair.executor
            .link
            .enqueue(message(Lane::Control, round, "x"))
            .unwrap();
        pair.drive();
    }
    assert!(
        pair.executor.error.is_none() && pair.harness.received.len() == 3,
        "positive control"
    );
    pair.executor
        .link
        .enqueue(message(Lane::Control, 9, "x"))
        .unwrap();
    pair.drive();
    assert!(matches!(
        pair.executor.error,
        Some(LinkError::Record(RecordError::Exhausted { records: 3, .. }))
    ));
    assert_eq!(pair.harness.closed_code(), Some(ResetCode::Exhausted));
    assert_eq!(pair.harness.received.len(), 3);

    let mut options = support::unpaced();
    options.seal_limits.bytes_max = 100_000;
    let mut pair = Pair::up(&PairOptions {
        executor: options,
        ..PairOptions::default()
    });
    pair.executor
        .link
        .enqueue(message(Lane::Bulk, 1, pattern(200_000, 1)))
        .unwrap();
    pair.drive();
    assert!(matches!(
        pair.executor.error,
        Some(LinkError::Record(RecordError::Exhausted { .. }))
    ));
}

#[test]
fn the_owner_of_a_link_that_takes_no_events_is_told() {
    let mut pair = Pair::up(&PairOptions::default());
    for round in 0..6 {
        for _ in 0..4000 {
            pair.executor
                .link
                .enqueue(message(Lane::Control, round, "x"))
                .unwrap();
        }
    }
    let mut result = Ok(());
    for frame in frames_of(pair.executor.transmit(pair.now, usize::MAX)) {
        result = result.and(pair.harness.link.handle_frame(pair.now, frame));
    }
    assert!(matches!(result, Err(LinkError::EventsNotTaken)));
}

#[test]
fn a_closed_link_says_so_and_gives_its_tokens_up() {
    let mut pair = Pair::up(&PairOptions::default());
    pair.harness
        .link
        .close(&Reset::with_text(ResetCode::ShuttingDown, "bye"));
    pair.drive();
    assert_eq!(pair.executor.closed_code(), Some(ResetCode::ShuttingDown));
    assert!(pair.executor.link.is_over() && !pair.executor.link.has_pending());

    let token = std::sync::Arc::new(());
    let mut link = {
        let pair = Pair::new(&PairOptions::default());
        let executor = support::keypair(2).public();
        let link = dwell_relay::Link::dial(
            pair.now,
            &support::keypair(1),
            &support::harness_preamble(executor),
            &[],
            b"",
            LinkOptions::direct(),
            &mut support::Seeded(1),
        );
        link.unwrap()
    };
    link.enqueue(dwell_relay::Outgoing {
        lane: Lane::Bulk,
        channel: 1,
        bytes: pattern(10, 1),
        trailer: None,
        token: token.clone(),
    })
    .unwrap();
    assert_eq!(std::sync::Arc::strong_count(&token), 2);
    link.close(&Reset::new(ResetCode::Closed));
    assert_eq!(std::sync::Arc::strong_count(&token), 1);
}

#[test]
fn a_ping_is_answered_and_a_flood_of_them_is_bounded() {
    let mut pair = Pair::up(&PairOptions::default());
    let mut out = BytesMut::new();
    encode_outer(&mut out, OuterKind::Ping, support::STREAM, 0, b"12345678");
    let ping = frames_of(out).remove(0);
    pair.harness.handle(pair.now, ping.clone());
    let answer = frames_of(pair.harness.transmit(pair.now, usize::MAX));
    assert_eq!(
        (answer[0].kind, &answer[0].payload[..]),
        (OuterKind::Pong, &b"12345678"[..])
    );
    for _ in 0..100_000 {
        pair.harness.handle(pair.now, ping.clone());
    }
    assert!(pair.harness.transmit(pair.now, usize::MAX).len() < 64 * 1024);
}

#[test]
fn a_frame_of_another_stream_is_fatal() {
    let mut pair = Pair::up(&PairOptions::default());
    let [mut record, _] = two_records(&mut pair);
    record.stream.0[0] ^= 1;
    pair.harness.handle(pair.now, record);
    assert!(matches!(pair.harness.error, Some(LinkError::WrongStream { .. })));
}

fn window_frame(limit: u64) -> OuterFrame {
    let mut out = BytesMut::new();
    encode_outer(
        &mut out,
        OuterKind::Window,
        support::STREAM,
        0,
        &limit.to_be_bytes(),
    );
    frames_of(out).remove(0)
}

/// A record with this inside, sealed by the real key of the executor.
fn sealed(plaintext: &[u8]) -> Result<(), LinkError> {
    let executor = support::keypair(2);
    let preamble = support::harness_preamble(executor.public());
    let now = std::time::Instant::now();
    let mut link = dwell_relay::Link::<()>::dial(
        now,
        &support::keypair(1),
        &preamble,
        &[],
        b"",
        LinkOptions::direct(),
        &mut support::Seeded(1),
    )
    .unwrap();
    let mut out = BytesMut::new();
    let _ = link.poll_transmit(now, &mut out, usize::MAX).unwrap();
    let first = frames_of(out.split_off(64)).remove(0);
    let verdict = dwell_relay::handshake::Responder::read_hello(
        &executor,
        &preamble.encode(),
        1,
        &first.payload,
        &mut support::Seeded(2),
    )
    .unwrap();
    let (mut server, second) = verdict.welcome(b"").unwrap();
    let mut out = BytesMut::new();
    encode_outer(&mut out, OuterKind::Handshake, support::STREAM, 0, &second);
    let mut record = BytesMut::from(plaintext);
    server.sealer.seal_in_place(&mut record, 0).unwrap();
    encode_outer(&mut out, OuterKind::Data, support::STREAM, 0, &record);
    frames_of(out)
        .into_iter()
        .try_for_each(|frame| link.handle_frame(now, frame))
}

fn chunk(flags: u8, bytes: &[u8]) -> Vec<u8> {
    let mut chunk = vec![0, 0, 0, 1, flags];
    chunk.extend((bytes.len() as u16).to_be_bytes());
    chunk.extend(bytes);
    chunk
}

#[test]
fn malformed_insides_of_well_sealed_records_are_fatal_and_named() {
    let expect = |plaintext: &[u8], expected: ChunkError| match sealed(plaintext) {
        Err(LinkError::Chunk(error)) => assert_eq!(error, expected),
        other => panic!("{other:?}"),
    };
    assert!(sealed(&chunk(3, b"x")).is_ok(), "positive control");
    let (lane, channel) = (Lane::Control, 1);
    expect(&[], ChunkError::EmptyRecord);
    expect(&chunk(3, b""), ChunkError::Empty);
    expect(&chunk(2, b"x"), ChunkError::Orphan { lane, channel });
    expect(&chunk(0, b"x"), ChunkError::Orphan { lane, channel });
    expect(
        &[chunk(1, b"x"), chunk(3, b"x")].concat(),
        ChunkError::Interleaved { lane, channel },
    );
    expect(&chunk(0b0110_0011, b"x"), ChunkError::UnknownLane { lane: 6 });
    let (kind, flags) = (1, 0b0111_0011);
    expect(
        &chunk(flags, b"x"),
        ChunkError::BadOwn {
            kind,
            flags,
            length: 1,
        },
    );
    let flags = 0b0111_0010;
    expect(
        &chunk(flags, &[0; 8]),
        ChunkError::BadOwn {
            kind,
            flags,
            length: 8,
        },
    );
    expect(&chunk(flags, b"x")[..6], ChunkError::Truncated);
    expect(&chunk(0b1000_0011, b"x"), ChunkError::Reserved { flags: 0x83 });
    expect(&chunk(3, b"x")[..6], ChunkError::Truncated);
    expect(&[chunk(3, b"x"), vec![1]].concat(), ChunkError::Truncated);
}

/// Feeds one endpoint records of a peer that holds the key and misbehaves.
#[test]
fn unfinished_messages_and_long_ones_have_a_budget() {
    let mut pair = Pair::up(&PairOptions::default());
    // 9 MiB of beginnings, honest but for never ending: one per channel, each cut short of its last chunk.
    let mut error = None;
    for channel in 0..9 {
        pair.executor
            .link
            .enqueue(message(Lane::Interactive, channel, pattern(MESSAGE_MAX_BYTES, 1)))
            .unwrap();
    }
    for frame in frames_of(pair.executor.transmit(pair.now, usize::MAX)) {
        if let Err(failed) = pair.harness.link.handle_frame(pair.now, frame) {
            error = Some(failed);
        }
        while pair.harness.link.poll_event().is_some() {}
    }
    assert!(error.is_none(), "one after the other they are fine: {error:?}");
    // All begun before any ends: the turns of the bulk lane do that.
    let mut pair = Pair::up(&PairOptions::default());
    for channel in 0..9 {
        pair.executor
            .link
            .enqueue(message(Lane::Bulk, channel, pattern(MESSAGE_MAX_BYTES, 1)))
            .unwrap();
    }
    for frame in frames_of(pair.executor.transmit(pair.now, usize::MAX)) {
        pair.harness.handle(pair.now, frame);
    }
    match &pair.harness.error {
        Some(LinkError::Chunk(ChunkError::ReassemblyFull { max })) => assert_eq!(*max, REASSEMBLY_MAX_BYTES),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_message_arrives_once_whole_and_in_order_of_its_channel(
        messages in vec((0..6_u8, 0..4_u32, 1..90_000_usize), 1..40),
        write_max in 1..200_000_usize,
        record_max_bytes in 1..40_000_usize,
        paced in any::<bool>(),
    ) {
        let mut pair = Pair::up(&PairOptions {
            executor: LinkOptions { paced, record_max_bytes, ..LinkOptions::direct() },
            ..PairOptions::default()
        });
        pair.write_max_bytes = write_max;
        let mut expected = std::collections::HashMap::<_, Vec<_>>::new();
        for (seed, (lane, channel, length)) in messages.iter().enumerate() {
            let lane = Lane::from_wire(*lane).unwrap();
            let bytes = pattern(*length, seed as u64);
            expected.entry((lane, *channel)).or_default().push(bytes.clone());
            pair.executor.link.enqueue(message(lane, *channel, bytes)).unwrap();
        }
        pair.drive();
        let mut received = std::collections::HashMap::<_, Vec<_>>::new();
        for message in &pair.harness.received {
            received.entry((message.lane, message.channel)).or_default().push(message.bytes.clone());
        }
        prop_assert_eq!(received, expected);
        prop_assert_eq!(pair.executor.finished.len(), messages.len());
        prop_assert!(!pair.executor.link.has_pending());
    }

    #[test]
    fn arbitrary_insides_of_sealed_records_never_panic(plaintext in vec(any::<u8>(), 0..300)) {
        let _ = sealed(&plaintext);
    }

    #[test]
    fn arbitrary_frames_never_make_a_link_panic(
        kind in 0..OuterKind::ALL.len(),
        payload in vec(any::<u8>(), 0..300),
        up in any::<bool>(),
    ) {
        let options = PairOptions::default();
        let mut pair = if up { Pair::up(&options) } else { Pair::new(&options) };
        let frame = OuterFrame {
            kind: OuterKind::ALL[kind],
            stream: support::STREAM,
            stamp_us: 0,
            payload: BytesMut::from(&payload[..]),
        };
        pair.executor.handle(pair.now, frame.clone());
        pair.harness.handle(pair.now, frame);
        prop_assert!(pair.executor.received.is_empty() && pair.harness.received.is_empty());
        pair.transmit();
    }
}
