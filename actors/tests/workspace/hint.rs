//! The one-shot root hint: what it saves, when it is not taken, and that nothing of it stays.

use dwell_actors::workspace::{HintCounts, Loader, Plan, RootHint, SkillsLoaded};
use dwell_messages::workspace::WorkspaceLoad;
use serde_bytes::ByteBuf;

use crate::tree::{Tree, usual};

const SKILL: &str = "---\nname: a\ndescription: b\n---\nbody";

fn project() -> Tree {
    Tree::new()
        .directory("/home/user")
        .directory("/p/.git")
        .file("/p/.agents/skills/outer/SKILL.md", SKILL)
        .file("/p/x/.agents/skills/inner/SKILL.md", SKILL)
        .directory("/p/x/y")
}

fn plan(load: &WorkspaceLoad) -> Plan {
    Plan::new(load, b"/", None).unwrap()
}

async fn hint_of(tree: &Tree, load: &WorkspaceLoad) -> Option<RootHint> {
    Loader::remote(tree, &plan(load)).root().await.hint
}

/// Loads skills with a hint, and says how many markers were looked for.
async fn skills(tree: &Tree, load: &WorkspaceLoad, hint: Option<RootHint>) -> (SkillsLoaded, usize) {
    tree.forget();
    let loaded = Loader::remote(tree, &plan(load)).skills(hint).await;
    (loaded, tree.asked().metadata.len())
}

const USED: HintCounts = HintCounts { used: 1, rejected: 0 };
const REJECTED: HintCounts = HintCounts { used: 0, rejected: 1 };

#[tokio::test]
async fn repo_skill_roots_use_one_shot_hint_then_observe_new_nearest_marker() {
    let tree = project();
    let load = usual("/p/x/y");
    let hint = hint_of(&tree, &load).await;
    assert!(hint.is_some());
    // Made between the two loads: the hint hides it, by design.
    tree.write("/p/x/y/.git", "gitdir: elsewhere");
    let (first, probes) = skills(&tree, &load, hint).await;
    assert_eq!((first.hints, probes), (USED, 0));
    assert_eq!(first.skills.len(), 2, "the root is /p");
    // Nothing was retained: the next load sees the nearer marker.
    let (next, probes) = skills(&tree, &load, None).await;
    assert_eq!(next.hints, HintCounts::default());
    assert!(probes > 0);
    assert_eq!(next.skills.len(), 0, "the root is /p/x/y");
}

#[tokio::test]
async fn an_accepted_hint_saves_every_probe_and_no_directory() {
    let tree = project();
    let load = usual("/p/x/y");
    let (without, probes) = skills(&tree, &load, None).await;
    let listed = tree.asked().listed;
    assert!(probes > 0);
    let hint = hint_of(&tree, &load).await;
    let (with, probes) = skills(&tree, &load, hint).await;
    assert_eq!((with.hints, probes), (USED, 0));
    assert_eq!(with.skills, without.skills);
    // Which of the directories between root and cwd are looked at does not depend on it.
    let sorted = |mut paths: Vec<Vec<u8>>| {
        paths.sort();
        paths
    };
    assert_eq!(sorted(tree.asked().listed), sorted(listed));
}

#[tokio::test]
async fn a_hint_of_another_cwd_is_rejected_and_the_root_is_looked_for() {
    let tree = project();
    let hint = hint_of(&tree, &usual("/p/x")).await;
    let (loaded, probes) = skills(&tree, &usual("/p/x/y"), hint).await;
    assert_eq!(loaded.hints, REJECTED);
    assert!(probes > 0);
    assert_eq!(loaded.skills.len(), 2);
    let (without, _) = skills(&tree, &usual("/p/x/y"), None).await;
    assert_eq!(loaded.skills, without.skills);
}

#[tokio::test]
async fn a_hint_whose_root_is_not_above_cwd_by_components_is_rejected() {
    let tree = project().directory("/pq");
    // A prefix of the string, and no ancestor.
    for root in [&b"/p"[..], b"/pq/below", b"/other"] {
        let hint = RootHint::new("here", b"/pq", root, &[b".git".to_vec()]);
        let (loaded, probes) = skills(&tree, &usual("/pq"), Some(hint)).await;
        assert_eq!(loaded.hints, REJECTED);
        assert!(probes > 0);
    }
    let hint = RootHint::new("here", b"/pq", b"/", &[b".git".to_vec()]);
    assert_eq!(skills(&tree, &usual("/pq"), Some(hint)).await.0.hints, USED);
}

#[tokio::test]
async fn a_hint_of_another_environment_is_rejected() {
    let load = usual("/p/x/y");
    let hint = hint_of(&project().called("there"), &load).await;
    let tree = project();
    let (loaded, probes) = skills(&tree, &load, hint).await;
    assert_eq!(loaded.hints, REJECTED);
    assert!(probes > 0);
}

#[tokio::test]
async fn a_hint_of_other_markers_or_of_another_order_is_rejected() {
    let tree = project();
    let with = |markers: &[&str]| WorkspaceLoad {
        markers: markers
            .iter()
            .map(|marker| ByteBuf::from(marker.as_bytes()))
            .collect(),
        ..usual("/p/x/y")
    };
    let given = with(&[".git", ".hg"]);
    for other in [&[".git"][..], &[".hg", ".git"], &[".git", ".hg", ".svn"], &[]] {
        let hint = hint_of(&tree, &given).await;
        assert!(hint.is_some());
        assert_eq!(
            skills(&tree, &with(other), hint).await.0.hints,
            REJECTED,
            "{other:?}"
        );
    }
    let hint = hint_of(&tree, &given).await;
    assert_eq!(skills(&tree, &given, hint).await.0.hints, USED);
}

#[tokio::test]
async fn there_is_a_hint_only_where_a_marker_was_found() {
    // The fallback to cwd is none.
    let tree = Tree::new().directory("/p/x/y");
    let nothing = Loader::remote(&tree, &plan(&usual("/p/x/y"))).root().await;
    assert!(nothing.hint.is_none() && nothing.root.is_none() && nothing.error.is_none());
    // Nor is a search that failed.
    let tree = project().deny(b"/p/x/y");
    let failed = Loader::remote(&tree, &plan(&usual("/p/x/y"))).root().await;
    assert!(failed.hint.is_none() && failed.error.is_some());
}

#[tokio::test]
async fn a_whole_load_looks_for_the_root_once_and_says_so() {
    let tree = project();
    let plan = plan(&usual("/p/x/y"));
    let (loaded, _) = Loader::remote(&tree, &plan).load().await;
    assert_eq!((loaded.counts.hint_used, loaded.counts.hint_rejected), (1, 0));
    assert_eq!(loaded.skills.len(), 2);
    let with_hint = tree.probes_of(".git");
    // Positive control: without a marker there is no hint, and skills look again.
    let bare = Tree::new().directory("/p/x/y");
    let (loaded, _) = Loader::remote(&bare, &plan).load().await;
    assert_eq!((loaded.counts.hint_used, loaded.counts.hint_rejected), (0, 0));
    // Instructions, skills, repository: four directories each. With the hint one search less.
    assert_eq!((bare.probes_of(".git"), with_hint), (12, 8));
}
