//! Peers that speak another version, or nothing at all.

use std::time::Duration;

use bytes::BytesMut;
use dwell_actors::harness::ConnectError;
use dwell_messages::StreamId;
use dwell_messages::kinds::OuterKind;
use dwell_relay::preamble::PREAMBLE_MAGIC;
use dwell_relay::{Dialer, Preamble, Refusal, RefusalReason, encode_outer};
use dwell_testkit::wait_until;

use crate::support::{
    ANY_STREAM, Roles, answer_to, assert_works, connect_as, fake_server, frame_behind, frames, keypair,
    opening,
};

const DIALLING_MAX: Duration = Duration::from_secs(21);

fn preamble(roles: &Roles) -> Preamble {
    Preamble::new(
        Dialer::Harness,
        roles.executor.public_key(),
        StreamId([3; 16]),
        &[],
    )
    .unwrap()
}

#[tokio::test]
async fn a_dialler_of_other_versions_is_refused_in_the_clear_with_what_is_served() {
    let roles = Roles::start().await;
    let newer = Preamble {
        version_min: 7,
        version_max: 9,
        ..preamble(&roles)
    };
    let suite = Preamble {
        suite: 99,
        ..preamble(&roles)
    };
    for address in [roles.direct_address(), roles.relay_address()] {
        for (preamble, reason) in [(newer, RefusalReason::Version), (suite, RefusalReason::Suite)] {
            let answer = answer_to(address, &frame_behind(&preamble, &[1; 96])).await;
            let refused = frames(&answer)
                .into_iter()
                .find(|frame| frame.kind == OuterKind::Refused);
            let refusal = Refusal::decode(&refused.expect("a refusal").payload).unwrap();
            assert_eq!(refusal.reason, reason);
            assert_eq!((refusal.version_min, refusal.version_max), (1, 1));
        }
    }
    assert_works(&roles.harness().await).await;
}

#[tokio::test]
async fn a_refusal_is_told_with_what_to_do() {
    let refusal = Refusal {
        reason: RefusalReason::Version,
        version_min: 7,
        version_max: 9,
        suites: vec![4],
        text: "too old".into(),
    };
    let mut payload = BytesMut::new();
    refusal.encode(&mut payload);
    let mut answer = BytesMut::new();
    encode_outer(&mut answer, OuterKind::Refused, StreamId(ANY_STREAM), 0, &payload);
    for close in [false, true] {
        let server = fake_server(answer.to_vec(), close).await;
        let error = connect_as(&keypair(), target(server)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("upgrade") && text.contains('7') && text.contains('9'),
            "{text}"
        );
    }
}

fn target(address: std::net::SocketAddr) -> dwell_actors::harness::Target {
    dwell_actors::harness::Target::relay(address.to_string(), keypair().public())
}

fn header(length: u32, kind: u8) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend([kind, 0, 0, 0]);
    bytes.extend(ANY_STREAM);
    bytes.extend([0; 4]);
    bytes
}

#[tokio::test]
async fn whatever_a_server_answers_the_harness_has_a_typed_error_in_time() {
    let mut handshake = header(96, OuterKind::Handshake.to_wire());
    handshake.extend([0xa5; 96]);
    let mut early = header(64, OuterKind::Data.to_wire());
    early.extend([0xa5; 64]);
    let mut reset = header(2, OuterKind::Reset.to_wire());
    reset.extend([0xff, 0xff]);
    let mut bad_text = header(4, OuterKind::Reset.to_wire());
    bad_text.extend([0, 1, 0xff, 0xfe]);
    let answers: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        (
            "http",
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec(),
        ),
        ("zeroes", vec![0; 4096]),
        ("ones", vec![0xff; 4096]),
        ("unknown kind", header(4, 0x77)),
        ("oversize", header(u32::MAX, OuterKind::Data.to_wire())),
        (
            "too long a handshake",
            header(16 * 1024 + 1, OuterKind::Handshake.to_wire()),
        ),
        ("a truncated frame", header(96, OuterKind::Handshake.to_wire())),
        (
            "half a header",
            header(96, OuterKind::Handshake.to_wire())[..11].to_vec(),
        ),
        ("a handshake that does not verify", handshake),
        ("data before the handshake", early),
        (
            "registered",
            [header(2, OuterKind::Registered.to_wire()), vec![0, 1]].concat(),
        ),
        ("a reset of unknown code", reset),
        ("a reset with bad text", bad_text),
    ];
    let mut dials = tokio::task::JoinSet::new();
    for (name, answer) in answers {
        for close in [false, true] {
            let answer = answer.clone();
            dials.spawn(async move {
                let server = fake_server(answer, close).await;
                let begun = std::time::Instant::now();
                let error = connect_as(&keypair(), target(server)).await.expect_err(name);
                assert!(matches!(error, ConnectError::Failed { .. }), "{name}: {error:?}");
                assert!(begun.elapsed() < DIALLING_MAX, "{name}: {:?}", begun.elapsed());
            });
        }
    }
    while let Some(dialled) = dials.join_next().await {
        dialled.unwrap();
    }
}

#[tokio::test]
async fn garbage_at_executor_and_relay_ends_that_connection_and_no_other() {
    let roles = Roles::start().await;
    let (relayed, direct) = (
        roles.harness().await,
        roles.connect(roles.direct()).await.unwrap(),
    );
    let whole = opening(&keypair(), roles.executor.public_key(), StreamId([3; 16]));
    let clear = preamble(&roles).encode();
    let mut flipped_role = clear;
    flipped_role[14] = 9;
    let behind = |bytes: Vec<u8>| [clear.to_vec(), bytes].concat();
    let inputs: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 10_000],
        vec![0xff; 100_000],
        flipped_role.to_vec(),
        behind(header(4, 0x77)),
        behind(header(u32::MAX, OuterKind::Data.to_wire())),
        behind(header(8, OuterKind::Open.to_wire())),
        behind([header(2, OuterKind::Registered.to_wire()), vec![0, 1]].concat()),
        [PREAMBLE_MAGIC.to_vec(), vec![0xff; 200]].concat(),
        [whole.clone(), header(4, 0x77)].concat(),
    ];
    for address in [roles.direct_address(), roles.relay_address()] {
        for input in &inputs {
            answer_to(address, input).await;
        }
    }
    assert_works(&relayed).await;
    assert_works(&direct).await;
    assert_works(&roles.harness().await).await;
    wait_until(Duration::from_secs(5), || roles.executor.sessions() <= 3)
        .await
        .unwrap();
}

#[tokio::test]
async fn half_an_opening_is_given_up_in_time() {
    let roles = Roles::start().await;
    let whole = opening(&roles.client, roles.executor.public_key(), StreamId([3; 16]));
    let mut tries = tokio::task::JoinSet::new();
    for address in [roles.direct_address(), roles.relay_address()] {
        for length in [0, 5, 63, 64, 80, whole.len() - 1, whole.len()] {
            let part = whole[..length].to_vec();
            tries.spawn(async move { answer_to(address, &part).await });
        }
    }
    while let Some(tried) = tries.join_next().await {
        tried.unwrap();
    }
    wait_until(Duration::from_secs(15), || roles.executor.sessions() == 0)
        .await
        .unwrap();
    assert_works(&roles.harness().await).await;
}
