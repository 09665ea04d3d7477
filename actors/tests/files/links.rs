//! What becomes of symbolic links is what each request says.

use std::os::unix::fs::symlink;

use dwell_actors::files::WriteOptions;
use dwell_messages::ErrorCode;
use dwell_messages::files::{
    Access, CreateDirectory, FileKind, FileReply, FileRequest, Links, Open, ReadFile, Remove, WriteHow,
};

use crate::place::{Site, buf};

/// `real/f`, and links to the directory, to the file, to each other and to nothing.
async fn site() -> Site {
    let site = Site::start().await;
    std::fs::create_dir(site.path("real")).unwrap();
    site.write("real/f", b"content");
    symlink("real", site.path("dir")).unwrap();
    symlink("real/f", site.path("file")).unwrap();
    symlink("two", site.path("one")).unwrap();
    symlink("one", site.path("two")).unwrap();
    symlink("nothing", site.path("dangling")).unwrap();
    site
}

const LOOP: ErrorCode = ErrorCode::SymlinkLoop;

#[tokio::test]
async fn metadata_follows_keeps_or_refuses_links() {
    let site = site().await;
    let kind = async |name: &str, links| {
        let seen = site.files.metadata_of(site.at(name), links).await;
        seen.map(|metadata| metadata.kind).map_err(|error| error.code)
    };
    assert_eq!(kind("file", Links::Follow).await, Ok(FileKind::File));
    assert_eq!(kind("file", Links::Keep).await, Ok(FileKind::Symlink));
    assert_eq!(kind("file", Links::Refuse).await, Err(LOOP));
    assert_eq!(kind("dir/f", Links::Follow).await, Ok(FileKind::File));
    assert_eq!(kind("dir/f", Links::Keep).await, Ok(FileKind::File));
    assert_eq!(kind("dir/f", Links::Refuse).await, Err(LOOP));
    assert_eq!(kind("one", Links::Follow).await, Err(LOOP));
    assert_eq!(kind("one", Links::Keep).await, Ok(FileKind::Symlink));
    assert_eq!(kind("dangling", Links::Follow).await, Err(ErrorCode::NotFound));
    assert_eq!(kind("real/none", Links::Refuse).await, Err(ErrorCode::NotFound));
    assert_eq!(
        kind("real/f/x", Links::Refuse).await,
        Err(ErrorCode::NotADirectory)
    );
    // The directory of all that lies below a temporary one, which has no link above it where this says so.
    let real = std::fs::canonicalize(site.path("real/f")).unwrap();
    if real == site.path("real/f") {
        assert_eq!(kind("real/f", Links::Refuse).await, Ok(FileKind::File));
    }
}

#[tokio::test]
async fn reading_and_opening_follow_or_refuse_links() {
    let site = site().await;
    for (name, links, expected) in [
        ("file", Links::Follow, Ok(())),
        ("file", Links::Keep, Err(LOOP)),
        ("dir/f", Links::Keep, Ok(())),
        ("dir/f", Links::Refuse, Err(LOOP)),
        ("file", Links::Refuse, Err(LOOP)),
        ("one", Links::Follow, Err(LOOP)),
    ] {
        let read = FileRequest::Read(ReadFile {
            path: buf(&site.path(name)),
            offset: 0,
            max_bytes: 100,
            links,
        });
        let open = FileRequest::Open(Open {
            handle: site.files.fresh_handle(),
            path: buf(&site.path(name)),
            access: Access::Read,
            permissions: None,
            atomic: false,
            sync: false,
            links,
        });
        for request in [read, open] {
            let outcome = site
                .files
                .call(request)
                .await
                .map(|_| ())
                .map_err(|error| error.code);
            assert_eq!(outcome, expected, "{name} {links:?}");
        }
    }
}

/// What a link leads to is written or replaced, and the link stays one.
#[tokio::test]
async fn a_write_through_a_link_leaves_the_link() {
    let site = site().await;
    for (atomic, data) in [(false, &b"plain"[..]), (true, b"atomic")] {
        let options = WriteOptions {
            atomic,
            ..WriteOptions::default()
        };
        site.files
            .write_file(site.at("file"), data, options)
            .await
            .unwrap();
        assert_eq!(std::fs::read(site.path("real/f")).unwrap(), data);
        assert!(site.path("file").is_symlink());
        // A link that leads nowhere yet.
        site.files
            .write_file(site.at("dangling"), data, options)
            .await
            .unwrap();
        assert_eq!(std::fs::read(site.path("nothing")).unwrap(), data);
        assert!(site.path("dangling").is_symlink());
        std::fs::remove_file(site.path("nothing")).unwrap();
        let refused = site
            .files
            .write_file(site.at("one"), data, options)
            .await
            .unwrap_err();
        assert_eq!(refused.code, LOOP);
        for links in [Links::Keep, Links::Refuse] {
            let options = WriteOptions { links, ..options };
            let refused = site
                .files
                .write_file(site.at("file"), &b"no"[..], options)
                .await
                .unwrap_err();
            assert_eq!(refused.code, LOOP, "{links:?}");
        }
        let options = WriteOptions {
            links: Links::Refuse,
            ..options
        };
        let refused = site
            .files
            .write_file(site.at("dir/f"), &b"no"[..], options)
            .await
            .unwrap_err();
        assert_eq!(refused.code, LOOP);
        assert_eq!(std::fs::read(site.path("real/f")).unwrap(), data);
        let exclusive = WriteOptions {
            how: WriteHow::Exclusive,
            atomic,
            ..WriteOptions::default()
        };
        let refused = site
            .files
            .write_file(site.at("file"), &b"no"[..], exclusive)
            .await
            .unwrap_err();
        assert_eq!(refused.code, ErrorCode::AlreadyExists);
    }
}

#[tokio::test]
async fn a_link_is_removed_itself_and_what_it_leads_to_is_not() {
    let site = site().await;
    let remove = async |name: &str, recursive, links| {
        let request = FileRequest::Remove(Remove {
            path: buf(&site.path(name)),
            recursive,
            force: false,
            links,
        });
        match site.files.call(request).await {
            Ok(FileReply::Removed(removed)) => Ok(removed.entries),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.code),
        }
    };
    assert_eq!(remove("dir/f", true, Links::Refuse).await, Err(LOOP));
    assert_eq!(remove("dir", true, Links::Follow).await, Ok(1));
    assert_eq!(remove("file", false, Links::Keep).await, Ok(1));
    assert!(!site.path("dir").is_symlink() && !site.path("file").is_symlink());
    assert_eq!(std::fs::read(site.path("real/f")).unwrap(), b"content");
    std::fs::create_dir(site.path("tree")).unwrap();
    symlink(site.path("real"), site.path("tree/out")).unwrap();
    assert_eq!(remove("tree", true, Links::Follow).await, Ok(2));
    assert!(site.path("real/f").exists());
}

#[tokio::test]
async fn a_directory_is_created_through_links_only_where_they_are_followed() {
    let site = site().await;
    let create = async |name: &str, links| {
        let request = FileRequest::CreateDirectory(CreateDirectory {
            path: buf(&site.path(name)),
            parents: true,
            permissions: None,
            links,
        });
        site.files
            .call(request)
            .await
            .map(|_| ())
            .map_err(|error| error.code)
    };
    assert_eq!(create("dir/new/deep", Links::Follow).await, Ok(()));
    assert!(site.path("real/new/deep").is_dir());
    assert_eq!(create("dir/other", Links::Refuse).await, Err(LOOP));
    assert!(!site.path("real/other").exists());
    assert_eq!(create("dir", Links::Follow).await, Ok(()));
    assert_eq!(create("dir", Links::Keep).await, Err(LOOP));
    assert_eq!(
        create("real/f/x", Links::Follow).await,
        Err(ErrorCode::NotADirectory)
    );
    assert_eq!(
        create("real/f", Links::Follow).await,
        Err(ErrorCode::AlreadyExists)
    );
}
