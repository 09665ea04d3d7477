//! TCP, set up for small messages and for priorities: no Nagle, little unsent data in the kernel.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::time::timeout;

use super::{BoxFuture, Connection, Dial, Listen, Restraint};
use crate::source::Source;

/// How long a connection may take to come up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Unsent bytes the kernel takes before it says "not writable": sealing fixes the order, so what lies there can no
/// longer be overtaken.
pub const NOTSENT_LOWAT_BYTES: u32 = 16 * 1024;
/// How long sent bytes may go unacknowledged before the kernel gives the connection up; its own default is some 15 min.
pub const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Dials `host:port`.
///
/// # Errors
/// What the system says; [`io::ErrorKind::TimedOut`] after [`CONNECT_TIMEOUT`].
pub async fn connect(address: impl ToSocketAddrs) -> io::Result<Connection> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let peer = stream.peer_addr()?;
    prepare(&stream)?;
    Ok(halves(stream, peer))
}

/// Sets a socket's options, whatever runs on it.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    }
    Ok(())
}

/// The halves of a socket that was prepared.
pub(super) fn halves(stream: TcpStream, peer: SocketAddr) -> Connection {
    let (reader, writer) = stream.into_split();
    Connection {
        reader: Box::new(reader),
        writer: Box::new(writer),
        peer: peer.to_string(),
        source: Source::from(peer.ip()),
        restraint: Restraint::default(),
        weight: 1,
    }
}

/// Dials TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(connect(address))
    }
}

/// Listens on a TCP address.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    local: SocketAddr,
}

impl Listener {
    /// Binds. Port 0 takes a free one; see [`Listener::local_addr`].
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let inner = TcpListener::bind(address).await?;
        let local = inner.local_addr()?;
        Ok(Self { inner, local })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Listen for Listener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let (stream, peer) = self.inner.accept().await?;
            prepare(&stream)?;
            Ok(halves(stream, peer))
        })
    }

    fn address(&self) -> String {
        self.local.to_string()
    }

    fn is_loopback(&self) -> bool {
        self.local.ip().is_loopback()
    }
}
