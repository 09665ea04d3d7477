//! Small HTTP servers for exporters: one that keeps what it gets, and those that misbehave.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

/// What a server does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Takes it and says so.
    Takes,
    /// Takes it and answers with this status.
    Answers(u16),
    /// Reads nothing and says nothing.
    Hangs,
    /// Reads the head, one byte of the body, and then no more.
    ReadsSlowly,
    /// Closes when it has read the head.
    Breaks,
    /// Answers something that is no HTTP.
    Babbles,
}

/// A server on loopback; its threads end with their connections.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    bodies: Mutex<Vec<Vec<u8>>>,
    connections: AtomicUsize,
    /// Connections that are kept open for as long as the server is known to anybody.
    held: Mutex<Vec<TcpStream>>,
    manner: Mutex<Manner>,
}

impl Server {
    pub(crate) fn start(manner: Manner) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap(), manner)
    }

    pub(crate) fn at(listener: TcpListener, manner: Manner) -> Self {
        let shared = Arc::new(Shared {
            bodies: Mutex::default(),
            connections: AtomicUsize::new(0),
            held: Mutex::default(),
            manner: Mutex::new(manner),
        });
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// All bodies so far, one behind the other.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.shared.bodies.lock().unwrap().concat()
    }

    pub(crate) fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let bodies = self.shared.bodies.lock().unwrap();
        bodies
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(body.as_slice()).unwrap())
            .collect()
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.requests().into_iter();
        requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            if *self.manner.lock().unwrap() == Manner::Hangs {
                self.held.lock().unwrap().push(stream);
                return Ok(());
            }
            let Some(length) = head(&mut stream)? else {
                return Ok(());
            };
            // As of now: the connection may be older than the request.
            let manner = *self.manner.lock().unwrap();
            match manner {
                Manner::Breaks => return Ok(()),
                Manner::ReadsSlowly => {
                    stream.read_exact(&mut [0])?;
                    self.held.lock().unwrap().push(stream);
                    return Ok(());
                }
                Manner::Babbles => {
                    stream.write_all(b"\0\xff what is this \r\n\r\n")?;
                    return Ok(());
                }
                Manner::Takes | Manner::Answers(_) | Manner::Hangs => {}
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body)?;
            let status = match manner {
                Manner::Answers(status) => status,
                _ => {
                    self.bodies.lock().unwrap().push(body);
                    200
                }
            };
            stream.write_all(format!("HTTP/1.1 {status} so\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
        }
    }
}

/// Reads a request's head and gives its body's length; `None` when the peer is done.
fn head(stream: &mut TcpStream) -> std::io::Result<Option<usize>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse().ok());
    Ok(Some(length.unwrap_or(0)))
}
