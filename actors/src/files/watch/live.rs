//! A watch that is in place. Its events lie with the kernel until somebody waits for them, so that none is lost before.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dwell_messages::{ErrorCode, WireError};
use rustix::fs::inotify::Reader;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::sync::{Mutex, OwnedSemaphorePermit, watch};

use super::rule::Rule;
use crate::files::disk;
use crate::spawn::register;

/// Bytes of events that are read at a time, 15 of the longest: then others on the thread have their turn.
const EVENTS_BYTES: usize = 4_096;

struct Live {
    inotify: OwnedFd,
    rule: Rule,
    /// From then on nothing is read any more.
    is_seen: AtomicBool,
    /// A descriptor is registered with a reactor once.
    turn: Mutex<()>,
}

/// What its handle names. Dropping it ends it, and tells whoever waits.
pub(crate) struct Placed {
    live: Arc<Live>,
    ends: watch::Sender<()>,
    room: Option<OwnedSemaphorePermit>,
}

/// What one reading came to.
enum Read {
    Seen,
    /// There may be more.
    Nothing,
    /// There is no more.
    Empty,
}

impl Placed {
    pub(super) fn new(inotify: OwnedFd, rule: Rule) -> Self {
        let live = Live {
            inotify,
            rule,
            is_seen: AtomicBool::new(false),
            turn: Mutex::new(()),
        };
        Self {
            live: Arc::new(live),
            ends: watch::Sender::new(()),
            room: None,
        }
    }

    /// Its place among the executor's watches, given back when it ends.
    pub(crate) fn hold(&mut self, room: OwnedSemaphorePermit) {
        self.room = Some(room);
    }

    /// For whoever waits.
    pub(crate) fn watcher(&self) -> Watcher {
        Watcher {
            live: Arc::clone(&self.live),
            ended: self.ends.subscribe(),
        }
    }
}

/// Waits for a watch.
pub(crate) struct Watcher {
    live: Arc<Live>,
    ended: watch::Receiver<()>,
}

impl Watcher {
    /// Returns once it has seen something, at once where it has before. Cancellation safe: what it sees it sees for whoever
    /// waits next, too. To be awaited on a thread with a reactor.
    ///
    /// # Errors
    /// `UnknownHandle`: it has ended. Otherwise the kernel's own.
    pub(crate) async fn seen(mut self) -> Result<(), WireError> {
        tokio::select! {
            biased;
            // Nothing is ever sent.
            _ = self.ended.changed() => Err(disk::unknown()),
            seen = self.live.seen() => seen,
        }
    }
}

impl Live {
    async fn seen(&self) -> Result<(), WireError> {
        let _turn = self.turn.lock().await;
        if self.is_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let readable = register(self.inotify.as_fd(), Interest::READABLE).map_err(|error| lost(&error))?;
        loop {
            let mut ready = readable.readable().await.map_err(|error| lost(&error))?;
            match self.read() {
                Read::Seen => {
                    self.is_seen.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Read::Empty => ready.clear_ready(),
                // A directory where much happens is not to hold up its thread.
                Read::Nothing => tokio::task::yield_now().await,
            }
        }
    }

    fn read(&self) -> Read {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(std::ffi::CStr::to_bytes);
                    if self.rule.is_seen(event.wd(), event.events(), name) {
                        return Read::Seen;
                    }
                }
                Err(Errno::AGAIN) => return Read::Empty,
                Err(Errno::INTR) => return Read::Nothing,
                // What cannot be read may be anything.
                Err(_) => return Read::Seen,
            }
            if events.is_buffer_empty() {
                return Read::Nothing;
            }
        }
    }
}

fn lost(error: &std::io::Error) -> WireError {
    WireError::new(ErrorCode::ResourceExhausted, "the watch could not be waited for")
        .with_errno(error.raw_os_error())
}
