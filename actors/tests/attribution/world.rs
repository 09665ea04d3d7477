//! The three roles in one process, each on threads of its own, and what is true of every account.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::harness::{CallTimings, Command, Finished, Harness, HarnessBuilder, Run, Target};
use dwell_actors::relay_server::{Relay, RelayHandle};
use dwell_relay::{OsRandomness, StaticKeypair};
use dwell_testkit::TcpFaultProxy;
use tokio::sync::{Mutex, MutexGuard};
use zeroize::Zeroizing;

/// The longest anything here may take.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Delays are planted for the whole process, and load moves every figure: one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}

pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {BOUND:?}"),
    }
}

/// How a harness reaches the executor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    Direct,
    Relay,
}

pub(crate) struct World {
    relay: RelayHandle,
    executor: ExecutorHandle,
    client: StaticKeypair,
}

impl World {
    pub(crate) async fn start() -> Self {
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
        let executor = Executor::builder()
            .relay(relay.local_addr())
            .listen("127.0.0.1:0")
            .authorize(client.public())
            .serve()
            .await
            .unwrap();
        bounded("registering", executor.registered()).await.unwrap();
        Self {
            relay,
            executor,
            client,
        }
    }

    fn address(&self, route: Route) -> SocketAddr {
        match route {
            Route::Direct => self.executor.local_addr().unwrap(),
            Route::Relay => self.relay.local_addr(),
        }
        .parse()
        .unwrap()
    }

    /// A proxy before whom the harness dials.
    pub(crate) async fn proxy(&self, route: Route) -> TcpFaultProxy {
        TcpFaultProxy::start(self.address(route), 1).await.unwrap()
    }

    fn target(&self, route: Route, address: SocketAddr) -> Target {
        match route {
            Route::Direct => Target::direct(address.to_string(), self.executor.public_key()),
            Route::Relay => Target::relay(address.to_string(), self.executor.public_key()),
        }
    }

    fn builder(&self) -> HarnessBuilder {
        let client = StaticKeypair::from_private(Zeroizing::new(*self.client.expose_private()));
        Harness::builder().identity(client).sampled(false)
    }

    pub(crate) async fn harness(&self, route: Route) -> Harness {
        let target = self.target(route, self.address(route));
        bounded("connecting", self.builder().connect(target))
            .await
            .unwrap()
    }

    pub(crate) async fn harness_through(&self, route: Route, proxy: &TcpFaultProxy) -> Harness {
        let target = self.target(route, proxy.address());
        bounded("connecting", self.builder().connect(target))
            .await
            .unwrap()
    }

    /// One whose calls are traced into that directory.
    pub(crate) async fn traced(&self, route: Route, dir: &Path) -> Harness {
        self.traced_at(self.target(route, self.address(route)), dir).await
    }

    pub(crate) async fn traced_through(&self, route: Route, proxy: &TcpFaultProxy, dir: &Path) -> Harness {
        self.traced_at(self.target(route, proxy.address()), dir).await
    }

    async fn traced_at(&self, target: Target, dir: &Path) -> Harness {
        let builder = self.builder().traces(dir).sampled(true);
        bounded("connecting", builder.connect(target)).await.unwrap()
    }
}

pub(crate) fn shell(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

/// A call, and how long it was by the watch of whoever made it.
pub(crate) async fn timed(run: Run, begun: Instant) -> (Finished, Duration) {
    let finished = bounded("a run", run.wait()).await.unwrap();
    (finished, begun.elapsed())
}

pub(crate) fn sum(segments: &[(&'static str, u64)]) -> u64 {
    segments.iter().map(|(_, micros)| micros).sum()
}

/// What is true of every account. Figures are whole microseconds that lose nothing, so the sum is exact.
pub(crate) fn judge(call: &CallTimings) -> Result<(), String> {
    let parts = sum(&call.harness)
        + sum(&call.executor)
        + call.transit_us
        + call.unattributed_harness_us
        + call.unattributed_executor_us;
    if parts != call.total_us {
        return Err(format!(
            "the parts are {parts} µs and the whole {}",
            call.total_us
        ));
    }
    for segments in [&call.harness, &call.executor] {
        let names: BTreeSet<_> = segments.iter().map(|(name, _)| name).collect();
        if names.len() != segments.len() {
            return Err("a segment is there twice".into());
        }
        if let Some((name, micros)) = segments.iter().find(|(_, micros)| *micros > call.total_us) {
            return Err(format!("{name} alone has {micros} µs"));
        }
    }
    if call.relay_us + call.transit_excess_us > call.transit_us {
        return Err("parts of the transit exceed it".into());
    }
    if call.unattributed_us() > call.total_us {
        return Err("more is unattributed than there was".into());
    }
    Ok(())
}

/// As `judge`, with what holds where nobody lies: this side gives every stretch to a segment, and the other all but what
/// reading and rounding cost.
pub(crate) fn check(call: &CallTimings, watched: Duration) {
    judge(call).unwrap_or_else(|problem| panic!("{problem}\n{call}"));
    let watched = u64::try_from(watched.as_micros()).unwrap();
    assert!(call.total_us <= watched + 1, "{watched} µs by the watch\n{call}");
    assert_eq!(call.unattributed_harness_us, 0, "{call}");
    let lost = 10 + call.total_us / 1_000;
    assert!(call.unattributed_executor_us <= lost, "{call}");
}
