//! Harness, relay and executor in one process.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::time::Duration;

use dwell_actors::Address;
use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::{Command, ConnectError, Finished, Harness, Target};
use dwell_actors::relay_server::{Relay, RelayHandle};
use dwell_messages::ExitStatus;
use dwell_relay::driver::tls::{Certificate, Trust};
use dwell_relay::{OsRandomness, StaticKeypair};
use dwell_testkit::Authority;

async fn run(harness: &Harness, command: Command) -> Finished {
    tokio::time::timeout(Duration::from_secs(20), harness.exec(command).wait())
        .await
        .expect("the run ends")
        .unwrap()
}

async fn relayed() -> (RelayHandle, ExecutorHandle, Harness) {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
    let executor = Executor::builder()
        .relay(relay.local_addr())
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    executor.registered().await.unwrap();
    let target = Target::relay(relay.local_addr(), executor.public_key());
    let harness = Harness::builder().identity(client).connect(target).await.unwrap();
    (relay, executor, harness)
}

#[tokio::test]
async fn a_command_runs_directly_and_its_output_status_and_account_come_back() {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let harness = Harness::builder().identity(client).connect(target).await.unwrap();
    let finished = run(
        &harness,
        Command::new("sh").args(["-c", "echo out; echo err >&2; exit 7"]),
    )
    .await;
    assert_eq!(finished.status, ExitStatus::Code(7));
    assert_eq!(finished.stdout.to_text(), "out\n");
    assert_eq!(finished.stderr.to_text(), "err\n");
    harness.shutdown().await;
    executor.shutdown().await;
}

#[tokio::test]
async fn a_command_runs_through_a_relay() {
    let (relay, executor, harness) = relayed().await;
    for _ in 0..20 {
        let finished = run(&harness, Command::new("true")).await;
        assert_eq!(finished.status, ExitStatus::Code(0));
        println!("{}", finished.timings);
    }
    let finished = run(
        &harness,
        Command::new("head").args(["-c", "200000000", "/dev/zero"]),
    )
    .await;
    assert_eq!(finished.output_bytes, [200_000_000, 0]);
    println!("{}", finished.timings);
    harness.shutdown().await;
    executor.shutdown().await;
    relay.shutdown().await;
}

/// A relay and an executor that have certificates, the relay dialled by that scheme.
struct Secured {
    authority: Authority,
    client: StaticKeypair,
    relay: RelayHandle,
    executor: ExecutorHandle,
    scheme: &'static str,
}

impl Secured {
    async fn start(scheme: &'static str) -> Self {
        let authority = Authority::new().unwrap();
        let certificate =
            || Certificate::load(&authority.file("cert.pem"), &authority.file("key.pem")).unwrap();
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let relay = Relay::builder()
            .listen("127.0.0.1:0")
            .tls(certificate())
            .serve()
            .await
            .unwrap();
        let address = Address::from(format!("{scheme}://{}", relay.local_addr()));
        let executor = Executor::builder()
            .relay(address.trusting(Trust::load(&authority.file("ca.pem")).unwrap()))
            .listen("127.0.0.1:0")
            .tls(certificate())
            .authorize(client.public())
            .serve()
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(20), executor.registered())
            .await
            .expect("in time")
            .unwrap();
        Self {
            authority,
            client,
            relay,
            executor,
            scheme,
        }
    }

    /// A WebSocket's address may have one.
    fn path(&self) -> &'static str {
        if self.scheme.starts_with("ws") {
            "/a/path"
        } else {
            ""
        }
    }

    async fn connect(&self, direct: bool, trust: Trust) -> Result<Harness, ConnectError> {
        let executor = self.executor.public_key();
        let target = if direct {
            let listens = self.executor.local_addr().unwrap();
            let address = format!("{}://{listens}{}", self.scheme, self.path());
            Target::direct(Address::from(address).trusting(trust), executor)
        } else {
            let address = format!("{}://{}{}", self.scheme, self.relay.local_addr(), self.path());
            Target::relay(Address::from(address).trusting(trust), executor)
        };
        let identity = StaticKeypair::from_private(zeroize::Zeroizing::new(*self.client.expose_private()));
        Harness::builder().identity(identity).connect(target).await
    }
}

#[tokio::test]
async fn a_command_runs_over_websockets_and_tls_through_a_relay_and_directly_with_the_same_output() {
    for scheme in ["tcp", "tls", "ws", "wss"] {
        let secured = Secured::start(scheme).await;
        for direct in [false, true] {
            let trust = Trust::load(&secured.authority.file("ca.pem")).unwrap();
            let harness = secured.connect(direct, trust).await.unwrap();
            let finished = run(
                &harness,
                Command::new("sh").args(["-c", "echo out; echo err >&2; exit 7"]),
            )
            .await;
            assert_eq!(finished.status, ExitStatus::Code(7), "{scheme} {direct}");
            assert_eq!(finished.stdout.to_text(), "out\n");
            assert_eq!(finished.stderr.to_text(), "err\n");
            let flood = run(
                &harness,
                Command::new("head").args(["-c", "20000000", "/dev/zero"]),
            )
            .await;
            assert_eq!(flood.output_bytes, [20_000_000, 0], "{scheme} {direct}");
            harness.shutdown().await;
        }
        secured.executor.shutdown().await;
        secured.relay.shutdown().await;
    }
}

#[tokio::test]
async fn a_relay_whose_certificate_is_not_trusted_is_not_used_and_the_error_says_what_to_do() {
    let secured = Secured::start("wss").await;
    for direct in [false, true] {
        let error = secured.connect(direct, Trust::default()).await.unwrap_err();
        let ConnectError::Transport { source, .. } = &error else {
            panic!("{error}")
        };
        assert!(source.to_string().contains("--tls-ca"), "{source}");
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_told_and_not_tried_again() {
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let target = Target::direct("http://127.0.0.1:1", client.public());
    let error = Harness::connect(target).await.unwrap_err();
    assert!(matches!(error, ConnectError::Transport { .. }), "{error}");
    let executor = Executor::builder()
        .relay("http://127.0.0.1:1")
        .serve()
        .await
        .unwrap();
    let failed = tokio::time::timeout(Duration::from_secs(20), executor.registered())
        .await
        .expect("in time")
        .unwrap_err();
    assert!(failed.to_string().contains("wss://HOST:PORT/PATH"), "{failed}");
}
