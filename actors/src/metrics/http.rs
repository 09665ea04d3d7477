//! The endpoint for whoever scrapes and probes: `/metrics`, `/livez`, `/readyz`.
//!
//! HTTP/1.1 as far as that needs it: one request a connection, no body, a few connections at a time, each within two
//! seconds and eight KiB. It has threads of its own, so that it answers when the actors do not, and so that whoever
//! keeps it busy keeps nothing else busy.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::text;

/// Bytes of a request, its headers included; longer ones are refused.
pub const REQUEST_MAX_BYTES: usize = 8 * 1024;
/// How long a connection may take for everything together.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections that are answered at the same time; more are closed as they come.
pub const CONNECTIONS_MAX: usize = 8;
/// Bytes that are read and thrown away behind an answer, so that it is not lost with the connection.
const LINGER_BYTES: usize = 64 * 1024;

/// Whether all is well, and what is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Well,
    /// One line for people.
    Ill(String),
}

/// What is served.
pub(crate) trait Source: Send + Sync {
    /// The metrics as text.
    fn metrics(&self) -> String;
    /// Whether the process still moves.
    fn live(&self) -> Verdict;
    /// Whether it serves.
    fn ready(&self) -> Verdict;
}

/// A running endpoint; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Http {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Http {
    /// Listens there; port 0 takes a free one.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(address: SocketAddr, source: Arc<dyn Source>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("dwell-metrics".into())
            .spawn(move || accept(&listener, &source, &stopping))?;
        Ok(Self { address, stop })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let mut wake = self.address;
        if wake.ip().is_unspecified() {
            wake.set_ip(match wake.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        // It waits for a connection: this is one.
        drop(TcpStream::connect_timeout(&wake, HTTP_TIMEOUT));
    }
}

/// Counts a connection while it lives.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, source: &Arc<dyn Source>, stop: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::Acquire) {
            return;
        }
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection to the metrics could not be accepted");
                // Without descriptors this would spin; a thread of its own may wait.
                std::thread::park_timeout(Duration::from_millis(100));
                continue;
            }
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (place, source) = (Place(Arc::clone(&open)), Arc::clone(source));
        let serving = std::thread::Builder::new()
            .name("dwell-metrics".into())
            .spawn(move || {
                if let Err(error) = serve(stream, source.as_ref()) {
                    tracing::debug!(%error, "a request for the metrics was not answered");
                }
                drop(place);
            });
        drop(serving);
    }
}

fn serve(mut stream: TcpStream, source: &dyn Source) -> io::Result<()> {
    let ends = Instant::now() + HTTP_TIMEOUT;
    let mut request = Vec::new();
    let head = loop {
        if let Some(end) = head_end(&request) {
            break Some(end);
        }
        if request.len() >= REQUEST_MAX_BYTES {
            break None;
        }
        let mut buffer = [0; 1024];
        stream.set_read_timeout(Some(left(ends)?))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&buffer[..read]),
        }
    };
    let (status, kind, body) = match head {
        Some(end) => answer(&request[..end], source),
        None => (
            "431 Request Header Fields Too Large",
            PLAIN,
            "the request is too long\n".to_owned(),
        ),
    };
    let without_body = request.starts_with(b"HEAD ");
    let mut response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if !without_body {
        response.extend_from_slice(body.as_bytes());
    }
    write_all(&mut stream, &response, ends)?;
    stream.shutdown(Shutdown::Write)?;
    linger(&mut stream, ends)
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn answer(head: &[u8], source: &dyn Source) -> (&'static str, &'static str, String) {
    let bad = |what: &str| ("400 Bad Request", PLAIN, format!("{what}\n"));
    let Some(line) = head
        .split(|byte| *byte == b'\r')
        .next()
        .and_then(|line| std::str::from_utf8(line).ok())
    else {
        return bad("the request line is no text");
    };
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return bad("the request line has not three words");
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return (
            "505 HTTP Version Not Supported",
            PLAIN,
            "HTTP/1.1 is spoken here\n".into(),
        );
    }
    if !matches!(method, "GET" | "HEAD") {
        return ("405 Method Not Allowed", PLAIN, "only GET and HEAD\n".into());
    }
    let path = target.split('?').next().unwrap_or_default();
    let verdict = match path {
        "/metrics" => return ("200 OK", text::CONTENT_TYPE, source.metrics()),
        "/livez" => source.live(),
        "/readyz" => source.ready(),
        _ => {
            return (
                "404 Not Found",
                PLAIN,
                "there are /metrics, /livez and /readyz\n".into(),
            );
        }
    };
    match verdict {
        Verdict::Well => ("200 OK", PLAIN, "ok\n".into()),
        Verdict::Ill(why) => ("503 Service Unavailable", PLAIN, why + "\n"),
    }
}

fn head_end(request: &[u8]) -> Option<usize> {
    request.windows(4).position(|four| four == b"\r\n\r\n")
}

fn left(ends: Instant) -> io::Result<Duration> {
    let left = ends.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(ErrorKind::TimedOut, "it took too long"));
    }
    Ok(left)
}

/// As `Write::write_all`, within what time is left: a reader that takes one byte a second does not get more of it.
fn write_all(stream: &mut TcpStream, mut bytes: &[u8], ends: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(ends)?))?;
        match stream.write(bytes)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// With unread bytes in it the kernel would end the connection with a reset, which destroys the answer.
fn linger(stream: &mut TcpStream, ends: Instant) -> io::Result<()> {
    let (mut buffer, mut thrown) = ([0; 4096], 0);
    while thrown < LINGER_BYTES {
        stream.set_read_timeout(Some(left(ends)?))?;
        match stream.read(&mut buffer)? {
            0 => break,
            read => thrown += read,
        }
    }
    Ok(())
}
