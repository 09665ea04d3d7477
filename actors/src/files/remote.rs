//! Files of an executor's machine, through the harness's link.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dwell_messages::files::{
    BLOCK_MAX_BYTES, Canonicalize, Close, Copied, Copy, CreateDirectory, DirectoryEntry, FileReply,
    FileRequest, Handle, Links, Metadata, ReadFile, Remove, Removed, Rename, WALK_MAX_DEPTH,
    WALK_MAX_DIRECTORIES, Walk, WalkEntry, WalkError, WalkOn, WalkPage, WriteFile,
};
use dwell_messages::{ErrorCode, Reply, Request, TraceContext, TraceFlags, WireError};
use serde_bytes::ByteBuf;

use super::blocks::{FileReader, FileWriter, InFlight, WriteOptions};
use super::serve::{self, Serve, Server, strange};
use super::system::{FileAnswer, FileSystem, Front};
use crate::harness::{Asker, RunError};
use crate::propagation;
use crate::telemetry::root;

/// Pages of one walk under way at a time.
pub const WALK_PAGES_IN_FLIGHT_MAX: usize = 4;

/// The files of an executor's machine. `Send`, `Sync` and cheap to clone; usable on any runtime and on none.
///
/// Paths are absolute bytes of that machine. Every method costs a round trip, and those on large files and directories
/// several that overlap. What is asked survives a lost link like every request: it is sent again where that is safe, and
/// done once. Requests that are under way together are served in any order: whoever needs one, awaits each.
///
/// Errors carry the codes of [`ErrorCode`] that concern files: `NotFound`, `AccessDenied`, `NotADirectory`,
/// `IsADirectory`, `NotAFile`, `AlreadyExists`, `SymlinkLoop`, `NoSpace`, `NotEmpty`, `BadPath`, `TooLarge` and
/// `FileFailed` with the executor's errno; `PermissionDenied` where the client's key lacks the scope `files`;
/// `Disconnected`, `Stopped` (nothing was done) and `OutcomeUnknown` (look first) where the link is gone for good.
///
/// Dropping an answer withdraws the question: if the executor has not begun on it, it does nothing.
#[derive(Clone)]
pub struct RemoteFiles(Arc<Remote>);

struct Remote {
    asker: Asker,
    identity: Arc<str>,
    handles: Arc<AtomicU64>,
    parent: Option<TraceContext>,
}

impl fmt::Debug for RemoteFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteFiles")
            .field("identity", &self.0.identity)
            .finish_non_exhaustive()
    }
}

/// What a walk goes into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkOptions {
    /// Levels below its beginning; with 0 the names in it are all. At most [`WALK_MAX_DEPTH`].
    pub max_depth: u32,
    /// Directories that are read.
    pub max_directories: u32,
    /// Entries that are given.
    pub max_entries: u32,
    /// Whether links to directories are entered, each directory once.
    pub follow: bool,
    /// Whether directories whose names begin with a dot are named and not entered.
    pub prune_hidden: bool,
    /// Whether what ignore files exclude, and `.git`, is passed over.
    pub ignore_files: bool,
}

impl Default for WalkOptions {
    /// Everything but what ignore files exclude, up to 50,000 entries.
    fn default() -> Self {
        Self {
            max_depth: WALK_MAX_DEPTH,
            max_directories: WALK_MAX_DIRECTORIES,
            max_entries: 50_000,
            follow: false,
            prune_hidden: false,
            ignore_files: true,
        }
    }
}

/// What a walk found, breadth first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Walked {
    /// The entries.
    pub entries: Vec<WalkEntry>,
    /// Directories that could not be read.
    pub errors: Vec<WalkError>,
    /// Whether a bound of the walk kept something back.
    pub truncated: bool,
}

impl RemoteFiles {
    pub(crate) fn new(asker: Asker, identity: Arc<str>, handles: Arc<AtomicU64>) -> Self {
        Self(Arc::new(Remote {
            asker,
            identity,
            handles,
            parent: None,
        }))
    }

    /// The same files, whose requests are traced below this span. Without it they are below the span that the calling
    /// code is in, if that is known, and else not traced.
    #[must_use]
    pub fn parent(&self, parent: TraceContext) -> Self {
        Self(Arc::new(Remote {
            asker: self.0.asker.clone(),
            identity: Arc::clone(&self.0.identity),
            handles: Arc::clone(&self.0.handles),
            parent: Some(parent).filter(TraceContext::is_valid),
        }))
    }

    pub(super) fn server(&self) -> Server {
        self.0.clone()
    }

    /// Serves any request of the vocabulary. Handles in it have to be of [`RemoteFiles::fresh_handle`].
    ///
    /// # Errors
    /// See the type.
    pub async fn call(&self, request: FileRequest) -> Result<FileReply, WireError> {
        self.0.ask(request).await
    }

    /// A handle that was not used in this session.
    pub fn fresh_handle(&self) -> Handle {
        self.0.handle()
    }

    /// What a path leads to.
    ///
    /// # Errors
    /// See the type; `SymlinkLoop` for a link that `links` refuses.
    pub async fn metadata_of(&self, path: impl AsRef<[u8]>, links: Links) -> Result<Metadata, WireError> {
        serve::metadata(&self.server(), path.as_ref(), links).await
    }

    /// A whole file of at most `max_bytes`: one round trip where it has at most 256 KiB. It is never a mixture: a small
    /// file that is written meanwhile is read again, and of a large one that is said.
    ///
    /// # Errors
    /// See the type; `TooLarge` when it has more, `FileChanged` when it does not keep still.
    pub async fn read_file(&self, path: impl AsRef<[u8]>, max_bytes: u64) -> Result<Bytes, WireError> {
        serve::read(&self.server(), path.as_ref(), max_bytes).await
    }

    /// At most 256 KiB of a file from an offset, and whether it ends there.
    ///
    /// # Errors
    /// See the type.
    pub async fn read_part(
        &self,
        path: impl AsRef<[u8]>,
        offset: u64,
        max_bytes: u32,
    ) -> Result<(Bytes, bool), WireError> {
        let request = FileRequest::Read(ReadFile {
            path: ByteBuf::from(path.as_ref()),
            offset,
            max_bytes,
            links: Links::Follow,
        });
        match self.0.ask(request).await? {
            FileReply::Contents(contents) => Ok((contents.data, contents.end)),
            _ => Err(strange()),
        }
    }

    /// A file of any size, in blocks. Nothing is asked before it is awaited.
    pub fn open(&self, path: impl AsRef<[u8]>) -> FileReader {
        FileReader::open(self.server(), path.as_ref(), Links::Follow, None)
    }

    /// Writes a file: one round trip where it has at most 256 KiB, else in blocks.
    ///
    /// # Errors
    /// See the type. Without `atomic` the file may then be half-written.
    pub async fn write_file(
        &self,
        path: impl AsRef<[u8]>,
        data: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<Metadata, WireError> {
        let data = data.into();
        if data.len() > BLOCK_MAX_BYTES {
            let mut writer = self.create(path, options);
            writer.write(&data).await?;
            return writer.finish().await;
        }
        let request = FileRequest::Write(WriteFile {
            path: ByteBuf::from(path.as_ref()),
            data,
            how: options.how,
            permissions: options.permissions,
            atomic: options.atomic,
            sync: options.sync,
            links: options.links,
        });
        match self.0.ask(request).await? {
            FileReply::Written(written) => Ok(written.metadata),
            _ => Err(strange()),
        }
    }

    /// A file of any size to be written, in blocks. Nothing is asked before it is awaited.
    pub fn create(&self, path: impl AsRef<[u8]>, options: WriteOptions) -> FileWriter {
        FileWriter::create(self.server(), path.as_ref(), options)
    }

    /// What lies in a directory, in the order of the names' bytes. With `resolve` a link has the kind of what it leads to.
    ///
    /// # Errors
    /// See the type; `TooLarge` when that is more than `max_entries`.
    pub async fn list_directory(
        &self,
        path: impl AsRef<[u8]>,
        max_entries: usize,
        resolve: bool,
    ) -> Result<Vec<DirectoryEntry>, WireError> {
        serve::list(&self.server(), path.as_ref(), max_entries, resolve).await
    }

    /// Creates a directory, and with `parents` those above it. Whether it was not there before.
    ///
    /// # Errors
    /// See the type; `AlreadyExists` without `parents`, and for something else than a directory.
    pub async fn create_directory(&self, path: impl AsRef<[u8]>, parents: bool) -> Result<bool, WireError> {
        let request = FileRequest::CreateDirectory(CreateDirectory {
            path: ByteBuf::from(path.as_ref()),
            parents,
            permissions: None,
            links: Links::Follow,
        });
        match self.0.ask(request).await? {
            FileReply::DirectoryCreated(created) => Ok(created.created),
            _ => Err(strange()),
        }
    }

    /// Removes a file, a link or an empty directory.
    ///
    /// # Errors
    /// See the type; `NotEmpty` for a directory that is not.
    pub async fn remove(&self, path: impl AsRef<[u8]>) -> Result<Removed, WireError> {
        self.remove_with(path.as_ref(), false, false).await
    }

    /// Removes whatever has this name, and what lies below it. Links are not followed. It is no error when there is
    /// nothing.
    ///
    /// # Errors
    /// See the type. What could be removed before then is gone.
    pub async fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<Removed, WireError> {
        self.remove_with(path.as_ref(), true, true).await
    }

    async fn remove_with(&self, path: &[u8], recursive: bool, force: bool) -> Result<Removed, WireError> {
        let request = FileRequest::Remove(Remove {
            path: ByteBuf::from(path),
            recursive,
            force,
            links: Links::Follow,
        });
        match self.0.ask(request).await? {
            FileReply::Removed(removed) => Ok(removed),
            _ => Err(strange()),
        }
    }

    /// Copies on the executor's machine: see [`struct@Copy`] for each option.
    ///
    /// # Errors
    /// See the type. Of a directory what could be copied before then is there.
    pub async fn copy(&self, copy: Copy) -> Result<Copied, WireError> {
        match self.0.ask(FileRequest::Copy(copy)).await? {
            FileReply::Copied(copied) => Ok(copied),
            _ => Err(strange()),
        }
    }

    /// Gives a file or directory another name on its file system. What has that name goes only with `overwrite`.
    ///
    /// # Errors
    /// See the type; `AlreadyExists` without `overwrite`, `FileFailed` (EXDEV) across file systems.
    pub async fn rename(
        &self,
        from: impl AsRef<[u8]>,
        to: impl AsRef<[u8]>,
        overwrite: bool,
    ) -> Result<(), WireError> {
        let request = FileRequest::Rename(Rename {
            from: ByteBuf::from(from.as_ref()),
            to: ByteBuf::from(to.as_ref()),
            overwrite,
        });
        match self.0.ask(request).await? {
            FileReply::Renamed => Ok(()),
            _ => Err(strange()),
        }
    }

    /// Where a path leads, without links, `.` and `..`.
    ///
    /// # Errors
    /// See the type.
    pub async fn canonicalize(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, WireError> {
        let request = FileRequest::Canonicalize(Canonicalize {
            path: ByteBuf::from(path.as_ref()),
        });
        match self.0.ask(request).await? {
            FileReply::Canonical(canonical) => Ok(canonical.path.into_vec()),
            _ => Err(strange()),
        }
    }

    /// What lies below a directory, a page at a time. Nothing is asked before it is awaited.
    pub fn walk(&self, path: impl AsRef<[u8]>, options: WalkOptions) -> RemoteWalk {
        let handle = self.0.handle();
        let request = FileRequest::Walk(Walk {
            handle,
            path: ByteBuf::from(path.as_ref()),
            max_depth: options.max_depth,
            max_directories: options.max_directories,
            max_entries: options.max_entries,
            follow: options.follow,
            prune_hidden: options.prune_hidden,
            ignore_files: options.ignore_files,
        });
        let mut pages = InFlight::default();
        pages.ask(self.0.ask(request));
        RemoteWalk {
            pages,
            server: self.server(),
            handle,
            is_over: false,
        }
    }

    /// A whole walk.
    ///
    /// # Errors
    /// See the type; what could not be entered below its beginning is no error of the walk.
    pub async fn walk_all(&self, path: impl AsRef<[u8]>, options: WalkOptions) -> Result<Walked, WireError> {
        let mut walk = self.walk(path, options);
        let mut walked = Walked::default();
        while let Some(page) = walk.next().await? {
            walked.entries.extend(page.entries);
            walked.errors.extend(page.errors);
            walked.truncated |= page.truncated;
        }
        Ok(walked)
    }
}

/// A walk on the executor's machine. Dropping it ends it there.
#[must_use = "nothing is walked until `next` is awaited"]
pub struct RemoteWalk {
    pages: InFlight,
    server: Server,
    handle: Handle,
    is_over: bool,
}

impl fmt::Debug for RemoteWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteWalk").finish_non_exhaustive()
    }
}

impl RemoteWalk {
    /// The next page, which may hold nothing; `None` behind the last. Cancellation safe: what had come comes with the
    /// next call.
    ///
    /// # Errors
    /// See [`RemoteFiles`]. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<WalkPage>, WireError> {
        if self.is_over {
            return Ok(None);
        }
        let page = match self.pages.first().await {
            Ok(FileReply::Walked(page) | FileReply::WalkedOn(page)) => page,
            Ok(_) => {
                self.over(false);
                return Err(strange());
            }
            Err(error) => {
                self.over(false);
                return Err(error);
            }
        };
        if page.end {
            // What was asked beyond it is answered with nothing.
            self.over(true);
        }
        while !self.is_over && self.pages.len() < WALK_PAGES_IN_FLIGHT_MAX {
            let request = FileRequest::WalkOn(WalkOn { handle: self.handle });
            self.pages.ask(self.server.ask(request));
        }
        Ok(Some(page))
    }

    fn over(&mut self, is_closed: bool) {
        if !self.is_over {
            self.is_over = true;
            self.pages.clear();
            if !is_closed {
                self.server.close(self.handle, true);
            }
        }
    }
}

impl Drop for RemoteWalk {
    fn drop(&mut self) {
        self.over(false);
    }
}

impl Remote {
    /// A block of a file is stream data, and a page of a walk as good as that: both travel under the same trace without
    /// spans of their own, however many there are. So does waiting for a watch, however long.
    fn context(&self, request: &FileRequest) -> TraceContext {
        let parent = self.parent.clone().or_else(propagation::current);
        let context = parent
            .filter(TraceContext::is_valid)
            .unwrap_or_else(|| root(false));
        let flags = match request {
            FileRequest::ReadBlock(_)
            | FileRequest::WriteBlock(_)
            | FileRequest::WalkOn(_)
            | FileRequest::Await(_) => TraceFlags::NONE,
            FileRequest::Metadata(_)
            | FileRequest::Read(_)
            | FileRequest::Write(_)
            | FileRequest::List(_)
            | FileRequest::CreateDirectory(_)
            | FileRequest::Remove(_)
            | FileRequest::Copy(_)
            | FileRequest::Rename(_)
            | FileRequest::Canonicalize(_)
            | FileRequest::Walk(_)
            | FileRequest::Open(_)
            | FileRequest::Close(_)
            | FileRequest::Watch(_) => context.flags,
        };
        TraceContext { flags, ..context }
    }
}

impl Serve for Remote {
    fn ask(&self, request: FileRequest) -> FileAnswer<'static, FileReply> {
        let asker = self.asker.under(self.context(&request));
        Box::pin(async move {
            match asker.ask(None, Request::File(Box::new(request))).await {
                Ok(Reply::File(reply)) => Ok(reply),
                Ok(_) => Err(strange()),
                Err(error) => Err(as_wire(error)),
            }
        })
    }

    fn handle(&self) -> Handle {
        Handle(self.handles.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn close(&self, handle: Handle, discard: bool) {
        let close = FileRequest::Close(Close { handle, discard });
        self.asker.under(root(false)).tell(Request::File(Box::new(close)));
    }
}

/// What became of a question, in the words of the wire: this side's own failures have their codes there.
fn as_wire(error: RunError) -> WireError {
    match error {
        RunError::Refused(error) => error,
        RunError::NotStarted(why) => WireError::new(ErrorCode::Stopped, why),
        RunError::DeadlineExceeded => WireError::new(ErrorCode::DeadlineExceeded, "the answer came too late"),
        RunError::Lost(why) => WireError::new(ErrorCode::OutcomeUnknown, why),
    }
}

impl FileSystem for RemoteFiles {
    fn identity(&self) -> &str {
        &self.0.identity
    }

    fn metadata<'a>(&'a self, path: &'a [u8]) -> FileAnswer<'a, Metadata> {
        Box::pin(async move { serve::metadata(&self.server(), path, Links::Follow).await })
    }

    fn read<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Bytes> {
        Box::pin(async move { serve::read(&self.server(), path, max_bytes).await })
    }

    fn front<'a>(&'a self, path: &'a [u8], max_bytes: u64) -> FileAnswer<'a, Front> {
        Box::pin(async move { serve::front(&self.server(), path, max_bytes).await })
    }

    fn list<'a>(&'a self, path: &'a [u8], max_entries: usize) -> FileAnswer<'a, Vec<DirectoryEntry>> {
        Box::pin(async move { serve::list(&self.server(), path, max_entries, false).await })
    }
}
