//! Output that nobody takes, on the executor's disk: bounded, in a file without a name that goes with the process.
//!
//! A byte stands at its offset modulo the bound, so what has been delivered makes room for what comes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustix::fs::{Mode, OFlags};

/// Bytes of one process's stream kept on disk unless its start or the executor says otherwise.
pub const SPOOL_BYTES: u64 = 1 << 30;
/// Bytes written or read at once.
const STEP_BYTES: u64 = 64 * 1024;

/// Where spools are kept, and how large one may be.
#[derive(Clone, Debug)]
pub(crate) struct SpoolPlace {
    pub(crate) dir: PathBuf,
    pub(crate) limit: u64,
}

impl SpoolPlace {
    /// As large as a start asks for, but not larger than the operator allows.
    pub(crate) fn at_most(&self, asked: Option<u64>) -> Self {
        Self {
            dir: self.dir.clone(),
            limit: asked.map_or(self.limit, |asked| asked.min(self.limit)),
        }
    }
}

/// One stream's spool: the bytes from `start` to `end`.
pub(super) struct Spool {
    dir: PathBuf,
    limit: u64,
    file: Option<Arc<File>>,
    start: u64,
    end: u64,
    failed: bool,
}

impl Spool {
    /// Nothing, of a stream of which `offset` bytes have been delivered.
    pub(super) fn new(place: &SpoolPlace) -> Self {
        Self {
            dir: place.dir.clone(),
            limit: place.limit,
            file: None,
            start: 0,
            end: 0,
            failed: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes that fit without dropping any.
    pub(super) fn room(&self) -> u64 {
        if self.failed {
            0
        } else {
            self.limit - (self.end - self.start)
        }
    }

    /// Whether it can hold anything at all.
    pub(super) fn is_usable(&self) -> bool {
        !self.failed && self.limit >= STEP_BYTES
    }

    /// The offset of the oldest byte it holds.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Appends what stands at `offset`, the end of what it holds; where there is no room the oldest bytes go.
    ///
    /// # Errors
    /// What the disk says; nothing was appended then, the bytes come back, and nothing more will be.
    pub(super) async fn append(&mut self, offset: u64, data: Bytes) -> Result<(), (io::Error, Bytes)> {
        if self.is_empty() {
            (self.start, self.end) = (offset, offset);
        }
        let file = match self.open() {
            Ok(file) => file,
            Err(error) => {
                self.failed = true;
                return Err((error, data));
            }
        };
        let (at, limit, bytes) = (self.end, self.limit, data.clone());
        let written = on_disk(move || {
            for (place, range) in pieces(at, bytes.len(), limit) {
                file.write_all_at(&bytes[range], place)?;
            }
            Ok(())
        })
        .await;
        if let Err(error) = written {
            self.failed = true;
            return Err((error, data));
        }
        self.end += data.len() as u64;
        self.start = self.start.max(self.end.saturating_sub(self.limit));
        Ok(())
    }

    /// Takes at most `max` bytes from its beginning.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) async fn take(&mut self, max: u64) -> io::Result<Bytes> {
        let file = self.open()?;
        let (at, limit) = (self.start, self.limit);
        let length = usize::try_from((self.end - at).min(max).min(STEP_BYTES)).unwrap_or(usize::MAX);
        let data = on_disk(move || {
            let mut data = BytesMut::zeroed(length);
            for (place, range) in pieces(at, length, limit) {
                file.read_exact_at(&mut data[range], place)?;
            }
            Ok(data.freeze())
        })
        .await?;
        self.start += data.len() as u64;
        if self.is_empty() {
            // Its blocks go back to the disk with it.
            self.file = None;
        }
        Ok(data)
    }

    fn open(&mut self) -> io::Result<Arc<File>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(unnamed(&self.dir)?);
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }
}

/// A file in this directory that nobody else can open and that goes with its last descriptor.
fn unnamed(dir: &Path) -> io::Result<File> {
    std::fs::create_dir_all(dir)?;
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(fd))
}

async fn on_disk<T: Send + 'static>(run: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(run).await.map_err(io::Error::other)?
}

/// Where bytes that stand at an offset lie in the file: at most two pieces, since no step is longer than the bound.
fn pieces(at: u64, length: usize, limit: u64) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let place = at % limit;
    let first = usize::try_from(limit - place).unwrap_or(usize::MAX).min(length);
    [(place, 0..first), (0, first..length)]
        .into_iter()
        .filter(|(_, range)| !range.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(limit: u64) -> SpoolPlace {
        let dir = std::env::temp_dir().join("dwell-spool-test");
        SpoolPlace { dir, limit }
    }

    fn bytes(from: u64, length: u64) -> Bytes {
        (from..from + length)
            .map(|at| (at % 251) as u8)
            .collect::<Vec<_>>()
            .into()
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_however_often_it_goes_round() {
        let mut spool = Spool::new(&place(STEP_BYTES));
        let (mut put, mut taken) = (10, 10);
        for step in 1..200_u64 {
            let length = (step * 977) % 40_000 + 1;
            if length <= spool.room() {
                spool.append(put, bytes(put, length)).await.unwrap();
                put += length;
            } else {
                let data = spool.take(length).await.unwrap();
                assert_eq!(data, bytes(taken, data.len() as u64));
                taken += data.len() as u64;
            }
        }
        while !spool.is_empty() {
            let data = spool.take(u64::MAX).await.unwrap();
            assert_eq!(data, bytes(taken, data.len() as u64));
            taken += data.len() as u64;
        }
        assert_eq!(put, taken);
    }

    #[tokio::test]
    async fn where_there_is_no_room_the_oldest_bytes_go_and_no_others() {
        let mut spool = Spool::new(&place(STEP_BYTES));
        let mut put = 0;
        for _ in 0..10 {
            spool.append(put, bytes(put, 50_000)).await.unwrap();
            put += 50_000;
        }
        assert_eq!(spool.start(), put - STEP_BYTES);
        let data = spool.take(u64::MAX).await.unwrap();
        assert_eq!(data, bytes(put - STEP_BYTES, STEP_BYTES));
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_gives_the_bytes_back_and_is_not_asked_again() {
        let mut spool = Spool::new(&SpoolPlace {
            dir: "/proc/nowhere".into(),
            limit: STEP_BYTES,
        });
        let (_, data) = spool.append(0, bytes(0, 10)).await.unwrap_err();
        assert_eq!(data, bytes(0, 10));
        assert!(!spool.is_usable() && spool.room() == 0 && spool.is_empty());
    }
}
