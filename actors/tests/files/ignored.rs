//! What ignore files exclude is what the `ignore` crate's own walk leaves out.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dwell_actors::files::{LocalFiles, WalkOptions};
use ignore::WalkBuilder;

use crate::place::{Site, bytes, walk};
use crate::trees::{Tree, pick};
use crate::world::{Dice, seed, soak};

const PATTERNS: [&str; 16] = [
    "a",
    "/a",
    "b/",
    "*.rs",
    "!a.rs",
    "src",
    "!src",
    "/src/",
    "**/zz",
    "a/**",
    "!a/b",
    "target/",
    ".hidden",
    "# nothing",
    "[A-C]",
    "c/../a",
];

/// What the crate's own walk gives, but for repositories' own directories, which it takes for hidden ones.
fn oracle(root: &Path) -> BTreeSet<Vec<u8>> {
    let mut builder = WalkBuilder::new(root);
    builder.hidden(false).git_global(false);
    builder.filter_entry(|entry| entry.file_name() != ".git");
    builder
        .build()
        .map(Result::unwrap)
        .filter(|entry| entry.depth() > 0)
        .map(|entry| {
            entry
                .path()
                .strip_prefix(root)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec()
        })
        .collect()
}

async fn ours(files: &LocalFiles, root: &Path) -> BTreeSet<Vec<u8>> {
    let walked = walk(files, root, WalkOptions::default()).await.unwrap();
    assert!(!walked.truncated);
    walked
        .entries
        .into_iter()
        .map(|entry| entry.path.into_vec())
        .collect()
}

fn rules(dice: &mut Dice) -> String {
    (0..=dice.below(3))
        .map(|_| format!("{}\n", pick(dice, &PATTERNS)))
        .collect()
}

#[tokio::test]
async fn a_walk_passes_over_what_ignores_own_walk_passes_over() {
    let mut dice = Dice(seed());
    let files = LocalFiles::new();
    let trees = if soak() { 5_000 } else { 400 };
    let mut excluded = 0;
    for round in 0..trees {
        let tree = Tree::grow(&mut dice, 60, false);
        for directory in &tree.directories {
            for name in [".gitignore", ".ignore"] {
                if dice.below(4) == 0 {
                    drop(std::fs::write(directory.join(name), rules(&mut dice)));
                }
            }
            if dice.below(5) == 0 && std::fs::create_dir_all(directory.join(".git/info")).is_ok() {
                drop(std::fs::write(
                    directory.join(".git/info/exclude"),
                    rules(&mut dice),
                ));
            }
        }
        // From the middle of a tree, too: those above it count.
        let root = pick(&mut dice, &tree.directories).clone();
        if root.file_name().is_some_and(|name| name == ".git") || root.iter().any(|part| part == ".git") {
            continue;
        }
        let (found, expected) = (ours(&files, &root).await, oracle(&root));
        assert_eq!(found, expected, "tree {round} from {root:?}");
        let all = WalkOptions {
            ignore_files: false,
            ..WalkOptions::default()
        };
        excluded += walk(&files, &root, all).await.unwrap().entries.len() - found.len();
    }
    println!("{excluded} names of {trees} trees were passed over");
    assert!(excluded > trees, "the rules concern something");
}

#[tokio::test]
async fn ignore_files_are_honoured_where_that_is_asked_and_only_there() {
    let site = Site::start().await;
    std::fs::create_dir_all(site.path(".git/info")).unwrap();
    std::fs::create_dir_all(site.path("target/debug")).unwrap();
    site.write(".gitignore", "target/\n*.log\n!keep.log\n");
    for name in ["a.rs", "a.log", "keep.log", "target/debug/x"] {
        site.write(name, "");
    }
    let names = async |ignore_files| {
        let options = WalkOptions {
            ignore_files,
            ..WalkOptions::default()
        };
        let walked = site
            .files
            .walk_all(bytes(site.dir.path()), options)
            .await
            .unwrap();
        walked
            .entries
            .into_iter()
            .map(|entry| String::from_utf8(entry.path.into_vec()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(true).await, [".gitignore", "a.rs", "keep.log"]);
    assert_eq!(
        names(false).await,
        [
            ".git",
            ".gitignore",
            "a.log",
            "a.rs",
            "keep.log",
            "target",
            ".git/info",
            "target/debug",
            "target/debug/x"
        ]
    );
}
