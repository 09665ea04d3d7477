//! The relay's core: pairing, windows, fairness, and what it tells whom.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/net.rs"]
mod net;
mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use dwell_messages::StreamId;
use dwell_messages::kinds::OuterKind;
use dwell_relay::rendezvous::{
    CLOSING_TIMEOUT, CONNECTIONS_PER_SOURCE_MAX, ConnectionFault, DropReason, OPENING_LIMITS,
    OPENING_TIMEOUT, RegistrationFailure, Report, SOCKET_MAX_BYTES, TokenHash, Unavailability,
    WINDOW_MAX_BYTES,
};
use dwell_relay::strangers::{FAILURES_MAX, SOURCE_RATE, Vouching};
use dwell_relay::{
    Admission, ConnId, Dialer, Lane, Preamble, Refusal, RefusalReason, Reset, ResetCode, Source,
    StaticKeypair, encode_outer, inquiry,
};
use proptest::collection::vec;
use proptest::prelude::*;

use net::{Net, Party};
use support::{keypair, message, pattern};

fn identity(seed: u64) -> Arc<StaticKeypair> {
    Arc::new(keypair(seed))
}

fn frame(kind: OuterKind, stream: StreamId, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    encode_outer(&mut out, kind, stream, 0, payload);
    out
}

fn stream(number: u128) -> StreamId {
    StreamId(number.to_be_bytes())
}

/// A relay with one executor and harnesses on streams 1, 2, ...
fn paired(harnesses: u128) -> (Net, ConnId, Vec<ConnId>) {
    let mut net = Net::new(Admission::Open);
    let identity = identity(50);
    let executor = net.executor(&identity);
    assert!(net.exec(executor).registered);
    let harnesses = (1..=harnesses)
        .map(|number| net.harness(identity.public(), number))
        .collect();
    (net, executor, harnesses)
}

#[test]
fn a_relay_tells_an_inquirer_the_same_of_a_known_and_an_unknown_key() {
    let (mut net, _, _) = paired(1);
    let answers = [50, 51].map(|seed| {
        let conn = net.raw();
        net.send(conn, &inquiry::question(identity(seed).public(), stream(9)));
        net.drive();
        assert!(net.closed.contains(&conn));
        net.conns[&conn].frames.clone()
    });
    assert_eq!(answers[0].len(), 1);
    assert_eq!(answers[0][0].kind, OuterKind::Refused);
    let refusal = Refusal::decode(&answers[0][0].payload).unwrap();
    assert_eq!(refusal.reason, RefusalReason::Role);
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_harness_reaches_its_executor_through_the_relay_and_back() {
    let (mut net, executor, harnesses) = paired(1);
    assert!(net.end(harnesses[0]).is_established() && net.link(executor, 1).is_established());
    let bytes = pattern(3 * 1024 * 1024 / 4, 1);
    net.end(harnesses[0])
        .link
        .enqueue(message(Lane::Bulk, 1, bytes.clone()))
        .unwrap();
    net.link(executor, 1)
        .link
        .enqueue(message(Lane::Bulk, 2, bytes.clone()))
        .unwrap();
    net.drive();
    assert_eq!(net.link(executor, 1).received[0].bytes, bytes);
    assert_eq!(net.end(harnesses[0]).received[0].bytes, bytes);
    assert_eq!(net.relay.dropped().total(), 0);
}

#[test]
fn many_streams_share_the_executors_one_connection() {
    let (mut net, executor, harnesses) = paired(20);
    for (number, harness) in harnesses.iter().enumerate() {
        let bytes = pattern(300_000, number as u64);
        net.end(*harness)
            .link
            .enqueue(message(Lane::Bulk, 1, bytes))
            .unwrap();
    }
    net.drive();
    for number in 0..20 {
        let received = &net.link(executor, number + 1).received;
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].bytes, pattern(300_000, number as u64));
    }
}

#[test]
fn residence_is_stamped_outside_the_seal() {
    let (mut net, executor, harnesses) = paired(1);
    net.conns.get_mut(&executor).unwrap().stuck = true;
    // More than the socket takes, so that the last of it waits at the relay.
    for _ in 0..2 {
        net.end(harnesses[0])
            .link
            .enqueue(message(Lane::Bulk, 1, pattern(250_000, 1)))
            .unwrap();
        net.drive();
    }
    net.end(harnesses[0])
        .link
        .enqueue(message(Lane::Control, 2, "late"))
        .unwrap();
    net.drive();
    net.now += Duration::from_millis(750);
    net.conns.get_mut(&executor).unwrap().stuck = false;
    net.drive();
    let link = net.link(executor, 1);
    assert_eq!(link.received.len(), 3);
    let (first, last) = (&link.received[0], &link.received[1]);
    assert!(first.relay_us < 1000, "{}", first.relay_us);
    assert!(last.relay_us >= 750_000, "{}", last.relay_us);
}

#[test]
fn the_last_proven_registration_wins_and_the_older_is_told_why() {
    let (mut net, older, harnesses) = paired(1);
    let identity = identity(50);
    let newer = net.executor(&identity);
    assert!(net.exec(newer).registered);
    let refusal = net.exec(older).refused.clone().unwrap();
    assert_eq!(refusal.reason, RefusalReason::Superseded);
    assert!(net.closed.contains(&older));
    assert_eq!(net.end(harnesses[0]).closed_code(), Some(ResetCode::Superseded));
    assert!(net.closed.contains(&harnesses[0]));
    let again = net.harness(identity.public(), 9);
    assert!(net.end(again).is_established());
    assert!(net.exec(newer).links.contains_key(&stream(9)));
    // The older connection's end changes nothing for the newer.
    net.disconnect(older);
    let third = net.harness(identity.public(), 10);
    assert!(net.end(third).is_established());
}

#[test]
fn a_registration_under_a_foreign_name_changes_nothing() {
    let (mut net, executor, _) = paired(1);
    let thief = identity(51);
    let fake = net.executor_named(&thief, identity(50).public());
    net.drive();
    assert!(!net.exec(fake).registered);
    assert_eq!(
        net.exec(fake).refused.clone().unwrap().reason,
        RefusalReason::Registration
    );
    assert!(net.closed.contains(&fake) && !net.closed.contains(&executor));
    let harness = net.harness(identity(50).public(), 2);
    assert!(net.end(harness).is_established());
    assert!(net.reports.iter().any(|report| matches!(
        report,
        Report::RegistrationRefused {
            why: RegistrationFailure::NotProven,
            ..
        }
    )));
}

#[test]
fn unknown_offline_and_not_admitted_look_the_same() {
    let listed = identity(60);
    let admission = Admission::Listed {
        executors: vec![listed.public()],
        harness_tokens: vec![TokenHash::of(b"open sesame")],
    };
    let mut net = Net::new(admission);
    let executor = net.executor(&listed);
    assert!(net.exec(executor).registered);
    let unlisted = identity(61);
    let refused = net.executor(&unlisted);
    assert!(!net.exec(refused).registered, "its key is not listed");
    assert!(
        !net.conns[&refused].kinds.contains(&OuterKind::Handshake),
        "and nothing is computed for it"
    );
    let dial = |net: &mut Net, key, token: &[u8]| {
        let conn = net.harness_with(key, 77, token, support::unpaced_relayed());
        net.drive();
        conn
    };
    let unknown = dial(&mut net, identity(62).public(), b"open sesame");
    let bad_token = dial(&mut net, listed.public(), b"open sesamE");
    let no_token = dial(&mut net, listed.public(), b"");
    let good = dial(&mut net, listed.public(), b"open sesame");
    assert!(net.end(good).is_established(), "positive control");
    net.disconnect(executor);
    let offline = dial(&mut net, listed.public(), b"open sesame");
    let not_admitted = dial(&mut net, unlisted.public(), b"open sesame");
    for conn in [unknown, bad_token, no_token, offline, not_admitted] {
        assert_eq!(net.end(conn).closed_code(), Some(ResetCode::Unavailable));
        assert_eq!(
            net.conns[&conn].kinds,
            [OuterKind::Reset],
            "one frame, the same for all"
        );
        assert!(net.closed.contains(&conn));
    }
    let why: Vec<_> = net
        .reports
        .iter()
        .filter_map(|report| match report {
            Report::StreamUnavailable { why, .. } => Some(*why),
            _ => None,
        })
        .collect();
    use Unavailability::{ExecutorNotRegistered, TokenNotAdmitted};
    assert_eq!(
        why,
        [
            ExecutorNotRegistered,
            TokenNotAdmitted,
            TokenNotAdmitted,
            ExecutorNotRegistered,
            ExecutorNotRegistered
        ]
    );
}

#[test]
fn the_token_is_not_passed_on() {
    let mut net = Net::new(Admission::Open);
    let identity = identity(50);
    let executor = net.raw();
    // An executor played by hand would be long; look at what the relay writes to a real one instead.
    net.disconnect(executor);
    let executor = net.executor(&identity);
    net.conns.get_mut(&executor).unwrap().stuck = true;
    net.harness_with(identity.public(), 5, b"canary-token", support::unpaced_relayed());
    net.drive();
    let written: Vec<u8> = net.conns[&executor]
        .unread
        .iter()
        .flat_map(|bytes| bytes.to_vec())
        .collect();
    assert!(written.len() > 64, "the open frame is there");
    assert!(!written.windows(12).any(|window| window == b"canary-token"));
}

#[test]
fn a_stream_id_in_use_is_not_given_twice() {
    let (mut net, executor, harnesses) = paired(1);
    let second = net.harness(identity(50).public(), 1);
    assert_eq!(net.end(second).closed_code(), Some(ResetCode::Unavailable));
    net.end(harnesses[0])
        .link
        .enqueue(message(Lane::Control, 1, "still here"))
        .unwrap();
    net.drive();
    assert_eq!(net.link(executor, 1).received[0].bytes, "still here");
}

#[test]
fn a_slow_harness_does_not_stop_another_stream() {
    let (mut net, executor, harnesses) = paired(2);
    net.conns.get_mut(&harnesses[0]).unwrap().stuck = true;
    for number in [1, 2] {
        for seed in 0..8 {
            let bytes = pattern(1024 * 1024, seed);
            net.link(executor, number)
                .link
                .enqueue(message(Lane::Bulk, 1, bytes))
                .unwrap();
        }
    }
    net.drive();
    assert_eq!(net.end(harnesses[1]).received.len(), 8);
    assert_eq!(net.end(harnesses[0]).received.len(), 0);
    let unread: usize = net.conns[&harnesses[0]]
        .unread
        .iter()
        .map(|bytes| bytes.len())
        .sum();
    assert!(unread <= SOCKET_MAX_BYTES + 40_000, "{unread}");
    assert!(
        net.link(executor, 1).link.has_pending(),
        "the rest waits in its sender's own lanes"
    );
    // And it goes on when the slow one does.
    net.conns.get_mut(&harnesses[0]).unwrap().stuck = false;
    net.drive();
    assert_eq!(net.end(harnesses[0]).received.len(), 8);
    assert_eq!(net.relay.dropped().total(), 0);
}

#[test]
fn windows_grow_while_they_are_drained_and_no_further() {
    let (mut net, executor, harnesses) = paired(1);
    for round in 0..3 {
        for seed in 0..12 {
            let bytes = pattern(1024 * 1024, seed);
            net.link(executor, 1)
                .link
                .enqueue(message(Lane::Bulk, 1, bytes))
                .unwrap();
            net.drive();
        }
        assert_eq!(net.end(harnesses[0]).received.len(), 12 * (round + 1));
    }
    let left = net.link(executor, 1).link.window_left();
    assert!(left > 1024 * 1024, "it has grown: {left}");
    assert!(left <= WINDOW_MAX_BYTES, "and is bounded: {left}");
    // A receiver that stops: the sender runs into exactly that window.
    net.conns.get_mut(&harnesses[0]).unwrap().stuck = true;
    for seed in 0..12 {
        let bytes = pattern(1024 * 1024, seed);
        net.link(executor, 1)
            .link
            .enqueue(message(Lane::Bulk, 1, bytes))
            .unwrap();
    }
    net.drive();
    assert!(!net.link(executor, 1).link.can_transmit());
}

#[test]
fn a_sender_that_overruns_its_window_is_reset_and_others_live() {
    let (mut net, executor, harnesses) = paired(1);
    let rogue = net.harness_with(identity(50).public(), 66, b"", support::unpaced());
    net.drive();
    assert!(
        net.end(rogue).is_established(),
        "positive control: within the window it works"
    );
    net.end(rogue)
        .link
        .enqueue(message(Lane::Bulk, 1, pattern(1024 * 1024, 1)))
        .unwrap();
    net.drive();
    assert_eq!(net.end(rogue).closed_code(), Some(ResetCode::WindowOverrun));
    assert_eq!(
        net.link(executor, 66).closed_code(),
        Some(ResetCode::WindowOverrun)
    );
    assert!(net.closed.contains(&rogue));
    net.end(harnesses[0])
        .link
        .enqueue(message(Lane::Control, 1, "fine"))
        .unwrap();
    net.drive();
    assert_eq!(net.link(executor, 1).received[0].bytes, "fine");
    assert_eq!(net.relay.census().streams, 1);
}

#[test]
fn an_executor_that_overruns_one_stream_loses_only_that_one() {
    let mut net = Net::new(Admission::Open);
    let identity = identity(50);
    let executor = net.executor(&identity);
    net.exec(executor).link_options = support::unpaced();
    let rogue = net.harness(identity.public(), 1);
    let other = net.harness(identity.public(), 2);
    net.conns.get_mut(&rogue).unwrap().stuck = true;
    for _ in 0..8 {
        net.link(executor, 1)
            .link
            .enqueue(message(Lane::Bulk, 1, pattern(1024 * 1024, 1)))
            .unwrap();
    }
    net.link(executor, 2)
        .link
        .enqueue(message(Lane::Control, 1, "fine"))
        .unwrap();
    net.drive();
    assert_eq!(
        net.link(executor, 1).closed_code(),
        Some(ResetCode::WindowOverrun)
    );
    assert_eq!(net.end(other).received[0].bytes, "fine");
    net.conns.get_mut(&rogue).unwrap().stuck = false;
    net.drive();
    assert_eq!(net.end(rogue).closed_code(), Some(ResetCode::WindowOverrun));
}

#[test]
fn streams_take_turns_towards_a_shared_connection() {
    let (mut net, executor, harnesses) = paired(2);
    net.conns.get_mut(&executor).unwrap().stuck = true;
    for _ in 0..2 {
        net.end(harnesses[0])
            .link
            .enqueue(message(Lane::Bulk, 1, pattern(250_000, 1)))
            .unwrap();
        net.drive();
    }
    net.end(harnesses[1])
        .link
        .enqueue(message(Lane::Control, 1, "small"))
        .unwrap();
    net.drive();
    let conn = net.conns.get_mut(&executor).unwrap();
    let in_socket = conn.unread.len();
    conn.stuck = false;
    conn.data_streams.clear();
    net.drive();
    assert_eq!(net.link(executor, 1).received.len(), 2);
    // What was in the socket goes first, then a turn of the other stream at most.
    let order = &net.conns[&executor].data_streams;
    let place = order.iter().position(|id| *id == stream(2)).unwrap();
    assert!(place <= in_socket + 2, "after {place} records of {}", order.len());
    assert!(order.len() > place + 4, "and before the rest of the large one");
}

#[test]
fn queued_bytes_arrive_before_the_reset_of_a_harness_that_left() {
    let (mut net, executor, harnesses) = paired(1);
    net.conns.get_mut(&executor).unwrap().stuck = true;
    net.end(harnesses[0])
        .link
        .enqueue(message(Lane::Control, 1, "last words"))
        .unwrap();
    net.drive();
    net.disconnect(harnesses[0]);
    net.conns.get_mut(&executor).unwrap().stuck = false;
    net.drive();
    let link = net.link(executor, 1);
    assert_eq!(link.received[0].bytes, "last words");
    assert_eq!(link.closed_code(), Some(ResetCode::PeerGone));
    assert_eq!(net.relay.census().streams, 0);
}

#[test]
fn an_executor_that_leaves_takes_its_streams_with_it() {
    let (mut net, executor, harnesses) = paired(3);
    net.link(executor, 2)
        .link
        .enqueue(message(Lane::Control, 1, "last words"))
        .unwrap();
    net.drive();
    net.disconnect(executor);
    for harness in &harnesses {
        assert_eq!(net.end(*harness).closed_code(), Some(ResetCode::PeerGone));
        assert!(net.closed.contains(harness));
    }
    assert_eq!(net.end(harnesses[1]).received[0].bytes, "last words");
    assert_eq!(net.relay.census().streams, 0);
    assert_eq!(net.relay.census().executors, 0);
    assert_eq!(net.relay.census().connections, 0);
}

#[test]
fn a_reset_by_either_end_ends_the_stream_at_the_other() {
    let (mut net, executor, harnesses) = paired(2);
    net.end(harnesses[0])
        .link
        .close(&Reset::new(ResetCode::ShuttingDown));
    net.link(executor, 2)
        .link
        .close(&Reset::with_text(ResetCode::ShuttingDown, "bye"));
    net.drive();
    assert_eq!(net.link(executor, 1).closed_code(), Some(ResetCode::ShuttingDown));
    assert_eq!(net.end(harnesses[1]).closed_code(), Some(ResetCode::ShuttingDown));
    assert!(net.closed.contains(&harnesses[0]) && net.closed.contains(&harnesses[1]));
    assert_eq!(net.relay.census().streams, 0);
    // The id is free again.
    let again = net.harness(identity(50).public(), 1);
    assert!(net.end(again).is_established());
}

#[test]
fn what_belongs_to_no_stream_is_dropped_and_counted() {
    let (mut net, executor, harnesses) = paired(1);
    net.send(executor, &frame(OuterKind::Data, stream(999), &[0; 100]));
    net.send(harnesses[0], &frame(OuterKind::Data, stream(999), &[0; 100]));
    assert_eq!(net.relay.dropped().of(DropReason::UnknownStream), 2);
    net.send(
        harnesses[0],
        &frame(OuterKind::Window, stream(1), &u64::MAX.to_be_bytes()),
    );
    net.send(harnesses[0], &frame(OuterKind::Open, stream(1), &[0; 200]));
    assert_eq!(net.relay.dropped().of(DropReason::UnexpectedKind), 2);
    net.send(harnesses[0], &frame(OuterKind::Handshake, stream(1), &[0; 100]));
    assert_eq!(net.relay.dropped().of(DropReason::SecondHandshake), 1);
    net.end(harnesses[0])
        .link
        .enqueue(message(Lane::Control, 1, "alive"))
        .unwrap();
    net.drive();
    assert_eq!(
        net.link(executor, 1).received[0].bytes,
        "alive",
        "and the stream never noticed"
    );
}

#[test]
fn data_of_one_client_never_reaches_another() {
    let (mut net, executor, harnesses) = paired(2);
    // Harness 1 names harness 2's stream.
    net.send(harnesses[0], &frame(OuterKind::Data, stream(2), &[0; 100]));
    net.send(harnesses[0], &frame(OuterKind::Reset, stream(2), &[0, 1]));
    net.drive();
    assert!(net.link(executor, 2).error.is_none() && net.link(executor, 2).closed_code().is_none());
    net.end(harnesses[1])
        .link
        .enqueue(message(Lane::Control, 1, "mine"))
        .unwrap();
    net.drive();
    assert_eq!(net.link(executor, 2).received[0].bytes, "mine");
}

#[test]
fn a_connection_that_says_nothing_in_time_is_closed() {
    let mut net = Net::new(Admission::Open);
    let silent = net.raw();
    let half = net.raw();
    net.send(
        half,
        &support::harness_preamble(keypair(1).public()).encode()[..40],
    );
    let preamble_only = net.raw();
    net.send(
        preamble_only,
        &support::harness_preamble(keypair(1).public()).encode(),
    );
    let due = net.relay.poll_timeout().unwrap();
    assert_eq!(due, net.now + OPENING_TIMEOUT);
    net.relay.handle_timeout(due - Duration::from_millis(1));
    net.commands();
    assert!(net.closed.is_empty());
    net.relay.handle_timeout(due);
    net.commands();
    for conn in [silent, half, preamble_only] {
        assert!(net.closed.contains(&conn));
    }
    assert_eq!(net.relay.census().connections, 0);
    assert_eq!(net.relay.poll_timeout(), None);
    // Positive control: who is paired stays.
    let (mut net, _, harnesses) = paired(1);
    net.relay.handle_timeout(net.now + OPENING_TIMEOUT * 100);
    net.commands();
    assert!(net.closed.is_empty());
    assert!(net.end(harnesses[0]).link.is_up());
}

#[test]
fn a_closing_connection_that_takes_nothing_is_closed_by_its_deadline() {
    let (mut net, executor, harnesses) = paired(1);
    net.conns.get_mut(&harnesses[0]).unwrap().stuck = true;
    for _ in 0..2 {
        net.link(executor, 1)
            .link
            .enqueue(message(Lane::Bulk, 1, pattern(1024 * 1024, 1)))
            .unwrap();
    }
    net.drive();
    net.disconnect(executor);
    assert!(!net.closed.contains(&harnesses[0]), "its bytes are still queued");
    net.relay.handle_timeout(net.now + CLOSING_TIMEOUT);
    net.commands();
    assert!(net.closed.contains(&harnesses[0]));
    assert_eq!(net.relay.census().connections, 0);
    assert_eq!(net.relay.census().streams, 0);
}

#[test]
fn garbage_is_closed_without_a_word_and_an_unserved_version_with_one() {
    let mut net = Net::new(Admission::Open);
    let garbage = net.raw();
    net.send(garbage, b"GET / HTTP/1.1\r\n");
    let mut preamble = support::harness_preamble(keypair(1).public());
    (preamble.version_min, preamble.version_max) = (7, 9);
    let new = net.raw();
    net.send(new, &preamble.encode());
    net.drive();
    assert!(net.conns[&garbage].frames.is_empty() && net.closed.contains(&garbage));
    assert_eq!(net.conns[&new].frames[0].kind, OuterKind::Refused);
    assert!(net.closed.contains(&new));
    let faults: Vec<_> = net
        .reports
        .iter()
        .filter_map(|report| match report {
            Report::ConnectionFault { fault, .. } => Some(*fault),
            _ => None,
        })
        .collect();
    assert_eq!(faults, [ConnectionFault::NotDwell, ConnectionFault::NotServed]);
}

#[test]
fn a_malformed_frame_closes_its_connection_and_resets_its_stream() {
    let (mut net, executor, harnesses) = paired(2);
    net.send(harnesses[0], &[0xff; 28]);
    net.drive();
    assert!(net.closed.contains(&harnesses[0]));
    assert_eq!(net.link(executor, 1).closed_code(), Some(ResetCode::PeerGone));
    assert!(net.link(executor, 2).closed_code().is_none());
}

#[test]
fn pings_are_answered_and_a_flood_of_them_is_bounded() {
    let (mut net, _, harnesses) = paired(1);
    net.conns.get_mut(&harnesses[0]).unwrap().stuck = true;
    for _ in 0..100_000 {
        net.send(harnesses[0], &frame(OuterKind::Ping, stream(1), b"12345678"));
    }
    net.commands();
    let unread: usize = net.conns[&harnesses[0]]
        .unread
        .iter()
        .map(|bytes| bytes.len())
        .sum();
    assert!(unread <= SOCKET_MAX_BYTES + 64, "{unread}");
    assert!(net.relay.dropped().of(DropReason::PingUnanswered) > 90_000);
}

#[test]
fn executors_cannot_be_registered_by_a_harness_preamble_nor_dialled_by_an_executors() {
    let mut net = Net::new(Admission::Open);
    let conn = net.raw();
    let preamble = Preamble::new(Dialer::Executor, keypair(3).public(), stream(1), b"").unwrap();
    let mut bytes = BytesMut::from(&preamble.encode()[..]);
    bytes.put_slice(&frame(OuterKind::Data, stream(1), &[0; 64]));
    bytes.put_slice(&frame(OuterKind::Handshake, stream(1), &[9; 64]));
    net.send(conn, &bytes);
    net.drive();
    assert_eq!(net.relay.dropped().of(DropReason::UnexpectedKind), 1);
    assert_eq!(net.relay.census().executors, 0);
}

#[test]
fn a_thousand_streams_come_and_go_and_leave_nothing() {
    let (mut net, executor, _) = paired(0);
    let key = identity(50).public();
    for number in 0..200 {
        let harness = net.harness(key, 1_000 + number);
        assert!(net.end(harness).is_established());
        if number % 2 == 0 {
            net.disconnect(harness);
        } else {
            net.end(harness).link.close(&Reset::new(ResetCode::Closed));
            net.drive();
        }
    }
    let census = net.relay.census();
    assert_eq!((census.streams, census.connections, census.executors), (0, 1, 1));
    assert!(matches!(net.conns[&executor].party, Party::Executor(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn arbitrary_bytes_behind_any_beginning_never_panic_nor_reach_a_stream(
        beginning in 0..4_u8,
        bytes in vec(any::<u8>(), 0..500),
        cut in 1..100_usize,
    ) {
        let (mut net, executor, harnesses) = paired(1);
        let conn = net.raw();
        let mut all = BytesMut::new();
        let dialer = if beginning == 1 { Dialer::Harness } else { Dialer::Executor };
        if beginning > 0 {
            let preamble = Preamble::new(dialer, identity(50).public(), stream(3), b"").unwrap();
            all.put_slice(&preamble.encode());
        }
        if beginning == 3 {
            all.put_slice(&frame(OuterKind::Handshake, stream(3), &[7; 96]));
        }
        all.put_slice(&bytes);
        while !all.is_empty() {
            let piece = all.split_to(cut.min(all.len()));
            net.relay.received(net.now, conn, piece);
        }
        net.drive();
        net.end(harnesses[0]).link.enqueue(message(Lane::Control, 1, "alive")).unwrap();
        net.drive();
        prop_assert_eq!(&net.link(executor, 1).received[0].bytes[..], b"alive");
    }

    #[test]
    fn every_message_arrives_whole_whatever_is_stuck_for_a_while(
        script in vec((0..3_u8, 0..3_u128, 1..400_000_usize), 1..24),
    ) {
        let (mut net, executor, harnesses) = paired(3);
        let mut up = [0, 0, 0];
        let mut down = [0, 0, 0];
        for (action, number, length) in script {
            let at = number as usize;
            match action {
                0 => {
                    let bytes = pattern(length, up[at]);
                    if net.end(harnesses[at]).link.enqueue(message(Lane::Bulk, 1, bytes)).is_ok() {
                        up[at] += 1;
                    }
                }
                1 => {
                    let bytes = pattern(length, down[at]);
                    if net.link(executor, number + 1).link.enqueue(message(Lane::Bulk, 1, bytes)).is_ok() {
                        down[at] += 1;
                    }
                }
                _ => {
                    let conn = net.conns.get_mut(&harnesses[at]).unwrap();
                    conn.stuck = !conn.stuck;
                }
            }
            net.drive();
        }
        for harness in &harnesses {
            net.conns.get_mut(harness).unwrap().stuck = false;
        }
        net.drive();
        for at in 0..3 {
            let received = &net.link(executor, at as u128 + 1).received;
            prop_assert_eq!(received.len() as u64, up[at]);
            for (seed, message) in received.iter().enumerate() {
                prop_assert_eq!(&message.bytes, &pattern(message.bytes.len(), seed as u64));
            }
            let received = &net.end(harnesses[at]).received;
            prop_assert_eq!(received.len() as u64, down[at]);
            for (seed, message) in received.iter().enumerate() {
                prop_assert_eq!(&message.bytes, &pattern(message.bytes.len(), seed as u64));
            }
        }
        prop_assert_eq!(net.relay.dropped().total(), 0);
    }
}

fn source(number: u8) -> Source {
    Source::V4([192, 0, 2, number])
}

#[test]
fn a_relay_attests_who_is_admitted_by_its_list_and_tells_sources_apart() {
    let executor_key = identity(60);
    let admission = Admission::Listed {
        executors: vec![executor_key.public()],
        harness_tokens: vec![TokenHash::of(b"open sesame")],
    };
    let mut net = Net::new(admission);
    let executor = net.executor(&executor_key);
    for (number, from) in [(1, 1), (2, 1), (3, 2)] {
        net.source = source(from);
        net.harness_with(
            executor_key.public(),
            number,
            b"open sesame",
            support::unpaced_relayed(),
        );
        net.drive();
    }
    let attested = |net: &mut Net, number: u128| net.exec(executor).attested[&stream(number)];
    let all = [1, 2, 3].map(|number| attested(&mut net, number));
    assert!(all.iter().all(|attested| attested.vouching == Vouching::Vouched));
    assert_eq!(all[0].source, all[1].source);
    assert_ne!(all[0].source, all[2].source);
    // A relay that is open to everybody speaks for nobody.
    let (mut net, executor, _) = paired(1);
    assert_eq!(
        net.exec(executor).attested[&stream(1)].vouching,
        Vouching::Unvouched
    );
}

#[test]
fn a_message_1_without_a_right_mac_does_not_reach_the_executor() {
    let (mut net, executor, _) = paired(1);
    let conn = net.raw();
    let preamble = Preamble::new(Dialer::Harness, identity(50).public(), stream(9), b"").unwrap();
    net.send(conn, &preamble.encode());
    net.send(conn, &frame(OuterKind::Handshake, stream(9), &[0x5a; 200]));
    net.drive();
    let answer = &net.conns[&conn].frames;
    assert_eq!(answer.len(), 1);
    assert_eq!(
        Reset::decode(&answer[0].payload).unwrap(),
        Reset::new(ResetCode::Unavailable)
    );
    assert!(!net.exec(executor).attested.contains_key(&stream(9)));
    assert_eq!(net.relay.refused().streams(Unavailability::WrongMac), 1);
}

#[test]
fn connections_that_say_nothing_are_bounded_and_make_room_for_others() {
    let (mut net, _, harnesses) = paired(1);
    for from in 0..4 {
        net.source = source(from);
        for _ in 0..OPENING_LIMITS.per_source {
            net.raw();
        }
    }
    assert_eq!(net.relay.census().openings, OPENING_LIMITS.all);
    net.source = source(9);
    let late = net.harness(identity(50).public(), 2);
    assert!(net.end(late).is_established(), "the newest is served");
    assert!(
        net.end(harnesses[0]).error.is_none(),
        "and whoever is served stays so"
    );
    let made_room = net.relay.refused().connections(ConnectionFault::MadeRoom);
    assert_eq!(
        made_room as usize,
        4 * OPENING_LIMITS.per_source - OPENING_LIMITS.all + 1
    );
}

#[test]
fn a_source_has_so_many_connections_and_others_have_theirs() {
    let (mut net, _, _) = paired(0);
    net.source = source(1);
    let many = u128::try_from(CONNECTIONS_PER_SOURCE_MAX).unwrap();
    let first = net.harness(identity(50).public(), 1);
    for number in 2..=many {
        net.harness_with(identity(50).public(), number, b"", support::unpaced_relayed());
        if number % 100 == 0 {
            net.drive();
        }
    }
    net.drive();
    let count = |net: &Net| net.relay.refused().connections(ConnectionFault::TooManyOfSource);
    assert_eq!(count(&net), 0);
    let one_more = net.raw();
    net.drive();
    assert!(net.closed.contains(&one_more) && count(&net) == 1);
    net.source = source(2);
    let other = net.raw();
    net.drive();
    assert!(!net.closed.contains(&other));
    net.source = source(1);
    net.disconnect(first);
    let again = net.raw();
    net.drive();
    assert!(!net.closed.contains(&again), "a place came free");
}

#[test]
fn registrations_that_prove_nothing_are_cut_to_a_rate_and_honest_ones_are_not() {
    let mut net = Net::new(Admission::Open);
    net.source = source(1);
    let thief = identity(51);
    for _ in 0..200 {
        net.executor_named(&thief, identity(50).public());
        net.drive();
    }
    let refused = net.relay.refused();
    let computed = refused.registrations(RegistrationFailure::NotProven);
    assert!(
        computed >= u64::from(FAILURES_MAX) && computed <= u64::from(SOURCE_RATE.burst),
        "{computed}"
    );
    assert_eq!(
        refused.registrations(RegistrationFailure::TooMany),
        200 - computed
    );
    net.source = source(2);
    for seed in 100..200 {
        let honest = net.executor(&identity(seed));
        assert!(net.exec(honest).registered, "{seed}");
    }
}
