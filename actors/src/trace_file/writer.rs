//! Appending, and rotating at the bound.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dwell_messages::{Role, Span};
use rustix::fs::{FlockOperation, OFlags, flock};

use super::error::TraceFileError;
use super::names::{current_path, rotated_path};
use super::otlp;
use super::resource::Resource;

/// At this size a file is rotated; with the one before it, a role's traces take at most twice that and the overrun, and
/// one batch of each process that writes.
pub const TRACE_FILE_MAX_BYTES: u64 = 32 * 1024 * 1024;
/// Past a file's size by this part of it nothing is appended: whoever rotates it holds the lock, but does not move.
const OVERRUN_PART: u64 = 8;

/// One role's trace file, open for appending.
///
/// A batch is one write of whole lines to a file opened for appending, so the batches of several processes do not mix.
/// Nothing is synced: a power cut may cost the last traces.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    rotated: PathBuf,
    file: File,
    buffer: Vec<u8>,
    max_bytes: u64,
    /// The file may end inside a line; the next batch begins a new one.
    torn: bool,
}

impl TraceFile {
    /// Opens or makes the file of `role` in `dir`, mode 0600; the directory is made with mode 0700 if need be.
    ///
    /// # Errors
    ///
    /// When something that is no regular file stands there, or the operating system refuses.
    pub fn open(dir: &Path, role: Role) -> Result<Self, TraceFileError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| TraceFileError::io("create the directory", dir, error))?;
        let path = current_path(dir, role);
        let (file, torn) = open_append(&path)?;
        Ok(Self {
            path,
            rotated: rotated_path(dir, role),
            file,
            buffer: Vec::new(),
            max_bytes: TRACE_FILE_MAX_BYTES,
            torn,
        })
    }

    /// With another size at which to rotate.
    #[must_use = "the size is that of the returned file"]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Appends a batch. An empty one writes nothing.
    ///
    /// # Errors
    ///
    /// The batch is then lost in whole or in part, and the next begins on a line of its own. [`TraceFileError::Full`] when
    /// another process is rotating the file and has stopped over it: nothing waits for that.
    pub fn append(&mut self, resource: &Resource, spans: &[Span]) -> Result<(), TraceFileError> {
        if spans.is_empty() {
            return Ok(());
        }
        self.follow_rotation()?;
        self.buffer.clear();
        if self.torn {
            self.buffer.push(b'\n');
        }
        otlp::push_lines(&mut self.buffer, resource, spans).map_err(TraceFileError::Encode)?;
        // Set until the write is known to be whole.
        self.torn = true;
        self.file
            .write_all(&self.buffer)
            .map_err(|error| TraceFileError::io("append to", &self.path, error))?;
        self.torn = false;
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        Ok(())
    }

    /// Where it writes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes on in the file that bears the name now, rotating it first if it is full.
    fn follow_rotation(&mut self) -> Result<(), TraceFileError> {
        let held = self
            .file
            .metadata()
            .map_err(|error| TraceFileError::io("inspect", &self.path, error))?;
        if !self.is_current(&held)? {
            return self.reopen();
        }
        if held.len() < self.max_bytes {
            return Ok(());
        }
        // Only who holds the lock of the full file renames it. Who does not get it appends to it some more.
        if flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if held.len() >= self.max_bytes.saturating_add(self.max_bytes / OVERRUN_PART) {
                return Err(TraceFileError::Full {
                    path: self.path.clone(),
                    bytes: held.len(),
                });
            }
            return Ok(());
        }
        if self.is_current(&held)? {
            fs::rename(&self.path, &self.rotated)
                .map_err(|error| TraceFileError::io("rotate", &self.path, error))?;
        }
        self.reopen()
    }

    fn is_current(&self, held: &fs::Metadata) -> Result<bool, TraceFileError> {
        match fs::symlink_metadata(&self.path) {
            Ok(named) => Ok(named.dev() == held.dev() && named.ino() == held.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(TraceFileError::io("inspect", &self.path, error)),
        }
    }

    fn reopen(&mut self) -> Result<(), TraceFileError> {
        (self.file, self.torn) = open_append(&self.path)?;
        Ok(())
    }
}

/// What the encoding buffer keeps between batches.
const BUFFER_KEPT_BYTES: usize = 64 * 1024;

fn open_append(path: &Path) -> Result<(File, bool), TraceFileError> {
    let not_a_file = || TraceFileError::NotAFile {
        path: path.to_owned(),
    };
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path)
        .map_err(|error| match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::LOOP | rustix::io::Errno::ISDIR) => not_a_file(),
            Some(_) | None => TraceFileError::io("open", path, error),
        })?;
    let metadata = file
        .metadata()
        .map_err(|error| TraceFileError::io("inspect", path, error))?;
    if !metadata.is_file() {
        return Err(not_a_file());
    }
    let torn = metadata.len() > 0
        && last_byte(&mut file).map_err(|error| TraceFileError::io("read", path, error))? != b'\n';
    Ok((file, torn))
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}
