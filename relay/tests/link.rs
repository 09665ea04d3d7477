//! Links: packing, cutting, priorities, fairness, windows and their ends.

mod support;

use dwell_relay::Lane;

use support::{Pair, PairOptions, message, pattern};

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
