//! What happens while a watch is put in place. What it sees later is tested through a link.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dwell_messages::files::Handle;
use serde_bytes::ByteBuf;

use super::*;

fn ask(missing: &Path, present: Option<&Path>) -> Watch {
    let bytes = |path: &Path| ByteBuf::from(path.as_os_str().as_bytes());
    Watch {
        handle: Handle(1),
        missing: vec![bytes(missing)],
        present: present.map(bytes),
    }
}

/// Whether it is watched when this happens meanwhile.
fn is_placed(meanwhile: impl FnOnce(&Path)) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    std::fs::create_dir_all(at.join("a/b")).unwrap();
    std::fs::create_dir(at.join("other")).unwrap();
    std::fs::write(at.join("there"), "x").unwrap();
    let ask = ask(&at.join("a/b/missing/file"), Some(&at.join("there")));
    place_and(&ask, || meanwhile(at)).is_some()
}

#[test]
fn what_changes_while_a_watch_is_put_in_place_is_not_missed() {
    let rename = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |at: &Path| std::fs::rename(at.join(from), at.join(to)).unwrap()
    };
    assert!(!is_placed(
        |at| std::fs::create_dir(at.join("a/b/missing")).unwrap()
    ));
    assert!(!is_placed(rename("a/b", "a/c")));
    assert!(!is_placed(rename("a", "c")));
    assert!(!is_placed(rename("there", "gone")));
    assert!(!is_placed(|at| {
        std::fs::rename(at.join("a"), at.join("c")).unwrap();
        std::fs::create_dir_all(at.join("a/b")).unwrap();
    }));
    assert!(!is_placed(|at| {
        std::fs::rename(at.join("a"), at.join("c")).unwrap();
        std::os::unix::fs::symlink("c", at.join("a")).unwrap();
    }));
    // The controls: nothing happens, and what does not matter.
    assert!(is_placed(|_| ()));
    assert!(is_placed(rename("other", "a/b/other")));
    assert!(is_placed(|at| std::fs::write(at.join("a/missing"), "x").unwrap()));
}
