//! Three roles that are looked at, and asking them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use dwell_actors::executor::{Executor, ExecutorBuilder, ExecutorHandle};
use dwell_actors::harness::{Command, Harness, HarnessBuilder, Run, RunEvent, Target};
use dwell_actors::inspect::view::Snapshot;
use dwell_actors::inspect::{ask, candidates};
use dwell_actors::oversight::Oversight;
use dwell_actors::relay_server::{Relay, RelayHandle};
use dwell_messages::Role;
use dwell_relay::{OsRandomness, StaticKeypair};
use dwell_testkit::{TcpFaultProxy, wait_until};
use tempfile::TempDir;
use zeroize::Zeroizing;

/// The longest anything here may take.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {BOUND:?}"),
    }
}

pub(crate) fn keypair() -> StaticKeypair {
    StaticKeypair::generate(&mut OsRandomness::new()).unwrap()
}

pub(crate) fn copy(pair: &StaticKeypair) -> StaticKeypair {
    StaticKeypair::from_private(Zeroizing::new(*pair.expose_private()))
}

/// A directory that only its owner may enter, for the sockets.
pub(crate) fn private_dir() -> TempDir {
    let private = Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(private).tempdir().unwrap()
}

/// A relay, an executor registered with it, and a proxy between the relay and whoever asks.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) relay: RelayHandle,
    pub(crate) executor: ExecutorHandle,
    pub(crate) proxy: TcpFaultProxy,
    pub(crate) client: StaticKeypair,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    pub(crate) async fn with(set: impl FnOnce(ExecutorBuilder) -> ExecutorBuilder) -> Self {
        let (dir, client) = (private_dir(), keypair());
        let relay = Relay::builder()
            .listen("127.0.0.1:0")
            .oversight(watched(dir.path()))
            .serve()
            .await
            .unwrap();
        let builder = Executor::builder()
            .relay(relay.local_addr())
            .listen("127.0.0.1:0")
            .authorize(client.public())
            .arbiters(1)
            .oversight(watched(dir.path()));
        let executor = set(builder).serve().await.unwrap();
        bounded("registering", executor.registered()).await.unwrap();
        let proxy = TcpFaultProxy::start(relay.local_addr().parse().unwrap(), 1)
            .await
            .unwrap();
        Self {
            dir,
            relay,
            executor,
            proxy,
            client,
        }
    }

    /// Through the relay, and the proxy before it.
    pub(crate) fn relayed(&self) -> Target {
        Target::relay(self.proxy.address().to_string(), self.executor.public_key())
    }

    pub(crate) fn direct(&self) -> Target {
        Target::direct(self.executor.local_addr().unwrap(), self.executor.public_key())
    }

    pub(crate) async fn harness(
        &self,
        target: Target,
        set: impl FnOnce(HarnessBuilder) -> HarnessBuilder,
    ) -> Harness {
        let builder = Harness::builder()
            .identity(copy(&self.client))
            .sampled(false)
            .oversight(watched(self.dir.path()));
        bounded("connecting", set(builder).connect(target)).await.unwrap()
    }

    pub(crate) fn look(&self, role: Role) -> Snapshot {
        look(self.dir.path(), role)
    }

    /// Waits until a role says that something of this kind is stuck, and that nothing else is.
    pub(crate) async fn until_stuck(&self, role: Role, what: &str) -> Snapshot {
        until(&format!("{what} is seen"), || {
            self.look(role).stuck.iter().any(|stuck| stuck.what == what)
        })
        .await;
        self.look(role)
    }
}

pub(crate) fn watched(dir: &Path) -> Oversight {
    Oversight::new().inspect(dir)
}

/// What the one role of this kind answers.
pub(crate) fn look(dir: &Path, role: Role) -> Snapshot {
    let mut all = candidates(dir).unwrap();
    all.retain(|candidate| candidate.role == role);
    let mut answers = ask(all);
    assert_eq!(answers.len(), 1, "one {role:?} answers");
    answers.remove(0).answer.unwrap()
}

/// Waits, within the bound, until something holds.
pub(crate) async fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(
        wait_until(BOUND, holds).await.is_ok(),
        "{what}: not within {BOUND:?}"
    );
}

/// Starts a command and waits until it runs; gives its process id.
pub(crate) async fn started(harness: &Harness, command: Command) -> (Run, u32) {
    let mut run = harness.exec(command);
    let first = bounded("the start", run.next()).await;
    let Some(RunEvent::Started { pid, .. }) = first else {
        panic!("a start comes first, not {first:?}");
    };
    (run, pid)
}
