//! The writing half of a connection that an actor's turn may use as well as the task that owns it.
//!
//! A turn that finds it idle writes at once what the kernel takes: the task then has nothing to do, and one wake-up of
//! it a message is saved. What the kernel does not take is the task's, which can wait for it.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncWrite;

/// See the module. Clones share the connection; it is closed with the last.
#[derive(Clone)]
pub(crate) struct SharedWriter(Rc<Inner>);

struct Inner {
    writer: RefCell<Box<dyn AsyncWrite + Send + Unpin>>,
    busy: Cell<bool>,
}

/// While it lives, turns leave the writer alone.
#[must_use = "dropping it lets turns write"]
pub(crate) struct Busy<'a>(&'a Cell<bool>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl SharedWriter {
    pub(crate) fn new(writer: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self(Rc::new(Inner {
            writer: RefCell::new(writer),
            busy: Cell::new(false),
        }))
    }

    /// The task has bytes of its own to write: what follows them must not overtake them.
    pub(crate) fn busy(&self) -> Busy<'_> {
        self.0.busy.set(true);
        Busy(&self.0.busy)
    }

    /// Whether the task has bytes of its own to write.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.busy.get()
    }

    /// Writes what the kernel takes now: 0 when that is nothing, or when the task writes. An error is left for the
    /// task to meet.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> usize {
        if self.0.busy.get() {
            return 0;
        }
        let mut writer = self.0.writer.borrow_mut();
        let mut nobody = Context::from_waker(Waker::noop());
        let written = if writer.is_write_vectored() {
            Pin::new(&mut *writer).poll_write_vectored(&mut nobody, slices)
        } else {
            let first = slices.first().map_or(&[][..], |slice| slice);
            Pin::new(&mut *writer).poll_write(&mut nobody, first)
        };
        match written {
            Poll::Ready(Ok(bytes)) => bytes,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        }
    }
}

impl AsyncWrite for SharedWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.writer.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.writer.borrow_mut()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.writer.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.writer.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.writer.borrow_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_turn_writes_what_the_other_end_takes_and_leaves_the_rest() {
        let (near, mut far) = tokio::io::duplex(4);
        let writer = SharedWriter::new(Box::new(near));
        assert_eq!(writer.try_write(&[IoSlice::new(b"abcdef")]), 4);
        assert_eq!(writer.try_write(&[IoSlice::new(b"ef")]), 0, "the pipe is full");
        let mut got = [0; 4];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abcd");
    }

    #[tokio::test]
    async fn a_turn_leaves_the_writer_to_a_task_that_is_busy_with_it() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut writer = SharedWriter::new(Box::new(near));
        let turn = writer.clone();
        let task = writer.clone();
        let busy = task.busy();
        assert_eq!(turn.try_write(&[IoSlice::new(b"late")]), 0);
        writer.write_all(b"first").await.unwrap();
        drop(busy);
        assert_eq!(turn.try_write(&[IoSlice::new(b"late")]), 4);
        drop((writer, turn, task));
        let mut got = String::new();
        far.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "firstlate");
    }
}
