//! A workspace over a distance: packets are late, not bytes, so the ends' TCP is what it is on a real line.

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use dwell_actors::executor::Executor;
use dwell_actors::harness::{Command, Harness, Target};
use dwell_actors::workspace::WorkspaceOptions;
use dwell_relay::{OsRandomness, StaticKeypair};
use dwell_testkit::{End, LongLine};
use tokio::sync::oneshot;

/// Half of the round trip: so long that no machine is busy for as long.
const ONE_WAY: Duration = Duration::from_millis(400);
const ROUND_TRIP: Duration = Duration::from_millis(800);
/// The longest that anything may take.
const BOUND: Duration = Duration::from_secs(60);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Instructions at every level and so many skills at the root.
fn project(at: &Path, depth: usize, skills: usize) -> PathBuf {
    let root = at.join("project");
    std::fs::create_dir_all(root.join(".git")).unwrap();
    std::fs::write(root.join(".git/HEAD"), format!("{}\n", "0".repeat(40))).unwrap();
    let mut cwd = root.clone();
    for level in 0..depth {
        std::fs::write(cwd.join("AGENTS.md"), format!("instructions {level}")).unwrap();
        cwd = cwd.join(format!("d{level}"));
        std::fs::create_dir(&cwd).unwrap();
    }
    for skill in 0..skills {
        let directory = root.join(format!(".agents/skills/skill-{skill:03}"));
        std::fs::create_dir_all(&directory).unwrap();
        let front = format!("---\nname: skill-{skill:03}\ndescription: what it does\n---\nbody\n");
        std::fs::write(directory.join("SKILL.md"), front).unwrap();
    }
    cwd
}

/// Whole round trips in a time.
fn trips(time: Duration) -> u128 {
    time.as_micros() / ROUND_TRIP.as_micros()
}

struct Seen {
    workspace: Duration,
    command: Duration,
}

fn first_turn(line: &LongLine, target: &Target, private: [u8; 32], cwd: PathBuf, from_here: bool) -> Seen {
    let (target, home) = (target.clone(), cwd.clone());
    let work = move || {
        block_on(async move {
            let identity = StaticKeypair::from_private(zeroize::Zeroizing::new(private));
            let options = WorkspaceOptions::new().cwd(cwd).home(home).from_here(from_here);
            let builder = Harness::builder().identity(identity).sampled(false);
            let begun = Instant::now();
            let connecting = builder.workspace(options).connect(target);
            let harness = tokio::time::timeout(BOUND, connecting).await.unwrap().unwrap();
            let loaded = harness.first_workspace().await.unwrap().unwrap();
            let workspace = begun.elapsed();
            assert!(!loaded.agents.truncated && !loaded.skills.truncated);
            let begun = Instant::now();
            let finished = harness.exec(Command::new("true")).wait().await.unwrap();
            assert!(finished.status.success());
            let command = begun.elapsed();
            harness.shutdown().await;
            Seen { workspace, command }
        })
    };
    let thread = line.within(End::Near, work).unwrap();
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Three in all: TCP's own, the handshake's, the workspace's. Then one for the command. The control asks file by file.
#[test]
fn a_workspace_is_known_two_round_trips_after_tcp_and_a_command_takes_one() {
    let line = LongLine::new("w", ONE_WAY).unwrap();
    let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
    let (authorized, private) = (client.public(), *client.expose_private());
    let (say, said) = sync_channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = move || {
        block_on(async move {
            let executor = Executor::builder()
                .listen(format!("{}:0", End::Far.address()))
                .authorize(authorized)
                .serve()
                .await
                .unwrap();
            let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
            say.send(target).unwrap();
            drop(stopped.await);
        });
    };
    let serving = line.within(End::Far, serve).unwrap();
    let target = said.recv_timeout(BOUND).unwrap();
    for (depth, skills) in [(2, 1), (12, 100)] {
        let dir = tempfile::tempdir().unwrap();
        let cwd = project(dir.path(), depth, skills);
        let seen = first_turn(&line, &target, private, cwd.clone(), false);
        println!(
            "depth {depth}, {skills} skills: workspace {:?}, command {:?}",
            seen.workspace, seen.command
        );
        assert_eq!(trips(seen.workspace), 3, "{:?}", seen.workspace);
        assert_eq!(trips(seen.command), 1, "{:?}", seen.command);
        let piecemeal = first_turn(&line, &target, private, cwd, true);
        assert!(trips(piecemeal.workspace) > 3, "{:?}", piecemeal.workspace);
    }
    drop(stop);
    serving.join().unwrap();
}
