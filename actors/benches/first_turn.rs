//! How long it takes to know a workspace over a distance, and to run the command after it, next to the line's own round
//! trip in the same run.
//!
//! `cargo bench -p dwell-actors --bench first_turn`, as root: the line is one between two network namespaces of this
//! benchmark's own, and keeps every packet for 50 ms. Once with the window that TCP begins with, so that its slow start
//! counts, and once with a window open from the start. Times are from `connect` on, TCP's own round trip included.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use dwell_actors::executor::Executor;
use dwell_actors::harness::{Command, Harness, Target};
use dwell_actors::workspace::WorkspaceOptions;
use dwell_messages::PublicKey;
use dwell_relay::{OsRandomness, StaticKeypair};
use dwell_testkit::{End, LongLine};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// Half of the round trip.
const ONE_WAY: Duration = Duration::from_millis(50);
/// A window that nothing here fills: 1.4 MB.
const OPEN_WINDOW: u32 = 1_000;
const ROUNDS: usize = 7;
const COMMANDS: usize = 15;
/// Round trips behind TCP's own: the handshake's, and the workspace's.
const BUDGET_TRIPS: f64 = 2.0;
const BUDGET_SHARE: f64 = 1.1;
const BUDGET_COMMAND: Duration = Duration::from_millis(1);
/// No step of this takes longer.
const BOUND: Duration = Duration::from_secs(30);

fn main() {
    let line = match LongLine::new("b", ONE_WAY) {
        Ok(line) => line,
        Err(error) => {
            println!("there is no line to measure on: {error}");
            std::process::exit(1);
        }
    };
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let far = Far::start(&line, client.public());
    let round_trip = ping(&line, far.echo);
    println!(
        "round trip of 64 bytes on a connection that is up: {:.2} ms",
        ms(round_trip)
    );
    let alone = child_alone();
    println!(
        "the child alone, at the same pace: {:.2} ms (spawn to wait, p50)",
        ms(alone)
    );
    println!(
        "| window | depth | skills | bytes of the answer, about | to the workspace | of set-up + 2 R | budget | command after it, less R and the child |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for window in [None, Some(OPEN_WINDOW)] {
        if let Some(segments) = window {
            line.initial_window(segments).unwrap();
        }
        for (depth, skills, text) in [(2, 1, 0), (6, 10, 0), (12, 100, 0), (12, 100, 100_000)] {
            let dir = tempfile::tempdir().unwrap();
            let cwd = project(dir.path(), depth, skills, text);
            let (took, command) = first_turns(&line, &far, &client, &cwd, dir.path());
            let least = round_trip.mul_f64(1.0 + BUDGET_TRIPS);
            let over = command.saturating_sub(round_trip + alone);
            let name = window.map_or("TCP's own", |_| "open");
            let bytes = text + depth * 14 + skills * 60;
            println!(
                "| {name} | {depth} | {skills} | {bytes} | {:.1} ms | {:.2} | ≤ {BUDGET_SHARE} | {:.2} ms (≤ {:.0}) |",
                ms(took),
                took.as_secs_f64() / least.as_secs_f64(),
                ms(over),
                ms(BUDGET_COMMAND),
            );
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// The far end: an executor, and what answers with the bytes it is sent.
struct Far {
    address: String,
    key: PublicKey,
    echo: u16,
    _stop: oneshot::Sender<()>,
}

impl Far {
    fn start(line: &LongLine, client: PublicKey) -> Self {
        let (say, said) = sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            runtime().block_on(async move {
                let address = End::Far.address();
                let echo = TcpListener::bind((address, 0)).unwrap();
                let port = echo.local_addr().unwrap().port();
                std::thread::spawn(move || answer(&echo));
                let executor = Executor::builder()
                    .listen(format!("{address}:0"))
                    .authorize(client)
                    .serve()
                    .await
                    .unwrap();
                say.send((executor.local_addr().unwrap(), executor.public_key(), port))
                    .unwrap();
                drop(stopped.await);
            });
        };
        line.within(End::Far, serve).unwrap();
        let (address, key, echo) = said.recv_timeout(BOUND).unwrap();
        Self {
            address,
            key,
            echo,
            _stop: stop,
        }
    }
}

fn answer(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut bytes = [0; 64];
    while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {}
}

fn ping(line: &LongLine, port: u16) -> Duration {
    let work = move || {
        let mut stream = TcpStream::connect((End::Far.address(), port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut bytes = [7; 64];
        let times = (0..COMMANDS).map(|_| {
            let begun = Instant::now();
            stream.write_all(&bytes).unwrap();
            stream.read_exact(&mut bytes).unwrap();
            begun.elapsed()
        });
        median(times.collect())
    };
    line.within(End::Near, work).unwrap().join().unwrap()
}

fn child_alone() -> Duration {
    runtime().block_on(async {
        let mut times = Vec::new();
        for _ in 0..COMMANDS * 2 {
            // As cold as a machine that waits for the other end of the line.
            tokio::time::sleep(2 * ONE_WAY).await;
            let begun = Instant::now();
            let mut command = tokio::process::Command::new("true");
            command.stdin(std::process::Stdio::null());
            assert!(command.output().await.unwrap().status.success());
            times.push(begun.elapsed());
        }
        median(times)
    })
}

/// Medians: from `connect` to the workspace in the caller's hands, and one command behind it.
fn first_turns(
    line: &LongLine,
    far: &Far,
    client: &StaticKeypair,
    cwd: &Path,
    home: &Path,
) -> (Duration, Duration) {
    let (address, key) = (far.address.clone(), far.key);
    let private = *client.expose_private();
    let options = WorkspaceOptions::new().cwd(cwd).home(home);
    let work = move || {
        runtime().block_on(async move {
            let (mut learned, mut commands) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let identity = StaticKeypair::from_private(Zeroizing::new(private));
                let builder = Harness::builder().identity(identity).sampled(false);
                let target = Target::direct(address.clone(), key);
                let begun = Instant::now();
                let harness = builder.workspace(options.clone()).connect(target).await.unwrap();
                let loaded = harness.first_workspace().await.unwrap().unwrap();
                learned.push(begun.elapsed());
                assert_eq!(loaded.round_trips, 1);
                for _ in 0..COMMANDS {
                    let begun = Instant::now();
                    let finished = harness.exec(Command::new("true")).wait().await.unwrap();
                    commands.push(begun.elapsed());
                    assert!(finished.status.success());
                }
                harness.shutdown().await;
            }
            (median(learned), median(commands))
        })
    };
    line.within(End::Near, work).unwrap().join().unwrap()
}

fn project(at: &Path, depth: usize, skills: usize, text: usize) -> PathBuf {
    let root = at.join("project");
    std::fs::create_dir_all(root.join(".git")).unwrap();
    std::fs::write(root.join(".git/HEAD"), format!("{}\n", "0".repeat(40))).unwrap();
    let mut cwd = root.clone();
    std::fs::write(cwd.join("AGENTS.md"), "x".repeat(14.max(text / 4))).unwrap();
    for level in 1..depth {
        cwd = cwd.join(format!("d{level}"));
        std::fs::create_dir(&cwd).unwrap();
        let long = if level < 4 { text / 4 } else { 0 };
        std::fs::write(cwd.join("AGENTS.md"), "x".repeat(14.max(long))).unwrap();
    }
    for skill in 0..skills {
        let directory = root.join(format!(".agents/skills/skill-{skill:03}"));
        std::fs::create_dir_all(&directory).unwrap();
        let front = format!("---\nname: skill-{skill:03}\ndescription: what it does\n---\nbody\n");
        std::fs::write(directory.join("SKILL.md"), front).unwrap();
    }
    cwd
}
