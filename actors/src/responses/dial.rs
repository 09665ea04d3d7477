//! A connection to a model's server: TCP, and TLS unless it is on this machine.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::config::Config;
use super::error::ResponsesError;

/// Bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A connection, with TLS or without.
pub(super) type Stream = Box<dyn Duplex>;

/// Dials. The deadline is the caller's.
///
/// # Errors
/// [`ResponsesError::Unreachable`], with what the system or TLS says.
pub(super) async fn dial(config: &Config) -> Result<Stream, ResponsesError> {
    connect(config)
        .await
        .map_err(|source| ResponsesError::Unreachable {
            authority: config.endpoint.authority(),
            source: Arc::new(source),
        })
}

async fn connect(config: &Config) -> io::Result<Stream> {
    let endpoint = &config.endpoint;
    let stream = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
    stream.set_nodelay(true)?;
    if endpoint.is_secure() {
        let secure = config.trust.connect(endpoint.host(), stream).await;
        return Ok(Box::new(secure.map_err(io::Error::other)?));
    }
    // A name of this machine may lead elsewhere, and the key goes in the clear.
    if !stream.peer_addr()?.ip().is_loopback() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it leads to another machine, where nothing is sent in the clear",
        ));
    }
    Ok(Box::new(stream))
}
