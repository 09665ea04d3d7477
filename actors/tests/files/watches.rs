//! Watches for paths that are missing: what is seen, what is not watched at all, and what a watch costs whom.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dwell_actors::executor::Executor;
use dwell_actors::files::{LocalFiles, RemoteWatch, WATCH_NAMES_MAX, WATCHES_IN_ALL_MAX, WATCHES_MAX};
use dwell_actors::harness::{Harness, Target};
use dwell_actors::keys::{Grant, Scope, ScopeSet};
use dwell_messages::ErrorCode;
use dwell_messages::files::{
    Await, Close, FileReply, FileRequest, Handle, Links, WATCH_MAX_PATHS, Watch, Watching,
};

use crate::place::{Site, buf, bytes};
use crate::support::{bounded, copy, keypair};
use crate::world::until;

/// How long something that must not come is waited for.
const QUIET: Duration = Duration::from_millis(50);

impl Site {
    /// A watch for names in the site's directory.
    async fn watch(&self, missing: &[&str]) -> Option<RemoteWatch> {
        self.watch_beside(missing, None).await
    }

    async fn watch_beside(&self, missing: &[&str], present: Option<&str>) -> Option<RemoteWatch> {
        let present = present.map(|name| self.at(name));
        let missing = missing.iter().map(|name| self.at(name));
        bounded("a watch", self.files.watch_missing(missing, present.as_deref()))
            .await
            .unwrap()
    }

    /// What was dropped makes room, but nobody says when.
    async fn watch_when_there_is_room(&self) -> RemoteWatch {
        let room = async {
            loop {
                match self.files.watch_missing([self.at("missing")], None).await {
                    Ok(watch) => break watch.expect("nothing is there"),
                    Err(error) => assert_eq!(error.code, ErrorCode::Busy),
                }
            }
        };
        bounded("room", room).await
    }

    fn mkdir(&self, name: &str) {
        std::fs::create_dir_all(self.path(name)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }
}

async fn sees(watch: &mut RemoteWatch) {
    bounded("a change", watch.changed()).await.unwrap();
}

async fn sees_nothing(watch: &mut RemoteWatch) {
    assert!(tokio::time::timeout(QUIET, watch.changed()).await.is_err());
}

/// Inotify instances of this process that watch a directory.
fn watching(dir: &Path) -> usize {
    let metadata = std::fs::metadata(dir).unwrap();
    let this = format!(" ino:{:x} ", metadata.ino());
    std::fs::read_dir("/proc/self/fdinfo")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
        .filter(|info| {
            info.lines()
                .any(|line| line.starts_with("inotify ") && line.contains(&this))
        })
        .count()
}

#[tokio::test]
async fn a_missing_path_that_appears_is_seen_however_it_appears() {
    let site = Site::start().await;
    site.write("there", "x");
    type Make = fn(&Path, PathBuf);
    let ways: [(&str, Make); 6] = [
        ("a file", |_, at| std::fs::write(at, "").unwrap()),
        ("a directory", |_, at| std::fs::create_dir(at).unwrap()),
        ("a link that leads nowhere", |_, at| {
            symlink("nowhere", at).unwrap()
        }),
        ("another name", |dir, at| {
            std::fs::hard_link(dir.join("there"), at).unwrap()
        }),
        ("its name", |dir, at| {
            std::fs::write(dir.join("moved"), "").unwrap();
            std::fs::rename(dir.join("moved"), at).unwrap();
        }),
        ("a name of odd bytes", |_, at| std::fs::write(at, "").unwrap()),
    ];
    for (number, (what, make)) in ways.into_iter().enumerate() {
        let name = format!("missing-{number}");
        let mut watch = site.watch(&["never", &name]).await.expect(what);
        make(site.dir.path(), site.path(&name));
        sees(&mut watch).await;
        // Whoever asks once more hears it once more.
        sees(&mut watch).await;
        watch.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_first_missing_directory_on_the_way_is_seen_and_so_is_each_next_one() {
    let site = Site::start().await;
    for made in ["a", "a/b", "a/b/c"] {
        let mut watch = site.watch(&["a/b/c"]).await.unwrap();
        site.mkdir(made);
        sees(&mut watch).await;
        watch.close().await.unwrap();
    }
    assert!(site.watch(&["a/b/c"]).await.is_none(), "it is there");
}

#[tokio::test]
async fn what_happens_beside_a_missing_path_is_not_seen() {
    let site = Site::start().await;
    site.mkdir("d");
    site.write("d/old", "x");
    let mut watch = site.watch(&["d/missing", "d/deep/missing"]).await.unwrap();
    // The control: another watch of the same place, which is told of the last of it.
    let mut control = site.watch(&["d/last"]).await.unwrap();
    site.write("d/new", "x");
    site.write("d/old", "y");
    site.rename("d/old", "d/older");
    site.mkdir("d/directory");
    site.write("d/directory/missing", "x");
    std::fs::remove_file(site.path("d/new")).unwrap();
    site.write("missing", "x");
    site.write("d/last", "x");
    sees(&mut control).await;
    sees_nothing(&mut watch).await;
    site.write("d/missing", "x");
    sees(&mut watch).await;
}

#[tokio::test]
async fn what_appears_before_anybody_waits_is_seen_by_whoever_waits_then() {
    let site = Site::start().await;
    let mut watch = site.watch(&["a"]).await.unwrap();
    site.write("a", "x");
    std::fs::remove_file(site.path("a")).unwrap();
    sees(&mut watch).await;
    // And what came while somebody waited and gave up.
    let mut watch = site.watch(&["b"]).await.unwrap();
    sees_nothing(&mut watch).await;
    site.write("b", "x");
    sees(&mut watch).await;
}

#[tokio::test]
async fn a_directory_on_the_way_that_goes_or_is_closed_is_seen() {
    let site = Site::start().await;
    site.mkdir("a/b");
    type Change = fn(&Site);
    let changes: [(&str, Change); 4] = [
        ("the nearest is renamed", |site| site.rename("a/b", "a/c")),
        ("one further up is renamed", |site| site.rename("a", "z")),
        ("the nearest is removed", |site| {
            std::fs::remove_dir(site.path("a/b")).unwrap()
        }),
        ("its rights change", |site| {
            let rights = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(site.path("a/b"), rights).unwrap();
        }),
    ];
    for (what, change) in changes {
        let mut watch = site.watch(&["a/b/missing"]).await.expect(what);
        change(&site);
        sees(&mut watch).await;
        watch.close().await.unwrap();
        std::fs::remove_dir_all(site.path("z")).ok();
        site.mkdir("a/b");
    }
}

#[tokio::test]
async fn a_path_that_is_there_is_watched_for_whatever_becomes_of_it() {
    let site = Site::start().await;
    type Change = fn(&Site);
    let changes: [(&str, Change); 5] = [
        ("written", |site| site.write("d/there", "more")),
        ("removed", |site| {
            std::fs::remove_file(site.path("d/there")).unwrap()
        }),
        ("renamed", |site| site.rename("d/there", "d/gone")),
        ("replaced", |site| site.rename("d/other", "d/there")),
        ("moved with its directory", |site| site.rename("d", "e")),
    ];
    for (what, change) in changes {
        std::fs::remove_dir_all(site.path("e")).ok();
        site.mkdir("d");
        site.write("d/there", "x");
        site.write("d/other", "x");
        let mut watch = site
            .watch_beside(&["missing"], Some("d/there"))
            .await
            .expect(what);
        let read = std::fs::read(site.path("d/there")).unwrap();
        assert_eq!(read, b"x");
        site.write("d/beside", "x");
        sees_nothing(&mut watch).await;
        change(&site);
        sees(&mut watch).await;
        watch.close().await.unwrap();
    }
}

#[tokio::test]
async fn where_something_is_there_already_nothing_is_watched() {
    let site = Site::start().await;
    site.mkdir("d");
    site.write("file", "x");
    symlink("nowhere", site.path("link")).unwrap();
    for there in ["d", "file", "link"] {
        assert!(site.watch(&["missing", there]).await.is_none(), "{there}");
    }
    assert!(site.watch_beside(&["missing"], Some("none")).await.is_none());
    assert!(
        site.watch_beside(&["missing"], Some("d")).await.is_some(),
        "the control"
    );
}

#[tokio::test]
async fn where_not_everything_would_be_told_nothing_is_watched() {
    let site = Site::start().await;
    site.mkdir("d");
    site.write("file", "x");
    symlink("d", site.path("link")).unwrap();
    // Through a link, which can be turned; below a file; too far down; back up; too long a name.
    let far = |names: usize| vec!["n"; names].join("/");
    let above = site.dir.path().components().count() - 1;
    let too_far = far(WATCH_NAMES_MAX - above + 1);
    for path in [
        "link/missing",
        "file/missing",
        "d/../missing",
        &too_far,
        &"n".repeat(300),
    ] {
        assert!(site.watch(&[path]).await.is_none(), "{path}");
    }
    assert!(site.watch_beside(&["missing"], Some("link")).await.is_none());
    for path in ["/proc/none", "/sys/none", "/proc/self/none"] {
        let watch = site.files.watch_missing([path], None).await.unwrap();
        assert!(watch.is_none(), "{path}");
    }
    assert!(site.watch(&["d/missing"]).await.is_some(), "the control");
    assert!(site.watch(&[&far(WATCH_NAMES_MAX - above)]).await.is_some());
}

#[tokio::test]
async fn a_watch_has_so_many_paths_and_at_least_one() {
    let site = Site::start().await;
    let names = |count: usize| (0..count).map(|number| site.at(&format!("missing-{number}")));
    for count in [0, WATCH_MAX_PATHS + 1] {
        let refused = site.files.watch_missing(names(count), None).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::BadRequest, "{refused}");
    }
    let most = site
        .files
        .watch_missing(names(WATCH_MAX_PATHS), None)
        .await
        .unwrap();
    let mut most = most.unwrap();
    site.write(&format!("missing-{}", WATCH_MAX_PATHS - 1), "x");
    sees(&mut most).await;
}

#[tokio::test]
async fn a_session_has_so_many_watches_and_one_more_when_one_is_dropped() {
    let site = Site::start().await;
    let mut watches = Vec::new();
    for _ in 0..WATCHES_MAX {
        watches.push(site.watch(&["missing"]).await.unwrap());
    }
    let one_more = || site.files.watch_missing([site.at("missing")], None);
    let refused = one_more().await.unwrap_err();
    assert_eq!(
        (refused.code, refused.limit),
        (ErrorCode::Busy, Some(WATCHES_MAX as u64))
    );
    watches.pop().unwrap().close().await.unwrap();
    drop(one_more().await.unwrap().expect("a closed one makes room"));
    let mut last = site.watch_when_there_is_room().await;
    site.write("missing", "x");
    sees(&mut last).await;
}

#[tokio::test]
async fn an_executor_has_so_many_watches_in_all_and_watches_no_more_beyond() {
    let site = Site::start().await;
    let (mut sessions, mut watches) = (Vec::new(), Vec::new());
    while watches.len() < WATCHES_IN_ALL_MAX {
        let session = site.world.harness_of_its_own().await;
        for _ in 0..WATCHES_MAX {
            let watch = session.files().watch_missing([site.at("missing")], None).await;
            match watch.unwrap() {
                Some(watch) => watches.push(watch),
                // What other programs of this user have of the kernel's bound counts, too.
                None => panic!("{} watches, and no more", watches.len()),
            }
        }
        sessions.push(session);
    }
    assert!(site.watch(&["missing"]).await.is_none());
    watches.pop().unwrap().close().await.unwrap();
    assert!(site.watch(&["missing"]).await.is_some());
}

#[tokio::test]
async fn whoever_waits_for_a_watch_keeps_nobody_waiting() {
    let site = Site::start().await;
    site.write("small", "small");
    let mut watches = Vec::new();
    for number in 0..WATCHES_MAX {
        watches.push(site.watch(&[&format!("missing-{number}")]).await.unwrap());
    }
    let waiting: Vec<_> = watches
        .into_iter()
        .map(|mut watch| tokio::spawn(async move { watch.changed().await }))
        .collect();
    // More than the session has threads, and all of them wait.
    for _ in 0..10 {
        let read = bounded("a read", site.files.read_file(site.at("small"), 9)).await;
        assert_eq!(&read.unwrap()[..], b"small");
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    for number in 0..WATCHES_MAX {
        site.write(&format!("missing-{number}"), "x");
    }
    for waiting in waiting {
        bounded("a change", waiting).await.unwrap().unwrap();
    }
}

fn ask(handle: Handle, path: &Path) -> FileRequest {
    FileRequest::Watch(Watch {
        handle,
        missing: vec![buf(path)],
        present: None,
    })
}

#[tokio::test]
async fn closing_a_watch_is_not_behind_who_waits_for_it_and_ends_that() {
    let site = Site::start().await;
    let handle = site.files.fresh_handle();
    let watching = site.files.call(ask(handle, &site.path("missing"))).await;
    assert_eq!(watching, Ok(FileReply::Watching(Watching { watching: true })));
    let waits = |files: dwell_actors::files::RemoteFiles| {
        tokio::spawn(async move { files.call(FileRequest::Await(Await { handle })).await })
    };
    let mut waiting = [waits(site.files.clone()), waits(site.files.clone())];
    for waiting in &mut waiting {
        assert!(tokio::time::timeout(QUIET, waiting).await.is_err(), "they wait");
    }
    let close = FileRequest::Close(Close {
        handle,
        discard: false,
    });
    let closed = bounded("closing", site.files.call(close.clone())).await;
    assert!(matches!(closed, Ok(FileReply::Closed(closed)) if closed.metadata.is_none()));
    for waiting in waiting {
        let ended = bounded("an answer", waiting).await.unwrap().unwrap_err();
        assert_eq!(ended.code, ErrorCode::UnknownHandle);
    }
    for gone in [close, FileRequest::Await(Await { handle })] {
        assert_eq!(
            site.files.call(gone).await.unwrap_err().code,
            ErrorCode::UnknownHandle
        );
    }
}

#[tokio::test]
async fn all_who_wait_for_a_watch_are_answered() {
    let site = Site::start().await;
    let handle = site.files.fresh_handle();
    site.files.call(ask(handle, &site.path("missing"))).await.unwrap();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let files = site.files.clone();
            tokio::spawn(async move { files.call(FileRequest::Await(Await { handle })).await })
        })
        .collect();
    site.write("missing", "x");
    for waiting in waiting {
        assert_eq!(bounded("an answer", waiting).await.unwrap(), Ok(FileReply::Seen));
    }
}

#[tokio::test]
async fn only_a_watch_is_waited_for() {
    let site = Site::start().await;
    site.write("file", "x");
    let handle = site.files.fresh_handle();
    let mut walked = ask(handle, &site.path("missing"));
    site.files.call(walked.clone()).await.unwrap();
    // Its handle is taken, and it is neither a file nor a walk.
    let taken = site.files.call(walked.clone()).await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::BadRequest);
    if let FileRequest::Watch(watch) = &mut walked {
        watch.handle = site.files.fresh_handle();
        watch.missing[0] = buf(&site.path("file"));
    }
    let nothing = site.files.call(walked.clone()).await;
    assert_eq!(nothing, Ok(FileReply::Watching(Watching { watching: false })));
    let on = Await {
        handle: walked.handle().unwrap(),
    };
    let unknown = site.files.call(FileRequest::Await(on)).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::UnknownHandle, "nothing is watched");
    let mut reader = site.files.open(site.at("file"));
    assert_eq!(reader.next().await.unwrap().as_deref(), Some(&b"x"[..]));
}

#[tokio::test]
async fn a_watch_ends_with_its_session_and_outlives_its_links() {
    let site = Site::start().await;
    let mut watch = site.watch(&["missing"]).await.unwrap();
    assert_eq!(watching(site.dir.path()), 1, "the control: it is there");
    sees_nothing(&mut watch).await;
    site.world.proxy.cut(dwell_testkit::Cut::Reset);
    site.write("missing", "x");
    sees(&mut watch).await;
    let Site {
        dir, harness, world, ..
    } = site;
    bounded("the harness's end", harness.shutdown()).await;
    until("it is ended", || watching(dir.path()) == 0).await;
    assert!(bounded("an answer", watch.changed()).await.is_err());
    bounded("the executor's end", world.executor.shutdown()).await;
}

#[tokio::test]
async fn a_watch_that_is_given_up_while_it_is_put_in_place_is_ended() {
    let site = Site::start().await;
    for _ in 0..20 {
        let asking = site.files.watch_missing([site.at("missing")], None);
        drop(tokio::time::timeout(Duration::from_micros(300), asking).await);
    }
    // As many as there may be: none of those has kept its place.
    let mut watches = Vec::new();
    for _ in 0..WATCHES_MAX {
        watches.push(site.watch_when_there_is_room().await);
    }
    until("none is left of those", || {
        watching(site.dir.path()) == WATCHES_MAX
    })
    .await;
}

#[tokio::test]
async fn a_client_without_the_scope_files_watches_nothing() {
    let client = keypair();
    let dir = tempfile::tempdir().unwrap();
    let all_but_files: Vec<Scope> = Scope::ALL
        .into_iter()
        .filter(|scope| *scope != Scope::Files)
        .collect();
    let executor = Executor::builder()
        .listen("127.0.0.1:0")
        .authorize_with(client.public(), Grant::scopes(ScopeSet::of(&all_but_files)))
        .serve()
        .await
        .unwrap();
    let target = Target::direct(executor.local_addr().unwrap(), executor.public_key());
    let connecting = Harness::builder().identity(copy(&client)).connect(target);
    let harness = connecting.await.unwrap();
    let files = harness.files();
    let path = bytes(&dir.path().join("missing"));
    let error = files.watch_missing([&path], None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert!(error.message.contains("files"), "{error}");
    let on = Await { handle: Handle(1) };
    let error = files.call(FileRequest::Await(on)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert_eq!(watching(dir.path()), 0);
}

#[tokio::test]
async fn files_without_a_link_watch_nothing_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let files = LocalFiles::new();
    let watching = files.call(ask(Handle(1), &dir.path().join("missing"))).await;
    assert_eq!(watching, Ok(FileReply::Watching(Watching { watching: false })));
    let on = Await { handle: Handle(1) };
    let error = files.call(FileRequest::Await(on)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownHandle);
}

/// A directory where a flood of other things happens, more than the kernel keeps, with nobody waiting.
#[tokio::test]
async fn more_events_than_the_kernel_keeps_are_seen() {
    let site = Site::start().await;
    let mut watch = site.watch(&["missing"]).await.unwrap();
    let most: usize = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    if most > 100_000 {
        return;
    }
    // Two names in turn: an event like the last one is not kept twice.
    site.write("a", "x");
    for _ in 0..most / 2 {
        site.rename("a", "b");
        site.rename("b", "a");
    }
    sees(&mut watch).await;
    assert!(
        site.files
            .metadata_of(site.at("missing"), Links::Follow)
            .await
            .is_err()
    );
}
