//! Workspaces through a link: how many round trips, what is refused, and that both ways of loading agree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dwell_actors::find_up::{PROBES_MAX, Query, find_up};
use dwell_actors::harness::RunError;
use dwell_actors::workspace::{LOADS_MAX, WorkspaceLoaded, WorkspaceOptions};
use dwell_messages::ErrorCode;
use dwell_messages::workspace::OnError;

use crate::world::{World, bounded, check, options, project};

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
    bounded("the first ping", async {
        while gate.passed() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
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
