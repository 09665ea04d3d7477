//! Files: requests of the dialect, as the executor's own file service takes them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use dwell_messages::dialect::{
    BLOCK_MAX_BYTES, Blob, Call, Canonical, Copy, DirectoryEntries, DirectoryItem, Fault, FileBlock,
    FileContents, FileInfo, GetMetadata, HANDLE_ID_MAX_BYTES, HANDLES_MAX, Id, MESSAGE_MAX_BYTES, OpenFile,
    OpenMode, OpenedFile, ReadBlock, ReadFile, Remove, Walk, WalkEntry, WalkError, WalkKind, WalkOptions,
    Walked, WriteBlock, WriteFile, encode_response, path_of, uri_of,
};
use dwell_messages::files::{
    self, Access, Close, FileKind, FileReply, FileRequest, Handle, Links, Metadata, Open, WriteHow,
};
use dwell_messages::{ErrorCode, WireError};
use serde_bytes::ByteBuf;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::command::Wish;
use super::held::{Held, answer_bytes};
use super::reach::{sandbox_of, within};
use crate::files::{self as service, RemoteFiles, WriteOptions};

/// Bytes of a file that is read at once: what one message carries as base64.
pub const READ_FILE_MAX_BYTES: u64 = (MESSAGE_MAX_BYTES as u64 - 4_096) / 4 * 3;
/// Names of one directory that are told: what one message may hold.
pub const DIRECTORY_MAX_ENTRIES: usize = 60_000;
/// Permissions of a file that is created, less the executor's umask.
const NEW_FILE: u32 = 0o644;
const EBADF: i32 = 9;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const ELOOP: i32 = 40;

/// Open files of a connection, by its client's names for them.
#[derive(Default)]
pub(super) struct Handles(RefCell<HashMap<String, Rc<Opened>>>);

struct Opened {
    handle: Handle,
    mode: OpenMode,
    /// What is done with one file is done in its order.
    turn: Mutex<()>,
}

impl Handles {
    fn take(&self, ask: &OpenFile, handle: Handle) -> Result<Rc<Opened>, Fault> {
        let mut handles = self.0.borrow_mut();
        if ask.handle_id.len() > HANDLE_ID_MAX_BYTES {
            let text = format!("a file handle has at most {HANDLE_ID_MAX_BYTES} bytes");
            return Err(Fault::invalid_request(text));
        }
        if handles.contains_key(&ask.handle_id) {
            let text = format!("file handle `{}` is already open", ask.handle_id);
            return Err(Fault::invalid_request(text));
        }
        if handles.len() >= HANDLES_MAX {
            let text = format!("{HANDLES_MAX} files of this connection are open: close one");
            return Err(Fault::invalid_request(text));
        }
        let opened = Rc::new(Opened {
            handle,
            mode: ask.mode,
            turn: Mutex::new(()),
        });
        handles.insert(ask.handle_id.clone(), Rc::clone(&opened));
        Ok(opened)
    }

    fn of(&self, id: &str) -> Result<Rc<Opened>, Fault> {
        let unknown = || Fault::new(Fault::NOT_FOUND, format!("unknown file handle `{id}`"));
        self.0.borrow().get(id).cloned().ok_or_else(unknown)
    }

    fn forget(&self, id: &str, opened: &Rc<Opened>) {
        let mut handles = self.0.borrow_mut();
        if handles.get(id).is_some_and(|known| Rc::ptr_eq(known, opened)) {
            handles.remove(id);
        }
    }

    /// The connection is over, and with it what it has open.
    pub(super) fn end(&self, files: &RemoteFiles) {
        for (_, opened) in self.0.borrow_mut().drain() {
            let files = files.clone();
            tokio::task::spawn_local(async move {
                let _turn = opened.turn.lock().await;
                close(&files, opened.handle).await;
            });
        }
    }
}

/// What serves files.
pub(super) struct Served {
    pub(super) files: RemoteFiles,
    pub(super) handles: Rc<Handles>,
    pub(super) held: Held,
    pub(super) wish: Wish,
}

impl Served {
    /// The answer to a request about files.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn answer(&self, id: &Id, call: Call) -> Result<Vec<u8>, Fault> {
        let files = &self.files;
        let (call, links_to_open) = match self.wish.confinement(sandbox_of(&call))? {
            Some(confinement) => within(call, &confinement, files).await?,
            None => (call, Links::Follow),
        };
        let nothing = |()| encode_response(id, &Value::Object(Map::new()));
        match call {
            Call::ReadFile(ask) => read_file(files, ask).await.map(|data| encode_response(id, &data)),
            Call::WriteFile(ask) => write_file(files, ask).await.map(nothing),
            Call::CreateDirectory(ask) => {
                let request = FileRequest::CreateDirectory(files::CreateDirectory {
                    path: path(&ask.path)?,
                    parents: ask.recursive.unwrap_or(true),
                    permissions: None,
                    links: links(ask.follow_symlinks),
                });
                let made = files.call(request).await;
                made.map(|_| nothing(())).map_err(|error| match error.code {
                    // Wherever on the way it is, a link is no directory to make another one in.
                    ErrorCode::SymlinkLoop if !ask.follow_symlinks => Fault::of_file_errno(ENOTDIR),
                    _ => fault(error),
                })
            }
            Call::GetMetadata(ask) => metadata(files, ask).await.map(|info| encode_response(id, &info)),
            Call::Canonicalize(ask) => {
                let found = files.canonicalize(path(&ask.path)?).await.map_err(fault)?;
                Ok(encode_response(id, &Canonical { path: uri_of(&found) }))
            }
            Call::ReadDirectory(ask) => read_directory(files, &ask.path)
                .await
                .map(|entries| encode_response(id, &entries)),
            Call::Walk(ask) => walk(files, ask).await.map(|walked| encode_response(id, &walked)),
            Call::Remove(ask) => remove(files, ask).await.map(nothing),
            Call::Copy(ask) => copy(files, ask).await.map(nothing),
            Call::OpenFile(ask) => self
                .open(ask, links_to_open)
                .await
                .map(|opened| encode_response(id, &opened)),
            Call::ReadBlock(ask) => self
                .read_block(ask)
                .await
                .map(|block| encode_response(id, &block)),
            Call::WriteBlock(ask) => self.write_block(ask).await.map(nothing),
            Call::CloseFile(ask) => {
                self.close(&ask.handle_id).await;
                Ok(nothing(()))
            }
            other => Err(Fault::unknown_method(other.method().name())),
        }
    }

    /// Room for the answer, where that may be large.
    pub(super) async fn room(&self, call: &Call) -> Option<OwnedSemaphorePermit> {
        match answer_bytes(call) {
            0 => None,
            bytes => self.held.answer(bytes).await,
        }
    }

    async fn open(&self, ask: OpenFile, links: Links) -> Result<OpenedFile, Fault> {
        let path = path(&ask.path)?;
        let opened = self.handles.take(&ask, self.files.fresh_handle())?;
        let _turn = opened.turn.lock().await;
        let access = match opened.mode {
            OpenMode::Read => Access::Read,
            OpenMode::Replace => Access::Write(WriteHow::Truncate),
        };
        let request = FileRequest::Open(Open {
            handle: opened.handle,
            path,
            access,
            permissions: Some(NEW_FILE),
            atomic: false,
            sync: false,
            links,
        });
        if let Err(error) = self.files.call(request).await {
            self.handles.forget(&ask.handle_id, &opened);
            return Err(match (error.code, opened.mode) {
                // What is to be written has the system's words.
                (ErrorCode::IsADirectory, OpenMode::Replace) => Fault::of_file_errno(EISDIR),
                _ => file_fault(&ask.path, error),
            });
        }
        Ok(OpenedFile {
            handle_id: ask.handle_id,
        })
    }

    /// A block, in as many parts as the service gives it.
    async fn read_block(&self, ask: ReadBlock) -> Result<FileBlock, Fault> {
        let opened = self.handles.of(&ask.handle_id)?;
        let wanted = block_length(ask.len)?;
        let _turn = opened.turn.lock().await;
        if opened.mode != OpenMode::Read {
            return Err(Fault::of_file_errno(EBADF));
        }
        let mut data = Vec::new();
        while data.len() < wanted {
            let request = FileRequest::ReadBlock(files::ReadBlock {
                handle: opened.handle,
                offset: ask.offset.saturating_add(data.len() as u64),
                max_bytes: u32::try_from((wanted - data.len()).min(files::BLOCK_MAX_BYTES))
                    .unwrap_or(u32::MAX),
            });
            match self.files.call(request).await {
                Ok(FileReply::Block(block)) => {
                    data.extend_from_slice(&block.data);
                    if block.data.is_empty() || block.end {
                        break;
                    }
                }
                Ok(_) => return Err(strange()),
                Err(error) => return Err(self.broken(&ask.handle_id, &opened, error).await),
            }
        }
        Ok(FileBlock {
            eof: data.len() < wanted,
            chunk: Blob(data.into()),
        })
    }

    async fn write_block(&self, ask: WriteBlock) -> Result<(), Fault> {
        let opened = self.handles.of(&ask.handle_id)?;
        let mut rest = ask.chunk.0;
        block_length(rest.len() as u64)?;
        // An offset is signed to the system. It is told before anything is tried: the file stays open.
        let end = ask.offset.checked_add(rest.len() as u64);
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(Fault::invalid_request(
                "a block ends within the longest file, which has 2^63 - 1 bytes",
            ));
        }
        let _turn = opened.turn.lock().await;
        if opened.mode != OpenMode::Replace {
            return Err(Fault::of_file_errno(EBADF));
        }
        let mut offset = ask.offset;
        while !rest.is_empty() {
            let data = rest.split_to(rest.len().min(files::BLOCK_MAX_BYTES));
            let behind = offset.saturating_add(data.len() as u64);
            let request = FileRequest::WriteBlock(files::WriteBlock {
                handle: opened.handle,
                offset,
                data,
            });
            if let Err(error) = self.files.call(request).await {
                return Err(self.broken(&ask.handle_id, &opened, error).await);
            }
            offset = behind;
        }
        Ok(())
    }

    /// What failed once is not tried again: its handle is gone.
    async fn broken(&self, id: &str, opened: &Rc<Opened>, error: WireError) -> Fault {
        self.handles.forget(id, opened);
        close(&self.files, opened.handle).await;
        fault(error)
    }

    async fn close(&self, id: &str) {
        let Ok(opened) = self.handles.of(id) else { return };
        self.handles.forget(id, &opened);
        let _turn = opened.turn.lock().await;
        close(&self.files, opened.handle).await;
    }
}

async fn close(files: &RemoteFiles, handle: Handle) {
    let request = FileRequest::Close(Close {
        handle,
        discard: false,
    });
    if let Err(error) = files.call(request).await {
        tracing::debug!(code = error.code.name(), "a file was not closed");
    }
}

fn block_length(length: u64) -> Result<usize, Fault> {
    match usize::try_from(length) {
        Ok(length) if (1..=BLOCK_MAX_BYTES).contains(&length) => Ok(length),
        Ok(_) | Err(_) => {
            let text = format!("a block has 1 to {BLOCK_MAX_BYTES} bytes, not {length}");
            Err(Fault::invalid_request(text))
        }
    }
}

fn path(uri: &str) -> Result<ByteBuf, Fault> {
    path_of(uri).map(ByteBuf::from)
}

fn links(follow: bool) -> Links {
    if follow { Links::Follow } else { Links::Refuse }
}

async fn done(files: &RemoteFiles, request: FileRequest) -> Result<(), Fault> {
    files.call(request).await.map(drop).map_err(fault)
}

async fn read_file(files: &RemoteFiles, ask: ReadFile) -> Result<FileContents, Fault> {
    let path = path(&ask.path)?;
    let read = if ask.follow_symlinks {
        files.read_file(&path, READ_FILE_MAX_BYTES).await
    } else {
        read_unlinked(files, &path).await
    };
    match read {
        Ok(data) => Ok(FileContents {
            data_base64: Blob(data),
        }),
        Err(error) if error.code == ErrorCode::TooLarge => {
            let text = format!("file is too large to read: limit is {READ_FILE_MAX_BYTES} bytes");
            Err(Fault::invalid_request(text))
        }
        Err(error) => Err(file_fault(&ask.path, linked(files, &path, error).await)),
    }
}

/// A link that was not to be followed: where it is not the last part of its path, that is no directory.
async fn linked(files: &RemoteFiles, path: &[u8], error: WireError) -> WireError {
    if error.code != ErrorCode::SymlinkLoop {
        return error;
    }
    let named = path.strip_suffix(b"/").unwrap_or(path);
    let end = named.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    match files.metadata_of(&named[..end.max(1)], Links::Refuse).await {
        Err(above) if above.code == ErrorCode::SymlinkLoop => {
            WireError::new(ErrorCode::NotADirectory, error.message).with_errno(Some(ENOTDIR))
        }
        Ok(_) | Err(_) => error,
    }
}

/// What is said of a path that has a link where none is followed.
async fn unlinked(files: &RemoteFiles, path: &[u8], error: WireError) -> Fault {
    match linked(files, path, error).await {
        error if error.code == ErrorCode::SymlinkLoop => {
            Fault::invalid_request("path contains a symbolic link")
        }
        error => fault(error),
    }
}

/// A file whose path has no link in it: part by part, each of the same file.
async fn read_unlinked(files: &RemoteFiles, path: &ByteBuf) -> Result<Bytes, WireError> {
    let mut whole = Vec::new();
    let mut first: Option<Metadata> = None;
    loop {
        let request = FileRequest::Read(files::ReadFile {
            path: path.clone(),
            offset: whole.len() as u64,
            max_bytes: u32::try_from(files::BLOCK_MAX_BYTES).unwrap_or(u32::MAX),
            links: Links::Refuse,
        });
        let FileReply::Contents(contents) = files.call(request).await? else {
            return Err(WireError::new(
                ErrorCode::Protocol,
                "the answer is of another kind",
            ));
        };
        if *first.get_or_insert_with(|| contents.metadata.clone()) != contents.metadata {
            return Err(WireError::new(
                ErrorCode::FileChanged,
                "the file changed while it was read",
            ));
        }
        if (whole.len() + contents.data.len()) as u64 > READ_FILE_MAX_BYTES {
            return Err(WireError::new(ErrorCode::TooLarge, "the file is too large"));
        }
        whole.extend_from_slice(&contents.data);
        if contents.end || contents.data.is_empty() {
            return Ok(whole.into());
        }
    }
}

async fn write_file(files: &RemoteFiles, ask: WriteFile) -> Result<(), Fault> {
    let path = path(&ask.path)?;
    let data = Blob::from_base64(&ask.data_base64).map_err(Fault::invalid_request)?;
    let options = WriteOptions {
        permissions: Some(NEW_FILE),
        links: links(ask.follow_symlinks),
        ..WriteOptions::default()
    };
    match files.write_file(&path, data.0, options).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == ErrorCode::IsADirectory => Err(Fault::of_file_errno(EISDIR)),
        Err(error) => Err(file_fault(&ask.path, linked(files, &path, error).await)),
    }
}

async fn metadata(files: &RemoteFiles, ask: GetMetadata) -> Result<FileInfo, Fault> {
    let path = path(&ask.path)?;
    let info = |metadata: &Metadata, is_symlink| FileInfo {
        is_directory: metadata.kind == FileKind::Directory,
        is_file: metadata.kind == FileKind::File,
        is_symlink,
        size: metadata.size,
        created_at_ms: 0,
        // There is no time before the first.
        modified_at_ms: metadata.modified_unix_ns.div_euclid(1_000_000).max(0),
    };
    if !ask.follow_symlinks {
        return match files.metadata_of(&path, Links::Refuse).await {
            Ok(metadata) => Ok(info(&metadata, false)),
            Err(error) => Err(unlinked(files, &path, error).await),
        };
    }
    // What it leads to, and whether it is a link itself, in one round trip.
    let (followed, kept) = tokio::join!(
        files.metadata_of(&path, Links::Follow),
        files.metadata_of(&path, Links::Keep)
    );
    let is_symlink = kept.is_ok_and(|kept| kept.kind == FileKind::Symlink);
    followed
        .map(|metadata| info(&metadata, is_symlink))
        .map_err(fault)
}

async fn read_directory(files: &RemoteFiles, uri: &str) -> Result<DirectoryEntries, Fault> {
    let found = files
        .list_directory(path(uri)?, DIRECTORY_MAX_ENTRIES, true)
        .await
        .map_err(fault)?;
    let entries = found.into_iter().filter(|entry| entry.kind != FileKind::Symlink);
    let entries = entries.map(|entry| DirectoryItem {
        file_name: String::from_utf8_lossy(&entry.name).into_owned(),
        is_directory: entry.kind == FileKind::Directory,
        is_file: entry.kind == FileKind::File,
    });
    Ok(DirectoryEntries {
        entries: entries.collect(),
    })
}

async fn walk(files: &RemoteFiles, ask: Walk) -> Result<Walked, Fault> {
    let root = path(&ask.path)?;
    let options = walk_options(&ask.options)?;
    let below = |name: &[u8]| {
        let mut path = root.to_vec();
        if path.last() != Some(&b'/') && !name.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        uri_of(&path)
    };
    let root_itself = async {
        match options.follow {
            true => None,
            false => files.metadata_of(&root, Links::Keep).await.ok(),
        }
    };
    let (found, kept) = tokio::join!(files.walk_all(&root, options), root_itself);
    let is_link = kept.is_some_and(|kept| kept.kind == FileKind::Symlink);
    let found = match found {
        // Nothing is below a link that is not followed.
        Ok(_) if is_link => return Ok(Walked::default()),
        Ok(found) => found,
        // A file has nothing below it.
        Err(error) if error.code == ErrorCode::NotADirectory => {
            files.metadata_of(&root, Links::Follow).await.map_err(fault)?;
            return Ok(Walked::default());
        }
        Err(error) => return Err(fault(error)),
    };
    let entry = |entry: files::WalkEntry| {
        let kind = match (entry.kind, entry.link) {
            (FileKind::Directory, _) => WalkKind::Directory,
            (FileKind::File, false) => WalkKind::File,
            (FileKind::File, true) | (FileKind::Symlink | FileKind::Other, _) => return None,
        };
        let path = below(&entry.path);
        Some(WalkEntry { path, kind })
    };
    let error = |error: files::WalkError| WalkError {
        path: below(&error.path),
        message: match error.errno {
            Some(errno) => Fault::of_file_errno(errno).message,
            None => error.code.name().into(),
        },
    };
    Ok(Walked {
        entries: found.entries.into_iter().filter_map(entry).collect(),
        errors: found.errors.into_iter().map(error).collect(),
        truncated: found.truncated,
    })
}

fn walk_options(options: &WalkOptions) -> Result<service::WalkOptions, Fault> {
    let bound = |name: &str, value: u64, least: u64, most: u64| {
        if (least..=most).contains(&value) {
            Ok(u32::try_from(value).unwrap_or(u32::MAX))
        } else {
            let text = format!("{name} must be between {least} and {most}, not {value}");
            Err(Fault::invalid_request(text))
        }
    };
    let (directories, entries) = (WalkOptions::MAX_DIRECTORIES, WalkOptions::MAX_ENTRIES);
    Ok(service::WalkOptions {
        max_depth: bound("maxDepth", options.max_depth, 0, WalkOptions::MAX_DEPTH)?,
        max_directories: bound("maxDirectories", options.max_directories, 1, directories)?,
        max_entries: bound("maxEntries", options.max_entries, 1, entries)?,
        follow: options.follow_directory_symlinks,
        prune_hidden: options.prune_hidden_directories,
        ignore_files: false,
    })
}

async fn remove(files: &RemoteFiles, ask: Remove) -> Result<(), Fault> {
    let recursive = ask.recursive.unwrap_or(true);
    if recursive && !ask.follow_symlinks {
        let text = "removing a directory with all that is in it is unsupported where links are not followed";
        return Err(Fault::failed(text));
    }
    let path = path(&ask.path)?;
    if !ask.follow_symlinks
        && let Err(error) = files.metadata_of(&path, Links::Refuse).await
        && error.code == ErrorCode::SymlinkLoop
    {
        return Err(unlinked(files, &path, error).await);
    }
    let request = FileRequest::Remove(files::Remove {
        path,
        recursive,
        force: ask.force.unwrap_or(true),
        links: links(ask.follow_symlinks),
    });
    done(files, request).await
}

async fn copy(files: &RemoteFiles, ask: Copy) -> Result<(), Fault> {
    let request = FileRequest::Copy(files::Copy {
        from: path(&ask.source_path)?,
        to: path(&ask.destination_path)?,
        recursive: ask.recursive,
        overwrite: true,
        links: Links::Keep,
    });
    match files.call(request).await {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.code {
            // Without a number it is ours: what was asked cannot be meant.
            ErrorCode::IsADirectory | ErrorCode::NotAFile | ErrorCode::BadPath => {
                Fault::invalid_request(error.message)
            }
            _ => fault(error),
        }),
    }
}

fn strange() -> Fault {
    Fault::failed("the executor answered with something else")
}

/// An operation on the contents of a file.
fn file_fault(uri: &str, error: WireError) -> Fault {
    match error.code {
        ErrorCode::IsADirectory | ErrorCode::NotAFile => {
            let path = path_of(uri).unwrap_or_default();
            Fault::invalid_request(format!("path `{}` is not a file", String::from_utf8_lossy(&path)))
        }
        _ => fault(error),
    }
}

/// What the executor says, as the dialect says it: the system's number decides where there is one.
pub(super) fn fault(error: WireError) -> Fault {
    match (error.errno, error.code) {
        (Some(errno), _) => Fault::of_file_errno(errno),
        (None, ErrorCode::SymlinkLoop) => Fault::of_file_errno(ELOOP),
        (None, ErrorCode::NotFound | ErrorCode::UnknownHandle) => Fault::new(Fault::NOT_FOUND, error.message),
        (
            None,
            ErrorCode::BadRequest | ErrorCode::BadPath | ErrorCode::TooLarge | ErrorCode::PermissionDenied,
        ) => Fault::invalid_request(error.message),
        (None, _) => Fault::failed(error.message),
    }
}
