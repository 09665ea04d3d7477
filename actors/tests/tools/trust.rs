//! Whom a client trusts, and when an identity may be made at all.

use std::fs;
use std::path::{Path, PathBuf};

use dwell_actors::keys::{
    Created, ExecutorName, Identity, KeyError, KnownExecutor, KnownExecutors, KnownRoute, Pinned,
};
use dwell_messages::PublicKey;
use dwell_relay::fingerprint;
use tempfile::{TempDir, tempdir};

fn file(content: &str) -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let path = dir.path().join("known_executors");
    fs::write(&path, content).unwrap();
    (dir, path)
}

fn known(name: &str, key: u8) -> KnownExecutor {
    KnownExecutor {
        name: ExecutorName::new(name).unwrap(),
        key: PublicKey([key; 32]),
        route: Some(KnownRoute::Relay("relay:1".into())),
    }
}

fn load(path: &Path) -> KnownExecutors {
    KnownExecutors::load(path).unwrap()
}

#[test]
fn a_pin_is_written_once_and_found_by_its_name() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("new/known_executors");
    assert!(load(&path).entries().is_empty());
    assert_eq!(KnownExecutors::pin(&path, &known("box", 1)).unwrap(), Pinned::New);
    assert_eq!(
        KnownExecutors::pin(&path, &known("box", 1)).unwrap(),
        Pinned::Already
    );
    KnownExecutors::pin(&path, &known("other", 2)).unwrap();
    let expected = format!(
        "box {} relay=relay:1\nother {} relay=relay:1\n",
        "01".repeat(32),
        "02".repeat(32)
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(load(&path).find("other").unwrap(), &known("other", 2));
    let error = load(&path).find("nobody").unwrap_err();
    assert!(error.to_string().contains("dwell trust"), "{error}");
}

/// C-24: a changed key is a hard stop, with both fingerprints, and the pin stays.
#[test]
fn another_key_under_a_known_name_is_never_taken() {
    let (_dir, path) = file(&format!("{}\n", known("box", 1)));
    let before = fs::read(&path).unwrap();
    let error = KnownExecutors::pin(&path, &known("box", 2)).unwrap_err();
    assert!(matches!(error, KeyError::Changed { .. }), "{error:?}");
    for key in [1, 2] {
        assert!(
            error.to_string().contains(&fingerprint(&PublicKey([key; 32]))),
            "{error}"
        );
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// C-24: two keys under one name are an error that says so, for that name alone.
#[test]
fn several_keys_of_one_name_are_an_error_and_the_other_names_are_kept() {
    let (_dir, path) = file(&format!(
        "{}\n{}\n{}\n",
        known("box", 1),
        known("fine", 3),
        known("box", 2)
    ));
    let all = load(&path);
    let error = all.find("box").unwrap_err();
    assert!(
        matches!(&error, KeyError::SeveralKeys { line: 3, name, .. } if name == "box"),
        "{error:?}"
    );
    assert_eq!(all.find("fine").unwrap(), &known("fine", 3));
    assert_eq!(all.problems().len(), 1);
    // The same key twice is one key.
    let (_dir, path) = file(&format!("{0}\n{0}\n", known("box", 1)));
    assert!(load(&path).problems().is_empty());
}

/// C-13, C-24: a line that cannot be understood is named, hides nothing but itself, and the file is not written to.
#[test]
fn a_corrupted_line_is_named_and_the_other_lines_are_kept() {
    let nobody = format!("low {}", "00".repeat(32));
    let bad = [
        "box",
        "-box 00",
        &"11".repeat(32),
        &nobody,
        &format!("box {} somewhere", "11".repeat(32)),
        &format!("box {} pigeon=1", "11".repeat(32)),
        &format!("box {} relay=a direct=b", "11".repeat(32)),
        &format!("box {} relay=", "11".repeat(32)),
    ];
    for bad in bad {
        let (_dir, path) = file(&format!("# mine\n{}\n{bad}\n", known("fine", 3)));
        let all = load(&path);
        assert_eq!(all.find("fine").unwrap().key, PublicKey([3; 32]));
        for error in [
            all.find("box").unwrap_err(),
            KnownExecutors::pin(&path, &known("new", 4)).unwrap_err(),
        ] {
            assert!(
                matches!(error, KeyError::Line { line: 3, .. }),
                "{bad}: {error:?}"
            );
        }
        assert!(!fs::read_to_string(&path).unwrap().contains("new"));
    }
}

#[test]
fn a_file_others_may_write_is_not_believed() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_dir, path) = file("");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(KnownExecutors::load(&path), Err(KeyError::Mode { .. })));
}

/// C-23: an identity that was lost is not made anew where something was built on it.
#[test]
fn an_identity_is_made_only_where_nothing_says_that_there_was_one() {
    let dir = tempdir().unwrap();
    let (path, list) = (
        dir.path().join("keys/executor.key"),
        dir.path().join("authorized_clients"),
    );
    let never = || -> ([u8; 32], [u8; 32]) { panic!("a key was generated") };
    fs::write(&list, "").unwrap();
    let error = Identity::load_or_create_beside(&path, &[&list], never).unwrap_err();
    assert!(matches!(error, KeyError::Lost { .. }), "{error:?}");
    assert!(error.to_string().contains("backup"), "{error}");
    assert!(!path.exists());
    // A link that leads nowhere says it too.
    fs::remove_file(&list).unwrap();
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &list).unwrap();
    assert!(Identity::load_or_create_beside(&path, &[&list], never).is_err());
    // Positive control.
    fs::remove_file(&list).unwrap();
    let pair = ([0x11; 32], [0x22; 32]);
    let (_, created) = Identity::load_or_create_beside(&path, &[&list], || pair).unwrap();
    assert_eq!(created, Created::New);
    fs::write(&list, "").unwrap();
    let (_, created) = Identity::load_or_create_beside(&path, &[&list], never).unwrap();
    assert_eq!(created, Created::Existing);
}
