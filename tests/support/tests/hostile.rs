//! The hostile relay's own tests: every rule does what it says, is logged, and ends with a heal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use bytes::Bytes;
use dwell_testkit::{
    Canaries, Direction, FrameLane, FrameRule, FrameStep, HostileProxy, Hostility, RuleKind, Seen, Watch,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A frame of stream `stream` with this payload.
fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend([3, 0, 0, 0]);
    bytes.extend([stream; 16]);
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn preamble() -> Vec<u8> {
    let mut bytes = vec![9; 64];
    bytes[15] = 3;
    bytes.extend(b"tok");
    bytes
}

fn written(steps: &[FrameStep]) -> Vec<u8> {
    let bytes = steps.iter().filter_map(|step| match step {
        FrameStep::Write(bytes) => Some(bytes.to_vec()),
        _ => None,
    });
    bytes.collect::<Vec<_>>().concat()
}

/// What comes of three frames when the second is subject to a rule.
fn with(rule: FrameRule) -> (Vec<FrameStep>, FrameLane) {
    let mut lane = FrameLane::new(Direction::ToUpstream, 0, Hostility::none(), 1).scripted([(1, rule)]);
    let mut seen = Seen::default();
    let mut steps = lane.push(&preamble(), &mut seen);
    // Cut anywhere: frames are put together first.
    for byte in [frame(1, b"one"), frame(2, b"two"), frame(1, b"three")].concat() {
        steps.extend(lane.push(&[byte], &mut seen));
    }
    (steps, lane)
}

#[test]
fn every_rule_does_to_its_frame_what_it_says_and_is_logged() {
    let (one, two, three) = (frame(1, b"one"), frame(2, b"two"), frame(1, b"three"));
    let all = |frames: &[&[u8]]| [&[preamble().as_slice()], frames].concat().concat();
    let second = Duration::from_secs(1);
    let mut flipped = two.clone();
    flipped[30] ^= 2;
    let spliced = frame(1, b"two");
    let cases: Vec<(FrameRule, Vec<u8>)> = vec![
        (FrameRule::Drop, all(&[&one, &three])),
        (FrameRule::Delay { by: second }, all(&[&one, &two, &three])),
        (
            FrameRule::Duplicate { copies: 2 },
            all(&[&one, &two, &two, &two, &three]),
        ),
        (FrameRule::Reorder { behind: 1 }, all(&[&one, &three, &two])),
        (
            FrameRule::Truncate { at_byte: 29 },
            all(&[&one, &two[..29], &three]),
        ),
        (
            FrameRule::Flip { bit: 30 * 8 + 1 },
            all(&[&one, &flipped, &three]),
        ),
        (FrameRule::Stall, all(&[&one, &two, &three])),
        (
            FrameRule::Throttle { bytes_per_second: 31 },
            all(&[&one, &two, &three]),
        ),
        (FrameRule::HalfClose, all(&[&one])),
        (FrameRule::Reset, all(&[&one])),
        (FrameRule::Splice, all(&[&one, &spliced, &three])),
        (FrameRule::Replay { back: 0 }, all(&[&one, &two, &one, &three])),
        (FrameRule::Restart, all(&[&one])),
        (FrameRule::Orphan { by: second }, all(&[&one])),
    ];
    let mut kinds: Vec<_> = cases.iter().map(|(rule, _)| rule.kind()).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), RuleKind::ALL.len(), "each kind has its case");
    for (rule, expected) in cases {
        let (steps, mut lane) = with(rule);
        assert_eq!(written(&steps), expected, "{rule:?}");
        let log = lane.take_applied();
        assert_eq!(log.len(), 1);
        assert_eq!((log[0].rule, log[0].frame, log[0].bytes), (rule, 1, 31));
        let last = steps.last().unwrap();
        match rule {
            FrameRule::HalfClose => assert_eq!(last, &FrameStep::HalfClose),
            FrameRule::Reset => assert_eq!(last, &FrameStep::Reset),
            FrameRule::Restart => assert_eq!(last, &FrameStep::Restart),
            FrameRule::Orphan { by } => {
                assert_eq!(last, &FrameStep::Orphan(by, Bytes::from(two.clone())));
            }
            FrameRule::Delay { by } => assert!(steps.contains(&FrameStep::Pause(by))),
            FrameRule::Throttle { .. } => assert!(steps.contains(&FrameStep::Pause(second))),
            FrameRule::Stall => assert!(steps.contains(&FrameStep::Stall)),
            FrameRule::Drop
            | FrameRule::Duplicate { .. }
            | FrameRule::Reorder { .. }
            | FrameRule::Truncate { .. }
            | FrameRule::Flip { .. }
            | FrameRule::Splice
            | FrameRule::Replay { .. } => {}
        }
    }
}

#[test]
fn the_same_seed_applies_the_same_rules_and_a_heal_ends_them() {
    let run = |seed| {
        let mut lane = FrameLane::new(Direction::ToUpstream, 0, Hostility::every_rule(5), seed);
        let mut seen = Seen::default();
        lane.push(&preamble(), &mut seen);
        let mut applied = Vec::new();
        for number in 0..200_u8 {
            lane.push(&frame(number % 7, &[number; 40]), &mut seen);
            applied.extend(lane.take_applied());
        }
        applied
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let kinds = vec![
        RuleKind::Drop,
        RuleKind::Flip,
        RuleKind::Reorder,
        RuleKind::Throttle,
    ];
    let mut lane = FrameLane::new(Direction::ToClient, 0, Hostility { one_in: 2, kinds }, 7);
    let mut seen = Seen::default();
    for number in 0..20_u8 {
        lane.push(&frame(1, &[number; 40]), &mut seen);
    }
    assert!(!lane.take_applied().is_empty());
    lane.heal();
    for number in 0..200_u8 {
        let steps = lane.push(&frame(3, &[number; 40]), &mut seen);
        assert!(
            steps.iter().all(|step| matches!(step, FrameStep::Write(_))),
            "{steps:?}"
        );
    }
    assert!(lane.take_applied().is_empty());
}

#[test]
fn what_is_no_frame_passes_as_bytes() {
    let mut lane = FrameLane::new(Direction::ToClient, 0, Hostility::every_rule(1), 1);
    let mut seen = Seen::default();
    let text = b"HTTP/1.1 101 Switching Protocols\r\n";
    assert_eq!(written(&lane.push(text, &mut seen)), text);
    assert_eq!(written(&lane.push(b"more", &mut seen)), b"more");
}

#[test]
fn a_canary_is_seen_however_it_is_cut_and_once() {
    let canaries = Canaries::new(["canary-one", "canary-other"]);
    let text = b"..canary-one..canary-canary-other..";
    for cut in 1..text.len() {
        let mut watch = Watch::default();
        let mut found = Vec::new();
        for piece in text.chunks(cut) {
            found.extend(watch.search(&canaries, piece));
        }
        assert_eq!(found, [b"canary-one".to_vec(), b"canary-other".to_vec()], "{cut}");
    }
    assert!(Watch::default().search(&canaries, b"canary-on").is_empty());
}

#[tokio::test]
async fn a_proxy_applies_rules_counts_them_and_sees_what_is_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = HostileProxy::start(listener.local_addr().unwrap(), 1)
        .await
        .unwrap();
    proxy.watch_for(Canaries::new(["canary"]));
    proxy.script_next(
        vec![(0, FrameRule::Duplicate { copies: 1 })],
        vec![(0, FrameRule::Stall)],
    );
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let sent = frame(1, b"a canary");
    client
        .write_all(&[preamble(), sent.clone()].concat())
        .await
        .unwrap();
    let mut got = vec![0; 67 + 2 * sent.len()];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [preamble(), sent.clone(), sent].concat());
    assert_eq!(proxy.sightings(), [(Direction::ToUpstream, b"canary".to_vec())]);
    let back = frame(1, b"back");
    server.write_all(&back).await.unwrap();
    let mut got = vec![0; back.len()];
    let reading = tokio::time::timeout(Duration::from_millis(50), client.read_exact(&mut got)).await;
    assert!(reading.is_err(), "it is stalled");
    proxy.heal();
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, back);
    assert_eq!(proxy.counts()[&RuleKind::Duplicate], 1);
    assert_eq!(proxy.counts()[&RuleKind::Stall], 1);
    proxy.restart();
    assert!(client.read(&mut got).await.is_err(), "a reset");
}

#[tokio::test]
async fn an_orphaned_end_gets_what_was_sent_after_its_sender_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = HostileProxy::start(listener.local_addr().unwrap(), 1)
        .await
        .unwrap();
    let by = Duration::from_millis(20);
    proxy.script_next(vec![(1, FrameRule::Orphan { by })], Vec::new());
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let (first, second) = (frame(1, b"first"), frame(1, b"second"));
    client
        .write_all(&[preamble(), first.clone(), second.clone()].concat())
        .await
        .unwrap();
    let mut byte = [0];
    assert!(client.read(&mut byte).await.is_err(), "its sender is reset");
    let mut got = vec![0; 67 + first.len() + second.len()];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [preamble(), first, second].concat());
}
