//! Certificates, pairs of connections, and a WebSocket peer that writes whatever frames it is told to.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use dwell_relay::driver::net::{self, Listener};
use dwell_relay::driver::tls::{Certificate, Trust};
use dwell_relay::driver::{Connection, Listen as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No test takes this long; a hang fails it.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Within [`BOUND`].
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, what).await.expect("in time")
}

/// What an authority of the test's own issued, as both sides take it.
pub(crate) struct Authority(dwell_testkit::Authority);

impl Authority {
    pub(crate) fn new() -> Self {
        Self(dwell_testkit::Authority::new().unwrap())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.file(name)
    }

    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::load(&self.file("cert.pem"), &self.file("key.pem")).unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::load(&self.file("ca.pem")).unwrap()
    }
}

/// The schemes that [`pair`] knows.
pub(crate) const SCHEMES: [&str; 4] = ["tcp", "tls", "ws", "wss"];

/// Both ends of a connection of that scheme: dialled, accepted.
pub(crate) async fn pair(scheme: &str) -> (Connection, Connection) {
    let authority = Authority::new();
    let mut listener = Listener::bind("127.0.0.1:0", Some(authority.certificate()))
        .await
        .unwrap();
    let address = format!("{scheme}://{}", listener.address());
    let trust = authority.trust();
    let mut dialled = std::pin::pin!(net::dial(&address, &trust));
    // TCP and TLS are admitted with their first byte of content, which is the dialler's.
    if matches!(scheme, "tcp" | "tls") {
        let accept = async {
            let accepted = listener.accept().await.unwrap();
            let mut accepted = accepted;
            let mut first = [0];
            accepted.reader.read_exact(&mut first).await.unwrap();
            accepted
        };
        let dial = async {
            let mut dialled = dialled.await.unwrap();
            dialled.writer.write_all(b"d").await.unwrap();
            dialled.writer.flush().await.unwrap();
            dialled
        };
        return soon(async { tokio::join!(dial, accept) }).await;
    }
    let (dialled, accepted) = soon(async { tokio::join!(&mut dialled, listener.accept()) }).await;
    let accepted = accepted.unwrap();
    accepted.restraint.lift();
    (dialled.unwrap(), accepted)
}

/// A client whose frames are made by hand.
pub(crate) struct Raw {
    pub(crate) socket: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    /// Upgraded, and the server's end of it, which knows who it is.
    pub(crate) async fn upgraded() -> (Self, Connection) {
        let (raw, accepted) = Self::upgraded_stranger().await;
        accepted.restraint.lift();
        (raw, accepted)
    }

    /// Upgraded, and the server's end of it.
    pub(crate) async fn upgraded_stranger() -> (Self, Connection) {
        let mut listener = Listener::bind("127.0.0.1:0", None).await.unwrap();
        let address = listener.address();
        let dial = async {
            let mut raw = Self::connect(&address).await;
            raw.socket.write_all(&request(&address, "")).await.unwrap();
            let head = raw.head().await;
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            raw
        };
        let (raw, accepted) = soon(async { tokio::join!(dial, listener.accept()) }).await;
        (raw, accepted.unwrap())
    }

    pub(crate) async fn connect(address: &str) -> Self {
        Self {
            socket: TcpStream::connect(address).await.unwrap(),
            read: Vec::new(),
        }
    }

    /// The answer's head; empty when the connection ends first.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.read.split_off(end + 4);
                let head = std::mem::replace(&mut self.read, rest);
                return String::from_utf8(head).unwrap();
            }
            if self.more().await.unwrap_or(0) == 0 {
                return String::new();
            }
        }
    }

    async fn more(&mut self) -> io::Result<usize> {
        soon(self.socket.read_buf(&mut self.read)).await
    }

    /// Sends a masked frame. `first` is its first byte: FIN and the opcode.
    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        self.socket.write_all(&frame(first, payload)).await
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The next frame's opcode and payload; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(found) = self.parse() {
                return Some(found);
            }
            if self.more().await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    fn parse(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, short) = (*self.read.first()?, *self.read.get(1)?);
        let (begin, length) = match short {
            126 => {
                let bytes = self.read.get(2..4)?;
                (4, usize::from(u16::from_be_bytes(bytes.try_into().ok()?)))
            }
            127 => {
                let bytes = self.read.get(2..10)?;
                (
                    10,
                    usize::try_from(u64::from_be_bytes(bytes.try_into().ok()?)).ok()?,
                )
            }
            short => (2, usize::from(short)),
        };
        let payload = self.read.get(begin..begin + length)?.to_vec();
        self.read.drain(..begin + length);
        Some((first & 0x0f, payload))
    }

    /// The code of the close that comes, whatever comes before it; `None` at the end without one.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        while let Some((opcode, payload)) = self.next().await {
            if opcode == CLOSE & 0x0f {
                let code = payload.get(..2)?;
                return Some(u16::from_be_bytes(code.try_into().ok()?));
            }
        }
        None
    }
}

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const BINARY_BEGINS: u8 = 0x02;
pub(crate) const CONTINUES: u8 = 0x00;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// A masked frame's head for that many bytes.
pub(crate) fn frame_head(first: u8, length: usize) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..126 => head.push(0x80 | length as u8),
        126..65_536 => {
            head.push(0x80 | 126);
            head.extend((length as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend((length as u64).to_be_bytes());
        }
    }
    // A mask of zeroes leaves the payload as it is.
    head.extend([0; 4]);
    head
}

pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_head(first, payload.len());
    bytes.extend_from_slice(payload);
    bytes
}

/// A request for a WebSocket, with more headers.
pub(crate) fn request(host: &str, more: &str) -> Vec<u8> {
    format!(
        "GET /any/path HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Bytes that differ by place.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}
