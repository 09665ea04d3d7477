//! Repository facts out of git's own files.

use std::path::Path;
use std::process::Command;

use dwell_actors::workspace::{Loader, Plan};
use dwell_messages::workspace::{Head, WorkspaceReply};

use crate::disk::Disk;
use crate::tree::{Tree, text, usual};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

async fn load(tree: &Tree, cwd: &str) -> WorkspaceReply {
    let plan = Plan::new(&usual(cwd), b"/", None).unwrap();
    Loader::remote(tree, &plan).load().await.0
}

fn head(branch: Option<&str>, commit: Option<&str>) -> Option<Head> {
    Some(Head {
        branch: branch.map(Into::into),
        commit: commit.map(Into::into),
    })
}

async fn head_of(tree: Tree) -> (Option<Head>, usize) {
    let reply = load(&tree, "/p/x").await;
    let repository = reply.repository.unwrap();
    assert_eq!((text(&repository.root), repository.dirty), ("/p", None));
    (repository.head, reply.warnings.len())
}

fn on(branch: &str) -> Tree {
    Tree::new()
        .directory("/p/x")
        .file("/p/.git/HEAD", format!("ref: refs/heads/{branch}\n"))
}

#[tokio::test]
async fn a_branch_is_told_with_its_commit_loose_or_packed_and_the_loose_one_counts() {
    let packed = format!(
        "# pack-refs\n{} refs/heads/a\n{COMMIT} refs/heads/a/b\n",
        "f".repeat(40)
    );
    let loose = on("a/b").file("/p/.git/refs/heads/a/b", format!("{COMMIT}\n"));
    assert_eq!(head_of(loose).await, (head(Some("a/b"), Some(COMMIT)), 0));
    let only_packed = on("a/b").file("/p/.git/packed-refs", &packed);
    assert_eq!(head_of(only_packed).await, (head(Some("a/b"), Some(COMMIT)), 0));
    let other = "e".repeat(40);
    let both = on("a/b")
        .file("/p/.git/packed-refs", &packed)
        .file("/p/.git/refs/heads/a/b", &other);
    assert_eq!(head_of(both).await, (head(Some("a/b"), Some(&other)), 0));
}

#[tokio::test]
async fn an_unborn_branch_has_no_commit_and_a_detached_head_no_branch() {
    assert_eq!(head_of(on("main")).await, (head(Some("main"), None), 0));
    let detached = Tree::new()
        .directory("/p/x")
        .file("/p/.git/HEAD", format!("{COMMIT}\n"));
    assert_eq!(head_of(detached).await, (head(None, Some(COMMIT)), 0));
}

#[tokio::test]
async fn a_worktree_has_its_own_head_and_shares_its_references() {
    let tree = Tree::new()
        .directory("/p/x")
        .file("/p/.git", "gitdir: ../main/.git/worktrees/p\n")
        .file("/main/.git/HEAD", "ref: refs/heads/main\n")
        .file("/main/.git/worktrees/p/HEAD", "ref: refs/heads/topic\n")
        .file("/main/.git/worktrees/p/commondir", "../..\n")
        .file("/main/.git/refs/heads/topic", COMMIT);
    assert_eq!(head_of(tree).await, (head(Some("topic"), Some(COMMIT)), 0));
}

#[tokio::test]
async fn a_hostile_repository_leads_nowhere_and_costs_a_warning() {
    let bare = || Tree::new().directory("/p/x").file("/etc/passwd", COMMIT);
    let cases = [
        bare().file("/p/.git/HEAD", "ref: refs/heads/../../../etc/passwd"),
        bare().file("/p/.git/HEAD", "ref: /etc/passwd"),
        bare().file("/p/.git/HEAD", [0xff; 100]),
        bare()
            .file("/p/.git/HEAD", "ref: refs/heads/a")
            .file("/p/.git/refs/heads/a", "ref: refs/heads/a"),
        bare().file("/p/.git/HEAD", "ref: refs/heads/.invalid"),
        bare().file("/p/.git", "gitdir: nowhere"),
        bare().file("/p/.git", "something else"),
        bare().directory("/p/.git"),
        bare()
            .file("/p/.git/HEAD", "ref: refs/heads/a")
            .file("/p/.git/packed-refs", [b'\n'; 300_000]),
    ];
    for (at, tree) in cases.into_iter().enumerate() {
        let (head, warnings) = head_of(tree).await;
        assert_eq!((head, warnings), (None, 1), "case {at}");
    }
}

#[tokio::test]
async fn outside_a_repository_there_is_none_and_no_warning() {
    let reply = load(&Tree::new().directory("/p/x"), "/p/x").await;
    assert_eq!((reply.repository, reply.warnings.len()), (None, 0));
}

#[tokio::test]
async fn the_nearest_repository_counts_whatever_marks_the_project() {
    let tree = Tree::new()
        .file("/p/.root", "")
        .file("/p/x/.git/HEAD", COMMIT)
        .directory("/p/x/y");
    let mut asks = usual("/p/x/y");
    asks.markers = vec![serde_bytes::ByteBuf::from(".root")];
    let plan = Plan::new(&asks, b"/", None).unwrap();
    let reply = Loader::remote(&tree, &plan).load().await.0;
    assert_eq!(reply.root.as_deref().map(|root| text(root)), Some("/p"));
    assert_eq!(text(&reply.repository.unwrap().root), "/p/x");
}

fn git(at: &Path, args: &[&str]) -> String {
    let mut git = Command::new("git");
    git.current_dir(at).args([
        "-c",
        "user.name=n",
        "-c",
        "user.email=e@localhost",
        "-c",
        "init.defaultBranch=main",
    ]);
    // Nothing of whoever runs the tests.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GIT_") {
            git.env_remove(name);
        }
    }
    let done = git
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

async fn facts(at: &Path) -> Head {
    let at = at.canonicalize().unwrap();
    let plan = Plan::new(&usual(at.to_str().unwrap()), b"/", None).unwrap();
    let reply = Loader::local(&Disk, &plan).load().await.0;
    assert_eq!(reply.warnings, []);
    let repository = reply.repository.unwrap();
    assert_eq!(text(&repository.root), at.to_str().unwrap());
    repository.head.unwrap()
}

/// What git itself makes is read as git itself reads it.
#[tokio::test]
async fn what_is_read_agrees_with_git_itself() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("main");
    std::fs::create_dir(&main).unwrap();
    git(&main, &["init", "-q"]);
    assert_eq!(Some(facts(&main).await), head(Some("main"), None));
    git(&main, &["commit", "-q", "--allow-empty", "-m", "one"]);
    let one = git(&main, &["rev-parse", "HEAD"]);
    assert_eq!(Some(facts(&main).await), head(Some("main"), Some(&one)));
    git(&main, &["pack-refs", "--all"]);
    assert_eq!(Some(facts(&main).await), head(Some("main"), Some(&one)));
    git(&main, &["worktree", "add", "-q", "-b", "a/topic", "../tree"]);
    let tree = dir.path().join("tree");
    git(&tree, &["commit", "-q", "--allow-empty", "-m", "two"]);
    let two = git(&tree, &["rev-parse", "HEAD"]);
    assert_eq!(Some(facts(&tree).await), head(Some("a/topic"), Some(&two)));
    git(&main, &["checkout", "-q", "--detach"]);
    assert_eq!(Some(facts(&main).await), head(None, Some(&one)));
}
