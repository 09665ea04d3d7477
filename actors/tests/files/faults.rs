//! What goes wrong with files is told by its code, and nothing hangs.

use std::time::Duration;

use dwell_actors::files::{FileSystem as _, LocalFiles, WalkOptions, WriteOptions};
use dwell_messages::files::{
    Access, BLOCK_MAX_BYTES, Copy, FileReply, FileRequest, Handle, Links, Open, ReadBlock, WriteHow,
};
use dwell_messages::{Blame, ErrorCode};

use crate::place::{Site, buf, bytes, content, named};
use crate::support::bounded;

#[tokio::test]
async fn what_is_missing_is_not_found() {
    let site = Site::start().await;
    let missing = site.at("none");
    let files = &site.files;
    let options = WriteOptions::default();
    let codes = [
        files.metadata_of(&missing, Links::Follow).await.unwrap_err(),
        files.read_file(&missing, 10).await.unwrap_err(),
        files.open(&missing).next().await.unwrap_err(),
        files.list_directory(&missing, 10, false).await.unwrap_err(),
        files
            .walk_all(&missing, WalkOptions::default())
            .await
            .unwrap_err(),
        files.canonicalize(&missing).await.unwrap_err(),
        files.rename(&missing, site.at("x"), true).await.unwrap_err(),
        files
            .write_file(site.at("none/f"), &b"x"[..], options)
            .await
            .unwrap_err(),
        files
            .write_file(site.at("none/f"), &b"x"[..], WriteOptions::atomic())
            .await
            .unwrap_err(),
        files
            .create_directory(site.at("none/d"), false)
            .await
            .unwrap_err(),
    ];
    for error in codes {
        assert_eq!(
            (error.code, error.errno),
            (ErrorCode::NotFound, Some(2)),
            "{error}"
        );
        assert_eq!(error.code.blame(), Blame::Machine);
        let text = error.to_string();
        assert!(
            !text.contains("none") && !text.contains(site.dir.path().to_str().unwrap()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_file_is_no_directory_and_a_directory_no_file() {
    let site = Site::start().await;
    site.write("f", b"x");
    let files = &site.files;
    let below = site.at("f/x");
    for error in [
        files.metadata_of(&below, Links::Follow).await.unwrap_err(),
        files.read_file(&below, 10).await.unwrap_err(),
        files.list_directory(site.at("f"), 10, false).await.unwrap_err(),
        files
            .walk_all(site.at("f"), WalkOptions::default())
            .await
            .unwrap_err(),
        files
            .write_file(&below, &b"x"[..], WriteOptions::atomic())
            .await
            .unwrap_err(),
        files.create_directory(&below, true).await.unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::NotADirectory, "{error}");
    }
    let root = bytes(site.dir.path());
    for error in [
        files.read_file(&root, 10).await.unwrap_err(),
        files.open(&root).next().await.unwrap_err(),
        files
            .write_file(&root, &b"x"[..], WriteOptions::default())
            .await
            .unwrap_err(),
        files
            .write_file(&root, &b"x"[..], WriteOptions::atomic())
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::IsADirectory, "{error}");
    }
}

/// To open a pipe waits, and to open a device may do something: neither is opened.
#[tokio::test]
async fn pipes_devices_and_sockets_are_refused_at_once() {
    let site = Site::start().await;
    let status = std::process::Command::new("mkfifo")
        .arg(site.path("pipe"))
        .status()
        .unwrap();
    assert!(status.success());
    let _socket = std::os::unix::net::UnixListener::bind(site.path("socket")).unwrap();
    for path in [
        site.at("pipe"),
        site.at("socket"),
        b"/dev/zero".to_vec(),
        b"/dev/full".to_vec(),
    ] {
        let files = &site.files;
        let copy = files.copy(Copy {
            from: path.clone().into(),
            to: buf(&site.path("copy")),
            recursive: true,
            overwrite: true,
            links: Links::Follow,
        });
        for error in [
            bounded("reading", files.read_file(&path, 10)).await.unwrap_err(),
            bounded("opening", files.open(&path).next()).await.unwrap_err(),
            bounded(
                "writing",
                files.write_file(&path, &b"x"[..], WriteOptions::default()),
            )
            .await
            .unwrap_err(),
            bounded(
                "replacing",
                files.write_file(&path, &b"x"[..], WriteOptions::atomic()),
            )
            .await
            .unwrap_err(),
            bounded("copying", copy).await.unwrap_err(),
        ] {
            assert_eq!(error.code, ErrorCode::NotAFile, "{error}");
        }
    }
    assert!(!site.path("copy").exists());
}

#[tokio::test]
async fn what_is_larger_than_its_reader_wants_is_refused_before_it_travels() {
    let site = Site::start().await;
    site.write("f", content(1_000_000, 0));
    for most in [0, 1, 999_999] {
        let error = site.files.read_file(site.at("f"), most).await.unwrap_err();
        let told = (error.code, error.limit, error.actual);
        assert_eq!(told, (ErrorCode::TooLarge, Some(most), Some(1_000_000)));
    }
    assert!(site.files.read_file(site.at("f"), 1_000_000).await.is_ok());
    // Its size says nothing.
    let error = site.files.read_file(b"/proc/filesystems", 3).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn paths_that_no_file_can_have_are_refused_with_their_code() {
    let site = Site::start().await;
    let long_name = site.dir.path().join("n".repeat(256));
    let long = [&b"/"[..], &b"a/".repeat(2_100)].concat();
    for path in [&b""[..], b"relative", b"/nul\0", &long, &bytes(&long_name)] {
        let error = site.files.read_file(path, 1).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::BadPath, "{error}");
        let error = LocalFiles::new().read(path, 1).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::BadPath, "{error}");
    }
    // The link has lived through all of it.
    assert!(site.files.metadata_of(b"/", Links::Follow).await.is_ok());
}

/// The kernel's own file system, in which nobody may remove or create anything.
#[tokio::test]
async fn what_not_even_root_may_do_is_denied_or_failed_with_its_number() {
    let site = Site::start().await;
    let error = site.files.remove(b"/proc/version").await.unwrap_err();
    assert_eq!(
        (error.code, error.errno),
        (ErrorCode::AccessDenied, Some(1)),
        "{error}"
    );
    let error = site
        .files
        .rename(site.at("x"), b"/proc/x", true)
        .await
        .unwrap_err();
    assert!(
        matches!(error.code, ErrorCode::NotFound | ErrorCode::FileFailed),
        "{error}"
    );
}

fn open(handle: Handle, site: &Site, name: &str) -> FileRequest {
    FileRequest::Open(Open {
        handle,
        path: buf(&site.path(name)),
        access: Access::Read,
        permissions: None,
        atomic: false,
        sync: false,
        links: Links::Follow,
    })
}

#[tokio::test]
async fn an_open_file_stays_the_one_that_was_opened_when_its_name_goes_to_another() {
    let site = Site::start().await;
    let (old, new) = (content(3 * BLOCK_MAX_BYTES, 1), content(3 * BLOCK_MAX_BYTES, 2));
    site.write("f", &old);
    let mut reader = site.files.open(site.at("f"));
    let mut read = bounded("a block", reader.next()).await.unwrap().unwrap().to_vec();
    site.files
        .write_file(site.at("f"), new.clone(), WriteOptions::atomic())
        .await
        .unwrap();
    while let Some(block) = bounded("a block", reader.next()).await.unwrap() {
        read.extend_from_slice(&block);
    }
    assert!(read == old, "a mixture was read");
    assert!(site.files.read_file(site.at("f"), 1 << 30).await.unwrap() == new);
}

#[tokio::test]
async fn a_file_that_is_written_while_it_is_read_is_said_to_have_changed() {
    let site = Site::start().await;
    site.write("f", content(40 * BLOCK_MAX_BYTES, 1));
    for change in ["grown", "cut", "written over"] {
        // The clock of the file system has steps; what changes within one is not seen.
        tokio::time::sleep(Duration::from_millis(30)).await;
        site.write("f", content(40 * BLOCK_MAX_BYTES, 1));
        tokio::time::sleep(Duration::from_millis(30)).await;
        let mut reader = site.files.open(site.at("f"));
        bounded("a block", reader.next()).await.unwrap().unwrap();
        match change {
            "grown" => {
                let more = WriteOptions {
                    how: WriteHow::Append,
                    ..WriteOptions::default()
                };
                site.files
                    .write_file(site.at("f"), &b"more"[..], more)
                    .await
                    .unwrap();
            }
            "cut" => {
                let file = std::fs::File::options().write(true).open(site.path("f")).unwrap();
                file.set_len(BLOCK_MAX_BYTES as u64 * 20 + 5).unwrap();
            }
            _ => site.write("f", content(40 * BLOCK_MAX_BYTES, 2)),
        }
        let outcome = bounded("the rest", async {
            loop {
                match reader.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(error.code),
                }
            }
        });
        assert_eq!(outcome.await, Err(ErrorCode::FileChanged), "{change}");
        assert_eq!(reader.next().await.unwrap(), None, "nothing comes after an error");
    }
}

/// Each time under another name: old, new, and never some of each.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_read_of_a_file_that_is_replaced_all_the_time_is_never_a_mixture() {
    let site = Site::start().await;
    let (one, other) = (vec![b'1'; 200_000], vec![b'2'; 190_000]);
    site.write("f", &one);
    let path = site.path("f");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, contents) = (stop.clone(), [one.clone(), other.clone()]);
    let writer = std::thread::spawn(move || {
        let mut round = 0;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            round += 1;
            let next = path.with_extension("next");
            std::fs::write(&next, &contents[round % 2]).unwrap();
            std::fs::rename(&next, &path).unwrap();
        }
        round
    });
    let mut whole = 0;
    for _ in 0..100 {
        let read = match bounded("reading", site.files.read_file(site.at("f"), 1 << 20)).await {
            Ok(read) => read,
            // Which is honest, and no mixture.
            Err(error) if error.code == ErrorCode::FileChanged => continue,
            Err(error) => panic!("{error}"),
        };
        whole += 1;
        assert!(read == one || read == other, "a mixture of {} bytes", read.len());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(writer.join().unwrap() > 1, "it was replaced meanwhile");
    assert!(whole > 0, "the control: some were read to their end");
}

#[tokio::test]
async fn what_is_not_open_cannot_be_read_and_a_handle_is_opened_once() {
    let site = Site::start().await;
    site.write("f", b"x");
    let handle = site.files.fresh_handle();
    let read = || {
        FileRequest::ReadBlock(ReadBlock {
            handle,
            offset: 0,
            max_bytes: 10,
        })
    };
    assert_eq!(
        site.files.call(read()).await.unwrap_err().code,
        ErrorCode::UnknownHandle
    );
    // In one flight: the file is open when the block is read.
    let opening = site.files.call(open(handle, &site, "f"));
    let (opened, block) = tokio::join!(opening, site.files.call(read()));
    assert!(matches!(opened, Ok(FileReply::Opened(_))));
    assert!(matches!(block, Ok(FileReply::Block(block)) if &block.data[..] == b"x" && block.end));
    let again = site.files.call(open(handle, &site, "f")).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::BadRequest, "{again}");
    // One that could not be opened tells whoever asked behind it, and its handle is free again.
    let missing = site.files.fresh_handle();
    let block = FileRequest::ReadBlock(ReadBlock {
        handle: missing,
        offset: 0,
        max_bytes: 10,
    });
    let opening = site.files.call(open(missing, &site, "none"));
    let (opened, block) = tokio::join!(opening, site.files.call(block));
    assert_eq!(opened.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(block.unwrap_err().code, ErrorCode::UnknownHandle);
    assert!(site.files.call(open(missing, &site, "f")).await.is_ok());
}

#[tokio::test]
async fn a_name_of_255_bytes_can_be_replaced_at_once() {
    let site = Site::start().await;
    let name = site.dir.path().join(named(&[b'n'; 255]));
    for data in [&b"one"[..], b"two"] {
        site.files
            .write_file(bytes(&name), data, WriteOptions::atomic())
            .await
            .unwrap();
        assert_eq!(std::fs::read(&name).unwrap(), data);
    }
}
