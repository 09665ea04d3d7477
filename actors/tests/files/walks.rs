//! A walk finds what a naive one finds, in whatever tree, and while it changes.

use std::collections::BTreeSet;

use dwell_actors::files::{LocalFiles, WalkOptions, Walked};
use dwell_messages::files::{Handle, WALK_MAX_DEPTH};
use dwell_messages::{ErrorCode, WireError};

use crate::denied::as_nobody;
use crate::place::{Site, begin, bytes, go_on, walk};
use crate::support::bounded;
use crate::trees::{Tree, naive, options};
use crate::world::{Dice, seed, soak};

/// Names of one tree at the most.
const NAMES_MAX: u64 = 40;

fn everything() -> WalkOptions {
    WalkOptions {
        ignore_files: false,
        ..WalkOptions::default()
    }
}

/// Directories that may not be read are part of it, so this is done as somebody who is not root.
#[test]
fn a_walk_agrees_with_a_naive_one_in_random_trees() {
    as_nobody("walks::agree");
}

#[tokio::test]
#[ignore = "another test starts it as somebody who is not root"]
async fn agree() {
    let mut dice = Dice(seed());
    let files = LocalFiles::new();
    let trees = if soak() { 10_000 } else { 1_000 };
    let mut seen = [0_usize; 5];
    for round in 0..trees {
        let tree = Tree::grow(&mut dice, NAMES_MAX, true);
        for _ in 0..3 {
            let options = options(&mut dice);
            let expected = naive(tree.root(), options);
            let walked = walk(&files, tree.root(), options).await.unwrap();
            assert_eq!(walked, expected, "tree {round} with {options:?}");
            seen[0] += walked.entries.len();
            seen[1] += walked.errors.len();
            seen[2] += usize::from(walked.truncated);
            seen[3] += walked.entries.iter().filter(|entry| entry.link).count();
            let followed = |entry: &dwell_messages::files::WalkEntry| {
                entry.link && entry.kind == dwell_messages::files::FileKind::Directory
            };
            seen[4] += walked.entries.iter().filter(|entry| followed(entry)).count();
        }
    }
    println!(
        "{trees} trees: {seen:?} entries, errors, truncated, links, links to directories that were followed"
    );
    // The positive control: the trees have what is to be told apart.
    assert!(seen.iter().all(|count| *count > trees / 10), "{seen:?}");
}

/// What is there before and after is found, and what is found was there before or after.
#[tokio::test(flavor = "multi_thread")]
async fn a_walk_beside_which_directories_vanish_finds_what_stays_and_nothing_else() {
    let mut dice = Dice(seed());
    let files = LocalFiles::new();
    let names = |walked: &Walked| -> BTreeSet<Vec<u8>> {
        walked.entries.iter().map(|entry| entry.path.to_vec()).collect()
    };
    let rounds = if soak() { 3_000 } else { 200 };
    let mut vanished = 0;
    for _ in 0..rounds {
        let tree = Tree::grow(&mut dice, 4 * NAMES_MAX, false);
        let before = names(&naive(tree.root(), everything()));
        let goes: Vec<_> = tree
            .directories
            .iter()
            .skip(1)
            .filter(|_| dice.below(3) == 0)
            .cloned()
            .collect();
        let removing = std::thread::spawn(move || {
            for directory in goes {
                drop(std::fs::remove_dir_all(directory));
            }
        });
        let walked = walk(&files, tree.root(), everything()).await.unwrap();
        removing.join().unwrap();
        let (found, after) = (names(&walked), names(&naive(tree.root(), everything())));
        assert_eq!(walked.errors, [], "what is gone is no error");
        assert!(
            found.is_subset(&before),
            "something was found that never was there"
        );
        assert!(after.is_subset(&found), "something that stayed was not found");
        vanished += usize::from(after.len() < found.len());
    }
    println!("in {vanished} of {rounds} rounds something vanished behind the walk");
}

/// Between two pages, so that it is known what is gone.
#[tokio::test]
async fn directories_that_vanish_between_two_pages_are_passed_over() {
    let site = Site::start().await;
    let files = LocalFiles::new();
    for number in 0..5_000 {
        let directory = site.path(&format!("d{number:04}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::File::create(directory.join("f")).unwrap();
    }
    let handle = Handle(7);
    let first = begin(&files, handle, site.dir.path(), everything())
        .await
        .unwrap();
    assert!(!first.end && first.entries.len() <= 4_096);
    for number in [3, 4_999] {
        std::fs::remove_dir_all(site.path(&format!("d{number:04}"))).unwrap();
    }
    std::fs::remove_dir_all(site.path("d0100")).unwrap();
    std::os::unix::fs::symlink("/", site.path("d0100")).unwrap();
    std::fs::remove_dir_all(site.path("d0200")).unwrap();
    std::fs::File::create(site.path("d0200")).unwrap();
    let mut walked = Walked::default();
    let mut page = first;
    loop {
        walked.entries.extend(page.entries);
        assert_eq!(page.errors, []);
        if page.end {
            break;
        }
        page = go_on(&files, handle).await.unwrap();
    }
    // The names had been read, and one of them may have been looked at since.
    let below = walked
        .entries
        .iter()
        .filter(|entry| entry.path.ends_with(b"/f"))
        .count();
    assert_eq!(below, 5_000 - 4);
    let over = go_on(&files, handle).await.map_err(|error: WireError| error.code);
    assert_eq!(
        over.unwrap_err(),
        ErrorCode::UnknownHandle,
        "a walk is closed with its last page"
    );
}

#[tokio::test]
async fn a_walk_through_a_link_is_the_walk_of_its_machine() {
    let mut dice = Dice(seed());
    let site = Site::start().await;
    for _ in 0..if soak() { 500 } else { 40 } {
        let tree = Tree::grow(&mut dice, 3 * NAMES_MAX, false);
        let options = options(&mut dice);
        let walked = bounded("walking", site.files.walk_all(bytes(tree.root()), options))
            .await
            .unwrap();
        assert_eq!(walked, naive(tree.root(), options), "{options:?}");
    }
}

#[tokio::test]
async fn a_walk_of_many_pages_is_whole_and_in_order() {
    let site = Site::start().await;
    for directory in 0..120 {
        let dir = site.path(&format!("a directory whose name is long enough {directory:03}"));
        std::fs::create_dir(&dir).unwrap();
        for file in 0..100 {
            std::fs::File::create(dir.join(format!("{file:02}"))).unwrap();
        }
    }
    let root = bytes(site.dir.path());
    let walked = bounded("walking", site.files.walk_all(&root, everything()))
        .await
        .unwrap();
    assert_eq!(walked.entries.len(), 120 * 101);
    assert_eq!(walked, naive(site.dir.path(), everything()));
    let mut walk = site.files.walk(&root, everything());
    let mut pages = 0;
    while let Some(page) = bounded("a page", walk.next()).await.unwrap() {
        pages += 1;
        assert!(page.entries.len() <= 4_096);
    }
    assert!(pages >= 3, "{pages}");
}

/// Deeper than a walk goes, and longer than a path may be: nothing is lost but what lies beyond.
#[tokio::test]
async fn a_tree_that_is_too_deep_ends_where_it_is_too_deep() {
    let site = Site::start().await;
    let mut at = rustix::fs::openat(
        rustix::fs::CWD,
        site.dir.path(),
        rustix::fs::OFlags::PATH,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    for _ in 0..300 {
        rustix::fs::mkdirat(&at, "deep", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "deep", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    let walked = bounded(
        "walking",
        site.files.walk_all(bytes(site.dir.path()), everything()),
    )
    .await
    .unwrap();
    assert_eq!(walked.entries.len(), usize::try_from(WALK_MAX_DEPTH).unwrap() + 1);
    let refused = site.files.remove_all(site.at("deep")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
}
