//! This machine's disk as a file system that answers at once.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use dwell_actors::files::{FileAnswer, FileSystem};
use dwell_messages::files::{DirectoryEntry, FileKind, Metadata};
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;

pub(crate) struct Disk;

fn path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn kind(kind: fs::FileType) -> FileKind {
    match () {
        () if kind.is_file() => FileKind::File,
        () if kind.is_dir() => FileKind::Directory,
        () if kind.is_symlink() => FileKind::Symlink,
        () => FileKind::Other,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: io::Error) -> WireError {
    let code = match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        io::ErrorKind::NotADirectory => ErrorCode::NotADirectory,
        io::ErrorKind::IsADirectory => ErrorCode::IsADirectory,
        io::ErrorKind::PermissionDenied => ErrorCode::AccessDenied,
        _ => ErrorCode::FileFailed,
    };
    WireError::new(code, "the disk says so")
}

fn metadata(at: &[u8]) -> Result<Metadata, WireError> {
    let found = fs::metadata(path(at)).map_err(failed)?;
    Ok(Metadata {
        kind: kind(found.file_type()),
        size: found.len(),
        mode: found.mode(),
        modified_unix_ns: 0,
        device: found.dev(),
        inode: found.ino(),
    })
}

fn list(at: &[u8]) -> Result<Vec<DirectoryEntry>, WireError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path(at)).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        entries.push(DirectoryEntry {
            kind: kind(entry.file_type().map_err(failed)?),
            name: ByteBuf::from(entry.file_name().into_vec()),
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

impl FileSystem for Disk {
    fn identity(&self) -> &str {
        "disk"
    }

    fn metadata<'a>(&'a self, path: &'a [u8]) -> FileAnswer<'a, Metadata> {
        Box::pin(std::future::ready(metadata(path)))
    }

    fn read<'a>(&'a self, at: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Bytes> {
        let read = fs::read(path(at)).map_err(failed).and_then(|content| {
            let fits = content.len() as u64 <= max_bytes;
            fits.then(|| content.into())
                .ok_or_else(|| WireError::new(ErrorCode::TooLarge, "more than was wanted"))
        });
        Box::pin(std::future::ready(read))
    }

    fn list<'a>(&'a self, path: &'a [u8], _: usize) -> FileAnswer<'a, Vec<DirectoryEntry>> {
        Box::pin(std::future::ready(list(path)))
    }
}
