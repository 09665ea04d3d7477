//! Several changes of one file are one change.

use dwell_actors::turn_diff::{Change, Content, Delta, FileChange, FileMode, Update};
use dwell_messages::files::FileKind;

use super::support::{Counting, delta, headers, read, shown, text, turn};

async fn after(changes: Vec<Change>) -> Update {
    let files = Counting::with(&[("/r/.git", FileKind::Directory)]);
    let turn = turn("/r", &files);
    let mut last = Update::Unchanged;
    for change in changes {
        match turn.apply(delta([change])).await {
            Update::Unchanged => {}
            update => last = update,
        }
    }
    last
}

#[tokio::test]
async fn the_first_old_content_and_the_last_new_one_count() {
    let update = after(vec![
        Change::update("/r/f", text("1\n"), text("2\n")),
        Change::update("/r/f", text("2\n"), text("3\n")),
        Change::update("/r/f", text("3\n"), text("4\n")),
    ]);
    let expected = "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-1\n+4\n";
    assert_eq!(read(update.await), expected);
}

#[tokio::test]
async fn a_file_that_is_added_and_deleted_is_nothing() {
    let update = after(vec![
        Change::add("/r/f", text("1\n")),
        Change::delete("/r/f", text("1\n")),
    ]);
    assert!(
        shown(update.await).is_empty(),
        "the consumer is told that it is gone again"
    );
}

#[tokio::test]
async fn a_file_that_is_as_it_was_is_not_shown() {
    let update = after(vec![
        Change::update("/r/f", text("1\n"), text("2\n")),
        Change::update("/r/f", text("2\n"), text("1\n")),
    ]);
    assert!(shown(update.await).is_empty());
}

#[tokio::test]
async fn a_file_that_is_deleted_and_added_is_modified() {
    let update = after(vec![
        Change::delete("/r/f", text("1\n")),
        Change::add("/r/f", text("2\n")),
    ]);
    let shown = shown(update.await);
    assert_eq!(shown.files().len(), 1);
    assert_eq!(shown.files()[0].change, FileChange::Modified);
}

#[tokio::test]
async fn a_chain_of_renames_is_one() {
    let update = after(vec![
        Change::rename("/r/a", "/r/b", text("1\n2\n"), text("1\n2\n")),
        Change::update("/r/b", text("1\n2\n"), text("1\n3\n")),
        Change::rename("/r/b", "/r/c", text("1\n3\n"), text("1\n3\n")),
    ]);
    let expected = "diff --git a/a b/c\nsimilarity index 50%\nrename from a\nrename to c\n--- a/a\n+++ b/c\n\
        @@ -1,2 +1,2 @@\n 1\n-2\n+3\n";
    assert_eq!(read(update.await), expected);
}

#[tokio::test]
async fn a_file_that_is_renamed_back_is_where_it_was() {
    let update = after(vec![
        Change::rename("/r/a", "/r/b", text("1\n"), text("1\n")),
        Change::rename("/r/b", "/r/a", text("1\n"), text("1\n")),
    ]);
    assert!(shown(update.await).is_empty());
}

#[tokio::test]
async fn a_rename_of_what_was_added_is_an_addition() {
    let update = after(vec![
        Change::add("/r/a", text("1\n")),
        Change::rename("/r/a", "/r/b", text("1\n"), text("1\n")),
    ]);
    let shown = shown(update.await);
    assert_eq!(shown.files().len(), 1);
    assert_eq!(
        (shown.files()[0].change, &*shown.files()[0].path),
        (FileChange::Added, b"/r/b".as_slice())
    );
}

#[tokio::test]
async fn a_rename_whose_old_name_is_taken_again_is_no_rename() {
    let update = after(vec![
        Change::rename("/r/a", "/r/b", text("1\n"), text("1\n")),
        Change::add("/r/a", text("2\n")),
    ]);
    assert_eq!(
        headers(update.await),
        ["diff --git a/a b/a", "diff --git a/b b/b"]
    );
}

#[tokio::test]
async fn a_rename_onto_a_file_changes_that() {
    let over = Change::Rename {
        from: b"/r/a".to_vec(),
        to: b"/r/b".to_vec(),
        old: text("1\n"),
        new: text("1\n"),
        overwritten: Some(text("0\n")),
    };
    let update = after(vec![over]).await;
    let kinds: Vec<_> = shown(update).files().iter().map(|file| file.change).collect();
    assert_eq!(kinds, [FileChange::Deleted, FileChange::Modified]);
}

#[tokio::test]
async fn files_that_change_places_are_each_modified() {
    let update = after(vec![
        Change::rename("/r/a", "/r/t", text("1\n"), text("1\n")),
        Change::rename("/r/b", "/r/a", text("2\n"), text("2\n")),
        Change::rename("/r/t", "/r/b", text("1\n"), text("1\n")),
    ]);
    let kinds: Vec<_> = shown(update.await)
        .files()
        .iter()
        .map(|file| file.change)
        .collect();
    assert_eq!(kinds, [FileChange::Modified, FileChange::Modified]);
}

#[tokio::test]
async fn a_change_of_mode_alone_is_one() {
    let executable = Content::new(FileMode::Executable, "1\n");
    let update = after(vec![Change::update("/r/f", text("1\n"), executable)]).await;
    assert_eq!(
        read(update),
        "diff --git a/f b/f\nold mode 100644\nnew mode 100755\n"
    );
}

#[tokio::test]
async fn deltas_that_contradict_each_other_are_taken_as_they_come() {
    let update = after(vec![
        Change::delete("/r/f", text("1\n")),
        Change::delete("/r/f", text("7\n")),
        Change::update("/r/f", text("8\n"), text("2\n")),
        Change::rename("/r/g", "/r/g", text("a\n"), text("b\n")),
        Change::rename("/r/f", "/r/h", text("9\n"), text("9\n")),
    ]);
    let headers = headers(update.await);
    assert_eq!(
        headers,
        ["diff --git a/f b/f", "diff --git a/g b/g", "diff --git a/h b/h"],
        "what was deleted once is no file's origin"
    );
}

#[tokio::test]
async fn one_delta_may_hold_all_of_it() {
    let files = Counting::with(&[]);
    let turn = turn("/r", &files);
    let both = Delta::exact(
        "dev",
        [
            Change::add("/r/f", text("1\n")),
            Change::update("/r/f", text("1\n"), text("2\n")),
        ],
    );
    assert_eq!(shown(turn.apply(both).await).files()[0].added, 1);
}
