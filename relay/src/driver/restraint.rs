//! What a peer that has proven nothing may make a transport hold.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that whoever dials may send before its connection is open: the request for a WebSocket with its headers, or its
/// part of a TLS handshake. Libraries would take 64 KiB of either, and keep them until the end has come.
pub const OPENING_BYTES_MAX: usize = 4 * 1024;
/// Bytes that such a peer may send over a WebSocket: the upgrade, the preamble with its token, message 1, and room.
pub const STRANGERS_BYTES_MAX: usize = 16 * 1024;
/// The same once its message 1 was answered: the first record, and what was read ahead of it.
pub const ANSWERED_BYTES_MAX: usize = 96 * 1024;

/// Shared by a connection's transport, which counts, and whoever finds out who its peer is. A transport that hands
/// on what comes as it comes, as TCP does, holds nothing and needs none: `default`.
#[derive(Clone, Debug, Default)]
pub struct Restraint(Option<Arc<AtomicUsize>>);

impl Restraint {
    /// For a peer of which nothing is known, and whose connection is not open yet.
    pub(super) fn of_an_opening() -> Self {
        Self(Some(Arc::new(AtomicUsize::new(OPENING_BYTES_MAX))))
    }

    /// Its connection is open.
    pub(super) fn opened(&self) {
        self.set(STRANGERS_BYTES_MAX);
    }

    /// Its message 1 was answered.
    pub fn answered(&self) {
        self.set(ANSWERED_BYTES_MAX);
    }

    /// It has proven who it is.
    pub fn lift(&self) {
        self.set(usize::MAX);
    }

    fn set(&self, bytes: usize) {
        if let Some(most) = &self.0 {
            most.store(bytes, Ordering::Relaxed);
        }
    }

    /// Whether so many bytes may have come in all.
    pub(super) fn admits(&self, received: usize) -> bool {
        let most = self.0.as_ref().map(|most| most.load(Ordering::Relaxed));
        most.is_none_or(|most| received <= most)
    }
}

/// More came than the opening of a connection takes.
#[derive(Debug, thiserror::Error)]
#[error("the other end sent more than an opening takes, {OPENING_BYTES_MAX} bytes of a TLS handshake")]
struct LongOpening;

/// A stream whose peer may send as much as its restraint admits.
#[derive(Debug)]
pub(super) struct Restrained<S> {
    inner: S,
    received: usize,
    restraint: Restraint,
}

impl<S> Restrained<S> {
    pub(super) fn new(inner: S, restraint: Restraint) -> Self {
        Self {
            inner,
            received: 0,
            restraint,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Restrained<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.received = self.received.saturating_add(read);
        Poll::Ready(if self.restraint.admits(self.received) {
            Ok(())
        } else {
            Err(io::Error::other(LongOpening))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Restrained<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
