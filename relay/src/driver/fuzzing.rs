//! For fuzz targets only: WebSockets over any stream, so that none of them needs a socket.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, Restraint, flushed, websocket};
use crate::source::Source;

/// A stream that a WebSocket may lie on.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Answers a client, as a listener does once the first byte has told.
pub async fn websocket_server(stream: impl Stream) -> io::Result<Connection> {
    Ok(flushed::connection(
        websocket::server(stream, Restraint::default()).await?,
        "fuzz".into(),
        Source::Local,
    ))
}

/// Asks a server, as a dialler does once the transport is up.
pub async fn websocket_client(url: &str, stream: impl Stream) -> io::Result<Connection> {
    Ok(flushed::connection(
        websocket::client(url, stream).await?,
        "fuzz".into(),
        Source::Local,
    ))
}
