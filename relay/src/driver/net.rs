//! The network: what an address says is dialled, and one port serves TCP, WebSockets and, given a certificate, both
//! in TLS. A dialler's first byte tells them apart: the preamble's magic, the `G` of an HTTP request, a TLS record.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::address::{NetAddress, Scheme};
use super::flushed::{self, Holding};
use super::restraint::Restrained;
use super::tcp::{self, CONNECT_TIMEOUT};
use super::tls::{Certificate, Trust};
use super::{BoxFuture, Connection, Listen, Restraint, websocket};
use crate::source::Source;
use crate::strangers::{Openings, OpeningsLimits, Rush};

/// How long a dialler may take for all that comes before its preamble.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections whose opening is under way. With one more the oldest is dropped, of the source with the most: honest
/// ones take milliseconds.
pub const OPENINGS_MAX: usize = 64;

/// The first byte of an HTTP request for a WebSocket.
const FIRST_OF_GET: u8 = b'G';
/// The first byte of a TLS handshake.
const FIRST_OF_TLS: u8 = 0x16;

/// Dials an address. `trust` is for those with TLS in them.
///
/// # Errors
/// What the system says; [`io::ErrorKind::TimedOut`] after [`CONNECT_TIMEOUT`] for everything together;
/// [`io::ErrorKind::InvalidInput`] when the text is no address. A `TlsError` or `WebSocketError` may be in it.
pub async fn dial(address: &str, trust: &Trust) -> io::Result<Connection> {
    let address: NetAddress = address
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    timeout(CONNECT_TIMEOUT, dial_now(&address, trust))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn dial_now(address: &NetAddress, trust: &Trust) -> io::Result<Connection> {
    let stream = TcpStream::connect(address.authority()).await?;
    let peer = stream.peer_addr()?;
    tcp::prepare(&stream)?;
    let peer_text = format!("{peer} ({})", Kind::of(address.scheme()));
    let source = Source::from(peer.ip());
    match address.scheme() {
        Scheme::Tcp => Ok(tcp::halves(stream, peer)),
        Scheme::Tls => {
            let stream = trust.connect(address.host(), stream).await?;
            Ok(flushed::connection(stream, peer_text, source))
        }
        Scheme::Ws => {
            let stream = websocket::client(&address.to_string(), stream).await?;
            Ok(flushed::connection(stream, peer_text, source))
        }
        Scheme::Wss => {
            let stream = trust.connect(address.host(), stream).await?;
            let stream = websocket::client(&address.to_string(), stream).await?;
            Ok(flushed::connection(stream, peer_text, source))
        }
    }
}

/// How a connection is named to people.
struct Kind(&'static str);

impl Kind {
    fn of(scheme: Scheme) -> Self {
        Self(match scheme {
            Scheme::Tcp => "TCP",
            Scheme::Tls => "TLS",
            Scheme::Ws => "WebSocket",
            Scheme::Wss => "WebSocket in TLS",
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Listens on a TCP address for all that [`dial`] may bring.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    local: SocketAddr,
    certificate: Option<Certificate>,
    openings: JoinSet<io::Result<Connection>>,
    /// Where each comes from, and what ends it.
    handles: HashMap<Id, (Source, AbortHandle)>,
    /// Which of them makes room.
    crowd: Openings<Source, Id>,
    /// Who is not even taken.
    rush: Rush<Source>,
}

impl Listener {
    /// Binds. Port 0 takes a free one; see [`Listener::local_addr`]. Without a certificate there is no TLS.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(address: impl ToSocketAddrs, certificate: Option<Certificate>) -> io::Result<Self> {
        let inner = TcpListener::bind(address).await?;
        let local = inner.local_addr()?;
        Ok(Self {
            inner,
            local,
            certificate,
            openings: JoinSet::new(),
            handles: HashMap::new(),
            crowd: crowd(OPENINGS_MAX),
            rush: Rush::new(Instant::now()),
        })
    }

    /// Another bound than [`OPENINGS_MAX`], at least 1. Before the first connection.
    #[must_use]
    pub fn openings_max(mut self, max: usize) -> Self {
        self.crowd = crowd(max.max(1));
        self
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Connections whose opening is under way.
    pub fn openings(&self) -> usize {
        self.openings.len()
    }

    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        let certificate = self.certificate.clone();
        let opening = async move {
            timeout(OPENING_TIMEOUT, admit(stream, peer, certificate.as_ref()))
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
                .map_err(|error| aborted(peer, &error))
        };
        let source = Source::from(peer.ip());
        let handle = self.openings.spawn(opening);
        let evicted = self.crowd.enter(source, handle.id());
        self.handles.insert(handle.id(), (source, handle));
        if let Some((_, evicted)) = evicted.and_then(|evicted| self.handles.remove(&evicted)) {
            evicted.abort();
        }
    }

    /// An opening is over.
    fn end(&mut self, id: Id) {
        if let Some((source, _)) = self.handles.remove(&id) {
            self.crowd.leave(source, id);
        }
    }
}

fn crowd(max: usize) -> Openings<Source, Id> {
    Openings::new(OpeningsLimits {
        all: max,
        per_source: max,
    })
}

/// It concerns one connection only: the listener is as good as before.
fn aborted(peer: SocketAddr, error: &io::Error) -> io::Error {
    let text = format!("the connection from {peer} was not opened: {error}");
    io::Error::new(io::ErrorKind::ConnectionAborted, text)
}

impl Listen for Listener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            loop {
                tokio::select! {
                    // What is open goes first: else a crowd that opens faster than it is taken would pile up here.
                    biased;
                    Some(opened) = self.openings.join_next_with_id() => match opened {
                        Ok((id, opened)) => {
                            self.end(id);
                            return opened;
                        }
                        // One that was dropped for a newer one has nothing to tell.
                        Err(dropped) => self.end(dropped.id()),
                    },
                    accepted = self.inner.accept() => {
                        let (stream, peer) = accepted?;
                        // What is not taken costs an accept and a close.
                        if self.rush.takes(Instant::now(), Source::from(peer.ip())) {
                            self.begin(stream, peer);
                        }
                    }
                }
            }
        })
    }

    fn address(&self) -> String {
        self.local.to_string()
    }

    fn is_loopback(&self) -> bool {
        self.local.ip().is_loopback()
    }

    fn turned_away(&self) -> u64 {
        self.rush.turned_away()
    }
}

/// Makes a connection of an accepted socket, by what its first byte is. Deadlines are the caller's.
///
/// # Errors
/// What the system says, TLS or the WebSocket; the end of the connection before its first byte.
pub async fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    certificate: Option<&Certificate>,
) -> io::Result<Connection> {
    tcp::prepare(&stream)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    match (first[0], certificate) {
        (FIRST_OF_GET, _) => {
            let restraint = Restraint::of_an_opening();
            let stream = websocket::server(stream, restraint.clone()).await?;
            let peer_text = format!("{peer} ({})", Kind::of(Scheme::Ws));
            let connection = flushed::connection(stream, peer_text, Source::from(peer.ip()));
            Ok(Connection {
                restraint,
                ..connection
            })
        }
        (FIRST_OF_TLS, Some(certificate)) => {
            let restraint = Restraint::of_an_opening();
            let stream = certificate
                .accept(Restrained::new(stream, restraint.clone()))
                .await?;
            // What comes in TLS is handed on as it comes.
            restraint.lift();
            admit_tls(stream, peer).await
        }
        (FIRST_OF_TLS, None) => Err(io::Error::other(
            "it asks for TLS and there is no certificate: give one, or dial without TLS",
        )),
        // What is no preamble is found out by whoever reads it.
        _ => Ok(tcp::halves(stream, peer)),
    }
}

async fn admit_tls(mut stream: TlsStream<Restrained<TcpStream>>, peer: SocketAddr) -> io::Result<Connection> {
    let first = stream.read_u8().await?;
    let stream = Rewound {
        first: Some(first),
        inner: stream,
    };
    if first == FIRST_OF_GET {
        let restraint = Restraint::of_an_opening();
        let stream = websocket::server(stream, restraint.clone()).await?;
        let peer_text = format!("{peer} ({})", Kind::of(Scheme::Wss));
        let connection = flushed::connection(stream, peer_text, Source::from(peer.ip()));
        return Ok(Connection {
            restraint,
            weight: 3,
            ..connection
        });
    }
    Ok(flushed::connection(
        stream,
        format!("{peer} ({})", Kind::of(Scheme::Tls)),
        Source::from(peer.ip()),
    ))
}

impl Holding for TlsStream<TcpStream> {}

impl Holding for Rewound<TlsStream<Restrained<TcpStream>>> {}

/// A stream whose first byte has been looked at.
#[derive(Debug)]
struct Rewound<S> {
    first: Option<u8>,
    inner: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buf.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
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
