//! Where it was asked for at once, a name leads to the old file or to the whole new one, whatever becomes of the writer.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dwell_actors::files::{LocalFiles, TEMPORARY_PREFIX, WriteOptions};
use dwell_messages::files::{
    Access, BLOCK_MAX_BYTES, Close, FileRequest, Handle, Links, Open, WriteBlock, WriteHow,
};

use crate::place::{Site, buf, content};
use crate::support::bounded;
use crate::world::{Dice, seed, soak, until};

const BYTES: usize = 4 * 1024 * 1024;
/// Tells this binary to write until it is killed.
const WRITES: &str = "DWELL_TEST_WRITES_INTO";
const AT_ONCE: &str = "DWELL_TEST_WRITES_AT_ONCE";

fn names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn a_file_being_replaced_is_the_old_one_until_it_is_closed() {
    let site = Site::start().await;
    site.write("f", b"old");
    let mut writer = site.files.create(site.at("f"), WriteOptions::atomic());
    let data = content(5 * BLOCK_MAX_BYTES + 9, 4);
    for piece in data.chunks(100_001) {
        bounded("writing", writer.write(piece)).await.unwrap();
        assert_eq!(std::fs::read(site.path("f")).unwrap(), b"old");
    }
    let written = bounded("closing", writer.finish()).await.unwrap();
    assert_eq!(written.size, data.len() as u64);
    assert!(std::fs::read(site.path("f")).unwrap() == data);
    assert_eq!(
        names(site.dir.path()),
        BTreeSet::from(["f".into()]),
        "nothing else is left"
    );
}

#[tokio::test]
async fn a_replacement_that_is_given_up_never_was() {
    let site = Site::start().await;
    site.write("f", b"old");
    let mut writer = site.files.create(site.at("f"), WriteOptions::atomic());
    bounded("writing", writer.write(&content(3 * BLOCK_MAX_BYTES, 1)))
        .await
        .unwrap();
    drop(writer);
    // Its handle is asked for again and again until it is gone.
    let files = site.files.clone();
    bounded("its closing", async {
        for _ in 0..10 {
            files.metadata_of(site.at("f"), Links::Follow).await.unwrap();
        }
    })
    .await;
    let Site {
        dir, harness, world, ..
    } = site;
    harness.shutdown().await;
    until("nothing is left of it", || {
        names(dir.path()) == BTreeSet::from(["f".into()])
    })
    .await;
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"old");
    drop(world);
}

/// Its owner and mode are the old one's, unless it is said otherwise.
#[tokio::test]
async fn a_replacement_has_the_permissions_of_what_it_replaces() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let site = Site::start().await;
    site.write("f", b"old");
    std::fs::set_permissions(site.path("f"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    site.files
        .write_file(site.at("f"), &b"new"[..], WriteOptions::atomic())
        .await
        .unwrap();
    assert_eq!(std::fs::metadata(site.path("f")).unwrap().mode() & 0o7777, 0o4751);
    let options = WriteOptions {
        permissions: Some(0o666),
        ..WriteOptions::atomic()
    };
    site.files
        .write_file(site.at("f"), &b"new"[..], options)
        .await
        .unwrap();
    assert_eq!(std::fs::metadata(site.path("f")).unwrap().mode() & 0o7777, 0o666);
}

/// A closing that was sent behind writes, of which one failed: an impossible place in the file.
#[tokio::test]
async fn a_file_of_which_a_block_could_not_be_written_does_not_get_its_name() {
    let site = Site::start().await;
    site.write("f", b"old");
    let handle = site.files.fresh_handle();
    let open = FileRequest::Open(Open {
        handle,
        path: buf(&site.path("f")),
        access: Access::Write(WriteHow::Truncate),
        permissions: None,
        atomic: true,
        sync: false,
        links: Links::Follow,
    });
    let block = |offset| {
        FileRequest::WriteBlock(WriteBlock {
            handle,
            offset,
            data: b"new".to_vec().into(),
        })
    };
    let close = FileRequest::Close(Close {
        handle,
        discard: false,
    });
    let files = &site.files;
    let (opened, one, two, closed) = tokio::join!(
        files.call(open),
        files.call(block(0)),
        files.call(block(u64::MAX - 1)),
        files.call(close)
    );
    assert!(opened.is_ok() && one.is_ok());
    assert_eq!(two.unwrap_err().code, closed.unwrap_err().code);
    assert_eq!(std::fs::read(site.path("f")).unwrap(), b"old");
    assert_eq!(names(site.dir.path()), BTreeSet::from(["f".into()]));
}

/// What the tests below kill: writes `f` anew, over and over, each time of one letter.
#[test]
#[ignore = "another test starts it as a process of its own"]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(WRITES) else {
        return;
    };
    let path = Path::new(&dir).join("f");
    let atomic = std::env::var_os(AT_ONCE).is_some();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let files = LocalFiles::new();
    for (handle, letter) in (1..).zip((b'a'..=b'z').cycle()) {
        let handle = Handle(handle);
        runtime.block_on(async {
            let open = FileRequest::Open(Open {
                handle,
                path: buf(&path),
                access: Access::Write(WriteHow::Truncate),
                permissions: None,
                atomic,
                sync: false,
                links: Links::Follow,
            });
            files.call(open).await.unwrap();
            for at in (0..BYTES).step_by(BLOCK_MAX_BYTES) {
                let block = FileRequest::WriteBlock(WriteBlock {
                    handle,
                    offset: at as u64,
                    data: vec![letter; BLOCK_MAX_BYTES].into(),
                });
                files.call(block).await.unwrap();
            }
            let close = FileRequest::Close(Close {
                handle,
                discard: false,
            });
            files.call(close).await.unwrap();
        });
        println!("written");
    }
}

/// Kills the writer at some moment. Whether the file was whole then.
#[expect(
    clippy::disallowed_methods,
    reason = "the moment of the kill is drawn, and nothing waits for it"
)]
fn killed(dice: &mut Dice, atomic: bool) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Command::new(std::env::current_exe().unwrap());
    writer
        .args([
            "--ignored",
            "--exact",
            "atomic::writes_until_it_is_killed",
            "--nocapture",
        ])
        .env(WRITES, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if atomic {
        writer.env(AT_ONCE, "1");
    }
    let mut writer = writer.spawn().unwrap();
    // From its first whole file on.
    let mut said = std::io::BufReader::new(writer.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("written") {
        line.clear();
        assert!(
            std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0,
            "it ended by itself"
        );
    }
    std::thread::sleep(Duration::from_micros(dice.below(40_000)));
    writer.kill().unwrap();
    writer.wait().unwrap();
    let file = std::fs::read(dir.path().join("f")).unwrap();
    let whole = file.len() == BYTES && file.iter().all(|byte| *byte == file[0]);
    let left: Vec<_> = names(dir.path()).into_iter().filter(|name| name != "f").collect();
    // A name of its own is had for a moment only, just before the file's.
    assert!(
        left.len() <= 1 && left.iter().all(|name| name.starts_with(TEMPORARY_PREFIX)),
        "{left:?}"
    );
    whole
}

#[test]
fn a_killed_writer_leaves_the_old_file_or_the_whole_new_one() {
    let mut dice = Dice(seed());
    let rounds = if soak() { 500 } else { 25 };
    for round in 0..rounds {
        assert!(
            killed(&mut dice, true),
            "round {round}: half of a file has the name"
        );
    }
    // The positive control: without `atomic` the same kills leave halves.
    let halves = (0..rounds).filter(|_| !killed(&mut dice, false)).count();
    println!("{halves} of {rounds} files that were not replaced at once were halves");
    assert!(halves > 0, "the kills prove nothing");
}
