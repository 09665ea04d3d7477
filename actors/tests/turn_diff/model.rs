//! Random turns against the plainest account: the files before, the files after, and a diff that leads from one to the other.

use std::collections::BTreeMap;

use dwell_actors::turn_diff::{Change, Content, FileChange, FileMode, RenderedDiff, Update};
use dwell_messages::files::FileKind;
use proptest::prelude::*;

use super::applier::{Tree, apply};
use super::support::{Counting, delta, turn};

const NAMES: [&str; 5] = ["a", "b", "d/c", "d/\u{e9}", "e\"\\"];

type Files = BTreeMap<usize, Content>;

/// What is done, if it can be.
#[derive(Clone, Debug)]
enum Op {
    Write(usize, Content),
    Delete(usize),
    Rename(usize, usize, Option<Content>),
}

fn content() -> impl Strategy<Value = Content> {
    let mode = prop_oneof![
        4 => Just(FileMode::Regular),
        1 => Just(FileMode::Executable),
        1 => Just(FileMode::Symlink),
    ];
    let lines = prop::collection::vec(prop_oneof![Just("x"), Just("y"), Just("zz"), Just("")], 0..12);
    (mode, lines, any::<bool>()).prop_map(|(mode, lines, ends)| {
        let mut text = lines.join("\n");
        if ends && !text.is_empty() {
            text.push('\n');
        }
        Content::new(mode, text)
    })
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    prop_oneof![
        4 => (name.clone(), content()).prop_map(|(name, content)| Op::Write(name, content)),
        2 => name.clone().prop_map(Op::Delete),
        3 => (name.clone(), name, prop::option::of(content())).prop_map(|(from, to, new)| Op::Rename(from, to, new)),
    ]
}

fn path(name: usize) -> String {
    format!("/r/{}", NAMES[name])
}

/// Does it to the files, and says what was done.
fn perform(files: &mut Files, op: Op) -> Option<Change> {
    match op {
        Op::Write(name, new) => Some(match files.insert(name, new.clone()) {
            Some(old) => Change::update(path(name), old, new),
            None => Change::add(path(name), new),
        }),
        Op::Delete(name) => {
            let old = files.remove(&name)?;
            Some(Change::delete(path(name), old))
        }
        Op::Rename(from, to, new) => {
            let old = files.remove(&from)?;
            let new = new.unwrap_or_else(|| old.clone());
            let overwritten = files.insert(to, new.clone());
            Some(Change::Rename {
                from: path(from).into(),
                to: path(to).into(),
                old,
                new,
                overwritten,
            })
        }
    }
}

fn tree(files: &Files) -> Tree {
    let entry = |(name, content): (&usize, &Content)| {
        let file = (content.mode.octal().to_owned(), content.data.to_vec());
        (NAMES[*name].as_bytes().to_vec(), file)
    };
    files.iter().map(entry).collect()
}

/// Parts that say nothing, or that say it of a file that is as it was.
fn superfluous(diff: &RenderedDiff, before: &Tree, after: &Tree) -> Option<Vec<u8>> {
    let name = |path: &[u8]| path.strip_prefix(b"/r/").unwrap().to_vec();
    let said = diff.files().iter().find(|file| {
        let now = name(&file.path);
        match &file.from {
            Some(from) => {
                let from = name(from);
                let moved = before.contains_key(&from) && !after.contains_key(&from);
                file.change != FileChange::Renamed || !moved || before.contains_key(&now)
            }
            None => before.get(&now) == after.get(&now),
        }
    });
    said.map(|file| file.path.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_a_turn_does_its_diff_leads_from_the_first_files_to_the_last(
        mut files in prop::collection::btree_map(0..NAMES.len(), content(), 0..5),
        steps in prop::collection::vec(prop::collection::vec(op(), 1..4), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let markers = Counting::with(&[("/r/.git", FileKind::Directory)]);
        let turn = turn("/r", &markers);
        let before = tree(&files);
        let mut shown: Option<RenderedDiff> = None;
        for step in steps {
            let changes: Vec<_> = step.into_iter().filter_map(|op| perform(&mut files, op)).collect();
            match runtime.block_on(turn.apply(delta(changes))) {
                Update::Unchanged => {}
                Update::Shown(diff) => shown = Some(diff),
                Update::Void(reason) => panic!("{reason:?}"),
            }
            let after = tree(&files);
            let text = shown.as_ref().map(RenderedDiff::to_bytes).unwrap_or_default();
            prop_assert_eq!(apply(&before, &text), Ok(after.clone()), "{}", String::from_utf8_lossy(&text));
            let superfluous = shown.as_ref().and_then(|diff| superfluous(diff, &before, &after));
            prop_assert_eq!(superfluous, None);
        }
    }
}
