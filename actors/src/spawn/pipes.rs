//! A process's pipes, for tokio.

use std::io;
use std::os::fd::OwnedFd;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::ioctl_fionread;
use tokio::net::unix::pipe;

/// The most that one read takes, in bytes.
pub const READ_CHUNK_MAX_BYTES: usize = 64 * 1024;

/// How much is read without a pause before the arbiter's other tasks get their turn: some 80 µs.
const READ_TURN_MAX_BYTES: usize = 256 * 1024;

/// What a read counts at least in a turn: small ones cost their system calls.
const READ_COUNTS_MIN_BYTES: usize = 4 * 1024;

/// What is read where the kernel says nothing is there: the end of the pipe, or what came in between.
const PROBE_BYTES: usize = 512;

/// The reading end of a process's standard output or error.
///
/// Each chunk is an allocation of its own length, made when the kernel has said how much there is: an idle process
/// holds no buffer, and what a retained chunk counts is what it costs.
#[derive(Debug)]
pub struct OutputPipe {
    pipe: pipe::Receiver,
    turn_bytes: usize,
}

/// The writing end of a process's standard input.
#[derive(Debug)]
pub struct InputPipe {
    pipe: Option<pipe::Sender>,
    written_bytes: u64,
}

/// Why a process did not take its input.
#[derive(Debug, thiserror::Error)]
pub enum StdinError {
    /// The process, and whoever inherited its input, closed it; or we did.
    #[error("standard input is closed: the process takes no more")]
    Closed,
    /// Anything else.
    #[error("writing to standard input failed")]
    Io(#[source] io::Error),
}

impl OutputPipe {
    /// Takes over the reading end of a pipe.
    ///
    /// # Errors
    /// When it is not one, or the runtime's poller takes no more descriptors.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pipe: pipe::Receiver::from_owned_fd(fd)?,
            turn_bytes: 0,
        })
    }

    /// Waits for output and reads at most `max` bytes of it, and at most [`READ_CHUNK_MAX_BYTES`]. `None` is the end:
    /// the process and everyone who inherited the pipe closed it.
    ///
    /// Cancellation safe: nothing is read before the future is ready.
    ///
    /// # Errors
    /// `InvalidInput` when `max` is zero, and what reading answers.
    pub async fn read_chunk(&mut self, max: usize) -> io::Result<Option<Bytes>> {
        if max == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a read of zero bytes cannot tell the end",
            ));
        }
        if self.turn_bytes >= READ_TURN_MAX_BYTES {
            self.turn_bytes = 0;
            tokio::task::yield_now().await;
        }
        loop {
            self.pipe.readable().await?;
            match self.read_now(max.min(READ_CHUNK_MAX_BYTES)) {
                Ok(chunk) if chunk.is_empty() => return Ok(None),
                Ok(chunk) => {
                    self.turn_bytes += chunk.len().max(READ_COUNTS_MIN_BYTES);
                    return Ok(Some(chunk));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.turn_bytes = 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read_now(&self, max: usize) -> io::Result<Bytes> {
        let there = usize::try_from(ioctl_fionread(&self.pipe)?).unwrap_or(usize::MAX);
        if there == 0 {
            let mut probe = [0; PROBE_BYTES];
            let probe = &mut probe[..max.min(PROBE_BYTES)];
            let read = self.pipe.try_read(probe)?;
            return Ok(Bytes::copy_from_slice(&probe[..read]));
        }
        // The allocator may round up; the limit is what the reader was promised room for.
        let mut chunk = bytes::BufMut::limit(BytesMut::with_capacity(there.min(max)), there.min(max));
        self.pipe.try_read_buf(&mut chunk)?;
        Ok(chunk.into_inner().freeze())
    }
}

impl InputPipe {
    /// Takes over the writing end of a pipe.
    ///
    /// # Errors
    /// When it is not one, or the runtime's poller takes no more descriptors.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pipe: Some(pipe::Sender::from_owned_fd(fd)?),
            written_bytes: 0,
        })
    }

    /// Writes all of `input`, taking from its front what the pipe has accepted.
    ///
    /// Cancellation safe: after a dropped future `input` holds exactly what was not written, and
    /// [`written_bytes`](Self::written_bytes) counts what was. The same holds after an error.
    ///
    /// # Errors
    /// [`StdinError::Closed`] when nobody reads the pipe any more, or after [`close`](Self::close). That the process is
    /// not killed by `SIGPIPE` rests on Rust's runtime ignoring it, which an embedding program must not undo.
    pub async fn write_all(&mut self, input: &mut Bytes) -> Result<(), StdinError> {
        let pipe = self.pipe.as_ref().ok_or(StdinError::Closed)?;
        while input.has_remaining() {
            pipe.writable().await.map_err(StdinError::Io)?;
            match pipe.try_write(input) {
                Ok(accepted) => {
                    input.advance(accepted);
                    self.written_bytes += accepted as u64;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    io::ErrorKind::BrokenPipe => {
                        self.pipe = None;
                        return Err(StdinError::Closed);
                    }
                    _ => return Err(StdinError::Io(error)),
                },
            }
        }
        Ok(())
    }

    /// How many bytes the pipe has accepted since it was opened.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Whether it is closed on our side.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.pipe.is_none()
    }

    /// Ends the process's input. Closing twice is the same as once.
    pub fn close(&mut self) {
        self.pipe = None;
    }
}
