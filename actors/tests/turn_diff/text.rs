//! One file's text, as git writes it.

use std::time::Duration;

use dwell_actors::turn_diff::{COMPARED_MAX_BYTES, Change, Content, FileMode, Precision};
use dwell_messages::files::FileKind;

use super::applier::{Tree, apply};
use super::support::{Counting, delta, read, shown, text, turn};

async fn of(change: Change) -> String {
    let files = Counting::with(&[("/r/.git", FileKind::Directory)]);
    read(turn("/r", &files).apply(delta([change])).await)
}

#[tokio::test]
async fn a_modified_file_has_hunks_with_three_lines_around() {
    let lines = |changed: &[usize]| -> String {
        (1..=20)
            .map(|line| {
                if changed.contains(&line) {
                    "x\n".into()
                } else {
                    format!("{line}\n")
                }
            })
            .collect()
    };
    let change = Change::update("/r/d/f", text(&lines(&[])), text(&lines(&[1, 5, 16])));
    let expected = "diff --git a/d/f b/d/f\n--- a/d/f\n+++ b/d/f\n\
        @@ -1,8 +1,8 @@\n-1\n+x\n 2\n 3\n 4\n-5\n+x\n 6\n 7\n 8\n\
        @@ -13,7 +13,7 @@\n 13\n 14\n 15\n-16\n+x\n 17\n 18\n 19\n";
    assert_eq!(of(change).await, expected);
}

#[tokio::test]
async fn an_added_and_a_deleted_file_have_no_other_side() {
    let added = of(Change::add("/r/f", Content::new(FileMode::Executable, "1\n2\n"))).await;
    let expected =
        "diff --git a/f b/f\nnew file mode 100755\n--- /dev/null\n+++ b/f\n@@ -0,0 +1,2 @@\n+1\n+2\n";
    assert_eq!(added, expected);
    let deleted = of(Change::delete("/r/f", text("1\n"))).await;
    let expected =
        "diff --git a/f b/f\ndeleted file mode 100644\n--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n";
    assert_eq!(deleted, expected);
}

#[tokio::test]
async fn an_empty_file_has_a_header_only() {
    let added = of(Change::add("/r/f", text(""))).await;
    assert_eq!(added, "diff --git a/f b/f\nnew file mode 100644\n");
}

#[tokio::test]
async fn a_missing_end_of_the_last_line_is_said() {
    let change = Change::update("/r/f", text("1\n2"), text("1\n2\n"));
    let expected =
        "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n 1\n-2\n\\ No newline at end of file\n+2\n";
    assert_eq!(of(change).await, expected);
}

#[tokio::test]
async fn a_pure_rename_has_no_hunks() {
    let change = Change::rename("/r/a", "/r/d/b", text("1\n"), text("1\n"));
    let expected = "diff --git a/a b/d/b\nsimilarity index 100%\nrename from a\nrename to d/b\n";
    assert_eq!(of(change).await, expected);
}

#[tokio::test]
async fn a_binary_file_is_said_to_differ() {
    let change = Change::update("/r/f", text("1\n"), Content::text(vec![1, 0, 2]));
    let expected = "diff --git a/f b/f\nBinary files a/f and b/f differ\n";
    assert_eq!(of(change).await, expected);
    let late = [vec![b'x'; 9_000], vec![0]].concat();
    let text_of_old = of(Change::add("/r/f", Content::text(late))).await;
    assert!(
        text_of_old.contains("@@ -0,0 +1 @@"),
        "as git: only the beginning is looked at"
    );
}

#[tokio::test]
async fn a_link_that_becomes_a_file_is_deleted_and_added() {
    let link = Content::new(FileMode::Symlink, "target");
    let change = Change::update("/r/f", link, text("1\n"));
    let expected = "diff --git a/f b/f\ndeleted file mode 120000\n--- a/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-target\n\
        \\ No newline at end of file\n\
        diff --git a/f b/f\nnew file mode 100644\n--- /dev/null\n+++ b/f\n@@ -0,0 +1 @@\n+1\n";
    assert_eq!(of(change).await, expected);
}

#[tokio::test]
async fn names_with_spaces_end_with_a_tab_and_others_are_quoted() {
    let spaced = of(Change::update("/r/a b", text("1\n"), text("2\n"))).await;
    assert!(spaced.contains("\n--- a/a b\t\n+++ b/a b\t\n"), "{spaced}");
    let quoted = of(Change::add(b"/r/\xff\"\n".as_slice(), text("2\n"))).await;
    assert!(
        quoted.starts_with(r#"diff --git "a/\377\"\n" "b/\377\"\n""#),
        "{quoted}"
    );
}

/// Lines that a minimal comparison has to think about: two shuffles of the same few lines.
fn tangled(seed: u64, lines: usize) -> String {
    let mut state = seed;
    (0..lines)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            format!("{}\n", (state >> 33) % 64)
        })
        .collect()
}

#[tokio::test]
async fn a_file_that_takes_longer_than_its_time_has_a_coarser_diff_that_is_right() {
    let files = Counting::with(&[("/r/.git", FileKind::Directory)]);
    let (old, new) = (tangled(1, 3_000), tangled(2, 3_000));
    let change = Change::update("/r/f", text(&old), text(&new));
    let render = async |budget| {
        let turn = turn("/r", &files).file_budget(budget);
        let shown = shown(turn.apply(delta([change.clone()])).await);
        (shown.files()[0].precision, shown.to_bytes())
    };
    let (exact, long) = render(Duration::from_secs(600)).await;
    let (coarse, short) = render(Duration::ZERO).await;
    assert_eq!((exact, coarse), (Precision::Exact, Precision::Coarse));
    assert!(long.len() < short.len(), "the time has bought something");
    let tree = |content: &str| {
        let file = ("100644".to_owned(), content.as_bytes().to_vec());
        Tree::from([(b"f".to_vec(), file)])
    };
    assert_eq!(apply(&tree(&old), &short), Ok(tree(&new)));
    assert_eq!(apply(&tree(&old), &long), Ok(tree(&new)));
}

#[tokio::test]
async fn a_file_that_is_too_large_is_said_to_differ() {
    let large = "x\n".repeat(COMPARED_MAX_BYTES / 2);
    let files = Counting::with(&[]);
    let change = Change::update("/r/f", text(&large), text("1\n"));
    let shown = shown(turn("/r", &files).apply(delta([change])).await);
    assert_eq!(shown.files()[0].precision, Precision::TooLarge);
    let said = format!(
        "Files a/f and b/f differ: {} and 2 bytes are too many to be compared\n",
        large.len()
    );
    assert!(shown.to_bytes().ends_with(said.as_bytes()));
}
