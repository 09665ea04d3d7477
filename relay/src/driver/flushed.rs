//! A stream that holds back some of what it was given (TLS, WebSocket), cut into two halves.
//!
//! Whoever writes to a bare socket need not flush: what the kernel took leaves by itself. Here a task of the
//! connection's own sees to that, under a deadline, so that a writer that looks in once and never again (an actor's
//! turn) loses nothing, and its waker is never the one the socket waits with. At most one message, or what TLS is
//! limited to, is held back: then a write is pending.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Connection, Restraint, WRITE_STALL_TIMEOUT};
use crate::source::Source;

/// How long the goodbye of a connection whose writer is gone may take.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a connection that can is pinged: proxies end what is silent for a minute.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(25);

/// A stream that holds back some of what it was given.
pub(super) trait Holding: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Says something that means nothing, if there is such a thing; it leaves with the next flush.
    fn keep_alive(self: Pin<&mut Self>, _: &mut Context<'_>) {}
}

/// Both halves of `stream`. Must be called within a tokio runtime: the task that flushes lives there.
pub(super) fn connection<S: Holding>(stream: S, peer: String, source: Source) -> Connection {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            stream: Some(stream),
            error: None,
            held_since: None,
            writer_gone: false,
            reader: None,
            writer: None,
        }),
        socket: Arc::default(),
    });
    tokio::spawn(see_off(Arc::clone(&shared)));
    Connection {
        reader: Box::new(Reader(Arc::clone(&shared))),
        writer: Box::new(Writer(shared)),
        peer,
        source,
        restraint: Restraint::default(),
        weight: 2,
    }
}

struct Shared<S> {
    state: Mutex<State<S>>,
    socket: Arc<Doorbell>,
}

struct State<S> {
    /// `None` once it failed: the peer sees the end at once.
    stream: Option<S>,
    /// Why, for whoever asks next.
    error: Option<(io::ErrorKind, String)>,
    /// Since when accepted bytes wait for the kernel.
    held_since: Option<Instant>,
    writer_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Wakes the task that flushes: the only one the socket's writable side ever knows.
#[derive(Default)]
struct Doorbell(Notify);

impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the kernel what it takes of what is held back.
    fn flush(&self, state: &mut State<S>) -> Poll<io::Result<()>> {
        let waker = Waker::from(Arc::clone(&self.socket));
        let Some(stream) = &mut state.stream else {
            return Poll::Ready(Err(state.failure()));
        };
        let flushed = Pin::new(stream).poll_flush(&mut Context::from_waker(&waker));
        match &flushed {
            Poll::Ready(Ok(())) => state.held_since = None,
            Poll::Ready(Err(error)) => state.fail(error.kind(), error.to_string()),
            Poll::Pending if state.held_since.is_none() => {
                state.held_since = Some(Instant::now());
                // Its deadline begins.
                self.socket.0.notify_one();
            }
            Poll::Pending => {}
        }
        flushed
    }

    /// One step of a write: nothing new is taken while something is held back.
    fn write(
        &self,
        cx: &Context<'_>,
        step: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if state.held_since.is_some() && self.flush(&mut state)?.is_pending() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.socket));
        let Some(stream) = &mut state.stream else {
            return Poll::Ready(Err(state.failure()));
        };
        let taken = step(Pin::new(stream), &mut Context::from_waker(&waker));
        match taken {
            Poll::Ready(Ok(_)) => {
                // Whatever the outcome, the bytes are taken: an error meets the next call.
                let _ = self.flush(&mut state);
            }
            Poll::Ready(Err(ref error)) => state.fail(error.kind(), error.to_string()),
            Poll::Pending => state.writer = Some(cx.waker().clone()),
        }
        taken
    }
}

impl<S> State<S> {
    fn fail(&mut self, kind: io::ErrorKind, why: String) {
        self.stream = None;
        self.held_since = None;
        self.error.get_or_insert((kind, why));
        self.wake_all();
    }

    fn failure(&self) -> io::Error {
        match &self.error {
            Some((kind, why)) => io::Error::new(*kind, why.clone()),
            None => io::Error::from(io::ErrorKind::BrokenPipe),
        }
    }

    fn wake_all(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

struct Reader<S>(Arc<Shared<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Reader<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let before = buf.filled().len();
        let Some(stream) = &mut state.stream else {
            return Poll::Ready(Err(state.failure()));
        };
        let read = Pin::new(stream).poll_read(cx, buf);
        match &read {
            Poll::Pending => state.reader = Some(cx.waker().clone()),
            Poll::Ready(Ok(())) if buf.filled().len() > before => {}
            // The end, or an error, has an answer: a close, or an alert.
            Poll::Ready(_) => drop(self.0.flush(&mut state)),
        }
        read
    }
}

struct Writer<S: AsyncRead + AsyncWrite + Unpin>(Arc<Shared<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Writer<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0
            .write(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().stream.as_ref().is_some_and(S::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let flushed = self.0.flush(&mut state);
        if flushed.is_pending() {
            state.writer = Some(cx.waker().clone());
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        match self.0.flush(&mut state) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let waker = Waker::from(Arc::clone(&self.0.socket));
        let Some(stream) = &mut state.stream else {
            return Poll::Ready(Ok(()));
        };
        let shut = Pin::new(stream).poll_shutdown(&mut Context::from_waker(&waker));
        if shut.is_pending() {
            state.writer = Some(cx.waker().clone());
            state.held_since.get_or_insert_with(Instant::now);
            self.0.socket.0.notify_one();
        }
        shut
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Drop for Writer<S> {
    fn drop(&mut self) {
        self.0.lock().writer_gone = true;
        self.0.socket.0.notify_one();
    }
}

/// What the connection's task found to do.
enum Next {
    /// Nothing, until the doorbell rings.
    Wait,
    /// What is held back has to be gone by then.
    WaitUntil(Instant),
    /// The writer is gone.
    Goodbye,
    /// The stream is gone.
    Over,
}

/// Flushes what others left, until the writer is gone; then says goodbye.
async fn see_off<S: Holding>(shared: Arc<Shared<S>>) {
    loop {
        match look(&shared) {
            Next::Over => return,
            Next::Goodbye => break,
            Next::Wait => {
                if timeout(KEEP_ALIVE_INTERVAL, shared.socket.0.notified())
                    .await
                    .is_err()
                {
                    keep_alive(&shared);
                }
            }
            Next::WaitUntil(deadline) => {
                if timeout_at(deadline, shared.socket.0.notified()).await.is_err() {
                    let why = format!(
                        "the peer took no byte for {} s: it is stuck or the path to it is; dial again",
                        WRITE_STALL_TIMEOUT.as_secs()
                    );
                    shared.lock().fail(io::ErrorKind::TimedOut, why);
                }
            }
        }
    }
    let goodbye = poll_fn(|cx| {
        let mut state = shared.lock();
        match &mut state.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    });
    if !matches!(timeout(GOODBYE_TIMEOUT, goodbye).await, Ok(Ok(()))) {
        let why = "the connection could not be closed in order".into();
        shared.lock().fail(io::ErrorKind::ConnectionAborted, why);
    }
}

fn keep_alive<S: Holding>(shared: &Shared<S>) {
    let mut state = shared.lock();
    let waker = Waker::from(Arc::clone(&shared.socket));
    if let Some(stream) = &mut state.stream {
        Pin::new(stream).keep_alive(&mut Context::from_waker(&waker));
        let _ = shared.flush(&mut state);
    }
}

fn look<S: AsyncRead + AsyncWrite + Unpin>(shared: &Shared<S>) -> Next {
    let mut state = shared.lock();
    if state.held_since.is_some() {
        let _ = shared.flush(&mut state);
    }
    if state.stream.is_none() {
        return Next::Over;
    }
    if state.writer_gone {
        return Next::Goodbye;
    }
    match state.held_since {
        Some(since) => Next::WaitUntil(since + WRITE_STALL_TIMEOUT),
        None => {
            // Also when nothing was held back: the socket may have asked whoever wrote to come again.
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
            Next::Wait
        }
    }
}
