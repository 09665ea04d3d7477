//! A relay that means harm: it does to every frame whatever it likes, and holds no key.
//!
//! It stands between everybody and a real relay, on the clients' side and on the executor's. It may cost time. What it may
//! not: learn a plaintext, change a byte, do a thing twice, or leave anything broken once it stops.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dwell_actors::executor::{Executor, ExecutorBuilder, ExecutorHandle};
use dwell_actors::harness::{Command, Harness, Run, RunError, Target};
use dwell_actors::relay_server::{Relay, RelayHandle};
use dwell_messages::ExitStatus;
use dwell_relay::{
    Link, LinkEvent, LinkOptions, OsRandomness, OuterDecoder, Outgoing, Preamble, PreambleDecoder,
    StaticKeypair,
};
use dwell_testkit::{Canaries, HostileProxy, Hostility, RuleKind, Watch};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{bounded, copy, keypair, output_until, shell, started};
use crate::world::{Dice, lines, seed, soak, until};

const ARGUMENT: &str = "canary-argument-50c7";
const VARIABLE: &str = "canary-variable-9b1e";
const INPUT: &str = "canary-input-77f2";
const OUTPUT: &str = "canary-output-e3a8";
const DIRECTORY: &str = "canary-directory-1d94";
const USR1: i32 = 10;
/// Clients, each with a session of its own.
const CLIENTS: u64 = 3;
/// Once everything passes again, every call under way ends within this.
const HEALED_MAX: Duration = Duration::from_secs(60);

/// One frame of so many is subject to a rule: links live long enough to carry something, and die often.
const ONE_IN: u64 = 40;

fn canaries() -> Canaries {
    Canaries::new([ARGUMENT, VARIABLE, INPUT, OUTPUT, DIRECTORY, "canary"])
}

struct Hostile {
    executor: ExecutorHandle,
    client: StaticKeypair,
    clients_way: HostileProxy,
    executors_way: HostileProxy,
    files: tempfile::TempDir,
    _relay: RelayHandle,
}

impl Hostile {
    async fn start(seed: u64, set: impl FnOnce(ExecutorBuilder) -> ExecutorBuilder) -> Self {
        let client = keypair();
        let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
        let upstream: SocketAddr = relay.local_addr().parse().unwrap();
        let clients_way = HostileProxy::start(upstream, seed).await.unwrap();
        let executors_way = HostileProxy::start(upstream, !seed).await.unwrap();
        for way in [&clients_way, &executors_way] {
            way.watch_for(canaries());
        }
        let files = tempfile::tempdir().unwrap();
        std::fs::create_dir(files.path().join(DIRECTORY)).unwrap();
        let builder = Executor::builder()
            .relay(executors_way.address().to_string())
            .authorize(client.public())
            .relay_pings(Duration::from_millis(200), Duration::from_millis(800));
        let executor = set(builder).serve().await.unwrap();
        bounded("registering", executor.registered()).await.unwrap();
        Self {
            executor,
            client,
            clients_way,
            executors_way,
            files,
            _relay: relay,
        }
    }

    fn worsen(&self) {
        for way in [&self.clients_way, &self.executors_way] {
            way.hostility(Hostility::every_rule(ONE_IN));
            // Those that stand are of before.
            way.restart();
        }
    }

    fn heal(&self) {
        self.clients_way.heal();
        self.executors_way.heal();
    }

    fn counts(&self) -> BTreeMap<RuleKind, u64> {
        let mut counts = self.clients_way.counts();
        for (kind, count) in self.executors_way.counts() {
            *counts.entry(kind).or_insert(0) += count;
        }
        counts
    }

    /// A first link that breaks during its handshake is the caller's to try again.
    async fn harness(&self) -> Harness {
        let connecting = async {
            loop {
                let target =
                    Target::relay(self.clients_way.address().to_string(), self.executor.public_key());
                let builder = Harness::builder()
                    .identity(copy(&self.client))
                    .pings(Duration::from_millis(200), Duration::from_millis(800))
                    .sampled(false);
                match tokio::time::timeout(Duration::from_secs(3), builder.connect(target)).await {
                    Ok(Ok(harness)) => return harness,
                    Ok(Err(_)) | Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        bounded("connecting", connecting).await
    }
}

/// What a client does over and over, and what it must have come to.
struct Client {
    number: u64,
    dice: Dice,
    harness: Harness,
    effects: PathBuf,
    directory: PathBuf,
    calls: u64,
    counting: (Run, PathBuf),
    signals: usize,
    doubled: usize,
}

impl Client {
    async fn start(world: &Hostile, number: u64, dice: Dice) -> Self {
        let harness = world.harness().await;
        let effects = world.files.path().join(format!("effects-{number}"));
        let counted = world.files.path().join(format!("signals-{number}"));
        let script = format!(
            "trap 'echo >> {}' USR1; sleep 1000 & echo ready; while :; do wait; done",
            counted.display()
        );
        let mut counting = harness.exec(shell(&script));
        started(&mut counting).await;
        output_until(&mut counting, "ready").await;
        Self {
            number,
            dice,
            harness,
            effects,
            directory: world.files.path().join(DIRECTORY),
            calls: 0,
            counting: (counting, counted),
            signals: 0,
            doubled: 0,
        }
    }

    /// One more call; it ends well, whatever the relay does, and does its thing once.
    async fn call(&mut self) {
        match self.dice.below(4) {
            0 => self.effect().await,
            1 => self.echo().await,
            2 => self.output().await,
            _ => self.signal().await,
        }
    }

    async fn effect(&mut self) {
        self.calls += 1;
        let id = format!("{}-{}", self.number, self.calls);
        // The output is put together by the child, so that it is in no argument.
        let script = format!(
            "echo {id} >> {}; printf '%s%s' canary-output -e3a8; printf %s \"$HIDDEN\" >&2; : {ARGUMENT}",
            self.effects.display()
        );
        let command = shell(&script)
            .env("HIDDEN", VARIABLE)
            .current_dir(&self.directory);
        let finished = self.harness.exec(command).wait().await.unwrap();
        assert_eq!(finished.status, ExitStatus::Code(0));
        assert_eq!(finished.stdout.to_text(), OUTPUT);
        assert_eq!(finished.stderr.to_text(), VARIABLE);
        assert_eq!(count(&self.effects, &id), 1, "{id}");
    }

    async fn echo(&mut self) {
        self.calls += 1;
        let text =
            format!("{INPUT} {} ", self.calls).repeat(1 + usize::try_from(self.dice.below(4_000)).unwrap());
        let mut run = self
            .harness
            .exec(Command::new("cat").stdin_piped().output_limit(1 << 20));
        run.write_stdin(Bytes::from(text.clone())).await.unwrap();
        run.close_stdin().await.unwrap();
        let finished = run.wait().await.unwrap();
        assert!(finished.stdout.to_text() == text, "every byte of what went in");
    }

    async fn output(&mut self) {
        self.calls += 1;
        let last = 1 + self.dice.below(60_000);
        let command = shell(&format!("seq 1 {last}")).output_limit(1 << 20);
        let finished = self.harness.exec(command).wait().await.unwrap();
        let expected: String = (1..=last).map(|line| format!("{line}\n")).collect();
        assert!(finished.stdout.to_text() == expected, "every byte, in order");
    }

    /// Signals that come together are one to their receiver, so the next is sent when the last was counted.
    async fn signal(&mut self) {
        let (run, counted) = &self.counting;
        self.signals += 1;
        match run.signal(USR1).await {
            Ok(()) => {}
            // A credulous executor answers some things twice.
            Err(RunError::Refused(_)) if self.doubled > 0 => {}
            Err(error) => panic!("{error}"),
        }
        until("the signal", || lines(counted) >= self.signals).await;
        self.doubled = lines(counted) - self.signals;
    }

    /// Everything was done once, and the session is as good as ever.
    async fn assert_once(&mut self) {
        self.signal().await;
        assert_eq!(self.doubled, 0, "signals");
        let text = std::fs::read_to_string(&self.effects).unwrap_or_default();
        let mut ids: Vec<_> = text.lines().collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "each call's effect is there once");
    }
}

fn count(path: &Path, id: &str) -> usize {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| *line == id).count()
}

/// T-01 to T-07, T-17, T-22, C-06, C-07, C-09.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_relay_costs_time_and_nothing_else() {
    let seed = seed();
    let hostile_for = Duration::from_secs(if soak() { 60 } else { 9 });
    let world = Arc::new(Hostile::start(seed, |builder| builder).await);
    let mut dice = Dice(seed | 1);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(Client::start(&world, number, Dice(dice.roll() | 1)).await);
    }
    world.worsen();
    let begun = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let working: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let over = Arc::clone(&over);
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    client.call().await;
                }
                client
            })
        })
        .collect();
    // On a busy machine longer: a rule that was not applied says nothing.
    let enough = || begun.elapsed() >= hostile_for && world.counts().len() == RuleKind::ALL.len();
    while !enough() && begun.elapsed() < 6 * hostile_for {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    over.store(true, Ordering::Relaxed);
    world.heal();
    let (mut calls, mut signals) = (0, 0);
    let mut done = Vec::new();
    for working in working {
        let client = tokio::time::timeout(HEALED_MAX, working).await;
        let mut client = client.expect("a call ends once everything passes").unwrap();
        bounded("a later call", client.effect()).await;
        bounded("a later signal", client.assert_once()).await;
        (calls, signals) = (calls + client.calls, signals + client.signals);
        done.push(client);
    }
    let counts = world.counts();
    let [up, down] = world.clients_way.bytes();
    println!(
        "{calls} calls, {signals} signals, {} and {} links, {up} bytes up, {down} down: {counts:?}",
        world.clients_way.accepted(),
        world.executors_way.accepted()
    );
    for way in [&world.clients_way, &world.executors_way] {
        assert_eq!(way.sightings(), [], "it learns no plaintext");
    }
    assert_eq!(
        counts.len(),
        RuleKind::ALL.len(),
        "every rule was applied: {counts:?}"
    );
    assert!(calls > CLIENTS, "something came through");
    until("sessions nobody has", || {
        world.executor.sessions() == CLIENTS as usize
    })
    .await;
}

/// The positive control of the one above: an executor that takes repetitions for new ones does things twice.
#[tokio::test(flavor = "multi_thread")]
async fn under_a_hostile_relay_an_executor_without_order_does_things_twice() {
    let seed = seed();
    let world = Hostile::start(seed, ExecutorBuilder::credulous).await;
    let mut client = Client::start(&world, 0, Dice(seed | 1)).await;
    // On the clients' side alone: what is wanted are replies that are lost, and links that are soon there again.
    world.clients_way.hostility(Hostility {
        one_in: 8,
        kinds: vec![RuleKind::Reset],
    });
    world.clients_way.restart();
    let doubling = async {
        while client.doubled == 0 {
            client.signal().await;
        }
    };
    bounded("a double", doubling).await;
    println!(
        "{} signals were sent and {} more came",
        client.signals, client.doubled
    );
}

/// The positive control of what it sees: a relay with both keys sits inside the seal, and sees everything.
#[tokio::test]
async fn a_relay_that_has_both_keys_sees_every_canary() {
    let (client, identity) = (keypair(), keypair());
    let executor = Executor::builder()
        .identity(copy(&identity))
        .listen("127.0.0.1:0")
        .authorize(client.public())
        .serve()
        .await
        .unwrap();
    let upstream: SocketAddr = executor.local_addr().unwrap().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let keys = (copy(&client), Arc::new(copy(&identity)));
    let tee = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        tee(stream, upstream, keys).await
    });
    let target = Target::direct(address.to_string(), executor.public_key());
    let builder = Harness::builder().identity(client).resume_for(Duration::ZERO);
    let harness = bounded("connecting", builder.connect(target)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join(DIRECTORY);
    std::fs::create_dir(&place).unwrap();
    let script = format!("cat; printf '%s%s' canary-output -e3a8; : {ARGUMENT}");
    let command = shell(&script)
        .env("HIDDEN", VARIABLE)
        .current_dir(&place)
        .stdin_piped();
    let mut run = harness.exec(command);
    bounded("a write", run.write_stdin(INPUT.into())).await.unwrap();
    bounded("a close", run.close_stdin()).await.unwrap();
    let finished = bounded("its end", run.wait()).await.unwrap();
    assert_eq!(finished.stdout.to_text(), format!("{INPUT}{OUTPUT}"));
    bounded("the end", harness.shutdown()).await;
    let seen = bounded("the tee", tee).await.unwrap();
    for canary in [ARGUMENT, VARIABLE, INPUT, OUTPUT, DIRECTORY] {
        assert!(seen.contains(&canary.as_bytes().to_vec()), "{canary}");
    }
}

/// Speaks to a harness as its executor and to the executor as its client, and passes on what they say: what it saw.
async fn tee(
    mut client: TcpStream,
    upstream: SocketAddr,
    keys: (StaticKeypair, Arc<StaticKeypair>),
) -> Vec<Vec<u8>> {
    let mut opening = PreambleDecoder::new();
    let preamble = loop {
        if let Some((preamble, _)) = opening.decode().unwrap() {
            break preamble;
        }
        client.read_buf(opening.buffer_mut()).await.unwrap();
    };
    let mut server = TcpStream::connect(upstream).await.unwrap();
    let mut rng = OsRandomness::new();
    let mut near =
        Link::<()>::answer(Instant::now(), keys.1, &preamble, LinkOptions::direct(), &mut rng).unwrap();
    let mut far: Option<Link<()>> = None;
    let mut decoders = [opening.into_frames(), OuterDecoder::new()];
    let mut watches = [Watch::default(), Watch::default()];
    let mut seen = Vec::new();
    loop {
        for side in 0..2 {
            while let Some(frame) = decoders[side].next_frame().unwrap() {
                let link = if side == 0 {
                    &mut near
                } else {
                    far.as_mut().unwrap()
                };
                if link.handle_frame(Instant::now(), frame).is_err() {
                    return seen;
                }
                while let Some(event) = if side == 0 {
                    near.poll_event()
                } else {
                    far.as_mut().unwrap().poll_event()
                } {
                    match event {
                        LinkEvent::AuthorizationNeeded { hello, .. } => {
                            let asked = Preamble { ..preamble };
                            let now = Instant::now();
                            let options = LinkOptions::direct();
                            let dialled = Link::dial(now, &keys.0, &asked, &[], &hello, options, &mut rng);
                            far = Some(dialled.unwrap());
                        }
                        LinkEvent::Established(peer) if side == 1 => near.welcome(&peer.welcome).unwrap(),
                        LinkEvent::Established(_) => {}
                        LinkEvent::Message(incoming) => {
                            seen.extend(watches[side].search(&canaries(), &incoming.bytes));
                            let message = Outgoing {
                                lane: incoming.lane,
                                channel: incoming.channel,
                                bytes: incoming.bytes,
                                trailer: None,
                                token: (),
                            };
                            let other = if side == 0 {
                                far.as_mut().unwrap()
                            } else {
                                &mut near
                            };
                            other.enqueue(message).map_err(|_| "no room").unwrap();
                        }
                        LinkEvent::PeerClosed { .. } => return seen,
                    }
                }
            }
        }
        let mut out = BytesMut::new();
        drop(near.poll_transmit(Instant::now(), &mut out, usize::MAX).unwrap());
        client.write_all(&out).await.ok();
        if let Some(far) = &mut far {
            out.clear();
            drop(far.poll_transmit(Instant::now(), &mut out, usize::MAX).unwrap());
            server.write_all(&out).await.ok();
        }
        let [from_client, from_server] = &mut decoders;
        let read = tokio::select! {
            read = client.read_buf(from_client.buffer_mut()) => read,
            read = server.read_buf(from_server.buffer_mut()) => read,
        };
        if read.unwrap_or(0) == 0 {
            return seen;
        }
    }
}
