use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use dwell_actors::keys::{
    AUTHORIZED_CLIENTS_MAX, AuthorizedClients, Created, Grant, IDENTITY_FILE_MAX_BYTES, Identity, KeyError,
    Reload,
};
use dwell_messages::PublicKey;
use tempfile::{TempDir, tempdir};

const PAIR: ([u8; 32], [u8; 32]) = ([0x11; 32], [0x22; 32]);

fn never() -> ([u8; 32], [u8; 32]) {
    panic!("a key was generated")
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let path = dir.path().join("keys/executor.key");
    (dir, path)
}

fn made() -> (TempDir, PathBuf) {
    let (dir, path) = place();
    Identity::load_or_create(&path, || PAIR).unwrap();
    (dir, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a start says about the file; it must neither change the file nor make a key.
fn refusal(path: &Path) -> KeyError {
    let before = fs::symlink_metadata(path).unwrap();
    let content = fs::read(path).ok();
    let error = Identity::load_or_create(path, never).unwrap_err();
    let after = fs::symlink_metadata(path).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert_eq!(fs::read(path).ok(), content);
    error
}

#[test]
fn the_first_start_makes_a_private_file_and_the_second_reads_it() {
    let (_dir, path) = place();
    let (first, created) = Identity::load_or_create(&path, || PAIR).unwrap();
    assert_eq!(created, Created::New);
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let (second, created) = Identity::load_or_create(&path, never).unwrap();
    assert_eq!(created, Created::Existing);
    assert_eq!((second.private(), second.public()), (&PAIR.0, PublicKey(PAIR.1)));
    assert_eq!(first.public(), second.public());
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "a temporary file stayed"
    );
}

#[test]
fn the_file_is_three_lines_of_text() {
    let (_dir, path) = made();
    let expected = format!(
        "dwell-key-v1\nprivate {}\npublic {}\n",
        "11".repeat(32),
        "22".repeat(32)
    );
    assert_eq!(fs::read_to_string(path).unwrap(), expected);
}

#[test]
fn of_many_first_starts_at_once_one_makes_the_key_and_all_use_it() {
    let (_dir, path) = place();
    let starts: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=16_u8)
            .map(|n| {
                let path = &path;
                scope.spawn(move || Identity::load_or_create(path, || ([n; 32], [n + 100; 32])).unwrap())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(
        starts
            .iter()
            .filter(|(_, created)| *created == Created::New)
            .count(),
        1
    );
    assert!(
        starts
            .iter()
            .all(|(identity, _)| identity.public() == starts[0].0.public())
    );
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

/// C-23.
#[test]
fn an_identity_others_may_read_is_refused() {
    for bits in [0o640, 0o604, 0o620, 0o601] {
        let (_dir, path) = made();
        set_mode(&path, bits);
        let error = refusal(&path);
        assert!(matches!(error, KeyError::Mode { mode, .. } if mode == bits));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

#[test]
fn an_identity_in_a_directory_others_may_change_is_refused() {
    let (_dir, path) = made();
    set_mode(path.parent().unwrap(), 0o770);
    let error = refusal(&path);
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[test]
fn an_identity_of_another_user_is_refused() {
    let (_dir, path) = made();
    if chown(&path, Some(12_345), None).is_err() {
        return; // Only root can give a file away.
    }
    assert!(matches!(refusal(&path), KeyError::Owner { owner: 12_345, .. }));
}

#[test]
fn an_identity_that_is_a_link_is_refused_even_when_what_it_points_to_is_sound() {
    let (dir, path) = made();
    let link = dir.path().join("keys/link.key");
    symlink(&path, &link).unwrap();
    assert!(matches!(refusal(&link), KeyError::NotAFile { .. }));
    let dangling = dir.path().join("keys/dangling.key");
    symlink(dir.path().join("nowhere"), &dangling).unwrap();
    assert!(matches!(refusal(&dangling), KeyError::NotAFile { .. }));
}

#[test]
fn a_directory_or_a_pipe_in_the_identitys_place_is_refused_without_hanging() {
    let (_dir, path) = place();
    fs::create_dir_all(&path).unwrap();
    set_mode(path.parent().unwrap(), 0o700);
    assert!(matches!(refusal(&path), KeyError::NotAFile { .. }));
    let pipe = path.with_extension("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let error = Identity::load(&pipe).unwrap_err();
    assert!(matches!(error, KeyError::NotAFile { .. }), "{error}");
}

#[test]
fn an_empty_identity_is_refused_and_never_made_anew() {
    let (_dir, path) = made();
    fs::write(&path, "").unwrap();
    let error = refusal(&path);
    assert!(matches!(error, KeyError::Empty { .. }));
    assert!(error.to_string().contains("restore it from a backup"), "{error}");
}

#[test]
fn an_identity_cut_anywhere_is_refused() {
    let (_dir, path) = made();
    let whole = fs::read(&path).unwrap();
    for length in 1..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(
            matches!(refusal(&path), KeyError::Format { .. }),
            "cut to {length}"
        );
    }
}

#[test]
fn an_identity_with_anything_more_or_else_is_refused() {
    let key = "11".repeat(32);
    let cases = [
        format!("dwell-key-v2\nprivate {key}\npublic {key}\n"),
        format!("dwell-key-v1\nprivate {key}0\npublic {key}\n"),
        format!("dwell-key-v1\nprivate {key}\npublic {}\n", "zz".repeat(32)),
        format!("dwell-key-v1\nprivate {key}\npublic {key}\n\n"),
        format!("dwell-key-v1\npublic {key}\nprivate {key}\n"),
        format!("dwell-key-v1\nprivate {}\npublic {key}\n", "00".repeat(32)),
        format!("dwell-key-v1\nprivate {key}\npublic {}\n", "00".repeat(32)),
        "\u{feff}dwell-key-v1\n".to_owned(),
    ];
    let (_dir, path) = made();
    for case in cases {
        fs::write(&path, &case).unwrap();
        assert!(matches!(refusal(&path), KeyError::Format { .. }), "{case}");
    }
    fs::write(&path, [0xff; 40]).unwrap();
    assert!(matches!(refusal(&path), KeyError::Format { .. }));
    fs::write(&path, vec![b'a'; IDENTITY_FILE_MAX_BYTES as usize + 1]).unwrap();
    assert!(matches!(refusal(&path), KeyError::TooLarge { .. }));
}

#[test]
fn a_missing_identity_is_an_error_where_none_may_be_made() {
    let (_dir, path) = place();
    assert!(matches!(Identity::load(&path), Err(KeyError::Missing { .. })));
}

#[test]
fn a_changed_digit_is_found_by_the_curve() {
    let (_dir, path) = made();
    let identity = Identity::load(&path).unwrap();
    identity.check(|private| private.map(|byte| byte * 2)).unwrap();
    let error = identity.check(|_| [0x23; 32]).unwrap_err();
    assert!(matches!(error, KeyError::Mismatch { .. }));
}

#[test]
fn neither_debug_nor_an_error_shows_the_private_key() {
    let (_dir, path) = made();
    let identity = Identity::load(&path).unwrap();
    assert!(!format!("{identity:?}").contains("11111111") && !format!("{identity:?}").contains("17, 17"));
    fs::write(&path, fs::read_to_string(&path).unwrap() + "x\n").unwrap();
    let error = Identity::load(&path).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("11111111"));
}

fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

fn list(content: &str) -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let path = dir.path().join("authorized_clients");
    fs::write(&path, content).unwrap();
    set_mode(&path, 0o600);
    (dir, path)
}

#[test]
fn a_missing_or_empty_list_means_nobody() {
    let dir = tempdir().unwrap();
    let missing = AuthorizedClients::load(&dir.path().join("none")).unwrap();
    assert!(missing.keys().is_empty() && !missing.contains(&PublicKey([1; 32])));
    let (_dir, path) = list("\n# nobody yet\n");
    assert!(
        !AuthorizedClients::load(&path)
            .unwrap()
            .contains(&PublicKey([1; 32]))
    );
}

#[test]
fn a_list_holds_a_key_a_line_with_comments() {
    let content = format!(
        "# team\n{}\n\n  {} # laptop\r\n{}#x\n{}",
        hex(1),
        hex(0xab).to_uppercase(),
        hex(3),
        hex(3)
    );
    let (_dir, path) = list(&content);
    let clients = AuthorizedClients::load(&path).unwrap();
    assert_eq!(
        clients.keys(),
        [PublicKey([1; 32]), PublicKey([0xab; 32]), PublicKey([3; 32])]
    );
    assert!(clients.contains(&PublicKey([0xab; 32])) && !clients.contains(&PublicKey([4; 32])));
    let mut near = [3; 32];
    near[31] ^= 0x80;
    assert!(!clients.contains(&PublicKey(near)));
}

#[test]
fn a_corrupted_line_is_named_and_nothing_of_the_list_is_taken() {
    let bad = [
        hex(2) + "0",
        hex(2) + " laptop",
        hex(2) + " expires=1",
        hex(2) + " scope=spawn",
        hex(2) + " scopes=spawn,stdin",
        hex(1) + " scopes=spawn",
        "x".repeat(64),
        hex(0),
        hex(2) + hex(3).as_str(),
    ];
    for bad in bad {
        let (_dir, path) = list(&format!("{}\n# ok\n{bad}\n", hex(1)));
        let error = AuthorizedClients::load(&path).unwrap_err();
        assert!(matches!(error, KeyError::Line { line: 3, .. }), "{bad}: {error}");
        assert!(error.to_string().contains("line 3"), "{error}");
    }
}

/// C-13.
#[test]
fn every_point_of_low_order_is_refused_with_either_top_bit() {
    let order_8 = [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
    ];
    let others = [
        hex(0),
        "01".to_owned() + &"00".repeat(31),
        "ec".to_owned() + &"ff".repeat(31),
        "ed".to_owned() + &"ff".repeat(30) + "7f",
        "ee".to_owned() + &"ff".repeat(30) + "7f",
    ];
    for point in order_8.into_iter().map(str::to_owned).chain(others) {
        let (_dir, path) = list(&point);
        assert!(
            matches!(
                AuthorizedClients::load(&path),
                Err(KeyError::Line { line: 1, .. })
            ),
            "{point}"
        );
    }
}

#[test]
fn a_list_others_may_write_is_refused_but_one_they_may_read_is_not() {
    let (_dir, path) = list(&hex(1));
    set_mode(&path, 0o644);
    assert!(AuthorizedClients::load(&path).is_ok());
    for bits in [0o664, 0o646] {
        set_mode(&path, bits);
        assert!(matches!(
            AuthorizedClients::load(&path),
            Err(KeyError::Mode { .. })
        ));
    }
}

#[test]
fn a_reload_takes_a_changed_list_whole_or_keeps_the_old_one() {
    let (_dir, path) = list(&hex(1));
    let mut clients = AuthorizedClients::load(&path).unwrap();
    assert_eq!(clients.reload_if_changed().unwrap(), Reload::Unchanged);
    fs::write(&path, format!("{}\nbroken\n", hex(2))).unwrap();
    for _ in 0..2 {
        assert!(matches!(
            clients.reload_if_changed(),
            Err(KeyError::Line { line: 2, .. })
        ));
        assert_eq!(clients.keys(), [PublicKey([1; 32])]);
    }
    fs::write(&path, hex(2)).unwrap();
    assert_eq!(clients.reload_if_changed().unwrap(), Reload::Changed);
    assert_eq!(clients.keys(), [PublicKey([2; 32])]);
    fs::remove_file(&path).unwrap();
    assert_eq!(clients.reload_if_changed().unwrap(), Reload::Changed);
    assert!(clients.keys().is_empty());
}

#[test]
fn a_poll_reads_the_file_only_when_its_metadata_could_hide_a_change() {
    let (_dir, path) = list(&hex(1));
    let mut clients = AuthorizedClients::load(&path).unwrap();
    let changed = u64::try_from(std::os::unix::fs::MetadataExt::ctime(
        &fs::metadata(&path).unwrap(),
    ))
    .unwrap();
    // Young: read, whatever its metadata says. Old: one look at it.
    for now in [changed, changed + 60] {
        assert_eq!(clients.reload_if_touched(now).unwrap(), Reload::Unchanged);
    }
    fs::write(&path, hex(2) + "\n").unwrap();
    assert_eq!(clients.reload_if_touched(changed + 60).unwrap(), Reload::Changed);
    assert_eq!(clients.keys(), [PublicKey([2; 32])]);
    fs::remove_file(&path).unwrap();
    assert_eq!(clients.reload_if_touched(changed + 60).unwrap(), Reload::Changed);
    assert_eq!(
        clients.reload_if_touched(changed + 60).unwrap(),
        Reload::Unchanged
    );
    assert!(clients.keys().is_empty());
}

#[test]
fn a_key_is_added_with_its_options_and_never_changed_by_that() {
    let (_dir, path) = list("");
    let grant = Grant::parse("scopes=spawn,max-sessions=2").unwrap();
    for expected in [Reload::Changed, Reload::Unchanged] {
        let added = AuthorizedClients::add_with(&path, &PublicKey([2; 32]), &grant, "ci").unwrap();
        assert_eq!(added, expected);
    }
    let line = format!("{} scopes=spawn max-sessions=2 # ci\n", hex(2));
    assert_eq!(fs::read_to_string(&path).unwrap(), line);
    assert_eq!(
        AuthorizedClients::load(&path).unwrap().grant(&PublicKey([2; 32])),
        Some(grant)
    );
    let wider = AuthorizedClients::add(&path, &PublicKey([2; 32]), "").unwrap_err();
    assert!(matches!(wider, KeyError::Listed { .. }), "{wider:?}");
    assert!(wider.to_string().contains("scopes=spawn"), "{wider}");
    assert_eq!(fs::read_to_string(&path).unwrap(), line);
}

#[test]
fn a_change_of_the_same_length_within_one_clock_tick_is_seen() {
    let (_dir, path) = list(&hex(1));
    let mut clients = AuthorizedClients::load(&path).unwrap();
    let stamp = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, hex(2)).unwrap();
    fs::File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_modified(stamp)
        .unwrap();
    assert_eq!(clients.reload_if_changed().unwrap(), Reload::Changed);
}

#[test]
fn a_key_is_added_behind_what_the_list_says_already() {
    let (_dir, path) = list(&format!("# mine\n{}", hex(1)));
    assert_eq!(
        AuthorizedClients::add(&path, &PublicKey([2; 32]), "laptop").unwrap(),
        Reload::Changed
    );
    assert_eq!(
        AuthorizedClients::add(&path, &PublicKey([2; 32]), "again").unwrap(),
        Reload::Unchanged
    );
    let expected = format!("# mine\n{}\n{} # laptop\n", hex(1), hex(2));
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn adding_to_no_list_makes_one() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("new/authorized_clients");
    AuthorizedClients::add(&path, &PublicKey([2; 32]), "").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), hex(2) + "\n");
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn a_broken_list_is_not_added_to() {
    let (_dir, path) = list("broken\n");
    assert!(matches!(
        AuthorizedClients::add(&path, &PublicKey([2; 32]), ""),
        Err(KeyError::Line { line: 1, .. })
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "broken\n");
}

#[test]
fn a_comment_cannot_add_a_second_line_and_nobodys_key_is_not_added() {
    let (_dir, path) = list("");
    for comment in [format!("a\n{}", hex(3)), "x".repeat(129)] {
        assert!(matches!(
            AuthorizedClients::add(&path, &PublicKey([2; 32]), &comment),
            Err(KeyError::Rejected { .. })
        ));
    }
    assert!(matches!(
        AuthorizedClients::add(&path, &PublicKey([0; 32]), ""),
        Err(KeyError::Rejected { .. })
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
}

#[test]
fn a_list_is_added_to_by_one_process_at_a_time() {
    let (dir, path) = list("");
    let held = fs::File::open(dir.path()).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(matches!(
        AuthorizedClients::add(&path, &PublicKey([2; 32]), ""),
        Err(KeyError::Busy { .. })
    ));
    drop(held);
    AuthorizedClients::add(&path, &PublicKey([2; 32]), "").unwrap();
}

#[test]
fn a_full_list_takes_no_more() {
    let key = |n: usize| {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        PublicKey(key)
    };
    let content: String = (0..AUTHORIZED_CLIENTS_MAX)
        .map(|n| format!("{}\n", key(n)))
        .collect();
    let (_dir, path) = list(&content);
    assert_eq!(
        AuthorizedClients::load(&path).unwrap().keys().len(),
        AUTHORIZED_CLIENTS_MAX
    );
    assert!(matches!(
        AuthorizedClients::add(&path, &key(5_000), ""),
        Err(KeyError::TooMany { .. })
    ));
    fs::write(&path, content + &key(5_000).to_string()).unwrap();
    assert!(matches!(
        AuthorizedClients::load(&path),
        Err(KeyError::TooMany { .. })
    ));
}
