//! Who is not served, and that it looks the same to all of them.

use dwell_actors::executor::Executor;
use dwell_actors::harness::{ConnectError, Target};
use dwell_actors::keys::AuthorizedClients;
use dwell_actors::relay_server::Relay;
use dwell_messages::StreamId;
use dwell_relay::{Dialer, Preamble, Reset, ResetCode};
use dwell_testkit::{TempHome, wait_until};

use crate::support::{
    BOUND, Roles, answer_to, assert_works, bounded, connect_as, frame_behind, frames, keypair, opening,
};

#[tokio::test]
async fn a_client_that_is_not_listed_is_unavailable_and_leaves_no_session() {
    let roles = Roles::start().await;
    for target in [roles.through_relay(), roles.direct()] {
        let error = connect_as(&keypair(), target).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unavailable { .. }), "{error:?}");
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
async fn a_missing_or_empty_list_serves_nobody_and_changes_hold_at_the_next_connect() {
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
    assert!(matches!(missing, ConnectError::Unavailable { .. }), "{missing:?}");

    AuthorizedClients::add(&list, &client.public(), "").unwrap();
    let harness = connect_as(&client, target.clone()).await.unwrap();
    assert_works(&harness).await;

    std::fs::write(&list, "# nobody\n").unwrap();
    let removed = connect_as(&client, target.clone()).await.unwrap_err();
    assert!(matches!(removed, ConnectError::Unavailable { .. }), "{removed:?}");
    assert_works(&harness).await;

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
    assert!(matches!(error, ConnectError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_wrong_or_unknown_executor_key_is_unavailable() {
    let roles = Roles::start().await;
    let other = keypair().public();
    for target in [
        Target::relay(roles.relay.local_addr(), other),
        Target::direct(roles.executor.local_addr().unwrap(), other),
    ] {
        let error = roles.connect(target).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unavailable { .. }), "{error:?}");
    }
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
