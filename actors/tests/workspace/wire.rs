//! Workspaces through a link: how many round trips, what the trace says, and that both ways of loading agree.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_actors::executor::{Executor, ExecutorHandle};
use dwell_actors::find_up::{PROBES_MAX, Query, find_up};
use dwell_actors::harness::{Harness, HarnessBuilder, RunError, Target};
use dwell_actors::keys::Grant;
use dwell_actors::telemetry::{ClockOffset, SinkError, SpanSink};
use dwell_actors::workspace::{LOADS_MAX, WorkspaceLoaded, WorkspaceOptions};
use dwell_messages::workspace::OnError;
use dwell_messages::{ErrorCode, Role, Span};
use dwell_relay::{OsRandomness, StaticKeypair};
use zeroize::Zeroizing;

use crate::gate::Gate;

const BOUND: Duration = Duration::from_secs(60);

async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {BOUND:?}"),
    }
}

struct World {
    executor: ExecutorHandle,
    client: StaticKeypair,
}

impl World {
    async fn start() -> Self {
        Self::with("").await
    }

    async fn with(options: &str) -> Self {
        let client = StaticKeypair::generate(&mut OsRandomness::new()).unwrap();
        let executor = Executor::builder()
            .listen("127.0.0.1:0")
            .authorize_with(client.public(), Grant::parse(options).unwrap())
            .serve()
            .await
            .unwrap();
        Self { executor, client }
    }

    fn builder(&self) -> HarnessBuilder {
        let client = StaticKeypair::from_private(Zeroizing::new(*self.client.expose_private()));
        Harness::builder()
            .identity(client)
            .sampled(false)
            .resume_for(Duration::ZERO)
    }

    async fn gate(&self, pieces: usize) -> Gate {
        Gate::before(self.executor.local_addr().unwrap().parse().unwrap(), pieces).await
    }

    async fn through(&self, gate: &Gate, builder: HarnessBuilder) -> Harness {
        let target = Target::direct(gate.address.to_string(), self.executor.public_key());
        bounded("connecting", builder.connect(target)).await.unwrap()
    }

    async fn harness(&self, builder: HarnessBuilder) -> Harness {
        let target = Target::direct(self.executor.local_addr().unwrap(), self.executor.public_key());
        bounded("connecting", builder.connect(target)).await.unwrap()
    }
}

/// A project with instructions at every level, and so many skills at its root.
fn project(at: &Path, depth: usize, skills: usize) -> PathBuf {
    let root = at.join("project");
    std::fs::create_dir_all(root.join(".git")).unwrap();
    std::fs::write(
        root.join(".git/HEAD"),
        "0123456789012345678901234567890123456789\n",
    )
    .unwrap();
    let mut cwd = root.clone();
    std::fs::write(cwd.join("AGENTS.md"), "instructions 0").unwrap();
    for level in 1..depth {
        cwd = cwd.join(format!("d{level}"));
        std::fs::create_dir(&cwd).unwrap();
        std::fs::write(cwd.join("AGENTS.md"), format!("instructions {level}")).unwrap();
    }
    for skill in 0..skills {
        let directory = root.join(format!(".agents/skills/skill-{skill:03}"));
        std::fs::create_dir_all(&directory).unwrap();
        let text = format!("---\nname: skill-{skill:03}\ndescription: what it does\n---\nbody\n");
        std::fs::write(directory.join("SKILL.md"), text).unwrap();
    }
    cwd
}

fn options(cwd: &Path, home: &Path) -> WorkspaceOptions {
    WorkspaceOptions::new().cwd(cwd).home(home)
}

fn check(loaded: &WorkspaceLoaded, depth: usize, skills: usize) {
    assert_eq!(loaded.agents.files.len(), depth, "{:?}", loaded.agents);
    assert_eq!(loaded.skills.found.len(), skills);
    assert_eq!(loaded.warnings, []);
    let head = loaded.repository.clone().unwrap().head.unwrap();
    assert_eq!(
        head.commit.as_deref(),
        Some("0123456789012345678901234567890123456789")
    );
    assert!(!loaded.agents.truncated && !loaded.skills.truncated);
}

/// The client says message 1, and one thing behind message 2: with these two words it has a connection and a workspace.
#[tokio::test]
async fn connect_to_workspace_takes_two_round_trips_whatever_the_depth_and_the_number_of_skills() {
    let world = World::start().await;
    for depth in [2, 6, 12] {
        for skills in [1, 10, 100] {
            let dir = tempfile::tempdir().unwrap();
            let cwd = project(dir.path(), depth, skills);
            let gate = world.gate(2).await;
            let builder = world.builder().workspace(options(&cwd, dir.path()));
            let harness = world.through(&gate, builder).await;
            let loaded = bounded("loading", harness.first_workspace())
                .await
                .unwrap()
                .unwrap();
            check(&loaded, depth, skills);
            assert_eq!((gate.passed(), loaded.round_trips), (2, 1));
            assert!(harness.first_workspace().await.is_none(), "it is given once");
            gate.open();
            bounded("shutting down", harness.shutdown()).await;
        }
    }
}

/// The positive control: file by file it takes more, and the deeper and the more the more.
#[tokio::test]
async fn the_same_workspace_file_by_file_takes_more_round_trips() {
    let world = World::start().await;
    let mut taken = Vec::new();
    for (depth, skills) in [(2, 1), (12, 100)] {
        let dir = tempfile::tempdir().unwrap();
        let cwd = project(dir.path(), depth, skills);
        let gate = world.gate(1 << 20).await;
        let builder = world
            .builder()
            .workspace(options(&cwd, dir.path()).from_here(true));
        let harness = world.through(&gate, builder).await;
        let loaded = bounded("loading", harness.first_workspace())
            .await
            .unwrap()
            .unwrap();
        check(&loaded, depth, skills);
        assert!(gate.passed() > loaded.round_trips as usize, "{}", gate.passed());
        taken.push(loaded.round_trips);
        bounded("shutting down", harness.shutdown()).await;
    }
    assert!(taken[0] >= 3 && taken[1] > taken[0] + 10, "{taken:?}");
}

#[tokio::test]
async fn the_request_is_in_the_first_record_and_never_in_message_1() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 2, 1);
    let mut first_words = Vec::new();
    for asks in [false, true] {
        let gate = world.gate(1 << 20).await;
        let mut builder = world.builder();
        if asks {
            builder = builder.workspace(options(&cwd, dir.path()));
        }
        let harness = world.through(&gate, builder).await;
        if asks {
            bounded("loading", harness.first_workspace())
                .await
                .unwrap()
                .unwrap();
        }
        // What is said behind message 2 is said in any case: a ping.
        let sizes = bounded("a word behind message 2", async {
            loop {
                let sizes = gate.sizes().await;
                if sizes.len() >= 2 {
                    return sizes;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        first_words.push((sizes[0], sizes[1]));
        bounded("shutting down", harness.shutdown()).await;
    }
    let [without, with] = first_words[..] else {
        panic!("two connections")
    };
    assert_eq!(with.0, without.0, "message 1 says nothing of it");
    let path = cwd.as_os_str().len();
    assert!(with.1 > without.1 + path, "{with:?} and {without:?}");
}

#[tokio::test]
async fn a_load_under_way_ends_with_its_link_and_says_so() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 2, 1);
    let gate = world.gate(1).await;
    let builder = world.builder().workspace(options(&cwd, dir.path()));
    let harness = world.through(&gate, builder).await;
    // The request never gets there.
    bounded("stopping", world.executor.shutdown()).await;
    let lost = bounded("the end of it", harness.first_workspace()).await.unwrap();
    assert!(lost.is_err(), "{lost:?}");
    assert!(
        bounded("another", harness.workspace(&options(&cwd, dir.path())))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn more_loads_than_a_harness_has_room_for_are_refused_and_the_others_go_on() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 2, 1);
    // Message 1 and the first ping; no load gets through.
    let gate = world.gate(2).await;
    let harness = Arc::new(world.through(&gate, world.builder()).await);
    let asks = options(&cwd, dir.path());
    let mut loads = tokio::task::JoinSet::new();
    for _ in 0..=LOADS_MAX {
        let (harness, asks) = (Arc::clone(&harness), asks.clone());
        loads.spawn(async move { harness.workspace(&asks).await });
    }
    let first = bounded("the one too many", loads.join_next())
        .await
        .unwrap()
        .unwrap();
    match first {
        Err(RunError::Refused(error)) => {
            assert_eq!(
                (error.code, error.limit),
                (ErrorCode::Busy, Some(LOADS_MAX as u64))
            );
        }
        other => panic!("a refusal, not {other:?}"),
    }
    gate.open();
    while let Some(load) = bounded("the others", loads.join_next()).await {
        check(&load.unwrap().unwrap(), 2, 1);
    }
    let harness = Arc::into_inner(harness).unwrap();
    bounded("shutting down", harness.shutdown()).await;
}

#[tokio::test]
async fn what_an_executor_loads_at_once_is_what_is_loaded_file_by_file() {
    let world = World::start().await;
    let harness = world.harness(world.builder()).await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 4, 20);
    std::fs::write(cwd.join("AGENTS.override.md"), "instead".repeat(30_000)).unwrap();
    std::fs::create_dir_all(dir.path().join(".agents/skills/bad")).unwrap();
    std::fs::write(dir.path().join(".agents/skills/bad/SKILL.md"), "nothing").unwrap();
    for options in [
        options(&cwd, dir.path()),
        options(&cwd, dir.path()).text_max_bytes(100),
        options(&cwd, dir.path()).markers([".none"]),
        options(dir.path(), dir.path()),
    ] {
        let at_once = bounded("at once", harness.workspace(&options)).await.unwrap();
        let from_here = bounded("file by file", harness.workspace(&options.from_here(true)))
            .await
            .unwrap();
        assert_eq!(at_once.round_trips, 1);
        assert!(from_here.round_trips > 1);
        let plain = |loaded: &WorkspaceLoaded| WorkspaceLoaded {
            timings: Default::default(),
            counts: Default::default(),
            round_trips: 0,
            ..loaded.clone()
        };
        assert_eq!(plain(&at_once), plain(&from_here));
        assert_eq!(at_once.warnings.len(), 1, "the bad skill: {:?}", at_once.warnings);
    }
    bounded("shutting down", harness.shutdown()).await;
}

#[tokio::test]
async fn every_load_looks_again_and_sees_a_nearer_marker() {
    let world = World::start().await;
    let harness = world.harness(world.builder()).await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 3, 5);
    let options = options(&cwd, dir.path());
    let first = bounded("loading", harness.workspace(&options)).await.unwrap();
    assert_eq!((first.skills.found.len(), first.counts.hint_used), (5, 1));
    std::fs::create_dir(cwd.join(".git")).unwrap();
    let next = bounded("loading", harness.workspace(&options)).await.unwrap();
    assert_eq!((next.skills.found.len(), next.agents.files.len()), (0, 1));
    assert_eq!(next.counts.hint_used, 1);
    bounded("shutting down", harness.shutdown()).await;
}

/// As many as the link's window lets through quickly; the ten thousand are searched without one, next door.
#[tokio::test]
async fn the_search_of_an_executor_finds_what_a_search_from_here_finds() {
    let world = World::start().await;
    let harness = world.harness(world.builder()).await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 6, 1);
    let root = dir.path().join("project");
    std::os::unix::fs::symlink("loop", root.join("d1/loop")).unwrap();
    let mut compared = 0;
    for from in [
        cwd.clone(),
        root.clone(),
        root.join("d1/none/there"),
        PathBuf::from("/"),
    ] {
        for markers in [
            &[][..],
            &[".git"],
            &["none"],
            &["none", ".git"],
            &["AGENTS.md", ".git"],
            &["loop", ".git"],
        ] {
            for policy in [OnError::Propagate, OnError::Ignore] {
                let query = Query::new(from.to_str().unwrap().as_bytes(), markers, policy).unwrap();
                let there = bounded("a search", harness.find_up(&query)).await;
                let here = bounded("another", find_up(&harness.files(), &query, PROBES_MAX)).await;
                match (there, here) {
                    (Ok(there), Ok(here)) => {
                        assert_eq!((there.root, there.marker), (here.root, here.marker));
                        assert_eq!((there.visited, there.ignored), (here.visited, here.ignored));
                        assert!(there.probed <= here.probed);
                    }
                    (Err(RunError::Refused(there)), Err(here)) => assert_eq!(there.code, here.code),
                    (there, here) => panic!("{there:?} and {here:?}"),
                }
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 48);
    bounded("shutting down", harness.shutdown()).await;
}

#[tokio::test]
async fn workspaces_need_the_scope_files_and_asking_git_needs_spawn() {
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 2, 1);
    let query = Query::new(b"/", [".git"], OnError::Ignore).unwrap();
    let without = World::with("scopes=spawn+pty+stdin+signal+attach+admin").await;
    let harness = without.harness(without.builder()).await;
    let refused = |outcome: RunError| match outcome {
        RunError::Refused(error) => assert_eq!(error.code, ErrorCode::PermissionDenied),
        other => panic!("a refusal, not {other:?}"),
    };
    refused(
        bounded("a load", harness.workspace(&options(&cwd, dir.path())))
            .await
            .unwrap_err(),
    );
    refused(bounded("a search", harness.find_up(&query)).await.unwrap_err());
    bounded("shutting down", harness.shutdown()).await;
    let only = World::with("scopes=files").await;
    let harness = only.harness(only.builder()).await;
    assert!(bounded("a search", harness.find_up(&query)).await.is_ok());
    let asks = options(&cwd, dir.path()).dirty(true);
    let loaded = bounded("a load", harness.workspace(&asks)).await.unwrap();
    assert_eq!(loaded.repository.unwrap().dirty, None);
    bounded("shutting down", harness.shutdown()).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_words() {
    let world = World::start().await;
    let harness = world.harness(world.builder()).await;
    let code = |outcome: Result<WorkspaceLoaded, RunError>| match outcome {
        Err(RunError::Refused(error)) => error.code,
        other => panic!("a refusal, not {other:?}"),
    };
    let ask = async |options: WorkspaceOptions| code(bounded("a load", harness.workspace(&options)).await);
    assert_eq!(
        ask(WorkspaceOptions::new().cwd("relative")).await,
        ErrorCode::BadPath
    );
    assert_eq!(
        ask(WorkspaceOptions::new().cwd("/a/../b")).await,
        ErrorCode::BadPath
    );
    assert_eq!(
        ask(WorkspaceOptions::new().markers(["a/b"])).await,
        ErrorCode::BadRequest
    );
    assert_eq!(
        ask(WorkspaceOptions::new().markers(["m"; 17])).await,
        ErrorCode::BadRequest
    );
    assert_eq!(
        ask(WorkspaceOptions::new().text_max_bytes(u32::MAX)).await,
        ErrorCode::BadRequest
    );
    let here = WorkspaceOptions::new().cwd("relative").from_here(true);
    assert_eq!(ask(here).await, ErrorCode::BadPath);
    // Nothing of it harms the session.
    assert!(
        bounded("a load", harness.workspace(&WorkspaceOptions::new()))
            .await
            .is_ok()
    );
    bounded("shutting down", harness.shutdown()).await;
}

#[tokio::test]
async fn whether_anything_is_changed_is_known_only_if_it_was_asked_for() {
    let world = World::start().await;
    let harness = world.harness(world.builder()).await;
    let dir = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let done = std::process::Command::new("git")
            .current_dir(dir.path())
            .args(args)
            .output()
            .unwrap();
        assert!(done.status.success(), "{args:?}");
    };
    git(&["init", "-q"]);
    let dirty = async |asked: bool| {
        let asks = options(dir.path(), Path::new("/none")).dirty(asked);
        let loaded = bounded("a load", harness.workspace(&asks)).await.unwrap();
        loaded.repository.unwrap().dirty
    };
    assert_eq!(dirty(false).await, None);
    assert_eq!(dirty(true).await, Some(false));
    std::fs::write(dir.path().join("new"), "").unwrap();
    assert_eq!(dirty(true).await, Some(true));
    bounded("shutting down", harness.shutdown()).await;
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(Role, Span)>>>);

impl SpanSink for Kept {
    fn export(&mut self, role: Role, _: Option<ClockOffset>, spans: &[Span]) -> Result<(), SinkError> {
        self.0
            .lock()
            .unwrap()
            .extend(spans.iter().map(|span| (role, span.clone())));
        Ok(())
    }
}

impl Kept {
    fn one(&self, role: Role, name: &str) -> Span {
        let spans = self.0.lock().unwrap();
        let mut named = spans.iter().filter(|(by, span)| *by == role && span.name == name);
        let found = named.next().unwrap_or_else(|| {
            let names: Vec<_> = spans.iter().map(|(by, span)| (by, &span.name)).collect();
            panic!("no {name} of {role:?} in {names:?}")
        });
        found.1.clone()
    }
}

fn stages(kept: &Kept, by: Role, parent: &Span) -> [Span; 4] {
    let names = ["root walk", "agents load", "skills load", "repository discovery"];
    names.map(|name| {
        let stage = kept.one(by, name);
        assert_eq!(
            (stage.trace_id, stage.parent),
            (parent.trace_id, parent.span_id),
            "{name}"
        );
        stage
    })
}

#[tokio::test]
async fn the_trace_shows_the_stages_on_both_machines_and_no_path_in_it() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 3, 3);
    let kept = Kept::default();
    let builder = world
        .builder()
        .sampled(true)
        .sink(kept.clone())
        .workspace(options(&cwd, dir.path()));
    let harness = world.harness(builder).await;
    bounded("loading", harness.first_workspace())
        .await
        .unwrap()
        .unwrap();
    bounded("flushing", harness.flush_traces()).await;
    let load = kept.one(Role::Harness, "workspace load");
    let asked = kept.one(Role::Harness, "Workspace/Load");
    let served = kept.one(Role::Executor, "Workspace/Load");
    assert_eq!(load.parent, [0; 8]);
    assert_eq!((asked.trace_id, asked.parent), (load.trace_id, load.span_id));
    assert_eq!((served.trace_id, served.parent), (load.trace_id, asked.span_id));
    let [walk, agents, skills, _] = stages(&kept, Role::Executor, &served);
    assert!(agents.start_unix_ns >= walk.end_unix_ns && skills.start_unix_ns >= walk.end_unix_ns);
    let told = format!("{:?}", kept.0.lock().unwrap());
    assert!(!told.contains("project") && !told.contains("instructions") && !told.contains("what it does"));
    bounded("shutting down", harness.shutdown()).await;
}

/// Where each question is a round trip the parts overlap: instructions and skills, and the repository with both.
#[tokio::test]
async fn file_by_file_the_stages_overlap() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let cwd = project(dir.path(), 6, 30);
    let kept = Kept::default();
    let harness = world
        .harness(world.builder().sampled(true).sink(kept.clone()))
        .await;
    let asks = options(&cwd, dir.path()).from_here(true);
    let loaded = bounded("loading", harness.workspace(&asks)).await.unwrap();
    bounded("flushing", harness.flush_traces()).await;
    let load = kept.one(Role::Harness, "workspace load");
    let [walk, agents, skills, repository] = stages(&kept, Role::Harness, &load);
    let overlap = |a: &Span, b: &Span| a.start_unix_ns < b.end_unix_ns && b.start_unix_ns < a.end_unix_ns;
    assert!(overlap(&agents, &skills) && overlap(&walk, &repository) && !overlap(&walk, &skills));
    let times = loaded.timings.stages;
    assert!(
        times.skills.at_us >= times.root_walk.took_us && times.repository.at_us < times.root_walk.took_us
    );
    bounded("shutting down", harness.shutdown()).await;
}
