//! Who is not served, and that it looks the same to all of them.

use dwell_actors::executor::Executor;
use dwell_actors::harness::{ConnectError, RefusedBy, Target};
use dwell_actors::keys::AuthorizedClients;
use dwell_actors::relay_server::Relay;
use dwell_messages::StreamId;
use dwell_relay::{Dialer, Preamble, Reset, ResetCode};
use dwell_testkit::{TempHome, wait_until};

use crate::support::{
    ANY_STREAM, BOUND, Roles, answer_to, assert_works, bounded, connect_as, fake_server, frame_behind,
    frames, keypair, opening, wait,
};

#[tokio::test]
async fn a_client_that_is_not_listed_is_unavailable_and_leaves_no_session() {
    let roles = Roles::start().await;
    for target in [roles.through_relay(), roles.direct()] {
        let error = connect_as(&keypair(), target).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::HandshakeRefused { .. }),
            "{error:?}"
        );
        wait_until(BOUND, || roles.executor.sessions() == 0)
            .await
            .unwrap();
    }
    assert_works(&roles.harness().await).await;
}

/// Once a refused client's session stayed until its connection ended, which behind a relay is the executor's own.
#[tokio::test]
async fn strangers_that_never_hang_up_do_not_use_up_the_sessions() {
    let roles = Roles::start().await;
    let executor = roles.executor.public_key();
    let mut held = Vec::new();
    for index in 0..20_u8 {
        let bytes = opening(&keypair(), executor, StreamId([index; 16]));
        for address in [roles.relay_address(), roles.direct_address()] {
            use tokio::io::AsyncWriteExt as _;
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            bounded("the reset", stream.readable()).await.unwrap();
            held.push(stream);
        }
    }
    wait_until(std::time::Duration::from_secs(5), || {
        roles.executor.sessions() == 0
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stranger_the_relay_itself_and_garbage_get_the_same_bytes() {
    let roles = Roles::start().await;
    let executor = roles.executor.public_key();
    let stream = StreamId([7; 16]);
    let preamble = Preamble::new(Dialer::Harness, executor, stream, &[]).unwrap();
    for address in [roles.direct_address(), roles.relay_address()] {
        let garbage = answer_to(address, &frame_behind(&preamble, &[0x5a; 200])).await;
        let stranger = answer_to(address, &opening(&keypair(), executor, stream)).await;
        let relay = answer_to(address, &opening(&roles.relay_key, executor, stream)).await;
        let unknown = answer_to(address, &opening(&roles.client, keypair().public(), stream)).await;
        let resets = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let all = frames(bytes)
                .into_iter()
                .filter(|frame| frame.kind == dwell_messages::kinds::OuterKind::Reset);
            all.map(|frame| frame.payload.to_vec()).collect()
        };
        assert_eq!(resets(&garbage).len(), 1, "{garbage:?}");
        assert_eq!(
            Reset::decode(&resets(&garbage)[0]).unwrap(),
            Reset::new(ResetCode::Unavailable)
        );
        assert_eq!(resets(&stranger), resets(&garbage));
        assert_eq!(resets(&relay), resets(&garbage));
        assert_eq!(resets(&unknown), resets(&garbage));
        assert_eq!(stranger.len(), garbage.len());
        assert_eq!(relay.len(), garbage.len());
    }
}

#[tokio::test]
async fn a_missing_or_empty_list_serves_nobody_and_changes_hold_at_once() {
    let home = TempHome::new().unwrap();
    let list = home.dwell().join("authorized_clients");
    let client = keypair();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorized_clients(&list)
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let missing = connect_as(&client, target.clone()).await.unwrap_err();
    assert!(
        matches!(missing, ConnectError::HandshakeRefused { .. }),
        "{missing:?}"
    );

    AuthorizedClients::add(&list, &client.public(), "").unwrap();
    let harness = connect_as(&client, target.clone()).await.unwrap();
    assert_works(&harness).await;

    std::fs::write(&list, "# nobody\n").unwrap();
    let removed = connect_as(&client, target.clone()).await.unwrap_err();
    assert!(
        matches!(removed, ConnectError::HandshakeRefused { .. }),
        "{removed:?}"
    );
    let ended = wait(harness.exec(dwell_actors::harness::Command::new("sleep").arg("1000"))).await;
    assert!(
        ended.is_err(),
        "the session of a key that was taken off the list ends"
    );

    AuthorizedClients::add(&list, &keypair().public(), "").unwrap();
    AuthorizedClients::add(&list, &client.public(), "again").unwrap();
    assert_works(&connect_as(&client, target.clone()).await.unwrap()).await;
    std::fs::remove_file(&list).unwrap();
    assert!(connect_as(&client, target).await.is_err());
}

#[tokio::test]
async fn an_executor_without_any_list_serves_nobody() {
    let executor = Executor::builder().listen("127.0.0.1:0").serve().await.unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let error = connect_as(&keypair(), target).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::HandshakeRefused { .. }),
        "{error:?}"
    );
}

/// C-01, C-24: whoever answers with another key than the pinned one is named, by both fingerprints, and gets nothing.
#[tokio::test]
async fn another_executor_key_is_told_where_it_can_be_and_refused_everywhere() {
    let roles = Roles::start().await;
    let other = keypair().public();
    let direct = roles
        .connect(Target::direct(roles.executor.local_addr().unwrap(), other))
        .await
        .unwrap_err();
    match &direct {
        ConnectError::ExecutorKeyMismatch { pinned, served, .. } => {
            assert_eq!((*pinned, *served), (other, roles.executor.public_key()));
        }
        error => panic!("{error:?}"),
    }
    for key in [other, roles.executor.public_key()] {
        assert!(
            direct.to_string().contains(&dwell_relay::fingerprint(&key)),
            "{direct}"
        );
    }
    let relayed = roles
        .connect(Target::relay(roles.relay.local_addr(), other))
        .await
        .unwrap_err();
    assert!(
        matches!(
            relayed,
            ConnectError::HandshakeRefused {
                by: RefusedBy::Relay,
                ..
            }
        ),
        "{relayed:?}"
    );
}

/// C-14: what the executor says in the clear tells a refused client from a wrong key, and never makes a link.
#[tokio::test]
async fn a_refused_client_hears_that_the_key_was_right() {
    let roles = Roles::start().await;
    let error = connect_as(&keypair(), roles.direct()).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::HandshakeRefused {
                by: RefusedBy::Executor,
                ..
            }
        ),
        "{error:?}"
    );
    let silent = fake_server(reset_unavailable(), true).await;
    let error = connect_as(&keypair(), Target::direct(silent.to_string(), keypair().public()))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::HandshakeRefused {
                by: RefusedBy::Silent,
                ..
            }
        ),
        "{error:?}"
    );
}

fn reset_unavailable() -> Vec<u8> {
    let mut payload = bytes::BytesMut::new();
    Reset::new(ResetCode::Unavailable).encode(&mut payload);
    let mut out = bytes::BytesMut::new();
    let kind = dwell_messages::kinds::OuterKind::Reset;
    dwell_relay::encode_outer(&mut out, kind, StreamId(ANY_STREAM), 0, &payload);
    out.to_vec()
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
    let target = Target::relay(relay.local_addr(), keypair().public());
    bounded("the relay's end", relay.shutdown()).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = connect_as(&keypair(), Target::relay(free.to_string(), keypair().public()))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    let error = connect_as(&keypair(), target).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "a relay that was shut down: {error:?}"
    );
}
