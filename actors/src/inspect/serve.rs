//! The answering end: one question a connection, one connection at a time, each within two seconds.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::place::Place;
use super::{QUESTION, snapshot};
use crate::telemetry::Collector;

/// Bytes of a question.
pub const QUESTION_MAX_BYTES: usize = 256;
/// Bytes of an answer: more than `view::ROWS_MAX` rows of every table take.
pub const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long one connection may take.
const SERVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A running server; it ends, and its socket goes, when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    place: Arc<Place>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Starts its thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(place: Place, collector: Collector) -> io::Result<Self> {
        let (place, stop) = (Arc::new(place), Arc::new(AtomicBool::new(false)));
        let (listening, stopping) = (Arc::clone(&place), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("dwell-inspect".into())
            .spawn(move || accept(&listening, &collector, &stopping))?;
        Ok(Self { place, stop })
    }

    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // It waits for a connection: this is one.
        if let (Some(dir), Some(name)) = (
            self.path().parent(),
            self.path().file_name().and_then(|name| name.to_str()),
        ) {
            drop(super::place::connect(dir, name));
        }
        // Its thread has the place still, for as long as it takes to see that.
        drop(std::fs::remove_file(self.path()));
    }
}

fn accept(place: &Place, collector: &Collector, stop: &AtomicBool) {
    loop {
        let accepted = place.listener.accept();
        if stop.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = serve(stream, collector) {
                    tracing::debug!(%error, "a question about what is unfinished was not answered");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for inspection could not be accepted");
                // Without descriptors this would spin; a thread of its own may wait.
                std::thread::park_timeout(Duration::from_millis(100));
            }
        }
    }
}

fn serve(mut stream: UnixStream, collector: &Collector) -> io::Result<()> {
    if !is_ours(&stream)? {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "it is another user's process",
        ));
    }
    let ends = Instant::now() + SERVE_TIMEOUT;
    let mut question = Vec::new();
    while !question.ends_with(b"\n") {
        if question.len() >= QUESTION_MAX_BYTES {
            return Err(io::Error::new(ErrorKind::InvalidData, "the question is too long"));
        }
        let mut buffer = [0; QUESTION_MAX_BYTES];
        stream.set_read_timeout(Some(left(ends)?))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => question.extend_from_slice(&buffer[..read]),
        }
    }
    if question != QUESTION.as_bytes() {
        return write_all(
            &mut stream,
            b"{\"error\":\"unknown question: update this side\"}\n",
            ends,
        );
    }
    let mut answer = serde_json::to_vec(&snapshot::take(collector))?;
    answer.push(b'\n');
    if answer.len() > ANSWER_MAX_BYTES {
        return Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long"));
    }
    write_all(&mut stream, &answer, ends)
}

/// Whether the other end is a process of this user, or of root.
pub(super) fn is_ours(stream: &UnixStream) -> io::Result<bool> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(may_ask(peer.uid.as_raw(), rustix::process::geteuid().as_raw()))
}

fn may_ask(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

pub(super) fn left(ends: Instant) -> io::Result<Duration> {
    let left = ends.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// As `Write::write_all`, within what time is left.
pub(super) fn write_all(stream: &mut UnixStream, mut bytes: &[u8], ends: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(ends)?))?;
        match stream.write(bytes)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_and_root_may_ask() {
        assert!(may_ask(1_000, 1_000) && may_ask(0, 1_000));
        assert!(!may_ask(1_001, 1_000) && !may_ask(1_000, 0));
    }
}
