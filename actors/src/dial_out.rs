//! Connections to servers that are none of dwell's: TCP, and TLS where it is asked for. The one connector for all HTTP.

use std::io;

use dwell_relay::driver::tls::Trust;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A connection, with TLS or without.
pub(crate) type Stream = Box<dyn Duplex>;

/// How a connection is protected.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protection<'a> {
    /// By TLS, whose certificates these vouch for.
    Tls(&'a Trust),
    /// Not at all.
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "models are asked by TLS or on this machine")
    )]
    Clear,
    /// Not at all, and so on this machine only.
    #[cfg_attr(
        not(feature = "responses"),
        expect(dead_code, reason = "what a client asks for may leave the machine")
    )]
    ClearHere,
}

/// Dials. Deadlines are the caller's; cancellation safe.
///
/// # Errors
/// What the system or TLS says; `PermissionDenied` where [`Protection::ClearHere`] leads to another machine.
pub(crate) async fn dial(host: &str, port: u16, protection: Protection<'_>) -> io::Result<Stream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    match protection {
        Protection::Tls(trust) => {
            let secure = trust.connect(host, stream).await;
            Ok(Box::new(secure.map_err(io::Error::other)?))
        }
        Protection::Clear => Ok(Box::new(stream)),
        // A name of this machine may lead elsewhere, and what is secret goes in the clear.
        Protection::ClearHere if !stream.peer_addr()?.ip().is_loopback() => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it leads to another machine, where nothing is sent in the clear",
        )),
        Protection::ClearHere => Ok(Box::new(stream)),
    }
}
