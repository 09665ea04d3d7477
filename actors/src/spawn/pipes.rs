//! A process's pipes, for tokio.

use std::io;
use std::os::fd::OwnedFd;

use bytes::{Buf, Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::{Errno, ioctl_fionread};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::exit::register;

/// The most that one read takes, in bytes.
pub const READ_CHUNK_MAX_BYTES: usize = 64 * 1024;

/// How much is read without a pause before the arbiter's other tasks get their turn: some 80 µs.
const READ_TURN_MAX_BYTES: usize = 256 * 1024;

/// What a read counts at least in a turn: small ones cost their system calls.
const READ_COUNTS_MIN_BYTES: usize = 4 * 1024;

/// What is read from a terminal at once; the kernel gives no more.
const TERMINAL_READ_BYTES: usize = 4 * 1024;

/// What is read where the kernel says nothing is there: the end of the pipe, or what came in between.
const PROBE_BYTES: usize = 512;

/// The reading end of a process's standard output or error.
///
/// Each chunk is an allocation of its own length, made when the kernel has said how much there is: an idle process
/// holds no buffer, and what a retained chunk counts is what it costs.
#[derive(Debug)]
pub struct OutputPipe {
    source: Source,
    turn_bytes: usize,
}

/// The writing end of a process's standard input.
#[derive(Debug)]
pub struct InputPipe {
    pipe: Option<Sink>,
    written_bytes: u64,
}

#[derive(Debug)]
enum Source {
    Pipe(pipe::Receiver),
    Terminal(AsyncFd<OwnedFd>),
}

#[derive(Debug)]
enum Sink {
    Pipe(pipe::Sender),
    Terminal(AsyncFd<OwnedFd>),
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
    /// Takes over the reading end of a pipe, or a terminal's master.
    ///
    /// # Errors
    /// When it is neither, or the runtime's poller takes no more descriptors.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let source = if is_terminal(&fd)? {
            Source::Terminal(register(fd, Interest::READABLE)?)
        } else {
            Source::Pipe(pipe::Receiver::from_owned_fd(fd)?)
        };
        Ok(Self {
            source,
            turn_bytes: 0,
        })
    }

    /// Waits for output and reads at most `max` bytes of it, and at most [`READ_CHUNK_MAX_BYTES`]. `None` is the end:
    /// the process and everyone who inherited the pipe closed it, or the terminal was hung up.
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
        let max = max.min(READ_CHUNK_MAX_BYTES);
        loop {
            let read = match &self.source {
                Source::Pipe(pipe) => {
                    pipe.readable().await?;
                    read_pipe(pipe, max)
                }
                Source::Terminal(master) => {
                    let mut ready = master.readable().await?;
                    match ready.try_io(|master| read_terminal(master.get_ref(), max)) {
                        Ok(read) => read,
                        Err(_would_block) => Err(io::ErrorKind::WouldBlock.into()),
                    }
                }
            };
            match read {
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
}

fn read_pipe(pipe: &pipe::Receiver, max: usize) -> io::Result<Bytes> {
    let there = usize::try_from(ioctl_fionread(pipe)?).unwrap_or(usize::MAX);
    if there == 0 {
        let mut probe = [0; PROBE_BYTES];
        let probe = &mut probe[..max.min(PROBE_BYTES)];
        let read = pipe.try_read(probe)?;
        return Ok(Bytes::copy_from_slice(&probe[..read]));
    }
    // The allocator may round up; the limit is what the reader was promised room for.
    let mut chunk = bytes::BufMut::limit(BytesMut::with_capacity(there.min(max)), there.min(max));
    pipe.try_read_buf(&mut chunk)?;
    Ok(chunk.into_inner().freeze())
}

/// What a terminal has to say; nothing at its end, which the kernel calls an input/output error.
fn read_terminal(master: &OwnedFd, max: usize) -> io::Result<Bytes> {
    let mut chunk = [0; TERMINAL_READ_BYTES];
    let chunk = &mut chunk[..max.min(TERMINAL_READ_BYTES)];
    let read = read_to_the_end(|| rustix::io::read(master, &mut *chunk))?;
    Ok(Bytes::copy_from_slice(&chunk[..read]))
}

/// Reads once, and at what looks like the end once more.
///
/// The kernel looks for output first and then whether the other end is closed. What was written and closed between the
/// two is behind an end that is told too early, and there for whoever asks again: nothing can be written any more by
/// then, so the second answer is true.
fn read_to_the_end(mut read: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    match read() {
        Err(Errno::IO) => match read() {
            Err(Errno::IO) => Ok(0),
            again => again,
        },
        first => first,
    }
}

fn is_hung_up(error: &io::Error, master: &OwnedFd) -> bool {
    if error.kind() != io::ErrorKind::WouldBlock {
        return error.raw_os_error() == Some(Errno::IO.raw_os_error());
    }
    let mut look = [PollFd::new(master, PollFlags::OUT)];
    // A failed look is another attempt.
    let _ = poll(&mut look, Some(&Timespec::default()));
    look.iter().any(|fd| fd.revents().contains(PollFlags::HUP))
}

fn is_terminal(fd: &OwnedFd) -> io::Result<bool> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::CharacterDevice)
}

impl Sink {
    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.writable().await,
            // The readiness is kept: only a write that would block clears it.
            Self::Terminal(master) => master.writable().await.map(|mut ready| ready.retain_ready()),
        }
    }

    fn try_write(&self, input: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.try_write(input),
            Self::Terminal(master) => match master.try_io(Interest::WRITABLE, |master| {
                rustix::io::write(master, input).map_err(io::Error::from)
            }) {
                // Hung up: nobody reads any more. A terminal that was full before answers that it would block, for ever.
                Err(error) if is_hung_up(&error, master.get_ref()) => Err(io::ErrorKind::BrokenPipe.into()),
                written => written,
            },
        }
    }
}

impl InputPipe {
    /// Takes over the writing end of a pipe, or a terminal's master.
    ///
    /// # Errors
    /// When it is neither, or the runtime's poller takes no more descriptors.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            pipe: Some(if is_terminal(&fd)? {
                Sink::Terminal(register(fd, Interest::WRITABLE)?)
            } else {
                Sink::Pipe(pipe::Sender::from_owned_fd(fd)?)
            }),
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

    /// Ends the process's input. Closing twice is the same as once. A terminal has no end of input: to its process this
    /// says nothing, and a `^D` (byte 4) written before says what a person at it would.
    pub fn close(&mut self) {
        self.pipe = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel answers where output and the end come in the midst of a read.
    fn reads(answers: &[Result<usize, Errno>]) -> (Vec<Result<usize, Errno>>, usize) {
        let mut left = answers.iter().copied();
        let mut told = Vec::new();
        loop {
            let read = read_to_the_end(|| left.next().unwrap_or(Err(Errno::IO)));
            told.push(read);
            if read == Ok(0) {
                return (told, left.count());
            }
        }
    }

    #[test]
    fn the_end_of_a_terminal_that_is_told_too_early_is_not_believed() {
        let (early, end) = (Err(Errno::IO), Ok(0));
        assert_eq!(reads(&[Ok(7), early, Ok(9)]).0, [Ok(7), Ok(9), end]);
        assert_eq!(reads(&[early, Ok(9), early, early]).0, [Ok(9), end]);
        assert_eq!(reads(&[early, early, Ok(9)]), (vec![end], 1));
        // Anything else is told at once, and a second look's own failure is.
        assert_eq!(reads(&[Err(Errno::AGAIN)]).0, [Err(Errno::AGAIN), end]);
        assert_eq!(reads(&[early, Err(Errno::NXIO)]).0, [Err(Errno::NXIO), end]);
    }
}
