//! When a turn's diff looks for a repository, and what it makes of what it finds.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use dwell_actors::turn_diff::{
    Change, Content, Counts, Delta, HELD_MAX_BYTES, TRACKED_FILES_MAX, TurnDiff, Update, VoidReason,
};
use dwell_messages::ErrorCode;
use dwell_messages::files::FileKind;

use super::support::{Counting, bounded, delta, edit, environment, headers, read, shown, text, turn};

const REPOSITORY: &[(&str, FileKind)] = &[("/src/app/.git", FileKind::Directory)];

#[tokio::test]
async fn a_turn_without_an_exact_non_empty_patch_makes_no_probe() {
    let files = Counting::with(REPOSITORY);
    let quiet = turn("/src/app", &files);
    assert_eq!(quiet.apply(delta([])).await, Update::Unchanged, "empty");
    let same = Change::update("/src/app/f", text("1"), text("1"));
    assert_eq!(
        quiet.apply(delta([same])).await,
        Update::Unchanged,
        "nothing to show"
    );
    let there_and_gone = [
        Change::add("/src/app/g", text("1")),
        Change::delete("/src/app/g", text("1")),
    ];
    assert_eq!(quiet.apply(delta(there_and_gone)).await, Update::Unchanged);
    assert_eq!(
        quiet
            .set_environments([environment("dev", "/else", &files)])
            .await,
        Update::Unchanged
    );
    assert_eq!(quiet.apply(Delta::Inexact).await, Update::Unchanged, "inexact");
    assert_eq!((files.asked(), quiet.counts()), (0, Counts::default()));

    // The same file system counts, when there is a patch.
    shown(turn("/src/app", &files).apply(delta([edit("/src/app/f")])).await);
    assert!(files.asked() > 0);
}

#[tokio::test]
async fn an_environment_is_searched_at_most_once_a_turn() {
    let files = Counting::with(REPOSITORY);
    let turn = turn("/src/app/a/b", &files);
    shown(turn.apply(delta([edit("/src/app/1")])).await);
    let asked = files.asked();
    assert!(asked >= 3, "b, a, app");
    for path in ["/src/app/2", "/src/app/3"] {
        shown(turn.apply(delta([edit(path)])).await);
    }
    assert_eq!((files.asked(), turn.counts().discoveries), (asked, 1));
}

#[tokio::test]
async fn that_there_is_no_repository_is_remembered_too() {
    let files = Counting::with(&[]);
    let turn = turn("/src/app", &files);
    shown(turn.apply(delta([edit("/src/app/1")])).await);
    assert_eq!(files.asked(), 3);
    // A repository that appears now is the next turn's.
    files.put("/src/.git", FileKind::Directory);
    assert_eq!(
        headers(turn.apply(delta([edit("/src/app/2")])).await),
        ["diff --git a/1 b/1", "diff --git a/2 b/2"]
    );
    assert_eq!(files.asked(), 3);
}

#[tokio::test]
async fn concurrent_first_patches_share_one_discovery() {
    let files = Counting::with(REPOSITORY);
    files.answers(false);
    let turn = Arc::new(turn("/src/app/a", &files));
    let calls: Vec<_> = ["/src/app/1", "/src/app/2", "/src/app/3"]
        .map(|path| {
            let turn = Arc::clone(&turn);
            tokio::spawn(async move { turn.apply(delta([edit(path)])).await })
        })
        .into();
    while turn.counts().discoveries == 0 {
        tokio::task::yield_now().await;
    }
    // All four directories at once.
    let asked = files.asked();
    assert_eq!(asked, 4);
    files.answers(true);
    let mut newest = Vec::new();
    let mut revision = 0;
    for call in calls {
        match bounded(call).await.unwrap() {
            Update::Shown(diff) if diff.revision() > revision => {
                (revision, newest) = (diff.revision(), diff.files().to_vec());
            }
            Update::Shown(_) | Update::Unchanged => {}
            Update::Void(reason) => panic!("{reason:?}"),
        }
    }
    assert_eq!(newest.len(), 3, "the highest revision has all of them");
    assert_eq!((files.asked(), turn.counts().discoveries), (asked, 1));
}

/// Polls once.
fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_search_whose_waiter_is_gone_is_gone_on_with_and_not_begun_again() {
    let files = Counting::with(REPOSITORY);
    files.answers(false);
    let turn = turn("/src/app/a", &files);
    let mut dropped = Box::pin(turn.apply(delta([edit("/src/app/1")])));
    assert!(poll(dropped.as_mut()).is_pending());
    drop(dropped);
    files.answers(true);
    let headers = headers(turn.apply(delta([edit("/src/app/2")])).await);
    assert_eq!(
        headers,
        ["diff --git a/1 b/1", "diff --git a/2 b/2"],
        "the dropped delta counts"
    );
    assert_eq!((files.asked(), turn.counts().discoveries), (4, 1));
}

#[tokio::test]
async fn nothing_waits_for_the_tracker_while_a_root_is_looked_for() {
    let (slow, quick) = (Counting::with(REPOSITORY), Counting::with(REPOSITORY));
    slow.answers(false);
    let turn = TurnDiff::new([
        environment("slow", "/src/app", &slow),
        environment("quick", "/src/app", &quick),
    ]);
    let mut waits = Box::pin(turn.apply(Delta::exact("slow", [edit("/src/app/1")])));
    assert!(poll(waits.as_mut()).is_pending());
    let first = shown(bounded(turn.apply(Delta::exact("quick", [edit("/src/app/2")]))).await);
    assert_eq!(
        first.files().len(),
        1,
        "what has no root yet is not shown with another"
    );
    assert_eq!(turn.counts().discoveries, 2);
    slow.answers(true);
    assert_eq!(shown(bounded(waits).await).files().len(), 2);
}

#[tokio::test]
async fn lazy_discovery_gives_the_bytes_that_an_eager_one_would_have() {
    let changes = [
        edit("/src/app/deep/er/f"),
        Change::rename("/src/app/a", "/src/app/deep/b", text("1\n"), text("2\n")),
        edit("/src/other/f"),
    ];
    // Eager: the root was known before the turn.
    let files = Counting::with(REPOSITORY);
    let eager = read(turn("/src/app", &files).apply(delta(changes.clone())).await);
    let lazy = read(turn("/src/app/deep/er", &files).apply(delta(changes)).await);
    assert_eq!(lazy, eager);
    assert!(lazy.contains("diff --git a/deep/er/f b/deep/er/f"));
}

#[tokio::test]
async fn a_repository_made_during_the_turn_before_the_first_patch_is_seen() {
    let files = Counting::with(&[]);
    let turn = turn("/src/app/a", &files);
    files.put("/src/app/.git", FileKind::Directory);
    assert_eq!(
        headers(turn.apply(delta([edit("/src/app/a/f")])).await),
        ["diff --git a/a/f b/a/f"]
    );
}

#[tokio::test]
async fn changed_environments_get_their_roots_and_rendered_diffs_are_rendered_again() {
    let files = Counting::with(&[
        ("/src/.git", FileKind::Directory),
        ("/src/app/.git", FileKind::Directory),
    ]);
    let turn = turn("/src/app", &files);
    let first = turn.apply(delta([edit("/src/app/f")])).await;
    assert_eq!(headers(first), ["diff --git a/f b/f"]);
    assert_eq!(
        turn.counts(),
        Counts {
            discoveries: 1,
            renders: 1
        }
    );

    let same = turn
        .set_environments([environment("dev", "/src/app", &files)])
        .await;
    assert_eq!(same, Update::Unchanged, "nothing is looked for again");
    assert_eq!(
        turn.counts(),
        Counts {
            discoveries: 1,
            renders: 1
        }
    );

    let moved = turn
        .set_environments([environment("dev", "/src/lib", &files)])
        .await;
    assert_eq!(headers(moved), ["diff --git a/app/f b/app/f"]);
    assert_eq!(
        turn.counts(),
        Counts {
            discoveries: 2,
            renders: 2
        }
    );
}

#[tokio::test]
async fn an_environment_that_comes_later_gets_its_root_then() {
    let files = Counting::with(REPOSITORY);
    let turn = TurnDiff::new([]);
    let unknown = turn.apply(delta([edit("/src/app/f")])).await;
    assert_eq!(headers(unknown), ["diff --git a//src/app/f b//src/app/f"]);
    assert_eq!(files.asked(), 0);
    let known = turn
        .set_environments([environment("dev", "/src/app", &files)])
        .await;
    assert_eq!(headers(known), ["diff --git a/f b/f"]);
}

#[tokio::test]
async fn what_an_environment_changed_stays_when_it_is_gone() {
    let files = Counting::with(REPOSITORY);
    let turn = turn("/src/app", &files);
    shown(turn.apply(delta([edit("/src/app/f")])).await);
    assert_eq!(turn.set_environments([]).await, Update::Unchanged);
    assert_eq!(headers(turn.apply(delta([edit("/src/app/g")])).await).len(), 2);
    assert_eq!(files.asked(), 3);
}

#[tokio::test]
async fn an_inexact_delta_voids_what_was_shown_and_says_so_once() {
    let files = Counting::with(REPOSITORY);
    let turn = turn("/src/app", &files);
    shown(turn.apply(delta([edit("/src/app/f")])).await);
    assert_eq!(
        turn.apply(Delta::Inexact).await,
        Update::Void(VoidReason::Inexact)
    );
    assert_eq!(turn.apply(Delta::Inexact).await, Update::Unchanged, "only once");
}

#[tokio::test]
async fn after_invalidation_nothing_is_rendered_and_nothing_probed() {
    let files = Counting::with(REPOSITORY);
    let turn = turn("/src/app", &files);
    assert_eq!(
        turn.apply(Delta::Inexact).await,
        Update::Unchanged,
        "nothing had been shown"
    );
    assert_eq!(turn.apply(delta([edit("/src/app/f")])).await, Update::Unchanged);
    let elsewhere = [environment("dev", "/src", &files)];
    assert_eq!(turn.set_environments(elsewhere).await, Update::Unchanged);
    assert_eq!(turn.apply(delta([edit("/src/app/f")])).await, Update::Unchanged);
    assert_eq!((files.asked(), turn.counts()), (0, Counts::default()));
}

#[tokio::test]
async fn an_inexact_delta_gives_up_a_search_that_is_under_way() {
    let files = Counting::with(&[]);
    files.answers(false);
    let turn = turn("/1/2/3/4/5/6/7/8/9/10", &files);
    let mut waits = Box::pin(turn.apply(delta([edit("/1/f")])));
    assert!(poll(waits.as_mut()).is_pending());
    let asked = files.asked();
    assert_eq!(asked, 8, "three more are to come");
    assert_eq!(turn.apply(Delta::Inexact).await, Update::Unchanged);
    files.answers(true);
    assert_eq!(bounded(waits).await, Update::Unchanged);
    assert_eq!(files.asked(), asked, "not one more");
}

#[tokio::test]
async fn a_nested_working_directory_stays_relative_to_the_repository() {
    let files = Counting::with(REPOSITORY);
    let update = turn("/src/app/a/b", &files)
        .apply(delta([edit("/src/app/a/b/f")]))
        .await;
    assert_eq!(headers(update), ["diff --git a/a/b/f b/a/b/f"]);
}

#[tokio::test]
async fn a_file_that_names_the_git_directory_marks_a_root() {
    let worktree = Counting::with(&[
        ("/src/.git", FileKind::Directory),
        ("/src/tree/.git", FileKind::File),
    ]);
    let update = turn("/src/tree/a", &worktree)
        .apply(delta([edit("/src/tree/a/f")]))
        .await;
    assert_eq!(headers(update), ["diff --git a/a/f b/a/f"]);
}

#[tokio::test]
async fn a_path_above_the_working_directory_and_in_the_repository_stays_relative_to_it() {
    let files = Counting::with(REPOSITORY);
    let update = turn("/src/app/a/b", &files)
        .apply(delta([edit("/src/app/f")]))
        .await;
    assert_eq!(headers(update), ["diff --git a/f b/f"]);
}

#[tokio::test]
async fn the_nearest_marker_above_the_working_directory_decides_and_not_one_above_the_file() {
    let files = Counting::with(&[
        ("/src/.git", FileKind::Directory),
        ("/src/sub/.git", FileKind::File),
    ]);
    let outer = turn("/src", &files).apply(delta([edit("/src/sub/f")])).await;
    assert_eq!(headers(outer), ["diff --git a/sub/f b/sub/f"]);
    let inner = turn("/src/sub", &files).apply(delta([edit("/src/sub/f")])).await;
    assert_eq!(headers(inner), ["diff --git a/f b/f"], "nearest wins");
}

#[tokio::test]
async fn outside_a_repository_the_working_directory_is_the_root_and_paths_outside_stay_absolute() {
    let files = Counting::with(&[]);
    let both = delta([edit("/src/app/f"), edit("/etc/hosts")]);
    let update = turn("/src/app", &files).apply(both).await;
    assert_eq!(
        headers(update),
        ["diff --git a//etc/hosts b//etc/hosts", "diff --git a/f b/f"]
    );
}

#[tokio::test]
async fn two_environments_with_equal_paths_stay_distinct() {
    let here = Counting::named("here", &[("/src/.git", FileKind::Directory)], ErrorCode::NotFound);
    let there = Counting::named(
        "there",
        &[("/src/app/.git", FileKind::Directory)],
        ErrorCode::NotFound,
    );
    let turn = TurnDiff::new([
        environment("here", "/src/app", &here),
        environment("there", "/src/app", &there),
    ]);
    shown(turn.apply(Delta::exact("here", [edit("/src/app/f")])).await);
    let deleted = Delta::exact("there", [Change::delete("/src/app/f", text("1\n"))]);
    let both = shown(turn.apply(deleted).await);
    let parts: Vec<_> = both
        .files()
        .iter()
        .map(|file| {
            (
                &*file.environment,
                String::from_utf8_lossy(&file.text)
                    .lines()
                    .next()
                    .unwrap()
                    .to_owned(),
            )
        })
        .collect();
    let header = |name: &str| format!("diff --git a/{name} b/{name}");
    assert_eq!(parts, [("here", header("app/f")), ("there", header("f"))]);
    assert_eq!((here.asked(), there.asked()), (3, 3), "each by its own files");
}

#[tokio::test]
async fn an_executor_that_cannot_be_asked_leaves_the_working_directory_as_root() {
    for code in [
        ErrorCode::Disconnected,
        ErrorCode::AccessDenied,
        ErrorCode::SymlinkLoop,
    ] {
        let files = Counting::named("gone", &[], code);
        let update = turn("/src/app", &files).apply(delta([edit("/src/app/f")])).await;
        assert_eq!(headers(update), ["diff --git a/f b/f"], "{code:?}");
    }
}

#[tokio::test]
async fn a_directory_that_may_not_be_looked_at_hides_no_repository_above_it() {
    let files = Counting::named("denied", REPOSITORY, ErrorCode::AccessDenied);
    let update = turn("/src/app/closed", &files)
        .apply(delta([edit("/src/app/f")]))
        .await;
    assert_eq!(headers(update), ["diff --git a/f b/f"]);
}

#[tokio::test]
async fn a_working_directory_that_is_not_absolute_asks_nothing() {
    let files = Counting::with(REPOSITORY);
    let update = turn("src/app", &files)
        .apply(delta([edit("src/app/f"), edit("/x")]))
        .await;
    assert_eq!(headers(update), ["diff --git a//x b//x", "diff --git a/f b/f"]);
    assert_eq!(files.asked(), 0);
}

#[tokio::test]
async fn a_search_that_nobody_waits_for_any_more_is_finished_by_whoever_comes_next() {
    let (left, other) = (Counting::with(REPOSITORY), Counting::with(REPOSITORY));
    left.answers(false);
    let turn = TurnDiff::new([
        environment("left", "/src/app", &left),
        environment("other", "/src/app", &other),
    ]);
    let mut dropped = Box::pin(turn.apply(Delta::exact("left", [edit("/src/app/1")])));
    assert!(poll(dropped.as_mut()).is_pending());
    drop(dropped);
    left.answers(true);
    let both = bounded(turn.apply(Delta::exact("other", [edit("/src/app/2")]))).await;
    assert_eq!(shown(both).files().len(), 2);
}

/// What it was like before: 2,589 patches over 72 files were rendered in full each time.
#[tokio::test]
async fn many_patches_of_a_few_files_render_each_patch_once() {
    const PATCHES: u64 = 2_589;
    const PATHS: u64 = 72;
    let files = Counting::with(REPOSITORY);
    let turn = turn("/src/app", &files);
    let mut last = Vec::new();
    for patch in 0..PATCHES {
        let path = format!("/src/app/{:02}", patch % PATHS);
        let (old, new) = (text(&patch.to_string()), text(&(patch + PATHS).to_string()));
        let diff = shown(turn.apply(delta([Change::update(path, old, new)])).await);
        let fresh = diff
            .files()
            .iter()
            .filter(|file| !last.iter().any(|old| Arc::ptr_eq(old, file)));
        assert_eq!(fresh.count(), 1, "the others are those of before");
        last = diff.files().to_vec();
    }
    assert_eq!(last.len() as u64, PATHS);
    let counts = Counts {
        discoveries: 1,
        renders: PATCHES,
    };
    assert_eq!((turn.counts(), files.asked()), (counts, 3));
}

#[tokio::test]
async fn more_files_than_are_kept_track_of_void_the_diff() {
    let files = Counting::with(REPOSITORY);
    let turn = turn("/src/app", &files);
    let many =
        |from: usize, to: usize| delta((from..to).map(|n| Change::add(format!("/src/app/{n}"), text("1\n"))));
    let full = shown(turn.apply(many(0, TRACKED_FILES_MAX)).await);
    assert_eq!(full.files().len(), TRACKED_FILES_MAX);
    let more = turn.apply(many(TRACKED_FILES_MAX, TRACKED_FILES_MAX + 1)).await;
    assert_eq!(more, Update::Void(VoidReason::TooManyFiles));
}

#[tokio::test]
async fn more_bytes_than_are_held_void_the_diff_and_bytes_that_are_gone_do_not_count() {
    let files = Counting::with(REPOSITORY);
    let turn = turn("/src/app", &files);
    let half = Content::text(vec![b'x'; HELD_MAX_BYTES / 2]);
    let path = "/src/app/f";
    for _ in 0..3 {
        shown(turn.apply(delta([Change::add(path, half.clone())])).await);
        shown(turn.apply(delta([Change::delete(path, half.clone())])).await);
    }
    shown(turn.apply(delta([Change::add(path, half.clone())])).await);
    let more = turn.apply(delta([Change::add("/src/app/g", half)])).await;
    assert_eq!(more, Update::Void(VoidReason::TooManyBytes));
}
