//! A link of 64 kbit/s both ways, in network namespaces of this test's own, with 10 MB of output behind it: what is urgent
//! gets through. The roles are the library's, each in a namespace.
//!
//! With `DWELL_SOAK=1` there are a hundred keystrokes and terminations; else a handful.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Command as Program;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dwell_actors::executor::Executor;
use dwell_actors::harness::{Command, Harness, Run, RunEvent, Target};
use dwell_actors::relay_server::Relay;
use dwell_messages::PublicKey;
use dwell_relay::rendezvous::TokenHash;
use dwell_relay::{Admission, LinkOptions, OsRandomness, StaticKeypair};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// The most that a keystroke's echo, or a termination, may take.
const URGENT_MAX: Duration = Duration::from_secs(3);
/// What admits a harness to the relay.
const TOKEN: &[u8] = b"slow link";
/// Without pacing it takes more than this, and the longer the more the network takes.
const UNPACED_MIN: Duration = Duration::from_secs(5);
/// So many keystrokes are tried until one takes that long.
const UNPACED_KEYSTROKES: usize = 5;
/// The longest that anything else may take.
const BOUND: Duration = Duration::from_secs(60);
/// Output that has come before anything is measured: past the first burst.
const SETTLED_BYTES: usize = 80_000;

fn rounds() -> usize {
    if std::env::var_os("DWELL_SOAK").is_some_and(|value| value == "1") {
        100
    } else {
        5
    }
}

fn run(program: &str, arguments: &str) {
    let outcome = Program::new(program).args(arguments.split_whitespace()).output();
    let outcome =
        outcome.unwrap_or_else(|error| panic!("{program} cannot be run ({error}): install iproute2"));
    assert!(
        outcome.status.success(),
        "`{program} {arguments}` failed: this test needs root, and may make network namespaces: {}",
        String::from_utf8_lossy(&outcome.stderr)
    );
}

/// Three namespaces, a harness's, a relay's and an executor's, and what joins them. Gone when this is.
struct Network {
    name: String,
}

impl Network {
    fn new(kind: &str) -> Self {
        let network = Self {
            name: format!("dwell{}{kind}", std::process::id()),
        };
        let name = &network.name;
        for place in ["h", "r", "e"] {
            run("ip", &format!("netns add {name}{place}"));
            run("ip", &format!("-n {name}{place} link set lo up"));
        }
        for (number, ends) in ["hr", "re", "he"].iter().enumerate() {
            let (one, other) = ends.split_at(1);
            run(
                "ip",
                &format!(
                    "link add {ends}{one} netns {name}{one} type veth peer name {ends}{other} netns {name}{other}"
                ),
            );
            for (host, end) in [(1, one), (2, other)] {
                run(
                    "ip",
                    &format!("-n {name}{end} address add 10.77.{number}.{host}/24 dev {ends}{end}"),
                );
                run("ip", &format!("-n {name}{end} link set {ends}{end} up"));
                // What the harness is reached by is slow, both ways.
                if *ends != "re" {
                    run(
                        "tc",
                        &format!(
                            "-n {name}{end} qdisc add dev {ends}{end} root tbf rate 64kbit burst 4kb limit 500kb"
                        ),
                    );
                }
            }
        }
        network
    }

    /// Runs something in a namespace, on a thread of its own: every thread that it starts is there too.
    fn within<T: Send + 'static>(
        &self,
        place: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = format!("/run/netns/{}{place}", self.name);
        std::thread::spawn(move || {
            let namespace = File::open(path).unwrap();
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(LinkNameSpaceType::Network),
            )
            .unwrap_or_else(|error| panic!("a network namespace cannot be entered ({error}): run as root"));
            work()
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for place in ["h", "r", "e"] {
            let name = format!("{}{place}", self.name);
            drop(Program::new("ip").args(["netns", "delete", &name]).output());
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// A role that serves until this is dropped.
struct Served<T> {
    says: T,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl<T: Send + 'static> Served<T> {
    fn start<F>(
        network: &Network,
        place: &str,
        serve: impl FnOnce(mpsc::SyncSender<T>, oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()>,
    {
        let (say, said) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let thread = network.within(place, move || block_on(serve(say, stopped)));
        let says = said.recv_timeout(BOUND).expect("a role comes up");
        Self {
            says,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl<T> Drop for Served<T> {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn unpaced(options: LinkOptions) -> LinkOptions {
    LinkOptions {
        paced: false,
        ..options
    }
}

struct World {
    executor: Served<(String, PublicKey)>,
    relay: Option<Served<u16>>,
    client: StaticKeypair,
    network: Network,
}

impl World {
    fn start(kind: &str, relayed: bool, paced: bool) -> Self {
        let network = Network::new(kind);
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let identity = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let admission = Admission::Listed {
            executors: vec![identity.public()],
            harness_tokens: vec![TokenHash::of(TOKEN)],
        };
        let relay = relayed.then(|| {
            Served::start(&network, "r", |say, stopped| async move {
                let builder = Relay::builder().listen("0.0.0.0:0").admission(admission);
                let relay = builder.serve().await.unwrap();
                let address: SocketAddr = relay.local_addr().parse().unwrap();
                say.send(address.port()).unwrap();
                drop(stopped.await);
            })
        });
        let (authorized, at) = (client.public(), relay.as_ref().map(|relay| relay.says));
        let executor = Served::start(&network, "e", move |say, stopped| async move {
            let links = if paced { std::convert::identity } else { unpaced };
            let builder = Executor::builder()
                .identity(identity)
                .authorize(authorized)
                .links(links);
            let builder = match at {
                Some(port) => builder.relay(format!("10.77.1.1:{port}")),
                None => builder.listen("10.77.2.2:0"),
            };
            let executor = builder.serve().await.unwrap();
            if at.is_some() {
                executor.registered().await.unwrap();
            }
            let address = executor.local_addr().unwrap_or_default();
            say.send((address, executor.public_key())).unwrap();
            drop(stopped.await);
        });
        Self {
            executor,
            relay,
            client,
            network,
        }
    }

    /// Runs something with a connected harness.
    fn harness<F: Future<Output = T>, T: Send + 'static>(
        &self,
        work: impl FnOnce(Harness) -> F + Send + 'static,
    ) -> T {
        let (address, key) = self.executor.says.clone();
        let target = match &self.relay {
            Some(relay) => Target::relay(format!("10.77.0.2:{}", relay.says), key).token(TOKEN),
            None => Target::direct(address, key),
        };
        let identity = StaticKeypair::from_private(zeroize::Zeroizing::new(*self.client.expose_private()));
        let thread = self.network.within("h", move || {
            block_on(async move {
                let builder = Harness::builder().identity(identity).sampled(false);
                let harness = tokio::time::timeout(BOUND, builder.connect(target)).await;
                work(harness.unwrap().unwrap()).await
            })
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

async fn keystroke(run: &mut Run) -> Duration {
    let begun = Instant::now();
    run.write_stdin("x".into()).await.unwrap();
    loop {
        match run.next().await {
            Some(RunEvent::Stdout(_)) => return begun.elapsed(),
            Some(RunEvent::Started { .. }) => {}
            other => panic!("expected an echo, not {other:?}"),
        }
    }
}

/// 10 MB to come, some of which has come.
async fn flood(harness: &Harness) -> tokio::task::JoinHandle<()> {
    let mut run = harness.exec(Command::new("head").args(["-c", "10000000", "/dev/zero"]));
    let mut came = 0;
    while came < SETTLED_BYTES {
        match tokio::time::timeout(BOUND, run.next()).await.unwrap() {
            Some(RunEvent::Stdout(data)) => came += data.len(),
            Some(RunEvent::Started { .. }) => {}
            other => panic!("expected output, not {other:?}"),
        }
    }
    tokio::spawn(async move { while run.next().await.is_some() {} })
}

fn p99(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let p99 = times[(times.len() - 1) * 99 / 100];
    println!(
        "{what}: p50 {:?}, p99 {p99:?} of {}",
        times[times.len() / 2],
        times.len()
    );
    assert!(p99 <= URGENT_MAX, "{what}: {times:?}");
}

fn urgent_gets_through(kind: &'static str, relayed: bool) {
    World::start(kind, relayed, true).harness(move |harness| async move {
        let way = if relayed { "through the relay" } else { "direct" };
        let mut echo = harness.exec(Command::new("cat").stdin_piped());
        let idle = tokio::time::timeout(BOUND, keystroke(&mut echo)).await.unwrap();
        println!("{way}: {idle:?} idle");
        let mut sleepers = Vec::new();
        for _ in 0..rounds() {
            let mut run = harness.exec(Command::new("sleep").arg("100000"));
            assert!(matches!(run.next().await, Some(RunEvent::Started { .. })));
            sleepers.push(run);
        }
        let flooding = flood(&harness).await;
        let mut times = Vec::new();
        for _ in 0..rounds() {
            times.push(tokio::time::timeout(BOUND, keystroke(&mut echo)).await.unwrap());
        }
        p99(&format!("{way}: a keystroke's echo"), times);
        let mut times = Vec::new();
        for sleeper in sleepers {
            let begun = Instant::now();
            tokio::time::timeout(BOUND, sleeper.stop(Duration::ZERO))
                .await
                .unwrap()
                .unwrap();
            times.push(begun.elapsed());
        }
        p99(&format!("{way}: a termination"), times);
        assert!(!flooding.is_finished(), "all the while there was output queued");
    });
}

#[test]
fn urgent_messages_get_through_a_slow_link_full_of_output() {
    urgent_gets_through("d", false);
}

#[test]
fn urgent_messages_get_through_a_relay_and_a_slow_link_full_of_output() {
    urgent_gets_through("v", true);
}

/// The positive control: whatever the network takes stands before the keystroke.
#[test]
fn without_its_pace_a_slow_link_keeps_urgent_messages_waiting() {
    World::start("u", false, false).harness(|harness| async move {
        let mut echo = harness.exec(Command::new("cat").stdin_piped());
        tokio::time::timeout(BOUND, keystroke(&mut echo)).await.unwrap();
        let _flooding = flood(&harness).await;
        // How much the network has taken by the first keystroke is chance; it takes more the longer it is offered more.
        let mut soon = Vec::new();
        while soon.len() < UNPACED_KEYSTROKES {
            match tokio::time::timeout(UNPACED_MIN, keystroke(&mut echo)).await {
                Ok(time) => soon.push(time),
                Err(_) => return,
            }
        }
        panic!("each of these came back sooner than after {UNPACED_MIN:?}: {soon:?}");
    });
}
