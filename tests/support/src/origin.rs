//! A web server of a test's own, which does what servers do to their clients.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// How long a connection may say nothing before its thread gives it up.
const QUIET: Duration = Duration::from_secs(60);
const PIECE_BYTES: usize = 64 * 1024;

/// An HTTP/1.1 server on loopback, a thread a connection.
///
/// | path | what it does |
/// |---|---|
/// | `/echo…` | answers with the request as it came |
/// | `/headers` | names twice, values that are no ASCII, a coding that is none |
/// | `/redirect/N` | N redirects, then `end` |
/// | `/loop` | a redirect to itself |
/// | `/to/STATUS` | a redirect of that number to `/echo/there` |
/// | `/large/N` | N bytes |
/// | `/held/N` | N bytes, the last of them once it is let go |
/// | `/endless` | bytes until its client is gone |
/// | `/begun` | `abc`, and then nothing until its client is gone |
/// | `/pieces` | `abc`, and `def` behind it once it is let go |
/// | `/never` | nothing until its client is gone |
/// | `/cut` | three bytes of ten |
/// | `/empty` | 204 |
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    open: watch::Sender<usize>,
    accepted: AtomicUsize,
    written: AtomicU64,
    go: Mutex<bool>,
    gone: Condvar,
    over: AtomicBool,
}

impl Counts {
    /// Waits until it is let go. Past the bound it goes on: a test that still waits fails by its own.
    fn wait(&self) {
        let held = self.go.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.gone.wait_timeout_while(held, QUIET, |go| !*go));
    }
}

/// Counts a connection as long as it is there.
struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

impl Origin {
    /// Listens.
    ///
    /// # Errors
    /// When there is no port or no thread.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let counts = Arc::<Counts>::default();
        let its = Arc::clone(&counts);
        std::thread::Builder::new()
            .name("origin".into())
            .spawn(move || accept(&listener, &its))?;
        Ok(Self { address, counts })
    }

    /// A URL on it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        *self.counts.open.borrow()
    }

    /// Returns once none is open. Cancellation safe.
    pub async fn closed(&self) {
        // An error is that nobody counts any more: then none is open.
        drop(self.counts.open.subscribe().wait_for(|open| *open == 0).await);
    }

    /// Connections that there were.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// Bytes of `/endless` that the system took.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.counts.written.load(Ordering::SeqCst)
    }

    /// Lets `/pieces` go on.
    pub fn go(&self) {
        *self.counts.go.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.counts.gone.notify_all();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.counts.over.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
    }
}

fn accept(listener: &TcpListener, counts: &Arc<Counts>) {
    while let Ok((stream, _)) = listener.accept() {
        if counts.over.load(Ordering::SeqCst) {
            return;
        }
        counts.open.send_modify(|open| *open += 1);
        counts.accepted.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(counts));
        let serve = move || {
            // A client that is gone is what some are for.
            drop(serve(stream, &open.0));
            drop(open);
        };
        if std::thread::Builder::new().spawn(serve).is_err() {
            return;
        }
    }
}

fn serve(mut stream: TcpStream, counts: &Counts) -> io::Result<()> {
    stream.set_read_timeout(Some(QUIET))?;
    let mut came = Vec::new();
    loop {
        let Some((head, body)) = request(&mut stream, &mut came)? else {
            return Ok(());
        };
        let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
        let (first, rest) = match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
            Some((first, rest)) => (first, rest),
            None => (path.trim_start_matches('/'), ""),
        };
        match first.split('?').next().unwrap_or_default() {
            "headers" => {
                let headers: [&[u8]; 7] = [
                    b"X-Two: a",
                    b"X-TWO: b",
                    b"X-Latin: caf\xe9",
                    b"X-Text: caf\xc3\xa9",
                    b"Set-Cookie: a=1",
                    b"Set-Cookie: b=2",
                    b"Content-Encoding: gzip",
                ];
                answer(&mut stream, "200 OK", &headers, b"\x1f\x8bnone")?;
            }
            "redirect" if rest == "0" => answer(&mut stream, "200 OK", &[], b"end")?,
            "redirect" => {
                let left = rest.parse::<u32>().unwrap_or(1) - 1;
                let location = format!("Location: /redirect/{left}");
                answer(&mut stream, "302 Found", &[location.as_bytes()], b"")?;
            }
            "loop" => answer(&mut stream, "302 Found", &[b"Location: /loop"], b"round")?,
            "to" => answer(
                &mut stream,
                &format!("{rest} On"),
                &[b"Location: /echo/there"],
                b"",
            )?,
            "large" => {
                let bytes = rest.parse().unwrap_or(0);
                answer(&mut stream, "200 OK", &[], &vec![b'x'; bytes])?;
            }
            "held" => {
                let bytes = rest.parse().unwrap_or(1);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                stream.write_all(head.as_bytes())?;
                stream.write_all(&vec![b'x'; bytes - 1])?;
                counts.wait();
                stream.write_all(b"x")?;
            }
            "endless" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                loop {
                    stream.write_all(&[b'x'; PIECE_BYTES])?;
                    counts.written.fetch_add(PIECE_BYTES as u64, Ordering::SeqCst);
                }
            }
            "begun" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")?;
                return gone(&mut stream);
            }
            "pieces" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")?;
                counts.wait();
                stream.write_all(b"def")?;
            }
            "never" => return gone(&mut stream),
            "cut" => return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
            "empty" => answer(&mut stream, "204 No Content", &[], b"")?,
            "echo" => {
                let whole = [head.as_bytes(), b"\r\n\r\n", &body].concat();
                answer(&mut stream, "200 OK", &[b"Content-Type: text/plain"], &whole)?;
            }
            _ => answer(&mut stream, "404 Not Found", &[], b"nothing here")?,
        }
    }
}

/// Waits until the client is gone.
fn gone(stream: &mut TcpStream) -> io::Result<()> {
    while stream.read(&mut [0; 1_024])? > 0 {}
    Ok(())
}

/// The next request: its head, and its body by its length.
fn request(stream: &mut TcpStream, came: &mut Vec<u8>) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        if let Some(at) = came.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&came[..at]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().ok())?
            });
            let end = at + 4 + length.unwrap_or(0);
            if came.len() >= end {
                let body = came[at + 4..end].to_vec();
                came.drain(..end);
                return Ok(Some((head, body)));
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(None),
            count => came.extend_from_slice(&buffer[..count]),
        }
    }
}

fn answer(stream: &mut TcpStream, status: &str, headers: &[&[u8]], body: &[u8]) -> io::Result<()> {
    let mut bytes = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    stream.write_all(&bytes)
}
