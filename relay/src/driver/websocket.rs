//! WebSocket: the same bytes as on TCP, in binary messages whose boundaries mean nothing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_core::Stream as _;
use futures_util::Sink as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::error::{Error as SocketError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::http::header::ORIGIN;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

use super::Restraint;
use super::flushed::Holding;

/// Bytes in one message that is sent: what is in a message can no longer be overtaken.
pub const SENT_MESSAGE_MAX_BYTES: usize = 32 * 1024;
/// Bytes of a received frame. A longer one is refused on its header.
pub const FRAME_MAX_BYTES: usize = 128 * 1024;
/// Bytes of a received message, all its fragments together.
pub const MESSAGE_MAX_BYTES: usize = 1024 * 1024;
/// Bytes that may wait for the socket, answers to pings included.
pub const WRITE_BUFFER_MAX_BYTES: usize = 512 * 1024;
/// Bytes one read may bring. Each socket keeps so much from the start, and whoever has proven nothing has one, too.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Frames without data (pings, pongs, empty ones) that may come in a [`QUIET_WINDOW`] without data among them.
pub const QUIET_FRAMES_MAX: u32 = 1024;
/// Bytes that may come in a [`QUIET_WINDOW`] without completing a message.
pub const QUIET_BYTES_MAX: usize = 2 * MESSAGE_MAX_BYTES;
/// What is counted against those two is forgotten after this long: a proxy may ping an idle connection for years.
pub const QUIET_WINDOW: Duration = Duration::from_secs(60);
/// Frames without data that one poll passes over before others have their turn.
const PASSED_MAX: u32 = 32;

/// Why a WebSocket is over, beyond what its socket says.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    /// The bytes are in binary messages only.
    #[error("a text message came: this WebSocket carries binary messages, check that the peer speaks dwell")]
    Text,
    /// Pings, empty frames or fragments, and nothing else.
    #[error("more than {QUIET_FRAMES_MAX} frames or {QUIET_BYTES_MAX} bytes came without data")]
    Flood,
    /// More came from whoever had proven nothing than an opening takes.
    #[error("the other end sent more than an opening takes before it had proven anything")]
    Stranger,
    /// The transport ended without a close.
    #[error("the connection ended without a close")]
    Cut,
    /// What the library says.
    #[error("the peer broke the WebSocket protocol")]
    Protocol(#[source] Box<SocketError>),
    /// The other end is no WebSocket server, or one that does not want us.
    #[error("no WebSocket there: check the scheme, the port and the path")]
    Upgrade(#[source] Box<SocketError>),
}

impl WebSocketError {
    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Cut => io::ErrorKind::UnexpectedEof,
            Self::Text | Self::Flood | Self::Stranger | Self::Protocol(_) | Self::Upgrade(_) => {
                io::ErrorKind::InvalidData
            }
        }
    }

    fn close_code(&self) -> CloseCode {
        match self {
            Self::Text => CloseCode::Unsupported,
            Self::Flood | Self::Stranger => CloseCode::Policy,
            Self::Protocol(error) if matches!(**error, SocketError::Capacity(_)) => CloseCode::Size,
            Self::Cut | Self::Protocol(_) | Self::Upgrade(_) => CloseCode::Protocol,
        }
    }
}

impl From<WebSocketError> for io::Error {
    fn from(error: WebSocketError) -> Self {
        Self::new(error.kind(), error)
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // Each message goes to the socket at once.
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_MAX_BYTES)
        .max_message_size(Some(MESSAGE_MAX_BYTES))
        .max_frame_size(Some(FRAME_MAX_BYTES))
        .accept_unmasked_frames(false)
}

/// Asks the server at the other end of `stream` for a WebSocket. `url` is what it is told; deadlines are the caller's.
///
/// # Errors
/// What the socket says, or [`WebSocketError::Upgrade`].
pub(super) async fn client<S>(url: &str, stream: S) -> io::Result<WebSocketBytes<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = Box::pin(client_async_with_config(
        url,
        Metered::new(stream, Restraint::default()),
        Some(config()),
    ));
    Ok(WebSocketBytes::new(upgraded(
        asked.await.map(|(socket, _)| socket),
    )?))
}

/// Answers a client that asks for a WebSocket, on whatever path. Deadlines are the caller's; `restraint` is an opening's, and
/// until it is lifted the client may not send more than that.
///
/// # Errors
/// What the socket says, or [`WebSocketError::Upgrade`].
pub(super) async fn server<S>(stream: S, restraint: Restraint) -> io::Result<WebSocketBytes<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = Box::pin(accept_hdr_async_with_config(
        Metered::new(stream, restraint.clone()),
        no_browsers,
        Some(config()),
    ));
    let socket = upgraded(asked.await)?;
    restraint.opened();
    Ok(WebSocketBytes::new(socket))
}

fn upgraded<S>(result: Result<S, SocketError>) -> io::Result<S> {
    result.map_err(|error| match error {
        SocketError::Io(error) => error,
        error => WebSocketError::Upgrade(Box::new(error)).into(),
    })
}

/// A browser says which page asks; none has business here, least of all at what listens on loopback.
#[expect(clippy::result_large_err, reason = "the library's signature")]
fn no_browsers(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    if request.headers().contains_key(ORIGIN) {
        let mut refused = ErrorResponse::new(Some("not for browsers".into()));
        *refused.status_mut() = StatusCode::FORBIDDEN;
        return Err(refused);
    }
    Ok(response)
}

/// What may come without data among it.
#[derive(Debug)]
struct Quiet {
    since: Instant,
    frames: u32,
    bytes: usize,
}

impl Quiet {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            frames: 0,
            bytes: 0,
        }
    }

    /// Whether this much more is still within bounds.
    fn admits(&mut self, frames: u32, bytes: usize) -> bool {
        let now = Instant::now();
        if now.duration_since(self.since) >= QUIET_WINDOW {
            *self = Self::new();
        }
        self.frames = self.frames.saturating_add(frames);
        self.bytes = self.bytes.saturating_add(bytes);
        self.frames <= QUIET_FRAMES_MAX && self.bytes <= QUIET_BYTES_MAX
    }
}

/// Counts what comes out of the socket, so that fragments that complete nothing are seen as well.
#[derive(Debug)]
struct Metered<S> {
    inner: S,
    quiet: Quiet,
    received: usize,
    restraint: Restraint,
}

impl<S> Metered<S> {
    fn new(inner: S, restraint: Restraint) -> Self {
        Self {
            inner,
            quiet: Quiet::new(),
            received: 0,
            restraint,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.received = self.received.saturating_add(read);
        if !self.restraint.admits(self.received) {
            return Poll::Ready(Err(WebSocketError::Stranger.into()));
        }
        if !self.quiet.admits(0, read) {
            return Poll::Ready(Err(WebSocketError::Flood.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A WebSocket as a stream of bytes.
///
/// A write is one message of at most [`SENT_MESSAGE_MAX_BYTES`]; it is pending while an earlier one is not in the
/// socket, and what was taken has to be flushed. A close from the peer is the end of what is read, and nothing can
/// be written after it. Shutting down sends a close and ends the socket's writing side.
#[derive(Debug)]
pub(super) struct WebSocketBytes<S> {
    socket: WebSocketStream<Metered<S>>,
    /// Of the message that came last.
    unread: Bytes,
    ended: bool,
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketBytes<S> {
    fn new(socket: WebSocketStream<Metered<S>>) -> Self {
        Self {
            socket,
            unread: Bytes::new(),
            ended: false,
            closed: false,
        }
    }

    /// Ends it, telling the peer why; the close leaves with the next flush.
    fn refuse(&mut self, error: WebSocketError) -> io::Error {
        self.ended = true;
        let frame = CloseFrame {
            code: error.close_code(),
            reason: "".into(),
        };
        // A socket that takes no close needs none.
        drop(Pin::new(&mut self.socket).start_send(Message::Close(Some(frame))));
        error.into()
    }

    fn failed(&mut self, error: SocketError) -> Poll<io::Result<()>> {
        match error {
            SocketError::ConnectionClosed | SocketError::AlreadyClosed => {
                self.ended = true;
                Poll::Ready(Ok(()))
            }
            SocketError::Io(error) => {
                self.ended = true;
                let flood = error.get_ref().is_some_and(|cause| cause.is::<WebSocketError>());
                Poll::Ready(Err(if flood {
                    self.refuse(WebSocketError::Flood)
                } else {
                    error
                }))
            }
            SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                self.ended = true;
                Poll::Ready(Err(WebSocketError::Cut.into()))
            }
            error => Poll::Ready(Err(self.refuse(WebSocketError::Protocol(Box::new(error))))),
        }
    }

    fn send(&mut self, message: Bytes) -> io::Result<usize> {
        let taken = message.len();
        match Pin::new(&mut self.socket).start_send(Message::Binary(message)) {
            Ok(()) => Ok(taken),
            Err(error) => Err(write_error(error)),
        }
    }
}

fn write_error(error: SocketError) -> io::Error {
    match error {
        SocketError::Io(error) => error,
        SocketError::ConnectionClosed
        | SocketError::AlreadyClosed
        | SocketError::Protocol(ProtocolError::SendAfterClosing) => {
            io::Error::new(io::ErrorKind::BrokenPipe, "the peer closed the connection")
        }
        error => WebSocketError::Protocol(Box::new(error)).into(),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut passed = 0;
        loop {
            if !self.unread.is_empty() {
                let count = self.unread.len().min(buf.remaining());
                buf.put_slice(&self.unread[..count]);
                self.unread.advance(count);
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if passed == PASSED_MAX {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(data))) if !data.is_empty() => {
                    self.socket.get_mut().quiet = Quiet::new();
                    self.unread = data;
                }
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {
                    passed += 1;
                    if !self.socket.get_mut().quiet.admits(1, 0) {
                        return Poll::Ready(Err(self.refuse(WebSocketError::Flood)));
                    }
                }
                // Reading never gives a bare frame; were there one, it would not be data.
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Poll::Ready(Err(self.refuse(WebSocketError::Text)));
                }
                Some(Ok(Message::Close(_))) | None => self.ended = true,
                Some(Err(error)) => return self.failed(error),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketBytes<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(write_error)?;
        let count = bytes.len().min(SENT_MESSAGE_MAX_BYTES);
        Poll::Ready(self.send(Bytes::copy_from_slice(&bytes[..count])))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(write_error)?;
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut message = BytesMut::with_capacity(all.min(SENT_MESSAGE_MAX_BYTES));
        for slice in slices {
            let count = slice.len().min(SENT_MESSAGE_MAX_BYTES - message.len());
            message.extend_from_slice(&slice[..count]);
        }
        Poll::Ready(self.send(message.freeze()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_flush(cx)) {
            // Closed by the peer, and answered: nothing is left to flush.
            Ok(()) | Err(SocketError::ConnectionClosed | SocketError::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(write_error(error))),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
                Ok(()) | Err(SocketError::ConnectionClosed | SocketError::AlreadyClosed) => {}
                Err(error) => return Poll::Ready(Err(write_error(error))),
            }
            self.closed = true;
        }
        Pin::new(self.socket.get_mut()).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Holding for WebSocketBytes<S> {
    fn keep_alive(mut self: Pin<&mut Self>, cx: &mut Context<'_>) {
        if matches!(Pin::new(&mut self.socket).poll_ready(cx), Poll::Ready(Ok(()))) {
            // A socket that is closing needs none.
            drop(Pin::new(&mut self.socket).start_send(Message::Ping(Bytes::new())));
        }
    }
}
