//! A client's WebSocket, and whether it acknowledges at once what it reads.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::peer::Trouble;

/// The largest message that is taken, whole and in one piece.
const MESSAGE_MAX_BYTES: usize = 64 << 20;
/// What is held back with a socket that takes nothing.
const WRITE_BUFFER_MAX_BYTES: usize = 4 << 20;
/// What is read at a time.
const READ_BUFFER_BYTES: usize = 128 * 1024;

pub(crate) type Socket = WebSocketStream<Wire>;

/// A TCP connection that says after each read that what came has come, where it is quick. The kernel keeps no memory
/// of that wish, so it is said each time.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    quick: bool,
}

impl Wire {
    /// An acknowledgement that is late is slow, and no error.
    fn acknowledge(&self) {
        if self.quick
            && let Err(error) = sockopt::set_tcp_quickack(&self.stream, true)
        {
            tracing::debug!(%error, "quick acknowledgements are not to be had");
        }
    }
}

/// Connects, and upgrades.
pub(crate) async fn connect(address: SocketAddr, quick: bool) -> Result<Socket, Trouble> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| Trouble::failed("connecting", error))?;
    stream
        .set_nodelay(true)
        .map_err(|error| Trouble::failed("connecting", error))?;
    let wire = Wire { stream, quick };
    wire.acknowledge();
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_MAX_BYTES)
        .max_message_size(Some(MESSAGE_MAX_BYTES))
        .max_frame_size(Some(MESSAGE_MAX_BYTES));
    let url = format!("ws://{address}/");
    let upgraded = tokio_tungstenite::client_async_with_config(url, wire, Some(config)).await;
    upgraded
        .map(|(socket, _)| socket)
        .map_err(|error| Trouble::failed("the upgrade to a WebSocket", error))
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            self.acknowledge();
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
