//! A flood that nobody takes, and an executor in 64 MiB: it lives, answers others and ends what floods, whether its consumer
//! is there and reads nothing or is not there at all; and what is dropped is told to the byte.
//!
//! As root, with the memory controller of cgroups v1. `DWELL_SOAK=1` makes it 10 GiB.

use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant};

use dwell_actors::harness::{Command, Harness, Run, RunEvent, Target};
use dwell_messages::{OutputStream, PublicKey};
use dwell_relay::{OsRandomness, StaticKeypair};
use dwell_testkit::{Cut, TcpFaultProxy, wait_until};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::roles::{Serving, dwell, serve};

const CONTROLLER: &str = "/sys/fs/cgroup/memory";
const MEMORY_MAX_BYTES: u64 = 64 << 20;
const BOUND: Duration = Duration::from_secs(400);
/// `terminate` is answered within this, at the 99th percentile.
const TERMINATE_MAX: Duration = Duration::from_millis(100);
/// What it may take longer on a busy machine.
const BUSY: u32 = 10;
/// Of a length that no buffer is a multiple of: a byte too many or too few shows.
const LINE: &str = "16 bytes of line";
/// Commands ended while it floods.
const ENDED: usize = 110;

fn is_soak() -> bool {
    std::env::var_os("DWELL_SOAK").is_some_and(|value| value == "1")
}

fn flood_bytes() -> u64 {
    if is_soak() { 10 << 30 } else { 512 << 20 }
}

async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {BOUND:?}"),
    }
}

/// A memory cgroup of this test's own; what is in it is killed with it.
struct Cage(PathBuf);

impl Cage {
    fn new(name: &str) -> Self {
        let path = Path::new(CONTROLLER).join(format!("dwell-{}-{name}", std::process::id()));
        let made = std::fs::create_dir(&path);
        assert!(
            made.is_ok(),
            "this needs root and the memory controller of cgroups v1 at {CONTROLLER}: {made:?}"
        );
        std::fs::write(path.join("memory.limit_in_bytes"), MEMORY_MAX_BYTES.to_string()).unwrap();
        // What would be swapped out would not count.
        std::fs::write(path.join("memory.swappiness"), "0").ok();
        Self(path)
    }

    /// A command like this one, inside.
    fn around(&self, command: &Program) -> Program {
        let mut caged = Program::new("sh");
        let script = "echo $$ > \"$0\" && exec \"$@\"";
        caged.arg("-c").arg(script).arg(self.0.join("cgroup.procs"));
        caged
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear();
        let environment = command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        caged.envs(environment);
        caged
    }

    fn number(&self, file: &str) -> u64 {
        std::fs::read_to_string(self.0.join(file))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    fn killed_for_memory(&self) -> u64 {
        let control = std::fs::read_to_string(self.0.join("memory.oom_control")).unwrap();
        let line = control.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap().parse().unwrap()
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            let inside = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
            for pid in inside.lines().filter_map(|pid| pid.parse().ok()) {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// An executor in its cage, and who talks to it.
struct World {
    executor: Serving,
    cage: Cage,
    client: StaticKeypair,
    key: PublicKey,
    address: String,
    proxy: TcpFaultProxy,
    homes: TempDir,
}

impl World {
    async fn start(name: &str) -> Self {
        let homes = TempDir::new().unwrap();
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        std::fs::write(homes.path().join("clients"), format!("{}\n", client.public())).unwrap();
        let mut command = dwell(&homes.path().join("executor"));
        command
            .env("TMPDIR", homes.path())
            .args(["executor", "--json", "--no-pairing", "--listen", "127.0.0.1:0"])
            .arg("--authorized-clients")
            .arg(homes.path().join("clients"));
        let cage = Cage::new(name);
        let executor = serve(cage.around(&command));
        let address = executor.ready["address"].as_str().unwrap().to_owned();
        let key = executor.ready["public_key"].as_str().unwrap().parse().unwrap();
        let proxy = TcpFaultProxy::start(address.parse().unwrap(), 1).await.unwrap();
        Self {
            executor,
            cage,
            client,
            key,
            address,
            proxy,
            homes,
        }
    }

    async fn harness(&self, address: String) -> Harness {
        let identity = StaticKeypair::from_private(Zeroizing::new(*self.client.expose_private()));
        let builder = Harness::builder().identity(identity).sampled(false);
        bounded("connecting", builder.connect(Target::direct(address, self.key)))
            .await
            .unwrap()
    }

    /// A flood of so many bytes; where it stands shows in how much it has written.
    fn flood(&self, harness: &Harness, set: impl FnOnce(Command) -> Command) -> Run {
        let script = format!("yes '{LINE}' | head -c {}; touch done", flood_bytes());
        harness.exec(set(Command::new("sh")
            .args(["-c", &script])
            .current_dir(self.homes.path())))
    }

    fn is_done(&self) -> bool {
        self.homes.path().join("done").exists()
    }

    /// Bytes that the flood has written. Whatever else is in the cage wakes its own threads by writing.
    fn written(&self) -> u64 {
        let inside = std::fs::read_to_string(self.cage.0.join("cgroup.procs")).unwrap();
        let of = |pid: &str| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            if name != "head\n" {
                return None;
            }
            let io = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
            let line = io.lines().find_map(|line| line.strip_prefix("wchar: "))?;
            line.parse::<u64>().ok()
        };
        inside.lines().filter_map(of).sum()
    }

    /// Nothing is written any more.
    async fn stands(&self) {
        let (mut last, mut since) = (0, Instant::now());
        let standing = wait_until(BOUND, || {
            let now = self.written();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            last > 0 && since.elapsed() > Duration::from_millis(500)
        });
        standing.await.unwrap();
    }

    /// Ends commands meanwhile, one by one: how long each answer took, sorted.
    async fn terminates(&self, harness: &Harness) -> Vec<Duration> {
        let mut taken = Vec::new();
        for _ in 0..ENDED {
            let mut run = harness.exec(Command::new("sleep").arg("1000"));
            let begun = bounded("a start", run.next()).await;
            assert!(matches!(begun, Some(RunEvent::Started { .. })), "{begun:?}");
            let asked = Instant::now();
            bounded("a termination", run.stop(Duration::from_secs(5)))
                .await
                .unwrap();
            taken.push(asked.elapsed());
        }
        taken.sort();
        taken
    }

    fn assert_well(&mut self, name: &str, taken: &[Duration]) {
        let (p50, p99) = (taken[taken.len() / 2], taken[taken.len() * 99 / 100]);
        println!(
            "{name}: {} MiB at the most of {} MiB; {} terminations answered after p50 {p50:?}, p99 {p99:?}",
            self.cage.number("memory.max_usage_in_bytes") >> 20,
            MEMORY_MAX_BYTES >> 20,
            taken.len()
        );
        assert!(p99 < BUSY * TERMINATE_MAX, "{name}: {p99:?}");
        assert_eq!(self.cage.killed_for_memory(), 0, "{name}");
        assert!(self.executor.lives(), "{name}");
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Consumer {
    /// Is there, and takes nothing.
    Idle,
    /// Is not there.
    Away,
}

/// Nothing may be dropped: the command waits. It is ended like any other.
async fn a_flood_that_waits(consumer: Consumer, spool: Option<u64>) {
    let name = format!("waits, {consumer:?}, spool {spool:?}");
    let mut world = World::start(&format!("{consumer:?}-{}", spool.unwrap_or(0))).await;
    let harness = world.harness(world.proxy.address().to_string()).await;
    let flood = world.flood(&harness, |command| match spool {
        Some(bytes) => command.spool(bytes),
        None => command,
    });
    if consumer == Consumer::Away {
        wait_until(BOUND, || world.written() > 1 << 20).await.unwrap();
        world.proxy.freeze();
        world.proxy.cut(Cut::Reset);
    }
    world.stands().await;
    assert!(!world.is_done(), "{name}: it waits");
    let own = world.harness(world.address.clone()).await;
    let mut taken = world.terminates(&own).await;
    if consumer == Consumer::Idle {
        // On the very session that is flooded, too.
        taken.extend(world.terminates(&harness).await);
        taken.sort();
    }
    world.proxy.heal();
    bounded("a round trip", harness.environment_info()).await.unwrap();
    let asked = Instant::now();
    let stopped = bounded("the flood's termination", flood.stop(Duration::from_secs(5)))
        .await
        .unwrap();
    assert_eq!(
        (stopped.killed, stopped.unkillable),
        (0, 0),
        "{name}: TERM was enough"
    );
    let most = BUSY * TERMINATE_MAX;
    assert!(asked.elapsed() < most, "{name}: {:?}", asked.elapsed());
    println!(
        "{name}: the flood ended {:?} after it was told to",
        asked.elapsed()
    );
    world.assert_well(&name, &taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_that_an_idle_consumer_holds_up_costs_no_memory_and_ends_when_told() {
    a_flood_that_waits(Consumer::Idle, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_whose_consumer_is_away_fills_its_spool_and_ends_when_told() {
    a_flood_that_waits(Consumer::Away, Some(96 << 20)).await;
    a_flood_that_waits(Consumer::Away, Some(1)).await;
}

/// The oldest is dropped: the command goes on to its end, and what is told and what is not are together the whole.
async fn a_flood_that_is_dropped(consumer: Consumer) {
    let name = format!("ring, {consumer:?}");
    let mut world = World::start(&format!("ring-{consumer:?}")).await;
    let harness = world.harness(world.proxy.address().to_string()).await;
    let mut run = world.flood(&harness, |command| command.ring().spool(8 << 20));
    let begun = Instant::now();
    if consumer == Consumer::Away {
        wait_until(BOUND, || world.written() > 1 << 20).await.unwrap();
        world.proxy.freeze();
        world.proxy.cut(Cut::Reset);
    }
    let own = world.harness(world.address.clone()).await;
    let taken = world.terminates(&own).await;
    wait_until(BOUND, || world.is_done()).await.unwrap();
    println!("{name}: {} MiB in {:?}", flood_bytes() >> 20, begun.elapsed());
    world.proxy.heal();
    let pattern = format!("{LINE}\n").into_bytes();
    let (mut at, mut dropped) = (0_u64, 0_u64);
    while let Some(event) = bounded("an event", run.next()).await {
        match event {
            RunEvent::Stdout(data) => {
                for (index, byte) in data.iter().enumerate() {
                    let place = usize::try_from((at + index as u64) % pattern.len() as u64).unwrap();
                    assert_eq!(*byte, pattern[place], "{name}: byte {}", at + index as u64);
                }
                at += data.len() as u64;
            }
            RunEvent::Gap(gap) => {
                assert_eq!((gap.stream, gap.from), (OutputStream::Stdout, at), "{name}");
                dropped += gap.bytes();
                at = gap.to;
            }
            RunEvent::Started { .. } | RunEvent::Stderr(_) | RunEvent::Exited(_) => {}
        }
    }
    let finished = bounded("its end", run.wait()).await.unwrap();
    assert_eq!(finished.output_bytes, [flood_bytes(), 0], "{name}");
    assert_eq!(at, flood_bytes(), "{name}: bytes and gaps together are the whole");
    println!("{name}: {dropped} of {at} bytes were dropped, and told");
    assert!(dropped > flood_bytes() / 2, "{name}: {dropped}");
    world.assert_well(&name, &taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_tells_a_flood_to_the_byte_when_its_consumer_takes_nothing() {
    a_flood_that_is_dropped(Consumer::Idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_tells_a_flood_to_the_byte_when_its_consumer_was_away() {
    a_flood_that_is_dropped(Consumer::Away).await;
}

/// The positive control of the memory: a reader without a bound does not live in such a cage.
#[test]
fn a_reader_without_a_bound_is_killed_in_the_same_cage() {
    let cage = Cage::new("unbounded");
    let mut reader = Program::new("sh");
    reader
        .args([
            "-c",
            "head -c 512M /dev/zero | tail -c 512M > /dev/null; exit ${PIPESTATUS:-$?}",
        ])
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let status = cage.around(&reader).stdin(Stdio::null()).status().unwrap();
    assert!(!status.success(), "{status}");
    assert!(cage.killed_for_memory() >= 1);
}
