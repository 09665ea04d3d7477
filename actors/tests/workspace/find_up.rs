//! Each rule of finding up.

use std::time::Duration;

use dwell_actors::find_up::{Answer, FindUpCore, Found, PROBES_MAX, Query, find_up, path};
use dwell_messages::ErrorCode;
use dwell_messages::workspace::OnError;

use crate::tree::{Tree, error};

fn query(from: &str, markers: &[&str], on_error: OnError) -> Query {
    Query::new(from.as_bytes(), markers, on_error).unwrap()
}

fn root(found: &Found) -> Option<&str> {
    found.root.as_deref().map(crate::tree::text)
}

async fn search(tree: &Tree, query: &Query) -> Result<Found, ErrorCode> {
    find_up(tree, query, PROBES_MAX).await.map_err(|error| error.code)
}

#[tokio::test(start_paused = true)]
async fn far_reply_before_near_reply_and_the_nearest_wins() {
    let tree = Tree::new()
        .file("/a/b/m", "")
        .file("/a/m", "")
        .file("/m", "")
        .directory("/a/b/c")
        // The deeper, the later.
        .delayed(|path| Duration::from_millis(path.len() as u64));
    let found = search(&tree, &query("/a/b/c", &["m"], OnError::Ignore))
        .await
        .unwrap();
    assert_eq!(root(&found), Some("/a/b"));
    assert_eq!(found.visited, 2);
}

#[tokio::test(start_paused = true)]
async fn within_an_ancestor_markers_are_looked_for_in_their_order() {
    let tree = Tree::new()
        .file("/a/second", "")
        .file("/a/third", "")
        .file("/first", "")
        .delayed(|path| Duration::from_millis(20 - path.len() as u64));
    let markers = ["first", "second", "third"];
    let found = search(&tree, &query("/a", &markers, OnError::Ignore))
        .await
        .unwrap();
    assert_eq!((root(&found), found.marker), (Some("/a"), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn concurrency_never_above_eight_and_eight_where_there_is_that_much_to_ask() {
    let deep = "/a".repeat(40);
    let tree = Tree::new()
        .directory(&deep)
        .delayed(|path| Duration::from_millis(1 + path.len() as u64 % 7));
    let found = search(&tree, &query(&deep, &["x", "y", "z"], OnError::Ignore))
        .await
        .unwrap();
    let asked = tree.asked();
    assert_eq!(asked.in_flight_max, PROBES_MAX);
    assert_eq!(asked.metadata.len(), 41 * 3);
    assert_eq!((found.root, found.visited, found.probed), (None, 41, 123));
}

/// With every answer equally far away, a search of eight probes is one round trip.
#[tokio::test(start_paused = true)]
async fn eight_probes_are_one_round_trip() {
    let tree = Tree::new()
        .file("/m", "")
        .directory("/a/b/c/d/e/f/g")
        .delayed(|_| Duration::from_millis(100));
    let begun = tokio::time::Instant::now();
    search(&tree, &query("/a/b/c/d/e/f/g", &["m"], OnError::Ignore))
        .await
        .unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(100));
}

#[test]
fn the_first_hit_stops_issuing_also_when_it_came_before_a_nearer_answer() {
    let deep = "/a".repeat(40);
    let query = query(&deep, &["m"], OnError::Ignore);
    let mut search = FindUpCore::new(&query, PROBES_MAX);
    let issued = std::iter::from_fn(|| search.next_probe()).count();
    assert_eq!(issued, PROBES_MAX);
    search.answer(3, Answer::Hit);
    search.answer(0, Answer::Miss);
    search.answer(1, Answer::Miss);
    assert!(search.next_probe().is_none() && search.outcome().is_none());
    // What was sent already may still be nearer.
    search.answer(2, Answer::Hit);
    let found = search.outcome().unwrap().unwrap();
    assert_eq!(found.root.unwrap().len(), deep.len() - 4);
    assert_eq!(found.probed, 8);
    // And what comes after that is ignored.
    search.answer(4, Answer::Hit);
    search.answer(99, Answer::Hit);
    assert!(search.outcome().is_none() && search.next_probe().is_none());
}

#[test]
fn a_miss_makes_room_for_the_next_probe_only_when_all_before_it_are_judged() {
    let deep = "/a".repeat(40);
    let query = query(&deep, &["m"], OnError::Ignore);
    let mut search = FindUpCore::new(&query, 2);
    assert_eq!(search.next_probe().unwrap().0, 0);
    assert_eq!(search.next_probe().unwrap().0, 1);
    search.answer(1, Answer::Miss);
    assert!(search.next_probe().is_none());
    search.answer(0, Answer::Miss);
    assert_eq!(search.next_probe().unwrap().0, 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_nearer_than_a_hit_propagates_or_is_ignored_by_policy() {
    let tree = || {
        Tree::new()
            .file("/a/m", "")
            .directory("/a/b/c")
            .deny(b"/a/b")
            .delayed(|path| Duration::from_millis(path.len() as u64))
    };
    let propagate = query("/a/b/c", &["m"], OnError::Propagate);
    assert_eq!(search(&tree(), &propagate).await, Err(ErrorCode::AccessDenied));
    let ignore = query("/a/b/c", &["m"], OnError::Ignore);
    let found = search(&tree(), &ignore).await.unwrap();
    assert_eq!((root(&found), found.ignored), (Some("/a"), 2));
}

#[tokio::test(start_paused = true)]
async fn an_error_farther_than_a_hit_is_nobodys_though_it_came_first() {
    let tree = Tree::new()
        .file("/a/b/m", "")
        .link("/a/m", "/a/m")
        .delayed(|path| Duration::from_millis(path.len() as u64));
    let propagate = query("/a/b", &["m"], OnError::Propagate);
    let found = search(&tree, &propagate).await.unwrap();
    assert_eq!((root(&found), found.ignored), (Some("/a/b"), 0));
}

#[test]
fn of_two_errors_the_first_in_order_propagates() {
    let query = query("/a/b", &["m"], OnError::Propagate);
    let mut search = FindUpCore::new(&query, PROBES_MAX);
    while search.next_probe().is_some() {}
    search.answer(2, Answer::Failed(error(ErrorCode::FileFailed)));
    search.answer(1, Answer::Failed(error(ErrorCode::AccessDenied)));
    assert!(search.outcome().is_none());
    search.answer(0, Answer::Miss);
    let failed = search.outcome().unwrap().unwrap_err();
    assert_eq!(failed.code, ErrorCode::AccessDenied);
}

#[tokio::test]
async fn what_is_not_there_and_what_is_no_directory_are_misses_under_either_policy() {
    let tree = Tree::new().file("/a/file", "").file("/m", "");
    for policy in [OnError::Propagate, OnError::Ignore] {
        let found = search(&tree, &query("/a/file/below/it", &["m"], policy))
            .await
            .unwrap();
        assert_eq!((root(&found), found.ignored), (Some("/"), 0));
    }
}

#[tokio::test]
async fn empty_markers_mean_no_root_and_no_probe() {
    let tree = Tree::new().directory("/a/b");
    for policy in [OnError::Propagate, OnError::Ignore] {
        let found = search(&tree, &query("/a/b", &[], policy)).await.unwrap();
        assert_eq!(found, Found::default());
    }
    assert!(tree.asked().metadata.is_empty());
}

#[test]
fn markers_are_names_and_few_and_directories_are_absolute_paths() {
    let refused = |from: &str, markers: &[&str]| {
        Query::new(from.as_bytes(), markers, OnError::Ignore)
            .err()
            .map(|error| error.code)
    };
    let bad_names: [&str; 6] = ["", ".", "..", "a/b", "a\0", &"x".repeat(257)];
    for name in bad_names {
        assert_eq!(refused("/a", &[name]), Some(ErrorCode::BadRequest), "{name:?}");
    }
    assert_eq!(refused("/a", &[&"x".repeat(256), "..."]), None);
    assert_eq!(refused("/a", &["m"; 16]), None);
    assert_eq!(refused("/a", &["m"; 17]), Some(ErrorCode::BadRequest));
    let long = format!("/{}", "x".repeat(4_096));
    for from in ["", "a", "./a", "/a/../b", "/a\0", &long] {
        assert_eq!(refused(from, &["m"]), Some(ErrorCode::BadPath), "{from:?}");
    }
}

#[test]
fn paths_are_compared_by_components_and_not_as_strings() {
    assert!(path::is_within(b"/a", b"/a") && path::is_within(b"/a", b"/a/b"));
    assert!(path::is_within(b"/", b"/a"));
    assert!(!path::is_within(b"/a", b"/ab") && !path::is_within(b"/a/b", b"/a"));
    let down = |root: &str, to: &str| {
        let between = path::between(root.as_bytes(), to.as_bytes());
        between
            .iter()
            .map(|path| crate::tree::text(path).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(down("/", "/a/b"), ["/", "/a", "/a/b"]);
    assert_eq!(down("/a", "/a/b"), ["/a", "/a/b"]);
    assert_eq!(down("/a/b", "/a/b"), ["/a/b"]);
    assert_eq!(down("/a", "/ab"), [""; 0]);
    assert_eq!(path::normal(b"//a/./b//").unwrap(), b"/a/b");
    assert_eq!(path::normal(b"/./").unwrap(), b"/");
}
