//! An executor and the files it serves, reached through a link and directly.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use dwell_actors::files::{LocalFiles, RemoteFiles, WalkOptions, Walked};
use dwell_actors::harness::Harness;
use dwell_messages::WireError;
use dwell_messages::files::{FileReply, FileRequest, Handle, Walk, WalkOn, WalkPage};
use serde_bytes::ByteBuf;

use crate::world::World;

/// A directory of its own, an executor on this machine, and a link to it.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) world: World,
    pub(crate) harness: Harness,
    pub(crate) files: RemoteFiles,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let world = World::start().await;
        let harness = world.harness().await;
        let files = harness.files();
        Self {
            dir: tempfile::tempdir().unwrap(),
            world,
            harness,
            files,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path's bytes, as the vocabulary has them.
    pub(crate) fn at(&self, name: &str) -> Vec<u8> {
        bytes(&self.path(name))
    }

    pub(crate) fn write(&self, name: &str, data: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), data).unwrap();
    }
}

pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

pub(crate) fn buf(path: &Path) -> ByteBuf {
    ByteBuf::from(bytes(path))
}

pub(crate) fn named(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// Bytes that are not all alike.
pub(crate) fn content(length: usize, salt: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from((at.wrapping_mul(31) ^ (at >> 8) ^ salt) & 0xff).unwrap())
        .collect()
}

/// A whole walk on this machine, page by page as another machine would have it.
pub(crate) async fn walk(files: &LocalFiles, root: &Path, options: WalkOptions) -> Result<Walked, WireError> {
    let handle = Handle(1);
    let mut page = begin(files, handle, root, options).await?;
    let mut walked = Walked::default();
    loop {
        walked.entries.extend(page.entries);
        walked.errors.extend(page.errors);
        walked.truncated |= page.truncated;
        if page.end {
            return Ok(walked);
        }
        page = go_on(files, handle).await?;
    }
}

pub(crate) async fn begin(
    files: &LocalFiles,
    handle: Handle,
    root: &Path,
    options: WalkOptions,
) -> Result<WalkPage, WireError> {
    let request = FileRequest::Walk(Walk {
        handle,
        path: buf(root),
        max_depth: options.max_depth,
        max_directories: options.max_directories,
        max_entries: options.max_entries,
        follow: options.follow,
        prune_hidden: options.prune_hidden,
        ignore_files: options.ignore_files,
    });
    match files.call(request).await? {
        FileReply::Walked(page) => Ok(page),
        other => panic!("a walk's page, not {other:?}"),
    }
}

pub(crate) async fn go_on(files: &LocalFiles, handle: Handle) -> Result<WalkPage, WireError> {
    match files.call(FileRequest::WalkOn(WalkOn { handle })).await? {
        FileReply::WalkedOn(page) => Ok(page),
        other => panic!("a walk's page, not {other:?}"),
    }
}
