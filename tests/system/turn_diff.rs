//! What a turn's diff says, git itself understands: files as they were, with the diff applied, are the files as they are.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use dwell::files::{FileAnswer, FileSystem};
use dwell::messages::files::{DirectoryEntry, FileKind, Metadata};
use dwell::messages::{ErrorCode, WireError};
use dwell::turn_diff::{Change, Content, Delta, FileMode, TurnDiff, TurnEnvironment, Update};

/// A repository at the root, and nothing else.
struct Repository;

impl FileSystem for Repository {
    fn identity(&self) -> &str {
        "test"
    }

    fn metadata<'a>(&'a self, path: &'a [u8]) -> FileAnswer<'a, Metadata> {
        Box::pin(async move {
            if path != b"/r/.git" {
                return Err(WireError::new(ErrorCode::NotFound, "none"));
            }
            Ok(Metadata {
                kind: FileKind::Directory,
                size: 0,
                mode: 0o755,
                modified_unix_ns: 0,
                device: 1,
                inode: 1,
            })
        })
    }

    fn read<'a>(&'a self, _: &'a [u8], _: u64) -> FileAnswer<'a, bytes::Bytes> {
        unreachable!("contents come with the deltas")
    }

    fn list<'a>(&'a self, _: &'a [u8], _: usize) -> FileAnswer<'a, Vec<DirectoryEntry>> {
        unreachable!("nothing is listed")
    }
}

type Tree = BTreeMap<Vec<u8>, (FileMode, Vec<u8>)>;

fn write(dir: &Path, tree: &Tree) {
    for (name, (mode, content)) in tree {
        let path = dir.join(OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if *mode == FileMode::Symlink {
            std::os::unix::fs::symlink(OsStr::from_bytes(content), &path).unwrap();
            continue;
        }
        std::fs::write(&path, content).unwrap();
        let bits = if *mode == FileMode::Executable {
            0o755
        } else {
            0o644
        };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(bits)).unwrap();
    }
}

fn read(top: &Path, dir: &Path, tree: &mut Tree) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            read(top, &path, tree);
            continue;
        }
        let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
        let file = if metadata.is_symlink() {
            let target = std::fs::read_link(&path).unwrap();
            (FileMode::Symlink, target.as_os_str().as_bytes().to_vec())
        } else {
            let mode = FileMode::of_permissions(metadata.permissions().mode());
            (mode, std::fs::read(&path).unwrap())
        };
        tree.insert(name, file);
    }
}

/// Does a change to the tree as its delta says it.
fn perform(tree: &mut Tree, change: &Change) {
    let name = |path: &[u8]| path.strip_prefix(b"/r/").unwrap().to_vec();
    let mut put = |path: &[u8], new: &Content| tree.insert(name(path), (new.mode, new.data.to_vec()));
    match change {
        Change::Add { path, new } | Change::Update { path, new, .. } => drop(put(path, new)),
        Change::Delete { path, .. } => drop(tree.remove(&name(path))),
        Change::Rename { from, to, new, .. } => {
            drop(put(to, new));
            tree.remove(&name(from));
        }
    }
}

fn regular(text: &str) -> Content {
    Content::text(text.to_owned())
}

fn long(change: usize) -> String {
    let line = |number: usize| {
        if number == change {
            "other\n".into()
        } else {
            format!("{number}\n")
        }
    };
    (0..60).map(line).collect()
}

#[test]
fn git_applies_what_a_turns_diff_says() {
    let before: Tree = [
        ("edited", long(60)),
        ("a name", "1\n".into()),
        ("mode", "#!/bin/sh\n".into()),
        ("gone", "1\n2\n".into()),
        ("moved", long(60)),
        ("d/from", "same\n".into()),
        ("no end", "1\n2".into()),
        ("becomes", "a file\n".into()),
        ("\u{e9}\"\\\n", "odd\n".into()),
        ("swap1", "1\n".into()),
        ("swap2", "2\n".into()),
    ]
    .map(|(name, text): (&str, String)| (name.as_bytes().to_vec(), (FileMode::Regular, text.into_bytes())))
    .into();
    let executable = Content::new(FileMode::Executable, "#!/bin/sh\n");
    let link = Content::new(FileMode::Symlink, "edited");
    let changes = [
        Change::update("/r/edited", regular(&long(60)), regular(&long(3))),
        Change::update("/r/edited", regular(&long(3)), regular(&long(40))),
        Change::update("/r/a name", regular("1\n"), regular("2\n")),
        Change::update("/r/mode", regular("#!/bin/sh\n"), executable),
        Change::delete("/r/gone", regular("1\n2\n")),
        Change::rename("/r/moved", "/r/d/moved", regular(&long(60)), regular(&long(7))),
        Change::rename("/r/d/from", "/r/to", regular("same\n"), regular("same\n")),
        Change::update("/r/no end", regular("1\n2"), regular("1\n2\n3")),
        Change::update("/r/becomes", regular("a file\n"), link),
        Change::update("/r/\u{e9}\"\\\n", regular("odd\n"), regular("even\n")),
        Change::add("/r/new/file", regular("1\n")),
        Change::add("/r/empty", regular("")),
        Change::rename("/r/swap1", "/r/swap", regular("1\n"), regular("1\n")),
        Change::rename("/r/swap2", "/r/swap1", regular("2\n"), regular("2\n")),
        Change::rename("/r/swap", "/r/swap2", regular("1\n"), regular("1\n")),
    ];
    let mut after = before.clone();
    changes.iter().for_each(|change| perform(&mut after, change));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let turn = TurnDiff::new([TurnEnvironment::new(
        "test",
        "/r",
        Arc::new(Repository) as Arc<dyn FileSystem>,
    )]);
    let Update::Shown(diff) = runtime.block_on(turn.apply(Delta::exact("test", changes))) else {
        panic!("a diff");
    };
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("tree");
    std::fs::create_dir(&dir).unwrap();
    write(&dir, &before);
    let patch = home.path().join("patch");
    std::fs::write(&patch, diff.to_bytes()).unwrap();
    let git = Command::new("git")
        .args(["apply", "--whitespace=nowarn"])
        .arg(&patch)
        .current_dir(&dir)
        // No repository above it.
        .env("GIT_CEILING_DIRECTORIES", home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&git.stderr);
    assert!(
        git.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&diff.to_bytes())
    );
    let mut there = Tree::new();
    read(&dir, &dir, &mut there);
    assert_eq!(there, after);
}
