//! What belongs to a session ends with it, what it may open is bounded, and sessions do not stand in each other's way.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use dwell_actors::executor::Executor;
use dwell_actors::files::{HANDLES_MAX, RemoteFiles, WALKS_MAX, WalkOptions, WriteOptions};
use dwell_actors::harness::{Harness, Target};
use dwell_actors::keys::{Grant, Scope, ScopeSet};
use dwell_messages::ErrorCode;
use dwell_messages::files::{
    Access, Close, FileReply, FileRequest, Handle, Links, Open, ReadBlock, Walk, WriteBlock, WriteHow,
};

use crate::place::{Site, buf, bytes, content};
use crate::support::{bounded, copy, keypair};
use crate::world::until;

fn names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn open(handle: Handle, path: &Path, access: Access) -> FileRequest {
    FileRequest::Open(Open {
        handle,
        path: buf(path),
        access,
        permissions: None,
        atomic: true,
        sync: false,
        links: Links::Follow,
    })
}

/// Files that this process has open below a directory.
fn open_below(dir: &Path) -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| path.starts_with(dir))
        .count()
}

#[tokio::test]
async fn a_client_without_the_scope_files_is_refused_everything() {
    let client = keypair();
    let dir = tempfile::tempdir().unwrap();
    let all_but_files: Vec<Scope> = Scope::ALL
        .into_iter()
        .filter(|scope| *scope != Scope::Files)
        .collect();
    let grant = Grant::scopes(ScopeSet::of(&all_but_files));
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize_with(client.public(), grant)
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let harness = Harness::builder()
        .identity(copy(&client))
        .connect(target)
        .await
        .unwrap();
    let files = harness.files();
    let path = bytes(&dir.path().join("f"));
    for error in [
        files.metadata_of(&path, Links::Follow).await.unwrap_err(),
        files.read_file(&path, 1).await.unwrap_err(),
        files
            .write_file(&path, &b"x"[..], WriteOptions::default())
            .await
            .unwrap_err(),
        files
            .list_directory(bytes(dir.path()), 1, false)
            .await
            .unwrap_err(),
        files.remove_all(&path).await.unwrap_err(),
        files
            .walk_all(bytes(dir.path()), WalkOptions::default())
            .await
            .unwrap_err(),
        files.open(&path).next().await.unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        assert!(error.message.contains("files"), "{error}");
    }
    assert_eq!(names(dir.path()), BTreeSet::new());
}

#[tokio::test]
async fn a_session_has_only_so_many_files_open_and_a_closed_one_makes_room() {
    let site = Site::start().await;
    site.write("f", b"x");
    let handles: Vec<Handle> = (0..HANDLES_MAX).map(|_| site.files.fresh_handle()).collect();
    for handle in &handles {
        site.files
            .call(open(*handle, &site.path("f"), Access::Read))
            .await
            .unwrap();
    }
    let one_more = open(site.files.fresh_handle(), &site.path("f"), Access::Read);
    let refused = site.files.call(one_more.clone()).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.limit),
        (ErrorCode::Busy, Some(HANDLES_MAX as u64))
    );
    let close = FileRequest::Close(Close {
        handle: handles[7],
        discard: false,
    });
    assert!(matches!(site.files.call(close).await, Ok(FileReply::Closed(_))));
    assert!(site.files.call(one_more).await.is_ok());
    // Everything else goes on meanwhile.
    assert_eq!(&site.files.read_file(site.at("f"), 9).await.unwrap()[..], b"x");
}

#[tokio::test]
async fn a_session_has_only_so_many_walks_under_way() {
    let site = Site::start().await;
    for number in 0..5_000 {
        std::fs::File::create(site.path(&format!("{number}"))).unwrap();
    }
    let walk = || {
        FileRequest::Walk(Walk {
            handle: site.files.fresh_handle(),
            path: buf(site.dir.path()),
            max_depth: 9,
            max_directories: 9,
            max_entries: 10_000,
            follow: false,
            prune_hidden: false,
            ignore_files: false,
        })
    };
    for _ in 0..WALKS_MAX {
        let page = site.files.call(walk()).await.unwrap();
        assert!(
            matches!(page, FileReply::Walked(page) if !page.end),
            "it has more to give"
        );
    }
    let refused = site.files.call(walk()).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.limit),
        (ErrorCode::Busy, Some(WALKS_MAX as u64))
    );
}

#[tokio::test]
async fn what_is_open_ends_with_its_session() {
    let site = Site::start().await;
    site.write("f", b"old");
    let files = &site.files;
    let (reads, writes) = (files.fresh_handle(), files.fresh_handle());
    files
        .call(open(reads, &site.path("f"), Access::Read))
        .await
        .unwrap();
    let access = Access::Write(WriteHow::Truncate);
    files.call(open(writes, &site.path("f"), access)).await.unwrap();
    let block = FileRequest::WriteBlock(WriteBlock {
        handle: writes,
        offset: 0,
        data: content(1_000, 1).into(),
    });
    files.call(block).await.unwrap();
    assert!(open_below(site.dir.path()) >= 2);
    let Site {
        dir, harness, world, ..
    } = site;
    harness.shutdown().await;
    until("everything is closed", || open_below(dir.path()) == 0).await;
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"old");
    assert_eq!(names(dir.path()), BTreeSet::from(["f".into()]));
    drop(world);
}

#[tokio::test]
async fn the_next_owner_of_a_session_finds_nothing_open() {
    let site = Site::start().await;
    site.write("f", b"old");
    let handle = site.files.fresh_handle();
    site.files
        .call(open(handle, &site.path("f"), Access::Read))
        .await
        .unwrap();
    let looker = site.world.harness_of_its_own().await;
    let sessions = looker.sessions().await.unwrap();
    let session = sessions
        .iter()
        .find(|session| session.session == site.harness.session());
    let claim = session.unwrap().take_up();
    let next = Harness::builder()
        .identity(copy(&site.world.client))
        .take_up(claim);
    let next = bounded("taking it", next.connect(site.world.direct()))
        .await
        .unwrap();
    until("it is closed", || open_below(site.dir.path()) == 0).await;
    let files = next.files();
    let read = FileRequest::ReadBlock(ReadBlock {
        handle,
        offset: 0,
        max_bytes: 9,
    });
    assert_eq!(
        files.call(read.clone()).await.unwrap_err().code,
        ErrorCode::UnknownHandle
    );
    // It counts its handles anew.
    files
        .call(open(handle, &site.path("f"), Access::Read))
        .await
        .unwrap();
    assert!(matches!(files.call(read).await, Ok(FileReply::Block(block)) if &block.data[..] == b"old"));
}

/// Walks of one client, as many as it may have, do not keep another's small read waiting.
#[tokio::test(flavor = "multi_thread")]
async fn walks_of_one_session_do_not_keep_anothers_small_read_waiting() {
    // Reads that stood behind walks would see one walk end after another. A machine that has other things to do may keep
    // one of these tries from its reads, and not all of them.
    const TRIES: usize = 5;
    const READS_MIN: usize = 10;
    let site = Site::start().await;
    for directory in 0..100 {
        let dir = site.path(&format!("d{directory}"));
        std::fs::create_dir(&dir).unwrap();
        for file in 0..100 {
            std::fs::File::create(dir.join(format!("{file}"))).unwrap();
        }
    }
    site.write("small", b"small");
    let other = site.world.harness_of_its_own().await;
    let mut most = 0;
    for _ in 0..TRIES {
        most = most.max(reads_before_a_walk_is_over(&site, &other.files()).await);
        if most >= READS_MIN {
            return;
        }
    }
    panic!("{most} reads before any walk was over");
}

/// Walks of one session and small reads of another, until the walks are over.
async fn reads_before_a_walk_is_over(site: &Site, reads: &RemoteFiles) -> usize {
    let walking: Vec<_> = (0..WALKS_MAX)
        .map(|_| {
            let (files, root) = (site.files.clone(), bytes(site.dir.path()));
            tokio::spawn(async move {
                let mut found = 0;
                for _ in 0..5 {
                    found += files
                        .walk_all(&root, WalkOptions::default())
                        .await
                        .unwrap()
                        .entries
                        .len();
                }
                found
            })
        })
        .collect();
    let (mut longest, mut beside_all) = (Duration::ZERO, 0);
    while !walking.iter().all(tokio::task::JoinHandle::is_finished) {
        let begun = Instant::now();
        let read = bounded("a small read", reads.read_file(site.at("small"), 9))
            .await
            .unwrap();
        assert_eq!(&read[..], b"small");
        longest = longest.max(begun.elapsed());
        if !walking.iter().any(tokio::task::JoinHandle::is_finished) {
            beside_all += 1;
        }
    }
    for walk in walking {
        assert_eq!(walk.await.unwrap(), 5 * 10_101);
    }
    println!("the longest small read beside {WALKS_MAX} walks took {longest:?}");
    beside_all
}
