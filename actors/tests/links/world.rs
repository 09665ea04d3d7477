//! An executor behind a proxy that breaks its links, and a harness that goes on.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use dwell_actors::executor::{Executor, ExecutorBuilder, ExecutorHandle};
use dwell_actors::harness::{Harness, HarnessBuilder, Target};
use dwell_relay::StaticKeypair;
use dwell_testkit::{Direction, Fault, Plan, TcpFaultProxy};

use crate::support::{bounded, copy, keypair};

/// A small generator of our own, so that a seed says everything.
#[derive(Clone, Copy)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }
}

/// A seed from the environment, or one that is printed.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("DWELL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).unwrap();
        u64::from_ne_bytes(bytes) | 1
    });
    println!("DWELL_SEED={seed}");
    seed
}

/// Whether the long campaign was asked for.
pub(crate) fn soak() -> bool {
    std::env::var_os("DWELL_SOAK").is_some_and(|value| value == "1")
}

pub(crate) struct World {
    pub(crate) executor: ExecutorHandle,
    pub(crate) proxy: TcpFaultProxy,
    pub(crate) client: StaticKeypair,
    pub(crate) spool: tempfile::TempDir,
    identity: StaticKeypair,
    address: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(1 << 30, |builder| builder).await
    }

    pub(crate) async fn with(spool_bytes: u64, set: impl FnOnce(ExecutorBuilder) -> ExecutorBuilder) -> Self {
        let client = keypair();
        let spool = tempfile::tempdir().unwrap();
        let identity = keypair();
        let builder = Executor::builder()
            .identity(copy(&identity))
            .listen("127.0.0.1:0")
            .authorize(client.public())
            .spool(spool.path(), spool_bytes);
        let executor = set(builder).serve().await.unwrap();
        let address = executor.local_addr().unwrap();
        let upstream: SocketAddr = address.parse().unwrap();
        let proxy = TcpFaultProxy::start(upstream, 1).await.unwrap();
        Self {
            executor,
            proxy,
            client,
            spool,
            identity,
            address,
        }
    }

    /// The executor's next life, at the same address and with the same key.
    pub(crate) async fn restart(&mut self) {
        let builder = || {
            Executor::builder()
                .identity(copy(&self.identity))
                .listen(self.address.clone())
                .authorize(self.client.public())
        };
        // Dropping the old one frees the address; that takes a moment.
        let placeholder = Executor::builder().listen("127.0.0.1:0").serve().await.unwrap();
        drop(std::mem::replace(&mut self.executor, placeholder));
        let next = bounded("the next life", async {
            loop {
                match builder().serve().await {
                    Ok(executor) => return executor,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        self.executor = next;
    }

    /// A client that does not come through the proxy.
    pub(crate) async fn harness_of_its_own(&self) -> Harness {
        let target = self.direct();
        let builder = Harness::builder().identity(copy(&self.client)).sampled(false);
        bounded("connecting", builder.connect(target)).await.unwrap()
    }

    /// The executor without the proxy.
    pub(crate) fn direct(&self) -> Target {
        Target::direct(self.address.clone(), self.executor.public_key())
    }

    pub(crate) fn target(&self) -> Target {
        Target::direct(self.proxy.address().to_string(), self.executor.public_key())
    }

    pub(crate) async fn harness(&self) -> Harness {
        self.harness_with(|builder| builder).await
    }

    pub(crate) async fn harness_with(&self, set: impl FnOnce(HarnessBuilder) -> HarnessBuilder) -> Harness {
        let builder = Harness::builder().identity(copy(&self.client)).sampled(false);
        bounded("connecting", set(builder).connect(self.target()))
            .await
            .unwrap()
    }
}

/// A reset or a close after a random number of bytes, one way.
pub(crate) fn break_within(dice: &mut Dice, bytes: u64) -> Plan {
    let after_bytes = dice.below(bytes);
    let direction = if dice.below(2) == 0 {
        Direction::ToClient
    } else {
        Direction::ToUpstream
    };
    let fault = if dice.below(2) == 0 {
        Fault::Reset { after_bytes }
    } else {
        Fault::Truncate { after_bytes }
    };
    Plan::one(direction, fault)
}

/// Silence after a random number of bytes, one way.
pub(crate) fn stall_within(dice: &mut Dice, bytes: u64) -> Plan {
    let after_bytes = dice.below(bytes);
    let direction = if dice.below(2) == 0 {
        Direction::ToClient
    } else {
        Direction::ToUpstream
    };
    Plan::one(direction, Fault::Stall { after_bytes })
}

/// Waits, in turns of the runtime, until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    bounded(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}
