//! What the three roles cost over the bare thing, all in one run and as ratios.
//!
//! `cargo bench -p dwell-actors --bench roles` prints the table. Relay and executor are processes of their own, as are
//! the plain byte relay, the echo and the sealing sender they are measured against: this binary, started again with
//! the name of a role. `… -- --only true` (or `spawn`, `echo`, `burst`, `flood`, `flooded-echo`, `waiting-call`) runs a
//! part; `… -- --instructions sampled N` runs nothing but N commands, for a tool that counts.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the result is a table, and a benchmark that fails should stop"
)]

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dwell_actors::executor::Executor;
use dwell_actors::guard::{GuardOptions, GuardProgram};
use dwell_actors::harness::{Command, Harness, Run, RunEvent, Target};
use dwell_actors::relay_server::Relay;
use dwell_actors::spawn::{Environment, OutputPipe, SpawnRequest, Spawner, TerminalSize};
use dwell_actors::trace_collector::{SHIP_AGE_MAX, SHIP_IDLE};
use dwell_messages::{ExitStatus, PublicKey};
use dwell_relay::{LinkOptions, OsRandomness, StaticKeypair};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// Rounds that go through all cases, so that noise meets all of them alike.
const ROUNDS: usize = 20;
/// Samples of one case in one round: 500 in all.
const ROUND_SAMPLES: usize = 25;
/// Bytes of one echo.
const ECHO_BYTES: usize = 64;
/// Commands of one burst.
const BURST_COMMANDS: usize = 200;
/// How many of them are under way at a time.
const IN_FLIGHT: usize = 32;
/// Bursts of each kind.
const BURST_ROUNDS: usize = 7;
/// What a flooding child writes.
const FLOOD_BYTES: u64 = 1 << 30;
/// Floods of each kind.
const FLOOD_ROUNDS: usize = 5;
/// Keystrokes of each kind, and calls behind another's wait.
const KEYSTROKES: usize = 1_000;
/// What the heavy executor's process holds.
const HEAVY_BYTES: usize = 1 << 30;
/// Plain bytes of one record of the bare sender.
const RECORD_BYTES: usize = 32 * 1024;
/// What its pipe is asked to hold, as the executor's.
const PIPE_BYTES: usize = 256 * 1024;
/// The bare pair's key: both ends know it, since no handshake is measured.
const BARE_KEY: [u8; 32] = [7; 32];

/// A process of this binary in another role. It ends when its standard input does.
struct RoleProcess {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl RoleProcess {
    fn start(arguments: &[&str]) -> Self {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .arg("--role")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
    }
}

impl Drop for RoleProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Tells the parent where this role is, and stays until the parent is gone.
async fn serve_until_orphaned(says: &str) {
    println!("{says}");
    let mut rest = Vec::new();
    drop(tokio::io::stdin().read_to_end(&mut rest).await);
}

fn play(arguments: &[String]) {
    let argument = |index: usize| arguments.get(index).unwrap().as_str();
    match argument(0) {
        "relay" => runtime().block_on(async {
            let relay = Relay::builder().listen("127.0.0.1:0").serve().await.unwrap();
            serve_until_orphaned(&relay.local_addr()).await;
        }),
        "executor" => runtime().block_on(async {
            // Touched, so that it is there.
            let heavy = arguments.get(3).is_some_and(|kind| kind == "heavy");
            let ballast = heavy.then(|| vec![1_u8; HEAVY_BYTES]);
            let unpaced = arguments.get(3).is_some_and(|kind| kind == "unpaced");
            let executor = Executor::builder()
                .links(if unpaced {
                    without_pace
                } else {
                    std::convert::identity
                })
                .relay(argument(1))
                .listen("127.0.0.1:0")
                .authorize(argument(2).parse().unwrap())
                .serve()
                .await
                .unwrap();
            executor.registered().await.unwrap();
            let says = format!("{} {}", executor.public_key(), executor.local_addr().unwrap());
            serve_until_orphaned(&says).await;
            drop(std::hint::black_box(ballast));
        }),
        "byte-relay" => runtime().block_on(byte_relay(argument(1).parse().unwrap())),
        "echo" => runtime().block_on(echo()),
        "sender" => runtime().block_on(sender(argument(1).parse().unwrap())),
        role => panic!("no such role: {role}"),
    }
}

fn without_pace(options: LinkOptions) -> LinkOptions {
    LinkOptions {
        paced: false,
        ..options
    }
}

async fn byte_relay(target: SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let says = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(target).await.unwrap();
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                drop(
                    tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, 128 << 10, 128 << 10).await,
                );
            });
        }
    });
    serve_until_orphaned(&says).await;
}

async fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let says = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; ECHO_BYTES];
                while stream.read_exact(&mut buffer).await.is_ok() {
                    stream.write_all(&buffer).await.unwrap();
                }
            });
        }
    });
    serve_until_orphaned(&says).await;
}

fn bare_key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &BARE_KEY).unwrap())
}

fn nonce(record: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&record.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Reads a flooding child, seals records and sends them: once for every line on its standard input.
async fn sender(relay: SocketAddr) {
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line.unwrap();
        let mut stream = TcpStream::connect(relay).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut child = flood_command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdout.take().unwrap();
        rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES).unwrap();
        let (key, mut record) = (bare_key(), 0);
        let mut out = Vec::with_capacity(4 + RECORD_BYTES + AES_256_GCM.tag_len());
        loop {
            out.clear();
            out.resize(4 + RECORD_BYTES, 0);
            let length = pipe.read(&mut out[4..]).await.unwrap();
            if length == 0 {
                break;
            }
            out.truncate(4 + length);
            let tag = key
                .seal_in_place_separate_tag(nonce(record), Aad::empty(), &mut out[4..])
                .unwrap();
            out.extend_from_slice(tag.as_ref());
            let sealed = u32::try_from(out.len() - 4).unwrap();
            out[..4].copy_from_slice(&sealed.to_be_bytes());
            record += 1;
            stream.write_all(&out).await.unwrap();
        }
        child.wait().await.unwrap();
    }
}

fn flood_command() -> tokio::process::Command {
    let mut command = tokio::process::Command::new("head");
    command.args(["-c", &FLOOD_BYTES.to_string(), "/dev/zero"]);
    command
}

/// Opens the records of one bare sender and counts what is in them.
async fn open_all(mut stream: TcpStream) -> u64 {
    let key = bare_key();
    let (mut record, mut total) = (0, 0);
    let mut buffer = bytes::BytesMut::with_capacity(256 * 1024);
    loop {
        while buffer.len() >= 4 {
            let length = u32::from_be_bytes(buffer[..4].try_into().unwrap()) as usize;
            if buffer.len() < 4 + length {
                break;
            }
            let mut sealed = buffer.split_to(4 + length);
            total += key
                .open_in_place(nonce(record), Aad::empty(), &mut sealed[4..])
                .unwrap()
                .len() as u64;
            record += 1;
        }
        buffer.reserve(128 * 1024);
        if stream.read_buf(&mut buffer).await.unwrap() == 0 {
            return total;
        }
    }
}

/// Everything the cases need, up and connected.
struct Bench {
    /// On the bench's own arbiter: its caller crosses no thread.
    here: Arc<Harness>,
    relayed: Arc<Harness>,
    direct: Arc<Harness>,
    /// An executor whose process holds a gibibyte.
    heavy: Arc<Harness>,
    /// An executor whose bulk is not paced: directly, and through the relay.
    unpaced: [Arc<Harness>; 2],
    echo: TcpStream,
    apart: mpsc::Sender<oneshot::Sender<()>>,
    bare_sender: RoleProcess,
    bare_opener: TcpListener,
    _others: [RoleProcess; 7],
}

impl Bench {
    fn start(stands: &Stands) -> Self {
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let mut relay = RoleProcess::start(&["relay"]);
        let at = relay.line();
        let mut executor = RoleProcess::start(&["executor", &at, &client.public().to_string()]);
        let line = executor.line();
        let (key, address) = line.split_once(' ').unwrap();
        let key: PublicKey = key.parse().unwrap();
        let builder = || {
            let identity = StaticKeypair::from_private(zeroize::Zeroizing::new(*client.expose_private()));
            Harness::builder().identity(identity)
        };
        let through = Target::relay(at.as_str(), key);
        let on = &stands.plain;
        let here = stands.arbiter.block_on(builder().here().connect(through.clone()));
        let relayed = on.block_on(builder().connect(through));
        let direct = on.block_on(builder().connect(Target::direct(address, key)));
        let mut heavy_executor =
            RoleProcess::start(&["executor", &at, &client.public().to_string(), "heavy"]);
        let line = heavy_executor.line();
        let (key, address) = line.split_once(' ').unwrap();
        let heavy = on.block_on(builder().connect(Target::direct(address, key.parse().unwrap())));
        let [here, relayed, direct, heavy] = [here, relayed, direct, heavy].map(|up| Arc::new(up.unwrap()));
        let mut unpaced_executor =
            RoleProcess::start(&["executor", &at, &client.public().to_string(), "unpaced"]);
        let line = unpaced_executor.line();
        let (key, address) = line.split_once(' ').unwrap();
        let key: PublicKey = key.parse().unwrap();
        let unpaced = [Target::direct(address, key), Target::relay(at.as_str(), key)]
            .map(|target| Arc::new(on.block_on(builder().connect(target)).unwrap()));
        let mut echo = RoleProcess::start(&["echo"]);
        let mut echo_relay = RoleProcess::start(&["byte-relay", &echo.line()]);
        let echo_at = echo_relay.line();
        let apart = echo_thread(echo_at.clone());
        let stream = on.block_on(TcpStream::connect(echo_at)).unwrap();
        stream.set_nodelay(true).unwrap();
        let bare_opener = on.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let mut bare_relay =
            RoleProcess::start(&["byte-relay", &bare_opener.local_addr().unwrap().to_string()]);
        let mut bare_sender = RoleProcess::start(&["sender", &bare_relay.line()]);
        assert_eq!(bare_sender.line(), "ready");
        Self {
            here,
            relayed,
            direct,
            heavy,
            unpaced,
            echo: stream,
            apart,
            bare_sender,
            bare_opener,
            _others: [
                relay,
                executor,
                heavy_executor,
                unpaced_executor,
                echo,
                echo_relay,
                bare_relay,
            ],
        }
    }

    async fn bare_flood(&mut self) {
        self.bare_sender.say("go");
        let (stream, _) = self.bare_opener.accept().await.unwrap();
        assert_eq!(open_all(stream).await, FLOOD_BYTES);
    }

    async fn echo_once(&mut self) {
        echo_on(&mut self.echo).await;
    }

    /// The same with the socket on another thread, as the harness has it.
    async fn echo_apart(&mut self) {
        let (reply, done) = oneshot::channel();
        self.apart.send(reply).await.unwrap();
        done.await.unwrap();
    }
}

async fn echo_on(stream: &mut TcpStream) {
    let mut buffer = [1; ECHO_BYTES];
    stream.write_all(&buffer).await.unwrap();
    stream.read_exact(&mut buffer).await.unwrap();
}

/// A thread that owns a connection to an echo, and does one for everybody who asks.
fn echo_thread(address: String) -> mpsc::Sender<oneshot::Sender<()>> {
    let (ask, mut asked) = mpsc::channel::<oneshot::Sender<()>>(1);
    std::thread::spawn(move || {
        runtime().block_on(async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            while let Some(reply) = asked.recv().await {
                echo_on(&mut stream).await;
                reply.send(()).ok();
            }
        });
    });
    ask
}

/// `true` with three pipes, from spawn until both outputs are at their end and the status is known.
async fn bare_true() {
    let child = tokio::process::Command::new("true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(child.wait_with_output().await.unwrap().status.success());
}

async fn our_true(harness: &Harness, sampled: bool) -> dwell_actors::harness::CallTimings {
    let finished = harness
        .exec(Command::new("true").sampled(sampled))
        .wait()
        .await
        .unwrap();
    assert_eq!(finished.status, ExitStatus::Code(0));
    finished.timings
}

async fn our_flood(harness: &Harness) {
    let bytes = FLOOD_BYTES.to_string();
    let command = Command::new("head")
        .args(["-c", &bytes, "/dev/zero"])
        .sampled(false);
    let finished = harness.exec(command).wait().await.unwrap();
    assert_eq!(finished.output_bytes, [FLOOD_BYTES, 0]);
}

/// `BURST_COMMANDS` of one kind with `IN_FLIGHT` under way.
async fn burst<F: Future<Output = ()> + Send + 'static>(one: impl Fn() -> F + Clone + Send + Sync + 'static) {
    let left = Arc::new(AtomicUsize::new(BURST_COMMANDS));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (left, one) = (Arc::clone(&left), one.clone());
        workers.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                one().await;
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
}

fn percentile(values: &[Duration], of_hundred: usize) -> Duration {
    let mut values = values.to_vec();
    values.sort();
    values[(values.len() - 1) * of_hundred / 100]
}

/// One row: a case, its figure, and its ratio to a baseline with what it may be.
fn row(case: &str, samples: &[Duration], budget: Option<(&[Duration], f64)>) {
    let us = |of_hundred| percentile(samples, of_hundred).as_secs_f64() * 1e6;
    let (p50, p90) = (us(50), us(90));
    let Some((base, budget)) = budget else {
        println!("{case:<44} {p50:>9.0} {p90:>9.0}     1.00");
        return;
    };
    let ratio = p50 / (percentile(base, 50).as_secs_f64() * 1e6);
    let verdict = if ratio <= budget { "" } else { "  over" };
    println!("{case:<44} {p50:>9.0} {p90:>9.0} {ratio:>8.2} {budget:>8.2}{verdict}");
}

/// Another unit: so much of the baseline's throughput must be reached.
fn throughput(case: &str, samples: &[Duration], amount: f64, unit: &str, budget: Option<(&[Duration], f64)>) {
    let rate = |samples: &[Duration]| amount / percentile(samples, 50).as_secs_f64();
    let Some((base, budget)) = budget else {
        println!("{case:<44} {:>9.0} {unit:>9}     1.00", rate(samples));
        return;
    };
    let ratio = rate(samples) / rate(base);
    let verdict = if ratio >= budget { "" } else { "  under" };
    println!(
        "{case:<44} {:>9.0} {unit:>9} {ratio:>8.2} {budget:>8.2}{verdict}",
        rate(samples)
    );
}

/// Where callers stand: on a runtime of their own, or on the arbiter of the session.
struct Stands {
    plain: tokio::runtime::Runtime,
    arbiter: actix_rt::SystemRunner,
}

macro_rules! sample {
    ($into:expr, $run:expr) => {{
        let began = Instant::now();
        let value = $run;
        $into.push(began.elapsed());
        value
    }};
}

fn one_shot(bench: &Bench, stands: &Stands) {
    let [mut bare, mut unsampled, mut sampled, mut apart] = [const { Vec::new() }; 4];
    let mut accounts = Vec::new();
    for _ in 0..ROUNDS {
        stands.plain.block_on(async {
            for _ in 0..ROUND_SAMPLES {
                sample!(bare, bare_true().await);
            }
        });
        stands.arbiter.block_on(async {
            for _ in 0..ROUND_SAMPLES {
                let account = sample!(unsampled, our_true(&bench.here, false).await);
                accounts.push((account.total_us, account));
            }
            for _ in 0..ROUND_SAMPLES {
                sample!(sampled, our_true(&bench.here, true).await);
            }
        });
        stands.plain.block_on(async {
            for _ in 0..ROUND_SAMPLES {
                sample!(apart, our_true(&bench.relayed, false).await);
            }
        });
    }
    row("true: tokio::process, three pipes", &bare, None);
    row("true: through the relay", &unsampled, Some((&bare, 1.5)));
    row("true: through the relay, sampled", &sampled, Some((&bare, 1.5)));
    row(
        "true: through the relay, from another thread",
        &apart,
        Some((&bare, 1.5)),
    );
    accounts.sort_by_key(|(total, _)| *total);
    let (_, middle) = &accounts[accounts.len() / 2];
    println!("  of which, in the call at the median: {middle}");
}

/// What the executor's actors, its guard and the child take of a call, by its account: without the link.
async fn executor_part(harness: &Harness, command: Command) -> Duration {
    let finished = harness.exec(command.sampled(false)).wait().await.unwrap();
    assert_eq!(finished.status, ExitStatus::Code(0));
    let micros = finished.timings.executor.iter().map(|(_, micros)| *micros).sum();
    Duration::from_micros(micros)
}

/// A command on a terminal, started without guard and without actors.
async fn bare_terminal(spawner: &Spawner) {
    let (told, outcome) = oneshot::channel();
    let request = SpawnRequest {
        argv: vec![b"true".to_vec()],
        env: Environment::exact([(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())]),
        terminal: Some(TerminalSize::default()),
        ..SpawnRequest::default()
    };
    let reply = Box::new(move |outcome| drop(told.send(outcome)));
    assert!(spawner.try_submit(request, reply).is_ok());
    let spawned = outcome.await.unwrap().result.unwrap();
    let mut output = OutputPipe::from_fd(spawned.stdout).unwrap();
    while output.read_chunk(4_096).await.unwrap().is_some() {}
    spawned.process.watch().unwrap().wait().await.unwrap();
    drop(spawned.process.reap().unwrap());
}

fn spawns(bench: &Bench, stands: &Stands) {
    let [
        mut bare,
        mut pipes,
        mut heavy,
        mut bare_pty,
        mut pty,
        mut heavy_pty,
    ] = [const { Vec::new() }; 6];
    let nobody = GuardOptions {
        program: GuardProgram::Nowhere,
        ..GuardOptions::default()
    };
    let spawner = Spawner::with_guard(nobody).unwrap();
    let on_pipes = || Command::new("true").stdin_piped();
    let on_terminal = || Command::new("true").pty(24, 80);
    stands.plain.block_on(async {
        for _ in 0..ROUNDS {
            for _ in 0..ROUND_SAMPLES {
                sample!(bare, bare_true().await);
                pipes.push(executor_part(&bench.direct, on_pipes()).await);
                heavy.push(executor_part(&bench.heavy, on_pipes()).await);
                sample!(bare_pty, bare_terminal(&spawner).await);
                pty.push(executor_part(&bench.direct, on_terminal()).await);
                heavy_pty.push(executor_part(&bench.heavy, on_terminal()).await);
            }
        }
    });
    row("spawn: tokio::process, three pipes", &bare, None);
    row("spawn: actors and guard", &pipes, Some((&bare, 1.3)));
    row(
        "spawn: the same, executor holds 1 GiB",
        &heavy,
        Some((&bare, 1.3)),
    );
    row("terminal: posix_spawn class, no guard", &bare_pty, None);
    row("terminal: actors and guard", &pty, Some((&bare_pty, 1.2)));
    row(
        "terminal: the same, executor holds 1 GiB",
        &heavy_pty,
        Some((&bare_pty, 1.2)),
    );
}

fn round_trip(bench: &mut Bench, stands: &Stands) {
    let [mut bare, mut bare_apart, mut ours, mut ours_apart] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        stands.plain.block_on(async {
            for _ in 0..ROUND_SAMPLES {
                sample!(bare, bench.echo_once().await);
            }
            for _ in 0..ROUND_SAMPLES {
                sample!(bare_apart, bench.echo_apart().await);
            }
            for _ in 0..ROUND_SAMPLES {
                drop(sample!(
                    ours_apart,
                    bench.relayed.environment_info().await.unwrap()
                ));
            }
        });
        stands.arbiter.block_on(async {
            for _ in 0..ROUND_SAMPLES {
                drop(sample!(ours, bench.here.environment_info().await.unwrap()));
            }
        });
    }
    row("round trip: 64 bytes, byte relay", &bare, None);
    row("round trip: environment info", &ours, Some((&bare, 2.0)));
    row("round trip: 64 bytes, socket on its thread", &bare_apart, None);
    row(
        "round trip: environment info, session so too",
        &ours_apart,
        Some((&bare_apart, 2.0)),
    );
}

async fn bursts(bench: &Bench) {
    let [mut bare, mut direct, mut relayed] = [const { Vec::new() }; 3];
    let ours = |harness: &Arc<Harness>| {
        let harness = Arc::clone(harness);
        move || {
            let harness = Arc::clone(&harness);
            async move { drop(our_true(&harness, false).await) }
        }
    };
    for _ in 0..BURST_ROUNDS {
        sample!(bare, burst(bare_true).await);
        sample!(direct, burst(ours(&bench.direct)).await);
        sample!(relayed, burst(ours(&bench.relayed)).await);
    }
    let commands = BURST_COMMANDS as f64;
    throughput("32 in flight: tokio::process", &bare, commands, "/s", None);
    throughput(
        "32 in flight: direct",
        &direct,
        commands,
        "/s",
        Some((&bare, 0.7)),
    );
    throughput(
        "32 in flight: through the relay",
        &relayed,
        commands,
        "/s",
        Some((&bare, 0.7)),
    );
}

async fn floods(bench: &mut Bench) {
    let [mut bare, mut direct, mut relayed, mut free, mut free_relayed] = [const { Vec::new() }; 5];
    for _ in 0..FLOOD_ROUNDS {
        sample!(bare, bench.bare_flood().await);
        sample!(direct, our_flood(&bench.direct).await);
        sample!(relayed, our_flood(&bench.relayed).await);
        sample!(free, our_flood(&bench.unpaced[0]).await);
        sample!(free_relayed, our_flood(&bench.unpaced[1]).await);
    }
    let megabytes = FLOOD_BYTES as f64 / 1e6;
    throughput(
        "flood: bare sealing sender, byte relay",
        &bare,
        megabytes,
        "MB/s",
        None,
    );
    throughput("flood: direct", &direct, megabytes, "MB/s", Some((&bare, 0.7)));
    throughput(
        "flood: through the relay",
        &relayed,
        megabytes,
        "MB/s",
        Some((&bare, 0.7)),
    );
    for (case, samples) in [
        ("flood: direct, without its pace", &free),
        ("flood: through the relay, without its pace", &free_relayed),
    ] {
        throughput(case, samples, megabytes, "MB/s", Some((&bare, 0.7)));
    }
}

/// Keys typed one after the other, each echo awaited.
async fn keystrokes(run: &mut Run, times: &mut Vec<Duration>) {
    for _ in 0..KEYSTROKES {
        let began = Instant::now();
        run.write_stdin(bytes::Bytes::from_static(b"x")).await.unwrap();
        while !matches!(run.next().await.unwrap(), RunEvent::Stdout(_)) {}
        times.push(began.elapsed());
    }
}

/// A command that writes for ever, and a task that takes it all.
fn flood_for_ever(harness: &Harness) -> tokio::task::JoinHandle<()> {
    let mut run = harness.exec(Command::new("cat").arg("/dev/zero").sampled(false));
    tokio::spawn(async move { while run.next().await.is_some() {} })
}

/// One row: p50, p99, and the p99 that is allowed.
fn tail_row(case: &str, samples: &[Duration], allowed: Option<Duration>) {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let (p50, p99) = (percentile(samples, 50), percentile(samples, 99));
    let allowed = allowed.map_or(String::new(), |allowed| {
        let verdict = if p99 <= allowed { "" } else { "  over" };
        format!("{:>9.0}{verdict}", us(allowed))
    });
    println!("{case:<44} {:>9.0} {:>9.0} {allowed}", us(p50), us(p99));
}

/// A keystroke's echo, idle and while another process floods the same session.
async fn flooded_echo(bench: &Bench) {
    println!(
        "{:<44} {:>9} {:>9} {:>9}",
        "a keystroke's echo", "p50 us", "p99 us", "allowed"
    );
    let echo = Command::new("cat").stdin_piped().sampled(false);
    for (way, harness) in [("direct", &bench.direct), ("relay", &bench.relayed)] {
        for (kind, command) in [("pipe", echo.clone()), ("terminal", echo.clone().pty(24, 80))] {
            let mut run = harness.exec(command);
            let [mut idle, mut flooded] = [const { Vec::new() }; 2];
            keystrokes(&mut run, &mut idle).await;
            let flooding = flood_for_ever(harness);
            keystrokes(&mut run, &mut flooded).await;
            flooding.abort();
            drop(flooding.await);
            let allowed = 2 * percentile(&idle, 99) + Duration::from_millis(1);
            tail_row(&format!("{way}, {kind}: idle"), &idle, None);
            tail_row(&format!("{way}, {kind}: behind a flood"), &flooded, Some(allowed));
        }
    }
}

/// A call that is made while another waits.
async fn waiting_call(bench: &Bench) {
    println!(
        "{:<44} {:>9} {:>9} {:>9}",
        "a call", "p50 us", "p99 us", "allowed"
    );
    for (way, harness) in [("direct", &bench.direct), ("relay", &bench.relayed)] {
        let run = harness.exec(Command::new("cat").stdin_piped().sampled(false));
        let [mut idle, mut behind] = [const { Vec::new() }; 2];
        let calls = async |times: &mut Vec<Duration>| {
            for _ in 0..KEYSTROKES {
                drop(sample!(times, harness.environment_info().await.unwrap()));
            }
        };
        calls(&mut idle).await;
        tokio::select! {
            _ = run.read(1_000, 1_024, Duration::from_secs(60)) => panic!("nothing is there to be read"),
            () = calls(&mut behind) => {}
        }
        let allowed = percentile(&idle, 99) + Duration::from_millis(1);
        tail_row(&format!("{way}: idle"), &idle, None);
        tail_row(&format!("{way}: while a read waits"), &behind, Some(allowed));
    }
}

/// How much longer everything takes while instructions are counted, about: what waits for time waits as much longer, so
/// that as many calls share a message as do by themselves.
const COUNTED_SLOWDOWN: u32 = 30;

/// Harness and executor in this process and nothing else, for `benches/instructions.sh calls`.
fn instructions(sampled: bool, commands: usize) {
    actix_rt::System::new().block_on(async {
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let executor = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize(client.public())
            .spans_wait(COUNTED_SLOWDOWN * SHIP_IDLE, COUNTED_SLOWDOWN * SHIP_AGE_MAX)
            .serve()
            .await
            .unwrap();
        let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
        let builder = Harness::builder().identity(client).here();
        let harness = builder.connect(target).await.unwrap();
        for _ in 0..commands {
            our_true(&harness, sampled).await;
        }
        harness.shutdown().await;
        executor.shutdown().await;
    });
}

fn main() {
    // The executor's role is served with its guard, as the binary serves it.
    dwell_actors::guard::init();
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    if arguments.first().is_some_and(|first| first == "--role") {
        return play(&arguments[1..]);
    }
    if arguments.first().is_some_and(|first| first == "--instructions") {
        let [_, kind, commands] = arguments.as_slice() else {
            panic!("--instructions sampled|unsampled N");
        };
        return instructions(kind == "sampled", commands.parse().unwrap());
    }
    let only = (arguments.first().is_some_and(|first| first == "--only"))
        .then(|| arguments.get(1).unwrap().as_str());
    let wanted = |part| only.is_none_or(|only| only == part);
    let stands = Stands {
        plain: runtime(),
        arbiter: actix_rt::System::new(),
    };
    let mut bench = Bench::start(&stands);
    stands.arbiter.block_on(async {
        for _ in 0..ROUND_SAMPLES {
            our_true(&bench.here, true).await;
            drop(bench.here.environment_info().await.unwrap());
        }
    });
    stands.plain.block_on(async {
        for _ in 0..ROUND_SAMPLES {
            bare_true().await;
            our_true(&bench.relayed, true).await;
            our_true(&bench.direct, false).await;
            drop(bench.relayed.environment_info().await.unwrap());
            bench.echo_once().await;
            bench.echo_apart().await;
        }
    });
    println!(
        "{:<44} {:>9} {:>9} {:>8} {:>8}",
        "case", "p50 us", "p90 us", "ratio", "budget"
    );
    if wanted("true") {
        one_shot(&bench, &stands);
    }
    if wanted("spawn") {
        spawns(&bench, &stands);
    }
    if wanted("echo") {
        round_trip(&mut bench, &stands);
    }
    if wanted("burst") {
        stands.plain.block_on(bursts(&bench));
    }
    if wanted("flood") {
        stands.plain.block_on(floods(&mut bench));
    }
    if wanted("flooded-echo") {
        stands.plain.block_on(flooded_echo(&bench));
    }
    if wanted("waiting-call") {
        stands.plain.block_on(waiting_call(&bench));
    }
}
