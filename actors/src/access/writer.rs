//! The audit file: a thread of its own appends to it, so that a slow disk delays nobody.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use dwell_messages::PublicKey;
use tokio::sync::oneshot;

use super::audit::{Crowd, Entry, Throttle, What};
use crate::telemetry::wall_unix_ms;

/// A file of this size is put aside and a new one begun.
pub const AUDIT_FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Files put aside that are kept: `audit.jsonl.1` is the youngest.
pub const AUDIT_FILES_KEPT: u32 = 3;
/// Lines that may wait to be written; past it they are counted and left out.
pub const AUDIT_LINES_WAITING_MAX: usize = 1_024;

const AUDIT_FILE_MODE: u32 = 0o600;

enum Order {
    Write(Box<Entry>),
    Flush(oneshot::Sender<()>),
}

/// Writes down who asked for what. Without a file it goes to the log alone.
pub(crate) struct AuditLog {
    orders: Option<SyncSender<Order>>,
    throttles: Mutex<Throttles>,
}

struct Throttles {
    strangers: Throttle,
    calls: Throttle,
    /// Lines of no crowd that found the queue full.
    others_lost: u64,
}

impl Throttles {
    fn admit(&mut self, crowd: Option<Crowd>, now: Instant) -> Option<u64> {
        match crowd {
            Some(Crowd::Strangers) => self.strangers.admit(now),
            Some(Crowd::Calls) => self.calls.admit(now),
            None => Some(std::mem::take(&mut self.others_lost)),
        }
    }

    fn lost(&mut self, crowd: Option<Crowd>, left_out: u64) {
        match crowd {
            Some(Crowd::Strangers) => self.strangers.lost(left_out),
            Some(Crowd::Calls) => self.calls.lost(left_out),
            None => self.others_lost += left_out + 1,
        }
    }
}

impl AuditLog {
    /// A log that writes no file.
    pub(crate) fn nowhere() -> Self {
        let now = Instant::now();
        Self {
            orders: None,
            throttles: Mutex::new(Throttles {
                strangers: Throttle::new(now),
                calls: Throttle::new(now),
                others_lost: 0,
            }),
        }
    }

    /// Appends to the file at `path`, which only its owner can read; makes it and its directory.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = Rotating::open(path, AUDIT_FILE_MAX_BYTES)?;
        let (orders, waiting) = sync_channel(AUDIT_LINES_WAITING_MAX);
        std::thread::Builder::new()
            .name("dwell-audit".into())
            .spawn(move || write_all(&mut file, &waiting))?;
        Ok(Self {
            orders: Some(orders),
            ..Self::nowhere()
        })
    }

    /// Writes a line, soon. Never waits.
    pub(crate) fn write(&self, client: Option<&PublicKey>, handshake: Option<&[u8; 32]>, what: What) {
        let Some(orders) = &self.orders else { return };
        let crowd = what.crowd();
        let mut throttles = self.throttles.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left_out) = throttles.admit(crowd, Instant::now()) else {
            return;
        };
        let entry = Entry {
            unix_ms: wall_unix_ms(),
            client: client.copied(),
            handshake: handshake.copied(),
            what,
            left_out,
        };
        if orders.try_send(Order::Write(Box::new(entry))).is_err() {
            throttles.lost(crowd, left_out);
        }
    }

    /// Waits until what was written so far is in the file. With a full queue it does not.
    pub(crate) async fn flush(&self) {
        let Some(orders) = &self.orders else { return };
        let (done, wait) = oneshot::channel();
        if orders.try_send(Order::Flush(done)).is_ok() {
            drop(wait.await);
        }
    }
}

fn write_all(file: &mut Rotating, orders: &Receiver<Order>) {
    let mut failing = false;
    for order in orders {
        match order {
            Order::Write(entry) => match file.append(entry.to_line().as_bytes()) {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        tracing::error!(path = %file.path.display(), %error, "the audit file cannot be written");
                    }
                    failing = true;
                }
            },
            Order::Flush(done) => drop(done.send(())),
        }
    }
}

/// A file that is put aside when it is large.
struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
}

impl Rotating {
    fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = append_to(path)?;
        Ok(Self {
            path: path.to_owned(),
            bytes: file.metadata()?.len(),
            file,
            max_bytes,
        })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        // One write: two executors that share the file do not mix their lines.
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for age in (1..AUDIT_FILES_KEPT).rev() {
            match fs::rename(self.aside(age), self.aside(age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.path, self.aside(1))?;
        self.file = append_to(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        Ok(())
    }

    fn aside(&self, age: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{age}"));
        name.into()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(AUDIT_FILE_MODE)
        .custom_flags(no_link)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_private_appended_to_and_put_aside_when_it_is_large() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/audit.jsonl");
        let line = [b'x'; 100];
        for _ in 0..2 {
            let mut file = Rotating::open(&path, 1_000).unwrap();
            for _ in 0..40 {
                file.append(&line).unwrap();
            }
        }
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            AUDIT_FILE_MODE
        );
        let mut kept: Vec<_> = fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name(), entry.metadata().unwrap().len()))
            .collect();
        kept.sort();
        let names: Vec<_> = kept.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]
        );
        assert!(kept.iter().all(|(_, bytes)| *bytes <= 1_000), "{kept:?}");
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("audit.jsonl"), dir.path().join("elsewhere"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(AuditLog::open(&path).is_err());
        assert!(!target.exists());
    }

    #[tokio::test]
    async fn a_crowd_of_strangers_keeps_no_session_out_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let log = AuditLog::open(&path).unwrap();
        let stranger = || What::Authorize {
            ok: false,
            why: "the key is not listed",
        };
        for _ in 0..AUDIT_LINES_WAITING_MAX / 2 {
            log.write(Some(&PublicKey([2; 32])), Some(&[2; 32]), stranger());
        }
        log.write(Some(&PublicKey([1; 32])), Some(&[1; 32]), What::Begin);
        log.flush().await;
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("session_begin").count(), 1);
        let strangers = text.matches("refused").count();
        assert!(
            (1..AUDIT_LINES_WAITING_MAX / 2).contains(&strangers),
            "{strangers}"
        );
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_flush() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let log = AuditLog::open(&path).unwrap();
        for _ in 0..3 {
            log.write(Some(&PublicKey([1; 32])), Some(&[2; 32]), What::Begin);
        }
        log.flush().await;
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
    }
}
