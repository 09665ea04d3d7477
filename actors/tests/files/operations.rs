//! Every operation does what it says, through a link.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use dwell_actors::files::{FileSystem, LocalFiles, WalkOptions, WriteOptions};
use dwell_messages::ErrorCode;
use dwell_messages::files::{BLOCK_MAX_BYTES, Copy, FileKind, Links, WriteHow};
use serde_bytes::ByteBuf;

use crate::place::{Site, buf, bytes, content, named, walk};
use crate::support::bounded;

#[tokio::test]
async fn a_small_file_is_described_and_read_as_it_lies_there() {
    let site = Site::start().await;
    site.write("a", b"first\0line\n");
    let there = std::fs::metadata(site.path("a")).unwrap();
    let seen = site.files.metadata_of(site.at("a"), Links::Follow).await.unwrap();
    assert_eq!((seen.kind, seen.size), (FileKind::File, 11));
    assert_eq!((seen.device, seen.inode), (there.dev(), there.ino()));
    assert_eq!(seen.mode, there.mode() & 0o7777);
    let modified = i128::from(there.mtime()) * 1_000_000_000 + i128::from(there.mtime_nsec());
    assert_eq!(i128::from(seen.modified_unix_ns), modified);
    let whole = site.files.read_file(site.at("a"), 11).await.unwrap();
    assert_eq!(&whole[..], b"first\0line\n");
    let (part, end) = site.files.read_part(site.at("a"), 6, 100).await.unwrap();
    assert_eq!((&part[..], end), (&b"line\n"[..], true));
    let (part, end) = site.files.read_part(site.at("a"), 0, 5).await.unwrap();
    assert_eq!((&part[..], end), (&b"first"[..], false));
    let (part, end) = site.files.read_part(site.at("a"), 1 << 40, 5).await.unwrap();
    assert_eq!((part.len(), end), (0, true));
}

/// Sizes around each bound, there and back.
#[tokio::test]
async fn a_file_of_any_size_arrives_whole_both_ways() {
    let site = Site::start().await;
    for length in [
        0,
        1,
        BLOCK_MAX_BYTES - 1,
        BLOCK_MAX_BYTES,
        BLOCK_MAX_BYTES + 1,
        2 * BLOCK_MAX_BYTES,
        5 * 1024 * 1024 + 77,
    ] {
        let data = content(length, length);
        for options in [WriteOptions::default(), WriteOptions::atomic()] {
            let wrote = site.files.write_file(site.at("big"), data.clone(), options);
            let written = bounded("writing", wrote).await.unwrap();
            assert_eq!(written.size, length as u64);
            assert!(
                std::fs::read(site.path("big")).unwrap() == data,
                "{length} bytes written"
            );
        }
        let read = bounded("reading", site.files.read_file(site.at("big"), length as u64));
        assert!(read.await.unwrap() == data, "{length} bytes read");
        let mut reader = site.files.open(site.at("big"));
        let mut blocks = Vec::new();
        while let Some(block) = bounded("a block", reader.next()).await.unwrap() {
            assert!(!block.is_empty());
            blocks.extend_from_slice(&block);
        }
        assert!(blocks == data, "{length} bytes in blocks");
        assert_eq!(reader.metadata().unwrap().size, length as u64);
    }
}

/// Files of the system that say they are empty.
#[tokio::test]
async fn a_file_that_does_not_say_its_size_is_read_to_its_end() {
    let site = Site::start().await;
    let expected = std::fs::read("/proc/filesystems").unwrap();
    let read = site.files.read_file(b"/proc/filesystems", 1 << 20).await.unwrap();
    assert!(!read.is_empty() && read == expected);
    let mut reader = site.files.open(b"/proc/filesystems");
    let mut blocks = Vec::new();
    while let Some(block) = bounded("a block", reader.next()).await.unwrap() {
        blocks.extend_from_slice(&block);
    }
    assert_eq!(blocks, expected);
}

#[tokio::test]
async fn each_way_of_writing_does_what_it_says() {
    let site = Site::start().await;
    let how = |how| WriteOptions {
        how,
        ..WriteOptions::default()
    };
    let write = async |data: &'static [u8], options| site.files.write_file(site.at("f"), data, options).await;
    write(b"first", how(WriteHow::Truncate)).await.unwrap();
    write(b"+more", how(WriteHow::Append)).await.unwrap();
    assert_eq!(std::fs::read(site.path("f")).unwrap(), b"first+more");
    for atomic in [false, true] {
        let options = WriteOptions {
            atomic,
            ..how(WriteHow::Exclusive)
        };
        let refused = write(b"no", options).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::AlreadyExists, "{refused}");
    }
    write(b"second", how(WriteHow::Truncate)).await.unwrap();
    assert_eq!(std::fs::read(site.path("f")).unwrap(), b"second");
    std::fs::remove_file(site.path("f")).unwrap();
    for (atomic, sync) in [(false, true), (true, false)] {
        let options = WriteOptions {
            atomic,
            sync,
            permissions: Some(0o600),
            ..how(WriteHow::Exclusive)
        };
        let written = write(b"new", options).await.unwrap();
        assert_eq!((written.mode, written.size), (0o600, 3));
        std::fs::remove_file(site.path("f")).unwrap();
    }
}

#[tokio::test]
async fn a_directory_is_listed_in_order_whatever_lies_in_it() {
    let site = Site::start().await;
    for name in [&b"b"[..], b"a\xff", b"a", b".hidden"] {
        std::fs::write(site.dir.path().join(named(name)), b"").unwrap();
    }
    std::fs::create_dir(site.path("d")).unwrap();
    std::os::unix::fs::symlink("d", site.path("to-d")).unwrap();
    std::os::unix::fs::symlink("nowhere", site.path("to-nowhere")).unwrap();
    let list = async |resolve| {
        let entries = site
            .files
            .list_directory(bytes(site.dir.path()), 100, resolve)
            .await
            .unwrap();
        entries
            .into_iter()
            .map(|entry| (entry.name.into_vec(), entry.kind))
            .collect::<Vec<_>>()
    };
    let mut expected = vec![
        (b".hidden".to_vec(), FileKind::File),
        (b"a".to_vec(), FileKind::File),
        (b"a\xff".to_vec(), FileKind::File),
        (b"b".to_vec(), FileKind::File),
        (b"d".to_vec(), FileKind::Directory),
        (b"to-d".to_vec(), FileKind::Symlink),
        (b"to-nowhere".to_vec(), FileKind::Symlink),
    ];
    assert_eq!(list(false).await, expected);
    expected[5].1 = FileKind::Directory;
    assert_eq!(list(true).await, expected);
}

#[tokio::test]
async fn a_directory_of_several_pages_is_listed_whole_or_refused_by_its_size() {
    let site = Site::start().await;
    for number in 0..9_001 {
        std::fs::File::create(site.path(&format!("f{number:05}"))).unwrap();
    }
    let root = bytes(site.dir.path());
    let entries = bounded("listing", site.files.list_directory(&root, 9_001, false))
        .await
        .unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.name.to_vec()).collect();
    let expected: Vec<_> = (0..9_001)
        .map(|number| format!("f{number:05}").into_bytes())
        .collect();
    assert!(names == expected);
    let refused = bounded("listing", site.files.list_directory(&root, 9_000, false))
        .await
        .unwrap_err();
    assert_eq!((refused.code, refused.limit), (ErrorCode::TooLarge, Some(9_000)));
}

#[tokio::test]
async fn directories_are_created_and_trees_removed() {
    let site = Site::start().await;
    assert!(site.files.create_directory(site.at("a/b/c"), true).await.unwrap());
    assert!(!site.files.create_directory(site.at("a/b/c"), true).await.unwrap());
    let refused = site
        .files
        .create_directory(site.at("a/b"), false)
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::AlreadyExists);
    let refused = site
        .files
        .create_directory(site.at("x/y"), false)
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    for number in 0..2_500 {
        site.write(&format!("a/b/f{number}"), b"");
    }
    std::os::unix::fs::symlink("/", site.path("a/root")).unwrap();
    let refused = site.files.remove(site.at("a")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotEmpty);
    let removed = bounded("removing", site.files.remove_all(site.at("a")))
        .await
        .unwrap();
    assert_eq!(removed.entries, 2_500 + 4);
    assert!(!site.path("a").exists() && std::path::Path::new("/proc").exists());
    assert_eq!(site.files.remove_all(site.at("a")).await.unwrap().entries, 0);
    assert_eq!(
        site.files.remove(site.at("a")).await.unwrap_err().code,
        ErrorCode::NotFound
    );
    for path in [&b"/"[..], b"/tmp/..", b"/."] {
        assert_eq!(
            site.files.remove_all(path).await.unwrap_err().code,
            ErrorCode::BadPath
        );
    }
}

fn copying(site: &Site, from: &str, to: &str) -> Copy {
    Copy {
        from: buf(&site.path(from)),
        to: buf(&site.path(to)),
        recursive: true,
        overwrite: false,
        links: Links::Keep,
    }
}

#[tokio::test]
async fn a_tree_is_copied_and_never_into_itself() {
    let site = Site::start().await;
    std::fs::create_dir_all(site.path("a/sub")).unwrap();
    site.write("a/f", content(300_000, 1));
    std::fs::set_permissions(site.path("a/f"), std::fs::Permissions::from_mode(0o751)).unwrap();
    std::os::unix::fs::symlink("f", site.path("a/sub/link")).unwrap();
    let copied = site.files.copy(copying(&site, "a", "b")).await.unwrap();
    assert_eq!((copied.entries, copied.bytes), (4, 300_000));
    assert!(std::fs::read(site.path("b/f")).unwrap() == content(300_000, 1));
    assert_eq!(std::fs::metadata(site.path("b/f")).unwrap().mode() & 0o777, 0o751);
    assert_eq!(std::fs::read_link(site.path("b/sub/link")).unwrap(), named(b"f"));
    // Again: what exists is in the way, unless it may be written over.
    let refused = site.files.copy(copying(&site, "a", "b")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::AlreadyExists);
    site.write("a/f", b"short");
    let over = Copy {
        overwrite: true,
        ..copying(&site, "a", "b")
    };
    site.files.copy(over).await.unwrap();
    assert_eq!(std::fs::read(site.path("b/f")).unwrap(), b"short");
    for to in ["a", "a/sub/deeper", "a/new"] {
        let refused = site.files.copy(copying(&site, "a", to)).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::BadPath, "{to}: {refused}");
    }
    std::os::unix::fs::symlink("a/f", site.path("same")).unwrap();
    let onto = Copy {
        overwrite: true,
        links: Links::Follow,
        ..copying(&site, "a/f", "same")
    };
    assert_eq!(site.files.copy(onto).await.unwrap_err().code, ErrorCode::BadPath);
    assert_eq!(std::fs::read(site.path("a/f")).unwrap(), b"short");
    let flat = Copy {
        recursive: false,
        ..copying(&site, "a", "c")
    };
    assert_eq!(
        site.files.copy(flat).await.unwrap_err().code,
        ErrorCode::IsADirectory
    );
}

#[tokio::test]
async fn a_rename_takes_nothing_away_unless_it_may() {
    let site = Site::start().await;
    site.write("a", b"a");
    site.write("b", b"b");
    let refused = site
        .files
        .rename(site.at("a"), site.at("b"), false)
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::AlreadyExists);
    assert_eq!(std::fs::read(site.path("b")).unwrap(), b"b");
    site.files.rename(site.at("a"), site.at("b"), true).await.unwrap();
    assert_eq!(std::fs::read(site.path("b")).unwrap(), b"a");
    assert!(!site.path("a").exists());
    site.files
        .rename(site.at("b"), site.at("c"), false)
        .await
        .unwrap();
    assert!(site.path("c").exists());
}

#[tokio::test]
async fn a_path_is_followed_to_where_it_leads() {
    let site = Site::start().await;
    std::fs::create_dir(site.path("real")).unwrap();
    site.write("real/f", b"");
    std::os::unix::fs::symlink("real", site.path("link")).unwrap();
    let real = std::fs::canonicalize(site.path("real/f")).unwrap();
    let seen = site
        .files
        .canonicalize(site.at("link/../link/./f"))
        .await
        .unwrap();
    assert_eq!(seen, bytes(&real));
    let refused = site.files.canonicalize(site.at("link/none")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
}

/// Not one of them is changed on its way, there or back.
#[tokio::test]
async fn names_that_are_no_text_stay_what_they_are() {
    let site = Site::start().await;
    let name = site.dir.path().join(named(b"\xff\xfe name\n\x01"));
    let path = bytes(&name);
    site.files
        .write_file(&path, &b"odd"[..], WriteOptions::atomic())
        .await
        .unwrap();
    assert_eq!(std::fs::read(&name).unwrap(), b"odd");
    assert_eq!(&site.files.read_file(&path, 10).await.unwrap()[..], b"odd");
    let listed = site
        .files
        .list_directory(bytes(site.dir.path()), 10, false)
        .await
        .unwrap();
    assert_eq!(listed[0].name, ByteBuf::from(&b"\xff\xfe name\n\x01"[..]));
    let walked = site
        .files
        .walk_all(bytes(site.dir.path()), WalkOptions::default())
        .await
        .unwrap();
    assert_eq!(walked.entries[0].path, ByteBuf::from(&b"\xff\xfe name\n\x01"[..]));
    site.files.remove(&path).await.unwrap();
    assert!(!name.exists());
}

#[tokio::test]
async fn this_machine_and_another_answer_alike() {
    let site = Site::start().await;
    std::fs::create_dir(site.path("d")).unwrap();
    site.write("d/f", content(700_000, 3));
    let local = LocalFiles::new();
    let (there, here): (&dyn FileSystem, &dyn FileSystem) = (&site.files, &local);
    assert_ne!(there.identity(), here.identity());
    for path in [
        site.at("d"),
        site.at("d/f"),
        site.at("none"),
        b"relative".to_vec(),
    ] {
        assert_eq!(there.metadata(&path).await, here.metadata(&path).await);
        assert_eq!(there.list(&path, 10).await, here.list(&path, 10).await);
        for most in [0, 10, 699_999, 700_000, u64::MAX] {
            let (there, here) = (there.read(&path, most).await, here.read(&path, most).await);
            assert!(there == here, "{most}: {there:?} and {here:?}");
        }
    }
    let options = WalkOptions::default();
    let remote = site
        .files
        .walk_all(bytes(site.dir.path()), options)
        .await
        .unwrap();
    assert_eq!(remote, walk(&local, site.dir.path(), options).await.unwrap());
    assert_eq!(remote.entries.len(), 2);
}
