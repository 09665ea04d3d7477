//! Connections inside one process: all three roles, one test or one demo.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{duplex, split};
use tokio::sync::mpsc;

use super::{BoxFuture, Connection, Dial, Listen, Restraint};
use crate::source::Source;

/// Bytes in flight each way before a writer waits.
pub const PIPE_BYTES: usize = 256 * 1024;
/// Connections that wait to be accepted.
pub const BACKLOG_MAX: usize = 128;

/// Two ends of one connection.
pub fn pair() -> (Connection, Connection) {
    pair_named("memory", "memory")
}

fn pair_named(first_peer: &str, second_peer: &str) -> (Connection, Connection) {
    let (first, second) = duplex(PIPE_BYTES);
    let end = |stream, peer: &str| {
        let (reader, writer) = split(stream);
        Connection {
            reader: Box::new(reader),
            writer: Box::new(writer),
            peer: peer.to_owned(),
            source: Source::Local,
            restraint: Restraint::default(),
            weight: 1,
        }
    };
    (end(first, first_peer), end(second, second_peer))
}

/// Names and who listens on them. Clones share the names.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    names: Arc<Mutex<HashMap<String, mpsc::Sender<Connection>>>>,
}

impl Hub {
    /// A hub on which nobody listens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens under a name until the listener is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`].
    pub fn listen(&self, name: &str) -> io::Result<MemoryListener> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.get(name).is_some_and(|sender| !sender.is_closed()) {
            return Err(io::Error::from(io::ErrorKind::AddrInUse));
        }
        let (sender, accepts) = mpsc::channel(BACKLOG_MAX);
        names.insert(name.to_owned(), sender);
        Ok(MemoryListener {
            name: name.to_owned(),
            accepts,
        })
    }

    /// Connects to a name; waits while its backlog is full.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionRefused`] when nobody listens.
    pub async fn connect(&self, name: &str) -> io::Result<Connection> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let sender = {
            let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.get(name).cloned().ok_or_else(refused)?
        };
        let (dialled, accepted) = pair_named(name, "memory");
        sender.send(accepted).await.map_err(|_| refused())?;
        Ok(dialled)
    }
}

impl Dial for Hub {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(self.connect(address))
    }
}

/// Accepts what connects to one name of a [`Hub`].
#[derive(Debug)]
pub struct MemoryListener {
    name: String,
    accepts: mpsc::Receiver<Connection>,
}

impl Listen for MemoryListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
            self.accepts.recv().await.ok_or_else(broken)
        })
    }

    fn address(&self) -> String {
        self.name.clone()
    }

    fn is_loopback(&self) -> bool {
        true
    }
}
