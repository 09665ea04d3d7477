//! The executor's process is killed at the worst moments and comes back at the same address with the same key, while
//! somebody calls it throughout. Every call has a definite end, and no command runs twice.
//!
//! `DWELL_SOAK=1` makes it 1,000 rounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dwell_actors::harness::{Command, Harness, RunError, RunEvent, Target};
use dwell_messages::{ExitStatus, PublicKey};
use dwell_relay::{OsRandomness, StaticKeypair, parse_public_key};
use dwell_testkit::{Cut, Direction, TcpFaultProxy, wait_until};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::roles::{Serving, dwell, serve};

/// The longest that one call, or one start of an executor, may take.
const BOUND: Duration = Duration::from_secs(60);
/// Executors at once, each with a caller of its own.
const LANES: usize = 4;

fn rounds() -> usize {
    if std::env::var_os("DWELL_SOAK").is_some_and(|value| value == "1") {
        1_000
    } else {
        52
    }
}

/// When the executor dies, as seen from a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Moment {
    /// Nothing of the call has arrived.
    BeforeSpawn,
    /// It has done its thing, and nobody was told.
    BetweenSpawnAndReply,
    /// The caller knows that it runs.
    AfterReply,
    /// Somewhere in between.
    AtRandom,
}

const MOMENTS: [Moment; 4] = [
    Moment::BeforeSpawn,
    Moment::BetweenSpawnAndReply,
    Moment::AfterReply,
    Moment::AtRandom,
];

/// How a call ended for its caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Ended {
    Well,
    NotStarted,
    Unknown,
}

async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {BOUND:?}"),
    }
}

struct Lane {
    homes: TempDir,
    client: StaticKeypair,
    executor: Serving,
    address: String,
    key: PublicKey,
    proxy: TcpFaultProxy,
    harness: Option<Harness>,
}

impl Lane {
    async fn start() -> Self {
        let homes = TempDir::new().unwrap();
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        std::fs::write(homes.path().join("clients"), format!("{}\n", client.public())).unwrap();
        let executor = life(homes.path(), "127.0.0.1:0");
        let address = executor.ready["address"].as_str().unwrap().to_owned();
        let key: PublicKey = executor.ready["public_key"].as_str().unwrap().parse().unwrap();
        let key = parse_public_key(&key.0).unwrap();
        let proxy = TcpFaultProxy::start(address.parse().unwrap(), 1).await.unwrap();
        Self {
            homes,
            client,
            executor,
            address,
            key,
            proxy,
            harness: None,
        }
    }

    fn effects(&self) -> PathBuf {
        self.homes.path().join("effects")
    }

    fn effects_of(&self, id: &str) -> usize {
        let text = std::fs::read_to_string(self.effects()).unwrap_or_default();
        text.lines().filter(|line| *line == id).count()
    }

    /// A harness whose session stands. The one of an earlier life is told so, and is of no more use.
    async fn connect(&mut self) -> Harness {
        let connecting = async {
            loop {
                let target = Target::direct(self.proxy.address().to_string(), self.key);
                let identity = StaticKeypair::from_private(Zeroizing::new(*self.client.expose_private()));
                let builder = Harness::builder().identity(identity).sampled(false);
                let Ok(harness) = builder.connect(target).await else {
                    continue;
                };
                // Its session begins with what is asked first.
                if harness.environment_info().await.is_ok() {
                    return harness;
                }
            }
        };
        bounded("connecting", connecting).await
    }

    /// One call and one death.
    async fn round(&mut self, id: &str, moment: Moment, delay: Duration) -> Ended {
        let harness = match self.harness.take() {
            Some(harness) => harness,
            None => self.connect().await,
        };
        match moment {
            Moment::BeforeSpawn => self.proxy.hold(Direction::ToUpstream),
            Moment::BetweenSpawnAndReply => self.proxy.hold(Direction::ToClient),
            Moment::AfterReply | Moment::AtRandom => {}
        }
        let script = format!("echo {id} >> {}; exec sleep 1000", self.effects().display());
        let mut run = harness.exec(Command::new("sh").args(["-c", &script]));
        match moment {
            Moment::BeforeSpawn => {}
            Moment::BetweenSpawnAndReply => {
                wait_until(BOUND, || self.effects_of(id) > 0).await.unwrap();
            }
            Moment::AfterReply => {
                let begun = bounded("a start", run.next()).await;
                assert!(matches!(begun, Some(RunEvent::Started { .. })), "{begun:?}");
            }
            Moment::AtRandom => {
                tokio::time::timeout(delay, std::future::pending::<()>())
                    .await
                    .ok();
            }
        }
        // A kill, and the next life at once; what the earlier one had said and was held back is lost with it.
        self.executor.end();
        self.proxy.freeze();
        self.proxy.cut(Cut::Reset);
        let (homes, address) = (self.homes.path().to_owned(), self.address.clone());
        let next = tokio::task::spawn_blocking(move || life(&homes, &address));
        self.executor = bounded("the next life", next).await.unwrap();
        self.proxy.heal();
        let ended = bounded("a definite end", run.wait()).await;
        let ended = match ended {
            Ok(finished) => panic!("nobody told {id} to end: {:?}", finished.status),
            Err(RunError::NotStarted(_)) => Ended::NotStarted,
            Err(RunError::Lost(why)) => {
                assert!(
                    why.contains("restarted") || why.contains("no such session"),
                    "{why}"
                );
                Ended::Unknown
            }
            Err(error) => panic!("{id} at {moment:?}: {error}"),
        };
        let most = usize::from(ended == Ended::Unknown);
        assert!(self.effects_of(id) <= most, "{id} at {moment:?} ended {ended:?}");
        ended
    }

    /// A call that nothing happens to.
    async fn quiet(&mut self, id: &str) -> Ended {
        let harness = self.connect().await;
        let script = format!("echo {id} >> {}", self.effects().display());
        let finished = bounded(
            "a call",
            harness.exec(Command::new("sh").args(["-c", &script])).wait(),
        )
        .await;
        assert_eq!(finished.unwrap().status, ExitStatus::Code(0));
        assert_eq!(self.effects_of(id), 1);
        self.harness = Some(harness);
        Ended::Well
    }
}

/// An executor at this address, once it is free.
fn life(homes: &Path, address: &str) -> Serving {
    let mut command = dwell(&homes.join("executor"));
    command
        .args(["executor", "--json", "--no-pairing", "--listen", address])
        .arg("--authorized-clients")
        .arg(homes.join("clients"));
    serve(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_killed_around_a_spawn_and_restarted_doubles_nothing_and_every_call_ends() {
    let lanes: Vec<_> = (0..LANES)
        .map(|number| tokio::spawn(campaign(number, rounds() / LANES)))
        .collect();
    let mut tally = BTreeMap::new();
    let mut careless = 0;
    for lane in lanes {
        let (ended, unknown_and_done) = lane.await.unwrap();
        careless += unknown_and_done;
        for (key, count) in ended {
            *tally.entry(key).or_insert(0_usize) += count;
        }
    }
    println!("{tally:?}; a caller that asked again would have done {careless} things twice");
    for moment in MOMENTS {
        assert!(
            tally.keys().any(|(seen, _)| *seen == Some(moment)),
            "{moment:?}: {tally:?}"
        );
    }
    // Positive control: the kills do come between an effect and its answer.
    assert!(careless >= rounds() / 8, "{careless}");
}

type Tally = BTreeMap<(Option<Moment>, Ended), usize>;

async fn campaign(number: usize, rounds: usize) -> (Tally, usize) {
    let mut lane = Lane::start().await;
    let mut tally = Tally::new();
    let mut careless = 0;
    for round in 0..rounds {
        let moment = MOMENTS[(round + number) % MOMENTS.len()];
        // From before the call has left to long after.
        let delay = Duration::from_micros(((round * 7_919) % 40_000) as u64 / 4);
        let id = format!("{number}-{round}");
        let ended = lane.round(&id, moment, delay).await;
        careless += usize::from(ended == Ended::Unknown && lane.effects_of(&id) == 1);
        *tally.entry((Some(moment), ended)).or_insert(0) += 1;
        let ended = lane.quiet(&format!("{id}-quiet")).await;
        *tally.entry((None, ended)).or_insert(0) += 1;
    }
    // Nothing comes late.
    let text = std::fs::read_to_string(lane.effects()).unwrap();
    let mut ids: Vec<_> = text.lines().collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "each command ran at most once");
    (tally, careless)
}
