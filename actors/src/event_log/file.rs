//! One event log on a disk, and what of it is not there yet.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FlockOperation, OFlags, StatxFlags, flock, statx};
use rustix::io::Errno;

use super::error::LogError;
use super::format::{
    FILE_HEADER_BYTES, Fault, Item, LogReader, ROOM_MAX_BYTES, Step, encode_header, encode_record,
};
use crate::durable_dir::{self, sync_name};
use crate::fault_point::{FaultPoint, reach};
use crate::metadata_store::ThreadId;

/// How much of a log may be unsynced before it is synced unasked: it is kept in memory until then, because after a
/// failed sync only writing it again helps.
pub const TAIL_MAX_BYTES: usize = 4 << 20;
/// The least room that is made ready behind a log.
const ROOM_MIN_BYTES: u64 = 64 << 10;
/// Room that is written at a time.
static ZEROS: [u8; 32 << 10] = [0; 32 << 10];
/// Damaged files kept beside a log.
const DAMAGED_MAX: u32 = 100;

/// One thread's log.
///
/// What is not known to be on the disk is the *tail*, and it is in memory. A write or a sync that fails drops the
/// file and keeps the tail; the next attempt opens the file again and writes the whole tail where it begins, which is
/// a record's boundary. So nothing is ever there twice, and no sync covers what an earlier failed one left behind.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    thread: ThreadId,
    file: Option<Arc<File>>,
    /// From the first open until it is let go, whatever happens to `file`.
    lock: Option<Locked>,
    /// Whether the file's name may not be on the disk yet.
    fresh: bool,
    /// Bytes that are on the disk for certain.
    durable: u64,
    tail: Vec<u8>,
    /// How much of the tail is in the open file.
    written: usize,
    /// The open file may go on behind the tail: an attempt that failed has left something there.
    untrimmed: bool,
    /// Where the open file ends: behind the tail there are zeros up to there.
    end: u64,
    /// There may be less room left than there should be.
    worn: bool,
    /// No room could be made ready, and none is tried to.
    no_room: bool,
    /// Items, those of the tail included.
    items: u64,
}

/// What opening a log found.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: LogFile,
    /// Bytes that were cut off its end, because no whole record was in them.
    pub cut_bytes: u64,
    /// Where the file is kept as it was. Only when nobody knows how much of it had been acknowledged, so that what was cut
    /// off may be more than a torn end.
    pub kept: Option<PathBuf>,
}

/// What keeps every other process from opening a log for writing. The lease says the same, but only to those who ask the
/// same database, and see the same processes.
#[derive(Debug)]
struct Locked(Arc<File>);

impl Locked {
    /// Locks an open file, as long as `path` still names it.
    fn take(file: &Arc<File>, path: &Path) -> io::Result<Self> {
        flock(file, FlockOperation::NonBlockingLockExclusive)?;
        let lock = Self(Arc::clone(file));
        let named = fs::symlink_metadata(path)?;
        if !lock.is_on(&named)? {
            // Between the open and the lock it was put aside and another put in its place.
            return Err(Errno::WOULDBLOCK.into());
        }
        Ok(lock)
    }

    fn is_on(&self, file: &fs::Metadata) -> io::Result<bool> {
        let own = self.0.metadata()?;
        Ok((own.dev(), own.ino()) == (file.dev(), file.ino()))
    }
}

impl Drop for Locked {
    /// Not left to the close: a child that is just being forked has the file too, until it executes its program.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl LogFile {
    /// A log of which nothing exists yet: its file is made with the first item.
    pub fn unmade(path: PathBuf, thread: ThreadId) -> Self {
        Self {
            path,
            thread,
            file: None,
            lock: None,
            fresh: true,
            durable: 0,
            tail: Vec::new(),
            written: 0,
            untrimmed: false,
            end: 0,
            worn: false,
            no_room: false,
            items: 0,
        }
    }

    /// Opens a thread's log and repairs its end; one that does not exist is `unmade`. `durable` is how much of it had
    /// been acknowledged, 0 when nobody knows: then what is wrong may be more than a torn end, and the file is kept as it was
    /// beside the repaired one. `seen` gets the items from number `from` on.
    ///
    /// # Errors
    /// Damage before `durable`: the file is put aside, what is before the damage takes its place, and the error says
    /// where everything is. `InUse` while another has it open; `Foreign` when nobody knows it and its header is none.
    pub fn open(
        path: PathBuf,
        thread: ThreadId,
        durable: u64,
        from: u64,
        mut seen: impl FnMut(&Item),
    ) -> Result<Opened, LogError> {
        let locked = |file: Arc<File>| Locked::take(&file, &path).map(|lock| (file, lock));
        let (mut file, mut lock) = match open_existing(&path).and_then(locked) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound && durable == 0 => {
                return Ok(Opened {
                    log: Self::unmade(path, thread),
                    cut_bytes: 0,
                    kept: None,
                });
            }
            Err(error) => return Err(open_error(&path, error)),
        };
        let read = |source| LogError::Read {
            path: path.clone(),
            source,
        };
        let length = file.metadata().map_err(read)?.len();
        let mut reader = LogReader::new(BufReader::new(&*file), thread);
        let fault = loop {
            match reader.step().map_err(read)? {
                Step::Item(item) if reader.items() > from => seen(&item),
                Step::Item(_) => {}
                Step::End(fault) => break fault,
            }
        };
        let (good, items) = (reader.good_bytes(), reader.items());
        reach(FaultPoint::Opened);
        if good < durable {
            let fault = fault.unwrap_or(Fault::Short);
            return Err(put_aside(&path, thread, good, durable, items, fault));
        }
        let mut kept = None;
        if let Some(fault) = fault.filter(|_| durable == 0) {
            if good > 0 {
                let repaired = set_aside(&path, thread, good)
                    .and_then(|kept| Ok((kept, open_existing(&path).and_then(locked)?)));
                let (was, opened) = repaired.map_err(|error| open_error(&path, error))?;
                kept = Some(was);
                (file, lock) = opened;
            } else if !is_torn_header(&file).map_err(read)? {
                return Err(LogError::Foreign { path, fault });
            }
        }
        let log = Self {
            path,
            thread,
            file: Some(file),
            lock: Some(lock),
            fresh: false,
            durable: good,
            tail: Vec::new(),
            written: 0,
            untrimmed: false,
            end: good,
            worn: false,
            no_room: false,
            items,
        };
        let mut opened = log.cut(length, good, fault.is_some())?;
        opened.kept = kept;
        Ok(opened)
    }

    /// Cuts a torn end or the room off, and makes sure of what is before it: nobody knows whether that was ever synced.
    fn cut(mut self, length: u64, good: u64, is_torn: bool) -> Result<Opened, LogError> {
        let repaired = self.file.as_ref().map_or(Ok(()), |file| {
            if length > good {
                file.set_len(good)?;
            }
            file.sync_all()?;
            // Nor whether its name was.
            sync_name(&self.path)
        });
        repaired.map_err(|source| LogError::Sync {
            path: self.path.clone(),
            source,
        })?;
        // Not even a header: as good as new, but the file is there.
        self.fresh = good == 0;
        Ok(Opened {
            log: self,
            cut_bytes: if is_torn { length - good } else { 0 },
            kept: None,
        })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Items in it, those that wait included.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Bytes that are on the disk for certain.
    pub fn durable_bytes(&self) -> u64 {
        self.durable
    }

    /// Whether everything in it is on the disk.
    pub fn is_durable(&self) -> bool {
        self.tail.is_empty()
    }

    /// Forgets what is known of the open file: the next attempt opens it again and writes the whole tail.
    pub fn distrust(&mut self) {
        self.file = None;
        self.written = 0;
    }

    /// Takes an item into the tail. Writes nothing.
    pub fn push(&mut self, item: &Item) {
        self.materialise();
        encode_record(&mut self.tail, self.items, item);
        self.items += 1;
    }

    /// Takes records into the tail as they are: `items` of them, whole, of the numbers from `items()` on. Writes nothing.
    pub(crate) fn push_records(&mut self, records: &[u8], items: u64) {
        self.materialise();
        self.tail.extend_from_slice(records);
        self.items += items;
    }

    /// Gives a log of which nothing is kept its header: its file is then made even if it gets no items.
    pub fn materialise(&mut self) {
        if self.durable == 0 && self.tail.is_empty() {
            self.tail.extend_from_slice(&encode_header(self.thread));
        }
    }

    /// Writes what waits, after a failure once more to the file opened again. A tail past `TAIL_MAX_BYTES` is synced.
    ///
    /// # Errors
    /// When the second attempt fails too. Everything is kept.
    pub fn write(&mut self) -> Result<(), LogError> {
        if self.tail.is_empty() {
            return Ok(());
        }
        let is_written = self.file.is_some() && self.written == self.tail.len();
        if !is_written && self.write_once().is_err() {
            self.write_once()?;
        }
        if self.tail.len() > TAIL_MAX_BYTES {
            return self.sync();
        }
        Ok(())
    }

    /// Everything is on the disk when this returns: written, and synced by a sync that began after that. After a failure
    /// everything is written and synced once more.
    ///
    /// # Errors
    /// When the second attempt fails too. Everything is kept.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if self.tail.is_empty() {
            return Ok(());
        }
        if self.sync_once().is_err() {
            self.sync_once()?;
        }
        Ok(())
    }

    /// Makes room ready for what is appended next: zeros, written and synced. A barrier's sync then has its bytes to bring
    /// to the disk and not also the file's new size, for which a file system needs a commit of its own: measured on ext4,
    /// a third of the sync. To be called when there is time; nothing of the log depends on it, and where it fails it is
    /// not tried again, because others may need what the disk has left.
    ///
    /// # Errors
    /// When the sync fails: the file is dropped, as after any other that fails.
    pub fn prepare(&mut self) -> Result<(), LogError> {
        let is_worn = std::mem::take(&mut self.worn) && !self.no_room;
        let Some(file) = self.file.as_ref().filter(|_| is_worn) else {
            return Ok(());
        };
        let used = self.durable + self.written as u64;
        let room = used.clamp(ROOM_MIN_BYTES, ROOM_MAX_BYTES);
        if self.end - used >= room / 4 {
            return Ok(());
        }
        let end = used + room;
        if let Err(error) = zero(file, self.end, end) {
            tracing::debug!(%error, path = %self.path.display(), "there is no room for what comes next");
            self.no_room = true;
            drop(file.set_len(self.end));
            return Ok(());
        }
        reach(FaultPoint::Prepared);
        match file.sync_data() {
            Ok(()) => {
                self.end = end;
                Ok(())
            }
            Err(source) => {
                self.no_room = true;
                self.distrust();
                Err(LogError::Sync {
                    path: self.path.clone(),
                    source,
                })
            }
        }
    }

    /// Gives the room behind the log back, and the log itself: it may be another's. It is opened again for what is written
    /// after all.
    pub fn let_go(&mut self) {
        self.worn = false;
        let used = self.durable + self.written as u64;
        if let Some(file) = &self.file
            && self.end > used
        {
            // Room that stays is as good as none: whoever opens the log next cuts it off.
            drop(file.set_len(used));
        }
        self.distrust();
        self.lock = None;
    }

    /// The file, made if nothing of it is kept yet. One of which something is kept has to be there, with all of that; and
    /// with nothing more, if it was let go or is another one.
    fn open_again(&mut self) -> Result<Arc<File>, LogError> {
        let failed = |error| open_error(&self.path, error);
        if self.durable == 0 {
            let file = open_or_make(&self.path).map_err(failed)?;
            if !self.holds(&file).map_err(failed)? {
                self.lock = Some(Locked::take(&file, &self.path).map_err(failed)?);
            }
            return Ok(file);
        }
        let gone = || LogError::Gone {
            path: self.path.clone(),
        };
        let file = open_existing(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => gone(),
            _ => open_error(&self.path, error),
        })?;
        let length = file.metadata().map_err(failed)?.len();
        if length < self.durable {
            return Err(gone());
        }
        if !self.holds(&file).map_err(failed)? {
            let lock = Locked::take(&file, &self.path).map_err(failed)?;
            if file.metadata().map_err(failed)?.len() > self.durable {
                // Somebody had it since it was let go, or put another in its place: that is that writer's history now.
                return Err(LogError::InUse {
                    path: self.path.clone(),
                });
            }
            self.lock = Some(lock);
        }
        Ok(file)
    }

    /// Whether this is the file that is locked.
    fn holds(&self, file: &File) -> io::Result<bool> {
        let metadata = file.metadata()?;
        self.lock.as_ref().map_or(Ok(false), |lock| lock.is_on(&metadata))
    }

    fn write_once(&mut self) -> Result<(), LogError> {
        if self.file.is_none() {
            self.file = Some(self.open_again()?);
            self.written = 0;
            self.untrimmed = true;
        }
        let Some(file) = &self.file else { return Ok(()) };
        let at = self.durable + self.written as u64;
        reach(FaultPoint::BeforeWrite);
        let wrote = file.write_all_at(&self.tail[self.written..], at);
        // Nothing may stand behind the tail. Only of a file that was opened again: the call also gives back the blocks that
        // the file system holds ready for the next append.
        let wrote = wrote.and_then(|()| {
            if self.untrimmed {
                file.set_len(self.durable + self.tail.len() as u64)?;
            }
            Ok(())
        });
        match wrote {
            Ok(()) => {
                self.written = self.tail.len();
                let end = self.durable + self.written as u64;
                self.end = if self.untrimmed { end } else { self.end.max(end) };
                self.untrimmed = false;
                reach(FaultPoint::AfterWrite);
                Ok(())
            }
            Err(source) => {
                self.distrust();
                Err(LogError::Write {
                    path: self.path.clone(),
                    source,
                })
            }
        }
    }

    fn sync_once(&mut self) -> Result<(), LogError> {
        if self.written < self.tail.len() || self.file.is_none() {
            self.write_once()?;
        }
        let Some(file) = &self.file else { return Ok(()) };
        reach(FaultPoint::BeforeSync);
        let mut synced = file.sync_data();
        if self.fresh && synced.is_ok() {
            synced = sync_name(&self.path);
        }
        // A file without a name is on the disk and cannot be found there.
        let linked = synced.and_then(|()| has_name(file));
        match linked {
            Ok(false) => {
                self.distrust();
                Err(LogError::Gone {
                    path: self.path.clone(),
                })
            }
            Ok(true) => {
                reach(FaultPoint::AfterSync);
                self.fresh = false;
                self.durable += self.tail.len() as u64;
                self.tail.clear();
                self.tail.shrink_to(TAIL_MAX_BYTES / 64);
                self.written = 0;
                self.worn = true;
                Ok(())
            }
            Err(source) => {
                self.distrust();
                Err(LogError::Sync {
                    path: self.path.clone(),
                    source,
                })
            }
        }
    }
}

/// Whether an open file has a name. Nothing else is asked for: measured on ext4, Linux 6.18, a whole stat behind each sync
/// makes 10,000 appends with 100 flushes a fifth longer. Presumably a file whose times were looked at gets new ones with
/// its next write, and the sync behind that has its inode to bring to the disk too.
fn has_name(file: &File) -> io::Result<bool> {
    let asked = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::NLINK)?;
    Ok(asked.stx_nlink > 0)
}

fn zero(file: &File, mut at: u64, end: u64) -> io::Result<()> {
    while at < end {
        let some = ZEROS.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        file.write_all_at(&ZEROS[..some], at)?;
        at += some as u64;
    }
    Ok(())
}

fn open_existing(path: &Path) -> io::Result<Arc<File>> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed())
        .open(path)
        .and_then(ours)
}

fn open_or_make(path: &Path) -> io::Result<Arc<File>> {
    if let Some(dir) = path.parent() {
        durable_dir::make(dir)?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed())
        .open(path)
        .and_then(ours)
}

fn ours(file: File) -> io::Result<Arc<File>> {
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.mode() & 0o077 == 0 {
        return Ok(Arc::new(file));
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Whether a log whose header cannot be read is one whose first write never came to the disk, so that nothing is in it.
fn is_torn_header(mut file: &File) -> io::Result<bool> {
    io::Seek::rewind(&mut file)?;
    let mut start = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, ROOM_MAX_BYTES + 1), &mut start)?;
    Ok(start.len() < FILE_HEADER_BYTES
        || (start.len() as u64 <= ROOM_MAX_BYTES && start.iter().all(|byte| *byte == 0)))
}

fn open_error(path: &Path, error: io::Error) -> LogError {
    let path = path.to_owned();
    if error.raw_os_error() == Some(Errno::WOULDBLOCK.raw_os_error()) {
        return LogError::InUse { path };
    }
    let link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    if link || (error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()) {
        return LogError::NotOurs { path };
    }
    LogError::Open { path, source: error }
}

/// Keeps the damaged file under another name, and puts what is before the damage in its place.
fn put_aside(path: &Path, thread: ThreadId, at: u64, durable: u64, items: u64, fault: Fault) -> LogError {
    match set_aside(path, thread, at) {
        Ok(kept) => LogError::Damaged {
            path: path.to_owned(),
            kept,
            at,
            durable,
            items,
            fault,
        },
        Err(error) => open_error(path, error),
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Where damaged files of a log are kept.
fn damaged_names(path: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=DAMAGED_MAX).map(move |number| suffixed(path, &format!(".damaged-{number}")))
}

/// Removes a log, and what of it was put aside. Nobody else may have it open. False when there was none; when this returns
/// the names are gone from the disk too.
///
/// # Errors
/// `InUse`, or why something cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<bool, LogError> {
    // Held until the name is gone, so that a writer that is not known here is not robbed of its file.
    let _held = match open_existing(path).and_then(|file| Locked::take(&file, path)) {
        Ok(lock) => Some(lock),
        Err(error) if error.raw_os_error() == Some(Errno::WOULDBLOCK.raw_os_error()) => {
            return Err(open_error(path, error));
        }
        // A link, or what cannot be opened: the name is all that is removed.
        Err(_) => None,
    };
    let names = damaged_names(path).chain([suffixed(path, ".new"), path.to_owned()]);
    let mut removed = false;
    for name in names {
        match fs::remove_file(&name) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(open_error(&name, error)),
        }
    }
    if removed {
        sync_name(path).map_err(|error| open_error(path, error))?;
    }
    Ok(removed)
}

fn set_aside(path: &Path, thread: ThreadId, good: u64) -> io::Result<PathBuf> {
    let free = damaged_names(path).find(|name| !name.exists());
    let kept = free.ok_or_else(|| {
        io::Error::other("too many damaged files lie beside it; look at them and remove them")
    })?;
    let fresh = suffixed(path, ".new");
    if fs::remove_file(&fresh).is_ok() {
        tracing::warn!(path = %fresh.display(), "an unfinished repair was begun again");
    }
    let copy = open_or_make(&fresh)?;
    if good < FILE_HEADER_BYTES as u64 {
        copy.write_all_at(&encode_header(thread), 0)?;
    } else {
        let mut source = io::Read::take(File::open(path)?, good);
        io::copy(&mut source, &mut &*copy)?;
    }
    copy.sync_all()?;
    fs::hard_link(path, &kept)?;
    fs::rename(&fresh, path)?;
    sync_name(path)?;
    Ok(kept)
}
